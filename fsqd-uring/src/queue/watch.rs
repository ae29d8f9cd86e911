//! Notices a hung target: workers say when they last heard from it, and somebody who cannot hang
//! looks.
//!
//! Invariant: a worker in a blocked call is told apart from an idle one, and each hang is reported
//! when it is long, each time it has doubled, and when it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::scheduler::Stage;

/// One worker's sign of life. Cheap enough for every completed block: one relaxed store.
#[derive(Debug)]
pub struct Pulse {
    stage: Stage,
    /// Milliseconds of the clock at the last answer, or [`IDLE`].
    last_ms: AtomicU64,
}

const IDLE: u64 = u64::MAX;

impl Pulse {
    pub(crate) fn new(stage: Stage) -> Arc<Self> {
        Arc::new(Self { stage, last_ms: AtomicU64::new(IDLE) })
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
}

/// Something to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Workers of this stage wait for an answer.
    Hung {
        /// Whose.
        stage: Stage,
        /// How long the longest has waited.
        silent: Duration,
        /// How many workers wait longer than the first threshold.
        workers: usize,
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
        let hung = pulses
            .iter()
            .filter(|pulse| pulse.stage == self.stage)
            .filter_map(|pulse| pulse.silent_for(now))
            .filter(|silent| *silent >= self.first);
        let (workers, silent) = hung.fold((0, Duration::ZERO), |(n, max), s| (n + 1, max.max(s)));
        if workers == 0 {
            let over = self.next > self.first;
            self.next = self.first;
            return over.then_some(Sighting::Over { stage: self.stage });
        }
        if silent < self.next {
            return None;
        }
        self.next = silent * 2;
        Some(Sighting::Hung { stage: self.stage, silent, workers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_hang_is_reported_when_long_when_doubled_and_when_over() {
        let pulses = [Pulse::new(Stage::Copy), Pulse::new(Stage::Copy), Pulse::new(Stage::Archive)];
        let mut watch = Watch::new(Stage::Copy, 60 * SECOND);
        pulses[0].beat(10 * SECOND);
        pulses[2].beat(Duration::ZERO);
        assert_eq!(watch.look(&pulses, 69 * SECOND), None);
        let hung = |silent, workers| {
            Some(Sighting::Hung { stage: Stage::Copy, silent: silent * SECOND, workers })
        };
        assert_eq!(watch.look(&pulses, 70 * SECOND), hung(60, 1));
        assert_eq!(watch.look(&pulses, 80 * SECOND), None);
        pulses[1].beat(70 * SECOND);
        assert_eq!(watch.look(&pulses, 130 * SECOND), hung(120, 2));
        pulses[0].beat(131 * SECOND);
        pulses[1].rest();
        assert_eq!(watch.look(&pulses, 140 * SECOND), Some(Sighting::Over { stage: Stage::Copy }));
        assert_eq!(watch.look(&pulses, 141 * SECOND), None);
        assert_eq!(watch.look(&pulses, 191 * SECOND), hung(60, 1));
    }
}
