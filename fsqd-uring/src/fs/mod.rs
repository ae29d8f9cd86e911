//! The metadata seam: names, attributes, lengths and syncs of the file systems.
//!
//! Every call may block and is made from pool threads only, never from an ingest ring's thread.
//! Two implementations: `linux` over system calls and `sim`, in memory, with scripted and seeded
//! faults. Paths are always relative to a directory handle and resolved beneath it without
//! following symlinks (openat2 RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS), so that nothing a client
//! names can leave its root.

use std::ffi::OsString;
use std::fmt::{Debug, Display, Formatter};
use std::path::Path;

use rustix::io::Errno;

use crate::ring::FileId;

pub use self::layout::Layout;
pub use self::linux::{LinuxFs, LinuxNode};

pub mod layout;
pub mod linux;
pub mod sim;
#[cfg(test)]
mod tests;

/// What a failed call was, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct FsError {
    /// The system call that failed.
    pub call: &'static str,
    /// Why.
    pub errno: Errno,
}

/// The seam's result.
pub type Result<T> = std::result::Result<T, FsError>;

/// An open file or directory; closed when dropped.
pub trait Handle: Debug + Send + Sync + 'static {
    /// The number a [`crate::ring::Ring`] of the same world knows it by.
    fn id(&self) -> FileId;
}

/// Owner and mode of what is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// User id, or `None` to leave it as it comes.
    pub uid: Option<u32>,
    /// Group id, or `None` to leave it as it comes.
    pub gid: Option<u32>,
    /// Permission bits, set exactly (no umask).
    pub mode: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: symlink, socket, device.
    Other,
}

/// The parts of `struct stat` that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub len: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Number of names.
    pub links: u64,
    /// Inode number.
    pub inode: u64,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes still available to us.
    pub available_bytes: u64,
}

/// Which kind of file system it is: `f_type` of statfs(2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FsType(pub u64);

impl FsType {
    /// ext2, ext3 and ext4 share one number.
    pub const EXT4: Self = Self(0xef53);
    /// XFS.
    pub const XFS: Self = Self(0x5846_5342);
    /// btrfs.
    pub const BTRFS: Self = Self(0x9123_683e);
    /// tmpfs.
    pub const TMPFS: Self = Self(0x0102_1994);
    /// A Lustre client.
    pub const LUSTRE: Self = Self(0x0bd0_0bd0);
}

impl Display for FsType {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::EXT4 => f.write_str("ext4"),
            Self::XFS => f.write_str("xfs"),
            Self::BTRFS => f.write_str("btrfs"),
            Self::TMPFS => f.write_str("tmpfs"),
            Self::LUSTRE => f.write_str("lustre"),
            Self(other) => write!(f, "type {other:#x}"),
        }
    }
}

impl Debug for FsType {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "FsType({self})")
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading and for changing its attributes.
    Read,
    /// The same, past the page cache (O_DIRECT): offsets, lengths and memory in multiples of 4096.
    ReadDirect,
}

/// The calls. Implementations map each to one or a few system calls and add no policy.
pub trait Fs: Send + Sync + 'static {
    /// An open file or directory.
    type Node: Handle;

    /// Opens a root directory by its absolute path (the only place where symlinks are followed).
    fn open_root(&self, path: &Path) -> Result<Self::Node>;

    /// Opens the directory `rel` beneath `root` (empty: the root itself again). With `create`,
    /// missing components are made with that ownership and synced into their parents when `durable`.
    fn directory(
        &self,
        root: &Self::Node,
        rel: &Path,
        create: Option<Ownership>,
        durable: bool,
    ) -> Result<Self::Node>;

    /// A file without a name in `dir` (O_TMPFILE), read-write; gone with the last handle unless it
    /// is published. EOPNOTSUPP where the file system cannot (Lustre).
    fn create_unnamed(
        &self,
        dir: &Self::Node,
        owner: Ownership,
        direct: bool,
    ) -> Result<Self::Node>;

    /// A new file `name` in `dir`, read-write; EEXIST if the name is taken.
    fn create_named(
        &self,
        dir: &Self::Node,
        name: &Path,
        owner: Ownership,
        direct: bool,
    ) -> Result<Self::Node>;

    /// Like [`Self::create_named`] (through the page cache), spread over the servers as `layout`
    /// says. Where that fails, an empty file may be left behind, except with EEXIST; ENOTTY where
    /// the file system knows no layouts.
    fn create_laid_out(
        &self,
        dir: &Self::Node,
        name: &Path,
        owner: Ownership,
        layout: &Layout,
    ) -> Result<Self::Node>;

    /// Opens the existing regular file `rel` beneath `dir` (several components are allowed).
    fn open(&self, dir: &Self::Node, rel: &Path, access: Access) -> Result<Self::Node>;

    /// Gives an unnamed file its name; EEXIST if taken. Never replaces.
    fn publish_unnamed(&self, file: &Self::Node, dir: &Self::Node, name: &Path) -> Result<()>;

    /// A second name `to` for the file `from` with this inode number, both in `dir`; EEXIST if
    /// taken. Never replaces. ESTALE if `from` is another file. What gets the name is the file that
    /// was looked at, also if the call is held up and `from` comes to mean another one meanwhile.
    /// EPERM or EOPNOTSUPP where the file system has no hard links.
    fn link(&self, dir: &Self::Node, from: &Path, inode: u64, to: &Path) -> Result<()>;

    /// Renames within `dir` without replacing (renameat2 RENAME_NOREPLACE), whatever `from` means
    /// when the call gets through. EINVAL where the file system cannot (Lustre).
    fn rename_noreplace(&self, dir: &Self::Node, from: &Path, to: &Path) -> Result<()>;

    /// Removes the name of a file.
    fn remove(&self, dir: &Self::Node, name: &Path) -> Result<()>;

    /// Removes an empty directory.
    fn remove_directory(&self, dir: &Self::Node, name: &Path) -> Result<()>;

    /// Names in a directory, without `.` and `..`, in no order.
    fn entries(&self, dir: &Self::Node) -> Result<Vec<(OsString, Kind)>>;

    /// What an open file is.
    fn stat(&self, node: &Self::Node) -> Result<Stat>;

    /// What stands under a name, symlinks not followed.
    fn stat_at(&self, dir: &Self::Node, rel: &Path) -> Result<Stat>;

    /// Value of an extended attribute, `None` if it is not there.
    fn attribute(&self, node: &Self::Node, name: &str) -> Result<Option<Vec<u8>>>;

    /// Sets an extended attribute.
    fn set_attribute(&self, node: &Self::Node, name: &str, value: &[u8]) -> Result<()>;

    /// Owner and mode of an open file.
    fn set_ownership(&self, node: &Self::Node, owner: Ownership) -> Result<()>;

    /// Sets the length (ftruncate).
    fn set_len(&self, node: &Self::Node, len: u64) -> Result<()>;

    /// Preallocates `len` bytes from `offset`, extending the size (fallocate mode 0).
    fn allocate(&self, node: &Self::Node, offset: u64, len: u64) -> Result<()>;

    /// Turns O_DIRECT of an open file on or off.
    fn set_direct(&self, node: &Self::Node, direct: bool) -> Result<()>;

    /// Writes all of `bytes` at `offset`, blocking.
    fn write_all_at(&self, node: &Self::Node, bytes: &[u8], offset: u64) -> Result<()>;

    /// Reads at `offset` into `bytes` until it is full or the file ends; the count.
    fn read_at(&self, node: &Self::Node, bytes: &mut [u8], offset: u64) -> Result<usize>;

    /// fsync: data and all metadata of a file, or the names of a directory.
    fn sync(&self, node: &Self::Node) -> Result<()>;

    /// syncfs: everything on the file system of `node`.
    fn sync_all(&self, node: &Self::Node) -> Result<()>;

    /// How full the file system of `node` is.
    fn space(&self, node: &Self::Node) -> Result<Space>;

    /// What kind of file system `node` is on.
    fn fs_type(&self, node: &Self::Node) -> Result<FsType>;

    /// Takes the daemon's exclusive lock on a root, held as long as the handle lives; EWOULDBLOCK
    /// if another process has it.
    fn lock(&self, root: &Self::Node) -> Result<()>;
}
