//! The thread of one ingest ring: a real ring, a shard, and the loop between them.
//!
//! Each turn: submit and wait in one system call, take all completions, then dispatch, so that
//! nothing is dispatched while the completion queue is held. Invariant: the ring is opened, used and
//! dropped on this thread only.

use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::process::setpriority_process;
use tracing::error;

use super::inbox::{Inbox, Message};
use super::shard::{Io, Shard, ShardConfig, ShardCounters};
use crate::clock::Clock;
use crate::path::Admission;
use crate::ring::arena::Arena;
use crate::ring::setup::{Rung, SetupError};
use crate::ring::uring::{Caps, Uring, UringConfig};
use crate::ring::{Completion, FileId, Ring, RingCounters, SocketId, selftest};
use crate::services::Services;
use crate::stats::usage::{RingThread, Scan};

/// Submissions that fit into a ring; more at once cost a system call.
const ENTRIES: u32 = 256;

/// Nice value of an ingest thread, where it may have one below 0.
const NICE: i32 = -10;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Number of the ring, for the thread's name.
    pub number: usize,
    /// Sizes and times.
    pub shard: ShardConfig,
    /// Highest rung of the setup ladder to try.
    pub best: Rung,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No ring.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The self-test failed.
    #[error(
        "writing a block to the staging file system through io_uring failed: {0}; a container's \
         seccomp profile or the file system is in the way"
    )]
    SelfTest(Errno),
    /// No thread.
    #[error("cannot start an ingest thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What an ingest ring has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// Its sessions.
    pub shard: ShardCounters,
    /// Its ring.
    pub ring: RingCounters,
}

impl std::ops::AddAssign for WorkerCounters {
    fn add_assign(&mut self, other: Self) {
        self.shard += other.shard;
        self.ring += other.ring;
    }
}

/// A running ingest ring, as the others see it.
#[derive(Debug)]
pub struct Worker {
    /// Where to post to.
    pub inbox: Arc<Inbox>,
    /// Sessions it has, or was sent and has not taken yet.
    pub load: Arc<AtomicUsize>,
    /// What its ring was found to do.
    pub caps: Caps,
    /// What its thread costs.
    pub usage: Arc<RingThread>,
    thread: JoinHandle<Result<WorkerCounters, Errno>>,
}

impl Worker {
    /// Starts the thread and waits until its ring is open and tested. `connect` gives it its way to
    /// the services; `block` is a file on staging, opened as files are there, for the self-test.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub fn start<S, C>(
        config: WorkerConfig,
        admission: Arc<Admission>,
        clock: Arc<C>,
        block: Option<FileId>,
        connect: impl FnOnce(Arc<Inbox>, Arc<Arena>) -> S + Send + 'static,
    ) -> Result<Self, WorkerError>
    where
        S: Services,
        C: Clock,
    {
        let (ready, started) = mpsc::sync_channel(1);
        let load = Arc::new(AtomicUsize::new(0));
        let shared_load = Arc::clone(&load);
        let name = format!("fsq_ingest/{}", config.number);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            go_first();
            let ring = match open(&config, block) {
                Ok(ring) => ring,
                Err(error) => {
                    // Nobody waits for it only if the starter is gone.
                    let _ = ready.send(Err(error));
                    return Ok(WorkerCounters::default());
                }
            };
            let inbox = Arc::new(Inbox::new(ring.waker()));
            let services = connect(Arc::clone(&inbox), ring.arena());
            let usage = Arc::new(RingThread::this());
            let _ = ready.send(Ok((Arc::clone(&inbox), ring.caps().clone(), Arc::clone(&usage))));
            let shard = Shard::new(config.shard, admission);
            let load = shared_load;
            let mut this = Loop { ring, shard, services, inbox, clock, load };
            let result = this.run();
            // As long as thread, ring and kernel workers are there.
            let _ = usage.sample(&Scan::now());
            if let Err(errno) = result {
                error!("ingest ring {} is broken and ends: {errno}", config.number);
            }
            result
        })?;
        let ended = || std::io::Error::other("it ended before it was ready");
        let (inbox, caps, usage) = started.recv().map_err(|_| WorkerError::Thread(ended()))??;
        Ok(Self { inbox, load, caps, usage, thread })
    }

    /// Waits for the end of the thread, after [`Message::Stop`].
    ///
    /// # Errors
    /// The ring was broken, or the thread has panicked (EIO).
    pub fn join(self) -> Result<WorkerCounters, Errno> {
        self.thread.join().unwrap_or(Err(Errno::IO))
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Puts this thread before others that want the same core. Without it, a ring whose core is busy with
/// other work serves its sessions at a fraction of the rate of the other rings.
fn go_first() {
    // For a thread, not the process: so it is on Linux. Only evenness is lost where it is not
    // permitted (CAP_SYS_NICE, or LimitNICE in the unit).
    let _ = setpriority_process(None, NICE);
}

fn open(config: &WorkerConfig, block: Option<FileId>) -> Result<Uring, WorkerError> {
    let shard = &config.shard;
    let mut ring = Uring::open(&UringConfig {
        entries: ENTRIES,
        // A receive, a send, a cancel and a shutdown a session, and the writes of all windows.
        completions: shard.slots() * 4 + shard.windows * 4 + ENTRIES,
        arena_bytes: shard.arena_bytes(),
        registered_bytes: shard.registered_bytes(),
        best: config.best,
        workers_max: 0,
    })?;
    if let Some(file) = block {
        selftest::write_block(&mut ring, file).map_err(WorkerError::SelfTest)?;
    }
    Ok(ring)
}

struct Loop<S, C> {
    ring: Uring,
    shard: Shard,
    services: S,
    inbox: Arc<Inbox>,
    clock: Arc<C>,
    load: Arc<AtomicUsize>,
}

impl<S: Services, C: Clock> Loop<S, C> {
    fn run(&mut self) -> Result<WorkerCounters, Errno> {
        let mut completions: Vec<Completion> = Vec::with_capacity(1024);
        let mut messages = Vec::with_capacity(256);
        let (mut stopping, mut sessions) = (false, 0);
        loop {
            let timeout = self.shard.wait(self.clock.now());
            self.ring.reap(timeout, &mut completions)?;
            let now = self.clock.now();
            let mut io = Io { ring: &mut self.ring, services: &mut self.services, now };
            for completion in completions.drain(..) {
                self.shard.completed(&mut io, completion);
            }
            self.inbox.take(&mut messages);
            for message in messages.drain(..) {
                match message {
                    Message::Session { socket, peer } => {
                        sessions += 1;
                        self.shard.accept(&mut io, SocketId(socket.into_raw_fd()), peer);
                    }
                    Message::Answer(token, answer) => self.shard.answered(&mut io, token, answer),
                    Message::Count(number, to) => {
                        let (shard, ring) = (self.shard.counters(), io.ring.counters());
                        // Whoever has asked may have given up waiting.
                        let _ = to.try_send((number, WorkerCounters { shard, ring }));
                    }
                    Message::Stop => {
                        stopping = true;
                        self.shard.stop(&mut io);
                    }
                }
            }
            self.shard.tick(&mut io);
            let ended = sessions - self.shard.sessions();
            if ended > 0 {
                sessions -= ended;
                self.load.fetch_sub(ended, Ordering::Relaxed);
            }
            if stopping && sessions == 0 {
                let (shard, ring) = (self.shard.counters(), self.ring.counters());
                return Ok(WorkerCounters { shard, ring });
            }
        }
    }
}
