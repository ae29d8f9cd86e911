//! The power goes at every single call, and is lost in several ways each time.

use super::*;
use crate::queue::record::RecordError;

const SEEDS: u64 = 6;

/// A service of one thread, so that the calls come in the same order each time.
fn rig(fs: &SimFs) -> Rig<SimFs> {
    Rig::sim(fs, StagingConfig { threads: 1, ..config() })
}

fn content(path: &str) -> Vec<u8> {
    path.bytes().cycle().take(path.len() * 1000).collect()
}

/// Some files, one after the other, one of them never completed; those that were acknowledged.
fn one_by_one(rig: &mut Rig<SimFs>) -> Vec<&'static str> {
    let mut stored = Vec::new();
    let unfinished = rig.open("a/unfinished");
    for path in ["a/b/1", "a/b/2", "c/3", "4"] {
        if rig.put(path, &content(path)).is_ok() {
            stored.push(path);
        }
    }
    drop(unfinished);
    stored
}

/// The same files, in CLOSE together.
fn together(rig: &mut Rig<SimFs>) -> Vec<&'static str> {
    let paths = ["a/b/1", "a/b/2", "c/3", "4"];
    let opened = paths.into_iter().filter_map(|path| Some((path, rig.open(path).ok()?)));
    let opened: Vec<_> = opened.collect();
    let tokens: Vec<_> = opened
        .into_iter()
        .map(|(path, staged)| (path, rig.submit_commit(staged, &content(path))))
        .collect();
    let stored = tokens.into_iter().filter(|(_, token)| rig.committed(*token).is_ok());
    stored.map(|(path, _)| path).collect()
}

/// What recovery does with a file: `Some(true)` it is whole, `Some(false)` it can be seen to be
/// unfinished, `None` neither.
fn judge(fs: &SimFs, path: &str) -> Option<bool> {
    let root = fs.open_root(Path::new("/")).unwrap();
    if intact(fs, &root, path, &content(path)).is_ok() {
        return Some(true);
    }
    let file = fs.open(&root, Path::new(path), Access::Read).unwrap();
    let len = fs.stat(&file).unwrap().len;
    match Record::load(fs, &file) {
        Err(RecordError::Unsealed { .. }) => Some(false),
        Ok(Some(record)) if record.content.is_none_or(|sealed| sealed.len != len) => Some(false),
        _ => None,
    }
}

fn power_loss_everywhere(config: &SimConfig, work: fn(&mut Rig<SimFs>) -> Vec<&'static str>) {
    let fs = SimFs::new(config.clone());
    let mut whole = rig(&fs);
    let before = fs.operations();
    assert_eq!(work(&mut whole).len(), 4);
    let calls = fs.operations() - before;
    assert!(calls > 60, "{calls} calls");
    // A few more than that, since batches form as they will.
    let last = calls + 12;
    for index in 0..=last {
        for seed in 0..SEEDS {
            let fs = SimFs::new(config.clone());
            let mut rig = rig(&fs);
            fs.sync_all(&rig.root.node).unwrap();
            fs.halt_at(fs.operations() + index);
            let stored = work(&mut rig);
            assert!(index < last || stored.len() == 4);
            drop(rig);
            fs.crash(index * SEEDS + seed);

            let case = format!("call {index} seed {seed}");
            let mut found = Vec::new();
            for (path, kind) in fs.paths() {
                let path = path.to_str().unwrap().to_owned();
                if kind == Kind::File && !path.starts_with(".fsqd") {
                    assert_eq!(judge(&fs, &path), Some(true), "{case}: {path} is seen incomplete");
                    found.push(path);
                }
            }
            for path in stored {
                assert!(found.iter().any(|found| found == path), "{case}: {path} is lost");
            }
            // The next start takes the directory over as it is, and takes files again.
            let mut rig = self::rig(&fs);
            for path in ["a/b/1", "a/unfinished"] {
                let again = rig.put(path, &content(path));
                let expected = if found.iter().any(|found| found == path) {
                    Err(Errno::EXIST)
                } else {
                    Ok(())
                };
                assert_eq!(again.map_err(|refusal| refusal.errno), expected, "{case}: {path}");
            }
        }
    }
}

#[test]
fn on_ext4() {
    power_loss_everywhere(&SimConfig::ext4(), one_by_one);
}

#[test]
fn on_ext4_in_a_group() {
    power_loss_everywhere(&SimConfig::ext4(), together);
}

#[test]
fn on_ext4_without_direct_io() {
    let config = SimConfig { direct: false, ..SimConfig::ext4() };
    power_loss_everywhere(&config, one_by_one);
}

#[test]
fn where_no_order_is_kept() {
    let config = SimConfig { ordered: false, fs_type: FsType::BTRFS, ..SimConfig::ext4() };
    power_loss_everywhere(&config, one_by_one);
    power_loss_everywhere(&config, together);
}

/// An ext4 without a journal keeps no order and looks like any other. What is acknowledged is safe
/// all the same, and what is not can be seen to be unfinished or has a wrong checksum.
#[test]
fn where_order_is_promised_and_not_kept() {
    let config = SimConfig { ordered: false, ..SimConfig::ext4() };
    let mut unfinished = 0;
    for seed in 0..400 {
        let fs = SimFs::new(config.clone());
        let mut rig = rig(&fs);
        fs.sync_all(&rig.root.node).unwrap();
        fs.halt_at(fs.operations() + seed % 90);
        let stored = one_by_one(&mut rig);
        drop(rig);
        fs.crash(seed);
        for path in &stored {
            let root = fs.open_root(Path::new("/")).unwrap();
            intact(&fs, &root, path, &content(path)).unwrap();
        }
        for (path, kind) in fs.paths() {
            let path = path.to_str().unwrap();
            if kind == Kind::File && !path.starts_with(".fsqd") && judge(&fs, path) != Some(true) {
                assert!(!stored.contains(&path));
                unfinished += 1;
            }
        }
    }
    assert!(unfinished > 0, "the model is harsher than ext4");
}
