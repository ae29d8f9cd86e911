//! [`Striping`]: large files get a layout of their own, so that they are spread over more of the
//! target's servers than the small ones.
//!
//! It is a hint. Whether a file is delivered never depends on it: a layout that cannot be had is
//! done without, and that is said, but not for each file. Only what the target does to everybody
//! (down, hung) is left to the drain to wait for, as if there were no hint.
//!
//! Owns what is remembered of failures. Invariant: a file made with a layout has it from its first
//! byte on, and no file is looked at twice for the sake of its layout but one that filled its pool.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::lustre::{self, Unfit};
use super::publish::remove_temporary;
use crate::config::{Config, StripeHint};
use crate::fs::{Fs, FsError, Ownership, Result};
use crate::queue::{FailureClass, Side, classify};

/// A kind of failure is told of again after this time.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(600);

/// How long files are made without their layout after one has filled its pool: each would be
/// written up to that point in vain.
const FULL_PAUSE: Duration = Duration::from_secs(600);

/// Why the hint that is asked for cannot be given.
#[derive(Debug, thiserror::Error)]
#[error(
    "--stripe-above: {0}; or leave the --stripe options away: files then get the layout of their \
     directory (lfs setstripe)"
)]
pub struct StripeError(#[from] Unfit);

/// See the module's description.
#[derive(Debug)]
pub struct Striping {
    hint: StripeHint,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Kinds of failures, and when they were told of. There are not many errnos.
    told: Vec<(Errno, Duration)>,
    /// No layouts until then.
    resume_at: Duration,
}

/// A file made with its layout, or what spoke against it: then nothing of it is left.
#[derive(Debug)]
pub(crate) enum Hinted<N> {
    Made(N),
    Forgone(FsError),
}

impl Striping {
    /// What `hint` says, on a target that can do it.
    #[must_use]
    pub fn new(hint: StripeHint) -> Self {
        Self { hint, memory: Mutex::default() }
    }

    /// What the configuration asks for, if the target is Lustre and its library can do it.
    ///
    /// # Errors
    /// It is not, or cannot.
    pub fn open(config: &Config) -> std::result::Result<Option<Self>, StripeError> {
        let Some(hint) = &config.striping else { return Ok(None) };
        let found = lustre::find(&config.target)?;
        found.lustre.has_layouts().map_err(Unfit::Library)?;
        tracing::info!(
            "striping: {}, files from {} bytes on get {}",
            found.lustre.path().display(),
            hint.above_bytes,
            hint.layout
        );
        Ok(Some(Self::new(hint.clone())))
    }

    /// What files get.
    #[must_use]
    pub fn hint(&self) -> &StripeHint {
        &self.hint
    }

    /// Whether a file of this length is to get the layout.
    pub(crate) fn applies(&self, len: u64, now: Duration) -> bool {
        len >= self.hint.above_bytes && now >= self.lock().resume_at
    }

    /// Makes the temporary with the layout.
    ///
    /// # Errors
    /// Those that a file without the layout would meet as well, or that tell nothing of the layout.
    pub(crate) fn create<F: Fs>(
        &self,
        fs: &F,
        directory: &F::Node,
        temporary: &Path,
        owner: Ownership,
    ) -> Result<Hinted<F::Node>> {
        match fs.create_laid_out(directory, temporary, owner, &self.hint.layout) {
            Ok(node) => Ok(Hinted::Made(node)),
            Err(error) if is_of_layout(error.errno) => {
                remove_temporary(fs, directory, temporary)?;
                Ok(Hinted::Forgone(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes note that a file with the layout could not be written whole for lack of space.
    pub(crate) fn filled(&self, now: Duration) {
        self.lock().resume_at = now + FULL_PAUSE;
    }

    /// Tells of a file, whose path on the target this is, that is there without its layout.
    pub(crate) fn complain(&self, now: Duration, target: &Path, error: FsError) {
        if self.is_news(now, error.errno) {
            tracing::warn!(
                "target {target:?} could not get {}: {error}; it and others like it are delivered \
                 without; told of again in {} min at the earliest",
                self.hint.layout,
                COMPLAINT_PERIOD.as_secs() / 60
            );
        }
    }

    fn is_news(&self, now: Duration, errno: Errno) -> bool {
        let mut memory = self.lock();
        match memory.told.iter_mut().find(|(known, _)| *known == errno) {
            Some((_, at)) if now < *at + COMPLAINT_PERIOD => false,
            Some((_, at)) => {
                *at = now;
                true
            }
            None => {
                memory.told.push((errno, now));
                true
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        // What it guards is changed in single steps; a panic elsewhere leaves it whole.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether lack of space may be that of the layout's pool, or of one OST out of many.
pub(crate) fn is_lack_of_space(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT)
}

/// Whether a failure to make a file may be due to its layout, so that it is made without. A target
/// that is down has another class, and a name that is taken is not ours to remove.
fn is_of_layout(errno: Errno) -> bool {
    let elsewhere =
        matches!(classify(Side::Target, errno), FailureClass::Target | FailureClass::Passing);
    is_lack_of_space(errno) || !elsewhere && errno != Errno::EXIST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::layout::{Layout, StripeCount};

    fn striping() -> Striping {
        let layout = Layout { stripes: StripeCount::All, stripe_bytes: None, pool: None };
        Striping::new(StripeHint { above_bytes: 100, layout })
    }

    #[test]
    fn what_the_layout_may_have_done_is_told_from_what_the_target_does() {
        for errno in [
            Errno::INVAL,
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::TOOBIG,
            Errno::NOTTY,
            Errno::OPNOTSUPP,
            Errno::NOSYS,
            Errno::from_raw_os_error(524),
        ] {
            assert!(is_of_layout(errno), "{errno}");
        }
        for errno in [
            Errno::NOTCONN,
            Errno::SHUTDOWN,
            Errno::IO,
            Errno::STALE,
            Errno::TIMEDOUT,
            Errno::ROFS,
            Errno::MFILE,
            Errno::INTR,
            Errno::EXIST,
        ] {
            assert!(!is_of_layout(errno), "{errno}");
        }
    }

    #[test]
    fn each_kind_of_failure_is_told_of_once_in_a_while() {
        let striping = striping();
        let second = Duration::from_secs(1);
        assert!(striping.is_news(second, Errno::INVAL));
        assert!(striping.is_news(second, Errno::NOSPC));
        assert!(!striping.is_news(COMPLAINT_PERIOD, Errno::INVAL));
        assert!(striping.is_news(second + COMPLAINT_PERIOD, Errno::INVAL));
        assert!(!striping.is_news(COMPLAINT_PERIOD * 2, Errno::INVAL));
    }

    #[test]
    fn the_size_decides_but_not_while_the_pool_is_full() {
        let striping = striping();
        let now = Duration::from_secs(5);
        assert!(striping.applies(100, now) && !striping.applies(99, now));
        striping.filled(now);
        assert!(!striping.applies(100, now) && !striping.applies(1 << 40, now));
        assert!(striping.applies(100, now + FULL_PAUSE));
    }
}
