//! The client library of TSM (`libApiTSM64.so`), loaded at run time, in three layers: `sys`, the
//! raw ABI; `result`, the unsafe calls with typed errors; `safe`, owned handles that cannot be
//! used in the wrong order. Callers use the last one, which [`tsm`] re-exports.
//!
//! Invariant: a program that links this crate starts on a machine that has no such library; what
//! is missing is an error that names the files tried.

mod abi;
pub mod tsm;

pub use abi::{LoadError, StructLayout, Zeroed};
