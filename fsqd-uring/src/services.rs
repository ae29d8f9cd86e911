//! What an ingest ring asks of the rest of the daemon: sign-on and staging, the calls that block.
//!
//! Invariant: every submitted job is answered exactly once, with its token; an answer may come in
//! any order and never before `submit` has returned.

use std::ffi::OsString;
use std::sync::Arc;

use fsq_wire::StorageDest;

use crate::identmap::Identity;
use crate::path::Placement;
use crate::refusal::Refusal;
use crate::ring::{FileId, Span, Token};

/// A secret that no log line or error can show, and that is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Wraps the bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the comparison only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler may leave the fill out.
        std::hint::black_box(&mut self.0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A file that is being received, known to the staging service under `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// The service's name for it.
    pub key: u64,
    /// The number the ring writes it under.
    pub file: FileId,
}

/// What the client said about a file at OPEN, admitted by [`crate::path`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Who sends it.
    pub identity: Arc<Identity>,
    /// Where it goes on staging and on the target.
    pub placement: Placement,
    /// `fs` as sent: bytes, since file names are.
    pub fs: OsString,
    /// `fpath` as sent.
    pub fpath: OsString,
    /// `desc` as sent.
    pub desc: Vec<u8>,
    /// Final destination; never [`StorageDest::Null`].
    pub dest: StorageDest,
}

/// A call that may block.
#[derive(Debug)]
pub enum Job {
    /// Checks node and password.
    SignOn {
        /// The node's name as sent.
        node: String,
        /// The password as sent.
        password: Secret,
        /// Address of the client, for the log.
        peer: String,
    },
    /// Creates the staging file, nameless until [`Job::Commit`], and reserves its name.
    Open(Box<NewFile>),
    /// Preallocates `len` bytes from `from`, extending the size.
    Extend {
        /// Which file.
        staged: StagedFile,
        /// Where the preallocated part ends so far, bytes.
        from: u64,
        /// How much more, bytes.
        len: u64,
    },
    /// Completes the file: writes what is left of it, sets its length and attributes, gives it its
    /// name, makes it durable, and hands it to the drain. The file is consumed, also on failure.
    Commit {
        /// Which file.
        staged: StagedFile,
        /// The bytes that the ring has not written, in the ring's arena; belongs to the service
        /// until it answers. Room behind it up to the next multiple of 4096 may be overwritten.
        tail: Option<Tail>,
        /// True length, bytes.
        len: u64,
        /// CRC-32 (zlib polynomial) of the whole content.
        crc: u32,
    },
    /// Forgets the file and frees its name.
    Abort {
        /// Which file.
        staged: StagedFile,
    },
}

/// The end of a file that is still in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its bytes in the ring's arena; begins 4096-aligned.
    pub span: Span,
    /// Where they belong in the file, bytes, a multiple of 4096.
    pub offset: u64,
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Job::SignOn`].
    SignOn(Result<Arc<Identity>, Refusal>),
    /// To [`Job::Open`].
    Open(Result<StagedFile, Refusal>),
    /// To [`Job::Extend`]: where the preallocated part ends now, bytes (may be less than asked for
    /// when space is short, but never less than `from` plus 1).
    Extend(Result<u64, Refusal>),
    /// To [`Job::Commit`].
    Commit(Result<(), Refusal>),
    /// To [`Job::Abort`].
    Abort,
}

/// Where jobs go.
pub trait Services {
    /// Hands over a job; the answer comes back later under the same token.
    fn submit(&mut self, token: Token, job: Job);
}
