//! Transactions: archive, delete, rename, and the update in one of its own.

use std::ffi::{c_int, c_void};

use tsm_bindings::Zeroed;
use tsm_bindings::tsm::sys;

use super::{Block, code, fixed, object_name, put, read, text};
use crate::rc;
use crate::server::{with_session, with_session_and_fault};
use crate::session::{Session, management_class};
use crate::store::Attributes;

#[unsafe(no_mangle)]
pub extern "C" fn dsmBeginTxn(handle: sys::Handle) -> i16 {
    with_session(handle, "dsmBeginTxn", |session| code(session.begin()))
}

fn check_send_type(send_type: c_int) -> Result<(), i16> {
    match send_type {
        sys::ST_ARCHIVE | sys::ST_ARCHIVE_MOUNT_WAIT => Ok(()),
        _ => Err(rc::INVALID_SENDTYPE),
    }
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmBindMC(
    handle: sys::Handle,
    name: *mut sys::dsmObjName,
    send_type: c_int,
    key: *mut sys::mcBindKey,
) -> i16 {
    with_session(handle, "dsmBindMC", |session| {
        if key.is_null() {
            return rc::INVALID_PARAMETER;
        }
        // SAFETY: the caller's promise.
        let name = unsafe { object_name(name) };
        let bound = check_send_type(send_type).and(name).and_then(|(name, _)| session.bind(name));
        let exists = match bound {
            Ok(exists) => exists,
            Err(code) => return code,
        };
        let mut answer = sys::mcBindKey::zeroed();
        answer.stVersion = 1;
        answer.archive_cg_exists = exists.into();
        // SAFETY: arrays of a local structure, and the caller's structure.
        unsafe {
            put(&raw mut answer.mcName, management_class(&session.node).as_bytes());
            put(&raw mut answer.archive_copy_dest, if exists { b"ARCHIVEPOOL" } else { b"" });
            key.write(answer);
        }
        rc::OK
    })
}

/// # Safety
/// Null, or pointing to the structure with a C string or null in it.
unsafe fn description(raw: *const c_void) -> Result<Vec<u8>, i16> {
    // SAFETY: the caller's promise; for the archive types the buffer is this structure.
    let raw = unsafe { read(raw.cast::<sys::sndArchiveData>(), rc::INVALID_PARAMETER)? };
    if raw.stVersion > 1 {
        return Err(rc::WRONG_VERSION_PARM);
    }
    // SAFETY: as above.
    let description = unsafe { text(raw.descr) }.unwrap_or_default();
    if description.len() > sys::DESCR_BYTES_MAX { Err(rc::DESC_TOOLONG) } else { Ok(description) }
}

/// # Safety
/// Null, or pointing to the structure, its information of the length it says.
unsafe fn attributes(raw: *const sys::ObjAttr) -> Result<Attributes, i16> {
    // SAFETY: the caller's promise.
    let raw = unsafe { read(raw, rc::NULL_OBJATTRPTR)? };
    if raw.stVersion == 0 || raw.stVersion > 4 {
        return Err(rc::WRONG_VERSION_PARM);
    }
    // Callers leave garbage in this member, which the library takes for "yes" as well.
    let extended = raw.stVersion >= 4 && raw.useExtObjInfo != 0;
    let max = if extended { sys::OBJINFO_EXT_BYTES_MAX } else { sys::OBJINFO_BYTES_MAX };
    let length = usize::from(raw.objInfoLength);
    if length > max {
        return Err(rc::OBJINFO_TOOLONG);
    }
    if length > 0 && raw.objInfo.is_null() {
        return Err(rc::INVALID_PARAMETER);
    }
    let info = if length == 0 {
        Vec::new()
    } else {
        // SAFETY: not null, and the caller's promise as to its length.
        unsafe { std::slice::from_raw_parts(raw.objInfo.cast::<u8>(), length) }.to_vec()
    };
    Ok(Attributes {
        owner: fixed(&raw.owner, rc::STRING_TOO_LONG)?,
        description: Vec::new(),
        info,
        estimate: raw.sizeEstimate.value(),
    })
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmSendObj(
    handle: sys::Handle,
    send_type: c_int,
    archive: *mut c_void,
    name: *mut sys::dsmObjName,
    attributes_in: *mut sys::ObjAttr,
    data: *mut sys::DataBlk,
) -> i16 {
    with_session(handle, "dsmSendObj", |session| {
        let sent = check_send_type(send_type).and_then(|()| {
            // SAFETY: the caller's promise.
            let (name, about, description) =
                unsafe { (object_name(name)?, attributes(attributes_in)?, description(archive)?) };
            session.send(name.0, name.1, Attributes { description, ..about })
        });
        // SAFETY: the caller's promise.
        let first = match unsafe { read(data, rc::OK) } {
            Ok(block) if !block.bufferPtr.is_null() => data,
            _ => return code(sent),
        };
        // SAFETY: the caller's promise.
        code(sent.and_then(|()| unsafe { send_block(session, first) }))
    })
}

/// # Safety
/// Null, or pointing to a data block whose buffer has the length it says.
unsafe fn send_block(session: &mut Session, data: *mut sys::DataBlk) -> Result<(), i16> {
    // SAFETY: the caller's promise.
    let mut block = unsafe { Block::new(data)? };
    session.send_data(block.data())?;
    block.set_bytes(block.bytes);
    Ok(())
}

/// # Safety
/// Null, or pointing to a data block whose buffer has the length it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmSendData(handle: sys::Handle, data: *mut sys::DataBlk) -> i16 {
    with_session(handle, "dsmSendData", |session| {
        // SAFETY: the caller's promise.
        code(unsafe { send_block(session, data) })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmEndSendObj(handle: sys::Handle) -> i16 {
    with_session(handle, "dsmEndSendObj", |session| code(session.end_send().map(|_| ())))
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmEndSendObjEx(
    request: *mut sys::dsmEndSendObjExIn_t,
    answer: *mut sys::dsmEndSendObjExOut_t,
) -> i16 {
    // SAFETY: the caller's promise.
    let request = match unsafe { read(request, rc::INVALID_PARAMETER) } {
        Ok(request) if !answer.is_null() => request,
        _ => return rc::INVALID_PARAMETER,
    };
    with_session(request.dsmHandle, "dsmEndSendObjEx", |session| {
        let bytes = match session.end_send() {
            Ok(bytes) => bytes,
            Err(code) => return code,
        };
        let mut out = sys::dsmEndSendObjExOut_t::zeroed();
        out.stVersion = 3;
        out.totalBytesSent = sys::dsStruct64_t::new(bytes);
        // SAFETY: not null, and the caller's promise.
        unsafe { answer.write(out) };
        rc::OK
    })
}

/// Ends the transaction; both codes are zero only if it was committed.
fn end(handle: sys::Handle, vote: u8) -> (i16, u16) {
    let mut reason = 0;
    let code = with_session_and_fault(handle, "dsmEndTxn", |session, fault| {
        let aborted = |reason: i16| if reason == 0 { rc::OK } else { rc::CHECK_REASON_CODE };
        let before = fault.filter(|fault| !fault.after);
        let forced = before.map(|fault| fault.second as i16);
        match session.end(vote, forced) {
            Err(code) => code,
            Ok(why) => {
                reason = why.cast_unsigned();
                match fault {
                    Some(fault) => fault.code as i16,
                    None if why == rc::ABORT_BY_CLIENT => rc::OK,
                    None => aborted(why),
                }
            }
        }
    });
    (code, reason)
}

/// # Safety
/// Null, or pointing to the reason.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmEndTxn(handle: sys::Handle, vote: u8, reason: *mut u16) -> i16 {
    if reason.is_null() {
        return rc::INVALID_PARAMETER;
    }
    let (code, why) = end(handle, vote);
    // SAFETY: not null, and the caller's promise. Written always: ltsm does not set it before.
    unsafe { *reason = why };
    code
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmEndTxnEx(
    request: *mut sys::dsmEndTxnExIn_t,
    answer: *mut sys::dsmEndTxnExOut_t,
) -> i16 {
    // SAFETY: the caller's promise.
    let request = match unsafe { read(request, rc::INVALID_PARAMETER) } {
        Ok(request) if !answer.is_null() => request,
        _ => return rc::INVALID_PARAMETER,
    };
    let (code, reason) = end(request.dsmHandle, request.vote);
    let mut out = sys::dsmEndTxnExOut_t::zeroed();
    (out.stVersion, out.reason) = (1, reason);
    // SAFETY: not null, and the caller's promise.
    unsafe { answer.write(out) };
    code
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmDeleteObj(
    handle: sys::Handle,
    delete_type: c_int,
    info: sys::dsmDelInfo,
) -> i16 {
    with_session(handle, "dsmDeleteObj", |session| {
        if delete_type != sys::DT_ARCHIVE {
            return rc::INVALID_PARAMETER;
        }
        // SAFETY: all members begin with the version and are plain bytes; the type names this one.
        let object = unsafe { info.archInfo };
        if object.stVersion != 1 {
            return rc::WRONG_VERSION_PARM;
        }
        code(session.delete(object.objId.value()))
    })
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmRenameObj(
    request: *mut sys::dsmRenameIn_t,
    answer: *mut sys::dsmRenameOut_t,
) -> i16 {
    // SAFETY: the caller's promise.
    let request = match unsafe { read(request, rc::INVALID_PARAMETER) } {
        Ok(request) if !answer.is_null() => request,
        _ => return rc::INVALID_PARAMETER,
    };
    with_session(request.dsmHandle, "dsmRenameObj", |session| {
        let mut renamed = || {
            let hl = fixed(&request.newHl, rc::HL_TOOLONG)?;
            let ll = fixed(&request.newLl, rc::LL_TOOLONG)?;
            if hl.first() != Some(&b'/') {
                return Err(rc::INVALID_HLNAME);
            }
            if ll.first() != Some(&b'/') {
                return Err(rc::INVALID_LLNAME);
            }
            session.rename(request.objId.value(), hl, ll)
        };
        code(renamed())
    })
}

fn update(
    session: &mut Session,
    id: Option<u64>,
    name: Option<&crate::store::Name>,
    about: &Attributes,
    mask: u32,
) -> Result<(), i16> {
    let all = sys::ARCHIVE_UPDATE_OWNER | sys::ARCHIVE_UPDATE_OBJINFO | sys::ARCHIVE_UPDATE_DESCR;
    if mask == 0 || mask & !all != 0 {
        return Err(rc::INVALID_ACTION);
    }
    session.update(id, name, |stored| {
        if mask & sys::ARCHIVE_UPDATE_OWNER != 0 {
            stored.owner.clone_from(&about.owner);
        }
        if mask & sys::ARCHIVE_UPDATE_OBJINFO != 0 {
            stored.info.clone_from(&about.info);
            stored.estimate = about.estimate;
        }
        if mask & sys::ARCHIVE_UPDATE_DESCR != 0 {
            stored.description.clone_from(&about.description);
        }
    })
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmUpdateObj(
    handle: sys::Handle,
    send_type: c_int,
    archive: *mut c_void,
    name: *mut sys::dsmObjName,
    attributes_in: *mut sys::ObjAttr,
    mask: u32,
) -> i16 {
    with_session(handle, "dsmUpdateObj", |session| {
        let updated = check_send_type(send_type).and_then(|()| {
            // SAFETY: the caller's promise.
            let ((name, _), about) = unsafe { (object_name(name)?, attributes(attributes_in)?) };
            let description = if mask & sys::ARCHIVE_UPDATE_DESCR == 0 {
                Vec::new()
            } else {
                // SAFETY: the caller's promise.
                unsafe { description(archive)? }
            };
            update(session, None, Some(&name), &Attributes { description, ..about }, mask)
        });
        code(updated)
    })
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmUpdateObjEx(
    request: *mut sys::dsmUpdateObjExIn_t,
    answer: *mut sys::dsmUpdateObjExOut_t,
) -> i16 {
    // SAFETY: the caller's promise.
    let request = match unsafe { read(request, rc::INVALID_PARAMETER) } {
        Ok(request) if !answer.is_null() => request,
        _ => return rc::INVALID_PARAMETER,
    };
    with_session(request.dsmHandle, "dsmUpdateObjEx", |session| {
        let updated = check_send_type(request.sendType).and_then(|()| {
            // SAFETY: the caller's promise.
            let about = unsafe { attributes(request.objAttrPtr)? };
            // SAFETY: as above.
            let description = unsafe { text(request.descrP) }.unwrap_or_default();
            if description.len() > sys::DESCR_BYTES_MAX {
                return Err(rc::DESC_TOOLONG);
            }
            let id = request.archObjId.value();
            let about = Attributes { description, ..about };
            update(session, Some(id), None, &about, request.objUpdAct)
        });
        code(updated)
    })
}
