//! [`Queue`]: where jobs wait for a thread, first in, first out.
//!
//! Invariant: a job that was taken in is given out exactly once, also when the queue is closed.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

/// A job that was not taken in.
#[derive(Debug)]
pub(super) enum Rejected<T> {
    /// Too many are waiting.
    Full(T),
    /// No thread takes jobs any more.
    Closed(T),
}

/// A first-in, first-out queue between threads.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { jobs: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in; gives it back if `jobs_max` are waiting already or the queue is closed.
    pub(super) fn push(&self, job: T, jobs_max: usize) -> Result<(), Rejected<T>> {
        let mut state = self.state();
        if state.closed {
            return Err(Rejected::Closed(job));
        }
        if state.jobs.len() >= jobs_max {
            return Err(Rejected::Full(job));
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a job; `None`: the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No thread waits any more once the queue is empty.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }
}
