//! A session: signed on until it is dropped.

use std::cell::Cell;
use std::ffi::c_char;
use std::marker::PhantomData;

use super::library::Tsm;
use super::query::{ObjectId, Query, QueryFilter};
use super::retrieval::Retrieval;
use super::transaction::{Scratch, Transaction};
use super::{Error, check_length, check_word};
use crate::Zeroed;
use crate::tsm::name::NamePattern;
use crate::tsm::rc::{Class, ReturnCode};
use crate::tsm::result::{CallError, Calls};
use crate::tsm::sys::{self, Handle};

/// An open session. May be moved to another thread, but not shared.
///
/// After an error of [`Class::Session`] it is of no more use: drop it and sign on again.
pub struct Session {
    tsm: &'static Tsm,
    pub(super) handle: Handle,
    usable: bool,
    server: String,
    notice: Option<ReturnCode>,
    pub(super) scratch: Box<Scratch>,
    /// The library lets one thread at a time into a session.
    _not_sync: PhantomData<Cell<()>>,
}

/// What the server allows a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most objects in one transaction.
    pub transaction_objects: u32,
    /// About how much one transaction takes, bytes; 0 where the server does not say. A larger
    /// object travels alone.
    pub transaction_bytes: u64,
    /// Whether the node may delete archive objects.
    pub may_delete: bool,
    /// Whether the server keeps archive objects from being changed.
    pub retention_protection: bool,
}

impl Session {
    pub(super) fn new(
        tsm: &'static Tsm,
        handle: Handle,
        server: String,
        notice: Option<ReturnCode>,
    ) -> Self {
        let scratch = Scratch::boxed();
        Self { tsm, handle, usable: true, server, notice, scratch, _not_sync: PhantomData }
    }

    pub(super) fn calls(&self) -> &'static Calls {
        &self.tsm.calls
    }

    /// The server's name for itself.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What the server had to say at a sign-on that succeeded, such as that an administrator
    /// cancelled the last session.
    #[must_use]
    pub fn notice(&self) -> Option<ReturnCode> {
        self.notice
    }

    /// Whether the session has not been lost.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Asks the server for its limits.
    ///
    /// # Errors
    /// The library's.
    pub fn limits(&mut self) -> Result<Limits, Error> {
        self.check_usable()?;
        // SAFETY: the session is alive and borrowed by this call alone.
        let info = unsafe { self.calls().session_info(self.handle) };
        let info = info.map_err(|error| self.note(error))?;
        let bytes = info.maxBytesPerTxn_64.value();
        Ok(Limits {
            transaction_objects: u32::from(info.maxObjPerTxn).max(1),
            transaction_bytes: if bytes == 0 { u64::from(info.maxBytesPerTxn) } else { bytes },
            may_delete: info.archDel == sys::MAY_DELETE,
            retention_protection: info.archiveRetentionProtection != 0,
        })
    }

    /// Whether the library signed on with a password that it has stored.
    ///
    /// # Errors
    /// The library's.
    pub fn has_stored_password(&mut self) -> Result<bool, Error> {
        self.check_usable()?;
        // SAFETY: the session is alive and borrowed by this call alone.
        let options = unsafe { self.calls().session_options(self.handle) };
        Ok(options.map_err(|error| self.note(error))?.passwordAccess != 0)
    }

    /// Makes a filespace known to the server; that it is there already is fine.
    ///
    /// # Errors
    /// The name or the type (up to 32 bytes) cannot be one, or the library's.
    pub fn register_filespace(&mut self, name: &[u8], fs_type: &str) -> Result<(), Error> {
        self.check_usable()?;
        check_word("filespace type", fs_type, sys::FSTYPE_BYTES_MAX)?;
        // Holds for the filespace what holds for the first part of a name.
        NamePattern::new(name, b"/", b"/", None)?;
        let mut name = [name, b"\0"].concat();
        let mut fs_type = [fs_type.as_bytes(), b"\0"].concat();
        let mut fs = sys::regFSData::zeroed();
        fs.stVersion = 1;
        fs.fsName = name.as_mut_ptr().cast::<c_char>();
        fs.fsType = fs_type.as_mut_ptr().cast::<c_char>();
        // SAFETY: the session is alive and borrowed by this call alone; both strings end with a
        // NUL and outlive the call.
        match unsafe { self.calls().register_fs(self.handle, &mut fs) } {
            Err(error) if error.code != ReturnCode::FILESPACE_EXISTS => Err(self.note(error)),
            _ => Ok(()),
        }
    }

    /// Begins a transaction. What is sent or deleted in it becomes true on commit, all or nothing.
    ///
    /// # Errors
    /// The library's.
    pub fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        self.check_usable()?;
        // SAFETY: the session is alive and borrowed by this call alone.
        let begun = unsafe { self.calls().begin_txn(self.handle) };
        begun.map_err(|error| self.note(error))?;
        Ok(Transaction::new(self))
    }

    /// Lists archive objects. While the list is open the server holds a lock on the filespace that
    /// delays commits to it.
    ///
    /// # Errors
    /// The filter's text is too long, or the library's.
    pub fn query(
        &mut self,
        pattern: &NamePattern,
        filter: &QueryFilter<'_>,
    ) -> Result<Query<'_>, Error> {
        self.check_usable()?;
        Query::begin(self, pattern, filter)
    }

    /// Begins to retrieve objects, which come in the order given: best in that of
    /// [`super::ArchivedObject::restore_order`].
    ///
    /// # Errors
    /// None or more than 4080 objects, or the library's.
    pub fn retrieve(&mut self, objects: &[ObjectId]) -> Result<Retrieval<'_>, Error> {
        self.check_usable()?;
        Retrieval::begin(self, objects)
    }

    /// Replaces the object information of an archived object, in a transaction of its own. The
    /// `size` must be its true length again.
    ///
    /// # Errors
    /// The information is too long, there is no such object, or the library's.
    pub fn update_info(&mut self, id: ObjectId, info: &[u8], size: u64) -> Result<(), Error> {
        self.check_usable()?;
        check_length("object information", info.len(), sys::OBJINFO_BYTES_MAX)?;
        self.scratch.set_attributes(self.tsm.calls.level().attributes, info, size);
        let mut change = sys::dsmUpdateObjExIn_t::zeroed();
        change.stVersion = 1;
        change.dsmHandle = self.handle;
        change.sendType = sys::ST_ARCHIVE;
        change.objAttrPtr = self.scratch.attributes();
        change.objUpdAct = sys::ARCHIVE_UPDATE_OBJINFO;
        change.archObjId = sys::dsStruct64_t::new(id.0);
        // SAFETY: the session is alive and borrowed by this call alone; the attributes belong to
        // it, and an archive object that is named by its number needs no name.
        let updated = unsafe { self.calls().update_obj(&mut change) };
        updated.map_err(|error| self.note(error))
    }

    pub(super) fn check_usable(&self) -> Result<(), Error> {
        if self.usable { Ok(()) } else { Err(Error::SessionLost) }
    }

    /// Takes down that the session is lost.
    pub(super) fn lose(&mut self) {
        self.usable = false;
    }

    /// Takes down what an error means for the session.
    pub(super) fn note(&mut self, error: CallError) -> Error {
        if error.cause().class() == Class::Session {
            self.lose();
        }
        Error::Call(error)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} on {:?}, usable: {})", self.handle, self.server, self.usable)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, nothing borrows the session, and it is not used again.
        // An error would mean that the library has forgotten it already.
        let _ = unsafe { self.calls().terminate(self.handle) };
        self.tsm.leave();
    }
}
