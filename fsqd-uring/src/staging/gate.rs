//! Sign-ons: answered at once where the answer is known, else one after the other.
//!
//! Two threads. The desk gives every answer that is known; who has to wait for another machine is
//! passed on to the second thread. Invariant: a server that is slow, or hangs, holds up only those
//! whom nobody but it can answer.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::queue::{Queue, Rejected};
use super::{Shared, Task, refuse};
use crate::fs::Fs;
use crate::identmap::Identity;
use crate::limits::SIGN_ON_STOP_MS;
use crate::refusal::Refusal;
use crate::services::{Answer, Job, Secret};

/// Checks node, password and peer address.
pub trait Gate: Send + Sync {
    /// The answer, if it is known without asking anybody; does not block.
    fn recall(
        &self,
        node: &str,
        password: &Secret,
        peer: &str,
    ) -> Option<Result<Arc<Identity>, Refusal>>;

    /// The answer.
    ///
    /// # Errors
    /// What the client is told.
    fn sign_on(&self, node: &str, password: &Secret, peer: &str) -> Result<Arc<Identity>, Refusal>;
}

/// A function that knows every answer.
impl<F> Gate for F
where
    F: Fn(&str, &Secret, &str) -> Result<Arc<Identity>, Refusal> + Send + Sync,
{
    fn recall(
        &self,
        node: &str,
        password: &Secret,
        peer: &str,
    ) -> Option<Result<Arc<Identity>, Refusal>> {
        Some(self(node, password, peer))
    }

    fn sign_on(&self, node: &str, password: &Secret, peer: &str) -> Result<Arc<Identity>, Refusal> {
        self(node, password, peer)
    }
}

impl<F: Fs> Shared<F> {
    /// What the desk does: answers, or passes on.
    pub(super) fn sign_on(&self, task: Task) {
        let Job::SignOn { node, password, peer } = &task.job else { return };
        if let Some(answer) = self.neighbours.gate.recall(node, password, peer) {
            return task.port.answer(task.token, Answer::SignOn(answer));
        }
        match self.questions.push(task, self.config.jobs_max) {
            Ok(()) => {}
            Err(Rejected::Full(task)) => self.refuse(task, refuse::busy()),
            Err(Rejected::Closed(task)) => self.refuse(task, refuse::stopping()),
        }
    }

    /// The thread that waits for others.
    pub(super) fn ask_for_sign_ons(&self) {
        while let Some(task) = self.questions.pop() {
            let Job::SignOn { node, password, peer } = &task.job else { continue };
            let answer = self.neighbours.gate.sign_on(node, password, peer);
            task.port.answer(task.token, Answer::SignOn(answer));
        }
    }

    /// Ends the second thread: who still waits is refused, and who is asked about is waited for
    /// for a while only. The thread then goes with the process; it holds nothing of staging.
    pub(super) fn end_questions(&self, thread: JoinHandle<()>) {
        for task in self.questions.close_and_take() {
            self.refuse(task, refuse::stopping());
        }
        let end = Instant::now() + Duration::from_millis(SIGN_ON_STOP_MS);
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            // If it panicked it has said so itself.
            let _ = thread.join();
        }
    }
}

impl<T> Queue<T> {
    /// Closes it and takes out what is left.
    fn close_and_take(&self) -> Vec<T> {
        self.close();
        std::iter::from_fn(|| self.pop()).collect()
    }
}
