//! Group commit: making the files of several CLOSEs durable with one pass over the device.
//!
//! Commits that are prepared (complete, sealed, named) line up here; one thread takes all there
//! are, makes them durable together and answers them, while the next ones line up.
//!
//! Invariant: a file is answered as stored only after a sync that began when it already had its
//! name has succeeded; a failed sync is final for every file that it covered.
//!
//! # How a batch is synced
//!
//! Measured on ext4 (kernel 6.18, two cores, virtual disk; files of one 4 KiB O_DIRECT write, eight
//! attributes, O_TMPFILE and link; nobody else writing). The sync of one batch, ms, medians:
//!
//! | files | fsync of each, and of the directory | one syncfs | one fsync of the directory |
//! |---|---|---|---|
//! | 1 | 0.20 | 0.10 | 0.11 |
//! | 2 | 0.24 | 0.08 | 0.11 |
//! | 4 | 0.35 | 0.09 | 0.12 |
//! | 16 | 0.87 | 0.11 | 0.12 |
//! | 64 | 2.89 | 0.20 | 0.13 |
//!
//! `cargo test -p fsqd-uring --lib batches_by_way_of_sync -- --ignored --nocapture` prints it for the
//! file system of the checkout. So a batch is synced with syncfs; one or two files
//! ([`SYNC_EACH_MAX`]) are synced file by file all the same, since they gain little and would wait for
//! everybody else's data. The last column works because ext4 then commits its whole journal; no file
//! system promises that.
//!
//! A syncfs also reports write errors of other writers on the same file system, and waits for their
//! data: the staging file system should be the daemon's own.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::root::StagingRoot;
use crate::fs::{Fs, Result};
use crate::limits::{SYNC_BATCH_MAX, SYNC_EACH_MAX, SYNC_LINGER_US};

/// What a batch consists of.
pub(super) trait Named<F: Fs> {
    /// The complete file.
    fn file(&self) -> &F::Node;
    /// The directory of its name.
    fn directory(&self) -> &F::Node;
    /// The path of its name.
    fn path(&self) -> &Path;
}

/// Makes the files of a batch durable; one result for each.
///
/// Where changes do not become durable in order, always with a syncfs: a directory that another
/// session has just made may not have been synced yet.
pub(super) fn sync_batch<F: Fs, T: Named<F>>(
    root: &StagingRoot<F>,
    batch: &[T],
) -> Vec<Result<()>> {
    let fs = &*root.fs;
    if batch.len() > SYNC_EACH_MAX || !root.facts.ordered {
        let result = fs.sync_all(&root.node);
        return vec![result; batch.len()];
    }
    let mut results: Vec<Result<()>> = batch.iter().map(|item| fs.sync(item.file())).collect();
    let mut done: Vec<(&Path, Result<()>)> = Vec::with_capacity(batch.len());
    for (item, result) in batch.iter().zip(&mut results) {
        let Some(parent) = item.path().parent() else { continue };
        let known = done.iter().find(|(path, _)| *path == parent).map(|(_, synced)| *synced);
        let synced = known.unwrap_or_else(|| fs.sync(item.directory()));
        done.push((parent, synced));
        *result = result.and(synced);
    }
    results
}

#[derive(Debug)]
struct State<T> {
    ready: Vec<T>,
    /// Commits that are under way and will come or be called off.
    preparing: usize,
    closed: bool,
}

/// Where prepared commits line up.
#[derive(Debug)]
pub(super) struct Lineup<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Lineup<T> {
    pub(super) fn new() -> Self {
        let state = State { ready: Vec::new(), preparing: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit is under way.
    pub(super) fn announce(&self) {
        self.state().preparing += 1;
    }

    /// It is prepared, or called off with `None`.
    pub(super) fn arrive(&self, item: Option<T>) {
        let mut state = self.state();
        state.preparing -= 1;
        state.ready.extend(item);
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for a batch: all that are ready, after a short wait for those under way. Clients wait
    /// for each CLOSE, so without it the first of a group would be synced alone, and the others
    /// would find the device busy. `None`: closed, and nothing is left.
    pub(super) fn take(&self) -> Option<Vec<T>> {
        let idle = |state: &mut State<T>| state.ready.is_empty() && !state.closed;
        let state = self.changed.wait_while(self.state(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let growing =
            |state: &mut State<T>| state.preparing > 0 && state.ready.len() < SYNC_BATCH_MAX;
        let linger = Duration::from_micros(SYNC_LINGER_US);
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, linger, growing)
            .unwrap_or_else(PoisonError::into_inner);
        if state.ready.is_empty() {
            return None;
        }
        let count = state.ready.len().min(SYNC_BATCH_MAX);
        Some(state.ready.drain(..count).collect())
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}
