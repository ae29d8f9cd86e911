use std::path::{Path, PathBuf};
use std::time::Duration;

use fsq_wire::StorageDest::{Local, Lustre, LustreTsm};
use rustix::io::Errno;

use super::testing::{BLOCK_BYTES, GID, UID, World, content};
use super::*;
use crate::config::StripeHint;
use crate::fs::layout::{Layout, StripeCount};
use crate::fs::sim::{Operation, SimConfig, SimFs};
use crate::queue::Health;
use crate::queue::record::FileState;
use crate::queue::recovery::Scan;
use crate::ring::sim::SimOptions;

const HOUR: Duration = Duration::from_secs(3600);

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn files_of_every_size_arrive_with_owner_and_mode_and_free_staging() {
    let block = BLOCK_BYTES as usize;
    let sizes =
        [0, 1, 4095, 4096, 4097, block, block + 1, 5 * block - 1, (1 << 20) - 1, (1 << 20) + 17];
    for target_io in [TargetIo::Auto, TargetIo::Direct, TargetIo::Buffered] {
        for verify in [Verify::Stream, Verify::Readback] {
            for links in [true, false] {
                let mut world = World::new(1);
                world.target = SimFs::new(target_config(links));
                world.options.target_io = target_io;
                world.options.verify = verify;
                let mut daemon = world.start().expect("it starts");
                for (index, len) in sizes.into_iter().enumerate() {
                    let path = format!("run/{}/f{index}", index % 3);
                    world.stage(&path, &content(len, 1), Lustre);
                    daemon.enqueue(&path, Lustre);
                }
                daemon.drain();
                assert_eq!(world.staged_files(), paths(&[]));
                assert_eq!(world.target_files().len(), sizes.len());
                let root = world.target.open_root(Path::new("/")).expect("a root");
                for (index, len) in sizes.into_iter().enumerate() {
                    let path = format!("run/{}/f{index}", index % 3);
                    assert!(world.on_target(&path) == Some(content(len, 1)), "{path}");
                    let stat = world.target.stat_at(&root, Path::new(&path)).expect("there");
                    assert_eq!((stat.uid, stat.gid, stat.mode, stat.links), (UID, GID, 0o640, 1));
                }
                let stat = world.target.stat_at(&root, Path::new("run")).expect("there");
                assert_eq!((stat.uid, stat.gid, stat.mode), (UID, GID, 0o755));
            }
        }
    }
}

#[test]
fn a_rough_kernel_damages_nothing() {
    for seed in 0..25 {
        let mut world = World::new(seed);
        world.ring = SimOptions { failing_file: 2, ..SimOptions::rough(seed) };
        world.limits.tolerated_errors = 1000;
        world.options.verify = Verify::Readback;
        let mut daemon = world.start().expect("it starts");
        for index in 0..4 {
            let path = format!("d/{index}");
            world.stage(&path, &content(300_000 + index * 400_000, 9), Lustre);
            daemon.enqueue(&path, Lustre);
        }
        daemon.drain();
        assert_eq!(world.staged_files(), paths(&[]), "seed {seed}");
        assert_eq!(world.target_files().len(), 4, "seed {seed}");
        for index in 0..4 {
            let bytes = world.on_target(&format!("d/{index}"));
            assert!(bytes == Some(content(300_000 + index * 400_000, 9)), "seed {seed}: {index}");
        }
    }
}

#[test]
fn what_exists_is_recognised_or_left_alone() {
    let ours = content(100_000, 1);
    let mut same_length = ours.clone();
    same_length[50_000] ^= 1;
    for (there, equal) in [(&ours, true), (&same_length, false), (&content(9, 1), false)] {
        let world = World::new(1);
        world.put_on_target("d/f", there);
        world.stage("d/f", &ours, Lustre);
        let mut daemon = world.start().expect("it starts");
        daemon.enqueue("d/f", Lustre);
        daemon.drain();
        assert_eq!(world.on_target("d/f").as_ref(), Some(there), "never overwritten");
        assert_eq!(world.target_files(), paths(&["d/f"]), "no temporary stays");
        if equal {
            assert_eq!(world.staged_files(), paths(&[]));
        } else {
            assert_eq!(world.state("d/f"), FileState::FileOmitted);
        }
    }
}

#[test]
fn a_copy_that_is_there_is_synced_before_it_is_relied_on() {
    let world = World::new(1);
    world.stage("f", &content(9000, 1), Lustre);
    let root = world.target.open_root(Path::new("/")).expect("a root");
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o640 };
    let file = world.target.create_named(&root, Path::new("f"), owner, false).expect("room");
    world.target.write_all_at(&file, &content(9000, 1), 0).expect("room");
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("f", Lustre);
    daemon.drain();
    assert_eq!(world.staged_files(), paths(&[]));
    world.target.crash(3);
    assert!(world.on_target("f") == Some(content(9000, 1)));
}

#[test]
fn a_damaged_staging_copy_is_neither_published_nor_freed() {
    let mut bytes = content(200_000, 1);
    let record = |state, bytes: &[u8]| {
        let record = testing::record(Path::new("d/f"), Lustre, bytes, true);
        Record { state, ..record }
    };
    // One bit is wrong; and the file is shorter than when it was acknowledged.
    let damaged = record(FileState::LocalCopyDone, &bytes);
    bytes[150_000] ^= 0x40;
    let truncated = record(FileState::LustreCopyRun, &[0; 200_001]);
    for record in [damaged, truncated] {
        let world = World::new(1);
        world.stage_as("d/f", &bytes, &record);
        let mut daemon = world.start().expect("it starts");
        daemon.recover(Scan::Start);
        daemon.drain();
        assert_eq!(world.target_files(), paths(&[]));
        assert_eq!(world.staged_files(), paths(&["d/f"]), "acknowledged files are never removed");
        assert_eq!(world.state("d/f"), FileState::FileOmitted);
    }
}

#[test]
fn an_outage_of_hours_ends_with_everything_copied() {
    for errno in [Errno::NOTCONN, Errno::SHUTDOWN, Errno::NOSPC, Errno::ROFS, Errno::IO] {
        let world = World::new(3);
        let mut daemon = world.start().expect("it starts");
        for index in 0..30 {
            world.stage(&format!("d/{index}"), &content(5000 + index, 1), Lustre);
            daemon.enqueue(&format!("d/{index}"), Lustre);
        }
        for operation in [Operation::OpenRoot, Operation::CreateNamed, Operation::StatAt] {
            world.target.fail_always(operation, errno);
        }
        daemon.drain_until(7 * HOUR);
        assert!(matches!(daemon.queue.health(Stage::Copy), Health::Down { .. }), "{errno}");
        assert_eq!(world.staged_files().len(), 30, "{errno}: nothing is freed or omitted");
        assert!(world.target.operations() < 5000, "{errno}: probes, not storms");
        world.target.clear_faults();
        daemon.drain_until(8 * HOUR);
        assert_eq!(daemon.queue.health(Stage::Copy), Health::Up);
        assert_eq!(world.target_files().len(), 30, "{errno}");
        assert_eq!(world.staged_files(), paths(&[]), "{errno}");
    }
}

#[test]
fn errors_of_one_file_are_counted_and_end_in_omitted_without_a_trace() {
    let operations = [
        Operation::CreateNamed,
        Operation::Sync,
        Operation::Link,
        Operation::Directory,
        Operation::FileWrite,
    ];
    for operation in operations {
        let world = World::new(3);
        world.put_on_target("other", b"x");
        world.stage("d/f", &content(90_000, 1), Lustre);
        world.target.fail_always(operation, Errno::ACCESS);
        let mut daemon = world.start().expect("it starts");
        daemon.enqueue("d/f", Lustre);
        daemon.drain();
        assert_eq!(world.state("d/f"), FileState::FileOmitted, "{operation:?}");
        assert_eq!(world.target_files(), paths(&["other"]), "{operation:?}: no temporary");
        assert_eq!(daemon.queue.health(Stage::Copy), Health::Up, "{operation:?}");
        // Within this run it stays given up; the next start tries again.
        daemon.recover(Scan::Refill);
        assert!(daemon.queue.poll(Stage::Copy, 1).is_err());
        world.target.clear_faults();
        let mut daemon = world.start().expect("it starts");
        assert_eq!(daemon.recover(Scan::Start).omitted, 1);
        daemon.drain();
        assert!(world.on_target("d/f") == Some(content(90_000, 1)), "{operation:?}");
        assert_eq!(world.staged_files(), paths(&[]), "{operation:?}");
    }
}

#[test]
fn a_quota_holds_up_only_its_file() {
    let world = World::new(3);
    for name in ["a", "b"] {
        world.stage(name, &content(10, 1), Lustre);
    }
    world.target.fail_nth(Operation::CreateNamed, 1, Errno::DQUOT);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("a", Lustre);
    daemon.enqueue("b", Lustre);
    daemon.drain_until(Duration::ZERO);
    assert_eq!(world.target_files(), paths(&["b"]));
    assert_eq!(daemon.queue.health(Stage::Copy), Health::Up);
    daemon.drain();
    assert_eq!(world.target_files(), paths(&["a", "b"]));
}

#[test]
fn a_target_without_o_direct_is_written_buffered() {
    let mut world = World::new(3);
    world.target = SimFs::new(SimConfig { direct: false, ..SimConfig::lustre() });
    world.options.verify = Verify::Readback;
    let bytes = content((2 << 20) + 5, 1);
    world.stage("f", &bytes, Lustre);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("f", Lustre);
    daemon.drain();
    assert!(world.on_target("f") == Some(bytes));
    // Refused only when written to.
    let world = World::new(3);
    let bytes = content((2 << 20) + 5, 1);
    world.stage("f", &bytes, Lustre);
    world.target.fail_nth(Operation::FileWrite, 2, Errno::INVAL);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("f", Lustre);
    daemon.drain();
    assert!(world.on_target("f") == Some(bytes));
}

/// Over all servers, from this size on.
fn wide(above_bytes: u64) -> StripeHint {
    let layout = Layout { stripes: StripeCount::All, stripe_bytes: None, pool: None };
    StripeHint { above_bytes, layout }
}

const WIDE: Option<&str> = Some("stripe count all");

/// A world with files to be copied, which get a layout from 100,000 bytes on.
fn striped_world(target: SimConfig, files: &[(&str, usize)]) -> (World, testing::Daemon) {
    let mut world = World::new(3);
    world.target = SimFs::new(target);
    world.striping = Some(wide(100_000));
    let daemon = world.start().expect("it starts");
    for &(name, len) in files {
        world.stage(name, &content(len, 1), Lustre);
        daemon.enqueue(name, Lustre);
    }
    (world, daemon)
}

#[test]
fn large_files_get_their_layout_and_small_ones_do_not() {
    for direct in [true, false] {
        let files = [("d/under", 99_999), ("d/at", 100_000), ("d/over", (1 << 20) + 17)];
        let target = SimConfig { direct, ..SimConfig::lustre() };
        let (world, mut daemon) = striped_world(target, &files);
        daemon.drain();
        assert_eq!(world.staged_files(), paths(&[]));
        for (name, len) in files {
            assert!(world.on_target(name) == Some(content(len, 1)), "{name}");
            let layout = world.layout_of(name);
            assert_eq!(layout.as_deref(), WIDE.filter(|_| len >= 100_000), "{name}");
        }
        let root = world.target.open_root(Path::new("/")).expect("a root");
        let stat = world.target.stat_at(&root, Path::new("d/over")).expect("there");
        assert_eq!((stat.uid, stat.gid, stat.mode, stat.links), (UID, GID, 0o640, 1));
    }
}

#[test]
fn a_layout_that_cannot_be_had_holds_up_no_file() {
    let files = [("d/a", 200_000), ("d/b", 2 << 20)];
    for errno in [Errno::INVAL, Errno::NOSPC, Errno::DQUOT, Errno::TOOBIG, Errno::ACCESS] {
        let (world, mut daemon) = striped_world(SimConfig::lustre(), &files);
        world.target.fail_always(Operation::SetLayout, errno);
        // Not even a moment.
        daemon.drain_until(Duration::ZERO);
        assert_eq!(world.target_files(), paths(&["d/a", "d/b"]), "{errno}: and no temporary");
        assert_eq!((world.layout_of("d/a"), world.layout_of("d/b")), (None, None), "{errno}");
        assert_eq!(world.target.operations_of(Operation::SetLayout), 2, "{errno}: each is tried");
        assert!(world.on_target("d/b") == Some(content(2 << 20, 1)), "{errno}");
    }
    let not_lustre = SimConfig { layouts: false, ..SimConfig::lustre() };
    let (world, mut daemon) = striped_world(not_lustre, &files);
    daemon.drain_until(Duration::ZERO);
    assert_eq!(world.target_files(), paths(&["d/a", "d/b"]));
}

#[test]
fn an_outage_while_a_layout_is_set_is_an_outage() {
    for errno in [Errno::NOTCONN, Errno::SHUTDOWN, Errno::IO, Errno::TIMEDOUT] {
        let (world, mut daemon) = striped_world(SimConfig::lustre(), &[("d/a", 200_000)]);
        world.target.fail_always(Operation::SetLayout, errno);
        daemon.drain_until(HOUR);
        assert!(matches!(daemon.queue.health(Stage::Copy), Health::Down { .. }), "{errno}");
        assert_eq!(world.target_files(), paths(&[]), "{errno}: no temporary");
        world.target.clear_faults();
        daemon.drain_until(3 * HOUR);
        assert_eq!(world.layout_of("d/a").as_deref(), WIDE, "{errno}");
        assert_eq!(world.staged_files(), paths(&[]), "{errno}");
    }
    // A name that is taken is not made room for, but is another attempt's matter.
    let (world, mut daemon) = striped_world(SimConfig::lustre(), &[("d/a", 200_000)]);
    world.target.fail_nth(Operation::CreateNamed, 1, Errno::EXIST);
    daemon.drain_until(Duration::ZERO);
    assert_eq!(world.target_files(), paths(&[]));
    daemon.drain();
    assert_eq!(world.layout_of("d/a").as_deref(), WIDE);
}

#[test]
fn a_pool_that_fills_up_stops_neither_the_file_nor_the_drain() {
    let (world, mut daemon) = striped_world(SimConfig::lustre(), &[("d/a", 200_000)]);
    world.target.fail_nth(Operation::FileWrite, 2, Errno::NOSPC);
    daemon.drain_until(Duration::ZERO);
    assert_eq!(daemon.queue.health(Stage::Copy), Health::Up);
    assert_eq!(world.target_files(), paths(&["d/a"]));
    assert!(world.on_target("d/a") == Some(content(200_000, 1)));
    assert_eq!(world.layout_of("d/a"), None);
    // The next ones are not written in vain; later it is tried again.
    for (name, after, layout) in
        [("d/b", Duration::from_secs(599), None), ("d/c", Duration::from_secs(600), WIDE)]
    {
        world.clock.advance_to(after);
        world.stage(name, &content(200_000, 1), Lustre);
        daemon.enqueue(name, Lustre);
        daemon.drain();
        assert_eq!(world.layout_of(name).as_deref(), layout, "{name}");
    }
    assert_eq!(world.staged_files(), paths(&[]));

    // Where the whole target is full it is an outage as any other.
    let (world, mut daemon) = striped_world(SimConfig::lustre(), &[("d/a", 200_000)]);
    world.target.fail_always(Operation::FileWrite, Errno::NOSPC);
    daemon.drain_until(HOUR);
    assert!(matches!(daemon.queue.health(Stage::Copy), Health::Down { .. }));
    assert_eq!(world.target_files(), paths(&[]));
}

#[test]
fn a_crash_at_any_call_loses_nothing_and_leaves_nothing() {
    for (links, striping) in [(true, None), (false, None), (true, Some(wide(1)))] {
        for side in [Side::Staging, Side::Target] {
            crash_everywhere(side, links, striping.as_ref());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Staging,
    Target,
}

/// Lustre, or a target that is like it but for hard links, which it lacks.
fn target_config(links: bool) -> SimConfig {
    SimConfig { links, rename_noreplace: !links, ..SimConfig::lustre() }
}

fn crash_everywhere(side: Side, links: bool, striping: Option<&StripeHint>) {
    let config = target_config(links);
    for at in 0.. {
        let mut world = World::new(at);
        world.target = SimFs::new(config.clone());
        world.striping = striping.cloned();
        let names = ["d/a", "d/b", "e/c"];
        for (salt, name) in names.into_iter().enumerate() {
            world.stage(name, &content(70_000, salt as u8), Lustre);
        }
        let victim = if side == Side::Staging { &world.staging } else { &world.target };
        let begun = victim.operations();
        victim.halt_at(begun + at);
        let finished = match world.start() {
            Err(_) => false,
            Ok(mut daemon) => {
                daemon.recover(Scan::Start);
                daemon.drain_until(Duration::from_secs(2));
                victim.operations() < begun + at
            }
        };
        for name in names {
            assert!(
                world.staged_files().contains(&name.into()) || world.on_target(name).is_some(),
                "{side:?} {at}: {name} is somewhere"
            );
        }
        // Staging and target are different machines: either loses power alone, or both do, or only
        // the daemon was killed.
        victim.clear_faults();
        match at % 3 {
            0 => victim.crash(at),
            1 => {
                world.staging.crash(at + 1);
                world.target.crash(at + 2);
            }
            _ => {}
        }
        world.limits.tolerated_errors = 1;
        let mut daemon = world.start().expect("it starts again");
        daemon.recover(Scan::Start);
        daemon.drain();
        assert_eq!(world.staged_files(), paths(&[]), "{side:?} {at}: without one more error");
        // Staging is free: the target alone must have everything, whatever happens to it now.
        world.target.crash(at);
        assert_eq!(world.target_files(), paths(&names), "{side:?} {at}: once, no temporary");
        for (salt, name) in names.into_iter().enumerate() {
            let bytes = world.on_target(name);
            assert!(bytes == Some(content(70_000, salt as u8)), "{side:?} {at}: {name}");
        }
        if finished {
            assert!(at > 20, "it took some calls");
            return;
        }
    }
}

#[test]
fn a_stop_in_mid_file_leaves_no_temporary() {
    let world = World::new(1);
    world.stage("f", &content(900_000, 1), Lustre);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("f", Lustre);
    let tickets = daemon.queue.poll(Stage::Copy, 1).expect("work");
    daemon.queue.close();
    daemon.worker.work(&tickets[0]).expect("the ring works");
    assert_eq!(world.target_files(), paths(&[]));
    assert_eq!(world.staged_files(), paths(&["f"]));
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    daemon.drain();
    assert!(world.on_target("f") == Some(content(900_000, 1)));
}

#[test]
fn a_moved_directory_is_noticed() {
    let world = World::new(1);
    let mut daemon = world.start().expect("it starts");
    world.stage("d/a", b"a", Lustre);
    daemon.enqueue("d/a", Lustre);
    daemon.drain();
    let root = world.target.open_root(Path::new("/")).expect("a root");
    let directory =
        world.target.directory(&root, Path::new("d"), None, false).expect("it was made");
    world.target.remove(&directory, Path::new("a")).expect("it is there");
    world.target.remove_directory(&root, Path::new("d")).expect("it is empty");
    world.stage("d/b", b"b", Lustre);
    daemon.enqueue("d/b", Lustre);
    daemon.drain();
    assert_eq!(world.target_files(), paths(&["d/b"]));
}

#[test]
fn files_of_the_old_daemon_are_taken_over() {
    let world = World::new(1);
    world.put_on_target("d/there", b"0");
    for (name, state) in [
        ("d/fresh", FileState::LocalCopyDone),
        ("d/run", FileState::LustreCopyRun),
        ("d/done", FileState::LustreCopyDone),
        ("d/omitted", FileState::FileOmitted),
    ] {
        world.stage_old(name, &content(70_001, 4), Lustre);
        world.set_state(name, state);
    }
    world.put_on_target("d/done", &content(70_001, 4));
    world.stage_old("d/lying", &content(70_001, 4), Lustre);
    world.set_state("d/lying", FileState::LustreCopyDone);
    world.stage_old("d/kept", b"k", Local);
    let mut daemon = world.start().expect("it starts");
    let summary = daemon.recover(Scan::Start);
    assert_eq!((summary.queued, summary.taken_over, summary.kept), (5, 5, 1));
    daemon.drain();
    assert_eq!(world.staged_files(), paths(&["d/kept"]));
    for name in ["d/fresh", "d/run", "d/done", "d/omitted", "d/lying"] {
        assert!(world.on_target(name) == Some(content(70_001, 4)), "{name}");
    }
}

#[test]
fn what_a_worker_has_moved_is_counted() {
    // The last one is written O_DIRECT, in whole pages; it is read past the page cache as well.
    let sizes = [0, 1, 70_001, 3 * 65_536, (1 << 20) + 1];
    let length: u64 = sizes.iter().map(|size| *size as u64).sum();
    for (verify, times_read) in [(Verify::Stream, 1), (Verify::Readback, 2)] {
        let mut world = World::new(1);
        world.options.verify = verify;
        for (n, size) in sizes.into_iter().enumerate() {
            world.stage(&format!("f{n}"), &content(size, 7), Lustre);
        }
        let mut daemon = world.start().expect("it starts");
        let counters = daemon.worker.counters();
        assert_eq!(counters.get(), DrainCounters::default());
        daemon.recover(Scan::Start);
        daemon.drain();
        assert_eq!(world.target_files().len(), sizes.len());
        let counted = counters.get();
        assert_eq!(counted.bytes_read, times_read * length, "{verify:?}");
        assert_eq!(counted.bytes_written, length + 4095, "{verify:?}");
        // A read and a write for each block, and the write of the last waits for its read.
        assert!(counted.ring.completions >= 2 * (1 + 2 + 3 + 17), "{counted:?}");
        assert!(counted.ring.enters > 17, "{counted:?}");
    }
}

#[test]
fn a_hung_target_is_noticed_and_the_queue_still_answers() {
    let world = World::new(1);
    world.stage("a", b"a", Lustre);
    let mut daemon = world.start().expect("it starts");
    daemon.enqueue("a", Lustre);
    let queue = Arc::clone(&daemon.queue);
    let tickets = queue.poll(Stage::Copy, 1).expect("work");
    world.target.hang();
    let worker = std::thread::spawn(move || daemon.worker.work(&tickets[0]));
    world.target.wait_for_blocked(1);
    queue.enqueue(Path::new("b"), Stage::Copy, crate::queue::Phase::Submit);
    world.clock.advance_to(Duration::from_secs(90));
    let Some(crate::queue::Chore::Report(hung)) = queue.poll_chore() else { panic!("it hangs") };
    let crate::queue::Sighting::Hung { stage: Stage::Copy, workers: 1, named, .. } = hung else {
        panic!("{hung:?}");
    };
    assert_eq!(named[0].silent, Duration::from_secs(90));
    assert_eq!(&*named[0].work.as_ref().expect("a file").path, Path::new("a"));
    world.target.release();
    worker.join().expect("no panic").expect("the ring works");
    world.clock.advance_to(Duration::from_secs(120));
    let over = crate::queue::Sighting::Over { stage: Stage::Copy };
    assert_eq!(queue.poll_chore(), Some(crate::queue::Chore::Report(over)));
    assert!(world.on_target("a") == Some(b"a".to_vec()));
}

/// Calls that the target held up, of a daemon that has ended, go on when the target does.
#[test]
fn what_a_late_call_does_to_the_temporary_is_not_held_against_the_file() {
    let touched = [
        (Operation::CreateNamed, Errno::EXIST),
        (Operation::CreateNamed, Errno::NOENT),
        (Operation::Link, Errno::NOENT),
    ];
    for (operation, errno) in touched {
        let mut world = World::new(1);
        world.limits.tolerated_errors = 1;
        world.stage("f", b"f", Lustre);
        let mut daemon = world.start().expect("it starts");
        daemon.enqueue("f", Lustre);
        world.target.fail_nth(operation, 1, errno);
        daemon.drain();
        assert_eq!(daemon.queue.health(Stage::Copy), Health::Up);
        assert_eq!(world.staged_files(), paths(&[]), "{operation:?} {errno}");
        assert_eq!(world.target_files(), paths(&["f"]), "{operation:?} {errno}");
    }
}

#[test]
fn without_an_archive_files_that_want_one_are_copied_and_kept() {
    let world = World::new(1);
    world.stage("a", b"a", LustreTsm);
    let mut daemon = world.start().expect("it starts");
    daemon.recover(Scan::Start);
    daemon.drain();
    assert!(world.on_target("a") == Some(b"a".to_vec()));
    assert_eq!(world.state("a"), FileState::LustreCopyDone);
    let daemon = world.start().expect("it starts");
    assert_eq!(daemon.recover(Scan::Start).held, 1);
}
