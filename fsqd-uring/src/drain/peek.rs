//! [`Peek`]: whether a name on the target is taken, asked at OPEN, while the client can still be
//! told.
//!
//! The drain never replaces a file either way; but what it finds taken after the acknowledgement it
//! can only give up. The target may hang for hours and OPEN must not, so threads of its own ask, a
//! question is waited for a moment only, and a target that does not answer is not asked again for a
//! while.
//!
//! Invariant: "taken" is answered only when the name has been seen; silence and errors mean "go on".

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::target::TargetRoot;
use crate::clock::Clock;
use crate::fs::Fs;

/// Threads that ask; as many questions are on their way at a time.
const THREADS: usize = 4;

/// Questions that may wait for a thread. More than that, and OPENs go on without an answer.
const QUESTIONS_MAX: usize = 64;

/// How long an OPEN waits for the answer.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a target that has not answered is left alone.
const PAUSE: Duration = Duration::from_secs(10);

struct Question {
    path: PathBuf,
    answer: SyncSender<bool>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Peek<C> {
    questions: SyncSender<Question>,
    clock: Arc<C>,
    /// Time of the clock, in milliseconds, before which nobody asks.
    resume_ms: AtomicU64,
}

impl<C: Clock> Peek<C> {
    /// Starts the threads. They end when this is dropped; one that hangs, when it no longer does.
    ///
    /// # Errors
    /// The system gives us no more threads.
    pub fn start<F: Fs>(target: Arc<TargetRoot<F>>, clock: Arc<C>) -> std::io::Result<Self> {
        let (questions, queue) = sync_channel(QUESTIONS_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..THREADS {
            let (queue, target) = (Arc::clone(&queue), Arc::clone(&target));
            std::thread::Builder::new()
                .name(format!("fsq_peek/{number}"))
                .spawn(move || answer_all(&queue, &target))?;
        }
        Ok(Self { questions, clock, resume_ms: AtomicU64::new(0) })
    }

    /// Whether `path`, below the target's root, is known to be taken.
    pub fn is_taken(&self, path: &Path) -> bool {
        let now_ms = self.clock.now().as_millis() as u64;
        if now_ms < self.resume_ms.load(Ordering::Relaxed) {
            return false;
        }
        let (answer, answered) = sync_channel(1);
        let question = Question { path: path.to_path_buf(), answer };
        if self.questions.try_send(question).is_err() {
            return false;
        }
        answered.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            self.resume_ms.store(now_ms + PAUSE.as_millis() as u64, Ordering::Relaxed);
            false
        })
    }
}

fn answer_all<F: Fs>(queue: &Mutex<Receiver<Question>>, target: &TargetRoot<F>) {
    loop {
        // Whoever waits for a question holds the lock; nobody else has anything to do meanwhile.
        let question = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { path, answer }) = question else { return };
        let taken = target.open().is_ok_and(|root| target.fs().stat_at(&root, &path).is_ok());
        // Whoever asked may have gone on.
        let _ = answer.send(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::fs::Ownership;
    use crate::fs::sim::{SimConfig, SimFs};

    #[test]
    fn a_taken_name_is_seen_and_a_hung_target_is_not_waited_for() {
        let fs = Arc::new(SimFs::new(SimConfig::lustre()));
        let root = fs.open_root(Path::new("/")).expect("a root");
        let owner = Ownership { uid: None, gid: None, mode: 0o640 };
        fs.create_named(&root, Path::new("taken"), owner, false).expect("created");
        let target = Arc::new(TargetRoot::new(Arc::clone(&fs), Path::new("/")));
        let peek = Peek::start(target, Arc::new(SystemClock::new())).expect("threads");
        assert!(peek.is_taken(Path::new("taken")));
        assert!(!peek.is_taken(Path::new("free")));
        assert!(!peek.is_taken(Path::new("no/such/directory")));
        fs.hang();
        let start = std::time::Instant::now();
        for _ in 0..100 {
            assert!(!peek.is_taken(Path::new("taken")));
        }
        assert!(start.elapsed() < PATIENCE * 4, "only the first one waits");
        fs.release();
    }
}
