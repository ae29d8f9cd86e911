//! What a run sends, to whom, and how: ready values, checked once.
//!
//! Invariant: every string of a plan fits its field of the protocol, so no packet of a run can
//! fail to be built.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use fsq_wire::{FieldError, Info, Layout, Login, PACKET_BYTES, PacketMut, StorageDest};

use crate::feed::Quota;
use crate::size::{Sizes, mixed};

/// Most DATA that may be unanswered. Their replies, 6424 bytes each, must fit into the socket
/// buffers of the two ends, or a server that stops receiving while it cannot send would hang.
pub const WINDOW_MAX: u32 = 32;
/// The payload repeats after so many bytes; more than the caches nearest to a core.
const PATTERN_BYTES: usize = 4 << 20;

/// How requests are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Behaviour {
    /// As the library in the field does: packet and payload in two writes, Nagle's algorithm on,
    /// one DATA at a time.
    Deployed,
    /// Packet and payload in one call, Nagle's algorithm off, several DATA under way.
    Pipelined,
}

/// A password: shown to nobody, whatever prints the plan.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps this one.
    #[must_use]
    pub const fn new(password: String) -> Self {
        Self(password)
    }
}

/// For command lines.
impl FromStr for Password {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server's name or address as given.
    pub hostname: String,
    /// Its port.
    pub port: u16,
    /// Where it is; not empty.
    pub addresses: Vec<SocketAddr>,
    /// Who signs on.
    pub node: String,
    /// The node's password.
    pub password: Password,
    /// The file system, as OPEN names it.
    pub fs: String,
    /// Where the run makes its own directory.
    pub dir: String,
    /// Name of that directory; no two runs have the same.
    pub run_id: String,
    /// Where files are to end up.
    pub dest: StorageDest,
    /// Layout of the packets.
    pub layout: Layout,
    /// How requests are sent.
    pub behaviour: Behaviour,
    /// Sessions at a time.
    pub connections: u32,
    /// Sessions besides that sign on before the run and say nothing until it is over.
    pub idle: u32,
    /// Files of a session before it is closed and a new one opened.
    pub reconnect_after: Option<u64>,
    /// Sizes of the files.
    pub sizes: Sizes,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Payload of one DATA, bytes; above 0.
    pub chunk_bytes: u64,
    /// Payload of a file's first and last DATA, bytes; 0 if they are like the others.
    pub edge_bytes: u64,
    /// Most DATA that are unanswered, 1 to [`WINDOW_MAX`].
    pub window: u32,
    /// How much is sent.
    pub quota: Quota,
    /// What begins before this is sent and not counted, ns of the run.
    pub warm_up_ns: u64,
    /// Longest wait for a reply.
    pub timeout: Duration,
}

impl Plan {
    /// Whether the strings fit their fields.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), FieldError> {
        let mut bytes = [0; PACKET_BYTES];
        let mut packet = PacketMut::new(&mut bytes, self.layout);
        packet.set_login(&self.login())?;
        let path = self.path(u64::MAX);
        packet.set_info(&self.info(&path))
    }

    /// The union of every CONNECT.
    #[must_use]
    pub fn login(&self) -> Login<'_> {
        Login {
            node: self.node.as_bytes(),
            password: self.password.0.as_bytes(),
            hostname: self.hostname.as_bytes(),
            port: i32::from(self.port),
        }
    }

    /// The union of the OPEN of a file at this path.
    #[must_use]
    pub fn info<'a>(&'a self, path: &'a str) -> Info<'a> {
        Info {
            fs: self.fs.as_bytes(),
            fpath: path.as_bytes(),
            desc: b"",
            storage_dest: self.dest.into(),
        }
    }

    /// Where file number `index` goes.
    #[must_use]
    pub fn path(&self, index: u64) -> String {
        format!("{}/{}/{index:08}", self.dir.trim_end_matches('/'), self.run_id)
    }

    /// Size of file number `index`, bytes.
    #[must_use]
    pub fn size(&self, index: u64) -> u64 {
        self.sizes.size(self.seed, index)
    }

    /// Payload of the DATA at `offset` of a file, bytes; 0 at its end.
    #[must_use]
    pub fn chunk(&self, offset: u64, size: u64) -> u64 {
        let left = size - offset;
        if self.edge_bytes == 0 {
            return left.min(self.chunk_bytes);
        }
        if offset == 0 || left <= self.edge_bytes {
            return left.min(self.edge_bytes);
        }
        (left - self.edge_bytes).min(self.chunk_bytes)
    }

    /// What every DATA is cut from: as long as the longest one, of bytes that no file system can
    /// compress or leave out.
    #[must_use]
    pub fn payload(&self) -> Box<[u8]> {
        let len = usize::try_from(self.chunk_bytes.max(self.edge_bytes)).unwrap_or(usize::MAX);
        let words = len.min(PATTERN_BYTES).div_ceil(8) as u64;
        let pattern: Vec<u8> =
            (0..words).flat_map(|word| mixed(self.seed, word).to_le_bytes()).collect();
        pattern.into_iter().cycle().take(len).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan that suits most tests.
    pub(crate) fn plan() -> Plan {
        Plan {
            hostname: "localhost".into(),
            port: 7625,
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 7625))],
            node: "polaris".into(),
            password: Password::new("polaris1234".into()),
            fs: "/lustre".into(),
            dir: "/lustre/data".into(),
            run_id: "run".into(),
            dest: StorageDest::Null,
            layout: Layout::C,
            behaviour: Behaviour::Deployed,
            connections: 1,
            idle: 0,
            reconnect_after: None,
            sizes: Sizes::Fixed(2500),
            seed: 1,
            chunk_bytes: 1000,
            edge_bytes: 0,
            window: 1,
            quota: Quota { files: Some(1), ..Quota::default() },
            warm_up_ns: 0,
            timeout: Duration::from_secs(10),
        }
    }

    fn chunks(plan: &Plan, size: u64) -> Vec<u64> {
        let mut offset = 0;
        let mut chunks = Vec::new();
        while offset < size {
            chunks.push(plan.chunk(offset, size));
            offset += chunks.last().expect("just pushed");
        }
        chunks
    }

    #[test]
    fn a_file_is_cut_into_chunks() {
        assert_eq!(chunks(&plan(), 2500), [1000, 1000, 500]);
        assert_eq!(chunks(&plan(), 1000), [1000]);
        assert_eq!(chunks(&plan(), 0), [0; 0]);
    }

    #[test]
    fn edges_are_sent_apart() {
        let plan = Plan { edge_bytes: 32, ..plan() };
        assert_eq!(chunks(&plan, 2064), [32, 1000, 1000, 32]);
        assert_eq!(chunks(&plan, 100), [32, 36, 32]);
        assert_eq!(chunks(&plan, 40), [32, 8]);
        assert_eq!(chunks(&plan, 8), [8]);
    }

    #[test]
    fn payload_is_long_enough_and_not_compressible() {
        let payload = Plan { chunk_bytes: 100_000, ..plan() }.payload();
        assert_eq!(payload.len(), 100_000);
        let mut counts = [0_u32; 256];
        payload.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        // 390 expected, deviation 20.
        assert!(counts.iter().all(|count| (290..490).contains(count)), "{counts:?}");
    }

    #[test]
    fn strings_that_do_not_fit_are_found_before_the_run() {
        assert_eq!(plan().check(), Ok(()));
        assert!(Plan { node: "n".repeat(65), ..plan() }.check().is_err());
        assert!(Plan { dir: format!("/lustre/{}", "d".repeat(4096)), ..plan() }.check().is_err());
    }

    #[test]
    fn no_one_sees_the_password() {
        assert!(!format!("{:?}", plan()).contains("polaris1234"));
    }
}
