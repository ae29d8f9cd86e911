//! [`Client`]: one session with a server.
//!
//! Invariant: after an `Ok` of [`Client::close`] the server has acknowledged every byte that
//! [`Client::write`] was given since [`Client::open`]; nothing earlier promises that.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fsq_wire::client::{Barred, ClientSession};
use fsq_wire::{Field, Info, Login, Op, PACKET_BYTES, StorageDest};

use crate::connect::{connect, peer_name};
use crate::error::Error;
use crate::link::{Link, PARTS_MAX};
use crate::options::Options;

/// Smaller writes are copied together; a larger one goes out straight from the caller's memory.
const GATHERED_WRITE_BYTES_MAX: usize = 64 << 10;
/// How much is copied together before it is sent. Bounds our memory.
const GATHER_BYTES: usize = 256 << 10;

/// A connection to a server on which files are sent one after the other.
///
/// Dropping it closes the socket without signing off; the server then discards an open file.
pub struct Client {
    link: Link,
    header: Box<[u8; PACKET_BYTES]>,
    trailer: Box<[u8; PACKET_BYTES]>,
    gathered: Vec<u8>,
}

impl Client {
    /// Connects and signs on.
    ///
    /// # Errors
    /// [`Error::Resolve`], [`Error::Connect`], [`Error::Refused`] (node or password), or any
    /// failure of the connection.
    pub fn connect(options: &Options) -> Result<Self, Error> {
        let mut header = Box::new([0; PACKET_BYTES]);
        let mut session = ClientSession::new(options.layout, options.window);
        // The field only informs the server; a long DNS name need not fit it.
        let host = options.host.as_bytes();
        let login = Login {
            node: &options.node,
            password: options.password.reveal(),
            hostname: &host[..host.len().min(Field::Hostname.len_max())],
            port: i32::from(options.port),
        };
        session.connect(&login, &mut header)?;
        let socket = connect(&options.host, options.port, options.connect_timeout)?;
        let peer = peer_name(&options.host, options.port);
        let mut link = Link::new(socket, session, peer, options.reply_timeout);
        let sent = link.send(Op::Connect, [&header[..], &[], &[]]);
        header.fill(0);
        let reply = sent.and_then(|()| link.await_reply());
        let outcome = reply.and_then(|reply| reply.outcome.map_err(|reason| link.refused(reason)));
        outcome.map_err(|error| without_password(error, login.password))?;
        Ok(Self { link, header, trailer: Box::new([0; PACKET_BYTES]), gathered: Vec::new() })
    }

    /// Begins a file: `fpath` on the file system `fs`, with a free text for the archive.
    ///
    /// # Errors
    /// [`Error::Refused`]: the session goes on if [`Self::is_connected`]. [`Error::Barred`]: a
    /// name too long, or another file is open. Otherwise the connection is gone.
    pub fn open(
        &mut self,
        fs: impl AsRef<[u8]>,
        fpath: impl AsRef<[u8]>,
        desc: impl AsRef<[u8]>,
        dest: StorageDest,
    ) -> Result<(), Error> {
        let (fs, fpath, desc) = (fs.as_ref(), fpath.as_ref(), desc.as_ref());
        self.link.check()?;
        if self.link.session.failure().is_some() {
            // A failed file may be left behind, but its replies come before ours.
            self.link.drain()?;
        }
        let info = Info { fs, fpath, desc, storage_dest: i32::from(dest) };
        self.link.session.open(&info, &mut self.header)?;
        self.gathered.clear();
        self.link.file = printable(fpath);
        self.link.send(Op::Open, [&self.header[..], &[], &[]])?;
        let reply = self.link.await_reply()?;
        reply.outcome.map_err(|reason| self.link.refused(reason))
    }

    /// Sends the next bytes of the file. Small pieces are gathered, and up to a window of DATA
    /// stays unanswered; a refusal shows at a later write or at [`Self::close`].
    ///
    /// # Errors
    /// [`Error::Refused`]: the file is lost, now and at every later write until it is closed.
    /// [`Error::Barred`]: no file is open. Otherwise the connection is gone.
    pub fn write(&mut self, payload: &[u8]) -> Result<(), Error> {
        self.link.check()?;
        self.check_file()?;
        if self.is_stop_and_wait() || payload.len() >= GATHERED_WRITE_BYTES_MAX {
            return if payload.is_empty() { Ok(()) } else { self.send_data(payload) };
        }
        if self.gathered.len() + payload.len() > GATHER_BYTES {
            self.send_data(&[])?;
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(GATHER_BYTES);
        }
        self.gathered.extend_from_slice(payload);
        Ok(())
    }

    /// Completes the file and waits for the server to acknowledge all of it.
    ///
    /// # Errors
    /// [`Error::Refused`]: the file is not safe on the server; the session goes on if
    /// [`Self::is_connected`]. [`Error::Barred`]: no file is open. Otherwise the connection is
    /// gone, and the file with it.
    pub fn close(&mut self) -> Result<(), Error> {
        self.link.check()?;
        if !self.link.session.is_file_open() {
            return Err(Barred::NoFile(Op::Close).into());
        }
        if !self.gathered.is_empty() {
            self.make_room(self.gathered.len())?;
        }
        let Self { link, header, trailer, gathered } = self;
        let mut parts: [&[u8]; PARTS_MAX] = [&[]; PARTS_MAX];
        // A failed file is closed without its rest.
        if !gathered.is_empty() && link.session.failure().is_none() {
            link.session.data(gathered.len() as u64, header)?;
            (parts[0], parts[1]) = (&header[..], &gathered[..]);
        }
        link.session.close(trailer)?;
        parts[2] = &trailer[..];
        link.send(Op::Close, parts)?;
        gathered.clear();
        loop {
            let reply = link.await_reply()?;
            if reply.op == Op::Close {
                return reply.outcome.map_err(|reason| link.refused(reason));
            }
        }
    }

    /// Sends a request that the caller has put together, after all that is left of earlier writes.
    /// The payload of a DATA is then the caller's to send over [`Self::socket`], and
    /// [`Self::receive_packet`] takes the reply.
    ///
    /// # Errors
    /// [`Error::Refused`]: an earlier part of the file was refused. [`Error::Barred`]: not a request
    /// that is legal now. Otherwise the connection is gone.
    pub fn send_packet(&mut self, packet: &[u8; PACKET_BYTES]) -> Result<(), Error> {
        self.link.check()?;
        if !self.gathered.is_empty() && self.link.session.failure().is_none() {
            self.send_data(&[])?;
        }
        self.link.drain()?;
        let op = self.link.session.request(packet)?;
        self.link.file.clear();
        self.link.send(op, [packet, &[], &[]])
    }

    /// Waits for the oldest outstanding reply and copies it into `packet`.
    ///
    /// # Errors
    /// [`Error::Barred`] if none is outstanding. Otherwise the connection is gone.
    pub fn receive_packet(&mut self, packet: &mut [u8; PACKET_BYTES]) -> Result<(), Error> {
        self.link.check()?;
        if self.link.session.awaited().is_none() {
            return Err(Barred::NothingAsked.into());
        }
        self.link.await_reply()?;
        packet.copy_from_slice(self.link.last_reply());
        Ok(())
    }

    /// Signs off and closes the socket. A file that is still open is discarded by the server.
    pub fn disconnect(mut self) {
        if self.link.session.disconnect(&mut self.header).is_ok() {
            self.link.send_last(&self.header);
        }
    }

    /// Whether the session can go on: false after any failure of the connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.session.is_connected()
    }

    /// Whether a file is open.
    #[must_use]
    pub fn is_file_open(&self) -> bool {
        self.link.session.is_file_open()
    }

    /// The socket, for as long as it is open. Reading from it or writing to it breaks the session.
    #[must_use]
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link.socket().map(AsFd::as_fd)
    }

    /// Ends the session here without touching the socket, which is the caller's from now on.
    #[must_use]
    pub fn into_socket(mut self) -> Option<OwnedFd> {
        self.link.take_socket()
    }

    fn is_stop_and_wait(&self) -> bool {
        self.link.session.window().packets == 1
    }

    fn check_file(&self) -> Result<(), Error> {
        match self.link.session.failure() {
            Some(reason) => Err(self.link.refused(reason.clone())),
            None if self.is_file_open() => Ok(()),
            None => Err(Barred::NoFile(Op::Data).into()),
        }
    }

    /// Sends what was gathered and `payload` as one DATA.
    fn send_data(&mut self, payload: &[u8]) -> Result<(), Error> {
        let bytes = self.gathered.len() + payload.len();
        self.make_room(bytes)?;
        self.check_file()?;
        let Self { link, header, gathered, .. } = self;
        link.session.data(bytes as u64, header)?;
        link.send(Op::Data, [&header[..], gathered, payload])?;
        gathered.clear();
        if self.is_stop_and_wait() {
            self.link.drain()?;
        }
        self.check_file()
    }

    /// Takes replies until the window has room or the file has failed.
    fn make_room(&mut self, payload_bytes: usize) -> Result<(), Error> {
        let link = &mut self.link;
        while !link.session.has_room(payload_bytes as u64) && link.session.failure().is_none() {
            link.await_reply()?;
        }
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.link.peer)
            .field("file", &self.link.file)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// Old servers repeat the password in the text of a refused CONNECT.
fn without_password(error: Error, password: &[u8]) -> Error {
    match error {
        Error::Refused { peer, file, mut reason } if !password.is_empty() => {
            let password = String::from_utf8_lossy(password);
            reason.text = reason.text.replace(&*password, "***");
            Error::Refused { peer, file, reason }
        }
        other => other,
    }
}

/// A path for messages, in which a control character must not act.
fn printable(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
