//! What the tests have in common: directories and a daemon on them, clients, bounded waits.
//!
//! Owns everything outside the test process that a test starts or mounts; all of it is gone when
//! its value is dropped, also when the test fails. Invariant: no wait is unbounded, and every line
//! that a daemon logs is searched for the passwords in use.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

pub(crate) mod bystander;
pub(crate) mod content;
pub(crate) mod daemon;
pub(crate) mod deployed;
pub(crate) mod fuse;
pub(crate) mod log;
pub(crate) mod mount;
pub(crate) mod site;
pub(crate) mod tree;
pub(crate) mod volatile;
pub(crate) mod volatile_fs;

/// How long anything may take that should take milliseconds. Generous, because it is only ever
/// waited for in full by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

static MACHINE: RwLock<()> = RwLock::new(());

/// A turn among tests that run at the same time.
pub(crate) fn shared_turn() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// A turn without other tests, for those that measure or load the machine.
pub(crate) fn sole_turn() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Polls until `check` gives something; what it waits for sends no event (files in directories).
///
/// # Panics
/// After [`PATIENCE`], with the text of `what`.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A place on a real disk: what is in /tmp may be memory.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test directories are ASCII")
}

/// Says why a test cannot be done here. It counts as passed, since the machine is what it is; the
/// reason is there to be read.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
}
