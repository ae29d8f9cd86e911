//! What a drain worker has moved, shared with whoever reports it: a worker may be blocked by its
//! target for hours and cannot be asked.
//!
//! Invariant: only the worker writes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ring::RingCounters;

/// Totals of a drain worker since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainCounters {
    /// Bytes read by the ring: from staging, and from the target where a copy is checked.
    pub bytes_read: u64,
    /// Bytes written to the target by the ring, what pads the last block included.
    pub bytes_written: u64,
    /// What the ring has done.
    pub ring: RingCounters,
}

impl std::ops::AddAssign for DrainCounters {
    fn add_assign(&mut self, other: Self) {
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.ring += other.ring;
    }
}

/// The place where a worker leaves them, after each block.
#[derive(Debug, Default)]
pub struct SharedCounters {
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    enters: AtomicU64,
    completions: AtomicU64,
}

impl SharedCounters {
    pub(super) fn set(&self, counters: &DrainCounters) {
        self.bytes_read.store(counters.bytes_read, Ordering::Relaxed);
        self.bytes_written.store(counters.bytes_written, Ordering::Relaxed);
        self.enters.store(counters.ring.enters, Ordering::Relaxed);
        self.completions.store(counters.ring.completions, Ordering::Relaxed);
    }

    /// The latest; each number by itself.
    #[must_use]
    pub fn get(&self) -> DrainCounters {
        DrainCounters {
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            ring: RingCounters {
                enters: self.enters.load(Ordering::Relaxed),
                completions: self.completions.load(Ordering::Relaxed),
            },
        }
    }
}
