//! Waits for acknowledged files to arrive at their destination, where that is on this machine.
//!
//! Invariant: a file counts as arrived when it is there under its name with its full size. Servers
//! that write in place show it earlier than it is safe; nothing outside of them can tell.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::engine::Clock;
use crate::plan::Plan;
use crate::record::Times;
use crate::upload::Acknowledged;

/// How often is looked. Arrival times are so much too long at most, plus the time to look.
const TICK: Duration = Duration::from_millis(2);
/// Files that are looked for in one tick, the oldest: a look costs a microsecond or more of the
/// processors that the servers need.
const LOOKS_MAX: usize = 256;

/// What has arrived, and what has not.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// From acknowledged to arrived.
    pub times: Times,
    /// When the last was seen, ns of the run.
    pub last_ns: u64,
    /// Files that did not arrive in time.
    pub missing: u64,
}

/// Where files are looked for.
#[derive(Clone, Debug)]
pub struct Lookout {
    /// The directory on this machine that the plan's file system is.
    pub root: PathBuf,
    /// How long after the last acknowledgement.
    pub patience: Duration,
}

impl Lookout {
    /// The path on this machine of file number `index`.
    #[must_use]
    pub fn path(&self, plan: &Plan, index: u64) -> PathBuf {
        let path = plan.path(index);
        let below = path.strip_prefix(plan.fs.trim_end_matches('/')).unwrap_or(&path);
        self.root.join(below.trim_start_matches('/'))
    }

    /// Takes times until all that is announced has arrived, or patience ends.
    #[must_use]
    pub fn watch(&self, plan: &Plan, clock: Clock, announced: &Receiver<Acknowledged>) -> Arrivals {
        let mut arrivals = Arrivals::default();
        let mut waiting = VecDeque::new();
        let mut ended_ns = None;
        let patience_ns = u64::try_from(self.patience.as_nanos()).unwrap_or(u64::MAX);
        loop {
            match announced.recv_timeout(TICK) {
                Ok(first) => {
                    waiting.push_back(first);
                    waiting.extend(announced.try_iter());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let ended_ns = *ended_ns.get_or_insert_with(|| clock.now_ns());
                    let is_over = clock.now_ns().saturating_sub(ended_ns) >= patience_ns;
                    if waiting.is_empty() || is_over {
                        arrivals.missing = waiting.len() as u64;
                        return arrivals;
                    }
                    // A closed channel does not wait.
                    std::thread::sleep(TICK);
                }
            }
            for _ in 0..waiting.len().min(LOOKS_MAX) {
                let Some(file) = waiting.pop_front() else { break };
                if is_whole(&self.path(plan, file.index), file.size_bytes) {
                    arrivals.last_ns = clock.now_ns();
                    arrivals.times.add(arrivals.last_ns.saturating_sub(file.at_ns));
                } else {
                    waiting.push_back(file);
                }
            }
        }
    }
}

fn is_whole(path: &Path, size_bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() == size_bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::plan::tests::plan;

    #[test]
    fn counts_what_is_whole_and_what_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let lookout = Lookout { root: dir.path().into(), patience: Duration::from_millis(20) };
        let plan = plan();
        assert_eq!(lookout.path(&plan, 3), dir.path().join("data/run/00000003"));
        fs::create_dir_all(dir.path().join("data/run")).expect("a directory");
        fs::write(lookout.path(&plan, 0), b"whole").expect("a file");
        fs::write(lookout.path(&plan, 1), b"part").expect("a file");
        let (announce, announced) = mpsc::channel();
        for index in 0..3 {
            announce.send(Acknowledged { index, size_bytes: 5, at_ns: 0 }).expect("a receiver");
        }
        drop(announce);
        let arrivals = lookout.watch(&plan, Clock::start(), &announced);
        assert_eq!((arrivals.times.count(), arrivals.missing), (1, 2));
    }
}
