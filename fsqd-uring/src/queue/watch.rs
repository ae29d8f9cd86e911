//! Notices a hung target: workers say when they last heard from it, and somebody who cannot hang
//! looks.
//!
//! Invariant: a worker in a blocked call is told apart from an idle one, and each hang is reported
//! when it is long, each time it has doubled, and when it is over, with who waits since when and with
//! which file in hand.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::scheduler::{Stage, Ticket};

/// One worker's sign of life. Cheap enough for every completed block: one relaxed store.
#[derive(Debug)]
pub struct Pulse {
    stage: Stage,
    worker: String,
    /// Milliseconds of the clock at the last answer, or [`IDLE`].
    last_ms: AtomicU64,
    /// Locked once for each file or batch.
    work: Mutex<Option<Work>>,
}

/// What a worker has in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The file, or the first of a batch.
    pub path: Arc<Path>,
    /// Files of the batch besides.
    pub more: usize,
}

const IDLE: u64 = u64::MAX;

impl Pulse {
    pub(crate) fn new(stage: Stage, worker: &str) -> Arc<Self> {
        let (last_ms, work) = (AtomicU64::new(IDLE), Mutex::new(None));
        Arc::new(Self { stage, worker: worker.to_owned(), last_ms, work })
    }

    /// The worker takes these files in hand.
    pub fn begin(&self, tickets: &[Ticket], now: Duration) {
        let work = tickets
            .first()
            .map(|ticket| Work { path: Arc::clone(&ticket.path), more: tickets.len() - 1 });
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = work;
        self.beat(now);
    }

    /// The worker is busy and has just heard from the other end.
    pub fn beat(&self, now: Duration) {
        // Relaxed: the watcher only needs some recent value, nothing is ordered by it.
        self.last_ms.store(u64::try_from(now.as_millis()).unwrap_or(IDLE - 1), Ordering::Relaxed);
    }

    /// The worker expects no answer.
    pub fn rest(&self) {
        self.last_ms.store(IDLE, Ordering::Relaxed);
    }

    fn silent_for(&self, now: Duration) -> Option<Duration> {
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        (last_ms != IDLE).then(|| now.saturating_sub(Duration::from_millis(last_ms)))
    }

    fn stuck(&self, silent: Duration) -> Stuck {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Stuck { worker: self.worker.clone(), silent, work }
    }
}

/// A worker that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Name of its thread.
    pub worker: String,
    /// How long it has waited.
    pub silent: Duration,
    /// For what.
    pub work: Option<Work>,
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {} s", self.worker, self.silent.as_secs())?;
        match &self.work {
            Some(Work { path, more: 0 }) => write!(f, " with {path:?}"),
            Some(Work { path, more }) => write!(f, " with {path:?} and {more} more files"),
            None => Ok(()),
        }
    }
}

/// So many are named in a report.
const NAMED_MAX: usize = 8;

/// Something to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Workers of this stage wait for an answer.
    Hung {
        /// Whose.
        stage: Stage,
        /// How long the longest has waited.
        silent: Duration,
        /// How many workers wait longer than the first threshold.
        workers: usize,
        /// Those among them that have waited longest.
        named: Vec<Stuck>,
    },
    /// None does any more.
    Over {
        /// Whose.
        stage: Stage,
    },
}

/// Looks at the pulses of one stage.
#[derive(Debug)]
pub(crate) struct Watch {
    stage: Stage,
    first: Duration,
    /// Silence at which the next report is due; above `first` only during a hang.
    next: Duration,
}

impl Watch {
    pub(crate) fn new(stage: Stage, first: Duration) -> Self {
        Self { stage, first, next: first }
    }

    pub(crate) fn look(&mut self, pulses: &[Arc<Pulse>], now: Duration) -> Option<Sighting> {
        let mut hung: Vec<_> = pulses
            .iter()
            .filter(|pulse| pulse.stage == self.stage)
            .filter_map(|pulse| Some((pulse.silent_for(now)?, pulse)))
            .filter(|(silent, _)| *silent >= self.first)
            .collect();
        hung.sort_by_key(|(silent, _)| std::cmp::Reverse(*silent));
        let Some(&(silent, _)) = hung.first() else {
            let over = self.next > self.first;
            self.next = self.first;
            return over.then_some(Sighting::Over { stage: self.stage });
        };
        if silent < self.next {
            return None;
        }
        self.next = silent * 2;
        let named = hung.iter().take(NAMED_MAX).map(|(silent, pulse)| pulse.stuck(*silent));
        let named = named.collect();
        Some(Sighting::Hung { stage: self.stage, silent, workers: hung.len(), named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_hang_is_reported_when_long_when_doubled_and_when_over() {
        let pulses = [("q/0", Stage::Copy), ("q/1", Stage::Copy), ("a/0", Stage::Archive)];
        let pulses = pulses.map(|(worker, stage)| Pulse::new(stage, worker));
        let mut watch = Watch::new(Stage::Copy, 60 * SECOND);
        pulses[0].begin(&[ticket("x")], 9 * SECOND);
        pulses[0].beat(10 * SECOND);
        pulses[2].beat(Duration::ZERO);
        assert_eq!(watch.look(&pulses, 69 * SECOND), None);
        let hung = |stuck: &[(&str, u32, &str)]| {
            let named: Vec<_> = stuck
                .iter()
                .map(|&(worker, silent, path)| Stuck {
                    worker: worker.to_owned(),
                    silent: silent * SECOND,
                    work: Some(Work { path: Path::new(path).into(), more: 0 }),
                })
                .collect();
            let (silent, workers) = (named[0].silent, named.len());
            Some(Sighting::Hung { stage: Stage::Copy, silent, workers, named })
        };
        assert_eq!(watch.look(&pulses, 70 * SECOND), hung(&[("q/0", 60, "x")]));
        assert_eq!(watch.look(&pulses, 80 * SECOND), None);
        pulses[1].begin(&[ticket("y")], 70 * SECOND);
        let both = [("q/0", 120, "x"), ("q/1", 60, "y")];
        assert_eq!(watch.look(&pulses, 130 * SECOND), hung(&both));
        pulses[0].beat(131 * SECOND);
        pulses[1].rest();
        assert_eq!(watch.look(&pulses, 140 * SECOND), Some(Sighting::Over { stage: Stage::Copy }));
        assert_eq!(watch.look(&pulses, 141 * SECOND), None);
        assert_eq!(watch.look(&pulses, 191 * SECOND), hung(&[("q/0", 60, "x")]));
    }

    #[test]
    fn a_report_names_the_worst_and_counts_all() {
        let pulses: Vec<_> =
            (0..20).map(|n| Pulse::new(Stage::Archive, &format!("a/{n}"))).collect();
        for (n, pulse) in pulses.iter().enumerate() {
            pulse.begin(&[ticket("b\n"), ticket("c")], n as u32 * SECOND);
        }
        let mut watch = Watch::new(Stage::Archive, 60 * SECOND);
        let Some(Sighting::Hung { workers, named, .. }) = watch.look(&pulses, 100 * SECOND) else {
            panic!("all hang");
        };
        assert_eq!((workers, named.len()), (20, NAMED_MAX));
        assert_eq!(named[0].to_string(), "a/0 for 100 s with \"b\\n\" and 1 more files");
    }

    fn ticket(path: &str) -> Ticket {
        let path = Path::new(path).into();
        let (stage, phase) = (Stage::Copy, super::super::Phase::Submit);
        Ticket { path, stage, phase, errors: 0, probe: false }
    }
}
