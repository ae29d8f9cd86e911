//! The measurement behind `staging/sync.rs`: what makes a batch of small files durable soonest.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fs::{Fs, LinuxFs, Ownership};

const ROUNDS: usize = 31;
const BLOCK: usize = 4096;

type Node = <LinuxFs as Fs>::Node;

/// Files as a CLOSE leaves them before the sync: a block written O_DIRECT, attributes, a name.
fn prepare(root: &Node, directory: &Node, count: usize, round: usize) -> Vec<(PathBuf, Node)> {
    let owner = Ownership { uid: None, gid: None, mode: 0o600 };
    let memory = vec![7; 2 * BLOCK];
    let block = &memory[memory.as_ptr().align_offset(BLOCK)..][..BLOCK];
    let file = |number| {
        let name = PathBuf::from(format!("{round}-{number}"));
        let file = LinuxFs.create_unnamed(root, owner, true).expect("O_TMPFILE and O_DIRECT");
        LinuxFs.write_all_at(&file, block, 0).expect("room");
        for attribute in 0..8 {
            let key = format!("user.fsq.measured{attribute}");
            LinuxFs.set_attribute(&file, &key, b"a value like a path").expect("attributes");
        }
        LinuxFs.publish_unnamed(&file, directory, &name).expect("a free name");
        (name, file)
    };
    (0..count).map(file).collect()
}

/// The middle of the times, ms, of one way to sync so many files.
fn median_ms(path: &Path, count: usize, sync: impl Fn(&Node, &Node, &[(PathBuf, Node)])) -> f64 {
    let root = LinuxFs.open_root(path).expect("a directory");
    let owner = Ownership { uid: None, gid: None, mode: 0o755 };
    let directory = LinuxFs.directory(&root, Path::new("d"), Some(owner), false).expect("made");
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|round| {
            let files = prepare(&root, &directory, count, round);
            let start = Instant::now();
            sync(&root, &directory, &files);
            let time = start.elapsed();
            for (name, _) in &files {
                LinuxFs.remove(&directory, name).expect("there");
            }
            LinuxFs.sync_all(&root).expect("synced");
            time
        })
        .collect();
    times.sort();
    times[ROUNDS / 2].as_secs_f64() * 1e3
}

#[test]
#[ignore = "a measurement, see staging/sync.rs"]
fn batches_by_way_of_sync() {
    let scratch = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
    println!(
        "| files | fsync of each, and of the directory | one syncfs | one fsync of the directory |"
    );
    for count in [1, 2, 4, 16, 64] {
        let each = median_ms(scratch.path(), count, |_, directory, files| {
            for (_, file) in files {
                LinuxFs.sync(file).expect("synced");
            }
            LinuxFs.sync(directory).expect("synced");
        });
        let all = median_ms(scratch.path(), count, |root, _, _| {
            LinuxFs.sync_all(root).expect("synced");
        });
        let last = median_ms(scratch.path(), count, |_, directory, _| {
            LinuxFs.sync(directory).expect("synced");
        });
        println!("| {count} | {each:.2} | {all:.2} | {last:.2} |");
    }
}
