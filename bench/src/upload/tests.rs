//! The machine on a synthetic clock, against a server that is a function of time.

use std::sync::Arc;

use fsq_wire::server::{Request, ServerSession};
use fsq_wire::{Layout, StorageDest};

use super::*;
use crate::feed::Quota;
use crate::plan::tests::plan;
use crate::size::Sizes;

const MS: u64 = 1_000_000;

/// Answers each request `delay(now)` after it was sent, or refuses it.
struct World<D, R> {
    now_ns: u64,
    delay: D,
    refuse: R,
    /// Replies under way: when they arrive, and what they are.
    replies: VecDeque<(u64, [u8; PACKET_BYTES])>,
    server: ServerSession,
    has_failed: bool,
    dials: u32,
    most_unanswered: usize,
    sent: Vec<(Op, usize)>,
}

impl<D: FnMut(u64) -> u64, R: FnMut(Op) -> bool> World<D, R> {
    fn new(delay: D, refuse: R) -> Self {
        Self {
            now_ns: 0,
            delay,
            refuse,
            replies: VecDeque::new(),
            server: ServerSession::new(),
            has_failed: false,
            dials: 0,
            most_unanswered: 0,
            sent: Vec::new(),
        }
    }

    fn run(&mut self, plan: &Plan) -> Record {
        let feed = Feed::new(plan.quota, Arc::default());
        let totals = Totals::default();
        let mut upload = Upload::new(Shared { plan, feed: &feed, totals: &totals }, None);
        loop {
            match upload.step(self.now_ns) {
                Step::Dial => {
                    self.dials += 1;
                    self.server = ServerSession::new();
                    upload.dialled();
                }
                Step::Send { payload_bytes } => self.serve(*upload.packet(), payload_bytes),
                Step::Receive => {
                    let (at_ns, packet) = self.replies.pop_front().expect("a reply is under way");
                    self.now_ns = self.now_ns.max(at_ns);
                    upload.reply(&packet, self.now_ns);
                }
                Step::Wait { until_ns } => {
                    assert!(until_ns > self.now_ns, "waits for the past");
                    self.now_ns = until_ns;
                }
                Step::HangUp => self.replies.clear(),
                Step::Done => return upload.into_record(),
            }
        }
    }

    fn serve(&mut self, mut packet: [u8; PACKET_BYTES], payload_bytes: usize) {
        let request = self.server.packet(&packet).expect("the machine keeps to the protocol");
        let op = match request {
            Request::Connect(_) => Op::Connect,
            Request::Open(_) => Op::Open,
            Request::Data { size } => {
                assert_eq!(size, payload_bytes as u64);
                Op::Data
            }
            Request::Close => Op::Close,
            Request::Disconnect => Op::Disconnect,
        };
        self.sent.push((op, payload_bytes));
        if op == Op::Disconnect {
            return;
        }
        self.server.payload(payload_bytes as u64);
        let is_refused = (self.refuse)(op) || (op == Op::Close && self.has_failed);
        self.has_failed = is_refused && op == Op::Data;
        let outcome = if is_refused { Err((28, "no space")) } else { Ok(()) };
        let _ = self.server.reply(&mut packet, outcome);
        let free_ns = self.replies.back().map_or(self.now_ns, |&(at_ns, _)| at_ns.max(self.now_ns));
        let at_ns = free_ns + (self.delay)(free_ns);
        self.replies.push_back((at_ns, packet));
        self.most_unanswered = self.most_unanswered.max(self.replies.len());
    }
}

fn grant(_: Op) -> bool {
    false
}

fn near(ns: u64, ms: f64) {
    assert!((ns as f64 / 1e6 / ms - 1.0).abs() < 0.02, "{ns} ns, {ms} ms expected");
}

#[test]
fn one_file_in_stop_and_wait() {
    let mut world = World::new(|_| MS, grant);
    let record = world.run(&plan());
    let sent = [
        (Op::Connect, 0),
        (Op::Open, 0),
        (Op::Data, 1000),
        (Op::Data, 1000),
        (Op::Data, 500),
        (Op::Close, 0),
        (Op::Disconnect, 0),
    ];
    assert_eq!(world.sent, sent);
    assert_eq!(world.most_unanswered, 1);
    assert_eq!((record.files, record.bytes, record.failed), (1, 2500, 0));
    assert_eq!(record.times(Timed::Write).count(), 3);
    near(record.times(Timed::Connect).max_ns(), 1.0);
    near(record.times(Timed::File).max_ns(), 5.0);
    // The clock of the run starts at OPEN, not at the dialling.
    assert!((record.seconds() - 0.005).abs() < 1e-9);
}

#[test]
fn a_window_is_filled_and_close_follows_at_once() {
    let plan = Plan { window: 2, sizes: Sizes::Fixed(4000), ..plan() };
    let mut world = World::new(|_| MS, grant);
    let record = world.run(&plan);
    // Two DATA and the CLOSE behind them.
    assert_eq!(world.most_unanswered, 3);
    assert_eq!((record.files, record.bytes), (1, 4000));
}

#[test]
fn empty_files_have_no_data() {
    let plan = Plan { sizes: Sizes::Fixed(0), dest: StorageDest::Local, ..plan() };
    let record = World::new(|_| MS, grant).run(&plan);
    assert_eq!((record.files, record.bytes, record.times(Timed::Write).count()), (1, 0, 0));
}

#[test]
fn sessions_end_after_their_files() {
    let quota = Quota { files: Some(25), ..Quota::default() };
    let plan = Plan { reconnect_after: Some(10), quota, layout: Layout::B, ..plan() };
    let mut world = World::new(|_| MS, grant);
    assert_eq!(world.run(&plan).files, 25);
    assert_eq!(world.dials, 3);
}

#[test]
fn nothing_of_the_warm_up_counts() {
    // 5 ms a file: the third is under way when the warm-up ends.
    let quota = Quota { files: Some(4), ..Quota::default() };
    let plan = Plan { warm_up_ns: 13 * MS, quota, ..plan() };
    let record = World::new(|_| MS, grant).run(&plan);
    assert_eq!(record.files, 2);
    assert_eq!(record.times(Timed::Connect).count(), 0);
    // OPEN at 11 ms, replies at 12; DATA at 13, 14 and 15, of which all count.
    assert_eq!(record.bytes, 2 * 2500);
    assert_eq!(record.times(Timed::Open).count(), 1);
    assert!((record.seconds() - 0.008).abs() < 1e-9, "{}", record.seconds());
}

#[test]
fn refusals_are_counted_and_explained_and_the_next_file_is_tried() {
    for refused in [Op::Open, Op::Data, Op::Close] {
        let mut left = 3;
        let refuse = |op| {
            let is_refused = op == refused && left > 0;
            left -= u32::from(is_refused);
            is_refused
        };
        let quota = Quota { files: Some(5), ..Quota::default() };
        // One DATA a file, so that three refusals are three files.
        let plan = Plan { sizes: Sizes::Fixed(10), quota, ..plan() };
        let mut world = World::new(|_| MS, refuse);
        let record = world.run(&plan);
        assert_eq!((record.files, record.failed), (2, 3), "{refused}");
        assert_eq!(world.dials, 1);
        let reason = format!("{refused} refused: no space");
        assert_eq!(record.reasons().get(&reason), Some(&3), "{:?}", record.reasons());
    }
}

#[test]
fn gives_up_on_a_server_that_only_refuses() {
    let mut world = World::new(|_| MS, |op| op == Op::Open);
    let record = world.run(&Plan { quota: Quota::default(), ..plan() });
    assert_eq!((record.files, record.failed), (0, u64::from(FAILURES_MAX)));
    let mut world = World::new(|_| MS, |op| op == Op::Connect);
    let record = world.run(&Plan { quota: Quota::default(), ..plan() });
    assert_eq!((record.failed, world.dials), (u64::from(FAILURES_MAX), FAILURES_MAX));
}

/// One file every 10 ms for 10 s, each served in 2 ms, but the server stalls once, for 1 s. A
/// generator that stops with the server sees a single slow file in 1000; the files that were due
/// during the stall were in truth late by up to a second.
#[test]
fn a_stall_counts_for_every_file_that_was_due_in_it() {
    let mut has_stalled = false;
    let delay = |now_ns| {
        let stalls = now_ns >= 5_000 * MS && !has_stalled;
        has_stalled |= stalls;
        if stalls { 1_000 * MS } else { MS }
    };
    let quota = Quota { files: Some(1000), rate: Some(100.0), ..Quota::default() };
    let plan = Plan { sizes: Sizes::Fixed(0), quota, ..plan() };
    let record = World::new(delay, grant).run(&plan);
    assert_eq!(record.files, 1000);

    let (service, file) = (record.times(Timed::Service), record.times(Timed::File));
    near(service.percentile_ns(99.0), 2.0);
    near(service.max_ns(), 1001.0);
    near(file.percentile_ns(50.0), 2.0);
    // Late: 1001 ms for the file that stalls, and 8 ms less for each one behind it, since 10 ms
    // pass between two that are due and 2 ms are needed for each. So 125 files, an eighth, are
    // late, and the slowest hundredth are the first ten: the tenth waited about 1001 - 9 * 8 ms.
    near(file.percentile_ns(99.0), 929.0);
    near(file.percentile_ns(95.0), 1001.0 - 49.0 * 8.0);
    near(file.percentile_ns(80.0), 2.0);
}
