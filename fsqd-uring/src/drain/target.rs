//! The target file system as a drain worker sees it: its root, and the directories below it.
//!
//! Invariant: a directory handle is used only while its path still leads to the same directory, so
//! that a file never ends up where somebody has moved its directory; and the root only while it is
//! the one that was there at the start, so that nothing is written into the bare mount point of a
//! file system that is not mounted.
//!
//! Directories are synced into their parents by whoever makes them. One that another worker has just
//! made, or a daemon that was killed then, may not be; the sync of the directory that a file is
//! published in covers it, since the target commits changes of names in order (Lustre's MDT
//! transactions, the journals of ext4 and XFS).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::publish::Publisher;
use crate::fs::{Fs, FsError, Kind, Ownership, Result};
use crate::queue::{Failure, FailureClass, Side};

/// Directories a worker keeps open.
const DIRECTORIES_MAX: usize = 32;

/// Mode of directories made on the target.
const DIRECTORY_MODE: u32 = 0o755;

/// The root of the target, shared by the workers.
#[derive(Debug)]
pub struct TargetRoot<F: Fs> {
    fs: Arc<F>,
    path: PathBuf,
    state: Mutex<RootState<F::Node>>,
    publisher: Publisher,
}

#[derive(Debug)]
struct RootState<N> {
    /// Inode number of the root when it was first opened.
    inode: Option<u64>,
    node: Option<Arc<N>>,
}

impl<F: Fs> TargetRoot<F> {
    /// The root at the absolute `path`; it is opened when it is first needed.
    pub fn new(fs: Arc<F>, path: &Path) -> Self {
        Self {
            fs,
            path: path.into(),
            state: Mutex::new(RootState { inode: None, node: None }),
            publisher: Publisher::default(),
        }
    }

    /// Its file system.
    pub fn fs(&self) -> &F {
        &self.fs
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How files get their names there.
    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The open root.
    ///
    /// # Errors
    /// The target is down, missing, or not the one that was there before.
    pub fn open(&self) -> std::result::Result<Arc<F::Node>, Failure> {
        // Held during calls that may hang: only other workers of the target wait here.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = &state.node {
            return Ok(Arc::clone(node));
        }
        let down = |error: FsError| {
            let text = format!("target root {:?}: {error}", self.path);
            Failure::new(FailureClass::Target, text)
        };
        let node = self.fs.open_root(&self.path).map_err(down)?;
        let inode = self.fs.stat(&node).map_err(down)?.inode;
        if *state.inode.get_or_insert(inode) != inode {
            let text = format!(
                "target root {:?} is not the directory it was at the start: mount the target again",
                self.path
            );
            return Err(Failure::new(FailureClass::Target, text));
        }
        let node = Arc::new(node);
        state.node = Some(Arc::clone(&node));
        Ok(node)
    }

    /// Lets go of the open root: after a failure of the target it may belong to a mount that is
    /// gone, and would keep failing when the target is back.
    pub fn forget(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).node = None;
    }
}

/// A worker's open directories, the latest used last.
#[derive(Debug)]
pub(crate) struct Directories<F: Fs> {
    target: Arc<TargetRoot<F>>,
    known: Vec<Known<F::Node>>,
}

#[derive(Debug)]
struct Known<N> {
    path: PathBuf,
    inode: u64,
    node: Arc<N>,
}

impl<F: Fs> Directories<F> {
    pub(crate) fn new(target: Arc<TargetRoot<F>>) -> Self {
        Self { target, known: Vec::with_capacity(DIRECTORIES_MAX) }
    }

    /// The directory `path` below the root, made where it is missing, owned by `owner`.
    ///
    /// Opening costs an RPC on Lustre and making one per component many more; looking whether a
    /// name still means what it meant is answered from the client's cache.
    pub(crate) fn open(
        &mut self,
        path: &Path,
        owner: Option<(u32, u32)>,
    ) -> std::result::Result<Arc<F::Node>, Failure> {
        let target = Arc::clone(&self.target);
        let root = target.open()?;
        let failure =
            |error| Failure::call(Side::Target, format_args!("target directory {path:?}"), error);
        if let Some(index) = self.known.iter().position(|known| known.path == path) {
            let known = self.known.remove(index);
            let same = target
                .fs()
                .stat_at(&root, path)
                .is_ok_and(|stat| stat.kind == Kind::Directory && stat.inode == known.inode);
            if same {
                let node = Arc::clone(&known.node);
                self.known.push(known);
                return Ok(node);
            }
        }
        let node = self.resolve(&root, path, owner).map_err(failure)?;
        let inode = target.fs().stat(&node).map_err(failure)?.inode;
        let node = Arc::new(node);
        if self.known.len() == DIRECTORIES_MAX {
            self.known.remove(0);
        }
        // The root itself has no name below the root to look at.
        if !path.as_os_str().is_empty() {
            self.known.push(Known { path: path.into(), inode, node: Arc::clone(&node) });
        }
        Ok(node)
    }

    /// Forgets everything: what was open may belong to a mount that is gone.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
    }

    fn resolve(&self, root: &F::Node, path: &Path, owner: Option<(u32, u32)>) -> Result<F::Node> {
        let fs = self.target.fs();
        match fs.directory(root, path, None, false) {
            Err(FsError { errno: Errno::NOENT, .. }) => {
                let owner = Ownership {
                    uid: owner.map(|(uid, _)| uid),
                    gid: owner.map(|(_, gid)| gid),
                    mode: DIRECTORY_MODE,
                };
                fs.directory(root, path, Some(owner), true)
            }
            result => result,
        }
    }
}
