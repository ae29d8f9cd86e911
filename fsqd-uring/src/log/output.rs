//! Where lines go: a file descriptor, one write each.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// A file descriptor that threads take turns at.
///
/// Not the standard library's `Stdout`: that one cuts long lines at its buffer, and keeps what it
/// could not write for later.
pub(super) struct Output<S> {
    out: Mutex<S>,
}

impl<S> Output<S> {
    pub(super) fn new(out: S) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl<'a, S: AsFd + 'a> MakeWriter<'a> for Output<S> {
    type Writer = Turn<'a, S>;

    fn make_writer(&'a self) -> Self::Writer {
        Turn { out: self.out.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// The turn of one thread, for one line.
pub(super) struct Turn<'a, S> {
    out: MutexGuard<'a, S>,
}

impl<S: AsFd> Write for Turn<'_, S> {
    /// Takes the whole line; what the reader does not take (it is gone, the disk is full) is lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut rest = line;
        while !rest.is_empty() {
            match rustix::io::write(&*self.out, rest) {
                Ok(0) => break,
                // A pipe takes long lines in pieces.
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
