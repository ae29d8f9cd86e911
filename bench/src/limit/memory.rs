//! Memory for direct I/O, on huge pages where they are to be had.
//!
//! A block on 4 KiB pages reaches the device in as many pieces, and a device that takes 256 pieces
//! at a time then has two blocks under way, whatever the depth (virtio-blk).

use std::io;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size of a huge page, bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A mapping of its own, filled with bytes that are no zeros.
#[derive(Debug)]
pub(super) struct Memory {
    mapping: NonNull<u8>,
    mapped: usize,
    /// Where the first huge page can begin, bytes from the start of the mapping.
    offset: usize,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone, as the memory of a box does.
unsafe impl Send for Memory {}

impl Memory {
    /// `len` bytes, above 0, all touched.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        let rounded = len.next_multiple_of(HUGE_PAGE_BYTES);
        let mapped = rounded + HUGE_PAGE_BYTES;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other one.
        let mapping = unsafe { mmap_anonymous(null_mut(), mapped, protection, MapFlags::PRIVATE)? };
        let mapping = NonNull::new(mapping.cast::<u8>()).expect("mmap does not map address 0");
        let address = mapping.as_ptr() as usize;
        let offset = address.next_multiple_of(HUGE_PAGE_BYTES) - address;
        let memory = Self { mapping, mapped, offset, len };
        // SAFETY: less than HUGE_PAGE_BYTES are skipped, so these bytes lie in the mapping. The
        // advice changes none of them; a kernel without huge pages refuses it, which costs speed
        // only.
        let _ = unsafe { madvise(memory.as_ptr().cast(), rounded, Advice::LinuxHugepage) };
        // SAFETY: the mapping is longer than this, writable, and nobody else has it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), len) };
        for (word, bytes) in bytes.chunks_mut(8).enumerate() {
            bytes.copy_from_slice(&crate::size::mixed(1, word as u64).to_le_bytes()[..bytes.len()]);
        }
        Ok(memory)
    }

    /// Its first byte, for the kernel.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(self.offset)
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
        let unmapped = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }
}
