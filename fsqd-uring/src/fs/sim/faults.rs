//! [`Faults`]: which call fails, hangs, or never comes back because the power is off.
//!
//! Invariant: the same seed and the same order of calls give the same faults.

use std::collections::BTreeMap;

use rustix::io::Errno;

/// A call of the simulated file system, by its name in [`crate::fs::Fs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the calls of the trait")]
pub enum Operation {
    OpenRoot,
    Directory,
    CreateUnnamed,
    CreateNamed,
    /// Second step of [`crate::fs::Fs::create_laid_out`], whose first one is `CreateNamed`.
    SetLayout,
    Open,
    PublishUnnamed,
    Link,
    RenameNoreplace,
    Remove,
    RemoveDirectory,
    Entries,
    Stat,
    StatAt,
    Attribute,
    SetAttribute,
    SetOwnership,
    SetLen,
    Allocate,
    SetDirect,
    WriteAllAt,
    ReadAt,
    Sync,
    SyncAll,
    Space,
    FsType,
    Lock,
    /// [`super::SimFs::file_write`].
    FileWrite,
    /// [`super::SimFs::file_read`].
    FileRead,
}

impl Operation {
    /// The system call behind it, as errors name it.
    #[must_use]
    pub fn call(self) -> &'static str {
        match self {
            Self::OpenRoot => "openat",
            Self::Directory | Self::CreateUnnamed | Self::CreateNamed | Self::Open => "openat2",
            Self::SetLayout => "llapi_layout_file_open",
            Self::PublishUnnamed | Self::Link => "linkat",
            Self::RenameNoreplace => "renameat2",
            Self::Remove | Self::RemoveDirectory => "unlinkat",
            Self::Entries => "getdents64",
            Self::Stat => "fstat",
            Self::StatAt => "openat2",
            Self::Attribute => "fgetxattr",
            Self::SetAttribute => "fsetxattr",
            Self::SetOwnership => "fchown",
            Self::SetLen => "ftruncate",
            Self::Allocate => "fallocate",
            Self::SetDirect => "fcntl",
            Self::WriteAllAt | Self::FileWrite => "pwrite",
            Self::ReadAt | Self::FileRead => "pread",
            Self::Sync => "fsync",
            Self::SyncAll => "syncfs",
            Self::Space => "fstatvfs",
            Self::FsType => "fstatfs",
            Self::Lock => "flock",
        }
    }
}

/// A small generator of pseudo-random numbers (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

#[derive(Debug)]
struct Drawn {
    random: Random,
    one_in: u64,
    errnos: Vec<Errno>,
}

/// The script of faults and the counters it runs on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    total: u64,
    counts: BTreeMap<Operation, u64>,
    /// By operation and its count.
    nth: BTreeMap<(Operation, u64), Errno>,
    always: BTreeMap<Operation, Errno>,
    drawn: Option<Drawn>,
    /// By the count of all calls.
    at: BTreeMap<u64, Errno>,
    halt_at: Option<u64>,
}

impl Faults {
    /// Counts a call and says what befalls it.
    pub(super) fn enter(&mut self, operation: Operation) -> Result<(), Errno> {
        let index = self.total;
        self.total += 1;
        let count = self.counts.entry(operation).or_default();
        *count += 1;
        if self.halt_at.is_some_and(|halt_at| index >= halt_at) {
            return Err(Errno::SHUTDOWN);
        }
        if let Some(errno) = self.at.remove(&index) {
            return Err(errno);
        }
        if let Some(errno) = self.nth.remove(&(operation, *count)) {
            return Err(errno);
        }
        if let Some(&errno) = self.always.get(&operation) {
            return Err(errno);
        }
        if let Some(drawn) = &mut self.drawn
            && drawn.random.below(drawn.one_in) == 0
        {
            let choice = drawn.random.below(drawn.errnos.len() as u64);
            return Err(drawn.errnos[choice as usize]);
        }
        Ok(())
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.counts.get(&operation).copied().unwrap_or(0)
    }

    pub(super) fn fail_nth(&mut self, operation: Operation, nth: u64, errno: Errno) {
        self.nth.insert((operation, self.count(operation) + nth), errno);
    }

    pub(super) fn fail_at(&mut self, index: u64, errno: Errno) {
        self.at.insert(index, errno);
    }

    pub(super) fn fail_always(&mut self, operation: Operation, errno: Errno) {
        self.always.insert(operation, errno);
    }

    pub(super) fn draw(&mut self, seed: u64, one_in: u64, errnos: &[Errno]) {
        assert!(one_in > 0 && !errnos.is_empty(), "a probability and something to fail with");
        self.drawn = Some(Drawn { random: Random::new(seed), one_in, errnos: errnos.to_vec() });
    }

    pub(super) fn halt_at(&mut self, index: u64) {
        self.halt_at = Some(index);
    }

    /// Ends every fault; the counters go on.
    pub(super) fn clear(&mut self) {
        self.at.clear();
        self.nth.clear();
        self.always.clear();
        self.drawn = None;
        self.halt_at = None;
    }
}
