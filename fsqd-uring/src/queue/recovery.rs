//! Finds the staged files that memory does not know: at the start, and when the queue overflowed.
//!
//! It walks the staging tree beside the running daemon and offers what is complete to the queue,
//! which knows what it has already. Nothing is removed but, at the start, what was never
//! acknowledged: files of ours without their seal or with another length than it says.
//!
//! Invariant: a file that may have been acknowledged is never removed here; what is at its
//! destination is freed by the holder of its ticket like any other, never by the scan, which could
//! meet a new file under the old name.

use std::path::{Path, PathBuf};

use super::record::{FileState, Record, RecordError};
use super::route::{ArchiveMode, Route, first, route};
use super::staged::StagingTree;
use super::{Admission, Chore, Queue, Sighting, Stage};
use crate::clock::Clock;
use crate::fs::{Access, Fs, Kind};

/// The daemon's own directory in the staging root.
const PRIVATE: &str = ".fsqd";

/// Why the tree is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The daemon has just started: leftovers go, what was omitted gets a fresh chance.
    Start,
    /// The queue has room again for files that it turned away.
    Refill,
}

/// What a scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Offered to the queue and taken in.
    pub queued: u64,
    /// Already in the queue.
    pub known: u64,
    /// Stay on staging as their destination.
    pub kept: u64,
    /// Wait for a daemon with an archive.
    pub held: u64,
    /// Given up in this run or, at a start, given a fresh chance.
    pub omitted: u64,
    /// Staged by the old daemon, and taken over.
    pub taken_over: u64,
    /// Never acknowledged, and removed.
    pub removed: u64,
    /// Not of the queue: files without our attributes, links, devices.
    pub foreign: u64,
    /// Could not be read or understood.
    pub failed: u64,
    /// The queue has turned files away: the scan will be repeated.
    pub overflowed: bool,
    /// One of the foreign ones.
    pub foreign_example: Option<PathBuf>,
}

/// What became of one file.
enum Found {
    Offered(Admission),
    Kept,
    Held,
    Omitted,
    Removed,
    Foreign,
    Gone,
    Failed,
}

/// Keeps house until the queue is closed: scans at the start and whenever the queue has room for
/// what it turned away, and reports workers that hang. For a thread of its own, since it is the one
/// that must not hang with them: it touches staging only.
pub fn keep_house<F: Fs, C: Clock>(tree: &StagingTree<F>, queue: &Queue<C>, mode: ArchiveMode) {
    scan(tree, queue, mode, Scan::Start);
    while let Some(chore) = queue.next_chore() {
        match chore {
            Chore::Rescan => {
                scan(tree, queue, mode, Scan::Refill);
            }
            Chore::Report(sighting) => report(sighting),
        }
    }
}

fn report(sighting: Sighting) {
    let whose = |stage| match stage {
        Stage::Copy => "target",
        Stage::Archive => "archive",
    };
    match sighting {
        Sighting::Hung { stage, silent, workers, named } => {
            let names: Vec<_> = named.iter().map(ToString::to_string).collect();
            tracing::warn!(
                "{} has not answered for {} s, {workers} workers wait for it: {}{}",
                whose(stage),
                silent.as_secs(),
                names.join(", "),
                if named.len() < workers { ", ..." } else { "" }
            );
        }
        Sighting::Over { stage } => tracing::info!("{} answers again", whose(stage)),
    }
}

/// Scans the whole tree and logs what it found.
///
/// Memory: the names of the directories on the way down, and of one directory's entries.
pub fn scan<F: Fs, C: Clock>(
    tree: &StagingTree<F>,
    queue: &Queue<C>,
    mode: ArchiveMode,
    why: Scan,
) -> Summary {
    let mut summary = Summary::default();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        if is_over(queue, why) {
            break;
        }
        let entries = tree
            .fs()
            .directory(tree.root(), &directory, None, false)
            .and_then(|node| tree.fs().entries(&node));
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!("cannot read staging directory {directory:?}: {error}");
                summary.failed += 1;
                continue;
            }
        };
        for (name, kind) in entries {
            if is_over(queue, why) {
                break;
            }
            let path = directory.join(&name);
            match kind {
                Kind::Directory if path == Path::new(PRIVATE) => {}
                Kind::Directory => directories.push(path),
                Kind::File => {
                    let found = look(tree, queue, mode, why, &path, &mut summary);
                    summary.count(found, path);
                }
                Kind::Other => summary.count(Found::Foreign, path),
            }
        }
    }
    summary.log(why);
    summary
}

/// Whether the rest of the tree is of no interest. At a start everything is looked at, whatever the
/// queue holds: only then do leftovers go and the omitted get their fresh chance.
fn is_over<C: Clock>(queue: &Queue<C>, why: Scan) -> bool {
    queue.is_closing() || why == Scan::Refill && !queue.is_seeking()
}

fn look<F: Fs, C: Clock>(
    tree: &StagingTree<F>,
    queue: &Queue<C>,
    mode: ArchiveMode,
    why: Scan,
    path: &Path,
    summary: &mut Summary,
) -> Found {
    let node = match tree.fs().open(tree.root(), path, Access::Read) {
        Ok(node) => node,
        // Freed since its directory was read.
        Err(error) if error.errno == rustix::io::Errno::NOENT => return Found::Gone,
        Err(error) => return failed(path, &error),
    };
    let mut record = match Record::load(tree.fs(), &node) {
        Ok(Some(record)) => record,
        Ok(None) => return Found::Foreign,
        Err(error @ RecordError::Unsealed { .. }) => return leftover(tree, why, path, &error),
        Err(error) => return failed(path, &error),
    };
    if let Some(content) = &record.content
        && record.state == FileState::LocalCopyDone
    {
        match tree.fs().stat(&node) {
            Ok(stat) if stat.len != content.len => {
                let reason = format!("it has {} bytes of {}", stat.len, content.len);
                return leftover(tree, why, path, &reason);
            }
            Ok(_) => {}
            Err(error) => return failed(path, &error),
        }
    }
    let mut next = route(&record, mode);
    if next == Route::Omitted && why == Scan::Start {
        if let Err(error) = record.set_state(tree.fs(), &node, FileState::LocalCopyDone) {
            return failed(path, &error);
        }
        summary.omitted += 1;
        next = first(record.dest, mode);
    }
    match (next.lane(record.dest), next) {
        (Some((stage, phase)), _) => {
            let admission = queue.enqueue(path, stage, phase);
            if record.content.is_none() && admission == Admission::Queued {
                summary.taken_over += 1;
            }
            Found::Offered(admission)
        }
        (None, Route::Hold) => Found::Held,
        (None, Route::Omitted) => Found::Omitted,
        (None, _) => Found::Kept,
    }
}

/// A file of ours that was never acknowledged. Removed at the start only: later, everything under a
/// name has been completed in this run.
fn leftover<F: Fs>(
    tree: &StagingTree<F>,
    why: Scan,
    path: &Path,
    reason: &dyn std::fmt::Display,
) -> Found {
    if why != Scan::Start {
        return failed(path, reason);
    }
    match tree.remove(path) {
        Ok(()) => {
            tracing::info!("removed {path:?}, which was never acknowledged: {reason}");
            Found::Removed
        }
        Err(error) => failed(path, &error),
    }
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> Found {
    tracing::error!("cannot take up staged file {path:?}: {reason}; it is left where it is");
    Found::Failed
}

impl Summary {
    fn count(&mut self, found: Found, path: PathBuf) {
        match found {
            Found::Offered(Admission::Queued) => self.queued += 1,
            Found::Offered(Admission::Known) => self.known += 1,
            Found::Offered(Admission::Overflow) => self.overflowed = true,
            Found::Kept => self.kept += 1,
            Found::Held => self.held += 1,
            Found::Omitted => self.omitted += 1,
            Found::Removed => self.removed += 1,
            Found::Foreign => {
                self.foreign += 1;
                self.foreign_example.get_or_insert(path);
            }
            Found::Gone => {}
            Found::Failed => self.failed += 1,
        }
    }

    fn log(&self, why: Scan) {
        let Self { queued, known, kept, held, omitted, taken_over, removed, failed, .. } = self;
        let more = if self.overflowed { ", more on disk than the queue holds" } else { "" };
        tracing::info!(
            "scan of staging: {queued} queued ({taken_over} of the old daemon, {omitted} omitted \
             before), {known} known, {kept} kept, {held} waiting for an archive, {removed} removed, \
             {failed} failed{more}"
        );
        if why == Scan::Refill {
            return;
        }
        if let Some(example) = &self.foreign_example {
            tracing::warn!(
                "{} files on staging are none of the queue's and left alone, for example {example:?}",
                self.foreign
            );
        }
        if self.held > 0 {
            tracing::warn!(
                "{} files on staging want an archive and this daemon has none: they are kept; start \
                 it with --archive to move them on",
                self.held
            );
        }
    }
}

#[cfg(test)]
mod tests;
