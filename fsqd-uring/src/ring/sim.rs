//! [`Sim`]: the [`Ring`] of a simulated kernel, driven by a seed.
//!
//! Sockets are byte queues that a test feeds and reads; files are whatever [`Files`] stands for.
//! Operations complete in an order, and with counts and errors, that the seed and [`SimOptions`]
//! decide, so that a failing run is repeated by its seed. The simulator also enforces the ownership
//! rule of [`crate::ring`]: touching memory that belongs to an operation in flight panics.
//!
//! Invariant: same seed, same calls, same run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rustix::io::Errno;

use super::{Completion, FileId, Op, Ring, RingCounters, SocketId, Span, Token};
use crate::limits::BLOCK_BYTES;
use crate::prng::Prng;

/// The file contents behind the simulated ring.
pub trait Files {
    /// Writes at an offset; the count, or why not.
    fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) -> Result<u32, Errno>;
    /// Reads at an offset; the count (0 at the end), or why not.
    fn read(&mut self, file: FileId, bytes: &mut [u8], offset: u64) -> Result<u32, Errno>;
    /// What the ring itself demands writes to be aligned to; 1 where `write` knows better.
    fn alignment(&self) -> u64 {
        u64::from(BLOCK_BYTES)
    }
}

/// No files at all: every access is EBADF.
#[derive(Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn write(&mut self, _: FileId, _: &[u8], _: u64) -> Result<u32, Errno> {
        Err(Errno::BADF)
    }

    fn read(&mut self, _: FileId, _: &mut [u8], _: u64) -> Result<u32, Errno> {
        Err(Errno::BADF)
    }
}

/// What the simulated kernel does to its users. Probabilities are in percent.
#[derive(Clone, Copy, Debug)]
pub struct SimOptions {
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// A receive hands out only a part of what is there, also with MSG_WAITALL.
    pub short_receive: u8,
    /// Most bytes one receive hands out; 1 cuts a stream at every byte.
    pub receive_bytes_max: u32,
    /// A send takes only a part.
    pub short_send: u8,
    /// A write or read moves only a part, cut anywhere.
    pub short_file: u8,
    /// A write or read fails with EIO or ENOSPC.
    pub failing_file: u8,
    /// A write or read that could complete is passed over, each time it is looked at.
    pub slow_file: u8,
    /// An operation fails with EINTR or EAGAIN and has not happened, as old kernels let through.
    pub spurious: u8,
    /// Completions overtake each other.
    pub reorder: bool,
    /// Receives tell whether more is waiting (5.19).
    pub tells_more: bool,
}

impl SimOptions {
    /// A kernel without a flaw.
    #[must_use]
    pub fn flawless(seed: u64) -> Self {
        Self {
            seed,
            short_receive: 0,
            receive_bytes_max: u32::MAX,
            short_send: 0,
            short_file: 0,
            failing_file: 0,
            slow_file: 0,
            spurious: 0,
            reorder: false,
            tells_more: true,
        }
    }

    /// A kernel that does everything it is allowed to, but loses no file operation.
    #[must_use]
    pub fn rough(seed: u64) -> Self {
        Self {
            short_receive: 30,
            short_send: 20,
            short_file: 20,
            spurious: 10,
            reorder: true,
            tells_more: seed.is_multiple_of(2),
            ..Self::flawless(seed)
        }
    }
}

#[derive(Debug, Default)]
struct Socket {
    inbound: VecDeque<u8>,
    outbound: Vec<u8>,
    /// The peer sends no more.
    ended: bool,
    /// The peer is gone with a reset.
    reset: bool,
    shut_read: bool,
    shut_write: bool,
    closed: bool,
    quick_acks: u32,
}

/// The simulated ring. See the module's documentation.
#[derive(Debug)]
pub struct Sim<F = NoFiles> {
    options: SimOptions,
    prng: Prng,
    arena: Vec<u8>,
    /// Receives into this span may overlap each other: nobody reads what is there.
    shared: Span,
    sockets: BTreeMap<i32, Socket>,
    files: F,
    pending: Vec<(Token, Op)>,
    cancelled: Vec<Token>,
    counters: RingCounters,
}

impl<F: Files> Sim<F> {
    /// A ring with an arena of `arena_bytes`, in which `shared` is the scratch memory.
    #[must_use]
    pub fn new(options: SimOptions, arena_bytes: u64, shared: Span, files: F) -> Self {
        Self {
            prng: Prng::new(options.seed),
            options,
            arena: vec![0; usize::try_from(arena_bytes).expect("an arena that fits")],
            shared,
            sockets: BTreeMap::new(),
            files,
            pending: Vec::new(),
            cancelled: Vec::new(),
            counters: RingCounters::default(),
        }
    }

    /// A new connection.
    pub fn connect(&mut self) -> SocketId {
        let id = self.sockets.last_key_value().map_or(100, |(id, _)| id + 1);
        self.sockets.insert(id, Socket::default());
        SocketId(id)
    }

    /// The peer sends `bytes`.
    pub fn feed(&mut self, socket: SocketId, bytes: &[u8]) {
        self.socket(socket).inbound.extend(bytes);
    }

    /// The peer sends no more.
    pub fn end(&mut self, socket: SocketId) {
        self.socket(socket).ended = true;
    }

    /// The peer is gone; what it sent and was not received yet is lost.
    pub fn reset(&mut self, socket: SocketId) {
        let socket = self.socket(socket);
        socket.reset = true;
        socket.inbound.clear();
    }

    /// Takes what was sent to the peer so far.
    pub fn sent(&mut self, socket: SocketId) -> Vec<u8> {
        std::mem::take(&mut self.socket(socket).outbound)
    }

    /// Whether our side has closed the socket.
    #[must_use]
    pub fn closed(&self, socket: SocketId) -> bool {
        self.sockets[&socket.0].closed
    }

    /// Whether our side has said that it sends no more.
    #[must_use]
    pub fn finished(&self, socket: SocketId) -> bool {
        self.sockets[&socket.0].shut_write
    }

    /// How often the socket was acknowledged at once.
    #[must_use]
    pub fn quick_acks(&self, socket: SocketId) -> u32 {
        self.sockets[&socket.0].quick_acks
    }

    /// The files behind it.
    pub fn files(&mut self) -> &mut F {
        &mut self.files
    }

    /// Changes what the kernel does to its users from now on.
    pub fn options(&mut self) -> &mut SimOptions {
        &mut self.options
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Whether a write or read is in flight: it will complete, if not at the next look.
    #[must_use]
    pub fn file_busy(&self) -> bool {
        self.pending.iter().any(|(_, op)| matches!(op, Op::Write { .. } | Op::Read { .. }))
    }

    fn socket(&mut self, socket: SocketId) -> &mut Socket {
        self.sockets.get_mut(&socket.0).expect("a socket of this simulation")
    }

    fn percent(&mut self, chance: u8) -> bool {
        chance > 0 && self.prng.below(100) < u64::from(chance)
    }

    /// Whether an operation could complete now.
    fn ready(&self, token: Token, op: Op) -> bool {
        match op {
            Op::Recv { socket, into, wait_all } => {
                let socket = &self.sockets[&socket.0];
                let enough = if wait_all && self.options.short_receive == 0 {
                    socket.inbound.len() >= (into.len.min(self.options.receive_bytes_max)) as usize
                } else {
                    !socket.inbound.is_empty()
                };
                let over = socket.ended || socket.reset || socket.shut_read;
                enough || over || self.cancelled.contains(&token)
            }
            Op::Poll { socket } => {
                let socket = &self.sockets[&socket.0];
                let over = socket.ended || socket.reset || socket.shut_read;
                !socket.inbound.is_empty() || over || self.cancelled.contains(&token)
            }
            _ => true,
        }
    }

    fn perform(&mut self, token: Token, op: Op) -> Completion {
        let done = |result| Completion { token, result, more_waiting: false };
        let repeatable = !matches!(op, Op::Close { .. } | Op::Cancel { .. } | Op::Shutdown { .. });
        if repeatable && !matches!(op, Op::Poll { .. }) && self.percent(self.options.spurious) {
            let errno = if self.prng.below(2) == 0 { Errno::INTR } else { Errno::AGAIN };
            return done(Err(errno));
        }
        match op {
            Op::Recv { socket, into, wait_all } => self.receive(token, socket, into, wait_all),
            Op::Poll { .. } if self.forget_cancel(token) => done(Err(Errno::CANCELED)),
            Op::Poll { .. } => done(Ok(1)),
            Op::Send { socket, from } => done(self.send(socket, from)),
            Op::Write { file, from, offset } => done(self.write(file, from, offset)),
            Op::Read { file, into, offset } => done(self.read(file, into, offset)),
            Op::Shutdown { socket, both } => {
                let socket = self.socket(socket);
                socket.shut_write = true;
                socket.shut_read |= both;
                done(Ok(0))
            }
            Op::Close { socket } => {
                let in_flight = self.pending.iter().any(|(_, op)| names(op, socket));
                assert!(!in_flight, "nothing is in flight on a socket that is closed");
                let socket = self.socket(socket);
                assert!(!socket.closed, "a socket is closed once");
                socket.closed = true;
                done(Ok(0))
            }
            Op::Cancel { target } => {
                if self.pending.iter().any(|(token, _)| *token == target) {
                    self.cancelled.push(target);
                }
                done(Ok(0))
            }
        }
    }

    fn forget_cancel(&mut self, token: Token) -> bool {
        let before = self.cancelled.len();
        self.cancelled.retain(|cancelled| *cancelled != token);
        before != self.cancelled.len()
    }

    fn receive(&mut self, token: Token, id: SocketId, into: Span, wait_all: bool) -> Completion {
        let cancelled = self.forget_cancel(token);
        let available = self.sockets[&id.0].inbound.len() as u32;
        let mut count = available.min(into.len).min(self.options.receive_bytes_max);
        if count > 1 && (!wait_all || !cancelled) && self.percent(self.options.short_receive) {
            count = 1 + self.prng.below(u64::from(count)) as u32;
        }
        let socket = self.sockets.get_mut(&id.0).expect("a socket of this simulation");
        let over = socket.reset || socket.shut_read;
        let result = match count {
            0 if socket.reset => Err(Errno::CONNRESET),
            0 if socket.ended || over => Ok(0),
            0 => Err(Errno::CANCELED),
            _ => Ok(count),
        };
        let range = range(into.part(0, count));
        for (to, from) in self.arena[range].iter_mut().zip(socket.inbound.drain(..count as usize)) {
            *to = from;
        }
        let more_waiting = self.options.tells_more && !socket.inbound.is_empty();
        Completion { token, result, more_waiting }
    }

    fn send(&mut self, id: SocketId, from: Span) -> Result<u32, Errno> {
        let short = self.percent(self.options.short_send);
        let count = if short { 1 + self.prng.below(u64::from(from.len)) as u32 } else { from.len };
        let bytes = self.arena[range(from.part(0, count))].to_vec();
        let socket = self.socket(id);
        if socket.reset || socket.shut_write {
            return Err(if socket.reset { Errno::CONNRESET } else { Errno::PIPE });
        }
        socket.outbound.extend_from_slice(&bytes);
        Ok(count)
    }

    fn cut(&mut self, len: u32) -> u32 {
        let short = len > 1 && self.percent(self.options.short_file);
        if short { 1 + self.prng.below(u64::from(len - 1)) as u32 } else { len }
    }

    fn failing(&mut self) -> Option<Errno> {
        let fails = self.percent(self.options.failing_file);
        fails.then(|| if self.prng.below(2) == 0 { Errno::IO } else { Errno::NOSPC })
    }

    fn write(&mut self, file: FileId, from: Span, offset: u64) -> Result<u32, Errno> {
        let block = self.files.alignment();
        let aligned = [from.start, u64::from(from.len), offset].iter().all(|n| n % block == 0);
        if !aligned {
            return Err(Errno::INVAL);
        }
        if let Some(errno) = self.failing() {
            return Err(errno);
        }
        let count = self.cut(from.len);
        let bytes = &self.arena[range(from.part(0, count))];
        self.files.write(file, bytes, offset)
    }

    fn read(&mut self, file: FileId, into: Span, offset: u64) -> Result<u32, Errno> {
        if let Some(errno) = self.failing() {
            return Err(errno);
        }
        let count = self.cut(into.len);
        self.files.read(file, &mut self.arena[range(into.part(0, count))], offset)
    }

    /// Panics if `span` belongs to an operation in flight: one that writes it, or with `exclusive`
    /// any.
    fn check_owned(&self, span: Span, exclusive: bool) {
        for (token, op) in &self.pending {
            let (theirs, writes) = match *op {
                Op::Recv { into, .. } | Op::Read { into, .. } => (into, true),
                Op::Send { from, .. } | Op::Write { from, .. } => (from, false),
                _ => continue,
            };
            let shared = overlap(theirs, self.shared) && overlap(span, self.shared);
            if (writes || exclusive) && !shared && overlap(theirs, span) {
                panic!("{span:?} belongs to {token:?} {op:?} (seed {})", self.options.seed);
            }
        }
    }
}

fn names(op: &Op, socket: SocketId) -> bool {
    match op {
        Op::Recv { socket: named, .. }
        | Op::Send { socket: named, .. }
        | Op::Poll { socket: named }
        | Op::Shutdown { socket: named, .. } => *named == socket,
        _ => false,
    }
}

fn range(span: Span) -> std::ops::Range<usize> {
    span.start as usize..span.start as usize + span.len as usize
}

fn overlap(a: Span, b: Span) -> bool {
    a.start < b.start + u64::from(b.len) && b.start < a.start + u64::from(a.len)
}

impl<F: Files> Ring for Sim<F> {
    fn push(&mut self, token: Token, op: Op) {
        match op {
            Op::Recv { into, .. } | Op::Read { into, .. } => {
                assert!(into.len > 0, "a receive of nothing looks like the end of the stream");
                self.check_owned(into, true);
            }
            Op::Send { from, .. } | Op::Write { from, .. } => self.check_owned(from, false),
            _ => {}
        }
        let live = |(_, other): &&(Token, Op)| matches!(other, Op::Recv { .. } | Op::Poll { .. });
        if matches!(op, Op::Recv { .. } | Op::Poll { .. }) {
            let twice = self.pending.iter().filter(live).any(|(other, _)| *other == token);
            assert!(!twice, "one receive at a time: {token:?}");
        }
        self.pending.push((token, op));
    }

    fn reap(&mut self, _: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), Errno> {
        let mut rounds =
            if self.options.reorder { 1 + self.prng.below(4) as usize } else { usize::MAX };
        self.counters.enters += 1;
        let mut at = 0;
        let mut left = self.pending.len();
        while rounds > 0 && left > 0 {
            if self.options.reorder {
                at = self.prng.below(self.pending.len() as u64) as usize;
            }
            left -= 1;
            let (token, op) = self.pending[at];
            let file = matches!(op, Op::Write { .. } | Op::Read { .. });
            let passed_over = file && self.percent(self.options.slow_file);
            if !passed_over && self.ready(token, op) {
                self.pending.remove(at);
                let completion = self.perform(token, op);
                out.push(completion);
                self.counters.completions += 1;
                rounds -= 1;
                if self.pending.is_empty() {
                    break;
                }
            } else {
                at += 1;
            }
            at %= self.pending.len();
        }
        Ok(())
    }

    fn quick_ack(&mut self, socket: SocketId) {
        self.socket(socket).quick_acks += 1;
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.check_owned(span, false);
        &self.arena[range(span)]
    }

    fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        self.check_owned(span, true);
        &mut self.arena[range(span)]
    }

    fn copy(&mut self, from: Span, to: Span) {
        self.check_owned(from, false);
        self.check_owned(to, true);
        self.arena.copy_within(range(from), to.start as usize);
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }
}
