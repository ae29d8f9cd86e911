//! [`Token`]: what an operation's completion is recognised by.

/// Identifies an operation: what it was for (8 bits), whose it was (24 bits of slot), and which
/// life of that slot (32 bits of generation), packed into the kernel's `user_data`.
///
/// Slots are used again; the generation keeps a late completion from hitting the slot's new owner.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

/// Slots a token can name.
pub const SLOTS_MAX: u32 = 1 << 24;

impl Token {
    /// Packs the three parts.
    ///
    /// # Panics
    /// If `slot` is not below [`SLOTS_MAX`].
    #[must_use]
    pub const fn new(kind: u8, slot: u32, generation: u32) -> Self {
        assert!(slot < SLOTS_MAX, "slots are bounded by the session limit");
        Self((kind as u64) << 56 | (slot as u64) << 32 | generation as u64)
    }

    /// From the kernel's `user_data`.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// As the kernel's `user_data`.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// What the operation was for; the meaning is the owner's.
    #[must_use]
    pub const fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// Whose it was.
    #[must_use]
    pub const fn slot(self) -> u32 {
        (self.0 >> 32) as u32 & (SLOTS_MAX - 1)
    }

    /// In which life of the slot.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}.{}", self.kind(), self.slot(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_packing() {
        for kind in [0, 1, 0x7f, 0xff] {
            for slot in [0, 1, 4095, SLOTS_MAX - 1] {
                for generation in [0, 1, u32::MAX] {
                    let token = Token::from_raw(Token::new(kind, slot, generation).raw());
                    assert_eq!(
                        (token.kind(), token.slot(), token.generation()),
                        (kind, slot, generation)
                    );
                }
            }
        }
    }
}
