use super::*;
use crate::fs::sim::SimNode;

fn open(fs: &SimFs) -> Result<StagingRoot<SimFs>, RootError> {
    StagingRoot::open(Arc::new(fs.clone()), Path::new("/"), 4711)
}

#[test]
fn a_good_file_system() {
    let fs = sim();
    let root = open(&fs).unwrap();
    let Facts { fs_type, direct, ordered, attribute_bytes_max } = root.facts;
    assert_eq!((fs_type, direct, ordered), (FsType::EXT4, true, true));
    // To the bytes that padding costs.
    let max = attribute_bytes_max.unwrap();
    assert!((SimConfig::ext4().attribute_bytes - 3..=4000).contains(&max), "{max}");
    let paths: Vec<_> = fs.paths().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, [Path::new(".fsqd"), Path::new(".fsqd/lock")]);
    assert_eq!(fs.contents(Path::new(".fsqd/lock")).unwrap(), b"4711\n");
    assert_eq!(fs.open_files(), 1);
}

#[test]
fn what_is_missing_is_found() {
    let buffered = SimFs::new(SimConfig { direct: false, ..SimConfig::ext4() });
    let facts = open(&buffered).unwrap().facts;
    assert!(!facts.direct && !facts.ordered, "buffered data has no order");
    let btrfs = SimFs::new(SimConfig { fs_type: FsType::BTRFS, ..SimConfig::ext4() });
    assert!(!open(&btrfs).unwrap().facts.ordered);
    let roomy = SimFs::new(SimConfig { attribute_bytes: 65536, ..SimConfig::ext4() });
    assert_eq!(open(&roomy).unwrap().facts.attribute_bytes_max, None);
}

/// Direct writes may be refused though the open was not (a device with larger sectors).
#[test]
fn direct_writes_that_fail_are_done_without() {
    let fs = sim();
    fs.fail_nth(Operation::WriteAllAt, 2, Errno::INVAL);
    let facts = open(&fs).unwrap().facts;
    assert!(!facts.direct && !facts.ordered);
}

#[test]
fn every_failure_has_its_own_message() {
    type Check = fn(&RootError) -> bool;
    let cases: [(Operation, u64, Errno, Check, &str); 10] = [
        (
            Operation::OpenRoot,
            1,
            Errno::NOENT,
            |error| matches!(error, RootError::Open { .. }),
            "create it",
        ),
        (
            Operation::Lock,
            1,
            Errno::NOLCK,
            |error| matches!(error, RootError::Lock { .. }),
            "local file system",
        ),
        (
            Operation::Directory,
            1,
            Errno::ROFS,
            |error| matches!(error, RootError::NotWritable { .. }),
            "read-only",
        ),
        (
            Operation::CreateNamed,
            1,
            Errno::ACCESS,
            |error| matches!(error, RootError::NotWritable { .. }),
            "check its owner",
        ),
        (
            Operation::CreateUnnamed,
            1,
            Errno::OPNOTSUPP,
            |error| matches!(error, RootError::NoUnnamedFiles { .. }),
            "use ext4 or XFS",
        ),
        (
            Operation::PublishUnnamed,
            1,
            Errno::NOENT,
            |error| matches!(error, RootError::NoUnnamedFiles { .. }),
            "/proc",
        ),
        (
            Operation::SetAttribute,
            1,
            Errno::OPNOTSUPP,
            |error| matches!(error, RootError::NoAttributes { .. }),
            "nouser_xattr",
        ),
        (
            Operation::WriteAllAt,
            2,
            Errno::IO,
            |error| matches!(error, RootError::Broken { .. }),
            "check the device",
        ),
        (
            Operation::ReadAt,
            1,
            Errno::IO,
            |error| matches!(error, RootError::Broken { .. }),
            "check the device",
        ),
        (
            Operation::FsType,
            1,
            Errno::IO,
            |error| matches!(error, RootError::Open { .. }),
            "--localfs",
        ),
    ];
    for (operation, nth, errno, check, cure) in cases {
        let fs = sim();
        fs.fail_nth(operation, nth, errno);
        let error = open(&fs).unwrap_err();
        assert!(check(&error), "{operation:?}: {error:?}");
        assert!(error.to_string().contains(cure), "{operation:?}: {error}");
        assert_eq!(fs.open_files(), 0, "{operation:?}");
        open(&fs).unwrap();
    }
}

fn second_is_refused<F: Fs + Clone + std::fmt::Debug>(fs: &F, path: &Path) {
    let first = StagingRoot::open(Arc::new(fs.clone()), path, 4711).unwrap();
    let error = StagingRoot::open(Arc::new(fs.clone()), path, 4712).unwrap_err();
    assert!(matches!(&error, RootError::InUse { pid: Some(pid), .. } if pid == "4711"), "{error}");
    assert!(error.to_string().contains("in use by another fsqd (pid 4711)"), "{error}");
    drop(first);
    StagingRoot::open(Arc::new(fs.clone()), path, 4712).unwrap();
}

#[test]
fn one_daemon_a_directory() {
    second_is_refused(&sim(), Path::new("/"));
    let dir = tempfile::tempdir().unwrap();
    second_is_refused(&LinuxFs, dir.path());
}

/// Whatever is in the lock file, it is only shown if it is a number.
#[test]
fn an_unknown_holder_is_not_named() {
    let fs = sim();
    let root: SimNode = fs.open_root(Path::new("/")).unwrap();
    fs.lock(&root).unwrap();
    let error = open(&fs).unwrap_err();
    assert!(matches!(error, RootError::InUse { pid: None, .. }), "{error}");
    assert!(error.to_string().contains("in use by another fsqd;"), "{error}");
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o700 };
    let private = fs.directory(&root, Path::new(".fsqd"), Some(owner), false).unwrap();
    let lock = fs.create_named(&private, Path::new("lock"), owner, false).unwrap();
    fs.write_all_at(&lock, b"\x1b[2Jrm", 0).unwrap();
    assert!(matches!(open(&fs).unwrap_err(), RootError::InUse { pid: None, .. }));
}

#[test]
fn this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let root = StagingRoot::open(Arc::new(LinuxFs), dir.path(), 1).unwrap();
    if root.facts.fs_type == FsType::EXT4 {
        assert!(root.facts.direct && root.facts.ordered);
        // One block of 4 KiB, less its header.
        assert!(root.facts.attribute_bytes_max.is_none_or(|max| max >= 4000));
    }
    assert_eq!(std::fs::read_dir(dir.path().join(".fsqd")).unwrap().count(), 1);
}
