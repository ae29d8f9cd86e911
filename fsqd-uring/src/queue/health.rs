//! Whether a lane's other end (the target, the archive) works: Up, or Down with probes.
//!
//! Invariant: while Down at most one file at a time is let through, and not before the delay after
//! the last failed probe is over.

use std::time::Duration;

use super::backoff::Backoff;

/// Up or Down, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Up,
    /// It does not.
    Down {
        /// Since when.
        since: Duration,
        /// When the next probe may go.
        probe_at: Duration,
        /// Failed tries so far, the first one included.
        failures: u32,
        /// A probe is on its way.
        probing: bool,
    },
}

/// Whether a file may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Any number.
    Open,
    /// One, and its fate tells how it goes on.
    Probe,
    /// None before this time.
    Until(Duration),
    /// None until the probe has come back.
    Probing,
}

/// Health has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// From Up to Down; next probe after this delay.
    WentDown {
        /// Until the next probe.
        probe_after: Duration,
    },
    /// From Down to Up.
    CameUp {
        /// How long it was down.
        after: Duration,
    },
}

impl Health {
    pub(crate) fn gate(&self, now: Duration) -> Gate {
        match *self {
            Self::Up => Gate::Open,
            Self::Down { probing: true, .. } => Gate::Probing,
            Self::Down { probe_at, .. } if probe_at > now => Gate::Until(probe_at),
            Self::Down { .. } => Gate::Probe,
        }
    }

    pub(crate) fn probe_started(&mut self) {
        if let Self::Down { probing, .. } = self {
            *probing = true;
        }
    }

    /// A file failed because of the other end. Failures of files that were under way when it went
    /// down (no probes) tell nothing new and do not lengthen the delay.
    pub(crate) fn failed(
        &mut self,
        now: Duration,
        probe: bool,
        backoff: &mut Backoff,
    ) -> Option<Change> {
        match self {
            Self::Up => {
                let probe_after = backoff.delay(1);
                let probe_at = now + probe_after;
                *self = Self::Down { since: now, probe_at, failures: 1, probing: false };
                Some(Change::WentDown { probe_after })
            }
            Self::Down { probe_at, failures, probing, .. } => {
                if probe {
                    *failures = failures.saturating_add(1);
                    *probe_at = now + backoff.delay(*failures);
                    *probing = false;
                }
                None
            }
        }
    }

    /// The other end did what was asked, or refused this one file: it is there.
    pub(crate) fn answered(&mut self, now: Duration) -> Option<Change> {
        match std::mem::replace(self, Self::Up) {
            Self::Up => None,
            Self::Down { since, .. } => Some(Change::CameUp { after: now.saturating_sub(since) }),
        }
    }

    /// A file came back without having reached the other end. Was it the probe, the next one goes
    /// at once.
    pub(crate) fn unanswered(&mut self, probe: bool) {
        if let Self::Down { probing, .. } = self
            && probe
        {
            *probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::backoff::DelayBounds;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_probe_at_a_time_with_growing_delays() {
        let mut backoff = Backoff::new(DelayBounds::default(), 1);
        let mut health = Health::Up;
        let mut now = SECOND;
        assert_eq!(health.gate(now), Gate::Open);
        assert!(matches!(health.failed(now, false, &mut backoff), Some(Change::WentDown { .. })));
        let mut delays = Vec::new();
        for _ in 0..12 {
            let Gate::Until(at) = health.gate(now) else { panic!("paused: {health:?}") };
            delays.push(at - now);
            now = at;
            assert_eq!(health.gate(now), Gate::Probe);
            health.probe_started();
            assert_eq!(health.gate(now), Gate::Probing);
            assert_eq!(health.failed(now, false, &mut backoff), None);
            assert_eq!(health.gate(now), Gate::Probing, "a straggler does not free the probe");
            assert_eq!(health.failed(now, true, &mut backoff), None);
        }
        assert!(delays[11] > delays[0] * 100, "{delays:?}");
        assert!(delays.iter().all(|delay| *delay <= DelayBounds::default().max));
        let Some(Change::CameUp { after }) = health.answered(now) else { panic!("up again") };
        assert_eq!(after, now - SECOND);
        assert_eq!(health.answered(now), None);
    }

    #[test]
    fn a_probe_that_never_reached_the_other_end_is_followed_at_once() {
        let mut backoff = Backoff::new(DelayBounds::default(), 1);
        let mut health = Health::Up;
        health.failed(Duration::ZERO, false, &mut backoff);
        let now = DelayBounds::default().max;
        health.probe_started();
        health.unanswered(false);
        assert_eq!(health.gate(now), Gate::Probing);
        health.unanswered(true);
        assert_eq!(health.gate(now), Gate::Probe);
    }
}
