//! Classes of errors, and which error belongs to which: what the drain does about a failure is
//! decided here and nowhere else.
//!
//! Invariant: nothing that a user of one file can cause pauses the others, and nothing that the
//! target does to everybody counts against a file.

use std::fmt::Display;

use rustix::io::Errno;

use crate::fs::FsError;

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The target (or the archive) is down or full: everybody pauses, one file at a time probes,
    /// nothing is counted.
    Target,
    /// Passes by itself and concerns this file (a quota of its owner) or this machine (memory, file
    /// descriptors): the file waits and is not counted.
    Passing,
    /// Something is wrong with the file or its place on the target: counted, retried with growing
    /// delays, omitted when it has happened too often.
    File,
    /// The staging copy cannot be read or does not match its checksum: counted like [`Self::File`],
    /// reported as an error at once.
    Staging,
    /// Trying again cannot help: omitted at once.
    Permanent,
}

impl FailureClass {
    /// Whether it counts towards the number of tolerated errors.
    #[must_use]
    pub const fn is_counted(self) -> bool {
        matches!(self, Self::File | Self::Staging)
    }
}

/// Where a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// On the local staging file system.
    Staging,
    /// On the file system or archive that the file goes to.
    Target,
}

/// The class of an errno.
///
/// EIO of a Lustre target means eviction, the resend limit or a failed write-back, never one file
/// alone: the client has already retried it. EDQUOT is the quota of one owner: pausing the others
/// for it would let one full group stop every experiment.
#[must_use]
pub fn classify(side: Side, errno: Errno) -> FailureClass {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR => return FailureClass::Passing,
        _ if side == Side::Staging => return FailureClass::Staging,
        _ => {}
    }
    match errno {
        Errno::IO
        | Errno::NOTCONN
        | Errno::SHUTDOWN
        | Errno::NODEV
        | Errno::NXIO
        | Errno::STALE
        | Errno::TIMEDOUT
        | Errno::AGAIN
        | Errno::INPROGRESS
        | Errno::ROFS
        | Errno::NOSPC
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::NETRESET
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::NOLINK
        | Errno::COMM
        | Errno::REMOTEIO => FailureClass::Target,
        Errno::DQUOT => FailureClass::Passing,
        Errno::EXIST | Errno::NAMETOOLONG => FailureClass::Permanent,
        _ => FailureClass::File,
    }
}

/// A failure with its class and a sentence that says what failed, on what, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What is to be done about it.
    pub class: FailureClass,
    /// For the log.
    pub text: String,
}

impl Failure {
    /// A failure of this class.
    pub fn new(class: FailureClass, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }

    /// A failed call; `what` says what it was to do and on what.
    pub fn call(side: Side, what: impl Display, error: FsError) -> Self {
        Self::new(classify(side, error.errno), format!("{what}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fall_into_their_classes() {
        use FailureClass::*;
        let table = [
            (Errno::IO, Target, Staging),
            (Errno::NOTCONN, Target, Staging),
            (Errno::SHUTDOWN, Target, Staging),
            (Errno::NODEV, Target, Staging),
            (Errno::STALE, Target, Staging),
            (Errno::TIMEDOUT, Target, Staging),
            (Errno::AGAIN, Target, Staging),
            (Errno::ROFS, Target, Staging),
            (Errno::NOSPC, Target, Staging),
            (Errno::NETDOWN, Target, Staging),
            (Errno::HOSTDOWN, Target, Staging),
            (Errno::DQUOT, Passing, Staging),
            (Errno::MFILE, Passing, Passing),
            (Errno::NFILE, Passing, Passing),
            (Errno::NOMEM, Passing, Passing),
            (Errno::INTR, Passing, Passing),
            (Errno::EXIST, Permanent, Staging),
            (Errno::NAMETOOLONG, Permanent, Staging),
            (Errno::ACCESS, File, Staging),
            (Errno::PERM, File, Staging),
            (Errno::LOOP, File, Staging),
            (Errno::XDEV, File, Staging),
            (Errno::NOTDIR, File, Staging),
            (Errno::NOENT, File, Staging),
            (Errno::INVAL, File, Staging),
        ];
        for (errno, target, staging) in table {
            assert_eq!(classify(Side::Target, errno), target, "{errno} of the target");
            assert_eq!(classify(Side::Staging, errno), staging, "{errno} of staging");
        }
    }

    #[test]
    fn only_file_and_staging_errors_count() {
        use FailureClass::*;
        let counted: Vec<_> = [Target, Passing, File, Staging, Permanent]
            .into_iter()
            .filter(|class| class.is_counted())
            .collect();
        assert_eq!(counted, [File, Staging]);
    }
}
