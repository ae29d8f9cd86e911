//! `--archive hsm` against the simulated file system with its coordinator and copytool, which keep
//! the time of this machine; the daemon's side has a clock that the tests move.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fsqd_uring::archive::hsm::{Hsm, HsmArchive};
use fsqd_uring::clock::Clock;
use fsqd_uring::queue::record::FileState;
use fsqd_uring::queue::route::ArchiveMode;
use fsqd_uring::queue::{Health, Stage};
use tsm_bindings::lustre::{Action, Fid, Lustre};

use crate::world::{Daemon, HOUR, World, sum};

mod world;

fn lustre() -> &'static Lustre {
    let library = sim_lustre::library().expect("the simulator is built");
    Lustre::load(Some(&library)).expect("loaded")
}

/// Staging, and a file system with the copies that the drain has made.
struct Site {
    world: World,
    directory: tempfile::TempDir,
}

impl Site {
    fn new(settings: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let site = Self { world: World::new(FileState::LustreCopyDone), directory };
        site.set(settings);
        site
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn set(&self, settings: &str) {
        sim_lustre::configure(self.root(), settings).expect("configured");
    }

    /// A file on staging with its copy on the target.
    fn stage(&self, path: &str, bytes: &[u8]) -> Fid {
        self.world.stage(path, bytes, Some(sum(bytes)));
        let copy = self.root().join(path);
        fs::create_dir_all(copy.parent().expect("a parent")).expect("created");
        fs::write(&copy, bytes).expect("written");
        lustre().fid(&copy).expect("on Lustre")
    }

    fn hsm(&self) -> Arc<Hsm> {
        let clock: Arc<dyn Clock> = self.world.clock.clone();
        let mount = lustre().mount_of(self.root()).expect("Lustre");
        Hsm::new(lustre(), mount, self.root().to_path_buf(), clock)
    }

    fn start(&self) -> (Daemon, Arc<Hsm>) {
        (self.world.start(ArchiveMode::FromTarget).expect("it starts"), self.hsm())
    }

    /// Requests that the coordinator has, waiting and running.
    fn queued(&self) -> usize {
        let queue = self.root().join(sim_lustre::STATE).join("queue");
        fs::read_dir(queue).map_or(0, Iterator::count)
    }

    fn copy(&self, fid: Fid) -> Option<Vec<u8>> {
        fs::read(sim_lustre::archived_copy(self.root(), fid.seq, fid.oid)).ok()
    }

    /// Runs for a time of the daemon's clock.
    fn run(&self, (daemon, hsm): &(Daemon, Arc<Hsm>), period: Duration) {
        let until = self.world.clock.now() + period;
        daemon.run(HsmArchive::new(Arc::clone(hsm)), 50, until);
        self.world.clock.sleep(until.saturating_sub(self.world.clock.now()));
    }

    /// Runs until staging is empty; the file system takes its own time for that.
    fn run_until_archived(&self, running: &(Daemon, Arc<Hsm>)) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.world.staged().is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", self.world.staged());
            self.run(running, Duration::from_secs(1));
            std::thread::yield_now();
        }
    }

    /// Waits for the coordinator, which tells nobody when it is done.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn content(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8 ^ salt).collect()
}

#[test]
fn files_of_several_archives_are_archived_whole() {
    let mut site = Site::new("max-requests 50");
    let files: Vec<_> = (0..120)
        .map(|n| {
            site.world.archive_id = n % 3 + 1;
            let bytes = content(n as usize * 100, n as u8);
            (site.stage(&format!("d{}/f{n}", n % 2), &bytes), bytes)
        })
        .collect();
    let running = site.start();
    site.run_until_archived(&running);
    for (n, (fid, bytes)) in files.iter().enumerate() {
        assert!(site.copy(*fid).as_ref() == Some(bytes), "{n}");
        let path = site.root().join(format!("d{}/f{n}", n % 2));
        assert_eq!(lustre().state(&path).expect("known").archive_id, n as u32 % 3 + 1);
    }
}

#[test]
fn a_file_is_asked_for_once_however_long_it_takes() {
    let site = Site::new("coordinator disabled");
    let fids: Vec<_> = (0..5).map(|n| site.stage(&format!("f{n}"), b"data")).collect();
    let running = site.start();
    site.run(&running, 100 * HOUR);
    assert_eq!(site.queued(), 5, "each is queued once");
    assert_eq!(site.world.staged().len(), 5, "nothing is freed");
    assert_eq!(site.world.state("f0"), FileState::TsmArchiveRun);
    // Neither does the next daemon ask again, which knows nothing of the first.
    let running = site.start();
    site.run(&running, HOUR);
    assert_eq!(site.queued(), 5);
    site.set("");
    site.run_until_archived(&running);
    assert!(fids.iter().all(|fid| site.copy(*fid).is_some()));
}

#[test]
fn a_daemon_killed_before_its_request_asks_after_two_looks() {
    let site = Site::new("");
    // As a crash between the state and the request leaves it.
    let world = World { first: FileState::TsmArchiveRun, ..World::new(FileState::LocalCopyDone) };
    let site = Site { world, ..site };
    let fid = site.stage("f", b"data");
    let running = site.start();
    site.run(&running, Duration::from_secs(10));
    assert_eq!(site.copy(fid), None);
    site.run_until_archived(&running);
    assert_eq!(site.copy(fid).as_deref(), Some(&b"data"[..]));
}

#[test]
fn a_copy_that_fails_is_asked_for_again_and_then_omitted() {
    let site = Site::new("fail copytool 1 5\nfail copytool 2 5");
    let fid = site.stage("f", b"data");
    let running = site.start();
    site.run_until_archived(&running);
    assert!(site.copy(fid).is_some(), "the third works");

    site.set("fail copytool * 5");
    site.stage("g", b"data");
    let running = site.start();
    let omitted = || {
        site.run(&running, Duration::from_secs(60));
        site.world.state("g") == FileState::FileOmitted
    };
    site.until("three failures end it", omitted);
    assert_eq!(site.queued(), 0);
}

#[test]
fn a_request_that_vanishes_is_found_out() {
    let site = Site::new("coordinator disabled");
    let fid = site.stage("f", b"data");
    let running = site.start();
    site.run(&running, HOUR);
    assert_eq!(site.queued(), 1);
    // As by hsm_control=purge.
    lustre().request(site.root(), Action::Cancel, 0, &[fid]).expect("cancelled");
    site.run(&running, HOUR);
    assert_eq!(site.queued(), 1, "asked again, once");
    site.set("");
    site.run_until_archived(&running);
}

#[test]
fn a_file_that_changes_meanwhile_is_not_taken_for_archived() {
    let site = Site::new("copytool hold");
    let fid = site.stage("f", b"data");
    let running = site.start();
    site.run(&running, Duration::from_secs(5));
    let path = site.root().join("f");
    site.until("the copytool has it", || {
        lustre().current_action(&path).expect("known").is_some_and(|action| action.running)
    });
    fs::write(&path, b"atad").expect("changed");
    site.set("");
    site.until("the copy ends", || site.queued() == 0);
    assert!(!lustre().state(&path).expect("known").flags.is_archived());
    assert_eq!(site.world.staged().len(), 1);
    site.run_until_archived(&running);
    assert_eq!(site.copy(fid).as_deref(), Some(&b"atad"[..]), "the copy was made anew");

    // Another length is no copy of the staged file.
    let fid = site.stage("g", b"data");
    fs::write(site.root().join("g"), b"longer").expect("changed");
    let running = site.start();
    site.run(&running, HOUR);
    assert_eq!(site.world.state("g"), FileState::FileOmitted);
    assert_eq!(site.copy(fid), None);
}

#[test]
fn one_bad_file_of_a_batch_harms_no_other() {
    let site = Site::new("max-requests 50");
    for n in 0..20 {
        site.stage(&format!("f{n}"), b"data");
    }
    // One that the coordinator refuses after it has queued those before it.
    site.set("max-requests 50\nfail-after llapi_hsm_request 1 1");
    let running = site.start();
    site.run_until_archived(&running);

    let mut site = site;
    let other = site.stage("other", b"data");
    lustre().request(site.root(), Action::Archive, 7, &[other]).expect("queued");
    site.until("it is in another archive", || site.copy(other).is_some());
    site.world.archive_id = 3;
    let fine = site.stage("fine", b"data");
    let gone = site.stage("gone", b"data");
    fs::remove_file(site.root().join("gone")).expect("removed");
    let running = site.start();
    site.until("the good one is archived", || {
        site.run(&running, Duration::from_secs(60));
        !site.world.staged().contains(&PathBuf::from("fine"))
    });
    site.run(&running, HOUR);
    assert!(site.copy(fine).is_some() && site.copy(gone).is_none());
    assert_eq!(site.world.state("other"), FileState::FileOmitted);
    assert_eq!(site.world.state("gone"), FileState::FileOmitted);
}

#[test]
fn whatever_fails_once_is_archived_without_a_second_request() {
    let mut number = 0;
    for call in
        ["llapi_hsm_request", "llapi_hsm_state_get_fd", "llapi_fd2fid", "llapi_hsm_current_action"]
    {
        for errno in [5, 11, 107, 108, 110, 1, 19, 22] {
            for kind in ["fail", "fail-after"] {
                number += 1;
                // Held back until all is asked for, so that a second request would be seen.
                let site = Site::new(&format!("coordinator disabled\n{kind} {call} 1 {errno}"));
                let fids: Vec<_> = (0..3).map(|n| site.stage(&format!("f{n}"), b"data")).collect();
                let running = site.start();
                site.run(&running, HOUR);
                let case = format!("{number}: {kind} {call} {errno}");
                assert_eq!(site.queued(), 3, "{case}");
                assert_eq!(running.0.queue.health(Stage::Archive), Health::Up, "{case}");
                site.set("max-requests 9");
                site.run_until_archived(&running);
                assert!(fids.iter().all(|fid| site.copy(*fid).is_some()), "{case}");
            }
        }
    }
}

#[test]
fn a_coordinator_or_a_mount_that_is_away_is_waited_for() {
    let site = Site::new("coordinator stopped");
    site.stage("f", b"data");
    let running = site.start();
    site.run(&running, 50 * HOUR);
    assert!(matches!(running.0.queue.health(Stage::Archive), Health::Down { .. }));
    assert_eq!(site.world.state("f"), FileState::TsmArchiveRun);
    site.set("");
    site.run_until_archived(&running);

    site.stage("g", b"data");
    let running = site.start();
    // Unmounted: what is left is an empty directory.
    let [mounted, away] = ["g", ".lustre-sim"].map(|name| {
        let away = site.root().with_extension(name.trim_start_matches('.'));
        fs::rename(site.root().join(name), &away).expect("moved");
        (site.root().join(name), away)
    });
    site.run(&running, 10 * HOUR);
    assert!(matches!(running.0.queue.health(Stage::Archive), Health::Down { .. }));
    for (here, away) in [mounted, away] {
        fs::rename(away, here).expect("moved back");
    }
    site.run_until_archived(&running);
}
