//! Return codes: name, meaning and what to do about each.
//!
//! Owns the table; invariant: [`ReturnCode::class`] is total, a code that nobody has listed is
//! answered with a new session, the most thorough reset there is.

mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

/// What a return code asks of the caller. The caller bounds the number of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Not an error: success, more to come, the end, nothing found.
    Flow,
    /// The session is good; try again in a new transaction.
    Transaction,
    /// Sign off, and try again with a new session.
    Session,
    /// Try again when fewer sessions are at work.
    FewerSessions,
    /// No repetition helps: the request or the configuration is wrong.
    Permanent,
}

/// A return code or, from the end of a transaction, a reason code; they share one numbering.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReturnCode(pub i16);

impl ReturnCode {
    /// Success.
    pub const OK: Self = Self(0);
    /// Nothing matches.
    pub const NO_MATCH: Self = Self(2);
    /// Answer to the client's own vote to abort.
    pub const ABORTED_BY_CLIENT: Self = Self(3);
    /// The password has expired.
    pub const PASSWORD_EXPIRED: Self = Self(52);
    /// End of a list or of an object's data.
    pub const FINISHED: Self = Self(121);
    /// A list shows an object that this interface did not write.
    pub const UNKNOWN_FORMAT: Self = Self(122);
    /// There is no such filespace.
    pub const FILESPACE_NOT_FOUND: Self = Self(124);
    /// The transaction has been aborted.
    pub const TXN_ABORTED: Self = Self(125);
    /// Node or password refused.
    pub const AUTH_FAILURE: Self = Self(137);
    /// The server is about to abort; the reason comes with the end of the transaction.
    pub const WILL_ABORT: Self = Self(157);
    /// A call in the wrong order.
    pub const BAD_CALL_SEQUENCE: Self = Self(2041);
    /// The filespace exists already.
    pub const FILESPACE_EXISTS: Self = Self(2062);
    /// The transaction takes no more objects.
    pub const TRANSACTION_FULL: Self = Self(2070);
    /// There is more to come.
    pub const MORE_DATA: Self = Self(2200);
    /// The transaction has been aborted and the reason code says why.
    pub const CHECK_REASON: Self = Self(2302);
    /// The transaction takes no more deduplicated data.
    pub const TRANSACTION_FULL_DEDUP: Self = Self(2303);

    /// The code of a reason, which the library gives unsigned.
    #[must_use]
    pub const fn from_reason(reason: u16) -> Self {
        Self(reason.cast_signed())
    }

    /// The vendor's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("unlisted code", |entry| entry.name)
    }

    /// What it means, in a few words.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.entry().map_or("not in the table of this program", |entry| entry.text)
    }

    /// What to do about it.
    #[must_use]
    pub fn class(self) -> Class {
        self.entry().map_or(Class::Session, |entry| entry.class)
    }

    /// How long to wait before the next attempt; zero where there is no reason to wait.
    #[must_use]
    pub fn pause(self) -> Duration {
        Duration::from_secs(self.entry().map_or(30, |entry| u64::from(entry.pause_s)))
    }

    /// Whether it is one of the codes for "end this transaction and begin another".
    #[must_use]
    pub fn is_transaction_full(self) -> bool {
        self == Self::TRANSACTION_FULL || self == Self::TRANSACTION_FULL_DEDUP
    }

    /// Whether, as the answer to a vote to commit, it proves that nothing was stored. Anything
    /// else than this and success leaves that open.
    #[must_use]
    pub fn proves_abort(self) -> bool {
        self == Self::CHECK_REASON
            || self == Self::TXN_ABORTED
            || self
                .entry()
                .is_some_and(|entry| entry.value > 0 && entry.name.starts_with("DSM_RC_ABORT_"))
    }

    fn entry(self) -> Option<&'static table::Entry> {
        let found = table::TABLE.binary_search_by_key(&self.0, |entry| entry.value).ok()?;
        Some(&table::TABLE[found])
    }
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0, self.name(), self.text())
    }
}

impl fmt::Debug for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.name())
    }
}
