//! `fsqc`: sends files to an FSQ server.

fn main() {}
