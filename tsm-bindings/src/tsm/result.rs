//! The calls of the TSM library, each with its error as a type.
//!
//! Owns the function table and the numbers that depend on the library's level. Invariant: a
//! return code other than success never leaves this module as a number; it is an error that
//! names the call. What order calls are allowed in, and how long pointers live, is for
//! [`super::safe`] to see to: most functions here are unsafe for that reason.

use std::ffi::{c_char, c_void};
use std::fmt;

use super::rc::ReturnCode;
use super::sys::{self, Handle, Symbols};
use crate::Zeroed;
use crate::abi::c_string;

/// Version of the library, most significant part first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Version.
    pub version: u16,
    /// Release.
    pub release: u16,
    /// Level.
    pub level: u16,
    /// Sublevel.
    pub sublevel: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.version, self.release, self.level, self.sublevel)
    }
}

/// Structure versions that differ between levels of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// `dsmInitExIn_t`.
    pub init_in: u16,
    /// `dsmInitExOut_t`.
    pub init_out: u16,
    /// `ApiSessInfo`.
    pub session_info: u16,
    /// `ObjAttr`.
    pub attributes: u16,
    /// `DataBlk`.
    pub data_block: u16,
    /// `qryRespArchiveData`: 7, or 6 with the object information elsewhere.
    pub archive_response: u16,
}

impl Level {
    /// Level 6.3; later libraries understand it too.
    pub const V6: Self = Self {
        init_in: 4,
        init_out: 2,
        session_info: 5,
        attributes: 3,
        data_block: 2,
        archive_response: 6,
    };
    /// Level 8.1.
    pub const V8: Self = Self {
        init_in: 5,
        init_out: 3,
        session_info: 6,
        attributes: 4,
        data_block: 3,
        archive_response: 7,
    };

    /// The newest that a library of this version is known to understand, or `None` if it is too
    /// old. In between some 7.1 took the numbers of 8.1 over, but which one is not documented.
    #[must_use]
    pub fn of(version: Version) -> Option<Self> {
        match (version.version, version.release) {
            (8, 1..) | (9.., _) => Some(Self::V8),
            (6, 3..) | (7.., _) => Some(Self::V6),
            _ => None,
        }
    }
}

/// A call that the library answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The function.
    pub call: &'static str,
    /// What it returned.
    pub code: ReturnCode,
    /// Why the transaction was aborted, where the server said so.
    pub reason: Option<ReturnCode>,
    /// The library's own message, in the language of its catalog.
    pub message: String,
}

impl CallError {
    /// The code that says most: the reason where there is one.
    #[must_use]
    pub fn cause(&self) -> ReturnCode {
        self.reason.unwrap_or(self.code)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{}: {reason}, returned with {}", self.call, self.code.0)?,
            None => write!(f, "{}: {}", self.call, self.code)?,
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message) }
    }
}

impl std::error::Error for CallError {}

/// One answer of a call that delivers piecewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes delivered; may be none.
    pub bytes: usize,
    /// Whether it was the last one.
    pub last: bool,
}

type Result<T> = std::result::Result<T, CallError>;

/// The function table, as functions that return errors.
///
/// # Safety of its functions
/// Each unsafe function requires that the handle is a live session of this library that no other
/// thread is using, and that the pointers inside the structures it is given are valid for the
/// library's use: null, or pointing to memory of the size and form that the field implies, which
/// lives as long as the operation that the call begins.
pub struct Calls {
    symbols: Symbols,
    level: Level,
}

impl Calls {
    pub(crate) fn new(symbols: Symbols, level: Level) -> Self {
        Self { symbols, level }
    }

    /// The structure versions in use.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    fn check(&self, handle: Handle, call: &'static str, rc: i16) -> Result<()> {
        if rc == 0 { Ok(()) } else { Err(self.error(handle, call, ReturnCode(rc))) }
    }

    fn error(&self, handle: Handle, call: &'static str, code: ReturnCode) -> CallError {
        CallError { call, code, reason: None, message: self.message(handle, code) }
    }

    /// The library's message for a code, on one line; empty if it has none.
    #[must_use]
    pub fn message(&self, handle: Handle, code: ReturnCode) -> String {
        let mut buffer = [0_u8; sys::MESSAGE_BYTES];
        // SAFETY: the buffer has the size that the call may fill; it takes any handle and code.
        let rc = unsafe {
            (self.symbols.dsmRCMsg)(handle, code.0, buffer.as_mut_ptr().cast::<c_char>())
        };
        if rc != 0 {
            return String::new();
        }
        let text = String::from_utf8_lossy(c_string(&buffer));
        text.split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Prepares the library for threads, with these directories or those of the environment.
    ///
    /// # Safety
    /// Once per process, before any session; no other thread may be inside the library.
    ///
    /// # Errors
    /// The library refuses its configuration.
    pub unsafe fn set_up(&self, environment: Option<&mut sys::envSetUp>) -> Result<()> {
        let environment = environment.map_or(std::ptr::null_mut(), std::ptr::from_mut);
        // SAFETY: the caller's promise; a null pointer means the environment.
        let rc = unsafe { (self.symbols.dsmSetUp)(sys::MULTI_THREAD, environment) };
        self.check(0, "dsmSetUp", rc)
    }

    /// Releases what the library holds. Nothing may be called afterwards.
    ///
    /// # Safety
    /// No session is left and no other thread is inside the library.
    ///
    /// # Errors
    /// The library objects.
    pub unsafe fn clean_up(&self) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmCleanUp)(sys::MULTI_THREAD) };
        if rc == 0 {
            return Ok(());
        }
        // No message: the catalog is gone.
        let code = ReturnCode(rc);
        Err(CallError { call: "dsmCleanUp", code, reason: None, message: String::new() })
    }

    /// Signs on. The session that a failed sign-on leaves is terminated here.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The sign-on was refused.
    pub unsafe fn init(
        &self,
        request: &mut sys::dsmInitExIn_t,
        answer: &mut sys::dsmInitExOut_t,
    ) -> Result<Handle> {
        let mut handle = 0;
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmInitEx)(&mut handle, request, answer) };
        self.check(handle, "dsmInitEx", rc).map(|()| handle).inspect_err(|_| {
            if handle != 0 {
                // SAFETY: the library gave out this handle just now.
                let _ = unsafe { self.terminate(handle) };
            }
        })
    }

    /// Ends a session, in whatever state it is.
    ///
    /// # Safety
    /// See [`Calls`]; the handle is not used again.
    ///
    /// # Errors
    /// The handle is not a session.
    pub unsafe fn terminate(&self, handle: Handle) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmTerminate)(handle) };
        self.check(0, "dsmTerminate", rc)
    }

    /// What the server says about the session.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn session_info(&self, handle: Handle) -> Result<Box<sys::ApiSessInfo>> {
        let mut info = Box::new(sys::ApiSessInfo::zeroed());
        info.stVersion = self.level.session_info;
        // SAFETY: the structure is at least as large as its version says.
        let rc = unsafe { (self.symbols.dsmQuerySessInfo)(handle, &mut *info) };
        self.check(handle, "dsmQuerySessInfo", rc).map(|()| info)
    }

    /// The options in effect for the session.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn session_options(&self, handle: Handle) -> Result<Box<sys::optStruct>> {
        let mut options = Box::new(sys::optStruct::zeroed());
        // SAFETY: the caller's promise; the structure is the call's output.
        let rc = unsafe { (self.symbols.dsmQuerySessOptions)(handle, &mut *options) };
        self.check(handle, "dsmQuerySessOptions", rc).map(|()| options)
    }

    /// Makes a filespace known to the server. That there is one is
    /// [`ReturnCode::FILESPACE_EXISTS`].
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn register_fs(&self, handle: Handle, fs: &mut sys::regFSData) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmRegisterFS)(handle, fs) };
        self.check(handle, "dsmRegisterFS", rc)
    }

    /// Begins a transaction.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn begin_txn(&self, handle: Handle) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmBeginTxn)(handle) };
        self.check(handle, "dsmBeginTxn", rc)
    }

    /// Finds the management class of an object.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn bind_mc(
        &self,
        handle: Handle,
        name: &mut sys::dsmObjName,
    ) -> Result<sys::mcBindKey> {
        let mut key = sys::mcBindKey::zeroed();
        key.stVersion = 1;
        // SAFETY: the caller's promise; the key is the call's output.
        let rc =
            unsafe { (self.symbols.dsmBindMC)(handle, name, sys::ST_ARCHIVE_MOUNT_WAIT, &mut key) };
        self.check(handle, "dsmBindMC", rc).map(|()| key)
    }

    /// Begins to send an archive object.
    ///
    /// # Safety
    /// See [`Calls`]; all three live until the object has ended.
    ///
    /// # Errors
    /// The library's; [`ReturnCode::is_transaction_full`] means that the object was not taken.
    pub unsafe fn send_obj(
        &self,
        handle: Handle,
        archive: &mut sys::sndArchiveData,
        name: &mut sys::dsmObjName,
        attributes: &mut sys::ObjAttr,
    ) -> Result<()> {
        // SAFETY: the caller's promise; for the archive types the third argument is a
        // sndArchiveData, and a null data block means that the data come later.
        let rc = unsafe {
            (self.symbols.dsmSendObj)(
                handle,
                sys::ST_ARCHIVE_MOUNT_WAIT,
                std::ptr::from_mut(archive).cast::<c_void>(),
                name,
                attributes,
                std::ptr::null_mut(),
            )
        };
        self.check(handle, "dsmSendObj", rc)
    }

    /// Sends data of the object; returns how many bytes the library took.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn send_data(&self, handle: Handle, data: &[u8]) -> Result<usize> {
        // The library reads the buffer only, although its type does not say so.
        let mut block = self.block(data.as_ptr().cast_mut(), data.len());
        // SAFETY: the block describes `data`, which outlives the call.
        let rc = unsafe { (self.symbols.dsmSendData)(handle, &mut block) };
        self.check(handle, "dsmSendData", rc).map(|()| block.numBytes as usize)
    }

    /// Ends the object.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn end_send_obj(&self, handle: Handle) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmEndSendObj)(handle) };
        self.check(handle, "dsmEndSendObj", rc)
    }

    /// Ends the transaction with a vote to commit. Success needs both the return code and the
    /// reason to be zero.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// Nothing proves that it was committed; see [`ReturnCode::proves_abort`].
    pub unsafe fn commit(&self, handle: Handle) -> Result<()> {
        let mut reason = 0;
        // SAFETY: the caller's promise; the reason is the call's output.
        let rc = unsafe { (self.symbols.dsmEndTxn)(handle, sys::VOTE_COMMIT, &mut reason) };
        if rc == 0 && reason == 0 {
            return Ok(());
        }
        let mut error = self.error(handle, "dsmEndTxn", ReturnCode(rc));
        if reason != 0 {
            let reason = ReturnCode::from_reason(reason);
            error.reason = Some(reason);
            error.message = self.message(handle, reason);
        }
        Err(error)
    }

    /// Ends the transaction with a vote to abort. Its reason is always the client's wish.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn abort(&self, handle: Handle) -> Result<()> {
        let mut reason = 0;
        // SAFETY: the caller's promise; the reason is the call's output.
        let rc = unsafe { (self.symbols.dsmEndTxn)(handle, sys::VOTE_ABORT, &mut reason) };
        match ReturnCode(rc) {
            ReturnCode::CHECK_REASON | ReturnCode::ABORTED_BY_CLIENT => Ok(()),
            _ => self.check(handle, "dsmEndTxn", rc),
        }
    }

    /// Deletes an archive object when the transaction commits.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn delete_obj(&self, handle: Handle, id: u64) -> Result<()> {
        let mut info = sys::dsmDelInfo::zeroed();
        info.archInfo = sys::delArch { stVersion: 1, objId: sys::dsStruct64_t::new(id) };
        // SAFETY: the caller's promise; the union holds the member that the type names.
        let rc = unsafe { (self.symbols.dsmDeleteObj)(handle, sys::DT_ARCHIVE, info) };
        self.check(handle, "dsmDeleteObj", rc)
    }

    /// Changes an archive object in a transaction of its own.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn update_obj(&self, change: &mut sys::dsmUpdateObjExIn_t) -> Result<()> {
        let mut answer = sys::dsmUpdateObjExOut_t { stVersion: 1 };
        let handle = change.dsmHandle;
        // SAFETY: the caller's promise; the answer is the call's output.
        let rc = unsafe { (self.symbols.dsmUpdateObjEx)(change, &mut answer) };
        self.check(handle, "dsmUpdateObjEx", rc)
    }

    /// Begins a query for archive objects.
    ///
    /// # Safety
    /// See [`Calls`]; the query's pointers live until it has ended.
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn begin_query(
        &self,
        handle: Handle,
        query: &mut sys::qryArchiveData,
    ) -> Result<()> {
        let query = std::ptr::from_mut(query).cast::<c_void>();
        // SAFETY: the caller's promise; for this type the argument is a qryArchiveData.
        let rc = unsafe { (self.symbols.dsmBeginQuery)(handle, sys::QT_ARCHIVE, query) };
        self.check(handle, "dsmBeginQuery", rc)
    }

    /// The next answer of a query, in a structure of the type that was asked about. No answer at
    /// all is [`ReturnCode::NO_MATCH`].
    ///
    /// # Safety
    /// See [`Calls`]; `T` is the response structure of this query, its version filled in.
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn next_answer<T: Zeroed>(&self, handle: Handle, answer: &mut T) -> Result<Piece> {
        let mut block = self.block(std::ptr::from_mut(answer).cast(), size_of::<T>());
        // SAFETY: the block describes `answer`, which the library may fill as a whole.
        let rc = unsafe { (self.symbols.dsmGetNextQObj)(handle, &mut block) };
        self.piece(handle, "dsmGetNextQObj", rc, &block)
    }

    /// Ends the query.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn end_query(&self, handle: Handle) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmEndQuery)(handle) };
        self.check(handle, "dsmEndQuery", rc)
    }

    /// Begins to retrieve archive objects, waiting for tapes to be mounted.
    ///
    /// # Safety
    /// See [`Calls`]; the list lives until the retrieval has ended.
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn begin_get(&self, handle: Handle, list: &mut sys::dsmGetList) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmBeginGetData)(handle, 1, sys::GT_ARCHIVE, list) };
        self.check(handle, "dsmBeginGetData", rc)
    }

    /// Begins one object of the list and delivers its first bytes.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's; the session must be terminated then.
    pub unsafe fn get_obj(&self, handle: Handle, id: u64, buffer: &mut [u8]) -> Result<Piece> {
        let mut id = sys::dsStruct64_t::new(id);
        let mut block = self.block(buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the block describes `buffer`, which the library may fill.
        let rc = unsafe { (self.symbols.dsmGetObj)(handle, &mut id, &mut block) };
        self.piece(handle, "dsmGetObj", rc, &block)
    }

    /// Delivers the next bytes of the object.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's; the session must be terminated then.
    pub unsafe fn get_data(&self, handle: Handle, buffer: &mut [u8]) -> Result<Piece> {
        let mut block = self.block(buffer.as_mut_ptr(), buffer.len());
        // SAFETY: the block describes `buffer`, which the library may fill.
        let rc = unsafe { (self.symbols.dsmGetData)(handle, &mut block) };
        self.piece(handle, "dsmGetData", rc, &block)
    }

    /// Ends the object.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn end_get_obj(&self, handle: Handle) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmEndGetObj)(handle) };
        self.check(handle, "dsmEndGetObj", rc)
    }

    /// Ends the retrieval; what was not fetched is read and dropped, which may take long.
    ///
    /// # Safety
    /// See [`Calls`].
    ///
    /// # Errors
    /// The library's.
    pub unsafe fn end_get(&self, handle: Handle) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.dsmEndGetData)(handle) };
        self.check(handle, "dsmEndGetData", rc)
    }

    fn block(&self, buffer: *mut u8, bytes: usize) -> sys::DataBlk {
        let mut block = sys::DataBlk::zeroed();
        block.stVersion = self.level.data_block;
        // A longer buffer is used in part; the caller sees from the count how much.
        block.bufferLen = u32::try_from(bytes).unwrap_or(u32::MAX);
        block.bufferPtr = buffer.cast::<c_char>();
        block
    }

    fn piece(
        &self,
        handle: Handle,
        call: &'static str,
        rc: i16,
        block: &sys::DataBlk,
    ) -> Result<Piece> {
        let code = ReturnCode(rc);
        // Whatever the library counted, it cannot have filled more than it was given.
        let bytes = block.numBytes.min(block.bufferLen) as usize;
        match code {
            ReturnCode::MORE_DATA => Ok(Piece { bytes, last: false }),
            ReturnCode::FINISHED => Ok(Piece { bytes, last: true }),
            // An object that fits one buffer may be answered with plain success: more may follow.
            ReturnCode::OK => Ok(Piece { bytes, last: false }),
            _ => Err(self.error(handle, call, code)),
        }
    }
}
