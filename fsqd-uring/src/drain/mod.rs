//! drain.
pub mod copy;
