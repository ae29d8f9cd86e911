use std::sync::mpsc;

use super::*;
use crate::staging::sync::{Lineup, Named, sync_batch};

/// While one batch is being made durable the next forms, and is synced as one.
#[test]
fn commits_that_wait_together_are_synced_together() {
    let fs = sim();
    let (go, gate) = mpsc::channel::<()>();
    let (arrived, busy) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    // The first file holds the thread that syncs, until the others are all prepared.
    let mut rig = Rig::with_outbox(fs.clone(), Path::new("/"), config(), move |path, _| {
        if path == Path::new("first") {
            arrived.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        }
    });
    let first = rig.open("first").unwrap();
    let staged: Vec<_> = (0..20).map(|n| rig.open(&format!("d/{n}")).unwrap()).collect();
    let first = rig.submit_commit(first, b"1");
    busy.recv().unwrap();
    let tokens: Vec<_> =
        staged.into_iter().map(|staged| rig.submit_commit(staged, b"data")).collect();
    while fs.operations_of(Operation::PublishUnnamed) < 1 + 1 + 20 {
        std::thread::yield_now();
    }
    assert!(tokens.iter().all(|token| !rig.answers.has(*token)), "none before its sync");
    let syncs = fs.operations_of(Operation::SyncAll);
    go.send(()).unwrap();
    rig.committed(first).unwrap();
    for (n, token) in tokens.into_iter().enumerate() {
        rig.committed(token).unwrap();
        rig.intact(&format!("d/{n}"), b"data");
    }
    let totals = rig.service().totals();
    assert_eq!(totals.synced_files, 21);
    assert!(totals.syncs <= 4 && totals.largest_batch >= 7, "{totals:?}");
    assert!(fs.operations_of(Operation::SyncAll) > syncs);
}

#[test]
fn a_batch_is_what_is_ready_and_what_is_on_its_way() {
    let lineup: Lineup<u32> = Lineup::new();
    for _ in 0..4 {
        lineup.announce();
    }
    lineup.arrive(Some(1));
    lineup.arrive(None);
    lineup.arrive(Some(2));
    lineup.arrive(Some(3));
    assert_eq!(lineup.take(), Some(vec![1, 2, 3]));
    // One that never gets there does not hold the others.
    lineup.announce();
    lineup.announce();
    lineup.arrive(Some(4));
    assert_eq!(lineup.take(), Some(vec![4]));
    lineup.arrive(Some(5));
    lineup.close();
    assert_eq!(lineup.take(), Some(vec![5]));
    assert_eq!(lineup.take(), None);
}

#[test]
fn a_batch_is_bounded() {
    let lineup: Lineup<usize> = Lineup::new();
    let max = crate::limits::SYNC_BATCH_MAX;
    for n in 0..max + 1 {
        lineup.announce();
        lineup.arrive(Some(n));
    }
    assert_eq!(lineup.take().unwrap().len(), max);
    assert_eq!(lineup.take(), Some(vec![max]));
}

struct Item {
    file: crate::fs::sim::SimNode,
    dir: crate::fs::sim::SimNode,
    path: PathBuf,
}

impl Named<SimFs> for Item {
    fn file(&self) -> &crate::fs::sim::SimNode {
        &self.file
    }

    fn directory(&self) -> &crate::fs::sim::SimNode {
        &self.dir
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

#[test]
fn a_batch_costs_as_few_syncs_as_it_can() {
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o755 };
    for (paths, syncs, sync_alls) in [
        (&["a/1"][..], 2, 0),
        (&["a/1", "a/2"], 3, 0),
        (&["a/1", "b/2"], 4, 0),
        (&["a/1", "a/2", "b/3"], 0, 1),
    ] {
        let fs = sim();
        let staging = StagingRoot::open(Arc::new(fs.clone()), Path::new("/"), 1).unwrap();
        let root = &staging.node;
        let batch: Vec<Item> = paths
            .iter()
            .map(|path| {
                let path = PathBuf::from(path);
                let parent = path.parent().unwrap();
                let dir = fs.directory(root, parent, Some(owner), false).unwrap();
                let file = fs.create_unnamed(&dir, owner, true).unwrap();
                fs.publish_unnamed(&file, &dir, Path::new(path.file_name().unwrap())).unwrap();
                Item { file, dir, path }
            })
            .collect();
        let results = sync_batch(&staging, &batch);
        assert!(results.len() == paths.len() && results.iter().all(Result::is_ok));
        assert_eq!(fs.operations_of(Operation::Sync), syncs, "{paths:?}");
        assert_eq!(fs.operations_of(Operation::SyncAll), sync_alls, "{paths:?}");
    }
}

/// A file's own sync failing is its own matter; a directory's concerns all in it.
#[test]
fn failures_of_small_batches_are_told_apart() {
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o755 };
    for (nth, expected) in [(1, [false, true]), (2, [true, false]), (3, [false, false])] {
        let fs = sim();
        let staging = StagingRoot::open(Arc::new(fs.clone()), Path::new("/"), 1).unwrap();
        let root = &staging.node;
        let item = |name: &str| Item {
            file: fs.create_unnamed(root, owner, true).unwrap(),
            dir: fs.directory(root, Path::new(""), None, false).unwrap(),
            path: name.into(),
        };
        let batch = [item("one"), item("two")];
        fs.fail_nth(Operation::Sync, nth, Errno::IO);
        let results = sync_batch(&staging, &batch);
        assert_eq!([results[0].is_ok(), results[1].is_ok()], expected);
    }
}
