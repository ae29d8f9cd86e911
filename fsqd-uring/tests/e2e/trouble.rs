//! Trouble that is nobody's mistake: staging full or not writable, target or archive gone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use fsq_wire::{Op, StorageDest};

use crate::support::bystander::Bystander;
use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::mount::{Mount, run};
use crate::support::site::Site;
use crate::support::{eventually, shared_turn, skip, text, tree};

const EPERM: i32 = 1;
const ENOSPC: i32 = 28;

/// Staging of the tests that fill it, MiB.
const STAGING_MIB: u64 = 64;

/// Takes staging up to above the mark at which files have to wait; gone when it is removed.
fn fill(staging: &Path) -> std::path::PathBuf {
    // Among the daemon's own files, where it does not look for staged ones.
    let filler = staging.join(".fsqd/filler");
    let file = fs::File::create(&filler).expect("created");
    let free = rustix::fs::statvfs(staging).expect("mounted");
    let bytes = free.f_bavail * free.f_frsize;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes * 98 / 100)
        .expect("there is room");
    filler
}

#[test]
fn full_staging_refuses_and_recovers() {
    let _turn = shared_turn();
    let mount = match Mount::ext4(STAGING_MIB, "") {
        Ok(mount) => mount,
        Err(reason) => return skip("full_staging_refuses_and_recovers", &reason),
    };
    let site = Site::with_staging(&mount.path());
    let daemon = site.start_with(&["--space-wait", "1", "--staging-high", "100"]);
    let mut client = Deployed::signed_on(daemon.port());
    let piece = bytes(1, 4_000_000);

    // The space ends in the middle of a file: the reason comes, not a reset, and it stays.
    client.open("/lustre/data/large", StorageDest::Local).accepted(Op::Open);
    let pieces = STAGING_MIB as usize * 1_048_576 / piece.len() + 3;
    let replies: Vec<_> = (0..pieces).map(|_| client.data(&piece)).collect();
    let first_refused = replies.iter().position(|reply| !reply.accepts(Op::Data));
    let first_refused = first_refused.expect("so much does not fit");
    for reply in &replies[first_refused..] {
        reply.refused(ENOSPC, &["/lustre/data/large", "full"]);
    }
    client.close().refused(ENOSPC, &["/lustre/data/large", "full"]);

    // The next file starts clean, in the space that the failed one has given back.
    client.upload("/lustre/data/small", StorageDest::Local, &piece, 1_000_000);
    client.disconnect();
    assert_eq!(tree::files(&site.staging()), [Path::new("data/small")]);
    assert_eq!(fs::read(site.staged("data/small")).expect("it is there"), piece);
    daemon.stop();
}

#[test]
fn open_waits_for_space() {
    let _turn = shared_turn();
    let mount = match Mount::ext4(STAGING_MIB, "") {
        Ok(mount) => mount,
        Err(reason) => return skip("open_waits_for_space", &reason),
    };
    let site = Site::with_staging(&mount.path());
    let daemon = site.start_with(&["--space-wait", "1"]);
    let filler = fill(&site.staging());
    let mut client = Deployed::signed_on(daemon.port());
    let started = Instant::now();
    client.open("/lustre/data/f", StorageDest::Lustre).refused(ENOSPC, &["/lustre/data/f", "full"]);
    assert!(started.elapsed() >= Duration::from_secs(1), "refused without waiting");
    // What needs no space does not wait.
    client.upload("/lustre/data/dropped", StorageDest::Null, b"content", 7);
    fs::remove_file(filler).expect("removed");
    client.upload("/lustre/data/f", StorageDest::Lustre, b"content", 7);
    daemon.stop();

    let daemon = site.start_with(&["--space-wait", "600"]);
    let filler = fill(&site.staging());
    let mut client = Deployed::signed_on(daemon.port());
    let open = client.open_packet(b"/lustre", b"/lustre/data/waits", 1);
    client.send(&open);
    // The same connection cannot tell that it waits: another one that is served can.
    Deployed::signed_on(daemon.port()).disconnect();
    fs::remove_file(filler).expect("removed");
    client.reply().accepted(Op::Open);
    client.close().accepted(Op::Close);
    daemon.stop();
}

/// A client whose data the daemon does not take for lack of space is not the one that stalls.
#[test]
fn payload_waits_for_space_beyond_the_stall_timeout() {
    let _turn = shared_turn();
    let mount = match Mount::ext4(STAGING_MIB, "") {
        Ok(mount) => mount,
        Err(reason) => return skip("payload_waits_for_space_beyond_the_stall_timeout", &reason),
    };
    let site = Site::with_staging(&mount.path());
    let daemon = site.start_with(&["--staging-high", "100", "--stall-timeout", "1"]);
    let filler = fill(&site.staging());
    let content = bytes(9, 20_000_000);
    let mut client = Deployed::signed_on(daemon.port());
    client.open("/lustre/data/f", StorageDest::Local).accepted(Op::Open);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| client.data(&content));
        // The passing of time is what is tested.
        std::thread::sleep(Duration::from_millis(2500));
        assert!(!sender.is_finished(), "so much does not fit");
        fs::remove_file(filler).expect("removed");
        sender.join().expect("the session goes on").accepted(Op::Data);
    });
    client.close().accepted(Op::Close);
    client.disconnect();
    assert!(fs::read(site.staged("data/f")).expect("it is there") == content);
    daemon.stop();
}

#[test]
fn staging_that_refuses_writes() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    let bystander = Bystander::start(daemon.port());
    bystander.wait_progress();
    let directory = site.staged("data");
    fs::create_dir(&directory).expect("created");
    // Not even root may create a file in there.
    if let Err(reason) = run("chattr", &["+i", text(&directory)]) {
        return skip("staging_that_refuses_writes", &reason);
    }
    let mut client = Deployed::signed_on(daemon.port());
    let reply = client.open("/lustre/data/f", StorageDest::Lustre);
    let below = client.open("/lustre/data/new/f", StorageDest::Lustre);
    run("chattr", &["-i", text(&directory)]).expect("as it was set");
    reply.refused(EPERM, &["/lustre/data/f", "staging"]);
    below.refused(EPERM, &["/lustre/data/new/f", "staging"]);
    client.upload("/lustre/data/f", StorageDest::Lustre, b"content", 7);
    client.disconnect();
    bystander.finish(&site);
    daemon.stop();
}

/// Takes a directory away while files come in: none is refused, none is lost.
fn goes_and_comes_back(
    site: &Site,
    gone: &Path,
    dest: StorageDest,
    arrived: fn(&Site) -> std::path::PathBuf,
) {
    let daemon = site.start();
    let aside = site.root().join("aside");
    fs::rename(gone, &aside).expect("renamed");
    let content = bytes(7, 1_500_000);
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/f", dest, &content, 1_000_000);
    let line = daemon.log().wait("that the directory is missing", |line| {
        (line.starts_with("[W]") || line.starts_with("[E]")) && line.contains(text(gone))
    });
    println!("{line}");
    // Ingest goes on.
    client.upload("/lustre/data/g", StorageDest::Local, &content, 1_000_000);
    client.disconnect();
    assert_eq!(fs::read(site.staged("data/f")).expect("it is kept"), content);
    fs::rename(&aside, gone).expect("renamed");
    let path = arrived(site);
    let found = eventually("the file arrives", || fs::read(&path).ok());
    assert!(found == content, "{} has other content", path.display());
    eventually("staging is freed", || (!site.staged("data/f").exists()).then_some(()));
    daemon.stop();
}

#[test]
fn target_goes_and_comes_back() {
    let _turn = shared_turn();
    let site = Site::new();
    goes_and_comes_back(&site, &site.target(), StorageDest::Lustre, |site| {
        site.delivered("data/f")
    });
}

#[test]
fn archive_goes_and_comes_back() {
    let _turn = shared_turn();
    let site = Site::new();
    goes_and_comes_back(&site, &site.archive(), StorageDest::Tsm, |site| site.archived("data/f"));
}
