//! The state machine of one ingest ring: all its sessions.
//!
//! Completions and answers go in, operations and jobs come out through [`Io`]. What a session does
//! is spread over this folder by concern: `receive` (arming, packets, payload), `request` (what a
//! packet asks for, replies), `upload` (windows, writes, commit, abort), and here: placing,
//! dispatch, deadlines, the end of a session.
//!
//! Invariant: a session's slot, socket and windows are let go exactly once, when nothing it started
//! is in flight any more.

use std::sync::Arc;
use std::time::Duration;

use fsq_wire::Phase;
use rustix::io::Errno;
use slab::Slab;
use tracing::debug;

use super::pool::WindowPool;
use super::session::{Life, NEVER, Receive, Session, Slot, Stage};
use crate::limits::{
    LINGER_MS, REFUSED_SESSIONS_PER_RING, SCRATCH_BYTES, SLOT_BYTES, TICK_MS, WINDOW_BYTES,
    WINDOW_HOLD_MS,
};
use crate::path::Admission;
use crate::refusal::Refusal;
use crate::ring::token::SLOTS_MAX;
use crate::ring::{Completion, Op, Ring, SocketId, Span, Token};
use crate::services::{Answer, Services};

/// What an operation was for: the token's kind.
pub(super) mod kind {
    pub(in crate::ingest) const RECEIVE: u8 = 1;
    pub(in crate::ingest) const SEND: u8 = 2;
    pub(in crate::ingest) const SHUTDOWN: u8 = 3;
    pub(in crate::ingest) const CLOSE: u8 = 4;
    pub(in crate::ingest) const CANCEL: u8 = 5;
    pub(in crate::ingest) const JOB: u8 = 6;
    /// Plus the write's index.
    pub(in crate::ingest) const WRITE: u8 = 32;
}

/// What a shard works with during one call.
#[derive(Debug)]
pub struct Io<'a, R, S> {
    /// Where operations go.
    pub ring: &'a mut R,
    /// Where jobs go.
    pub services: &'a mut S,
    /// The time.
    pub now: Duration,
}

/// A shard's fixed sizes and times.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Sessions this ring serves at most.
    pub sessions_max: u32,
    /// Windows of [`WINDOW_BYTES`] in its arena.
    pub windows: u32,
    /// How long half a packet, a stopped payload or an unread reply is waited for.
    pub stall_timeout: Duration,
}

impl ShardConfig {
    /// Slots for sessions, those that are only turned away included.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.sessions_max + REFUSED_SESSIONS_PER_RING
    }

    /// Arena bytes that are worth registering: the windows and the scratch window come first.
    #[must_use]
    pub fn registered_bytes(&self) -> u64 {
        u64::from(self.windows + 1) * u64::from(WINDOW_BYTES)
    }

    /// Arena bytes in all.
    #[must_use]
    pub fn arena_bytes(&self) -> u64 {
        self.registered_bytes() + u64::from(self.slots()) * u64::from(SLOT_BYTES)
    }
}

/// Totals of a ring's sessions since its start: plain numbers that only the ring's thread touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounters {
    /// Sessions accepted.
    pub sessions: u64,
    /// Files committed.
    pub files: u64,
    /// Payload bytes received, dropped ones included.
    pub bytes: u64,
    /// DATA packets answered.
    pub chunks: u64,
    /// Receives that brought payload.
    pub receives: u64,
    /// Those among them that came back short.
    pub short_receives: u64,
    /// Writes to staging that moved bytes.
    pub writes: u64,
    /// Bytes they have moved. What is left of a file at its CLOSE, less than half a window, is
    /// written by the staging pool and not in this number; a block that a short write has cut is
    /// written, and counted, again.
    pub bytes_written: u64,
    /// Writes among them that came back short and were continued.
    pub short_writes: u64,
    /// Receives, sends and writes that were submitted again, because the one before has done a part
    /// of it (short) or nothing (EAGAIN, EINTR).
    pub resubmissions: u64,
}

impl std::ops::AddAssign for ShardCounters {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.files += other.files;
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.receives += other.receives;
        self.short_receives += other.short_receives;
        self.writes += other.writes;
        self.bytes_written += other.bytes_written;
        self.short_writes += other.short_writes;
        self.resubmissions += other.resubmissions;
    }
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Shard {
    pub(super) config: ShardConfig,
    pub(super) sessions: Slab<Session>,
    pub(super) pool: WindowPool,
    pub(super) scratch: Span,
    pub(super) admission: Arc<Admission>,
    pub(super) stopping: bool,
    pub(super) counters: ShardCounters,
    slots_start: u64,
    /// Sessions that were only taken to be told that they are too many.
    surplus: usize,
    serial: u32,
    next_tick: Duration,
    /// Where the search for a window to take back goes on.
    pub(super) squeeze_from: usize,
}

impl Shard {
    /// An empty shard over an arena of [`ShardConfig::arena_bytes`].
    #[must_use]
    pub fn new(config: ShardConfig, admission: Arc<Admission>) -> Self {
        let slots = config.slots();
        Self {
            sessions: Slab::with_capacity(slots as usize),
            pool: WindowPool::new(u64::from(WINDOW_BYTES), config.windows, slots),
            scratch: Span { start: 0, len: SCRATCH_BYTES },
            admission,
            stopping: false,
            counters: ShardCounters::default(),
            slots_start: config.registered_bytes(),
            surplus: 0,
            serial: 0,
            next_tick: Duration::ZERO,
            squeeze_from: 0,
            config,
        }
    }

    /// Totals so far.
    #[must_use]
    pub fn counters(&self) -> ShardCounters {
        self.counters
    }

    /// Sessions in being.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Windows that nobody holds.
    #[must_use]
    pub fn windows_free(&self) -> u32 {
        self.pool.free()
    }

    /// Takes over a connected socket; `peer` is its address, for the log. Without a slot for it the
    /// socket is closed.
    pub fn accept<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        socket: SocketId,
        peer: String,
    ) {
        if self.sessions.len() >= self.config.slots() as usize {
            // No session to wait for it: the completion finds no slot and is dropped.
            io.ring.push(Token::new(kind::CLOSE, SLOTS_MAX - 1, 0), Op::Close { socket });
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        self.counters.sessions += 1;
        let served = self.sessions.len() - self.surplus;
        let surplus = self.stopping || served >= self.config.sessions_max as usize;
        self.surplus += usize::from(surplus);
        let entry = self.sessions.vacant_entry();
        let slot = entry.key() as u32;
        let memory = Slot::new(self.slots_start, slot);
        let session = entry.insert(Session::new(self.serial, socket, peer, memory));
        session.surplus = surplus;
        self.receive(io, slot);
    }

    /// A completion of the ring.
    pub fn completed<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, done: Completion) {
        let slot = done.token.slot();
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if session.serial != done.token.generation() {
            return;
        }
        session.pending -= 1;
        match done.token.kind() {
            kind::RECEIVE => self.receive_done(io, slot, done),
            kind::SEND => self.send_done(io, slot, done.result),
            kind::SHUTDOWN => {}
            kind::CANCEL => session.cancelling = false,
            kind::CLOSE => session.closed = true,
            write => self.write_done(io, slot, write - kind::WRITE, done.result),
        }
        self.settle(io, slot);
    }

    /// An answer of the services.
    pub fn answered<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        token: Token,
        answer: Answer,
    ) {
        let slot = token.slot();
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if session.serial != token.generation() {
            return;
        }
        session.pending -= 1;
        match answer {
            Answer::SignOn(result) => self.signed_on(io, slot, result),
            Answer::Open(result) => self.opened(io, slot, result),
            Answer::Extend(result) => self.extended(io, slot, result),
            Answer::Commit(result) => self.committed(io, slot, result),
            Answer::Abort => self.aborted(io, slot),
        }
        self.settle(io, slot);
    }

    /// How long the ring may wait before [`Shard::tick`] wants to be called.
    #[must_use]
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        (!self.sessions.is_empty()).then(|| self.next_tick.saturating_sub(now))
    }

    /// Looks at the deadlines, if it is time.
    pub fn tick<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>) {
        if io.now < self.next_tick {
            return;
        }
        self.next_tick = io.now + Duration::from_millis(TICK_MS);
        for slot in 0..self.sessions.capacity() as u32 {
            let Some(session) = self.sessions.get(slot as usize) else { continue };
            if session.deadline <= io.now {
                self.overdue(io, slot);
                self.settle(io, slot);
            } else if self.pool.contended() {
                self.reclaim(io, slot);
            }
        }
    }

    /// No more requests: finishes what is being committed, tells the others, ends every session.
    pub fn stop<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>) {
        self.stopping = true;
        for slot in 0..self.sessions.capacity() as u32 {
            let Some(session) = self.sessions.get(slot as usize) else { continue };
            if session.life != Life::Open {
                continue;
            }
            match session.wire.phase() {
                // An answer is due; the session ends once it has been sent.
                Phase::Connecting | Phase::Opening | Phase::Closing => {}
                Phase::Greeting | Phase::Ready if session.filled == 0 => self.close(io, slot),
                _ => {
                    let text =
                        "the server is shutting down; the file was not stored, send it again";
                    self.dismiss(io, slot, &Refusal::new(Errno::SHUTDOWN, text));
                }
            }
            self.settle(io, slot);
        }
    }

    /// The session's time is up.
    fn overdue<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        session.deadline = NEVER;
        match session.receive {
            // Only the kernel knows whether some of it has come: end the receive and see.
            Receive::Payload(_) | Receive::Scratch
                if session.life == Life::Open && session.sending.is_none() =>
            {
                self.cancel_receive(io, slot);
            }
            _ if session.life == Life::Open && session.sending.is_none() => self.stalled(io, slot),
            _ => self.close(io, slot),
        }
    }

    /// The peer has not sent what it began to send.
    pub(super) fn stalled<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let seconds = self.config.stall_timeout.as_secs_f32();
        let text = match self.sessions[slot as usize].wire.phase() {
            Phase::Payload { remaining } => {
                format!("no data for {seconds} s with {remaining} bytes of payload to come")
            }
            Phase::Greeting if self.sessions[slot as usize].filled == 0 => {
                format!("no CONNECT within {seconds} s")
            }
            _ => format!("the rest of a packet did not come within {seconds} s"),
        };
        self.dismiss(io, slot, &Refusal::new(Errno::TIMEDOUT, text));
    }

    /// Takes a window back from a session that makes no use of it while others wait for one.
    fn reclaim<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &self.sessions[slot as usize];
        let held_long = io.now >= session.armed_at + Duration::from_millis(WINDOW_HOLD_MS);
        match session.receive {
            Receive::Payload(_) if held_long => self.cancel_receive(io, slot),
            Receive::Packet => {
                self.flush_idle(io, slot);
            }
            _ => {}
        }
    }

    fn cancel_receive<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if !session.cancelling {
            session.cancelling = true;
            let target = Token::new(kind::RECEIVE, slot, session.serial);
            self.push(io, slot, kind::CANCEL, Op::Cancel { target });
        }
    }

    /// Pushes an operation on behalf of a session.
    pub(super) fn push<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        kind: u8,
        op: Op,
    ) {
        let session = &mut self.sessions[slot as usize];
        session.pending += 1;
        io.ring.push(Token::new(kind, slot, session.serial), op);
    }

    /// Ends a session after the reply that is being sent: half-closes, and drops what still comes
    /// in, so that the peer reads the reply instead of a reset.
    pub(super) fn leave<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        session.life = Life::Leaving;
        session.deadline = io.now + Duration::from_millis(LINGER_MS);
        self.give_up_upload(io, slot);
    }

    /// Ends a session now.
    pub(super) fn close<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if session.life != Life::Closing {
            session.life = Life::Closing;
            session.deadline = NEVER;
            session.opening = None;
            let peer = &session.peer;
            debug!("session of node '{}' from {peer} ended", session.node());
        }
        if session.receive == Receive::Queued {
            self.pool.forget(slot);
        }
        let session = &mut self.sessions[slot as usize];
        if !session.receiving() {
            session.receive = Receive::Idle;
        }
        if (session.receiving() || session.sending.is_some()) && !session.shut_down {
            // Makes what is in flight on the socket complete.
            session.shut_down = true;
            let socket = session.socket;
            self.push(io, slot, kind::SHUTDOWN, Op::Shutdown { socket, both: true });
        }
        self.give_up_upload(io, slot);
    }

    /// Lets go of a closing session what can be let go by now.
    fn settle<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if session.life != Life::Closing || session.pending > 0 || session.upload.is_some() {
            return;
        }
        if session.closed {
            let session = self.sessions.remove(slot as usize);
            self.surplus -= usize::from(session.surplus);
        } else {
            let socket = session.socket;
            self.push(io, slot, kind::CLOSE, Op::Close { socket });
        }
    }

    /// Gives up the open file, if there is one that can be given up.
    pub(super) fn give_up_upload<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
    ) {
        let Some(upload) = &mut self.sessions[slot as usize].upload else { return };
        match upload.stage {
            Stage::Content | Stage::Sealing => {
                upload.stage = Stage::Failing;
                upload.content.stop();
                self.pump(io, slot);
            }
            _ => {}
        }
    }
}
