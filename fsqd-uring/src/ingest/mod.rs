//! Ingest: sockets to staging files.
//!
//! Owns the sessions. [`shard::Shard`] is the state machine of one ring: completions and answers
//! in, operations and jobs out; it makes no system call and reads no clock. [`worker`] runs a shard
//! on a thread with a real ring, [`acceptor`] deals connections out to the workers.
//!
//! Invariant: what has been acknowledged by CLOSE was committed by the staging service; nothing
//! else leaves a name behind.

pub mod acceptor;
pub mod content;
pub mod inbox;
pub mod pool;
pub mod shard;
pub mod worker;

mod receive;
mod request;
mod session;
mod upload;

#[cfg(test)]
mod tests;
