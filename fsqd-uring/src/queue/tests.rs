use std::sync::mpsc;

use super::*;
use crate::clock::SystemClock;

fn queue() -> Arc<Queue<SystemClock>> {
    let limits = Limits { entries_max: 2, ..Limits::default() };
    Arc::new(Queue::new(limits, Arc::new(SystemClock::new())))
}

fn offer(queue: &Queue<SystemClock>, name: &str) -> Admission {
    queue.enqueue(Path::new(name), Stage::Copy, Phase::Submit)
}

#[test]
fn a_waiting_worker_gets_what_is_enqueued_and_leaves_when_it_closes() {
    let queue = queue();
    let (sender, receiver) = mpsc::channel();
    let worker = {
        let queue = Arc::clone(&queue);
        std::thread::spawn(move || {
            while let Some(tickets) = queue.take(Stage::Copy, 1) {
                queue.finished(&tickets[0], Outcome::Done);
                sender.send(tickets[0].path.to_path_buf()).expect("the test listens");
            }
        })
    };
    for name in ["a", "b", "c"] {
        assert_eq!(offer(&queue, name), Admission::Queued);
        assert_eq!(receiver.recv().expect("the worker lives"), Path::new(name));
    }
    queue.close();
    worker.join().expect("no panic");
    assert!(queue.is_closing());
}

#[test]
fn a_worker_is_woken_when_a_delay_is_over() {
    let delays = DelayBounds { min: Duration::from_millis(2), max: Duration::from_millis(4) };
    let limits = Limits { delays, ..Limits::default() };
    let queue = Queue::new(limits, Arc::new(SystemClock::new()));
    offer(&queue, "a");
    for errors in 0..3 {
        let tickets = queue.take(Stage::Copy, 1).expect("open");
        assert_eq!(tickets[0].errors, errors);
        queue.finished(&tickets[0], Outcome::Failed(FailureClass::File));
    }
}

#[test]
fn overflow_becomes_a_chore_when_there_is_room() {
    let queue = queue();
    assert_eq!(offer(&queue, "a"), Admission::Queued);
    assert_eq!(offer(&queue, "b"), Admission::Queued);
    assert_eq!(offer(&queue, "c"), Admission::Overflow);
    assert_eq!(queue.poll_chore(), None);
    let keeper = {
        let queue = Arc::clone(&queue);
        std::thread::spawn(move || (queue.next_chore(), queue.next_chore()))
    };
    let tickets = queue.poll(Stage::Copy, 1).expect("work");
    queue.finished(&tickets[0], Outcome::Done);
    while queue.occupancy(Stage::Copy).ready != 1 || !queue_is_asked(&queue) {
        std::thread::yield_now();
    }
    queue.close();
    assert_eq!(keeper.join().expect("no panic"), (Some(Chore::Rescan), None));
}

/// The keeper has taken the chore: the flag is down.
fn queue_is_asked(queue: &Queue<SystemClock>) -> bool {
    !queue.lock().scheduler.rescan_pending()
}
