//! Lustre: file identities, HSM requests and states, and the layouts of new files.
//!
//! The layers [`sys`], [`result`] and [`safe`]. Invariant: only [`safe`] is needed by callers, and
//! it is re-exported here.

mod layout;
pub mod result;
pub mod safe;
pub mod sys;

pub use layout::{Layout, StripeCount};
pub use result::CallError;
pub use safe::{
    Action, Cause, CurrentAction, Error, Fid, FidError, FileState, Flags, Lustre, Mount,
};
