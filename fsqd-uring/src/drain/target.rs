//! The target file system as a drain worker sees it: its root, and the directories below it.
//!
//! Invariant: a directory handle is used only while its path still leads to the same directory, so
//! that a file never ends up where somebody has moved its directory; and the root only while it is
//! the one that was there at the start, so that nothing is written into the bare mount point of a
//! file system that is not mounted. After a failure of the target no worker, busy or idle, keeps a
//! handle: it would be of no use, and whoever wants to mount the target again could not unmount it.
//!
//! Directories are synced into their parents by whoever makes them. One that another worker has just
//! made, or a daemon that was killed then, may not be; the sync of the directory that a file is
//! published in covers it, since the target commits changes of names in order (Lustre's MDT
//! transactions, the journals of ext4 and XFS).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

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
    /// The directories that workers keep open.
    kept: Mutex<Vec<Weak<Kept<F::Node>>>>,
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
            kept: Mutex::default(),
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

    /// Lets go of the open root and of all workers' directories: after a failure of the target they
    /// may belong to a mount that is gone, and would keep failing when the target is back.
    pub fn forget(&self) {
        let root = self.state.lock().unwrap_or_else(PoisonError::into_inner).node.take();
        let mut closed = Vec::new();
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|kept| {
            let kept = kept.upgrade();
            closed.extend(kept.iter().flat_map(|kept| kept.forget()));
            kept.is_some()
        });
        // Without a lock: closing may take its time there as well.
        drop((root, closed));
    }

    fn keep(&self) -> Arc<Kept<F::Node>> {
        let kept = Arc::new(Kept(Mutex::new((0, Vec::with_capacity(DIRECTORIES_MAX)))));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&kept));
        kept
    }
}

/// A worker's open directories, the latest used last.
#[derive(Debug)]
pub(crate) struct Directories<F: Fs> {
    target: Arc<TargetRoot<F>>,
    kept: Arc<Kept<F::Node>>,
}

/// What [`Directories`] keeps, with the number of times that all was forgotten. Never locked during a
/// call.
#[derive(Debug)]
struct Kept<N>(Mutex<(u64, Vec<Known<N>>)>);

impl<N> Kept<N> {
    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Known<N>>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) -> Vec<Known<N>> {
        let mut kept = self.lock();
        kept.0 += 1;
        std::mem::take(&mut kept.1)
    }

    /// Takes a directory out, and says how often all was forgotten.
    fn take(&self, path: &Path) -> (u64, Option<Known<N>>) {
        let mut kept = self.lock();
        let index = kept.1.iter().position(|known| known.path == path);
        let known = index.map(|index| kept.1.remove(index));
        (kept.0, known)
    }

    /// Keeps a directory, unless all was forgotten since; gives back what is to be closed.
    fn put(&self, forgotten: u64, known: Known<N>) -> Option<Known<N>> {
        let mut kept = self.lock();
        if kept.0 != forgotten {
            return Some(known);
        }
        let oldest = (kept.1.len() == DIRECTORIES_MAX).then(|| kept.1.remove(0));
        kept.1.push(known);
        oldest
    }
}

#[derive(Debug)]
struct Known<N> {
    path: PathBuf,
    inode: u64,
    node: Arc<N>,
}

impl<F: Fs> Directories<F> {
    pub(crate) fn new(target: Arc<TargetRoot<F>>) -> Self {
        let kept = target.keep();
        Self { target, kept }
    }

    /// The directory `path` below the root, made where it is missing, owned by `owner`.
    ///
    /// Opening costs an RPC on Lustre and making one per component many more; looking whether a
    /// name still means what it meant is answered from the client's cache.
    pub(crate) fn open(
        &self,
        path: &Path,
        owner: Option<(u32, u32)>,
    ) -> std::result::Result<Arc<F::Node>, Failure> {
        let target = Arc::clone(&self.target);
        let root = target.open()?;
        let failure =
            |error| Failure::call(Side::Target, format_args!("target directory {path:?}"), error);
        let (forgotten, known) = self.kept.take(path);
        if let Some(known) = known {
            let same = target
                .fs()
                .stat_at(&root, path)
                .is_ok_and(|stat| stat.kind == Kind::Directory && stat.inode == known.inode);
            if same {
                let node = Arc::clone(&known.node);
                drop(self.kept.put(forgotten, known));
                return Ok(node);
            }
        }
        let node = self.resolve(&root, path, owner).map_err(failure)?;
        let inode = target.fs().stat(&node).map_err(failure)?.inode;
        let node = Arc::new(node);
        // The root itself has no name below the root to look at.
        if !path.as_os_str().is_empty() {
            let known = Known { path: path.into(), inode, node: Arc::clone(&node) };
            drop(self.kept.put(forgotten, known));
        }
        Ok(node)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::{SimConfig, SimFs};

    #[test]
    fn after_a_failure_no_worker_keeps_a_handle() {
        let fs = Arc::new(SimFs::new(SimConfig::lustre()));
        let target = Arc::new(TargetRoot::new(fs, Path::new("/")));
        let workers = [0, 1].map(|_| Directories::new(Arc::clone(&target)));
        let open = |directories: &Directories<SimFs>, path: &str| {
            Arc::downgrade(&directories.open(Path::new(path), None).expect("made"))
        };
        let kept: Vec<_> = workers.iter().map(|worker| open(worker, "d")).collect();
        assert!(kept.iter().all(|node| node.upgrade().is_some()), "an idle worker keeps it");
        let root = Arc::downgrade(&target.open().expect("a root"));
        target.forget();
        assert!(kept.iter().chain([&root]).all(|node| node.upgrade().is_none()));
        // What was under way when all was forgotten is not kept either.
        let (forgotten, known) = workers[0].kept.take(Path::new("d"));
        assert!(known.is_none());
        let node = target.open().expect("a root");
        target.forget();
        let known = Known { path: "d".into(), inode: 1, node };
        assert!(workers[0].kept.put(forgotten, known).is_some());
        assert!(workers[0].kept.lock().1.is_empty());
        let again = open(&workers[1], "d");
        assert!(again.upgrade().is_some());
    }
}
