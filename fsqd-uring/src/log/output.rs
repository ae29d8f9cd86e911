//! Where lines go: a queue, and a thread that writes them to a file descriptor, one write each.
//!
//! Whoever logs must not wait for whoever reads the log: an ingest ring that stood still because a
//! journal is stuck would stop the experiment. Invariant: handing over a line never blocks; what the
//! queue has no room for is counted, and the count is logged.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: with 200 bytes each, below 2 MiB.
const LINES_MAX: usize = 8192;

/// How long the end of the process waits for the reader of the log.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

enum Entry {
    Line(Box<[u8]>),
    Flush(SyncSender<()>),
}

/// The way into the queue.
pub(super) struct Output {
    entries: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

impl Output {
    /// Starts the thread that writes to `out`. It ends, and closes `out`, when all ways into the
    /// queue are gone and what was in it is written.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start<S: AsFd + Send + 'static>(out: S) -> io::Result<Self> {
        let (entries, queue) = sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let lines_lost = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("fsq_log".to_owned())
            .spawn(move || write_all(&out, &queue, &lines_lost))?;
        Ok(Self { entries, lost })
    }

    /// What waits for the lines handed over so far to be written.
    pub(super) fn flusher(&self) -> Flusher {
        Flusher(self.entries.clone())
    }
}

/// See [`Output::flusher`].
#[derive(Debug)]
#[must_use = "lines that are not written when the process ends are lost"]
pub struct Flusher(SyncSender<Entry>);

impl Flusher {
    /// Waits until what was logged before is written, or its reader has proved too slow.
    pub fn flush(&self) {
        let (written, done) = sync_channel(1);
        if self.0.try_send(Entry::Flush(written)).is_ok() {
            // Either it is written, or the reader does not read.
            let _ = done.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

fn write_all(out: &impl AsFd, queue: &Receiver<Entry>, lost: &AtomicU64) {
    for entry in queue {
        match entry {
            Entry::Line(line) => write_line(out, &line),
            Entry::Flush(written) => {
                // Whoever asked may have stopped waiting.
                let _ = written.send(());
            }
        }
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!("{lines} lines are missing here: the log is not read fast enough");
        }
    }
}

/// Writes a line; what the reader does not take (it is gone, the disk is full) is lost.
///
/// Not through the standard library's `Stdout`: that one cuts long lines at its buffer, and keeps
/// what it could not write for later.
fn write_line(out: &impl AsFd, line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        match rustix::io::write(out, rest) {
            Ok(0) => break,
            // A pipe takes long lines in pieces.
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Turn<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Turn(self)
    }
}

/// One line's way into the queue.
pub(super) struct Turn<'a>(&'a Output);

impl Write for Turn<'_> {
    /// Takes the whole line, which comes in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0.entries.try_send(Entry::Line(line.into())) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.0.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let output = Output::start(writer).expect("a thread");
        // More than the pipe and the queue hold together.
        let line = [b'x'; 999];
        for _ in 0..LINES_MAX + 1000 {
            output.make_writer().write_all(&line).expect("never fails");
        }
        assert!(output.lost.load(Ordering::Relaxed) > 0);
        drop(output);
        let mut text = Vec::new();
        std::fs::File::from(reader).read_to_end(&mut text).expect("readable");
        assert!(text.len().is_multiple_of(line.len()), "whole lines");
        assert!(text.len() >= LINES_MAX * line.len());
    }

    #[test]
    fn a_flush_waits_for_what_was_logged() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let output = Output::start(writer).expect("a thread");
        for _ in 0..10 {
            output.make_writer().write_all(b"line\n").expect("never fails");
        }
        output.flusher().flush();
        let mut text = [0; 50];
        std::fs::File::from(reader).read_exact(&mut text).expect("all there");
    }
}
