//! Recorded sessions of deployed clients, replayed: the replies must agree with the recorded ones
//! in state, `error.rc` and the echoed union. Wanted differences: no password comes back, refusals
//! are worded by us, and the archive destination works.

use std::collections::BTreeSet;
use std::path::PathBuf;

use fsq_wire::{
    Layout, Next, Op, PACKET_BYTES, Packet, PacketMut, Phase, Request, ServerSession, State,
    StorageDest,
};

/// A recording and what the daemon says in it.
struct Capture {
    name: &'static str,
    layout: Layout,
    /// Destinations of the files that are opened.
    dests: &'static [StorageDest],
    /// The request that is refused, and the errno.
    refused: Option<(Op, i32)>,
    /// The recorded refusal that we do not repeat.
    accepted: Option<Op>,
}

const GOOD: Capture =
    Capture { name: "", layout: Layout::C, dests: &[], refused: None, accepted: None };

const CAPTURES: [Capture; 9] = [
    Capture { name: "local-3-bytes", dests: &[StorageDest::Local], ..GOOD },
    Capture { name: "lustre-40000-bytes", dests: &[StorageDest::Lustre], ..GOOD },
    Capture { name: "null-empty-file", dests: &[StorageDest::Null], ..GOOD },
    Capture {
        name: "two-files-one-session",
        dests: &[StorageDest::LustreTsm, StorageDest::LustreTsm],
        ..GOOD
    },
    Capture { name: "unknown-node", refused: Some((Op::Connect, 13)), ..GOOD },
    Capture {
        name: "path-outside-identmap",
        dests: &[StorageDest::Local],
        refused: Some((Op::Open, 13)),
        ..GOOD
    },
    Capture {
        name: "file-exists",
        dests: &[StorageDest::Local],
        refused: Some((Op::Open, 17)),
        ..GOOD
    },
    Capture {
        name: "tsm-not-implemented",
        dests: &[StorageDest::Tsm],
        accepted: Some(Op::Open),
        ..GOOD
    },
    Capture {
        name: "gen-b-null-5000-bytes",
        layout: Layout::B,
        dests: &[StorageDest::Null],
        ..GOOD
    },
];

const REASON: &str = "the oracle refuses this";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

impl Capture {
    fn client(&self) -> Vec<u8> {
        self.read("c2s")
    }

    fn read(&self, side: &str) -> Vec<u8> {
        let path = folder().join(format!("{}.{side}.bin", self.name));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The recorded replies, with the wanted differences worked in.
    fn replies(&self) -> Vec<[u8; PACKET_BYTES]> {
        let recorded = self.read("s2c");
        let (replies, rest) = recorded.as_chunks::<PACKET_BYTES>();
        assert!(rest.is_empty(), "{}: replies are whole packets", self.name);
        let mut replies = replies.to_vec();
        for (index, reply) in replies.iter_mut().enumerate() {
            let mut reply = PacketMut::new(reply, self.layout);
            if index == 0 {
                reply.blank_password();
            }
            if reply.as_packet().state() == State::REFUSED {
                if let Some(op) = self.accepted {
                    reply.set_state(op.reply());
                    reply.set_rc(0);
                    reply.set_error_sentence("");
                } else {
                    reply.set_error_sentence(REASON);
                }
            }
        }
        replies
    }
}

/// What a daemon that stores nothing has seen of a session.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    dests: Vec<StorageDest>,
    payload: Vec<u8>,
    replies: Vec<[u8; PACKET_BYTES]>,
    has_signed_off: bool,
    is_closed: bool,
}

/// A daemon around the session, fed with whatever the network delivers at a time.
struct Daemon<'c> {
    capture: &'c Capture,
    session: ServerSession,
    packet: [u8; PACKET_BYTES],
    filled: usize,
    seen: Seen,
}

impl<'c> Daemon<'c> {
    fn new(capture: &'c Capture) -> Self {
        Self {
            capture,
            session: ServerSession::new(),
            packet: [0; PACKET_BYTES],
            filled: 0,
            seen: Seen::default(),
        }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            assert!(!self.seen.is_closed, "{}: bytes behind the end", self.capture.name);
            let expected = match self.session.phase() {
                Phase::Payload { remaining } => usize::try_from(remaining).expect("a small file"),
                _ => PACKET_BYTES - self.filled,
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(expected));
            bytes = rest;
            if let Phase::Payload { .. } = self.session.phase() {
                self.seen.payload.extend_from_slice(taken);
                self.session.payload(taken.len() as u64);
                self.acknowledge_if_complete();
            } else {
                self.packet[self.filled..][..taken.len()].copy_from_slice(taken);
                self.filled += taken.len();
                if self.filled == PACKET_BYTES {
                    self.filled = 0;
                    self.request();
                }
            }
        }
    }

    fn request(&mut self) {
        let packet = self.packet;
        let request = self.session.packet(&packet).expect("deployed clients keep the protocol");
        match request {
            Request::Connect(login) => {
                let node: &[u8] = match self.capture.name {
                    "unknown-node" => b"nobody",
                    _ => b"polaris",
                };
                assert_eq!((login.node, login.port), (node, 7625));
                self.answer(Op::Connect);
            }
            Request::Open(info) => {
                assert!(info.fpath.starts_with(info.fs));
                let dest = StorageDest::try_from(info.storage_dest).expect("recorded valid ones");
                self.seen.dests.push(dest);
                self.answer(Op::Open);
            }
            Request::Data { .. } => self.acknowledge_if_complete(),
            Request::Close => self.answer(Op::Close),
            Request::Disconnect => {
                self.seen.has_signed_off = true;
                self.seen.is_closed = true;
            }
        }
    }

    fn acknowledge_if_complete(&mut self) {
        if self.session.phase() == Phase::Acknowledging {
            self.answer(Op::Data);
        }
    }

    fn answer(&mut self, op: Op) {
        let outcome = match self.capture.refused {
            Some((refused, errno)) if refused == op => Err((errno, REASON)),
            _ => Ok(()),
        };
        self.seen.is_closed = self.session.reply(&mut self.packet, outcome) == Next::Close;
        self.seen.replies.push(self.packet);
    }
}

fn replay<'b>(capture: &Capture, pieces: impl IntoIterator<Item = &'b [u8]>) -> Seen {
    let mut daemon = Daemon::new(capture);
    pieces.into_iter().for_each(|piece| daemon.receive(piece));
    assert_eq!(daemon.session.layout(), Some(capture.layout));
    assert_eq!(daemon.session.phase(), Phase::Ended, "{}", capture.name);
    assert_eq!(daemon.filled, 0, "{}: ends with a whole packet", capture.name);
    daemon.seen
}

/// Where packets begin in what the client sent, found without the session: by what the recorded
/// packets say about their payloads.
fn packet_starts(capture: &Capture, stream: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        starts.push(at);
        let bytes = stream[at..].first_chunk().expect("a whole packet");
        let packet = Packet::new(bytes, capture.layout);
        at += PACKET_BYTES;
        if packet.state() == State::DATA {
            at += usize::try_from(packet.data_size()).expect("a small file");
        }
    }
    starts
}

fn assert_same(expected: &Seen, actual: &Seen, what: &str) {
    assert!(expected == actual, "{what}: the daemon has seen something else");
}

#[test]
fn every_recording_is_replayed() {
    let recorded: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("the folder of the recordings")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
        .collect();
    let replayed = CAPTURES
        .iter()
        .flat_map(|capture| ["c2s", "s2c"].map(|side| format!("{}.{side}.bin", capture.name)))
        .collect();
    assert_eq!(recorded, replayed);
}

#[test]
fn replies_agree_with_the_recorded_ones() {
    for capture in &CAPTURES {
        let stream = capture.client();
        let seen = replay(capture, [&stream[..]]);
        let name = capture.name;
        assert_eq!(seen.dests, capture.dests, "{name}");
        let packets = packet_starts(capture, &stream).len();
        assert_eq!(seen.payload.len(), stream.len() - packets * PACKET_BYTES, "{name}");
        assert_eq!(seen.has_signed_off, capture.refused.is_none_or(|(op, _)| op != Op::Connect));

        let expected = capture.replies();
        assert_eq!(seen.replies.len(), expected.len(), "{name}");
        for (index, (actual, expected)) in seen.replies.iter().zip(&expected).enumerate() {
            let (ours, theirs) =
                (Packet::new(actual, capture.layout), Packet::new(expected, capture.layout));
            let what = format!("{name}, reply {index}");
            assert_eq!(ours.version(), theirs.version(), "{what}");
            assert_eq!(ours.state(), theirs.state(), "{what}");
            assert_eq!(ours.rc(), theirs.rc(), "{what}");
            assert_eq!(ours.error_text(), theirs.error_text(), "{what}");
            // Both layouts end with the union, C with 3 bytes of padding behind it.
            let union = if capture.layout == Layout::C { 1037..6421 } else { 1040..6424 };
            assert!(actual[union.clone()] == expected[union], "{what}: the union is not echoed");
        }
    }
}

#[test]
fn no_recorded_password_comes_back() {
    for capture in &CAPTURES {
        let stream = capture.client();
        let first = stream.first_chunk().expect("a CONNECT");
        let login = Packet::new(first, capture.layout).login().expect("terminated");
        assert!(!login.password.is_empty());
        for reply in replay(capture, [&stream[..]]).replies {
            let mut windows = reply.windows(login.password.len());
            assert!(!windows.any(|window| window == login.password), "{}", capture.name);
        }
    }
}

#[test]
fn pieces_of_any_size_make_the_same_session() {
    for capture in &CAPTURES {
        let stream = capture.client();
        let whole = replay(capture, [&stream[..]]);
        for piece_bytes in [1, 2, 7, 1448, PACKET_BYTES - 1, PACKET_BYTES, PACKET_BYTES + 1] {
            let seen = replay(capture, stream.chunks(piece_bytes));
            assert_same(&whole, &seen, &format!("{}, {piece_bytes} at a time", capture.name));
        }
    }
}

#[test]
fn cut_around_every_field_makes_the_same_session() {
    // Where a field begins or ends in one layout or the other, within a packet; the last one is
    // the first byte of the payload, or of the next packet.
    let union_offsets = [0, 8, 65, 130, 195, 196, 200, 1025, 5122, 5378, 5380, 5384];
    let header_offsets = [0, 1, 4, 5, 8, 1030, 1033, 1036, 1037, 1040];
    let boundaries: BTreeSet<usize> = header_offsets
        .into_iter()
        .chain(union_offsets.iter().flat_map(|offset| [1037 + offset, 1040 + offset]))
        .chain([PACKET_BYTES])
        .flat_map(|offset| [offset.saturating_sub(1), offset, offset + 1])
        .collect();
    for capture in &CAPTURES {
        let stream = capture.client();
        let whole = replay(capture, [&stream[..]]);
        for start in packet_starts(capture, &stream) {
            for cut in boundaries.iter().map(|offset| start + offset) {
                let (head, tail) = stream.split_at(cut.min(stream.len()));
                let seen = replay(capture, [head, tail]);
                assert_same(&whole, &seen, &format!("{}, cut at byte {cut}", capture.name));
            }
        }
    }
}
