//! [`HsmArchive`]: Lustre's own copytools archive the files, from their copy on the target.
//!
//! Lustre takes requests, up to fifty in a call, and tells nobody when they have ended; so each file
//! is handed over once and then looked at until it is archived (`watch`). A request is never
//! repeated blindly: since Lustre 2.14 a second one for a file is queued beside the first, and two
//! copies of one file at a time spoil each other.
//!
//! Only a file that is ARCHIVED, neither DIRTY nor LOST, and in the archive that was asked for is
//! confirmed. What a file is on the target is found beneath the target's root without following
//! symlinks, so that nobody can have another file looked at in its place.
//!
//! Invariant: a request is sent only for a file of which the coordinator has none: it was never
//! asked for, or its queue was looked at.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tsm_bindings::lustre::{Action, Cause, Error, Fid, FileState, Lustre, Mount, sys};

use self::watch::{Next, Watches};
use super::{Archive, ArchiveItem, Verdict};
use crate::clock::Clock;
use crate::fs::linux::{LinuxFs, LinuxNode};
use crate::fs::{Access, Fs};
use crate::queue::{Failure, FailureClass, Side};

mod watch;

/// A Lustre file system with HSM, as all archive threads use it.
pub struct Hsm {
    lustre: &'static Lustre,
    mount: Mount,
    root: PathBuf,
    watches: Watches,
    clock: Arc<dyn Clock>,
}

impl Hsm {
    /// The file system `mount`, with the target's `root` in it (absolute, without symlinks).
    #[must_use]
    pub fn new(
        lustre: &'static Lustre,
        mount: Mount,
        root: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self { lustre, mount, root, watches: Watches::default(), clock })
    }

    /// Absolute path of a file, for the calls that know nothing else.
    fn path(&self, item: &ArchiveItem<'_>) -> PathBuf {
        item.target.map_or_else(|| self.root.clone(), |target| self.root.join(target))
    }
}

/// A session of one thread.
pub struct HsmArchive {
    hsm: Arc<Hsm>,
}

/// A file as it is found on the target.
struct Found {
    fid: Fid,
    state: FileState,
}

impl HsmArchive {
    /// A session.
    #[must_use]
    pub fn new(hsm: Arc<Hsm>) -> Self {
        Self { hsm }
    }

    fn find(&self, item: &ArchiveItem<'_>) -> Result<Found, Failure> {
        let node = self.open(item)?;
        let fid = self.hsm.lustre.fid_of(&node).map_err(|error| failure(item, &error))?;
        let state = self.hsm.lustre.state_of(&node).map_err(|error| failure(item, &error))?;
        Ok(Found { fid, state })
    }

    fn open(&self, item: &ArchiveItem<'_>) -> Result<LinuxNode, Failure> {
        let Some(target) = item.target else {
            let text = format!("{:?} has no place on the target", item.record.fpath);
            return Err(Failure::new(FailureClass::Permanent, text));
        };
        let root = LinuxFs.open_root(&self.hsm.root).map_err(|error| {
            Failure::new(FailureClass::Target, format!("target {:?}: {error}", self.hsm.root))
        })?;
        let node =
            LinuxFs.open(&root, target, Access::Read).map_err(|error| match error.errno {
                Errno::NOENT => self.missing(target),
                _ => Failure::call(
                    Side::Target,
                    format_args!("copy {target:?} on the target"),
                    error,
                ),
            })?;
        let stat = LinuxFs.stat(&node).map_err(|error| {
            Failure::call(Side::Target, format_args!("copy {target:?} on the target"), error)
        })?;
        match item.record.content {
            Some(content) if content.len != stat.len => {
                let text = format!(
                    "copy {target:?} on the target has {} bytes, {} were written: somebody has \
                     changed it",
                    stat.len, content.len
                );
                Err(Failure::new(FailureClass::File, text))
            }
            _ => Ok(node),
        }
    }

    /// Without its mount the target is an empty directory: that is nothing against a file.
    fn missing(&self, target: &Path) -> Failure {
        match self.hsm.lustre.mount_of(&self.hsm.root) {
            Ok(mount) if mount == self.hsm.mount => {
                let text = format!(
                    "copy {target:?} is not on the target any more: somebody has removed it; at \
                     the next start of the daemon it is copied again"
                );
                Failure::new(FailureClass::File, text)
            }
            _ => {
                let text = format!("Lustre is not mounted on {:?}", self.hsm.mount.directory);
                Failure::new(FailureClass::Target, text)
            }
        }
    }

    /// Whether there is a request to archive the file.
    fn is_queued(&self, item: &ArchiveItem<'_>) -> Result<bool, Failure> {
        let action = self.hsm.lustre.current_action(&self.hsm.path(item));
        let action = action.map_err(|error| failure(item, &error))?;
        Ok(action.is_some_and(|action| action.action == Some(Action::Archive)))
    }

    /// The file, if a request is to be sent for it.
    fn admit(&self, item: &ArchiveItem<'_>, again: bool) -> Result<Fid, Verdict> {
        let Found { fid, state } = self.find(item)?;
        if let Some(verdict) = decided(item, state) {
            return Err(verdict);
        }
        // EXISTS: a copytool has had it before, with whatever success.
        if (again || state.flags.has(sys::HS_EXISTS)) && self.is_queued(item)? {
            let check_after = self.hsm.watches.requested(fid, self.hsm.clock.now());
            return Err(Verdict::Pending { check_after });
        }
        Ok(fid)
    }

    fn request(&self, item: &ArchiveItem<'_>, files: &[Fid]) -> Result<Duration, Error> {
        let Hsm { lustre, mount, watches, clock, .. } = &*self.hsm;
        lustre.request(&mount.directory, Action::Archive, archive_id(item), files)?;
        let now = clock.now();
        let delays = files.iter().map(|&fid| watches.requested(fid, now));
        Ok(delays.max().unwrap_or_default())
    }

    /// Files of one archive id, in one call. Where that fails nobody knows which are queued: then
    /// each is looked at, and asked for alone.
    fn submit(&self, group: &[(usize, &ArchiveItem<'_>, Fid)], verdicts: &mut [Option<Verdict>]) {
        let Some(&(_, first, _)) = group.first() else { return };
        let files: Vec<_> = group.iter().map(|&(.., fid)| fid).collect();
        let error = match self.request(first, &files) {
            Ok(check_after) => {
                for &(index, ..) in group {
                    verdicts[index] = Some(Verdict::Pending { check_after });
                }
                return;
            }
            Err(error) => error,
        };
        if let [(index, item, _)] = group {
            verdicts[*index] = Some(refused(item, &error).into());
            return;
        }
        tracing::warn!("{error}: {} files are asked for one by one", group.len());
        let mut down = None;
        for &(index, item, _) in group {
            let verdict = down.clone().unwrap_or_else(|| self.submit_alone(item));
            if matches!(verdict, Verdict::Failed { class: FailureClass::Target, .. }) {
                down = Some(verdict.clone());
            }
            verdicts[index] = Some(verdict);
        }
    }

    fn submit_alone(&self, item: &ArchiveItem<'_>) -> Verdict {
        match self.admit(item, true) {
            Err(verdict) => verdict,
            Ok(fid) => match self.request(item, &[fid]) {
                Ok(check_after) => Verdict::Pending { check_after },
                Err(error) => refused(item, &error).into(),
            },
        }
    }

    fn look(&self, item: &ArchiveItem<'_>) -> Result<Verdict, Failure> {
        let Hsm { watches, clock, .. } = &*self.hsm;
        let Found { fid, state } = self.find(item)?;
        if let Some(verdict) = decided(item, state) {
            watches.forget(fid);
            return Ok(verdict);
        }
        let now = clock.now();
        let queued = watches.asks(fid, now).then(|| self.is_queued(item)).transpose()?;
        Ok(match watches.looked(fid, now, queued) {
            Next::Look(check_after) => Verdict::Pending { check_after },
            // It stands in RUN since before a crash, but was not asked for.
            Next::Gone { requested: false } if !state.flags.has(sys::HS_EXISTS) => Verdict::Missing,
            Next::Gone { .. } => Verdict::Failed {
                class: FailureClass::File,
                text: format!(
                    "the request to archive {:?} has ended without a good copy (HSM state {:?}); \
                     the copytool's log says why",
                    item.staging, state.flags
                ),
            },
        })
    }
}

impl Archive for HsmArchive {
    fn batch_max(&self) -> usize {
        Lustre::FILES_PER_REQUEST_MAX
    }

    fn must_not_repeat(&self) -> bool {
        true
    }

    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict> {
        let mut verdicts = vec![None; batch.len()];
        let mut ready = Vec::with_capacity(batch.len());
        for (index, item) in batch.iter().enumerate() {
            match self.admit(item, item.again) {
                Ok(fid) => ready.push((index, item, fid)),
                Err(verdict) => verdicts[index] = Some(verdict),
            }
        }
        ready.sort_by_key(|(_, item, _)| archive_id(item));
        for group in
            ready.chunk_by(|(_, one, _), (_, other, _)| archive_id(one) == archive_id(other))
        {
            for group in group.chunks(Lustre::FILES_PER_REQUEST_MAX) {
                self.submit(group, &mut verdicts);
            }
        }
        let verdicts = verdicts.into_iter();
        verdicts.map(|verdict| verdict.expect("each is refused, queued or failed")).collect()
    }

    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict {
        self.look(item).unwrap_or_else(Verdict::from)
    }
}

/// The archive that the file is to go to; 0 is the file system's default.
fn archive_id(item: &ArchiveItem<'_>) -> u32 {
    u32::try_from(item.record.archive_id).unwrap_or(0)
}

/// What the state of a file says for good, whoever asked for it.
fn decided(item: &ArchiveItem<'_>, state: FileState) -> Option<Verdict> {
    let wanted = archive_id(item);
    let elsewhere = state.flags.has(sys::HS_EXISTS) && wanted != 0 && state.archive_id != wanted;
    let text = if elsewhere {
        format!(
            "{:?} has a copy in archive {} and belongs into archive {wanted}; Lustre does not move \
             it: remove that copy (lfs hsm_remove)",
            item.staging, state.archive_id
        )
    } else if state.flags.is_archived() {
        return Some(Verdict::Confirmed);
    } else if state.flags.has(sys::HS_NOARCHIVE) {
        format!("{:?} is marked as never to be archived (lfs hsm_clear --noarchive)", item.staging)
    } else {
        return None;
    };
    Some(Verdict::Failed { class: FailureClass::Permanent, text })
}

fn failure(item: &ArchiveItem<'_>, error: &Error) -> Failure {
    let class = match error.cause() {
        Cause::NotLustre | Cause::Denied | Cause::Later => FailureClass::Target,
        Cause::Gone | Cause::TooMany | Cause::Other => FailureClass::File,
    };
    Failure::new(class, format!("HSM of {:?}: {error}", item.staging))
}

/// A refused request. That this file must not be archived has been ruled out before.
fn refused(item: &ArchiveItem<'_>, error: &Error) -> Failure {
    let mut failure = failure(item, error);
    if error.cause() == Cause::Denied {
        failure.text.push_str(
            "; run fsqd as root, or let its user in on the servers (mdt.*.hsm.user_request_mask)",
        );
    }
    failure
}
