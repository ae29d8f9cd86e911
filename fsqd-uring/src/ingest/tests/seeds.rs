//! Many sessions at once on a rough kernel, decided by a seed.
//!
//! `FSQ_SIM_SEED=n cargo test -p fsqd-uring ingest::tests::seeds` repeats one seed;
//! `FSQ_SIM_SEEDS=n` runs that many.

use std::path::Path;

use fsq_wire::{PACKET_BYTES, StorageDest};

use super::world::{Script, World, WorldOptions, content, replies};
use crate::limits::WINDOW_BYTES;
use crate::prng::Prng;
use crate::ring::SocketId;
use crate::ring::sim::SimOptions;

struct Client {
    socket: SocketId,
    script: Vec<u8>,
    fed: usize,
    files: Vec<(String, Vec<u8>)>,
    /// Where in the script each file's CLOSE ends.
    closes: Vec<usize>,
    /// How much of the script is sent before the client vanishes.
    until: usize,
}

fn client(world: &mut World, prng: &mut Prng, id: u64) -> Client {
    let socket = world.connect();
    let mut script = Script::connected();
    let (mut files, mut closes) = (Vec::new(), Vec::new());
    for n in 0..1 + prng.below(3) {
        let name = format!("{id}-{n}");
        let len = match prng.below(4) {
            0 => prng.below(9000),
            1 => prng.below(u64::from(WINDOW_BYTES)),
            2 => 4096 * prng.below(600),
            _ => prng.below(5 * u64::from(WINDOW_BYTES)),
        };
        let bytes = content(len as usize, id << 8 | n);
        script.open(&name, StorageDest::LustreTsm);
        let piece = [700, 65_536, 1_048_575, 4_000_000][prng.below(4) as usize];
        for piece in bytes.chunks(piece) {
            script.data(piece);
        }
        script.close();
        closes.push(script.0.len());
        files.push((name, bytes));
    }
    script.disconnect();
    let len = script.0.len();
    let until = if prng.below(4) == 0 { prng.below(len as u64) as usize } else { len };
    Client { socket, script: script.0, fed: 0, files, closes, until }
}

fn run(seed: u64) {
    let mut prng = Prng::new(seed ^ 0x5eed);
    let failing = seed.is_multiple_of(3);
    let sim = SimOptions {
        failing_file: if failing { 2 } else { 0 },
        // A device that now and then keeps nearly all windows in flight.
        slow_file: [0, 50, 98][prng.below(3) as usize],
        ..SimOptions::rough(seed)
    };
    let options = WorldOptions {
        sim,
        windows: [2, 3, 8, 16, 64][prng.below(5) as usize],
        sessions_max: 32,
        failing_jobs: if failing { 10 } else { 0 },
    };
    let mut world = World::new(options);
    let mut clients: Vec<_> =
        (0..2 + prng.below(8)).map(|id| client(&mut world, &mut prng, id)).collect();
    let mut sent: Vec<Vec<u8>> = clients.iter().map(|_| Vec::new()).collect();
    while clients.iter().any(|client| client.fed < client.until) {
        let at = prng.below(clients.len() as u64) as usize;
        let client = &mut clients[at];
        let most = (client.until - client.fed) as u64;
        if most > 0 {
            let burst = 1 + prng.below(300_000);
            let count = 1 + prng.below(most.min(burst)) as usize;
            world.sim.feed(client.socket, &client.script[client.fed..client.fed + count]);
            client.fed += count;
            if client.fed == client.until && client.until < client.script.len() {
                world.sim.end(client.socket);
            }
        }
        for _ in 0..prng.below(4) {
            world.step();
        }
    }
    world.settle();
    // A script that goes on after a refused OPEN is told off; its session lingers a little.
    world.pass(std::time::Duration::from_secs(3));
    for (client, sent) in clients.iter().zip(&mut sent) {
        sent.extend(world.sim.sent(client.socket));
    }
    world.check_empty();
    let store = world.store.borrow();
    let mut acknowledged_files = 0;
    for (client, sent) in clients.iter().zip(&sent) {
        let whole = sent.len() / PACKET_BYTES * PACKET_BYTES;
        let replies = replies(&sent[..whole]);
        let acknowledged = replies.iter().filter(|reply| reply.state == 0x28).count();
        let mut stored = 0;
        for ((name, bytes), &end) in client.files.iter().zip(&client.closes) {
            let found = store.stored.get(&Path::new("data").join(name));
            stored += usize::from(found.is_some());
            if let Some(found) = found {
                assert!(client.until >= end, "only after its CLOSE (seed {seed})");
                assert!(found.bytes == *bytes, "content of {name} (seed {seed})");
                assert_eq!(found.crc, crc32fast::hash(bytes), "crc of {name} (seed {seed})");
            } else if !failing {
                assert!(client.until < end, "{name} is missing (seed {seed})");
            }
        }
        assert!(acknowledged <= stored, "acknowledged means stored (seed {seed})");
        acknowledged_files += acknowledged;
        if client.until == client.script.len() {
            assert_eq!(acknowledged, stored, "stored means acknowledged (seed {seed})");
            let errors = replies.iter().filter(|reply| reply.rc != 0).count();
            assert!(failing || errors == 0, "no errors without faults (seed {seed})");
        }
    }
    assert!(
        failing
            || acknowledged_files == store.stored.len()
            || clients.iter().any(|c| c.until < c.script.len())
    );
}

#[test]
fn many_sessions_on_a_rough_kernel() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    if let Some(seed) = number("FSQ_SIM_SEED") {
        run(seed);
        return;
    }
    for seed in 0..number("FSQ_SIM_SEEDS").unwrap_or(60) {
        run(seed);
    }
}
