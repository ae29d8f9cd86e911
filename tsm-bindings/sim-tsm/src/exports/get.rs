//! Retrieval.

use std::ffi::c_int;

use tsm_bindings::Zeroed;
use tsm_bindings::tsm::sys;

use super::{Block, code, read};
use crate::rc;
use crate::server::with_session;
use crate::session::Session;

/// # Safety
/// Null, or pointing to the structure, its arrays of the length it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmBeginGetData(
    handle: sys::Handle,
    _mount_wait: sys::dsmBool_t,
    get_type: c_int,
    list: *mut sys::dsmGetList,
) -> i16 {
    with_session(handle, "dsmBeginGetData", |session| {
        // SAFETY: the caller's promise.
        code(unsafe { begin(session, get_type, list) })
    })
}

/// # Safety
/// As for `dsmBeginGetData`.
unsafe fn begin(
    session: &mut Session,
    get_type: c_int,
    list: *const sys::dsmGetList,
) -> Result<(), i16> {
    // SAFETY: the caller's promise.
    let list = unsafe { read(list, rc::INVALID_PARAMETER)? };
    if get_type != sys::GT_ARCHIVE {
        return Err(rc::INVALID_PARAMETER);
    }
    let parts = match list.stVersion {
        2 => false,
        3 => !list.partialObjData.is_null(),
        _ => return Err(rc::WRONG_VERSION_PARM),
    };
    let objects = list.numObjId as usize;
    if objects == 0 || list.objId.is_null() {
        return Err(rc::OBJID_NOTFOUND);
    }
    let max = if parts { sys::GET_PARTIAL_OBJECTS_MAX } else { sys::GET_OBJECTS_MAX };
    if objects > max {
        return Err(rc::NUMOBJ_EXCEED);
    }
    // SAFETY: not null, and the caller's promise as to its length.
    let ids = unsafe { std::slice::from_raw_parts(list.objId, objects) };
    if !parts {
        return session.begin_get(ids.iter().map(|id| (id.value(), None)));
    }
    // SAFETY: as above.
    let parts = unsafe { std::slice::from_raw_parts(list.partialObjData, objects) };
    let part = |part: &sys::PartialObjData| {
        Some((part.partialObjOffset.value(), part.partialObjLength.value()))
    };
    session.begin_get(ids.iter().zip(parts).map(|(id, p)| (id.value(), part(p))))
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmGetObj(
    handle: sys::Handle,
    id: *mut sys::dsStruct64_t,
    data: *mut sys::DataBlk,
) -> i16 {
    with_session(handle, "dsmGetObj", |session| {
        // SAFETY: the caller's promise.
        let got = unsafe { read(id, rc::OBJID_NOTFOUND) }.and_then(|id| {
            // A bad block must not leave the object begun.
            // SAFETY: the caller's promise.
            let block = if data.is_null() { None } else { Some(unsafe { Block::new(data)? }) };
            session.get_object(id.value())?;
            match block {
                Some(block) => fetch(session, block),
                None => Ok(rc::MORE_DATA),
            }
        });
        got.unwrap_or_else(|code| code)
    })
}

/// # Safety
/// Null, or pointing to a data block whose buffer has the length it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmGetData(handle: sys::Handle, data: *mut sys::DataBlk) -> i16 {
    with_session(handle, "dsmGetData", |session| {
        // SAFETY: the caller's promise.
        let block = unsafe { Block::new(data) };
        block.and_then(|block| fetch(session, block)).unwrap_or_else(|code| code)
    })
}

fn fetch(session: &mut Session, mut block: Block) -> Result<i16, i16> {
    let (bytes, last) = session.get_data(block.room())?;
    block.set_bytes(bytes);
    Ok(if last { rc::FINISHED } else { rc::MORE_DATA })
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmEndGetObj(handle: sys::Handle) -> i16 {
    with_session(handle, "dsmEndGetObj", |session| code(session.end_get_object()))
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmEndGetData(handle: sys::Handle) -> i16 {
    with_session(handle, "dsmEndGetData", |session| code(session.end_get()))
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmEndGetDataEx(
    request: *mut sys::dsmEndGetDataExIn_t,
    answer: *mut sys::dsmEndGetDataExOut_t,
) -> i16 {
    // SAFETY: the caller's promise.
    let request = match unsafe { read(request, rc::INVALID_PARAMETER) } {
        Ok(request) if !answer.is_null() => request,
        _ => return rc::INVALID_PARAMETER,
    };
    let code = dsmEndGetData(request.dsmHandle);
    let mut out = sys::dsmEndGetDataExOut_t::zeroed();
    out.stVersion = 1;
    // SAFETY: not null, and the caller's promise.
    unsafe { answer.write(out) };
    code
}
