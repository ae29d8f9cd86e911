//! The structs that callers allocate, as `fsq/fsqapi.h` declares them.
//!
//! Invariant: sizes, alignments and offsets are those of every released libfsqapi on x86-64; the
//! assertions at the end stop the build otherwise. The packet is kept as bytes and read and
//! written through [`fsq_wire`]'s layout C, which is the same thing in little-endian memory.

use std::ffi::{c_char, c_int};
use std::mem::{align_of, offset_of, size_of};

use fsq_wire::{Layout, PACKET_BYTES, Packet, PacketMut};

/// `struct fsq_login_t`
#[repr(C)]
pub struct Login {
    /// Name of the node.
    pub node: [c_char; 65],
    /// Its password.
    pub password: [c_char; 65],
    /// The server.
    pub hostname: [c_char; 65],
    /// The server's port.
    pub port: c_int,
}

/// `struct fsq_packet_t`
#[repr(C, align(4))]
pub struct RawPacket {
    /// The packet as it goes over the wire.
    pub bytes: [u8; PACKET_BYTES],
}

impl RawPacket {
    /// To read.
    #[must_use]
    pub const fn packet(&self) -> Packet<'_> {
        Packet::new(&self.bytes, Layout::C)
    }

    /// To write.
    pub const fn packet_mut(&mut self) -> PacketMut<'_> {
        PacketMut::new(&mut self.bytes, Layout::C)
    }
}

/// `struct fsq_session_t`
#[repr(C)]
pub struct Session {
    /// The last packet, and the reason of the last failure.
    pub packet: RawPacket,
    /// The socket; -1 while there is no connection.
    pub fd: c_int,
}

/// `struct kv`
#[repr(C)]
pub struct Kv {
    /// The first word of a line.
    pub key: [c_char; 65],
    /// The second.
    pub val: [c_char; 65],
}

/// `struct kv_opt`
#[repr(C)]
pub struct KvOpt {
    /// How many.
    pub n: c_int,
    /// From malloc; NULL if there are none.
    pub kv: *mut Kv,
}

/// The fields of `struct fsq_packet_t` as C sees them, only to check them against layout C.
#[repr(C, packed)]
struct PacketFields {
    ver: u8,
    error: ErrorFields,
    state: u32,
    body: BodyFields,
}

#[repr(C)]
struct ErrorFields {
    rc: c_int,
    text: [c_char; 1025],
}

#[repr(C)]
union BodyFields {
    login: std::mem::ManuallyDrop<Login>,
    info: std::mem::ManuallyDrop<InfoFields>,
    data: u64,
}

#[repr(C)]
struct InfoFields {
    fs: [c_char; 1025],
    fpath: [c_char; 4097],
    desc: [c_char; 256],
    dest: c_int,
}

const _: () = {
    assert!(size_of::<Login>() == 200 && align_of::<Login>() == 4);
    assert!(offset_of!(Login, node) == 0 && offset_of!(Login, password) == 65);
    assert!(offset_of!(Login, hostname) == 130 && offset_of!(Login, port) == 196);

    assert!(size_of::<InfoFields>() == 5384 && align_of::<InfoFields>() == 4);
    assert!(offset_of!(InfoFields, fs) == 0 && offset_of!(InfoFields, fpath) == 1025);
    assert!(offset_of!(InfoFields, desc) == 5122 && offset_of!(InfoFields, dest) == 5380);

    assert!(size_of::<ErrorFields>() == 1032 && align_of::<ErrorFields>() == 4);
    assert!(offset_of!(ErrorFields, rc) == 0 && offset_of!(ErrorFields, text) == 4);

    assert!(offset_of!(PacketFields, ver) == 0 && offset_of!(PacketFields, error) == 1);
    assert!(offset_of!(PacketFields, state) == 1033 && offset_of!(PacketFields, body) == 1037);
    assert!(size_of::<PacketFields>().next_multiple_of(4) == size_of::<RawPacket>());
    assert!(size_of::<RawPacket>() == 6424 && align_of::<RawPacket>() == 4);

    assert!(size_of::<Session>() == 6428 && align_of::<Session>() == 4);
    assert!(offset_of!(Session, packet) == 0 && offset_of!(Session, fd) == 6424);
};

#[cfg(test)]
mod tests {
    use fsq_wire::{Info, State};

    use super::*;

    /// C reads by its fields what Rust writes by layout C.
    #[test]
    fn the_fields_lie_where_layout_c_has_them() {
        let mut raw = RawPacket { bytes: [0; PACKET_BYTES] };
        let mut packet = raw.packet_mut();
        packet.set_version(1);
        packet.set_rc(-17);
        packet.set_error_text(b"text").unwrap();
        packet.set_state(State::REFUSED);
        let info = Info { fs: b"/a", fpath: b"/a/b", desc: b"c", storage_dest: 3 };
        packet.set_info(&info).unwrap();
        // SAFETY: both are plain bytes, and the fields are no longer than the packet.
        let fields = unsafe { std::ptr::read_unaligned((&raw const raw).cast::<PacketFields>()) };
        let (state, error) = (fields.state, fields.error);
        assert_eq!((fields.ver, state, error.rc), (1, 0x60, -17));
        assert_eq!(error.text[..5], b"text\0".map(|byte| byte as c_char));
        // SAFETY: every byte pattern is an `InfoFields`.
        let info = unsafe { std::mem::ManuallyDrop::into_inner(fields.body.info) };
        assert_eq!((info.fpath[3] as u8, info.desc[0] as u8, info.dest), (b'b', b'c', 3));
    }
}
