//! A TSM server in a directory, behind the exported functions of `libApiTSM64.so`.
//!
//! For tests and demonstrations of programs that archive through that library: load this one
//! instead. The server's state lives in the directory that `dsmSetUp` is given as `dsmiDir`, or
//! that `TSM_SIM_DIR` names; any number of processes and threads may use it at once.
//!
//! ```text
//! control       settings and faults for all nodes ([`sim_control`] has the form)
//! nodes/NODE    the same for one node, name in upper case; `password WORD` registers it
//! log/          committed transactions
//! spool/        transactions under way
//! ```
//!
//! Settings: `api-level 8.1.13.0`, `server NAME` (any number; without one any name will do),
//! `node-name NODE` for who names none, `password`, `password-access generate` (whatever password
//! is given is ignored), `password-expired yes`, `locked yes`, `notice CODE` (as `infoRC`),
//! `archive-delete no`, `archive-copy-group no`, `management-class NAME`, `max-sessions`,
//! `max-mount-points`, `max-objects` and `max-bytes` of a transaction, `max-object-bytes`,
//! `capacity-bytes`. A fault of `dsmEndTxn` aborts the transaction; its second code is the reason.
//! `delay dsmInitEx 180` and `delay dsmEndTxn 185` make it about as slow as a real server.
//!
//! Invariant: what a successful `dsmEndTxn` has committed survives the process, and nothing else
//! is ever seen by a query.

#![allow(non_snake_case)]

mod exports;
mod rc;
mod server;
mod session;
mod store;

use std::io;
use std::path::{Path, PathBuf};

/// The shared library beside the running test.
///
/// # Errors
/// Cargo has not built it there.
pub fn library() -> io::Result<PathBuf> {
    sim_control::built_library("sim_tsm")
}

/// Writes the settings of all nodes.
///
/// # Errors
/// The directory cannot be written.
pub fn configure(directory: &Path, settings: &str) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    sim_control::replace(&directory.join("control"), settings.as_bytes())
}

/// Registers a node, or replaces its settings.
///
/// # Errors
/// The directory cannot be written.
pub fn register_node(
    directory: &Path,
    node: &str,
    password: &str,
    settings: &str,
) -> io::Result<()> {
    let nodes = directory.join("nodes");
    std::fs::create_dir_all(&nodes)?;
    let text = format!("password {password}\n{settings}\n");
    sim_control::replace(&nodes.join(node.to_ascii_uppercase()), text.as_bytes())
}
