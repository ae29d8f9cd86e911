//! [`Image`]: the contents of a simulated file system, and [`Change`], the only way to alter one.
//!
//! Invariant: applying the same changes to equal images gives equal images; so the image that is
//! seen and the image that survives a crash differ by nothing but the changes applied.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path};
use std::sync::Arc;

use rustix::io::Errno;

use crate::fs::{Kind, Ownership, Stat};

/// The number of an inode.
pub(super) type InodeId = u64;

/// Bytes in a block.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// The inode of the root directory.
pub(super) const ROOT: InodeId = 2;

/// The longest name of a file system, bytes.
const NAME_BYTES_MAX: usize = 255;

/// One block of data, shared by the images that hold it.
pub(super) type Block = Arc<[u8; BLOCK_BYTES as usize]>;

/// The data of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    len: u64,
    /// Space is preallocated from 0 to here, bytes.
    reserved: u64,
    /// What has been written; blocks that are missing read as zeros.
    blocks: BTreeMap<u64, Block>,
}

impl Content {
    /// Blocks taken from the file system.
    fn blocks(&self) -> u64 {
        let reserved = self.reserved.div_ceil(BLOCK_BYTES);
        reserved + self.blocks.range(reserved..).count() as u64
    }

    /// Reads at `offset`; the count.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> usize {
        let count = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        let mut done = 0;
        while done < count {
            let at = offset + done as u64;
            let start = (at % BLOCK_BYTES) as usize;
            let piece = (BLOCK_BYTES as usize - start).min(count - done);
            let target = &mut into[done..done + piece];
            match self.blocks.get(&(at / BLOCK_BYTES)) {
                Some(block) => target.copy_from_slice(&block[start..start + piece]),
                None => target.fill(0),
            }
            done += piece;
        }
        count
    }

    /// The blocks as they are after `bytes` have been written at `offset`.
    pub(super) fn overlay(&self, bytes: &[u8], offset: u64) -> Vec<(u64, Block)> {
        let mut blocks = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let start = (at % BLOCK_BYTES) as usize;
            let piece = (BLOCK_BYTES as usize - start).min(bytes.len() - done);
            let mut block = match self.blocks.get(&(at / BLOCK_BYTES)) {
                Some(block) if piece < BLOCK_BYTES as usize => **block,
                _ => [0; BLOCK_BYTES as usize],
            };
            block[start..start + piece].copy_from_slice(&bytes[done..done + piece]);
            blocks.push((at / BLOCK_BYTES, Arc::new(block)));
            done += piece;
        }
        blocks
    }

    /// Blocks that this write and this preallocation would take in addition.
    pub(super) fn growth(&self, write: &[(u64, Block)], reserve_end: u64) -> u64 {
        let reserved = self.reserved.max(reserve_end).div_ceil(BLOCK_BYTES);
        let mut beyond: BTreeSet<u64> =
            self.blocks.range(reserved..).map(|(&index, _)| index).collect();
        beyond.extend(write.iter().map(|&(index, _)| index).filter(|&index| index >= reserved));
        (reserved + beyond.len() as u64).saturating_sub(self.blocks())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.reserved = self.reserved.min(len.next_multiple_of(BLOCK_BYTES));
            self.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            let start = (len % BLOCK_BYTES) as usize;
            if start > 0
                && let Some(block) = self.blocks.get_mut(&(len / BLOCK_BYTES))
            {
                // What lies behind the end reads as zeros if the file grows again.
                Arc::make_mut(block)[start..].fill(0);
            }
        }
        self.len = len;
    }
}

/// What an inode is.
#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Content),
    Directory(BTreeMap<OsString, InodeId>),
    Symlink,
}

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) body: Body,
    pub(super) links: u64,
    pub(super) attributes: BTreeMap<String, Vec<u8>>,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Inode {
    pub(super) fn new(body: Body, owner: Ownership) -> Self {
        Self {
            body,
            links: 0,
            attributes: BTreeMap::new(),
            uid: owner.uid.unwrap_or(0),
            gid: owner.gid.unwrap_or(0),
            mode: owner.mode,
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.body {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
            Body::Symlink => Kind::Other,
        }
    }

    fn blocks(&self) -> u64 {
        match &self.body {
            Body::File(content) => content.blocks(),
            Body::Directory(_) => 1,
            Body::Symlink => 0,
        }
    }

    /// Bytes the attributes take, counted as in an ext4 attribute block: an entry of 16 bytes and
    /// the name without its prefix, and the value, each padded to 4.
    pub(super) fn attribute_bytes(attributes: &BTreeMap<String, Vec<u8>>) -> usize {
        let padded = |len: usize| len.next_multiple_of(4);
        attributes
            .iter()
            .map(|(name, value)| {
                let name = name.strip_prefix("user.").unwrap_or(name);
                16 + padded(name.len()) + padded(value.len())
            })
            .sum()
    }
}

/// One alteration.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create {
        inode: InodeId,
        node: Inode,
    },
    Link {
        dir: InodeId,
        name: OsString,
        inode: InodeId,
    },
    Unlink {
        dir: InodeId,
        name: OsString,
    },
    Rename {
        dir: InodeId,
        from: OsString,
        to: OsString,
    },
    /// The last handle of a file without names is closed.
    Free {
        inode: InodeId,
    },
    Attribute {
        inode: InodeId,
        name: String,
        value: Vec<u8>,
    },
    Owner {
        inode: InodeId,
        owner: Ownership,
    },
    SetLen {
        inode: InodeId,
        len: u64,
    },
    Reserve {
        inode: InodeId,
        end: u64,
    },
    Write {
        inode: InodeId,
        blocks: Vec<(u64, Block)>,
        end: u64,
        direct: bool,
    },
}

impl Change {
    /// The inode whose fsync makes this change durable.
    pub(super) fn subject(&self) -> InodeId {
        match *self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } | Self::Rename { dir, .. } => dir,
            Self::Create { inode, .. }
            | Self::Free { inode }
            | Self::Attribute { inode, .. }
            | Self::Owner { inode, .. }
            | Self::SetLen { inode, .. }
            | Self::Reserve { inode, .. }
            | Self::Write { inode, .. } => inode,
        }
    }
}

/// The contents of a file system.
#[derive(Clone, Debug)]
pub(super) struct Image {
    inodes: BTreeMap<InodeId, Inode>,
    used_blocks: u64,
}

impl Image {
    /// A file system with an empty root.
    pub(super) fn new() -> Self {
        let owner = Ownership { uid: None, gid: None, mode: 0o755 };
        let mut root = Inode::new(Body::Directory(BTreeMap::new()), owner);
        root.links = 1;
        Self { inodes: BTreeMap::from([(ROOT, root)]), used_blocks: 1 }
    }

    pub(super) fn used_blocks(&self) -> u64 {
        self.used_blocks
    }

    pub(super) fn inode(&self, inode: InodeId) -> Result<&Inode, Errno> {
        self.inodes.get(&inode).ok_or(Errno::NOENT)
    }

    pub(super) fn contains(&self, inode: InodeId) -> bool {
        self.inodes.contains_key(&inode)
    }

    pub(super) fn content(&self, inode: InodeId) -> Result<&Content, Errno> {
        match &self.inode(inode)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::ISDIR),
            Body::Symlink => Err(Errno::INVAL),
        }
    }

    pub(super) fn directory(&self, inode: InodeId) -> Result<&BTreeMap<OsString, InodeId>, Errno> {
        match &self.inode(inode)?.body {
            Body::Directory(entries) => Ok(entries),
            Body::File(_) => Err(Errno::NOTDIR),
            Body::Symlink => Err(Errno::LOOP),
        }
    }

    pub(super) fn stat(&self, inode: InodeId) -> Result<Stat, Errno> {
        let node = self.inode(inode)?;
        let len = match &node.body {
            Body::File(content) => content.len,
            _ => 0,
        };
        Ok(Stat {
            kind: node.kind(),
            len,
            uid: node.uid,
            gid: node.gid,
            mode: node.mode,
            links: node.links,
            inode,
        })
    }

    /// The inode `rel` beneath `dir`, a symlink only as the last component.
    pub(super) fn resolve(&self, dir: InodeId, rel: &Path) -> Result<InodeId, Errno> {
        let mut at = dir;
        for component in rel.components() {
            let name = match component {
                Component::Normal(name) if name.len() > NAME_BYTES_MAX => {
                    return Err(Errno::NAMETOOLONG);
                }
                Component::Normal(name) => name,
                Component::CurDir => continue,
                _ => return Err(Errno::XDEV),
            };
            at = *self.directory(at)?.get(name).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    /// Applies a change. What it refers to may be missing after a crash; then nothing happens.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { inode, node } => {
                self.used_blocks += node.blocks();
                self.inodes.insert(*inode, node.clone());
            }
            Change::Link { dir, name, inode } => self.link(*dir, name, *inode),
            Change::Unlink { dir, name } => self.unlink(*dir, name),
            Change::Rename { dir, from, to } => {
                let entries = self.entries_mut(*dir);
                if let Some(entries) = entries
                    && !entries.contains_key(to)
                    && let Some(inode) = entries.remove(from)
                {
                    entries.insert(to.clone(), inode);
                }
            }
            Change::Free { inode } => self.free(*inode),
            Change::Attribute { inode, name, value } => {
                if let Some(node) = self.inodes.get_mut(inode) {
                    node.attributes.insert(name.clone(), value.clone());
                }
            }
            Change::Owner { inode, owner } => {
                if let Some(node) = self.inodes.get_mut(inode) {
                    node.uid = owner.uid.unwrap_or(node.uid);
                    node.gid = owner.gid.unwrap_or(node.gid);
                    node.mode = owner.mode;
                }
            }
            Change::SetLen { inode, len } => self.alter(*inode, |content| content.set_len(*len)),
            Change::Reserve { inode, end } => self.alter(*inode, |content| {
                content.reserved = content.reserved.max(*end);
                content.len = content.len.max(*end);
            }),
            Change::Write { inode, blocks, end, .. } => {
                self.store(*inode, blocks);
                self.alter(*inode, |content| content.len = content.len.max(*end));
            }
        }
    }

    /// Stores blocks without a change of the length.
    pub(super) fn store(&mut self, inode: InodeId, blocks: &[(u64, Block)]) {
        self.alter(inode, |content| content.blocks.extend(blocks.iter().cloned()));
    }

    /// Forgets what no name leads to any more, as the recovery of a journal does with orphans.
    pub(super) fn collect(&mut self) {
        let mut links: BTreeMap<InodeId, u64> = BTreeMap::from([(ROOT, 1)]);
        let mut directories = vec![ROOT];
        while let Some(dir) = directories.pop() {
            let entries = self.directory(dir).cloned().unwrap_or_default();
            for inode in entries.into_values() {
                *links.entry(inode).or_default() += 1;
                if matches!(self.inodes.get(&inode), Some(Inode { body: Body::Directory(_), .. })) {
                    directories.push(inode);
                }
            }
        }
        self.inodes.retain(|inode, _| links.contains_key(inode));
        for (inode, node) in &mut self.inodes {
            node.links = links[inode];
        }
        self.used_blocks = self.inodes.values().map(Inode::blocks).sum();
    }

    fn alter(&mut self, inode: InodeId, f: impl FnOnce(&mut Content)) {
        if let Some(Inode { body: Body::File(content), .. }) = self.inodes.get_mut(&inode) {
            let before = content.blocks();
            f(content);
            self.used_blocks = self.used_blocks + content.blocks() - before;
        }
    }

    fn entries_mut(&mut self, dir: InodeId) -> Option<&mut BTreeMap<OsString, InodeId>> {
        match self.inodes.get_mut(&dir) {
            Some(Inode { body: Body::Directory(entries), .. }) => Some(entries),
            _ => None,
        }
    }

    fn link(&mut self, dir: InodeId, name: &OsString, inode: InodeId) {
        if !self.inodes.contains_key(&inode) {
            return;
        }
        let Some(entries) = self.entries_mut(dir) else { return };
        if entries.contains_key(name) {
            return;
        }
        entries.insert(name.clone(), inode);
        if let Some(node) = self.inodes.get_mut(&inode) {
            node.links += 1;
        }
    }

    fn unlink(&mut self, dir: InodeId, name: &OsString) {
        let Some(inode) = self.entries_mut(dir).and_then(|entries| entries.remove(name)) else {
            return;
        };
        let Some(node) = self.inodes.get_mut(&inode) else { return };
        node.links = node.links.saturating_sub(1);
        if node.links == 0 && !matches!(node.body, Body::File(_)) {
            self.free(inode);
        }
    }

    fn free(&mut self, inode: InodeId) {
        if let Some(node) = self.inodes.remove(&inode) {
            self.used_blocks -= node.blocks();
        }
    }
}
