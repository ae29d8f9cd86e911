//! What one connection has measured, and the sum over many.
//!
//! Invariant: a record belongs to one thread until it is merged, so taking a time costs an
//! increment and no lock.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Shortest time that is told apart from 0, ns.
const LOWEST_NS: u64 = 1_000;
/// Longest time that is told apart from longer ones, ns: one hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Times are kept to 1 %. With it a record of six histograms takes about 80 KiB, and there is one
/// for each connection.
const DIGITS: u8 = 2;
/// Different reasons of failures that are kept; all are counted.
const REASONS_MAX: usize = 16;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// From the dialling to the reply to CONNECT.
    Connect,
    /// From OPEN to its reply.
    Open,
    /// From DATA to its reply.
    Write,
    /// From CLOSE to its reply.
    Close,
    /// From OPEN to the reply to CLOSE.
    Service,
    /// From the time a file was due (at a fixed rate; else from OPEN) to the reply to CLOSE. At a
    /// fixed rate this is corrected for coordinated omission: files that had to wait because the
    /// server stalled count with their wait.
    File,
    /// From the reply to CLOSE until the file was seen whole at its destination.
    Arrival,
}

impl Timed {
    /// All, in the order of a report.
    pub const ALL: [Self; 7] = [
        Self::Connect,
        Self::Open,
        Self::Write,
        Self::Close,
        Self::Service,
        Self::File,
        Self::Arrival,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Open => "open",
            Self::Write => "write",
            Self::Close => "close",
            Self::Service => "service",
            Self::File => "file",
            Self::Arrival => "arrival",
        }
    }
}

/// Times of one kind.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u32>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS);
        Self(histogram.expect("the bounds are constants that the crate takes"))
    }
}

impl Times {
    /// One more, ns. Beyond an hour it counts as an hour.
    pub fn add(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// So many per cent are not longer, ns, to 1 %; 0 if there are none.
    #[must_use]
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        self.0.value_at_percentile(percent)
    }

    /// The longest, ns, to 1 %; 0 if there are none.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.0.max()
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub struct Record {
    times: [Times; Timed::ALL.len()],
    /// Files acknowledged by CLOSE.
    pub files: u64,
    /// Their bytes; of a file that began during the warm-up only those answered after it.
    pub bytes: u64,
    /// Files that were not, connections that did not come about included.
    pub failed: u64,
    /// When the measured interval began: the first OPEN, or the end of the warm-up, ns of the run.
    pub first_ns: Option<u64>,
    /// When the last CLOSE was acknowledged, ns of the run.
    pub last_ns: u64,
    reasons: BTreeMap<String, u64>,
}

impl Record {
    /// Times of this kind.
    #[must_use]
    pub fn times(&self, timed: Timed) -> &Times {
        &self.times[timed as usize]
    }

    /// To add one.
    pub fn times_mut(&mut self, timed: Timed) -> &mut Times {
        &mut self.times[timed as usize]
    }

    /// A file or a connection has failed.
    pub fn fail(&mut self, reason: &str) {
        self.failed += 1;
        self.add_reason(reason, 1);
    }

    /// Why files failed, and how often; the first few reasons only.
    #[must_use]
    pub const fn reasons(&self) -> &BTreeMap<String, u64> {
        &self.reasons
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (times, others) in self.times.iter_mut().zip(&other.times) {
            times.merge(others);
        }
        self.files += other.files;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.first_ns = self.first_ns.into_iter().chain(other.first_ns).min();
        self.last_ns = self.last_ns.max(other.last_ns);
        for (reason, &count) in &other.reasons {
            self.add_reason(reason, count);
        }
    }

    /// The measured interval, to the last acknowledgement, s.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        let first_ns = self.first_ns.unwrap_or(self.last_ns);
        self.last_ns.saturating_sub(first_ns) as f64 / 1e9
    }

    fn add_reason(&mut self, reason: &str, count: u64) {
        if let Some(counted) = self.reasons.get_mut(reason) {
            *counted += count;
        } else if self.reasons.len() < REASONS_MAX {
            self.reasons.insert(reason.to_owned(), count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_one_per_cent() {
        let mut times = Times::default();
        for ms in 1..=1000_u64 {
            times.add(ms * 1_000_000);
        }
        let near = |ns: u64, ms: f64| assert!((ns as f64 / 1e6 / ms - 1.0).abs() < 0.011, "{ns}");
        near(times.percentile_ns(50.0), 500.0);
        near(times.percentile_ns(99.0), 990.0);
        near(times.max_ns(), 1000.0);
        times.add(u64::MAX);
        near(times.max_ns(), 3_600_000.0);
        assert_eq!(times.count(), 1001);
    }

    #[test]
    fn merging_adds_up() {
        let (mut a, mut b) = (Record::default(), Record::default());
        a.times_mut(Timed::Open).add(5_000);
        b.times_mut(Timed::Open).add(9_000);
        (a.files, a.bytes, a.first_ns, a.last_ns) = (1, 10, Some(7), 50);
        (b.files, b.bytes, b.first_ns, b.last_ns) = (2, 20, Some(5), 40);
        b.fail("no space");
        b.fail("no space");
        a.fail("no space");
        a.merge(&b);
        assert_eq!((a.files, a.bytes, a.failed), (3, 30, 3));
        assert_eq!((a.first_ns, a.last_ns), (Some(5), 50));
        assert_eq!(a.times(Timed::Open).count(), 2);
        assert_eq!(a.times(Timed::Close).count(), 0);
        assert_eq!(a.reasons().get("no space"), Some(&3));
        let idle = Record::default();
        a.merge(&idle);
        assert_eq!(a.first_ns, Some(5));
    }
}
