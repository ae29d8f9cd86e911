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

#[cfg(test)]
#[path = "../../tests/double/mod.rs"]
mod double;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use libfsq::Options;

    use super::double::Double;
    use super::*;

    fn connected(double: &Double) -> Client {
        let mut options = Options::new("localhost", "n", "p");
        options.port = double.port;
        Client::connect(&options).unwrap()
    }

    #[test]
    fn a_panic_within_a_call_ends_the_session() {
        let double = Double::good();
        let fd = enter(connected(&double)).unwrap();
        let entry = find(fd).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _client = entry.lock();
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert!(entry.lock().is_none(), "and stays usable");
        double.wait_ended(1);
        remove(fd, &entry);
        assert!(find(fd).is_none_or(|found| !Arc::ptr_eq(&found, &entry)));
    }

    #[test]
    fn an_entry_neither_closes_nor_removes_what_is_not_its_own() {
        let double = Double::good();
        let fd = enter(connected(&double)).unwrap();
        let history = find(fd).unwrap();
        // The number is another session's by now.
        let socket = history.lock().take().and_then(Client::into_socket).unwrap();
        let number = socket.as_raw_fd();
        let successor = Arc::new(Entry { client: Mutex::new(Some(connected(&double))) });
        write().insert(number, Arc::clone(&successor));
        remove(number, &history);
        drop(history);
        assert!(Arc::ptr_eq(&find(number).unwrap(), &successor));
        assert!(rustix::io::fcntl_getfd(&socket).is_ok(), "still open");
        remove(number, &successor);
    }

    #[test]
    fn an_entry_that_is_dropped_leaves_its_socket_open() {
        let double = Double::good();
        let client = connected(&double);
        let copy = client.socket().unwrap().try_clone_to_owned().unwrap();
        let fd = client.socket().unwrap().as_raw_fd();
        drop(Entry { client: Mutex::new(Some(client)) });
        // SAFETY: the entry has left it open, and it is ours to close now.
        let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        let same = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(same(&socket), same(&copy));
    }
}
