//! [`Uring`]: the [`Ring`] over io_uring, with its arena and its wake-up.
//!
//! Owns the ring's file descriptor, the arena (shared with those it is lent to) and an eventfd
//! through which other threads wake the owner. Invariant: an operation's memory stays mapped until
//! its completion: the arena outlives the ring, and dropping the ring cancels what is in flight.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_quickack;

use super::arena::Arena;
use super::setup::{self, Rung, SetupError};
use super::{Completion, Op, Ring, RingCounters, SocketId, Span, Token};

/// Our own operations, told apart from the machine's by a kind it does not use.
const WAKE: Token = Token::new(0xff, 0, 0);
const TIMEOUT: Token = Token::new(0xff, 1, 0);

/// One registered buffer covers at most this much (io_uring_register(2)).
const REGISTERED_BYTES_MAX: u64 = 1 << 30;

/// What a ring is to be.
#[derive(Clone, Debug)]
pub struct UringConfig {
    /// Submission entries; more than that pushed at once costs a system call.
    pub entries: u32,
    /// Completions that may be outstanding.
    pub completions: u32,
    /// Arena bytes.
    pub arena_bytes: u64,
    /// How much of the arena, from its start, is registered for WRITE_FIXED and READ_FIXED.
    pub registered_bytes: u64,
    /// Highest rung to try.
    pub best: Rung,
    /// Bound on the kernel's worker threads of this ring, 0: the kernel's own bound.
    pub workers_max: u32,
}

/// What was found and chosen.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Rung of the setup ladder.
    pub rung: Rung,
    /// Whether the arena is registered; if not, why.
    pub registered: Result<(), Errno>,
    /// The arena's pages.
    pub pages: super::arena::Pages,
    /// The wait takes its timeout as an argument (5.11).
    pub ext_arg: bool,
    /// A receive with MSG_WAITALL keeps what it got when it is cancelled (self-test).
    pub wait_all: bool,
}

impl std::fmt::Display for Caps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let registered = if self.registered.is_ok() { "registered" } else { "NOT registered" };
        let wait = if self.ext_arg { "ext_arg" } else { "timeout operation" };
        let receive = if self.wait_all { "waitall" } else { "plain" };
        write!(
            f,
            "ring {}, buffers {registered} in {}, wait by {wait}, receive {receive}",
            self.rung, self.pages
        )
    }
}

/// Wakes the owner of a ring out of its wait, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the current or next [`Ring::reap`] return.
    pub fn wake(&self) {
        // Fails only when 2^64 - 2 wake-ups are pending, and then the owner is awake anyway.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// A ring over io_uring. See the module's documentation.
pub struct Uring {
    ring: IoUring,
    arena: Arc<Arena>,
    caps: Caps,
    registered_bytes: u64,
    wake: Waker,
    /// Where the kernel puts the eventfd's count; boxed, so that it stays where it is.
    wake_count: Box<u64>,
    wake_armed: bool,
    /// Believe what a receive's completion says of the socket.
    tells_more: bool,
    /// The timeout operation's argument, where the wait takes none.
    timespec: Box<Timespec>,
    /// Completions of what was done at once.
    done: Vec<Completion>,
    counters: RingCounters,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl Uring {
    /// Opens a ring; the calling thread becomes its only user.
    ///
    /// # Errors
    /// See [`SetupError`]. Memory that cannot be registered is not an error: see [`Caps`].
    pub fn open(config: &UringConfig) -> Result<Self, SetupError> {
        let (ring, rung) = setup::open(config.entries, config.completions, config.best)?;
        let arena = Arc::new(Arena::new(config.arena_bytes).map_err(SetupError::Other)?);
        let wake = eventfd(0, EventfdFlags::CLOEXEC).map_err(SetupError::Other)?;
        // The lowest rung does without all that came after 5.10, so that it can be tried anywhere.
        let modern = rung > Rung::Plain;
        let ext_arg = modern && ring.params().is_feature_ext_arg();
        if config.workers_max > 0 {
            // Refused before 5.15; the kernel's own bound applies then.
            let _ = ring.submitter().register_iowq_max_workers(&mut [config.workers_max; 2]);
        }
        let pages = arena.pages();
        let mut uring = Self {
            ring,
            arena,
            caps: Caps { rung, registered: Ok(()), pages, ext_arg, wait_all: true },
            tells_more: modern,
            registered_bytes: 0,
            wake: Waker(Arc::new(wake)),
            wake_count: Box::new(0),
            wake_armed: false,
            timespec: Box::new(Timespec::new()),
            done: Vec::with_capacity(64),
            counters: RingCounters::default(),
        };
        uring.register(config.registered_bytes);
        uring.caps.wait_all = super::selftest::wait_all_keeps_what_it_got(&mut uring);
        uring.counters = RingCounters::default();
        Ok(uring)
    }

    fn register(&mut self, bytes: u64) {
        let pieces: Vec<_> = (0..bytes)
            .step_by(REGISTERED_BYTES_MAX as usize)
            .map(|start| {
                let len = (bytes - start).min(REGISTERED_BYTES_MAX) as u32;
                let base = self.arena.address(Span { start, len });
                libc::iovec { iov_base: base.cast(), iov_len: len as usize }
            })
            .collect();
        if pieces.is_empty() {
            return;
        }
        // SAFETY: the pieces lie within the arena, which lives as long as the ring.
        match unsafe { self.ring.submitter().register_buffers(&pieces) } {
            Ok(()) => self.registered_bytes = bytes,
            Err(error) => {
                self.caps.registered = Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            }
        }
    }

    /// What was found and chosen.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// For other threads to wake this ring's owner with.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.wake.clone()
    }

    /// The arena, to be lent to those who are given spans of it.
    #[must_use]
    pub fn arena(&self) -> Arc<Arena> {
        Arc::clone(&self.arena)
    }

    /// The registered buffer that `span` lies in.
    fn buffer_index(&self, span: Span) -> Option<u16> {
        let end = span.start + u64::from(span.len);
        let index = span.start / REGISTERED_BYTES_MAX;
        let within = end <= self.registered_bytes && (end - 1) / REGISTERED_BYTES_MAX == index;
        within.then_some(index as u16)
    }

    fn entry(&self, op: Op) -> squeue::Entry {
        let address = |span: Span| self.arena.address(span);
        match op {
            Op::Recv { socket, into, wait_all } => {
                let wait_all = wait_all && self.caps.wait_all;
                let flags = if wait_all { libc::MSG_WAITALL } else { 0 };
                opcode::Recv::new(Fd(socket.0), address(into), into.len).flags(flags).build()
            }
            Op::Send { socket, from } => opcode::Send::new(Fd(socket.0), address(from), from.len)
                .flags(libc::MSG_NOSIGNAL)
                .build(),
            Op::Write { file, from, offset } => match self.buffer_index(from) {
                Some(index) => opcode::WriteFixed::new(Fd(file.0), address(from), from.len, index)
                    .offset(offset)
                    .build(),
                None => {
                    opcode::Write::new(Fd(file.0), address(from), from.len).offset(offset).build()
                }
            },
            Op::Read { file, into, offset } => match self.buffer_index(into) {
                Some(index) => opcode::ReadFixed::new(Fd(file.0), address(into), into.len, index)
                    .offset(offset)
                    .build(),
                None => {
                    opcode::Read::new(Fd(file.0), address(into), into.len).offset(offset).build()
                }
            },
            Op::Close { socket } => opcode::Close::new(Fd(socket.0)).build(),
            Op::Poll { socket } => {
                opcode::PollAdd::new(Fd(socket.0), u32::from(libc::POLLIN as u16)).build()
            }
            Op::Cancel { target } => opcode::AsyncCancel::new(target.raw()).build(),
            // Done at once in `push`; never queued.
            Op::Shutdown { .. } => opcode::Nop::new().build(),
        }
    }

    fn enqueue(&mut self, entry: &squeue::Entry) -> Result<(), Errno> {
        loop {
            // SAFETY: the entry's memory lies in the arena or in boxes of this ring, which live
            // until its completion; the spans' owner leaves them alone until then.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.counters.enters += 1;
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    errno => return Err(errno.unwrap_or(Errno::IO)),
                },
            }
        }
    }

    fn shutdown(&self, socket: SocketId, both: bool) -> Result<u32, Errno> {
        // SAFETY: the machine shuts down only sockets that it has not closed.
        let socket = unsafe { BorrowedFd::borrow_raw(socket.0) };
        let how = if both { rustix::net::Shutdown::Both } else { rustix::net::Shutdown::Write };
        rustix::net::shutdown(socket, how).map(|()| 0)
    }

    fn arm_wake(&mut self) -> Result<(), Errno> {
        if !self.wake_armed {
            let count: *mut u64 = &raw mut *self.wake_count;
            let read = opcode::Read::new(Fd(self.wake.0.as_raw_fd()), count.cast(), 8);
            self.enqueue(&read.build().user_data(WAKE.raw()))?;
            self.wake_armed = true;
        }
        Ok(())
    }

    fn enter(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        let want = usize::from(self.done.is_empty());
        self.counters.enters += 1;
        let entered = match timeout {
            None => self.ring.submit_and_wait(want),
            Some(timeout) if self.caps.ext_arg => {
                let timespec = Timespec::from(timeout);
                let args = SubmitArgs::new().timespec(&timespec);
                self.ring.submitter().submit_with_args(want, &args)
            }
            Some(timeout) => {
                *self.timespec = Timespec::from(timeout);
                let timespec: *const Timespec = &raw const *self.timespec;
                // Ends by itself with the first other completion.
                let entry = opcode::Timeout::new(timespec).count(1).build();
                self.enqueue(&entry.user_data(TIMEOUT.raw()))?;
                self.ring.submit_and_wait(want)
            }
        };
        match entered.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
            Ok(_) | Err(Errno::INTR | Errno::TIME | Errno::BUSY | Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl Ring for Uring {
    fn push(&mut self, token: Token, op: Op) {
        if let Op::Shutdown { socket, both } = op {
            // Never blocks, and as an operation it is there only from 5.11 on.
            let result = self.shutdown(socket, both);
            self.done.push(Completion { token, result, more_waiting: false });
            return;
        }
        let entry = self.entry(op).user_data(token.raw());
        if let Err(errno) = self.enqueue(&entry) {
            self.done.push(Completion { token, result: Err(errno), more_waiting: false });
        }
    }

    fn reap(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), Errno> {
        let before = out.len();
        self.arm_wake()?;
        self.enter(timeout)?;
        out.append(&mut self.done);
        for entry in self.ring.completion() {
            let token = Token::from_raw(entry.user_data());
            if token == WAKE {
                self.wake_armed = false;
            } else if token != TIMEOUT {
                let result = match entry.result() {
                    count if count >= 0 => Ok(count as u32),
                    errno => Err(Errno::from_raw_os_error(-errno)),
                };
                let more_waiting = self.tells_more && cqueue::sock_nonempty(entry.flags());
                out.push(Completion { token, result, more_waiting });
            }
        }
        self.counters.completions += (out.len() - before) as u64;
        Ok(())
    }

    fn quick_ack(&mut self, socket: SocketId) {
        // SAFETY: the machine names only sockets that it has not closed.
        let socket = unsafe { BorrowedFd::borrow_raw(socket.0) };
        // Only speed is lost where it fails.
        let _ = set_tcp_quickack(socket, true);
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.arena.bytes(span)
    }

    fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        self.arena.bytes_mut(span)
    }

    fn copy(&mut self, from: Span, to: Span) {
        self.arena.bytes_mut(to).copy_from_slice(self.arena.bytes(from));
    }

    fn counters(&self) -> RingCounters {
        self.counters
    }
}
