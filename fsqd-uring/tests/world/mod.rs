//! Staging in memory, a queue, and a clock that the tests move: what an archive worker needs beside
//! its archive.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fsq_wire::StorageDest;
use fsqd_uring::archive::{Archive, ArchiveWorker, Pool};
use fsqd_uring::clock::Clock;
use fsqd_uring::fs::sim::{SimConfig, SimFs};
use fsqd_uring::fs::{Access, Fs, Kind, Ownership};
use fsqd_uring::queue::record::{Content, FileState, Owner, Record, seal};
use fsqd_uring::queue::recovery::{Scan, scan};
use fsqd_uring::queue::route::ArchiveMode;
use fsqd_uring::queue::staged::StagingTree;
use fsqd_uring::queue::{Limits, Queue, Stage};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Time that only tests move.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, period: Duration) {
        self.advance_to(self.now() + period);
    }
}

impl TestClock {
    fn advance_to(&self, at: Duration) {
        let at = u64::try_from(at.as_nanos()).expect("some hundred years");
        self.0.fetch_max(at, Ordering::SeqCst);
    }
}

/// What outlives a daemon.
pub(crate) struct World {
    pub(crate) staging: SimFs,
    pub(crate) clock: Arc<TestClock>,
    /// How far files have come that are staged from now on, and where they belong.
    pub(crate) first: FileState,
    pub(crate) archive_id: i32,
}

/// What a crash ends.
pub(crate) struct Daemon {
    pub(crate) queue: Arc<Queue<TestClock>>,
    pub(crate) pool: Arc<Pool<SimFs, TestClock>>,
}

/// Length and checksum of these bytes.
pub(crate) fn sum(bytes: &[u8]) -> Content {
    Content { len: bytes.len() as u64, crc: crc32fast::hash(bytes) }
}

impl World {
    pub(crate) fn new(first: FileState) -> Self {
        let staging = SimFs::new(SimConfig::ext4());
        Self { staging, clock: Arc::default(), first, archive_id: 3 }
    }

    /// Stages a file as this daemon does, or without `content` as the old one.
    pub(crate) fn stage(&self, path: &str, bytes: &[u8], content: Option<Content>) {
        let fs = &self.staging;
        let root = fs.open_root(Path::new("/")).expect("a root");
        let owner = Ownership { uid: None, gid: None, mode: 0o755 };
        let path = Path::new(path);
        let parent = path.parent().expect("a parent");
        let directory = fs.directory(&root, parent, Some(owner), true).expect("room");
        let name = Path::new(path.file_name().expect("a name"));
        let file = fs.create_named(&directory, name, owner, false).expect("a new file");
        fs.write_all_at(&file, bytes, 0).expect("room");
        let record = Record {
            state: self.first,
            archive_id: self.archive_id,
            fs: "/lustre".into(),
            fpath: Path::new("/lustre").join(path).into(),
            desc: b"run 7".to_vec(),
            dest: StorageDest::Tsm,
            content,
            owner: content.map(|_| Owner { uid: 1, gid: 2, node: "polaris".into() }),
        };
        record.store_static(fs, &file).expect("room");
        match content {
            Some(content) => seal(fs, &file, content, record.state).expect("room"),
            None => {
                let state = record.state.bits().to_ne_bytes();
                fs.set_attribute(&file, "user.fsq.state", &state).expect("room");
            }
        }
        fs.sync(&file).expect("no faults yet");
        fs.sync(&directory).expect("no faults yet");
    }

    pub(crate) fn staged(&self) -> Vec<PathBuf> {
        let paths = self.staging.paths().into_iter();
        paths.filter(|(_, kind)| *kind == Kind::File).map(|(path, _)| path).collect()
    }

    pub(crate) fn state(&self, path: &str) -> FileState {
        let root = self.staging.open_root(Path::new("/")).expect("a root");
        let node = self.staging.open(&root, Path::new(path), Access::Read).expect("staged");
        Record::load(&self.staging, &node).expect("readable").expect("a record").state
    }

    /// Starts a daemon that finds what is on staging; fails where staging does.
    pub(crate) fn start(&self, mode: ArchiveMode) -> fsqd_uring::fs::Result<Daemon> {
        let limits = Limits { tolerated_errors: 3, ..Limits::default() };
        let queue = Arc::new(Queue::new(limits, Arc::clone(&self.clock)));
        let fs = Arc::new(self.staging.clone());
        let root = fs.open_root(Path::new("/"))?;
        let tree = Arc::new(StagingTree::new(fs, root));
        scan(&tree, &queue, mode, Scan::Start);
        let target = PathBuf::from("/lustre");
        let pool = Arc::new(Pool { tree, queue: Arc::clone(&queue), mode, target });
        Ok(Daemon { queue, pool })
    }
}

impl Daemon {
    /// Works, on up to `max` files at a time, until nothing is left that time alone would bring
    /// back; at most until `until`.
    pub(crate) fn run(&self, archive: impl Archive, max: usize, until: Duration) {
        let mut worker = ArchiveWorker::new(Arc::clone(&self.pool), archive);
        loop {
            match self.queue.poll(Stage::Archive, max) {
                Ok(tickets) => worker.work(&tickets),
                Err(Some(at)) if at <= until => self.queue.clock().advance_to(at),
                Err(_) => return,
            }
        }
    }
}
