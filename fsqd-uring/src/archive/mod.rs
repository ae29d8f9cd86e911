//! The archive: files leave staging for it, and are freed once it has **confirmed** them.
//!
//! Backends stand behind [`Archive`]: they may take files in batches and confirm late. A pool of
//! threads ([`worker`]) brings files to them, since the calls of the archives' libraries block and
//! belong to one thread each. [`dir`] is the built-in backend, a directory with checksums.
//!
//! Invariant: a staging copy is freed only after a verdict [`Verdict::Confirmed`] has been recorded
//! in its attributes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::queue::FailureClass;
use crate::queue::record::Record;

pub use self::dir::{CHECKSUM_ATTRIBUTE, DirArchive};
pub use self::worker::{ArchiveWorker, Pool, spawn};

mod dir;
mod worker;

/// A file for the archive.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveItem<'a> {
    /// Its copy on staging, below the staging root.
    pub staging: &'a Path,
    /// Its place below the target's root; a copy is there if the backend reads from the target.
    /// `None`: it has no place there.
    pub target: Option<&'a PathBuf>,
    /// What is recorded of it.
    pub record: &'a Record,
}

/// What an archive says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is safe there: the staging copy may go.
    Confirmed,
    /// It is in hand; ask again after this time.
    Pending {
        /// How long to wait.
        check_after: Duration,
    },
    /// Only to a question: the archive neither has the file nor has it in hand. It is submitted
    /// (again) at once, which counts as no error.
    Missing,
    /// It did not work.
    Failed {
        /// What is to be done about it.
        class: FailureClass,
        /// What failed and why, one sentence.
        text: String,
    },
}

/// A session with an archive, used by one thread.
pub trait Archive: Send {
    /// Most files of one [`Archive::archive`]; at least 1.
    fn batch_max(&self) -> usize;

    /// Hands files over; one verdict for each, in order. A file that the archive has already, or has
    /// in hand, must not be damaged by being handed over again: after a crash nobody knows.
    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict>;

    /// Asks about a file that may have been handed over, by this session or before a crash.
    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict;
}

#[cfg(test)]
mod tests;
