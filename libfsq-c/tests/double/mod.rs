//! A server for tests: reads and answers strictly in order, one packet at a time, and misbehaves
//! where its script says so. It keeps what it received in memory.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use fsq_wire::server::{Next, Request, ServerSession};
use fsq_wire::{Op, PACKET_BYTES};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

/// What the double does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Grant,
    /// Takes the payload, if any, and answers with this errno and sentence.
    Refuse(i32, &'static str),
    /// Closes the connection instead of answering.
    Vanish,
    /// Reads so many bytes of the payload, then closes the connection.
    VanishInPayload(u64),
    /// Refuses and closes the connection, as old servers do after a failed OPEN.
    RefuseAndVanish(i32, &'static str),
    /// Neither reads nor writes until the client is gone.
    Silence,
    /// Answers with nonsense.
    Babble,
}

/// From the request, and how many of its kind came before it in the session, to what is done.
pub type Script = Box<dyn Fn(Op, usize) -> Act + Send + Sync>;

/// A file as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    pub fs: String,
    pub path: String,
    pub desc: String,
    pub dest: i32,
    pub bytes: Vec<u8>,
    /// Sizes of its DATA.
    pub sizes: Vec<u64>,
    pub is_acknowledged: bool,
}

/// Who signed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOn {
    pub node: String,
    pub password: String,
    pub hostname: String,
}

#[derive(Debug, Default)]
struct Seen {
    logins: Vec<SignedOn>,
    files: Vec<File>,
    sessions_ended: usize,
    is_stopped: bool,
}

/// Socket buffers of the double, bytes; `None` is the system's default. The kernel doubles them
/// and has a minimum of a few KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffers {
    pub receive: Option<usize>,
    pub send: Option<usize>,
}

pub struct Double {
    pub port: u16,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    acceptor: Option<JoinHandle<()>>,
}

impl Double {
    /// One that grants everything.
    pub fn good() -> Self {
        Self::start(Buffers::default(), Box::new(|_, _| Act::Grant))
    }

    pub fn scripted(script: impl Fn(Op, usize) -> Act + Send + Sync + 'static) -> Self {
        Self::start(Buffers::default(), Box::new(script))
    }

    pub fn start(buffers: Buffers, script: Script) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Before the connection exists: it inherits them, and the window scale follows.
        if let Some(bytes) = buffers.receive {
            sockopt::set_socket_recv_buffer_size(&listener, bytes).unwrap();
        }
        if let Some(bytes) = buffers.send {
            sockopt::set_socket_send_buffer_size(&listener, bytes).unwrap();
        }
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let (script, shared) = (Arc::new(script), Arc::clone(&seen));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.0.lock().unwrap().is_stopped {
                    return;
                }
                let (stream, script, seen) =
                    (stream.unwrap(), Arc::clone(&script), Arc::clone(&shared));
                std::thread::spawn(move || {
                    // The end of a connection, orderly or not, is the end of the session.
                    let _ = Session::new(stream, &script, &seen.0).run();
                    seen.0.lock().unwrap().sessions_ended += 1;
                    seen.1.notify_all();
                });
            }
        });
        Self { port, seen, acceptor: Some(acceptor) }
    }

    pub fn files(&self) -> Vec<File> {
        self.seen.0.lock().unwrap().files.clone()
    }

    pub fn logins(&self) -> Vec<SignedOn> {
        self.seen.0.lock().unwrap().logins.clone()
    }

    /// Blocks until so many sessions are over.
    pub fn wait_ended(&self, sessions: usize) {
        let seen = self.seen.0.lock().unwrap();
        drop(self.seen.1.wait_while(seen, |seen| seen.sessions_ended < sessions).unwrap());
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.seen.0.lock().unwrap().is_stopped = true;
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        self.acceptor.take().unwrap().join().unwrap();
    }
}

struct Session<'a> {
    stream: TcpStream,
    script: &'a Script,
    seen: &'a Mutex<Seen>,
    machine: ServerSession,
    counts: [usize; 5],
    /// Index of the open file in `seen`.
    file: Option<usize>,
    failure: Option<(i32, &'static str)>,
}

impl<'a> Session<'a> {
    fn new(stream: TcpStream, script: &'a Script, seen: &'a Mutex<Seen>) -> Self {
        stream.set_nodelay(true).unwrap();
        let machine = ServerSession::new();
        Self { stream, script, seen, machine, counts: [0; 5], file: None, failure: None }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut packet = [0; PACKET_BYTES];
        loop {
            self.stream.read_exact(&mut packet)?;
            let request = match self.machine.packet(&packet) {
                Ok(request) => request,
                Err(violation) => {
                    let _ = self.machine.reject(&mut packet, &violation);
                    return self.stream.write_all(&packet);
                }
            };
            let (op, size) = match request {
                Request::Connect(login) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    self.seen.lock().unwrap().logins.push(SignedOn {
                        node: text(login.node),
                        password: text(login.password),
                        hostname: text(login.hostname),
                    });
                    (Op::Connect, 0)
                }
                Request::Open(info) => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    self.failure = None;
                    let mut seen = self.seen.lock().unwrap();
                    self.file = Some(seen.files.len());
                    seen.files.push(File {
                        fs: text(info.fs),
                        path: text(info.fpath),
                        desc: text(info.desc),
                        dest: info.storage_dest,
                        ..File::default()
                    });
                    (Op::Open, 0)
                }
                Request::Data { size } => (Op::Data, size),
                Request::Close => (Op::Close, 0),
                Request::Disconnect => return Ok(()),
            };
            if self.answer(op, size, &mut packet)? == Next::Close {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, op: Op, size: u64, packet: &mut [u8; PACKET_BYTES]) -> io::Result<Next> {
        let place = Op::ALL.iter().position(|&other| other == op).unwrap();
        let act = (self.script)(op, self.counts[place]);
        self.counts[place] += 1;
        match act {
            Act::Vanish => return Ok(Next::Close),
            Act::VanishInPayload(bytes) => {
                self.receive(bytes)?;
                return Ok(Next::Close);
            }
            Act::Silence => {
                poll(&mut [PollFd::new(&self.stream, PollFlags::RDHUP)], None)?;
                return Ok(Next::Close);
            }
            Act::Babble => {
                self.stream.write_all(&[0x55; PACKET_BYTES])?;
                return Ok(Next::Close);
            }
            Act::Grant | Act::Refuse(..) | Act::RefuseAndVanish(..) => {}
        }
        if op == Op::Data {
            self.receive(size)?;
            self.file().sizes.push(size);
        }
        if let Act::Refuse(errno, text) | Act::RefuseAndVanish(errno, text) = act {
            self.failure.get_or_insert((errno, text));
        }
        if op == Op::Close && self.failure.is_none() {
            self.file().is_acknowledged = true;
        }
        let outcome = self.failure.map_or(Ok(()), Err);
        let next = self.machine.reply(packet, outcome);
        self.stream.write_all(packet)?;
        if matches!(op, Op::Close | Op::Open | Op::Connect) {
            self.failure = None;
        }
        Ok(if matches!(act, Act::RefuseAndVanish(..)) { Next::Close } else { next })
    }

    fn receive(&mut self, size: u64) -> io::Result<()> {
        let mut part = vec![0; 64 << 10];
        let mut rest = size;
        while rest > 0 {
            let want = part.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let count = self.stream.read(&mut part[..want])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.machine.payload(count as u64);
            self.file().bytes.extend_from_slice(&part[..count]);
            rest -= count as u64;
        }
        Ok(())
    }

    fn file(&mut self) -> impl std::ops::DerefMut<Target = File> + '_ {
        let index = self.file.expect("the machine lets DATA and CLOSE through for a file only");
        FileGuard { seen: self.seen.lock().unwrap(), index }
    }
}

struct FileGuard<'a> {
    seen: std::sync::MutexGuard<'a, Seen>,
    index: usize,
}

impl std::ops::Deref for FileGuard<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        &self.seen.files[self.index]
    }
}

impl std::ops::DerefMut for FileGuard<'_> {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.seen.files[self.index]
    }
}

/// Bytes that look like nothing in particular, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
