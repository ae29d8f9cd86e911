//! [`StagingRoot`]: the staging directory, locked, and what its file system has been found to do.
//!
//! Invariant: whatever the service needs of the file system was tried here before the first file
//! comes; a thing that is missing is a start-up error with its cure and not a file lost later.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use tracing::warn;

use crate::fs::{Access, Fs, FsError, FsType, Ownership};
use crate::path::{PRIVATE_DIRECTORY, attribute_entry_bytes};

/// In the private directory: the pid of the daemon that holds the staging directory.
const LOCK_FILE: &str = "lock";
/// In the private directory: what the probes give a name to.
const PROBE_FILE: &str = "probe";
const PROBE_ATTRIBUTE: &str = "user.fsq.fpath";
/// More than the attributes of any file can take (FSQ protocol: fs, fpath and desc are bounded).
const ATTRIBUTE_BYTES_ENOUGH: usize = 8192;
const PAGE_BYTES: usize = 4096;

const PRIVATE: Ownership = Ownership { uid: None, gid: None, mode: 0o700 };
const PROBE: Ownership = Ownership { uid: None, gid: None, mode: 0o600 };

/// Why a staging directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It cannot be opened.
    #[error(
        "staging directory {}: {error}; create it, or correct --localfs",
        path.display()
    )]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: FsError,
    },
    /// Another daemon has it.
    #[error(
        "staging directory {} is in use by another fsqd{}; stop that one, or choose another \
         directory",
        path.display(),
        pid.as_deref().map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// Which one.
        path: PathBuf,
        /// The other daemon, where it is known.
        pid: Option<String>,
    },
    /// The lock itself does not work.
    #[error(
        "staging directory {} cannot be locked: {error}; use a local file system",
        path.display()
    )]
    Lock {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: FsError,
    },
    /// Nothing can be created there.
    #[error(
        "staging directory {} is not writable: {error}; check its owner, its mode, and whether it \
         is mounted read-only",
        path.display()
    )]
    NotWritable {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: FsError,
    },
    /// O_TMPFILE or giving such a file its name does not work.
    #[error(
        "staging directory {} ({fs_type}) cannot hold files without a name: {error}; use ext4 or \
         XFS (and mount /proc if the daemon does not run as root)",
        path.display()
    )]
    NoUnnamedFiles {
        /// Which one.
        path: PathBuf,
        /// What it is.
        fs_type: FsType,
        /// Why not.
        error: FsError,
    },
    /// Extended attributes do not work.
    #[error(
        "staging directory {} ({fs_type}) keeps no user extended attributes: {error}; use ext4 or \
         XFS, mounted without nouser_xattr",
        path.display()
    )]
    NoAttributes {
        /// Which one.
        path: PathBuf,
        /// What it is.
        fs_type: FsType,
        /// Why not.
        error: FsError,
    },
    /// It does not give back what was written to it, or not at all.
    #[error(
        "staging directory {} ({fs_type}) fails a write and read of 4 KiB: {reason}; check the \
         device",
        path.display()
    )]
    Broken {
        /// Which one.
        path: PathBuf,
        /// What it is.
        fs_type: FsType,
        /// What went wrong.
        reason: String,
    },
}

/// What the staging file system has been found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which kind it is.
    pub fs_type: FsType,
    /// Files can be opened O_DIRECT.
    pub direct: bool,
    /// A name is on stable storage only after the attributes and the data of its file are: ext4 and
    /// XFS with data written O_DIRECT. Else the file must be synced before it gets its name.
    pub ordered: bool,
    /// What the attributes of one file may take, in the measure of [`crate::path::attribute_bytes`];
    /// `None`: more than any file needs.
    pub attribute_bytes_max: Option<usize>,
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direct = if self.direct { "O_DIRECT" } else { "NO O_DIRECT" };
        let order = if self.ordered { "ordered" } else { "synced before named" };
        write!(f, "{} {direct}, {order}, ", self.fs_type)?;
        match self.attribute_bytes_max {
            Some(bytes) => write!(f, "{bytes} bytes of attributes a file"),
            None => f.write_str("attributes unlimited"),
        }
    }
}

/// A page of memory, aligned for O_DIRECT.
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// The staging directory, locked as long as this lives.
#[derive(Debug)]
pub struct StagingRoot<F: Fs> {
    /// The file systems.
    pub fs: Arc<F>,
    /// The directory; holds the lock.
    pub node: F::Node,
    /// Its absolute path, for messages.
    pub path: PathBuf,
    /// What its file system does.
    pub facts: Facts,
}

impl<F: Fs> StagingRoot<F> {
    /// Locks the directory for the process `pid` and tries everything that files will need.
    ///
    /// # Errors
    /// The first thing that does not work, with its cure.
    pub fn open(fs: Arc<F>, path: &Path, pid: u32) -> Result<Self, RootError> {
        let path = path.to_path_buf();
        let node = match fs.open_root(&path) {
            Ok(node) => node,
            Err(error) => return Err(RootError::Open { path, error }),
        };
        match fs.lock(&node) {
            Ok(()) => {}
            Err(FsError { errno: Errno::WOULDBLOCK, .. }) => {
                let pid = holder(&*fs, &node);
                return Err(RootError::InUse { path, pid });
            }
            Err(error) => return Err(RootError::Lock { path, error }),
        }
        let private = match prepare_private(&*fs, &node, pid) {
            Ok(private) => private,
            Err(error) => return Err(RootError::NotWritable { path, error }),
        };
        let facts = Probe { fs: &*fs, path: &path, private: &private }.run()?;
        drop(private);
        Ok(Self { fs, node, path, facts })
    }
}

/// The pid that the lock's holder has left.
fn holder<F: Fs>(fs: &F, root: &F::Node) -> Option<String> {
    let lock = Path::new(PRIVATE_DIRECTORY).join(LOCK_FILE);
    let file = fs.open(root, &lock, Access::Read).ok()?;
    let mut text = [0; 16];
    let count = fs.read_at(&file, &mut text, 0).ok()?;
    let text = std::str::from_utf8(&text[..count]).ok()?.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.to_owned())
}

/// Makes the private directory and writes the pid into the lock file. The lock itself is on the
/// root: nobody can remove that one and so have a second daemon lock a new file of the same name.
fn prepare_private<F: Fs>(fs: &F, root: &F::Node, pid: u32) -> Result<F::Node, FsError> {
    let private = fs.directory(root, Path::new(PRIVATE_DIRECTORY), Some(PRIVATE), false)?;
    let absent = |result: Result<(), FsError>| match result {
        Err(FsError { errno: Errno::NOENT, .. }) => Ok(()),
        other => other,
    };
    absent(fs.remove(&private, Path::new(LOCK_FILE)))?;
    absent(fs.remove(&private, Path::new(PROBE_FILE)))?;
    let readable = Ownership { mode: 0o644, ..PROBE };
    let lock = fs.create_named(&private, Path::new(LOCK_FILE), readable, false)?;
    fs.write_all_at(&lock, format!("{pid}\n").as_bytes(), 0)?;
    Ok(private)
}

struct Probe<'a, F: Fs> {
    fs: &'a F,
    path: &'a Path,
    private: &'a F::Node,
}

impl<F: Fs> Probe<'_, F> {
    fn run(&self) -> Result<Facts, RootError> {
        let path = || self.path.to_path_buf();
        let fs_type = self.fs.fs_type(self.private);
        let fs_type = fs_type.map_err(|error| RootError::Open { path: path(), error })?;
        let no_unnamed = |error| RootError::NoUnnamedFiles { path: path(), fs_type, error };
        let (file, direct) = self.unnamed().map_err(no_unnamed)?;
        let direct = self.data(&file, direct, fs_type)?;
        let attribute_bytes_max = self
            .attribute_bytes_max(&file)
            .map_err(|error| RootError::NoAttributes { path: path(), fs_type, error })?;
        let name = Path::new(PROBE_FILE);
        let named = self.fs.publish_unnamed(&file, self.private, name);
        named.and_then(|()| self.fs.remove(self.private, name)).map_err(no_unnamed)?;
        let journal = matches!(fs_type, FsType::EXT4 | FsType::XFS);
        Ok(Facts { fs_type, direct, ordered: journal && direct, attribute_bytes_max })
    }

    /// An unnamed file, O_DIRECT where that can be had.
    fn unnamed(&self) -> Result<(F::Node, bool), FsError> {
        match self.fs.create_unnamed(self.private, PROBE, true) {
            Ok(file) => Ok((file, true)),
            Err(FsError { errno: Errno::INVAL, .. }) => {
                self.fs.create_unnamed(self.private, PROBE, false).map(|file| (file, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes and reads a page as ingest does. Whether O_DIRECT is to be used.
    fn data(&self, file: &F::Node, direct: bool, fs_type: FsType) -> Result<bool, RootError> {
        let broken = |reason| RootError::Broken { path: self.path.to_path_buf(), fs_type, reason };
        let failed = |error: FsError| broken(error.to_string());
        let page = Box::new(Page([0x5a; PAGE_BYTES]));
        let mut back = Box::new(Page([0; PAGE_BYTES]));
        let direct = direct
            && match self.fs.write_all_at(file, &page.0, PAGE_BYTES as u64) {
                Ok(()) => true,
                Err(FsError { errno: Errno::INVAL, .. }) => {
                    self.fs.set_direct(file, false).map_err(failed)?;
                    false
                }
                Err(error) => return Err(failed(error)),
            };
        if !direct {
            warn!(
                "the staging file system ({fs_type}) does not take O_DIRECT writes of 4 KiB: \
                 files go through the page cache, which is slower and takes memory"
            );
            self.fs.write_all_at(file, &page.0, PAGE_BYTES as u64).map_err(failed)?;
        }
        let count = self.fs.read_at(file, &mut back.0, PAGE_BYTES as u64).map_err(failed)?;
        if count != PAGE_BYTES || back.0 != page.0 {
            return Err(broken("it gives back something else than was written".to_owned()));
        }
        Ok(direct)
    }

    /// Finds the longest value that an attribute can have, by halving.
    fn attribute_bytes_max(&self, file: &F::Node) -> Result<Option<usize>, FsError> {
        let value = vec![b'x'; ATTRIBUTE_BYTES_ENOUGH];
        let fits = |len| match self.fs.set_attribute(file, PROBE_ATTRIBUTE, &value[..len]) {
            Ok(()) => Ok(true),
            // ENOSPC: ext4; E2BIG: the limit of the kernel; ERANGE: older XFS.
            Err(FsError { errno: Errno::NOSPC | Errno::TOOBIG | Errno::RANGE, .. }) => Ok(false),
            Err(error) => Err(error),
        };
        if fits(ATTRIBUTE_BYTES_ENOUGH)? {
            return Ok(None);
        }
        let (mut short, mut long) = (0, ATTRIBUTE_BYTES_ENOUGH);
        while long - short > 1 {
            let middle = short.midpoint(long);
            if fits(middle)? { short = middle } else { long = middle }
        }
        let name_bytes = PROBE_ATTRIBUTE.len() - "user.".len();
        Ok(Some(attribute_entry_bytes(name_bytes, short)))
    }
}
