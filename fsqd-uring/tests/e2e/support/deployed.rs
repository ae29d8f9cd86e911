//! [`Deployed`]: a client as they are in the field, in both layouts.
//!
//! Header and payload in two writes, no TCP_NODELAY, stop and wait, and every byte that no field
//! names is garbage. The bytes are under the test's control: anything wrong can be sent as well.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use fsq_wire::{
    Field, Info, Layout, Login, Op, PACKET_BYTES, Packet, PacketMut, State, StorageDest,
};

use super::PATIENCE;
use super::content::Random;
use super::site::{FS, NODE, PASSWORD};

pub(crate) type Bytes = [u8; PACKET_BYTES];

/// Where the union begins, by the layouts' table of the FSQ protocol.
pub(crate) fn union_offset(layout: Layout) -> usize {
    match layout {
        Layout::B => 1040,
        Layout::C => 1037,
    }
}

/// An answer of the server.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) bytes: Bytes,
    layout: Layout,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?}", self.state(), self.rc(), self.text())
    }
}

impl Reply {
    fn packet(&self) -> Packet<'_> {
        Packet::new(&self.bytes, self.layout)
    }

    pub(crate) fn state(&self) -> State {
        self.packet().state()
    }

    pub(crate) fn rc(&self) -> i32 {
        self.packet().rc()
    }

    pub(crate) fn text(&self) -> String {
        let text = self.packet().error_text().expect("the server terminates its strings");
        String::from_utf8(text.to_vec()).expect("the server speaks UTF-8")
    }

    /// The union as it came back.
    pub(crate) fn union(&self) -> &[u8] {
        &self.bytes[union_offset(self.layout)..][..5384]
    }

    /// Whether it says yes to `op`.
    pub(crate) fn accepts(&self, op: Op) -> bool {
        self.state() == op.reply() && self.rc() == 0
    }

    /// Asserts a yes to `op`.
    pub(crate) fn accepted(&self, op: Op) {
        assert!(self.accepts(op), "{op} was answered {self:?}");
    }

    /// Asserts a no with this errno and a sentence that contains all of `words`.
    pub(crate) fn refused(&self, errno: i32, words: &[&str]) {
        let text = self.text();
        assert_eq!((self.state(), self.rc()), (State::REFUSED, -errno), "{text}");
        for word in words {
            assert!(text.contains(word), "'{word}' is not in: {text}");
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Deployed {
    pub(crate) stream: TcpStream,
    layout: Layout,
    garbage: Random,
}

impl Deployed {
    pub(crate) fn connect(port: u16) -> Self {
        Self::connect_as(port, Layout::C)
    }

    pub(crate) fn connect_as(port: u16, layout: Layout) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        Self { stream, layout, garbage: Random::new(u64::from(port)) }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Connected and signed on as [`NODE`].
    pub(crate) fn signed_on(port: u16) -> Self {
        let mut client = Self::connect(port);
        client.sign_on(NODE, PASSWORD).accepted(Op::Connect);
        client
    }

    /// A packet of which only version, state and what `fill` sets are not garbage.
    pub(crate) fn packet(&mut self, state: State, fill: impl FnOnce(&mut PacketMut<'_>)) -> Bytes {
        let mut bytes = [0; PACKET_BYTES];
        self.garbage.fill(&mut bytes);
        let mut packet = PacketMut::new(&mut bytes, self.layout);
        packet.set_version(fsq_wire::VERSION);
        packet.set_state(state);
        fill(&mut packet);
        bytes
    }

    pub(crate) fn login_packet(&mut self, node: &str, password: &str) -> Bytes {
        let login = Login {
            node: node.as_bytes(),
            password: password.as_bytes(),
            hostname: b"localhost",
            port: 7625,
        };
        self.packet(State::CONNECT, |packet| packet.set_login(&login).expect("fits"))
    }

    pub(crate) fn open_packet(&mut self, fs: &[u8], fpath: &[u8], storage_dest: i32) -> Bytes {
        let info = Info { fs, fpath, desc: b"", storage_dest };
        self.packet(State::OPEN, |packet| packet.set_info(&info).expect("fits"))
    }

    pub(crate) fn data_packet(&mut self, size: u64) -> Bytes {
        self.packet(State::DATA, |packet| packet.set_data_size(size))
    }

    /// One `write` call.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the daemon takes what is sent");
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub(crate) fn reply(&mut self) -> Reply {
        self.try_reply().expect("the daemon answers")
    }

    pub(crate) fn try_reply(&mut self) -> io::Result<Reply> {
        let mut bytes = [0; PACKET_BYTES];
        self.stream.read_exact(&mut bytes)?;
        Ok(Reply { bytes, layout: self.layout })
    }

    /// Sends a packet and waits for its answer.
    pub(crate) fn ask(&mut self, packet: &Bytes) -> Reply {
        self.send(packet);
        self.reply()
    }

    pub(crate) fn sign_on(&mut self, node: &str, password: &str) -> Reply {
        let packet = self.login_packet(node, password);
        self.ask(&packet)
    }

    pub(crate) fn open(&mut self, fpath: &str, dest: StorageDest) -> Reply {
        let packet = self.open_packet(FS.as_bytes(), fpath.as_bytes(), dest.into());
        self.ask(&packet)
    }

    pub(crate) fn data(&mut self, payload: &[u8]) -> Reply {
        self.try_data(payload).expect("the daemon answers DATA")
    }

    pub(crate) fn try_data(&mut self, payload: &[u8]) -> io::Result<Reply> {
        let packet = self.data_packet(payload.len() as u64);
        self.try_send(&packet)?;
        self.try_send(payload)?;
        self.try_reply()
    }

    pub(crate) fn close(&mut self) -> Reply {
        self.try_close().expect("the daemon answers CLOSE")
    }

    pub(crate) fn try_close(&mut self) -> io::Result<Reply> {
        let packet = self.packet(State::CLOSE, |_| {});
        self.try_send(&packet)?;
        self.try_reply()
    }

    /// Signs off and waits until the server has closed.
    pub(crate) fn disconnect(mut self) {
        let packet = self.packet(State::DISCONNECT, |_| {});
        self.send(&packet);
        assert!(self.is_closed(), "the server closes after DISCONNECT");
    }

    /// A whole file in pieces of `piece_bytes`; every step must succeed.
    pub(crate) fn upload(
        &mut self,
        fpath: &str,
        dest: StorageDest,
        content: &[u8],
        piece_bytes: usize,
    ) {
        self.open(fpath, dest).accepted(Op::Open);
        for piece in content.chunks(piece_bytes) {
            self.data(piece).accepted(Op::Data);
        }
        self.close().accepted(Op::Close);
    }

    /// Waits for the end of the connection; false if something else comes.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Ends the connection with a reset instead of an end of file.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO))
            .expect("set");
    }
}

/// Removes the end of a string field of a packet.
pub(crate) fn unterminate(packet: &mut Bytes, layout: Layout, field: Field) {
    let (offset, len) = match field {
        Field::ErrorText => panic!("not part of a request"),
        Field::Node => (0, 65),
        Field::Password => (65, 65),
        Field::Hostname => (130, 65),
        Field::Fs => (0, 1025),
        Field::Fpath => (1025, 4097),
        Field::Desc => (5122, 256),
    };
    packet[union_offset(layout) + offset..][..len].fill(b'x');
}
