//! [`Refusal`]: the answer "no" as a client sees it, an errno and one readable sentence.

use rustix::io::Errno;

/// Why a request of a client was turned down.
///
/// The text goes into the reply packet and the log; it names what happened, to what, and what to
/// do, and never contains a password. The errno goes out negated as `error.rc`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The errno that `error.rc` carries (negated).
    pub errno: Errno,
    /// One sentence for the person at the other end.
    pub text: String,
}

impl Refusal {
    /// A refusal with this errno and sentence.
    pub fn new(errno: Errno, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }
}
