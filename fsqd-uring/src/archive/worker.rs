//! [`ArchiveWorker`]: brings staged files to an [`Archive`] and does what it says of them.
//!
//! Invariant: a file is in TSM_ARCHIVE_RUN before the archive hears of it. So after a crash it is
//! asked about first, and handed over again only if the archive knows nothing of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::{Archive, ArchiveItem, Verdict};
use crate::clock::Clock;
use crate::fs::Fs;
use crate::path::target_path;
use crate::queue::record::{FileState, Record};
use crate::queue::route::{ArchiveMode, Route, route};
use crate::queue::staged::StagingTree;
use crate::queue::{Failure, Outcome, Phase, Pulse, Queue, Side, Stage, Ticket};

/// Up to so many files are synced one by one.
const FEW: usize = 2;

/// What the workers share.
pub struct Pool<F: Fs, C: Clock> {
    /// Where files come from.
    pub tree: Arc<StagingTree<F>>,
    /// Who decides which and when.
    pub queue: Arc<Queue<C>>,
    /// What the archive takes files from; not [`ArchiveMode::Off`].
    pub mode: ArchiveMode,
    /// Absolute path of the target's root.
    pub target: PathBuf,
}

/// See the module's description.
pub struct ArchiveWorker<F: Fs, C: Clock, A: Archive> {
    pool: Arc<Pool<F, C>>,
    archive: A,
    pulse: Arc<Pulse>,
}

/// A file that is ready for the archive.
struct Item<'a, N> {
    ticket: &'a Ticket,
    node: N,
    record: Record,
    target: Option<PathBuf>,
    len: u64,
    again: bool,
}

impl<F: Fs, C: Clock, A: Archive> ArchiveWorker<F, C, A> {
    /// A worker with its own session.
    pub fn new(pool: Arc<Pool<F, C>>, mut archive: A) -> Self {
        let pulse = pool.queue.register(Stage::Archive);
        archive.report_to(Arc::clone(&pulse));
        Self { pool, archive, pulse }
    }

    /// Works until the queue is closed.
    pub fn run(mut self) {
        while let Some(tickets) = self.pool.queue.take(Stage::Archive, self.archive.batch_max()) {
            self.work(&tickets);
        }
    }

    /// Attempts a batch, or asks about one file, and gives the tickets back.
    pub fn work(&mut self, tickets: &[Ticket]) {
        self.pulse.begin(tickets, self.pool.queue.clock().now());
        let mut items = Vec::with_capacity(tickets.len());
        let mut bytes = 0_u64;
        for ticket in tickets {
            if bytes >= self.archive.batch_bytes() {
                self.pool.queue.finished(ticket, Outcome::Interrupted);
                continue;
            }
            match self.prepare(ticket) {
                Ok(item) => {
                    bytes = bytes.saturating_add(item.len);
                    items.push(item);
                }
                Err(outcome) => self.pool.queue.finished(ticket, outcome),
            }
        }
        if let Err(failure) = self.remember(&items) {
            for Item { ticket, node, record, .. } in &mut items {
                let file = Some((&*node, record));
                let outcome = self.pool.tree.settle(&self.pool.queue, ticket, file, &failure);
                self.pool.queue.finished(ticket, outcome);
            }
            return self.pulse.rest();
        }
        self.beat();
        let verdicts = self.ask(&items);
        self.beat();
        for (item, verdict) in items.iter_mut().zip(verdicts) {
            let outcome = self.conclude(item, verdict);
            self.pool.queue.finished(item.ticket, outcome);
        }
        self.pulse.rest();
    }

    /// Opens a file and puts it into RUN; or what else is to become of it.
    fn prepare<'a>(&self, ticket: &'a Ticket) -> Result<Item<'a, F::Node>, Outcome> {
        let Pool { tree, queue, mode, target } = &*self.pool;
        let path = &ticket.path;
        let settle = |failure: Failure| tree.settle(queue, ticket, None, &failure);
        let Some(staged) = tree.open_buffered(path).map_err(settle)? else {
            tracing::debug!("{path:?} is not on staging any more");
            return Err(Outcome::Left);
        };
        let Some(mut record) = tree.record(path, &staged.node).map_err(settle)? else {
            tracing::warn!("{path:?} has no attributes of the queue any more: left alone");
            return Err(Outcome::Left);
        };
        match (route(&record, *mode), ticket.phase) {
            (Route::Archive(_), _) => {}
            (Route::Copy, _) => return Err(Outcome::Moved(Stage::Copy, Phase::Submit)),
            (Route::Free, _) => {
                return Err(match tree.free(path) {
                    Ok(()) => Outcome::Left,
                    Err(failure) => settle(failure),
                });
            }
            (Route::Keep | Route::Hold | Route::Omitted, _) => return Err(Outcome::Left),
        }
        let fresh = matches!(record.state, FileState::LocalCopyDone | FileState::LustreCopyDone);
        let again = !fresh || ticket.errors > 0;
        let prepared = tree.check_len(path, &staged.node, &record).and_then(|stat| {
            // Only what the old daemon left as done, and is asked about, cannot become RUN.
            if record.state.may_become(FileState::TsmArchiveRun) {
                tree.set_state(path, (&staged.node, &mut record), FileState::TsmArchiveRun)?;
            }
            Ok(stat.len)
        });
        let len = match prepared {
            Ok(len) => len,
            Err(failure) => {
                let file = Some((&staged.node, &mut record));
                return Err(tree.settle(queue, ticket, file, &failure));
            }
        };
        let target = target_path(target, &record.fs, &record.fpath);
        Ok(Item { ticket, node: staged.node, record, target, len, again })
    }

    /// Puts the states that [`Self::prepare`] has set on disk, if it matters. Many in one: each file's
    /// own sync would cost as much. A few by themselves: what else is under way stays out of it.
    fn remember(&self, items: &[Item<'_, F::Node>]) -> Result<(), Failure> {
        if !self.archive.must_not_repeat() || items.iter().all(|item| item.again) {
            return Ok(());
        }
        let tree = &self.pool.tree;
        let synced = if items.len() > FEW {
            tree.fs().sync_all(tree.root())
        } else {
            items.iter().try_for_each(|item| tree.fs().sync(&item.node))
        };
        synced.map_err(|error| {
            Failure::call(Side::Staging, "states of files that are to be archived", error)
        })
    }

    /// A batch is handed over; what is to be asked about comes alone.
    fn ask(&mut self, items: &[Item<'_, F::Node>]) -> Vec<Verdict> {
        let batch: Vec<_> = items
            .iter()
            .map(|item| ArchiveItem {
                staging: &item.ticket.path,
                target: item.target.as_ref(),
                record: &item.record,
                again: item.again,
            })
            .collect();
        let verdicts = match (batch.as_slice(), items.first().map(|item| item.ticket.phase)) {
            (_, None) => Vec::new(),
            ([item], Some(Phase::Confirm)) => vec![self.archive.confirm(item)],
            (batch, Some(_)) => self.archive.archive(batch),
        };
        assert_eq!(verdicts.len(), items.len(), "an archive gives one verdict for each file");
        verdicts
    }

    fn conclude(&self, item: &mut Item<'_, F::Node>, verdict: Verdict) -> Outcome {
        let Pool { tree, queue, .. } = &*self.pool;
        let path = &item.ticket.path;
        let failure = match verdict {
            Verdict::Pending { check_after } => return Outcome::CheckAfter(check_after),
            Verdict::Missing if item.ticket.phase == Phase::Confirm => {
                return Outcome::Moved(Stage::Archive, Phase::Submit);
            }
            Verdict::Missing => Failure::new(
                crate::queue::FailureClass::File,
                "the archive took it and does not know it",
            ),
            Verdict::Failed { class, text } => Failure::new(class, text),
            Verdict::Confirmed => {
                let done = tree
                    .set_state(path, (&item.node, &mut item.record), FileState::TsmArchiveDone)
                    .and_then(|()| {
                        tracing::info!("archived {path:?} (archive id {})", item.record.archive_id);
                        tree.free(path)
                    });
                match done {
                    Ok(()) => return Outcome::Done,
                    Err(failure) => failure,
                }
            }
        };
        tree.settle(queue, item.ticket, Some((&item.node, &mut item.record)), &failure)
    }

    fn beat(&self) {
        self.pulse.beat(self.pool.queue.clock().now());
    }
}

/// Starts the thread of worker number `index`; `make` runs on that thread.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn<F, C, A>(
    index: usize,
    make: impl FnOnce() -> ArchiveWorker<F, C, A> + Send + 'static,
) -> std::io::Result<JoinHandle<()>>
where
    F: Fs,
    C: Clock,
    A: Archive,
{
    let name = format!("fsq_archive/{index}");
    let handle = Builder::new().name(name.clone()).spawn(move || make().run())?;
    tracing::info!("created archive thread {name}");
    Ok(handle)
}
