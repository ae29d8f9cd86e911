//! Whole runs over loopback, against the reference server and one that misbehaves.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use fsq_bench::arrival::Lookout;
use fsq_bench::engine::Engine;
use fsq_bench::feed::Quota;
use fsq_bench::plan::{Behaviour, Password, Plan};
use fsq_bench::record::Timed;
use fsq_bench::reference;
use fsq_bench::run::{Watch, run};
use fsq_bench::size::Sizes;
use fsq_wire::{Layout, PACKET_BYTES, StorageDest};

fn reference_server(dir: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let dir = dir.to_owned();
    thread::spawn(move || reference::serve(&listener, &dir));
    address
}

fn plan(address: SocketAddr) -> Plan {
    Plan {
        hostname: "localhost".into(),
        port: address.port(),
        addresses: vec![address],
        node: "polaris".into(),
        password: Password::new("polaris1234".into()),
        fs: "/lustre".into(),
        dir: "/lustre/data".into(),
        run_id: "run".into(),
        dest: StorageDest::Local,
        layout: Layout::C,
        behaviour: Behaviour::Deployed,
        connections: 3,
        idle: 0,
        reconnect_after: None,
        sizes: Sizes::List(vec![0, 1, 70_000, 200_000]),
        seed: 5,
        chunk_bytes: 64 << 10,
        edge_bytes: 0,
        window: 1,
        quota: Quota { files: Some(12), ..Quota::default() },
        warm_up_ns: 0,
        timeout: Duration::from_secs(20),
    }
}

#[test]
fn every_file_arrives_with_its_content() {
    for &engine in Engine::value_variants() {
        arrives(engine, plan);
        arrives(engine, |address| Plan {
            behaviour: Behaviour::Pipelined,
            window: 4,
            reconnect_after: Some(2),
            layout: Layout::B,
            edge_bytes: 32,
            ..plan(address)
        });
    }
}

fn arrives(engine: Engine, plan_for: impl Fn(SocketAddr) -> Plan) {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = plan_for(reference_server(dir.path()));
    let root = dir.path().join("lustre");
    let lookout = Some(Lookout { root, patience: Duration::from_secs(20) });
    let watch = Watch { lookout, pid: Some(std::process::id()), ..Watch::default() };
    let report = run(&plan, engine, &watch).expect("a run");

    assert!(report.is_good(), "{report}");
    assert_eq!(report.record.files, 12);
    assert_eq!(report.record.bytes, 3 * 270_001);
    assert_eq!(report.missing, Some(0));
    for timed in [Timed::Open, Timed::Close, Timed::File, Timed::Arrival] {
        assert_eq!(report.record.times(timed).count(), 12, "{}", timed.name());
    }
    assert!(report.record.times(Timed::Connect).count() >= 3);
    assert!(report.usage.is_some());
    let payload = plan.payload();
    for index in 0..12 {
        let path = dir.path().join(plan.path(index).trim_start_matches('/'));
        let content = fs::read(path).expect("the file");
        assert_eq!(content.len() as u64, plan.size(index));
        // Every DATA is cut from the start of the payload.
        let mut rest = &content[..];
        while !rest.is_empty() {
            let offset = (content.len() - rest.len()) as u64;
            let chunk = plan.chunk(offset, content.len() as u64) as usize;
            assert!(rest[..chunk] == payload[..chunk], "file {index} at {offset}");
            rest = &rest[chunk..];
        }
    }
}

#[test]
fn a_run_of_a_given_time_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let quota = Quota { end_ns: Some(200_000_000), rate: Some(200.0), files: None };
    let sizes = Sizes::Fixed(0);
    let plan = Plan { quota, sizes, ..plan(reference_server(dir.path())) };
    let report = run(&plan, Engine::Threads, &Watch::default()).expect("a run");
    assert!(report.is_good(), "{report}");
    // One every 5 ms, the first at 0, none at 200.
    assert_eq!(report.record.files, 40);
    assert!(report.is_paced);
}

#[test]
fn existing_files_are_refusals_with_the_servers_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = plan(reference_server(dir.path()));
    assert!(run(&plan, Engine::Threads, &Watch::default()).expect("a run").is_good());
    let report = run(&plan, Engine::Threads, &Watch::default()).expect("a run");
    assert_eq!((report.record.files, report.record.failed), (0, 12));
    let reason = report.record.reasons().keys().next().expect("a reason");
    assert!(reason.starts_with("OPEN refused: File exists"), "{reason}");
    assert!(!report.is_good());
}

#[test]
fn no_server_and_a_server_that_vanishes_are_failures_with_a_reason() {
    for &engine in Engine::value_variants() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let plan = Plan { connections: 1, ..plan(address) };
        // Takes the CONNECT and is gone.
        let vanishing = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            drop(listener);
            stream.read_exact(&mut [0; PACKET_BYTES]).expect("a packet");
        });
        let report = run(&plan, engine, &Watch::default()).expect("a run");
        vanishing.join().expect("served one");
        assert_eq!((report.record.files, report.record.failed), (0, 10));
        let reasons = report.record.reasons();
        for start in ["connection lost", "no connection"] {
            assert!(reasons.keys().any(|reason| reason.starts_with(start)), "{reasons:?}");
        }
    }
}

#[test]
fn a_silent_server_is_not_waited_for_without_end() {
    for &engine in Engine::value_variants() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let timeout = Duration::from_millis(20);
        let plan = Plan { connections: 1, timeout, ..plan(address) };
        // The kernel accepts; nobody answers.
        let report = run(&plan, engine, &Watch::default()).expect("a run");
        assert_eq!((report.record.files, report.record.failed), (0, 10));
        let reason = report.record.reasons().keys().next().expect("a reason");
        assert!(reason.starts_with("connection lost while waiting for a reply"), "{reason}");
        drop(listener);
    }
}

#[test]
fn a_server_that_speaks_something_else_is_no_success() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut packet = [0; PACKET_BYTES];
            let _ = stream.read_exact(&mut packet).and_then(|()| stream.write_all(&packet));
        }
    });
    let report = run(&plan(address), Engine::Threads, &Watch::default()).expect("a run");
    assert_eq!(report.record.files, 0);
    let reasons = report.record.reasons();
    assert!(reasons.keys().any(|reason| reason.contains("CONNECT")), "{reasons:?}");
}

#[test]
fn a_stopped_run_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = plan(reference_server(dir.path()));
    let watch = Watch { is_stopped: Arc::new(AtomicBool::new(true)), ..Watch::default() };
    let report = run(&plan, Engine::Threads, &watch).expect("a run");
    assert!(report.is_interrupted);
    assert_eq!((report.record.files, report.record.failed), (0, 0));
}

#[test]
fn two_servers_are_compared_in_turn() {
    let dir = tempfile::tempdir().expect("a directory");
    let running = reference_server(dir.path());
    // Free when it was looked for; the servers are started on it one after the other.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let started = format!(
        "{port}={} reference-server --listen {port} {}",
        env!("CARGO_BIN_EXE_fsq-bench"),
        dir.path().display()
    );
    let output = Command::new(env!("CARGO_BIN_EXE_fsq-bench"))
        .args(["compare", &started, &running.to_string(), "--rounds", "3", "--json", "-"])
        .args(["-n", "n", "-f", "/l", "-z", "64K", "--files", "8", "-t", "2", "--limit"])
        .args(["--limit-volume", "1M", "--limit-seconds", "0.2", "--between", "true"])
        .arg("--staging")
        .arg(dir.path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["pairs"].as_array().map(Vec::len), Some(3));
    for pair in json["pairs"].as_array().expect("pairs") {
        assert_eq!(pair["a"]["bytes"], 8 << 16);
        assert_eq!(pair["b"]["bytes"], 8 << 16);
        // Only of what was started here.
        assert!(pair["a"]["cpu_s_per_gib"].is_number());
        assert!(pair["b"]["cpu_s_per_gib"].is_null());
        assert!(pair["limits"][1].is_number());
    }
    assert!(json["a_to_b"]["bytes/s"]["median"].as_f64().is_some_and(|ratio| ratio > 0.0));
    assert!(json["share_of_limit"][0]["max"].is_number());
}

#[test]
fn idle_sessions_are_there_while_a_run_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = Plan { idle: 40, ..plan(reference_server(dir.path())) };
    let idle = fsq_bench::idle::Idle::sign_on(&plan).expect("signed on");
    assert_eq!(idle.count(), 40);
    drop(idle);
    let report = run(&plan, Engine::Threads, &Watch::default()).expect("a run");
    assert!(report.is_good(), "{report}");
    assert!(report.what.contains("3 connections, 40 idle"), "{}", report.what);

    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = Plan { addresses: vec![nobody.local_addr().expect("bound")], ..plan };
    drop(nobody);
    let error = run(&gone, Engine::Threads, &Watch::default()).expect_err("nobody listens");
    assert!(error.to_string().contains("idle session 0"), "{error}");
}
