//! [`Link`]: the socket together with the session's machine.
//!
//! Invariant: whatever is sent is sent to its end or the link is closed, and while the socket
//! takes no more, replies are read. So a server that reads and answers strictly in order can never
//! wait for us to read while we wait for it: there is no deadlock, however small its buffers are.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use fsq_wire::client::{Breach, ClientSession, Refused, Reply};
use fsq_wire::{Op, PACKET_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg, sockopt};

use crate::error::Error;

/// Replies that one receive may take in. While DATA is sent ahead, many lie there, and a receive
/// each would cost more than all else that the client does.
const INBOX_PACKETS: usize = 16;

/// The most pieces of one send: header, gathered bytes, payload or a second header.
pub(crate) const PARTS_MAX: usize = 3;

pub(crate) struct Link {
    /// `None` once the link is closed.
    socket: Option<OwnedFd>,
    pub(crate) session: ClientSession,
    /// What has arrived: `inbox[taken..filled]` is to be looked at.
    inbox: Box<[u8]>,
    taken: usize,
    filled: usize,
    reply_timeout: Duration,
    /// Name and port, for errors.
    pub(crate) peer: String,
    /// Path of the file at hand, for errors.
    pub(crate) file: String,
    /// Why the link was closed.
    broken: Option<Error>,
}

/// What a look at the receive side gave.
enum Received {
    Reply(Reply),
    /// Nothing more for now.
    Dry,
}

impl Link {
    pub(crate) fn new(
        socket: OwnedFd,
        session: ClientSession,
        peer: String,
        reply_timeout: Duration,
    ) -> Self {
        Self {
            socket: Some(socket),
            session,
            inbox: vec![0; INBOX_PACKETS * PACKET_BYTES].into_boxed_slice(),
            taken: 0,
            filled: 0,
            reply_timeout,
            peer,
            file: String::new(),
            broken: None,
        }
    }

    pub(crate) fn socket(&self) -> Option<&OwnedFd> {
        self.socket.as_ref()
    }

    pub(crate) fn take_socket(&mut self) -> Option<OwnedFd> {
        self.socket.take()
    }

    /// # Errors
    /// Why the link was closed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Sends all parts of a request in as few calls as the socket takes, reading replies while it
    /// takes nothing.
    pub(crate) fn send(&mut self, op: Op, parts: [&[u8]; PARTS_MAX]) -> Result<(), Error> {
        let mut slices = parts.map(IoSlice::new);
        let mut rest = &mut slices[..];
        let mut deadline = self.deadline();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let Some(socket) = &self.socket else {
                return Err(self.lost(op, Errno::NOTCONN));
            };
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(socket, rest, &mut SendAncillaryBuffer::default(), flags) {
                Ok(sent) => {
                    IoSlice::advance_slices(&mut rest, sent);
                    deadline = self.deadline();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let ready = self.wait(op, PollFlags::OUT | PollFlags::IN, deadline)?;
                    if ready.intersects(!PollFlags::OUT) {
                        self.receive_all(op)?;
                    }
                }
                Err(errno) => return Err(self.lost(op, errno)),
            }
        }
        Ok(())
    }

    /// Waits for the oldest outstanding reply. A refusal is part of the reply, not an error.
    pub(crate) fn await_reply(&mut self) -> Result<Reply, Error> {
        let op = self.session.awaited().expect("callers wait only for what they asked");
        let deadline = self.deadline();
        loop {
            match self.receive(op)? {
                Received::Reply(reply) => return Ok(reply),
                Received::Dry => self.wait(op, PollFlags::IN, deadline)?,
            };
        }
    }

    /// The packet behind the last reply that was waited for.
    pub(crate) fn last_reply(&self) -> &[u8] {
        &self.inbox[self.taken.saturating_sub(PACKET_BYTES)..self.taken]
    }

    /// Takes in all outstanding replies; refusals stay in the session.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        while self.session.awaited().is_some() {
            self.await_reply()?;
        }
        Ok(())
    }

    /// Sends a packet that nothing depends on: what the socket does not take at once is not sent.
    pub(crate) fn send_last(&self, packet: &[u8; PACKET_BYTES]) {
        if let Some(socket) = &self.socket {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            // The socket is closed next, which tells the server the same.
            let _ = send(socket, packet, flags);
        }
    }

    /// The error for a refusal, with the place it concerns.
    pub(crate) fn refused(&self, reason: Refused) -> Error {
        let file = if reason.op == Op::Connect { String::new() } else { self.file.clone() };
        Error::Refused { peer: self.peer.clone(), file, reason }
    }

    /// Closes the link; every later call fails with this error.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.session.lost();
        self.socket = None;
        self.broken.get_or_insert(error).clone()
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.reply_timeout
    }

    fn wait(&mut self, op: Op, events: PollFlags, deadline: Instant) -> Result<PollFlags, Error> {
        let Some(socket) = &self.socket else {
            return Err(self.lost(op, Errno::NOTCONN));
        };
        match poll(socket, events, deadline) {
            Ok(ready) if ready.is_empty() => {
                let (peer, file) = (self.peer.clone(), self.file.clone());
                let waited = self.reply_timeout;
                // What the server did not take in time is worth nothing any more. Without the
                // reset the kernel would go on offering it, and the end of the connection, which
                // lies behind it, would not reach the server.
                let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
                Err(self.fail(Error::Silent { peer, file, op, waited }))
            }
            Ok(ready) => Ok(ready),
            Err(errno) => Err(self.lost(op, errno)),
        }
    }

    /// Takes in the replies that have arrived; refusals stay in the session.
    fn receive_all(&mut self, op: Op) -> Result<(), Error> {
        while let Received::Reply(_) = self.receive(op)? {}
        Ok(())
    }

    /// One step of receiving, without waiting.
    fn receive(&mut self, op: Op) -> Result<Received, Error> {
        match self.receive_raw() {
            Ok(Some(Ok(reply))) => Ok(Received::Reply(reply)),
            Ok(Some(Err(breach))) => {
                let peer = self.peer.clone();
                Err(self.fail(Error::Breach { peer, breach }))
            }
            Ok(None) => Ok(Received::Dry),
            Err(errno) => Err(self.lost(op, errno)),
        }
    }

    fn receive_raw(&mut self) -> Result<Option<Result<Reply, Breach>>, Errno> {
        let socket = self.socket.as_ref().ok_or(Errno::NOTCONN)?;
        loop {
            if let Some(packet) = self.inbox[self.taken..self.filled].first_chunk() {
                self.taken += PACKET_BYTES;
                return Ok(Some(self.session.reply(packet)));
            }
            // What is left is a part of a packet.
            self.inbox.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
            match recv(socket, &mut self.inbox[self.filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Errno::CONNRESET),
                Ok((count, _)) => self.filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The connection is gone. What the server said before it went explains it better than any
    /// errno, and Linux still hands out what had arrived before a reset.
    fn lost(&mut self, op: Op, errno: Errno) -> Error {
        let mut last_words = self.session.failure().cloned();
        while last_words.is_none() {
            match self.receive_raw() {
                Ok(Some(Ok(reply))) => last_words = reply.outcome.err(),
                _ => break,
            }
        }
        let error = match last_words {
            Some(reason) => self.refused(reason),
            None => Error::Lost { peer: self.peer.clone(), file: self.file.clone(), op, errno },
        };
        self.fail(error)
    }
}

/// Waits until one of `events` (or an error) is there; empty after the deadline.
pub(crate) fn poll(
    fd: &impl AsFd,
    events: PollFlags,
    deadline: Instant,
) -> Result<PollFlags, Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(fd, events)];
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) => return Ok(fds[0].revents()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
