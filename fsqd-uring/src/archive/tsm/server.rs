//! [`TsmServer`]: who signs on where, shared by all archive threads.
//!
//! Invariant: after the server has refused node or password for good it is left alone for a while,
//! by all threads: a loop of attempts gets a node locked.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tsm_bindings::tsm::{Class, Credentials, Error, Limits, Login, Session, Tsm};

use super::seats::Seats;
use crate::clock::Clock;
use crate::queue::{Failure, FailureClass};
use crate::services::Secret;

/// How long a refused sign-on is not repeated.
const REFUSED_FOR: Duration = Duration::from_secs(300);

/// How `fsType` names the filespaces of this daemon in the server's lists; up to 32 bytes.
const FILESPACE_TYPE: &str = "fsqd";

/// By what the daemon proves that it is the archive's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its node name; `None`: that of the stanza.
    pub node: Option<String>,
    /// Its password; `None`: the one that the client library has stored (PASSWORDACCESS GENERATE).
    pub password: Option<Secret>,
    /// Stanza of `dsm.sys`; `None`: the default one.
    pub server: Option<String>,
}

impl Account {
    /// What the client library is told.
    #[must_use]
    pub fn login(&self) -> Login<'_> {
        let Self { node, password, server } = self;
        let credentials = match (node, password) {
            (Some(node), Some(password)) => {
                Credentials::Password { node, password: password.expose() }
            }
            _ => Credentials::Stored { node: node.as_deref() },
        };
        Login { credentials, server: server.as_deref() }
    }

    /// Who that is, for messages.
    #[must_use]
    pub fn whom(&self) -> &str {
        self.node.as_deref().unwrap_or("the node of the stanza")
    }
}

/// See the module's description.
pub struct TsmServer {
    tsm: &'static Tsm,
    account: Account,
    clock: Arc<dyn Clock>,
    pub(super) seats: Seats,
    refused: Mutex<Option<(Duration, Failure)>>,
}

/// A session and what is known of it.
pub(super) struct SignedOn {
    pub(super) session: Session,
    pub(super) limits: Limits,
    /// Filespaces that are registered.
    filespaces: HashSet<Vec<u8>>,
}

impl TsmServer {
    /// The server as `threads` archive threads use it.
    #[must_use]
    pub fn new(
        tsm: &'static Tsm,
        account: Account,
        threads: usize,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let seats = Seats::new(threads);
        Arc::new(Self { tsm, account, clock, seats, refused: Mutex::new(None) })
    }

    /// Now.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Signs on. Whatever goes wrong is the server's state or its configuration, never a file's
    /// fault.
    pub(super) fn sign_on(&self) -> Result<SignedOn, Failure> {
        // Held during the sign-on: the library lets in one at a time anyway, and the next thread
        // must know how this one fared.
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, failure)) = &*refused
            && self.clock.now() < *until
        {
            return Err(failure.clone());
        }
        *refused = None;
        let signed_on = self.tsm.sign_on(&self.account.login()).and_then(|mut session| {
            let limits = session.limits()?;
            Ok(SignedOn { session, limits, filespaces: HashSet::new() })
        });
        let signed_on = signed_on.map_err(|error| {
            let text = format!("sign-on to the TSM server as {}: {error}", self.whom());
            let failure = Failure::new(FailureClass::Target, text);
            if error.class() == Class::Permanent {
                tracing::error!(
                    "{failure}; not tried again for {} s; files stay on staging",
                    REFUSED_FOR.as_secs()
                );
                *refused = Some((self.clock.now() + REFUSED_FOR, failure.clone()));
            }
            failure
        })?;
        let SignedOn { session, limits, .. } = &signed_on;
        if let Some(notice) = session.notice() {
            tracing::warn!("the TSM server has a notice at the sign-on: {notice}");
        }
        tracing::info!(
            "signed on to TSM server {} as {}: at most {} objects and {} bytes a transaction",
            session.server(),
            self.whom(),
            limits.transaction_objects,
            limits.transaction_bytes
        );
        Ok(signed_on)
    }

    fn whom(&self) -> &str {
        self.account.whom()
    }
}

impl SignedOn {
    /// Makes sure that the server knows the filespace.
    pub(super) fn register(&mut self, fs: &[u8]) -> Result<(), Error> {
        if self.filespaces.contains(fs) {
            return Ok(());
        }
        self.session.register_filespace(fs, FILESPACE_TYPE)?;
        self.filespaces.insert(fs.to_vec());
        Ok(())
    }

    /// The server may have lost its filespaces.
    pub(super) fn forget_filespaces(&mut self) {
        self.filespaces.clear();
    }
}
