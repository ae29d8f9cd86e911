use std::path::Path;

use super::*;
use crate::fs::sim::{Operation, SimConfig, SimFs, SimNode};
use crate::fs::{LinuxFs, Ownership};

const MINE: Ownership = Ownership { uid: None, gid: None, mode: 0o660 };

fn record() -> Record {
    Record {
        state: FileState::LocalCopyDone,
        archive_id: -7,
        fs: "/lustre".into(),
        fpath: "/lustre/data/run 1/\u{e4}.lmd".into(),
        desc: b"a \xff description".to_vec(),
        dest: StorageDest::LustreTsm,
        content: Some(Content { len: u64::MAX - 3, crc: 0xdead_beef }),
        owner: Some(Owner { uid: 1000, gid: u32::MAX, node: "polaris".into() }),
    }
}

fn file() -> (SimFs, SimNode) {
    let fs = SimFs::new(SimConfig::ext4());
    let root = fs.open_root(Path::new("/")).unwrap();
    let file = fs.create_unnamed(&root, MINE, false).unwrap();
    (fs, file)
}

fn store_all<F: Fs>(record: &Record, fs: &F, file: &F::Node) {
    record.store_static(fs, file).unwrap();
    seal(fs, file, record.content.unwrap(), record.state).unwrap();
}

#[test]
fn a_record_survives() {
    let (fs, file) = file();
    store_all(&record(), &fs, &file);
    assert_eq!(Record::load(&fs, &file), Ok(Some(record())));

    let dir = tempfile::tempdir().unwrap();
    let root = LinuxFs.open_root(dir.path()).unwrap();
    let file = LinuxFs.create_unnamed(&root, MINE, false).unwrap();
    store_all(&record(), &LinuxFs, &file);
    assert_eq!(Record::load(&LinuxFs, &file), Ok(Some(record())));
}

/// The bytes on disk, spelled out: an older or newer daemon reads them.
#[test]
fn formats_are_fixed() {
    let (fs, file) = file();
    store_all(&record(), &fs, &file);
    let value = |name: &str| fs.attribute(&file, name).unwrap().unwrap();
    assert_eq!(value("user.fsq.state"), 1_u32.to_ne_bytes());
    assert_eq!(value("user.fsq.arvid"), (-7_i32).to_ne_bytes());
    assert_eq!(value("user.fsq.fs"), b"/lustre");
    assert_eq!(value("user.fsq.fpath"), "/lustre/data/run 1/\u{e4}.lmd".as_bytes());
    assert_eq!(value("user.fsq.desc"), b"a \xff description");
    assert_eq!(value("user.fsq.stordest"), 4_i32.to_ne_bytes());
    let (len, crc) = ((u64::MAX - 3).to_ne_bytes(), 0xdead_beef_u32.to_ne_bytes());
    assert_eq!(value("user.fsq.crc")[..12], [len.as_slice(), &crc].concat());
    assert_eq!(value("user.fsq.crc")[12..], 0x4653_5101_u32.to_ne_bytes());
    let owner = [1000_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
    assert_eq!(value("user.fsq.owner"), [owner.as_slice(), b"polaris"].concat());
}

/// As the older daemon writes them: padded with NUL, no content, no owner.
fn store_old(fs: &SimFs, file: &SimNode, state: u32) {
    let padded = |text: &str, len| {
        let mut value = text.as_bytes().to_vec();
        value.resize(len, 0);
        value
    };
    fs.set_attribute(file, "user.fsq.state", &state.to_ne_bytes()).unwrap();
    fs.set_attribute(file, "user.fsq.arvid", &15_i32.to_ne_bytes()).unwrap();
    fs.set_attribute(file, "user.fsq.fs", &padded("/lustre", 1024)).unwrap();
    fs.set_attribute(file, "user.fsq.fpath", &padded("/lustre/a/b", 2048)).unwrap();
    fs.set_attribute(file, "user.fsq.desc", &padded("", 255)).unwrap();
    fs.set_attribute(file, "user.fsq.stordest", &2_i32.to_ne_bytes()).unwrap();
}

#[test]
fn files_of_the_older_daemon_are_read() {
    let (fs, file) = file();
    store_old(&fs, &file, 0x80);
    let expected = Record {
        state: FileState::FileOmitted,
        archive_id: 15,
        fs: "/lustre".into(),
        fpath: "/lustre/a/b".into(),
        desc: Vec::new(),
        dest: StorageDest::Lustre,
        content: None,
        owner: None,
    };
    assert_eq!(Record::load(&fs, &file), Ok(Some(expected)));
}

#[test]
fn what_is_not_complete_is_told_from_what_is_not_ours() {
    let (fs, file) = file();
    assert_eq!(Record::load(&fs, &file), Ok(None));
    // Wherever the completion of a file stops, it counts as never completed.
    for (nth, attribute) in [(1, CONTENT), (2, STATE)] {
        let (fs, file) = self::file();
        record().store_static(&fs, &file).unwrap();
        assert_eq!(Record::load(&fs, &file), Err(RecordError::Unsealed { attribute: STATE }));
        fs.fail_nth(Operation::SetAttribute, nth, Errno::NOSPC);
        let error = seal(&fs, &file, record().content.unwrap(), record().state).unwrap_err();
        assert_eq!(error.errno(), Errno::NOSPC);
        assert!(error.to_string().contains(attribute), "{error}");
        assert_eq!(Record::load(&fs, &file), Err(RecordError::Unsealed { attribute: STATE }));
    }
    // And so does one whose state alone has survived.
    store(&fs, &file, OWNER, &[0; 8]).unwrap();
    store(&fs, &file, STATE, &1_u32.to_ne_bytes()).unwrap();
    assert_eq!(Record::load(&fs, &file), Err(RecordError::Unsealed { attribute: CONTENT }));
}

#[test]
fn every_attribute_is_checked() {
    let cases: [(&str, &[u8]); 14] = [
        (STATE, b""),
        (STATE, b"12345"),
        (STATE, &0_u32.to_ne_bytes()),
        (STATE, &0x200_u32.to_ne_bytes()),
        (ARCHIVE_ID, b"abc"),
        (DEST, &5_i32.to_ne_bytes()),
        (DEST, &(-1_i32).to_ne_bytes()),
        (FS, &[b'x'; 1025]),
        (FPATH, &[b'x'; 4097]),
        (DESC, &[b'x'; 256]),
        (OWNER, b"1234567"),
        (OWNER, b"12345678\xff\xfe"),
        (CONTENT, b"123456789012345"),
        (CONTENT, b"1234567890121234"),
    ];
    for (attribute, value) in cases {
        let fs = SimFs::new(SimConfig { attribute_bytes: 65536, ..SimConfig::ext4() });
        let root = fs.open_root(Path::new("/")).unwrap();
        let file = fs.create_unnamed(&root, MINE, false).unwrap();
        store_all(&record(), &fs, &file);
        fs.set_attribute(&file, attribute, value).unwrap();
        let error = Record::load(&fs, &file).unwrap_err();
        assert!(
            matches!(&error, RecordError::Malformed { attribute: named, .. } if *named == attribute),
            "{attribute} {value:?}: {error}"
        );
    }
    let (fs, file) = file();
    store(&fs, &file, STATE, &1_u32.to_ne_bytes()).unwrap();
    assert_eq!(Record::load(&fs, &file), Err(RecordError::Missing { attribute: DEST }));
}

#[test]
fn strings_are_checked_before_they_are_written() {
    let (fs, file) = file();
    let bad = [
        (FS, Record { fs: "a\0b".into(), ..record() }),
        (FS, Record { fs: "x".repeat(1025).into(), ..record() }),
        (FPATH, Record { fpath: "\0".into(), ..record() }),
        (FPATH, Record { fpath: "x".repeat(4097).into(), ..record() }),
        (DESC, Record { desc: vec![1; 256], ..record() }),
        (OWNER, Record { owner: Some(Owner { uid: 0, gid: 0, node: "n\0".into() }), ..record() }),
    ];
    for (attribute, record) in bad {
        let error = record.store_static(&fs, &file).unwrap_err();
        assert!(error.to_string().contains(attribute), "{error}");
    }
    let long = Record { fpath: "x".repeat(4096).into(), ..record() };
    assert_eq!(long.store_static(&fs, &file).unwrap_err().errno(), Errno::NOSPC);
}

/// What [`crate::path::attribute_bytes`] allows at OPEN is what the simulator, which counts as ext4
/// does, has room for at CLOSE.
#[test]
fn the_admitted_size_is_what_is_stored() {
    let owner = Owner { uid: 0, gid: 0, node: "n".repeat(NODE_BYTES_MAX) };
    let record = Record { owner: Some(owner), ..record() };
    let bytes =
        crate::path::attribute_bytes(record.fs.len(), record.fpath.len(), record.desc.len());
    for (room, fits) in [(bytes, true), (bytes - 1, false)] {
        let fs = SimFs::new(SimConfig { attribute_bytes: room, ..SimConfig::ext4() });
        let root = fs.open_root(Path::new("/")).unwrap();
        let file = fs.create_unnamed(&root, MINE, false).unwrap();
        record.store_static(&fs, &file).unwrap();
        let sealed = seal(&fs, &file, record.content.unwrap(), record.state);
        assert_eq!(sealed.is_ok(), fits);
    }
}

#[test]
fn states_on_disk() {
    for (bit, state) in FileState::ALL.into_iter().enumerate() {
        assert_eq!(state.bits(), 1 << bit);
        assert_eq!(FileState::from_bits(1 << bit), Some(state));
    }
    assert_eq!(FileState::from_bits(0), None);
    assert_eq!(FileState::from_bits(0x200), None);
    assert_eq!(FileState::from_bits(0x201), None);
    assert_eq!(FileState::from_bits(0x180), Some(FileState::LocalCopyDone));
}

#[test]
fn transitions() {
    // Rows: from; columns: to; both in the order of the bits. `=` stays, `x` goes.
    let table = [
        "=x..x...x", // LocalCopyDone
        ".=xx.....", // LustreCopyRun
        ".x=....x.", // LustreCopyError
        "...=x...x", // LustreCopyDone
        "....=xx..", // TsmArchiveRun
        "....x=.x.", // TsmArchiveError
        "......=.x", // TsmArchiveDone
        "xx..x..=.", // FileOmitted
        "........=", // FileKeep
    ];
    for (from, row) in FileState::ALL.into_iter().zip(table) {
        for (to, cell) in FileState::ALL.into_iter().zip(row.chars()) {
            assert_eq!(from.may_become(to), cell != '.', "{from:?} to {to:?}");
            let (fs, file) = file();
            let mut record = Record { state: from, ..record() };
            store_all(&record, &fs, &file);
            let set = record.set_state(&fs, &file, to);
            assert_eq!(set.is_ok(), cell != '.');
            let loaded = Record::load(&fs, &file).unwrap().unwrap();
            assert_eq!(loaded.state, if set.is_ok() { to } else { from });
            assert_eq!(record, loaded);
        }
    }
}
