//! The offsets against numbers of their own, and the edges of every string.

use super::*;
use crate::state::Op;

/// (layout, rc, error text, state, union) as measured on the deployed programs.
const MEASURED: [(Layout, usize, usize, usize, usize); 2] =
    [(Layout::C, 1, 5, 1033, 1037), (Layout::B, 4, 8, 1036, 1040)];

const STRINGS: [(Field, usize, usize); 6] = [
    (Field::Node, 0, 65),
    (Field::Password, 65, 65),
    (Field::Hostname, 130, 65),
    (Field::Fs, 0, 1025),
    (Field::Fpath, 1025, 4097),
    (Field::Desc, 5122, 256),
];

fn set_any(packet: &mut PacketMut<'_>, field: Field, string: &[u8]) -> Result<(), FieldError> {
    let login = Login { node: b"", password: b"", hostname: b"", port: 0 };
    let info = Info { fs: b"", fpath: b"", desc: b"", storage_dest: 0 };
    match field {
        Field::ErrorText => packet.set_error_text(string),
        Field::Node => packet.set_login(&Login { node: string, ..login }),
        Field::Password => packet.set_login(&Login { password: string, ..login }),
        Field::Hostname => packet.set_login(&Login { hostname: string, ..login }),
        Field::Fs => packet.set_info(&Info { fs: string, ..info }),
        Field::Fpath => packet.set_info(&Info { fpath: string, ..info }),
        Field::Desc => packet.set_info(&Info { desc: string, ..info }),
    }
}

#[test]
fn header_lies_where_it_was_measured() {
    for (layout, rc, text, state, _) in MEASURED {
        let mut bytes = [0xee; PACKET_BYTES];
        let mut packet = PacketMut::new(&mut bytes, layout);
        packet.set_version(1);
        packet.set_rc(-17);
        packet.set_error_text(b"exists").expect("short");
        packet.set_state(State::REFUSED);

        let mut expected = [0xee; PACKET_BYTES];
        expected[0] = 1;
        expected[rc..rc + 4].copy_from_slice(&[0xef, 0xff, 0xff, 0xff]);
        expected[text..text + 7].copy_from_slice(b"exists\0");
        expected[state..state + 4].copy_from_slice(&[0x60, 0, 0, 0]);
        assert!(bytes == expected, "layout {layout}");

        let packet = Packet::new(&bytes, layout);
        assert_eq!((packet.version(), packet.rc()), (1, -17));
        assert_eq!(packet.error_text(), Ok(&b"exists"[..]));
        assert_eq!(packet.state(), State::ERROR | State::REPLY);
    }
}

#[test]
fn union_lies_where_it_was_measured() {
    for (layout, _, _, _, union) in MEASURED {
        for (field, offset, array_bytes) in STRINGS {
            let range = union + offset..union + offset + array_bytes;
            assert_eq!(field.range(layout), range, "{field} in layout {layout}");
        }

        let login = Login { node: b"n", password: b"p", hostname: b"h", port: 0x0102_0304 };
        let mut bytes = [0xee; PACKET_BYTES];
        PacketMut::new(&mut bytes, layout).set_login(&login).expect("short");
        assert_eq!(bytes[union + 196..union + 201], [4, 3, 2, 1, 0xee]);
        assert_eq!(Packet::new(&bytes, layout).login(), Ok(login));

        let info = Info { fs: b"/l", fpath: b"/l/f", desc: b"", storage_dest: -2 };
        let mut bytes = [0xee; PACKET_BYTES];
        PacketMut::new(&mut bytes, layout).set_info(&info).expect("short");
        assert_eq!(bytes[union + 5380..union + 5384], [0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(Packet::new(&bytes, layout).info(), Ok(info));

        let mut bytes = [0xee; PACKET_BYTES];
        PacketMut::new(&mut bytes, layout).set_data_size(0x0102_0304_0506_0708);
        assert_eq!(bytes[union..union + 9], [8, 7, 6, 5, 4, 3, 2, 1, 0xee]);
        assert_eq!(Packet::new(&bytes, layout).data_size(), 0x0102_0304_0506_0708);
    }
}

#[test]
fn layout_shows_in_the_first_packet_only_by_its_connect() {
    for layout in [Layout::B, Layout::C] {
        for op in Op::ALL {
            let mut bytes = [0; PACKET_BYTES];
            PacketMut::new(&mut bytes, layout).set_state(op.request());
            let expected = (op == Op::Connect).then_some(layout);
            assert_eq!(Layout::detect(&bytes), expected, "{op} in layout {layout}");
        }
    }
    assert_eq!(Layout::detect(&[0; PACKET_BYTES]), None);
    assert_eq!(Layout::detect(&[1; PACKET_BYTES]), None);
}

#[test]
fn string_fills_its_field_and_not_one_byte_more() {
    for layout in [Layout::B, Layout::C] {
        for field in Field::ALL {
            let mut bytes = [0xee; PACKET_BYTES];
            let mut packet = PacketMut::new(&mut bytes, layout);
            let longest = vec![b'x'; field.len_max()];
            set_any(&mut packet, field, &longest).expect("as long as the field");
            assert_eq!(packet.as_packet().string(field), Ok(&longest[..]));

            let before = bytes;
            let mut packet = PacketMut::new(&mut bytes, layout);
            let longer = vec![b'x'; field.len_max() + 1];
            let too_long = FieldError::TooLong { field, len: longer.len() };
            assert_eq!(set_any(&mut packet, field, &longer), Err(too_long));
            let nul = FieldError::Nul { field, at: 1 };
            assert_eq!(set_any(&mut packet, field, b"x\0y"), Err(nul));
            assert!(bytes == before, "a refused {field} has changed the packet");
        }
    }
}

#[test]
fn nul_of_the_next_field_ends_no_string() {
    for layout in [Layout::B, Layout::C] {
        for field in Field::ALL {
            let mut bytes = [0; PACKET_BYTES];
            bytes[field.range(layout)].fill(b'x');
            let packet = Packet::new(&bytes, layout);
            assert_eq!(packet.string(field), Err(Unterminated(field)));
            let whole = match field {
                Field::ErrorText => packet.error_text().map(|_| ()),
                Field::Node | Field::Password | Field::Hostname => packet.login().map(|_| ()),
                Field::Fs | Field::Fpath | Field::Desc => packet.info().map(|_| ()),
            };
            assert_eq!(whole, Err(Unterminated(field)), "layout {layout}");
        }
    }
}

#[test]
fn long_sentence_is_cut_visibly_between_characters() {
    for layout in [Layout::B, Layout::C] {
        let sent = |sentence: &str| {
            let mut bytes = [0xee; PACKET_BYTES];
            let mut packet = PacketMut::new(&mut bytes, layout);
            packet.set_error_sentence(sentence);
            let text = packet.as_packet().error_text().expect("terminated").to_vec();
            assert!(bytes[Field::ErrorText.range(layout).end..].iter().all(|&byte| byte == 0xee));
            String::from_utf8(text).expect("cut between characters")
        };
        assert_eq!(sent(""), "");
        assert_eq!(sent("a\0b"), "a?b");
        assert_eq!(sent(&"x".repeat(1024)), "x".repeat(1024));
        assert_eq!(sent(&"x".repeat(1025)), "x".repeat(1021) + "...");
        // Three bytes a character: 340 of them are 1020 bytes, 341 are 1023.
        assert_eq!(sent(&"\u{20ac}".repeat(400)), "\u{20ac}".repeat(340) + "...");
    }
}

#[test]
fn no_debug_output_shows_the_password() {
    let login = Login { node: b"polaris", password: b"hunter2", hostname: b"h", port: 7625 };
    let mut bytes = [0; PACKET_BYTES];
    let mut packet = PacketMut::new(&mut bytes, Layout::C);
    packet.set_login(&login).expect("short");
    let shown = format!("{login:?} {packet:?} {:?}", packet.as_packet());
    assert!(shown.contains("polaris") && !shown.contains("hunter2"), "{shown}");

    packet.blank_password();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}

#[test]
fn text_that_is_not_utf8_names_the_field() {
    assert_eq!(Field::Fpath.utf8(b"/data"), Ok("/data"));
    let error = Field::Fpath.utf8(b"/d\xff").expect_err("0xff is in no UTF-8");
    assert_eq!(error, NotUtf8 { field: Field::Fpath, valid_up_to: 2 });
    assert_eq!(error.to_string(), "the fpath field is not UTF-8 from byte 2 on");
}
