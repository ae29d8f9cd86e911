//! [`Error`]: everything that can go wrong with a session, each with an errno and one sentence.
//!
//! Invariant: no sentence contains the password, not even one that the server sent back.

use std::time::Duration;

use fsq_wire::FieldError;
use fsq_wire::client::{Barred, Breach, Refused};
use fsq_wire::{Field, Op};
use rustix::io::Errno;

/// Why a call of [`Client`](crate::Client) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An environment variable has a value that makes no sense.
    #[error("{name}='{value}' in the environment: expected a whole number from {min} to {max}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// Its value, made printable.
        value: String,
        /// Smallest legal value.
        min: u64,
        /// Largest legal value.
        max: u64,
    },
    /// The server's name has no address.
    #[error("cannot find the address of '{host}': {reason}; check the server's name")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// No address of the server took the connection.
    #[error("cannot connect to {peer}: {}{}", describe(*.errno), addresses(*.tried))]
    Connect {
        /// Name and port.
        peer: String,
        /// The reason at the last address tried.
        errno: Errno,
        /// How many addresses were tried.
        tried: usize,
    },
    /// The socket could not be made or set up.
    #[error("cannot set up a socket: {}", describe(*.0))]
    Socket(Errno),
    /// The server said no; see [`Client::is_connected`](crate::Client::is_connected) for whether
    /// the session goes on.
    #[error("{peer} refused {}: {reason}", subject(.reason.op, .file))]
    Refused {
        /// Name and port.
        peer: String,
        /// Path of the file; empty for CONNECT.
        file: String,
        /// The server's answer.
        reason: Refused,
    },
    /// The server neither answered nor took data for too long. The connection is closed.
    #[error("{peer} did not respond to {} within {} ms", subject(*.op, .file), .waited.as_millis())]
    Silent {
        /// Name and port.
        peer: String,
        /// Path of the file; empty for CONNECT.
        file: String,
        /// What it did not respond to.
        op: Op,
        /// The limit that was waited for.
        waited: Duration,
    },
    /// The connection broke or was closed by the server.
    #[error("lost the connection to {peer} at {}: {}", subject(*.op, .file), describe(*.errno))]
    Lost {
        /// Name and port.
        peer: String,
        /// Path of the file; empty for CONNECT.
        file: String,
        /// What was sent or waited for.
        op: Op,
        /// The reason; ECONNRESET also when the server closed in good order.
        errno: Errno,
    },
    /// What the server sent is not the protocol. The connection is closed.
    #[error("{peer} does not follow the FSQ protocol: {breach}")]
    Breach {
        /// Name and port.
        peer: String,
        /// What is wrong.
        breach: Breach,
    },
    /// The call makes no sense now, or an argument does not fit. Nothing was sent.
    #[error(transparent)]
    Barred(#[from] Barred),
}

impl Error {
    /// The reason as an errno.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Environment { .. } => Errno::INVAL,
            Self::Resolve { .. } => Errno::HOSTUNREACH,
            Self::Connect { errno, .. } | Self::Socket(errno) | Self::Lost { errno, .. } => *errno,
            Self::Refused { reason, .. } => Errno::from_raw_os_error(reason.errno),
            Self::Silent { .. } => Errno::TIMEDOUT,
            Self::Breach { .. } => Errno::PROTO,
            Self::Barred(barred) => errno_of_barred(*barred),
        }
    }
}

fn errno_of_barred(barred: Barred) -> Errno {
    match barred {
        Barred::NotConnected(_) | Barred::Ended => Errno::NOTCONN,
        Barred::Connected => Errno::ISCONN,
        Barred::NoFile(_) => Errno::BADF,
        Barred::NotARequest(_) | Barred::NothingAsked => Errno::PROTO,
        Barred::FileOpen | Barred::Unanswered { .. } | Barred::WindowFull => Errno::BUSY,
        Barred::Failed => Errno::IO,
        Barred::Field(FieldError::Nul { .. }) => Errno::INVAL,
        Barred::Field(FieldError::TooLong { field: Field::Fs | Field::Fpath, .. }) => {
            Errno::NAMETOOLONG
        }
        Barred::Field(FieldError::TooLong { .. }) => Errno::OVERFLOW,
    }
}

/// The errno in words, without the number that the standard library adds.
pub(crate) fn describe(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn subject(op: Op, file: &str) -> String {
    if file.is_empty() { op.to_string() } else { format!("{op} of '{file}'") }
}

fn addresses(tried: usize) -> String {
    if tried > 1 { format!(" (the last of {tried} addresses tried)") } else { String::new() }
}
