//! A transaction: objects sent and deleted together, or not at all.

use std::ffi::c_char;
use std::ptr;

use super::query::ObjectId;
use super::session::Session;
use super::{Error, check_length};
use crate::Zeroed;
use crate::abi::{c_string, put_c_string};
use crate::tsm::name::ObjectName;
use crate::tsm::rc::{Class, ReturnCode};
use crate::tsm::result::CallError;
use crate::tsm::sys;

/// Longest run of bytes given to the library in one call.
const SEND_BYTES_MAX: usize = 4 << 20;

/// An object to archive.
#[derive(Clone, Copy, Debug)]
pub struct NewObject<'a> {
    /// Its name.
    pub name: &'a ObjectName,
    /// Description, up to 255 bytes; queries can search for it.
    pub description: &'a str,
    /// Object information, up to 255 bytes; [`crate::tsm::ObjectInfo`] encodes that of `ltsm`.
    pub info: &'a [u8],
    /// Its exact length, bytes.
    pub size: u64,
}

/// Why a commit did not succeed, and what that says about the objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing was stored: send the objects again.
    #[error("transaction aborted: {0}")]
    Aborted(Error),
    /// The answer of the server is missing: everything was stored or nothing. Ask for the objects
    /// in a new session before they are sent again.
    #[error("outcome of the transaction unknown, query its objects before sending again: {0}")]
    Unknown(Error),
}

impl CommitError {
    /// The error itself.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Self::Aborted(error) | Self::Unknown(error) => error,
        }
    }
}

/// An open transaction; aborted when dropped.
#[derive(Debug)]
pub struct Transaction<'s> {
    session: &'s mut Session,
    state: State,
    objects: u32,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be committed.
    Open,
    /// Open, but an object in it is damaged: may only be aborted.
    Spoiled,
    /// Ended, nothing of it is stored.
    Over,
    /// Ended by a vote to commit whose outcome is not known.
    Unknown,
}

impl<'s> Transaction<'s> {
    pub(super) fn new(session: &'s mut Session) -> Self {
        Self { session, state: State::Open, objects: 0, bytes: 0 }
    }

    /// Objects sent or deleted so far.
    #[must_use]
    pub fn objects(&self) -> u32 {
        self.objects
    }

    /// Bytes sent so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it takes more objects and may be committed: what failed so far concerned single
    /// objects that are not part of it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Begins to send an object. When [`Error::is_transaction_full`], this object was not taken:
    /// commit, and send it in the next transaction.
    ///
    /// # Errors
    /// Description or information are too long, no archive copy group takes the object, or the
    /// library's. The transaction goes on after errors of this function that concern the object
    /// only.
    pub fn send(&mut self, object: &NewObject<'_>) -> Result<SendObject<'_, 's>, Error> {
        self.check_open()?;
        let description = object.description.as_bytes();
        check_length("description", description.len(), sys::DESCR_BYTES_MAX)?;
        check_length("object information", object.info.len(), sys::OBJINFO_BYTES_MAX)?;
        let (calls, handle) = (self.session.calls(), self.session.handle);
        let scratch = &mut *self.session.scratch;
        if !put_c_string(&mut scratch.description, description) {
            return Err(Error::Invalid { what: "description" });
        }
        object.name.fill(&mut scratch.name);
        // ltsm announces empty objects with one byte and sends none; zero would exempt the object
        // from the check that its storage pool is the transaction's.
        scratch.set_attributes(calls.level().attributes, object.info, object.size.max(1));
        scratch.archive.stVersion = 1;
        scratch.archive.descr = scratch.description.as_mut_ptr().cast::<c_char>();
        // SAFETY: the session is alive and borrowed by this transaction alone.
        let bound = unsafe { calls.bind_mc(handle, &mut scratch.name) };
        let key = bound.map_err(|error| self.fail(error, State::Open))?;
        if key.archive_cg_exists == 0 || c_string(&key.archive_copy_dest).is_empty() {
            let code = ReturnCode(186);
            let message = calls.message(handle, code);
            return Err(CallError { call: "dsmBindMC", code, reason: None, message }.into());
        }
        let Scratch { archive, name, attributes, .. } = &mut *self.session.scratch;
        // SAFETY: as above; name, attributes and what they point to belong to the session and are
        // not touched while the object is open, since it borrows the transaction.
        let begun = unsafe { calls.send_obj(handle, archive, name, attributes) };
        begun.map_err(|error| {
            let full = error.code.is_transaction_full();
            self.fail(error, if full { State::Open } else { State::Spoiled })
        })?;
        self.objects += 1;
        Ok(SendObject { transaction: self, size: object.size, written: 0, finished: false })
    }

    /// Deletes an archived object.
    ///
    /// # Errors
    /// The library's. That the object is not there may show up only at the commit.
    pub fn delete(&mut self, id: ObjectId) -> Result<(), Error> {
        self.check_open()?;
        // SAFETY: the session is alive and borrowed by this transaction alone.
        let deleted = unsafe { self.session.calls().delete_obj(self.session.handle, id.0) };
        deleted.map_err(|error| {
            let full = error.code.is_transaction_full();
            self.fail(error, if full { State::Open } else { State::Spoiled })
        })?;
        self.objects += 1;
        Ok(())
    }

    /// Makes everything permanent.
    ///
    /// # Errors
    /// Nothing is stored, or it is not known whether everything is.
    pub fn commit(mut self) -> Result<(), CommitError> {
        self.check_open().map_err(|error| match self.state {
            State::Unknown => CommitError::Unknown(error),
            _ => CommitError::Aborted(error),
        })?;
        self.state = State::Over;
        // SAFETY: the session is alive and borrowed by this transaction alone.
        let ended = unsafe { self.session.calls().commit(self.session.handle) };
        ended.map_err(|error| {
            let aborted = error.reason.is_some() || error.code.proves_abort();
            let error = self.session.note(error);
            if aborted {
                return CommitError::Aborted(error);
            }
            // Whatever went wrong, the session is not where this side believes it to be.
            self.session.lose();
            CommitError::Unknown(error)
        })
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The library's; nothing is stored in any case.
    pub fn abort(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        if matches!(self.state, State::Over | State::Unknown) || !self.session.is_usable() {
            return Ok(());
        }
        self.state = State::Over;
        // SAFETY: the session is alive and borrowed by this transaction alone.
        let ended = unsafe { self.session.calls().abort(self.session.handle) };
        ended.map_err(|error| {
            self.session.lose();
            Error::Call(error)
        })
    }

    fn check_open(&self) -> Result<(), Error> {
        match self.state {
            State::Open => Ok(()),
            State::Spoiled | State::Over => Err(Error::TransactionOver),
            State::Unknown => Err(Error::SessionLost),
        }
    }

    /// Takes down what a failed call means: `after` if the session and the transaction survive it.
    fn fail(&mut self, error: CallError, after: State) -> Error {
        if error.code == ReturnCode::WILL_ABORT {
            return self.learn_reason(error);
        }
        let error = self.session.note(error);
        self.state = if error.class() == Class::Session { State::Over } else { after };
        error
    }

    /// Ends a transaction that the server is about to abort. It tells its reason only to who votes
    /// to commit, which is not allowed inside an object.
    fn learn_reason(&mut self, mut error: CallError) -> Error {
        let (calls, handle) = (self.session.calls(), self.session.handle);
        if error.call == "dsmSendData" {
            // SAFETY: the session is alive and borrowed by this transaction alone. Whether it
            // works shows in the next call.
            let _ = unsafe { calls.end_send_obj(handle) };
        }
        // SAFETY: the session is alive and borrowed by this transaction alone.
        match unsafe { calls.commit(handle) } {
            Err(ended) if ended.reason.is_some() || ended.code.proves_abort() => {
                self.state = State::Over;
                error.reason = Some(ended.cause());
                error.message = ended.message;
                self.session.note(error)
            }
            ended => {
                self.state = State::Unknown;
                self.session.lose();
                Error::OutcomeUnknown(ended.err().unwrap_or(error))
            }
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // A failure is taken down in the session, which is all that is left to do.
        let _ = self.end();
    }
}

/// An object on its way; spoils its transaction when dropped before it is finished.
#[derive(Debug)]
pub struct SendObject<'t, 's> {
    transaction: &'t mut Transaction<'s>,
    size: u64,
    written: u64,
    finished: bool,
}

impl SendObject<'_, '_> {
    /// Sends the next bytes.
    ///
    /// # Errors
    /// More bytes than announced, or the library's. The transaction is spoiled then.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.transaction.check_open()?;
        let written = self.written.saturating_add(data.len() as u64);
        if written > self.size {
            self.transaction.state = State::Spoiled;
            return Err(Error::Size { announced: self.size, written });
        }
        for chunk in data.chunks(SEND_BYTES_MAX) {
            let session = &mut *self.transaction.session;
            // SAFETY: the session is alive and borrowed by this object alone.
            let sent = unsafe { session.calls().send_data(session.handle, chunk) };
            let taken = sent.map_err(|error| self.transaction.fail(error, State::Spoiled))?;
            if taken != chunk.len() {
                self.transaction.state = State::Spoiled;
                return Err(Error::ShortSend { given: chunk.len(), taken });
            }
        }
        self.written = written;
        self.transaction.bytes += data.len() as u64;
        Ok(())
    }

    /// Ends the object. It is stored when the transaction commits.
    ///
    /// # Errors
    /// Fewer bytes than announced, or the library's. The transaction is spoiled then.
    pub fn finish(mut self) -> Result<(), Error> {
        self.transaction.check_open()?;
        if self.written != self.size {
            return Err(Error::Size { announced: self.size, written: self.written });
        }
        self.finished = true;
        let session = &mut *self.transaction.session;
        // SAFETY: the session is alive and borrowed by this object alone.
        let ended = unsafe { session.calls().end_send_obj(session.handle) };
        ended.map_err(|error| self.transaction.fail(error, State::Spoiled))
    }
}

impl Drop for SendObject<'_, '_> {
    fn drop(&mut self) {
        if !self.finished && self.transaction.state == State::Open {
            self.transaction.state = State::Spoiled;
        }
    }
}

/// What the library is shown of an object; kept with the session, so that sending allocates
/// nothing and every pointer stays good for as long as the library might look at it.
pub(super) struct Scratch {
    name: sys::dsmObjName,
    attributes: sys::ObjAttr,
    archive: sys::sndArchiveData,
    info: [u8; sys::OBJINFO_BYTES_MAX],
    description: [u8; sys::DESCR_BYTES_MAX + 1],
}

// SAFETY: its pointers are null or point into itself, which sits in one box all its life.
unsafe impl Send for Scratch {}

impl Scratch {
    pub(super) fn boxed() -> Box<Self> {
        Box::new(Self {
            name: sys::dsmObjName::zeroed(),
            attributes: sys::ObjAttr::zeroed(),
            archive: sys::sndArchiveData::zeroed(),
            info: [0; sys::OBJINFO_BYTES_MAX],
            description: [0; sys::DESCR_BYTES_MAX + 1],
        })
    }

    /// `info` fits: the caller has checked its length.
    pub(super) fn set_attributes(&mut self, version: u16, info: &[u8], size: u64) {
        let (used, rest) = self.info.split_at_mut(info.len());
        used.copy_from_slice(info);
        rest.fill(0);
        self.attributes = sys::ObjAttr::zeroed();
        self.attributes.stVersion = version;
        self.attributes.sizeEstimate = sys::dsStruct64_t::new(size);
        self.attributes.objInfoLength = info.len() as u16;
        self.attributes.objInfo = self.info.as_mut_ptr().cast::<c_char>();
    }

    pub(super) fn attributes(&mut self) -> *mut sys::ObjAttr {
        ptr::from_mut(&mut self.attributes)
    }
}
