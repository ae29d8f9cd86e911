//! [`Upload`]: what one connection does next, and what it has measured.
//!
//! Invariant: the machine is told the time and what has arrived; it never asks. It owns the
//! session's state, the record and the packet to send, and every engine only carries out its
//! [`Step`]s, so that two engines differ in nothing but how they move bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use fsq_wire::client::{Reply, Window};
use fsq_wire::{ClientSession, Op, PACKET_BYTES};

use crate::feed::{Feed, File};
use crate::plan::Plan;
use crate::record::{Record, Timed};

/// A connection gives up after so many failures with no file acknowledged in between: a server
/// that is full or gone would otherwise be asked thousands of times a second.
const FAILURES_MAX: u32 = 10;

/// What an engine is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a connection, then [`Upload::dialled`] or [`Upload::lost`].
    Dial,
    /// Send [`Upload::packet`] and so many bytes of payload behind it.
    Send {
        /// Payload, bytes.
        payload_bytes: usize,
    },
    /// Receive one packet, then [`Upload::reply`] or [`Upload::lost`].
    Receive,
    /// Do nothing before this time.
    Wait {
        /// ns of the run.
        until_ns: u64,
    },
    /// Close the connection.
    HangUp,
    /// The connection's part of the run is over.
    Done,
}

/// Counters for whoever watches a run; exact only at its end.
#[derive(Debug, Default)]
pub struct Totals {
    /// Payload that was received by the server, bytes.
    pub bytes: AtomicU64,
    /// Files acknowledged by CLOSE.
    pub files: AtomicU64,
    /// Files and connections that failed.
    pub failed: AtomicU64,
}

/// An acknowledged file, for whoever waits for its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its number in the run.
    pub index: u64,
    /// Its size, bytes.
    pub size_bytes: u64,
    /// When the reply to CLOSE came, ns of the run.
    pub at_ns: u64,
}

/// What the connections of a run share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// What is sent.
    pub plan: &'a Plan,
    /// Where the files come from.
    pub feed: &'a Feed,
    /// Counters.
    pub totals: &'a Totals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No connection.
    Down,
    /// Connected, CONNECT is to be sent.
    Dialled,
    /// CONNECT, OPEN or CLOSE is to be answered.
    Asked,
    /// Signed on, no file open.
    Ready,
    /// A file is open.
    Writing,
    /// The connection is to be closed.
    Leaving,
}

/// The file under way.
#[derive(Clone, Copy, Debug)]
struct Current {
    file: File,
    size_bytes: u64,
    sent_bytes: u64,
    /// Answered after the warm-up, bytes.
    counted_bytes: u64,
    /// When OPEN was sent, ns.
    began_ns: u64,
}

/// One connection of a run.
pub struct Upload<'a> {
    shared: Shared<'a>,
    arrivals: Option<Sender<Acknowledged>>,
    session: ClientSession,
    stage: Stage,
    /// Taken from the feed, not begun.
    next: Option<File>,
    current: Option<Current>,
    /// When DATA was sent, ns, and its payload, of those unanswered.
    unanswered: VecDeque<(u64, u64)>,
    /// When the dialling began, or CONNECT, OPEN or CLOSE was sent, ns.
    asked_ns: u64,
    files_of_session: u64,
    failures: u32,
    packet: Box<[u8; PACKET_BYTES]>,
    record: Record,
}

impl<'a> Upload<'a> {
    /// A connection that has not been opened.
    #[must_use]
    pub fn new(shared: Shared<'a>, arrivals: Option<Sender<Acknowledged>>) -> Self {
        Self {
            shared,
            arrivals,
            session: session(shared.plan),
            stage: Stage::Down,
            next: None,
            current: None,
            unanswered: VecDeque::with_capacity(shared.plan.window as usize),
            asked_ns: 0,
            files_of_session: 0,
            failures: 0,
            packet: Box::new([0; PACKET_BYTES]),
            record: Record::default(),
        }
    }

    /// The packet that the last [`Step::Send`] meant.
    #[must_use]
    pub fn packet(&self) -> &[u8; PACKET_BYTES] {
        &self.packet
    }

    /// What was measured.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }

    /// What is to be done now. To be asked again once it is done.
    pub fn step(&mut self, now_ns: u64) -> Step {
        match self.stage {
            Stage::Down => self.dial(now_ns),
            Stage::Dialled => {
                let login = self.shared.plan.login();
                let built = self.session.connect(&login, &mut self.packet);
                built.expect("the session is new and the plan's strings fit");
                self.stage = Stage::Asked;
                Step::Send { payload_bytes: 0 }
            }
            Stage::Asked => Step::Receive,
            Stage::Ready => self.begin(now_ns),
            Stage::Writing => self.write(now_ns),
            Stage::Leaving => {
                self.stage = Stage::Down;
                Step::HangUp
            }
        }
    }

    /// The connection is open.
    pub fn dialled(&mut self) {
        self.session = session(self.shared.plan);
        self.stage = Stage::Dialled;
    }

    /// The connection could not be opened or does not work any more. The engine has closed it.
    pub fn lost(&mut self, reason: &str) {
        self.session.lost();
        self.unanswered.clear();
        self.fail(reason);
        self.stage = Stage::Down;
    }

    /// A packet has arrived.
    pub fn reply(&mut self, packet: &[u8; PACKET_BYTES], now_ns: u64) {
        match self.session.reply(packet) {
            Ok(reply) => self.replied(reply, now_ns),
            Err(breach) => {
                self.unanswered.clear();
                self.fail(&breach.to_string());
                self.stage = Stage::Leaving;
            }
        }
    }

    fn dial(&mut self, now_ns: u64) -> Step {
        let is_over =
            self.has_given_up() || (self.next.is_none() && !self.shared.feed.has_more(now_ns));
        if is_over {
            return Step::Done;
        }
        self.asked_ns = now_ns;
        self.files_of_session = 0;
        Step::Dial
    }

    fn begin(&mut self, now_ns: u64) -> Step {
        let is_spent =
            self.shared.plan.reconnect_after.is_some_and(|files| self.files_of_session >= files);
        let file = if is_spent { None } else { self.next_file(now_ns) };
        let Some(file) = file else {
            let built = self.session.disconnect(&mut self.packet);
            built.expect("DISCONNECT is legal at any time of a session");
            self.stage = Stage::Leaving;
            return Step::Send { payload_bytes: 0 };
        };
        if let Some(until_ns) = file.due_ns.filter(|&due_ns| due_ns > now_ns) {
            return Step::Wait { until_ns };
        }
        self.next = None;
        let path = self.shared.plan.path(file.index);
        let built = self.session.open(&self.shared.plan.info(&path), &mut self.packet);
        built.expect("no file is open and the plan's strings fit");
        self.current = Some(Current {
            file,
            size_bytes: self.shared.plan.size(file.index),
            sent_bytes: 0,
            counted_bytes: 0,
            began_ns: now_ns,
        });
        self.ask(now_ns)
    }

    fn write(&mut self, now_ns: u64) -> Step {
        let plan = self.shared.plan;
        let current = self.current.as_mut().expect("a file is open while writing");
        let is_refused = self.session.failure().is_some();
        if is_refused || current.sent_bytes == current.size_bytes {
            // The deployed client knows no other way; a refusal is waited for in any case.
            if !self.unanswered.is_empty() && (is_refused || plan.window == 1) {
                return Step::Receive;
            }
            let built = self.session.close(&mut self.packet);
            built.expect("a file is open and nothing but DATA is unanswered");
            return self.ask(now_ns);
        }
        let chunk_bytes = plan.chunk(current.sent_bytes, current.size_bytes);
        if !self.session.has_room(chunk_bytes) {
            return Step::Receive;
        }
        let built = self.session.data(chunk_bytes, &mut self.packet);
        built.expect("a file is open, not refused, and the window has room");
        current.sent_bytes += chunk_bytes;
        self.unanswered.push_back((now_ns, chunk_bytes));
        let payload_bytes = usize::try_from(chunk_bytes).expect("a chunk lies in memory");
        Step::Send { payload_bytes }
    }

    fn replied(&mut self, reply: Reply, now_ns: u64) {
        if reply.op == Op::Data {
            let sent = self.unanswered.pop_front();
            let (sent_ns, bytes) = sent.expect("the session matches replies to requests");
            if reply.outcome.is_ok() {
                self.time(Timed::Write, sent_ns, now_ns);
                if now_ns >= self.shared.plan.warm_up_ns
                    && let Some(current) = &mut self.current
                {
                    current.counted_bytes += bytes;
                }
                self.shared.totals.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            // A refusal is counted once, by CLOSE.
            return;
        }
        let (timed, on_success, on_refusal) = match reply.op {
            Op::Connect => (Timed::Connect, Stage::Ready, Stage::Leaving),
            Op::Open => (Timed::Open, Stage::Writing, Stage::Ready),
            _ => (Timed::Close, Stage::Ready, Stage::Ready),
        };
        match reply.outcome {
            Ok(()) => {
                self.time(timed, self.asked_ns, now_ns);
                self.stage = on_success;
                if reply.op == Op::Close {
                    self.acknowledged(now_ns);
                }
            }
            Err(refused) => {
                self.fail(&format!("{} refused: {}", refused.op, refused.text));
                self.stage = on_refusal;
            }
        }
    }

    fn acknowledged(&mut self, at_ns: u64) {
        let current = self.current.take().expect("only an open file is closed");
        let Current { file, size_bytes, began_ns, counted_bytes, .. } = current;
        self.failures = 0;
        self.files_of_session += 1;
        self.shared.totals.files.fetch_add(1, Ordering::Relaxed);
        let warm_up_ns = self.shared.plan.warm_up_ns;
        if at_ns < warm_up_ns {
            return;
        }
        self.time(Timed::Service, began_ns, at_ns);
        self.time(Timed::File, file.due_ns.unwrap_or(began_ns), at_ns);
        self.record.files += 1;
        self.record.bytes += counted_bytes;
        self.record.first_ns.get_or_insert_with(|| began_ns.max(warm_up_ns));
        self.record.last_ns = at_ns;
        if let Some(arrivals) = &self.arrivals {
            // Nobody listens any more: the run was cut short.
            let _ = arrivals.send(Acknowledged { index: file.index, size_bytes, at_ns });
        }
    }

    fn has_given_up(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    fn next_file(&mut self, now_ns: u64) -> Option<File> {
        if self.has_given_up() {
            return None;
        }
        if self.next.is_none() {
            self.next = self.shared.feed.take(now_ns);
        }
        self.next
    }

    fn ask(&mut self, now_ns: u64) -> Step {
        self.asked_ns = now_ns;
        self.stage = Stage::Asked;
        Step::Send { payload_bytes: 0 }
    }

    fn time(&mut self, timed: Timed, from_ns: u64, to_ns: u64) {
        if from_ns >= self.shared.plan.warm_up_ns {
            self.record.times_mut(timed).add(to_ns.saturating_sub(from_ns));
        }
    }

    fn fail(&mut self, reason: &str) {
        self.current = None;
        self.failures += 1;
        self.record.fail(reason);
        self.shared.totals.failed.fetch_add(1, Ordering::Relaxed);
    }
}

fn session(plan: &Plan) -> ClientSession {
    ClientSession::new(plan.layout, Window { packets: plan.window, bytes: u64::MAX })
}

#[cfg(test)]
mod tests;
