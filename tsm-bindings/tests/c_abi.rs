//! Programs in C, which know nothing of the Rust declarations, against the simulators.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tsm_bindings::tsm::{Credentials, Login, NamePattern, QueryFilter, Start, Tsm};

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
    let mut command = Command::new(program);
    let output = command.args(["cnode", "cpass"]).env("TSM_SIM_DIR", &server).output();
    let checksum = succeed(&output.expect("started"));
    assert_eq!(checksum.len(), 16, "{checksum}");

    // What the program has left in the archive is there for another process.
    let start =
        Start { library: Some(library), directory: Some(server.clone()), ..Start::default() };
    let tsm = Tsm::start(&start).expect("started");
    let credentials = Credentials::Password { node: "cnode", password: b"cpass" };
    let login = Login { credentials, server: None };
    let mut session = tsm.sign_on(&login).expect("signed on");
    let all = NamePattern::new(b"/c", b"/*", b"/*", None).expect("a pattern");
    let query = session.query(&all, &QueryFilter::default()).expect("begun");
    let objects: Vec<_> = query.map(|object| object.expect("listed")).collect();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].name.ll(), b"/empty");
    assert_eq!(objects[0].description, b"from C");
}

#[test]
fn a_c_program_archives_a_file_of_lustre() {
    let directory = tempfile::tempdir().expect("a directory");
    let mount = directory.path().join("mount");
    sim_lustre::configure(&mount, "delay copytool 20").expect("configured");
    let (file, elsewhere) = (mount.join("file"), directory.path().join("elsewhere"));
    std::fs::write(&file, b"whole content").expect("written");
    std::fs::write(&elsewhere, b"").expect("written");
    let library = sim_lustre::library().expect("the simulator is built");
    let program = compile(directory.path(), "lustre", &library);
    let mut command = Command::new(program);
    let output = command.args([&mount, &file, &elsewhere]).output().expect("started");
    let said = succeed(&output);
    let mut numbers = said.split(' ').map(|word| u64::from_str_radix(word, 16).expect("hex"));
    let (seq, oid) = (numbers.next().expect("sequence"), numbers.next().expect("object"));
    let copy = sim_lustre::archived_copy(&mount, seq, oid as u32);
    assert_eq!(std::fs::read(copy).expect("a copy"), b"whole content");
    assert!(output.stderr.is_empty(), "the library was told to be silent");
}
