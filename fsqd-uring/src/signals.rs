//! Signals as messages: SIGTERM and SIGINT end the daemon, SIGHUP reloads, SIGUSR1 reports.
//!
//! Invariant: the first of the ending signals is a request, the second one ends the process at once.

use std::sync::mpsc::{Receiver, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish and end.
    Stop,
    /// Read identity map and passwords again.
    Reload,
    /// Log what the rings have counted.
    Report,
}

/// Exit status of a process that a second signal has ended, as shells report SIGTERM.
const EXIT_AT_ONCE: i32 = 128 + SIGTERM;

/// Listens for signals on a thread of its own.
///
/// # Errors
/// The handlers or the thread cannot be had.
pub fn listen() -> std::io::Result<Receiver<Signal>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("fsq_signals".to_owned()).spawn(move || {
        let mut stopping = false;
        for signal in signals.forever() {
            let asked = match signal {
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::Report,
                _ => Signal::Stop,
            };
            if asked == Signal::Stop && std::mem::replace(&mut stopping, true) {
                std::process::exit(EXIT_AT_ONCE);
            }
            if sender.send(asked).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}
