//! Many sessions: what they cost, whether they are treated alike, and where they end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use fsq_wire::{Op, StorageDest};

use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::site::{NODE, PASSWORD, Site};
use crate::support::{eventually, shared_turn, sole_turn, tree};

const EUSERS: i32 = 87;

/// Lets this process have so many sockets.
fn raise_descriptors(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let raised = Rlimit { current: Some(count), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("the hard limit allows it");
    }
}

#[test]
fn a_thousand_sessions_cost_little() {
    const SESSIONS: usize = 1000;
    const THREADS: usize = 4;
    const PIECE_BYTES: usize = 65_537;
    const PIECES: usize = 3;
    let _turn = sole_turn();
    raise_descriptors(SESSIONS as u64 + 200);
    let site = Site::new();
    // The default, which most sites will have.
    let daemon = site.start_with(&["--buffer-memory", "256M"]);
    let mut idle: Vec<_> = (0..SESSIONS / 2).map(|_| Deployed::signed_on(daemon.port())).collect();

    let (port, per_thread) = (daemon.port(), SESSIONS / 2 / THREADS);
    // All files are open at the same time when the memory is looked at.
    let (filled, measured) =
        (Arc::new(Barrier::new(THREADS + 1)), Arc::new(Barrier::new(THREADS + 1)));
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (filled, measured) = (Arc::clone(&filled), Arc::clone(&measured));
            std::thread::spawn(move || {
                let seed = |n: usize| (thread * per_thread + n) as u64;
                let mut clients: Vec<_> =
                    (0..per_thread).map(|_| Deployed::signed_on(port)).collect();
                for (n, client) in clients.iter_mut().enumerate() {
                    let path = format!("/lustre/data/many/{}", seed(n));
                    client.open(&path, StorageDest::Lustre).accepted(Op::Open);
                }
                for piece in 0..PIECES {
                    for (n, client) in clients.iter_mut().enumerate() {
                        let content = bytes(seed(n), PIECES * PIECE_BYTES);
                        client
                            .data(&content[piece * PIECE_BYTES..][..PIECE_BYTES])
                            .accepted(Op::Data);
                    }
                }
                filled.wait();
                measured.wait();
                for mut client in clients {
                    client.close().accepted(Op::Close);
                    client.disconnect();
                }
            })
        })
        .collect();
    filled.wait();
    let (resident, most) = (daemon.memory_kib("VmRSS"), daemon.memory_kib("VmHWM"));
    println!("{SESSIONS} sessions: VmRSS {resident} KiB, VmHWM {most} KiB");
    assert!(most <= 512 * 1024 + 64 * SESSIONS as u64, "VmHWM {most} KiB");
    measured.wait();
    for writer in writers {
        writer.join().expect("every writer is served");
    }
    for client in idle.iter_mut().step_by(50) {
        client.upload("/lustre/data/dropped", StorageDest::Null, b"content", 7);
    }
    for n in 0..THREADS * per_thread {
        let path = site.delivered(&format!("data/many/{n}"));
        let found = eventually("a file arrives", || std::fs::read(&path).ok());
        assert!(found == bytes(n as u64, PIECES * PIECE_BYTES), "{}", path.display());
    }
    let most = daemon.memory_kib("VmHWM");
    assert!(most <= 512 * 1024 + 64 * SESSIONS as u64, "VmHWM {most} KiB after the drain");
    daemon.stop();
}

/// Bytes per second of the slowest and of the fastest of equal writers.
fn slowest_and_fastest(dest: StorageDest) -> (u64, u64) {
    const WRITERS: usize = 64;
    const TIME: Duration = Duration::from_secs(3);
    let site = Site::new();
    let daemon = site.start();
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Arc::new(Barrier::new(WRITERS + 1));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (stop, begin, port) = (Arc::clone(&stop), Arc::clone(&begin), daemon.port());
            std::thread::spawn(move || {
                let mut client = Deployed::signed_on(port);
                let path = format!("/lustre/data/equal/{writer}");
                let piece = bytes(writer as u64, 128 << 10);
                client.open(&path, dest).accepted(Op::Open);
                begin.wait();
                let mut written = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.data(&piece).accepted(Op::Data);
                    written += piece.len() as u64;
                }
                written
            })
        })
        .collect();
    begin.wait();
    // The measure itself: how much each gets done in this time.
    std::thread::sleep(TIME);
    stop.store(true, Ordering::Relaxed);
    let written: Vec<u64> = writers.into_iter().map(|w| w.join().expect("is served")).collect();
    eventually("what was not closed is gone", || {
        tree::files(&site.staging()).is_empty().then_some(())
    });
    daemon.stop();
    let (slowest, fastest) = (written.iter().min(), written.iter().max());
    (*slowest.expect("writers") / TIME.as_secs(), *fastest.expect("writers") / TIME.as_secs())
}

#[test]
fn equal_writers_are_served_alike() {
    let _turn = sole_turn();
    for dest in [StorageDest::Null, StorageDest::Local] {
        // A daemon that prefers some does so each time; a machine that takes the core of one ring
        // away for other work does not.
        let is_fair = (0..3).any(|_| {
            let (slowest, fastest) = slowest_and_fastest(dest);
            println!("{dest}: slowest {slowest} B/s, fastest {fastest} B/s");
            slowest * 3 >= fastest
        });
        assert!(is_fair, "{dest}: three times the slowest got less than a third of the fastest");
    }
}

#[test]
fn one_session_too_many_is_told_so() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start_with(&["-s", "1", "--max-sessions", "3"]);
    let mut sessions: Vec<_> = (0..3).map(|_| Deployed::signed_on(daemon.port())).collect();
    let mut surplus = Deployed::connect(daemon.port());
    surplus.sign_on(NODE, PASSWORD).refused(EUSERS, &["too many sessions", "--max-sessions"]);
    assert!(surplus.is_closed());
    drop(surplus);
    sessions[0].upload("/lustre/data/f", StorageDest::Null, b"content", 7);
    sessions.pop().expect("three").disconnect();
    eventually("there is room again", || {
        Deployed::connect(daemon.port()).sign_on(NODE, PASSWORD).accepts(Op::Connect).then_some(())
    });
    daemon.stop();
}
