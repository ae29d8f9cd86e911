//! The memory that a ring's operations work on: one mapping, named by [`Span`]s.
//!
//! Invariant: every span handed to the kernel or to another thread lies within the mapping, and has
//! one owner at a time (see [`crate::ring`]); the accessors below rely on that and check only the
//! bounds.

use std::ffi::c_void;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::Span;

const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// What kind of pages the mapping got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Reserved 2 MiB pages (`vm.nr_hugepages`).
    Huge,
    /// Ordinary memory, with transparent huge pages asked for.
    Transparent,
    /// 4 KiB pages.
    Small,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Huge => "2 MiB pages",
            Self::Transparent => "transparent huge pages",
            Self::Small => "4 KiB pages",
        })
    }
}

/// One private mapping, zeroed, aligned to 2 MiB where it is large; unmapped when dropped.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    bytes: u64,
    /// What was mapped, to be unmapped: alignment may have cost a huge page more.
    mapping: (NonNull<c_void>, usize),
    pages: Pages,
}

// SAFETY: the mapping is plain memory that any thread may touch; who may touch which span when is
// settled by the ownership rule of the module.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `bytes`, in huge pages where that pays.
    ///
    /// # Errors
    /// ENOMEM: the address space or the memory limit is exhausted.
    pub fn new(bytes: u64) -> Result<Self, Errno> {
        if bytes < HUGE_PAGE_BYTES {
            return Self::map(bytes, bytes.next_multiple_of(4096), MapFlags::PRIVATE, Pages::Small);
        }
        let rounded = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let huge = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        if let Ok(arena) = Self::map(bytes, rounded, huge, Pages::Huge) {
            return Ok(arena);
        }
        // A huge page more than needed, so that the base can be moved up to a huge page's start.
        let mapped = rounded + HUGE_PAGE_BYTES;
        let mut arena = Self::map(bytes, mapped, MapFlags::PRIVATE, Pages::Small)?;
        let offset = (arena.base.as_ptr() as usize).next_multiple_of(HUGE_PAGE_BYTES as usize)
            - arena.base.as_ptr() as usize;
        // SAFETY: `offset` is below HUGE_PAGE_BYTES, which the mapping has in excess.
        arena.base = unsafe { arena.base.add(offset) };
        // SAFETY: the range is within the mapping; the advice changes no content.
        let advised =
            unsafe { madvise(arena.base.as_ptr().cast(), rounded as usize, Advice::LinuxHugepage) };
        if advised.is_ok() {
            arena.pages = Pages::Transparent;
        }
        Ok(arena)
    }

    fn map(bytes: u64, mapped: u64, flags: MapFlags, pages: Pages) -> Result<Self, Errno> {
        let len = usize::try_from(mapped).map_err(|_| Errno::NOMEM)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let address = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, flags)? };
        let address = NonNull::new(address).expect("mmap does not map the null page");
        Ok(Self { base: address.cast(), bytes, mapping: (address, len), pages })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The kind of pages behind it.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// Address of a span's first byte, for the kernel.
    ///
    /// # Panics
    /// If the span is not within the arena.
    pub(super) fn address(&self, span: Span) -> *mut u8 {
        let end = span.start.checked_add(u64::from(span.len));
        assert!(end.is_some_and(|end| end <= self.bytes), "span within the arena");
        // SAFETY: just checked: the span lies within the mapping.
        unsafe { self.base.as_ptr().add(span.start as usize) }
    }

    /// A span's bytes. The caller owns the span (module invariant).
    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        // SAFETY: `address` has checked the bounds; the mapping is initialised (zeroed by the
        // kernel) and lives as long as `self`; the caller owns the span, so nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.address(span), span.len as usize) }
    }

    /// A span's bytes, to be changed. The caller owns the span (module invariant).
    #[expect(clippy::mut_from_ref, reason = "exclusive by the ownership of spans")]
    pub(super) fn bytes_mut(&self, span: Span) -> &mut [u8] {
        // SAFETY: as in `bytes`; the caller owns the span, so nobody else reads or writes it.
        unsafe { std::slice::from_raw_parts_mut(self.address(span), span.len as usize) }
    }

    /// Lends a span's bytes to a thread that was given the span (a [`crate::services::Tail`]).
    pub fn lend(&self, span: Span, to: &mut dyn FnMut(&mut [u8])) {
        to(self.bytes_mut(span));
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; the rings that used it keep it alive until they are gone.
        let unmapped = unsafe { munmap(self.mapping.0.as_ptr(), self.mapping.1) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked_and_memory_starts_zeroed() {
        for bytes in [4096_u64, 12_345, 5 << 20] {
            let arena = Arena::new(bytes).expect("memory");
            let last = Span { start: bytes - 1, len: 1 };
            assert_eq!(arena.bytes(last), [0]);
            arena.bytes_mut(last)[0] = 9;
            assert_eq!(arena.bytes(last), [9]);
            let beyond = Span { start: bytes - 1, len: 2 };
            let caught = std::panic::catch_unwind(|| arena.address(beyond));
            assert!(caught.is_err());
            if bytes >= HUGE_PAGE_BYTES {
                assert!((arena.base.as_ptr() as u64).is_multiple_of(HUGE_PAGE_BYTES));
            }
        }
    }
}
