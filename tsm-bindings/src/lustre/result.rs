//! The calls of the Lustre library, each with its error as a type.
//!
//! Invariant: a negative return value leaves this module as an errno with the name of the call,
//! and what the library prints about it is switched off. The functions are safe: each keeps its
//! strings and buffers alive for as long as the library looks at them, which is never longer than
//! the call. Only those on layouts are not, since a layout outlives a call.

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;

use super::sys::{self, LayoutSymbols, Symbols};
use crate::Zeroed;

/// A call that the library answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {errno}")]
pub struct CallError {
    /// The function.
    pub call: &'static str,
    /// Why.
    pub errno: Errno,
}

type Result<T> = std::result::Result<T, CallError>;

/// A buffer that the library fills with a path or a name.
type Text = [u8; sys::PATH_BYTES];

/// The function table, as functions that return errors.
pub struct Calls {
    symbols: Symbols,
}

impl Calls {
    pub(crate) fn new(symbols: Symbols) -> Self {
        // SAFETY: takes any level; the library prints to standard error unless told otherwise.
        unsafe { (symbols.llapi_msg_set_level)(sys::MSG_OFF) };
        Self { symbols }
    }

    /// Mount point and name of the file system that a path begins with, compared as text.
    ///
    /// # Errors
    /// `ENODEV`: none, or the path is relative or leads through a symlink.
    pub fn search_mounts(&self, path: &CStr) -> Result<(Box<Text>, Box<Text>)> {
        let (mut mount, mut name) = (text(), text());
        // SAFETY: both buffers have the size that the library may fill.
        let rc = unsafe {
            (self.symbols.llapi_search_mounts)(
                path.as_ptr(),
                0,
                mount.as_mut_ptr().cast(),
                name.as_mut_ptr().cast(),
            )
        };
        check("llapi_search_mounts", rc)?;
        Ok((mount, name))
    }

    /// Name of the file system that a file is in.
    ///
    /// # Errors
    /// `ENODEV`: not in Lustre.
    pub fn search_fsname(&self, path: &CStr) -> Result<Box<Text>> {
        let mut name = text();
        // SAFETY: the buffer has the size that the library may fill.
        let rc =
            unsafe { (self.symbols.llapi_search_fsname)(path.as_ptr(), name.as_mut_ptr().cast()) };
        check("llapi_search_fsname", rc).map(|()| name)
    }

    /// Identity of the file at a path, a symlink itself where it is one.
    ///
    /// # Errors
    /// Not in Lustre has several errnos here.
    pub fn path2fid(&self, path: &CStr) -> Result<sys::lu_fid> {
        let mut fid = sys::lu_fid::zeroed();
        // SAFETY: the structure is the call's output.
        let rc = unsafe { (self.symbols.llapi_path2fid)(path.as_ptr(), &mut fid) };
        check("llapi_path2fid", rc).map(|()| fid)
    }

    /// Identity of an open file.
    ///
    /// # Errors
    /// Not in Lustre has several errnos here.
    pub fn fd2fid(&self, file: BorrowedFd<'_>) -> Result<sys::lu_fid> {
        let mut fid = sys::lu_fid::zeroed();
        // SAFETY: the descriptor is open for as long as it is borrowed; the structure is the
        // call's output.
        let rc = unsafe { (self.symbols.llapi_fd2fid)(file.as_raw_fd(), &mut fid) };
        check("llapi_fd2fid", rc).map(|()| fid)
    }

    /// Hands in a request; `mount` says to which file system.
    ///
    /// # Errors
    /// One of the files was refused: those before it are queued, those behind it are not.
    ///
    /// # Panics
    /// The request counts more files than it has room for.
    pub fn hsm_request(&self, mount: &CStr, request: &sys::hsm_user_request) -> Result<()> {
        let head = &request.hur_request;
        assert!(head.hr_itemcount as usize <= sys::FILES_PER_REQUEST_MAX && head.hr_data_len == 0);
        // SAFETY: the count stays within the structure, and there are no data behind it.
        let rc = unsafe { (self.symbols.llapi_hsm_request)(mount.as_ptr(), request) };
        check("llapi_hsm_request", rc)
    }

    /// State of the file at a path. Needs permission to read it.
    ///
    /// # Errors
    /// `ENOTTY`: not in Lustre.
    pub fn hsm_state(&self, path: &CStr) -> Result<sys::hsm_user_state> {
        let mut state = sys::hsm_user_state::zeroed();
        // SAFETY: the structure is the call's output.
        let rc = unsafe { (self.symbols.llapi_hsm_state_get)(path.as_ptr(), &mut state) };
        check("llapi_hsm_state_get", rc).map(|()| state)
    }

    /// State of an open file.
    ///
    /// # Errors
    /// `ENOTTY`: not in Lustre.
    pub fn hsm_state_fd(&self, file: BorrowedFd<'_>) -> Result<sys::hsm_user_state> {
        let mut state = sys::hsm_user_state::zeroed();
        // SAFETY: the descriptor is open for as long as it is borrowed; the structure is the
        // call's output.
        let rc = unsafe { (self.symbols.llapi_hsm_state_get_fd)(file.as_raw_fd(), &mut state) };
        check("llapi_hsm_state_get_fd", rc).map(|()| state)
    }

    /// The request that a file is in. The server searches its whole queue for it.
    ///
    /// # Errors
    /// `ENOTTY`: not in Lustre.
    pub fn hsm_current_action(&self, path: &CStr) -> Result<sys::hsm_current_action> {
        let mut action = sys::hsm_current_action::zeroed();
        // SAFETY: the structure is the call's output.
        let rc = unsafe { (self.symbols.llapi_hsm_current_action)(path.as_ptr(), &mut action) };
        check("llapi_hsm_current_action", rc).map(|()| action)
    }
}

/// A layout that the library has allocated.
pub type RawLayout = NonNull<sys::llapi_layout>;

/// The functions on layouts, which older libraries lack.
pub struct LayoutCalls {
    symbols: LayoutSymbols,
}

impl LayoutCalls {
    pub(crate) fn new(symbols: LayoutSymbols) -> Self {
        Self { symbols }
    }

    /// A layout that says nothing yet; it must be given back with [`Self::free`].
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn alloc(&self) -> Result<RawLayout> {
        // SAFETY: takes nothing.
        let layout = unsafe { (self.symbols.llapi_layout_alloc)() };
        NonNull::new(layout).ok_or_else(|| last_error("llapi_layout_alloc"))
    }

    /// Gives a layout back.
    ///
    /// # Safety
    /// It is of [`Self::alloc`] and is not used any more.
    pub unsafe fn free(&self, layout: RawLayout) {
        // SAFETY: the caller's promise.
        unsafe { (self.symbols.llapi_layout_free)(layout.as_ptr()) };
    }

    /// Sets the number of stripes.
    ///
    /// # Safety
    /// The layout is of [`Self::alloc`], and nobody else uses it meanwhile.
    ///
    /// # Errors
    /// `EINVAL`: no such number.
    pub unsafe fn set_stripe_count(&self, layout: RawLayout, count: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.llapi_layout_stripe_count_set)(layout.as_ptr(), count) };
        check_errno("llapi_layout_stripe_count_set", rc).map(drop)
    }

    /// Sets the size of a stripe, bytes.
    ///
    /// # Safety
    /// As for [`Self::set_stripe_count`].
    ///
    /// # Errors
    /// `EINVAL`: not a multiple of [`sys::STRIPE_UNIT_BYTES`].
    pub unsafe fn set_stripe_size(&self, layout: RawLayout, bytes: u64) -> Result<()> {
        // SAFETY: the caller's promise.
        let rc = unsafe { (self.symbols.llapi_layout_stripe_size_set)(layout.as_ptr(), bytes) };
        check_errno("llapi_layout_stripe_size_set", rc).map(drop)
    }

    /// Sets the pool whose OSTs are taken.
    ///
    /// # Safety
    /// As for [`Self::set_stripe_count`].
    ///
    /// # Errors
    /// `EINVAL`: longer than [`sys::POOL_BYTES_MAX`].
    pub unsafe fn set_pool(&self, layout: RawLayout, pool: &CStr) -> Result<()> {
        // SAFETY: the caller's promise; the library copies the name.
        let rc =
            unsafe { (self.symbols.llapi_layout_pool_name_set)(layout.as_ptr(), pool.as_ptr()) };
        check_errno("llapi_layout_pool_name_set", rc).map(drop)
    }

    /// Opens a file with open(2)'s flags and mode; one that it makes gets the layout.
    ///
    /// # Safety
    /// As for [`Self::set_stripe_count`].
    ///
    /// # Errors
    /// Those of open(2), or of setting the layout: then the empty file may be left behind.
    pub unsafe fn file_open(
        &self,
        path: &CStr,
        flags: c_int,
        mode: u32,
        layout: RawLayout,
    ) -> Result<OwnedFd> {
        let (open, layout) = (self.symbols.llapi_layout_file_open, layout.as_ptr());
        // SAFETY: the caller's promise.
        let fd = unsafe { open(path.as_ptr(), flags, mode, layout) };
        let fd = check_errno("llapi_layout_file_open", fd)?;
        // SAFETY: the library has opened it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn text() -> Box<Text> {
    Box::new([0; sys::PATH_BYTES])
}

/// Success is zero; some calls return a count, and none is an error.
fn check(call: &'static str, rc: c_int) -> Result<()> {
    if rc >= 0 {
        return Ok(());
    }
    Err(CallError { call, errno: errno(rc.checked_neg()) })
}

/// The same for calls that return -1 and set `errno`; the value where it is not negative.
fn check_errno(call: &'static str, rc: c_int) -> Result<c_int> {
    if rc >= 0 { Ok(rc) } else { Err(last_error(call)) }
}

/// What `errno` says now, right after a call that failed.
fn last_error(call: &'static str) -> CallError {
    CallError { call, errno: errno(std::io::Error::last_os_error().raw_os_error()) }
}

/// Beyond the range of errnos, and where there is none, the number says only that it failed.
fn errno(number: Option<i32>) -> Errno {
    match number {
        Some(number @ 1..4096) => Errno::from_raw_os_error(number),
        _ => Errno::IO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_values_become_errnos() {
        assert_eq!(check("x", 0), Ok(()));
        assert_eq!(check("x", 3), Ok(()));
        assert_eq!(check("x", -25), Err(CallError { call: "x", errno: Errno::NOTTY }));
        for rc in [-4096, c_int::MIN] {
            assert_eq!(check("x", rc), Err(CallError { call: "x", errno: Errno::IO }));
        }
        let leaked = check("x", -524).expect_err("kernel-internal number");
        assert_eq!(leaked.errno.raw_os_error(), 524);
    }
}
