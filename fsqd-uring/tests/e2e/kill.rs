//! kill -9 with many files under way, at many instants: what was acknowledged arrives, byte for
//! byte, and of everything else no trace is left after the next start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fsq_wire::{Op, StorageDest};

use crate::support::content::{Random, bytes};
use crate::support::daemon::Daemon;
use crate::support::deployed::Deployed;
use crate::support::site::{NODE, PASSWORD, Site};
use crate::support::{PATIENCE, eventually, sole_turn, tree};

/// Files that are always under way.
const CLIENTS: u64 = 20;
const PIECE_BYTES: usize = 300_000;
const LENS: [usize; 6] = [0, 5, 4096, 70_001, 524_288, 2_100_000];
const DESTS: [StorageDest; 4] =
    [StorageDest::Local, StorageDest::Lustre, StorageDest::Tsm, StorageDest::LustreTsm];

/// How far a file had come when the daemon was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// CLOSE was not even sent.
    Open,
    /// CLOSE was sent and not answered: nobody knows.
    Closing,
    Acknowledged,
}

#[derive(Clone, Debug)]
struct Sent {
    name: String,
    seed: u64,
    len: usize,
    dest: StorageDest,
    progress: Progress,
}

impl Sent {
    /// The n-th file of a client.
    fn new(round: u64, client: u64, n: u64) -> Self {
        let seed = round << 32 | client << 16 | n;
        let mut random = Random::new(seed);
        let len = LENS[usize::try_from(random.below(LENS.len() as u64)).expect("small")];
        let dest = DESTS[usize::try_from(random.below(DESTS.len() as u64)).expect("small")];
        let name = format!("data/kill/{round}/{client}/{n}");
        Self { name, seed, len, dest, progress: Progress::Open }
    }

    fn content(&self) -> Vec<u8> {
        bytes(self.seed, self.len)
    }

    /// Where it must be when it has arrived.
    fn places(&self, site: &Site) -> Vec<PathBuf> {
        match self.dest {
            StorageDest::Null => Vec::new(),
            StorageDest::Local => vec![site.staged(&self.name)],
            StorageDest::Lustre => vec![site.delivered(&self.name)],
            StorageDest::Tsm => vec![site.archived(&self.name)],
            StorageDest::LustreTsm => vec![site.delivered(&self.name), site.archived(&self.name)],
        }
    }
}

/// Clients that send files until the daemon is gone.
struct Load {
    sent: Arc<Mutex<Vec<Sent>>>,
    replies: Arc<AtomicU64>,
    killed: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, round: u64) -> Self {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let replies = Arc::new(AtomicU64::new(0));
        let killed = Arc::new(AtomicBool::new(false));
        let threads = (0..CLIENTS).map(|client| {
            let (sent, replies) = (Arc::clone(&sent), Arc::clone(&replies));
            let killed = Arc::clone(&killed);
            std::thread::spawn(move || {
                let mut connection = Deployed::connect(port);
                let login = connection.login_packet(NODE, PASSWORD);
                for n in 0.. {
                    if n == 0 && connection.try_send(&login).is_ok() {
                        let _ = connection.try_reply();
                    }
                    let mut file = Sent::new(round, client, n);
                    let outcome = send(&mut connection, &mut file, &replies);
                    sent.lock().expect("no thread panics").push(file);
                    if outcome.is_err() {
                        assert!(killed.load(Ordering::SeqCst), "{outcome:?} before the kill");
                        break;
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { sent, replies, killed, threads }
    }

    /// Waits until the clients have got so many answers.
    fn wait_replies(&self, count: u64) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.replies.load(Ordering::Relaxed) < count {
            assert!(std::time::Instant::now() < end, "the daemon does not answer");
            // Fine steps: the instant of the kill is to fall anywhere.
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn kill(self, daemon: Daemon) -> Vec<Sent> {
        self.killed.store(true, Ordering::SeqCst);
        daemon.kill();
        for thread in self.threads {
            thread.join().expect("clients only end with the daemon");
        }
        Arc::into_inner(self.sent).expect("joined").into_inner().expect("no thread panicked")
    }
}

/// One file, as far as it goes.
fn send(client: &mut Deployed, file: &mut Sent, replies: &AtomicU64) -> std::io::Result<()> {
    let count = || replies.fetch_add(1, Ordering::Relaxed);
    let path = format!("/lustre/{}", file.name);
    let open = client.open_packet(b"/lustre", path.as_bytes(), file.dest.into());
    client.try_send(&open)?;
    client.try_reply()?.accepted(Op::Open);
    count();
    for piece in file.content().chunks(PIECE_BYTES) {
        client.try_data(piece)?.accepted(Op::Data);
        count();
    }
    file.progress = Progress::Closing;
    client.try_close()?.accepted(Op::Close);
    file.progress = Progress::Acknowledged;
    count();
    Ok(())
}

/// Everything that was acknowledged is where it belongs, and nothing else anywhere, except what
/// nobody knows of: that may be there, but then whole and in all its places.
fn check(site: &Site, sent: &[Sent]) {
    for file in sent.iter().filter(|file| file.progress == Progress::Acknowledged) {
        let content = file.content();
        for path in file.places(site) {
            let what = format!("{} ({} bytes, {}) arrives", file.name, file.len, file.dest);
            let found = eventually(&what, || std::fs::read(&path).ok());
            assert_eq!(found.len(), file.len, "{}", path.display());
            let (theirs, ours) = (crc32fast::hash(&found), crc32fast::hash(&content));
            assert_eq!(theirs, ours, "{}: CRC-32", path.display());
        }
    }
    let may_stay: BTreeSet<PathBuf> = sent
        .iter()
        .filter(|file| file.dest == StorageDest::Local && file.progress != Progress::Open)
        .map(|file| PathBuf::from(&file.name))
        .collect();
    eventually("staging is left by all others", || {
        tree::files(&site.staging()).iter().all(|path| may_stay.contains(path)).then_some(())
    });
    let mut known = BTreeSet::new();
    for file in sent {
        let places = file.places(site);
        let there = places.iter().filter(|path| path.exists()).count();
        match file.progress {
            Progress::Open => assert_eq!(there, 0, "{file:?} was never closed"),
            Progress::Acknowledged => assert_eq!(there, places.len(), "{file:?}"),
            Progress::Closing if there == 0 => continue,
            Progress::Closing => {
                assert_eq!(there, places.len(), "{file:?} is in some of its places only");
                let content = file.content();
                for path in &places {
                    assert!(std::fs::read(path).expect("there") == content, "{}", path.display());
                }
            }
        }
        known.extend(places);
    }
    for root in [site.staging(), site.target(), site.archive()] {
        for path in tree::files(&root) {
            assert!(known.contains(&root.join(&path)), "a leftover: {}", root.join(path).display());
        }
    }
}

/// What is printed when a daemon starts to take up what it finds.
fn scanned(daemon: &Daemon) {
    daemon.log().wait("about the scan", |line| line.contains("scan of staging"));
}

#[test]
fn acknowledged_files_survive_kills_and_others_leave_no_trace() {
    let _turn = sole_turn();
    let site = Site::new();
    let mut sent = Vec::new();
    for round in 0..8 {
        let mut random = Random::new(round + 1);
        let replies = CLIENTS + random.below(400);
        println!("round {round}: killed after {replies} answers");
        let daemon = site.start();
        let load = Load::start(daemon.port(), round);
        load.wait_replies(replies);
        sent.extend(load.kill(daemon));
        // Killed again while it takes up what it has found.
        if round % 2 == 1 {
            let daemon = site.start();
            scanned(&daemon);
            std::thread::sleep(Duration::from_micros(random.below(20_000)));
            daemon.kill();
        }
    }
    let progress = |wanted| sent.iter().filter(|file| file.progress == wanted).count();
    let (acknowledged, open) = (progress(Progress::Acknowledged), progress(Progress::Open));
    println!("{acknowledged} acknowledged, {open} open, {} unknown", progress(Progress::Closing));
    assert!(acknowledged > 0 && open > 0, "the kills were not in the middle of anything");

    let daemon = site.start();
    check(&site, &sent);
    daemon.stop();
    let temporaries = |root: &Path| {
        let all = tree::below(root).into_keys();
        all.filter(|path| path.to_string_lossy().contains(".fsq-part.")).collect::<Vec<_>>()
    };
    for root in [site.staging(), site.target(), site.archive()] {
        assert_eq!(temporaries(&root), Vec::<PathBuf>::new());
    }
}

/// The drain is where a file is in two places: killed at each of its steps, files arrive once.
#[test]
fn drain_is_killed_over_and_over() {
    let _turn = sole_turn();
    let site = Site::new();
    // No target and no archive yet: everything waits on staging.
    let aside = [("target", site.target()), ("archive", site.archive())];
    let daemon = site.start();
    for (name, path) in &aside {
        std::fs::rename(path, site.root().join(format!("{name}.aside"))).expect("renamed");
    }
    let mut sent: Vec<Sent> = (0..40).map(|n| Sent::new(99, 0, n)).collect();
    let mut client = Deployed::signed_on(daemon.port());
    for file in &mut sent {
        client.upload(&format!("/lustre/{}", file.name), file.dest, &file.content(), PIECE_BYTES);
        file.progress = Progress::Acknowledged;
    }
    client.disconnect();
    daemon.kill();
    for (name, path) in &aside {
        std::fs::rename(site.root().join(format!("{name}.aside")), path).expect("renamed");
    }
    let mut random = Random::new(99);
    for _ in 0..10 {
        let daemon = site.start();
        scanned(&daemon);
        std::thread::sleep(Duration::from_micros(random.below(15_000)));
        daemon.kill();
    }
    let daemon = site.start();
    check(&site, &sent);
    daemon.stop();
}
