//! Files appear under their final name whole or not at all: temporary names, and the step from one
//! to the other without replacing.
//!
//! Invariant: nothing here replaces or removes a name that does not begin with [`PREFIX`].
//!
//! A temporary name is a function of the staged file alone, so whoever takes the file up after a
//! crash finds and removes what the crash left. No other temporary can remain: one is made only
//! with the ticket of its staged file in hand, and the staged file outlives it until the final name
//! is published and synced.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::fs::{Fs, FsError, Result};
use crate::queue::{Failure, FailureClass};

/// What every temporary name begins with.
pub const PREFIX: &str = ".fsq-part.";

/// The temporary name of a staged file, in the directory of its final name.
///
/// `instance` tells daemons apart that write to one target; inode and path tell apart the files of
/// one daemon, also when an inode number is used again.
#[must_use]
pub(crate) fn temporary_name(instance: u64, staging_inode: u64, staging_path: &Path) -> PathBuf {
    // FNV-1a, 64 bits: no attacker gains by a collision, since the inode is in the name as well.
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let seed = instance.to_le_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    let hash = staging_path.as_os_str().as_bytes().iter().fold(seed, fnv);
    let mut name = String::from(PREFIX);
    // Writing to a string cannot fail.
    let _ = write!(name, "{staging_inode:x}-{hash:016x}");
    PathBuf::from(OsString::from(name))
}

/// Gives files their final names, in the way that works on one file system.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    /// There are no hard links.
    renames: AtomicBool,
}

impl Publisher {
    /// Moves the closed file `temporary`, with this inode number, to `name` in the same directory.
    ///
    /// A link names the very file that was looked at. A rename takes what the temporary name means
    /// when it gets through: held up by a target that hangs, and outliving its daemon, it could show
    /// the next daemon's unfinished temporary under the final name. So it is only for file systems
    /// without links.
    ///
    /// # Errors
    /// EEXIST: the name is taken. ESTALE: the temporary is not the file it was, nothing was done.
    pub(crate) fn publish<F: Fs>(
        &self,
        fs: &F,
        directory: &F::Node,
        temporary: &Path,
        inode: u64,
        name: &Path,
    ) -> Result<()> {
        // Relaxed: each thread may find out by itself.
        if !self.renames.load(Ordering::Relaxed) {
            match fs.link(directory, temporary, inode, name) {
                // EPERM also says that a file may have only one name.
                Err(FsError { errno: Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP, .. }) => {
                    self.renames.store(true, Ordering::Relaxed);
                }
                // A second name must be gone before anybody asks the archive: it might take that one.
                result => return result.and_then(|()| remove_temporary(fs, directory, temporary)),
            }
        }
        if fs.stat_at(directory, temporary)?.inode != inode {
            return Err(FsError { call: "publish", errno: Errno::STALE });
        }
        fs.rename_noreplace(directory, temporary, name)
    }
}

/// Removes a temporary that a crash or a failed attempt may have left.
///
/// # Errors
/// As unlinkat; that there is none is no error.
pub(crate) fn remove_temporary<F: Fs>(fs: &F, directory: &F::Node, temporary: &Path) -> Result<()> {
    match fs.remove(directory, temporary) {
        Err(FsError { errno: Errno::NOENT, .. }) => Ok(()),
        result => result,
    }
}

/// Somebody else has made or removed the temporary of `name`; `None` if the error of making or of
/// publishing it says something else.
///
/// A daemon that has ended while the target hung leaves calls in the kernel, and they go on when the
/// target does: what they do to a temporary that the next daemon works on is nothing against the file.
pub(crate) fn disturbed(name: &Path, error: FsError) -> Option<Failure> {
    let touched = match error.errno {
        // That a final name is taken reads EEXIST as well, and is for the caller.
        Errno::EXIST => matches!(error.call, "openat2" | "llapi_layout_file_open"),
        // From elsewhere it is the target's. If from here, too, the next attempt will say so.
        Errno::STALE => matches!(error.call, "linkat" | "publish"),
        errno => errno == Errno::NOENT,
    };
    touched.then(|| {
        let text = format!(
            "the temporary file of {name:?} was touched by somebody else ({error}): perhaps by a call \
             of a daemon that has ended, which was held up until now"
        );
        Failure::new(FailureClass::Passing, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::{SimConfig, SimFs};
    use crate::fs::{Ownership, Stat};

    const OWNER: Ownership = Ownership { uid: None, gid: None, mode: 0o640 };

    #[test]
    fn temporary_names_differ_where_files_differ() {
        let name = |instance, inode, path: &str| temporary_name(instance, inode, Path::new(path));
        let one = name(1, 17, "a/b");
        assert_eq!(one, name(1, 17, "a/b"));
        for other in [name(2, 17, "a/b"), name(1, 18, "a/b"), name(1, 17, "a/c")] {
            assert_ne!(one, other);
        }
        assert!(one.to_str().expect("ASCII").starts_with(".fsq-part.11-"));
    }

    fn with_temporary(config: SimConfig) -> (SimFs, <SimFs as Fs>::Node, Stat) {
        let fs = SimFs::new(config);
        let root = fs.open_root(Path::new("/")).expect("a root");
        let file = fs.create_named(&root, Path::new(".fsq-part.1"), OWNER, false).expect("room");
        let stat = fs.stat(&file).expect("open");
        (fs, root, stat)
    }

    #[test]
    fn publishes_with_and_without_links_and_never_replaces() {
        let (temporary, name) = (Path::new(".fsq-part.1"), Path::new("a"));
        let without_links = SimConfig { links: false, ..SimConfig::ext4() };
        for config in [without_links, SimConfig::lustre()] {
            let publisher = Publisher::default();
            let (fs, root, stat) = with_temporary(config);
            publisher.publish(&fs, &root, temporary, stat.inode, name).expect("a free name");
            assert_eq!(fs.paths().len(), 1);
            assert_eq!(fs.stat_at(&root, name).expect("published").links, 1);
            let other = fs.create_named(&root, temporary, OWNER, false).expect("room");
            let inode = fs.stat(&other).expect("open").inode;
            let taken = publisher.publish(&fs, &root, temporary, inode, name);
            assert_eq!(taken.map_err(|error| error.errno), Err(Errno::EXIST));
            assert_eq!(fs.stat_at(&root, name).expect("there").inode, stat.inode);
            let strange = publisher.publish(&fs, &root, temporary, inode + 1, Path::new("b"));
            assert_eq!(strange.map_err(|error| error.errno), Err(Errno::STALE));
        }
    }
}
