//! `fsqd`: takes files from detector read-out clients over TCP, makes them safe on a local staging
//! file system, and moves them in the background to Lustre and to the archive.
//!
//! The crate is cut along two seams, so that everything but the thin shells runs under a seeded
//! simulator: [`ring`] (socket and file data) and [`fs`] (names, attributes, syncs). Decisions are
//! made by state machines that see the kernel only through them.

pub mod archive;
pub mod auth;
pub mod check;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod drain;
pub mod fs;
pub mod identmap;
pub mod ingest;
pub mod limits;
pub mod log;
pub mod path;
pub mod prng;
pub mod queue;
pub mod refusal;
pub mod ring;
pub mod services;
pub mod signals;
pub mod staging;
pub mod stats;
