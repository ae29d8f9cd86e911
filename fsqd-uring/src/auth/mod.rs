//! Sign-on: node and password in, identity out.
//!
//! Owns the kinds of password check and [`SignOn`], which joins them with the identity map.
//! Invariant: a password appears in no text that leaves this module, and an unknown node cannot be
//! told from a wrong password, neither by the answer nor by the time it takes.

use std::sync::Arc;

use rustix::io::Errno;

use crate::config::text::FileError;
use crate::config::{Auth, ConfigError};
use crate::identmap::{Identity, SharedIdentityMap};
use crate::path::Quoted;
use crate::refusal::Refusal;
use crate::services::Secret;

pub use self::file::FileAuth;

mod file;

/// Checks passwords. May block; called from pool threads only.
pub trait Authenticator: Send + Sync {
    /// Whether `password` is that of `node`.
    ///
    /// # Errors
    /// A refusal for the client, EACCES unless the check itself failed.
    fn sign_on(&self, node: &str, password: &Secret) -> Result<(), Refusal>;

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
    fn sign_on(&self, _: &str, _: &Secret) -> Result<(), Refusal> {
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
    fn sign_on(&self, _: &str, _: &Secret) -> Result<(), Refusal> {
        Err(Refusal::new(Errno::ACCESS, format!("nobody can sign on here: {}", self.reason)))
    }
}

/// The password check that the configuration asks for.
///
/// # Errors
/// If the password file cannot be used.
pub fn authenticator(auth: &Auth) -> Result<Box<dyn Authenticator>, ConfigError> {
    Ok(match auth {
        Auth::File(path) => Box::new(FileAuth::load(path)?),
        Auth::None => Box::new(NoAuth),
        Auth::Unavailable { reason } => Box::new(Unavailable::new(reason.as_str())),
    })
}

/// Who may sign on, and as whom.
pub struct SignOn {
    /// The identities.
    pub map: SharedIdentityMap,
    /// The password check.
    pub auth: Box<dyn Authenticator>,
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
        let checked = self.auth.sign_on(node, password);
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
            "sign-on of node {shown} from {peer} refused: {refusal} (the node {known} in the \
             identity map)"
        );
        Err(refusal)
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
