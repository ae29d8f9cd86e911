//! [`Report`]: what the user is told, on standard error for people and with `--json` on standard
//! output for programs.
//!
//! Invariant: one line per failure, one object per file, never the password.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::{Level, Request};
use crate::plan::Source;
use crate::sender::Outcome;

const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

pub(crate) struct Report {
    level: Level,
    json: bool,
    bar: ProgressBar,
    acknowledged: u64,
    failed: u64,
    left_over: u64,
    /// Standard output takes no more; the exit status must say so.
    is_output_lost: bool,
}

impl Report {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            level: request.level,
            json: request.json,
            bar: ProgressBar::hidden(),
            acknowledged: 0,
            failed: 0,
            left_over: 0,
            is_output_lost: false,
        }
    }

    /// Shows the bar, if there is someone to look at it.
    pub(crate) fn start(&mut self, bytes: u64) {
        if io::stderr().is_terminal() && self.level > Level::Error {
            let style = "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
            self.bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr())
                .with_style(ProgressStyle::with_template(style).expect("the template is constant"));
            self.bar.enable_steady_tick(REDRAW_INTERVAL);
        }
    }

    /// So many more bytes were sent.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    pub(crate) fn error(&self, message: &str) {
        self.tell(Level::Error, message);
    }

    pub(crate) fn warn(&self, message: &str) {
        self.tell(Level::Warn, &format!("warning: {message}"));
    }

    /// One file is done with.
    pub(crate) fn file(&mut self, source: &Source, destination: &[u8], outcome: &Outcome) {
        let (name, target) = (source.name(), String::from_utf8_lossy(destination));
        match &outcome.error {
            Some(error) => {
                self.failed += 1;
                self.error(&format!("'{name}' was not sent: {error}"));
            }
            None => {
                self.acknowledged += 1;
                let (bytes, seconds) = (outcome.bytes, outcome.taken.as_secs_f64());
                self.tell(
                    Level::Info,
                    &format!("'{name}' sent to '{target}': {bytes} bytes, {seconds:.3} s"),
                );
            }
        }
        self.object(source, destination, outcome);
    }

    /// A file was not even tried because the server is gone. The line for people is one for all.
    pub(crate) fn left_over(&mut self, source: &Source, destination: &[u8]) {
        self.left_over += 1;
        let outcome = Outcome::failed("not sent, there is no connection to the server".to_owned());
        self.object(source, destination, &outcome);
    }

    /// Clears the bar; true if every file was acknowledged and reported.
    pub(crate) fn finish(&self) -> bool {
        self.bar.finish_and_clear();
        if self.left_over > 0 {
            self.error(&format!("{} files were not tried", self.left_over));
        }
        let failed = self.failed + self.left_over;
        let (acknowledged, files) = (self.acknowledged, self.acknowledged + failed);
        self.tell(Level::Info, &format!("{acknowledged} of {files} files acknowledged"));
        if self.is_output_lost {
            self.error("cannot write to standard output");
        }
        failed == 0 && !self.is_output_lost
    }

    fn object(&mut self, source: &Source, destination: &[u8], outcome: &Outcome) {
        if self.json {
            let object = serde_json::json!({
                "source": source.name(),
                "destination": String::from_utf8_lossy(destination),
                "bytes": outcome.bytes,
                "seconds": outcome.taken.as_secs_f64(),
                "ok": outcome.error.is_none(),
                "error": outcome.error,
            });
            let written = self.bar.suspend(|| writeln!(io::stdout(), "{object}"));
            self.is_output_lost |= written.is_err();
        }
    }

    fn tell(&self, level: Level, message: &str) {
        if level <= self.level {
            let line = message.replace(char::is_control, "?");
            // There is nobody left to tell that standard error is closed.
            self.bar.suspend(|| {
                let _ = writeln!(io::stderr(), "fsqc: {line}");
            });
        }
    }
}
