//! The whole transition table as text, and the answers' contents.

use super::*;
use crate::layout::Field;

const NODE: &str = "polaris";
const PASSWORD: &str = "hunter2";
const NO: Result<(), (i32, &str)> = Err((28, "the disk is full"));

fn blank() -> [u8; PACKET_BYTES] {
    [0; PACKET_BYTES]
}

/// A request as a client sends it, with garbage where clients have some.
fn request(layout: Layout, op: Op, size: u64) -> [u8; PACKET_BYTES] {
    let mut bytes = [0xee; PACKET_BYTES];
    let mut packet = PacketMut::new(&mut bytes, layout);
    packet.set_version(VERSION);
    packet.set_state(op.request());
    packet.set_rc(-5);
    let (node, password) = (NODE.as_bytes(), PASSWORD.as_bytes());
    match op {
        Op::Connect => packet.set_login(&Login { node, password, hostname: b"h", port: 7625 }),
        Op::Open => {
            packet.set_info(&Info { fs: b"/l", fpath: b"/l/f", desc: b"", storage_dest: 1 })
        }
        Op::Data | Op::Close | Op::Disconnect => {
            packet.set_data_size(size);
            Ok(())
        }
    }
    .expect("short strings");
    bytes
}

/// What happens to a session, in the tests' shorthand.
#[derive(Clone, Copy)]
enum Event {
    Ask(Op, u64),
    Answer(Result<(), (i32, &'static str)>),
    Arrive(u64),
}
use Event::{Answer, Arrive, Ask};

const CONNECT: Event = Ask(Op::Connect, 0);
const OPEN: Event = Ask(Op::Open, 0);
const DATA_5: Event = Ask(Op::Data, 5);
const CLOSE: Event = Ask(Op::Close, 0);
const DISCONNECT: Event = Ask(Op::Disconnect, 0);
const YES: Event = Answer(Ok(()));
const REFUSE: Event = Answer(NO);

/// Applies the event; the errno if it was a violation.
fn apply(session: &mut ServerSession, event: Event) -> Result<(), i32> {
    match event {
        Ask(op, size) => {
            let layout = session.layout().unwrap_or(Layout::C);
            session.packet(&request(layout, op, size)).map(drop).map_err(|error| error.errno())
        }
        Answer(outcome) => {
            let next = session.reply(&mut blank(), outcome);
            assert_eq!(next == Next::Close, session.phase() == Phase::Ended);
            Ok(())
        }
        Arrive(bytes) => {
            session.payload(bytes);
            Ok(())
        }
    }
}

fn after(events: &[Event]) -> ServerSession {
    let mut session = ServerSession::new();
    for &event in events {
        apply(&mut session, event).expect("a legal way there");
    }
    session
}

/// The phase's name, with `!` behind it if the file has failed.
fn name(session: &ServerSession) -> String {
    let phase = match session.phase() {
        Phase::Payload { .. } => "Payload".to_owned(),
        phase => format!("{phase:?}"),
    };
    if session.has_failed { phase + "!" } else { phase }
}

const WAYS: [&[Event]; 13] = [
    &[],
    &[CONNECT],
    &[CONNECT, YES],
    &[CONNECT, YES, OPEN],
    &[CONNECT, YES, OPEN, YES],
    &[CONNECT, YES, OPEN, YES, DATA_5],
    &[CONNECT, YES, OPEN, YES, DATA_5, Arrive(5)],
    &[CONNECT, YES, OPEN, YES, CLOSE],
    &[CONNECT, YES, OPEN, YES, DATA_5, Arrive(5), REFUSE],
    &[CONNECT, YES, OPEN, YES, DATA_5, Arrive(5), REFUSE, DATA_5],
    &[CONNECT, YES, OPEN, YES, DATA_5, Arrive(5), REFUSE, DATA_5, Arrive(5)],
    &[CONNECT, YES, OPEN, YES, DATA_5, Arrive(5), REFUSE, CLOSE],
    &[CONNECT, YES, DISCONNECT],
];

const COLUMNS: [(&str, Event); 11] = [
    ("CONNECT", CONNECT),
    ("OPEN", OPEN),
    ("DATA 0", Ask(Op::Data, 0)),
    ("DATA 5", DATA_5),
    ("DATA 2^63", Ask(Op::Data, 1 << 63)),
    ("CLOSE", CLOSE),
    ("DISCONNECT", DISCONNECT),
    ("4 arrive", Arrive(4)),
    ("5 arrive", Arrive(5)),
    ("yes", YES),
    ("no", REFUSE),
];

/// One cell: where the event leads from there, the errno of a violation, or `.` where the event
/// cannot be (the caller's bug).
fn cell(way: &[Event], event: Event) -> String {
    let mut session = after(way);
    let phase = session.phase();
    let is_possible = match event {
        Ask(..) => true,
        Arrive(_) => matches!(phase, Phase::Payload { .. }),
        Answer(outcome) => answers(phase).is_some() && !(session.has_failed && outcome.is_ok()),
    };
    if !is_possible {
        return ".".to_owned();
    }
    match apply(&mut session, event) {
        Ok(()) => name(&session),
        Err(errno) => {
            assert_eq!(session.phase(), Phase::Ended, "a violation ends the session");
            format!("-{errno}")
        }
    }
}

fn table() -> String {
    let row = |cells: Vec<String>| {
        let line: String = cells.iter().map(|cell| format!("{cell:<16}")).collect();
        line.trim_end().to_owned() + "\n"
    };
    let mut text = row(std::iter::once("phase")
        .chain(COLUMNS.map(|column| column.0))
        .map(str::to_owned)
        .collect());
    for way in WAYS {
        let cells = COLUMNS.iter().map(|&(_, event)| cell(way, event));
        text += &row(std::iter::once(name(&after(way))).chain(cells).collect());
    }
    text
}

#[test]
fn transitions_are_those_of_the_table() {
    let recorded: String = include_str!("transitions.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.to_owned() + "\n")
        .collect();
    let actual = table();
    assert!(recorded == actual, "transitions.txt differs from what the session does:\n{actual}");
}

#[test]
fn payload_arrives_in_any_pieces() {
    let mut session = after(&[CONNECT, YES, OPEN, YES, DATA_5]);
    for remaining in (1..5).rev() {
        session.payload(0);
        session.payload(1);
        assert_eq!(session.phase(), Phase::Payload { remaining });
    }
    session.payload(1);
    assert_eq!(session.phase(), Phase::Acknowledging);
    session.payload(0);
    assert_eq!(session.phase(), Phase::Acknowledging);
}

#[test]
#[should_panic(expected = "6 bytes of payload where 5 were expected")]
fn payload_beyond_its_end_is_the_callers_bug() {
    after(&[CONNECT, YES, OPEN, YES, DATA_5]).payload(6);
}

#[test]
#[should_panic(expected = "no request to answer in phase Ready")]
fn answer_without_request_is_the_callers_bug() {
    let _ = after(&[CONNECT, YES]).reply(&mut blank(), Ok(()));
}

#[test]
#[should_panic(expected = "positive errno, not -13")]
fn refusal_that_would_read_as_success_is_the_callers_bug() {
    let _ = after(&[CONNECT]).reply(&mut blank(), Err((-13, "no")));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a file that has failed is being acknowledged")]
fn acknowledging_a_failed_file_is_the_callers_bug() {
    let mut session = after(WAYS[11]);
    let _ = session.reply(&mut request(Layout::C, Op::Close, 0), Ok(()));
}

#[test]
#[cfg(not(debug_assertions))]
fn failed_file_is_refused_even_if_the_caller_forgets() {
    let mut session = after(WAYS[11]);
    let mut bytes = request(Layout::C, Op::Close, 0);
    assert_eq!(session.reply(&mut bytes, Ok(())), Next::Receive);
    let packet = Packet::new(&bytes, Layout::C);
    assert_eq!((packet.state(), packet.rc()), (State::REFUSED, -EIO));
}

#[test]
fn reply_changes_the_header_and_nothing_else() {
    let ways = [(1, Op::Connect), (3, Op::Open), (6, Op::Data), (7, Op::Close)];
    for (way, op) in ways {
        for outcome in [Ok(()), NO] {
            let mut session = after(WAYS[way]);
            let mut bytes = request(Layout::C, op, 5);
            let mut expected = PacketMut::new(&mut bytes, Layout::C);
            let (state, rc, text): (State, i32, &[u8]) = match outcome {
                Ok(()) => (op.reply(), 0, b""),
                Err((errno, text)) => (State::REFUSED, -errno, text.as_bytes()),
            };
            expected.set_state(state);
            expected.set_rc(rc);
            expected.set_error_text(text).expect("short");
            if op == Op::Connect {
                expected.blank_password();
            }
            let expected = bytes;

            let mut bytes = request(Layout::C, op, 5);
            let _ = session.reply(&mut bytes, outcome);
            assert!(bytes == expected, "reply to {op} with {outcome:?}");
        }
    }
}

/// Answers a packet that ends the session, and gives the violation's text back.
fn rejected(session: &mut ServerSession, bytes: &mut [u8; PACKET_BYTES]) -> String {
    let violation = session.packet(bytes).expect_err("a violation");
    assert_eq!(session.reject(bytes, &violation), Next::Close);
    assert_eq!(session.phase(), Phase::Ended);
    let layout = session.layout().unwrap_or(Layout::C);
    let packet = Packet::new(bytes, layout);
    assert_eq!((packet.version(), packet.state()), (VERSION, State::REFUSED));
    assert_eq!(packet.rc(), -violation.errno());
    assert_eq!(packet.error_text(), Ok(violation.to_string().as_bytes()));
    assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()));
    violation.to_string()
}

#[test]
fn other_version_is_refused_in_the_clients_layout() {
    for layout in [Layout::B, Layout::C] {
        let mut bytes = request(layout, Op::Connect, 0);
        bytes[0] = 2;
        let mut session = ServerSession::new();
        let text = rejected(&mut session, &mut bytes);
        assert_eq!(session.layout(), Some(layout));
        assert_eq!(text, "this server speaks FSQ protocol version 1, the packet says version 2");
        assert_eq!(Packet::new(&bytes, layout).rc(), -92);
    }
}

#[test]
fn garbage_instead_of_a_connect_is_refused_in_layout_c() {
    let mut bytes = request(Layout::B, Op::Connect, 0);
    PacketMut::new(&mut bytes, Layout::B).set_state(State::CONNECT | State::ERROR);
    let text = rejected(&mut ServerSession::new(), &mut bytes);
    assert_eq!(text, "the first packet of a connection must be a CONNECT, this is none");
    assert_eq!(Packet::new(&bytes, Layout::C).rc(), -71);
}

#[test]
fn second_connect_echoes_no_password() {
    let mut bytes = request(Layout::C, Op::Connect, 0);
    let text = rejected(&mut after(&[CONNECT, YES]), &mut bytes);
    let clause = "the session is signed on and no file is open";
    assert_eq!(text, format!("CONNECT is not legal now: {clause}"));
}

#[test]
fn packet_out_of_place_about_a_file_still_names_it() {
    let mut bytes = request(Layout::C, Op::Open, 0);
    let text = rejected(&mut after(&[CONNECT, YES, OPEN, YES]), &mut bytes);
    assert_eq!(text, "OPEN is not legal now: a file is open");
    let info = Packet::new(&bytes, Layout::C).info().expect("as sent");
    assert_eq!(info.fpath, b"/l/f");
}

#[test]
fn state_must_be_exactly_one_request() {
    let states = [
        State::from_bits(0),
        State::OPEN | State::DATA,
        State::OPEN | State::REPLY,
        State::OPEN | State::ERROR,
        State::REFUSED,
        State::from_bits(0x80),
        State::from_bits(0x8000_0002),
    ];
    for state in states {
        let mut bytes = request(Layout::C, Op::Open, 0);
        PacketMut::new(&mut bytes, Layout::C).set_state(state);
        let violation = after(&[CONNECT, YES]).packet(&bytes).expect_err("no request");
        assert_eq!(violation, Violation::NotARequest { state });
    }
}

#[test]
fn string_without_end_is_named() {
    let fields = [
        (Op::Connect, Field::Node, 0),
        (Op::Connect, Field::Password, 0),
        (Op::Connect, Field::Hostname, 0),
        (Op::Open, Field::Fs, 2),
        (Op::Open, Field::Fpath, 2),
        (Op::Open, Field::Desc, 2),
    ];
    for (op, field, way) in fields {
        let mut bytes = request(Layout::C, op, 0);
        bytes[field.range(Layout::C)].fill(b'x');
        let text = rejected(&mut after(WAYS[way]), &mut bytes);
        let len = field.array_bytes();
        assert_eq!(
            text,
            format!("broken {op} packet: the {field} field has no NUL within its {len} bytes")
        );
    }
}

#[test]
fn payload_as_long_as_a_file_can_be_is_the_longest() {
    let size = i64::MAX as u64;
    let mut session = after(&[CONNECT, YES, OPEN, YES, Ask(Op::Data, size)]);
    session.payload(size - 1);
    assert_eq!(session.phase(), Phase::Payload { remaining: 1 });

    let mut bytes = request(Layout::C, Op::Data, size + 1);
    let text = rejected(&mut after(&[CONNECT, YES, OPEN, YES]), &mut bytes);
    assert_eq!(
        text,
        "a DATA of 9223372036854775808 bytes is longer than any file can be \
         (9223372036854775807 bytes)"
    );
    assert_eq!(Packet::new(&bytes, Layout::C).rc(), -27);
}
