//! `libfsqapi`: the C library of the FSQ client, over [`libfsq::Client`].
//!
//! Invariant: no panic crosses into C, every failure is a negative errno whose reason is in the
//! caller's session, and a session struct holds nothing of ours, so that callers may free, copy
//! or reuse it at any time. [`session`] has the functions that callers use, `table` what belongs
//! to a session, [`abi`] the layouts, [`log`] and [`convenience`] the rest of the symbols.

#[cfg(not(target_endian = "little"))]
compile_error!("the packet in a session struct is the packet on the wire, which is little-endian");

pub mod abi;
pub mod convenience;
pub mod log;
pub mod session;
mod table;

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

/// What C sees instead of a panic.
const PANICKED: Errno = Errno::NOTRECOVERABLE;

/// Runs the body of an exported function.
///
/// Unwind safety: whatever a panic leaves behind half done is a session in `table`, which a
/// panic removes.
fn guarded<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(on_panic)
}

/// An errno as C functions return it.
fn negated(errno: Errno) -> c_int {
    -errno.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_errno() {
        assert_eq!(guarded(negated(PANICKED), || panic!("on purpose")), -131);
        assert_eq!(guarded(negated(PANICKED), || 7), 7);
    }
}
