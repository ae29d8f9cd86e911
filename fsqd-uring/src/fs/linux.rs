//! The file systems of this machine, through system calls.
//!
//! Invariant: no call leaves the directory it was given, and none follows a symlink; what stands in
//! the way surfaces as the kernel says it (ELOOP for a symlink, EXDEV for a way out). Calls that
//! take one name, and that the kernel would resolve without those guards (unlinkat, linkat and the
//! like), refuse anything but a single plain component.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, Dir, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags,
    ResolveFlags, Uid, XattrFlags,
};
use rustix::io::{Errno, retry_on_intr};

use super::layout::{self, Layout};
use super::{Access, Fs, FsError, FsType, Handle, Kind, Ownership, Result, Space, Stat};
use crate::ring::FileId;

/// How often openat2 is tried again after EAGAIN: it says so when a rename somewhere on the machine
/// raced with the walk, so a handful of times is already unlikely.
const RACES_MAX: u32 = 64;

/// The kernel's own bound on the value of an extended attribute (XATTR_SIZE_MAX), bytes.
const ATTRIBUTE_BYTES_MAX: usize = 65536;

/// First guess at the size of an attribute, bytes; all of the queue's attributes fit.
const ATTRIBUTE_BYTES_USUAL: usize = 4096;

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxFs;

/// An open file or directory of this machine.
#[derive(Debug)]
pub struct LinuxNode {
    fd: OwnedFd,
}

impl AsFd for LinuxNode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Handle for LinuxNode {
    fn id(&self) -> FileId {
        FileId(self.fd.as_raw_fd())
    }
}

fn wrap<T>(call: &'static str, result: rustix::io::Result<T>) -> Result<T> {
    result.map_err(|errno| FsError { call, errno })
}

/// Runs a system call again as long as a signal interrupts it.
fn call<T>(name: &'static str, f: impl FnMut() -> rustix::io::Result<T>) -> Result<T> {
    wrap(name, retry_on_intr(f))
}

fn open_beneath(
    dir: BorrowedFd<'_>,
    rel: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let rel = if rel.as_os_str().is_empty() { Path::new(".") } else { rel };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut races = 0;
    loop {
        match rustix::fs::openat2(dir, rel, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if races < RACES_MAX => races += 1,
            done => return done,
        }
    }
}

/// The one component that `name` must consist of.
fn single<'a>(call: &'static str, name: &'a Path) -> Result<&'a Path> {
    let mut components = name.components();
    let plain = match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) => only.len() == name.as_os_str().len(),
        _ => false,
    };
    if plain { Ok(name) } else { Err(FsError { call, errno: Errno::INVAL }) }
}

fn open_directory(dir: BorrowedFd<'_>, rel: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    wrap("openat2", open_beneath(dir, rel, flags, Mode::empty()))
}

fn set_ownership(fd: BorrowedFd<'_>, owner: Ownership) -> Result<()> {
    if owner.uid.is_some() || owner.gid.is_some() {
        let uid = owner.uid.map(Uid::from_raw);
        let gid = owner.gid.map(Gid::from_raw);
        call("fchown", || rustix::fs::fchown(fd, uid, gid))?;
    }
    // After the chown, which clears the set-id bits; exact, whatever the umask.
    call("fchmod", || rustix::fs::fchmod(fd, Mode::from_raw_mode(owner.mode)))
}

/// Makes one directory. `true`: it is ours; `false`: somebody was faster.
fn make_directory(dir: BorrowedFd<'_>, name: &Path, owner: Ownership) -> Result<bool> {
    let mode = Mode::from_raw_mode(owner.mode);
    match retry_on_intr(|| rustix::fs::mkdirat(dir, name, mode)) {
        Err(Errno::EXIST) => return Ok(false),
        result => wrap("mkdirat", result)?,
    }
    let owned = open_directory(dir, name).and_then(|made| set_ownership(made.as_fd(), owner));
    if let Err(error) = owned {
        // A directory with the wrong owner would later pass for an existing one.
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        return Err(error);
    }
    Ok(true)
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        _ => Kind::Other,
    }
}

fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        kind: kind(FileType::from_raw_mode(stat.st_mode)),
        len: u64::try_from(stat.st_size).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        links: stat.st_nlink as _,
        inode: stat.st_ino,
    }
}

/// A handle that names a file and can neither read nor write it.
fn open_path(dir: &LinuxNode, rel: &Path) -> Result<OwnedFd> {
    // With both flags a symlink at the end is opened itself, also under NO_SYMLINKS.
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    wrap("openat2", open_beneath(dir.as_fd(), rel, flags, Mode::empty()))
}

/// Gives an open file a name.
fn link_open(file: BorrowedFd<'_>, dir: &LinuxNode, name: &Path) -> Result<()> {
    let name = single("linkat", name)?;
    match retry_on_intr(|| rustix::fs::linkat(file, "", dir, name, AtFlags::EMPTY_PATH)) {
        // Before 6.10 the empty path needs CAP_DAC_READ_SEARCH, and its lack reads ENOENT.
        Err(Errno::NOENT) => {}
        result => return wrap("linkat", result),
    }
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = AtFlags::SYMLINK_FOLLOW;
    call("linkat", || rustix::fs::linkat(CWD, by_number.as_str(), dir, name, flags))
}

impl Fs for LinuxFs {
    type Node = LinuxNode;

    fn open_root(&self, path: &Path) -> Result<LinuxNode> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = call("openat", || rustix::fs::openat(CWD, path, flags, Mode::empty()))?;
        Ok(LinuxNode { fd })
    }

    fn directory(
        &self,
        root: &LinuxNode,
        rel: &Path,
        create: Option<Ownership>,
        durable: bool,
    ) -> Result<LinuxNode> {
        let whole = open_directory(root.as_fd(), rel);
        let (Err(FsError { errno: Errno::NOENT, .. }), Some(owner)) = (&whole, create) else {
            return whole.map(|fd| LinuxNode { fd });
        };
        let mut at = open_directory(root.as_fd(), Path::new(""))?;
        for component in rel.components() {
            let name = match component {
                Component::Normal(name) => Path::new(name),
                Component::CurDir => continue,
                // What openat2 with RESOLVE_BENEATH answers to the same.
                _ => return Err(FsError { call: "openat2", errno: Errno::XDEV }),
            };
            at = match open_directory(at.as_fd(), name) {
                Err(FsError { errno: Errno::NOENT, .. }) => {
                    make_directory(at.as_fd(), name, owner)?;
                    if durable {
                        // Also when another thread made it: it may not have come to its sync yet.
                        call("fsync", || rustix::fs::fsync(&at))?;
                    }
                    open_directory(at.as_fd(), name)?
                }
                opened => opened?,
            };
        }
        Ok(LinuxNode { fd: at })
    }

    fn create_unnamed(&self, dir: &LinuxNode, owner: Ownership, direct: bool) -> Result<LinuxNode> {
        let mut flags = OFlags::RDWR | OFlags::TMPFILE;
        flags.set(OFlags::DIRECT, direct);
        let mode = Mode::from_raw_mode(owner.mode);
        let fd = wrap("openat2", open_beneath(dir.as_fd(), Path::new("."), flags, mode))?;
        set_ownership(fd.as_fd(), owner)?;
        Ok(LinuxNode { fd })
    }

    fn create_named(
        &self,
        dir: &LinuxNode,
        name: &Path,
        owner: Ownership,
        direct: bool,
    ) -> Result<LinuxNode> {
        let name = single("openat2", name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(owner.mode);
        let fd = wrap("openat2", open_beneath(dir.as_fd(), name, flags, mode))?;
        let node = LinuxNode { fd };
        // O_DIRECT only now: open checks it after it has created the file, and after its EINVAL it
        // could not be told whose file stands there.
        let ready = set_ownership(node.as_fd(), owner)
            .and_then(|()| if direct { self.set_direct(&node, true) } else { Ok(()) });
        if let Err(error) = ready {
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
            return Err(error);
        }
        Ok(node)
    }

    fn create_laid_out(
        &self,
        dir: &LinuxNode,
        name: &Path,
        owner: Ownership,
        layout: &Layout,
    ) -> Result<LinuxNode> {
        let name = single("llapi_layout_file_open", name)?;
        // Lustre's library takes nothing but paths. This one goes through the open directory,
        // whatever stands under the directory's own path by now, and ends in one plain component,
        // which O_EXCL does not follow if it is a symlink: like openat2 beneath the handle.
        let path = format!("/proc/self/fd/{}", dir.fd.as_raw_fd());
        let fd = layout::create_file(&Path::new(&path).join(name), owner.mode, layout)?;
        let node = LinuxNode { fd };
        if let Err(error) = set_ownership(node.as_fd(), owner) {
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
            return Err(error);
        }
        Ok(node)
    }

    fn open(&self, dir: &LinuxNode, rel: &Path, access: Access) -> Result<LinuxNode> {
        // O_NONBLOCK so that a FIFO under the name cannot hold the thread.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = wrap("openat2", open_beneath(dir.as_fd(), rel, flags, Mode::empty()))?;
        let stat = call("fstat", || rustix::fs::fstat(&fd))?;
        match kind(FileType::from_raw_mode(stat.st_mode)) {
            Kind::File => {}
            Kind::Directory => return Err(FsError { call: "openat2", errno: Errno::ISDIR }),
            Kind::Other => return Err(FsError { call: "openat2", errno: Errno::INVAL }),
        }
        // Sets all flags anew: without O_NONBLOCK, which would keep io_uring from waiting for the
        // data.
        let mut flags = OFlags::empty();
        flags.set(OFlags::DIRECT, access == Access::ReadDirect);
        call("fcntl", || rustix::fs::fcntl_setfl(&fd, flags))?;
        Ok(LinuxNode { fd })
    }

    fn publish_unnamed(&self, file: &LinuxNode, dir: &LinuxNode, name: &Path) -> Result<()> {
        link_open(file.as_fd(), dir, name)
    }

    fn link(&self, dir: &LinuxNode, from: &Path, inode: u64, to: &Path) -> Result<()> {
        let from = single("linkat", from)?;
        // No handle that could write: on Lustre it would mark the file dirty.
        let file = open_path(dir, from)?;
        let stat = call("fstat", || rustix::fs::fstat(&file))?;
        if stat.st_ino != inode {
            return Err(FsError { call: "linkat", errno: Errno::STALE });
        }
        link_open(file.as_fd(), dir, to)
    }

    fn rename_noreplace(&self, dir: &LinuxNode, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (single("renameat2", from)?, single("renameat2", to)?);
        let flags = RenameFlags::NOREPLACE;
        call("renameat2", || rustix::fs::renameat_with(dir, from, dir, to, flags))
    }

    fn remove(&self, dir: &LinuxNode, name: &Path) -> Result<()> {
        let name = single("unlinkat", name)?;
        call("unlinkat", || rustix::fs::unlinkat(dir, name, AtFlags::empty()))
    }

    fn remove_directory(&self, dir: &LinuxNode, name: &Path) -> Result<()> {
        let name = single("unlinkat", name)?;
        call("unlinkat", || rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
    }

    fn entries(&self, dir: &LinuxNode) -> Result<Vec<(OsString, Kind)>> {
        let mut entries = Vec::new();
        for entry in wrap("openat", Dir::read_from(dir))? {
            let entry = wrap("getdents64", entry)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsString::from_vec(name.to_vec());
            let kind = match entry.file_type() {
                // Not every file system tells (d_type of getdents64).
                FileType::Unknown => match self.stat_at(dir, Path::new(&name)) {
                    Ok(stat) => stat.kind,
                    Err(FsError { errno: Errno::NOENT, .. }) => continue,
                    Err(error) => return Err(error),
                },
                known => kind(known),
            };
            entries.push((name, kind));
        }
        Ok(entries)
    }

    fn stat(&self, node: &LinuxNode) -> Result<Stat> {
        call("fstat", || rustix::fs::fstat(node)).map(|stat| stat_of(&stat))
    }

    fn stat_at(&self, dir: &LinuxNode, rel: &Path) -> Result<Stat> {
        let fd = open_path(dir, rel)?;
        call("fstat", || rustix::fs::fstat(&fd)).map(|stat| stat_of(&stat))
    }

    fn attribute(&self, node: &LinuxNode, name: &str) -> Result<Option<Vec<u8>>> {
        let mut bytes = ATTRIBUTE_BYTES_USUAL;
        loop {
            let mut value = vec![0; bytes];
            match retry_on_intr(|| rustix::fs::fgetxattr(node, name, value.as_mut_slice())) {
                Ok(len) => {
                    value.truncate(len);
                    return Ok(Some(value));
                }
                Err(Errno::NODATA) => return Ok(None),
                Err(Errno::RANGE) if bytes < ATTRIBUTE_BYTES_MAX => bytes = ATTRIBUTE_BYTES_MAX,
                Err(errno) => return Err(FsError { call: "fgetxattr", errno }),
            }
        }
    }

    fn set_attribute(&self, node: &LinuxNode, name: &str, value: &[u8]) -> Result<()> {
        call("fsetxattr", || rustix::fs::fsetxattr(node, name, value, XattrFlags::empty()))
    }

    fn set_ownership(&self, node: &LinuxNode, owner: Ownership) -> Result<()> {
        set_ownership(node.as_fd(), owner)
    }

    fn set_len(&self, node: &LinuxNode, len: u64) -> Result<()> {
        call("ftruncate", || rustix::fs::ftruncate(node, len))
    }

    fn allocate(&self, node: &LinuxNode, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::empty();
        call("fallocate", || rustix::fs::fallocate(node, flags, offset, len))
    }

    fn set_direct(&self, node: &LinuxNode, direct: bool) -> Result<()> {
        let mut flags = call("fcntl", || rustix::fs::fcntl_getfl(node))?;
        flags.set(OFlags::DIRECT, direct);
        call("fcntl", || rustix::fs::fcntl_setfl(node, flags))
    }

    fn write_all_at(&self, node: &LinuxNode, bytes: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            match call("pwrite", || rustix::io::pwrite(node, &bytes[done..], at))? {
                0 => return Err(FsError { call: "pwrite", errno: Errno::IO }),
                count => done += count,
            }
        }
        Ok(())
    }

    fn read_at(&self, node: &LinuxNode, bytes: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            match retry_on_intr(|| rustix::io::pread(node, &mut bytes[done..], at)) {
                Ok(0) => break,
                Ok(count) => done += count,
                // O_DIRECT: a short count that is no multiple of a sector ends at the file's end.
                Err(Errno::INVAL) if done % 512 != 0 => break,
                Err(errno) => return Err(FsError { call: "pread", errno }),
            }
        }
        Ok(done)
    }

    fn sync(&self, node: &LinuxNode) -> Result<()> {
        call("fsync", || rustix::fs::fsync(node))
    }

    fn sync_all(&self, node: &LinuxNode) -> Result<()> {
        call("syncfs", || rustix::fs::syncfs(node))
    }

    fn space(&self, node: &LinuxNode) -> Result<Space> {
        let space = call("fstatvfs", || rustix::fs::fstatvfs(node))?;
        Ok(Space {
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
            // Without the blocks reserved for root: the daemon may run as root, but must not
            // take the last of a file system.
            available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        })
    }

    fn fs_type(&self, node: &LinuxNode) -> Result<FsType> {
        let stat = call("fstatfs", || rustix::fs::fstatfs(node))?;
        // The kernel's field is signed; the numbers are 32 bits wide.
        Ok(FsType(stat.f_type as u64 & 0xffff_ffff))
    }

    fn lock(&self, root: &LinuxNode) -> Result<()> {
        // By open file description, so it ends with the handle, also on a crash.
        call("flock", || rustix::fs::flock(root, FlockOperation::NonBlockingLockExclusive))
    }
}
