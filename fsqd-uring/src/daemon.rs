//! The daemon put together: start in the order in which things can fail, run, stop in the order in
//! which things depend on each other.
//!
//! Invariant: nothing is accepted before everything that handles it runs, and nothing that handles
//! it stops before what was accepted is finished.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};

use crate::archive;
use crate::archive::backend::{Backend, BackendError};
use crate::auth::{SignOn, authenticator};
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, RingMode};
use crate::drain::peek::Peek;
use crate::drain::stripe::{StripeError, Striping};
use crate::drain::{self, Drain, DrainWorker, Owners, TargetRoot};
use crate::fs::linux::LinuxFs;
use crate::fs::{Fs, Handle, Ownership};
use crate::identmap::SharedIdentityMap;
use crate::ingest::acceptor::{Acceptor, ListenError, Listener, Place};
use crate::ingest::inbox::Message;
use crate::ingest::shard::ShardConfig;
use crate::ingest::worker::{Worker, WorkerConfig, WorkerError};
use crate::limits::{BLOCK_BYTES, WINDOW_BYTES};
use crate::path::{Admission, PRIVATE_DIRECTORY};
use crate::queue::record::Record;
use crate::queue::recovery;
use crate::queue::route::{self, ArchiveMode};
use crate::queue::staged::StagingTree;
use crate::queue::{Limits, Queue};
use crate::ring::Span;
use crate::ring::setup::{Rung, SetupError, memlock_limit};
use crate::ring::uring::{Uring, UringConfig};
use crate::signals::{self, Signal};
use crate::staging::root::{RootError, StagingRoot};
use crate::staging::{Neighbours, StagingConfig, StagingService};
use crate::stats::collector::{Collector, Consumer};

/// Block of a drain worker's reads and writes.
const DRAIN_BLOCK_BYTES: u32 = 4 << 20;

/// One block being written, one being read, one between them.
const DRAIN_BLOCKS: u32 = 3;

/// Kernel threads that a drain ring may block at the target: its one write and its reads.
const DRAIN_KERNEL_WORKERS_MAX: u32 = 4;

/// How long a worker that waits for the target or the archive is waited for at the end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often the rings' threads are looked after.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Why the daemon does not start; one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option or a file it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The identity map.
    #[error(transparent)]
    File(#[from] crate::config::text::FileError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] BackendError),
    /// The layout of large files.
    #[error(transparent)]
    Striping(#[from] StripeError),
    /// The staging directory.
    #[error(transparent)]
    Staging(#[from] RootError),
    /// The port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An ingest ring.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A drain worker's ring.
    #[error(transparent)]
    Drain(#[from] drain::SpawnError<SetupError>),
    /// The system gives no more threads or descriptors.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

type Staging = StagingService<LinuxFs>;

/// Everything that runs.
struct Daemon {
    sign_on: Arc<SignOn>,
    staging: Staging,
    queue: Arc<Queue<SystemClock>>,
    workers: Vec<Worker>,
    collector: Collector,
    /// Threads that wait for the target or the archive.
    drains: Vec<JoinHandle<()>>,
    acceptor: Acceptor,
    events: Receiver<Signal>,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Why it does not start.
pub fn run(config: &Config) -> Result<ExitCode, StartError> {
    let mut daemon = Daemon::start(config)?;
    let healthy = daemon.serve();
    Ok(daemon.stop(healthy))
}

impl Daemon {
    fn start(config: &Config) -> Result<Self, StartError> {
        // Before there is another thread: it must be blocked in all of them.
        let events = signals::listen()?;
        config.check_paths()?;
        let backend = Backend::open(config)?;
        let striping = Striping::open(config)?;
        let shortage = raise_limits(config);
        if shortage.files.is_some() {
            warn!("{shortage}");
        }
        let clock = Arc::new(SystemClock::new());
        let sign_on = Arc::new(sign_on(config, &clock)?);
        let fs = Arc::new(LinuxFs);
        let root = StagingRoot::open(Arc::clone(&fs), &config.localfs, std::process::id())?;
        let root = Arc::new(root);
        let listener = Listener::bind(config.bind)?;
        let limits = Limits {
            tolerated_errors: config.tolerr,
            hung_after: config.hung_after,
            seed: u64::from(std::process::id()),
            ..Limits::default()
        };
        let queue = Arc::new(Queue::new(limits, Arc::clone(&clock)));
        let target = Arc::new(TargetRoot::new(Arc::clone(&fs), &config.target));
        let staging =
            start_staging(config, &root, &clock, &sign_on, &queue, &target, backend.mode())?;
        let workers = start_ingest(config, &backend, &root, &clock, &sign_on, &staging)?;
        if let Some(worker) = workers.first() {
            log_caps(worker, &root, config);
        }
        info!(
            "listening on port {} with {} socket threads, {} queue worker threads, local fs '{}' \
             and number of tolerated file errors {}",
            listener.port,
            config.sthreads,
            config.qthreads,
            config.localfs.display(),
            config.tolerr
        );
        let drain = Drain {
            tree: staging_tree(config, &fs, &staging)?,
            target: Arc::clone(&target),
            queue: Arc::clone(&queue),
            owners: Arc::new(MapOwners(sign_on.map.clone())),
            striping,
            options: drain::Options {
                target_io: config.target_io,
                verify: config.verify,
                archive: backend.mode(),
                instance: instance(&config.localfs)?,
            },
        };
        let (drains, consumers) = start_drain(config, &backend, drain)?;
        let place = |worker: &Worker| Place {
            inbox: Arc::clone(&worker.inbox),
            load: Arc::clone(&worker.load),
        };
        let acceptor = Acceptor::start(listener, workers.iter().map(place).collect())?;
        let (format, interval) = (config.log_format, config.stats_interval);
        let collector = Collector::new(format, interval, &workers, consumers);
        Ok(Self { sign_on, staging, queue, workers, collector, drains, acceptor, events })
    }

    /// Waits for the end; whether it was asked for.
    fn serve(&mut self) -> bool {
        loop {
            let wait = self.collector.tick(LOOK_AFTER);
            match self.events.recv_timeout(wait) {
                Ok(Signal::Reload) => self.reload(),
                Ok(Signal::Report) => self.collector.report(),
                Ok(Signal::Stop) => {
                    info!("stopping; a second signal ends the daemon at once");
                    return true;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.workers.iter().any(Worker::is_finished) {
                        error!("an ingest ring has ended; stopping");
                        return false;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn reload(&self) {
        let errors = self.sign_on.reload();
        for error in &errors {
            error!("{error}; what was read before stays in force");
        }
        log_identities(&self.sign_on.map);
        if errors.is_empty() {
            info!("identity map and passwords read again");
        }
    }

    fn stop(mut self, asked: bool) -> ExitCode {
        self.acceptor.stop();
        for worker in &self.workers {
            worker.inbox.post(Message::Stop);
        }
        let counted: Vec<_> = self.workers.into_iter().map(|worker| worker.join().ok()).collect();
        let healthy = asked && counted.iter().all(Option::is_some);
        // Finishes what it was given; its last files may still reach the queue.
        drop(self.staging);
        self.queue.close();
        let until = Instant::now() + STOP_PATIENCE;
        let late = self.drains.into_iter().filter(|thread| !joins(thread, until)).count();
        self.collector.report_end(counted);
        if late > 0 {
            warn!("{late} workers still wait for the target; their files are taken up next time");
        }
        info!("stopped");
        if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn joins(thread: &JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn sign_on(config: &Config, clock: &Arc<SystemClock>) -> Result<SignOn, StartError> {
    let map = SharedIdentityMap::load(&config.identmap)?;
    log_identities(&map);
    let library = config.tsm_library.as_deref();
    let auth = authenticator(&config.auth, library, Arc::clone(clock) as Arc<_>)?;
    Ok(SignOn { map, auth })
}

fn log_identities(map: &SharedIdentityMap) {
    for identity in map.current().iter() {
        debug!("{identity}");
    }
}

fn start_staging(
    config: &Config,
    root: &Arc<StagingRoot<LinuxFs>>,
    clock: &Arc<SystemClock>,
    sign_on: &Arc<SignOn>,
    queue: &Arc<Queue<SystemClock>>,
    target: &Arc<TargetRoot<LinuxFs>>,
    mode: ArchiveMode,
) -> std::io::Result<Staging> {
    let peek = Peek::start(Arc::clone(target), Arc::clone(clock))?;
    let settings = StagingConfig {
        staging_high_percent: config.staging_high_percent,
        space_wait: config.space_wait,
        ..StagingConfig::new(config.durability, config.max_sessions)
    };
    let queue = Arc::clone(queue);
    StagingService::start(
        Arc::clone(root),
        settings,
        Arc::clone(clock) as Arc<_>,
        Neighbours {
            gate: Box::new(Arc::clone(sign_on)),
            outbox: Box::new(move |path, dest| {
                if let Some((stage, phase)) = route::first(dest, mode).lane(dest) {
                    queue.enqueue(path, stage, phase);
                }
            }),
            is_taken: Box::new(move |path| peek.is_taken(path)),
        },
    )
}

fn start_ingest(
    config: &Config,
    backend: &Backend,
    root: &Arc<StagingRoot<LinuxFs>>,
    clock: &Arc<SystemClock>,
    sign_on: &Arc<SignOn>,
    staging: &Staging,
) -> Result<Vec<Worker>, StartError> {
    let admission = Admission::new(
        config.target.clone(),
        sign_on.map.clone(),
        backend.accepts(),
        root.facts.attribute_bytes_max,
    );
    let admission = Arc::new(admission.with_archive_names(backend.names()));
    let rings = config.sthreads as u64;
    let per_ring = config.buffer_memory_bytes / rings / u64::from(WINDOW_BYTES);
    let shard = ShardConfig {
        sessions_max: (config.max_sessions as u64).div_ceil(rings) as u32,
        // One of them is scratch memory.
        windows: (per_ring.saturating_sub(1)).clamp(1, 1 << 20) as u32,
        stall_timeout: config.stall_timeout,
    };
    let owner = Ownership { uid: None, gid: None, mode: 0o600 };
    let block = root.fs.create_unnamed(&root.node, owner, root.facts.direct);
    // As staging files are: a write that makes a file longer goes to the kernel's worker pool.
    let allocated = block.and_then(|block| {
        root.fs.allocate(&block, 0, BLOCK_BYTES.into())?;
        Ok(block)
    });
    let block = allocated.map_err(|error| std::io::Error::from(error.errno))?;
    (0..config.sthreads)
        .map(|number| {
            let config =
                WorkerConfig { number, shard: shard.clone(), best: best_rung(config.ring_mode) };
            let connect = staging.connector();
            let worker = Worker::start(
                config,
                Arc::clone(&admission),
                Arc::clone(clock),
                Some(block.id()),
                move |inbox, arena| connect(inbox, arena),
            )?;
            Ok(worker)
        })
        .collect()
}

fn log_caps(worker: &Worker, root: &StagingRoot<LinuxFs>, config: &Config) {
    let release = rustix::system::uname();
    info!(
        "caps: linux {}, {}, staging {}, target {} ({})",
        release.release().to_string_lossy(),
        worker.caps,
        root.facts,
        config.target.display(),
        drain::lustre::describe(&config.target)
    );
    if let Err(errno) = &worker.caps.registered {
        let needed = config.buffer_memory_bytes >> 10;
        warn!(
            "receive buffers could not be registered ({errno}): {needed} KiB of locked memory are \
             needed, the limit is {}; writes to staging cost three times the CPU; set \
             LimitMEMLOCK=infinity or lower --buffer-memory",
            memlock_limit()
        );
    }
}

/// The rung that the ladder begins with.
pub(crate) fn best_rung(mode: RingMode) -> Rung {
    match mode {
        RingMode::Auto => Rung::DeferNoArray,
        RingMode::Defer => Rung::Defer,
        RingMode::Coop => Rung::Coop,
        RingMode::Cqsize => Rung::Cqsize,
        RingMode::Plain => Rung::Plain,
    }
}

/// A small ring with an arena, all of it registered.
pub(crate) fn ring_config(best: Rung, workers_max: u32, arena_bytes: u64) -> UringConfig {
    UringConfig {
        entries: 16,
        completions: 64,
        arena_bytes,
        registered_bytes: arena_bytes,
        best,
        workers_max,
    }
}

/// Owners by the identity map, for what the old daemon has left without one.
struct MapOwners(SharedIdentityMap);

impl Owners for MapOwners {
    fn owner(&self, record: &Record) -> Option<(u32, u32)> {
        let fpath = Path::new(&record.fpath);
        let map = self.0.current();
        let mut owners = map.iter().filter(|identity| {
            let within = identity.directory.as_deref().is_none_or(|dir| fpath.starts_with(dir));
            within && identity.archive_id == record.archive_id
        });
        let identity = owners.next()?;
        // With two candidates neither can be told to be the one.
        owners.next().is_none().then_some((identity.uid, identity.gid))
    }
}

/// Staging as the drain and the archive see it.
fn staging_tree(
    config: &Config,
    fs: &Arc<LinuxFs>,
    staging: &Staging,
) -> std::io::Result<Arc<StagingTree<LinuxFs>>> {
    let root = fs.open_root(&config.localfs);
    let root = root.map_err(|error| std::io::Error::from(error.errno))?;
    let tree = StagingTree::new(Arc::clone(fs), root);
    Ok(Arc::new(tree.with_notice(Box::new(staging.space_notice()))))
}

fn start_drain(
    config: &Config,
    backend: &Backend,
    drain: Drain<LinuxFs, SystemClock>,
) -> Result<(Vec<JoinHandle<()>>, Vec<Consumer>), StartError> {
    let (tree, queue) = (Arc::clone(&drain.tree), Arc::clone(&drain.queue));
    let drain::Options { archive: mode, instance, .. } = drain.options;
    let shared = Arc::new(drain);
    let (mut threads, mut consumers) = (Vec::new(), Vec::new());
    for index in 0..config.qthreads {
        let shared = Arc::clone(&shared);
        let arena = Span { start: 0, len: DRAIN_BLOCKS * DRAIN_BLOCK_BYTES };
        let best = best_rung(config.ring_mode);
        let ring = ring_config(best, DRAIN_KERNEL_WORKERS_MAX, u64::from(arena.len));
        let (thread, consumer) = drain::spawn(index, move || {
            let ring = Uring::open(&ring)?;
            Ok::<_, SetupError>(DrainWorker::new(shared, ring, arena, DRAIN_BLOCK_BYTES))
        })?;
        threads.push(thread);
        consumers.push(consumer);
    }
    let pool = archive::Pool {
        tree: Arc::clone(&tree),
        queue: Arc::clone(&queue),
        mode,
        target: config.target.clone(),
    };
    threads.extend(backend.start(pool, config.athreads, instance)?);
    let house = std::thread::Builder::new().name("fsq_house".to_owned());
    threads.push(house.spawn(move || recovery::keep_house(&tree, &queue, mode))?);
    Ok((threads, consumers))
}

/// A number of this staging directory's own, made once and kept in it: it tells the temporary names
/// of two daemons apart that drain to the same target.
///
/// On stable storage before anything is named after it: with another number, the next daemon would
/// not find the temporaries that this one left on the target when the power went.
fn instance(localfs: &Path) -> std::io::Result<u64> {
    let private = localfs.join(PRIVATE_DIRECTORY);
    let path = private.join("instance");
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(number) = u64::from_str_radix(text.trim(), 16)
    {
        return Ok(number);
    }
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let number = u64::from_str_radix(&digits, 16).map_err(std::io::Error::other)?;
    let unfinished = private.join("instance.new");
    std::fs::write(&unfinished, format!("{number:016x}\n"))?;
    File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    for directory in [&private, localfs] {
        File::open(directory)?.sync_all()?;
    }
    Ok(number)
}

/// Limits of the system that stay below what the configuration needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// File descriptors needed, and the sessions that need them.
    pub(crate) files: Option<(u64, usize)>,
    /// Locked memory is short. Reported where it cannot be registered: who has CAP_IPC_LOCK needs
    /// no limit.
    pub(crate) memlock: bool,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((files, sessions)) = self.files else { return Ok(()) };
        write!(
            f,
            "{sessions} sessions need {files} file descriptors, more than the limit allows; set \
             LimitNOFILE={files} or lower --max-sessions"
        )
    }
}

/// Raises what the system limits us to, as far as we may, and tells what is missing.
pub(crate) fn raise_limits(config: &Config) -> Shortage {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Whether the limit is (now) what is needed.
    let raise = |resource: Resource, needed: u64| {
        let now = getrlimit(resource);
        if now.current.is_none_or(|current| current >= needed) {
            return true;
        }
        let maximum = now.maximum.map(|maximum| maximum.max(needed));
        if setrlimit(resource, Rlimit { current: Some(needed), maximum }).is_ok() {
            return true;
        }
        // Beyond the hard limit only the privileged come; up to it, everybody.
        let _ = setrlimit(resource, Rlimit { current: now.maximum, maximum: now.maximum });
        false
    };
    // A socket and two files a session, what threads and rings need, and a batch of files in the
    // hands of each archive thread.
    let files = config.max_sessions as u64 * 3
        + (config.sthreads + config.qthreads) as u64 * 8
        + config.athreads as u64 * (archive::BATCH_MAX as u64 + 8)
        + 256;
    let drains = config.qthreads as u64 * u64::from(DRAIN_BLOCKS * DRAIN_BLOCK_BYTES);
    let memlock = config.buffer_memory_bytes + drains + (64 << 20);
    Shortage {
        files: (!raise(Resource::Nofile, files)).then_some((files, config.max_sessions)),
        memlock: !raise(Resource::Memlock, memlock),
    }
}
