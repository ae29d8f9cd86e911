//! SIGTERM and SIGHUP on a daemon that is at work.

use std::fs;

use fsq_wire::{Op, StorageDest};
use rustix::process::Signal;

use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::site::{NODE, PASSWORD, Site};
use crate::support::{eventually, shared_turn, tree};

const EACCES: i32 = 13;
const ESHUTDOWN: i32 = 108;

#[test]
fn sigterm_tells_clients_and_keeps_what_was_acknowledged() {
    let _turn = shared_turn();
    let site = Site::new();
    let mut daemon = site.start();
    let content = bytes(3, 2_500_000);
    let mut idle = Deployed::signed_on(daemon.port());
    let mut between = Deployed::signed_on(daemon.port());
    between.open("/lustre/data/between", StorageDest::Lustre).accepted(Op::Open);
    between.data(&content).accepted(Op::Data);
    let mut midway = Deployed::signed_on(daemon.port());
    midway.open("/lustre/data/midway", StorageDest::Lustre).accepted(Op::Open);
    let data = midway.data_packet(10_000_000);
    midway.send(&data);
    midway.send(&content);
    let mut done = Deployed::signed_on(daemon.port());
    for n in 0..5 {
        done.upload(&format!("/lustre/data/done/{n}"), StorageDest::LustreTsm, &content, 1_000_000);
    }

    daemon.signal(Signal::TERM);
    for client in [&mut between, &mut midway] {
        client.reply().refused(ESHUTDOWN, &["shutting down", "send it again"]);
        assert!(client.is_closed());
    }
    assert!(idle.is_closed() && done.is_closed());
    assert_eq!(daemon.wait().code(), Some(0));
    let staged = tree::files(&site.staging());
    assert!(staged.iter().all(|path| path.starts_with("data/done")), "{staged:?}");

    // What was not drained before is taken up again.
    let daemon = site.start();
    for n in 0..5 {
        let name = format!("data/done/{n}");
        for path in [site.delivered(&name), site.archived(&name)] {
            let found = eventually("an acknowledged file arrives", || fs::read(&path).ok());
            assert!(found == content, "{}", path.display());
        }
    }
    eventually("staging is empty", || tree::files(&site.staging()).is_empty().then_some(()));
    assert_eq!(tree::files(&site.target()).len(), 5);
    daemon.stop();
}

#[test]
fn sighup_takes_a_good_map_and_keeps_the_old_for_a_bad_one() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    let good = fs::read_to_string(site.identmap()).expect("readable");
    let mut signed_on_before = Deployed::signed_on(daemon.port());
    let newcomer = |expected: Result<(), i32>| {
        let reply = Deployed::connect(daemon.port()).sign_on("capella", "new-9876");
        match expected {
            Ok(()) => reply.accepted(Op::Connect),
            Err(errno) => reply.refused(errno, &["capella"]),
        }
    };
    let reload = |words: &[&str]| {
        let from = daemon.log().lines().len();
        daemon.signal(Signal::HUP);
        let wanted = |line: &str| words.iter().all(|word| line.contains(word));
        daemon.log().wait_from(from, "about the reload", wanted);
    };
    newcomer(Err(EACCES));

    let passwords = fs::read_to_string(site.passwords()).expect("readable");
    fs::write(site.passwords(), format!("{passwords}capella new-9876\n")).expect("written");
    site.write_identmap(&format!("{good}capella tsmserver-8 3 1000 2000 /lustre/capella\n"));
    reload(&["read again"]);
    newcomer(Ok(()));

    site.write_identmap(&format!("{good}capella tsmserver-8 three 1000 2000 /lustre/capella\n"));
    reload(&["[E]", "identmap.conf:4: ", "archive-id", "stays in force"]);
    newcomer(Ok(()));

    // Without the line the node is unknown; sessions that are signed on stay so.
    site.write_identmap(&good);
    reload(&["read again"]);
    newcomer(Err(EACCES));
    signed_on_before.upload("/lustre/data/f", StorageDest::Null, b"content", 7);
    Deployed::connect(daemon.port()).sign_on(NODE, PASSWORD).accepted(Op::Connect);
    let lines = daemon.log().lines();
    assert!(!lines.iter().any(|line| line.contains("new-9876")), "a password is in the log");
    daemon.stop();
}
