//! The sentences in which the staging service says no.
//!
//! Invariant: the errno that goes out is one that a client can act on; what only the operator can
//! act on is said as such.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::fs::FsError;
use crate::path::Quoted;
use crate::queue::record::RecordError;
use crate::refusal::Refusal;

/// What the staging file system answered when `fpath` was to be stored.
pub(super) fn fs_error(fpath: &OsStr, error: FsError) -> Refusal {
    let shown = Quoted(fpath.as_bytes());
    let FsError { call, errno } = error;
    let (errno, text) = match errno {
        Errno::LOOP | Errno::XDEV => {
            let text = format!("the path of {shown} leads through a symlink on staging");
            (Errno::ACCESS, format!("{text}; files are stored only below real directories"))
        }
        Errno::NOTDIR => {
            (errno, format!("a directory of {shown} exists on staging as a file; rename one"))
        }
        Errno::EXIST => return exists(fpath),
        Errno::NOSPC => return no_space(fpath),
        Errno::NAMETOOLONG => (errno, format!("{shown} is too long for the staging file system")),
        Errno::DQUOT => (
            errno,
            format!("{shown}: the quota of the daemon on the staging file system is used up"),
        ),
        Errno::ROFS => {
            (errno, format!("{shown}: the staging file system is read-only; tell the operator"))
        }
        Errno::MFILE | Errno::NFILE => (
            errno,
            format!("{shown}: the daemon has too many files open; try again, or tell the operator"),
        ),
        _ => (
            errno,
            format!("{shown} cannot be stored: {call} on staging: {errno}; tell the operator"),
        ),
    };
    Refusal::new(errno, text)
}

/// The attributes could not be written.
pub(super) fn record_error(fpath: &OsStr, error: &RecordError) -> Refusal {
    match error {
        RecordError::Fs { error, .. } => fs_error(fpath, *error),
        _ => Refusal::new(error.errno(), format!("{}: {error}", Quoted(fpath.as_bytes()))),
    }
}

/// The name is taken.
pub(super) fn exists(fpath: &OsStr) -> Refusal {
    let shown = Quoted(fpath.as_bytes());
    Refusal::new(Errno::EXIST, format!("{shown} exists already on staging; nothing is overwritten"))
}

/// The name is taken where the file is to go.
pub(super) fn exists_on_target(fpath: &OsStr) -> Refusal {
    let shown = Quoted(fpath.as_bytes());
    let text = format!("{shown} exists already on the target; nothing is overwritten");
    Refusal::new(Errno::EXIST, text)
}

/// Another session is sending a file under this name.
pub(super) fn being_received(fpath: &OsStr) -> Refusal {
    let shown = Quoted(fpath.as_bytes());
    Refusal::new(Errno::EXIST, format!("{shown} is being received from another session"))
}

/// The staging file system is full and stayed so.
pub(super) fn no_space(fpath: &OsStr) -> Refusal {
    let shown = Quoted(fpath.as_bytes());
    let text = format!(
        "no room for {shown}: the staging file system is full and the target takes nothing off it; \
         try again later"
    );
    Refusal::new(Errno::NOSPC, text)
}

/// The attributes do not fit.
pub(super) fn attributes_too_long(fpath: &OsStr) -> Refusal {
    let shown = Quoted(fpath.as_bytes());
    let text = format!("the names and the description of {shown} do not fit its attributes");
    Refusal::new(Errno::NAMETOOLONG, text)
}

/// A file could not be made durable.
pub(super) fn sync_failed(path: &Path, error: FsError) -> Refusal {
    let shown = Quoted(path.as_os_str().as_bytes());
    let FsError { call, errno } = error;
    let text = format!(
        "{shown} was NOT stored: {call} on staging failed ({errno}); keep it and tell the operator"
    );
    Refusal::new(Errno::IO, text)
}

/// The job names a file that the service does not have: an error of this program.
pub(super) fn unknown_file() -> Refusal {
    Refusal::new(Errno::BADF, "the staging service does not know this file any more")
}

/// Too much is waiting.
pub(super) fn busy() -> Refusal {
    Refusal::new(Errno::BUSY, "the daemon has too many requests waiting; try again")
}

/// The limit on files that are received at the same time.
pub(super) fn too_many_files(files_max: usize) -> Refusal {
    let text = format!("{files_max} files are being received already; try again");
    Refusal::new(Errno::MFILE, text)
}

/// The daemon is going down.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Errno::SHUTDOWN, "the daemon is stopping; try again when it is back")
}
