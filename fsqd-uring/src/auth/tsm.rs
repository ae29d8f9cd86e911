//! [`TsmAuth`]: passwords that TSM servers know.
//!
//! Owns the questions to the servers; what is remembered of the answers is in `memory`. Invariant:
//! one question is on its way at a time (the client library lets in no more), only about nodes of
//! the identity map, and with what a client sent exactly as it was sent: so nobody can have nodes
//! locked that are no clients of this daemon.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tracing::debug;
use tsm_bindings::tsm::{self, Class, ReturnCode, Start, StartError, Tsm};

use self::memory::{Account, Digest, Memory, Salt, Verdict};
use super::{Authenticator, Login};
use crate::clock::Clock;
use crate::config::text::FileError;
use crate::path::Quoted;
use crate::refusal::Refusal;

mod memory;

/// Loads and starts the TSM client library, the file `library` or the one in the usual places. To
/// be called by the main thread; the thread of the log, which reads neither locale nor
/// environment, may already run.
///
/// # Errors
/// The names that were tried, each with the reason.
pub fn load(library: Option<&Path>) -> Result<&'static Tsm, StartError> {
    Tsm::start(&Start { library: library.map(Path::to_path_buf), ..Start::default() })
}

/// The servers, as far as passwords go.
pub trait Servers: Send + Sync {
    /// Whether the password is that of the node; may take as long as the network lets it.
    ///
    /// # Errors
    /// It is not, or nobody can tell.
    fn check_password(&self, server: &str, node: &str, password: &[u8]) -> Result<(), tsm::Error>;
}

impl Servers for &'static Tsm {
    fn check_password(&self, server: &str, node: &str, password: &[u8]) -> Result<(), tsm::Error> {
        Tsm::check_password(self, node, password, Some(server))
    }
}

/// Checks passwords by signing on with them.
pub struct TsmAuth {
    servers: Box<dyn Servers>,
    clock: Arc<dyn Clock>,
    memory: Mutex<Memory>,
    /// Held during a question.
    asking: Mutex<()>,
}

impl TsmAuth {
    /// Asks these servers, and believes a right password for the time `cache`.
    ///
    /// # Errors
    /// The system gives us no random bytes.
    pub fn new(
        servers: Box<dyn Servers>,
        cache: Duration,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let mut salt = Salt::default();
        // Up to 256 bytes come whole or not at all, random(7).
        getrandom(&mut salt, GetRandomFlags::empty())?;
        let memory = Mutex::new(Memory::new(salt, cache));
        Ok(Self { servers, clock, memory, asking: Mutex::new(()) })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    fn known(&self, account: &Account, login: &Login<'_>) -> Known {
        let memory = self.memory();
        let digest = memory.digest(account, login.password.expose());
        match memory.recall(self.clock.now(), account, digest) {
            Some(answer) => Known::Answer(answer),
            None => Known::Nothing { digest, generation: memory.generation() },
        }
    }
}

enum Known {
    Answer(Result<(), Refusal>),
    Nothing { digest: Digest, generation: u64 },
}

/// What these locks guard is changed in single steps; a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Authenticator for TsmAuth {
    fn recall(&self, login: &Login<'_>) -> Option<Result<(), Refusal>> {
        let Some(server) = login.server else { return Some(Err(super::unknown(login.node))) };
        match self.known(&Account::new(server, login.node), login) {
            Known::Answer(answer) => Some(answer),
            Known::Nothing { .. } => None,
        }
    }

    fn sign_on(&self, login: &Login<'_>) -> Result<(), Refusal> {
        let Some(server) = login.server else { return Err(super::unknown(login.node)) };
        let account = Account::new(server, login.node);
        let _asking = lock(&self.asking);
        // The one before may have got the answer.
        let (digest, generation) = match self.known(&account, login) {
            Known::Answer(answer) => return answer,
            Known::Nothing { digest, generation } => (digest, generation),
        };
        let begun = self.clock.now();
        let answer = self.servers.check_password(server, login.node, login.password.expose());
        let now = self.clock.now();
        let verdict = verdict(login.node, server, &answer);
        let took_ms = now.saturating_sub(begun).as_millis();
        let node = Quoted(login.node.as_bytes());
        match &answer {
            Ok(()) => debug!("TSM server {server} knows node {node}, asked for {took_ms} ms"),
            Err(error) => {
                debug!("TSM server {server} on node {node}, asked for {took_ms} ms: {error}");
            }
        }
        self.memory().learn(now, &account, digest, &verdict, generation);
        match verdict {
            Verdict::Right => Ok(()),
            Verdict::Wrong(refusal) | Verdict::Barred(refusal) | Verdict::Silent(refusal) => {
                Err(refusal)
            }
        }
    }

    /// Forgets what it remembers: the operator may have put things right.
    fn reload(&self) -> Result<(), FileError> {
        self.memory().forget();
        Ok(())
    }
}

/// What an answer means. The client is told the code's meaning in the words of our table; the
/// library's own message, in whatever language, goes to the log.
fn verdict(node: &str, server: &str, answer: &Result<(), tsm::Error>) -> Verdict {
    let Err(error) = answer else { return Verdict::Right };
    let node = Quoted(node.as_bytes());
    let reason = error.code().map_or_else(|| error.to_string(), |code| code.to_string());
    let refusal = |errno, text: &str| {
        Refusal::new(errno, format!("node {node}: TSM server '{server}' {text}: {reason}"))
    };
    match error {
        // Nothing was sent: neither can be right.
        tsm::Error::Invalid { .. } | tsm::Error::TooLong { .. } => {
            Verdict::Barred(Refusal::new(Errno::ACCESS, format!("node {node}: {error}")))
        }
        _ if error.code() == Some(ReturnCode::AUTH_FAILURE) => {
            Verdict::Wrong(refusal(Errno::ACCESS, "refuses the password"))
        }
        _ if error.class() == Class::Permanent => {
            Verdict::Barred(refusal(Errno::ACCESS, "refuses the sign-on"))
        }
        _ if error.code().is_some_and(is_outage) => {
            Verdict::Silent(refusal(Errno::AGAIN, "cannot check passwords now, try again later"))
        }
        _ => Verdict::Barred(refusal(Errno::AGAIN, "cannot sign the node on now, try again later")),
    }
}

/// Whether it is the server that fails, for all nodes alike: the codes of its connection are
/// negative, the others are those for no session, disabled, and no memory or space.
fn is_outage(code: ReturnCode) -> bool {
    code.0 < 0 || matches!(code.0, 51 | 55 | 63 | 64 | 65)
}

#[cfg(test)]
mod tests;
