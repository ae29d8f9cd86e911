//! Every destination from the client's file to where it ends, byte for byte.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fsq_wire::{Layout, Op, StorageDest};
use libfsq::{Client, Options};

use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::site::{FS, NODE, PASSWORD, Site, is_root, owner};
use crate::support::{eventually, shared_turn, tree};

/// Around every length at which something changes: nothing, a block, a window, several windows.
const LENS: [usize; 12] =
    [0, 1, 3, 4095, 4096, 4097, 40_000, 524_288, 1_048_575, 1_048_577, 2_097_152, 5_000_001];

/// Waits for a file and compares it.
fn arrived(path: &Path, content: &[u8]) {
    let found = eventually(&format!("{} arrives", path.display()), || std::fs::read(path).ok());
    assert_eq!(found.len(), content.len(), "{}", path.display());
    let (ours, theirs) = (crc32fast::hash(content), crc32fast::hash(&found));
    assert_eq!(ours, theirs, "{}: CRC-32", path.display());
}

fn is_delivered(dest: StorageDest) -> bool {
    matches!(dest, StorageDest::Lustre | StorageDest::LustreTsm)
}

fn is_archived(dest: StorageDest) -> bool {
    matches!(dest, StorageDest::Tsm | StorageDest::LustreTsm)
}

/// All files of `names` are exactly where `dest` says and nowhere else.
fn check(site: &Site, dest: StorageDest, names: &[(String, Vec<u8>)]) {
    for (name, content) in names {
        if is_delivered(dest) {
            arrived(&site.delivered(name), content);
        }
        if is_archived(dest) {
            arrived(&site.archived(name), content);
        }
        if dest == StorageDest::Local {
            arrived(&site.staged(name), content);
        } else {
            eventually(&format!("{name} is freed on staging"), || {
                (!site.staged(name).exists()).then_some(())
            });
        }
        assert_eq!(site.delivered(name).exists(), is_delivered(dest), "{dest}: {name} on target");
        assert_eq!(site.archived(name).exists(), is_archived(dest), "{dest}: {name} in archive");
    }
}

fn files(dest: StorageDest, client: &str) -> Vec<(String, Vec<u8>)> {
    let name = |len| format!("data/{client}/{dest}/{len}");
    LENS.iter().map(|&len| (name(len), bytes(len as u64, len))).collect()
}

#[test]
fn deployed_client_reaches_every_destination() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    for (dest, layout) in
        StorageDest::ALL.into_iter().zip([Layout::C, Layout::B].into_iter().cycle())
    {
        let mut client = Deployed::connect_as(daemon.port(), layout);
        client.sign_on(NODE, PASSWORD).accepted(Op::Connect);
        deliver(client, &site, dest, "deployed");
    }
    daemon.stop();
}

/// Sends files of this destination and looks for them at its ends.
fn deliver(mut client: Deployed, site: &Site, dest: StorageDest, prefix: &str) {
    let files = files(dest, prefix);
    for (name, content) in &files {
        // Pieces as of fsqc, which fit no block.
        client.upload(&format!("{FS}/{name}"), dest, content, 1_048_575);
    }
    client.disconnect();
    check(site, dest, &files);
}

/// The older rungs of the ring are those of older kernels; they are taken by force here.
#[test]
fn every_ring_mode_reaches_the_target() {
    let _turn = shared_turn();
    for mode in ["plain", "cqsize", "coop", "defer"] {
        let site = Site::new();
        let daemon = site.start_with(&["--ring-mode", mode]);
        daemon.log().wait("the rung that was asked for, or a lower one", |line| {
            line.contains("caps:") && (line.contains(&format!("ring {mode},")) || mode != "plain")
        });
        deliver(Deployed::signed_on(daemon.port()), &site, StorageDest::LustreTsm, mode);
        daemon.stop();
    }
}

#[test]
fn our_client_reaches_every_destination() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start_with(&["--verify", "readback"]);
    let mut options = Options::new("127.0.0.1", NODE, PASSWORD);
    options.port = daemon.port();
    for dest in StorageDest::ALL {
        let files = files(dest, "ours");
        let mut client = Client::connect(&options).expect("connects");
        for (name, content) in &files {
            client.open(FS, format!("{FS}/{name}"), "by a test", dest).expect("opens");
            for piece in content.chunks(100_000) {
                client.write(piece).expect("writes");
            }
            client.close().expect("closes");
        }
        client.disconnect();
        check(&site, dest, &files);
    }
    daemon.stop();
}

/// 32 bytes, megabytes, 32 bytes, as event builders write, and an empty DATA in between.
#[test]
fn pieces_of_any_size_make_one_file() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    let content = bytes(1, 32 + 2 * 4_000_000 + 48);
    let mut client = Deployed::signed_on(daemon.port());
    client.open("/lustre/data/events.lmd", StorageDest::Lustre).accepted(Op::Open);
    let mut rest = &content[..];
    for len in [32, 4_000_000, 0, 4_000_000, 48] {
        let (piece, behind) = rest.split_at(len);
        client.data(piece).accepted(Op::Data);
        rest = behind;
    }
    assert!(rest.is_empty());
    client.close().accepted(Op::Close);
    client.disconnect();
    arrived(&site.delivered("data/events.lmd"), &content);
    daemon.stop();
}

#[test]
fn delivered_files_belong_to_the_node() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/a/b/owned", StorageDest::Lustre, b"content", 7);
    client.disconnect();
    let path = site.delivered("data/a/b/owned");
    arrived(&path, b"content");
    let file = path.metadata().expect("it is there");
    assert_eq!((file.mode() & 0o7777, file.nlink()), (0o640, 1));
    let directory = site.delivered("data/a/b").metadata().expect("it is there");
    assert_eq!(directory.mode() & 0o7777, 0o755);
    if is_root() {
        assert_eq!((file.uid(), file.gid()), owner());
        assert_eq!((directory.uid(), directory.gid()), owner());
    }
    daemon.stop();
}

#[test]
fn existing_files_are_never_replaced() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    let mut client = Deployed::signed_on(daemon.port());
    let (path, staged) = ("/lustre/data/kept", site.staged("data/kept"));
    client.upload(path, StorageDest::Local, b"first", 5);
    client.open(path, StorageDest::Local).refused(17, &[path]);

    let (path, delivered) = ("/lustre/data/once", site.delivered("data/once"));
    client.upload(path, StorageDest::Lustre, b"first", 5);
    eventually("staging is free again", || (!site.staged("data/once").exists()).then_some(()));
    client.open(path, StorageDest::Lustre).refused(17, &[path, "on the target"]);

    // What appears there after OPEN is found by the drain, which keeps both.
    let (late, taken) = ("/lustre/data/late", site.delivered("data/late"));
    client.open(late, StorageDest::Lustre).accepted(Op::Open);
    client.data(b"second").accepted(Op::Data);
    std::fs::write(&taken, b"first").expect("the target can be written");
    client.close().accepted(Op::Close);
    daemon.log().wait("that the name is taken", |line| {
        line.starts_with("[E]") && line.contains("data/late") && line.contains("exists")
    });
    client.open(late, StorageDest::Lustre).refused(17, &[late]);
    client.disconnect();
    daemon.stop();
    assert_eq!(std::fs::read(&staged).expect("it is there"), b"first");
    assert_eq!(std::fs::read(&delivered).expect("it is there"), b"first");
    assert_eq!(std::fs::read(&taken).expect("it is there"), b"first");
    assert_eq!(std::fs::read(site.staged("data/late")).expect("it is kept"), b"second");
    assert_eq!(tree::files(&site.target()), [Path::new("data/late"), Path::new("data/once")]);
}
