//! The exported functions on layouts, and the layouts of the files that were made with them.
//!
//! Invariant: a file has a record here only if it was made with a layout, and that one call has
//! said so with success, or was to fail afterwards.

#![expect(unreachable_pub, reason = "reached by their C names, not through the modules")]

use std::ffi::{CStr, c_char, c_int};
use std::fs;
use std::io;
use std::os::fd::{AsFd, IntoRawFd};
use std::path::Path;
use std::sync::Arc;

use libc::mode_t;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tsm_bindings::lustre::sys;

use crate::STATE;
use crate::exports::{complain, path, scripted};
use crate::mount::{Mount, errno, find, identify, key, open_path, path_of};

/// A layout as it was asked for, in the values of the C interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLayout {
    /// Number of stripes, or one of the library's special values.
    pub stripe_count: u64,
    /// Bytes, or [`sys::LAYOUT_DEFAULT`].
    pub stripe_bytes: u64,
    /// Empty: none.
    pub pool: String,
}

/// What C programs get a pointer to.
struct Object {
    magic: u64,
    layout: FileLayout,
}

/// Tells a layout from anything else that a pointer may lead to, as long as it is not freed.
const MAGIC: u64 = 0x6c61_796f_7574_2121;

/// Stripe sizes end before this, bytes.
const STRIPE_BYTES_END: u64 = 1 << 32;

/// Sets errno; what the functions then return.
fn fail(call: &str, error: Errno) -> c_int {
    complain(&format_args!("{call}: {error}"));
    // SAFETY: the C library gives each thread a valid place.
    unsafe { *libc::__errno_location() = error.raw_os_error() };
    -1
}

fn answer(call: &str, result: Result<(), Errno>) -> c_int {
    result.map_or_else(|error| fail(call, error), |()| 0)
}

/// # Safety
/// Null, or a layout of `llapi_layout_alloc` that nobody else uses.
unsafe fn object<'a>(layout: *mut Object) -> Result<&'a mut Object, Errno> {
    // SAFETY: the caller's promise.
    let object = unsafe { layout.as_mut() }.ok_or(Errno::INVAL)?;
    if object.magic == MAGIC { Ok(object) } else { Err(Errno::INVAL) }
}

#[unsafe(no_mangle)]
pub extern "C" fn llapi_layout_alloc() -> *mut sys::llapi_layout {
    let (count, bytes) = (sys::LAYOUT_DEFAULT, sys::LAYOUT_DEFAULT);
    let layout = FileLayout { stripe_count: count, stripe_bytes: bytes, pool: String::new() };
    Box::into_raw(Box::new(Object { magic: MAGIC, layout })).cast()
}

/// # Safety
/// Null, or a layout of `llapi_layout_alloc`, which is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_layout_free(layout: *mut sys::llapi_layout) {
    if !layout.is_null() {
        // SAFETY: the caller's promise.
        let mut object = unsafe { Box::from_raw(layout.cast::<Object>()) };
        object.magic = 0;
    }
}

/// # Safety
/// Null, or a layout of `llapi_layout_alloc` that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_layout_stripe_count_set(
    layout: *mut sys::llapi_layout,
    count: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    let set = unsafe { object(layout.cast()) }.and_then(|object| {
        let special = [sys::LAYOUT_DEFAULT, sys::LAYOUT_WIDE].contains(&count);
        if !special && !(1..=u64::from(sys::STRIPES_MAX)).contains(&count) {
            return Err(Errno::INVAL);
        }
        object.layout.stripe_count = count;
        Ok(())
    });
    answer("llapi_layout_stripe_count_set", set)
}

/// # Safety
/// Null, or a layout of `llapi_layout_alloc` that nobody else uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_layout_stripe_size_set(
    layout: *mut sys::llapi_layout,
    bytes: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    let set = unsafe { object(layout.cast()) }.and_then(|object| {
        let whole = bytes.is_multiple_of(u64::from(sys::STRIPE_UNIT_BYTES));
        if bytes != sys::LAYOUT_DEFAULT && (bytes == 0 || !whole || bytes >= STRIPE_BYTES_END) {
            return Err(Errno::INVAL);
        }
        object.layout.stripe_bytes = bytes;
        Ok(())
    });
    answer("llapi_layout_stripe_size_set", set)
}

/// # Safety
/// Null, or a layout of `llapi_layout_alloc` that nobody else uses; null, or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_layout_pool_name_set(
    layout: *mut sys::llapi_layout,
    pool: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let set = unsafe { object(layout.cast()) }.and_then(|object| {
        if pool.is_null() {
            return Err(Errno::INVAL);
        }
        // SAFETY: the caller's promise.
        let name = unsafe { CStr::from_ptr(pool) }.to_str().map_err(|_| Errno::INVAL)?;
        if name.len() > sys::POOL_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        object.layout.pool = name.to_owned();
        Ok(())
    });
    answer("llapi_layout_pool_name_set", set)
}

/// # Safety
/// Null, or a C string; null, or a layout of `llapi_layout_alloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_layout_file_open(
    pathname: *const c_char,
    flags: c_int,
    mode: mode_t,
    layout: *const sys::llapi_layout,
) -> c_int {
    const CALL: &str = "llapi_layout_file_open";
    // SAFETY: the caller's promise.
    let layout = match unsafe { layout.cast::<Object>().as_ref() } {
        Some(object) if object.magic != MAGIC => return fail(CALL, Errno::INVAL),
        object => object.map(|object| &object.layout),
    };
    // SAFETY: the caller's promise.
    let opened = unsafe { path(pathname) }.and_then(|path| {
        let open = || open(&path, flags, mode, layout);
        match mount_of_parent(&path) {
            Some(mount) => scripted(&mount, CALL, open),
            None => open(),
        }
    });
    opened.map_or_else(|error| fail(CALL, error), IntoRawFd::into_raw_fd)
}

/// The file system that a file is or will be in.
fn mount_of_parent(path: &Path) -> Option<Arc<Mount>> {
    find(&path.parent()?.canonicalize().ok()?)
}

/// First the file is made, then it gets its layout; where that fails, nobody removes it.
fn open(
    path: &Path,
    flags: c_int,
    mode: mode_t,
    layout: Option<&FileLayout>,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::from_bits_retain(flags as u32);
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?;
    if let Some(layout) = layout.filter(|_| flags.contains(OFlags::CREATE)) {
        let mount = find(&path_of(&file)?).ok_or(Errno::NOTTY)?;
        scripted(&mount, "setstripe", || store(&mount, &file, layout))?;
    }
    Ok(file)
}

fn store(mount: &Mount, file: impl AsFd, layout: &FileLayout) -> Result<(), Errno> {
    let (seq, oid) = identify(file)?;
    let FileLayout { stripe_count, stripe_bytes, pool } = layout;
    let text = format!("{stripe_count} {stripe_bytes} {pool}");
    let record = mount.state().join("layouts").join(key(seq, oid));
    sim_control::replace(&record, text.as_bytes()).map_err(|error| errno(&error))
}

/// The layout of a file, if it was made with one.
pub(crate) fn of(file: &Path) -> Result<Option<FileLayout>, Errno> {
    let file = open_path(file)?;
    // Without `find`: who only looks needs no coordinator.
    let path = path_of(&file)?;
    let mut states = path.ancestors().map(|directory| directory.join(STATE));
    let state = states.find(|state| state.is_dir()).ok_or(Errno::NOTTY)?;
    let (seq, oid) = identify(&file)?;
    let text = match fs::read_to_string(state.join("layouts").join(key(seq, oid))) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(errno(&error)),
    };
    let mut words = text.splitn(3, ' ');
    let mut number = || words.next()?.parse().ok();
    let (Some(stripe_count), Some(stripe_bytes)) = (number(), number()) else {
        return Err(Errno::IO);
    };
    let pool = words.next().ok_or(Errno::IO)?.to_owned();
    Ok(Some(FileLayout { stripe_count, stripe_bytes, pool }))
}
