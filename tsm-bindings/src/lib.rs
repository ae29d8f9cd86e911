//! The client libraries of TSM (`libApiTSM64.so`) and Lustre (`liblustreapi.so`), loaded at run
//! time, each in three layers: `sys`, the raw ABI; `result`, the unsafe calls with typed errors;
//! `safe`, owned handles that cannot be used in the wrong order. Callers use the last one, which
//! [`tsm`] and [`lustre`] re-export.
//!
//! Invariant: a program that links this crate starts on a machine that has neither library; what
//! is missing is an error that names the files tried.

mod abi;
pub mod lustre;
pub mod tsm;

pub use abi::{LoadError, StructLayout, Zeroed};
