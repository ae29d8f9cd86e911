//! The recorded sessions of deployed clients against the daemon.

use std::path::PathBuf;

use fsq_wire::{Layout, Op, PACKET_BYTES, Packet, PacketMut, State};

use crate::support::deployed::{Bytes, Deployed, union_offset};
use crate::support::site::{PASSWORD, Site};
use crate::support::{eventually, shared_turn};

/// What a file must be like in the end, by the recorded content's length and the place.
#[derive(Clone, Copy)]
enum Ends {
    Nowhere,
    Staging,
    Target,
    TargetAndArchive,
    /// Refused, or the recording ends before the file was closed.
    Unfinished,
}

struct Recording {
    name: &'static str,
    layout: Layout,
    files: &'static [&'static str],
    ends: Ends,
}

/// In this order: `file-exists` sends again what `local-3-bytes` has left on staging.
const RECORDINGS: [Recording; 9] = [
    Recording {
        name: "local-3-bytes",
        layout: Layout::C,
        files: &["data/x/small.dat"],
        ends: Ends::Staging,
    },
    Recording {
        name: "lustre-40000-bytes",
        layout: Layout::C,
        files: &["data/x/mid.dat"],
        ends: Ends::Target,
    },
    Recording {
        name: "null-empty-file",
        layout: Layout::C,
        files: &["data/x/empty.dat"],
        ends: Ends::Nowhere,
    },
    Recording {
        name: "two-files-one-session",
        layout: Layout::C,
        files: &["data/y/small.dat", "data/y/mid.dat"],
        ends: Ends::TargetAndArchive,
    },
    Recording { name: "unknown-node", layout: Layout::C, files: &[], ends: Ends::Unfinished },
    Recording {
        name: "path-outside-identmap",
        layout: Layout::C,
        files: &["other/mid.dat"],
        ends: Ends::Nowhere,
    },
    Recording { name: "file-exists", layout: Layout::C, files: &[], ends: Ends::Unfinished },
    Recording {
        name: "tsm-not-implemented",
        layout: Layout::C,
        files: &[],
        ends: Ends::Unfinished,
    },
    Recording {
        name: "gen-b-null-5000-bytes",
        layout: Layout::B,
        files: &["data/x/b.dat"],
        ends: Ends::Nowhere,
    },
];

impl Recording {
    fn read(&self, side: &str) -> Vec<u8> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fsq-wire/tests/captures");
        let path = folder.join(format!("{}.{side}.bin", self.name));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Requests and the payloads behind them.
    fn requests(&self) -> Vec<(Bytes, Vec<u8>)> {
        let stream = self.read("c2s");
        let mut rest = &stream[..];
        let mut requests = Vec::new();
        while let Some((packet, behind)) = rest.split_first_chunk::<PACKET_BYTES>() {
            let view = Packet::new(packet, self.layout);
            let size = if view.state() == State::DATA { view.data_size() } else { 0 };
            let (payload, behind) = behind.split_at(usize::try_from(size).expect("small"));
            requests.push((*packet, payload.to_vec()));
            rest = behind;
        }
        assert!(rest.is_empty(), "{}: ends within a packet", self.name);
        requests
    }

    /// The old server's answers with the wanted differences: the password is blanked, and the
    /// archive destination works.
    fn replies(&self) -> Vec<Bytes> {
        let stream = self.read("s2c");
        let (replies, rest) = stream.as_chunks::<PACKET_BYTES>();
        assert!(rest.is_empty(), "{}: ends within a packet", self.name);
        let mut replies = replies.to_vec();
        PacketMut::new(&mut replies[0], self.layout).blank_password();
        if self.name == "tsm-not-implemented" {
            let mut reply = PacketMut::new(&mut replies[1], self.layout);
            reply.set_state(Op::Open.reply());
            reply.set_rc(0);
        }
        replies
    }

    fn replay(&self, port: u16) {
        let name = self.name;
        let mut client = Deployed::connect_as(port, self.layout);
        let mut expected = self.replies().into_iter();
        for (index, (packet, payload)) in self.requests().iter().enumerate() {
            client.send(packet);
            if !payload.is_empty() {
                client.send(payload);
            }
            if Packet::new(packet, self.layout).state() == State::DISCONNECT {
                break;
            }
            let reply = client.reply();
            let recorded = expected.next().unwrap_or_else(|| panic!("{name}: no more replies"));
            let what = format!("{name}, reply {index}: {reply:?}");
            let view = Packet::new(&recorded, self.layout);
            assert_eq!((reply.state(), reply.rc()), (view.state(), view.rc()), "{what}");
            let union = &recorded[union_offset(self.layout)..][..5384];
            assert!(reply.union() == union, "{what}: the union is not echoed");
            let mut windows = reply.bytes.windows(PASSWORD.len());
            let comes_back = windows.any(|window| window == PASSWORD.as_bytes());
            assert!(!comes_back, "{what}: the password came back");
        }
        assert!(expected.next().is_none(), "{name}: replies are missing");
        assert!(client.is_closed(), "{name}: the server goes on");
    }

    /// What was sent, in the order of the files.
    fn contents(&self) -> Vec<Vec<u8>> {
        let payloads = self.requests().into_iter().map(|(_, payload)| payload);
        payloads.filter(|payload| !payload.is_empty()).collect()
    }

    fn check(&self, site: &Site) {
        for (index, name) in self.files.iter().enumerate() {
            let places = [site.staged(name), site.delivered(name), site.archived(name)];
            let wanted = match self.ends {
                Ends::Nowhere => [false, false, false],
                Ends::Staging => [true, false, false],
                Ends::Target => [false, true, false],
                Ends::TargetAndArchive => [false, true, true],
                Ends::Unfinished => continue,
            };
            for (path, wanted) in places.iter().zip(wanted) {
                eventually(&format!("{}: {wanted}", path.display()), || {
                    (path.exists() == wanted).then_some(())
                });
                if wanted {
                    let content = std::fs::read(path).expect("it is there");
                    assert!(content == self.contents()[index], "{}", path.display());
                }
            }
        }
    }
}

#[test]
fn recorded_sessions_are_answered_as_recorded() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start();
    for recording in &RECORDINGS {
        recording.replay(daemon.port());
        // Before the next one, which may send the same name: on staging it is free only now.
        recording.check(&site);
    }
    // The archive file was opened and never closed; on staging only the local file is left.
    eventually("staging has one file", || {
        let files = crate::support::tree::files(&site.staging());
        (files == [PathBuf::from("data/x/small.dat")]).then_some(())
    });
    daemon.stop();
}
