//! What a ring knows of one connection.
//!
//! Invariant: `pending` counts the operations and jobs that will still come back under this
//! session's tokens; the slot is used again only when it is 0.

use std::sync::Arc;
use std::time::Duration;

use fsq_wire::{PACKET_BYTES, ServerSession};

use super::content::Content;
use crate::identmap::Identity;
use crate::limits::{BLOCK_BYTES, PACKET_SLOT_BYTES, SLOT_BYTES};
use crate::refusal::Refusal;
use crate::ring::{SocketId, Span};
use crate::services::{NewFile, StagedFile};

/// A deadline that never comes.
pub(super) const NEVER: Duration = Duration::MAX;

/// What the receiving side of a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// Nothing is armed: a request is being worked on.
    Idle,
    /// Receiving a packet.
    Packet,
    /// Receiving payload into the window part.
    Payload(Span),
    /// Receiving payload that nobody wants, or what a leaving client still sends.
    Scratch,
    /// Waiting for the socket to have something, without memory.
    Poll,
    /// In the pool's queue for a window.
    Queued,
    /// Waiting for one of its own windows to be written.
    Own,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Requests are taken.
    Open,
    /// The last reply is on its way, or waits to be read; whatever comes in is dropped.
    Leaving,
    /// The connection is over; waiting for what is pending.
    Closing,
}

/// Stages of an upload's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Content is coming in, or being written.
    Content,
    /// CLOSE has come: commit as soon as nothing is in flight.
    Sealing,
    /// The staging service commits it.
    Committing,
    /// Given up: abort as soon as nothing is in flight.
    Failing,
    /// The staging service forgets it.
    Aborting,
    /// It is forgotten, but a preallocation has not been answered yet.
    Aborted,
}

/// A file being received to staging.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) staged: StagedFile,
    pub(super) content: Content,
    pub(super) stage: Stage,
}

/// What happens to the payload of the open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// Stored through the session's [`Upload`].
    Staging,
    /// Dropped: destination null, or the file has failed.
    Nowhere,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) serial: u32,
    pub(super) socket: SocketId,
    pub(super) peer: String,
    pub(super) wire: ServerSession,
    /// Set when it was accepted only to be told that there are too many.
    pub(super) surplus: bool,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) memory: Slot,
    /// Bytes of the packet being received.
    pub(super) filled: u32,
    /// A whole packet is there but the reply before it is still being sent.
    pub(super) packet_held: bool,
    /// The socket had more when the packet was complete.
    pub(super) more_waiting: bool,
    /// What is left of the reply being sent.
    pub(super) sending: Option<Span>,
    pub(super) receive: Receive,
    /// When the receive in flight was armed.
    pub(super) armed_at: Duration,
    pub(super) cancelling: bool,
    pub(super) sink: Sink,
    pub(super) upload: Option<Upload>,
    /// Why the open file has failed; kept until its CLOSE or the next OPEN.
    pub(super) failure: Option<Refusal>,
    /// An OPEN that waits for the upload before it to be cleared away.
    pub(super) opening: Option<Box<NewFile>>,
    pub(super) fpath: String,
    pub(super) life: Life,
    pub(super) shut_down: bool,
    pub(super) closed: bool,
    pub(super) deadline: Duration,
    pub(super) pending: u32,
}

impl Session {
    pub(super) fn new(serial: u32, socket: SocketId, peer: String, memory: Slot) -> Self {
        Self {
            serial,
            socket,
            peer,
            wire: ServerSession::new(),
            surplus: false,
            identity: None,
            memory,
            filled: 0,
            packet_held: false,
            more_waiting: false,
            sending: None,
            receive: Receive::Idle,
            armed_at: Duration::ZERO,
            cancelling: false,
            sink: Sink::Nowhere,
            upload: None,
            failure: None,
            opening: None,
            fpath: String::new(),
            life: Life::Open,
            shut_down: false,
            closed: false,
            deadline: NEVER,
            pending: 0,
        }
    }

    /// Whether a receive or a poll is in flight at the kernel.
    pub(super) fn receiving(&self) -> bool {
        match self.receive {
            Receive::Packet | Receive::Payload(_) | Receive::Scratch | Receive::Poll => true,
            Receive::Idle | Receive::Queued | Receive::Own => false,
        }
    }

    /// The node's name, for the log.
    pub(super) fn node(&self) -> &str {
        self.identity.as_ref().map_or("-", |identity| &identity.node)
    }
}

/// A session's own piece of the arena: two packets that change places, and the carry block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    start: u64,
    second: bool,
}

impl Slot {
    /// The `index`-th slot of those that begin at `slots_start`.
    pub(super) fn new(slots_start: u64, index: u32) -> Self {
        Self { start: slots_start + u64::from(index) * u64::from(SLOT_BYTES), second: false }
    }

    /// The packet that is received into, or being answered.
    pub(super) fn packet(self) -> Span {
        let offset = if self.second { u64::from(PACKET_SLOT_BYTES) } else { 0 };
        Span { start: self.start + offset, len: PACKET_BYTES as u32 }
    }

    /// The reply is on its way from the current packet: receive the next one into the other.
    pub(super) fn swap(&mut self) {
        self.second = !self.second;
    }

    /// Where less than a block of content waits while the session holds no window.
    pub(super) fn carry(self) -> Span {
        Span { start: self.start + 2 * u64::from(PACKET_SLOT_BYTES), len: BLOCK_BYTES }
    }
}
