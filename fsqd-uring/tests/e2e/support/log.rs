//! The lines of a daemon while it runs: collected by threads, waited for by tests.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::PATIENCE;

/// One line in the form `[M] 1579167563.382178 [174822] listener.rs:88 text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) letter: char,
    pub(crate) seconds: u64,
    pub(crate) thread: i32,
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

impl<'a> Line<'a> {
    /// `None` if the line departs from the form in any byte.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (letter, rest) = line.strip_prefix('[')?.split_once("] ")?;
        let (time, rest) = rest.split_once(" [")?;
        let (thread, rest) = rest.split_once("] ")?;
        let (place, text) = rest.split_once(' ')?;
        let (seconds, micros) = time.split_once('.')?;
        let (file, number) = place.rsplit_once(':')?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_good = ["E", "W", "M", "I", "D"].contains(&letter)
            && micros.len() == 6
            && is_number(micros)
            && is_number(number)
            && file.ends_with(".rs");
        is_good.then_some(Self {
            letter: letter.chars().next()?,
            seconds: seconds.parse().ok()?,
            thread: thread.parse().ok()?,
            file,
            text,
        })
    }
}

#[derive(Debug, Default)]
struct Collected {
    lines: Vec<String>,
    /// Streams that are still open.
    open: usize,
}

/// Both output streams of a daemon, line by line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    shared: Arc<(Mutex<Collected>, Condvar)>,
}

impl Log {
    /// Collects a stream to its end on a thread of its own.
    pub(crate) fn collect(&self, stream: impl Read + Send + 'static) {
        self.lock().open += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                log.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
                log.shared.1.notify_all();
            }
            log.lock().open -= 1;
            log.shared.1.notify_all();
        });
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// The first line that `wanted` takes, also if it came before.
    ///
    /// # Panics
    /// If it does not come in time or the daemon ends before.
    pub(crate) fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_from(0, what, wanted)
    }

    /// Like [`Self::wait`], without the first `from` lines.
    pub(crate) fn wait_from(
        &self,
        from: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        let end = Instant::now() + PATIENCE;
        let mut guard = self.lock();
        loop {
            if let Some(line) = guard.lines.iter().skip(from).find(|line| wanted(line)) {
                return line.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && guard.open > 0, "no line {what} in\n{}", show(&guard.lines));
            guard =
                self.shared.1.wait_timeout(guard, left).map_or_else(|e| e.into_inner().0, |r| r.0);
        }
    }

    /// Waits until the daemon has closed its streams, so that all it has said is here.
    pub(crate) fn wait_closed(&self) {
        let end = Instant::now() + PATIENCE;
        let mut guard = self.lock();
        while guard.open > 0 {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the daemon's output does not end");
            guard =
                self.shared.1.wait_timeout(guard, left).map_or_else(|e| e.into_inner().0, |r| r.0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines for a person who looks at a failed test.
pub(crate) fn show(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  | {line}\n")).collect()
}
