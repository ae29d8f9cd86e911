//! What other threads tell an ingest ring: new connections, answers to its jobs, the end.
//!
//! Invariant: messages are taken in the order in which they were posted, and a posted message wakes
//! the ring.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::worker::WorkerCounters;
use crate::ring::Token;
use crate::ring::uring::Waker;
use crate::services::Answer;
use crate::staging::Mailbox;

/// A message to a ring's thread.
#[derive(Debug)]
pub enum Message {
    /// A connection to serve.
    Session {
        /// The connected socket.
        socket: OwnedFd,
        /// The client's address, for the log.
        peer: String,
    },
    /// The answer to a job.
    Answer(Token, Answer),
    /// Send a copy of what was counted, with this number; never waits for room.
    Count(usize, SyncSender<(usize, WorkerCounters)>),
    /// Finish what is being committed and end.
    Stop,
}

/// A ring's inbox. Not on the path of data: one message a connection, sign-on, OPEN and CLOSE.
#[derive(Debug)]
pub struct Inbox {
    messages: Mutex<Vec<Message>>,
    /// There are messages: what the ring looks at every turn instead of the lock.
    posted: AtomicBool,
    waker: Waker,
}

impl Inbox {
    /// An empty inbox whose messages wake the ring of `waker`.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        let messages = Mutex::new(Vec::with_capacity(256));
        Self { messages, posted: AtomicBool::new(false), waker }
    }

    /// Posts a message.
    pub fn post(&self, message: Message) {
        let mut messages = self.lock();
        messages.push(message);
        // Whoever finds it empty wakes; the others ride along.
        let first = messages.len() == 1;
        self.posted.store(true, Ordering::Release);
        drop(messages);
        if first {
            self.waker.wake();
        }
    }

    /// Takes all messages, in order; `into` is empty and gives its memory in exchange.
    pub fn take(&self, into: &mut Vec<Message>) {
        debug_assert!(into.is_empty());
        if self.posted.load(Ordering::Acquire) {
            let mut messages = self.lock();
            self.posted.store(false, Ordering::Release);
            std::mem::swap(&mut *messages, into);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message>> {
        // A panic elsewhere leaves the vector whole.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox for Inbox {
    fn deliver(&self, token: Token, answer: Answer) {
        self.post(Message::Answer(token, answer));
    }
}
