//! Lustre: file identities, and HSM requests and states.
//!
//! The layers [`sys`], [`result`] and [`safe`]. Invariant: only [`safe`] is needed by callers, and
//! it is re-exported here.

pub mod result;
pub mod safe;
pub mod sys;

pub use result::CallError;
pub use safe::{
    Action, Cause, CurrentAction, Error, Fid, FidError, FileState, Flags, Lustre, Mount,
};
