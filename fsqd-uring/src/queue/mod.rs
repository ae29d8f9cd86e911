//! The queue of staged files: what there is to do, who does it, and when.
//!
//! [`Queue`] puts the pure [`scheduler`] behind a lock for the threads that drain and archive, and
//! for those that hand in new files. The attributes of the staged files are the only truth; the
//! queue holds paths, and [`recovery`] finds on disk what memory has not or no longer.
//!
//! Invariant: no call of [`Queue`] makes a system call on a file system, so a hung target can hold up only
//! the worker that is talking to it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

pub use self::backoff::DelayBounds;
pub use self::failure::{Failure, FailureClass, Side, classify};
pub use self::health::{Change, Health};
pub use self::scheduler::{Admission, Limits, Occupancy, Outcome, Phase, Scheduler, Stage, Ticket};
pub use self::watch::{Pulse, Sighting, Stuck, Work};

mod backoff;
mod failure;
mod health;
pub mod record;
pub mod recovery;
pub mod route;
mod scheduler;
pub mod staged;
mod watch;

/// Within the time after which a silent worker is reported, the chores' thread looks so often.
const LOOKS: u32 = 6;

/// Something for the one thread that keeps house.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chore {
    /// The staging tree holds files that memory has no room for before: scan it.
    Rescan,
    /// The workers' silence is worth a log line.
    Report(Sighting),
}

/// The scheduler, shared.
#[derive(Debug)]
pub struct Queue<C> {
    clock: Arc<C>,
    state: Mutex<State>,
    copy: Condvar,
    archive: Condvar,
    chores: Condvar,
    closing: AtomicBool,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    pulses: Vec<Arc<Pulse>>,
    watches: [watch::Watch; 2],
    watch_every: Duration,
    next_watch: Duration,
}

impl<C: Clock> Queue<C> {
    /// An empty queue.
    pub fn new(limits: Limits, clock: Arc<C>) -> Self {
        let watch_every = limits.hung_after / LOOKS;
        let state = State {
            scheduler: Scheduler::new(limits),
            pulses: Vec::new(),
            watches: [Stage::Copy, Stage::Archive]
                .map(|stage| watch::Watch::new(stage, limits.hung_after)),
            watch_every,
            next_watch: clock.now() + watch_every,
        };
        Self {
            clock,
            state: Mutex::new(state),
            copy: Condvar::new(),
            archive: Condvar::new(),
            chores: Condvar::new(),
            closing: AtomicBool::new(false),
        }
    }

    /// The clock that all times of the queue are of.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// The same clock, for who has to keep it.
    pub fn shared_clock(&self) -> Arc<C> {
        Arc::clone(&self.clock)
    }

    /// Offers a file. Refused ones are on disk and found by a scan once there is room.
    pub fn enqueue(&self, path: &Path, stage: Stage, phase: Phase) -> Admission {
        let admission = self.lock().scheduler.enqueue(path, stage, phase);
        if admission == Admission::Queued {
            self.wakeup(stage).notify_one();
        }
        admission
    }

    /// A worker announces itself, from the thread that it is and is named after; it must say through
    /// the pulse when it is busy.
    pub fn register(&self, stage: Stage) -> Arc<Pulse> {
        let pulse = Pulse::new(stage, std::thread::current().name().unwrap_or("a worker"));
        self.lock().pulses.push(Arc::clone(&pulse));
        pulse
    }

    /// Waits for work: one or up to `max` files (see [`Scheduler::take`]); `None` once the queue is
    /// closed.
    pub fn take(&self, stage: Stage, max: usize) -> Option<Vec<Ticket>> {
        let mut state = self.lock();
        loop {
            if self.is_closing() {
                return None;
            }
            let now = self.clock.now();
            state = match state.scheduler.take(stage, max, now) {
                Ok(tickets) => return Some(tickets),
                Err(until) => wait(self.wakeup(stage), state, until.map(|at| at - now)),
            };
        }
    }

    /// What there is to do right now.
    ///
    /// # Errors
    /// Nothing: the time at which that changes by itself, if any.
    pub fn poll(&self, stage: Stage, max: usize) -> Result<Vec<Ticket>, Option<Duration>> {
        self.lock().scheduler.take(stage, max, self.clock.now())
    }

    /// A worker is through with a file for now.
    pub fn finished(&self, ticket: &Ticket, outcome: Outcome) {
        let now = self.clock.now();
        let change = self.lock().scheduler.finished(ticket, outcome, now);
        if let Some(change) = change {
            report(ticket.stage, change);
        }
        // Whoever waits may have a new time to wait for, a probe to make, or a file to take; and
        // what leaves makes room for what a scan can find.
        self.copy.notify_all();
        self.archive.notify_all();
        self.chores.notify_one();
    }

    /// Whether such a failure is the last one of a file with `errors` counted ones before.
    pub fn gives_up(&self, class: FailureClass, errors: u32) -> bool {
        self.lock().scheduler.gives_up(class, errors)
    }

    /// Waits for something to keep house about; `None` once the queue is closed.
    pub fn next_chore(&self) -> Option<Chore> {
        let mut state = self.lock();
        loop {
            if self.is_closing() {
                return None;
            }
            if let Some(chore) = self.chore(&mut state) {
                return Some(chore);
            }
            let patience = state.next_watch.saturating_sub(self.clock.now());
            state = wait(&self.chores, state, Some(patience));
        }
    }

    /// [`Queue::next_chore`] without waiting.
    pub fn poll_chore(&self) -> Option<Chore> {
        self.chore(&mut self.lock())
    }

    /// Ends it: nobody gets more work, and workers leave at the next safe point.
    pub fn close(&self) {
        // Under the lock, so that nobody misses it between looking and waiting.
        let _state = self.lock();
        self.closing.store(true, Ordering::Release);
        self.copy.notify_all();
        self.archive.notify_all();
        self.chores.notify_all();
    }

    /// Whether workers should stop at the next safe point. One atomic load.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Health of a lane's other end.
    pub fn health(&self, stage: Stage) -> Health {
        self.lock().scheduler.health(stage)
    }

    /// How many files of a lane stand where.
    pub fn occupancy(&self, stage: Stage) -> Occupancy {
        self.lock().scheduler.occupancy(stage)
    }

    /// Whether the scan that was last asked for can still find something that the queue takes.
    pub fn is_seeking(&self) -> bool {
        self.lock().scheduler.is_seeking()
    }

    /// Files in memory, and bytes of their paths.
    #[cfg(test)]
    pub(crate) fn footprint(&self) -> (usize, usize) {
        self.lock().scheduler.footprint()
    }

    fn chore(&self, state: &mut State) -> Option<Chore> {
        if state.scheduler.take_rescan() {
            return Some(Chore::Rescan);
        }
        let now = self.clock.now();
        if now < state.next_watch {
            return None;
        }
        let State { pulses, watches, watch_every, next_watch, .. } = state;
        if let Some(sighting) = watches.iter_mut().find_map(|watch| watch.look(pulses, now)) {
            // The other watch is looked at right after.
            return Some(Chore::Report(sighting));
        }
        *next_watch = now + *watch_every;
        None
    }

    fn wakeup(&self, stage: Stage) -> &Condvar {
        match stage {
            Stage::Copy => &self.copy,
            Stage::Archive => &self.archive,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The scheduler changes nothing before it has checked its own invariants, so what a
        // panicking worker leaves behind is whole; the others go on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(
    condition: &Condvar,
    state: MutexGuard<'a, State>,
    patience: Option<Duration>,
) -> MutexGuard<'a, State> {
    match patience {
        Some(patience) => {
            condition.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0
        }
        None => condition.wait(state).unwrap_or_else(PoisonError::into_inner),
    }
}

fn report(stage: Stage, change: Change) {
    let whose = match stage {
        Stage::Copy => "target",
        Stage::Archive => "archive",
    };
    match change {
        Change::WentDown { probe_after } => tracing::warn!(
            "{whose} is down: files stay on staging, next try in {:.1} s",
            probe_after.as_secs_f64()
        ),
        Change::CameUp { after } => {
            tracing::info!("{whose} is up again after {:.1} s", after.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests;
