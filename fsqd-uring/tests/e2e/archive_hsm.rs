//! `--archive hsm` from the client's file to a copytool's copy, on a simulated Lustre.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fsq_wire::StorageDest;

use crate::support::content::bytes;
use crate::support::daemon::{Daemon, run_to_end};
use crate::support::deployed::Deployed;
use crate::support::site::{OTHER_PASSWORD, PASSWORD, Site};
use crate::support::{eventually, shared_turn, text, tree};

fn command(site: &Site) -> Command {
    let mut command = site.command(&["--archive", "hsm", "--tolerr", "2"]);
    let library = sim_lustre::library().expect("the simulator is built");
    command.env("FSQD_LUSTRE_LIBRARY", library);
    command
}

fn start(site: &Site) -> Daemon {
    Daemon::start(&mut command(site), &[PASSWORD, OTHER_PASSWORD])
}

fn copies(site: &Site) -> Vec<Vec<u8>> {
    let archive = site.target().join(sim_lustre::STATE).join("archive");
    let files = tree::files(&archive);
    let mut copies: Vec<_> =
        files.iter().map(|file| fs::read(archive.join(file)).expect("readable")).collect();
    copies.sort();
    copies
}

#[test]
fn staging_is_freed_when_lustre_says_archived_and_not_before() {
    let _turn = shared_turn();
    let site = Site::new();
    sim_lustre::configure(&site.target(), "fsname scratch\nmax-requests 50\ncoordinator disabled")
        .expect("configured");
    let daemon = start(&site);
    daemon.log().wait("of the file system", |line| line.contains("file system scratch"));
    let mut client = Deployed::signed_on(daemon.port());
    let mut contents = Vec::new();
    for n in 0..70_usize {
        // Both are archived from their copy on Lustre.
        let dest = if n % 2 == 0 { StorageDest::Tsm } else { StorageDest::LustreTsm };
        let content = bytes(n as u64, n * 777);
        client.upload(&format!("/lustre/data/f{n}"), dest, &content, 1 << 20);
        contents.push(content);
    }
    let delivered = || tree::files(&site.target().join("data")).len() == contents.len();
    eventually("all copies are on Lustre", || delivered().then_some(()));
    let queue = site.target().join(sim_lustre::STATE).join("queue");
    let queued = || fs::read_dir(&queue).map_or(0, Iterator::count);
    eventually("all are asked for", || (queued() == contents.len()).then_some(()));
    assert_eq!(tree::files(&site.staging()).len(), contents.len());
    // Neither an end nor a start of the daemon asks a second time.
    daemon.kill();
    let daemon = start(&site);
    daemon.log().wait("of the scan", |line| line.contains("scan of staging: 70 queued"));
    sim_lustre::configure(&site.target(), "fsname scratch\nmax-requests 50").expect("configured");
    let empty = || tree::files(&site.staging()).is_empty();
    eventually("everything is archived", || empty().then_some(()));
    contents.sort();
    assert!(copies(&site) == contents);
    daemon.stop();
}

#[test]
fn without_lustre_or_its_library_nothing_starts() {
    let _turn = shared_turn();
    let site = Site::new();
    let ended = run_to_end(&mut command(&site));
    assert_eq!(ended.status, 1, "{}", ended.text);
    for word in ["--archive hsm", text(&site.target()), "--archive dir:PATH"] {
        assert!(ended.text.contains(word), "{word} is not in: {}", ended.text);
    }
    let mut missing = command(&site);
    missing.env("FSQD_LUSTRE_LIBRARY", "/no/such/library.so");
    let ended = run_to_end(&mut missing);
    assert_eq!(ended.status, 1, "{}", ended.text);
    for word in ["--archive hsm", "/no/such/library.so", "lustre-client", "--archive dir:PATH"] {
        assert!(ended.text.contains(word), "{word} is not in: {}", ended.text);
    }
}

/// A file that goes from the target while it waits cannot be archived; the others can.
#[test]
fn a_copy_that_somebody_removes_is_omitted() {
    let _turn = shared_turn();
    let site = Site::new();
    sim_lustre::configure(&site.target(), "coordinator stopped").expect("configured");
    let daemon = start(&site);
    let mut client = Deployed::signed_on(daemon.port());
    for name in ["stays", "goes"] {
        let path = format!("/lustre/data/{name}");
        client.upload(&path, StorageDest::LustreTsm, b"data", 4096);
        eventually("it is on Lustre", || {
            site.delivered(&format!("data/{name}")).exists().then_some(())
        });
    }
    daemon.log().wait("of the pause", |line| line.contains("archive is down"));
    fs::remove_file(site.delivered("data/goes")).expect("removed");
    sim_lustre::configure(&site.target(), "").expect("configured");
    daemon.log().wait("of the omitted file", |line| {
        line.contains(" omitted \"data/goes\"") && line.contains("somebody has removed it")
    });
    eventually("the other is archived", || {
        (tree::files(&site.staging()) == [PathBuf::from("data/goes")]).then_some(())
    });
    daemon.stop();
}
