//! An archive that is away while thousands of files come for it: what that costs in memory, and that
//! nothing is lost by it.

use std::fs;
use std::ops::Range;

use fsq_wire::StorageDest;
use fsqd_uring::queue::record::FileState;

use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::site::Site;
use crate::support::{eventually, sole_turn, tree};

const CONNECTIONS: usize = 8;

/// Names as long as those of experiments; a few KiB each.
fn file(n: usize) -> (String, StorageDest, Vec<u8>) {
    let dest = if n.is_multiple_of(2) { StorageDest::Tsm } else { StorageDest::LustreTsm };
    let name = format!("data/beamtime-2026-04/run{:04}/detector-front-{n:06}.lmd", n % 40);
    (name, dest, bytes(n as u64, n * 37 % 4000))
}

fn upload(port: u16, files: &Range<usize>) {
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let files = files.clone().skip(connection).step_by(CONNECTIONS);
            scope.spawn(move || {
                let mut client = Deployed::signed_on(port);
                for (name, dest, content) in files.map(file) {
                    client.upload(&format!("/lustre/{name}"), dest, &content, 1 << 20);
                }
            });
        }
    });
}

/// What the attributes of a staged file say of it.
fn state(site: &Site, name: &str) -> FileState {
    let mut value = [0; 4];
    let len = rustix::fs::getxattr(site.staged(name), "user.fsq.state", &mut value);
    assert_eq!(len, Ok(4), "{name} is not staged");
    let bits = u32::from_ne_bytes(value);
    let state = FileState::ALL.into_iter().find(|state| state.bits() == bits);
    state.unwrap_or_else(|| panic!("{name} has the state {bits:#x}"))
}

#[test]
fn waiting_for_an_archive_takes_the_queue_s_memory_and_no_more() {
    const FIRST: usize = 1500;
    const ALL: usize = 6000;
    // What the queue holds of a file: its path, shared, of 55 bytes with two counters, as the allocator
    // rounds it up (80); its entry in the table (16 + 12, padded, + 1) and its place in the line (16),
    // which double when they are full, with the old one beside them meanwhile: three times that.
    const BYTES_PER_FILE: u64 = 80 + 3 * (33 + 16);
    // Pages of the allocator that threads have not needed before.
    const SLACK_KIB: u64 = 1024;
    // So a leak of 1 KiB a file, 4.4 MiB together, is twice all that is allowed.
    let _turn = sole_turn();
    let site = Site::new();
    let daemon = site.start();
    let away = site.root().join("away");
    fs::rename(site.archive(), &away).expect("renamed");
    let round = |files: Range<usize>| {
        upload(daemon.port(), &files);
        let copied = files.end / 2;
        let delivered = || tree::files(&site.target()).len();
        eventually("what is for Lustre is there", || (delivered() == copied).then_some(()));
        let memory = ["VmRSS", "RssAnon"].map(|key| daemon.memory_kib(key));
        println!("{} files wait: VmRSS {} KiB, RssAnon {} KiB", files.end, memory[0], memory[1]);
        memory
    };
    let first = round(0..FIRST);
    let all = round(FIRST..ALL);
    let files = (ALL - FIRST) as u64;
    println!("{} bytes a file", all[1].saturating_sub(first[1]) * 1024 / files);
    let allowed_kib = files * BYTES_PER_FILE / 1024 + SLACK_KIB;
    for (first, all) in first.into_iter().zip(all) {
        assert!(all <= first + allowed_kib, "grew from {first} to {all} KiB");
    }
    for (name, dest, _) in (0..ALL).map(file) {
        let before = match dest {
            StorageDest::Tsm => FileState::LocalCopyDone,
            _ => FileState::LustreCopyDone,
        };
        // Some were about to be handed over.
        let state = state(&site, &name);
        assert!([before, FileState::TsmArchiveRun].contains(&state), "{name}: {state:?}");
    }

    // Taken up by a new daemon, since the old one's next probe may be as far away as the outage was
    // long (`trouble` waits for one).
    daemon.stop();
    fs::rename(&away, site.archive()).expect("renamed");
    let daemon = site.start();
    eventually("everything is archived", || tree::files(&site.staging()).is_empty().then_some(()));
    assert_eq!(tree::files(&site.archive()).len(), ALL, "each once");
    for (name, dest, content) in (0..ALL).map(file) {
        assert!(fs::read(site.archived(&name)).expect("archived") == content, "{name}");
        let delivered = fs::read(site.delivered(&name)).ok();
        let expected = (dest == StorageDest::LustreTsm).then_some(content);
        assert!(delivered == expected, "{name} on the target");
    }
    daemon.stop();
}
