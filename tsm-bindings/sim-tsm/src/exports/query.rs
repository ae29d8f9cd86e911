//! Queries.

use std::ffi::{c_int, c_void};

use tsm_bindings::Zeroed;
use tsm_bindings::tsm::sys;

use super::{Block, check_delimiters, code, date, fixed, put, read, seconds, text};
use crate::rc;
use crate::server::{process, with_session};
use crate::session::{Found, Session, Wanted};
use crate::store::{Filespace, Name, Object};

/// # Safety
/// Null, or pointing to the structure that the type of the query asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmBeginQuery(
    handle: sys::Handle,
    kind: c_int,
    question: *mut c_void,
) -> i16 {
    with_session(handle, "dsmBeginQuery", |session| {
        // SAFETY: the caller's promise.
        code(unsafe { begin(session, kind, question) })
    })
}

/// # Safety
/// As for `dsmBeginQuery`.
unsafe fn begin(session: &mut Session, kind: c_int, question: *mut c_void) -> Result<(), i16> {
    session.idle()?;
    match kind {
        sys::QT_ARCHIVE => {
            // SAFETY: the caller's promise.
            let wanted = unsafe { wanted(question.cast())? };
            session.query_archives(&wanted)
        }
        sys::QT_FILESPACE => {
            // SAFETY: the caller's promise.
            let raw = unsafe { read(question.cast::<sys::qryFSData>(), rc::INVALID_PARAMETER)? };
            // SAFETY: as above.
            let pattern = unsafe { text(raw.fsName) }.ok_or(rc::NULL_FSNAME)?;
            session.query_filespaces(&pattern)
        }
        sys::QT_MC => {
            // SAFETY: the caller's promise.
            let raw = unsafe { read(question.cast::<sys::qryMCData>(), rc::INVALID_PARAMETER)? };
            // SAFETY: as above.
            let name = unsafe { text(raw.mcName) }.unwrap_or_default();
            session.query_classes(&name)
        }
        _ => Err(rc::INVALID_PARAMETER),
    }
}

/// # Safety
/// Null, or pointing to the structure with strings or nulls in it.
unsafe fn wanted(question: *const sys::qryArchiveData) -> Result<Wanted, i16> {
    // SAFETY: the caller's promise.
    let raw = unsafe { read(question, rc::INVALID_PARAMETER)? };
    if raw.stVersion != 1 {
        return Err(rc::WRONG_VERSION_PARM);
    }
    // SAFETY: the caller's promise.
    let object = unsafe { read(raw.objName, rc::NULL_OBJNAME)? };
    let name = Name {
        fs: fixed(&object.fs, rc::FILESPACE_TOOLONG)?,
        hl: fixed(&object.hl, rc::HL_TOOLONG)?,
        ll: fixed(&object.ll, rc::LL_TOOLONG)?,
    };
    check_delimiters(&name)?;
    if !matches!(object.objType, sys::OBJ_FILE | sys::OBJ_DIRECTORY | sys::OBJ_ANY) {
        return Err(rc::INVALID_OBJTYPE);
    }
    // SAFETY: the caller's promise.
    let (owner, description) = unsafe { (text(raw.owner), text(raw.descr)) };
    Ok(Wanted {
        name,
        kind: object.objType,
        owner: owner.ok_or(rc::INVALID_PARAMETER)?,
        description: description.ok_or(rc::INVALID_PARAMETER)?,
        archived_s: (seconds(raw.insDateLowerBound), seconds(raw.insDateUpperBound)),
    })
}

/// # Safety
/// Null, or pointing to a data block whose buffer has the length it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmGetNextQObj(handle: sys::Handle, data: *mut sys::DataBlk) -> i16 {
    with_session(handle, "dsmGetNextQObj", |session| {
        // SAFETY: the caller's promise.
        unsafe { next(session, data) }.unwrap_or_else(|code| code)
    })
}

/// # Safety
/// As for `dsmGetNextQObj`.
unsafe fn next(session: &mut Session, data: *mut sys::DataBlk) -> Result<i16, i16> {
    let kind = session.query_kind()?;
    // SAFETY: the caller's promise.
    let mut block = unsafe { Block::new(data)? };
    let version = block.claimed_version()?;
    let new = process().level() >= [8, 1, 0, 0];
    // An answer that does not fit is not taken from the list.
    let (known, bytes) = match (kind, version) {
        (sys::QT_ARCHIVE, 7) => (new, size_of::<sys::qryRespArchiveData>()),
        (sys::QT_ARCHIVE, 6) => (true, size_of::<sys::qryRespArchiveData6>()),
        (sys::QT_FILESPACE, 4) => (new, size_of::<sys::qryRespFSData>()),
        (sys::QT_FILESPACE, 3) => (true, 1604),
        (sys::QT_MC, 4) => (true, size_of::<sys::qryRespMCDetailData>()),
        _ => (false, 0),
    };
    if !known {
        return Err(rc::WRONG_VERSION_PARM);
    }
    if block.bytes < bytes {
        return Err(rc::BUFF_TOO_SMALL);
    }
    block.set_bytes(0);
    match session.next_answer()? {
        Found::Object(id, object) if version == 7 => {
            block.fill(&archive_response(id, &object), bytes)?;
        }
        Found::Object(id, object) => {
            block.fill(&archive_response_6(id, &object), bytes)?;
        }
        Found::Filespace(name, filespace) => {
            let mut response = filespace_response(&name, &filespace);
            response.stVersion = version;
            block.fill(&response, bytes)?;
        }
        Found::ManagementClass(name) => block.fill(&class_response(&name), bytes)?,
    }
    Ok(rc::MORE_DATA)
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmEndQuery(handle: sys::Handle) -> i16 {
    with_session(handle, "dsmEndQuery", |session| code(session.end_query()))
}

/// Fills what both versions of the response have.
macro_rules! fill_response {
    ($raw:ident, $id:ident, $object:ident) => {
        let Object { name, kind, attributes, archived_s, transaction, .. } = $object;
        $raw.objName.objType = *kind;
        $raw.objId = sys::dsStruct64_t::new($id);
        $raw.mediaClass = 0x10;
        $raw.insDate = date(*archived_s);
        $raw.expDate = sys::dsmDate {
            year: sys::DATE_PLUS_INFINITE,
            month: 12,
            day: 31,
            hour: 23,
            minute: 59,
            second: 59,
        };
        $raw.objInfolen = attributes.info.len() as u16;
        $raw.restoreOrderExt.lo_hi = *transaction as u32;
        $raw.restoreOrderExt.lo_lo = $id as u32 & 0xffff;
        $raw.sizeEstimate = sys::dsStruct64_t::new(attributes.estimate);
        $raw.compressType = 2;
        // SAFETY: arrays of a local structure.
        unsafe {
            put(&raw mut $raw.objName.fs, &name.fs);
            put(&raw mut $raw.objName.hl, &name.hl);
            put(&raw mut $raw.objName.ll, &name.ll);
            put(&raw mut $raw.owner, &attributes.owner);
            put(&raw mut $raw.descr, &attributes.description);
            put(&raw mut $raw.mcName, b"STANDARD");
        }
    };
}

fn archive_response(id: u64, object: &Object) -> sys::qryRespArchiveData {
    let mut raw = sys::qryRespArchiveData::zeroed();
    raw.stVersion = 7;
    fill_response!(raw, id, object);
    let info = &object.attributes.info;
    raw.objInfo[..info.len()].copy_from_slice(info);
    let old = info.len().min(raw.reservedObjInfo.len());
    raw.reservedObjInfo[..old].copy_from_slice(&info[..old]);
    raw
}

fn archive_response_6(id: u64, object: &Object) -> sys::qryRespArchiveData6 {
    let mut raw = sys::qryRespArchiveData6::zeroed();
    raw.stVersion = 6;
    fill_response!(raw, id, object);
    let info = &object.attributes.info;
    let used = info.len().min(raw.objInfo.len());
    raw.objInfo[..used].copy_from_slice(&info[..used]);
    raw.objInfolen = used as u16;
    raw
}

fn filespace_response(name: &[u8], filespace: &Filespace) -> sys::qryRespFSData {
    let mut raw = sys::qryRespFSData::zeroed();
    let mut unix = sys::dsmUnixFSAttrib::zeroed();
    unix.fsInfoLength = filespace.info.len() as u16;
    unix.fsInfo[..filespace.info.len()].copy_from_slice(&filespace.info);
    raw.fsAttr.unixFSAttr = unix;
    raw.occupancy = sys::dsStruct64_t::new(filespace.occupancy);
    raw.capacity = sys::dsStruct64_t::new(filespace.capacity);
    // SAFETY: arrays of a local structure.
    unsafe {
        put(&raw mut raw.fsName, name);
        put(&raw mut raw.fsType, &filespace.fs_type);
    }
    raw
}

fn class_response(name: &str) -> sys::qryRespMCDetailData {
    let mut raw = sys::qryRespMCDetailData::zeroed();
    raw.stVersion = 4;
    // SAFETY: arrays of a local structure.
    unsafe {
        put(&raw mut raw.mcName, name.as_bytes());
        put(&raw mut raw.mcDesc, b"the only one");
        put(&raw mut raw.archDet.cgName, b"STANDARD");
        put(&raw mut raw.archDet.destName, b"ARCHIVEPOOL");
    }
    raw
}
