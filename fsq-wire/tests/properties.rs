//! What holds for every packet: the session neither panics nor lets a password out, and whatever
//! it answers, a deployed client can read.

use fsq_wire::{
    Field, Info, Layout, Login, Next, Op, PACKET_BYTES, Packet, PacketMut, Phase, Request,
    ServerSession, State, VERSION,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PASSWORD: &[u8] = b"hunter2-hunter2";

fn any_layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::B), Just(Layout::C)]
}

fn any_state() -> impl Strategy<Value = State> {
    prop_oneof![
        8 => proptest::sample::select(Op::ALL.to_vec()).prop_map(Op::request),
        1 => any::<u32>().prop_map(State::from_bits),
        1 => (0..0x80_u32).prop_map(State::from_bits),
    ]
}

/// A packet that is close to a legal one: a ground, damage, then the fields that decide.
fn any_packet() -> impl Strategy<Value = Box<[u8; PACKET_BYTES]>> {
    let ground = prop_oneof![Just(0_u8), Just(b'x'), any::<u8>()];
    let damage = vec((0..PACKET_BYTES, any::<u8>()), 0..32);
    let version = prop_oneof![15 => Just(VERSION), 1 => any::<u8>()];
    let size = prop_oneof![Just(None), (0..100_u64).prop_map(Some), any::<u64>().prop_map(Some)];
    (any_layout(), ground, damage, version, any_state(), size).prop_map(
        |(layout, ground, damage, version, state, size)| {
            let mut bytes = Box::new([ground; PACKET_BYTES]);
            damage.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            let mut packet = PacketMut::new(&mut bytes, layout);
            packet.set_version(version);
            packet.set_state(state);
            if let Some(size) = size {
                packet.set_data_size(size);
            }
            bytes
        },
    )
}

fn any_outcome() -> impl Strategy<Value = Result<(), (i32, String)>> {
    prop_oneof![3 => Just(Ok(())), 1 => (1..=i32::MAX, ".{0,40}").prop_map(Err)]
}

/// Which legal request a packet is to become; `None` leaves it as it is.
fn any_steering() -> impl Strategy<Value = Option<usize>> {
    prop::option::weighted(0.9, 0..3_usize)
}

/// The rule by which deployed clients read an answer, and what they then rely on; without `op`,
/// whichever request the client believes it has sent.
fn assert_readable(bytes: &[u8; PACKET_BYTES], layout: Layout, op: Option<Op>, is_ok: bool) {
    let packet = Packet::new(bytes, layout);
    assert_eq!(packet.version(), VERSION);
    let waiting = op.as_ref().map_or(&Op::ALL[..], std::slice::from_ref);
    for expected in waiting.iter().map(|op| op.reply()) {
        let state = packet.state();
        assert!(state == expected || state.intersects(expected), "{state} for {expected}");
    }
    let text = packet.error_text().expect("terminated");
    assert!(str::from_utf8(text).is_ok());
    if is_ok {
        assert_eq!(packet.rc(), 0);
        assert!(text.is_empty());
    } else {
        assert_eq!(packet.state(), State::REFUSED);
        assert!(packet.rc() < 0);
    }
}

fn holds(bytes: &[u8; PACKET_BYTES], string: &[u8]) -> bool {
    let (outer, inner) = (bytes.as_ptr_range(), string.as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end && !string.contains(&0)
}

fn assert_within(bytes: &[u8; PACKET_BYTES], request: &Request<'_>) {
    let strings = match *request {
        Request::Connect(Login { node, password, hostname, .. }) => [node, password, hostname],
        Request::Open(Info { fs, fpath, desc, .. }) => [fs, fpath, desc],
        Request::Data { .. } | Request::Close | Request::Disconnect => return,
    };
    assert!(strings.iter().all(|string| holds(bytes, string)));
}

/// Takes one packet through the session, as the daemon does, and answers it.
fn exchange(
    session: &mut ServerSession,
    bytes: &mut [u8; PACKET_BYTES],
    outcome: &Result<(), (i32, String)>,
    has_failed: &mut bool,
) {
    let before = *bytes;
    let op = match session.packet(&before) {
        Ok(request) => {
            assert_within(&before, &request);
            match request {
                Request::Connect(_) => Op::Connect,
                Request::Open(_) => Op::Open,
                Request::Data { .. } => Op::Data,
                Request::Close => Op::Close,
                Request::Disconnect => {
                    assert_eq!(session.phase(), Phase::Ended);
                    return;
                }
            }
        }
        Err(violation) => {
            assert_eq!(session.phase(), Phase::Ended);
            assert_eq!(session.reject(bytes, &violation), Next::Close);
            let layout = session.layout().unwrap_or(Layout::C);
            assert_readable(bytes, layout, None, false);
            assert_eq!(Packet::new(bytes, layout).rc(), -violation.errno());
            return;
        }
    };
    while let Phase::Payload { remaining } = session.phase() {
        session.payload(remaining.div_ceil(2));
    }
    let layout = session.layout().expect("known since the CONNECT");
    // As the daemon does it: what has failed is refused to its end.
    let outcome = match outcome {
        Err((errno, text)) => Err((*errno, text.as_str())),
        Ok(()) if *has_failed && matches!(op, Op::Data | Op::Close) => Err((28, "failed before")),
        Ok(()) => Ok(()),
    };
    *has_failed = op == Op::Data && outcome.is_err();
    let next = session.reply(bytes, outcome);
    assert_eq!(next == Next::Close, session.phase() == Phase::Ended);
    assert_readable(bytes, layout, Some(op), outcome.is_ok());

    let mut expected = before;
    if op == Op::Connect {
        PacketMut::new(&mut expected, layout).blank_password();
    }
    let union = if layout == Layout::C { 1037..6421 } else { 1040..6424 };
    assert!(bytes[union.clone()] == expected[union], "the union of a {op} is not echoed");
}

/// Makes the packet a legal one, or few conversations would get as far as a file.
fn make_legal(
    session: &ServerSession,
    bytes: &mut [u8; PACKET_BYTES],
    layout: Layout,
    pick: usize,
) {
    let op = match session.phase() {
        Phase::Greeting => Op::Connect,
        Phase::Ready => Op::Open,
        _ => [Op::Data, Op::Data, Op::Close][pick],
    };
    let mut packet = PacketMut::new(bytes, layout);
    packet.set_version(VERSION);
    packet.set_state(op.request());
    match op {
        Op::Connect => {
            packet.set_login(&Login { node: b"n", password: PASSWORD, hostname: b"h", port: 1 })
        }
        Op::Open => {
            packet.set_info(&Info { fs: b"/l", fpath: b"/l/f", desc: b"", storage_dest: 9 })
        }
        Op::Data | Op::Close | Op::Disconnect => Ok(()),
    }
    .expect("short");
}

fn signed_on(layout: Layout) -> ServerSession {
    let mut session = ServerSession::new();
    let mut bytes = [0; PACKET_BYTES];
    let mut packet = PacketMut::new(&mut bytes, layout);
    packet.set_version(VERSION);
    packet.set_state(State::CONNECT);
    session.packet(&bytes).expect("a CONNECT");
    assert_eq!(session.reply(&mut bytes, Ok(())), Next::Receive);
    session
}

proptest! {
    #[test]
    fn any_conversation_is_answered_readably(
        rounds in vec((any_packet(), any_outcome(), any_steering()), 1..24),
        layout in any_layout(),
    ) {
        let mut session = ServerSession::new();
        let mut has_failed = false;
        for (mut bytes, outcome, steer) in rounds {
            if let Some(pick) = steer {
                make_legal(&session, &mut bytes, session.layout().unwrap_or(layout), pick);
            }
            exchange(&mut session, &mut bytes, &outcome, &mut has_failed);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_in_any_phase(
        bytes in vec(any::<u8>(), PACKET_BYTES),
        layout in any_layout(),
        op in proptest::sample::select(Op::ALL.to_vec()),
        answered in 0..8_usize,
    ) {
        // The ways to every phase: of the requests, each but the last is answered.
        const WAYS: [(&[Op], bool); 8] = [
            (&[], true),
            (&[Op::Open], false),
            (&[Op::Open], true),
            (&[Op::Open, Op::Data], false),
            (&[Op::Open, Op::Data], true),
            (&[Op::Open, Op::Close], false),
            (&[Op::Open, Op::Close], true),
            (&[Op::Disconnect], false),
        ];
        let arbitrary: [u8; PACKET_BYTES] = bytes.try_into().expect("as many as asked for");
        let mut likely = arbitrary;
        let mut packet = PacketMut::new(&mut likely, layout);
        packet.set_version(VERSION);
        packet.set_state(op.request());
        for packet in [arbitrary, likely] {
            let (ops, is_answered) = WAYS[answered];
            let mut session = signed_on(layout);
            for (index, op) in ops.iter().enumerate() {
                let mut bytes = [0; PACKET_BYTES];
                let mut request = PacketMut::new(&mut bytes, layout);
                request.set_version(VERSION);
                request.set_state(op.request());
                session.packet(&bytes).expect("legal");
                if index + 1 < ops.len() || is_answered {
                    assert_eq!(session.reply(&mut bytes, Ok(())), Next::Receive);
                }
            }
            for mut session in [session, ServerSession::new()] {
                let mut bytes = packet;
                if let Err(violation) = session.packet(&packet) {
                    assert_eq!(session.reject(&mut bytes, &violation), Next::Close);
                    assert_readable(&bytes, session.layout().unwrap_or(Layout::C), None, false);
                }
            }
        }
    }

    #[test]
    fn password_of_a_broken_sign_on_never_comes_back(
        layout in any_layout(),
        damage in vec((0..1300_usize, any::<u8>()), 0..8),
        is_signed_on in any::<bool>(),
        state in any_state(),
    ) {
        let mut bytes = [0; PACKET_BYTES];
        let mut packet = PacketMut::new(&mut bytes, layout);
        packet.set_version(VERSION);
        packet.set_login(&Login { node: b"n", password: PASSWORD, hostname: b"h", port: 1 })
            .expect("short");
        // A request about a file carries no login.
        let is_about_file = matches!(Op::from_state(state), Some(Op::Open | Op::Data | Op::Close));
        packet.set_state(if is_about_file { State::CONNECT } else { state });
        damage.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        prop_assume!(!matches!(
            Op::from_state(Packet::new(&bytes, layout).state()),
            Some(Op::Open | Op::Data | Op::Close)
        ));

        let mut session = if is_signed_on { signed_on(layout) } else { ServerSession::new() };
        let before = bytes;
        match session.packet(&before) {
            Ok(Request::Disconnect) => return Ok(()),
            Ok(_) => {
                assert_eq!(session.reply(&mut bytes, Err((13, "no"))), Next::Close);
            }
            Err(violation) => {
                assert_eq!(session.reject(&mut bytes, &violation), Next::Close);
                prop_assert!(!violation.to_string().contains("hunter2"));
            }
        }
        prop_assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD));
    }

    #[test]
    fn strings_come_back_as_they_were_set(
        layout in any_layout(),
        ground in any::<u8>(),
        fs in vec(1..=u8::MAX, 0..=Field::Fs.len_max()),
        fpath in vec(1..=u8::MAX, 0..=Field::Fpath.len_max()),
        desc in vec(1..=u8::MAX, 0..=Field::Desc.len_max()),
        storage_dest in any::<i32>(),
    ) {
        let info = Info { fs: &fs, fpath: &fpath, desc: &desc, storage_dest };
        let mut bytes = [ground; PACKET_BYTES];
        PacketMut::new(&mut bytes, layout).set_info(&info).expect("within the lengths");
        prop_assert_eq!(Packet::new(&bytes, layout).info(), Ok(info));
    }

    #[test]
    fn any_sentence_arrives_as_far_as_it_fits(
        layout in any_layout(),
        sentence in "(.|\u{0}|\u{20ac}){0,1200}",
    ) {
        let mut bytes = [b'x'; PACKET_BYTES];
        PacketMut::new(&mut bytes, layout).set_error_sentence(&sentence);
        let packet = Packet::new(&bytes, layout);
        let text = str::from_utf8(packet.error_text().expect("terminated")).expect("UTF-8");
        let sentence = sentence.replace('\0', "?");
        if sentence.len() <= Field::ErrorText.len_max() {
            prop_assert_eq!(text, sentence);
        } else {
            let kept = text.strip_suffix("...").expect("marked as cut");
            prop_assert!(sentence.starts_with(kept));
            prop_assert!(text.len() > Field::ErrorText.len_max() - 4);
        }
    }
}
