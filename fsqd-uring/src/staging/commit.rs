//! COMMIT: from the last byte in memory to the acknowledgement.
//!
//! Invariant: nothing that is not complete is ever seen under a name; nothing is acknowledged that
//! a loss of power could take.
//!
//! # What a loss of power leaves
//!
//! The steps, in order, and what is found at the next start if the power goes right after one:
//!
//! 1. The rest of the data is written, the length is set, the record is sealed (checksum and
//!    length, then the state). The file has no name: the file system frees it.
//! 2. Only where the file system does not keep the order of changes (see
//!    [`super::root::Facts::ordered`]): the file is synced. It has no name still.
//! 3. The file is linked under its name. Either the name is lost, and the file with it, or it is
//!    there; then all of step 1 is there. With order, because ext4 and XFS put the link into their
//!    journal after the earlier changes of the inode (its length, its attributes, the conversion of
//!    its preallocated extents, made when an O_DIRECT write completes), and flush the device's
//!    cache before the journal's commit record, so the data itself is there too. Without it,
//!    because of step 2. The file was not acknowledged, but it is whole; it is drained or, when the
//!    client sends it again, found to exist.
//! 4. File and name are synced (see [`super::sync`]); directories made for it were synced
//!    when they were made. Only now the file goes to the drain and is acknowledged.
//!
//! `tests/e2e/power.rs` takes the power away from ext4 and XFS at many instants, on a device that
//! loses any part of what was not flushed: acknowledged files are all there, files that have got
//! their name are whole.
//!
//! Recovery does not have to trust this: a file of ours whose record has no seal, or whose length
//! is not the sealed one, was never acknowledged and can go; the checksum covers the content (ext4
//! without a journal keeps no order and looks like ext4).
//!
//! If the sync fails, nobody knows what is on the device, and a second sync could succeed without
//! having written it: the file is refused with EIO for good, and its name is taken away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fsq_wire::StorageDest;
use rustix::io::Errno;
use tracing::error;

use super::counters::count;
use super::files::Receiving;
use super::sync::{Named, sync_batch};
use super::{Port, Shared, Stop, refuse};
use crate::config::Durability;
use crate::fs::{Fs, FsError};
use crate::limits::BLOCK_BYTES;
use crate::path::Quoted;
use crate::queue::record::{Content, FileState, RecordError, seal};
use crate::refusal::Refusal;
use crate::ring::{Span, Token};
use crate::services::{Answer, StagedFile, Tail};

/// A file that is complete and has its name, and is not yet durable.
pub(super) struct Prepared<F: Fs> {
    file: Arc<Receiving<F>>,
    port: Arc<Port>,
    token: Token,
}

impl<F: Fs> Named<F> for Prepared<F> {
    fn file(&self) -> &F::Node {
        self.file.file()
    }

    fn directory(&self) -> &F::Node {
        self.file.directory()
    }

    fn path(&self) -> &std::path::Path {
        self.file.path()
    }
}

impl<F: Fs> Shared<F> {
    /// Steps 1 to 3. With [`Stop::NoSpace`] the file is still there and the commit can be tried
    /// again.
    pub(super) fn prepare(
        &self,
        port: &Arc<Port>,
        token: Token,
        staged: StagedFile,
        tail: Option<Tail>,
        content: Content,
    ) -> Result<Prepared<F>, Stop> {
        let file = self.files.find(staged.key).ok_or_else(refuse::unknown_file)?;
        let result = self.complete(port, &file, tail, content);
        if !matches!(result, Err(Stop::NoSpace)) {
            self.files.remove(staged.key);
        }
        result.map(|()| Prepared { file, port: Arc::clone(port), token })
    }

    fn complete(
        &self,
        port: &Port,
        file: &Receiving<F>,
        tail: Option<Tail>,
        content: Content,
    ) -> Result<(), Stop> {
        let fs = &*self.root.fs;
        let stop = |error| self.stop(&file.fpath, error);
        if let Some(tail) = tail {
            self.write_tail(port, file, tail).map_err(stop)?;
        }
        fs.set_len(&file.node, content.len).map_err(stop)?;
        // A file that stays is where it is to be.
        let state = match file.dest {
            StorageDest::Local => FileState::FileKeep,
            _ => FileState::LocalCopyDone,
        };
        seal(fs, &file.node, content, state).map_err(|error| match error {
            RecordError::Fs { error, .. } => stop(error),
            other => refuse::record_error(&file.fpath, &other).into(),
        })?;
        if self.config.durability == Durability::Fsync && !self.root.facts.ordered {
            fs.sync(&file.node).map_err(|error| {
                self.sync_has_failed(error, 1);
                refuse::sync_failed(file.path(), error)
            })?;
        }
        fs.publish_unnamed(&file.node, &file.dir, file.name()).map_err(stop)
    }

    /// Writes the bytes that are left, padded to whole blocks.
    fn write_tail(&self, port: &Port, file: &Receiving<F>, tail: Tail) -> Result<(), FsError> {
        let Span { start, len } = tail.span;
        let padded = Span { start, len: len.next_multiple_of(BLOCK_BYTES) };
        let mut result = Ok(());
        port.memory.with(padded, &mut |bytes| {
            bytes[len as usize..].fill(0);
            result = self.root.fs.write_all_at(&file.node, bytes, tail.offset);
        });
        result
    }

    /// Step 4, for a batch.
    pub(super) fn sync(&self, batch: Vec<Prepared<F>>) {
        let files = batch.len() as u64;
        count(&self.counters.syncs);
        self.counters.synced_files.fetch_add(files, Ordering::Relaxed);
        self.counters.largest_batch.fetch_max(files, Ordering::Relaxed);
        let results = sync_batch(&self.root, &batch);
        let failed = results.iter().filter(|result| result.is_err()).count();
        if let Some(&error) = results.iter().find_map(|result| result.as_ref().err()) {
            self.sync_has_failed(error, failed as u64);
        }
        for (prepared, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => self.acknowledge(prepared),
                Err(error) => self.take_back(prepared, error),
            }
        }
    }

    fn sync_has_failed(&self, error: FsError, files: u64) {
        self.counters.sync_failures.fetch_add(files, Ordering::Relaxed);
        let again = self.counters.sync_failed.swap(true, Ordering::Relaxed);
        error!(
            "SYNC OF THE STAGING FILE SYSTEM {} FAILED{}: {error}; {files} files are refused, none \
             was acknowledged. Check the device (kernel log) before trusting it with more data",
            self.root.path.display(),
            if again { " AGAIN" } else { "" },
        );
    }

    /// The file is stored.
    pub(super) fn acknowledge(&self, prepared: Prepared<F>) {
        let Prepared { file, port, token } = prepared;
        file.reservation.keep();
        let dest = file.dest;
        let path = file.path().to_path_buf();
        // Handles closed and name free before anybody hears of the file.
        drop(file);
        count(&self.counters.commits);
        if dest != StorageDest::Local {
            (self.neighbours.outbox)(&path, dest);
        }
        port.answer(token, Answer::Commit(Ok(())));
    }

    /// The file has its name, and nobody knows what else: away with it.
    fn take_back(&self, prepared: Prepared<F>, error: FsError) {
        let Prepared { file, port, token } = prepared;
        let refusal = refuse::sync_failed(file.path(), error);
        if let Err(error) = self.root.fs.remove(&file.dir, file.name()) {
            let fpath = file.fpath.as_encoded_bytes();
            error!("{} was refused, but its name could not be removed: {error}", Quoted(fpath));
        }
        drop(file);
        self.refuse_commit(&port, token, refusal);
    }

    pub(super) fn refuse_commit(&self, port: &Port, token: Token, refusal: Refusal) {
        count(&self.counters.refusals);
        port.answer(token, Answer::Commit(Err(refusal)));
    }

    /// What an error means for a job: ENOSPC is waited out, the rest is a refusal.
    pub(super) fn stop(&self, fpath: &std::ffi::OsStr, error: FsError) -> Stop {
        if error.errno == Errno::NOSPC {
            self.gauge.forget();
            return Stop::NoSpace;
        }
        Stop::Refuse(refuse::fs_error(fpath, error))
    }
}
