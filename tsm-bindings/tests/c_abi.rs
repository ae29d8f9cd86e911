//! Programs in C, which know nothing of the Rust declarations, against the simulators.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tsm_bindings::lustre::Lustre;
use tsm_bindings::tsm::{ArchivedObject, Credentials, Login, NamePattern, QueryFilter, Start, Tsm};

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

/// Waits for what another process does; it says nothing when it does it.
fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes of each transaction under way.
fn spooled(server: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(server.join("spool")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("data").metadata().map_or(0, |meta| meta.len())).collect()
}

#[test]
fn a_c_program_archives_lists_retrieves_and_deletes() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = directory.path().join("server");
    sim_tsm::register_node(&server, "cnode", "cpass", "").expect("registered");
    let library = sim_tsm::library().expect("the simulator is built");
    let program = compile(directory.path(), "tsm", &library);
    let command = |filespace: &str| {
        let mut command = Command::new(&program);
        command.args(["cnode", "cpass", filespace]).env("TSM_SIM_DIR", &server);
        command
    };

    // Killed while it sends, it leaves nothing but what the next one sweeps away.
    let slowly = |settings: &str| {
        sim_tsm::register_node(&server, "cnode", "cpass", settings).expect("registered");
    };
    slowly("delay dsmSendData 500");
    let mut child = command("/killed").spawn().expect("started");
    until(|| spooled(&server).iter().any(|&bytes| bytes > 0));
    child.kill().expect("killed");
    child.wait().expect("ended");
    slowly("");

    let checksum = succeed(&command("/c").output().expect("started"));
    assert_eq!(checksum.len(), 16, "{checksum}");
    assert_eq!(spooled(&server), []);

    // What the program has left in the archive is there for another process.
    let start =
        Start { library: Some(library), directory: Some(server.clone()), ..Start::default() };
    let tsm = Tsm::start(&start).expect("started");
    let credentials = Credentials::Password { node: "cnode", password: b"cpass" };
    let login = Login { credentials, server: None };
    let mut session = tsm.sign_on(&login).expect("signed on");
    let mut list = |fs: &[u8]| -> Vec<ArchivedObject> {
        let all = NamePattern::new(fs, b"/*", b"/*", None).expect("a pattern");
        let query = session.query(&all, &QueryFilter::default()).expect("begun");
        query.collect::<Result<_, _>>().expect("listed")
    };
    assert_eq!(list(b"/killed"), []);
    let objects = list(b"/c");
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

#[test]
fn requests_outlive_the_process_that_had_the_copytool() {
    let directory = tempfile::tempdir().expect("a directory");
    let mount = directory.path().join("mount");
    sim_lustre::configure(&mount, "copytool hold").expect("configured");
    let file = mount.join("file");
    std::fs::write(&file, b"content").expect("written");
    let library = sim_lustre::library().expect("the simulator is built");
    let program = compile(directory.path(), "lustre", &library);
    let mut child = Command::new(program).args([&mount, &file, &file]).spawn().expect("started");
    // Not asked by the library: this process must not become the coordinator first.
    let queue = mount.join(sim_lustre::STATE).join("queue");
    until(|| std::fs::read_dir(&queue).is_ok_and(|mut entries| entries.next().is_some()));
    let lustre = Lustre::load(Some(&library)).expect("loaded");
    let action = || lustre.current_action(&file).expect("known");
    until(|| action().is_some_and(|action| action.running));
    child.kill().expect("killed");
    child.wait().expect("ended");
    sim_lustre::configure(&mount, "").expect("configured");
    until(|| lustre.state(&file).expect("known").flags.is_archived());
    until(|| action().is_none());
}
