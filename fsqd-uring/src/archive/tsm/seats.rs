//! [`Seats`]: how many archive threads may be in a transaction at a time.
//!
//! A node has a number of mount points at the server that nobody can ask for; one session more
//! than that, and its transaction is aborted. So the number of seats begins with all threads,
//! shrinks when the server says that there are too many, and grows again one by one.
//!
//! Invariant: there is always at least one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Transactions in a row without complaint after which one more seat is tried.
const GROW_AFTER: u32 = 500;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Seats {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    limit: usize,
    most: usize,
    taken: usize,
    quiet: u32,
}

/// The right to be in a transaction; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat<'s>(&'s Seats);

impl Seats {
    /// As many as there are threads.
    pub(super) fn new(threads: usize) -> Self {
        let most = threads.max(1);
        let state = Mutex::new(State { limit: most, most, taken: 0, quiet: 0 });
        Self { state, freed: Condvar::new() }
    }

    /// Waits for a seat: no longer than transactions of other threads take.
    pub(super) fn take(&self) -> Seat<'_> {
        let state = self.lock();
        let waited = self.freed.wait_while(state, |state| state.taken >= state.limit);
        waited.unwrap_or_else(PoisonError::into_inner).taken += 1;
        Seat(self)
    }

    /// The server says that there are too many, to the holder of a seat. The new number, or `None`
    /// if the holder is alone: then it is not for this daemon to give way.
    pub(super) fn fewer(&self) -> Option<usize> {
        let mut state = self.lock();
        state.quiet = 0;
        if state.taken <= 1 {
            return None;
        }
        state.limit = (state.limit.min(state.taken) - 1).max(1);
        Some(state.limit)
    }

    /// A transaction went well. The new number of seats if it has grown.
    pub(super) fn went_well(&self) -> Option<usize> {
        let mut state = self.lock();
        state.quiet = state.quiet.saturating_add(1);
        if state.quiet < GROW_AFTER || state.limit >= state.most {
            return None;
        }
        state.quiet = 0;
        state.limit += 1;
        self.freed.notify_one();
        Some(state.limit)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers that are changed in single steps: a panic elsewhere leaves them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.lock().taken -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_shrink_to_one_and_grow_again() {
        let seats = Seats::new(3);
        let held = [seats.take(), seats.take(), seats.take()];
        assert_eq!(seats.fewer(), Some(2));
        assert_eq!(seats.fewer(), Some(1));
        assert_eq!(seats.fewer(), Some(1));
        drop(held);
        let seat = seats.take();
        assert_eq!(seats.fewer(), None, "nobody else is in the way");
        drop(seat);
        let grown: Vec<_> = (0..GROW_AFTER * 4).filter_map(|_| seats.went_well()).collect();
        assert_eq!(grown, [2, 3]);
    }

    #[test]
    fn who_finds_no_seat_gets_one_that_becomes_free() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take(), seats.take());
        assert_eq!(seats.fewer(), Some(1));
        drop(first);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(seats.take()));
            drop(second);
            waiting.join().expect("seated");
        });
    }
}
