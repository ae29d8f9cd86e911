//! Configuration.

pub mod text;
