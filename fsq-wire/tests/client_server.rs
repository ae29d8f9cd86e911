//! The two machines against each other over a stream that delivers late and in pieces: whatever
//! is refused and however much is sent ahead, they agree on which files were acknowledged.

use std::collections::VecDeque;

use fsq_wire::client::{Reply, Window};
use fsq_wire::server::{Next, Phase, Request};
use fsq_wire::{ClientSession, Info, Layout, Login, Op, PACKET_BYTES, ServerSession};
use proptest::prelude::*;

const REASON: (i32, &str) = (28, "staging is full");

/// What is asked of the client for one file: the sizes of its DATA.
type File = Vec<u16>;

/// The server with the bytes on their way to it and from it.
struct Server {
    machine: ServerSession,
    inbox: VecDeque<u8>,
    outbox: VecDeque<u8>,
    packet: [u8; PACKET_BYTES],
    /// Whether to refuse the nth request (CONNECT is never asked).
    refusals: Vec<bool>,
    answered: usize,
    has_failed: bool,
    /// One for each CLOSE.
    acknowledged: Vec<bool>,
    is_closed: bool,
}

impl Server {
    /// Works on what has arrived, strictly in order.
    fn run(&mut self) {
        loop {
            if let Phase::Payload { remaining } = self.machine.phase() {
                let count = self.inbox.len().min(usize::try_from(remaining).unwrap());
                if count == 0 {
                    return;
                }
                self.inbox.drain(..count);
                self.machine.payload(count as u64);
            } else if self.inbox.len() >= PACKET_BYTES {
                for (to, from) in self.packet.iter_mut().zip(self.inbox.drain(..PACKET_BYTES)) {
                    *to = from;
                }
                let request =
                    self.machine.packet(&self.packet).expect("the client is well-behaved");
                if request == Request::Disconnect {
                    self.is_closed = true;
                    return;
                }
            } else {
                return;
            }
            self.answer();
        }
    }

    fn answer(&mut self) {
        let op = match self.machine.phase() {
            Phase::Connecting => Op::Connect,
            Phase::Opening => Op::Open,
            Phase::Acknowledging => Op::Data,
            Phase::Closing => Op::Close,
            _ => return,
        };
        let refuses = op != Op::Connect && {
            self.answered += 1;
            self.refusals.get(self.answered).copied().unwrap_or(false)
        };
        self.has_failed = refuses || (self.has_failed && op != Op::Open);
        let outcome = if self.has_failed { Err(REASON) } else { Ok(()) };
        if op == Op::Close {
            self.acknowledged.push(outcome.is_ok());
        }
        if matches!(op, Op::Open | Op::Close) {
            self.has_failed = false;
        }
        assert_eq!(self.machine.reply(&mut self.packet, outcome), Next::Receive);
        self.outbox.extend(self.packet);
    }
}

/// The client with a link of which `pieces` says how many bytes pass at a time.
struct Pair {
    client: ClientSession,
    server: Server,
    packet: [u8; PACKET_BYTES],
    on_the_way: VecDeque<u8>,
    pieces: Vec<usize>,
    step: usize,
}

impl Pair {
    fn send(&mut self, payload_bytes: usize) {
        self.on_the_way.extend(self.packet);
        self.on_the_way.extend(std::iter::repeat_n(0xdd, payload_bytes));
    }

    /// Moves bytes until the next reply is whole.
    fn await_reply(&mut self) -> Reply {
        while self.server.outbox.len() < PACKET_BYTES {
            let piece = self.pieces[self.step % self.pieces.len()].min(self.on_the_way.len());
            self.step += 1;
            self.server.inbox.extend(self.on_the_way.drain(..piece));
            self.server.run();
        }
        let mut packet = [0; PACKET_BYTES];
        for (to, from) in packet.iter_mut().zip(self.server.outbox.drain(..PACKET_BYTES)) {
            *to = from;
        }
        self.client.reply(&packet).expect("the server is well-behaved")
    }

    fn connect(&mut self) {
        let login = Login { node: b"n", password: b"p", hostname: b"h", port: 1 };
        self.client.connect(&login, &mut self.packet).unwrap();
        self.send(0);
        self.await_reply().outcome.unwrap();
    }

    /// Whether the file was acknowledged; `None` if its OPEN was refused.
    fn file(&mut self, sizes: &File) -> Option<bool> {
        let info = Info { fs: b"/l", fpath: b"/l/x", desc: b"", storage_dest: 0 };
        self.client.open(&info, &mut self.packet).unwrap();
        self.send(0);
        self.await_reply().outcome.ok()?;
        for &size in sizes {
            while !self.client.has_room(size.into()) && self.client.failure().is_none() {
                self.await_reply();
            }
            if self.client.failure().is_some() {
                break;
            }
            self.client.data(size.into(), &mut self.packet).unwrap();
            self.send(size.into());
        }
        self.client.close(&mut self.packet).unwrap();
        self.send(0);
        loop {
            let reply = self.await_reply();
            if reply.op == Op::Close {
                return Some(reply.outcome.is_ok());
            }
        }
    }
}

proptest! {
    #[test]
    fn both_sides_agree_on_what_was_acknowledged(
        is_b in any::<bool>(),
        packets in 1_u32..9,
        bytes in prop_oneof![Just(u64::MAX), 1_u64..100_000],
        files in prop::collection::vec(prop::collection::vec(0_u16..20_000, 0..12), 1..6),
        refusals in prop::collection::vec(prop::bool::weighted(0.1), 60),
        pieces in prop::collection::vec(1_usize..30_000, 1..8),
    ) {
        let layout = if is_b { Layout::B } else { Layout::C };
        let server = Server {
            machine: ServerSession::new(),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            packet: [0; PACKET_BYTES],
            refusals,
            answered: 0,
            has_failed: false,
            acknowledged: Vec::new(),
            is_closed: false,
        };
        let mut pair = Pair {
            client: ClientSession::new(layout, Window { packets, bytes }),
            server,
            packet: [0; PACKET_BYTES],
            on_the_way: VecDeque::new(),
            pieces,
            step: 0,
        };
        pair.connect();
        let fates: Vec<_> = files.iter().filter_map(|sizes| pair.file(sizes)).collect();
        prop_assert_eq!(&fates, &pair.server.acknowledged);
        prop_assert_eq!(pair.client.awaited(), None);

        pair.client.disconnect(&mut pair.packet).unwrap();
        pair.server.inbox.extend(pair.on_the_way.drain(..));
        pair.server.inbox.extend(pair.packet);
        pair.server.run();
        prop_assert!(pair.server.is_closed);
    }
}
