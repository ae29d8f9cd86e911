//! TSM without unsafe: the library, sessions, and what is done in them.
//!
//! Owns every handle that the library gives out and returns it exactly once. Invariant: an
//! operation borrows its session mutably until it has ended, so the calls cannot come in an order
//! that the library refuses, and one session is never used by two threads.
//!
//! ```no_run
//! use tsm_bindings::tsm::{
//!     Credentials, Kind, Login, NewObject, ObjectInfo, ObjectName, Start, Tsm,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let tsm = Tsm::start(&Start::default())?;
//! let credentials = Credentials::Stored { node: None };
//! let login = Login { credentials, server: Some("tsmserver-8") };
//! let mut session = tsm.sign_on(&login)?;
//! session.register_filespace(b"/lustre", "fsqd")?;
//!
//! let name = ObjectName::from_path(b"/lustre", b"/lustre/run/1.cbf", Kind::File)?;
//! let info = ObjectInfo { size: 5, mode: 0o100_640, crc: 0x3610_a686, ..Default::default() };
//! let mut transaction = session.begin()?;
//! let object = NewObject { name: &name, description: "", info: &info.encode(), size: info.size };
//! let mut sending = transaction.send(&object)?;
//! sending.write(b"hello")?;
//! sending.finish()?;
//! transaction.commit()?;
//! # Ok(())
//! # }
//! ```

mod library;
mod query;
mod retrieval;
mod session;
mod transaction;

pub use library::{Credentials, Login, Start, StartError, Tsm};
pub use query::{ArchivedObject, ObjectId, Query, QueryFilter, RestoreOrder};
pub use retrieval::{Retrieval, RetrievedObject};
pub use session::{Limits, Session};
pub use transaction::{CommitError, NewObject, SendObject, Transaction};

use super::name::NameError;
use super::rc::{Class, ReturnCode};
use super::result::CallError;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library said so.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An argument is longer than the library takes.
    #[error("{what}: {bytes} bytes are too many, at most {max} are taken")]
    TooLong {
        /// Which argument.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More objects than one call takes.
    #[error("{objects} objects are too many for one call, at most {max} are taken")]
    TooMany {
        /// How many.
        objects: usize,
        /// The limit.
        max: usize,
    },
    /// An argument holds what the library would read as something else.
    #[error("{what} contains a character that is not allowed in it, or nothing at all")]
    Invalid {
        /// Which argument.
        what: &'static str,
    },
    /// More or fewer bytes were written than announced.
    #[error("the object was announced with {announced} bytes, but {written} were written")]
    Size {
        /// As announced.
        announced: u64,
        /// As written, the rejected write included.
        written: u64,
    },
    /// The library took a part of the data without an error.
    #[error("dsmSendData took {taken} of {given} bytes without an error")]
    ShortSend {
        /// Bytes given.
        given: usize,
        /// Bytes taken.
        taken: usize,
    },
    /// The server announced that it would abort the transaction, and did not confirm that it has.
    #[error(
        "the outcome of the transaction is unknown, query its objects before sending again: {0}"
    )]
    OutcomeUnknown(CallError),
    /// The session was lost in an earlier failure.
    #[error("the session was lost in an earlier failure; sign on again")]
    SessionLost,
    /// The transaction ended in an earlier failure; nothing of it is stored.
    #[error("the transaction was aborted in an earlier failure; send its objects again")]
    TransactionOver,
    /// A sign-on succeeded, but not because of the password.
    #[error(
        "the TSM client uses a stored password for this server and ignores the one given; \
         set PASSWORDACCESS PROMPT in its stanza of dsm.sys"
    )]
    PasswordNotChecked,
    /// The library is closed down.
    #[error("the TSM library has been closed down in this process")]
    CleanedUp,
    /// Sessions are still open.
    #[error("{sessions} sessions are still open; drop them first")]
    SessionsOpen {
        /// How many.
        sessions: usize,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Call(error) => error.cause().class(),
            Self::ShortSend { .. } | Self::SessionLost | Self::OutcomeUnknown(_) => Class::Session,
            Self::TransactionOver => Class::Transaction,
            Self::Name(_)
            | Self::TooLong { .. }
            | Self::TooMany { .. }
            | Self::Invalid { .. }
            | Self::Size { .. }
            | Self::PasswordNotChecked
            | Self::CleanedUp
            | Self::SessionsOpen { .. } => Class::Permanent,
        }
    }

    /// The return or reason code behind it, where the library answered.
    #[must_use]
    pub fn code(&self) -> Option<ReturnCode> {
        match self {
            Self::Call(error) | Self::OutcomeUnknown(error) => Some(error.cause()),
            _ => None,
        }
    }

    /// Whether the object was not taken because the transaction is full: commit it, and send the
    /// object again in a new one.
    #[must_use]
    pub fn is_transaction_full(&self) -> bool {
        matches!(self, Self::Call(error) if error.code.is_transaction_full())
    }
}

fn check_length(what: &'static str, bytes: usize, max: usize) -> Result<(), Error> {
    if bytes > max { Err(Error::TooLong { what, bytes, max }) } else { Ok(()) }
}

/// A word that goes to the library as a C string: printable ASCII, no blanks, not empty.
fn check_word(what: &'static str, text: &str, max: usize) -> Result<(), Error> {
    check_length(what, text.len(), max)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Invalid { what });
    }
    Ok(())
}
