//! The data seam: operations on sockets and file contents go into a [`Ring`], completions come out.
//!
//! Two implementations: [`uring`] over io_uring, and [`sim`], a seeded simulator that delivers
//! short counts, errors and reordered completions. Memory is named by [`Span`]s of the ring's own
//! arena, never by pointers, so that the machines above need no `unsafe`.
//!
//! Invariant: from the push of an operation until its completion has been handed out, the span it
//! names belongs to the ring; the machine above neither reads nor writes it.

use std::time::Duration;

use rustix::io::Errno;

pub use self::token::Token;

pub mod arena;
pub mod selftest;
pub mod setup;
pub mod sim;
pub mod token;
pub mod uring;

/// A piece of the ring's arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// First byte, counted from the arena's start.
    pub start: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// The part of `len` bytes that begins `offset` bytes into this span.
    ///
    /// # Panics
    /// If that part is not within the span.
    #[must_use]
    pub fn part(self, offset: u32, len: u32) -> Self {
        assert!(u64::from(offset) + u64::from(len) <= u64::from(self.len), "part within the span");
        Self { start: self.start + u64::from(offset), len }
    }
}

/// A connected socket, by its file descriptor (or the simulator's number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub i32);

/// An open file, by its file descriptor (or the simulator's number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub i32);

/// One operation for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Receive into `into`. With `wait_all` the kernel tries to fill the span; a short count is
    /// still possible (older kernels, end of stream). Completes with 0 at the end of the stream.
    Recv {
        /// From where.
        socket: SocketId,
        /// To where.
        into: Span,
        /// MSG_WAITALL.
        wait_all: bool,
    },
    /// Send from `from`; may complete short.
    Send {
        /// To where.
        socket: SocketId,
        /// What.
        from: Span,
    },
    /// Write to a file opened O_DIRECT: `from` and `offset` are multiples of 4096 where the file
    /// was opened direct. Spans within registered memory go out as WRITE_FIXED.
    Write {
        /// To which file.
        file: FileId,
        /// What.
        from: Span,
        /// Where in the file, bytes.
        offset: u64,
    },
    /// Read from a file into `into`; completes short at the end of the file.
    Read {
        /// From which file.
        file: FileId,
        /// To where.
        into: Span,
        /// Where in the file, bytes.
        offset: u64,
    },
    /// End the sending side of a connection (`shutdown(SHUT_WR)`) or both sides.
    Shutdown {
        /// Which connection.
        socket: SocketId,
        /// Both directions; a pending receive then completes.
        both: bool,
    },
    /// Close a socket. No operation on it may be in flight.
    Close {
        /// Which connection.
        socket: SocketId,
    },
    /// Completes when the socket has something to receive (or its stream has ended). Takes no
    /// memory, so it is what a session waits with while memory is short.
    Poll {
        /// Which connection.
        socket: SocketId,
    },
    /// Asks for the end of a pending receive. The receive completes with what it had got, or
    /// ECANCELED; the cancel itself completes too, and its result means nothing.
    Cancel {
        /// The receive's token.
        target: Token,
    },
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As given at the push.
    pub token: Token,
    /// Bytes moved (0 where nothing is counted), or why not.
    pub result: Result<u32, Errno>,
    /// A receive left more bytes waiting in the socket. Always false where the kernel does not tell
    /// (before 5.19).
    pub more_waiting: bool,
}

/// What a ring has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Completions handed out, those of operations that the kernel never saw included.
    pub completions: u64,
}

impl std::ops::AddAssign for RingCounters {
    fn add_assign(&mut self, other: Self) {
        self.enters += other.enters;
        self.completions += other.completions;
    }
}

/// Operations in, completions out. One owner thread.
pub trait Ring {
    /// Queues an operation. Queued operations reach the kernel at the next [`Ring::reap`] at the
    /// latest. Never fails: what the kernel refuses comes back as a completion.
    fn push(&mut self, token: Token, op: Op);

    /// Submits what is queued, waits until at least one completion is there or `timeout` is over
    /// (`None`: as long as it takes; zero: do not wait), and appends completions to `out`.
    ///
    /// # Errors
    /// The ring itself is broken; nothing more can be expected of it.
    fn reap(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), Errno>;

    /// Acknowledges at once what a socket has received (TCP_QUICKACK): the deployed client holds
    /// back a small payload until its header is acknowledged (PROTOCOL.md, "What the deployed
    /// clients do").
    fn quick_ack(&mut self, socket: SocketId);

    /// Reads arena memory that belongs to the caller.
    fn bytes(&self, span: Span) -> &[u8];

    /// Writes arena memory that belongs to the caller.
    fn bytes_mut(&mut self, span: Span) -> &mut [u8];

    /// Moves `from` to `to`, both the caller's; they do not overlap and have the same length.
    fn copy(&mut self, from: Span, to: Span);

    /// What it has done so far.
    fn counters(&self) -> RingCounters;
}
