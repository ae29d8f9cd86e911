//! The numbers with a meaning: the state field of a packet, and the storage destination.
//!
//! Invariant: any number off the wire can be held and shown; only the named ones convert to the
//! enums [`Op`] and [`StorageDest`].

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// The state field of a packet, a bit mask: what is asked, or what is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct State(u32);

impl State {
    /// Sign on.
    pub const CONNECT: Self = Self(0x01);
    /// Begin a file.
    pub const OPEN: Self = Self(0x02);
    /// A part of the file follows.
    pub const DATA: Self = Self(0x04);
    /// The file is complete.
    pub const CLOSE: Self = Self(0x08);
    /// Sign off.
    pub const DISCONNECT: Self = Self(0x10);
    /// Set in every answer.
    pub const REPLY: Self = Self(0x20);
    /// The answer is "no".
    pub const ERROR: Self = Self(0x40);
    /// The answer to a request that failed.
    pub const REFUSED: Self = Self(Self::ERROR.0 | Self::REPLY.0);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::CONNECT, "CONNECT"),
        (Self::OPEN, "OPEN"),
        (Self::DATA, "DATA"),
        (Self::CLOSE, "CLOSE"),
        (Self::DISCONNECT, "DISCONNECT"),
        (Self::REPLY, "REPLY"),
        (Self::ERROR, "ERROR"),
    ];

    /// The state with these bits, known or not.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether the two have a bit in common.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether a deployed client that waits for `expected` takes this state for its answer. Since
    /// `expected` contains REPLY, so does every refusal.
    #[must_use]
    pub const fn answers(self, expected: Self) -> bool {
        self.0 == expected.0 || self.intersects(expected)
    }
}

impl BitOr for State {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `OPEN|REPLY`; bits without a name follow in hexadecimal.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (bit, name) in Self::NAMES {
            if self.intersects(bit) {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !bit.0;
            }
        }
        if rest != 0 || self.0 == 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({self})")
    }
}

/// What a client asks for: a state with exactly one request bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Sign on.
    Connect,
    /// Begin a file.
    Open,
    /// A part of the file follows.
    Data,
    /// The file is complete.
    Close,
    /// Sign off; never answered.
    Disconnect,
}

impl Op {
    /// Every request.
    pub const ALL: [Self; 5] =
        [Self::Connect, Self::Open, Self::Data, Self::Close, Self::Disconnect];

    /// The request that a state names; `None` for an answer, a mixture or an unknown bit.
    #[must_use]
    pub const fn from_state(state: State) -> Option<Self> {
        match state {
            State::CONNECT => Some(Self::Connect),
            State::OPEN => Some(Self::Open),
            State::DATA => Some(Self::Data),
            State::CLOSE => Some(Self::Close),
            State::DISCONNECT => Some(Self::Disconnect),
            _ => None,
        }
    }

    /// The state of the request packet.
    #[must_use]
    pub const fn request(self) -> State {
        match self {
            Self::Connect => State::CONNECT,
            Self::Open => State::OPEN,
            Self::Data => State::DATA,
            Self::Close => State::CLOSE,
            Self::Disconnect => State::DISCONNECT,
        }
    }

    /// The state of the packet that answers "yes".
    #[must_use]
    pub const fn reply(self) -> State {
        State(self.request().0 | State::REPLY.0)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request().fmt(f)
    }
}

/// Where a file is to end up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum StorageDest {
    /// Received and dropped.
    Null = 0,
    /// Kept on the staging file system.
    Local = 1,
    /// Copied to Lustre, the staging copy freed.
    Lustre = 2,
    /// Archived on TSM only.
    Tsm = 3,
    /// Copied to Lustre and archived.
    LustreTsm = 4,
}

impl StorageDest {
    /// Every destination, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Null, Self::Local, Self::Lustre, Self::Tsm, Self::LustreTsm];

    /// The word that command lines use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Local => "local",
            Self::Lustre => "lustre",
            Self::Tsm => "tsm",
            Self::LustreTsm => "lustre_tsm",
        }
    }
}

/// Not a storage destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a storage destination; use null (0), local (1), lustre (2), tsm (3) or lustre_tsm (4)"
)]
pub struct UnknownStorageDest;

impl From<StorageDest> for i32 {
    fn from(dest: StorageDest) -> Self {
        dest as Self
    }
}

impl TryFrom<i32> for StorageDest {
    type Error = UnknownStorageDest;

    fn try_from(number: i32) -> Result<Self, Self::Error> {
        Self::ALL.into_iter().find(|&dest| i32::from(dest) == number).ok_or(UnknownStorageDest)
    }
}

impl FromStr for StorageDest {
    type Err = UnknownStorageDest;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|dest| dest.name() == word).ok_or(UnknownStorageDest)
    }
}

impl fmt::Display for StorageDest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_protocols_numbers() {
        let requests = Op::ALL.map(|op| (op.request().bits(), op.reply().bits()));
        assert_eq!(
            requests,
            [(0x01, 0x21), (0x02, 0x22), (0x04, 0x24), (0x08, 0x28), (0x10, 0x30)]
        );
        assert_eq!(State::REFUSED.bits(), 0x60);
    }

    #[test]
    fn only_one_bit_alone_is_a_request() {
        for bits in 0..=0x1ff {
            let op = Op::from_state(State::from_bits(bits));
            assert_eq!(op.is_some(), bits.is_power_of_two() && bits <= 0x10, "{bits:#x}");
            assert!(op.is_none_or(|op| op.request().bits() == bits));
        }
    }

    #[test]
    fn client_takes_every_reply_but_no_request() {
        for expected in Op::ALL.map(Op::reply) {
            assert!(expected.answers(expected));
            assert!(State::REFUSED.answers(expected));
            assert!(!State::from_bits(0).answers(expected));
        }
        assert!(!State::OPEN.answers(Op::Connect.reply()));
    }

    #[test]
    fn state_shows_names_and_unknown_bits() {
        assert_eq!(State::REFUSED.to_string(), "REPLY|ERROR");
        assert_eq!(State::from_bits(0x102).to_string(), "OPEN|0x100");
        assert_eq!(State::from_bits(0).to_string(), "0x0");
        assert_eq!(format!("{:?}", Op::Data.reply()), "State(DATA|REPLY)");
    }

    #[test]
    fn destinations_have_numbers_and_words() {
        let words = ["null", "local", "lustre", "tsm", "lustre_tsm"];
        for (number, word) in (0..).zip(words) {
            let dest = StorageDest::try_from(number).expect("a known number");
            assert_eq!(i32::from(dest), number);
            assert_eq!(dest.to_string(), word);
            assert_eq!(word.parse(), Ok(dest));
        }
        for number in [-1, 5, i32::MIN, i32::MAX] {
            assert_eq!(StorageDest::try_from(number), Err(UnknownStorageDest));
        }
        for word in ["", "Local", "lustre-tsm", "1"] {
            assert_eq!(word.parse::<StorageDest>(), Err(UnknownStorageDest));
        }
    }
}
