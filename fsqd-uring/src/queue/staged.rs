//! The staging tree as those see it who move files out of it.
//!
//! Invariant: a file is freed only here, by the one holder of its ticket, after the state that
//! permits it has been read from or written to its attributes.

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::failure::{Failure, FailureClass, Side};
use super::record::{Content, FileState, Record, seal};
use super::scheduler::{Outcome, Ticket};
use super::{Queue, Stage};
use crate::clock::Clock;
use crate::fs::{Access, Fs, FsError, Kind, Stat};

/// A staged file, open for reading.
#[derive(Debug)]
pub struct Staged<N> {
    /// The file.
    pub node: N,
    /// It was opened O_DIRECT.
    pub direct: bool,
}

/// Hears of it when space is freed on staging; must not block.
pub type Notice = dyn Fn() + Send + Sync;

/// The staging file system from its root.
pub struct StagingTree<F: Fs> {
    fs: Arc<F>,
    root: F::Node,
    freed: Box<Notice>,
}

impl<F: Fs> std::fmt::Debug for StagingTree<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagingTree").field("root", &self.root).finish_non_exhaustive()
    }
}

impl<F: Fs> StagingTree<F> {
    /// The tree below `root`.
    pub fn new(fs: Arc<F>, root: F::Node) -> Self {
        Self { fs, root, freed: Box::new(|| {}) }
    }

    /// The same, and `freed` hears of every file that is freed.
    #[must_use]
    pub fn with_notice(self, freed: Box<Notice>) -> Self {
        Self { freed, ..self }
    }

    /// Its file system.
    pub fn fs(&self) -> &F {
        &self.fs
    }

    /// Its root.
    pub fn root(&self) -> &F::Node {
        &self.root
    }

    /// Opens a file past the page cache where the file system can; `None` if it is not there.
    ///
    /// # Errors
    /// As the class says.
    pub fn open(&self, path: &Path) -> Result<Option<Staged<F::Node>>, Failure> {
        match self.fs.open(&self.root, path, Access::ReadDirect) {
            Ok(node) => Ok(Some(Staged { node, direct: true })),
            // Some file systems have no O_DIRECT (tmpfs before Linux 6.6).
            Err(FsError { errno: Errno::INVAL, .. }) => self.open_buffered(path),
            Err(error) => absent_or(path, error),
        }
    }

    /// Opens a file through the page cache; `None` if it is not there.
    ///
    /// # Errors
    /// As the class says.
    pub fn open_buffered(&self, path: &Path) -> Result<Option<Staged<F::Node>>, Failure> {
        match self.fs.open(&self.root, path, Access::Read) {
            Ok(node) => Ok(Some(Staged { node, direct: false })),
            Err(error) => absent_or(path, error),
        }
    }

    /// What its attributes say; `None` if it has none of ours.
    ///
    /// # Errors
    /// They cannot be read or make no sense.
    pub fn record(&self, path: &Path, node: &F::Node) -> Result<Option<Record>, Failure> {
        Record::load(self.fs(), node)
            .map_err(|error| Failure::new(FailureClass::Staging, format!("{path:?}: {error}")))
    }

    /// Records how far a file has come.
    ///
    /// # Errors
    /// As the class says; or the step is not one of [`FileState::may_become`].
    pub fn set_state(
        &self,
        path: &Path,
        staged: (&F::Node, &mut Record),
        next: FileState,
    ) -> Result<(), Failure> {
        let (node, record) = staged;
        record
            .set_state(self.fs(), node, next)
            .map_err(|error| Failure::new(FailureClass::Staging, format!("{path:?}: {error}")))
    }

    /// Completes the record of a file that the old daemon has staged and this one has copied: from
    /// now on its content is known and its state is this daemon's word.
    ///
    /// # Errors
    /// As the class says.
    pub fn adopt(
        &self,
        path: &Path,
        staged: (&F::Node, &mut Record),
        content: Content,
    ) -> Result<(), Failure> {
        let (node, record) = staged;
        let state = FileState::LustreCopyDone;
        seal(self.fs(), node, content, state)
            .map_err(|error| Failure::new(FailureClass::Staging, format!("{path:?}: {error}")))?;
        record.content = Some(content);
        record.state = state;
        Ok(())
    }

    /// Removes a staging copy whose destination is safe. Its directories stay, as they always have.
    ///
    /// Not synced: should the name come back after a power loss, its state says that it may go.
    ///
    /// # Errors
    /// As the class says; that it is gone already is none.
    pub fn free(&self, path: &Path) -> Result<(), Failure> {
        match self.remove(path) {
            Ok(()) | Err(FsError { errno: Errno::NOENT, .. }) => {
                (self.freed)();
                Ok(())
            }
            Err(error) => {
                Err(Failure::call(Side::Staging, format_args!("free staging copy {path:?}"), error))
            }
        }
    }

    pub(crate) fn remove(&self, path: &Path) -> crate::fs::Result<()> {
        let (parent, name) = split(path);
        let directory = self.fs.directory(&self.root, parent, None, false)?;
        self.fs.remove(&directory, name)
    }

    /// Deals with a failed attempt: records it, logs it, and says whether the file is tried again.
    pub fn settle<C: Clock>(
        &self,
        queue: &Queue<C>,
        ticket: &Ticket,
        staged: Option<(&F::Node, &mut Record)>,
        failure: &Failure,
    ) -> Outcome {
        let path = &ticket.path;
        let gives_up = queue.gives_up(failure.class, ticket.errors);
        // An archive that is down has not failed this file: what was asked of it may still be done,
        // so a file in RUN stays there and is asked about, not handed over again.
        let records = failure.class.is_counted() || gives_up;
        if let Some(staged) = staged
            && records
            && let Err(error) = self.record_failure(ticket, staged, gives_up)
        {
            tracing::error!("failure of {path:?} not recorded: {error}");
        }
        let verb = match ticket.stage {
            Stage::Copy => "copy",
            Stage::Archive => "archive",
        };
        if gives_up {
            let errors = ticket.errors.saturating_add(1);
            tracing::error!(
                "omitted {path:?}: cannot {verb}, {errors} errors, the last: {failure}; it stays on \
                 staging and is tried again at the next start"
            );
            return Outcome::Left;
        }
        match failure.class {
            FailureClass::Staging => tracing::error!("cannot {verb} {path:?}: {failure}"),
            FailureClass::Target if ticket.probe => {
                tracing::debug!("probe: cannot {verb} {path:?}: {failure}");
            }
            _ => tracing::warn!("cannot {verb} {path:?} yet: {failure}"),
        }
        Outcome::Failed(failure.class)
    }

    /// Takes the steps of the state machine that lead to ERROR, and on to OMITTED when given up.
    fn record_failure(
        &self,
        ticket: &Ticket,
        staged: (&F::Node, &mut Record),
        gives_up: bool,
    ) -> Result<(), Failure> {
        let (node, record) = staged;
        let (run, error) = match ticket.stage {
            Stage::Copy => (FileState::LustreCopyRun, FileState::LustreCopyError),
            Stage::Archive => (FileState::TsmArchiveRun, FileState::TsmArchiveError),
        };
        if !record.state.may_become(error) && record.state.may_become(run) {
            self.set_state(&ticket.path, (node, record), run)?;
        }
        // What the old daemon left as DONE and proves not to be has no way back to ERROR: it keeps
        // its state, and is looked at again after the next start all the same.
        if record.state.may_become(error) {
            self.set_state(&ticket.path, (node, record), error)?;
            if gives_up {
                self.set_state(&ticket.path, (node, record), FileState::FileOmitted)?;
            }
        }
        Ok(())
    }

    /// What a file is, its length being what its record says.
    ///
    /// # Errors
    /// It is not, or cannot be found out.
    pub fn check_len(&self, path: &Path, node: &F::Node, record: &Record) -> Result<Stat, Failure> {
        let stat = self
            .fs
            .stat(node)
            .map_err(|error| Failure::call(Side::Staging, format_args!("{path:?}"), error))?;
        if stat.kind != Kind::File {
            let text = format!("{path:?} on staging is not a regular file");
            return Err(Failure::new(FailureClass::Staging, text));
        }
        match &record.content {
            Some(content) if content.len != stat.len => {
                let text = format!(
                    "staging copy damaged: {path:?} has {} bytes, acknowledged were {}",
                    stat.len, content.len
                );
                Err(Failure::new(FailureClass::Staging, text))
            }
            _ => Ok(stat),
        }
    }
}

/// Directory and name of a path below a root.
pub(crate) fn split(path: &Path) -> (&Path, &Path) {
    let parent = path.parent().unwrap_or_else(|| Path::new(""));
    let name = path.file_name().map_or_else(|| Path::new(""), Path::new);
    (parent, name)
}

fn absent_or<T>(path: &Path, error: FsError) -> Result<Option<T>, Failure> {
    match error.errno {
        Errno::NOENT => Ok(None),
        _ => Err(Failure::call(Side::Staging, format_args!("open staging copy {path:?}"), error)),
    }
}
