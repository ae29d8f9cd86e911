//! [`Machine`]: disks with volatile write caches, in memory, and what a loss of power leaves of them.
//!
//! Owns the log of everything that was written to them, in order, with the flushes in between.
//! Invariant: a loss of power keeps every write that a flush of its disk followed; of those after
//! the last flush it keeps any part, down to single sectors (but for [`SUPER_BLOCK_BYTES`]), and
//! nothing else ever changes a byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::Random;

/// What a disk writes whole or not at all, bytes.
const SECTOR_BYTES: u64 = 512;
/// The same at its beginning. The super block of ext4 is in there: 1024 bytes with a checksum, which
/// ext4 itself takes to be written whole. Torn, it cannot be mounted without a repair, whoever had
/// been writing to it.
const SUPER_BLOCK_BYTES: u64 = 4096;
const PAGE_BYTES: usize = 4096;

type Page = Box<[u8; PAGE_BYTES]>;

/// The content of a disk; pages that were never written are zero and take no memory.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pages: Vec<Option<Page>>,
}

impl Image {
    /// All zero.
    pub(crate) fn zeroed(mib: usize) -> Self {
        Self { pages: vec![None; (mib << 20) / PAGE_BYTES] }
    }

    /// Its length, bytes.
    pub(crate) fn len(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    /// The bytes at `offset`; what would be beyond the end is left out.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = (len as u64).min(self.len().saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(len).expect("at most what was asked for")];
        visit(offset, bytes.len(), |page, start, range| {
            let Some(page) = &self.pages[page] else { return };
            let part = &mut bytes[range];
            part.copy_from_slice(&page[start..start + part.len()]);
        });
        bytes
    }

    /// # Panics
    /// If it goes beyond the end.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        visit(offset, bytes.len(), |page, start, range| {
            let page = self.pages[page].get_or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[start..start + range.len()].copy_from_slice(&bytes[range]);
        });
    }
}

/// Calls `each` with the page, the first byte in it and the range of the buffer, for every page of
/// `len` bytes at `offset`.
fn visit(offset: u64, len: usize, mut each: impl FnMut(usize, usize, std::ops::Range<usize>)) {
    let offset = usize::try_from(offset).expect("a small disk");
    let mut done = 0;
    while done < len {
        let (page, start) = ((offset + done) / PAGE_BYTES, (offset + done) % PAGE_BYTES);
        let count = (PAGE_BYTES - start).min(len - done);
        each(page, start, done..done + count);
        done += count;
    }
}

/// What has happened to a disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Bytes were written; the writer has been told.
    Write { disk: usize, offset: u64, bytes: Vec<u8> },
    /// Everything before is on stable storage; whoever asked for it has been told.
    Flush { disk: usize },
}

#[derive(Debug)]
struct Disk {
    /// What was there at the beginning.
    first: Image,
    /// What a reader gets.
    live: Image,
}

#[derive(Debug)]
struct State {
    disks: Vec<Disk>,
    log: Vec<Event>,
}

/// Disks that lose their power together, each with a cache that loses what was not flushed.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    state: Arc<Mutex<State>>,
}

impl Machine {
    /// A disk for each image.
    pub(crate) fn new(images: Vec<Image>) -> Self {
        let disk = |image: Image| Disk { live: image.clone(), first: image };
        let disks = images.into_iter().map(disk).collect();
        Self { state: Arc::new(Mutex::new(State { disks, log: Vec::new() })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Length of a disk, bytes.
    pub(crate) fn len(&self, disk: usize) -> u64 {
        self.state().disks[disk].live.len()
    }

    pub(crate) fn read(&self, disk: usize, offset: u64, len: usize) -> Vec<u8> {
        self.state().disks[disk].live.read(offset, len)
    }

    /// # Panics
    /// If it goes beyond the end.
    pub(crate) fn write(&self, disk: usize, offset: u64, bytes: &[u8]) {
        let mut state = self.state();
        state.disks[disk].live.write(offset, bytes);
        state.log.push(Event::Write { disk, offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn flush(&self, disk: usize) {
        self.state().log.push(Event::Flush { disk });
    }

    /// The present instant: the number of events before it.
    pub(crate) fn now(&self) -> usize {
        self.state().log.len()
    }

    /// Looks at the log. No disk does anything meanwhile.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(&self.state().log)
    }

    /// The machine after a loss of power at the instant `cut`.
    pub(crate) fn after_power_loss(&self, cut: usize, random: &mut Random) -> Self {
        let state = self.state();
        let image = |disk| state.after_power_loss(disk, cut, random);
        Self::new((0..state.disks.len()).map(image).collect())
    }
}

impl State {
    /// What is found on one disk. How much of its cache has been written by itself is drawn too,
    /// from nothing to all.
    fn after_power_loss(&self, disk: usize, cut: usize, random: &mut Random) -> Image {
        let log = &self.log[..cut];
        let flushed = log.iter().rposition(|event| *event == Event::Flush { disk }).unwrap_or(0);
        let mut image = self.disks[disk].first.clone();
        let whole_percent = [0, 10, 50, 90, 100][random.below(5) as usize];
        // Without the certainties at both ends, some of the rest are torn.
        let torn_percent = if whole_percent % 100 == 0 { 0 } else { (100 - whole_percent) / 2 };
        for (instant, event) in log.iter().enumerate() {
            let (offset, bytes) = match event {
                Event::Write { disk: here, offset, bytes } if *here == disk => (*offset, bytes),
                _ => continue,
            };
            if instant < flushed {
                image.write(offset, bytes);
                continue;
            }
            let fate = random.below(100);
            if fate < whole_percent {
                image.write(offset, bytes);
            } else if fate < whole_percent + torn_percent {
                tear(&mut image, offset, bytes, random);
            }
        }
        image
    }
}

/// Writes some of the sectors.
fn tear(image: &mut Image, offset: u64, bytes: &[u8], random: &mut Random) {
    let (mut offset, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let unit = if offset < SUPER_BLOCK_BYTES { SUPER_BLOCK_BYTES } else { SECTOR_BYTES };
        let in_unit = usize::try_from(unit - offset % unit).expect("small");
        let (sector, behind) = rest.split_at(in_unit.min(rest.len()));
        if random.below(2) == 0 {
            image.write(offset, sector);
        }
        offset += sector.len() as u64;
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTOR: usize = SECTOR_BYTES as usize;

    #[test]
    fn reads_what_was_written_across_pages() {
        let machine = Machine::new(vec![Image::zeroed(1)]);
        machine.write(0, 4000, &[7; 5000]);
        machine.write(0, 4100, &[8; 10]);
        assert_eq!(machine.read(0, 3999, 3), [0, 7, 7]);
        assert_eq!(machine.read(0, 4099, 12), [7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7]);
        assert_eq!(machine.read(0, 8999, 3), [7, 0, 0]);
        assert_eq!(machine.read(0, (1 << 20) - 2, 10), [0, 0], "the end is the end");
    }

    /// Page n holds what the n-th write has put there: before the flush all of it, after it any
    /// sectors of it, and after the cut nothing.
    #[test]
    fn power_loss_keeps_what_was_flushed_and_any_part_of_the_rest() {
        let (mut kept, mut torn, mut lost) = (0, 0, 0);
        for seed in 0..50 {
            let machine = Machine::new(vec![Image::zeroed(1)]);
            for page in 0..30 {
                machine.write(0, page * 4096, &[page as u8 + 1; 4096]);
                if page == 9 {
                    machine.flush(0);
                }
            }
            // 10 writes and the flush, then 10 of the 20 others.
            let after = machine.after_power_loss(21, &mut Random::new(seed));
            for page in 0..30_u64 {
                let found = after.read(0, page * 4096, 4096);
                let mut there = 0;
                for sector in found.chunks(SECTOR) {
                    let wanted = if sector[0] == 0 { 0 } else { page as u8 + 1 };
                    assert_eq!(sector, [wanted; SECTOR], "a sector is whole or old");
                    there += usize::from(wanted != 0);
                }
                match page {
                    0..10 => assert_eq!(there, 8, "page {page} was flushed"),
                    10..20 if there == 8 => kept += 1,
                    10..20 if there == 0 => lost += 1,
                    10..20 => torn += 1,
                    _ => assert_eq!(there, 0, "page {page} was written after the cut"),
                }
            }
        }
        assert!(kept > 50 && torn > 50 && lost > 50, "{kept} kept, {torn} torn, {lost} lost");
    }

    /// A write that begins in the super block and goes on behind it.
    #[test]
    fn super_block_is_not_torn() {
        let (mut torn, mut whole) = (0, 0);
        for seed in 0..200 {
            let machine = Machine::new(vec![Image::zeroed(1)]);
            machine.write(0, 1024, &[1; 8192]);
            let found = machine.after_power_loss(1, &mut Random::new(seed)).read(0, 1024, 8192);
            let (first, rest) = found.split_at(3072);
            assert!(first.iter().all(|&byte| byte == first[0]), "seed {seed}");
            whole += usize::from(first[0] == 1);
            torn += usize::from(rest.contains(&0) && rest.contains(&1));
        }
        assert!(torn > 10 && whole > 10, "{torn} torn behind it, {whole} whole");
    }

    /// A flush covers what was written before it to its own disk, and nothing of another one.
    #[test]
    fn flush_is_an_event_of_one_disk() {
        let machine = Machine::new(vec![Image::zeroed(1), Image::zeroed(1)]);
        for disk in [0, 1] {
            machine.write(disk, 0, &[1; 4096]);
        }
        machine.flush(1);
        let found = |disk, cut| {
            let machines =
                (0..20).map(|seed| machine.after_power_loss(cut, &mut Random::new(seed)));
            machines.filter(|machine| machine.read(disk, 0, 4096) == [1; 4096]).count()
        };
        assert_eq!(found(1, 3), 20);
        assert!(found(1, 2) < 20);
        assert_eq!(found(1, 1), 0);
        assert!(found(0, 3) < 20);
    }
}
