//! The command `fsqc`, end to end against the server double.

mod double;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use double::{Act, Double, noise};
use fsq::Op;
use serde_json::Value;

const PASSWORD: &str = "correct-horse";

/// `fsqc` for this server with the options that are always needed, tuned to fail fast.
fn fsqc(port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsqc"));
    command
        .args(["-f", "/lustre", "-a", "/lustre/run42/", "-n", "polaris", "-s", "localhost"])
        .args(["-P", &port.to_string()])
        .env("FSQ_PASSWORD", PASSWORD)
        .env("FSQ_REPLY_TIMEOUT_MS", "20000")
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn write(directory: &Path, name: &str, content: &[u8]) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn files_of_any_size_arrive_in_one_session() {
    let (double, home) = (Double::good(), tempfile::tempdir().unwrap());
    let contents = [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000]
        .map(|len| noise(len as u64 + 1, len));
    let mut command = fsqc(double.port);
    command.args(["-o", "lustre"]);
    for (i, content) in contents.iter().enumerate() {
        write(home.path(), &i.to_string(), content);
        command.arg(home.path().join(i.to_string()));
    }
    assert_eq!(run(&mut command), (0, String::new(), String::new()));
    double.wait_ended(1);
    let files = double.files();
    assert_eq!((files.len(), double.logins().len()), (contents.len(), 1));
    for (i, (file, content)) in files.iter().zip(&contents).enumerate() {
        assert!(file.bytes == *content && file.is_acknowledged, "file {i}");
        assert_eq!((file.fs.as_str(), file.dest), ("/lustre", 2));
        assert_eq!(file.path, format!("/lustre/run42/{i}"));
    }
    assert_eq!(files[6].sizes[..4], [1 << 20; 4], "whole chunks");
}

#[test]
fn a_chunk_is_as_long_as_asked() {
    let (double, home) = (Double::good(), tempfile::tempdir().unwrap());
    let content = noise(1, 1_000_000);
    write(home.path(), "file", &content);
    let mut command = fsqc(double.port);
    command.args(["--chunk-bytes", "131072"]).arg(home.path().join("file"));
    assert_eq!(run(&mut command).0, 0);
    assert!(double.files()[0].bytes == content);
    assert_eq!(double.files()[0].sizes[..7], [131_072; 7]);
    assert_eq!(double.files()[0].dest, 4, "to Lustre and the archive unless told otherwise");
}

#[test]
fn standard_input_is_sent_as_older_scripts_ask() {
    for len in [0, 100, 3_000_000] {
        let double = Double::good();
        let content = noise(2, len);
        let mut command = fsqc(double.port);
        let mut child =
            command.args(["--pipe", "-l", "name"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&content).unwrap();
        assert!(child.wait().unwrap().success());
        let file = double.files().pop().unwrap();
        assert!(file.bytes == content && file.is_acknowledged);
        assert_eq!(file.path, "/lustre/run42/name");
    }
}

#[test]
fn a_directory_keeps_its_structure_and_links_are_left_out() {
    let (double, home) = (Double::good(), tempfile::tempdir().unwrap());
    let root = home.path().join("data");
    for name in ["b/2", "a", "b/1", "b/c/3", "z"] {
        write(&root, name, name.as_bytes());
    }
    symlink("/etc/passwd", root.join("b/link")).unwrap();
    symlink("..", root.join("loop")).unwrap();
    let mut command = fsqc(double.port);
    let (code, _, stderr) = run(command.arg("-r").arg(&root));
    assert_eq!(code, 0);
    let paths: Vec<_> = double.files().into_iter().map(|file| file.path).collect();
    let expected = ["a", "z", "b/1", "b/2", "b/c/3"];
    assert_eq!(paths, expected.map(|name| format!("/lustre/run42/data/{name}")));
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines.iter().all(|line| line.contains("a symbolic link")), "{stderr}");

    // Not asked for, it is refused by name, and the others go through.
    write(home.path(), "file", b"x");
    let mut command = fsqc(double.port);
    let (code, _, stderr) = run(command.arg(&root).arg(home.path().join("file")));
    assert_eq!(code, 1);
    assert!(stderr.contains("data' was not sent: is a directory, use --recursive"), "{stderr}");
    assert_eq!(double.files().last().unwrap().path, "/lustre/run42/file");
}

#[test]
fn a_bad_file_does_not_stop_the_next() {
    let home = tempfile::tempdir().unwrap();
    let double = Double::scripted(|op, nth| match (op, nth) {
        (Op::Open, 0) => Act::Refuse(17, "the file exists"),
        (Op::Data, 3) => Act::Refuse(28, "staging is full"),
        _ => Act::Grant,
    });
    for name in ["exists", "full", "good"] {
        write(home.path(), name, &noise(1, 6 << 20));
    }
    let mut command = fsqc(double.port);
    command.arg("--json");
    for name in ["exists", "absent", "full", "good"] {
        command.arg(home.path().join(name));
    }
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 1);
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "one line per failure: {stderr}");
    assert!(lines[0].contains("exists' was not sent:") && lines[0].contains("the file exists"));
    assert!(lines[1].contains("absent' was not sent: No such file"));
    assert!(lines[2].contains("full' was not sent:") && lines[2].contains("staging is full"));
    let objects = objects(&stdout);
    let ok: Vec<_> = objects.iter().map(|object| object["ok"].as_bool().unwrap()).collect();
    assert_eq!(ok, [false, false, false, true]);
    assert!(objects[2]["error"].as_str().unwrap().contains("staging is full"));
    let good = &objects[3];
    assert_eq!(good["source"], home.path().join("good").to_str().unwrap());
    assert_eq!(good["destination"], "/lustre/run42/good");
    assert_eq!((&good["bytes"], &good["error"]), (&Value::from(6 << 20), &Value::Null));
    assert!(good["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(double.logins().len(), 1, "one session is enough");
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_not_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("growing");
    write(home.path(), "growing", &noise(1, 40 << 20));
    write(home.path(), "next", b"next");
    let victim = path.clone();
    // More than the chunks in circulation and the buffers on the way lie behind the first DATA.
    let double = Double::scripted(move |op, nth| {
        if (op, nth) == (Op::Data, 0) {
            fs::OpenOptions::new().append(true).open(&victim).unwrap().write_all(b"more").unwrap();
        }
        Act::Grant
    });
    let mut command = fsqc(double.port);
    let (code, _, stderr) = run(command.arg(&path).arg(home.path().join("next")));
    assert_eq!(code, 1);
    assert!(stderr.contains("growing' was not sent: changed while it was read"), "{stderr}");
    double.wait_ended(2);
    let files = double.files();
    assert!(!files[0].is_acknowledged && files[1].is_acknowledged);
    assert_eq!(files[1].path, "/lustre/run42/next");
}

#[test]
fn a_lost_connection_ends_the_run() {
    let home = tempfile::tempdir().unwrap();
    let double = Double::scripted(|op, nth| match (op, nth) {
        (Op::Close, 1) => Act::Vanish,
        _ => Act::Grant,
    });
    let mut command = fsqc(double.port);
    command.arg("--json");
    for name in ["a", "b", "c", "d"] {
        write(home.path(), name, &noise(1, 3 << 20));
        command.arg(home.path().join(name));
    }
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, 3);
    let ok: Vec<_> = objects(&stdout).iter().map(|object| object["ok"] == true).collect();
    assert_eq!(ok, [true, false, false, false]);
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].contains("b' was not sent: lost the connection"), "{stderr}");
    assert!(lines[1].contains("2 files were not tried"), "{stderr}");
}

#[test]
fn a_server_that_cannot_be_used_is_status_3() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "a", b"a");
    let double = Double::scripted(|_, _| Act::Refuse(13, "unknown node, password correct-horse"));
    let mut command = fsqc(double.port);
    let (code, stdout, stderr) = run(command.arg("--json").arg(home.path().join("a")));
    assert_eq!(code, 3);
    assert!(stderr.contains("refused CONNECT: unknown node, password ***"), "{stderr}");
    assert_eq!(objects(&stdout)[0]["ok"], false);

    // Port 1 of the loopback is nobody's.
    let (code, _, stderr) = run(fsqc(1).arg(home.path().join("a")));
    assert_eq!(code, 3);
    assert!(stderr.contains("cannot connect to localhost:1: Connection refused"), "{stderr}");
}

#[test]
fn passwords_come_from_three_places_and_are_never_shown() {
    let (double, home) = (Double::good(), tempfile::tempdir().unwrap());
    write(home.path(), "a", b"a");
    write(home.path(), "password", b"from-file\nrest");
    let file = home.path().join("password");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let data = home.path().join("a");
    let quiet = run(fsqc(double.port).arg("--password-file").arg(&file).arg(&data));
    assert_eq!(quiet, (0, String::new(), String::new()));
    let (code, _, stderr) = run(fsqc(double.port).args(["-p", "from-command-line"]).arg(&data));
    assert_eq!((code, stderr.lines().count()), (0, 1));
    assert!(stderr.contains("warning: a password on the command line"), "{stderr}");
    assert!(!stderr.contains("from-command-line"));
    assert_eq!(run(fsqc(double.port).arg(&data)).0, 0);
    let passwords: Vec<_> = double.logins().into_iter().map(|login| login.password).collect();
    assert_eq!(passwords, ["from-file", "from-command-line", PASSWORD]);

    let (code, _, stderr) = run(fsqc(double.port).env_remove("FSQ_PASSWORD").arg(&data));
    assert_eq!(code, 2);
    assert!(stderr.contains("no password: use --password-file"), "{stderr}");
}

#[test]
fn usage_errors_are_status_2() {
    for more in [&["-a", "/other", "x"][..], &[], &["--pipe"], &["-o", "disk", "x"], &["--no"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fsqc"));
        command.args(["-f", "/lustre", "-n", "n", "-p", "p", "-s", "localhost"]).args(more);
        assert_eq!(run(&mut command).0, 2, "{more:?}");
    }
    let mut command = fsqc(1);
    let (code, _, stderr) = run(command.env("FSQ_WINDOW", "many").arg("x"));
    assert_eq!(code, 2);
    assert!(stderr.contains("FSQ_WINDOW='many'"), "{stderr}");
    let (code, stdout, _) = run(Command::new(env!("CARGO_BIN_EXE_fsqc")).arg("--help"));
    assert_eq!(code, 0);
    assert!(stdout.contains("Exit status: 0 every file was acknowledged"), "{stdout}");
}
