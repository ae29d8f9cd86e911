//! What ends a measurement early, in the words that the user gets to read.

use std::io;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A call to the system failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The measurement ran and means nothing.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// For `map_err`: adds what was tried.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }
}
