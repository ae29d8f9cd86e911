//! The windows of one ring: who holds how many, and who waits.
//!
//! Invariant: a window is either free or held by exactly one session; sessions that wait are
//! served in the order in which they began to wait.

use std::collections::VecDeque;

use crate::limits::{WINDOW_BYTES, WINDOWS_PER_SESSION, WINDOWS_PER_SESSION_MAX};
use crate::ring::Span;

/// A fixed set of windows, and a queue of the slots that want one.
#[derive(Debug)]
pub struct WindowPool {
    free: Vec<Span>,
    total: u32,
    waiting: VecDeque<u32>,
}

impl WindowPool {
    /// A pool of `count` windows that lie one after the other from `start` in the arena.
    ///
    /// Everything it will ever need is allocated here: `slots` bounds the queue.
    #[must_use]
    pub fn new(start: u64, count: u32, slots: u32) -> Self {
        let window = |i: u32| Span {
            start: start + u64::from(i) * u64::from(WINDOW_BYTES),
            len: WINDOW_BYTES,
        };
        Self {
            // Popped from the end, so the lowest addresses are used first and stay warm.
            free: (0..count).rev().map(window).collect(),
            total: count,
            waiting: VecDeque::with_capacity(slots as usize),
        }
    }

    /// Takes a window for a session that holds `held` already, or `None`: none is free, the session
    /// has its share, or others were first.
    pub fn take(&mut self, held: u32) -> Option<Span> {
        if !self.waiting.is_empty() { None } else { self.take_unqueued(held) }
    }

    fn take_unqueued(&mut self, held: u32) -> Option<Span> {
        let plenty = self.free.len() as u32 * 2 > self.total;
        let share = if plenty { WINDOWS_PER_SESSION_MAX } else { WINDOWS_PER_SESSION };
        if held < share { self.free.pop() } else { None }
    }

    /// Takes a window for the slot at the head of the queue.
    pub fn take_waiting(&mut self) -> Option<(u32, Span)> {
        let slot = *self.waiting.front()?;
        let span = self.free.pop()?;
        self.waiting.pop_front();
        Some((slot, span))
    }

    /// Gives a window back.
    pub fn give(&mut self, span: Span) {
        debug_assert!(!self.free.contains(&span), "a window is given back once");
        debug_assert!(self.free.len() < self.total as usize);
        self.free.push(span);
    }

    /// Puts a slot at the end of the queue.
    pub fn wait(&mut self, slot: u32) {
        debug_assert!(!self.waiting.contains(&slot), "a session waits once");
        self.waiting.push_back(slot);
    }

    /// Takes a slot out of the queue, if it is in it.
    pub fn forget(&mut self, slot: u32) {
        self.waiting.retain(|&waiting| waiting != slot);
    }

    /// Whether memory is short: somebody waits, or nothing is free.
    #[must_use]
    pub fn scarce(&self) -> bool {
        self.free.is_empty() || !self.waiting.is_empty()
    }

    /// Whether somebody waits.
    #[must_use]
    pub fn contended(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Windows that nobody holds.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_shrink_when_memory_gets_short() {
        let mut pool = WindowPool::new(0, 8, 8);
        let held: Vec<_> = (0..4).map(|held| pool.take(held).expect("plenty")).collect();
        assert_eq!(held.len() as u32, WINDOWS_PER_SESSION_MAX);
        assert!(pool.take(WINDOWS_PER_SESSION).is_none(), "half is gone: two a session");
        assert!(pool.take(1).is_some());
    }

    #[test]
    fn waiting_is_served_in_order_and_newcomers_do_not_overtake() {
        let mut pool = WindowPool::new(4096, 1, 4);
        let only = pool.take(0).expect("one");
        pool.wait(3);
        pool.wait(1);
        assert!(pool.scarce());
        pool.give(only);
        assert!(pool.take(0).is_none(), "others were first");
        assert_eq!(pool.take_waiting(), Some((3, only)));
        assert_eq!(pool.take_waiting(), None);
        pool.forget(1);
        pool.give(only);
        assert_eq!(pool.take(0), Some(only));
    }
}
