//! The same threads as in the daemon, on the file systems and rings of this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fsq_wire::StorageDest::{Lustre, LustreTsm};

use super::testing::{content, record};
use super::*;
use crate::archive::{self, ArchiveWorker, DirArchive, Pool};
use crate::clock::SystemClock;
use crate::fs::linux::LinuxFs;
use crate::fs::{Handle, Ownership};
use crate::queue::Limits;
use crate::queue::record::{Owner, seal};
use crate::queue::recovery::keep_house;
use crate::ring::Span;
use crate::ring::setup::Rung;
use crate::ring::uring::{Uring, UringConfig};

const BLOCK_BYTES: u32 = 256 << 10;
const ARENA: Span = Span { start: 0, len: 3 * BLOCK_BYTES };

struct Nobody;

impl Owners for Nobody {
    fn owner(&self, _: &Record) -> Option<(u32, u32)> {
        None
    }
}

/// Stages a file whose fpath lies below `target`.
fn stage(staging: &Path, target: &Path, name: &str, bytes: &[u8], archived: bool) {
    let root = LinuxFs.open_root(staging).expect("a directory");
    let path = Path::new(name);
    let parent = path.parent().expect("a parent");
    let owner = Ownership { uid: None, gid: None, mode: 0o755 };
    let directory = LinuxFs.directory(&root, parent, Some(owner), false).expect("writable");
    let owner = Ownership { uid: None, gid: None, mode: 0o660 };
    let file_name = Path::new(path.file_name().expect("a name"));
    let file = LinuxFs.create_named(&directory, file_name, owner, false).expect("a new file");
    LinuxFs.write_all_at(&file, bytes, 0).expect("room");
    let dest = if archived { LustreTsm } else { Lustre };
    let mut record = record(path, dest, bytes, true);
    record.fs = target.into();
    record.fpath = target.join(path).into();
    record.owner = Some(Owner {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        node: "polaris".into(),
    });
    record.store_static(&LinuxFs, &file).expect("attributes");
    seal(&LinuxFs, &file, record.content.expect("ours"), record.state).expect("attributes");
    assert!(file.id().0 >= 0);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(next).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

fn ring() -> UringConfig {
    UringConfig {
        entries: 8,
        completions: 16,
        arena_bytes: u64::from(ARENA.len),
        registered_bytes: u64::from(ARENA.len),
        best: Rung::Defer,
        workers_max: 2,
    }
}

#[test]
fn threads_on_this_machine_drain_and_archive() {
    let sandbox = tempfile::tempdir().expect("a temporary directory");
    let [staging, target, shelf] = ["staging", "target", "archive"].map(|name| {
        let path = sandbox.path().join(name);
        std::fs::create_dir(&path).expect("writable");
        path
    });
    let sizes = [0, 1, 4096, 5000, 1 << 20, (3 << 20) + 12_345];
    for index in 0..24 {
        let bytes = content(sizes[index % sizes.len()], index as u8);
        stage(&staging, &target, &format!("run{}/f{index}", index % 3), &bytes, index % 2 == 0);
    }

    let fs = Arc::new(LinuxFs);
    let root = fs.open_root(&staging).expect("a directory");
    let tree = Arc::new(StagingTree::new(Arc::clone(&fs), root));
    let queue = Arc::new(Queue::new(Limits::default(), Arc::new(SystemClock::new())));
    let mode = ArchiveMode::FromStaging;
    let drain = Arc::new(Drain {
        tree: Arc::clone(&tree),
        target: Arc::new(TargetRoot::new(Arc::clone(&fs), &target)),
        queue: Arc::clone(&queue),
        owners: Arc::new(Nobody),
        striping: None,
        options: Options {
            target_io: TargetIo::Auto,
            verify: Verify::Readback,
            archive: mode,
            instance: 1,
        },
    });
    let mut threads: Vec<_> = (0..2)
        .map(|index| {
            let drain = Arc::clone(&drain);
            let make = move || {
                Uring::open(&ring()).map(|ring| DrainWorker::new(drain, ring, ARENA, BLOCK_BYTES))
            };
            spawn(index, make).expect("a thread").0
        })
        .collect();
    let pool =
        Pool { tree: Arc::clone(&tree), queue: Arc::clone(&queue), mode, target: target.clone() };
    let pool = Arc::new(pool);
    let session = DirArchive::new(Arc::clone(&tree), Arc::clone(&fs), &shelf, 1);
    threads.push(archive::spawn(0, move || ArchiveWorker::new(pool, session)).expect("a thread"));
    let keeper = Arc::clone(&queue);
    threads.push(std::thread::spawn(move || keep_house(&tree, &keeper, mode)));

    let deadline = Instant::now() + Duration::from_secs(60);
    while !files(&staging).is_empty() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    queue.close();
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert_eq!(files(&staging), Vec::<PathBuf>::new());
    assert_eq!((files(&target).len(), files(&shelf).len()), (24, 12));
    for index in 0..24 {
        let bytes = content(sizes[index % sizes.len()], index as u8);
        let name = format!("run{}/f{index}", index % 3);
        assert!(std::fs::read(target.join(&name)).expect("copied") == bytes, "{name}");
        if index % 2 == 0 {
            // The archive's path is the file's whole fpath below its archive id.
            let below = target.strip_prefix("/").expect("absolute").join(&name);
            let object = shelf.join("3").join(below);
            assert!(std::fs::read(object).expect("archived") == bytes, "{name}");
        }
    }
}
