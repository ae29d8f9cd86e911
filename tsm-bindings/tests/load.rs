//! What is said when a library is not there or is another one.

use std::path::{Path, PathBuf};

use tsm_bindings::LoadError;
use tsm_bindings::lustre::Lustre;
use tsm_bindings::tsm::{Start, StartError, Tsm};

fn start(library: &str) -> LoadError {
    let start = Start { library: Some(PathBuf::from(library)), ..Start::default() };
    match Tsm::start(&start).expect_err("not the TSM library") {
        StartError::Load(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_tsm_library_is_named_with_the_linker_s_reason_and_the_cure() {
    let error = start("/nonexistent/libApiTSM64.so");
    let LoadError::NotFound { tried, .. } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 1);
    assert_eq!(tried[0].0, PathBuf::from("/nonexistent/libApiTSM64.so"));
    assert!(tried[0].1.contains("No such file"), "{}", tried[0].1);
    let text = error.to_string();
    for part in ["/nonexistent/libApiTSM64.so", "TIVsm-API64", "FSQD_TSM_LIBRARY"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn another_library_is_told_by_what_it_lacks() {
    let error = start("libc.so.6");
    let LoadError::Symbols { missing, .. } = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 25, "all of them are listed");
    assert!(error.to_string().contains("dsmInitEx"), "{error}");
}

#[test]
fn a_missing_lustre_library_is_named_too() {
    let error = Lustre::load(Some(Path::new("/nonexistent/lustre.so"))).expect_err("missing");
    let text = error.to_string();
    for part in ["/nonexistent/lustre.so", "lustre-client", "FSQD_LUSTRE_LIBRARY"] {
        assert!(text.contains(part), "{text}");
    }
    let error = Lustre::load(Some(Path::new("libc.so.6"))).expect_err("another library");
    assert!(matches!(error, LoadError::Symbols { .. }), "{error}");
}
