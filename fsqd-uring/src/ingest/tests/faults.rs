//! Single faults, each with its exact answer.

use std::time::Duration;

use fsq_wire::{PACKET_BYTES, StorageDest};
use rustix::io::Errno;

use super::world::{Script, World, WorldOptions, codes, content, names, replies};
use crate::limits::WINDOW_BYTES;
use crate::ring::sim::SimOptions;

fn flawless() -> World {
    World::new(WorldOptions::new(SimOptions::flawless(0)))
}

#[test]
fn refused_and_illegal_requests_are_answered() {
    let local = StorageDest::Local;
    let with = |build: &dyn Fn(&mut Script)| {
        let mut script = Script::connected();
        build(&mut script);
        script.0
    };
    let mut wrong_version = Script::connected().0;
    wrong_version[0] = 7;
    let mut wrong_password = Script::default();
    wrong_password.connect(b"guess");
    let ok = (0x21, 0);
    let refused = |errno: Errno| (0x60, -errno.raw_os_error());
    let cases: [(&str, Vec<u8>, Vec<_>); 8] = [
        ("version", wrong_version, vec![refused(Errno::NOPROTOOPT)]),
        ("password", wrong_password.0, vec![refused(Errno::ACCESS)]),
        ("garbage", vec![0x5a; PACKET_BYTES + 100], vec![refused(Errno::NOPROTOOPT)]),
        ("garbage of our version", vec![1; PACKET_BYTES + 100], vec![refused(Errno::PROTO)]),
        (
            "data before open",
            with(&|s| {
                s.data(b"x");
            }),
            vec![ok, refused(Errno::PROTO)],
        ),
        (
            "second open",
            with(&|s| {
                s.open("a", local).open("b", local);
            }),
            vec![ok, (0x22, 0), refused(Errno::PROTO)],
        ),
        (
            "size of 2^63",
            with(&|s| {
                s.open("a", local).data_header(1 << 63).0.extend_from_slice(b"some of it");
            }),
            vec![ok, (0x22, 0), refused(Errno::FBIG)],
        ),
        (
            "second connect",
            with(&|s| {
                s.connect(super::world::PASSWORD);
            }),
            vec![ok, refused(Errno::PROTO)],
        ),
    ];
    let mut world = flawless();
    for (what, bytes, expected) in cases {
        let socket = world.connect();
        world.sim.feed(socket, &bytes);
        world.settle();
        assert_eq!(codes(&world.sim.sent(socket)), expected, "{what}");
        assert!(world.sim.finished(socket), "{what}: half-closed, so that the reply can be read");
        world.sim.end(socket);
        world.settle();
        assert!(world.sim.closed(socket), "{what}");
        world.check_empty();
        assert!(names(&world.store.borrow()).is_empty(), "{what}");
    }
}

#[test]
fn a_refused_open_keeps_the_session() {
    let mut world = flawless();
    let socket = world.connect();
    let mut script = Script::connected();
    script.open("../escape", StorageDest::Local);
    script.open("a", StorageDest::Local).data(b"abc").close();
    script.open("a", StorageDest::Local);
    script.open("c", StorageDest::Null).data(&content(10_000, 3)).close();
    world.sim.feed(socket, &script.disconnect().0);
    world.settle();
    let codes = codes(&world.sim.sent(socket));
    assert!(codes[1].0 == 0x60 && codes[1].1 < 0);
    let exists = (0x60, -Errno::EXIST.raw_os_error());
    let rest = [(0x22, 0), (0x24, 0), (0x28, 0), exists, (0x22, 0), (0x24, 0), (0x28, 0)];
    assert_eq!(codes[2..], rest);
    world.check_empty();
}

#[test]
fn a_failed_write_is_told_and_the_next_file_starts_clean() {
    let options = SimOptions { failing_file: 100, ..SimOptions::flawless(3) };
    let mut world = World::new(WorldOptions::new(options));
    let socket = world.connect();
    let big = content(5 * WINDOW_BYTES as usize + 17, 4);
    let mut script = Script::connected();
    script.open("a", StorageDest::Local).data(&big).data(b"more").close();
    script.open("a", StorageDest::Local).data(b"small enough for the commit").close();
    world.sim.feed(socket, &script.disconnect().0);
    world.settle();
    let replies = replies(&world.sim.sent(socket));
    let rcs: Vec<_> = replies.iter().map(|reply| (reply.state, reply.rc != 0)).collect();
    let failed = (0x60, true);
    let good = [(0x22, false), (0x24, false), (0x28, false)];
    assert_eq!(rcs[..2], [(0x21, false), (0x22, false)]);
    assert_eq!(rcs[2..5], [failed, failed, failed], "the payload is taken to its end, then told");
    assert_eq!(rcs[5..], good);
    assert_eq!(replies[2], replies[4], "the same reason each time");
    world.check_empty();
    let store = world.store.borrow();
    assert_eq!(names(&store).len(), 1);
}

#[test]
fn silence_ends_a_session_only_within_a_packet_or_payload() {
    let mut half = Script::connected();
    half.open("a", StorageDest::Local);
    half.0.truncate(2 * PACKET_BYTES - 1);
    let mut stopped = Script::connected();
    stopped.open("b", StorageDest::Local).data_header(1000).0.extend_from_slice(b"begun");
    let mut idle = Script::connected();
    idle.open("c", StorageDest::Local).data(b"abc");
    let mut world = flawless();
    let sockets = [Vec::new(), half.0, stopped.0, idle.0].map(|bytes| {
        let socket = world.connect();
        world.sim.feed(socket, &bytes);
        socket
    });
    world.settle();
    world.pass(Duration::from_secs(59));
    assert_eq!(world.shard.sessions(), 4);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.shard.sessions(), 2, "five bytes of payload are progress");
    world.pass(Duration::from_secs(61));
    assert_eq!(world.shard.sessions(), 1);
    let timed_out = (0x60, -Errno::TIMEDOUT.raw_os_error());
    let last = sockets.map(|socket| codes(&world.sim.sent(socket)).pop());
    assert_eq!(last, [Some(timed_out), Some(timed_out), Some(timed_out), Some((0x24, 0))]);
    world.pass(Duration::from_secs(8 * 3600));
    world.sim.feed(sockets[3], &Script::default().close().disconnect().0);
    world.settle();
    assert_eq!(codes(&world.sim.sent(sockets[3])), [(0x28, 0)]);
    world.check_empty();
    assert_eq!(names(&world.store.borrow()).len(), 1);
}

#[test]
fn quick_ack_only_where_the_payload_is_held_back() {
    let mut world = flawless();
    let socket = world.connect();
    let mut script = Script::connected();
    script.open("a", StorageDest::Null);
    world.sim.feed(socket, &script.0);
    world.settle();
    let with_payload = Script::default().data(b"together").0.clone();
    world.sim.feed(socket, &with_payload);
    world.settle();
    assert_eq!(world.sim.quick_acks(socket), 0, "the payload was there with its header");
    world.sim.feed(socket, &with_payload[..PACKET_BYTES]);
    world.settle();
    assert_eq!(world.sim.quick_acks(socket), 1);
    world.sim.feed(socket, &with_payload[PACKET_BYTES..]);
    world.settle();
    assert_eq!(codes(&world.sim.sent(socket)).len(), 4);
}

#[test]
fn stop_finishes_commits_and_tells_the_others() {
    let mut world = flawless();
    let idle = world.connect();
    world.sim.feed(idle, &Script::connected().0);
    let writing = world.connect();
    let mut script = Script::connected();
    script.open("a", StorageDest::Local).data_header(1000).0.extend_from_slice(&[1; 10]);
    world.sim.feed(writing, &script.0);
    world.settle();
    let closing = world.connect();
    let mut script = Script::connected();
    script.open("b", StorageDest::Local).data(b"abc").close();
    world.sim.feed(closing, &script.0);
    while !world.commit_waits() {
        world.step();
    }
    world.stop();
    world.settle();
    assert_eq!(codes(&world.sim.sent(closing)).pop(), Some((0x28, 0)));
    let last = codes(&world.sim.sent(writing)).pop();
    assert_eq!(last, Some((0x60, -Errno::SHUTDOWN.raw_os_error())));
    assert!(world.sim.closed(idle));
    world.pass(Duration::from_secs(3));
    world.check_empty();
    assert_eq!(names(&world.store.borrow()).len(), 1, "only what was being committed");
}

#[test]
fn too_many_sessions_are_told_so() {
    let options = WorldOptions { sessions_max: 2, ..WorldOptions::new(SimOptions::flawless(0)) };
    let mut world = World::new(options);
    let sockets: Vec<_> = (0..12).map(|_| world.connect()).collect();
    for socket in &sockets {
        world.sim.feed(*socket, &Script::connected().0);
    }
    world.settle();
    let told = (0x60, -Errno::USERS.raw_os_error());
    let answers: Vec<_> = sockets.iter().map(|s| codes(&world.sim.sent(*s)).pop()).collect();
    assert_eq!(answers[..3], [Some((0x21, 0)), Some((0x21, 0)), Some(told)]);
    assert_eq!(answers[9], Some(told));
    assert!(answers[10].is_none() && world.sim.closed(sockets[10]), "beyond the spare slots");
    // Those that still read their refusal take nobody's place.
    world.sim.end(sockets[0]);
    world.sim.end(sockets[2]);
    world.settle();
    let next = world.connect();
    world.sim.feed(next, &Script::connected().0);
    world.settle();
    assert_eq!(codes(&world.sim.sent(next)), [(0x21, 0)]);
}

#[test]
fn slow_senders_do_not_keep_the_windows() {
    // Two windows, four sessions that send a part of a large payload and then nothing, and one that
    // sends all of its own.
    let options = WorldOptions { windows: 2, ..WorldOptions::new(SimOptions::flawless(0)) };
    let mut world = World::new(options);
    for i in 0..4 {
        let socket = world.connect();
        let mut script = Script::connected();
        script.open(&format!("slow-{i}"), StorageDest::Local).data_header(900_000);
        script.0.extend_from_slice(&content(300_000 + i, i as u64));
        world.sim.feed(socket, &script.0);
    }
    world.settle();
    let socket = world.connect();
    let bytes = content(3_500_001, 9);
    let mut script = Script::connected();
    script.open("fast", StorageDest::Local).data(&bytes).close();
    world.sim.feed(socket, &script.0);
    world.settle();
    world.pass(Duration::from_secs(1));
    assert_eq!(codes(&world.sim.sent(socket)).pop(), Some((0x28, 0)));
    let store = world.store.borrow();
    assert_eq!(store.stored[std::path::Path::new("data/fast")].bytes, bytes);
}

#[test]
fn a_session_with_its_share_of_windows_does_not_queue_for_more() {
    for seed in 0..20 {
        let options = SimOptions { slow_file: 100, reorder: true, ..SimOptions::flawless(seed) };
        let mut world = World::new(WorldOptions { windows: 8, ..WorldOptions::new(options) });
        let bytes = content(7 * WINDOW_BYTES as usize, seed);
        // The first takes four windows while there are plenty, the others what is left.
        let sockets: Vec<_> = (0..4)
            .map(|i| {
                let socket = world.connect();
                let mut script = Script::connected();
                script.open(&format!("{i}"), StorageDest::Local).data(&bytes).close();
                world.sim.feed(socket, &script.0);
                for _ in 0..200 {
                    world.step();
                }
                socket
            })
            .collect();
        assert_eq!(world.shard.windows_free(), 0);
        world.sim.options().slow_file = 90;
        world.settle();
        for socket in sockets {
            assert_eq!(codes(&world.sim.sent(socket)).pop(), Some((0x28, 0)), "seed {seed}");
            world.sim.end(socket);
        }
        world.settle();
        world.check_empty();
    }
}
