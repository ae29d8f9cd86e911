use super::*;

/// What a session does with one file; its result.
fn session(rig: &mut Rig<SimFs>, commit: bool) -> Result<(), Refusal> {
    let staged = rig.open("old/new/deep/file")?;
    if let Err(refusal) = rig.extend(staged, 0, 1 << 20) {
        rig.abort(staged);
        return Err(refusal);
    }
    if commit {
        rig.commit(staged, &bytes(5, 9000))
    } else {
        rig.abort(staged);
        Ok(())
    }
}

/// Lets each call of a session fail once, the first, then the second, and so on.
fn every_call_fails_once(sim_config: &SimConfig, errno: Errno) -> u32 {
    let mut refused = 0;
    for index in 0.. {
        let fs = SimFs::new(sim_config.clone());
        let mut rig = Rig::sim(&fs, StagingConfig { threads: 1, ..config() });
        rig.put("old/file", b"old").unwrap();
        let before = visible(&fs);
        let open_before = fs.open_files();
        let at = fs.operations() + index;
        fs.fail_at(at, errno);
        let result = session(&mut rig, true);
        if fs.operations() <= at {
            assert!(result.is_ok());
            break;
        }
        let Err(refusal) = result else {
            // A call that is not needed for the file, like statfs.
            rig.intact("old/new/deep/file", &bytes(5, 9000));
            continue;
        };
        refused += 1;
        let case = format!("call {index}: {refusal}");
        assert_eq!(refusal.errno, errno, "{case}");
        assert!(refusal.text.contains("/lustre/old/new/deep/file") || errno == Errno::IO, "{case}");
        assert_eq!(visible(&fs), before, "{case}");
        assert_eq!(rig.service().files(), 0, "{case}");
        assert_eq!(rig.drained(), ["old/file"], "{case}");
        assert_eq!(fs.open_files(), open_before, "{case}");
        // The name is free, and the service goes on.
        session(&mut rig, true).expect("nothing of the failure is left");
        rig.intact("old/new/deep/file", &bytes(5, 9000));
    }
    refused
}

#[test]
fn a_failure_at_any_call_leaves_nothing() {
    // Of 21 and more calls with order, at least the 8 attributes and 9 others are needed.
    assert!(every_call_fails_once(&SimConfig::ext4(), Errno::IO) >= 17);
    let unordered = SimConfig { fs_type: FsType::BTRFS, ordered: false, ..SimConfig::ext4() };
    assert!(every_call_fails_once(&unordered, Errno::IO) >= 18);
}

#[test]
fn a_failure_while_a_file_is_given_up_blocks_nothing() {
    for index in 0.. {
        let fs = sim();
        let mut rig = Rig::sim(&fs, StagingConfig { threads: 1, ..config() });
        let at = fs.operations() + index;
        fs.fail_at(at, Errno::IO);
        let _ = session(&mut rig, false);
        if fs.operations() <= at {
            break;
        }
        session(&mut rig, true).expect("the name is free");
    }
}

#[test]
fn the_errors_of_the_file_system_have_their_sentences() {
    for (errno, text) in [
        (Errno::ROFS, "read-only"),
        (Errno::DQUOT, "quota"),
        (Errno::MFILE, "too many files"),
        (Errno::ACCESS, "openat2 on staging"),
        (Errno::IO, "tell the operator"),
    ] {
        let fs = sim();
        let mut rig = Rig::sim(&fs, config());
        fs.fail_always(Operation::CreateUnnamed, errno);
        let refusal = rig.open("a/b").unwrap_err();
        assert_eq!(refusal.errno, errno);
        assert!(refusal.text.contains(text), "{refusal}");
    }
}

#[test]
fn a_failed_sync_is_final_and_is_remembered() {
    for operation in [Operation::Sync, Operation::SyncAll] {
        let fs = sim();
        let mut rig = Rig::sim(&fs, config());
        rig.put("a/before", b"1").unwrap();
        assert!(!rig.service().sync_failed());
        let count = if operation == Operation::Sync { 1 } else { 8 };
        let staged: Vec<_> = (0..count).map(|n| rig.open(&format!("a/b/{n}")).unwrap()).collect();
        fs.fail_always(operation, Errno::NOSPC);
        let tokens: Vec<_> =
            staged.into_iter().map(|staged| rig.submit_commit(staged, b"2")).collect();
        let refused = tokens.into_iter().filter_map(|token| rig.committed(token).err());
        let refused: Vec<_> = refused.collect();
        let totals = rig.service().totals();
        assert_eq!(totals.sync_failures, refused.len() as u64);
        if operation == Operation::Sync {
            assert_eq!(refused.len(), 1);
        }
        for refusal in &refused {
            assert_eq!(refusal.errno, Errno::IO, "also when the sync says ENOSPC");
            assert!(refusal.text.contains("NOT stored"), "{refusal}");
        }
        assert_eq!(rig.service().sync_failed(), !refused.is_empty());
        assert_eq!(rig.drained().len(), 1 + count - refused.len());
        fs.clear_faults();
        rig.put("a/after", b"3").unwrap();
        rig.intact("a/before", b"1");
        rig.intact("a/after", b"3");
    }
}

/// Random faults, many sessions: every job is answered, and what is acknowledged is there.
#[test]
fn random_faults() {
    for seed in 0..40 {
        let fs = sim();
        let mut rig = Rig::sim(&fs, StagingConfig { threads: 3, ..config() });
        fs.fail_randomly(seed, 25, &[Errno::IO, Errno::DQUOT, Errno::NOMEM]);
        let mut stored = Vec::new();
        for round in 0..6 {
            let opens: Vec<_> = (0..8)
                .map(|n| format!("d{}/r{round}/{n}", n % 3))
                .map(|path| (rig.submit_open(&path, StorageDest::Lustre), path))
                .collect();
            let opened: Vec<_> = opens
                .into_iter()
                .filter_map(|(token, path)| Some((rig.opened(token).ok()?, path)))
                .collect();
            let commits: Vec<_> = opened
                .into_iter()
                .map(|(staged, path)| (rig.submit_commit(staged, path.as_bytes()), path))
                .collect();
            stored.extend(
                commits
                    .into_iter()
                    .filter_map(|(token, path)| rig.committed(token).is_ok().then_some(path)),
            );
        }
        fs.clear_faults();
        assert!(!stored.is_empty() && stored.len() < 48, "seed {seed}: {}", stored.len());
        for path in &stored {
            rig.intact(path, path.as_bytes());
        }
        let (mut drained, mut expected) = (rig.drained(), stored);
        drained.sort();
        expected.sort();
        assert_eq!(drained, expected, "seed {seed}");
        assert_eq!(rig.service().files(), 0, "seed {seed}");
    }
}
