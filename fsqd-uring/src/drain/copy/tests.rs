use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::ring::{RingCounters, SocketId};

const BLOCK: u32 = 8192;
const SOURCE: FileId = FileId(3);
const TARGET: FileId = FileId(4);

/// A ring over two byte vectors, whose completions are cut and delayed by a seed.
struct TwoFiles {
    arena: Vec<u8>,
    source: Vec<u8>,
    target: Vec<u8>,
    pending: VecDeque<(Token, Op)>,
    seed: u64,
    short: bool,
    /// Fails the n-th operation that completes.
    fault: Option<(u32, Errno)>,
    completed: u32,
    writes_in_flight: usize,
}

impl TwoFiles {
    fn new(source: Vec<u8>, seed: u64) -> Self {
        Self {
            arena: vec![0xaa; 3 * BLOCK as usize],
            source,
            target: Vec::new(),
            pending: VecDeque::new(),
            seed,
            short: true,
            fault: None,
            completed: 0,
            writes_in_flight: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % below
    }

    /// Any count from 1 to `len`, in whole pages where `direct`.
    fn cut(&mut self, len: usize, direct: bool) -> usize {
        if !self.short || len == 0 {
            return len;
        }
        let unit = if direct { ALIGNMENT as usize } else { 1 };
        let units = len.div_ceil(unit) as u64;
        let count = (1 + self.random(units)) as usize * unit;
        count.min(len)
    }

    fn execute(&mut self, op: Op) -> u32 {
        match op {
            Op::Read { file, into, offset } => {
                assert_eq!(file, SOURCE);
                assert!(offset.is_multiple_of(4096) && into.len.is_multiple_of(4096));
                let from = (offset as usize).min(self.source.len());
                let len = (into.len as usize).min(self.source.len() - from);
                let len = self.cut(len, true);
                let start = into.start as usize;
                self.arena[start..start + len].copy_from_slice(&self.source[from..from + len]);
                len as u32
            }
            Op::Write { file, from, offset } => {
                assert_eq!(file, TARGET);
                assert!(offset.is_multiple_of(4096) && from.len.is_multiple_of(4096));
                let len = self.cut(from.len as usize, true);
                let (start, end) = (offset as usize, offset as usize + len);
                assert!(start <= self.target.len(), "in order");
                self.target.resize(end.max(self.target.len()), 0);
                let memory = from.start as usize;
                self.target[start..end].copy_from_slice(&self.arena[memory..memory + len]);
                len as u32
            }
            other => panic!("a transfer reads and writes, not {other:?}"),
        }
    }
}

impl Ring for TwoFiles {
    fn push(&mut self, token: Token, op: Op) {
        if matches!(op, Op::Write { .. }) {
            self.writes_in_flight += 1;
            assert_eq!(self.writes_in_flight, 1, "one write at a time");
        }
        self.pending.push_back((token, op));
    }

    fn reap(&mut self, _: Option<Duration>, out: &mut Vec<Completion>) -> Result<(), Errno> {
        assert!(!self.pending.is_empty(), "waiting for nothing");
        let index = self.random(self.pending.len() as u64) as usize;
        let (token, op) = self.pending.remove(index).expect("in range");
        if matches!(op, Op::Write { .. }) {
            self.writes_in_flight -= 1;
        }
        let fault = self.fault.filter(|(at, _)| *at == self.completed);
        self.completed += 1;
        let result = match fault {
            Some((_, errno)) => Err(errno),
            None => Ok(self.execute(op)),
        };
        out.push(Completion { token, result, more_waiting: false });
        Ok(())
    }

    fn quick_ack(&mut self, _: SocketId) {}

    fn bytes(&self, span: Span) -> &[u8] {
        &self.arena[span.start as usize..span.start as usize + span.len as usize]
    }

    fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.arena[span.start as usize..span.start as usize + span.len as usize]
    }

    fn copy(&mut self, _: Span, _: Span) {
        panic!("a transfer moves nothing in memory");
    }

    fn counters(&self) -> RingCounters {
        panic!("a transfer does not ask what its ring has done");
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 4096) as u8).collect()
}

fn blocks(count: usize) -> Vec<Span> {
    let start = |index| index as u64 * u64::from(BLOCK);
    (0..count).map(|index| Span { start: start(index), len: BLOCK }).collect()
}

fn run(ring: &mut TwoFiles, len: u64, blocks: &[Span], copies: bool) -> Result<u32, TransferError> {
    let end = |file| End { file, direct: true };
    let plan = Plan { source: end(SOURCE), target: copies.then(|| end(TARGET)), len };
    let mut transfer = Transfer::new(plan, blocks, 9);
    let mut out = Vec::new();
    loop {
        transfer.pump(ring);
        if let Some(result) = transfer.result() {
            assert!(ring.pending.is_empty(), "nothing in flight at the end");
            return result;
        }
        ring.reap(None, &mut out).expect("it works");
        for completion in out.drain(..) {
            transfer.completed(&completion, ring);
        }
    }
}

#[test]
fn every_length_arrives_whole_through_short_reads_and_writes() {
    let block = BLOCK as usize;
    let lengths = [0, 1, 4095, 4096, 4097, block - 1, block, block + 1, 3 * block, 5 * block + 17];
    for len in lengths {
        for seed in 0..40 {
            for count in [1, 2, 3] {
                let source = content(len);
                let mut ring = TwoFiles::new(source.clone(), seed);
                let crc = run(&mut ring, len as u64, &blocks(count), true).expect("no faults");
                assert_eq!(crc, crc32fast::hash(&source), "length {len}, seed {seed}");
                assert_eq!(ring.target.len(), len.next_multiple_of(4096));
                assert_eq!(&ring.target[..len], source);
                assert!(ring.target[len..].iter().all(|byte| *byte == 0), "padded with zeros");
            }
        }
    }
}

#[test]
fn without_a_target_it_only_sums_up() {
    for seed in 0..20 {
        let source = content(50_001);
        let mut ring = TwoFiles::new(source.clone(), seed);
        assert_eq!(run(&mut ring, 50_001, &blocks(2), false), Ok(crc32fast::hash(&source)));
        assert!(ring.target.is_empty());
    }
}

#[test]
fn a_source_that_ends_early_is_an_error_and_not_an_end() {
    for (there, len) in [(0, 1), (4096, 4097), (5000, 9000), (8192, 8193), (20_000, 20_001)] {
        let mut ring = TwoFiles::new(content(there), 5);
        let result = run(&mut ring, len, &blocks(2), true);
        assert_eq!(result, Err(TransferError::Short(there as u64)), "{there} of {len}");
    }
}

#[test]
fn every_operation_can_fail_and_nothing_stays_in_flight() {
    let len = 4 * BLOCK as usize + 5;
    for at in 0..10 {
        let mut ring = TwoFiles::new(content(len), u64::from(at));
        ring.short = false;
        ring.fault = Some((at, Errno::IO));
        let result = run(&mut ring, len as u64, &blocks(3), true);
        assert!(
            matches!(
                result,
                Err(TransferError::Source(Errno::IO) | TransferError::Target(Errno::IO))
            ),
            "operation {at}: {result:?}"
        );
        let mut ring = TwoFiles::new(content(len), u64::from(at));
        ring.short = false;
        ring.fault = Some((at, Errno::INTR));
        let result = run(&mut ring, len as u64, &blocks(3), true);
        assert_eq!(result, Ok(crc32fast::hash(&content(len))), "interrupted is not failed");
    }
}

#[test]
fn a_stop_waits_for_what_is_in_flight() {
    let mut ring = TwoFiles::new(content(40_000), 1);
    let end = |file| End { file, direct: true };
    let plan = Plan { source: end(SOURCE), target: Some(end(TARGET)), len: 40_000 };
    let blocks = blocks(2);
    let mut transfer = Transfer::new(plan, &blocks, 1);
    transfer.pump(&mut ring);
    transfer.stop();
    assert_eq!(transfer.result(), None);
    let mut out = Vec::new();
    ring.reap(None, &mut out).expect("it works");
    transfer.completed(&out[0], &ring);
    transfer.pump(&mut ring);
    assert_eq!(transfer.result(), Some(Err(TransferError::Stopped)));
    assert!(ring.pending.is_empty());
}
