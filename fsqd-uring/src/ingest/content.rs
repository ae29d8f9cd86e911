//! The content of one file on its way from the socket to staging: windows being filled, writes in
//! flight, the preallocated length, the checksum.
//!
//! Payloads have any length and any alignment; writes are whole blocks at block offsets. A window's
//! byte 0 is a block-aligned file offset, so what is received lands where it can be written from and
//! is not moved. Invariant, per window: `submitted <= filled <= WINDOW_BYTES`, `submitted` a
//! multiple of [`BLOCK_BYTES`], and all windows but the last one full.
//!
//! Pure: the owner performs the [`Step`]s it is given and reports what became of them.

use crate::limits::{
    BLOCK_BYTES, EXTEND_BYTES_MAX, EXTEND_BYTES_MIN, WINDOW_BYTES, WINDOWS_PER_SESSION_MAX,
    WRITE_BYTES,
};
use crate::ring::Span;
use crate::services::Tail;

/// Writes a file can have in flight: every window in halves, and the flushed remainder of one.
pub const WRITES_MAX: usize = (WINDOWS_PER_SESSION_MAX * (WINDOW_BYTES / WRITE_BYTES)) as usize + 1;

#[derive(Clone, Copy, Debug)]
struct Window {
    span: Span,
    /// File offset of the window's first byte; block-aligned.
    base: u64,
    filled: u32,
    submitted: u32,
    writes: u32,
}

impl Window {
    fn full(&self) -> bool {
        self.filled == WINDOW_BYTES
    }

    /// Length of the next write, 0 if none is due: half a window; less only at the window's end or
    /// when it is to be let go.
    fn due(&self, flush: bool) -> u32 {
        let waiting = self.filled - self.submitted;
        let to_half = WRITE_BYTES - self.submitted % WRITE_BYTES;
        if waiting >= to_half {
            to_half
        } else if flush {
            waiting - waiting % BLOCK_BYTES
        } else {
            0
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Write {
    /// What the window's base was; windows move within the array, bases do not.
    window_base: u64,
    from: Span,
    offset: u64,
}

/// What the owner is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write `from` at `offset`; report with [`Content::written`] under `index`.
    Write {
        /// Which of the [`WRITES_MAX`] writes.
        index: u8,
        /// What, block-aligned.
        from: Span,
        /// Where in the file, bytes, block-aligned.
        offset: u64,
    },
    /// Preallocate `len` bytes from `from`; report with [`Content::extended`].
    Extend {
        /// End of the preallocated part, bytes.
        from: u64,
        /// How much more, bytes.
        len: u64,
    },
}

/// What a completed write left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is done.
    Whole,
    /// It was short; write the rest under the same index.
    Again {
        /// The rest, block-aligned.
        from: Span,
        /// Where it goes, bytes, block-aligned.
        offset: u64,
    },
}

/// The content machine. See the module's documentation.
#[derive(Debug)]
pub struct Content {
    windows: [Option<Window>; WINDOWS_PER_SESSION_MAX as usize],
    writes: [Option<Write>; WRITES_MAX],
    /// Bytes kept in the slot's carry block while no window is held.
    carried: u32,
    received: u64,
    crc: crc32fast::Hasher,
    allocated: u64,
    step: u64,
    extending: bool,
    flush: bool,
    stopped: bool,
}

impl Content {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            windows: [None; WINDOWS_PER_SESSION_MAX as usize],
            writes: [None; WRITES_MAX],
            carried: 0,
            received: 0,
            crc: crc32fast::Hasher::new(),
            allocated: 0,
            step: EXTEND_BYTES_MIN,
            extending: false,
            flush: false,
            stopped: false,
        }
    }

    /// Whether a write is in flight.
    #[must_use]
    pub fn writing(&self) -> bool {
        self.writes.iter().any(Option::is_some)
    }

    /// Whether the file is being preallocated.
    #[must_use]
    pub fn extending(&self) -> bool {
        self.extending
    }

    /// Bytes received so far, the file's length.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.received
    }

    /// Whether nothing has been received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// CRC-32 of what has been received.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc.clone().finalize()
    }

    /// Windows held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.windows.iter().flatten().count() as u32
    }

    /// Whether the kernel or the staging service still works for this file.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.extending || self.writing()
    }

    fn last(&self) -> Option<usize> {
        self.windows.iter().rposition(Option::is_some)
    }

    /// Where the next bytes of payload go: up to the next half of the last window. `None`: a window
    /// has to be attached first.
    #[must_use]
    pub fn room(&self) -> Option<Span> {
        let window = self.windows[self.last()?].as_ref().filter(|window| !window.full())?;
        let to_half = WRITE_BYTES - window.filled % WRITE_BYTES;
        Some(window.span.part(window.filled, to_half))
    }

    /// Takes a window to receive into. Returns how many carried bytes the owner has to copy from
    /// the slot's carry block to the window's start.
    ///
    /// # Panics
    /// If there is room already, or the window is not a whole one.
    pub fn attach(&mut self, span: Span) -> u32 {
        assert!(self.room().is_none() && span.len == WINDOW_BYTES, "one window at a time");
        let index = self.last().map_or(0, |last| last + 1);
        let carried = std::mem::take(&mut self.carried);
        let base = self.received - u64::from(carried);
        debug_assert!(base.is_multiple_of(u64::from(BLOCK_BYTES)));
        self.windows[index] = Some(Window { span, base, filled: carried, submitted: 0, writes: 0 });
        self.flush = false;
        carried
    }

    /// `bytes` have arrived at the place [`Content::room`] named.
    pub fn received(&mut self, bytes: &[u8]) {
        let last = self.last().expect("bytes arrive in a window");
        let window = self.windows[last].as_mut().expect("the last window is there");
        window.filled += bytes.len() as u32;
        assert!(window.filled <= WINDOW_BYTES, "within the window");
        self.received += bytes.len() as u64;
        self.crc.update(bytes);
    }

    /// Asks for the last window to be let go as soon as its whole blocks are written.
    pub fn flush(&mut self) {
        self.flush = true;
    }

    /// Whether the last window is to be let go.
    #[must_use]
    pub fn flushing(&self) -> bool {
        self.flush && self.last().is_some()
    }

    /// Withdraws [`Content::flush`]: bytes are about to arrive.
    pub fn keep(&mut self) {
        self.flush = false;
    }

    /// Gives up: no further steps, only completions.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// What to do next, if anything.
    pub fn step(&mut self) -> Option<Step> {
        // While the file is being extended its inode lock is held exclusively, and a write would be
        // handed to the kernel's worker pool instead of being issued at once.
        if self.extending || self.stopped {
            return None;
        }
        let flush = self.flush;
        let window = self.windows.iter_mut().flatten().find(|window| window.due(flush) > 0)?;
        let len = window.due(flush);
        let offset = window.base + u64::from(window.submitted);
        if offset + u64::from(len) > self.allocated {
            self.extending = true;
            let step = Step::Extend { from: self.allocated, len: self.step };
            self.step = (self.step * 2).min(EXTEND_BYTES_MAX);
            return Some(step);
        }
        let index = self.writes.iter().position(Option::is_none)?;
        let from = window.span.part(window.submitted, len);
        window.submitted += len;
        window.writes += 1;
        self.writes[index] = Some(Write { window_base: window.base, from, offset });
        self.invariants();
        Some(Step::Write { index: index as u8, from, offset })
    }

    /// The file is preallocated up to `end` now.
    pub fn extended(&mut self, end: u64) {
        debug_assert!(end > self.allocated || self.stopped);
        self.extending = false;
        self.allocated = end;
    }

    /// The file could not be preallocated further; it is given up.
    pub fn extend_failed(&mut self) {
        self.extending = false;
        self.stop();
    }

    /// Write `index` has not happened and is to be tried again.
    pub fn rewrite(&mut self, index: u8) -> Written {
        self.written(index, 0)
    }

    /// Write `index` has moved `count` bytes.
    pub fn written(&mut self, index: u8, count: u32) -> Written {
        let write = self.writes[usize::from(index)].as_mut().expect("that write is in flight");
        // A direct write ends at a block even when it is short; whatever the file system did with a
        // fraction, the block is written again.
        let whole = count.min(write.from.len) / BLOCK_BYTES * BLOCK_BYTES;
        if count < write.from.len && !self.stopped {
            write.from = write.from.part(whole, write.from.len - whole);
            write.offset += u64::from(whole);
            return Written::Again { from: write.from, offset: write.offset };
        }
        self.finish_write(index);
        Written::Whole
    }

    /// Write `index` failed; its bytes are lost and the file with them.
    pub fn write_failed(&mut self, index: u8) {
        self.finish_write(index);
        self.stop();
    }

    fn finish_write(&mut self, index: u8) {
        let write = self.writes[usize::from(index)].take().expect("that write is in flight");
        let window = self.windows.iter_mut().flatten().find(|w| w.base == write.window_base);
        window.expect("a window outlives its writes").writes -= 1;
        self.invariants();
    }

    /// Takes a window that is no longer needed: written out, or of a stopped file. With the second
    /// value the owner has to copy the bytes it names to the slot's carry block before it gives the
    /// window back. While `receiving`, a window with room belongs to the kernel.
    pub fn release(&mut self, receiving: bool) -> Option<(Span, Option<Span>)> {
        if self.stopped {
            let free = |w: &Window| w.writes == 0 && (w.full() || !receiving);
            let idle = self.windows.iter_mut().find(|w| w.as_ref().is_some_and(free))?;
            let span = idle.take().map(|window| window.span);
            self.compact();
            return span.map(|span| (span, None));
        }
        let first = self.windows[0].filter(|window| window.writes == 0)?;
        if first.full() && first.submitted == first.filled {
            self.windows[0] = None;
            self.compact();
            return Some((first.span, None));
        }
        let left = first.filled - first.submitted;
        if self.flush && !receiving && self.last() == Some(0) && left < BLOCK_BYTES {
            self.windows[0] = None;
            self.carried = left;
            self.flush = false;
            let carry = (left > 0).then(|| first.span.part(first.submitted, left));
            return Some((first.span, carry));
        }
        None
    }

    /// Windows stay in file order, without gaps.
    fn compact(&mut self) {
        let mut kept = 0;
        for i in 0..self.windows.len() {
            if let Some(window) = self.windows[i].take() {
                self.windows[kept] = Some(window);
                kept += 1;
            }
        }
    }

    /// What has not been written by the ring, for the commit; `None` if nothing is left. `carry` is
    /// the slot's carry block. Only when nothing is in flight and no step is due.
    #[must_use]
    pub fn tail(&self, carry: Span) -> Option<Tail> {
        debug_assert!(!self.busy() && self.held() <= 1);
        if self.carried > 0 {
            let offset = self.received - u64::from(self.carried);
            return Some(Tail { span: carry.part(0, self.carried), offset });
        }
        let window = self.windows[0].filter(|window| window.filled > window.submitted)?;
        let span = window.span.part(window.submitted, window.filled - window.submitted);
        Some(Tail { span, offset: window.base + u64::from(window.submitted) })
    }

    fn invariants(&self) {
        if cfg!(debug_assertions) {
            let last = self.last();
            for (i, window) in self.windows.iter().enumerate() {
                let Some(window) = window else { continue };
                assert!(window.submitted <= window.filled && window.filled <= WINDOW_BYTES);
                assert!(window.submitted.is_multiple_of(BLOCK_BYTES));
                assert!(window.base.is_multiple_of(u64::from(BLOCK_BYTES)));
                assert!(self.stopped || Some(i) == last || window.full());
            }
            let writes: u32 = self.windows.iter().flatten().map(|window| window.writes).sum();
            assert_eq!(writes as usize, self.writes.iter().flatten().count());
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARRY: Span = Span { start: 1 << 40, len: BLOCK_BYTES };

    fn window(i: u64) -> Span {
        Span { start: i * u64::from(WINDOW_BYTES), len: WINDOW_BYTES }
    }

    fn fill(content: &mut Content, mut len: u32) {
        while len > 0 {
            let room = content.room().expect("room").len.min(len);
            content.received(&vec![7; room as usize]);
            len -= room;
        }
    }

    #[test]
    fn a_small_file_stays_in_memory_for_the_commit() {
        let mut content = Content::new();
        assert_eq!(content.room(), None);
        assert_eq!(content.attach(window(3)), 0);
        fill(&mut content, 5000);
        assert_eq!(content.step(), None);
        let tail = content.tail(CARRY).expect("a tail");
        assert_eq!((tail.span, tail.offset), (window(3).part(0, 5000), 0));
        assert_eq!(content.crc(), crc32fast::hash(&[7; 5000]));
    }

    #[test]
    fn halves_go_out_once_the_file_is_extended() {
        let mut content = Content::new();
        content.attach(window(0));
        fill(&mut content, WRITE_BYTES);
        assert_eq!(content.step(), Some(Step::Extend { from: 0, len: EXTEND_BYTES_MIN }));
        fill(&mut content, WRITE_BYTES);
        assert_eq!(content.step(), None, "held while extending");
        content.extended(EXTEND_BYTES_MIN);
        for i in 0..2_u8 {
            let from = window(0).part(u32::from(i) * WRITE_BYTES, WRITE_BYTES);
            let offset = u64::from(i) * u64::from(WRITE_BYTES);
            assert_eq!(content.step(), Some(Step::Write { index: i, from, offset }));
        }
        assert_eq!(content.step(), None);
        assert_eq!(content.release(false), None, "writes in flight");
        assert_eq!(content.written(1, WRITE_BYTES), Written::Whole);
        assert_eq!(content.release(false), None, "the other one still is");
        assert_eq!(content.written(0, WRITE_BYTES), Written::Whole);
        assert_eq!(content.release(false), Some((window(0), None)));
        assert_eq!(content.tail(CARRY), None);
        assert!(!content.busy());
    }

    #[test]
    fn a_short_write_goes_on_at_the_last_whole_block() {
        let mut content = Content::new();
        content.attach(window(0));
        fill(&mut content, WRITE_BYTES);
        content.step();
        content.extended(1 << 30);
        content.step();
        let from = window(0).part(8192, WRITE_BYTES - 8192);
        assert_eq!(content.written(0, 8192 + 100), Written::Again { from, offset: 8192 });
        assert!(content.busy());
        let rest = WRITE_BYTES - 8192;
        assert_eq!(content.written(0, rest), Written::Whole);
        assert!(!content.busy());
    }

    #[test]
    fn a_flushed_window_leaves_less_than_a_block_behind() {
        let mut content = Content::new();
        content.attach(window(0));
        fill(&mut content, 3 * BLOCK_BYTES + 10);
        assert_eq!(content.step(), None);
        content.flush();
        assert!(matches!(content.step(), Some(Step::Extend { .. })));
        content.extended(1 << 30);
        let from = window(0).part(0, 3 * BLOCK_BYTES);
        assert_eq!(content.step(), Some(Step::Write { index: 0, from, offset: 0 }));
        assert_eq!(content.release(false), None);
        content.written(0, 3 * BLOCK_BYTES);
        let carry = window(0).part(3 * BLOCK_BYTES, 10);
        assert_eq!(content.release(false), Some((window(0), Some(carry))));
        assert_eq!(content.held(), 0);
        let tail = content.tail(CARRY).expect("the carried bytes");
        assert_eq!((tail.span, tail.offset), (CARRY.part(0, 10), 3 * u64::from(BLOCK_BYTES)));
        assert_eq!(content.attach(window(5)), 10, "copied back before receiving goes on");
        assert_eq!(content.room(), Some(window(5).part(10, WRITE_BYTES - 10)));
    }

    #[test]
    fn a_stopped_file_lets_its_windows_go_when_the_kernel_has() {
        let mut content = Content::new();
        content.attach(window(0));
        fill(&mut content, WINDOW_BYTES);
        content.step();
        content.extended(1 << 30);
        content.step();
        content.attach(window(1));
        fill(&mut content, 100);
        content.write_failed(0);
        assert_eq!(content.step(), None);
        assert!(content.release(false).is_some() && content.release(false).is_some());
        assert!(!content.busy() && content.held() == 0);
    }
}
