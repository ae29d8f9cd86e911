use super::*;

#[test]
fn an_open_waits_below_the_high_mark_without_a_thread() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, StagingConfig { threads: 1, ..config() });
    let staged = rig.open("before").unwrap();
    rig.clock.advance(Duration::from_secs(1));
    fs.set_capacity(3 * 4096);
    let first = rig.submit_open("new/first", StorageDest::Lustre);
    let second = rig.submit_open("new/first", StorageDest::Lustre);
    rig.wait_for_waiting(2);
    // The only thread is free, and files that were begun go on.
    rig.abort(staged);
    rig.service().space_notice()();
    rig.wait_for_waiting(2);
    assert!(!rig.answers.has(first) && !rig.answers.has(second));
    assert!(visible(&fs).is_empty());

    fs.set_capacity(1 << 30);
    rig.service().space_notice()();
    // Waiting reserves no name, so either may win, but only one.
    let results = [rig.opened(first), rig.opened(second)];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert_eq!(rig.service().totals().space_waits, 2);
}

#[test]
fn waiting_ends_at_the_deadline() {
    let fs = sim();
    let config = StagingConfig { space_wait: Duration::from_secs(30), ..config() };
    let mut rig = Rig::sim(&fs, config);
    fs.set_capacity(0);
    let token = rig.submit_open("a", StorageDest::Lustre);
    rig.wait_for_waiting(1);
    rig.clock.advance(Duration::from_secs(29));
    rig.service().space_notice()();
    rig.wait_for_waiting(1);
    assert!(!rig.answers.has(token));
    rig.clock.advance(Duration::from_secs(1));
    rig.service().space_notice()();
    let refusal = rig.opened(token).unwrap_err();
    assert_eq!(refusal.errno, Errno::NOSPC);
    assert!(refusal.text.contains("full"), "{refusal}");
}

/// Without anybody saying so: others may free space too.
#[test]
fn waiting_jobs_look_for_themselves() {
    let fs = sim();
    let config = StagingConfig { space_recheck: Duration::from_millis(1), ..config() };
    let mut rig = Rig::sim(&fs, config);
    fs.set_capacity(0);
    let token = rig.submit_open("a", StorageDest::Lustre);
    rig.wait_for_waiting(1);
    fs.set_capacity(1 << 30);
    rig.clock.advance(Duration::from_millis(crate::limits::SPACE_CACHE_MS));
    rig.opened(token).unwrap();
}

#[test]
fn statfs_is_asked_rarely() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    for file in 0..10 {
        rig.put(&format!("{file}"), b"x").unwrap();
    }
    assert_eq!(fs.operations_of(Operation::Space), 1);
    rig.clock.advance(Duration::from_millis(crate::limits::SPACE_CACHE_MS));
    rig.put("more", b"x").unwrap();
    assert_eq!(fs.operations_of(Operation::Space), 2);
}

#[test]
fn extending_takes_what_there_is() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    let staged = rig.open("a").unwrap();
    fs.set_capacity(40 << 20);
    assert_eq!(rig.extend(staged, 0, 64 << 20), Ok(32 << 20));
    assert_eq!(rig.extend(staged, 32 << 20, 64 << 20), Ok(36 << 20));
    // Less than the smallest step is left: wait.
    let waiting = Job::Extend { staged, from: 36 << 20, len: 64 << 20 };
    let token = rig.submit(waiting);
    rig.wait_for_waiting(1);
    fs.set_capacity(50 << 20);
    rig.service().space_notice()();
    match rig.answers.wait(token) {
        Answer::Extend(Ok(end)) => assert_eq!(end, (36 << 20) + (8 << 20)),
        other => panic!("{other:?}"),
    }
    // A small step is not made larger.
    assert_eq!(rig.extend(staged, 44 << 20, 4096), Ok((44 << 20) + 4096));
}

#[test]
fn extending_without_preallocation_sets_the_length() {
    let fs = SimFs::new(SimConfig { preallocation: false, ..SimConfig::ext4() });
    let mut rig = Rig::sim(&fs, config());
    let staged = rig.open("a").unwrap();
    assert_eq!(rig.extend(staged, 0, 1 << 20), Ok(1 << 20));
    rig.commit(staged, b"short").unwrap();
    rig.intact("a", b"short");
}

#[test]
fn an_abort_ends_the_wait_of_its_file() {
    let fs = sim();
    let mut rig = Rig::sim(&fs, config());
    let staged = rig.open("a").unwrap();
    let other = rig.open("b").unwrap();
    fs.set_capacity(0);
    let extend = |staged| Job::Extend { staged, from: 0, len: 4096 };
    let (ours, theirs) = (rig.submit(extend(staged)), rig.submit(extend(other)));
    rig.wait_for_waiting(2);
    rig.abort(staged);
    assert!(matches!(rig.answers.wait(ours), Answer::Extend(Err(_))));
    assert!(!rig.answers.has(theirs));
    assert_eq!(rig.service().waiting(), 1);
}

/// A client that has sent everything is not turned away because staging is full for a moment.
#[test]
fn a_commit_waits_for_space_too() {
    let fs = sim();
    let config = StagingConfig { space_wait: Duration::from_secs(30), ..config() };
    let mut rig = Rig::sim(&fs, config);
    let (one, two) = (rig.open("a/one").unwrap(), rig.open("b/two").unwrap());
    fs.set_capacity(0);
    let first = rig.submit_commit(one, &bytes(1, 9000));
    rig.wait_for_waiting(1);
    fs.set_capacity(1 << 30);
    rig.service().space_notice()();
    rig.committed(first).unwrap();
    rig.intact("a/one", &bytes(1, 9000));

    fs.set_capacity(0);
    let second = rig.submit_commit(two, &bytes(2, 9000));
    rig.wait_for_waiting(1);
    rig.clock.advance(Duration::from_secs(30));
    rig.service().space_notice()();
    assert_eq!(rig.committed(second).unwrap_err().errno, Errno::NOSPC);
    assert_eq!(visible(&fs), ["a", "a/one"]);
    assert_eq!(rig.service().files(), 0);
}

/// ext4 says ENOSPC for both; only one of them is worth waiting for.
#[test]
fn attributes_that_do_not_fit_are_not_waited_for() {
    let fs = SimFs::new(SimConfig { attribute_bytes: 128, ..SimConfig::ext4() });
    let mut rig = Rig::sim(&fs, config());
    let refusal = rig.open("a/b").unwrap_err();
    assert_eq!(refusal.errno, Errno::NAMETOOLONG);
    assert!(visible(&fs).is_empty());
}
