//! [`ClientSession`]: what a client may send next, and what the next packet from the server means.
//!
//! Invariant: every packet built here is written in full, so none carries bytes of an earlier one
//! (a password above all), and replies are matched to requests in the order these were sent. The
//! machine does no I/O: the caller sends what it builds and hands back each whole reply.
//!
//! ```text
//!            connect            open                 data (up to a window unanswered)
//!   Start ------------> Idle ------------> File ---+
//!             ok         ^        ok        |  ^   |
//!                        +------ close -----+  +---+      refused CONNECT, breach, disconnect -> Ended
//! ```
//!
//! The server reads a byte stream and answers in order, so DATA (and the CLOSE behind it) may be
//! sent before earlier DATA is answered. The first refusal then belongs to the file: it is kept
//! until the file is closed or the next one opened.

use std::fmt;

use crate::layout::{Field, Layout};
use crate::packet::{
    FieldError, Info, Login, PACKET_BYTES, Packet, PacketMut, Unterminated, VERSION,
};
use crate::state::{Op, State};

/// The most DATA packets that may ever be outstanding. Bounds the machine's own memory.
pub const WINDOW_MAX: u32 = 256;

/// Largest errno that Linux hands out; an `error.rc` beyond is no errno.
const ERRNO_MAX: i32 = 4095;
/// EPROTO, for a refusal whose rc is no errno.
const EPROTO: i32 = 71;

/// How much DATA may be sent before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Packets; 1 is stop and wait. Clamped to 1..=[`WINDOW_MAX`].
    pub packets: u32,
    /// Payload bytes. A single DATA may exceed them, alone.
    pub bytes: u64,
}

impl Window {
    /// One DATA at a time, answered before the next.
    pub const STOP_AND_WAIT: Self = Self { packets: 1, bytes: u64::MAX };
}

/// The server's "no".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// The request it answers.
    pub op: Op,
    /// The reason as an errno, positive; EPROTO if the server sent something that is none.
    pub errno: i32,
    /// The server's sentence, made printable: control characters and broken UTF-8 are replaced.
    pub text: String,
}

/// A whole reply that was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request it answers.
    pub op: Op,
    /// For CLOSE: `Ok` only if every DATA of the file was taken as well.
    pub outcome: Result<(), Refused>,
}

/// A request that cannot be made now. Nothing has changed; nothing must be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// The state of a packet names no request.
    #[error("{0} is not a request")]
    NotARequest(State),
    /// CONNECT comes first.
    #[error("{0} before CONNECT was accepted")]
    NotConnected(Op),
    /// A session has one CONNECT.
    #[error("the session is connected already")]
    Connected,
    /// DATA and CLOSE need a file.
    #[error("{0} while no file is open")]
    NoFile(Op),
    /// One file at a time.
    #[error("another file is open, close it first")]
    FileOpen,
    /// The file was refused; [`ClientSession::failure`] has the reason.
    #[error("the server refused an earlier part of this file")]
    Failed,
    /// As much DATA as the window takes is unanswered.
    #[error("the window of unanswered DATA is full")]
    WindowFull,
    /// Another request must be answered first.
    #[error("{wanted} while the reply to {pending} is outstanding")]
    Unanswered {
        /// What was asked for.
        wanted: Op,
        /// What is outstanding.
        pending: Op,
    },
    /// There is no reply to wait for.
    #[error("no reply is outstanding")]
    NothingAsked,
    /// The session is over.
    #[error("the session has ended")]
    Ended,
    /// A string does not fit its field.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// A packet of the server that breaks the protocol. The session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// Nothing was asked.
    #[error("the server sent a packet ({0}) although no reply is outstanding")]
    Unasked(State),
    /// Not the answer to the oldest request.
    #[error("the server answered {0} with a packet that says {1}")]
    OutOfStep(Op, State),
    /// Not our version.
    #[error("the server speaks version {0} of the protocol, this client version {VERSION}")]
    Version(u8),
    /// A refusal that says rc 0.
    #[error("the server refused {0} without an error code")]
    NoCode(Op),
    /// A refusal whose text does not end.
    #[error("the server's refusal of {0} is malformed: {1}")]
    Text(Op, Unterminated),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Start,
    Idle,
    File,
    Ended,
}

/// Sizes of the unanswered DATA, oldest first.
struct Outstanding {
    sizes: [u64; WINDOW_MAX as usize],
    first: usize,
    count: u32,
    bytes: u64,
}

impl Outstanding {
    const fn new() -> Self {
        Self { sizes: [0; WINDOW_MAX as usize], first: 0, count: 0, bytes: 0 }
    }

    fn push(&mut self, size: u64) {
        assert!(self.count < WINDOW_MAX, "the window is never larger than the ring");
        let last = (self.first + self.count as usize) % self.sizes.len();
        self.sizes[last] = size;
        self.count += 1;
        self.bytes += size;
    }

    fn pop(&mut self) {
        assert!(self.count > 0, "only outstanding DATA is answered");
        self.bytes -= self.sizes[self.first];
        self.first = (self.first + 1) % self.sizes.len();
        self.count -= 1;
    }
}

impl fmt::Debug for Outstanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} DATA, {} bytes", self.count, self.bytes)
    }
}

/// The client's side of one connection. See the module for its states.
#[derive(Debug)]
pub struct ClientSession {
    layout: Layout,
    window: Window,
    stage: Stage,
    data: Outstanding,
    /// The one outstanding request behind all outstanding DATA; never DATA itself.
    last: Option<Op>,
    failure: Option<Refused>,
}

/// What stands.
impl ClientSession {
    /// A session that speaks this layout.
    #[must_use]
    pub fn new(layout: Layout, window: Window) -> Self {
        Self {
            layout,
            window: Window { packets: window.packets.clamp(1, WINDOW_MAX), ..window },
            stage: Stage::Start,
            data: Outstanding::new(),
            last: None,
            failure: None,
        }
    }

    /// The layout of every packet of this session.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// How much DATA may be unanswered.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }

    /// Whether CONNECT was accepted and the session is not over.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::File)
    }

    /// Whether a file is open (a failed one is until it is closed).
    #[must_use]
    pub fn is_file_open(&self) -> bool {
        self.stage == Stage::File
    }

    /// The request whose reply must come next, if any is outstanding.
    #[must_use]
    pub fn awaited(&self) -> Option<Op> {
        if self.data.count > 0 { Some(Op::Data) } else { self.last }
    }

    /// How many DATA are unanswered.
    #[must_use]
    pub const fn data_outstanding(&self) -> u32 {
        self.data.count
    }

    /// Whether the window takes a DATA of this payload. An empty window takes any.
    #[must_use]
    pub fn has_room(&self, payload_bytes: u64) -> bool {
        self.data.count == 0
            || (self.data.count < self.window.packets
                && self
                    .data
                    .bytes
                    .checked_add(payload_bytes)
                    .is_some_and(|bytes| bytes <= self.window.bytes))
    }

    /// Why the server refused (a part of) the open file.
    #[must_use]
    pub const fn failure(&self) -> Option<&Refused> {
        self.failure.as_ref()
    }
}

/// Requests: each fills `packet`, which is then to be sent.
impl ClientSession {
    /// CONNECT. Wipe the packet once it is sent: it holds the password.
    ///
    /// # Errors
    /// [`Barred`]: connected already, or a string too long.
    pub fn connect(
        &mut self,
        login: &Login<'_>,
        packet: &mut [u8; PACKET_BYTES],
    ) -> Result<(), Barred> {
        self.admits(Op::Connect, 0)?;
        self.blank(Op::Connect, packet).set_login(login)?;
        self.sent(Op::Connect, 0);
        Ok(())
    }

    /// OPEN: begins a file. Also legal on a failed file that was not closed.
    ///
    /// # Errors
    /// [`Barred`].
    pub fn open(&mut self, info: &Info<'_>, packet: &mut [u8; PACKET_BYTES]) -> Result<(), Barred> {
        self.admits(Op::Open, 0)?;
        self.blank(Op::Open, packet).set_info(info)?;
        self.sent(Op::Open, 0);
        Ok(())
    }

    /// DATA: the caller sends exactly `payload_bytes` behind the packet, come what may.
    ///
    /// # Errors
    /// [`Barred`]; [`Barred::Failed`] once a part of the file was refused.
    pub fn data(
        &mut self,
        payload_bytes: u64,
        packet: &mut [u8; PACKET_BYTES],
    ) -> Result<(), Barred> {
        self.admits(Op::Data, payload_bytes)?;
        self.blank(Op::Data, packet).set_data_size(payload_bytes);
        self.sent(Op::Data, payload_bytes);
        Ok(())
    }

    /// CLOSE: the file is complete. May follow unanswered DATA.
    ///
    /// # Errors
    /// [`Barred`].
    pub fn close(&mut self, packet: &mut [u8; PACKET_BYTES]) -> Result<(), Barred> {
        self.admits(Op::Close, 0)?;
        self.blank(Op::Close, packet);
        self.sent(Op::Close, 0);
        Ok(())
    }

    /// DISCONNECT: ends the session. It is not answered; an open file is given up.
    ///
    /// # Errors
    /// [`Barred`].
    pub fn disconnect(&mut self, packet: &mut [u8; PACKET_BYTES]) -> Result<(), Barred> {
        self.admits(Op::Disconnect, 0)?;
        self.blank(Op::Disconnect, packet);
        self.sent(Op::Disconnect, 0);
        Ok(())
    }

    /// A request that the caller has put together itself, version and state included; it is sent
    /// as it is.
    ///
    /// # Errors
    /// [`Barred`].
    pub fn request(&mut self, packet: &[u8; PACKET_BYTES]) -> Result<Op, Barred> {
        let packet = Packet::new(packet, self.layout);
        let state = packet.state();
        let op = Op::from_state(state).ok_or(Barred::NotARequest(state))?;
        let payload_bytes = if op == Op::Data { packet.data_size() } else { 0 };
        self.admits(op, payload_bytes)?;
        self.sent(op, payload_bytes);
        Ok(op)
    }

    fn blank<'p>(&self, op: Op, packet: &'p mut [u8; PACKET_BYTES]) -> PacketMut<'p> {
        let mut packet = PacketMut::new(packet, self.layout);
        packet.clear();
        packet.set_version(VERSION);
        packet.set_state(op.request());
        packet
    }

    /// Whether this request may be sent now.
    fn admits(&self, op: Op, payload_bytes: u64) -> Result<(), Barred> {
        match (self.stage, op) {
            (Stage::Ended, _) => return Err(Barred::Ended),
            (Stage::Start, Op::Connect) | (Stage::Idle | Stage::File, Op::Disconnect) => {}
            (Stage::Start, _) => return Err(Barred::NotConnected(op)),
            (_, Op::Connect) => return Err(Barred::Connected),
            (Stage::Idle, Op::Data | Op::Close) if self.last.is_none() => {
                return Err(Barred::NoFile(op));
            }
            (Stage::File, Op::Open) if self.failure.is_none() => return Err(Barred::FileOpen),
            (Stage::File, Op::Data) if self.failure.is_some() => return Err(Barred::Failed),
            (Stage::Idle, Op::Open | Op::Data | Op::Close) | (Stage::File, _) => {}
        }
        // DATA and CLOSE may follow unanswered DATA, and DISCONNECT anything; all else waits.
        let pending = match op {
            Op::Connect | Op::Open => self.awaited(),
            Op::Data | Op::Close => self.last,
            Op::Disconnect => None,
        };
        match pending {
            Some(pending) => Err(Barred::Unanswered { wanted: op, pending }),
            None if op == Op::Data && !self.has_room(payload_bytes) => Err(Barred::WindowFull),
            None => Ok(()),
        }
    }

    fn sent(&mut self, op: Op, payload_bytes: u64) {
        match op {
            Op::Data => self.data.push(payload_bytes),
            Op::Disconnect => self.end(),
            Op::Connect | Op::Close => self.last = Some(op),
            Op::Open => {
                self.failure = None;
                self.stage = Stage::Idle;
                self.last = Some(op);
            }
        }
    }
}

/// What has arrived.
impl ClientSession {
    /// One whole packet has come from the server.
    ///
    /// # Errors
    /// [`Breach`]: the session is over, close the connection.
    pub fn reply(&mut self, packet: &[u8; PACKET_BYTES]) -> Result<Reply, Breach> {
        let packet = Packet::new(packet, self.layout);
        let judged = match self.awaited() {
            Some(op) => judge(op, packet).map(|outcome| (op, outcome)),
            None => Err(Breach::Unasked(packet.state())),
        };
        match judged {
            Ok((op, outcome)) => Ok(Reply { op, outcome: self.settle(op, outcome) }),
            Err(breach) => {
                self.end();
                Err(breach)
            }
        }
    }

    /// The connection is gone: nothing more can be sent and no reply will come. A refusal that
    /// came before stays.
    pub fn lost(&mut self) {
        self.end();
    }

    fn settle(&mut self, op: Op, outcome: Result<(), Refused>) -> Result<(), Refused> {
        if op == Op::Data {
            self.data.pop();
            if let Err(refused) = &outcome {
                self.failure.get_or_insert_with(|| refused.clone());
            }
            return outcome;
        }
        self.last = None;
        match op {
            Op::Connect if outcome.is_err() => self.stage = Stage::Ended,
            Op::Connect => self.stage = Stage::Idle,
            Op::Open if outcome.is_ok() => self.stage = Stage::File,
            Op::Close => {
                self.stage = Stage::Idle;
                // The first refusal is the cause, and a CLOSE that is granted all the same does
                // not bring the lost part back.
                return self.failure.take().map_or(outcome, Err);
            }
            Op::Open | Op::Data | Op::Disconnect => {}
        }
        outcome
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.data = Outstanding::new();
        self.last = None;
    }
}

/// What a packet says in answer to `op`.
fn judge(op: Op, packet: Packet<'_>) -> Result<Result<(), Refused>, Breach> {
    let (state, rc) = (packet.state(), packet.rc());
    if packet.version() != VERSION {
        return Err(Breach::Version(packet.version()));
    }
    // Stricter than deployed clients, which take any state with one bit in common: a reply out of
    // step would acknowledge the wrong request.
    let refusal = state.intersects(State::REPLY) && state.intersects(State::ERROR);
    if state != op.reply() && !refusal {
        return Err(Breach::OutOfStep(op, state));
    }
    if rc == 0 {
        return if refusal { Err(Breach::NoCode(op)) } else { Ok(Ok(())) };
    }
    let text = packet.error_text().map_err(|unterminated| Breach::Text(op, unterminated))?;
    let errno = rc.checked_neg().filter(|errno| (1..=ERRNO_MAX).contains(errno));
    let mut text = printable(text);
    if text.is_empty() {
        text.push_str("the server gave no reason");
    }
    if errno.is_none() {
        text.push_str(&format!(" (error code {rc})"));
    }
    Ok(Err(Refused { op, errno: errno.unwrap_or(EPROTO), text }))
}

/// A server's text goes to terminals and logs, where control characters would be commands.
fn printable(text: &[u8]) -> String {
    debug_assert!(text.len() <= Field::ErrorText.len_max());
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
