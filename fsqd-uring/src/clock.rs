//! The clock seam: what the daemon may know of time.
//!
//! Invariant: no logic module reads a clock of the system; it is told the time or asks a [`Clock`].

use std::time::{Duration, Instant};

/// Monotonic time since an arbitrary start, and waiting.
pub trait Clock: Send + Sync + 'static {
    /// Time since the clock's start. Never goes back.
    fn now(&self) -> Duration;
    /// Blocks the calling thread for `period` (a simulated clock only moves its own time).
    fn sleep(&self, period: Duration);
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock that starts at zero now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, period: Duration) {
        std::thread::sleep(period);
    }
}
