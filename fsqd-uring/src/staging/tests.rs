//! The service as a ring sees it, over the simulated file system and over a real one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};

use fsq_wire::StorageDest;
use rustix::io::Errno;

use super::*;
use crate::clock::SystemClock;
use crate::fs::sim::{Operation, SimConfig, SimFs};
use crate::fs::{Access, FsType, Kind, LinuxFs};
use crate::identmap::Identity;
use crate::path::Placement;
use crate::queue::record::{FileState, Record};
use crate::services::{NewFile, Secret, StagedFile, Tail};

mod crash;
mod failures;
mod gate;
mod groups;
mod probes;
mod space;
mod syncs;

/// A clock that goes when it is told to.
#[derive(Debug, Default)]
pub(super) struct HandClock {
    now: Mutex<Duration>,
}

impl HandClock {
    fn advance(&self, period: Duration) {
        *self.now.lock().unwrap() += period;
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn sleep(&self, period: Duration) {
        self.advance(period);
    }
}

/// The ring's side: answers by token.
#[derive(Default)]
struct Answers {
    by_token: Mutex<HashMap<u64, Answer>>,
    arrived: Condvar,
}

impl Mailbox for Answers {
    fn deliver(&self, token: Token, answer: Answer) {
        let before = self.by_token.lock().unwrap().insert(token.raw(), answer);
        assert!(before.is_none(), "{token:?} answered twice");
        self.arrived.notify_all();
    }
}

impl Answers {
    fn wait(&self, token: Token) -> Answer {
        let mut answers = self.by_token.lock().unwrap();
        loop {
            if let Some(answer) = answers.remove(&token.raw()) {
                return answer;
            }
            answers = self.arrived.wait(answers).unwrap();
        }
    }

    fn has(&self, token: Token) -> bool {
        self.by_token.lock().unwrap().contains_key(&token.raw())
    }
}

/// Slots of memory for tails, one for each job that is out.
const SLOT_BYTES: u32 = 16 << 10;
const SLOTS: u32 = 64;

/// A service, a ring's way to it, and what came out at the other end.
struct Rig<F: Fs> {
    service: Option<StagingService<F>>,
    ring: RingServices<F>,
    answers: Arc<Answers>,
    memory: Arc<Arena>,
    clock: Arc<HandClock>,
    drained: Arc<Mutex<Vec<PathBuf>>>,
    root: Arc<StagingRoot<F>>,
    tokens: u32,
}

fn config() -> StagingConfig {
    StagingConfig {
        threads: 2,
        // Only nudges count, unless a test sets it.
        space_recheck: Duration::from_secs(3600),
        ..StagingConfig::new(Durability::Fsync, 32)
    }
}

fn new_file(path: &str, dest: StorageDest) -> NewFile {
    let identity = Identity {
        node: "polaris".to_owned(),
        servername: "server".to_owned(),
        archive_id: 3,
        uid: 1000,
        gid: 2000,
        directory: None,
    };
    NewFile {
        identity: Arc::new(identity),
        placement: Placement { staging: path.into(), target: path.into() },
        fs: "/lustre".into(),
        fpath: format!("/lustre/{path}").into(),
        desc: b"run 7".to_vec(),
        dest,
    }
}

/// Content that tells files and offsets apart.
fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| seed.wrapping_add((i / 7) as u8).wrapping_mul(31)).collect()
}

impl Rig<SimFs> {
    fn sim(fs: &SimFs, config: StagingConfig) -> Self {
        Self::new(fs.clone(), Path::new("/"), config)
    }

    fn with_gate(fs: &SimFs, config: StagingConfig, gate: Box<dyn Gate>) -> Self {
        Self::build(fs.clone(), Path::new("/"), config, gate, |_, _| {})
    }
}

impl<F: Fs> Rig<F> {
    fn new(fs: F, path: &Path, config: StagingConfig) -> Self {
        Self::with_outbox(fs, path, config, |_, _| {})
    }

    fn with_outbox(
        fs: F,
        path: &Path,
        config: StagingConfig,
        outbox: impl Fn(&Path, StorageDest) + Send + Sync + 'static,
    ) -> Self {
        let gate = |node: &str, password: &Secret, peer: &str| {
            let text = format!("{node} from {peer}: {}", password.expose().len());
            Err(Refusal::new(Errno::ACCESS, text))
        };
        Self::build(fs, path, config, Box::new(gate), outbox)
    }

    fn build(
        fs: F,
        path: &Path,
        config: StagingConfig,
        gate: Box<dyn Gate>,
        outbox: impl Fn(&Path, StorageDest) + Send + Sync + 'static,
    ) -> Self {
        let root = StagingRoot::open(Arc::new(fs), path, 4711).expect("a staging root");
        let root = Arc::new(root);
        let clock = Arc::new(HandClock::default());
        let drained = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&drained);
        let service = StagingService::start(
            Arc::clone(&root),
            config,
            Arc::clone(&clock) as Arc<dyn Clock>,
            Neighbours {
                gate,
                outbox: Box::new(move |path, dest| {
                    outbox(path, dest);
                    sink.lock().unwrap().push(path.to_path_buf());
                }),
                is_taken: Box::new(|path| path.ends_with("taken-on-target")),
            },
        )
        .expect("threads");
        let answers = Arc::new(Answers::default());
        let memory = Arc::new(Arena::new(u64::from(SLOTS * SLOT_BYTES)).expect("memory"));
        let ring = service.connector()(
            Arc::clone(&answers) as Arc<dyn Mailbox>,
            Arc::clone(&memory) as Arc<dyn TailMemory>,
        );
        Self { service: Some(service), ring, answers, memory, clock, drained, root, tokens: 0 }
    }

    fn service(&self) -> &StagingService<F> {
        self.service.as_ref().expect("not stopped yet")
    }

    fn submit(&mut self, job: Job) -> Token {
        self.tokens += 1;
        let token = Token::new(1, self.tokens % SLOTS, self.tokens);
        self.ring.submit(token, job);
        token
    }

    fn submit_open(&mut self, path: &str, dest: StorageDest) -> Token {
        self.submit(Job::Open(Box::new(new_file(path, dest))))
    }

    fn opened(&self, token: Token) -> Result<StagedFile, Refusal> {
        match self.answers.wait(token) {
            Answer::Open(result) => result,
            other => panic!("not an answer to OPEN: {other:?}"),
        }
    }

    fn open(&mut self, path: &str) -> Result<StagedFile, Refusal> {
        let token = self.submit_open(path, StorageDest::Lustre);
        self.opened(token)
    }

    /// Submits a commit whose whole content is still in memory.
    fn submit_commit(&mut self, staged: StagedFile, content: &[u8]) -> Token {
        let slot = (self.tokens + 1) % SLOTS;
        let span = Span {
            start: u64::from(slot * SLOT_BYTES),
            len: u32::try_from(content.len()).expect("small"),
        };
        // What is behind the tail must not reach the file.
        let whole = Span { len: SLOT_BYTES, ..span };
        self.memory.lend(whole, &mut |memory| {
            memory.fill(0xee);
            memory[..content.len()].copy_from_slice(content);
        });
        let tail = (!content.is_empty()).then_some(Tail { span, offset: 0 });
        let (len, crc) = (content.len() as u64, crc32fast::hash(content));
        self.submit(Job::Commit { staged, tail, len, crc })
    }

    fn committed(&self, token: Token) -> Result<(), Refusal> {
        match self.answers.wait(token) {
            Answer::Commit(result) => result,
            other => panic!("not an answer to COMMIT: {other:?}"),
        }
    }

    fn commit(&mut self, staged: StagedFile, content: &[u8]) -> Result<(), Refusal> {
        let token = self.submit_commit(staged, content);
        self.committed(token)
    }

    fn put(&mut self, path: &str, content: &[u8]) -> Result<(), Refusal> {
        let staged = self.open(path)?;
        self.commit(staged, content)
    }

    fn extend(&mut self, staged: StagedFile, from: u64, len: u64) -> Result<u64, Refusal> {
        let token = self.submit(Job::Extend { staged, from, len });
        match self.answers.wait(token) {
            Answer::Extend(result) => result,
            other => panic!("not an answer to EXTEND: {other:?}"),
        }
    }

    fn abort(&mut self, staged: StagedFile) {
        let token = self.submit(Job::Abort { staged });
        assert!(matches!(self.answers.wait(token), Answer::Abort));
    }

    fn drained(&self) -> Vec<String> {
        let drained = self.drained.lock().unwrap();
        drained.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    /// The record of a stored file, after its content was checked against it.
    fn intact(&self, path: &str, content: &[u8]) -> Record {
        intact(&*self.root.fs, &self.root.node, path, content).expect("intact")
    }

    /// Waits until `count` jobs wait for space.
    fn wait_for_waiting(&self, count: usize) {
        while self.service().waiting() < count {
            std::thread::yield_now();
        }
    }
}

/// The record of a file, if the file is what was sent.
fn intact<F: Fs>(fs: &F, root: &F::Node, path: &str, content: &[u8]) -> Result<Record, String> {
    let say = |error: &dyn std::fmt::Display| format!("{path}: {error}");
    let file = fs.open(root, Path::new(path), Access::Read).map_err(|error| say(&error))?;
    let mut read = vec![0; content.len() + 1];
    let count = fs.read_at(&file, &mut read, 0).map_err(|error| say(&error))?;
    let record = Record::load(fs, &file).map_err(|error| say(&error))?;
    let record = record.ok_or_else(|| say(&"no record"))?;
    if read[..count] != *content {
        return Err(say(&"not what was sent"));
    }
    let expected = Content { len: content.len() as u64, crc: crc32fast::hash(content) };
    if record.content != Some(expected) {
        return Err(say(&"a seal of something else"));
    }
    Ok(record)
}

/// The paths there are, without the daemon's own.
fn visible(fs: &SimFs) -> Vec<String> {
    let paths = fs.paths().into_iter().map(|(path, _)| path.to_str().unwrap().to_owned());
    paths.filter(|path| !path.starts_with(".fsqd")).collect()
}

fn sim() -> SimFs {
    SimFs::new(SimConfig::ext4())
}

fn stores_files<F: Fs>(fs: F, path: &Path) {
    let mut rig = Rig::new(fs, path, config());
    for (index, len) in [0, 1, 4095, 4096, 4097, 12_000].into_iter().enumerate() {
        let path = format!("a/b{}/file{index}", index % 2);
        let content = bytes(index as u8, len);
        let staged = rig.open(&path).unwrap();
        assert!(intact(&*rig.root.fs, &rig.root.node, &path, &content).is_err(), "no name yet");
        rig.commit(staged, &content).unwrap();
        let record = rig.intact(&path, &content);
        assert_eq!(record.state, FileState::LocalCopyDone);
        assert_eq!(record.archive_id, 3);
        assert_eq!(record.fpath, *format!("/lustre/{path}"));
        assert_eq!(record.desc, b"run 7");
        let owner = record.owner.unwrap();
        assert_eq!((owner.uid, owner.gid, &*owner.node), (1000, 2000, "polaris"));
        assert_eq!(rig.drained().last(), Some(&path));
        let stat = |path: &str| rig.root.fs.stat_at(&rig.root.node, Path::new(path)).unwrap();
        assert_eq!((stat(&path).mode, stat("a/b0").mode), (0o660, 0o755));
    }
    assert_eq!(rig.drained().len(), 6);
    let totals = rig.service().totals();
    assert_eq!((totals.opens, totals.commits, totals.synced_files), (6, 6, 6));
    assert_eq!(rig.service().files(), 0);
}

#[test]
fn a_file_is_stored_and_handed_to_the_drain() {
    stores_files(sim(), Path::new("/"));
}

#[test]
fn a_file_is_stored_on_a_real_file_system() {
    let dir = tempfile::tempdir().unwrap();
    stores_files(LinuxFs, dir.path());
}

#[test]
fn a_file_is_stored_where_there_is_no_direct_io() {
    let fs = SimFs::new(SimConfig { direct: false, ..SimConfig::ext4() });
    stores_files(fs.clone(), Path::new("/"));
    // Buffered data is not in the journal's order, so each is synced before it gets its name.
    assert_eq!(fs.operations_of(Operation::SyncAll), 6);
    assert!(fs.operations_of(Operation::Sync) >= 6);
}

#[test]
fn what_the_ring_wrote_and_the_tail_make_one_file() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    let content = bytes(9, 40_000);
    let staged = rig.open("run/big").unwrap();
    assert_eq!(rig.extend(staged, 0, 16 << 20), Ok(16 << 20));
    let body = &content[..36_864];
    assert_eq!(fs.file_write(staged.file, 0, body), Ok(36_864));
    let span = Span { start: 0, len: 40_000 - 36_864 };
    rig.memory.lend(Span { len: 4096, ..span }, &mut |memory| {
        memory.fill(0xee);
        memory[..span.len as usize].copy_from_slice(&content[36_864..]);
    });
    let tail = Some(Tail { span, offset: 36_864 });
    let crc = crc32fast::hash(&content);
    let token = rig.submit(Job::Commit { staged, tail, len: 40_000, crc });
    rig.committed(token).unwrap();
    rig.intact("run/big", &content);
    // What an earlier client left in memory has not even been on the device.
    let padding = Span { start: u64::from(span.len), len: 4096 - span.len };
    rig.memory.lend(padding, &mut |memory| assert!(memory.iter().all(|&byte| byte == 0)));
    // What was preallocated and not used is given back: ten blocks, the directories, the pid.
    assert_eq!(rig.root.fs.stat_at(&rig.root.node, Path::new("run/big")).unwrap().len, 40_000);
    let space = rig.root.fs.space(&rig.root.node).unwrap();
    assert_eq!((space.total_bytes - space.available_bytes) / 4096, 10 + 3 + 1);
}

#[test]
fn a_local_file_is_at_its_destination() {
    let mut rig = Rig::sim(&sim(), config());
    let token = rig.submit_open("kept", StorageDest::Local);
    let staged = rig.opened(token).unwrap();
    rig.commit(staged, b"data").unwrap();
    let record = rig.intact("kept", b"data");
    assert_eq!((record.state, record.dest), (FileState::FileKeep, StorageDest::Local));
    assert!(rig.drained().is_empty());
}

#[test]
fn written_durability_syncs_nothing() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, StagingConfig { durability: Durability::Written, ..config() });
    rig.put("a/b", b"data").unwrap();
    rig.intact("a/b", b"data");
    assert_eq!(rig.drained(), ["a/b"]);
    assert_eq!(fs.operations_of(Operation::Sync) + fs.operations_of(Operation::SyncAll), 0);
}

#[test]
fn a_name_belongs_to_one_session() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    let first = rig.open("a/b/c").unwrap();
    let refusal = rig.open("a/b/c").unwrap_err();
    assert_eq!(refusal.errno, Errno::EXIST);
    assert!(refusal.text.contains("'/lustre/a/b/c' is being received"), "{refusal}");
    rig.abort(first);
    assert!(visible(&fs).is_empty(), "{:?}", visible(&fs));

    rig.put("a/b/c", b"1").unwrap();
    let refusal = rig.open("a/b/c").unwrap_err();
    assert_eq!(refusal.errno, Errno::EXIST);
    assert!(refusal.text.contains("exists already"), "{refusal}");
    rig.intact("a/b/c", b"1");
    assert_eq!(rig.drained(), ["a/b/c"]);
}

/// Somebody else may put a file there while ours is coming in.
#[test]
fn a_name_that_was_taken_meanwhile_is_not_overwritten() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    let staged = rig.open("a/b").unwrap();
    let dir = rig.root.fs.directory(&rig.root.node, Path::new("a"), None, false).unwrap();
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o600 };
    let other = rig.root.fs.create_named(&dir, Path::new("b"), owner, false).unwrap();
    rig.root.fs.write_all_at(&other, b"theirs", 0).unwrap();
    assert_eq!(rig.commit(staged, b"ours").unwrap_err().errno, Errno::EXIST);
    assert_eq!(fs.contents(Path::new("a/b")).unwrap(), b"theirs");
    assert!(rig.drained().is_empty());
}

#[test]
fn what_stands_in_the_way_is_named() {
    let fs = sim();
    fs.put_symlink(Path::new("link"));
    let mut rig = Rig::sim(&fs, config());
    rig.put("file", b"x").unwrap();
    let long = format!("d/{}", "n".repeat(256));
    for (path, errno, text) in [
        ("link/x", Errno::ACCESS, "symlink"),
        ("link/new/x", Errno::ACCESS, "symlink"),
        ("link", Errno::EXIST, "exists already"),
        ("file/x", Errno::NOTDIR, "as a file"),
        ("file/new/x", Errno::NOTDIR, "as a file"),
        (&long, Errno::NAMETOOLONG, "too long"),
    ] {
        let refusal = rig.open(path).unwrap_err();
        assert_eq!(refusal.errno, errno, "{path}: {refusal}");
        assert!(refusal.text.contains(text), "{path}: {refusal}");
    }
    assert_eq!(visible(&fs), ["file", "link"]);
}

#[test]
fn directories_stay_only_for_files_that_stay() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o755 };
    fs.directory(&rig.root.node, Path::new("old/empty"), Some(owner), true).unwrap();
    let one = rig.open("old/empty/new/x/one").unwrap();
    let two = rig.open("old/empty/new/two").unwrap();
    let three = rig.open("old/empty/new/x/three").unwrap();
    rig.abort(three);
    assert!(visible(&fs).contains(&"old/empty/new/x".to_owned()), "one still needs it");
    rig.abort(two);
    rig.abort(one);
    assert_eq!(visible(&fs), ["old", "old/empty"], "what was there before stays");

    let one = rig.open("new/one").unwrap();
    let two = rig.open("new/two").unwrap();
    rig.commit(one, b"1").unwrap();
    rig.abort(two);
    assert_eq!(visible(&fs), ["new", "new/one", "old", "old/empty"]);
}

#[test]
fn limits_hold() {
    let mut rig = Rig::sim(&sim(), StagingConfig { files_max: 2, ..config() });
    let one = rig.open("a/1").unwrap();
    rig.open("a/2").unwrap();
    assert_eq!(rig.open("b/3").unwrap_err().errno, Errno::MFILE);
    assert_eq!(visible(rig.root.fs.as_ref()), ["a"]);
    rig.abort(one);
    rig.open("b/3").unwrap();

    let mut rig = Rig::sim(&sim(), StagingConfig { jobs_max: 0, ..config() });
    assert_eq!(rig.open("a").unwrap_err().errno, Errno::BUSY);
}

#[test]
fn jobs_for_files_that_are_gone_are_answered() {
    let mut rig = Rig::sim(&sim(), config());
    let staged = rig.open("a").unwrap();
    rig.abort(staged);
    rig.abort(staged);
    assert_eq!(rig.extend(staged, 0, 4096).unwrap_err().errno, Errno::BADF);
    assert_eq!(rig.commit(staged, b"").unwrap_err().errno, Errno::BADF);
}

#[test]
fn sign_on_is_passed_through() {
    let mut rig = Rig::sim(&sim(), config());
    let token = rig.submit(Job::SignOn {
        node: "polaris".to_owned(),
        password: Secret::new(b"12345"),
        peer: "[::1]:9".to_owned(),
    });
    let Answer::SignOn(Err(refusal)) = rig.answers.wait(token) else { panic!("another answer") };
    assert_eq!(refusal.text, "polaris from [::1]:9: 5");
}

#[test]
fn stopping_finishes_what_is_there_and_refuses_the_rest() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, StagingConfig { threads: 1, ..config() });
    let begun = rig.open("begun").unwrap();
    let ready = rig.open("ready").unwrap();
    fs.set_capacity(0);
    let parked = rig.submit_open("parked", StorageDest::Lustre);
    rig.wait_for_waiting(1);
    fs.set_capacity(1 << 30);
    let commit = rig.submit_commit(ready, b"data");
    rig.service = None;
    rig.committed(commit).unwrap();
    assert_eq!(rig.opened(parked).unwrap_err().errno, Errno::SHUTDOWN);
    // And later ones do not hang their ring.
    assert_eq!(rig.open("late").unwrap_err().errno, Errno::SHUTDOWN);
    assert_eq!(rig.commit(begun, b"late").unwrap_err().errno, Errno::SHUTDOWN);
    assert_eq!(visible(&fs), ["ready"]);
}

/// Many sessions at once, on a real file system, some of which give up.
#[test]
fn sessions_at_once_on_a_real_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let root = StagingRoot::open(Arc::new(LinuxFs), dir.path(), 1).unwrap();
    let drained = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&drained);
    let service = StagingService::start(
        Arc::new(root),
        config(),
        Arc::new(SystemClock::new()),
        Neighbours {
            gate: Box::new(|_: &str, _: &Secret, _: &str| Err(Refusal::new(Errno::ACCESS, ""))),
            outbox: Box::new(move |path, _| sink.lock().unwrap().push(path.to_path_buf())),
            is_taken: Box::new(|_| false),
        },
    )
    .unwrap();
    std::thread::scope(|scope| {
        for session in 0..8_u32 {
            let service = &service;
            scope.spawn(move || {
                let answers = Arc::new(Answers::default());
                let memory = Arc::new(Arena::new(8192).unwrap());
                let mut ring = service.connector()(
                    Arc::clone(&answers) as Arc<dyn Mailbox>,
                    Arc::clone(&memory) as Arc<dyn TailMemory>,
                );
                for file in 0..20_u32 {
                    let token = Token::new(1, session, file * 2);
                    let name = format!("run{}/s{session}/{file}", file / 5);
                    let new = new_file(&name, StorageDest::Lustre);
                    ring.submit(token, Job::Open(Box::new(new)));
                    let Answer::Open(Ok(staged)) = answers.wait(token) else { panic!("{name}") };
                    let token = Token::new(1, session, file * 2 + 1);
                    if file % 4 == 3 {
                        ring.submit(token, Job::Abort { staged });
                        assert!(matches!(answers.wait(token), Answer::Abort));
                        continue;
                    }
                    let content = bytes((session * 20 + file) as u8, 5000);
                    let span = Span { start: 0, len: 5000 };
                    memory.lend(span, &mut |memory| memory.copy_from_slice(&content));
                    let tail = Some(Tail { span, offset: 0 });
                    let crc = crc32fast::hash(&content);
                    ring.submit(token, Job::Commit { staged, tail, len: 5000, crc });
                    let Answer::Commit(Ok(())) = answers.wait(token) else { panic!("{name}") };
                }
            });
        }
    });
    let totals = service.totals();
    assert_eq!((totals.opens, totals.commits, totals.aborts), (160, 120, 40));
    drop(service);
    let root = LinuxFs.open_root(dir.path()).unwrap();
    for session in 0..8_u32 {
        for file in 0..20_u32 {
            let name = format!("run{}/s{session}/{file}", file / 5);
            let content = bytes((session * 20 + file) as u8, 5000);
            assert_eq!(intact(&LinuxFs, &root, &name, &content).is_ok(), file % 4 != 3, "{name}");
        }
    }
    assert_eq!(drained.lock().unwrap().len(), 120);
}

#[test]
fn a_name_taken_on_the_target_is_refused_only_to_those_who_go_there() {
    let mut rig = Rig::new(SimFs::new(SimConfig::ext4()), Path::new("/"), config());
    for (dest, refused) in [
        (StorageDest::Local, false),
        (StorageDest::Tsm, false),
        (StorageDest::Lustre, true),
        (StorageDest::LustreTsm, true),
    ] {
        let token = rig.submit_open("run/taken-on-target", dest);
        match rig.opened(token) {
            Ok(staged) => {
                assert!(!refused, "{dest}");
                rig.abort(staged);
            }
            Err(refusal) => {
                assert!(refused, "{dest}");
                assert_eq!(refusal.errno, Errno::EXIST);
            }
        }
    }
    assert_eq!(rig.service().files(), 0);
}
