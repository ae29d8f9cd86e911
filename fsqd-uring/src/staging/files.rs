//! The files that are being received: from the answer to OPEN until COMMIT or ABORT.
//!
//! Invariant: a key names one file and is never used again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fsq_wire::StorageDest;

use super::names::Reservation;
use super::sync::Named;
use crate::fs::Fs;

/// A file without a name yet. The order of the fields is the order they are let go in: the
/// directories of a failed file are removed after its handles are closed.
#[derive(Debug)]
pub(super) struct Receiving<F: Fs> {
    pub(super) node: F::Node,
    pub(super) dir: F::Node,
    /// As the client named it, for messages.
    pub(super) fpath: OsString,
    pub(super) dest: StorageDest,
    pub(super) reservation: Reservation<F>,
}

impl<F: Fs> Receiving<F> {
    /// The last component of its path.
    pub(super) fn name(&self) -> &Path {
        self.reservation.path().file_name().unwrap_or_default().as_ref()
    }
}

impl<F: Fs> Named<F> for Receiving<F> {
    fn file(&self) -> &F::Node {
        &self.node
    }

    fn directory(&self) -> &F::Node {
        &self.dir
    }

    fn path(&self) -> &Path {
        self.reservation.path()
    }
}

#[derive(Debug)]
struct State<F: Fs> {
    files: HashMap<u64, Arc<Receiving<F>>>,
    last_key: u64,
}

/// All files that are being received.
#[derive(Debug)]
pub(super) struct Files<F: Fs> {
    state: Mutex<State<F>>,
}

impl<F: Fs> Files<F> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { files: HashMap::new(), last_key: 0 }) }
    }

    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.state().files.len()
    }

    /// Takes a file in and gives it a key; gives it back if there are `files_max` already.
    pub(super) fn insert(
        &self,
        file: Receiving<F>,
        files_max: usize,
    ) -> Result<u64, Box<Receiving<F>>> {
        let mut state = self.state();
        if state.files.len() >= files_max {
            return Err(Box::new(file));
        }
        state.last_key += 1;
        let key = state.last_key;
        state.files.insert(key, Arc::new(file));
        Ok(key)
    }

    pub(super) fn find(&self, key: u64) -> Option<Arc<Receiving<F>>> {
        self.state().files.get(&key).cloned()
    }

    pub(super) fn remove(&self, key: u64) -> Option<Arc<Receiving<F>>> {
        self.state().files.remove(&key)
    }
}
