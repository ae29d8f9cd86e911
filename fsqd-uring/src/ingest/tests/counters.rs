//! The numbers a ring counts, against what was scripted.

use fsq_wire::StorageDest;

use super::world::{Script, World, WorldOptions, codes, content};
use crate::ingest::shard::ShardCounters;
use crate::limits::{WINDOW_BYTES, WRITE_BYTES};
use crate::ring::Ring;
use crate::ring::sim::SimOptions;

/// Receives for payloads that a kernel hands out in pieces of `most`, when up to `room` may be
/// asked for, less at every multiple of it: all of them, and the short ones.
fn receives(payloads: &[u64], most: u64, room: u64) -> (u64, u64) {
    let (mut all, mut short, mut at) = (0, 0, 0);
    for payload in payloads {
        let mut left = *payload;
        while left > 0 {
            let asked = left.min(room - at % room);
            let got = asked.min(most);
            all += 1;
            short += u64::from(got < asked);
            left -= got;
            at += got;
        }
    }
    (all, short)
}

#[test]
fn what_was_scripted_is_what_is_counted() {
    const MOST: u32 = 100_000;
    let stored = [700_001, 1 << 20, 1, 3_333_333];
    let dropped = [2_500_000, 10, 0];
    let options = SimOptions { receive_bytes_max: MOST, ..SimOptions::flawless(1) };
    let mut world = World::new(WorldOptions::new(options));
    let socket = world.connect();
    let mut script = Script::connected();
    script.open("a", StorageDest::Local);
    for len in stored {
        script.data(&content(len as usize, 3));
    }
    script.close().open("b", StorageDest::Null);
    for len in dropped {
        script.data(&content(len as usize, 4));
    }
    world.sim.feed(socket, &script.close().disconnect().0);
    world.settle();
    assert_eq!(codes(&world.sim.sent(socket)).len(), 1 + (2 + stored.len()) + (2 + dropped.len()));

    let length: u64 = stored.iter().sum();
    let (kept, kept_short) = receives(&stored, MOST.into(), WRITE_BYTES.into());
    // Scratch memory has no fill pointer: each payload begins at its start.
    let of_one = |len: &u64| {
        let mut left = *len;
        let (mut all, mut short) = (0, 0);
        while left > 0 {
            let asked = left.min(WINDOW_BYTES.into());
            let got = asked.min(MOST.into());
            (all, short, left) = (all + 1, short + u64::from(got < asked), left - got);
        }
        (all, short)
    };
    let (lost, lost_short) =
        dropped.iter().map(of_one).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let expected = ShardCounters {
        sessions: 1,
        files: 1,
        bytes: length + dropped.iter().sum::<u64>(),
        chunks: (stored.len() + dropped.len()) as u64,
        receives: kept + lost,
        short_receives: kept_short + lost_short,
        writes: length / u64::from(WRITE_BYTES),
        bytes_written: length - length % u64::from(WRITE_BYTES),
        short_writes: 0,
        // Packets fit into one receive each, and nothing else was cut.
        resubmissions: kept_short + lost_short,
    };
    assert_eq!(world.shard.counters(), expected);
    assert!(kept_short > 20 && lost_short > 20, "{kept_short} {lost_short}");
    world.check_empty();
}

#[test]
fn every_byte_counts_once_on_a_rough_kernel() {
    for seed in 0..30 {
        let mut world = World::new(WorldOptions::new(SimOptions::rough(seed)));
        let socket = world.connect();
        let mut script = Script::connected();
        script.open("a", StorageDest::Local);
        let lens = [1_500_000, 17, 2_000_000 + seed as usize];
        for len in lens {
            script.data(&content(len, seed));
        }
        world.sim.feed(socket, &script.close().disconnect().0);
        world.settle();
        let counters = world.shard.counters();
        let length = lens.iter().sum::<usize>() as u64;
        assert_eq!((counters.bytes, counters.chunks, counters.files), (length, 3, 1), "{seed}");
        // A cut block is written again, and all whole writes have been made.
        let least = length - length % u64::from(WRITE_BYTES);
        assert!(counters.bytes_written >= least, "seed {seed}: {counters:?}");
        assert!(counters.short_receives > 0, "seed {seed}: {counters:?}");
        let short = counters.short_receives + counters.short_writes;
        assert!(counters.resubmissions > short, "EAGAIN and sends, too; seed {seed}: {counters:?}");
        let ring = world.sim.counters();
        let moved = counters.receives + counters.writes;
        assert!(ring.enters > 0 && ring.completions > moved, "seed {seed}: {ring:?}");
    }
}
