//! [`Transfer`]: reads a file in blocks, sums it up, and writes it elsewhere, as a state machine over
//! a [`Ring`]: completions in, operations out.
//!
//! One read and one write are in flight at most. The Lustre client has no non-blocking write: the
//! kernel hands each to a worker thread and serialises them per inode, so a second write would only
//! occupy a second thread; the read of the next block is what can overlap.
//!
//! Invariant: blocks are read, summed and written in the order of the file, and the checksum is
//! taken of the very bytes that are written, while no operation owns them.

use crc32fast::Hasher;
use rustix::io::Errno;

use crate::ring::{Completion, FileId, Op, Ring, Span, Token};

/// O_DIRECT moves memory, offsets and lengths in multiples of this.
pub const ALIGNMENT: u32 = 4096;

/// Operations in a row that come back without progress (EINTR, EAGAIN, less than a page of a direct
/// file) and are submitted again before it counts as an error.
const IDLE_MAX: u32 = 64;

/// Kinds of its tokens.
pub(super) const READ: u8 = 1;
const WRITE: u8 = 2;

/// An open file, and whether it was opened O_DIRECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The file.
    pub file: FileId,
    /// Offsets and lengths must be multiples of [`ALIGNMENT`].
    pub direct: bool,
}

/// What is to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// From here.
    pub source: End,
    /// To here; `None`: only the checksum is wanted. A direct target is padded with zeros to a
    /// multiple of [`ALIGNMENT`]; its owner sets the length afterwards.
    pub target: Option<End>,
    /// Bytes.
    pub len: u64,
}

/// Why it went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Reading failed.
    #[error("read: {0}")]
    Source(Errno),
    /// The source ends before its length.
    #[error("ends after {0} bytes")]
    Short(u64),
    /// Writing failed.
    #[error("write: {0}")]
    Target(Errno),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// See the module's description.
#[derive(Debug)]
pub struct Transfer<'a> {
    plan: Plan,
    blocks: &'a [Span],
    generation: u32,
    /// Blocks wholly read, and bytes of the next one that are.
    read: u64,
    read_done: u32,
    reading: bool,
    /// Blocks wholly written, and bytes of the next one that are.
    written: u64,
    write_done: u32,
    writing: bool,
    idle: u32,
    hasher: Hasher,
    failure: Option<TransferError>,
}

impl<'a> Transfer<'a> {
    /// A transfer that has not begun. `generation` tells its completions from those of others.
    ///
    /// # Panics
    /// If there is no block, or blocks differ in length or are no multiples of [`ALIGNMENT`].
    #[must_use]
    pub fn new(plan: Plan, blocks: &'a [Span], generation: u32) -> Self {
        let len = blocks.first().map_or(0, |block| block.len);
        assert!(len > 0 && len.is_multiple_of(ALIGNMENT), "blocks of whole pages");
        assert!(blocks.iter().all(|block| block.len == len), "blocks of one length");
        Self {
            plan,
            blocks,
            generation,
            read: 0,
            read_done: 0,
            reading: false,
            written: 0,
            write_done: 0,
            writing: false,
            idle: 0,
            hasher: Hasher::new(),
            failure: None,
        }
    }

    /// Pushes every operation that can go now.
    pub fn pump(&mut self, ring: &mut impl Ring) {
        if self.failure.is_some() {
            return;
        }
        if !self.writing && self.written < self.read {
            self.push_write(ring);
        }
        let ahead = self.read - self.written;
        if !self.reading && self.read < self.count() && ahead < self.blocks.len() as u64 {
            self.push_read(ring);
        }
    }

    /// Takes a completion of this transfer.
    ///
    /// # Panics
    /// If it is not of an operation that this transfer pushed.
    pub fn completed(&mut self, completion: &Completion, ring: &impl Ring) {
        assert_eq!(completion.token.generation(), self.generation, "a completion of this transfer");
        let reads = completion.token.kind() == READ;
        if reads {
            self.reading = false;
        } else {
            self.writing = false;
        }
        match completion.result {
            Ok(count) if reads => self.has_read(count, ring),
            Ok(count) => self.has_written(count),
            Err(Errno::INTR | Errno::AGAIN) if self.idle < IDLE_MAX => self.idle += 1,
            Err(errno) if reads => self.fail(TransferError::Source(errno)),
            Err(errno) => self.fail(TransferError::Target(errno)),
        }
    }

    /// Pushes nothing more; it ends when what is in flight has come back.
    pub fn stop(&mut self) {
        self.fail(TransferError::Stopped);
    }

    /// `None` while operations are in flight or to be pushed; then the checksum of the whole, or
    /// why there is none.
    #[must_use]
    pub fn result(&self) -> Option<Result<u32, TransferError>> {
        if self.reading || self.writing {
            return None;
        }
        match self.failure {
            Some(failure) => Some(Err(failure)),
            None => (self.written == self.count()).then(|| Ok(self.hasher.clone().finalize())),
        }
    }

    fn push_read(&mut self, ring: &mut impl Ring) {
        let wanted = padded(self.len_of(self.read));
        let into = self.block(self.read).part(self.read_done, wanted - self.read_done);
        let offset = self.offset_of(self.read) + u64::from(self.read_done);
        self.reading = true;
        let op = Op::Read { file: self.plan.source.file, into, offset };
        ring.push(Token::new(READ, 0, self.generation), op);
    }

    fn has_read(&mut self, count: u32, ring: &impl Ring) {
        let len = self.len_of(self.read);
        let filled = self.read_done + count;
        if filled < len {
            // A direct read can only go on at a multiple of the alignment.
            let next = if self.plan.source.direct { filled - filled % ALIGNMENT } else { filled };
            if count == 0 || !self.advances(next > self.read_done) {
                let end = self.offset_of(self.read) + u64::from(filled);
                return self.fail(TransferError::Short(end));
            }
            self.read_done = next;
            return;
        }
        self.idle = 0;
        self.hasher.update(ring.bytes(self.block(self.read).part(0, len)));
        self.read += 1;
        self.read_done = 0;
        if self.plan.target.is_none() {
            self.written = self.read;
        }
    }

    fn push_write(&mut self, ring: &mut impl Ring) {
        let target = self.plan.target.expect("without a target nothing waits to be written");
        let len = self.len_of(self.written);
        let wanted = self.write_len(self.written);
        let block = self.block(self.written);
        if wanted > len {
            ring.bytes_mut(block.part(len, wanted - len)).fill(0);
        }
        let from = block.part(self.write_done, wanted - self.write_done);
        let offset = self.offset_of(self.written) + u64::from(self.write_done);
        self.writing = true;
        let op = Op::Write { file: target.file, from, offset };
        ring.push(Token::new(WRITE, 0, self.generation), op);
    }

    fn has_written(&mut self, count: u32) {
        let direct = self.plan.target.is_some_and(|target| target.direct);
        let done = self.write_done + count;
        if done >= self.write_len(self.written) {
            self.idle = 0;
            self.written += 1;
            self.write_done = 0;
            return;
        }
        let next = if direct { done - done % ALIGNMENT } else { done };
        if count == 0 || !self.advances(next > self.write_done) {
            // No progress and no reason: treat it as the error that a full or failing target gives.
            return self.fail(TransferError::Target(Errno::IO));
        }
        self.write_done = next;
    }

    /// Notes whether an operation got on; false when too many in a row have not.
    fn advances(&mut self, progress: bool) -> bool {
        self.idle = if progress { 0 } else { self.idle + 1 };
        self.idle <= IDLE_MAX
    }

    /// The first failure is the cause; a stop does not hide it.
    fn fail(&mut self, failure: TransferError) {
        self.failure.get_or_insert(failure);
    }

    fn block_len(&self) -> u32 {
        self.blocks[0].len
    }

    fn count(&self) -> u64 {
        self.plan.len.div_ceil(u64::from(self.block_len()))
    }

    fn block(&self, number: u64) -> Span {
        let index = number % self.blocks.len() as u64;
        self.blocks[usize::try_from(index).expect("below a slice's length")]
    }

    fn offset_of(&self, number: u64) -> u64 {
        number * u64::from(self.block_len())
    }

    /// Bytes of the file in a block.
    fn len_of(&self, number: u64) -> u32 {
        let left = self.plan.len - self.offset_of(number);
        u32::try_from(left).unwrap_or(u32::MAX).min(self.block_len())
    }

    /// Bytes to be written of a block.
    fn write_len(&self, number: u64) -> u32 {
        let len = self.len_of(number);
        if self.plan.target.is_some_and(|target| target.direct) { padded(len) } else { len }
    }
}

fn padded(len: u32) -> u32 {
    len.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests;
