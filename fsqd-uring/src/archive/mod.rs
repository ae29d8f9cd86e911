//! The archive: files leave staging for it, and are freed once it has **confirmed** them.
//!
//! Backends stand behind [`Archive`]: they may take files in batches and confirm late. A pool of
//! threads (`worker`) brings files to them, since the calls of the archives' libraries block and
//! belong to one thread each. `dir` is the built-in backend, a directory with checksums; [`tsm`]
//! sends objects to a TSM server, many in a transaction; [`hsm`] has Lustre's own copytools do it.
//!
//! Invariant: a staging copy is freed only after a verdict [`Verdict::Confirmed`] has been recorded
//! in its attributes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::queue::record::Record;
use crate::queue::{FailureClass, Pulse};

pub use self::dir::{CHECKSUM_ATTRIBUTE, DirArchive};
pub use self::worker::{ArchiveWorker, Pool, spawn};

pub mod backend;
mod dir;
pub mod hsm;
pub mod names;
pub mod tsm;
mod worker;

/// Most files that a backend takes in one batch; each is open meanwhile.
pub const BATCH_MAX: usize = 256;

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
    /// It may have been handed over before: an earlier attempt failed or was cut off.
    pub again: bool,
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
    /// Most files of one [`Archive::archive`]; from 1 to [`BATCH_MAX`].
    fn batch_max(&self) -> usize;

    /// How many bytes of files one [`Archive::archive`] should have at least, if there are as many:
    /// what is beyond is left to other threads.
    fn batch_bytes(&self) -> u64 {
        u64::MAX
    }

    /// Whether a file that is handed over twice is in the archive twice: then that it is being handed
    /// over must survive a power loss before it is.
    fn must_not_repeat(&self) -> bool {
        false
    }

    /// Where to give a sign of life during long calls. One that makes none needs none.
    fn report_to(&mut self, _: Arc<Pulse>) {}

    /// Hands files over; one verdict for each, in order. A file that the archive has already, or has
    /// in hand, must not be damaged by being handed over again: after a crash nobody knows.
    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict>;

    /// Asks about a file that may have been handed over, by this session or before a crash.
    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict;
}

#[cfg(test)]
mod tests;
