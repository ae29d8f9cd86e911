//! Programs in C, which know nothing of the Rust declarations, against the simulators.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Compiles a program of `tests/c` against a library.
fn compile(directory: &Path, source: &str, library: &Path) -> PathBuf {
    let program = directory.join(source);
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source).with_extension("c");
    // The library has no soname: the program remembers the path that it was linked with.
    let status = Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&program, &source])
        .arg(library)
        .status()
        .expect("a C compiler is installed");
    assert!(status.success(), "{} does not compile", source.display());
    program
}

fn succeed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_c_program_archives_lists_retrieves_and_deletes() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = directory.path().join("server");
    sim_tsm::register_node(&server, "cnode", "cpass", "").expect("registered");
    let library = sim_tsm::library().expect("the simulator is built");
    let program = compile(directory.path(), "tsm", &library);
    let run = || {
        let mut command = Command::new(&program);
        command.args(["cnode", "cpass"]).env("TSM_SIM_DIR", &server);
        command.output().expect("started")
    };
    let first = succeed(&run());
    assert_eq!(first.len(), 16, "a checksum: {first}");
    // The filespace outlives the process: a second run does not find it missing, as it expects.
    let second = run();
    let errors = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && errors.contains("is 2301, not 2061"), "{errors}");
}
