//! The probes on a directory of this machine: that they move what they say, and clean up.

use std::io::Read;

use super::*;

fn limits(dir: &Path) -> Limits {
    Limits {
        staging: dir.to_owned(),
        target: Some(dir.to_owned()),
        connections: 3,
        chunk_bytes: 100_000,
        time: Duration::from_secs(10),
        volume_bytes: 6 << 20,
        small_bytes: 4096,
    }
}

fn scratch_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn all_probes_run_and_leave_nothing_behind() {
    let dir = scratch_dir();
    let limits = Limits { time: Duration::from_millis(100), ..limits(dir.path()) };
    let found = limits.probe().expect("the probes run");
    let names: Vec<_> = found.rates.iter().map(|rate| rate.name).collect();
    let expected =
        ["loopback", "exchange", "staging write", "both together", "staging read", "target write"];
    assert_eq!(names, expected);
    assert!(found.rates.iter().all(|rate| rate.bytes_per_s > 0.0), "{found}");
    assert!(found.end_to_end.as_ref().is_some_and(|rate| rate.bytes_per_s > 0.0), "{found}");
    assert!(found.small_files.files_per_s > 0.0 && found.small_files.times.count() > 0);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);

    let smallest = found.smallest().expect("there are some");
    assert!(found.rates.iter().all(|rate| rate.bytes_per_s >= smallest.bytes_per_s));
    assert!(found.to_string().contains(&format!("({})", smallest.name)));
    assert_eq!(found.to_json()["rates"].as_array().map(Vec::len), Some(6));
}

#[test]
fn what_is_received_is_what_is_written() {
    let dir = scratch_dir();
    let path = dir.path().join("sink");
    let block_bytes = 64 << 10;
    let content: Vec<u8> =
        (0..3 * block_bytes as u64).map(|byte| crate::size::mixed(3, byte) as u8).collect();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut sender = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (receiver, _) = listener.accept().expect("a connection");
    let (sink, _) = open(&path, OpenOptions::new().write(true).create_new(true)).expect("a file");
    let lane =
        Lane { source: Source::Socket(receiver), sink: Some(sink), len: content.len() as u64 };
    let end = Instant::now() + Duration::from_secs(20);
    let moved = thread::scope(|scope| {
        scope.spawn(|| {
            // In pieces that fit no block.
            for piece in content.chunks(10_007) {
                sender.write_all(piece).expect("somebody receives");
            }
        });
        Transfer::new(vec![lane], block_bytes)
            .and_then(|transfer| transfer.run(end))
            .expect("it is moved")
    });
    assert_eq!(moved.bytes, content.len() as u64);
    let mut written = Vec::new();
    File::open(&path).and_then(|mut file| file.read_to_end(&mut written)).expect("readable");
    assert!(written == content);
}

#[test]
fn a_sender_that_stops_is_an_error_and_no_hang() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let (silent, ended) = (
        TcpStream::connect(address).expect("connected"),
        TcpStream::connect(address).expect("connected"),
    );
    let lane = || {
        let (stream, _) = listener.accept().expect("a connection");
        Lane { source: Source::Socket(stream), sink: None, len: 1 << 20 }
    };
    let lanes = vec![lane(), lane()];
    drop(ended);
    let end = Instant::now() + Duration::from_secs(20);
    let error = Transfer::new(lanes, 4096)
        .and_then(|transfer| transfer.run(end))
        .expect_err("one has ended");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    drop(silent);
}

#[test]
fn without_a_target_there_is_no_target_probe() {
    let dir = scratch_dir();
    let limits = Limits { target: None, ..limits(dir.path()) };
    assert!(matches!(limits.target_write(), Err(Error::Usage(_))));
    let missing = Limits { staging: dir.path().join("missing"), ..limits };
    assert!(missing.staging_write().expect_err("no directory").to_string().contains("missing"));
}
