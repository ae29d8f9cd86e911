//! The Lustre library's safe layer against the simulated file system.

use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroU16;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tsm_bindings::LoadError;
use tsm_bindings::lustre::{
    Action, Cause, Error, Fid, FileState, Layout, Lustre, Mount, StripeCount, sys,
};

fn lustre() -> &'static Lustre {
    let library = sim_lustre::library().expect("the simulator is built");
    Lustre::load(Some(&library)).expect("loaded")
}

/// A file system of one's own.
struct FileSystem {
    directory: tempfile::TempDir,
}

impl FileSystem {
    fn new(settings: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        sim_lustre::configure(directory.path(), settings).expect("configured");
        Self { directory }
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn set(&self, settings: &str) {
        sim_lustre::configure(self.root(), settings).expect("configured");
    }

    fn file(&self, name: &str, content: &[u8]) -> (PathBuf, Fid) {
        let path = self.root().join(name);
        fs::write(&path, content).expect("written");
        let fid = lustre().fid(&path).expect("identified");
        (path, fid)
    }

    fn archive(&self, files: &[Fid]) -> Result<(), Error> {
        lustre().request(self.root(), Action::Archive, 1, files)
    }

    fn copy(&self, fid: Fid) -> Vec<u8> {
        fs::read(sim_lustre::archived_copy(self.root(), fid.seq, fid.oid)).expect("a copy")
    }
}

/// Asks until the answer is the wanted one; the interface knows no event to wait for.
fn until<T: std::fmt::Debug>(ask: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask();
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "still {answer:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn until_archived(path: &Path) -> FileState {
    until(|| lustre().state(path).expect("known"), |state| state.flags.is_archived())
}

fn until_idle(path: &Path) {
    until(|| lustre().current_action(path).expect("known"), Option::is_none);
}

#[test]
fn paths_are_found_in_their_file_system() {
    let fs = FileSystem::new("fsname scratch");
    let (path, fid) = fs.file("a", b"x");
    let mount = Mount { directory: fs.root().to_path_buf(), fsname: "scratch".to_owned() };
    assert_eq!(lustre().mount_of(&path), Ok(mount.clone()));
    assert_eq!(lustre().mount_of(&fs.root().join("not/there/yet")), Ok(mount));
    assert_eq!(lustre().fsname(&path).as_deref(), Ok("scratch"));
    assert_eq!(lustre().fid_of(File::open(&path).expect("opened")), Ok(fid));
    let (_, other) = fs.file("b", b"x");
    assert_ne!(fid, other);
    fs::rename(&path, fs.root().join("c")).expect("renamed");
    assert_eq!(lustre().fid(&fs.root().join("c")), Ok(fid), "a name is not an identity");
}

#[test]
fn what_is_not_in_lustre_is_told_by_every_call() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let path = elsewhere.path().join("x");
    fs::write(&path, b"x").expect("written");
    let file = File::open(&path).expect("opened");
    let fid = Fid { seq: 1, oid: 1, ver: 0 };
    let l = lustre();
    let causes = [
        l.mount_of(&path).map(|_| ()),
        l.fsname(&path).map(|_| ()),
        l.fid(&path).map(|_| ()),
        l.fid_of(&file).map(|_| ()),
        l.state(&path).map(|_| ()),
        l.state_of(&file).map(|_| ()),
        l.current_action(&path).map(|_| ()),
        l.request(elsewhere.path(), Action::Archive, 1, &[fid]),
    ];
    for (i, result) in causes.into_iter().enumerate() {
        let error = result.expect_err("not Lustre");
        assert_eq!(error.cause(), Cause::NotLustre, "call {i}: {error}");
    }
    let gone = elsewhere.path().join("gone");
    assert_eq!(l.fid(&gone).expect_err("missing").cause(), Cause::Gone);
    assert_eq!(l.state(&gone).expect_err("missing").cause(), Cause::Gone);
    for bad in ["relative", "/nul\0byte"] {
        assert!(matches!(l.state(Path::new(bad)), Err(Error::Path { .. })), "{bad:?}");
    }
}

#[test]
fn a_file_is_archived_whole_and_then_says_so() {
    let fs = FileSystem::new("copytool hold");
    let content: Vec<u8> = (0..100_000).map(|i| (i % 253) as u8).collect();
    let (path, fid) = fs.file("f", &content);
    let new = lustre().state(&path).expect("known");
    assert_eq!((new.flags.0, new.archive_id), (0, 0));
    assert_eq!(lustre().current_action(&path), Ok(None));
    lustre().request(fs.root(), Action::Archive, 7, &[fid]).expect("queued");
    let running = until(
        || lustre().current_action(&path).expect("known"),
        |action| action.is_some_and(|action| action.running),
    );
    assert_eq!(running.and_then(|action| action.action), Some(Action::Archive));
    let state = lustre().state(&path).expect("known");
    assert!(!state.flags.is_archived(), "sent is not done: {state:?}");
    assert!(state.flags.has(sys::HS_EXISTS));
    fs.set("delay copytool 1");
    let state = until_archived(&path);
    assert_eq!((state.flags.0, state.archive_id), (0x9, 7));
    until_idle(&path);
    assert!(fs.copy(fid) == content);
    assert_eq!(lustre().state_of(File::open(&path).expect("opened")), Ok(state));

    fs.archive(&[]).expect("nothing to do");
    lustre().request(fs.root(), Action::Archive, 7, &[fid]).expect("nothing to do");
    assert_eq!(lustre().current_action(&path), Ok(None));
    let error = fs.archive(&[fid]).expect_err("it is in another archive");
    assert_eq!(error.cause(), Cause::Denied);
}

#[test]
fn a_change_makes_the_copy_worthless() {
    let fs = FileSystem::new("copytool hold");
    let (path, fid) = fs.file("f", b"first");
    fs.archive(&[fid]).expect("queued");
    until(
        || lustre().current_action(&path).expect("known"),
        |action| action.is_some_and(|action| action.running),
    );
    let append = |text: &[u8]| {
        let mut file = File::options().append(true).open(&path).expect("opened");
        file.write_all(text).expect("written");
    };
    append(b", second");
    fs.set("");
    until_idle(&path);
    let state = lustre().state(&path).expect("known");
    assert_eq!(state.flags.0, 0x3, "changed while it was copied");

    fs.archive(&[fid]).expect("queued again");
    until_archived(&path);
    assert_eq!(fs.copy(fid), b"first, second");
    append(b", third");
    assert_eq!(lustre().state(&path).expect("known").flags.0, 0xb);
}

#[test]
fn a_failed_copy_is_neither_archived_nor_pending() {
    let fs = FileSystem::new("fail copytool 1 5");
    let (path, fid) = fs.file("f", b"x");
    fs.archive(&[fid]).expect("queued");
    until(|| lustre().state(&path).expect("known"), |state| state.flags.has(sys::HS_EXISTS));
    until_idle(&path);
    assert_eq!(lustre().state(&path).expect("known").flags.0, 0x1);
    fs.archive(&[fid]).expect("queued again");
    until_archived(&path);
}

#[test]
fn a_batch_stops_at_the_first_bad_file() {
    let fs = FileSystem::new("");
    let (first, a) = fs.file("first", b"1");
    let (gone, b) = fs.file("gone", b"2");
    let (last, c) = fs.file("last", b"3");
    fs::remove_file(gone).expect("removed");
    let error = fs.archive(&[a, b, c]).expect_err("one is gone");
    assert_eq!(error.cause(), Cause::Gone);
    until_archived(&first);
    assert_eq!(lustre().state(&last).expect("known").flags.0, 0);
    assert_eq!(lustre().current_action(&last), Ok(None));

    let many = vec![c; Lustre::FILES_PER_REQUEST_MAX + 1];
    assert!(matches!(fs.archive(&many), Err(Error::TooMany { files: 51, max: 50 })));
    let files: Vec<_> = (0..50).map(|i| fs.file(&i.to_string(), b"x")).collect();
    fs.archive(&files.iter().map(|(_, fid)| *fid).collect::<Vec<_>>()).expect("all queued");
    for (path, _) in &files {
        until_archived(path);
    }
}

#[test]
fn without_a_copytool_a_request_waits_and_can_be_cancelled() {
    let fs = FileSystem::new("agents 2 3");
    let (path, fid) = fs.file("f", b"x");
    fs.archive(&[fid]).expect("queued");
    let waiting = lustre().current_action(&path).expect("known").expect("queued");
    assert_eq!((waiting.action, waiting.running), (Some(Action::Archive), false));
    lustre().request(fs.root(), Action::Cancel, 0, &[fid]).expect("cancelled");
    assert_eq!(lustre().current_action(&path), Ok(None));
    fs.archive(&[fid]).expect("queued");
    fs.set("");
    until_archived(&path);
}

#[test]
fn a_file_may_be_released_restored_and_removed() {
    let fs = FileSystem::new("");
    let (path, fid) = fs.file("f", b"x");
    let ask = |action| lustre().request(fs.root(), action, 0, &[fid]);
    assert_eq!(ask(Action::Release).expect_err("no copy").cause(), Cause::Denied);
    ask(Action::Archive).expect("queued");
    assert_eq!(until_archived(&path).archive_id, 1, "the default archive");
    ask(Action::Release).expect("released");
    assert_eq!(lustre().state(&path).expect("known").flags.0, 0xd);
    ask(Action::Restore).expect("queued");
    until(|| lustre().state(&path).expect("known").flags.0, |flags| *flags == 0x9);
    ask(Action::Remove).expect("queued");
    until(|| lustre().state(&path).expect("known").flags.0, |flags| *flags == 0);
    assert!(!sim_lustre::archived_copy(fs.root(), fid.seq, fid.oid).exists());
}

#[test]
fn faults_come_as_scripted() {
    let fs = FileSystem::new("coordinator stopped\nfail llapi_hsm_state_get 2 108");
    let (path, fid) = fs.file("f", b"x");
    assert_eq!(fs.archive(&[fid]).expect_err("stopped").errno(), Some(Errno::AGAIN));
    lustre().state(&path).expect("the first is fine");
    let error = lustre().state(&path).expect_err("scripted");
    assert_eq!((error.errno(), error.cause()), (Some(Errno::SHUTDOWN), Cause::Later));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    fs.set("coordinator disabled");
    fs.archive(&[fid]).expect("queued");
    assert!(lustre().current_action(&path).expect("known").is_some_and(|a| !a.running));
    fs.set("extra-states 256");
    let state = until_archived(&path);
    assert_eq!(state.flags.0, 0x109, "flags of a later version do no harm");
}

#[test]
fn a_moved_file_is_archived_under_its_identity() {
    let fs = FileSystem::new("coordinator disabled");
    let (path, fid) = fs.file("f", b"moved");
    fs.archive(&[fid]).expect("queued");
    fs::create_dir(fs.root().join("d")).expect("created");
    let moved = fs.root().join("d/g");
    fs::rename(path, &moved).expect("renamed");
    fs.set("");
    until_archived(&moved);
    assert_eq!(fs.copy(fid), b"moved");
}

fn layout(count: StripeCount, bytes: Option<u32>, pool: Option<&str>) -> Layout {
    lustre().has_layouts().expect("all functions are there");
    let mut layout = lustre().new_layout().expect("room");
    layout.set_stripe_count(count).expect("a good count");
    bytes.map_or(Ok(()), |bytes| layout.set_stripe_bytes(bytes)).expect("a good size");
    pool.map_or(Ok(()), |pool| layout.set_pool(pool)).expect("a good name");
    layout
}

fn number(count: u16) -> StripeCount {
    StripeCount::Number(NonZeroU16::new(count).expect("not zero"))
}

#[test]
fn new_files_get_their_layout() {
    let fs = FileSystem::new("");
    let directory = File::open(fs.root()).expect("opened");
    for (index, (count, bytes, pool)) in [
        (StripeCount::All, None, None),
        (number(4), Some(1 << 20), Some("flash")),
        (number(StripeCount::MAX), Some(u32::MAX - 0xffff), Some("fifteen-letters")),
    ]
    .into_iter()
    .enumerate()
    {
        let layout = layout(count, bytes, pool);
        // Below an open directory, as who must not follow symlinks calls it.
        let path = format!("/proc/self/fd/{}/f{index}", directory.as_raw_fd());
        let file = layout.create_file(Path::new(&path), 0o600).expect("created");
        let mut file = File::from(file);
        file.write_all(b"content").expect("open for writing");
        let flags = rustix::io::fcntl_getfd(&file).expect("open");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let again = layout.create_file(Path::new(&path), 0o600).expect_err("it is there");
        assert_eq!(again.errno(), Some(Errno::EXIST));

        let path = fs.root().join(format!("f{index}"));
        assert_eq!(fs::read(&path).expect("there"), b"content");
        let moved = fs.root().join("moved");
        fs::rename(path, &moved).expect("renamed");
        let kept = sim_lustre::layout_of(&moved).expect("on Lustre").expect("made with a layout");
        let stripe_count = match count {
            StripeCount::All => sys::LAYOUT_WIDE,
            StripeCount::Number(number) => number.get().into(),
        };
        let stripe_bytes = bytes.map_or(sys::LAYOUT_DEFAULT, u64::from);
        let pool = pool.unwrap_or_default().to_owned();
        assert_eq!(kept, sim_lustre::FileLayout { stripe_count, stripe_bytes, pool });
    }
    let (plain, _) = fs.file("plain", b"x");
    assert_eq!(sim_lustre::layout_of(&plain).expect("on Lustre"), None);
}

#[test]
fn a_layout_that_cannot_be_is_refused_with_its_errno() {
    let mut layout = lustre().new_layout().expect("room");
    for bytes in [1, 65_535, (1 << 20) + 4096] {
        let error = layout.set_stripe_bytes(bytes).expect_err("no multiple of 64 KiB");
        assert_eq!(error.errno(), Some(Errno::INVAL), "{bytes}");
        assert!(error.to_string().contains("llapi_layout_stripe_size_set"), "{error}");
    }
    for pool in ["sixteen-letters!", "nul\0byte"] {
        assert_eq!(layout.set_pool(pool).expect_err(pool).errno(), Some(Errno::INVAL));
    }
}

#[test]
fn where_a_layout_cannot_be_set_an_empty_file_is_left_behind() {
    let layout = layout(number(2), None, None);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let path = elsewhere.path().join("f");
    let error = layout.create_file(&path, 0o600).expect_err("not Lustre");
    assert_eq!((error.errno(), error.cause()), (Some(Errno::NOTTY), Cause::NotLustre));
    assert_eq!(fs::read(&path).expect("left behind"), b"");

    let fs = FileSystem::new("fail setstripe 1 28\nfail llapi_layout_file_open 2 107");
    let path = fs.root().join("f");
    assert_eq!(layout.create_file(&path, 0o600).expect_err("full").errno(), Some(Errno::NOSPC));
    assert_eq!(sim_lustre::layout_of(&path).expect("left behind"), None);
    let away = fs.root().join("g");
    let error = layout.create_file(&away, 0o600).expect_err("scripted");
    assert_eq!((error.errno(), error.cause()), (Some(Errno::NOTCONN), Cause::Later));
    assert!(!away.exists());
    let missing = layout.create_file(&fs.root().join("no/f"), 0o600).expect_err("no directory");
    assert_eq!(missing.cause(), Cause::Gone);
    assert!(matches!(layout.create_file(Path::new("f"), 0o600), Err(Error::Path { .. })));
}

#[test]
fn the_library_is_loaded_once() {
    let loaded = lustre();
    assert!(std::ptr::eq(loaded, Lustre::load(None).expect("the same")));
    let error = Lustre::load(Some(Path::new("/other.so"))).expect_err("another");
    assert!(matches!(error, LoadError::Loaded { .. }), "{error}");
}
