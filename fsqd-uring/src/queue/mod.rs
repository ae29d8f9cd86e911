//! The queue of staged files: what each carries on disk, and the order they are drained in.

pub mod record;
