//! A Lustre library from before 2.7. A program of its own, since a library is loaded once.

use std::path::Path;

use tsm_bindings::LoadError;
use tsm_bindings::lustre::{Error, Lustre};

#[test]
fn what_it_lacks_is_said_when_it_is_needed_and_not_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let library = sim_lustre::library_before_layouts(directory.path()).expect("made");
    let lustre = Lustre::load(Some(&library)).expect("enough for all else");
    assert!(lustre.fid(Path::new("/")).is_err());
    let error = lustre.has_layouts().expect_err("they are not there");
    let LoadError::Symbols { path, missing, .. } = &error else { panic!("{error}") };
    assert_eq!(path, &library);
    assert_eq!(missing.len(), 6, "all of them are listed: {error}");
    assert!(missing.contains(&"llapi_layout_file_open".to_owned()), "{error}");
    assert_eq!(lustre.new_layout().expect_err("neither"), Error::Load(error));
}
