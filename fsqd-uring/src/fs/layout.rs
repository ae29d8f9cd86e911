//! [`Layout`]: how a new file is to be spread over the servers of a parallel file system (Lustre).
//!
//! Owns the words for it, and the way to Lustre's library. Invariant: what a [`Layout`] leaves open
//! is left to the file system.

use std::fmt;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use tsm_bindings::lustre::{self, Error, Lustre};

pub use tsm_bindings::lustre::StripeCount;

use super::{FsError, Result};

/// What new files are to get; where it says `None` the file system decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Over how many OSTs.
    pub stripes: StripeCount,
    /// Bytes on one OST before the next one's begin, a multiple of [`Layout::STRIPE_UNIT_BYTES`].
    pub stripe_bytes: Option<u32>,
    /// The pool whose OSTs are taken, at most [`Layout::POOL_BYTES_MAX`] bytes.
    pub pool: Option<String>,
}

impl Layout {
    /// Stripe sizes are multiples of this, bytes.
    pub const STRIPE_UNIT_BYTES: u32 = lustre::Layout::STRIPE_UNIT_BYTES;
    /// Longest name of a pool, bytes.
    pub const POOL_BYTES_MAX: usize = lustre::Layout::POOL_BYTES_MAX;
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stripe count {}", self.stripes)?;
        if let Some(bytes) = self.stripe_bytes {
            write!(f, ", stripe size {bytes} bytes")?;
        }
        match &self.pool {
            Some(pool) => write!(f, ", pool {pool}"),
            None => Ok(()),
        }
    }
}

/// Makes a file that was not there, with its layout, through Lustre's library.
pub(super) fn create_file(path: &Path, mode: u32, layout: &Layout) -> Result<OwnedFd> {
    let error = |errno| FsError { call: "llapi_layout_file_open", errno };
    // Found, not loaded: whoever has a layout has looked for the library at the start.
    let lustre = Lustre::load(None).map_err(|_| error(Errno::NOSYS))?;
    let made = lustre.new_layout().and_then(|mut new| {
        new.set_stripe_count(layout.stripes)?;
        if let Some(bytes) = layout.stripe_bytes {
            new.set_stripe_bytes(bytes)?;
        }
        if let Some(pool) = &layout.pool {
            new.set_pool(pool)?;
        }
        new.create_file(path, mode)
    });
    made.map_err(|failure| match failure {
        Error::Call { error, .. } => FsError { call: error.call, errno: error.errno },
        Error::Load(_) => error(Errno::NOSYS),
        _ => error(Errno::INVAL),
    })
}
