//! `fsq-bench`: measures servers that speak the FSQ protocol, and the machine they run on.
//!
//! A measurement is made of three parts that do not know each other: the [`plan`] says what is
//! sent, the [`upload`] machine decides for each connection what comes next and takes the times,
//! and an [`engine`] moves the bytes. The machine never reads a clock or a socket, so all engines
//! measure the same thing and tests run it on a synthetic clock.

pub mod arrival;
pub mod cli;
pub mod compare;
pub mod engine;
pub mod error;
pub mod feed;
pub mod idle;
pub mod limit;
pub mod machine;
pub mod options;
pub mod plan;
#[cfg(feature = "plots")]
pub mod plot;
pub mod record;
pub mod reference;
pub mod report;
pub mod run;
pub mod server;
pub mod size;
pub mod sweep;
pub mod upload;
pub mod usage;
