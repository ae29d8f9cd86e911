use fsq_wire::StorageDest::{Local, Lustre, Tsm};

use super::*;
use crate::drain::testing::{World, content, record};
use crate::fs::sim::Operation;
use crate::queue::Stage;
use crate::queue::record::seal;

fn names(paths: &[PathBuf]) -> Vec<&str> {
    paths.iter().map(|path| path.to_str().expect("a test's name")).collect()
}

#[test]
fn every_kind_of_file_is_told_apart() {
    let world = World::new(1);
    world.stage("d/complete", b"1", Lustre);
    world.stage("d/running", b"2", Lustre);
    world.set_state("d/running", FileState::LustreCopyRun);
    world.stage("d/omitted", b"3", Lustre);
    world.set_state("d/omitted", FileState::FileOmitted);
    world.stage("d/kept", b"4", Local);
    world.stage("e/held", b"5", Tsm);
    world.stage_old("e/old", b"6", Lustre);
    world.stage_bytes("e/foreign", b"7");
    world.stage_bytes(".fsqd/lock", b"8");
    world.stage("e/.fsqd/inner", b"9", Lustre);
    // Never acknowledged: without seal, and with a length that was not yet cut.
    let file = world.stage_bytes("e/unsealed", b"10");
    let unsealed = record(Path::new("e/unsealed"), Lustre, b"10", true);
    unsealed.store_static(&world.staging, &file).expect("they fit");
    world.stage_as("e/long", &[0; 4096], &record(Path::new("e/long"), Lustre, b"11", true));
    // Acknowledged, since a worker has had it, and damaged: left for people to look at.
    let mut damaged = record(Path::new("e/damaged"), Lustre, b"1234", true);
    damaged.state = FileState::LustreCopyRun;
    world.stage_as("e/damaged", b"12", &damaged);
    // Attributes that make no sense.
    let file = world.stage_bytes("e/strange", b"13");
    let state = FileState::LocalCopyDone.bits().to_ne_bytes();
    world.staging.set_attribute(&file, "user.fsq.state", &state).expect("it fits");
    drop(file);

    let daemon = world.start().expect("it starts");
    let summary = daemon.recover(Scan::Start);
    let expected = Summary {
        queued: 6,
        kept: 1,
        held: 1,
        omitted: 1,
        taken_over: 1,
        removed: 2,
        foreign: 1,
        failed: 1,
        foreign_example: Some("e/foreign".into()),
        ..Summary::default()
    };
    assert_eq!(summary, expected);
    let left = world.staged_files();
    assert!(!names(&left).contains(&"e/unsealed") && !names(&left).contains(&"e/long"));
    assert_eq!(left.len(), 11);
    assert_eq!(world.state("d/omitted"), FileState::LocalCopyDone, "a fresh chance");
    let again = daemon.recover(Scan::Refill);
    assert_eq!((again.queued, again.known, again.removed), (0, 6, 0));
}

#[test]
fn only_a_start_removes_leftovers_and_wakes_the_omitted() {
    let world = World::new(1);
    world.stage("omitted", b"3", Lustre);
    world.set_state("omitted", FileState::FileOmitted);
    world.stage_as("long", &[0; 4096], &record(Path::new("long"), Lustre, b"11", true));
    let daemon = world.start().expect("it starts");
    let summary = daemon.recover(Scan::Refill);
    assert_eq!((summary.omitted, summary.removed, summary.failed), (1, 0, 1));
    assert_eq!(names(&world.staged_files()), ["long", "omitted"]);
    assert_eq!(world.state("omitted"), FileState::FileOmitted);
}

#[test]
fn what_does_not_fit_into_memory_is_found_when_there_is_room() {
    let mut world = World::new(1);
    world.limits.entries_max = 9;
    for index in 0..100 {
        world.stage(&format!("d{}/f{index}", index % 9), &content(100 + index, 1), Lustre);
    }
    let mut daemon = world.start().expect("it starts");
    let summary = daemon.recover(Scan::Start);
    assert_eq!((summary.queued, summary.overflowed), (7, true));
    daemon.drain();
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    assert_eq!(world.target_files().len(), 100);
}

/// However many files are in front of them.
#[test]
fn a_start_sees_leftovers_and_omitted_files_that_the_queue_has_no_room_for() {
    let mut world = World::new(1);
    world.limits.entries_max = 9;
    for index in 0..30 {
        world.stage(&format!("f{index:02}"), &content(100, 1), Lustre);
    }
    for name in ["a", "z"] {
        world.stage_as(name, &[0; 4096], &record(Path::new(name), Lustre, b"11", true));
        world.stage(&format!("{name}-omitted"), b"3", Lustre);
        world.set_state(&format!("{name}-omitted"), FileState::FileOmitted);
    }
    let mut daemon = world.start().expect("it starts");
    let summary = daemon.recover(Scan::Start);
    assert_eq!((summary.queued, summary.removed, summary.omitted), (7, 2, 2));
    assert!(summary.overflowed);
    daemon.drain();
    assert_eq!(world.staged_files(), Vec::<PathBuf>::new());
    assert_eq!(world.target_files().len(), 32);
}

#[test]
fn a_directory_that_cannot_be_read_does_not_hide_the_others() {
    let world = World::new(1);
    world.stage("a/f", b"1", Lustre);
    world.stage("b/f", b"2", Lustre);
    let daemon = world.start().expect("it starts");
    // The second: the first is the root.
    world.staging.fail_nth(Operation::Entries, 2, rustix::io::Errno::IO);
    let summary = daemon.recover(Scan::Start);
    assert_eq!((summary.queued, summary.failed), (1, 1));
    daemon.queue.close();
    assert_eq!(daemon.recover(Scan::Start).queued, 0, "a closed queue ends the scan");
}

#[test]
fn sealed_files_of_a_running_daemon_are_taken_up_beside_it() {
    // Completed while the scan is on its way: sealed before it has its name, so never a leftover.
    let world = World::new(1);
    let file = world.stage_bytes("f", b"12345");
    let sealed = record(Path::new("f"), Lustre, b"12345", true);
    sealed.store_static(&world.staging, &file).expect("they fit");
    let content = sealed.content.expect("ours");
    seal(&world.staging, &file, content, FileState::LocalCopyDone).expect("it fits");
    let daemon = world.start().expect("it starts");
    daemon.enqueue("f", Lustre);
    let tickets = daemon.queue.poll(Stage::Copy, 1).expect("a worker has it");
    assert_eq!(tickets.len(), 1);
    assert_eq!(daemon.recover(Scan::Start).known, 1, "and nobody else gets it");
}
