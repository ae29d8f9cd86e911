//! The server's side of a session: which packet is legal when, and what its answer looks like.
//!
//! Invariant: every request but DISCONNECT is answered exactly once, in order, in the client's
//! layout, and a file that was refused once is never acknowledged. The ingest loop owns one
//! session per connection: it feeds whole packets in, does what the [`Request`] says, and sends
//! what [`ServerSession::reply`] has made of the packet.
//!
//! ```text
//! Greeting -CONNECT-> Connecting -> Ready -OPEN-> Opening -> Writing -CLOSE-> Closing -> Ready
//! Writing -DATA-> Payload -last byte-> Acknowledging -> Writing
//! ```

use std::fmt;

use crate::layout::{Layout, VERSION_OFFSET};
use crate::packet::{Info, Login, PACKET_BYTES, Packet, PacketMut, Unterminated, VERSION};
use crate::state::{Op, State};

// The wire carries Linux's numbers (asm-generic/errno.h), whatever this is built for.
const EIO: i32 = 5;
const EFBIG: i32 = 27;
const EPROTO: i32 = 71;
const ENOPROTOOPT: i32 = 92;

/// Longest payload of one DATA, bytes: what a file can hold at most (`off_t` is signed).
const PAYLOAD_BYTES_MAX: u64 = i64::MAX as u64;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the CONNECT.
    Greeting,
    /// The CONNECT is to be answered.
    Connecting,
    /// Signed on, no file is open.
    Ready,
    /// The OPEN is to be answered.
    Opening,
    /// A file is open.
    Writing,
    /// A DATA has announced bytes that have not all arrived.
    Payload {
        /// How many are to come, never 0.
        remaining: u64,
    },
    /// The payload is complete, the DATA is to be answered.
    Acknowledging,
    /// The CLOSE is to be answered.
    Closing,
    /// Over: signed off, refused or broken.
    Ended,
}

/// A clause that says why a request does not fit.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Greeting => f.write_str("nobody has signed on"),
            Self::Connecting => f.write_str("the CONNECT has not been answered"),
            Self::Ready => f.write_str("the session is signed on and no file is open"),
            Self::Opening => f.write_str("the OPEN has not been answered"),
            Self::Writing => f.write_str("a file is open"),
            Self::Payload { remaining } => {
                write!(f, "{remaining} bytes of the DATA before are missing")
            }
            Self::Acknowledging => f.write_str("the DATA has not been answered"),
            Self::Closing => f.write_str("the CLOSE has not been answered"),
            Self::Ended => f.write_str("the session is over"),
        }
    }
}

/// What a client wants, borrowed from its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'p> {
    /// Sign on. Refused, it ends the session.
    Connect(Login<'p>),
    /// Begin a file; whatever is left of a failed one before it is to be dropped.
    Open(Info<'p>),
    /// So many bytes of the file follow the packet.
    Data {
        /// Payload, bytes; may be 0.
        size: u64,
    },
    /// The file is complete.
    Close,
    /// Sign off, without an answer. An open file was never acknowledged and is to be dropped.
    Disconnect,
}

/// How a client broke the protocol. Ends the session: behind such a packet nobody knows where the
/// next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Another protocol version.
    #[error("this server speaks FSQ protocol version {VERSION}, the packet says version {found}")]
    Version {
        /// What the packet says.
        found: u8,
    },
    /// The first packet is no CONNECT in either layout.
    #[error("the first packet of a connection must be a CONNECT, this is none")]
    NotConnect,
    /// The state field names no request, or several.
    #[error("a request is CONNECT, OPEN, DATA, CLOSE or DISCONNECT, this packet is {state}")]
    NotARequest {
        /// What it reads.
        state: State,
    },
    /// A request that is not legal now.
    #[error("{op} is not legal now: {phase}")]
    OutOfPlace {
        /// The request.
        op: Op,
        /// Where the session stood.
        phase: Phase,
    },
    /// A string without end.
    #[error("broken {op} packet: {unterminated}")]
    Unterminated {
        /// The request.
        op: Op,
        /// Which string.
        unterminated: Unterminated,
    },
    /// A payload that no file can hold.
    #[error("a DATA of {size} bytes is longer than any file can be ({PAYLOAD_BYTES_MAX} bytes)")]
    Oversized {
        /// What the DATA announces, bytes.
        size: u64,
    },
}

impl Violation {
    /// The errno that `error.rc` carries (negated); positive, Linux's numbers.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Version { .. } => ENOPROTOOPT,
            Self::Oversized { .. } => EFBIG,
            Self::NotConnect
            | Self::NotARequest { .. }
            | Self::OutOfPlace { .. }
            | Self::Unterminated { .. } => EPROTO,
        }
    }
}

/// What to do once an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Receive the next packet.
    Receive,
    /// Close the connection.
    Close,
}

/// One session, from the first byte to the close of the connection.
#[derive(Debug)]
pub struct ServerSession {
    phase: Phase,
    /// `None` until the first packet has shown it.
    layout: Option<Layout>,
    /// A DATA of the open file was refused: so must be all that follows of it.
    has_failed: bool,
}

impl Default for ServerSession {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerSession {
    /// A session of which nothing has arrived.
    #[must_use]
    pub const fn new() -> Self {
        Self { phase: Phase::Greeting, layout: None, has_failed: false }
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The client's layout; `None` until its first packet has shown it.
    #[must_use]
    pub const fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// One whole packet has arrived. Expected in Greeting, Ready and Writing; in every other phase
    /// all packets are violations.
    ///
    /// # Errors
    /// A [`Violation`], to be answered with [`Self::reject`]; the session is in Ended.
    pub fn packet<'p>(&mut self, packet: &'p [u8; PACKET_BYTES]) -> Result<Request<'p>, Violation> {
        match self.admit(packet) {
            Ok((request, phase)) => {
                self.phase = phase;
                // Both leave the failed file behind.
                self.has_failed &= !matches!(phase, Phase::Opening | Phase::Ended);
                Ok(request)
            }
            Err(violation) => {
                self.phase = Phase::Ended;
                Err(violation)
            }
        }
    }

    /// The request in a packet and the phase that it leads to.
    fn admit<'p>(
        &mut self,
        bytes: &'p [u8; PACKET_BYTES],
    ) -> Result<(Request<'p>, Phase), Violation> {
        // The layout comes first: also a client of another version is answered in its own.
        self.layout = self.layout.or_else(|| Layout::detect(bytes));
        let found = bytes[VERSION_OFFSET];
        if found != VERSION {
            return Err(Violation::Version { found });
        }
        let layout = self.layout.ok_or(Violation::NotConnect)?;
        let packet = Packet::new(bytes, layout);
        let state = packet.state();
        let op = Op::from_state(state).ok_or(Violation::NotARequest { state })?;
        let size = packet.data_size();
        let phase = after_request(self.phase, self.has_failed, op, size)
            .ok_or(Violation::OutOfPlace { op, phase: self.phase })?;
        let no_end = |unterminated| Violation::Unterminated { op, unterminated };
        let request = match op {
            Op::Connect => Request::Connect(packet.login().map_err(no_end)?),
            Op::Open => Request::Open(packet.info().map_err(no_end)?),
            Op::Data if size > PAYLOAD_BYTES_MAX => return Err(Violation::Oversized { size }),
            Op::Data => Request::Data { size },
            Op::Close => Request::Close,
            Op::Disconnect => Request::Disconnect,
        };
        Ok((request, phase))
    }

    /// `bytes` of the payload have arrived, kept or dropped. With the last one the session goes to
    /// Acknowledging.
    ///
    /// # Panics
    /// If that is more than the DATA has announced: the caller has read into the next packet.
    pub fn payload(&mut self, bytes: u64) {
        let expected = match self.phase {
            Phase::Payload { remaining } => remaining,
            _ => 0,
        };
        assert!(bytes <= expected, "{bytes} bytes of payload where {expected} were expected");
        if expected > 0 {
            self.phase = awaiting(expected - bytes);
        }
    }

    /// Turns the request's packet in place into its reply, and moves on. `outcome` is the positive
    /// errno and the sentence of a refusal.
    ///
    /// The union is echoed: callers read it back. Only the password of a CONNECT is blanked.
    ///
    /// # Panics
    /// If no request waits for an answer, or if the errno is not positive.
    pub fn reply(
        &mut self,
        packet: &mut [u8; PACKET_BYTES],
        outcome: Result<(), (i32, &str)>,
    ) -> Next {
        let (op, on_success, on_refusal) = answers(self.phase)
            .unwrap_or_else(|| panic!("no request to answer in phase {:?}", self.phase));
        // An acknowledgement would lose the part that was refused. The caller knows the reason and
        // is to repeat it.
        let is_lost = self.has_failed && outcome.is_ok();
        debug_assert!(!is_lost, "a file that has failed is being acknowledged");
        let outcome =
            if is_lost { Err((EIO, "an earlier part of this file was refused")) } else { outcome };

        let mut packet = PacketMut::new(packet, self.reply_layout());
        if op == Op::Connect {
            packet.blank_password();
        }
        match outcome {
            Ok(()) => {
                write_header(&mut packet, op.reply(), 0, "");
                self.phase = on_success;
            }
            Err((errno, sentence)) => {
                assert!(errno > 0, "a refusal needs a positive errno, not {errno}");
                write_header(&mut packet, State::REFUSED, -errno, sentence);
                self.phase = on_refusal;
            }
        }
        self.has_failed = op == Op::Data && outcome.is_err();
        if self.phase == Phase::Ended { Next::Close } else { Next::Receive }
    }

    /// Turns a packet that [`Self::packet`] refused in place into the answer, and ends the session.
    /// A client whose layout is not known is answered in layout C.
    pub fn reject(&mut self, packet: &mut [u8; PACKET_BYTES], violation: &Violation) -> Next {
        let mut reply = PacketMut::new(packet, self.reply_layout());
        // What is not plainly about a file may hold a password, at a place that nobody can tell.
        let is_about_file = matches!(
            Op::from_state(reply.as_packet().state()),
            Some(Op::Open | Op::Data | Op::Close)
        );
        if self.layout.is_none() || !is_about_file {
            reply.clear();
        }
        write_header(&mut reply, State::REFUSED, -violation.errno(), violation);
        self.phase = Phase::Ended;
        Next::Close
    }

    /// Ends the session with a reason that answers no request: the server stops, or the peer does
    /// not go on. The packet is written afresh. `errno` is positive.
    pub fn dismiss(&mut self, packet: &mut [u8; PACKET_BYTES], errno: i32, sentence: &str) {
        assert!(errno > 0, "a refusal needs a positive errno, not {errno}");
        let mut reply = PacketMut::new(packet, self.reply_layout());
        reply.clear();
        write_header(&mut reply, State::REFUSED, -errno, sentence);
        self.phase = Phase::Ended;
    }

    fn reply_layout(&self) -> Layout {
        self.layout.unwrap_or(Layout::C)
    }
}

/// The first half of the transition table: where a request leads; `None` where it is not legal.
/// `size` counts for DATA only.
const fn after_request(phase: Phase, has_failed: bool, op: Op, size: u64) -> Option<Phase> {
    match (phase, op) {
        (Phase::Greeting, Op::Connect) => Some(Phase::Connecting),
        (Phase::Ready, Op::Open) => Some(Phase::Opening),
        (Phase::Writing, Op::Open) if has_failed => Some(Phase::Opening),
        (Phase::Writing, Op::Data) => Some(awaiting(size)),
        (Phase::Writing, Op::Close) => Some(Phase::Closing),
        (Phase::Ready | Phase::Writing, Op::Disconnect) => Some(Phase::Ended),
        _ => None,
    }
}

/// The second half: which request waits for its answer, and where "yes" and "no" lead.
const fn answers(phase: Phase) -> Option<(Op, Phase, Phase)> {
    match phase {
        Phase::Connecting => Some((Op::Connect, Phase::Ready, Phase::Ended)),
        Phase::Opening => Some((Op::Open, Phase::Writing, Phase::Ready)),
        Phase::Acknowledging => Some((Op::Data, Phase::Writing, Phase::Writing)),
        Phase::Closing => Some((Op::Close, Phase::Ready, Phase::Ready)),
        _ => None,
    }
}

/// The phase in which so many bytes of payload are to come.
const fn awaiting(remaining: u64) -> Phase {
    if remaining == 0 { Phase::Acknowledging } else { Phase::Payload { remaining } }
}

fn write_header(packet: &mut PacketMut<'_>, state: State, rc: i32, sentence: impl fmt::Display) {
    packet.set_version(VERSION);
    packet.set_rc(rc);
    packet.set_error_sentence(sentence);
    packet.set_state(state);
}

#[cfg(test)]
mod tests;
