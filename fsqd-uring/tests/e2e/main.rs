//! The daemon from outside: the real binary, real sockets, real file systems.
//!
//! One binary, so that it is linked once; tests that load the machine take it alone
//! ([`support::sole_turn`]), all others share it. What needs root says so and is left out without.

mod support;

mod archive_hsm;
mod archive_tsm;
mod bad_input;
mod command_line;
mod counters;
mod destinations;
mod kill;
mod outage;
mod power;
mod refused_start;
mod replay;
mod sessions;
mod sign_on;
mod signals;
mod small_files;
mod striping;
mod trouble;
mod waiting;
mod worker_pool;
