use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fsq_wire::StorageDest::{LustreTsm, Tsm};
use rustix::io::Errno;

use super::*;
use crate::drain::testing::{Daemon, World, content};
use crate::fs::sim::{Operation, SimConfig, SimFs};
use crate::fs::{Access, Fs, Kind};
use crate::queue::record::FileState;
use crate::queue::recovery::Scan;
use crate::queue::route::ArchiveMode;
use crate::queue::{Health, Phase, Stage};

mod late;

const YEAR: Duration = Duration::from_secs(86_400 * 365);

/// What was asked, and what is answered: verdicts in order, then only confirmations.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(VecDeque<Verdict>, Vec<String>)>>);

impl Script {
    fn of(verdicts: &[Verdict]) -> Self {
        let script = Self::default();
        script.0.lock().expect("no panic").0.extend(verdicts.iter().cloned());
        script
    }

    fn calls(&self) -> Vec<String> {
        self.0.lock().expect("no panic").1.clone()
    }

    fn answer(&self, call: String, count: usize) -> Vec<Verdict> {
        let mut script = self.0.lock().expect("no panic");
        script.1.push(call);
        (0..count).map(|_| script.0.pop_front().unwrap_or(Verdict::Confirmed)).collect()
    }
}

impl Archive for Script {
    fn batch_max(&self) -> usize {
        4
    }

    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict> {
        let names: Vec<_> = batch.iter().map(|item| item.staging.display().to_string()).collect();
        assert!(batch.iter().all(|item| item.record.state == FileState::TsmArchiveRun));
        assert!(batch.iter().all(|item| item.target == Some(&item.staging.to_path_buf())));
        self.answer(format!("archive {}", names.join(" ")), batch.len())
    }

    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict {
        self.answer(format!("confirm {}", item.staging.display()), 1).remove(0)
    }
}

fn failed(class: FailureClass) -> Verdict {
    Verdict::Failed { class, text: "says the script".into() }
}

fn pending(seconds: u64) -> Verdict {
    Verdict::Pending { check_after: Duration::from_secs(seconds) }
}

fn world() -> World {
    let mut world = World::new(5);
    world.options.archive = ArchiveMode::FromStaging;
    world
}

fn run(daemon: &mut Daemon, archive: impl Archive, until: Duration) {
    let mut worker = daemon.archive_worker(archive);
    daemon.drain_with(Some(&mut worker), until);
}

fn run_script(world: &World, verdicts: &[Verdict], names: &[&str]) -> Vec<String> {
    let script = Script::of(verdicts);
    let mut daemon = world.start().expect("it starts");
    for name in names {
        daemon.enqueue(name, Tsm);
    }
    run(&mut daemon, script.clone(), YEAR);
    script.calls()
}

#[test]
fn a_batch_is_confirmed_early_late_or_again() {
    let world = world();
    for name in ["a", "b", "c", "d", "e"] {
        world.stage(name, name.as_bytes(), Tsm);
    }
    let verdicts = [
        Verdict::Confirmed,
        pending(30),
        failed(FailureClass::File),
        pending(10),
        // "e", which follows in a batch of its own.
        Verdict::Confirmed,
        // The failed "c" again, after about a second.
        Verdict::Confirmed,
        // "d" after ten seconds: not yet. "b" after thirty: lost, and so handed over again.
        pending(60),
        Verdict::Missing,
    ];
    let calls = run_script(&world, &verdicts, &["a", "b", "c", "d", "e"]);
    let expected = [
        "archive a b c d",
        "archive e",
        "archive c",
        "confirm d",
        "confirm b",
        "archive b",
        "confirm d",
    ];
    assert_eq!(calls, expected);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_freed_before_it_is_confirmed() {
    let world = world();
    world.stage("a", b"a", Tsm);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("a", Tsm);
    let script = Script::of(&[pending(10), pending(10), pending(10_000)]);
    run(&mut daemon, script.clone(), Duration::from_secs(60));
    assert_eq!(script.calls().len(), 3);
    assert_eq!(world.state("a"), FileState::TsmArchiveRun);
    // After a crash it is asked about, not handed over again.
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    let script = Script::default();
    run(&mut daemon, script.clone(), YEAR);
    assert_eq!(script.calls(), ["confirm a"]);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
}

#[test]
fn errors_are_counted_and_end_in_omitted() {
    let world = world();
    world.stage("a", b"a", Tsm);
    let verdicts = vec![failed(FailureClass::File); 3];
    assert_eq!(run_script(&world, &verdicts, &["a"]).len(), 3);
    assert_eq!(world.state("a"), FileState::FileOmitted);
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    run(&mut daemon, Script::default(), YEAR);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    // An error that cannot pass ends it at once.
    world.stage("b", b"b", Tsm);
    assert_eq!(run_script(&world, &[failed(FailureClass::Permanent)], &["b"]).len(), 1);
    assert_eq!(world.state("b"), FileState::FileOmitted);
}

#[test]
fn an_archive_that_is_down_pauses_its_lane_only() {
    let world = world();
    world.stage("a", b"a", LustreTsm);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("a", LustreTsm);
    let script = Script::of(&vec![failed(FailureClass::Target); 1000]);
    run(&mut daemon, script.clone(), Duration::from_secs(3 * 3600));
    assert!((20..200).contains(&script.calls().len()), "{}", script.calls().len());
    assert!(matches!(daemon.queue.health(Stage::Archive), Health::Down { .. }));
    assert_eq!(daemon.queue.health(Stage::Copy), Health::Up);
    assert_eq!(world.on_target("a"), Some(b"a".to_vec()));
    assert_eq!(world.state("a"), FileState::TsmArchiveRun, "it may be done there");
    run(&mut daemon, Script::default(), YEAR);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
}

#[test]
fn an_archive_that_reads_from_the_target_gets_a_copy_there_first() {
    let mut world = world();
    world.options.archive = ArchiveMode::FromTarget;
    world.stage("a", b"a", Tsm);
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    let script = Script::default();
    run(&mut daemon, script.clone(), YEAR);
    assert_eq!(script.calls(), ["archive a"]);
    assert_eq!(world.on_target("a"), Some(b"a".to_vec()));
}

/// An archive directory at the root of its own simulated file system.
struct Shelf(SimFs);

impl Shelf {
    fn new() -> Self {
        Self(SimFs::new(SimConfig { first_file: 2_000_000, ..SimConfig::lustre() }))
    }

    fn archive(&self, daemon: &Daemon) -> DirArchive<SimFs> {
        let fs = Arc::new(self.0.clone());
        DirArchive::new(Arc::clone(&daemon.tree), fs, Path::new("/"), 7)
    }

    fn objects(&self) -> Vec<PathBuf> {
        let paths = self.0.paths().into_iter();
        paths.filter(|(_, kind)| *kind == Kind::File).map(|(path, _)| path).collect()
    }

    fn put(&self, path: &str, bytes: &[u8]) -> <SimFs as Fs>::Node {
        let root = self.0.open_root(Path::new("/")).expect("a root");
        let path = Path::new(path);
        let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o755 };
        let parent = path.parent().expect("a parent");
        let directory = self.0.directory(&root, parent, Some(owner), true).expect("room");
        let name = Path::new(path.file_name().expect("a name"));
        let file = self.0.create_named(&directory, name, owner, false).expect("a new file");
        self.0.write_all_at(&file, bytes, 0).expect("room");
        file
    }
}

#[test]
fn a_directory_takes_files_whole_with_their_checksum() {
    let world = world();
    let shelf = Shelf::new();
    let sizes = [0, 1, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20];
    let mut daemon = world.start().expect("it starts");
    for len in sizes {
        world.stage(&format!("run/{len}"), &content(len, 1), Tsm);
        daemon.enqueue(&format!("run/{len}"), Tsm);
    }
    world.stage_old("run/old", &content(77, 1), Tsm);
    daemon.enqueue("run/old", Tsm);
    let archive = shelf.archive(&daemon);
    run(&mut daemon, archive, YEAR);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    assert_eq!(shelf.objects().len(), sizes.len() + 1);
    let root = shelf.0.open_root(Path::new("/")).expect("a root");
    for len in sizes {
        let path = PathBuf::from(format!("3/run/{len}"));
        assert!(shelf.0.contents(&path) == Some(content(len, 1)), "{len}");
        let node = shelf.0.open(&root, &path, Access::Read).expect("there");
        let sum = shelf.0.attribute(&node, CHECKSUM_ATTRIBUTE).expect("readable").expect("there");
        assert_eq!(sum, format!("{:08x}", crc32fast::hash(&content(len, 1))).as_bytes());
    }
}

#[test]
fn an_object_that_exists_is_recognised_or_left_alone() {
    let ours = content(5000, 1);
    let other = content(5000, 2);
    for (there, equal) in [(&ours, true), (&other, false), (&content(4, 1), false)] {
        for state in [FileState::LocalCopyDone, FileState::TsmArchiveRun] {
            let world = world();
            let shelf = Shelf::new();
            shelf.put("3/d/f", there);
            world.stage("d/f", &ours, Tsm);
            world.set_state("d/f", state);
            let mut daemon = world.start().expect("it starts");
            daemon.recover(Scan::Start);
            let archive = shelf.archive(&daemon);
            run(&mut daemon, archive, YEAR);
            assert!(shelf.0.contents(Path::new("3/d/f")).as_ref() == Some(there));
            assert_eq!(shelf.objects().len(), 1);
            assert_eq!(world.staged_files().is_empty(), equal);
            if equal {
                // Nobody else has synced it.
                shelf.0.crash(1);
                assert!(shelf.0.contents(Path::new("3/d/f")).as_ref() == Some(there));
            } else {
                assert_eq!(world.state("d/f"), FileState::FileOmitted);
            }
        }
    }
}

#[test]
fn a_damaged_staging_copy_is_not_archived() {
    let world = world();
    let shelf = Shelf::new();
    let record = crate::drain::testing::record(Path::new("f"), Tsm, &content(9000, 1), true);
    world.stage_as("f", &content(9000, 2), &record);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("f", Tsm);
    let archive = shelf.archive(&daemon);
    run(&mut daemon, archive, YEAR);
    assert_eq!(shelf.objects(), Vec::<PathBuf>::new());
    assert_eq!(world.state("f"), FileState::FileOmitted);
}

#[test]
fn a_directory_that_is_full_or_gone_is_waited_for() {
    for (operation, errno) in
        [(Operation::OpenRoot, Errno::NOENT), (Operation::WriteAllAt, Errno::NOSPC)]
    {
        let world = world();
        let shelf = Shelf::new();
        world.stage("f", &content(9000, 2), Tsm);
        let mut daemon = world.start().expect("it starts");
        daemon.enqueue("f", Tsm);
        shelf.0.fail_always(operation, errno);
        let archive = shelf.archive(&daemon);
        run(&mut daemon, archive, Duration::from_secs(3600));
        assert!(matches!(daemon.queue.health(Stage::Archive), Health::Down { .. }), "{errno}");
        shelf.0.clear_faults();
        let archive = shelf.archive(&daemon);
        run(&mut daemon, archive, YEAR);
        assert_eq!(shelf.objects(), [PathBuf::from("3/f")]);
        assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_crash_at_any_call_of_the_directory_loses_nothing_and_leaves_nothing() {
    // The archive loses power, or both do, or only the daemon is killed.
    for (shelf_crashes, staging_crashes) in [(true, false), (true, true), (false, false)] {
        crash_everywhere(shelf_crashes, staging_crashes);
    }
}

fn crash_everywhere(shelf_crashes: bool, staging_crashes: bool) {
    for at in 0.. {
        let mut world = world();
        let shelf = Shelf::new();
        for name in ["d/a", "b"] {
            world.stage(name, &content(9000, 3), Tsm);
        }
        shelf.0.halt_at(at);
        let mut daemon = world.start().expect("it starts");
        daemon.recover(Scan::Start);
        let archive = shelf.archive(&daemon);
        run(&mut daemon, archive, Duration::from_secs(2));
        let finished = shelf.0.operations() < at;
        shelf.0.clear_faults();
        if shelf_crashes {
            shelf.0.crash(at);
        }
        if staging_crashes {
            world.staging.crash(at);
        }
        world.limits.tolerated_errors = 1;
        let mut daemon = world.start().expect("it starts");
        daemon.recover(Scan::Start);
        let archive = shelf.archive(&daemon);
        run(&mut daemon, archive, YEAR);
        assert_eq!(world.staged_files(), Vec::<PathBuf>::new(), "{at}: without one more error");
        // Staging is free: the archive alone must have everything, whatever happens to it now.
        shelf.0.crash(at + 1);
        assert_eq!(shelf.objects(), [PathBuf::from("3/b"), PathBuf::from("3/d/a")], "{at}");
        for object in shelf.objects() {
            assert!(shelf.0.contents(&object) == Some(content(9000, 3)), "{at}: {object:?}");
        }
        if finished {
            assert!(at > 15, "it took some calls");
            return;
        }
    }
}

#[test]
fn files_of_the_old_daemon_go_through_both_lanes() {
    use FileState::*;
    for state in FileState::ALL {
        let world = world();
        let shelf = Shelf::new();
        world.stage_old("d/f", &content(70_001, 4), LustreTsm);
        world.set_state("d/f", state);
        let mut daemon = world.start().expect("it starts");
        daemon.recover(Scan::Start);
        let archive = shelf.archive(&daemon);
        run(&mut daemon, archive, YEAR);
        if state == FileKeep {
            assert_eq!(world.staged_files(), [PathBuf::from("d/f")]);
            continue;
        }
        assert_eq!(world.staged_files(), Vec::<PathBuf>::new(), "{state:?}");
        assert_eq!(shelf.objects(), [PathBuf::from("3/d/f")], "{state:?}");
        // Where the archive was asked already, the copy had been made.
        let copied = !matches!(state, TsmArchiveRun | TsmArchiveError | TsmArchiveDone);
        assert_eq!(world.on_target("d/f").is_some(), copied, "{state:?}");
    }
}

#[test]
fn a_file_in_the_wrong_lane_finds_its_way() {
    let world = world();
    world.stage("a", b"a", LustreTsm);
    world.stage("b", b"b", Tsm);
    let mut daemon = world.start().expect("it starts");
    daemon.queue.enqueue(Path::new("a"), Stage::Archive, Phase::Submit);
    daemon.queue.enqueue(Path::new("b"), Stage::Copy, Phase::Submit);
    daemon.queue.enqueue(Path::new("gone"), Stage::Archive, Phase::Confirm);
    run(&mut daemon, Script::default(), YEAR);
    assert_eq!(world.target_files(), [PathBuf::from("a")]);
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
}

#[test]
fn whatever_fails_everything_arrives_once_in_the_end() {
    let errnos =
        [Errno::IO, Errno::NOTCONN, Errno::NOSPC, Errno::ACCESS, Errno::INTR, Errno::STALE];
    for seed in 0..40 {
        let world = world();
        let shelf = Shelf::new();
        let files: Vec<_> = (0..6_u8)
            .map(|index| {
                (format!("d{}/f{index}", index % 2), content(50_000, index), index % 2 == 0)
            })
            .collect();
        for (name, bytes, archived) in &files {
            let dest = if *archived { LustreTsm } else { fsq_wire::StorageDest::Lustre };
            world.stage(name, bytes, dest);
        }
        for (offset, fs) in [&world.target, &shelf.0, &world.staging].into_iter().enumerate() {
            fs.fail_randomly(seed * 3 + offset as u64, 20, &errnos);
        }
        // Runs that end in the middle, as by kill -9; each may give up on files.
        for run_until in 1..6 {
            let Ok(mut daemon) = world.start() else { continue };
            daemon.recover(Scan::Start);
            let archive = shelf.archive(&daemon);
            run(&mut daemon, archive, Duration::from_secs(run_until * 40));
            for (name, bytes, archived) in &files {
                let staged = world.staging.contents(Path::new(name));
                let target = world.on_target(name);
                let object = shelf.0.contents(&Path::new("3").join(name));
                assert!(staged.is_none_or(|staged| staged == *bytes), "seed {seed}: {name}");
                assert!(target.as_ref().is_none_or(|copy| copy == bytes), "seed {seed}: {name}");
                assert!(object.as_ref().is_none_or(|copy| copy == bytes), "seed {seed}: {name}");
                let safe = target.is_some() && (object.is_some() || !archived);
                let staged = world.staged_files().contains(&name.into());
                assert!(staged || safe, "seed {seed}: {name} was freed too early");
            }
        }
        for fs in [&world.target, &shelf.0, &world.staging] {
            fs.clear_faults();
        }
        let mut daemon = world.start().expect("it starts");
        daemon.recover(Scan::Start);
        let archive = shelf.archive(&daemon);
        run(&mut daemon, archive, YEAR);
        assert_eq!(world.staged_files(), Vec::<PathBuf>::new(), "seed {seed}");
        assert_eq!(world.target_files().len(), 6, "seed {seed}: no temporary");
        assert_eq!(shelf.objects().len(), 3, "seed {seed}: no temporary");
    }
}
