//! The same expectations of both implementations.

use std::path::Path;

use super::sim::{Operation, SimConfig, SimFs};
use super::*;

const MINE: Ownership = Ownership { uid: None, gid: None, mode: 0o660 };
const DIRECTORY: Ownership = Ownership { uid: None, gid: None, mode: 0o2751 };

fn path(text: &str) -> &Path {
    Path::new(text)
}

fn errno<T: Debug>(result: Result<T>) -> Errno {
    result.expect_err("the call must fail").errno
}

/// Runs `test` on a real directory and on a simulated one.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn linux() {
                let dir = tempfile::tempdir().expect("a temporary directory");
                super::$name(&super::LinuxFs, dir.path());
            }

            #[test]
            fn sim() {
                super::$name(
                    &super::SimFs::new(super::SimConfig::ext4()),
                    std::path::Path::new("/"),
                );
            }
        }
    )* };
}

on_both!(
    unnamed_until_published,
    named_and_renamed,
    directories,
    names_are_single,
    nothing_leads_out,
    attributes,
    lengths_and_space,
    locked_once,
);

#[test]
fn layouts_where_there_are_none() {
    let layout = Layout { stripes: layout::StripeCount::All, stripe_bytes: None, pool: None };
    let ext4 = SimFs::new(SimConfig::ext4());
    let root = ext4.open_root(path("/")).unwrap();
    assert_eq!(errno(ext4.create_laid_out(&root, path("a"), MINE, &layout)), Errno::NOTTY);
    assert_eq!(ext4.stat_at(&root, path("a")).unwrap().len, 0, "left behind");
    let again = ext4.create_laid_out(&root, path("a"), MINE, &layout);
    assert_eq!(errno(again), Errno::EXIST);

    // Names are single also where the library would take any path.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = LinuxFs.open_root(dir.path()).unwrap();
    for bad in ["", "..", "a/b", "/a", "a/"] {
        let error = errno(LinuxFs.create_laid_out(&root, path(bad), MINE, &layout));
        assert_eq!(error, Errno::INVAL, "{bad:?}");
    }
}

fn unnamed_until_published<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    let file = fs.create_unnamed(&root, MINE, false).unwrap();
    fs.write_all_at(&file, b"hello", 3).unwrap();
    assert!(fs.entries(&root).unwrap().is_empty());
    assert_eq!(fs.stat(&file).unwrap().links, 0);

    fs.publish_unnamed(&file, &root, path("name")).unwrap();
    let other = fs.create_unnamed(&root, MINE, false).unwrap();
    assert_eq!(errno(fs.publish_unnamed(&other, &root, path("name"))), Errno::EXIST);
    let stat = fs.stat_at(&root, path("name")).unwrap();
    assert_eq!((stat.kind, stat.len, stat.mode, stat.links), (Kind::File, 8, 0o660, 1));
    assert_eq!(stat, fs.stat(&file).unwrap());

    let again = fs.open(&root, path("name"), Access::Read).unwrap();
    assert_ne!(again.id(), file.id());
    let mut bytes = [1; 16];
    assert_eq!(fs.read_at(&again, &mut bytes, 0).unwrap(), 8);
    assert_eq!(&bytes[..8], b"\0\0\0hello");
    assert_eq!(errno(fs.write_all_at(&again, b"x", 0)), Errno::BADF);
}

fn named_and_renamed<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    let file = fs.create_named(&root, path("a"), MINE, false).unwrap();
    assert_eq!(fs.stat(&file).unwrap().mode, 0o660);
    assert_eq!(errno(fs.create_named(&root, path("a"), MINE, false)), Errno::EXIST);
    let inode = fs.stat(&file).unwrap().inode;
    assert_eq!(errno(fs.link(&root, path("a"), inode + 1, path("b"))), Errno::STALE);
    fs.link(&root, path("a"), inode, path("b")).unwrap();
    assert_eq!(fs.stat(&file).unwrap().links, 2);
    assert_eq!(errno(fs.link(&root, path("a"), inode, path("b"))), Errno::EXIST);
    assert_eq!(errno(fs.rename_noreplace(&root, path("a"), path("b"))), Errno::EXIST);
    fs.rename_noreplace(&root, path("a"), path("c")).unwrap();
    assert_eq!(errno(fs.open(&root, path("a"), Access::Read)), Errno::NOENT);
    fs.remove(&root, path("b")).unwrap();
    assert_eq!(errno(fs.remove(&root, path("b"))), Errno::NOENT);
    assert_eq!(fs.entries(&root).unwrap(), [("c".into(), Kind::File)]);
    assert_eq!(errno(fs.remove_directory(&root, path("c"))), Errno::NOTDIR);
}

fn directories<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    assert_eq!(errno(fs.directory(&root, path("a/b"), None, false)), Errno::NOENT);
    let b = fs.directory(&root, path("a/b"), Some(DIRECTORY), true).unwrap();
    assert_eq!(fs.stat_at(&root, path("a")).unwrap().mode, 0o2751, "exact, whatever the umask");
    fs.create_named(&b, path("file"), MINE, false).unwrap();
    // What exists keeps its mode.
    let other = Ownership { mode: 0o700, ..DIRECTORY };
    let again = fs.directory(&root, path("a/b"), Some(other), false).unwrap();
    assert_eq!(fs.stat(&again).unwrap().mode, 0o2751);
    assert_eq!(fs.entries(&again).unwrap(), [("file".into(), Kind::File)]);
    assert!(fs.open(&root, path("a/b/file"), Access::Read).is_ok());

    assert_eq!(errno(fs.directory(&root, path("a/b/file/c"), Some(other), false)), Errno::NOTDIR);
    assert_eq!(errno(fs.open(&root, path("a/b"), Access::Read)), Errno::ISDIR);
    let a = fs.directory(&root, path("a"), None, false).unwrap();
    assert_eq!(errno(fs.remove_directory(&a, path("b"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs.remove(&a, path("b"))), Errno::ISDIR);
    fs.remove(&b, path("file")).unwrap();
    fs.remove_directory(&a, path("b")).unwrap();
    assert_eq!(errno(fs.stat_at(&root, path("a/b"))), Errno::NOENT);
    let same = fs.directory(&root, path(""), None, false).unwrap();
    assert_eq!(fs.stat(&same).unwrap().inode, fs.stat(&root).unwrap().inode);
}

fn names_are_single<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    fs.directory(&root, path("d"), Some(DIRECTORY), false).unwrap();
    let x = fs.create_named(&root, path("x"), MINE, false).unwrap();
    let x = fs.stat(&x).unwrap().inode;
    let file = fs.create_unnamed(&root, MINE, false).unwrap();
    for bad in ["", ".", "..", "d/x", "d/", "/x", "./x"] {
        let bad = path(bad);
        assert_eq!(errno(fs.create_named(&root, bad, MINE, false)), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(fs.publish_unnamed(&file, &root, bad)), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(fs.link(&root, path("x"), x, bad)), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(fs.rename_noreplace(&root, path("x"), bad)), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(fs.remove(&root, bad)), Errno::INVAL, "{bad:?}");
        assert_eq!(errno(fs.remove_directory(&root, bad)), Errno::INVAL, "{bad:?}");
    }
    let long = "n".repeat(256);
    assert_eq!(errno(fs.publish_unnamed(&file, &root, path(&long))), Errno::NAMETOOLONG);
}

fn nothing_leads_out<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    for out in ["..", "d/../../x", "/etc"] {
        let out = path(out);
        fs.directory(&root, path("d"), Some(DIRECTORY), false).unwrap();
        assert_eq!(errno(fs.directory(&root, out, None, false)), Errno::XDEV, "{out:?}");
        assert_eq!(errno(fs.directory(&root, out, Some(DIRECTORY), false)), Errno::XDEV);
        assert_eq!(errno(fs.open(&root, out, Access::Read)), Errno::XDEV, "{out:?}");
        assert_eq!(errno(fs.stat_at(&root, out)), Errno::XDEV, "{out:?}");
    }
}

fn attributes<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    let file = fs.create_named(&root, path("a"), MINE, false).unwrap();
    assert_eq!(fs.attribute(&file, "user.fsq.x").unwrap(), None);
    fs.set_attribute(&file, "user.fsq.x", b"one").unwrap();
    fs.set_attribute(&file, "user.fsq.x", b"").unwrap();
    assert_eq!(fs.attribute(&file, "user.fsq.x").unwrap().unwrap(), b"");
    let reader = fs.open(&root, path("a"), Access::Read).unwrap();
    fs.set_attribute(&reader, "user.fsq.x", &[7; 2048]).unwrap();
    assert_eq!(fs.attribute(&file, "user.fsq.x").unwrap().unwrap(), [7; 2048]);
    let owner = Ownership { mode: 0o640, ..MINE };
    fs.set_ownership(&file, owner).unwrap();
    assert_eq!(fs.stat(&file).unwrap().mode, 0o640);
}

fn lengths_and_space<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    let file = fs.create_named(&root, path("a"), MINE, false).unwrap();
    let before = fs.space(&root).unwrap();
    assert!(before.available_bytes <= before.total_bytes && before.total_bytes > 0);
    fs.allocate(&file, 0, 8192).unwrap();
    assert_eq!(fs.stat(&file).unwrap().len, 8192);
    fs.allocate(&file, 4096, 8192).unwrap();
    assert_eq!(fs.stat(&file).unwrap().len, 12288);
    assert_eq!(errno(fs.allocate(&file, 0, 0)), Errno::INVAL);

    fs.write_all_at(&file, &[5; 6000], 0).unwrap();
    fs.set_len(&file, 4999).unwrap();
    fs.set_len(&file, 9000).unwrap();
    let mut bytes = vec![1; 9001];
    assert_eq!(fs.read_at(&file, &mut bytes, 0).unwrap(), 9000);
    assert!(bytes[..4999].iter().all(|&byte| byte == 5));
    assert!(bytes[4999..9000].iter().all(|&byte| byte == 0), "truncated data does not come back");
    fs.sync(&file).unwrap();
    fs.sync(&root).unwrap();
    fs.sync_all(&root).unwrap();
    fs.set_direct(&file, false).unwrap();
    assert_eq!(fs.fs_type(&root).unwrap(), fs.fs_type(&file).unwrap());
}

fn locked_once<F: Fs>(fs: &F, path: &Path) {
    let first = fs.open_root(path).unwrap();
    fs.lock(&first).unwrap();
    fs.lock(&first).unwrap();
    let second = fs.open_root(path).unwrap();
    assert_eq!(errno(fs.lock(&second)), Errno::WOULDBLOCK);
    drop(first);
    fs.lock(&second).unwrap();
}

#[test]
fn symlinks_are_never_followed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("real")).unwrap();
    std::fs::write(dir.path().join("real/file"), b"x").unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    refuses_symlinks(&LinuxFs, dir.path());

    let sim = SimFs::new(SimConfig::ext4());
    sim.put_symlink(path("link"));
    refuses_symlinks(&sim, path("/"));
}

fn refuses_symlinks<F: Fs>(fs: &F, root: &Path) {
    let root = fs.open_root(root).unwrap();
    assert_eq!(errno(fs.directory(&root, path("link"), None, false)), Errno::LOOP);
    assert_eq!(errno(fs.directory(&root, path("link/new"), Some(DIRECTORY), false)), Errno::LOOP);
    assert_eq!(errno(fs.open(&root, path("link/file"), Access::Read)), Errno::LOOP);
    assert_eq!(errno(fs.open(&root, path("link"), Access::Read)), Errno::LOOP);
    assert_eq!(errno(fs.stat_at(&root, path("link/file"))), Errno::LOOP);
    assert_eq!(fs.stat_at(&root, path("link")).unwrap().kind, Kind::Other);
    let file = fs.create_unnamed(&root, MINE, false).unwrap();
    assert_eq!(errno(fs.publish_unnamed(&file, &root, path("link"))), Errno::EXIST);
    assert!(fs.entries(&root).unwrap().contains(&("link".into(), Kind::Other)));
}

/// Concurrent makers of one directory all get it, and it is the same.
#[test]
fn directories_made_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let deep = path("a/b/c/d/e/f");
    let inodes: Vec<u64> = std::thread::scope(|scope| {
        let make = || {
            let root = LinuxFs.open_root(dir.path()).unwrap();
            let made = LinuxFs.directory(&root, deep, Some(DIRECTORY), true).unwrap();
            LinuxFs.stat(&made).unwrap().inode
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|inode| *inode == inodes[0]));
}

/// A FIFO in the way must not hold the thread that opens it.
#[test]
fn special_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = LinuxFs.open_root(dir.path()).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(&root, "fifo", rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(errno(LinuxFs.open(&root, path("fifo"), Access::Read)), Errno::INVAL);
    assert_eq!(LinuxFs.stat_at(&root, path("fifo")).unwrap().kind, Kind::Other);
}

mod simulated {
    use super::*;

    fn ext4() -> (SimFs, sim::SimNode) {
        let fs = SimFs::new(SimConfig::ext4());
        let root = fs.open_root(path("/")).unwrap();
        (fs, root)
    }

    #[test]
    fn lustre_lacks_what_lustre_lacks() {
        let fs = SimFs::new(SimConfig::lustre());
        let root = fs.open_root(path("/")).unwrap();
        assert_eq!(errno(fs.create_unnamed(&root, MINE, false)), Errno::OPNOTSUPP);
        let file = fs.create_named(&root, path("a"), MINE, true).unwrap();
        assert_eq!(errno(fs.rename_noreplace(&root, path("a"), path("b"))), Errno::INVAL);
        assert_eq!(errno(fs.allocate(&file, 0, 4096)), Errno::OPNOTSUPP);
        let inode = fs.stat(&file).unwrap().inode;
        fs.link(&root, path("a"), inode, path("b")).unwrap();
        assert!(fs.is_open(file.id()) && !SimFs::new(SimConfig::ext4()).is_open(file.id()));
    }

    #[test]
    fn direct_data_must_be_aligned() {
        let (fs, root) = ext4();
        let file = fs.create_unnamed(&root, MINE, true).unwrap();
        let bytes = [1; 8192];
        let start = bytes.as_ptr().align_offset(4096);
        assert_eq!(fs.file_write(file.id(), 4096, &bytes[..4096]), Ok(4096));
        assert_eq!(fs.file_write(file.id(), 4096, &bytes[..4095]), Err(Errno::INVAL));
        assert_eq!(fs.file_write(file.id(), 1, &bytes[..4096]), Err(Errno::INVAL));
        fs.write_all_at(&file, &bytes[start..start + 4096], 0).unwrap();
        let misplaced = &bytes[(start + 8) % 4096..][..4096];
        assert_eq!(errno(fs.write_all_at(&file, misplaced, 0)), Errno::INVAL);
        let mut whole = [0; 16384];
        assert_eq!(fs.file_read(file.id(), 0, &mut whole), Ok(8192));
        assert_eq!(fs.file_read(file.id(), 16384, &mut whole), Ok(0));
        assert_eq!(fs.file_read(file.id(), 10, &mut whole), Err(Errno::INVAL));
        drop(file);
        assert_eq!(fs.file_read(FileId(1_001), 0, &mut whole), Err(Errno::BADF));
    }

    #[test]
    fn space_runs_out_and_comes_back() {
        let (fs, root) = ext4();
        fs.set_capacity(8 * 4096);
        let file = fs.create_unnamed(&root, MINE, true).unwrap();
        assert_eq!(errno(fs.allocate(&file, 0, 8 * 4096)), Errno::NOSPC);
        fs.allocate(&file, 0, 7 * 4096).unwrap();
        assert_eq!(fs.space(&root).unwrap().available_bytes, 0);
        assert_eq!(fs.file_write(file.id(), 0, &[1; 7 * 4096]), Ok(7 * 4096));
        assert_eq!(fs.file_write(file.id(), 7 * 4096, &[1; 4096]), Err(Errno::NOSPC));
        assert_eq!(errno(fs.create_named(&root, path("b"), MINE, true)), Errno::NOSPC);
        fs.set_len(&file, 5000).unwrap();
        assert_eq!(fs.space(&root).unwrap().available_bytes, 5 * 4096);
        drop(file);
        assert_eq!(fs.space(&root).unwrap().available_bytes, 7 * 4096);
        let kept = fs.create_named(&root, path("kept"), MINE, true).unwrap();
        fs.allocate(&kept, 0, 4096).unwrap();
        fs.remove(&root, path("kept")).unwrap();
        assert_eq!(fs.space(&root).unwrap().available_bytes, 6 * 4096, "still open");
    }

    #[test]
    fn attributes_have_a_budget() {
        let (fs, root) = ext4();
        let file = fs.create_unnamed(&root, MINE, true).unwrap();
        fs.set_attribute(&file, "user.a", &[1; 3900]).unwrap();
        assert_eq!(errno(fs.set_attribute(&file, "user.b", &[1; 100])), Errno::NOSPC);
        fs.set_attribute(&file, "user.a", &[1; 100]).unwrap();
        fs.set_attribute(&file, "user.b", &[1; 100]).unwrap();
    }

    #[test]
    fn faults_hit_the_call_they_name() {
        let (fs, root) = ext4();
        fs.fail_nth(Operation::Sync, 2, Errno::IO);
        fs.sync(&root).unwrap();
        assert_eq!(fs.sync(&root), Err(FsError { call: "fsync", errno: Errno::IO }));
        fs.sync(&root).unwrap();
        assert_eq!(fs.operations_of(Operation::Sync), 3);
        fs.fail_always(Operation::Entries, Errno::NOTCONN);
        assert_eq!(errno(fs.entries(&root)), Errno::NOTCONN);
        fs.clear_faults();
        fs.entries(&root).unwrap();

        let drawn = |seed| {
            let (fs, root) = ext4();
            fs.fail_randomly(seed, 4, &[Errno::IO, Errno::STALE]);
            (0..64).map(|_| fs.stat(&root).map(|_| ())).collect::<Vec<_>>()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert!((5..30).contains(&drawn(7).iter().filter(|result| result.is_err()).count()));
    }

    #[test]
    fn a_hung_call_goes_on_when_released() {
        let (fs, root) = ext4();
        fs.hang();
        std::thread::scope(|scope| {
            let blocked = scope.spawn(|| fs.stat(&root));
            fs.wait_for_blocked(1);
            assert!(fs.is_hung() && !blocked.is_finished());
            fs.release();
            blocked.join().unwrap().unwrap();
        });
    }

    /// Two files, one after the other; only the first is synced by its own fsync.
    fn crashed(seed: u64, direct: bool) -> SimFs {
        let (fs, root) = ext4();
        let page = [3_u8; 8192];
        let page = &page[page.as_ptr().align_offset(4096)..][..4096];
        for name in ["one", "two"] {
            let file = fs.create_unnamed(&root, MINE, direct).unwrap();
            fs.write_all_at(&file, page, 0).unwrap();
            fs.set_len(&file, 4000).unwrap();
            fs.set_attribute(&file, "user.seal", b"1").unwrap();
            fs.publish_unnamed(&file, &root, path(name)).unwrap();
            if name == "one" {
                fs.sync(&file).unwrap();
            }
        }
        fs.crash(seed);
        assert_eq!(fs.open_files(), 0);
        assert_eq!(errno(fs.stat(&root)), Errno::BADF);
        fs
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest() {
        let whole = Some(vec![3_u8; 4000]);
        for direct in [true, false] {
            let mut outcomes = std::collections::BTreeSet::new();
            for seed in 0..200 {
                let fs = crashed(seed, direct);
                assert_eq!(fs.contents(path("one")), whole, "seed {seed}");
                let two = fs.contents(path("two"));
                if direct {
                    assert!(two.is_none() || two == whole, "a name comes after its data: {seed}");
                }
                outcomes.insert(two);
                let root = fs.open_root(path("/")).unwrap();
                if let Ok(two) = fs.open(&root, path("two"), Access::Read) {
                    assert!(fs.attribute(&two, "user.seal").unwrap().is_some());
                }
            }
            // Gone, whole, and for buffered data also all zeros.
            assert_eq!(outcomes.len(), if direct { 2 } else { 3 }, "direct {direct}");
        }
    }

    #[test]
    fn a_halt_freezes_the_image() {
        let (fs, root) = ext4();
        fs.halt_at(fs.operations() + 1);
        fs.directory(&root, path("a"), Some(DIRECTORY), true).unwrap();
        let late = fs.directory(&root, path("b"), Some(DIRECTORY), true);
        assert_eq!(errno(late), Errno::SHUTDOWN);
        fs.crash(1);
        assert_eq!(fs.paths(), [("a".into(), Kind::Directory)]);
    }

    #[test]
    fn without_order_a_sync_covers_one_file() {
        let config = SimConfig { ordered: false, ..SimConfig::ext4() };
        let mut lost = [0; 2];
        for seed in 0..64 {
            let fs = SimFs::new(config.clone());
            let root = fs.open_root(path("/")).unwrap();
            let file = fs.create_named(&root, path("a"), MINE, false).unwrap();
            fs.write_all_at(&file, b"data", 0).unwrap();
            if seed % 2 == 0 {
                fs.sync(&file).unwrap()
            } else {
                fs.sync(&root).unwrap()
            }
            fs.crash(seed);
            match fs.contents(path("a")) {
                None => lost[0] += 1,
                Some(bytes) if bytes != b"data" => lost[1] += 1,
                Some(_) => {}
            }
        }
        assert!(lost[0] > 0, "the name was not synced with the file");
        assert!(lost[1] > 0, "the data was not synced with the directory");
    }
}
