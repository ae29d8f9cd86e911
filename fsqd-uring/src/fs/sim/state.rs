//! [`State`]: the two images of a simulated file system, the journal between them, and the table of
//! open files.
//!
//! Invariant: the image that is seen equals the durable one with the journal applied.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path};

use rustix::io::Errno;

use super::SimConfig;
use super::faults::{Faults, Random};
use super::image::{BLOCK_BYTES, Body, Change, Content, Image, Inode, InodeId, ROOT};
use crate::fs::{Access, Ownership};
use crate::ring::FileId;

type Result<T> = std::result::Result<T, Errno>;

#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) inode: InodeId,
    pub(super) direct: bool,
    pub(super) writable: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) config: SimConfig,
    pub(super) seen: Image,
    pub(super) durable: Image,
    /// Changes that are seen and not yet durable, oldest first.
    pub(super) journal: Vec<Change>,
    pub(super) open: BTreeMap<i32, OpenFile>,
    pub(super) locks: BTreeMap<InodeId, i32>,
    pub(super) next_file: i32,
    pub(super) next_inode: InodeId,
    pub(super) faults: Faults,
    pub(super) hung: bool,
    pub(super) blocked: usize,
}

/// The one component that `name` must consist of.
pub(super) fn single(name: &Path) -> Result<&OsStr> {
    let mut components = name.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only.len() > 255 => Err(Errno::NAMETOOLONG),
        (Some(Component::Normal(only)), None) if only.len() == name.as_os_str().len() => Ok(only),
        _ => Err(Errno::INVAL),
    }
}

impl State {
    pub(super) fn new(config: SimConfig) -> Self {
        Self {
            next_file: config.first_file,
            config,
            seen: Image::new(),
            durable: Image::new(),
            journal: Vec::new(),
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            next_inode: ROOT + 1,
            faults: Faults::default(),
            hung: false,
            blocked: 0,
        }
    }

    pub(super) fn commit(&mut self, change: Change) {
        self.seen.apply(&change);
        if let Change::SetLen { inode, len } = change {
            self.forget_unwritten(inode, len);
        }
        self.journal.push(change);
    }

    /// Buffered data that a truncation has dropped will never be written.
    fn forget_unwritten(&mut self, file: InodeId, len: u64) {
        for change in &mut self.journal {
            if let Change::Write { inode, blocks, end, direct: false } = change
                && *inode == file
            {
                blocks.retain(|&(index, _)| index < len.div_ceil(BLOCK_BYTES));
                *end = (*end).min(len);
            }
        }
    }

    fn room_for(&self, blocks: u64) -> Result<()> {
        let capacity = self.config.capacity_bytes / BLOCK_BYTES;
        let fits = blocks == 0 || self.seen.used_blocks() + blocks <= capacity;
        if fits { Ok(()) } else { Err(Errno::NOSPC) }
    }

    pub(super) fn handle(&self, file: FileId) -> Result<&OpenFile> {
        self.open.get(&file.0).ok_or(Errno::BADF)
    }

    pub(super) fn inode_of(&self, file: FileId) -> Result<InodeId> {
        self.handle(file).map(|open| open.inode)
    }

    fn open(&mut self, inode: InodeId, direct: bool, writable: bool) -> FileId {
        let file = self.next_file;
        // Never the same number twice: what uses a closed file is told so.
        self.next_file += 1;
        self.open.insert(file, OpenFile { inode, direct, writable });
        FileId(file)
    }

    pub(super) fn close(&mut self, file: FileId) {
        let Some(OpenFile { inode, .. }) = self.open.remove(&file.0) else { return };
        if self.locks.get(&inode) == Some(&file.0) {
            self.locks.remove(&inode);
        }
        self.free_if_unused(inode);
    }

    pub(super) fn free_if_unused(&mut self, inode: InodeId) {
        let unused = self.open.values().all(|open| open.inode != inode);
        if unused && self.seen.inode(inode).is_ok_and(|node| node.links == 0) {
            self.commit(Change::Free { inode });
        }
    }

    pub(super) fn create(&mut self, body: Body, owner: Ownership) -> Result<InodeId> {
        self.room_for(u64::from(matches!(body, Body::Directory(_))))?;
        let inode = self.next_inode;
        self.next_inode += 1;
        self.commit(Change::Create { inode, node: Inode::new(body, owner) });
        Ok(inode)
    }

    pub(super) fn free_name(&self, dir: InodeId, name: &OsStr) -> Result<()> {
        let taken = self.seen.directory(dir)?.contains_key(name);
        if taken { Err(Errno::EXIST) } else { Ok(()) }
    }

    pub(super) fn named(&self, dir: InodeId, name: &OsStr) -> Result<InodeId> {
        self.seen.directory(dir)?.get(name).copied().ok_or(Errno::NOENT)
    }

    pub(super) fn create_file(
        &mut self,
        owner: Ownership,
        direct: bool,
    ) -> Result<(InodeId, FileId)> {
        if direct && !self.config.direct {
            return Err(Errno::INVAL);
        }
        self.room_for(1)?;
        let inode = self.create(Body::File(Content::default()), owner)?;
        Ok((inode, self.open(inode, direct, true)))
    }

    pub(super) fn directory(
        &mut self,
        root: InodeId,
        rel: &Path,
        create: Option<Ownership>,
        durable: bool,
    ) -> Result<FileId> {
        let mut at = root;
        for component in rel.components() {
            let step = Path::new(component.as_os_str());
            at = match (self.seen.resolve(at, step), create) {
                (Err(Errno::NOENT), Some(owner)) => {
                    let name = single(step)?.to_owned();
                    let made = self.create(Body::Directory(BTreeMap::new()), owner)?;
                    self.commit(Change::Link { dir: at, name, inode: made });
                    if durable {
                        self.sync(at);
                    }
                    made
                }
                (found, _) => found?,
            };
            self.seen.directory(at)?;
        }
        self.seen.directory(at)?;
        Ok(self.open(at, false, false))
    }

    pub(super) fn open_existing(
        &mut self,
        dir: InodeId,
        rel: &Path,
        access: Access,
    ) -> Result<FileId> {
        let inode = self.seen.resolve(dir, rel)?;
        match self.seen.inode(inode)?.body {
            Body::File(_) => {}
            Body::Directory(_) => return Err(Errno::ISDIR),
            Body::Symlink => return Err(Errno::LOOP),
        }
        let direct = access == Access::ReadDirect;
        if direct && !self.config.direct {
            return Err(Errno::INVAL);
        }
        Ok(self.open(inode, direct, false))
    }

    pub(super) fn set_attribute(&mut self, inode: InodeId, name: &str, value: &[u8]) -> Result<()> {
        let mut attributes = self.seen.inode(inode)?.attributes.clone();
        attributes.insert(name.to_owned(), value.to_vec());
        if Inode::attribute_bytes(&attributes) > self.config.attribute_bytes {
            return Err(Errno::NOSPC);
        }
        self.commit(Change::Attribute { inode, name: name.to_owned(), value: value.to_vec() });
        Ok(())
    }

    fn aligned(&self, file: FileId, bytes: usize, offset: u64) -> Result<InodeId> {
        let open = self.handle(file)?;
        let aligned =
            offset.is_multiple_of(BLOCK_BYTES) && (bytes as u64).is_multiple_of(BLOCK_BYTES);
        if open.direct && !aligned { Err(Errno::INVAL) } else { Ok(open.inode) }
    }

    pub(super) fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) -> Result<()> {
        let inode = self.aligned(file, bytes.len(), offset)?;
        let &OpenFile { direct, writable, .. } = self.handle(file)?;
        if !writable {
            return Err(Errno::BADF);
        }
        let content = self.seen.content(inode)?;
        let blocks = content.overlay(bytes, offset);
        self.room_for(content.growth(&blocks, 0))?;
        if !bytes.is_empty() {
            let end = offset + bytes.len() as u64;
            self.commit(Change::Write { inode, blocks, end, direct });
        }
        Ok(())
    }

    pub(super) fn read(&self, file: FileId, into: &mut [u8], offset: u64) -> Result<usize> {
        let inode = self.aligned(file, into.len(), offset)?;
        Ok(self.seen.content(inode)?.read(into, offset))
    }

    pub(super) fn allocate(&mut self, file: FileId, offset: u64, len: u64) -> Result<()> {
        let &OpenFile { inode, writable, .. } = self.handle(file)?;
        if !writable {
            return Err(Errno::BADF);
        }
        if !self.config.preallocation {
            return Err(Errno::OPNOTSUPP);
        }
        let end = offset.checked_add(len).filter(|_| len > 0).ok_or(Errno::INVAL)?;
        let growth = self.seen.content(inode)?.growth(&[], end);
        self.room_for(growth)?;
        self.commit(Change::Reserve { inode, end });
        Ok(())
    }

    /// fsync of an inode.
    pub(super) fn sync(&mut self, target: InodeId) {
        let mut kept: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.journal) {
            let taken = match &change {
                Change::Write { direct: false, inode, .. } => *inode == target,
                _ => self.config.ordered || change.subject() == target,
            };
            if !taken {
                kept.push(change);
                continue;
            }
            if let Change::Link { inode, .. } = &change
                && !self.durable.contains(*inode)
            {
                // A name that is safe leads to an inode, though maybe to an empty one.
                let created = |change: &Change| matches!(change, Change::Create { inode: created, .. } if created == inode);
                if let Some(at) = kept.iter().position(created) {
                    self.durable.apply(&kept.remove(at));
                }
            }
            self.durable.apply(&change);
        }
        self.journal = kept;
    }

    pub(super) fn sync_all(&mut self) {
        for change in self.journal.drain(..) {
            self.durable.apply(&change);
        }
    }

    pub(super) fn crash(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        let journal = std::mem::take(&mut self.journal);
        let ordered = self.config.ordered;
        let count = journal.len();
        let cut = random.below(count as u64 + 1) as usize;
        for (index, change) in journal.into_iter().enumerate() {
            let made_it = if ordered { index < cut } else { random.coin() };
            match change {
                Change::Write { inode, mut blocks, end, direct } if !(direct && made_it) => {
                    // Any of its blocks may have been written; the longer length of the file is
                    // as late as a change made now.
                    blocks.retain(|_| random.coin());
                    let grown = if ordered { cut == count } else { random.coin() };
                    let Some(&(last, _)) = blocks.last() else { continue };
                    if grown {
                        let end = end.min((last + 1) * BLOCK_BYTES);
                        self.durable.apply(&Change::Write { inode, blocks, end, direct });
                    } else if let Ok(content) = self.durable.content(inode) {
                        let len = content.len();
                        blocks.retain(|&(index, _)| index * BLOCK_BYTES < len);
                        self.durable.store(inode, &blocks);
                    }
                }
                change if made_it => self.durable.apply(&change),
                _ => {}
            }
        }
        self.durable.collect();
        self.seen = self.durable.clone();
        self.open.clear();
        self.locks.clear();
        self.faults.clear();
        self.hung = false;
    }
}
