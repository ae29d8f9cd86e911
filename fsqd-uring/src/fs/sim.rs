//! A file system in memory, with faults on demand, and with crashes.
//!
//! It keeps two images and a journal: what every call sees, what is on stable storage, and the
//! changes between the two in order. A sync moves changes over; [`SimFs::crash`] lets a seed choose
//! how much of the rest had made it, and goes on from there with every handle invalid.
//!
//! Invariant: nothing is on stable storage that no call has asked for, and everything is that a
//! successful sync has covered.
//!
//! The model is ext4's (`ordered`): names, attributes and lengths become durable in the order they
//! were made, any sync takes all earlier ones along, and with them data that was written O_DIRECT
//! (the flush before the journal's commit block covers it); buffered data needs a sync of its own
//! file. Without `ordered` a sync covers the one file or the one directory and nothing else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

pub use self::faults::Operation;
use self::image::{BLOCK_BYTES, Body, Change, ROOT};
use self::state::{OpenFile, State, single};
use super::{Access, Fs, FsError, FsType, Handle, Kind, Layout, Ownership, Result, Space, Stat};
use crate::ring::FileId;

mod faults;
mod image;
mod state;

/// What the simulated file system can do.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Its size in bytes.
    pub capacity_bytes: u64,
    /// Room for the attributes of one file, bytes; ENOSPC beyond.
    pub attribute_bytes: usize,
    /// O_TMPFILE works; else EOPNOTSUPP.
    pub unnamed_files: bool,
    /// Files can have several names; else EPERM.
    pub links: bool,
    /// renameat2 with RENAME_NOREPLACE works; else EINVAL.
    pub rename_noreplace: bool,
    /// fallocate works; else EOPNOTSUPP.
    pub preallocation: bool,
    /// O_DIRECT works; else EINVAL.
    pub direct: bool,
    /// Files can have layouts; else ENOTTY.
    pub layouts: bool,
    /// Changes become durable in order, as with ext4's journal.
    pub ordered: bool,
    /// What statfs says it is.
    pub fs_type: FsType,
    /// The number of the first file opened. Give the file systems of one world ranges that do not
    /// meet, so that one ring can tell their files apart.
    pub first_file: i32,
}

impl SimConfig {
    /// A staging file system: ext4, 1 GiB.
    #[must_use]
    pub fn ext4() -> Self {
        Self {
            capacity_bytes: 1 << 30,
            attribute_bytes: 4000,
            unnamed_files: true,
            links: true,
            rename_noreplace: true,
            preallocation: true,
            direct: true,
            layouts: false,
            ordered: true,
            fs_type: FsType::EXT4,
            first_file: 1_000,
        }
    }

    /// A target: Lustre, 1 GiB.
    #[must_use]
    pub fn lustre() -> Self {
        Self {
            attribute_bytes: 65536,
            unnamed_files: false,
            rename_noreplace: false,
            preallocation: false,
            layouts: true,
            ordered: false,
            fs_type: FsType::LUSTRE,
            first_file: 1_000_000,
            ..Self::ext4()
        }
    }
}

/// Where the layout of a file is kept, in words.
pub const LAYOUT_ATTRIBUTE: &str = "lustre.lov";

#[derive(Debug)]
struct World {
    state: Mutex<State>,
    changed: Condvar,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of another test thread does not make the model wrong: changes are applied whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The simulated file system; clones are the same one.
#[derive(Clone, Debug)]
pub struct SimFs {
    world: Arc<World>,
}

/// An open file or directory of a [`SimFs`].
#[derive(Debug)]
pub struct SimNode {
    world: Arc<World>,
    file: FileId,
}

impl Handle for SimNode {
    fn id(&self) -> FileId {
        self.file
    }
}

impl Drop for SimNode {
    fn drop(&mut self) {
        self.world.state().close(self.file);
    }
}

/// Faults, crashes, and what tests want to look at.
impl SimFs {
    /// An empty file system.
    #[must_use]
    pub fn new(config: SimConfig) -> Self {
        Self {
            world: Arc::new(World {
                state: Mutex::new(State::new(config)),
                changed: Condvar::new(),
            }),
        }
    }

    /// Lets the `nth` next call of `operation` (1: the very next) fail with `errno`.
    pub fn fail_nth(&self, operation: Operation, nth: u64, errno: Errno) {
        self.world.state().faults.fail_nth(operation, nth, errno);
    }

    /// Lets the call with this number (counted as [`Self::operations`]) fail with `errno`.
    pub fn fail_at(&self, index: u64, errno: Errno) {
        self.world.state().faults.fail_at(index, errno);
    }

    /// Lets every call of `operation` fail with `errno` from now on.
    pub fn fail_always(&self, operation: Operation, errno: Errno) {
        self.world.state().faults.fail_always(operation, errno);
    }

    /// Lets one call in `one_in` fail, with one of `errnos`, as `seed` draws them.
    ///
    /// # Panics
    /// If `one_in` is 0 or `errnos` is empty.
    pub fn fail_randomly(&self, seed: u64, one_in: u64, errnos: &[Errno]) {
        self.world.state().faults.draw(seed, one_in, errnos);
    }

    /// From the call with this number on (counted as [`Self::operations`]) nothing happens any
    /// more: every call fails with ESHUTDOWN, as after a loss of power. [`Self::crash`] ends it.
    pub fn halt_at(&self, index: u64) {
        self.world.state().faults.halt_at(index);
    }

    /// Ends every scripted and drawn fault.
    pub fn clear_faults(&self) {
        self.world.state().faults.clear();
    }

    /// Calls made so far, failed ones too.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.world.state().faults.total()
    }

    /// Calls of one operation made so far, failed ones too.
    #[must_use]
    pub fn operations_of(&self, operation: Operation) -> u64 {
        self.world.state().faults.count(operation)
    }

    /// Lets every call block from now on, as a hung Lustre client does. [`Self::file_write`] and
    /// [`Self::file_read`] do not block: a ring simulator asks [`Self::is_hung`] and holds its
    /// completions back.
    pub fn hang(&self) {
        self.world.state().hung = true;
    }

    /// Lets blocked calls go on.
    pub fn release(&self) {
        self.world.state().hung = false;
        self.world.changed.notify_all();
    }

    /// Whether calls block.
    #[must_use]
    pub fn is_hung(&self) -> bool {
        self.world.state().hung
    }

    /// Waits until at least `count` calls are blocked.
    pub fn wait_for_blocked(&self, count: usize) {
        let mut state = self.world.state();
        while state.blocked < count {
            state = self.world.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The size from now on, bytes; may be less than what is used.
    pub fn set_capacity(&self, bytes: u64) {
        self.world.state().config.capacity_bytes = bytes;
    }

    /// Loses power: what no sync has covered survives or not as `seed` draws it. Every handle is
    /// invalid (EBADF), locks are gone, faults are cleared, and the counters go on.
    pub fn crash(&self, seed: u64) {
        self.world.state().crash(seed);
        self.world.changed.notify_all();
    }

    /// Whether `file` is open here.
    #[must_use]
    pub fn is_open(&self, file: FileId) -> bool {
        self.world.state().open.contains_key(&file.0)
    }

    /// Files and directories that are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.world.state().open.len()
    }

    /// The write of a ring: all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As pwrite: EBADF, EINVAL (offset or length of an O_DIRECT write), ENOSPC, or a fault.
    pub fn file_write(
        &self,
        file: FileId,
        offset: u64,
        bytes: &[u8],
    ) -> std::result::Result<u32, Errno> {
        let mut state = self.world.state();
        state.faults.enter(Operation::FileWrite)?;
        state.write(file, bytes, offset)?;
        Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    /// The read of a ring: as much as there is at `offset`; the count.
    ///
    /// # Errors
    /// As pread: EBADF, EINVAL (offset or length of an O_DIRECT read), or a fault.
    pub fn file_read(
        &self,
        file: FileId,
        offset: u64,
        into: &mut [u8],
    ) -> std::result::Result<u32, Errno> {
        let mut state = self.world.state();
        state.faults.enter(Operation::FileRead)?;
        let count = state.read(file, into, offset)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Puts a symlink under `path`, relative to the root, in a directory that exists.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn put_symlink(&self, path: &Path) {
        let mut state = self.world.state();
        let parent = path.parent().unwrap_or_else(|| Path::new(""));
        let dir = state.seen.resolve(ROOT, parent).expect("the directory exists");
        let name = path.file_name().expect("a path that ends in a name").to_owned();
        let owner = Ownership { uid: None, gid: None, mode: 0o777 };
        let inode = state.create(Body::Symlink, owner).expect("there is room");
        state.commit(Change::Link { dir, name, inode });
        state.sync_all();
    }

    /// The whole content of the file under `path`, relative to the root.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.world.state();
        let content = state.seen.content(state.seen.resolve(ROOT, path).ok()?).ok()?;
        let mut bytes = vec![0; usize::try_from(content.len()).ok()?];
        content.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Every path there is, relative to the root, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<(PathBuf, Kind)> {
        let state = self.world.state();
        let mut paths = Vec::new();
        let mut directories = vec![(PathBuf::new(), ROOT)];
        while let Some((path, dir)) = directories.pop() {
            for (name, &inode) in state.seen.directory(dir).into_iter().flatten() {
                let path = path.join(name);
                let Ok(node) = state.seen.inode(inode) else { continue };
                if node.kind() == Kind::Directory {
                    directories.push((path.clone(), inode));
                }
                paths.push((path, node.kind()));
            }
        }
        paths.sort_by(|a, b| a.0.cmp(&b.0));
        paths
    }

    /// Counts a call, lets it hang or fail, and runs it.
    fn call<T>(
        &self,
        operation: Operation,
        f: impl FnOnce(&mut State) -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        let mut state = self.world.state();
        while state.hung {
            state.blocked += 1;
            self.world.changed.notify_all();
            state = self.world.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.blocked -= 1;
        }
        let result = state.faults.enter(operation).and_then(|()| f(&mut state));
        result.map_err(|errno| FsError { call: operation.call(), errno })
    }

    fn node(&self, file: std::result::Result<FileId, FsError>) -> Result<SimNode> {
        file.map(|file| SimNode { world: Arc::clone(&self.world), file })
    }
}

impl Fs for SimFs {
    type Node = SimNode;

    /// Every absolute path begins at the one root, which is `/`.
    fn open_root(&self, path: &Path) -> Result<SimNode> {
        self.node(self.call(Operation::OpenRoot, |state| {
            let rel = path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
            state.directory(ROOT, rel, None, false)
        }))
    }

    fn directory(
        &self,
        root: &SimNode,
        rel: &Path,
        create: Option<Ownership>,
        durable: bool,
    ) -> Result<SimNode> {
        self.node(self.call(Operation::Directory, |state| {
            let root = state.inode_of(root.file)?;
            state.directory(root, rel, create, durable)
        }))
    }

    fn create_unnamed(&self, dir: &SimNode, owner: Ownership, direct: bool) -> Result<SimNode> {
        self.node(self.call(Operation::CreateUnnamed, |state| {
            state.seen.directory(state.inode_of(dir.file)?)?;
            if !state.config.unnamed_files {
                return Err(Errno::OPNOTSUPP);
            }
            state.create_file(owner, direct).map(|(_, file)| file)
        }))
    }

    fn create_named(
        &self,
        dir: &SimNode,
        name: &Path,
        owner: Ownership,
        direct: bool,
    ) -> Result<SimNode> {
        self.node(self.call(Operation::CreateNamed, |state| {
            let (dir, name) = (state.inode_of(dir.file)?, single(name)?);
            state.free_name(dir, name)?;
            let (inode, file) = state.create_file(owner, direct)?;
            state.commit(Change::Link { dir, name: name.to_owned(), inode });
            Ok(file)
        }))
    }

    /// As Lustre's library does it: a file, and then its layout. What a failure of the second step
    /// leaves behind, stays.
    fn create_laid_out(
        &self,
        dir: &SimNode,
        name: &Path,
        owner: Ownership,
        layout: &Layout,
    ) -> Result<SimNode> {
        let node = self.create_named(dir, name, owner, false)?;
        self.call(Operation::SetLayout, |state| {
            if !state.config.layouts {
                return Err(Errno::NOTTY);
            }
            let inode = state.inode_of(node.file)?;
            state.set_attribute(inode, LAYOUT_ATTRIBUTE, layout.to_string().as_bytes())
        })?;
        Ok(node)
    }

    fn open(&self, dir: &SimNode, rel: &Path, access: Access) -> Result<SimNode> {
        self.node(self.call(Operation::Open, |state| {
            let dir = state.inode_of(dir.file)?;
            state.open_existing(dir, rel, access)
        }))
    }

    fn publish_unnamed(&self, file: &SimNode, dir: &SimNode, name: &Path) -> Result<()> {
        self.call(Operation::PublishUnnamed, |state| {
            let (inode, dir) = (state.inode_of(file.file)?, state.inode_of(dir.file)?);
            let name = single(name)?;
            state.seen.content(inode)?;
            state.free_name(dir, name)?;
            state.commit(Change::Link { dir, name: name.to_owned(), inode });
            Ok(())
        })
    }

    fn link(&self, dir: &SimNode, from: &Path, number: u64, to: &Path) -> Result<()> {
        self.call(Operation::Link, |state| {
            if !state.config.links {
                return Err(Errno::PERM);
            }
            let (dir, from, to) = (state.inode_of(dir.file)?, single(from)?, single(to)?);
            let inode = state.named(dir, from)?;
            if state.seen.stat(inode)?.inode != number {
                return Err(Errno::STALE);
            }
            if state.seen.inode(inode)?.kind() == Kind::Directory {
                return Err(Errno::PERM);
            }
            state.free_name(dir, to)?;
            state.commit(Change::Link { dir, name: to.to_owned(), inode });
            Ok(())
        })
    }

    fn rename_noreplace(&self, dir: &SimNode, from: &Path, to: &Path) -> Result<()> {
        self.call(Operation::RenameNoreplace, |state| {
            if !state.config.rename_noreplace {
                return Err(Errno::INVAL);
            }
            let (dir, from, to) = (state.inode_of(dir.file)?, single(from)?, single(to)?);
            state.named(dir, from)?;
            state.free_name(dir, to)?;
            state.commit(Change::Rename { dir, from: from.to_owned(), to: to.to_owned() });
            Ok(())
        })
    }

    fn remove(&self, dir: &SimNode, name: &Path) -> Result<()> {
        self.call(Operation::Remove, |state| {
            let (dir, name) = (state.inode_of(dir.file)?, single(name)?);
            let inode = state.named(dir, name)?;
            if state.seen.inode(inode)?.kind() == Kind::Directory {
                return Err(Errno::ISDIR);
            }
            state.commit(Change::Unlink { dir, name: name.to_owned() });
            state.free_if_unused(inode);
            Ok(())
        })
    }

    fn remove_directory(&self, dir: &SimNode, name: &Path) -> Result<()> {
        self.call(Operation::RemoveDirectory, |state| {
            let (dir, name) = (state.inode_of(dir.file)?, single(name)?);
            if !state.seen.directory(state.named(dir, name)?)?.is_empty() {
                return Err(Errno::NOTEMPTY);
            }
            state.commit(Change::Unlink { dir, name: name.to_owned() });
            Ok(())
        })
    }

    fn entries(&self, dir: &SimNode) -> Result<Vec<(OsString, Kind)>> {
        self.call(Operation::Entries, |state| {
            let entries = state.seen.directory(state.inode_of(dir.file)?)?;
            let kind = |inode| Ok(state.seen.inode(inode)?.kind());
            entries.iter().map(|(name, &inode)| Ok((name.clone(), kind(inode)?))).collect()
        })
    }

    fn stat(&self, node: &SimNode) -> Result<Stat> {
        self.call(Operation::Stat, |state| state.seen.stat(state.inode_of(node.file)?))
    }

    fn stat_at(&self, dir: &SimNode, rel: &Path) -> Result<Stat> {
        self.call(Operation::StatAt, |state| {
            let dir = state.inode_of(dir.file)?;
            state.seen.stat(state.seen.resolve(dir, rel)?)
        })
    }

    fn attribute(&self, node: &SimNode, name: &str) -> Result<Option<Vec<u8>>> {
        self.call(Operation::Attribute, |state| {
            let inode = state.seen.inode(state.inode_of(node.file)?)?;
            Ok(inode.attributes.get(name).cloned())
        })
    }

    fn set_attribute(&self, node: &SimNode, name: &str, value: &[u8]) -> Result<()> {
        self.call(Operation::SetAttribute, |state| {
            let inode = state.inode_of(node.file)?;
            state.set_attribute(inode, name, value)
        })
    }

    fn set_ownership(&self, node: &SimNode, owner: Ownership) -> Result<()> {
        self.call(Operation::SetOwnership, |state| {
            let inode = state.inode_of(node.file)?;
            state.commit(Change::Owner { inode, owner });
            Ok(())
        })
    }

    fn set_len(&self, node: &SimNode, len: u64) -> Result<()> {
        self.call(Operation::SetLen, |state| {
            let &OpenFile { inode, writable, .. } = state.handle(node.file)?;
            state.seen.content(inode)?;
            if !writable {
                return Err(Errno::INVAL);
            }
            state.commit(Change::SetLen { inode, len });
            Ok(())
        })
    }

    fn allocate(&self, node: &SimNode, offset: u64, len: u64) -> Result<()> {
        self.call(Operation::Allocate, |state| state.allocate(node.file, offset, len))
    }

    fn set_direct(&self, node: &SimNode, direct: bool) -> Result<()> {
        self.call(Operation::SetDirect, |state| {
            if direct && !state.config.direct {
                return Err(Errno::INVAL);
            }
            state.open.get_mut(&node.file.0).ok_or(Errno::BADF)?.direct = direct;
            Ok(())
        })
    }

    fn write_all_at(&self, node: &SimNode, bytes: &[u8], offset: u64) -> Result<()> {
        self.call(Operation::WriteAllAt, |state| {
            let direct = state.handle(node.file)?.direct;
            if direct && !(bytes.as_ptr().addr() as u64).is_multiple_of(BLOCK_BYTES) {
                return Err(Errno::INVAL);
            }
            state.write(node.file, bytes, offset)
        })
    }

    fn read_at(&self, node: &SimNode, bytes: &mut [u8], offset: u64) -> Result<usize> {
        self.call(Operation::ReadAt, |state| {
            let direct = state.handle(node.file)?.direct;
            if direct && !(bytes.as_ptr().addr() as u64).is_multiple_of(BLOCK_BYTES) {
                return Err(Errno::INVAL);
            }
            state.read(node.file, bytes, offset)
        })
    }

    fn sync(&self, node: &SimNode) -> Result<()> {
        self.call(Operation::Sync, |state| {
            let inode = state.inode_of(node.file)?;
            state.sync(inode);
            Ok(())
        })
    }

    fn sync_all(&self, node: &SimNode) -> Result<()> {
        self.call(Operation::SyncAll, |state| {
            state.inode_of(node.file)?;
            state.sync_all();
            Ok(())
        })
    }

    fn space(&self, node: &SimNode) -> Result<Space> {
        self.call(Operation::Space, |state| {
            state.inode_of(node.file)?;
            let used = state.seen.used_blocks() * BLOCK_BYTES;
            let total_bytes = state.config.capacity_bytes;
            Ok(Space { total_bytes, available_bytes: total_bytes.saturating_sub(used) })
        })
    }

    fn fs_type(&self, node: &SimNode) -> Result<FsType> {
        self.call(Operation::FsType, |state| {
            state.inode_of(node.file)?;
            Ok(state.config.fs_type)
        })
    }

    fn lock(&self, root: &SimNode) -> Result<()> {
        self.call(Operation::Lock, |state| {
            let inode = state.inode_of(root.file)?;
            let holder = *state.locks.entry(inode).or_insert(root.file.0);
            if holder == root.file.0 { Ok(()) } else { Err(Errno::WOULDBLOCK) }
        })
    }
}
