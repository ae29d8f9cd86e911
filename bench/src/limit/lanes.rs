//! Moves bytes from a source to a sink on a bare io_uring: what is possible with this kernel and
//! these devices when nothing is computed in between.
//!
//! Invariant: a buffer belongs to the kernel from the submission of an operation on it to its
//! completion, and the ring does not go away, not even after an error, before all are complete.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use rustix::net::RecvFlags;

use super::memory::Memory;

/// Blocks of a lane that are under way at a time.
const DEPTH: usize = 4;
/// What tells the sync of a lane from its blocks.
const SYNC: usize = DEPTH;
/// Operations of a lane that have a number of their own.
const OPERATIONS: usize = DEPTH + 1;

/// Where the bytes of a lane come from.
#[derive(Debug)]
pub(super) enum Source {
    /// Nowhere: the same blocks again and again. Needs a sink.
    Memory,
    /// The other end of a connection.
    Socket(TcpStream),
    /// A file, read from its start.
    File(File),
}

/// A stream of blocks.
#[derive(Debug)]
pub(super) struct Lane {
    /// Where they come from.
    pub(super) source: Source,
    /// Where they go, from the start of the file; synced at the end. `None`: dropped.
    pub(super) sink: Option<File>,
    /// So many bytes, a multiple of the block.
    pub(super) len: u64,
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// Bytes that reached the sink.
    pub(super) bytes: u64,
    /// Whether the kernel took the buffers as registered ones.
    pub(super) is_registered: bool,
}

/// A buffer, and what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Filling { offset: u64, filled: usize },
    Full { offset: u64 },
    Draining { offset: u64 },
}

struct Track {
    lane: Lane,
    slots: [Slot; DEPTH],
    /// Bytes whose filling has begun.
    taken: u64,
    /// Bytes that have reached the sink.
    given: u64,
    sync: Sync,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Open,
    Submitted,
    Done,
}

/// Lanes on a ring, ready to go.
pub(super) struct Transfer {
    // Before the memory, so that the ring is closed first.
    ring: IoUring,
    memory: Memory,
    tracks: Vec<Track>,
    block_bytes: usize,
    under_way: usize,
    is_registered: bool,
}

impl Transfer {
    /// Sets up the ring and its buffers; nothing moves yet.
    ///
    /// # Errors
    /// If the kernel has no io_uring for us, or no memory.
    pub(super) fn new(lanes: Vec<Lane>, block_bytes: usize) -> io::Result<Self> {
        let entries = u32::try_from(lanes.len() * OPERATIONS).unwrap_or(u32::MAX);
        let ring = IoUring::new(entries.next_power_of_two())?;
        let memory = Memory::map((lanes.len() * DEPTH * block_bytes).max(1))?;
        let buffers: Vec<_> = (0..lanes.len() * DEPTH)
            .map(|number| libc::iovec {
                iov_base: memory.as_ptr().wrapping_add(number * block_bytes).cast(),
                iov_len: block_bytes,
            })
            .collect();
        // SAFETY: the buffers lie in `memory`, which outlives the ring.
        let registered = unsafe { ring.submitter().register_buffers(&buffers) };
        let is_registered = match registered {
            Ok(()) => true,
            // More than RLIMIT_MEMLOCK allows: slower, and the report says so.
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => false,
            Err(error) => return Err(error),
        };
        let tracks = lanes.into_iter().map(Track::new).collect();
        Ok(Self { ring, memory, tracks, block_bytes, under_way: 0, is_registered })
    }

    /// Moves everything that the lanes have, or what can be moved until `end`, but a block of each
    /// lane in any case.
    ///
    /// # Errors
    /// What the kernel says of the first operation that fails.
    pub(super) fn run(mut self, end: Instant) -> io::Result<Moved> {
        let mut outcome = Ok(());
        loop {
            if outcome.is_ok() {
                if Instant::now() >= end {
                    let least = self.block_bytes as u64;
                    self.tracks.iter_mut().for_each(|track| track.cut(least));
                }
                outcome = (0..self.tracks.len()).try_for_each(|lane| self.advance(lane));
            }
            if self.under_way == 0 {
                break;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // The kernel still has buffers: they must never become other memory.
                    std::mem::forget(self);
                    return Err(error);
                }
            }
            let completed: Vec<_> =
                self.ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
            for (token, result) in completed {
                self.under_way -= 1;
                let token = usize::try_from(token).expect("made from a usize");
                let completed = self.complete(token / OPERATIONS, token % OPERATIONS, result);
                outcome = outcome.and(completed);
            }
            if outcome.is_err() {
                // What still waits for the other end of a connection must come to an end, too.
                self.tracks.iter().for_each(Track::hang_up);
            }
        }
        outcome?;
        let bytes = self.tracks.iter().map(|track| track.given).sum();
        Ok(Moved { bytes, is_registered: self.is_registered })
    }

    /// Submits what a lane can do now.
    fn advance(&mut self, lane: usize) -> io::Result<()> {
        for slot in 0..DEPTH {
            if self.tracks[lane].begin(slot, self.block_bytes)
                && let Some(entry) = self.fill(lane, slot)
            {
                self.push(lane, slot, entry)?;
            }
            if let Slot::Full { offset } = self.tracks[lane].slots[slot] {
                let entry = self.drain(lane, slot, offset);
                self.tracks[lane].slots[slot] = Slot::Draining { offset };
                self.push(lane, slot, entry)?;
            }
        }
        if let Some(file) = self.tracks[lane].to_sync() {
            let entry =
                opcode::Fsync::new(types::Fd(file)).flags(types::FsyncFlags::DATASYNC).build();
            self.tracks[lane].sync = Sync::Submitted;
            self.push(lane, SYNC, entry)?;
        }
        Ok(())
    }

    /// The operation that fills (the rest of) a slot; none if it is full as it is.
    fn fill(&mut self, lane: usize, slot: usize) -> Option<Entry> {
        let Slot::Filling { offset, filled } = self.tracks[lane].slots[slot] else { return None };
        let at = self.block(lane, slot).wrapping_add(filled);
        let len = self.block_len() - u32::try_from(filled).expect("less than a block");
        match &self.tracks[lane].lane.source {
            Source::Memory => {
                self.tracks[lane].slots[slot] = Slot::Full { offset };
                None
            }
            Source::Socket(stream) => Some(
                opcode::Recv::new(types::Fd(stream.as_raw_fd()), at, len)
                    .flags(RecvFlags::WAITALL.bits().cast_signed())
                    .build(),
            ),
            Source::File(file) => {
                let (fd, offset) = (types::Fd(file.as_raw_fd()), offset + filled as u64);
                let index = self.index(lane, slot);
                Some(if self.is_registered {
                    opcode::ReadFixed::new(fd, at, len, index).offset(offset).build()
                } else {
                    opcode::Read::new(fd, at, len).offset(offset).build()
                })
            }
        }
    }

    /// The operation that takes a full slot to the sink.
    fn drain(&self, lane: usize, slot: usize, offset: u64) -> Entry {
        let sink = self.tracks[lane].lane.sink.as_ref();
        let fd = types::Fd(sink.expect("without a sink no slot is full").as_raw_fd());
        let (at, len) = (self.block(lane, slot), self.block_len());
        if self.is_registered {
            let index = self.index(lane, slot);
            opcode::WriteFixed::new(fd, at, len, index).offset(offset).build()
        } else {
            opcode::Write::new(fd, at, len).offset(offset).build()
        }
    }

    fn complete(&mut self, lane: usize, operation: usize, result: i32) -> io::Result<()> {
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        if operation == SYNC {
            self.tracks[lane].sync = Sync::Done;
            return Ok(());
        }
        let count = usize::try_from(result).expect("checked above");
        match self.tracks[lane].slots[operation] {
            Slot::Filling { .. } if count == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Slot::Filling { offset, filled } if filled + count < self.block_bytes => {
                self.tracks[lane].slots[operation] =
                    Slot::Filling { offset, filled: filled + count };
                // A short receive is normal before Linux 5.19; a short read is just as good.
                let entry = self.fill(lane, operation).expect("the slot is being filled");
                self.push(lane, operation, entry)
            }
            Slot::Filling { offset, .. } => {
                let track = &mut self.tracks[lane];
                match track.lane.sink {
                    Some(_) => track.slots[operation] = Slot::Full { offset },
                    None => track.free(operation, self.block_bytes),
                }
                Ok(())
            }
            Slot::Draining { .. } if count == self.block_bytes => {
                self.tracks[lane].free(operation, self.block_bytes);
                Ok(())
            }
            Slot::Draining { .. } => {
                Err(io::Error::new(io::ErrorKind::WriteZero, "a write came out short"))
            }
            slot => unreachable!("a completion for a slot that is {slot:?}"),
        }
    }

    fn push(&mut self, lane: usize, operation: usize, entry: Entry) -> io::Result<()> {
        let entry = entry.user_data((lane * OPERATIONS + operation) as u64);
        // SAFETY: the entry names a file of `self.tracks` and at most a whole slot of
        // `self.memory`; `run` waits for its completion before either goes away, and the slot's
        // state keeps others off the buffer until then.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| io::Error::other("the submission queue is too short"))?;
        self.under_way += 1;
        Ok(())
    }

    fn index(&self, lane: usize, slot: usize) -> u16 {
        u16::try_from(lane * DEPTH + slot).expect("the kernel has taken so many buffers")
    }

    fn block(&self, lane: usize, slot: usize) -> *mut u8 {
        let start = (lane * DEPTH + slot) * self.block_bytes;
        assert!(start + self.block_bytes <= self.memory.len(), "a slot lies in the memory");
        self.memory.as_ptr().wrapping_add(start)
    }

    fn block_len(&self) -> u32 {
        u32::try_from(self.block_bytes).expect("blocks are far smaller")
    }
}

impl Track {
    fn new(lane: Lane) -> Self {
        let sync = if lane.sink.is_some() { Sync::Open } else { Sync::Done };
        Self { lane, slots: [Slot::Free; DEPTH], taken: 0, given: 0, sync }
    }

    /// Takes the next block of the source for a free slot, if there is one to be had now.
    fn begin(&mut self, slot: usize, block_bytes: usize) -> bool {
        let is_busy = |slot: &Slot| matches!(slot, Slot::Filling { .. });
        // A connection has one order of bytes only.
        let must_wait =
            matches!(self.lane.source, Source::Socket(_)) && self.slots.iter().any(is_busy);
        if self.slots[slot] != Slot::Free || self.taken >= self.lane.len || must_wait {
            return false;
        }
        self.slots[slot] = Slot::Filling { offset: self.taken, filled: 0 };
        self.taken += block_bytes as u64;
        true
    }

    fn free(&mut self, slot: usize, block_bytes: usize) {
        self.slots[slot] = Slot::Free;
        self.given += block_bytes as u64;
    }

    /// Nothing more is taken, beyond the least.
    fn cut(&mut self, least: u64) {
        self.lane.len = self.lane.len.min(self.taken.max(least));
    }

    fn to_sync(&self) -> Option<RawFd> {
        let is_complete = self.given >= self.lane.len && self.sync == Sync::Open;
        self.lane.sink.as_ref().filter(|_| is_complete).map(AsRawFd::as_raw_fd)
    }

    fn hang_up(&self) {
        if let Source::Socket(stream) = &self.lane.source {
            // It may be gone already, and then nothing waits for it.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
