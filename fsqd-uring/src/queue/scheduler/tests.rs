use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn scheduler() -> Scheduler {
    Scheduler::new(Limits { entries_max: 8, tolerated_errors: 3, ..Limits::default() })
}

fn add(scheduler: &mut Scheduler, name: &str) {
    let admission = scheduler.enqueue(Path::new(name), Stage::Copy, Phase::Submit);
    assert_eq!(admission, Admission::Queued, "{name}");
}

fn take_one(scheduler: &mut Scheduler, now: Duration) -> Ticket {
    let mut tickets = scheduler.take(Stage::Copy, 1, now).expect("work");
    assert_eq!(tickets.len(), 1);
    tickets.remove(0)
}

fn names(tickets: &[Ticket]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket.path.to_str().expect("a test's name")).collect()
}

#[test]
fn files_come_out_in_the_order_they_went_in_and_only_once() {
    let mut queue = scheduler();
    for name in ["a", "b", "c"] {
        add(&mut queue, name);
    }
    assert_eq!(queue.enqueue(Path::new("b"), Stage::Copy, Phase::Submit), Admission::Known);
    let tickets = queue.take(Stage::Copy, 2, SECOND).expect("work");
    assert_eq!(names(&tickets), ["a", "b"]);
    assert_eq!(queue.enqueue(Path::new("a"), Stage::Archive, Phase::Submit), Admission::Known);
    assert_eq!(queue.occupancy(Stage::Copy), Occupancy { ready: 1, waiting: 0, active: 2 });
    queue.finished(&tickets[0], Outcome::Done, SECOND);
    add(&mut queue, "a");
    let last = queue.take(Stage::Copy, 9, SECOND).expect("work");
    assert_eq!(names(&last), ["c", "a"]);
    assert_eq!(queue.take(Stage::Copy, 1, SECOND).expect_err("nothing left"), None);
}

#[test]
fn a_full_set_asks_for_a_scan_once_it_has_room() {
    let mut queue = scheduler();
    // Of eight, two are kept for the other lane.
    for name in ["a", "b", "c", "d", "e", "f"] {
        add(&mut queue, name);
    }
    assert!(!queue.take_rescan());
    assert_eq!(queue.enqueue(Path::new("i"), Stage::Copy, Phase::Submit), Admission::Overflow);
    for left in (3..6).rev() {
        assert!(!queue.take_rescan(), "no room yet");
        let ticket = take_one(&mut queue, SECOND);
        queue.finished(&ticket, Outcome::Done, SECOND);
        assert_eq!(queue.occupancy(Stage::Copy).ready, left);
    }
    assert!(queue.take_rescan());
    assert!(!queue.take_rescan(), "asked for once");
}

#[test]
fn long_names_overflow_before_many() {
    // Three of them are kept for the other lane.
    let mut queue = Scheduler::new(Limits { path_bytes_max: 13, ..Limits::default() });
    add(&mut queue, "12345678");
    assert_eq!(queue.enqueue(Path::new("abc"), Stage::Copy, Phase::Submit), Admission::Overflow);
    add(&mut queue, "ab");
    assert!(!queue.take_rescan());
    for _ in 0..2 {
        let ticket = take_one(&mut queue, SECOND);
        queue.finished(&ticket, Outcome::Done, SECOND);
    }
    assert!(queue.take_rescan());
    add(&mut queue, "1234567890");
}

#[test]
fn neither_lane_takes_the_room_that_is_kept_for_the_other() {
    for (hog, other) in [(Stage::Archive, Stage::Copy), (Stage::Copy, Stage::Archive)] {
        let mut queue = scheduler();
        let offer = |queue: &mut Scheduler, stage, name: &str| {
            queue.enqueue(Path::new(name), stage, Phase::Submit)
        };
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(offer(&mut queue, hog, name), Admission::Queued);
        }
        assert_eq!(offer(&mut queue, hog, "g"), Admission::Overflow);
        // The other lane works on, over and over, and its scans are not held up.
        for _ in 0..20 {
            assert_eq!(offer(&mut queue, other, "x"), Admission::Queued);
            assert_eq!(offer(&mut queue, other, "y"), Admission::Queued);
            assert_eq!(offer(&mut queue, other, "z"), Admission::Overflow);
            assert!(!queue.take_rescan() && !queue.is_seeking(), "nothing would be taken");
            for ticket in queue.take(other, 2, SECOND).expect("work") {
                queue.finished(&ticket, Outcome::Done, SECOND);
            }
            assert!(queue.take_rescan(), "for the other lane");
            assert!(queue.is_seeking());
            assert_eq!(offer(&mut queue, hog, "g"), Admission::Overflow);
            assert!(queue.is_seeking(), "a full lane does not end what is not for it");
            assert_eq!(queue.footprint(), (6, 6));
        }
    }
}

#[test]
fn a_copied_file_that_the_archive_lane_has_no_room_for_is_forgotten() {
    let mut queue = scheduler();
    for name in ["a", "b", "c", "d", "e", "f"] {
        queue.enqueue(Path::new(name), Stage::Archive, Phase::Submit);
    }
    add(&mut queue, "x");
    let ticket = take_one(&mut queue, SECOND);
    queue.finished(&ticket, Outcome::Copied, SECOND);
    assert_eq!(queue.footprint(), (6, 6));
    assert!(!queue.take_rescan(), "the lane is full");
    for ticket in queue.take(Stage::Archive, 3, SECOND).expect("work") {
        queue.finished(&ticket, Outcome::Done, SECOND);
    }
    assert!(queue.take_rescan());
    let found = queue.enqueue(Path::new("x"), Stage::Archive, Phase::Submit);
    assert_eq!(found, Admission::Queued);
    // What moves makes room where it comes from.
    for name in ["1", "2", "3", "4"] {
        add(&mut queue, name);
        let ticket = take_one(&mut queue, SECOND);
        queue.finished(&ticket, Outcome::Copied, SECOND);
    }
    assert_eq!(queue.footprint(), (6, 6), "one did not fit");
}

#[test]
fn an_outage_of_the_target_pauses_everything_and_counts_against_nobody() {
    let mut queue = scheduler();
    for name in ["a", "b", "c"] {
        add(&mut queue, name);
    }
    let mut now = SECOND;
    let under_way = take_one(&mut queue, now);
    let first = take_one(&mut queue, now);
    let change = queue.finished(&first, Outcome::Failed(FailureClass::Target), now);
    assert!(matches!(change, Some(Change::WentDown { .. })));
    let mut probes = 0;
    while now < 10 * 3600 * SECOND {
        match queue.take(Stage::Copy, 4, now) {
            Err(until) => now = until.expect("something will happen").max(now + SECOND / 1000),
            Ok(tickets) => {
                assert_eq!(tickets.len(), 1, "one probe");
                assert!(tickets[0].probe);
                assert_eq!(tickets[0].errors, 0, "not counted");
                assert!(queue.take(Stage::Copy, 4, now).is_err(), "one at a time");
                let outcome = Outcome::Failed(FailureClass::Target);
                assert_eq!(queue.finished(&tickets[0], outcome, now), None);
                probes += 1;
            }
        }
    }
    assert!((100..400).contains(&probes), "{probes} probes in ten hours");
    let change = queue.finished(&under_way, Outcome::Done, now);
    assert!(matches!(change, Some(Change::CameUp { after }) if after > 9 * 3600 * SECOND));
    now += DelayBounds::default().max;
    let tickets = queue.take(Stage::Copy, 4, now).expect("all of them again");
    assert_eq!(tickets.len(), 2);
    assert!(tickets.iter().all(|ticket| ticket.errors == 0 && !ticket.probe));
}

#[test]
fn a_lane_that_is_down_does_not_stop_the_other() {
    let mut queue = scheduler();
    add(&mut queue, "a");
    queue.enqueue(Path::new("b"), Stage::Archive, Phase::Submit);
    let ticket = take_one(&mut queue, SECOND);
    queue.finished(&ticket, Outcome::Failed(FailureClass::Target), SECOND);
    assert!(matches!(queue.health(Stage::Copy), Health::Down { .. }));
    assert_eq!(names(&queue.take(Stage::Archive, 4, SECOND).expect("work")), ["b"]);
}

#[test]
fn errors_of_a_file_are_counted_with_growing_delays_until_it_is_given_up() {
    let mut queue = scheduler();
    add(&mut queue, "a");
    let mut now = SECOND;
    for errors in 0..2 {
        let ticket = take_one(&mut queue, now);
        assert_eq!(ticket.errors, errors);
        assert!(!queue.gives_up(FailureClass::File, ticket.errors));
        queue.finished(&ticket, Outcome::Failed(FailureClass::File), now);
        let until = queue.take(Stage::Copy, 1, now).expect_err("waits").expect("for a time");
        assert!(until >= now + SECOND / 2 * (errors + 1), "{until:?}");
        now = until;
    }
    let ticket = take_one(&mut queue, now);
    assert!(queue.gives_up(FailureClass::File, ticket.errors));
    assert!(queue.gives_up(FailureClass::Staging, ticket.errors));
    assert!(queue.gives_up(FailureClass::Permanent, 0));
    assert!(!queue.gives_up(FailureClass::Target, u32::MAX));
    assert!(!queue.gives_up(FailureClass::Passing, u32::MAX));
    queue.finished(&ticket, Outcome::Left, now);
    assert_eq!(queue.occupancy(Stage::Copy), Occupancy::default());
}

#[test]
fn a_failure_of_one_owner_delays_only_that_file() {
    let mut queue = scheduler();
    add(&mut queue, "a");
    add(&mut queue, "b");
    let ticket = take_one(&mut queue, SECOND);
    assert_eq!(queue.finished(&ticket, Outcome::Failed(FailureClass::Passing), SECOND), None);
    assert_eq!(names(&[take_one(&mut queue, SECOND)]), ["b"]);
    assert_eq!(queue.occupancy(Stage::Copy).waiting, 1);
}

#[test]
fn copied_files_go_on_to_the_archive_and_are_asked_about_later() {
    let mut queue = scheduler();
    for name in ["a", "b"] {
        add(&mut queue, name);
        let ticket = take_one(&mut queue, SECOND);
        queue.finished(&ticket, Outcome::Copied, SECOND);
    }
    let tickets = queue.take(Stage::Archive, 9, SECOND).expect("a batch");
    assert_eq!(names(&tickets), ["a", "b"]);
    queue.finished(&tickets[0], Outcome::CheckAfter(30 * SECOND), SECOND);
    queue.finished(&tickets[1], Outcome::Failed(FailureClass::File), SECOND);
    let again = queue.take(Stage::Archive, 9, 3 * SECOND).expect("the failed one");
    assert_eq!((names(&again), again[0].phase, again[0].errors), (vec!["b"], Phase::Submit, 1));
    assert_eq!(queue.take(Stage::Archive, 9, 3 * SECOND).expect_err("not yet"), Some(31 * SECOND));
    let asked = queue.take(Stage::Archive, 9, 31 * SECOND).expect("time to ask");
    assert_eq!((names(&asked), asked[0].phase), (vec!["a"], Phase::Confirm));
    // It could not be asked: it is asked again, not handed over again.
    queue.finished(&asked[0], Outcome::Failed(FailureClass::Target), 31 * SECOND);
    let asked = queue.take(Stage::Archive, 9, 40 * SECOND).expect("the probe");
    assert_eq!(asked[0].phase, Phase::Confirm);
    queue.finished(&asked[0], Outcome::Done, 40 * SECOND);
}

#[test]
fn moving_to_another_lane_starts_the_count_afresh() {
    let mut queue = scheduler();
    add(&mut queue, "a");
    let ticket = take_one(&mut queue, SECOND);
    queue.finished(&ticket, Outcome::Failed(FailureClass::File), SECOND);
    let ticket = take_one(&mut queue, 9 * SECOND);
    assert_eq!(ticket.errors, 1);
    let moved = Outcome::Moved(Stage::Archive, Phase::Confirm);
    queue.finished(&ticket, moved, 9 * SECOND);
    let ticket = queue.take(Stage::Archive, 1, 9 * SECOND).expect("work").remove(0);
    assert_eq!((ticket.errors, ticket.phase), (0, Phase::Confirm));
}

#[test]
#[should_panic(expected = "a ticket comes back once")]
fn a_ticket_cannot_be_used_twice() {
    let mut queue = scheduler();
    add(&mut queue, "a");
    let ticket = take_one(&mut queue, SECOND);
    queue.finished(&ticket, Outcome::Failed(FailureClass::File), SECOND);
    queue.finished(&ticket, Outcome::Done, SECOND);
}
