//! Waiting for space: how full staging is, and the jobs that wait for it to become less so.
//!
//! Invariant: a job that waits holds no thread and no name, and is answered by its deadline.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::fs::{Fs, Result, Space};
use crate::limits::SPACE_CACHE_MS;

/// The last answer of statfs and when it was given.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    last: Mutex<Option<(Duration, Space)>>,
}

impl Gauge {
    /// How full the file system of `root` is, at most [`SPACE_CACHE_MS`] ago.
    pub(super) fn space<F: Fs>(&self, fs: &F, root: &F::Node, clock: &dyn Clock) -> Result<Space> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        if let Some((at, space)) = *last
            && now.saturating_sub(at) < Duration::from_millis(SPACE_CACHE_MS)
        {
            return Ok(space);
        }
        let space = fs.space(root)?;
        *last = Some((now, space));
        Ok(space)
    }

    /// The last answer is known to be out of date.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Whether more than `high_percent` of the file system is used.
pub(super) fn is_above(space: Space, high_percent: u8) -> bool {
    let used = space.total_bytes.saturating_sub(space.available_bytes);
    u128::from(used) * 100 > u128::from(space.total_bytes) * u128::from(high_percent)
}

#[derive(Debug)]
struct State<T> {
    jobs: Vec<T>,
    /// Look now: space was freed, or a job asks to be let go.
    nudged: bool,
    stopping: bool,
}

/// The jobs that wait.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Waiting<T> {
    pub(super) fn new() -> Self {
        let state = State { jobs: Vec::new(), nudged: false, stopping: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in; gives it back if nobody will look any more.
    pub(super) fn park(&self, job: T) -> std::result::Result<(), T> {
        let mut state = self.state();
        if state.stopping {
            return Err(job);
        }
        state.jobs.push(job);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until there are jobs and `period` is over or somebody nudged; then gives them all
    /// out, oldest first. `None`: stopping, and nothing is left.
    pub(super) fn take(&self, period: Duration) -> Option<Vec<T>> {
        let idle = |state: &mut State<T>| state.jobs.is_empty() && !state.stopping;
        let state = self.changed.wait_while(self.state(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let early = |state: &mut State<T>| !state.nudged && !state.stopping;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, period, early)
            .unwrap_or_else(PoisonError::into_inner);
        state.nudged = false;
        let jobs = std::mem::take(&mut state.jobs);
        if state.stopping && jobs.is_empty() { None } else { Some(jobs) }
    }

    /// Takes out the jobs that `wanted` says yes to.
    pub(super) fn remove(&self, wanted: impl FnMut(&mut T) -> bool) -> Vec<T> {
        self.state().jobs.extract_if(.., wanted).collect()
    }

    /// Lets the jobs be looked at now.
    pub(super) fn nudge(&self) {
        self.state().nudged = true;
        self.changed.notify_all();
    }

    /// No job is taken in any more.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.changed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state().stopping
    }

    /// Jobs that wait now.
    pub(super) fn len(&self) -> usize {
        self.state().jobs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_means_more_than() {
        let space = |available_bytes| Space { total_bytes: 1000, available_bytes };
        assert!(!is_above(space(100), 90));
        assert!(is_above(space(99), 90));
        assert!(!is_above(space(0), 100));
        assert!(is_above(Space { total_bytes: u64::MAX, available_bytes: 0 }, 99));
    }
}
