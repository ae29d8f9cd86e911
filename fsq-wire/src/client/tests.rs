//! The client's machine against replies written by hand.

use proptest::prelude::*;

use super::*;

const LOGIN: Login<'_> =
    Login { node: b"polaris", password: b"secret-of-polaris", hostname: b"localhost", port: 7625 };
const INFO: Info<'_> =
    Info { fs: b"/lustre", fpath: b"/lustre/data/x", desc: b"", storage_dest: 2 };

fn window(packets: u32, bytes: u64) -> Window {
    Window { packets, bytes }
}

/// What the server sends: garbage wherever no field is.
fn answer(layout: Layout, state: State, rc: i32, text: &[u8]) -> [u8; PACKET_BYTES] {
    let mut bytes = [0xa5; PACKET_BYTES];
    let mut packet = PacketMut::new(&mut bytes, layout);
    packet.set_version(VERSION);
    packet.set_state(state);
    packet.set_rc(rc);
    packet.set_error_text(text).unwrap();
    bytes
}

fn granted(session: &ClientSession, op: Op) -> [u8; PACKET_BYTES] {
    answer(session.layout(), op.reply(), 0, b"")
}

fn refused(session: &ClientSession, rc: i32, text: &str) -> [u8; PACKET_BYTES] {
    answer(session.layout(), State::REFUSED, rc, text.as_bytes())
}

fn grant(session: &mut ClientSession, op: Op) {
    let reply = session.reply(&granted(session, op)).unwrap();
    assert_eq!(reply, Reply { op, outcome: Ok(()) });
}

fn connected(layout: Layout, window: Window) -> ClientSession {
    let mut session = ClientSession::new(layout, window);
    session.connect(&LOGIN, &mut [0; PACKET_BYTES]).unwrap();
    grant(&mut session, Op::Connect);
    session
}

fn with_file(layout: Layout, window: Window) -> ClientSession {
    let mut session = connected(layout, window);
    session.open(&INFO, &mut [0; PACKET_BYTES]).unwrap();
    grant(&mut session, Op::Open);
    session
}

#[test]
fn every_packet_is_written_in_full() {
    for layout in [Layout::B, Layout::C] {
        let mut packets = Vec::new();
        let mut session = ClientSession::new(layout, window(4, 1 << 20));
        // Built twice over different garbage: a byte that is not written would differ.
        for garbage in [0x00, 0xff] {
            let mut built = Vec::new();
            session = ClientSession::new(layout, session.window());
            let mut packet = [garbage; PACKET_BYTES];
            session.connect(&LOGIN, &mut packet).unwrap();
            built.push(packet);
            grant(&mut session, Op::Connect);
            // From here on over the CONNECT packet, with its password.
            session.open(&INFO, &mut packet).unwrap();
            built.push(packet);
            grant(&mut session, Op::Open);
            session.data(5, &mut packet).unwrap();
            built.push(packet);
            session.close(&mut packet).unwrap();
            built.push(packet);
            session.disconnect(&mut packet).unwrap();
            built.push(packet);
            packets.push(built);
        }
        assert!(packets[0] == packets[1], "layout {layout}");
        let ops = packets[0].iter().map(|bytes| Packet::new(bytes, layout).state());
        assert!(ops.eq(Op::ALL.map(Op::request)));
        for bytes in &packets[0] {
            assert_eq!(Packet::new(bytes, layout).version(), VERSION);
            assert_eq!(Packet::new(bytes, layout).rc(), 0);
        }
        assert_eq!(Layout::detect(&packets[0][0]), Some(layout));
        assert_eq!(Packet::new(&packets[0][0], layout).login().unwrap(), LOGIN);
        assert_eq!(Packet::new(&packets[0][1], layout).info().unwrap(), INFO);
        assert_eq!(Packet::new(&packets[0][2], layout).data_size(), 5);
        for bytes in &packets[0][1..] {
            assert!(!bytes.windows(6).any(|part| part == b"secret"));
        }
    }
}

#[test]
fn a_file_goes_through_a_window() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = with_file(Layout::C, window(3, u64::MAX));
    for size in [10, 0, 20] {
        session.data(size, &mut packet).unwrap();
    }
    assert_eq!(session.data(1, &mut packet), Err(Barred::WindowFull));
    grant(&mut session, Op::Data);
    session.data(1, &mut packet).unwrap();
    session.close(&mut packet).unwrap();
    assert_eq!(
        session.data(1, &mut packet),
        Err(Barred::Unanswered { wanted: Op::Data, pending: Op::Close })
    );
    for _ in 0..3 {
        grant(&mut session, Op::Data);
    }
    grant(&mut session, Op::Close);
    assert_eq!(session.awaited(), None);
    assert!(!session.is_file_open());
    session.open(&INFO, &mut packet).unwrap();
}

#[test]
fn the_window_is_bounded_in_bytes_but_takes_any_single_payload() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = with_file(Layout::C, window(8, 100));
    session.data(1_000, &mut packet).unwrap();
    assert_eq!(session.data(0, &mut packet), Err(Barred::WindowFull));
    grant(&mut session, Op::Data);
    session.data(60, &mut packet).unwrap();
    session.data(40, &mut packet).unwrap();
    assert!(!session.has_room(1));
    grant(&mut session, Op::Data);
    session.data(60, &mut packet).unwrap();
    assert!(!session.has_room(u64::MAX), "the sum must not wrap");
}

#[test]
fn stop_and_wait_is_a_window_of_one() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = with_file(Layout::B, Window::STOP_AND_WAIT);
    session.data(u64::MAX, &mut packet).unwrap();
    assert_eq!(session.data(0, &mut packet), Err(Barred::WindowFull));
    grant(&mut session, Op::Data);
    session.data(0, &mut packet).unwrap();
    assert_eq!(ClientSession::new(Layout::C, window(0, 0)).window().packets, 1);
    assert_eq!(ClientSession::new(Layout::C, window(9_999, 0)).window().packets, WINDOW_MAX);
}

#[test]
fn the_first_refusal_of_a_file_stays_until_it_is_closed() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = with_file(Layout::C, window(3, u64::MAX));
    for _ in 0..3 {
        session.data(7, &mut packet).unwrap();
    }
    grant(&mut session, Op::Data);
    let full = Refused { op: Op::Data, errno: 28, text: "disk full".to_owned() };
    let reply = session.reply(&refused(&session, -28, "disk full")).unwrap();
    assert_eq!(reply, Reply { op: Op::Data, outcome: Err(full.clone()) });
    assert_eq!(session.data(7, &mut packet), Err(Barred::Failed));
    session.reply(&refused(&session, -5, "a later one")).unwrap();
    assert_eq!(session.failure(), Some(&full));
    session.close(&mut packet).unwrap();
    // Even a server that grants the CLOSE cannot make the file whole.
    let reply = session.reply(&granted(&session, Op::Close)).unwrap();
    assert_eq!(reply, Reply { op: Op::Close, outcome: Err(full) });
    assert_eq!(session.failure(), None);
    session.open(&INFO, &mut packet).unwrap();
    grant(&mut session, Op::Open);
    session.data(7, &mut packet).unwrap();
}

#[test]
fn a_failed_file_may_be_left_for_the_next() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = with_file(Layout::C, window(2, u64::MAX));
    assert_eq!(session.open(&INFO, &mut packet), Err(Barred::FileOpen));
    session.data(7, &mut packet).unwrap();
    session.data(7, &mut packet).unwrap();
    session.reply(&refused(&session, -28, "disk full")).unwrap();
    let unanswered = Barred::Unanswered { wanted: Op::Open, pending: Op::Data };
    assert_eq!(session.open(&INFO, &mut packet), Err(unanswered));
    session.reply(&refused(&session, -28, "disk full")).unwrap();
    session.open(&INFO, &mut packet).unwrap();
    grant(&mut session, Op::Open);
    assert_eq!(session.failure(), None);
    session.data(7, &mut packet).unwrap();
}

#[test]
fn refusals_of_connect_open_and_close() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = ClientSession::new(Layout::C, Window::STOP_AND_WAIT);
    session.connect(&LOGIN, &mut packet).unwrap();
    let reply = session.reply(&refused(&session, -13, "no such node")).unwrap();
    assert_eq!(reply.outcome.unwrap_err().errno, 13);
    assert_eq!(session.open(&INFO, &mut packet), Err(Barred::Ended));

    let mut session = connected(Layout::C, Window::STOP_AND_WAIT);
    session.open(&INFO, &mut packet).unwrap();
    // The other form that deployed clients know: the request's own state, with an rc.
    let exists = answer(Layout::C, Op::Open.reply(), -17, b"exists");
    assert_eq!(session.reply(&exists).unwrap().outcome.unwrap_err().errno, 17);
    assert_eq!(session.data(1, &mut packet), Err(Barred::NoFile(Op::Data)));
    session.open(&INFO, &mut packet).unwrap();
    grant(&mut session, Op::Open);
    session.close(&mut packet).unwrap();
    let reply = session.reply(&refused(&session, -5, "sync failed")).unwrap();
    assert_eq!(reply.outcome, Err(Refused { op: Op::Close, errno: 5, text: "sync failed".into() }));
    assert!(session.is_connected() && !session.is_file_open());
}

#[test]
fn requests_out_of_order_are_barred_and_change_nothing() {
    let mut packet = [0; PACKET_BYTES];
    let mut session = ClientSession::new(Layout::C, Window::STOP_AND_WAIT);
    assert_eq!(session.open(&INFO, &mut packet), Err(Barred::NotConnected(Op::Open)));
    assert_eq!(session.disconnect(&mut packet), Err(Barred::NotConnected(Op::Disconnect)));
    let long = Login { node: &[b'n'; 65], ..LOGIN };
    let too_long = FieldError::TooLong { field: Field::Node, len: 65 };
    assert_eq!(session.connect(&long, &mut packet), Err(Barred::Field(too_long)));
    session.connect(&LOGIN, &mut packet).unwrap();
    assert_eq!(session.open(&INFO, &mut packet), Err(Barred::NotConnected(Op::Open)));
    grant(&mut session, Op::Connect);
    assert_eq!(session.connect(&LOGIN, &mut packet), Err(Barred::Connected));
    assert_eq!(session.close(&mut packet), Err(Barred::NoFile(Op::Close)));
    session.open(&INFO, &mut packet).unwrap();
    assert_eq!(
        session.data(1, &mut packet),
        Err(Barred::Unanswered { wanted: Op::Data, pending: Op::Open })
    );
    grant(&mut session, Op::Open);
    session.disconnect(&mut packet).unwrap();
    assert_eq!(session.disconnect(&mut packet), Err(Barred::Ended));
}

#[test]
fn a_breach_ends_the_session() {
    let unterminated = {
        let mut bytes = [b'x'; PACKET_BYTES];
        let mut packet = PacketMut::new(&mut bytes, Layout::C);
        packet.set_version(VERSION);
        packet.set_state(State::REFUSED);
        packet.set_rc(-5);
        bytes
    };
    let mut future = answer(Layout::C, Op::Data.reply(), 0, b"");
    future[0] = 2;
    let close = Op::Close.reply();
    let text = Breach::Text(Op::Data, Unterminated(Field::ErrorText));
    let cases = [
        (answer(Layout::C, close, 0, b""), Breach::OutOfStep(Op::Data, close)),
        (answer(Layout::C, State::DATA, 0, b""), Breach::OutOfStep(Op::Data, State::DATA)),
        (answer(Layout::C, State::REFUSED, 0, b"none"), Breach::NoCode(Op::Data)),
        (future, Breach::Version(2)),
        (unterminated, text),
    ];
    for (packet, breach) in cases {
        let mut session = with_file(Layout::C, window(2, u64::MAX));
        session.data(1, &mut [0; PACKET_BYTES]).unwrap();
        assert_eq!(session.reply(&packet), Err(breach));
        assert_eq!(session.close(&mut [0; PACKET_BYTES]), Err(Barred::Ended));
    }
    let mut session = with_file(Layout::C, Window::STOP_AND_WAIT);
    let packet = granted(&session, Op::Data);
    assert_eq!(session.reply(&packet), Err(Breach::Unasked(Op::Data.reply())));
}

#[test]
fn hostile_codes_and_texts_are_made_harmless() {
    let harmless = |rc, text: &[u8]| {
        let mut session = connected(Layout::C, Window::STOP_AND_WAIT);
        session.open(&INFO, &mut [0; PACKET_BYTES]).unwrap();
        session.reply(&answer(Layout::C, State::REFUSED, rc, text)).unwrap().outcome.unwrap_err()
    };
    for rc in [i32::MIN, -4096, 17, i32::MAX] {
        let refused = harmless(rc, b"odd");
        assert_eq!(refused.errno, EPROTO);
        assert_eq!(refused.text, format!("odd (error code {rc})"));
    }
    assert_eq!(harmless(-1, b"\x1b[2Jgone\r\n\xff").text, "?[2Jgone??\u{fffd}");
    assert_eq!(harmless(-1, b"").text, "the server gave no reason");
}

proptest! {
    /// Whatever comes back, the machine neither panics nor takes garbage for an acknowledgement.
    #[test]
    fn arbitrary_replies(
        asked in 0..4_usize,
        version in prop_oneof![3 => Just(VERSION), 1 => any::<u8>()],
        state in prop_oneof![0_u32..128, any::<u32>()],
        rc in prop_oneof![Just(0), -200..0, any::<i32>()],
        fill in any::<u8>(),
    ) {
        for layout in [Layout::B, Layout::C] {
            let op = Op::ALL[asked];
            let mut out = [0; PACKET_BYTES];
            let mut session = ClientSession::new(layout, window(2, u64::MAX));
            session.connect(&LOGIN, &mut out).unwrap();
            if op != Op::Connect {
                grant(&mut session, Op::Connect);
                session.open(&INFO, &mut out).unwrap();
            }
            if matches!(op, Op::Data | Op::Close) {
                grant(&mut session, Op::Open);
            }
            match op {
                Op::Data => session.data(1, &mut out).unwrap(),
                Op::Close => session.close(&mut out).unwrap(),
                _ => {}
            }
            let mut bytes = [fill; PACKET_BYTES];
            let mut packet = PacketMut::new(&mut bytes, layout);
            packet.set_version(version);
            packet.set_state(State::from_bits(state));
            packet.set_rc(rc);
            let granted = matches!(session.reply(&bytes), Ok(Reply { outcome: Ok(()), .. }));
            let exact = version == VERSION && state == op.reply().bits() && rc == 0;
            prop_assert_eq!(granted, exact);
        }
    }
}
