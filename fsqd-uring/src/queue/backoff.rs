//! Growing, jittered delays: how long to wait before the next try.
//!
//! Invariant: the delay after `n` failures lies between half and all of `min * 2^(n-1)`, and never
//! above `max`; the same seed gives the same delays.

use std::time::Duration;

use crate::prng::Prng;

/// Bounds of the delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayBounds {
    /// After the first failure.
    pub min: Duration,
    /// After many.
    pub max: Duration,
}

impl Default for DelayBounds {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}

/// Draws delays.
#[derive(Debug)]
pub(crate) struct Backoff {
    bounds: DelayBounds,
    random: Prng,
}

impl Backoff {
    pub(crate) fn new(bounds: DelayBounds, seed: u64) -> Self {
        Self { bounds, random: Prng::new(seed) }
    }

    /// How long to wait after the `failures`-th failure in a row (1 is the first).
    ///
    /// Jitter keeps workers and daemons that failed together from coming back together.
    pub(crate) fn delay(&mut self, failures: u32) -> Duration {
        // 2^20 times any sensible minimum is far beyond any sensible maximum.
        let doublings = failures.saturating_sub(1).min(20);
        let whole = self.bounds.min.saturating_mul(1 << doublings).min(self.bounds.max);
        let half = whole / 2;
        let span_ns = u64::try_from((whole - half).as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(self.random.below(span_ns.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_stay_within_jitter() {
        let bounds = DelayBounds::default();
        for seed in 0..50 {
            let mut backoff = Backoff::new(bounds, seed);
            for failures in 1..40 {
                let whole = Duration::from_secs(1 << (failures - 1).min(20)).min(bounds.max);
                let delay = backoff.delay(failures);
                assert!(delay >= whole / 2 && delay <= whole, "{failures}: {delay:?} {whole:?}");
            }
            assert!(backoff.delay(u32::MAX) <= bounds.max);
        }
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            let mut backoff = Backoff::new(DelayBounds::default(), seed);
            (1..10).map(|n| backoff.delay(n)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
