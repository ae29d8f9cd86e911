//! The exported functions, and how they read and write what C programs hand them.
//!
//! Invariant: a pointer is read or written only after it has been checked for null.

#![expect(unreachable_pub, reason = "reached by their C names, not through the modules")]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tsm_bindings::Zeroed;
use tsm_bindings::lustre::sys;

use crate::mount::{Mount, errno, find, open_path, path_of};
use crate::requests::{Item, queue, set_flags, submit};

static LEVEL: AtomicI32 = AtomicI32::new(sys::MSG_NORMAL);

/// A message as the library prints them, unless its level forbids it.
pub(crate) fn complain(text: &dyn std::fmt::Display) {
    if LEVEL.load(Ordering::Relaxed) >= sys::MSG_ERROR {
        eprintln!("sim-lustre: {text}");
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn llapi_msg_set_level(level: c_int) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Success, or the errno as the library returns it.
fn answer(call: &str, result: Result<(), Errno>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => {
            complain(&format_args!("{call}: {error}"));
            -error.raw_os_error()
        }
    }
}

/// Runs a call on a file system as the script has it.
pub(crate) fn scripted<T>(
    mount: &Mount,
    call: &'static str,
    work: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let verdict = mount.judge(call)?;
    std::thread::sleep(verdict.delay);
    match verdict.fault {
        Some(fault) => {
            if fault.after {
                let _ = work();
            }
            Err(Errno::from_raw_os_error(fault.code))
        }
        None => work(),
    }
}

/// # Safety
/// Null, or a C string.
pub(crate) unsafe fn path(pointer: *const c_char) -> Result<PathBuf, Errno> {
    if pointer.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Writes a name into a buffer of `PATH_MAX`.
///
/// # Safety
/// Null, or a buffer of that size.
unsafe fn put(buffer: *mut c_char, bytes: &[u8]) -> Result<(), Errno> {
    if buffer.is_null() {
        return Err(Errno::FAULT);
    }
    if bytes.len() >= sys::PATH_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    // SAFETY: the caller's promise; text and NUL fit.
    unsafe {
        buffer.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        buffer.add(bytes.len()).write(0);
    }
    Ok(())
}

/// The file system that a path begins with as text: mount points have no symlinks in them, and a
/// path through one begins with none.
fn mount_by_text(path: &Path) -> Result<Arc<Mount>, Errno> {
    let plain = path.is_absolute() && !path.components().any(|c| c == Component::ParentDir);
    let mount = if plain { find(path) } else { None };
    let mount = mount.ok_or(Errno::NODEV)?;
    match mount.root.canonicalize() {
        Ok(root) if root == mount.root => Ok(mount),
        _ => Err(Errno::NODEV),
    }
}

/// # Safety
/// A C string or null, and buffers of `PATH_MAX` or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_search_mounts(
    pathname: *const c_char,
    index: c_int,
    mntdir: *mut c_char,
    fsname: *mut c_char,
) -> c_int {
    const CALL: &str = "llapi_search_mounts";
    // SAFETY: the caller's promise.
    let found = unsafe { path(pathname) }.and_then(|path| {
        // A path is in one mount; a list of all of them there is not.
        let mount = if index == 0 { mount_by_text(&path)? } else { return Err(Errno::NODEV) };
        scripted(&mount, CALL, || {
            let name = mount.text("fsname", "simfs");
            // SAFETY: the caller's promise.
            unsafe {
                put(mntdir, mount.root.as_os_str().as_bytes())?;
                put(fsname, name.as_bytes())
            }
        })
    });
    answer(CALL, found)
}

/// # Safety
/// A C string or null, and a buffer of `PATH_MAX` or null; they may be the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_search_fsname(
    pathname: *const c_char,
    fsname: *mut c_char,
) -> c_int {
    const CALL: &str = "llapi_search_fsname";
    // SAFETY: the caller's promise.
    let found = unsafe { path(pathname) }.and_then(|path| {
        let parent = || path.parent().map_or_else(|| Path::new("/").into(), Path::to_path_buf);
        let real = path.canonicalize().or_else(|_| parent().canonicalize());
        let real = real.map_err(|error| errno(&error))?;
        let mount = find(&real).ok_or(Errno::NODEV)?;
        scripted(&mount, CALL, || {
            // SAFETY: the caller's promise.
            unsafe { put(fsname, mount.text("fsname", "simfs").as_bytes()) }
        })
    });
    answer(CALL, found)
}

/// # Safety
/// Null, or room for a FID of any alignment.
unsafe fn put_fid(
    call: &'static str,
    file: impl AsFd + Copy,
    fid: *mut sys::lu_fid,
) -> Result<(), Errno> {
    // Elsewhere the file's handle is of another kind.
    let mount = find(&path_of(file)?).ok_or(Errno::OPNOTSUPP)?;
    scripted(&mount, call, || {
        if fid.is_null() {
            return Err(Errno::FAULT);
        }
        let (f_seq, f_oid) = mount.lock()?.identify(file)?;
        // SAFETY: the caller's promise.
        unsafe { fid.write_unaligned(sys::lu_fid { f_seq, f_oid, f_ver: 0 }) };
        Ok(())
    })
}

/// # Safety
/// A C string or null, and room for a FID or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_path2fid(pathname: *const c_char, fid: *mut sys::lu_fid) -> c_int {
    const CALL: &str = "llapi_path2fid";
    // SAFETY: the caller's promise.
    let found = unsafe { path(pathname) }
        .and_then(|path| open_path(&path))
        // SAFETY: the caller's promise.
        .and_then(|file| unsafe { put_fid(CALL, &file, fid) });
    answer(CALL, found)
}

/// An open file of the caller's.
///
/// # Safety
/// Negative, or open during the call.
unsafe fn borrow<'f>(fd: c_int) -> Result<BorrowedFd<'f>, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// # Safety
/// An open file or none, and room for a FID or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_fd2fid(fd: c_int, fid: *mut sys::lu_fid) -> c_int {
    const CALL: &str = "llapi_fd2fid";
    // SAFETY: the caller's promise.
    let found = unsafe { borrow(fd).and_then(|file| put_fid(CALL, file, fid)) };
    answer(CALL, found)
}

/// The buffer is full of garbage, as it was before Lustre 2.15: who relies on zeros is found out.
#[unsafe(no_mangle)]
pub extern "C" fn llapi_hsm_user_request_alloc(
    itemcount: c_int,
    data_len: c_int,
) -> *mut sys::hsm_request {
    let (Ok(items), Ok(data)) = (usize::try_from(itemcount), usize::try_from(data_len)) else {
        return std::ptr::null_mut();
    };
    let bytes = size_of::<sys::hsm_request>() + items * size_of::<sys::hsm_user_item>() + data;
    // SAFETY: any size will do; the caller gives the memory back with free().
    let memory = unsafe { libc::malloc(bytes) }.cast::<u8>();
    if !memory.is_null() {
        // SAFETY: malloc returned this many bytes.
        unsafe { memory.write_bytes(0xa5, bytes) };
    }
    memory.cast()
}

/// # Safety
/// A C string or null, and a request with as many items behind it as it counts, or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_request(
    pathname: *const c_char,
    request: *const sys::hsm_request,
) -> c_int {
    const CALL: &str = "llapi_hsm_request";
    // SAFETY: the caller's promise.
    let asked = unsafe { path(pathname) }.and_then(|path| {
        let mount = mount_by_text(&path)?;
        scripted(&mount, CALL, || {
            if request.is_null() {
                return Err(Errno::FAULT);
            }
            // SAFETY: the caller's promise; C programs may not have aligned it.
            let head = unsafe { request.read_unaligned() };
            // SAFETY: as above; the items follow the head.
            let first = unsafe { request.add(1) }.cast::<sys::hsm_user_item>();
            let items: Vec<Item> = (0..head.hr_itemcount as usize)
                .map(|i| {
                    // SAFETY: as above.
                    let item = unsafe { first.add(i).read_unaligned() };
                    let (fid, extent) = (item.hui_fid, item.hui_extent);
                    let fid = (fid.f_seq, fid.f_oid);
                    Item { fid, offset: extent.offset, length: extent.length }
                })
                .collect();
            submit(&mount, &head, &items)
        })
    });
    answer(CALL, asked)
}

/// Opens a file as the library does for its ioctls.
fn open(path: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// # Safety
/// Null, or room for the structure.
unsafe fn put_state(
    call: &'static str,
    file: impl AsFd + Copy,
    state: *mut sys::hsm_user_state,
) -> Result<(), Errno> {
    let mount = find(&path_of(file)?).ok_or(Errno::NOTTY)?;
    scripted(&mount, call, || {
        if state.is_null() {
            return Err(Errno::FAULT);
        }
        let guard = mount.lock()?;
        let record = guard.current(guard.identify(file)?, file)?;
        let mut out = sys::hsm_user_state::zeroed();
        out.hus_states = record.states | mount.number("extra-states", 0) as u32;
        out.hus_archive_id = record.archive_id;
        // SAFETY: the caller's promise.
        unsafe { state.write_unaligned(out) };
        Ok(())
    })
}

/// # Safety
/// A C string or null, and room for the structure or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_state_get(
    pathname: *const c_char,
    state: *mut sys::hsm_user_state,
) -> c_int {
    const CALL: &str = "llapi_hsm_state_get";
    // SAFETY: the caller's promise.
    let found = unsafe { path(pathname) }
        .and_then(|path| open(&path))
        // SAFETY: the caller's promise.
        .and_then(|file| unsafe { put_state(CALL, &file, state) });
    answer(CALL, found)
}

/// # Safety
/// An open file or none, and room for the structure or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_state_get_fd(
    fd: c_int,
    state: *mut sys::hsm_user_state,
) -> c_int {
    const CALL: &str = "llapi_hsm_state_get_fd";
    // SAFETY: the caller's promise.
    let found = unsafe { borrow(fd).and_then(|file| put_state(CALL, file, state)) };
    answer(CALL, found)
}

fn change_state(
    call: &'static str,
    file: impl AsFd + Copy,
    set: u64,
    clear: u64,
    archive_id: u32,
) -> Result<(), Errno> {
    let mount = find(&path_of(file)?).ok_or(Errno::NOTTY)?;
    scripted(&mount, call, || set_flags(&mount.lock()?, file, set, clear, archive_id))
}

/// # Safety
/// A C string or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_state_set(
    pathname: *const c_char,
    set: u64,
    clear: u64,
    archive_id: u32,
) -> c_int {
    const CALL: &str = "llapi_hsm_state_set";
    // SAFETY: the caller's promise.
    let done = unsafe { path(pathname) }
        .and_then(|path| open(&path))
        .and_then(|file| change_state(CALL, &file, set, clear, archive_id));
    answer(CALL, done)
}

/// # Safety
/// An open file or none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_state_set_fd(
    fd: c_int,
    set: u64,
    clear: u64,
    archive_id: u32,
) -> c_int {
    const CALL: &str = "llapi_hsm_state_set_fd";
    // SAFETY: the caller's promise.
    let file = unsafe { borrow(fd) };
    answer(CALL, file.and_then(|file| change_state(CALL, file, set, clear, archive_id)))
}

/// # Safety
/// A C string or null, and room for the structure or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_current_action(
    pathname: *const c_char,
    action: *mut sys::hsm_current_action,
) -> c_int {
    const CALL: &str = "llapi_hsm_current_action";
    // SAFETY: the caller's promise.
    let found = unsafe { path(pathname) }.and_then(|path| open(&path)).and_then(|file| {
        let mount = find(&path_of(&file)?).ok_or(Errno::NOTTY)?;
        scripted(&mount, CALL, || {
            if action.is_null() {
                return Err(Errno::FAULT);
            }
            let guard = mount.lock()?;
            let fid = guard.identify(&file)?;
            let mut out = sys::hsm_current_action::zeroed();
            // An idle file is said to be waiting, too.
            (out.hca_state, out.hca_action) = (sys::HPS_WAITING, sys::HUA_NONE);
            if let Some(request) = queue(&mount, &guard)?.iter().find(|r| r.fid == fid) {
                out.hca_action = request.action;
                if request.running {
                    out.hca_state = sys::HPS_RUNNING;
                }
            }
            // SAFETY: the caller's promise.
            unsafe { action.write_unaligned(out) };
            Ok(())
        })
    });
    answer(CALL, found)
}
