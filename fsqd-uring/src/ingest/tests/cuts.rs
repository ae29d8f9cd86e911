//! A stream cut at every byte, and a peer that vanishes at every byte.

use fsq_wire::StorageDest;

use super::world::{Script, World, WorldOptions, codes, content, names};
use crate::ring::sim::SimOptions;

const GOOD: [(u32, i32); 7] =
    [(0x21, 0), (0x22, 0), (0x24, 0), (0x24, 0), (0x28, 0), (0x22, 0), (0x28, 0)];

/// One session: a file in two pieces, an empty one.
fn session() -> (Script, usize, Vec<u8>) {
    let bytes = content(703, 1);
    let mut script = Script::connected();
    script.open("a", StorageDest::Local).data(&bytes[..700]).data(&bytes[700..]).close();
    let sealed = script.0.len();
    script.open("b", StorageDest::LustreTsm).close().disconnect();
    (script, sealed, bytes)
}

fn check_complete(world: &mut World, sent: &[u8], bytes: &[u8]) {
    assert_eq!(codes(sent), GOOD);
    let store = world.store.borrow();
    assert_eq!(store.stored[std::path::Path::new("data/a")].bytes, bytes);
    assert_eq!(store.stored[std::path::Path::new("data/a")].crc, crc32fast::hash(bytes));
    assert_eq!(store.stored[std::path::Path::new("data/b")].bytes, b"");
    drop(store);
    world.check_empty();
}

#[test]
fn one_byte_at_a_time() {
    let (script, _, bytes) = session();
    let options = SimOptions { receive_bytes_max: 1, ..SimOptions::flawless(0) };
    let mut world = World::new(WorldOptions::new(options));
    let socket = world.connect();
    world.sim.feed(socket, &script.0);
    world.sim.end(socket);
    world.settle();
    let sent = world.sim.sent(socket);
    check_complete(&mut world, &sent, &bytes);
}

#[test]
fn cut_at_every_byte() {
    let (script, _, bytes) = session();
    // One world for all of them: what a session leaves behind would show in the next.
    let mut world = World::new(WorldOptions::new(SimOptions::flawless(0)));
    for cut in 0..=script.0.len() {
        let socket = world.connect();
        world.sim.feed(socket, &script.0[..cut]);
        world.settle();
        world.sim.feed(socket, &script.0[cut..]);
        world.settle();
        let sent = world.sim.sent(socket);
        check_complete(&mut world, &sent, &bytes);
        world.store.borrow_mut().stored.clear();
    }
}

#[test]
fn vanishing_at_every_byte_leaves_what_was_closed() {
    let (script, sealed, bytes) = session();
    let mut world = World::new(WorldOptions::new(SimOptions::flawless(0)));
    for cut in 0..script.0.len() {
        let socket = world.connect();
        world.sim.feed(socket, &script.0[..cut]);
        // A reset takes away what was not received: let everything before it be received.
        if cut % 2 == 0 {
            world.sim.end(socket);
        } else {
            world.settle();
            world.sim.reset(socket);
        }
        world.settle();
        world.check_empty();
        let mut store = world.store.borrow_mut();
        let kept = names(&store).len();
        let whole = usize::from(cut >= sealed);
        let second = usize::from(cut >= script.0.len() - fsq_wire::PACKET_BYTES);
        assert_eq!(kept, whole + second, "cut at {cut}");
        if whole == 1 {
            assert_eq!(store.stored[std::path::Path::new("data/a")].bytes, bytes);
        }
        store.stored.clear();
    }
}
