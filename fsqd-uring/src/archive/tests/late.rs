//! An archive that confirms after hours or never, on a clock that the tests move: what memory has no
//! room for waits on disk, and everything arrives in the end, once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fsq_wire::StorageDest::{self, Lustre, LustreTsm, Tsm};

use super::super::*;
use super::run;
use crate::clock::Clock;
use crate::drain::testing::{Daemon, SimClock, World, content};
use crate::queue::record::FileState;
use crate::queue::recovery::Scan;
use crate::queue::route::ArchiveMode;
use crate::queue::{Health, Stage};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Small, so that some hundred files are many.
const ENTRIES_MAX: usize = 64;

/// When each file was handed over first, and how often.
type Taken = Arc<Mutex<HashMap<PathBuf, (Duration, u32)>>>;

/// Takes everything, and has it after `delay`.
#[derive(Clone)]
struct Late {
    clock: Arc<SimClock>,
    delay: Duration,
    taken: Taken,
}

impl Late {
    fn new(world: &World, delay: Duration) -> Self {
        Self { clock: Arc::clone(&world.clock), delay, taken: Taken::default() }
    }

    fn most_submissions(&self) -> u32 {
        let taken = self.taken.lock().expect("no panic");
        taken.values().map(|(_, times)| *times).max().unwrap_or(0)
    }
}

impl Archive for Late {
    fn batch_max(&self) -> usize {
        4
    }

    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict> {
        let mut taken = self.taken.lock().expect("no panic");
        for item in batch {
            taken.entry(item.staging.into()).or_insert_with(|| (self.clock.now(), 0)).1 += 1;
        }
        vec![Verdict::Pending { check_after: 5 * MINUTE }; batch.len()]
    }

    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict {
        match self.taken.lock().expect("no panic").get(item.staging) {
            None => Verdict::Missing,
            Some((at, _)) if self.clock.now() >= *at + self.delay => Verdict::Confirmed,
            Some(_) => Verdict::Pending { check_after: 5 * MINUTE },
        }
    }
}

fn world(path_bytes_max: usize) -> World {
    let mut world = World::new(5);
    world.options.archive = ArchiveMode::FromStaging;
    world.limits.entries_max = ENTRIES_MAX;
    world.limits.path_bytes_max = path_bytes_max;
    world
}

/// The n-th file: each destination in turn, and names of very different length.
fn file(n: usize) -> (String, StorageDest) {
    let dest = [Tsm, Lustre, LustreTsm][n % 3];
    (format!("run{}/{n:04}{}", n % 5, "x".repeat(n % 7 * 4)), dest)
}

/// Every five minutes a file arrives; what is to go to the target goes there at once.
fn ingest(world: &World, daemon: &mut Daemon, archive: &Late, files: usize) -> (usize, usize) {
    let mut most = (0, 0);
    for n in 0..files {
        let (name, dest) = file(n);
        let bytes = content(100 + n, n as u8);
        world.stage(&name, &bytes, dest);
        daemon.enqueue(&name, dest);
        let until = world.clock.now() + 5 * MINUTE;
        run(daemon, archive.clone(), until);
        world.clock.advance_to(until);
        if dest != Tsm {
            assert!(world.on_target(&name) == Some(bytes), "{name} waits for the archive");
        }
        let (entries, path_bytes) = footprint(world, daemon);
        most = (most.0.max(entries), most.1.max(path_bytes));
    }
    most
}

/// What is in memory, which is within the bounds.
fn footprint(world: &World, daemon: &Daemon) -> (usize, usize) {
    let (entries, path_bytes) = daemon.queue.footprint();
    assert!(entries <= world.limits.entries_max, "{entries} files in memory");
    assert!(path_bytes <= world.limits.path_bytes_max, "{path_bytes} bytes of paths in memory");
    (entries, path_bytes)
}

#[test]
fn hours_late_is_waited_for_in_bounded_memory() {
    const FILES: usize = 400;
    // The names are what fills the memory.
    let world = world(1024);
    let late = Late::new(&world, 20 * HOUR);
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    let (entries, path_bytes) = ingest(&world, &mut daemon, &late, FILES);
    let waiting = world.staged_files().len();
    assert!(waiting > 2 * entries, "{waiting} files on staging, {entries} in memory");
    assert!(path_bytes > 1024 * 3 / 4 - 40, "{path_bytes} bytes: the bound was not near");
    // More time alone ends it: what memory had no room for is found on disk.
    run(&mut daemon, late.clone(), world.clock.now() + 4 * WEEK);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    assert_eq!(daemon.queue.footprint(), (0, 0));
    for n in 0..FILES {
        let (name, dest) = file(n);
        let delivered = (dest != Tsm).then(|| content(100 + n, n as u8));
        assert!(world.on_target(&name) == delivered, "{name}");
        assert_eq!(
            late.taken.lock().expect("no panic").contains_key(&PathBuf::from(&name)),
            dest != Lustre
        );
    }
    assert_eq!(late.most_submissions(), 1, "a file was handed over again");
}

#[test]
fn never_keeps_every_staging_copy_also_over_a_restart() {
    const FILES: usize = 200;
    // The files are.
    let world = world(1 << 20);
    let never = Late::new(&world, 1000 * WEEK);
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    let (entries, _) = ingest(&world, &mut daemon, &never, FILES);
    assert!(entries >= ENTRIES_MAX * 3 / 4, "{entries} files: the bound was not near");
    run(&mut daemon, never.clone(), world.clock.now() + WEEK);
    let wanted = |n: &usize| file(*n).1 != Lustre;
    let kept = (0..FILES).filter(wanted).count();
    assert_eq!(world.staged_files().len(), kept);
    let run_state = FileState::TsmArchiveRun;
    let in_hand = |n: &usize| wanted(n) && world.state(&file(*n).0) == run_state;
    let asked_for = (0..FILES).filter(in_hand).count();
    assert_eq!(asked_for, never.taken.lock().expect("no panic").len());
    assert!(asked_for <= ENTRIES_MAX, "{asked_for} handed over");
    assert_eq!(daemon.queue.health(Stage::Archive), Health::Up, "it is late, not down");
    // A new daemon knows what it may ask about, and loses nothing either.
    let mut daemon = world.start().expect("it starts");
    assert!(daemon.recover(Scan::Start).overflowed);
    run(&mut daemon, never.clone(), world.clock.now() + WEEK);
    assert_eq!(world.staged_files().len(), kept);
    assert_eq!(never.most_submissions(), 1);
    footprint(&world, &daemon);
    // It comes to its senses.
    let mut soon = never.clone();
    soon.delay = Duration::ZERO;
    run(&mut daemon, soon, world.clock.now() + WEEK);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    assert_eq!(never.taken.lock().expect("no panic").len(), kept);
    assert_eq!(never.most_submissions(), 1);
}
