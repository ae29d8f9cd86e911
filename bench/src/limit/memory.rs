//! Page-aligned memory for direct I/O.

use std::io;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A mapping of its own, filled with bytes that are no zeros.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, as the memory of a box does.
unsafe impl Send for Memory {}

impl Memory {
    /// `len` bytes, above 0, all touched.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other one.
        let start = unsafe { mmap_anonymous(null_mut(), len, protection, MapFlags::PRIVATE)? };
        let start = NonNull::new(start.cast::<u8>()).expect("mmap does not map address 0");
        // SAFETY: the mapping is `len` bytes long, writable, and nobody else has it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) };
        for (word, bytes) in bytes.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&crate::size::mixed(1, word as u64).to_le_bytes()[..bytes.len()]);
        }
        Ok(Self { start, len })
    }

    /// Its first byte, for the kernel.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its length, bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length and goes away once. The ring that
        // used it has no operation under way: its owner waits for all before it drops this.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
