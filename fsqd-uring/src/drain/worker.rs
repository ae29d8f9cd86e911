//! [`DrainWorker`]: one thread, one ring, one file at a time from staging to the target.
//!
//! Invariant: every step may be the last before a crash, and the next attempt goes through all of
//! them again to the same end:
//!
//! 1. state COPY_RUN; 2. directory on the target; 3. a temporary of an earlier attempt goes;
//! 4. new temporary, its owner and mode, content, length; 5. sync; 6. closed and published without
//!    replacing; 7. directory synced; 8. state COPY_DONE; 9. the staging copy is freed or goes to
//!    the archive.
//!
//! A crash up to 5 leaves a temporary, which step 3 removes. A crash from 6 on leaves the final
//! name, which step 3 finds: a file of the same length and checksum is our own earlier publication,
//! is synced (the crash may have come before 7), and the attempt goes on at 8. Any other file there
//! is somebody else's: a permanent error, and nothing is overwritten. After 8 the state says what
//! is left to do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::copy::{ALIGNMENT, End, Plan, READ, Transfer, TransferError};
use super::counters::{DrainCounters, SharedCounters};
use super::publish::{disturbed, remove_temporary, temporary_name};
use super::stripe::{Hinted, is_lack_of_space};
use super::target::Directories;
use super::{BLOCK_BYTES, DIRECT_BYTES_MIN, Drain};
use crate::clock::Clock;
use crate::config::{TargetIo, Verify};
use crate::fs::{Access, Fs, FsError, Handle, Kind, Ownership, Stat};
use crate::path::target_path;
use crate::queue::record::{Content, FileState, Record};
use crate::queue::route::{Route, after_copy, route};
use crate::queue::staged::{Staged, split};
use crate::queue::{Failure, FailureClass, Outcome, Pulse, Side, Stage, Ticket, classify};
use crate::ring::{Completion, Ring, Span};

/// Mode of files on the target.
const FILE_MODE: u32 = 0o640;

/// See the module's description.
pub struct DrainWorker<F: Fs, R: Ring, C: Clock> {
    drain: Arc<Drain<F, C>>,
    ring: R,
    blocks: Box<[Span]>,
    directories: Directories<F>,
    completions: Vec<Completion>,
    generation: u32,
    pulse: Arc<Pulse>,
    /// The target has refused O_DIRECT.
    direct_refused: bool,
    counters: DrainCounters,
    shared: Arc<SharedCounters>,
}

/// Why an attempt ended early.
enum Halt {
    Failed(Failure),
    /// The daemon stops.
    Closing,
    /// The ring is broken, and with it the worker.
    Ring(Errno),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A staged file and what its attributes say.
type Loaded<N> = (Staged<N>, Record);

type Attempt<T> = Result<T, Halt>;

/// A file on its way.
struct Job<'a, N> {
    path: &'a Path,
    source: End,
    stat: Stat,
    record: &'a Record,
    directory: Arc<N>,
    temporary: PathBuf,
    /// Below the target's root.
    target: PathBuf,
    owner: (u32, u32),
}

/// A temporary on the target.
struct Made<N> {
    node: N,
    /// It is open O_DIRECT.
    direct: bool,
    /// It has a layout of its own.
    laid_out: bool,
}

impl<N> Job<'_, N> {
    fn name(&self) -> &Path {
        split(&self.target).1
    }

    fn ownership(&self) -> Ownership {
        let (uid, gid) = self.owner;
        Ownership { uid: Some(uid), gid: Some(gid), mode: FILE_MODE }
    }

    fn failure(&self, error: FsError) -> Halt {
        Failure::call(Side::Target, format_args!("target {:?}", self.target), error).into()
    }

    /// That the temporary cannot be made or published.
    fn disturbed_or(&self, error: FsError) -> Halt {
        disturbed(&self.target, error).map_or_else(|| self.failure(error), Halt::from)
    }
}

impl<F: Fs, R: Ring, C: Clock> DrainWorker<F, R, C> {
    /// A worker whose ring's arena has the memory `arena` free for blocks of `block_bytes`.
    ///
    /// # Panics
    /// If the block is out of [`BLOCK_BYTES`] or not a multiple of 4096, or the memory is less than
    /// two blocks.
    pub fn new(drain: Arc<Drain<F, C>>, ring: R, arena: Span, block_bytes: u32) -> Self {
        assert!(BLOCK_BYTES.contains(&block_bytes) && block_bytes.is_multiple_of(ALIGNMENT));
        // A third block keeps the next read going while one is summed up and one is written.
        let count = (arena.len / block_bytes).min(3);
        assert!(count >= 2, "memory of at least two blocks");
        let blocks = (0..count).map(|index| arena.part(index * block_bytes, block_bytes)).collect();
        Self {
            directories: Directories::new(Arc::clone(&drain.target)),
            pulse: drain.register(),
            drain,
            ring,
            blocks,
            completions: Vec::with_capacity(2),
            generation: 0,
            direct_refused: false,
            counters: DrainCounters::default(),
            shared: Arc::default(),
        }
    }

    /// Where it leaves what it has counted.
    pub fn counters(&self) -> Arc<SharedCounters> {
        Arc::clone(&self.shared)
    }

    /// Works until the queue is closed.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn run(&mut self) -> Result<(), Errno> {
        while let Some(tickets) = self.drain.queue.clone().take(Stage::Copy, 1) {
            for ticket in &tickets {
                self.work(ticket)?;
            }
        }
        Ok(())
    }

    /// Attempts one file and gives its ticket back.
    ///
    /// # Errors
    /// The ring is broken.
    pub fn work(&mut self, ticket: &Ticket) -> Result<(), Errno> {
        self.pulse.begin(std::slice::from_ref(ticket), self.drain.queue.clock().now());
        let outcome = self.attempt(ticket);
        self.pulse.rest();
        let (outcome, result) = match outcome {
            Ok(outcome) => (outcome, Ok(())),
            Err(errno) => (Outcome::Interrupted, Err(errno)),
        };
        self.drain.queue.finished(ticket, outcome);
        result
    }

    fn attempt(&mut self, ticket: &Ticket) -> Result<Outcome, Errno> {
        let drain = Arc::clone(&self.drain);
        let path = &ticket.path;
        let (staged, mut record) = match self.load(path) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Ok(Outcome::Left),
            Err(failure) => return Ok(drain.tree.settle(&drain.queue, ticket, None, &failure)),
        };
        match self.step(path, &staged, &mut record) {
            Ok(outcome) => Ok(outcome),
            Err(Halt::Closing) => Ok(Outcome::Interrupted),
            Err(Halt::Ring(errno)) => Err(errno),
            Err(Halt::Failed(failure)) => {
                if failure.class == FailureClass::Target {
                    drain.target.forget();
                }
                let file = Some((&staged.node, &mut record));
                Ok(drain.tree.settle(&drain.queue, ticket, file, &failure))
            }
        }
    }

    fn load(&self, path: &Path) -> Result<Option<Loaded<F::Node>>, Failure> {
        let tree = &self.drain.tree;
        let Some(staged) = tree.open(path)? else {
            tracing::debug!("{path:?} is not on staging any more");
            return Ok(None);
        };
        let Some(record) = tree.record(path, &staged.node)? else {
            tracing::warn!("{path:?} has no attributes of the queue any more: left alone");
            return Ok(None);
        };
        Ok(Some((staged, record)))
    }

    /// Takes a file as far as this lane can.
    fn step(
        &mut self,
        path: &Path,
        staged: &Staged<F::Node>,
        record: &mut Record,
    ) -> Attempt<Outcome> {
        let drain = Arc::clone(&self.drain);
        match route(record, drain.options.archive) {
            Route::Copy => {}
            Route::Archive(phase) => return Ok(Outcome::Moved(Stage::Archive, phase)),
            Route::Free => {
                drain.tree.free(path)?;
                return Ok(Outcome::Left);
            }
            Route::Keep | Route::Hold | Route::Omitted => return Ok(Outcome::Left),
        }
        // Only what the old daemon left as done, and is looked at again, cannot become RUN.
        if record.state.may_become(FileState::LustreCopyRun) {
            drain.tree.set_state(path, (&staged.node, record), FileState::LustreCopyRun)?;
        }
        let content = self.copy(path, staged, record)?;
        if record.content.is_none() {
            drain.tree.adopt(path, (&staged.node, record), content)?;
        } else {
            drain.tree.set_state(path, (&staged.node, record), FileState::LustreCopyDone)?;
        }
        match after_copy(record.dest, drain.options.archive) {
            Route::Archive(_) => Ok(Outcome::Copied),
            Route::Free => {
                drain.tree.free(path)?;
                Ok(Outcome::Done)
            }
            _ => {
                tracing::warn!("{path:?} wants an archive and there is none: kept on staging");
                Ok(Outcome::Left)
            }
        }
    }

    /// Steps 2 to 7; what the file on the target contains.
    fn copy(&mut self, path: &Path, staged: &Staged<F::Node>, record: &Record) -> Attempt<Content> {
        let begun = self.drain.queue.clock().now();
        let job = self.prepare(path, staged, record)?;
        let drain = Arc::clone(&self.drain);
        let fs = drain.target.fs();
        remove_temporary(fs, &job.directory, &job.temporary).map_err(|e| job.failure(e))?;
        match fs.stat_at(&job.directory, job.name()) {
            Ok(there) => return self.recognise(&job, there),
            Err(FsError { errno: Errno::NOENT, .. }) => {}
            Err(error) => return Err(job.failure(error)),
        }
        let crc = match self.write_and_publish(&job) {
            Ok(crc) => crc,
            Err(halt) => {
                // Best effort: the next attempt removes what is left. A broken ring may still write.
                if !matches!(halt, Halt::Ring(_)) {
                    let _ = remove_temporary(fs, &job.directory, &job.temporary);
                }
                let Halt::Failed(Failure { class: FailureClass::Permanent, .. }) = halt else {
                    return Err(halt);
                };
                // The name was taken while we copied.
                return match fs.stat_at(&job.directory, job.name()) {
                    Ok(there) => self.recognise(&job, there),
                    Err(_) => Err(halt),
                };
            }
        };
        fs.sync(&job.directory).map_err(|error| job.failure(error))?;
        let seconds = (drain.queue.clock().now() - begun).as_secs_f64();
        let len = job.stat.len;
        tracing::info!(
            "copied {path:?} to target {:?}: {len} bytes in {seconds:.3} s, crc32 {crc:08x}",
            job.target
        );
        Ok(Content { len, crc })
    }

    fn prepare<'a>(
        &mut self,
        path: &'a Path,
        staged: &Staged<F::Node>,
        record: &'a Record,
    ) -> Attempt<Job<'a, F::Node>> {
        let drain = &self.drain;
        let stat = drain.tree.check_len(path, &staged.node, record)?;
        let target = target_path(drain.target.path(), &record.fs, &record.fpath);
        let target = target.ok_or_else(|| {
            let text = format!("{:?} of {:?} has no place on the target", record.fpath, record.fs);
            Failure::new(FailureClass::Permanent, text)
        })?;
        let owner = match &record.owner {
            Some(owner) => Some((owner.uid, owner.gid)),
            None => drain.owners.owner(record),
        };
        let directory = self.directories.open(split(&target).0, owner)?;
        let owner = match owner {
            Some(owner) => owner,
            None => {
                let stat = drain.target.fs().stat(&directory).map_err(|error| {
                    Failure::call(Side::Target, format_args!("directory of {target:?}"), error)
                })?;
                tracing::warn!(
                    "{path:?} of the old daemon has no owner: it gets the one of its directory, \
                     {}:{}",
                    stat.uid,
                    stat.gid
                );
                (stat.uid, stat.gid)
            }
        };
        let source = End { file: staged.node.id(), direct: staged.direct };
        let temporary = temporary_name(drain.options.instance, stat.inode, path);
        Ok(Job { path, source, stat, record, directory, temporary, target, owner })
    }

    /// Steps 4 to 6; the checksum.
    fn write_and_publish(&mut self, job: &Job<'_, F::Node>) -> Attempt<u32> {
        let (inode, crc) = self.write_temporary(job)?;
        self.safe_point()?;
        if self.drain.options.verify == Verify::Readback {
            self.read_back(job, crc)?;
        }
        let target = &self.drain.target;
        target
            .publisher()
            .publish(target.fs(), &job.directory, &job.temporary, inode, job.name())
            .map_err(|error| job.disturbed_or(error))?;
        Ok(crc)
    }

    /// The temporary, whole, synced and closed: a handle open for writing would mark the file dirty
    /// for the archive. Its inode number, and the checksum of its content.
    fn write_temporary(&mut self, job: &Job<'_, F::Node>) -> Attempt<(u64, u32)> {
        let drain = Arc::clone(&self.drain);
        let fs = drain.target.fs();
        let mut made = self.create(job)?;
        let mut crc = self.fill(job, &mut made)?;
        if made.laid_out
            && let Err(TransferHalt::Target(errno)) = crc
            && is_lack_of_space(errno)
        {
            // The pool is full, or one of the servers: the file system as a whole need not be.
            drop(made);
            remove_temporary(fs, &job.directory, &job.temporary).map_err(|e| job.failure(e))?;
            made = self.create_plain(job)?;
            crc = self.fill(job, &mut made)?;
            if let (Some(striping), Ok(_)) = (&drain.striping, &crc) {
                let now = drain.queue.clock().now();
                striping.filled(now);
                striping.complain(now, &job.target, FsError { call: "write", errno });
            }
        }
        let crc = crc.map_err(|halt| halt.explain(job.path, &job.target))?;
        let Made { node, direct, .. } = made;
        match job.record.content {
            Some(Content { crc: expected, .. }) if expected != crc => {
                let text = format!(
                    "staging copy damaged: {:?} has crc32 {crc:08x}, acknowledged was {expected:08x}; \
                     it is not published",
                    job.path
                );
                return Err(Failure::new(FailureClass::Staging, text).into());
            }
            Some(_) => {}
            None => tracing::info!(
                "{:?} of the old daemon has no checksum: crc32 {crc:08x} as it is read now",
                job.path
            ),
        }
        if direct && !job.stat.len.is_multiple_of(u64::from(ALIGNMENT)) {
            fs.set_len(&node, job.stat.len).map_err(|error| job.failure(error))?;
        }
        self.safe_point()?;
        fs.sync(&node).map_err(|error| job.failure(error))?;
        let stat = fs.stat(&node).map_err(|error| job.failure(error))?;
        if stat.len != job.stat.len {
            let text = format!(
                "target {:?} has {} bytes after the sync, not {}",
                job.target, stat.len, job.stat.len
            );
            return Err(Failure::new(FailureClass::File, text).into());
        }
        Ok((stat.inode, crc))
    }

    /// Writes the content; buffered where the target has taken a direct file and takes no direct
    /// write.
    fn fill(
        &mut self,
        job: &Job<'_, F::Node>,
        made: &mut Made<F::Node>,
    ) -> Attempt<Result<u32, TransferHalt>> {
        let crc = self.transfer(job, made.node.id(), made.direct);
        let refused = matches!(crc, Err(TransferHalt::Target(Errno::INVAL)));
        if !(refused && made.direct && self.may_fall_back()) {
            return Ok(crc);
        }
        let drain = Arc::clone(&self.drain);
        drain.target.fs().set_direct(&made.node, false).map_err(|error| job.failure(error))?;
        self.refuse_direct();
        made.direct = false;
        Ok(self.transfer(job, made.node.id(), made.direct))
    }

    /// The temporary, with a layout of its own if it is large enough and can have it.
    fn create(&mut self, job: &Job<'_, F::Node>) -> Attempt<Made<F::Node>> {
        let drain = Arc::clone(&self.drain);
        let (fs, now) = (drain.target.fs(), drain.queue.clock().now());
        let striping = drain.striping.as_ref().filter(|it| it.applies(job.stat.len, now));
        let Some(striping) = striping else { return self.create_plain(job) };
        let made = striping.create(fs, &job.directory, &job.temporary, job.ownership());
        let node = match made.map_err(|error| job.disturbed_or(error))? {
            Hinted::Made(node) => node,
            Hinted::Forgone(error) => {
                let made = self.create_plain(job)?;
                striping.complain(now, &job.target, error);
                return Ok(made);
            }
        };
        let mut direct = self.wants_direct(job);
        if direct {
            match fs.set_direct(&node, true) {
                Ok(()) => {}
                Err(FsError { errno: Errno::INVAL, .. }) if self.may_fall_back() => {
                    self.refuse_direct();
                    direct = false;
                }
                Err(error) => return Err(job.failure(error)),
            }
        }
        Ok(Made { node, direct, laid_out: true })
    }

    fn wants_direct(&self, job: &Job<'_, F::Node>) -> bool {
        match self.drain.options.target_io {
            TargetIo::Direct => true,
            TargetIo::Buffered => false,
            TargetIo::Auto => !self.direct_refused && job.stat.len >= DIRECT_BYTES_MIN,
        }
    }

    /// The temporary, with the layout of its directory.
    fn create_plain(&mut self, job: &Job<'_, F::Node>) -> Attempt<Made<F::Node>> {
        let fs = self.drain.target.fs();
        let (owner, direct) = (job.ownership(), self.wants_direct(job));
        let plain = |node, direct| Made { node, direct, laid_out: false };
        match fs.create_named(&job.directory, &job.temporary, owner, direct) {
            Ok(node) => Ok(plain(node, direct)),
            Err(FsError { errno: Errno::INVAL, .. }) if direct && self.may_fall_back() => {
                // Some file systems create the name before they refuse the flag.
                remove_temporary(fs, &job.directory, &job.temporary)
                    .and_then(|()| fs.create_named(&job.directory, &job.temporary, owner, false))
                    .map_err(|error| job.disturbed_or(error))
                    .map(|node| {
                        self.refuse_direct();
                        plain(node, false)
                    })
            }
            Err(error) => Err(job.disturbed_or(error)),
        }
    }

    fn may_fall_back(&self) -> bool {
        self.drain.options.target_io == TargetIo::Auto
    }

    fn refuse_direct(&mut self) {
        tracing::info!("the target refuses O_DIRECT: this worker writes buffered from now on");
        self.direct_refused = true;
    }

    fn read_back(&mut self, job: &Job<'_, F::Node>, crc: u32) -> Attempt<()> {
        let read = self.checksum_at(job, &job.temporary)?;
        if read == crc {
            return Ok(());
        }
        let text = format!(
            "target {:?} reads back with crc32 {read:08x}, written was {crc:08x}; it is not published",
            job.target
        );
        Err(Failure::new(FailureClass::File, text).into())
    }

    /// There is a file under the final name: ours, published by an earlier attempt, or not.
    fn recognise(&mut self, job: &Job<'_, F::Node>, there: Stat) -> Attempt<Content> {
        let taken = |what: String| {
            let text = format!(
                "target {:?} exists already and {what}; it is not overwritten: move one of the two \
                 away",
                job.target
            );
            Halt::from(Failure::new(FailureClass::Permanent, text))
        };
        if there.kind != Kind::File {
            return Err(taken("is not a regular file".into()));
        }
        if there.len != job.stat.len {
            return Err(taken(format!("has {} bytes, not {}", there.len, job.stat.len)));
        }
        let ours = match job.record.content {
            Some(content) => content.crc,
            None => self
                .sum(job.source, job.stat.len)
                .map_err(|halt| halt.explain(job.path, &job.target))?,
        };
        let crc = self.checksum_at(job, job.name())?;
        if crc != ours {
            return Err(taken(format!("has crc32 {crc:08x}, not {ours:08x}")));
        }
        let fs = self.drain.target.fs();
        fs.open(&job.directory, job.name(), Access::Read)
            .and_then(|node| fs.sync(&node))
            .and_then(|()| fs.sync(&job.directory))
            .map_err(|error| job.failure(error))?;
        tracing::info!(
            "{:?} is on the target already as {:?}: {} bytes, crc32 {crc:08x}",
            job.path,
            job.target,
            there.len
        );
        Ok(Content { len: there.len, crc })
    }

    /// Checksum of a file in the job's directory on the target, past the page cache where it can.
    fn checksum_at(&mut self, job: &Job<'_, F::Node>, name: &Path) -> Attempt<u32> {
        let drain = Arc::clone(&self.drain);
        let fs = drain.target.fs();
        let opened = match fs.open(&job.directory, name, Access::ReadDirect) {
            Err(FsError { errno: Errno::INVAL, .. }) => {
                fs.open(&job.directory, name, Access::Read).map(|node| (node, false))
            }
            result => result.map(|node| (node, true)),
        };
        let (node, direct) = opened.map_err(|error| job.failure(error))?;
        self.sum(End { file: node.id(), direct }, job.stat.len).map_err(|halt| match halt {
            // What is read here is the target.
            TransferHalt::Source(errno) => {
                TransferHalt::Target(errno).explain(job.path, &job.target)
            }
            TransferHalt::Short(len) => {
                let text = format!("target {:?} ends after {len} bytes", job.target);
                Failure::new(FailureClass::File, text).into()
            }
            other => other.explain(job.path, &job.target),
        })
    }

    fn sum(&mut self, source: End, len: u64) -> Result<u32, TransferHalt> {
        self.run_transfer(Plan { source, target: None, len })
    }

    fn transfer(
        &mut self,
        job: &Job<'_, F::Node>,
        file: crate::ring::FileId,
        direct: bool,
    ) -> Result<u32, TransferHalt> {
        let target = Some(End { file, direct });
        self.run_transfer(Plan { source: job.source, target, len: job.stat.len })
    }

    fn run_transfer(&mut self, plan: Plan) -> Result<u32, TransferHalt> {
        let queue = &self.drain.queue;
        self.generation = self.generation.wrapping_add(1);
        let mut transfer = Transfer::new(plan, &self.blocks, self.generation);
        loop {
            transfer.pump(&mut self.ring);
            if let Some(result) = transfer.result() {
                return result.map_err(TransferHalt::from);
            }
            self.ring.reap(None, &mut self.completions).map_err(TransferHalt::Ring)?;
            for completion in self.completions.drain(..) {
                let moved = u64::from(completion.result.unwrap_or(0));
                if completion.token.kind() == READ {
                    self.counters.bytes_read += moved;
                } else {
                    self.counters.bytes_written += moved;
                }
                transfer.completed(&completion, &self.ring);
            }
            self.counters.ring = self.ring.counters();
            self.shared.set(&self.counters);
            self.pulse.beat(queue.clock().now());
            if queue.is_closing() {
                transfer.stop();
            }
        }
    }

    /// Between two steps: says that the worker lives, and leaves if it is to stop.
    fn safe_point(&self) -> Attempt<()> {
        self.pulse.beat(self.drain.queue.clock().now());
        if self.drain.queue.is_closing() { Err(Halt::Closing) } else { Ok(()) }
    }
}

/// Why a transfer ended early.
enum TransferHalt {
    Source(Errno),
    Short(u64),
    Target(Errno),
    Closing,
    Ring(Errno),
}

impl From<TransferError> for TransferHalt {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Source(errno) => Self::Source(errno),
            TransferError::Short(len) => Self::Short(len),
            TransferError::Target(errno) => Self::Target(errno),
            TransferError::Stopped => Self::Closing,
        }
    }
}

impl TransferHalt {
    fn explain(self, staging: &Path, target: &Path) -> Halt {
        let (class, text) = match self {
            Self::Source(errno) => {
                (classify(Side::Staging, errno), format!("read staging copy {staging:?}: {errno}"))
            }
            Self::Short(len) => (
                FailureClass::Staging,
                format!("staging copy damaged: {staging:?} ends after {len} bytes"),
            ),
            Self::Target(errno) => {
                (classify(Side::Target, errno), format!("target {target:?}: {errno}"))
            }
            Self::Closing => return Halt::Closing,
            Self::Ring(errno) => return Halt::Ring(errno),
        };
        Halt::Failed(Failure::new(class, text))
    }
}
