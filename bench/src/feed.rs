//! Which file comes next: the one thing that the connections of a run share.
//!
//! Invariant: every number is handed out once, and at a fixed rate file `i` is due `i / rate` after
//! the first one, whether or not a connection is free then. The wait of a file that finds all connections busy is
//! part of its time; a generator that waited with the server would not see it (coordinated
//! omission).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A file to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its number in the run.
    pub index: u64,
    /// When it is to be sent, ns of the run; `None` for as soon as possible.
    pub due_ns: Option<u64>,
}

/// How much there is to send.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quota {
    /// So many files.
    pub files: Option<u64>,
    /// No file begins later than this, ns of the run. At a fixed rate none is due later than this
    /// after the first, but all that are due are sent, however late: those are the ones that matter.
    pub end_ns: Option<u64>,
    /// Files per second, over all connections; above 0.
    pub rate: Option<f64>,
}

/// Hands out the files of a run.
#[derive(Debug)]
pub struct Feed {
    next: AtomicU64,
    quota: Quota,
    /// When the first file was taken, ns of the run. The schedule of a fixed rate begins there: how
    /// long the first connection takes is no delay of a file.
    origin_ns: OnceLock<u64>,
    is_stopped: Arc<AtomicBool>,
}

impl Feed {
    /// One that has handed out nothing. Whoever sets `is_stopped` ends it early.
    #[must_use]
    pub const fn new(quota: Quota, is_stopped: Arc<AtomicBool>) -> Self {
        Self { next: AtomicU64::new(0), quota, origin_ns: OnceLock::new(), is_stopped }
    }

    /// Whether there may be something to take. Never "no" before the end.
    pub fn has_more(&self, now_ns: u64) -> bool {
        self.is_within(self.next.load(Ordering::Relaxed), now_ns)
    }

    /// The next file; `None` if the run is over.
    pub fn take(&self, now_ns: u64) -> Option<File> {
        if !self.has_more(now_ns) {
            return None;
        }
        let origin_ns = *self.origin_ns.get_or_init(|| now_ns);
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        // Others may have been faster.
        self.is_within(index, now_ns).then(|| File {
            index,
            due_ns: self.after_first_ns(index).map(|after_ns| origin_ns.saturating_add(after_ns)),
        })
    }

    fn is_within(&self, index: u64, now_ns: u64) -> bool {
        let is_late = |end_ns| self.after_first_ns(index).unwrap_or(now_ns) >= end_ns;
        !self.is_stopped()
            && self.quota.files.is_none_or(|files| index < files)
            && !self.quota.end_ns.is_some_and(is_late)
    }

    /// When a file is due at a fixed rate, ns after the first one.
    fn after_first_ns(&self, index: u64) -> Option<u64> {
        self.quota.rate.map(|rate| (index as f64 / rate * 1e9) as u64)
    }

    /// Whether the run was ended early.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(quota: Quota) -> Feed {
        Feed::new(quota, Arc::default())
    }

    #[test]
    fn ends_at_the_count() {
        let feed = feed(Quota { files: Some(2), ..Quota::default() });
        let taken: Vec<_> = (0..4).map(|now_ns| feed.take(now_ns).map(|file| file.index)).collect();
        assert_eq!(taken, [Some(0), Some(1), None, None]);
    }

    #[test]
    fn ends_at_the_time() {
        let feed = feed(Quota { end_ns: Some(100), ..Quota::default() });
        assert!(feed.take(99).is_some());
        assert_eq!(feed.take(100), None);
    }

    #[test]
    fn files_are_due_at_the_rate_whoever_takes_them() {
        let end_ns = Some(30_000_000);
        let feed = feed(Quota { rate: Some(100.0), end_ns, ..Quota::default() });
        let due = |now_ns| feed.take(now_ns).and_then(|file| file.due_ns);
        // The first connection took 5 ms.
        assert_eq!(due(5_000_000), Some(5_000_000));
        assert_eq!(due(6_000_000), Some(15_000_000));
        // However late it is.
        assert!(feed.has_more(90_000_000));
        assert_eq!(due(90_000_000), Some(25_000_000));
        assert!(!feed.has_more(90_000_000));
        assert_eq!(due(90_000_000), None);
    }

    #[test]
    fn stops_when_told() {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let feed = Feed::new(Quota::default(), Arc::clone(&is_stopped));
        assert!(feed.take(0).is_some());
        is_stopped.store(true, Ordering::Relaxed);
        assert_eq!(feed.take(0), None);
    }
}
