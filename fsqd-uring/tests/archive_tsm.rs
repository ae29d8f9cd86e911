//! `--archive tsm` against the simulated server: the real client interface on one side, staging in
//! memory and a clock that the tests move on the other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fsqd_uring::archive::BATCH_MAX;
use fsqd_uring::archive::tsm::{Account, TsmArchive, TsmServer};
use fsqd_uring::clock::Clock;
use fsqd_uring::fs::sim::SimFs;
use fsqd_uring::queue::record::FileState;
use fsqd_uring::queue::route::ArchiveMode;
use fsqd_uring::queue::{Health, Stage};
use fsqd_uring::services::Secret;
use tsm_bindings::tsm::{
    Credentials, Login, NamePattern, ObjectInfo, ObjectName, QueryFilter, Session, Start, Tsm,
};

use crate::world::{Daemon, HOUR, World, sum};

mod world;

const PASSWORD: &str = "geheim";
const YEAR: Duration = Duration::from_secs(86_400 * 365);

/// The library, and the directory of its server; one for all tests of this program.
fn server() -> (&'static Tsm, &'static Path) {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY
        .get_or_init(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"))
        .path();
    let library = sim_tsm::library().expect("the simulator is built");
    let start = Start {
        library: Some(library),
        directory: Some(directory.to_path_buf()),
        ..Start::default()
    };
    (Tsm::start(&start).expect("the simulator starts"), directory)
}

/// Staging and a node of the server.
struct Shop {
    world: World,
    node: &'static str,
}

/// A daemon with an account at the server.
struct Running {
    daemon: Daemon,
    server: Arc<TsmServer>,
}

impl Shop {
    fn new(node: &'static str, settings: &str) -> Self {
        let shop = Self { world: World::new(FileState::LocalCopyDone), node };
        shop.set(settings);
        shop
    }

    /// Replaces the node's settings; calls are counted from one again.
    fn set(&self, settings: &str) {
        sim_tsm::register_node(server().1, self.node, PASSWORD, settings).expect("registered");
    }

    fn stage(&self, path: &str, bytes: &[u8]) {
        self.world.stage(path, bytes, Some(sum(bytes)));
    }

    fn staged(&self) -> Vec<PathBuf> {
        self.world.staged()
    }

    fn state(&self, path: &str) -> FileState {
        self.world.state(path)
    }

    fn start(&self, threads: usize) -> fsqd_uring::fs::Result<Running> {
        let daemon = self.world.start(ArchiveMode::FromStaging)?;
        let account = Account {
            node: Some(self.node.into()),
            password: Some(Secret::new(PASSWORD.as_bytes())),
            server: Some("tsmserver-8".into()),
        };
        let clock: Arc<dyn Clock> = self.world.clock.clone();
        Ok(Running { daemon, server: TsmServer::new(server().0, account, threads, clock) })
    }

    /// A whole run: from the start of a daemon until nothing is left that time would bring back.
    fn run(&self) {
        self.start(1).expect("it starts").run(YEAR);
    }

    fn session(&self) -> Session {
        let credentials = Credentials::Password { node: self.node, password: PASSWORD.as_bytes() };
        server().0.sign_on(&Login { credentials, server: None }).expect("signed on")
    }

    /// What the archive has of each name: number of objects, and their common information.
    fn objects(&self) -> HashMap<String, (usize, ObjectInfo)> {
        let mut session = self.session();
        let all = NamePattern::new(b"/lustre", b"/*", b"/*", None).expect("a pattern");
        let mut found = HashMap::new();
        for object in session.query(&all, &QueryFilter::default()).expect("begun") {
            let object = object.expect("listed");
            let info = ObjectInfo::decode(&object.info).expect("ltsm's form");
            assert_eq!(object.description, b"run 7");
            assert_eq!(object.size, info.size.max(1));
            let (count, first) = found.entry(path_of(&object.name)).or_insert((0_usize, info));
            assert_eq!(*first, info);
            *count += 1;
        }
        found
    }

    /// Everything is in the archive once, as it was, and nothing is left on staging.
    #[track_caller]
    fn assert_archived(&self, files: &[(String, Vec<u8>)], context: &str) {
        assert_eq!(self.staged(), Vec::<PathBuf>::new(), "{context}");
        let objects = self.objects();
        assert_eq!(objects.len(), files.len(), "{context}");
        for (path, bytes) in files {
            let (count, info) = objects[&format!("/lustre/{path}")];
            let expected = ObjectInfo {
                size: bytes.len() as u64,
                mode: 0o100_640,
                crc: crc32fast::hash(bytes),
                ..ObjectInfo::default()
            };
            assert_eq!((count, info), (1, expected), "{context}: {path}");
        }
    }
}

impl Running {
    fn archive(&self) -> TsmArchive<SimFs> {
        TsmArchive::new(Arc::clone(&self.daemon.pool.tree), Arc::clone(&self.server))
    }

    fn run(&self, until: Duration) {
        self.daemon.run(self.archive(), BATCH_MAX, until);
    }
}

/// A name as a path: a file directly in the filespace has the directory `/`.
fn path_of(name: &ObjectName) -> String {
    name.to_string().replace("//", "/")
}

fn content(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8 ^ salt).collect()
}

fn files(sizes: &[usize]) -> Vec<(String, Vec<u8>)> {
    let file = |(index, &len): (usize, &usize)| {
        (format!("d{}/f{index}", index % 2), content(len, index as u8))
    };
    sizes.iter().enumerate().map(file).collect()
}

fn shop_with(node: &'static str, settings: &str, files: &[(String, Vec<u8>)]) -> Shop {
    let shop = Shop::new(node, settings);
    for (path, bytes) in files {
        shop.stage(path, bytes);
    }
    shop
}

#[test]
fn files_of_all_sizes_come_back_as_they_were() {
    const MIB: usize = 1 << 20;
    let mut files = files(&[0, 1, 4096, 70_001, MIB - 1, MIB, MIB + 1, 3 * MIB + 5]);
    let shop = shop_with("sizes", "", &files);
    shop.world.stage("old", b"of the old daemon", None);
    files.push(("old".into(), b"of the old daemon".to_vec()));
    shop.run();
    shop.assert_archived(&files, "");
    let mut session = shop.session();
    let all = NamePattern::new(b"/lustre", b"/*", b"/*", None).expect("a pattern");
    let query = session.query(&all, &QueryFilter::default()).expect("begun");
    let mut objects: Vec<_> = query.collect::<Result<_, _>>().expect("listed");
    objects.sort_by_key(|object| object.restore_order);
    let by_name: HashMap<_, _> = files.iter().map(|(path, bytes)| (path.as_str(), bytes)).collect();
    let ids: Vec<_> = objects.iter().map(|object| object.id).collect();
    let mut retrieval = session.retrieve(&ids).expect("begun");
    for object in &objects {
        let mut retrieved = retrieval.next_object().expect("usable").expect("one more");
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 70_000]);
        loop {
            match retrieved.read(&mut buffer).expect("read") {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        let name = path_of(&object.name);
        assert!(bytes == *by_name[name.strip_prefix("/lustre/").expect("below")], "{name}");
    }
}

#[test]
fn a_commit_that_takes_long_costs_little_for_many_files() {
    let files: Vec<_> = (0..600).map(|i| (format!("f{i}"), content(2000, i as u8))).collect();
    // What a live server takes for one.
    let shop = shop_with("commit", "delay dsmEndTxn 185", &files);
    let start = Instant::now();
    shop.run();
    let rate = files.len() as f64 / start.elapsed().as_secs_f64();
    assert!(rate >= 200.0, "one thread archives {rate:.0} files/s");
    shop.set("");
    shop.assert_archived(&files, "");
}

#[test]
fn whatever_the_server_s_bounds_of_a_transaction_everything_arrives() {
    let files = files(&[1000; 23]);
    for settings in ["max-objects 3", "max-bytes 2500", "max-bytes 10", "max-objects 1"] {
        let shop = Shop::new("bounds", settings);
        for (index, (_, bytes)) in files.iter().enumerate() {
            shop.stage(&format!("{}/{index}", settings.replace(' ', "-")), bytes);
        }
        shop.run();
        assert_eq!(shop.staged(), Vec::<PathBuf>::new(), "{settings}");
    }
    assert!(Shop::new("bounds", "").objects().values().all(|(count, _)| *count == 1));
}

/// Calls on the way of a file into the archive.
const CALLS: [&str; 8] = [
    "dsmInitEx",
    "dsmQuerySessInfo",
    "dsmRegisterFS",
    "dsmBeginTxn",
    "dsmBindMC",
    "dsmSendObj",
    "dsmSendData",
    "dsmEndSendObj",
];

/// One code of each class and of each special treatment; the last is in no table.
const CODES: [i16; 15] = [15, 26, 13, 242, 20, 2061, 232, -50, 136, 1, 2041, 51, 41, 157, 31_000];

#[test]
fn whatever_fails_once_everything_arrives_once() {
    let files = files(&[10, 0, 300, 1 << 20, (1 << 20) + 9, 5]);
    let mut cases = Vec::new();
    for call in CALLS {
        for code in CODES {
            for (kind, which) in [("fail", 1), ("fail", 3), ("fail-after", 2)] {
                cases.push(format!("{kind} {call} {which} {code}"));
            }
        }
        cases.push(format!("fail {call} 2 2070"));
    }
    for code in CODES {
        // The server aborts and says why.
        cases.push(format!("fail dsmEndTxn 1 2302 {code}"));
        cases.push(format!("fail dsmEndTxn 2 0 {code}"));
    }
    for code in [-50, 136, -72, 31_000] {
        // The answer is lost, before the commit or after it.
        cases.push(format!("fail dsmEndTxn 1 {code}"));
        cases.push(format!("fail-after dsmEndTxn 1 {code}"));
    }
    for (index, case) in cases.iter().enumerate() {
        let shop = Shop::new("once", case);
        let files: Vec<_> =
            files.iter().map(|(path, bytes)| (format!("c{index}/{path}"), bytes)).collect();
        for (path, bytes) in &files {
            shop.stage(path, bytes);
        }
        shop.run();
        assert_eq!(shop.staged(), Vec::<PathBuf>::new(), "{case}");
    }
    let objects = Shop::new("once", "").objects();
    assert_eq!(objects.len(), files.len() * cases.len(), "none is lost");
    let twice: Vec<_> = objects.iter().filter(|(_, (count, _))| *count != 1).collect();
    assert!(twice.is_empty(), "archived more than once: {twice:?}");
}

#[test]
fn a_question_that_fails_does_not_send_the_file_again() {
    for (index, call) in
        ["dsmBeginQuery", "dsmGetNextQObj", "dsmEndQuery", "dsmInitEx"].into_iter().enumerate()
    {
        for code in [-50, 136, 15, 1] {
            let path = format!("q{index}/{code}");
            let shop = Shop::new("question", "fail-after dsmEndTxn 1 -50");
            shop.stage(&path, b"data");
            let daemon = shop.start(1).expect("it starts");
            daemon.run(Duration::from_secs(5));
            assert_eq!(shop.state(&path), FileState::TsmArchiveRun);
            shop.set(&format!("fail {call} 1 {code}"));
            // A new daemon asks, and then this one must not have sent it.
            shop.run();
            assert_eq!(shop.staged(), Vec::<PathBuf>::new(), "{call} {code}");
            let count = Shop::new("question", "").objects()[&format!("/lustre/{path}")].0;
            assert_eq!(count, 1, "{call} {code}");
        }
    }
}

#[test]
fn what_can_never_be_archived_is_omitted_and_the_others_are_not() {
    let files = files(&[10, 500, 20, 700, 30]);
    let shop = shop_with("too-large", "max-object-bytes 100", &files);
    shop.run();
    let objects = shop.objects();
    for (path, bytes) in &files {
        let name = format!("/lustre/{path}");
        assert_eq!(objects.contains_key(&name), bytes.len() <= 100, "{path}");
        if bytes.len() > 100 {
            assert_eq!(shop.state(path), FileState::FileOmitted);
        }
    }
    assert_eq!(shop.staged().len(), 2);
    // The next start gives them a fresh chance.
    shop.set("");
    shop.run();
    shop.assert_archived(&files, "");

    for (index, case) in
        ["fail dsmBindMC 2 185", "fail dsmSendObj 2 2050", "fail dsmEndTxn * 2302 10"]
            .into_iter()
            .enumerate()
    {
        let shop = Shop::new("never", case);
        let paths: Vec<_> = (0..5).map(|i| format!("n{index}/{i}")).collect();
        for path in &paths {
            shop.stage(path, b"data");
        }
        shop.run();
        let all = case.contains('*');
        assert_eq!(shop.staged().len(), if all { 5 } else { 1 }, "{case}");
        for path in shop.staged() {
            let path = path.to_str().expect("the test's own");
            assert_eq!(shop.state(path), FileState::FileOmitted, "{case}");
        }
    }

    // Names that the archive cannot have.
    let shop = Shop::new("names", "");
    shop.stage("what?", b"x");
    shop.stage("d/fine", b"x");
    shop.run();
    assert_eq!(shop.staged(), [PathBuf::from("what?")]);
    assert_eq!(shop.state("what?"), FileState::FileOmitted);
}

#[test]
fn a_damaged_staging_copy_is_not_archived() {
    for (index, len) in [5000, (1 << 20) + 1].into_iter().enumerate() {
        let shop = Shop::new("damage", "");
        let before = shop.objects().len();
        let good = content(len, 1);
        let claimed = sum(&good);
        let [bad, one, two] = ["bad", "one", "two"].map(|name| format!("g{index}/{name}"));
        shop.stage(&one, &good);
        shop.world.stage(&bad, &content(len, 2), Some(claimed));
        shop.stage(&two, &good);
        shop.run();
        assert_eq!(shop.staged(), [PathBuf::from(&bad)]);
        assert_eq!(shop.state(&bad), FileState::FileOmitted);
        assert_eq!(shop.objects().len(), before + 2);
    }
}

#[test]
fn a_crash_at_any_call_loses_nothing_and_sends_nothing_twice() {
    // One file is synced otherwise than many.
    crash_everywhere("crash-one", &[("d/c", content(70_000, 3))]);
    let three = [("a", content(900, 1)), ("d/b", content(0, 2)), ("d/c", content(70_000, 3))];
    crash_everywhere("crash-three", &three);
}

fn crash_everywhere(node: &'static str, files: &[(&str, Vec<u8>)]) {
    for at in 0.. {
        let named = |(name, bytes): &(&str, Vec<u8>)| (format!("k{at}/{name}"), bytes.clone());
        let shop = shop_with(node, "", &files.iter().map(named).collect::<Vec<_>>());
        shop.world.staging.halt_at(at);
        if let Ok(daemon) = shop.start(1) {
            daemon.run(Duration::from_secs(2));
        }
        let finished = shop.world.staging.operations() < at;
        shop.world.staging.clear_faults();
        shop.world.staging.crash(at);
        shop.run();
        assert_eq!(shop.staged(), Vec::<PathBuf>::new(), "{at}");
        if finished {
            assert!(at > 15, "it took some calls");
            let objects = shop.objects();
            let twice: Vec<_> = objects.iter().filter(|(_, (count, _))| *count != 1).collect();
            assert!(twice.is_empty(), "archived more than once: {twice:?}");
            assert_eq!(objects.len() as u64, files.len() as u64 * (at + 1));
            return;
        }
    }
}

#[test]
fn a_server_that_is_away_for_days_is_waited_for() {
    let files = files(&[100; 40]);
    let shop = shop_with("away", "fail dsmInitEx * -52", &files);
    let daemon = shop.start(1).expect("it starts");
    daemon.run(72 * HOUR);
    assert!(matches!(daemon.daemon.queue.health(Stage::Archive), Health::Down { .. }));
    assert_eq!(shop.staged().len(), files.len());
    assert!(shop.state("d0/f0") == FileState::TsmArchiveRun, "nothing is counted");
    shop.set("");
    daemon.run(80 * HOUR);
    shop.assert_archived(&files, "");
    // Commits that are never answered: nothing is sent a second time, and nothing is freed.
    let shop = Shop::new("never-answers", "fail dsmEndTxn * -50\nfail dsmBeginQuery * -50");
    shop.stage("f", b"data");
    let daemon = shop.start(1).expect("it starts");
    daemon.run(100 * HOUR);
    assert_eq!(shop.state("f"), FileState::TsmArchiveRun);
    shop.set("");
    daemon.run(200 * HOUR);
    shop.assert_archived(&[("f".into(), b"data".to_vec())], "");
}

#[test]
fn a_refused_password_is_not_tried_again_soon() {
    let shop = Shop::new("locked", "");
    shop.stage("f", b"data");
    sim_tsm::register_node(server().1, "locked", "another", "").expect("registered");
    let daemon = shop.start(1).expect("it starts");
    daemon.run(Duration::from_secs(60));
    assert_eq!(shop.staged().len(), 1);
    // The right one now: the server is not asked before the time is over.
    shop.set("");
    daemon.run(Duration::from_secs(290));
    assert_eq!(shop.staged().len(), 1);
    daemon.run(Duration::from_secs(1000));
    shop.assert_archived(&[("f".into(), b"data".to_vec())], "");
}

#[test]
fn threads_beyond_the_node_s_mount_points_wait_for_their_turn() {
    const THREADS: usize = 3;
    let files: Vec<_> = (0..60).map(|i| (format!("f{i}"), content(500, i))).collect();
    let settings = "max-mount-points 1\nmax-objects 4\ndelay dsmEndTxn 10";
    let shop = shop_with("mounts", settings, &files);
    let daemon = shop.start(THREADS).expect("it starts");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let until = shop.world.clock.now();
                daemon.daemon.run(daemon.archive(), 4, until);
            });
        }
    });
    // Nobody failed: a failure would have had to wait for the clock.
    shop.set("");
    shop.assert_archived(&files, "");
}
