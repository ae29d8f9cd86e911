//! Reading a file in aligned chunks, a few ahead of what is being sent.
//!
//! Invariant: the bytes go from the kernel into a chunk and from there to the socket, and every
//! chunk but the last is full. A regular file that did not keep the length it had when it was
//! opened ends in an error.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender};

use rustix::fs::{Advice, fadvise};

use crate::plan::Source;

/// Chunks in circulation: one being sent, one being read, one between them.
pub(crate) const CHUNKS: usize = 3;
/// Page alignment lets the kernel copy whole pages.
const ALIGNMENT: usize = 4096;

/// Memory for one DATA.
pub(crate) struct Chunk {
    memory: Vec<u8>,
    start: usize,
    capacity: usize,
    filled: usize,
}

impl Chunk {
    pub(crate) fn new(capacity: usize) -> Self {
        let memory = vec![0; capacity + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        assert!(start < ALIGNMENT, "a byte pointer can always be aligned");
        Self { memory, start, capacity, filled: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.filled]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.capacity
    }

    fn fill(&mut self, input: &mut impl Read) -> io::Result<()> {
        let memory = &mut self.memory[self.start..self.start + self.capacity];
        self.filled = 0;
        while self.filled < memory.len() {
            match input.read(&mut memory[self.filled..]) {
                Ok(0) => break,
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A file while it is read.
pub(crate) struct Reader {
    input: File,
    /// The length when it was opened, bytes; `None` for a pipe or a device, which have none.
    length: Option<u64>,
    read: u64,
}

impl Reader {
    pub(crate) fn open(source: &Source) -> io::Result<Self> {
        let input = match source {
            Source::Stdin => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            Source::File(path) => File::open(path)?,
        };
        let metadata = input.metadata()?;
        let length = metadata.is_file().then_some(metadata.len());
        // Standard input may be a file that was read in part already, or is being written.
        let length = length.filter(|_| matches!(source, Source::File(_)));
        if length.is_some() {
            // Only speeds up; a file system that knows no advice is read all the same.
            let _ = fadvise(&input, 0, None, Advice::Sequential);
        }
        Ok(Self { input, length, read: 0 })
    }

    /// Fills `chunk` with what comes next; a chunk that is not full is the last.
    pub(crate) fn next(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        chunk.fill(&mut self.input)?;
        self.read += chunk.filled as u64;
        if chunk.is_full() { Ok(()) } else { self.check_length() }
    }

    /// Reads on into every chunk that comes back until the file has ended or nobody listens.
    pub(crate) fn run(mut self, empty: &Receiver<Chunk>, full: &SyncSender<io::Result<Chunk>>) {
        while let Ok(mut chunk) = empty.recv() {
            let result = self.next(&mut chunk);
            let is_last = result.is_err() || !chunk.is_full();
            if full.send(result.map(|()| chunk)).is_err() || is_last {
                return;
            }
        }
    }

    fn check_length(&self) -> io::Result<()> {
        let Some(length) = self.length else { return Ok(()) };
        let now = self.input.metadata()?.len();
        if now == length && self.read == length {
            return Ok(());
        }
        let now = if now == length { self.read } else { now };
        Err(io::Error::other(format!(
            "changed while it was read, from {length} to {now} bytes; send it again"
        )))
    }
}
