//! A Lustre with HSM in a directory, behind the exported functions of `liblustreapi.so`.
//!
//! For tests and demonstrations of programs that use that library: load this one instead. A
//! directory is a mounted file system if it has a subdirectory [`STATE`], which holds
//!
//! ```text
//! control     settings and faults ([`sim_control`] has the form)
//! files/      what HSM knows of each file
//! queue/      requests that have not ended
//! archive/    the copies
//! layouts/    of each file that was made with one
//! ```
//!
//! Any number of processes and threads may use it at once; in one of the processes a thread plays
//! coordinator and copytool. The archive's state survives them.
//!
//! Settings and what they are unless set: `fsname simfs`, `tick-ms 10` between looks of the
//! coordinator at its queue (Lustre: 1000), `max-requests 3` with the copytool at once, `agents
//! ID ...` that have a copytool (all), `coordinator enabled` (or `disabled`, `stopped`), `dedupe
//! no` (`yes` before Lustre 2.14), `extra-states 0`, `copytool work` (or `hold`: no copy ends).
//! Faults give errnos as positive numbers. `delay copytool MS` is how long a copy takes, `fail
//! copytool 1 5` fails the first one. `fail setstripe 1 28` lets `llapi_layout_file_open` fail when
//! it has made the file, which it leaves behind.
//!
//! Invariant: a file is ARCHIVED only after its copy is complete and if it did not change
//! meanwhile.

#![allow(non_snake_case)]

mod coordinator;
mod exports;
mod layouts;
mod mount;
mod requests;

use std::io;
use std::path::{Path, PathBuf};

pub use layouts::FileLayout;

/// Name of the subdirectory that makes a directory a file system.
pub const STATE: &str = ".lustre-sim";

/// The shared library beside the running test.
///
/// # Errors
/// Cargo has not built it there.
pub fn library() -> io::Result<PathBuf> {
    sim_control::built_library("sim_lustre")
}

/// Makes a directory a file system, or replaces its settings.
///
/// # Errors
/// The directory cannot be written.
pub fn configure(directory: &Path, settings: &str) -> io::Result<()> {
    let state = directory.join(STATE);
    std::fs::create_dir_all(&state)?;
    sim_control::replace(&state.join("control"), settings.as_bytes())
}

/// The archive's copy of a file, by the FID's sequence and object.
#[must_use]
pub fn archived_copy(directory: &Path, seq: u64, oid: u32) -> PathBuf {
    directory.join(STATE).join("archive").join(mount::key(seq, oid))
}

/// A library from before Lustre 2.7, made in a directory with the C compiler: without layouts.
///
/// # Errors
/// There is no C compiler, or the directory cannot be written.
pub fn library_before_layouts(directory: &Path) -> io::Result<PathBuf> {
    let (source, library) = (directory.join("before.c"), directory.join("before.so"));
    std::fs::write(&source, include_str!("before_layouts.c"))?;
    let mut cc = std::process::Command::new("cc");
    let status = cc.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status()?;
    if status.success() { Ok(library) } else { Err(io::Error::other(format!("cc: {status}"))) }
}

/// The layout that a file was made with; `None`: it was made without one.
///
/// # Errors
/// It is not there, or not in such a file system.
pub fn layout_of(file: &Path) -> io::Result<Option<FileLayout>> {
    layouts::of(file).map_err(io::Error::from)
}
