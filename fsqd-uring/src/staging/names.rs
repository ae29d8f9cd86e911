//! The names of files that are being received, and the directories made for them.
//!
//! Invariant: a name is reserved by at most one file; a directory that was made for a file and that
//! no other file is being received into goes when that file fails. While a reservation lives, none
//! of its directories is removed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::root::StagingRoot;
use crate::fs::Fs;

#[derive(Debug, Default)]
struct Directory {
    /// Files being received in it or below.
    users: usize,
    /// Made for a file that may still fail.
    made: bool,
}

#[derive(Debug, Default)]
struct State {
    files: HashSet<PathBuf>,
    directories: HashMap<PathBuf, Directory>,
}

/// The names below one staging root.
#[derive(Debug)]
pub(super) struct Names<F: Fs> {
    root: Arc<StagingRoot<F>>,
    state: Mutex<State>,
}

/// The directories of a path below the root, the innermost first.
fn directories(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty())
}

impl<F: Fs> Names<F> {
    pub(super) fn new(root: Arc<StagingRoot<F>>) -> Self {
        Self { root, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a path below the root; `None`: it is being received already.
    pub(super) fn reserve(self: &Arc<Self>, path: &Path) -> Option<Reservation<F>> {
        let mut state = self.state();
        if !state.files.insert(path.to_path_buf()) {
            return None;
        }
        for dir in directories(path) {
            state.directories.entry(dir.to_path_buf()).or_default().users += 1;
        }
        drop(state);
        Some(Reservation {
            names: Arc::clone(self),
            path: path.to_path_buf(),
            kept: AtomicBool::new(false),
        })
    }

    fn remove_directory(&self, dir: &Path) -> bool {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return false };
        let fs = &self.root.fs;
        // Not empty: something else has come to live there, so it stays.
        fs.directory(&self.root.node, parent, None, false)
            .and_then(|parent| fs.remove_directory(&parent, Path::new(name)))
            .is_ok()
    }
}

/// A reserved name; free again when dropped.
#[derive(Debug)]
pub(super) struct Reservation<F: Fs> {
    names: Arc<Names<F>>,
    path: PathBuf,
    kept: AtomicBool,
}

impl<F: Fs> Reservation<F> {
    /// The path below the root.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Those of its directories that do not exist are about to be made for it.
    pub(super) fn will_make_directories(&self) {
        let root = &self.names.root;
        for dir in directories(&self.path) {
            let stat = root.fs.stat_at(&root.node, dir);
            let missing = stat.is_err_and(|error| error.errno == Errno::NOENT);
            let mut state = self.names.state();
            if missing && let Some(directory) = state.directories.get_mut(dir) {
                directory.made = true;
            }
        }
    }

    /// The file has its name: the directories stay.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl<F: Fs> Drop for Reservation<F> {
    fn drop(&mut self) {
        let kept = self.kept.load(Ordering::Relaxed);
        let mut state = self.names.state();
        state.files.remove(&self.path);
        // The lock is held throughout, so that no new reservation counts on a directory that is
        // just being removed.
        let mut removing = !kept;
        for dir in directories(&self.path) {
            let Some(directory) = state.directories.get_mut(dir) else { continue };
            directory.users -= 1;
            if kept {
                directory.made = false;
            }
            let unused = directory.users == 0;
            let made = directory.made;
            if unused {
                state.directories.remove(dir);
            }
            removing = removing && unused && made && self.names.remove_directory(dir);
        }
    }
}
