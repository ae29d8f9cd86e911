//! The staging service: a pool of threads that makes the calls an ingest ring must not make.
//!
//! It owns the files that are being received, their names until they are published, and the wait
//! for space. Rings hand it [`Job`]s through [`RingServices`]; answers come back through the ring's
//! [`Mailbox`]. `receive` begins files, `commit` completes them (its documentation says what a
//! loss of power can leave), `sync` makes them durable in groups, `root` tries at start what all
//! of it relies on.
//!
//! Invariant: every job is answered exactly once, and a file is either being received, or published
//! and complete, or gone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use fsq_wire::StorageDest;

use crate::clock::Clock;
use crate::config::Durability;
use crate::fs::Fs;
use crate::limits::{SPACE_RECHECK_MS, STAGING_THREADS};
use crate::queue::record::Content;
use crate::refusal::Refusal;
use crate::ring::arena::Arena;
use crate::ring::{Span, Token};
use crate::services::{Answer, Job, Services};

pub use self::counters::Totals;
pub use self::gate::Gate;
pub use self::root::{Facts, RootError, StagingRoot};

use self::commit::Prepared;
use self::counters::{Counters, count};
use self::files::Files;
use self::names::Names;
use self::queue::{Queue, Rejected};
use self::space::{Gauge, Waiting, is_above};
use self::sync::Lineup;

mod commit;
mod counters;
mod files;
mod gate;
mod names;
mod queue;
mod receive;
mod refuse;
pub mod root;
mod space;
mod sync;
#[cfg(test)]
mod tests;

/// Where a ring's answers go. Called from the service's threads; must not block.
pub trait Mailbox: Send + Sync {
    /// Hands over the answer to the job with this token.
    fn deliver(&self, token: Token, answer: Answer);
}

/// The memory that a ring's jobs name by spans.
pub trait TailMemory: Send + Sync {
    /// Lends a span's bytes, which belong to the service while the job is not answered.
    fn with(&self, span: Span, to: &mut dyn FnMut(&mut [u8]));
}

impl TailMemory for Arena {
    fn with(&self, span: Span, to: &mut dyn FnMut(&mut [u8])) {
        self.lend(span, to);
    }
}

/// Takes the path, below the staging root, of each file that is to be drained, and its destination.
/// Called before the file is acknowledged; must not block.
pub type Outbox = dyn Fn(&Path, StorageDest) + Send + Sync;

/// Whether a path below the target's root is known to be taken; must not block for long.
pub type IsTaken = dyn Fn(&Path) -> bool + Send + Sync;

/// What the service asks of the rest of the daemon.
pub struct Neighbours {
    /// Checks sign-ons.
    pub gate: Box<dyn Gate>,
    /// Takes what is staged.
    pub outbox: Box<Outbox>,
    /// Looks at the target before a file that goes there is begun.
    pub is_taken: Box<IsTaken>,
}

/// How the service works.
#[derive(Clone, Debug)]
pub struct StagingConfig {
    /// When a file counts as stored.
    pub durability: Durability,
    /// Above this much used space, percent, no file is begun.
    pub staging_high_percent: u8,
    /// How long a job waits for space before it is refused.
    pub space_wait: Duration,
    /// How often waiting jobs are looked at.
    pub space_recheck: Duration,
    /// Files received at the same time; each takes two file descriptors.
    pub files_max: usize,
    /// OPENs and sign-ons that wait for a thread; the other jobs are bounded by `files_max`.
    pub jobs_max: usize,
    /// Threads of the pool.
    pub threads: usize,
}

impl StagingConfig {
    /// The usual settings for so many sessions, each with one file.
    #[must_use]
    pub fn new(durability: Durability, sessions_max: usize) -> Self {
        Self {
            durability,
            staging_high_percent: 90,
            space_wait: Duration::from_secs(600),
            space_recheck: Duration::from_millis(SPACE_RECHECK_MS),
            files_max: sessions_max,
            jobs_max: sessions_max,
            threads: STAGING_THREADS,
        }
    }
}

/// Why a job cannot go on.
#[derive(Debug)]
enum Stop {
    /// For good.
    Refuse(Refusal),
    /// Until there is space again.
    NoSpace,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// What belongs to one ring.
struct Port {
    mailbox: Arc<dyn Mailbox>,
    memory: Arc<dyn TailMemory>,
}

impl Port {
    fn answer(&self, token: Token, answer: Answer) {
        self.mailbox.deliver(token, answer);
    }
}

/// A job on its way.
struct Task {
    port: Arc<Port>,
    token: Token,
    job: Job,
    /// When it has waited long enough for space; set with the first wait.
    deadline: Option<Duration>,
}

/// What the threads share.
struct Shared<F: Fs> {
    root: Arc<StagingRoot<F>>,
    config: StagingConfig,
    clock: Arc<dyn Clock>,
    names: Arc<Names<F>>,
    files: Files<F>,
    tasks: Queue<Task>,
    sign_ons: Queue<Task>,
    /// Sign-ons that somebody else has to be asked about.
    questions: Queue<Task>,
    waiting: Waiting<Task>,
    lineup: Lineup<Prepared<F>>,
    gauge: Gauge,
    counters: Counters,
    neighbours: Neighbours,
}

/// The running service. Stops when dropped.
pub struct StagingService<F: Fs> {
    shared: Arc<Shared<F>>,
    workers: Vec<JoinHandle<()>>,
    asker: Option<JoinHandle<()>>,
    space: Option<JoinHandle<()>>,
    syncer: Option<JoinHandle<()>>,
}

impl<F: Fs> StagingService<F> {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives us no more threads.
    pub fn start(
        root: Arc<StagingRoot<F>>,
        config: StagingConfig,
        clock: Arc<dyn Clock>,
        neighbours: Neighbours,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            names: Arc::new(Names::new(Arc::clone(&root))),
            root,
            config,
            clock,
            files: Files::new(),
            tasks: Queue::new(),
            sign_ons: Queue::new(),
            questions: Queue::new(),
            waiting: Waiting::new(),
            lineup: Lineup::new(),
            gauge: Gauge::default(),
            counters: Counters::default(),
            neighbours,
        });
        // Already the service, so that a thread that cannot be had stops the ones there are.
        let mut service =
            Self { shared, workers: Vec::new(), asker: None, space: None, syncer: None };
        for number in 0..service.shared.config.threads {
            let worker = service.spawn(format!("fsq_stage/{number}"), |shared| {
                while let Some(task) = shared.tasks.pop() {
                    shared.run(task);
                }
            })?;
            service.workers.push(worker);
        }
        let desk = service.spawn("fsq_signon/0".to_owned(), |shared| {
            while let Some(task) = shared.sign_ons.pop() {
                shared.run(task);
            }
        })?;
        service.workers.push(desk);
        service.asker = Some(service.spawn("fsq_signon/1".to_owned(), Shared::ask_for_sign_ons)?);
        service.space = Some(service.spawn("fsq_space".to_owned(), Shared::watch_space)?);
        service.syncer = Some(service.spawn("fsq_sync".to_owned(), |shared| {
            while let Some(batch) = shared.lineup.take() {
                shared.sync(batch);
            }
        })?);
        Ok(service)
    }

    fn spawn(
        &self,
        name: String,
        body: impl FnOnce(&Shared<F>) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new().name(name).spawn(move || body(&shared))
    }

    /// What makes the way in for one ring, on that ring's thread: answers go to its mailbox, tails
    /// are in its memory.
    pub fn connector(
        &self,
    ) -> impl FnOnce(Arc<dyn Mailbox>, Arc<dyn TailMemory>) -> RingServices<F> + Send + 'static
    {
        let shared = Arc::clone(&self.shared);
        |mailbox, memory| RingServices { shared, port: Arc::new(Port { mailbox, memory }) }
    }

    /// What to call when space was freed on staging: jobs that wait for it are looked at then,
    /// instead of at the next of their regular looks.
    pub fn space_notice(&self) -> impl Fn() + Send + Sync + use<F> {
        // Weak: whoever frees space may outlive the service.
        let shared = Arc::downgrade(&self.shared);
        move || {
            if let Some(shared) = shared.upgrade() {
                shared.gauge.forget();
                shared.waiting.nudge();
            }
        }
    }

    /// Files being received now.
    #[must_use]
    pub fn files(&self) -> usize {
        self.shared.files.len()
    }

    /// Jobs that wait for space now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.len()
    }

    /// What has been done so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.counters.totals()
    }

    /// Whether a sync of the staging file system has ever failed.
    #[must_use]
    pub fn sync_failed(&self) -> bool {
        self.shared.counters.sync_failed.load(Ordering::Relaxed)
    }
}

impl<F: Fs> Drop for StagingService<F> {
    /// Jobs that wait for space are refused, all others are finished; then the threads end.
    fn drop(&mut self) {
        let shared = &self.shared;
        // In this order, so that nobody hands a job to a thread that is gone.
        shared.waiting.stop();
        let mut threads: Vec<_> = self.space.take().into_iter().collect();
        join(&mut threads);
        shared.tasks.close();
        shared.sign_ons.close();
        join(&mut self.workers);
        if let Some(asker) = self.asker.take() {
            shared.end_questions(asker);
        }
        shared.lineup.close();
        threads.extend(self.syncer.take());
        join(&mut threads);
    }
}

fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        // A thread that panicked has said so itself.
        let _ = thread.join();
    }
}

/// One ring's way to the service.
pub struct RingServices<F: Fs> {
    shared: Arc<Shared<F>>,
    port: Arc<Port>,
}

impl<F: Fs> Services for RingServices<F> {
    fn submit(&mut self, token: Token, job: Job) {
        let port = Arc::clone(&self.port);
        self.shared.enqueue(Task { port, token, job, deadline: None });
    }
}

impl<F: Fs> Shared<F> {
    /// Puts a task before the threads.
    fn enqueue(&self, task: Task) {
        let (queue, jobs_max) = match &task.job {
            Job::SignOn { .. } => (&self.sign_ons, self.config.jobs_max),
            Job::Open(_) => (&self.tasks, self.config.jobs_max),
            // Bounded by the files there are, one job each.
            Job::Extend { .. } | Job::Abort { .. } => (&self.tasks, usize::MAX),
            Job::Commit { .. } => {
                self.lineup.announce();
                (&self.tasks, usize::MAX)
            }
        };
        let (task, refusal) = match queue.push(task, jobs_max) {
            Ok(()) => return,
            Err(Rejected::Full(task)) => (task, refuse::busy()),
            Err(Rejected::Closed(task)) => (task, refuse::stopping()),
        };
        if let Job::Commit { .. } = &task.job {
            self.lineup.arrive(None);
        }
        self.refuse(task, refusal);
    }

    /// Does a job; it is answered, or parked, or lined up for the sync.
    fn run(&self, task: Task) {
        let (port, token) = (&task.port, task.token);
        let stop = match &task.job {
            Job::SignOn { .. } => return self.sign_on(task),
            Job::Abort { staged } => return self.abort(&task, staged.key),
            Job::Open(new) => match self.open(new) {
                Ok(staged) => {
                    count(&self.counters.opens);
                    return port.answer(token, Answer::Open(Ok(staged)));
                }
                Err(stop) => stop,
            },
            &Job::Extend { staged, from, len } => match self.extend(staged, from, len) {
                Ok(end) => return port.answer(token, Answer::Extend(Ok(end))),
                Err(stop) => stop,
            },
            &Job::Commit { staged, tail, len, crc } => {
                match self.prepare(port, token, staged, tail, Content { len, crc }) {
                    Ok(prepared) if self.config.durability == Durability::Written => {
                        self.lineup.arrive(None);
                        return self.acknowledge(prepared);
                    }
                    Ok(prepared) => return self.lineup.arrive(Some(prepared)),
                    Err(stop) => {
                        self.lineup.arrive(None);
                        stop
                    }
                }
            }
        };
        match stop {
            Stop::Refuse(refusal) => self.refuse(task, refusal),
            Stop::NoSpace => self.park(task),
        }
    }

    fn abort(&self, task: &Task, key: u64) {
        drop(self.files.remove(key));
        let of_file = |waiting: &mut Task| {
            matches!(&waiting.job,
                Job::Extend { staged, .. } | Job::Commit { staged, .. } if staged.key == key)
        };
        for waiting in self.waiting.remove(of_file) {
            self.refuse(waiting, refuse::unknown_file());
        }
        count(&self.counters.aborts);
        task.port.answer(task.token, Answer::Abort);
    }

    /// Answers a job with a refusal; a file that it would have consumed goes.
    fn refuse(&self, task: Task, refusal: Refusal) {
        let Task { port, token, job, .. } = task;
        count(&self.counters.refusals);
        let answer = match job {
            Job::SignOn { .. } => Answer::SignOn(Err(refusal)),
            Job::Open(_) => Answer::Open(Err(refusal)),
            Job::Extend { .. } => Answer::Extend(Err(refusal)),
            Job::Commit { staged, .. } => {
                drop(self.files.remove(staged.key));
                Answer::Commit(Err(refusal))
            }
            Job::Abort { staged } => {
                drop(self.files.remove(staged.key));
                Answer::Abort
            }
        };
        port.answer(token, answer);
    }

    /// Lets a job wait for space, without a thread, until its deadline.
    fn park(&self, mut task: Task) {
        let now = self.clock.now();
        if task.deadline.is_none() {
            count(&self.counters.space_waits);
        }
        let deadline = *task.deadline.get_or_insert(now + self.config.space_wait);
        if now >= deadline {
            let refusal = self.no_space(&task.job);
            return self.refuse(task, refusal);
        }
        if let Err(task) = self.waiting.park(task) {
            self.refuse(task, refuse::stopping());
        }
    }

    fn no_space(&self, job: &Job) -> Refusal {
        match job {
            Job::Open(new) => refuse::no_space(&new.fpath),
            Job::Extend { staged, .. } | Job::Commit { staged, .. } | Job::Abort { staged } => {
                let file = self.files.find(staged.key);
                file.map_or_else(refuse::unknown_file, |file| refuse::no_space(&file.fpath))
            }
            Job::SignOn { .. } => refuse::busy(),
        }
    }

    /// Whether staging is too full to begin files. If nobody can say, the file system itself will.
    fn is_above_mark(&self) -> bool {
        let space = self.gauge.space(&*self.root.fs, &self.root.node, &*self.clock);
        space.is_ok_and(|space| is_above(space, self.config.staging_high_percent))
    }

    /// Lets waiting jobs try again, those first that complete files which hold space already.
    fn watch_space(&self) {
        while let Some(tasks) = self.waiting.take(self.config.space_recheck) {
            if self.waiting.is_stopping() {
                for task in tasks {
                    self.refuse(task, refuse::stopping());
                }
                continue;
            }
            let (opens, begun): (Vec<_>, Vec<_>) =
                tasks.into_iter().partition(|task| matches!(task.job, Job::Open(_)));
            for task in begun {
                self.enqueue(task);
            }
            let above = !opens.is_empty() && self.is_above_mark();
            for task in opens {
                // Past its deadline the job gets its answer from `park`, tried once more or not.
                if above { self.park(task) } else { self.enqueue(task) }
            }
        }
    }
}
