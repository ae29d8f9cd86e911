//! Which of the probes a run is held against.
//!
//! Invariant: a run and its yardstick count the same thing, in the same unit, and a yardstick does
//! nothing that the server could leave out.

use std::fmt;

use fsq_wire::StorageDest;

use super::Limits;
use crate::error::Error;
use crate::report::Report;

/// What a run is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Yardstick {
    /// Bytes received over loopback and dropped, for destination null
    Loopback,
    /// The same with a reply to each chunk that the sender waits for, as deployed clients do
    Exchange,
    /// Bytes received over loopback and written to staging, synced, for destination local
    Staging,
    /// Bytes written to staging, read there and written to the target, all three at once and
    /// synced, against bytes that have arrived (--arrival)
    EndToEnd,
    /// Files written to staging, synced, renamed, and their directory synced, one after the other
    /// on each connection, against acknowledged files
    SmallFiles,
}

impl Yardstick {
    /// What fits a load, unless the user knows better.
    #[must_use]
    pub fn for_load(dest: StorageDest, size_bytes: f64, looks_for_arrivals: bool) -> Self {
        /// Above it the bytes cost more than what each file costs, bytes.
        const SMALL_BYTES: f64 = 1_048_576.0;
        match dest {
            StorageDest::Null => Self::Loopback,
            _ if looks_for_arrivals => Self::EndToEnd,
            _ if size_bytes <= SMALL_BYTES => Self::SmallFiles,
            _ => Self::Staging,
        }
    }

    /// What the machine can do now: bytes or files per second.
    ///
    /// # Errors
    /// If the probe does not run here.
    pub fn probe(self, limits: &Limits) -> Result<f64, Error> {
        Ok(match self {
            Self::Loopback => limits.loopback()?.bytes_per_s,
            Self::Exchange => limits.exchange()?.bytes_per_s,
            Self::Staging => limits.both()?.bytes_per_s,
            Self::EndToEnd => limits.end_to_end()?.bytes_per_s,
            Self::SmallFiles => limits.small_files()?.files_per_s,
        })
    }

    /// What a run has done, in the same unit; 0 if it was not looked for.
    #[must_use]
    pub fn of(self, report: &Report) -> f64 {
        match self {
            Self::Loopback | Self::Exchange | Self::Staging => report.bytes_per_s(),
            Self::EndToEnd => report.arrived_bytes_per_s().unwrap_or(0.0),
            Self::SmallFiles => report.files_per_s(),
        }
    }

    /// A number of it with its unit.
    #[must_use]
    pub fn show(self, rate: f64) -> String {
        match self {
            Self::SmallFiles => format!("{rate:.1} files/s"),
            _ => format!("{:.1} MB/s", rate / 1e6),
        }
    }
}

impl fmt::Display for Yardstick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "loopback, bytes/s",
            Self::Exchange => "loopback with a reply to each chunk, bytes/s",
            Self::Staging => "loopback to staging, bytes/s",
            Self::EndToEnd => "staging written and read and target written, bytes/s arrived",
            Self::SmallFiles => "small files created, synced, renamed, files/s",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_held_against_what_it_does() {
        let of = |dest, size, arrivals| Yardstick::for_load(dest, size, arrivals);
        assert_eq!(of(StorageDest::Null, 4096.0, true), Yardstick::Loopback);
        assert_eq!(of(StorageDest::Local, 4096.0, false), Yardstick::SmallFiles);
        assert_eq!(of(StorageDest::Local, 1e9, false), Yardstick::Staging);
        assert_eq!(of(StorageDest::Lustre, 1e9, true), Yardstick::EndToEnd);
        assert_eq!(of(StorageDest::Lustre, 1e9, false), Yardstick::Staging);
    }
}
