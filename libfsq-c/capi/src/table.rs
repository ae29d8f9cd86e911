//! What belongs to a session beyond the caller's struct, by the number of its socket.
//!
//! Invariant: an entry never closes its socket by itself. Callers free sessions without a word,
//! and one who has also closed the number may meet it again in a new session: the kernel has just
//! given it out, so whatever the table still says about it is history and must not be closed.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use libfsq::Client;

static TABLE: RwLock<BTreeMap<RawFd, Arc<Entry>>> = RwLock::new(BTreeMap::new());

/// One session.
pub(crate) struct Entry {
    /// `None` once it was ended or broken by a panic.
    client: Mutex<Option<Client>>,
}

impl Entry {
    /// The client, for one call. Calls for one session from several threads take turns.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            // The call that panicked may have stopped in the middle of a packet.
            let mut client = poisoned.into_inner();
            drop(client.take());
            self.client.clear_poison();
            client
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let client = self.client.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = client.and_then(Client::into_socket) {
            let _history = socket.into_raw_fd();
        }
    }
}

/// Enters a connected client; its socket's number is the session's name from now on.
pub(crate) fn enter(client: Client) -> Option<RawFd> {
    let fd = client.socket()?.as_raw_fd();
    let entry = Arc::new(Entry { client: Mutex::new(Some(client)) });
    let history = write().insert(fd, entry);
    // Outside of the lock: it may wait for a call that still uses it.
    drop(history);
    Some(fd)
}

/// The session of this name.
pub(crate) fn find(fd: RawFd) -> Option<Arc<Entry>> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).get(&fd).cloned()
}

/// Removes this session, unless its name already belongs to another one.
pub(crate) fn remove(fd: RawFd, entry: &Arc<Entry>) {
    let mut table = write();
    if table.get(&fd).is_some_and(|found| Arc::ptr_eq(found, entry)) {
        table.remove(&fd);
    }
}

fn write() -> std::sync::RwLockWriteGuard<'static, BTreeMap<RawFd, Arc<Entry>>> {
    TABLE.write().unwrap_or_else(PoisonError::into_inner)
}
