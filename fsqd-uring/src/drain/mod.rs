//! The drain: takes complete files from staging to the target, one after the other per worker.
//!
//! Workers are threads with a ring of their own, because the target's client blocks inside the
//! kernel, for seconds or hours, and that must never touch an ingest ring. What a worker does with
//! a file can be repeated after a crash at any instant: [`worker`] says why.
//!
//! Invariant: a staging copy is freed only after its copy on the target has been read in whole from
//! staging with the right checksum, written, synced, and published under its name in a synced
//! directory.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

use crate::clock::Clock;
use crate::config::{TargetIo, Verify};
use crate::fs::Fs;
use crate::queue::record::Record;
use crate::queue::route::ArchiveMode;
use crate::queue::staged::StagingTree;
use crate::queue::{Pulse, Queue, Stage};
use crate::ring::Ring;
use crate::stats::collector::Consumer;
use crate::stats::usage::{RingThread, Scan};

pub use self::counters::{DrainCounters, SharedCounters};
pub use self::publish::PREFIX as TEMPORARY_PREFIX;
pub use self::stripe::Striping;
pub use self::target::TargetRoot;
pub use self::worker::DrainWorker;

pub mod copy;
mod counters;
pub mod lustre;
pub mod peek;
pub(crate) mod publish;
pub mod stripe;
mod target;
mod worker;

/// Smallest and largest block that a worker reads and writes, bytes.
pub const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 64 << 10..=16 << 20;

/// Below this, [`TargetIo::Auto`] writes buffered: a small file fits into one RPC either way, and
/// the client sends the very small ones along with it.
pub const DIRECT_BYTES_MIN: u64 = 1 << 20;

/// Settings of all workers.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How files on the target are written.
    pub target_io: TargetIo,
    /// What is checked before a file is published.
    pub verify: Verify,
    /// What the archive takes files from.
    pub archive: ArchiveMode,
    /// Tells this daemon's temporary names on the target from those of others; must be the same
    /// after a restart.
    pub instance: u64,
}

/// What the identity map says of a staged file.
pub trait Owners: Send + Sync + 'static {
    /// Whom it will belong to (uid, gid) when its record does not say: files of the old daemon.
    /// `None`: the owner of its directory.
    fn owner(&self, record: &Record) -> Option<(u32, u32)>;
}

/// What the workers share.
pub struct Drain<F: Fs, C: Clock> {
    /// Where files come from.
    pub tree: Arc<StagingTree<F>>,
    /// Where they go.
    pub target: Arc<TargetRoot<F>>,
    /// Who decides which and when.
    pub queue: Arc<Queue<C>>,
    /// Owners of files whose record does not say.
    pub owners: Arc<dyn Owners>,
    /// Which files get a layout of their own; `None`: none.
    pub striping: Option<Striping>,
    /// Settings.
    pub options: Options,
}

impl<F: Fs, C: Clock> Drain<F, C> {
    /// Announces a worker to the queue's watch.
    pub(crate) fn register(&self) -> Arc<Pulse> {
        self.queue.register(Stage::Copy)
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError<E: std::error::Error> {
    /// It could not be made.
    #[error("cannot start a queue consumer: {0}")]
    Make(E),
    /// No thread.
    #[error("cannot start a queue consumer thread: {0}")]
    Thread(std::io::Error),
}

/// Starts the thread of worker number `index` and waits until it is ready. `make` runs on that
/// thread, since a ring may only be used by the thread that made it. The thread ends when the queue
/// is closed.
///
/// # Errors
/// See [`SpawnError`].
pub fn spawn<F, R, C, E>(
    index: usize,
    make: impl FnOnce() -> Result<DrainWorker<F, R, C>, E> + Send + 'static,
) -> Result<(JoinHandle<()>, Consumer), SpawnError<E>>
where
    F: Fs,
    R: Ring,
    C: Clock,
    E: std::error::Error + Send + 'static,
{
    let name = format!("fsq_queue/{index}");
    let (ready, started) = sync_channel(1);
    let run = move || {
        let made = make();
        match made {
            Err(error) => {
                // Nobody waits for it only if the starter is gone.
                let _ = ready.send(Err(error));
            }
            Ok(mut worker) => {
                let usage = Arc::new(RingThread::this());
                let _ = ready.send(Ok((worker.counters(), Arc::clone(&usage))));
                if let Err(errno) = worker.run() {
                    tracing::error!(
                        "queue consumer thread fsq_queue/{index} ends: its ring failed: {errno}"
                    );
                }
                // As long as thread, ring and kernel workers are there.
                let _ = usage.sample(&Scan::now());
            }
        }
    };
    let thread = Builder::new().name(name.clone()).spawn(run).map_err(SpawnError::Thread)?;
    let (counters, usage) = match started.recv() {
        Ok(Ok(shared)) => shared,
        Ok(Err(error)) => return Err(SpawnError::Make(error)),
        Err(_) => return Err(SpawnError::Thread(std::io::Error::other("it ended at its start"))),
    };
    tracing::info!("created queue consumer thread {name}");
    Ok((thread, Consumer { counters, usage }))
}

#[cfg(test)]
mod real_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
