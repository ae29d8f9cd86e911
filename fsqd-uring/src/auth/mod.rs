//! Sign-on: node and password in, identity out.
//!
//! Owns the kinds of password check and [`SignOn`], which joins them with the identity map.
//! Invariant: a password appears in no text that leaves this module. With a password file, besides,
//! an unknown node cannot be told from a wrong password, neither by the answer nor by the time it
//! takes; with TSM it can, because a client whose node is locked or whose password has expired has
//! to be told so, and because servers are not asked about nodes of others.

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use tracing::{error, info};

use crate::clock::Clock;
use crate::config::text::FileError;
use crate::config::{Auth, ConfigError};
use crate::identmap::{Identity, SharedIdentityMap};
use crate::path::Quoted;
use crate::refusal::Refusal;
use crate::services::Secret;
use crate::staging::Gate;

pub use self::file::FileAuth;
pub use self::tsm::TsmAuth;

mod file;
pub mod tsm;

/// Who wants to sign on.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The node's name as sent.
    pub node: &'a str,
    /// The TSM server that it belongs to; `None`: the node is not in the identity map.
    pub server: Option<&'a str>,
    /// The password as sent.
    pub password: &'a Secret,
}

/// Checks passwords. Called from pool threads only.
pub trait Authenticator: Send + Sync {
    /// Whether the password is that of the node. May block for as long as another machine does.
    ///
    /// # Errors
    /// A refusal for the client, EACCES unless the check itself failed.
    fn sign_on(&self, login: &Login<'_>) -> Result<(), Refusal>;

    /// The same where it can be told without any other machine; `None` where it cannot.
    fn recall(&self, login: &Login<'_>) -> Option<Result<(), Refusal>> {
        Some(self.sign_on(login))
    }

    /// Takes over what has changed since the start.
    ///
    /// # Errors
    /// If what is there now cannot be used; the old stays.
    fn reload(&self) -> Result<(), FileError> {
        Ok(())
    }
}

/// No check: to know a node's name is enough.
#[derive(Clone, Copy, Debug)]
pub struct NoAuth;

impl Authenticator for NoAuth {
    fn sign_on(&self, _: &Login<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// No node can sign on, because this daemon has nothing to check passwords with.
#[derive(Clone, Debug)]
pub struct Unavailable {
    reason: String,
}

impl Unavailable {
    /// Refuses everybody with this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl Authenticator for Unavailable {
    fn sign_on(&self, _: &Login<'_>) -> Result<(), Refusal> {
        Err(Refusal::new(Errno::ACCESS, format!("nobody can sign on here: {}", self.reason)))
    }
}

/// What is said of a node that is not known, or whose password is wrong: which of them is not said.
fn unknown(node: &str) -> Refusal {
    let node = Quoted(node.as_bytes());
    Refusal::new(Errno::ACCESS, format!("node {node} is unknown here or its password is wrong"))
}

/// The password check that the configuration asks for, with the file of the TSM client library
/// where one is named. To be called by the main thread, see [`tsm::load`].
///
/// # Errors
/// The password file cannot be used; the TSM library was asked for and cannot be used. Where TSM is
/// only the default, nobody can sign on, and the log says so.
pub fn authenticator(
    auth: &Auth,
    tsm_library: Option<&Path>,
    clock: Arc<dyn Clock>,
) -> Result<Box<dyn Authenticator>, ConfigError> {
    let (asked, cache) = match auth {
        Auth::File(path) => return Ok(Box::new(FileAuth::load(path)?)),
        Auth::None => return Ok(Box::new(NoAuth)),
        Auth::Tsm { asked, cache } => (*asked, *cache),
    };
    match tsm::load(tsm_library) {
        Ok(library) => {
            info!(
                "passwords are checked by TSM: client library {}, level {}",
                library.path().display(),
                library.version()
            );
            let tsm = TsmAuth::new(Box::new(library), cache, clock);
            let tsm = tsm.map_err(|error| {
                ConfigError::Unusable(format!("--auth tsm: no random bytes: {error}"))
            })?;
            Ok(Box::new(tsm))
        }
        Err(error) if asked => Err(ConfigError::Unusable(tsm_missing(&error))),
        Err(error) => {
            let reason = tsm_missing(&error);
            error!("nobody can sign on: {reason}; what is staged is drained all the same");
            Ok(Box::new(Unavailable::new(reason)))
        }
    }
}

/// That passwords cannot be checked with TSM, why, and what else there is.
#[must_use]
pub fn tsm_missing(error: &tsm_bindings::tsm::StartError) -> String {
    format!("--auth tsm: {error} or --tsm-library; without TSM, use --auth file:PATH")
}

/// Who may sign on, and as whom.
pub struct SignOn {
    /// The identities.
    pub map: SharedIdentityMap,
    /// The password check.
    pub auth: Box<dyn Authenticator>,
}

impl Gate for Arc<SignOn> {
    fn recall(
        &self,
        node: &str,
        password: &Secret,
        peer: &str,
    ) -> Option<Result<Arc<Identity>, Refusal>> {
        let identity = self.map.lookup(node);
        let server = identity.as_ref().map(|identity| identity.servername.as_str());
        let checked = self.auth.recall(&Login { node, server, password })?;
        Some(judge(node, identity, checked, peer))
    }

    fn sign_on(&self, node: &str, password: &Secret, peer: &str) -> Result<Arc<Identity>, Refusal> {
        SignOn::sign_on(self, node, password, peer)
    }
}

fn judge(
    node: &str,
    identity: Option<Arc<Identity>>,
    checked: Result<(), Refusal>,
    peer: &str,
) -> Result<Arc<Identity>, Refusal> {
    let shown = Quoted(node.as_bytes());
    let known = if identity.is_some() { "is" } else { "is not" };
    let refusal = match (checked, identity) {
        (Ok(()), Some(identity)) => return Ok(identity),
        (Ok(()), None) => Refusal::new(
            Errno::ACCESS,
            format!("node {shown} is not in the identity map; ask for a line in it"),
        ),
        (Err(refusal), _) => refusal,
    };
    tracing::warn!(
        "sign-on of node {shown} from {peer} refused: {refusal} (the node {known} in the identity \
         map)"
    );
    Err(refusal)
}

impl SignOn {
    /// Signs a node on. `peer` is the client's address, for the log, which gets the details that
    /// the client does not.
    ///
    /// # Errors
    /// EACCES if the node is unknown or the password wrong; whatever else the check answers.
    pub fn sign_on(
        &self,
        node: &str,
        password: &Secret,
        peer: &str,
    ) -> Result<Arc<Identity>, Refusal> {
        // Both are always looked at: leaving early would tell by the time which one failed.
        let identity = self.map.lookup(node);
        let server = identity.as_ref().map(|identity| identity.servername.as_str());
        let checked = self.auth.sign_on(&Login { node, server, password });
        judge(node, identity, checked, peer)
    }

    /// Reads the identity map and the passwords again (SIGHUP); of each the old stays where the
    /// new is bad, and what is wrong with it is returned. Sessions that are signed on stay so.
    #[must_use = "nobody else tells the operator that a file is bad"]
    pub fn reload(&self) -> Vec<FileError> {
        // Passwords first: a node that is new in both must not be known without its password.
        let results = [self.auth.reload(), self.map.reload().map(|_| ())];
        results.into_iter().filter_map(Result::err).collect()
    }
}

#[cfg(test)]
mod tests;
