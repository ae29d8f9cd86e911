//! Where the fields of a packet lie, in both layouts that call themselves version 1.
//!
//! Invariant: every field of every layout lies within [`PACKET_BYTES`]; the constants below are
//! checked when the crate is compiled.

use std::fmt;
use std::ops::Range;

use crate::packet::PACKET_BYTES;
use crate::state::State;

/// Offset of the version byte; the same in both layouts, so that it can be read before the layout
/// is known.
pub(crate) const VERSION_OFFSET: usize = 0;

/// `login.port` and `info.storage_dest`, counted from the start of the union.
pub(crate) const LOGIN_PORT_OFFSET: usize = 196;
pub(crate) const INFO_STORAGE_DEST_OFFSET: usize = 5380;
/// `data.size`, counted from the start of the union.
pub(crate) const DATA_SIZE_OFFSET: usize = 0;
/// The longest member of the union is the info of an OPEN.
const UNION_BYTES: usize = 5384;

/// How a peer packs the fields. Settled by the first packet, for the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Release 0.9.0, still in static installs: every field naturally aligned.
    B,
    /// Since 0.9.1: no padding behind the version byte.
    C,
}

impl Layout {
    /// The layout of a connection's first packet: the one whose state field reads CONNECT.
    ///
    /// `None` if neither does, so this is no FSQ client. Never ambiguous: where C keeps the upper
    /// bytes of its 1, which are 0, B would need the 1.
    #[must_use]
    pub fn detect(first: &[u8; PACKET_BYTES]) -> Option<Self> {
        let connect = State::CONNECT.bits().to_le_bytes();
        [Self::C, Self::B].into_iter().find(|layout| {
            let state = layout.state_offset();
            first[state..state + connect.len()] == connect
        })
    }

    /// Offset of `error.rc`, bytes.
    pub(crate) const fn rc_offset(self) -> usize {
        match self {
            Self::B => 4,
            Self::C => 1,
        }
    }

    /// Offset of `error.strerror`, bytes.
    const fn error_text_offset(self) -> usize {
        self.rc_offset() + 4
    }

    /// Offset of `state`, bytes.
    pub(crate) const fn state_offset(self) -> usize {
        match self {
            Self::B => 1036,
            Self::C => 1033,
        }
    }

    /// Offset of the union, bytes.
    pub(crate) const fn union_offset(self) -> usize {
        self.state_offset() + 4
    }

    /// The bytes of the union.
    pub(crate) const fn union_range(self) -> Range<usize> {
        self.union_offset()..self.union_offset() + UNION_BYTES
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::B => "B",
            Self::C => "C",
        })
    }
}

/// A string field of a packet: an array that holds the bytes and at least one NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `error.strerror`
    ErrorText,
    /// `login.node`
    Node,
    /// `login.password`
    Password,
    /// `login.hostname`
    Hostname,
    /// `info.fs`
    Fs,
    /// `info.fpath`
    Fpath,
    /// `info.desc`
    Desc,
}

impl Field {
    /// Every string field.
    pub const ALL: [Self; 7] = [
        Self::ErrorText,
        Self::Node,
        Self::Password,
        Self::Hostname,
        Self::Fs,
        Self::Fpath,
        Self::Desc,
    ];

    /// Length of the array, bytes, the NUL included.
    #[must_use]
    pub const fn array_bytes(self) -> usize {
        match self {
            Self::ErrorText | Self::Fs => 1025,
            Self::Node | Self::Password | Self::Hostname => 65,
            Self::Fpath => 4097,
            Self::Desc => 256,
        }
    }

    /// Longest string it takes, bytes, the NUL not counted.
    #[must_use]
    pub const fn len_max(self) -> usize {
        self.array_bytes() - 1
    }

    /// The bytes of the array within a packet of this layout.
    pub(crate) const fn range(self, layout: Layout) -> Range<usize> {
        let start = match self {
            Self::ErrorText => layout.error_text_offset(),
            Self::Node | Self::Fs => layout.union_offset(),
            Self::Password => layout.union_offset() + 65,
            Self::Hostname => layout.union_offset() + 130,
            Self::Fpath => layout.union_offset() + 1025,
            Self::Desc => layout.union_offset() + 5122,
        };
        start..start + self.array_bytes()
    }

    /// Its name in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ErrorText => "strerror",
            Self::Node => "node",
            Self::Password => "password",
            Self::Hostname => "hostname",
            Self::Fs => "fs",
            Self::Fpath => "fpath",
            Self::Desc => "desc",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const _: () = {
    let layouts = [Layout::B, Layout::C];
    let mut i = 0;
    while i < layouts.len() {
        let layout = layouts[i];
        assert!(layout.union_range().end <= PACKET_BYTES);
        assert!(Field::ErrorText.range(layout).end <= layout.state_offset());
        let mut j = 1;
        while j < Field::ALL.len() {
            assert!(Field::ALL[j].range(layout).end <= layout.union_range().end);
            j += 1;
        }
        i += 1;
    }
    assert!(INFO_STORAGE_DEST_OFFSET + 4 == UNION_BYTES);
    assert!(LOGIN_PORT_OFFSET + 4 <= UNION_BYTES && DATA_SIZE_OFFSET + 8 <= UNION_BYTES);
};
