//! A whole drain in memory: two simulated file systems, a simulated ring over both, a clock that
//! moves when nothing else can.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fsq_wire::StorageDest;
use rustix::io::Errno;

use super::{Drain, DrainWorker, Options, Owners, Striping, TargetRoot};
use crate::archive::{Archive, ArchiveWorker, Pool};
use crate::clock::Clock;
use crate::config::{StripeHint, TargetIo, Verify};
use crate::fs::sim::{LAYOUT_ATTRIBUTE, SimConfig, SimFs};
use crate::fs::{Fs, Kind, Ownership};
use crate::queue::record::{Content, FileState, Owner, Record, seal};
use crate::queue::recovery::{Scan, Summary, scan};
use crate::queue::route::{ArchiveMode, first};
use crate::queue::staged::{StagingTree, split};
use crate::queue::{Limits, Queue, Stage};
use crate::ring::sim::{Files, Sim, SimOptions};
use crate::ring::{FileId, Span};

/// Blocks small enough that files of some hundred KiB have several.
pub(crate) const BLOCK_BYTES: u32 = 64 << 10;

/// Owner of all files.
pub(crate) const UID: u32 = 1000;
pub(crate) const GID: u32 = 2000;

/// Time that only tests move.
#[derive(Debug, Default)]
pub(crate) struct SimClock(AtomicU64);

impl SimClock {
    pub(crate) fn advance_to(&self, at: Duration) {
        let at = u64::try_from(at.as_nanos()).expect("some hundred years");
        self.0.fetch_max(at, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, period: Duration) {
        self.advance_to(self.now() + period);
    }
}

/// The file contents of both file systems for one ring.
#[derive(Debug)]
pub(crate) struct Both(SimFs, SimFs);

impl Both {
    fn of(&self, file: FileId) -> &SimFs {
        if self.0.is_open(file) { &self.0 } else { &self.1 }
    }
}

impl Files for Both {
    fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) -> Result<u32, Errno> {
        match self.of(file).file_write(file, offset, bytes) {
            // The ring has cut a direct write off within a page.
            Err(Errno::INVAL) if !bytes.len().is_multiple_of(PAGE) => match whole(bytes.len()) {
                0 => Err(Errno::AGAIN),
                len => self.of(file).file_write(file, offset, &bytes[..len]),
            },
            result => result,
        }
    }

    fn read(&mut self, file: FileId, bytes: &mut [u8], offset: u64) -> Result<u32, Errno> {
        match self.of(file).file_read(file, offset, bytes) {
            Err(Errno::INVAL) if !bytes.len().is_multiple_of(PAGE) => match whole(bytes.len()) {
                0 => Err(Errno::AGAIN),
                len => self.of(file).file_read(file, offset, &mut bytes[..len]),
            },
            result => result,
        }
    }

    /// The simulated file systems know which of their files are direct.
    fn alignment(&self) -> u64 {
        1
    }
}

const PAGE: usize = 4096;

fn whole(len: usize) -> usize {
    len - len % PAGE
}

struct Nobody;

impl Owners for Nobody {
    fn owner(&self, _: &Record) -> Option<(u32, u32)> {
        None
    }
}

pub(crate) type SimWorker = DrainWorker<SimFs, Sim<Both>, SimClock>;

/// What outlives a crash.
pub(crate) struct World {
    pub(crate) staging: SimFs,
    pub(crate) target: SimFs,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) limits: Limits,
    pub(crate) options: Options,
    pub(crate) striping: Option<StripeHint>,
    pub(crate) ring: SimOptions,
}

/// What a crash ends.
pub(crate) struct Daemon {
    pub(crate) queue: Arc<Queue<SimClock>>,
    pub(crate) tree: Arc<StagingTree<SimFs>>,
    pub(crate) worker: SimWorker,
    options: Options,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            staging: SimFs::new(SimConfig::ext4()),
            target: SimFs::new(SimConfig::lustre()),
            clock: Arc::new(SimClock::default()),
            limits: Limits { tolerated_errors: 3, seed, ..Limits::default() },
            options: Options {
                target_io: TargetIo::Auto,
                verify: Verify::Stream,
                archive: ArchiveMode::Off,
                instance: 7,
            },
            striping: None,
            ring: SimOptions::flawless(seed),
        }
    }

    /// Starts a daemon; fails where a file system does.
    pub(crate) fn start(&self) -> crate::fs::Result<Daemon> {
        let queue = Arc::new(Queue::new(self.limits, Arc::clone(&self.clock)));
        let fs = Arc::new(self.staging.clone());
        let root = fs.open_root(Path::new("/"))?;
        let tree = Arc::new(StagingTree::new(fs, root));
        let target = Arc::new(TargetRoot::new(Arc::new(self.target.clone()), Path::new("/")));
        let drain = Drain {
            tree: Arc::clone(&tree),
            target,
            queue: Arc::clone(&queue),
            owners: Arc::new(Nobody),
            striping: self.striping.clone().map(Striping::new),
            options: self.options,
        };
        let arena = Span { start: 0, len: 3 * BLOCK_BYTES };
        let files = Both(self.staging.clone(), self.target.clone());
        let ring = Sim::new(self.ring, u64::from(arena.len), Span::default(), files);
        let worker = DrainWorker::new(Arc::new(drain), ring, arena, BLOCK_BYTES);
        Ok(Daemon { queue, tree, worker, options: self.options })
    }

    /// Stages a complete, durable file as the staging service does.
    pub(crate) fn stage(&self, path: &str, content: &[u8], dest: StorageDest) {
        self.stage_as(path, content, &record(Path::new(path), dest, content, true));
    }

    /// Stages a file as the old daemon did: without checksum and owner.
    pub(crate) fn stage_old(&self, path: &str, content: &[u8], dest: StorageDest) {
        self.stage_as(path, content, &record(Path::new(path), dest, content, false));
    }

    /// Stages `content` under a record that may say something else.
    pub(crate) fn stage_as(&self, path: &str, content: &[u8], record: &Record) {
        let fs = &self.staging;
        let file = self.stage_bytes(path, content);
        record.store_static(fs, &file).expect("they fit");
        if let Some(content) = record.content {
            seal(fs, &file, content, record.state).expect("it fits");
        } else {
            let state = record.state.bits().to_ne_bytes();
            fs.set_attribute(&file, "user.fsq.state", &state).expect("it fits");
        }
        fs.sync(&file).expect("no faults yet");
    }

    /// A file on staging without any attribute.
    pub(crate) fn stage_bytes(&self, path: &str, content: &[u8]) -> <SimFs as Fs>::Node {
        put(&self.staging, Path::new(path), content)
    }

    /// Changes the state of a staged file behind the daemon's back.
    pub(crate) fn set_state(&self, path: &str, state: FileState) {
        let node = self.open_staged(path);
        let value = state.bits().to_ne_bytes();
        self.staging.set_attribute(&node, "user.fsq.state", &value).expect("it fits");
    }

    pub(crate) fn state(&self, path: &str) -> FileState {
        let node = self.open_staged(path);
        Record::load(&self.staging, &node).expect("readable").expect("a record").state
    }

    fn open_staged(&self, path: &str) -> <SimFs as Fs>::Node {
        let root = self.staging.open_root(Path::new("/")).expect("a root");
        self.staging.open(&root, Path::new(path), crate::fs::Access::Read).expect("a staged file")
    }

    /// Puts a file on the target that the daemon knows nothing of.
    pub(crate) fn put_on_target(&self, path: &str, content: &[u8]) {
        put(&self.target, Path::new(path), content);
    }

    pub(crate) fn staged_files(&self) -> Vec<PathBuf> {
        files(&self.staging)
    }

    pub(crate) fn target_files(&self) -> Vec<PathBuf> {
        files(&self.target)
    }

    /// The layout that a file on the target was made with, in words.
    pub(crate) fn layout_of(&self, path: &str) -> Option<String> {
        let root = self.target.open_root(Path::new("/")).expect("a root");
        let file = self.target.open(&root, Path::new(path), crate::fs::Access::Read);
        let value = self.target.attribute(&file.expect("delivered"), LAYOUT_ATTRIBUTE);
        value.expect("readable").map(|bytes| String::from_utf8(bytes).expect("words"))
    }

    pub(crate) fn on_target(&self, path: &str) -> Option<Vec<u8>> {
        self.target.contents(Path::new(path))
    }
}

impl Daemon {
    pub(crate) fn recover(&self, why: Scan) -> Summary {
        scan(&self.tree, &self.queue, self.options.archive, why)
    }

    pub(crate) fn enqueue(&self, path: &str, dest: StorageDest) {
        let route = first(dest, self.options.archive);
        if let Some((stage, phase)) = route.lane(dest) {
            self.queue.enqueue(Path::new(path), stage, phase);
        }
    }

    /// Works until no file is left that time alone would bring back; at most until `until`.
    pub(crate) fn drain_until(&mut self, until: Duration) {
        self.drain_with(None::<&mut ArchiveWorker<SimFs, SimClock, NoArchive>>, until);
    }

    pub(crate) fn drain(&mut self) {
        self.drain_until(Duration::from_secs(86_400 * 365));
    }

    /// The same, with an archive worker at its side.
    pub(crate) fn drain_with<A: Archive>(
        &mut self,
        mut archive: Option<&mut ArchiveWorker<SimFs, SimClock, A>>,
        until: Duration,
    ) {
        let queue = Arc::clone(&self.queue);
        loop {
            let copy = queue.poll(Stage::Copy, 1);
            let mut next = copy.as_ref().err().copied().flatten();
            let mut busy = copy.is_ok();
            for ticket in copy.into_iter().flatten() {
                self.worker.work(&ticket).expect("the simulated ring does not break");
            }
            if let Some(worker) = &mut archive {
                match queue.poll(Stage::Archive, 4) {
                    Ok(tickets) => {
                        busy = true;
                        worker.work(&tickets);
                    }
                    Err(at) => next = [next, at].into_iter().flatten().min(),
                }
            }
            if busy {
                continue;
            }
            if let Some(crate::queue::Chore::Rescan) = queue.poll_chore() {
                self.recover(Scan::Refill);
                continue;
            }
            match next {
                Some(at) if at <= until => queue.clock().advance_to(at),
                _ => return,
            }
        }
    }

    pub(crate) fn archive_worker<A: Archive>(
        &self,
        archive: A,
    ) -> ArchiveWorker<SimFs, SimClock, A> {
        let pool = Pool {
            tree: Arc::clone(&self.tree),
            queue: Arc::clone(&self.queue),
            mode: self.options.archive,
            target: PathBuf::from("/"),
        };
        ArchiveWorker::new(Arc::new(pool), archive)
    }
}

/// A durable file that is there before the daemon comes.
fn put(fs: &SimFs, path: &Path, content: &[u8]) -> <SimFs as Fs>::Node {
    let root = fs.open_root(Path::new("/")).expect("a root");
    let owner = Ownership { uid: None, gid: None, mode: 0o755 };
    let (parent, name) = split(path);
    let directory = fs.directory(&root, parent, Some(owner), true).expect("room");
    let owner = Ownership { uid: None, gid: None, mode: 0o660 };
    let file = fs.create_named(&directory, name, owner, false).expect("a new file");
    fs.write_all_at(&file, content, 0).expect("room");
    fs.sync(&file).expect("no faults yet");
    fs.sync(&directory).expect("no faults yet");
    file
}

/// For drains without an archive.
pub(crate) struct NoArchive;

impl Archive for NoArchive {
    fn batch_max(&self) -> usize {
        1
    }

    fn archive(&mut self, _: &[crate::archive::ArchiveItem<'_>]) -> Vec<crate::archive::Verdict> {
        panic!("there is no archive")
    }

    fn confirm(&mut self, _: &crate::archive::ArchiveItem<'_>) -> crate::archive::Verdict {
        panic!("there is no archive")
    }
}

pub(crate) fn record(path: &Path, dest: StorageDest, content: &[u8], ours: bool) -> Record {
    let owner = Owner { uid: UID, gid: GID, node: "polaris".into() };
    let sum = Content { len: content.len() as u64, crc: crc32fast::hash(content) };
    Record {
        state: FileState::LocalCopyDone,
        archive_id: 3,
        fs: "/".into(),
        fpath: Path::new("/").join(path).into_os_string(),
        desc: b"test".to_vec(),
        dest,
        content: ours.then_some(sum),
        owner: ours.then_some(owner),
    }
}

/// Bytes that differ from block to block and from file to file.
pub(crate) fn content(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8 ^ salt).collect()
}

fn files(fs: &SimFs) -> Vec<PathBuf> {
    let paths = fs.paths().into_iter();
    paths.filter(|(_, kind)| *kind == Kind::File).map(|(path, _)| path).collect()
}
