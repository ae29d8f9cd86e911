//! How a new file is spread over the servers.
//!
//! Owns the library's object for it. Invariant: it is used by one thread at a time and given back
//! once, when it is dropped.

use std::ffi::CString;
use std::fmt;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;

use super::result::{CallError, LayoutCalls, RawLayout};
use super::safe::{Error, about, absolute};
use super::sys;

/// Over how many OSTs a file is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StripeCount {
    /// All that there are, in the pool where one is set.
    All,
    /// So many.
    Number(NonZeroU16),
}

impl StripeCount {
    /// Largest number: a layout has no room for more.
    pub const MAX: u16 = sys::STRIPES_MAX;

    fn code(self) -> u64 {
        match self {
            Self::All => sys::LAYOUT_WIDE,
            Self::Number(number) => u64::from(number.get()),
        }
    }
}

impl fmt::Display for StripeCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// A layout for new files; what is not set is left to the file system. Made by
/// [`super::Lustre::new_layout`].
pub struct Layout {
    calls: &'static LayoutCalls,
    raw: RawLayout,
}

// SAFETY: the library ties a layout to no thread, and changes it through `&mut` only.
unsafe impl Send for Layout {}

impl Layout {
    /// Stripe sizes are multiples of this, bytes.
    pub const STRIPE_UNIT_BYTES: u32 = sys::STRIPE_UNIT_BYTES;
    /// Longest name of a pool, bytes.
    pub const POOL_BYTES_MAX: usize = sys::POOL_BYTES_MAX;

    pub(super) fn new(calls: &'static LayoutCalls) -> Result<Self, Error> {
        let raw = calls.alloc().map_err(|error| about(Path::new("new layout"), error))?;
        Ok(Self { calls, raw })
    }

    /// Sets the number of stripes.
    ///
    /// # Errors
    /// The library does not take it.
    pub fn set_stripe_count(&mut self, count: StripeCount) -> Result<(), Error> {
        // SAFETY: `raw` is ours alone and lives as long as `self`.
        let set = unsafe { self.calls.set_stripe_count(self.raw, count.code()) };
        set.map_err(|error| about(Path::new("stripe count"), error))
    }

    /// Sets how many bytes of the file lie on one OST before the next one's begin.
    ///
    /// # Errors
    /// EINVAL: not a multiple of [`Self::STRIPE_UNIT_BYTES`].
    pub fn set_stripe_bytes(&mut self, bytes: u32) -> Result<(), Error> {
        // SAFETY: `raw` is ours alone and lives as long as `self`.
        let set = unsafe { self.calls.set_stripe_size(self.raw, u64::from(bytes)) };
        set.map_err(|error| about(Path::new("stripe size"), error))
    }

    /// Sets the pool whose OSTs are taken. Whether there is such a pool shows with the first file.
    ///
    /// # Errors
    /// EINVAL: it has a NUL in it or more than [`Self::POOL_BYTES_MAX`] bytes.
    pub fn set_pool(&mut self, name: &str) -> Result<(), Error> {
        let subject = Path::new("pool name");
        // Not left to the library, since not all versions may look.
        let fits = name.len() <= Self::POOL_BYTES_MAX;
        let text = fits.then(|| CString::new(name).ok()).flatten().ok_or_else(|| {
            about(subject, CallError { call: "llapi_layout_pool_name_set", errno: Errno::INVAL })
        })?;
        // SAFETY: `raw` is ours alone and lives as long as `self`.
        let set = unsafe { self.calls.set_pool(self.raw, &text) };
        set.map_err(|error| about(subject, error))
    }

    /// Makes a file that was not there, with this layout, and opens it for reading and writing.
    /// `mode` is subject to the umask, and a symlink under the last name is not followed.
    ///
    /// # Errors
    /// Those of open(2), EEXIST among them. Any other may leave an empty file behind, for example
    /// where the directory is not in Lustre ([`super::Cause::NotLustre`]).
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        let text = absolute(path)?;
        // SAFETY: `raw` is ours and lives as long as `self`; the library only reads it, and `Layout`
        // is not `Sync`, so that no other thread has it.
        let made = unsafe { self.calls.file_open(&text, flags, mode, self.raw) };
        made.map_err(|error| about(path, error))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used no more.
        unsafe { self.calls.free(self.raw) };
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layout")
    }
}
