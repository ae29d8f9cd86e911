//! What the staging service has done, for the log.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files begun.
    pub opens: u64,
    /// Files completed and acknowledged.
    pub commits: u64,
    /// Files given up by the client.
    pub aborts: u64,
    /// Jobs answered with a refusal.
    pub refusals: u64,
    /// Jobs that had to wait for space.
    pub space_waits: u64,
    /// Batches made durable.
    pub syncs: u64,
    /// Files in them; divided by `syncs`, the mean size of a batch.
    pub synced_files: u64,
    /// Size of the largest.
    pub largest_batch: u64,
    /// Files lost to a failed sync; none of them was acknowledged.
    pub sync_failures: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) opens: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) aborts: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) space_waits: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) synced_files: AtomicU64,
    pub(super) largest_batch: AtomicU64,
    pub(super) sync_failures: AtomicU64,
    /// Set for good with the first failed sync.
    pub(super) sync_failed: AtomicBool,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn totals(&self) -> Totals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            opens: read(&self.opens),
            commits: read(&self.commits),
            aborts: read(&self.aborts),
            refusals: read(&self.refusals),
            space_waits: read(&self.space_waits),
            syncs: read(&self.syncs),
            synced_files: read(&self.synced_files),
            largest_batch: read(&self.largest_batch),
            sync_failures: read(&self.sync_failures),
        }
    }
}
