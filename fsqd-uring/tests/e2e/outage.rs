//! What is behind the daemon hangs or is lost, for real: a target on a loop device that is frozen in
//! the middle of drains, so that calls block in the kernel and cannot be interrupted, or shut down, so
//! that all fail.
//!
//! Invariant of both: the clients notice nothing, and every acknowledged file arrives once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fsq_wire::{Op, StorageDest};
use rustix::process::Signal;

use crate::support::content::bytes;
use crate::support::daemon::Daemon;
use crate::support::deployed::Deployed;
use crate::support::mount::Mount;
use crate::support::site::Site;
use crate::support::{eventually, shared_turn, skip, tree};

/// Room for everything that a test sends.
const TARGET_MIB: u64 = 1024;

/// A wait this long is one for the target. What an OPEN takes is a quarter of a second at most, and
/// the rest is patience with the machine.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// The n-th file: each destination in turn, some of several blocks of the drain.
fn file(n: usize) -> (String, StorageDest, Vec<u8>) {
    use StorageDest::{Lustre, LustreTsm, Tsm};
    let dest = [Lustre, LustreTsm, Tsm][n % 3];
    let len = match n % 8 {
        0 if n.is_multiple_of(5) => 9_000_001,
        1 => 1 << 20,
        _ => n * 7919 % 50_000,
    };
    (format!("data/run{}/{n}", n % 4), dest, bytes(n as u64, len))
}

/// Uploads a file and gives the time that its OPEN took.
fn upload(client: &mut Deployed, n: usize) -> Duration {
    let (name, dest, content) = file(n);
    let begun = Instant::now();
    client.open(&format!("/lustre/{name}"), dest).accepted(Op::Open);
    let open = begun.elapsed();
    for piece in content.chunks(1 << 20) {
        client.data(piece).accepted(Op::Data);
    }
    client.close().accepted(Op::Close);
    open
}

/// All files are where they belong, as they were sent, and nothing else is there.
fn all_arrive(site: &Site, files: usize) {
    let empty = || tree::files(&site.staging()).is_empty().then_some(());
    eventually("staging is free", empty);
    let (mut on_target, mut in_archive) = (Vec::new(), Vec::new());
    for (name, dest, content) in (0..files).map(file) {
        if dest != StorageDest::Tsm {
            assert!(std::fs::read(site.delivered(&name)).ok().as_ref() == Some(&content), "{name}");
            on_target.push(PathBuf::from(&name));
        }
        if dest != StorageDest::Lustre {
            assert!(std::fs::read(site.archived(&name)).ok() == Some(content), "{name} archived");
            in_archive.push(Path::new("1/lustre").join(name));
        }
    }
    on_target.sort();
    in_archive.sort();
    // No temporary names, and no file twice.
    assert_eq!(tree::files(&site.target()), on_target);
    assert_eq!(tree::files(&site.archive()), in_archive);
}

/// No trouble of the target was held against a file.
fn none_was_blamed(daemon: &Daemon) {
    let lines = daemon.log().lines();
    let blamed: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("[E]") || line.contains("omitted \""))
        .collect();
    assert!(blamed.is_empty(), "{blamed:?}");
}

#[test]
fn a_target_that_hangs_holds_up_nothing_but_its_own_files() {
    let _turn = shared_turn();
    let mount = match Mount::ext4(TARGET_MIB, "") {
        Ok(mount) => mount,
        Err(reason) => {
            return skip("a_target_that_hangs_holds_up_nothing_but_its_own_files", &reason);
        }
    };
    let site = Site::with_target(&mount.path());
    // Dropped after the file system is thawed: nobody can wait for the end of a daemon before.
    let mut daemons = vec![site.start_with(&["--hung-after", "1", "--tolerr", "1"])];
    let daemon = &daemons[0];
    let port = daemon.port().to_string();
    let mut client = Deployed::signed_on(daemon.port());
    for n in 0..40 {
        upload(&mut client, n);
    }
    eventually("the drain is at work", || (!tree::files(&site.target()).is_empty()).then_some(()));
    let frozen = mount.freeze();

    // Ingest goes on, and so does the archive where it needs no target.
    let slowest = (40..100).map(|n| upload(&mut client, n)).max().expect("some");
    assert!(slowest < OPEN_MAX, "an OPEN took {slowest:?}");
    let for_archive: Vec<_> =
        (0..100).map(file).filter(|(_, dest, _)| *dest == StorageDest::Tsm).collect();
    eventually("the archive is served", || {
        for_archive.iter().all(|(name, ..)| site.archived(name).exists()).then_some(())
    });
    // Who waits for how long, and with which file.
    let line = daemon.log().wait("that the target hangs", |line| {
        line.contains("target has not answered for") && line.contains(", fsq_queue/")
    });
    println!("{line}");
    assert!(
        line.starts_with("[W]") && line.contains("2 workers wait for it: fsq_queue/"),
        "{line}"
    );
    let (_, named) = line.split_once("wait for it: ").expect("just found");
    for stuck in named.split(", ") {
        let (who, file) = stuck.split_once(" s with \"data/run").expect("a worker with a file");
        assert!(who.contains(" for ") && file.ends_with('"'), "{stuck}");
    }

    // The daemon ends although these two cannot, and gives back what the next one needs.
    let begun = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.log().wait("of the workers that are left", |line| {
        line.contains("2 workers still wait for the target")
    });
    daemon.log().wait("of the end", |line| line.ends_with(" stopped"));
    println!("SIGTERM while the target hangs: stopped after {:.1?}", begun.elapsed());
    drop(client);
    daemons.push(site.start_with(&["--hung-after", "1", "--tolerr", "1", "-p", &port]));
    let mut client = Deployed::signed_on(daemons[1].port());
    let slowest = (100..130).map(|n| upload(&mut client, n)).max().expect("some");
    assert!(slowest < OPEN_MAX, "an OPEN took {slowest:?}");
    daemons[1].log().wait("that the target hangs", |line| line.contains("has not answered"));

    drop(frozen);
    all_arrive(&site, 130);
    daemons[1].log().wait("that it is over", |line| line.contains("target answers again"));
    assert_eq!(daemons[0].wait().code(), Some(0), "exit status after SIGTERM");
    for daemon in daemons.drain(1..) {
        none_was_blamed(&daemon);
        daemon.stop();
    }
}

#[test]
fn a_target_that_is_lost_gets_everything_once_it_is_back() {
    let _turn = shared_turn();
    let mount = match Mount::ext4(TARGET_MIB, "") {
        Ok(mount) => mount,
        Err(reason) => {
            return skip("a_target_that_is_lost_gets_everything_once_it_is_back", &reason);
        }
    };
    let site = Site::with_target(&mount.path());
    // The first error that counted against a file would be its last.
    let daemon = site.start_with(&["--tolerr", "1", "-q", "4"]);
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let uploads = scope.spawn(|| {
            let mut client = Deployed::signed_on(daemon.port());
            while !stop.load(Ordering::Relaxed) {
                let n = sent.load(Ordering::Relaxed);
                upload(&mut client, n);
                sent.store(n + 1, Ordering::Relaxed);
                // Room on the target for all that comes until the test is over.
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let more = |what| {
            let before = sent.load(Ordering::Relaxed);
            eventually(what, || {
                let goes_on = sent.load(Ordering::Relaxed) > before + 12;
                assert!(!uploads.is_finished(), "the session has ended");
                goes_on.then_some(())
            });
        };
        for flush in [true, false] {
            more("files come while the target is there");
            let from = daemon.log().lines().len();
            mount.shut_down(flush);
            daemon.log().wait_from(from, "that it is down", |line| line.contains("target is down"));
            more("files come while every call fails");
            mount.detach();
            more("files come while nothing is mounted");
            let missing = |line: &str| line.contains("is not the directory it was at the start");
            daemon.log().wait_from(from, "that the mount is missing", missing);
            mount.attach();
            let up = |line: &str| line.contains("target is up again");
            daemon.log().wait_from(from, "that it is back", up);
        }
        stop.store(true, Ordering::Relaxed);
        uploads.join().expect("no file is refused");
    });
    let files = sent.into_inner();
    println!("{files} files over two losses of the target");
    all_arrive(&site, files);
    none_was_blamed(&daemon);
    daemon.stop();
}
