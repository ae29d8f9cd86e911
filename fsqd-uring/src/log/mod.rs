//! The log: one line per event on standard output, in the form that operators' scripts know.
//!
//! ```text
//! [M] 1579167563.382178 [174822] listener.rs:88 listening on port 7625 ...
//! ```
//! Letter, epoch seconds with microseconds, kernel thread id, file and line, text. The rest of the
//! daemon logs with the macros of `tracing`, whose levels stand for these:
//!
//! | macro | letter | `-v` | for |
//! |---|---|---|---|
//! | `error!` | E | error | what went wrong |
//! | `warn!` | W | warn | what may go wrong |
//! | `info!` | M | message | what operators want to know: the default |
//! | `debug!` | I | info | what explains a single session or file |
//! | `trace!` | D | debug | what developers want to know |
//!
//! Fields follow the text as `key=value`. Spans are not shown.
//!
//! Invariant: one event is one line and one write, whatever clients have put into the strings in
//! it, and a line that cannot be written is dropped: the log never takes the daemon down.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use self::escape::Escaped;
pub use self::output::Flusher;
use self::output::Output;
use crate::config::{LogFormat, Verbosity};

mod escape;
mod output;

impl From<Verbosity> for LevelFilter {
    fn from(verbosity: Verbosity) -> Self {
        match verbosity {
            Verbosity::Error => Self::ERROR,
            Verbosity::Warn => Self::WARN,
            Verbosity::Message => Self::INFO,
            Verbosity::Info => Self::DEBUG,
            Verbosity::Debug => Self::TRACE,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The process has a log already.
    #[error("the log is taken: {0}")]
    Taken(#[from] SetGlobalDefaultError),
    /// No thread to write it.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Sends the events of all threads to standard output from now on; colours if it is a terminal.
/// The last lines are written when the process ends only if it waits for them with what it gets
/// here.
///
/// # Errors
/// See [`LogError`].
pub fn start(format: LogFormat, verbosity: Verbosity) -> Result<Flusher, LogError> {
    let layout = match format {
        LogFormat::Fsq => Layout::Fsq { colours: io::stdout().is_terminal() },
        LogFormat::Json => Layout::Json,
    };
    let lines = Lines { layout, now: wall_clock, thread: thread_id };
    let output = Output::start(io::stdout())?;
    let flusher = output.flusher();
    tracing::subscriber::set_global_default(subscriber(lines, verbosity, output))?;
    Ok(flusher)
}

fn subscriber(lines: Lines, verbosity: Verbosity, output: Output) -> impl Subscriber + Send + Sync {
    let layer = tracing_subscriber::fmt::layer()
        .event_format(lines)
        // It would complain on standard error, and panic if that is closed as well.
        .log_internal_errors(false)
        .with_writer(output);
    tracing_subscriber::registry().with(LevelFilter::from(verbosity)).with(layer)
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The kernel's number of this thread; asked for once per thread.
fn thread_id() -> i32 {
    thread_local!(static ID: i32 = rustix::thread::gettid().as_raw_nonzero().get());
    // A thread may still log while its thread-local values are being dropped.
    ID.try_with(|id| *id).unwrap_or_else(|_| rustix::thread::gettid().as_raw_nonzero().get())
}

/// Makes a line of an event.
struct Lines {
    layout: Layout,
    now: fn() -> Duration,
    thread: fn() -> i32,
}

enum Layout {
    Fsq { colours: bool },
    Json,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.layout {
            Layout::Fsq { colours } => self.fsq(&mut writer, event, colours),
            Layout::Json => self.json(&mut writer, event),
        }
    }
}

impl Lines {
    fn fsq(&self, out: &mut dyn fmt::Write, event: &Event<'_>, colours: bool) -> fmt::Result {
        let (letter, _, colour) = severity(*event.metadata().level());
        if colours {
            write!(out, "[\x1b[{colour}m{letter}\x1b[0m]")?;
        } else {
            write!(out, "[{letter}]")?;
        }
        let (now, thread) = ((self.now)(), (self.thread)());
        write!(out, " {}.{:06} [{thread}] ", now.as_secs(), now.subsec_micros())?;
        let (file, line) = place(event);
        write!(out, "{file}:{line} ")?;
        let mut fields = TextFields { out: Escaped::line(out), extra: String::new() };
        event.record(&mut fields);
        let TextFields { mut out, extra } = fields;
        out.write_str(&extra)?;
        out.end()
    }

    fn json(&self, out: &mut dyn fmt::Write, event: &Event<'_>) -> fmt::Result {
        let (_, level, _) = severity(*event.metadata().level());
        let (now, thread) = ((self.now)(), (self.thread)());
        let (file, line) = place(event);
        write!(out, "{{\"ts\":{}.{:06}", now.as_secs(), now.subsec_micros())?;
        write!(out, ",\"level\":\"{level}\",\"tid\":{thread},\"where\":\"")?;
        write!(Escaped::json(out), "{file}:{line}")?;
        out.write_str("\",\"message\":\"")?;
        let mut fields = JsonFields { message: Escaped::json(out), fields: String::new() };
        event.record(&mut fields);
        let fields = fields.fields;
        writeln!(out, "\",\"fields\":{{{fields}}}}}")
    }
}

/// Letter, name and terminal colour of a level.
fn severity(level: Level) -> (char, &'static str, u8) {
    match level {
        Level::ERROR => ('E', "error", 31),
        Level::WARN => ('W', "warn", 33),
        Level::INFO => ('M', "message", 32),
        Level::DEBUG => ('I', "info", 36),
        Level::TRACE => ('D', "debug", 90),
    }
}

fn place<'a>(event: &Event<'a>) -> (&'a str, u32) {
    let metadata = event.metadata();
    let path = metadata.file().unwrap_or("?");
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path);
    (name, metadata.line().unwrap_or(0))
}

/// The message goes straight out; what else an event carries follows it, in whatever order the
/// two are recorded.
struct TextFields<'a> {
    out: Escaped<'a>,
    extra: String,
}

impl Visit for TextFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Both are strings in memory, which takes everything.
        let _ = if field.name() == "message" {
            write!(self.out, "{value:?}")
        } else {
            write!(self.extra, " {}={value:?}", field.name())
        };
    }
}

struct JsonFields<'a> {
    message: Escaped<'a>,
    fields: String,
}

impl JsonFields<'_> {
    fn key(&mut self, field: &Field) {
        let comma = if self.fields.is_empty() { "" } else { "," };
        let _ = write!(self.fields, "{comma}\"");
        let _ = Escaped::json(&mut self.fields).write_str(field.name());
        self.fields.push_str("\":");
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field);
        let _ = write!(self.fields, "{value}");
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if field.name() == "message" {
            let _ = self.message.write_fmt(value);
            return;
        }
        self.key(field);
        self.fields.push('"');
        let _ = Escaped::json(&mut self.fields).write_fmt(value);
        self.fields.push('"');
    }
}

impl Visit for JsonFields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.number(field, value);
        } else {
            self.text(field, format_args!("{value}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests;
