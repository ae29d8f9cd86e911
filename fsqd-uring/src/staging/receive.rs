//! The jobs before a file is complete: OPEN and EXTEND.
//!
//! Invariant: a job that fails leaves nothing behind, neither a file nor a directory nor a reserved
//! name.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fsq_wire::StorageDest;
use rustix::io::Errno;

use super::files::Receiving;
use super::names::Reservation;
use super::{Shared, Stop, refuse};
use crate::config::Durability;
use crate::fs::{Fs, FsError, Handle, Ownership};
use crate::limits::{EXTEND_ALIGN_BYTES, EXTEND_BYTES_SHORT};
use crate::path::attribute_bytes;
use crate::queue::record::{FileState, Owner, Record, RecordError};
use crate::services::{NewFile, StagedFile};

/// Directories of staging files, as the deployed daemon makes them.
const DIRECTORY: Ownership = Ownership { uid: None, gid: None, mode: 0o755 };
/// Staging files, as the deployed daemon makes them. They belong to the daemon until they are
/// drained.
const FILE: Ownership = Ownership { uid: None, gid: None, mode: 0o660 };

/// If an attribute does not fit while so much is free, it is the inode that is full.
const SPACE_FOR_ATTRIBUTES_BYTES: u64 = 1 << 20;

impl<F: Fs> Shared<F> {
    /// Creates the file without a name, with all that is known of it, and reserves its name.
    pub(super) fn open(&self, new: &NewFile) -> Result<StagedFile, Stop> {
        if self.is_above_mark() {
            return Err(Stop::NoSpace);
        }
        let fpath = new.fpath.as_os_str();
        let stop = |error| self.stop(fpath, error);
        let reservation = self
            .names
            .reserve(&new.placement.staging)
            .ok_or_else(|| refuse::being_received(fpath))?;
        let root = &*self.root;
        let (dir, name) = self.parent(&reservation).map_err(stop)?;
        match root.fs.stat_at(&dir, name) {
            Err(FsError { errno: Errno::NOENT, .. }) => {}
            Ok(_) => return Err(refuse::exists(fpath).into()),
            Err(error) => return Err(stop(error)),
        }
        let for_target = matches!(new.dest, StorageDest::Lustre | StorageDest::LustreTsm);
        if for_target && (self.neighbours.is_taken)(&new.placement.target) {
            return Err(refuse::exists_on_target(fpath).into());
        }
        let node = root.fs.create_unnamed(&dir, FILE, root.facts.direct).map_err(stop)?;
        self.store(new, &node)?;
        let file = node.id();
        let fpath = new.fpath.clone();
        let receiving = Receiving { node, dir, fpath, dest: new.dest, reservation };
        let files_max = self.config.files_max;
        match self.files.insert(receiving, files_max) {
            Ok(key) => Ok(StagedFile { key, file }),
            Err(_) => Err(refuse::too_many_files(files_max).into()),
        }
    }

    /// The directory a reserved name is in, made if need be, and the name.
    fn parent<'a>(&self, reservation: &'a Reservation<F>) -> Result<(F::Node, &'a Path), FsError> {
        let path = reservation.path();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FsError { call: "openat2", errno: Errno::INVAL });
        };
        let root = &*self.root;
        let dir = match root.fs.directory(&root.node, parent, None, false) {
            Err(FsError { errno: Errno::NOENT, .. }) => {
                reservation.will_make_directories();
                // Rare enough (once a run) to be synced at once, and then no file's sync need look
                // further up than its own directory.
                let sync = self.config.durability == Durability::Fsync;
                root.fs.directory(&root.node, parent, Some(DIRECTORY), sync)?
            }
            opened => opened?,
        };
        Ok((dir, Path::new(name)))
    }

    fn store(&self, new: &NewFile, node: &F::Node) -> Result<(), Stop> {
        let identity = &new.identity;
        let record = Record {
            state: FileState::LocalCopyDone,
            archive_id: identity.archive_id,
            fs: new.fs.clone(),
            fpath: new.fpath.clone(),
            desc: new.desc.clone(),
            dest: new.dest,
            content: None,
            owner: Some(Owner {
                uid: identity.uid,
                gid: identity.gid,
                node: identity.node.clone(),
            }),
        };
        match record.store_static(&*self.root.fs, node) {
            Ok(()) => Ok(()),
            Err(RecordError::Fs { error, .. }) if error.errno == Errno::NOSPC => {
                // The file system does not say which of the two is full.
                if self.has_room_for_attributes(&record) {
                    return Err(refuse::attributes_too_long(&new.fpath).into());
                }
                Err(self.stop(&new.fpath, error))
            }
            Err(error) => Err(refuse::record_error(&new.fpath, &error).into()),
        }
    }

    fn has_room_for_attributes(&self, record: &Record) -> bool {
        let (fs, fpath) = (record.fs.as_bytes().len(), record.fpath.as_bytes().len());
        let needed = attribute_bytes(fs, fpath, record.desc.len());
        if self.root.facts.attribute_bytes_max.is_some_and(|max| needed > max) {
            return true;
        }
        let space = self.root.fs.space(&self.root.node);
        space.is_ok_and(|space| space.available_bytes >= SPACE_FOR_ATTRIBUTES_BYTES)
    }

    /// Preallocates, less than asked for where space is short. Where the preallocated part ends.
    pub(super) fn extend(&self, staged: StagedFile, from: u64, len: u64) -> Result<u64, Stop> {
        let file = self.files.find(staged.key).ok_or_else(refuse::unknown_file)?;
        let fs = &*self.root.fs;
        let mut step = len;
        loop {
            match fs.allocate(&file.node, from, step) {
                Ok(()) => return Ok(from + step),
                Err(FsError { errno: Errno::NOSPC, .. }) if step > EXTEND_BYTES_SHORT => {
                    let half = (step / 2).max(EXTEND_BYTES_SHORT);
                    step = half - half % EXTEND_ALIGN_BYTES;
                }
                // No preallocation on this file system: the length alone still spares each write
                // the change of it.
                Err(FsError { errno: Errno::OPNOTSUPP, .. }) => {
                    fs.set_len(&file.node, from + step)
                        .map_err(|error| self.stop(&file.fpath, error))?;
                    return Ok(from + step);
                }
                Err(error) => return Err(self.stop(&file.fpath, error)),
            }
        }
    }
}
