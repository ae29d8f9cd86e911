//! The daemon's own numbers, in the log: a line for each ring, and one for all of a kind.
//!
//! ```text
//! [M] 1579167563.382178 [174822] mod.rs:190 ring 0: sessions 3, files 12, bytes 1258291200, ...
//! ```
//! Who counts is elsewhere: an ingest ring's thread in plain fields that it copies when asked
//! ([`crate::ingest::inbox::Message::Count`]), a drain worker in a place that all may read
//! ([`crate::drain::SharedCounters`]), and [`usage`] looks at the threads from outside.
//!
//! Invariant: the numbers of a line are of one ring since its start, those from `interval_s` on of
//! the time since the line before (the first time since the start). What cannot be told is
//! `unknown`, not 0; in JSON it is left out.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use self::usage::{Usage, Workers};
use crate::config::LogFormat;
use crate::drain::DrainCounters;
use crate::ingest::worker::WorkerCounters;

pub mod collector;
pub mod usage;

const GIB: f64 = (1_u64 << 30) as f64;

/// Counters of a ring and what it has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample<T> {
    /// What it has done.
    pub counters: T,
    /// Its thread; `None`: cannot be told.
    pub usage: Option<Usage>,
}

impl<T: Copy + Default + std::ops::AddAssign> Sample<T> {
    fn sum<'a>(samples: impl IntoIterator<Item = &'a Self>) -> Self
    where
        T: 'a,
    {
        let add = |mut sum: Self, sample: &Self| {
            sum.counters += sample.counters;
            sum.usage = sum.usage.zip(sample.usage).map(|(mut sum, usage)| {
                sum += usage;
                sum
            });
            sum
        };
        let none = Usage { workers: Some(Workers::default()), ..Usage::default() };
        let nothing = Self { counters: T::default(), usage: Some(none) };
        samples.into_iter().fold(nothing, add)
    }
}

/// An ingest ring.
pub type IngestSample = Sample<WorkerCounters>;
/// A drain worker.
pub type DrainSample = Sample<DrainCounters>;

/// What all rings show at one instant; `None`: one that has not answered in time.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Ingest rings, by number.
    pub ingest: Vec<Option<IngestSample>>,
    /// Drain workers, by number.
    pub drain: Vec<DrainSample>,
}

/// A value as it stands in a line.
trait Show {
    fn show(&self, text: &mut String);
}

impl Show for u64 {
    fn show(&self, text: &mut String) {
        // A string takes everything.
        let _ = write!(text, "{self}");
    }
}

impl Show for f64 {
    fn show(&self, text: &mut String) {
        let _ = write!(text, "{self}");
    }
}

impl<T: Show> Show for Option<T> {
    fn show(&self, text: &mut String) {
        match self {
            Some(value) => value.show(text),
            None => text.push_str("unknown"),
        }
    }
}

/// What makes a log line of an event.
#[derive(Clone, Copy, Debug)]
struct Manner {
    format: LogFormat,
    /// At the default verbosity; otherwise a level below it.
    asked: bool,
}

/// Logs a line `name: key value, ...`, or its keys as fields.
macro_rules! log_line {
    ($manner:expr, $name:expr, $($key:ident = $value:expr,)+) => {{
        // All at once: a key may have the name of a variable that the next value is made of.
        let ($($key,)+) = ($($value,)+);
        match ($manner.format, $manner.asked) {
            (LogFormat::Json, true) => info!($($key,)+ "{}", $name),
            (LogFormat::Json, false) => debug!($($key,)+ "{}", $name),
            (LogFormat::Fsq, asked) => {
                let mut text = String::new();
                $(
                    text.push_str(if text.is_empty() { "" } else { ", " });
                    text.push_str(concat!(stringify!($key), " "));
                    Show::show(&$key, &mut text);
                )+
                if asked { info!("{}: {text}", $name) } else { debug!("{}: {text}", $name) }
            }
        }
    }};
}

/// Logs samples, and remembers them for the rates of the next ones.
#[derive(Debug)]
pub struct Statistics {
    format: LogFormat,
    begun: Instant,
    ingest: Vec<(Instant, IngestSample)>,
    drain: Vec<(Instant, DrainSample)>,
}

impl Statistics {
    /// For so many rings of each kind that have done nothing before `now`.
    #[must_use]
    pub fn new(format: LogFormat, ingest: usize, drain: usize, now: Instant) -> Self {
        let ingest = vec![(now, Sample::default()); ingest];
        let drain = vec![(now, Sample::default()); drain];
        Self { format, begun: now, ingest, drain }
    }

    /// Logs one line for each ring and one for all of each kind. `asked` raises them to what is
    /// logged by default.
    pub fn report(&mut self, now: Instant, samples: &Samples, asked: bool) {
        let manner = Manner { format: self.format, asked };
        let period = now.saturating_duration_since(self.begun);
        let before = Sample::sum(self.ingest.iter().map(|(_, sample)| sample));
        for (number, sample) in samples.ingest.iter().enumerate() {
            let Some((since, last)) = self.ingest.get_mut(number) else { break };
            let Some(sample) = sample else {
                warn!("ring {number} has not said in time what it has counted");
                continue;
            };
            let elapsed = now.saturating_duration_since(*since);
            log_ingest(manner, &format!("ring {number}"), sample, last, elapsed);
            (*since, *last) = (now, *sample);
        }
        let sum = Sample::sum(self.ingest.iter().map(|(_, sample)| sample));
        log_ingest(manner, "all rings", &sum, &before, period);

        let before = Sample::sum(self.drain.iter().map(|(_, sample)| sample));
        for (number, sample) in samples.drain.iter().enumerate() {
            let Some((since, last)) = self.drain.get_mut(number) else { break };
            let elapsed = now.saturating_duration_since(*since);
            log_drain(manner, &format!("drain ring {number}"), sample, last, elapsed);
            (*since, *last) = (now, *sample);
        }
        let sum = Sample::sum(self.drain.iter().map(|(_, sample)| sample));
        log_drain(manner, "all drain rings", &sum, &before, period);
        self.begun = now;
    }
}

fn log_ingest(
    manner: Manner,
    name: &str,
    now: &IngestSample,
    last: &IngestSample,
    period: Duration,
) {
    let (shard, ring, usage) = (&now.counters.shard, &now.counters.ring, now.usage);
    let past = &last.counters.shard;
    let bytes = shard.bytes - past.bytes;
    let cost = cost_between(usage, last.usage);
    log_line!(
        manner,
        name,
        sessions = shard.sessions,
        files = shard.files,
        bytes = shard.bytes,
        chunks = shard.chunks,
        receives = shard.receives,
        short_receives = shard.short_receives,
        writes = shard.writes,
        bytes_written = shard.bytes_written,
        short_writes = shard.short_writes,
        resubmissions = shard.resubmissions,
        enters = ring.enters,
        completions = ring.completions,
        punts = punts(usage),
        cpu_s = usage.map(|usage| seconds(usage.cpu)),
        user_s = usage.map(|usage| seconds(usage.user)),
        system_s = usage.map(|usage| seconds(usage.system)),
        worker_cpu_s = worker_cpu(usage),
        cpu_s_per_gib = per_gib(usage.map(|usage| usage.total()), shard.bytes),
        interval_s = seconds(period),
        interval_bytes_per_s = per_second(bytes, period),
        interval_written_per_s = per_second(shard.bytes_written - past.bytes_written, period),
        interval_chunks_per_s = per_second(shard.chunks - past.chunks, period),
        interval_cpu_s = cost.map(seconds),
        interval_cpu_s_per_gib = per_gib(cost, bytes),
    );
}

fn log_drain(manner: Manner, name: &str, now: &DrainSample, last: &DrainSample, period: Duration) {
    let (counters, past, usage) = (&now.counters, &last.counters, now.usage);
    let written = counters.bytes_written - past.bytes_written;
    let cost = cost_between(usage, last.usage);
    log_line!(
        manner,
        name,
        bytes_read = counters.bytes_read,
        bytes_written = counters.bytes_written,
        enters = counters.ring.enters,
        completions = counters.ring.completions,
        punts = punts(usage),
        cpu_s = usage.map(|usage| seconds(usage.cpu)),
        user_s = usage.map(|usage| seconds(usage.user)),
        system_s = usage.map(|usage| seconds(usage.system)),
        worker_cpu_s = worker_cpu(usage),
        cpu_s_per_gib = per_gib(usage.map(|usage| usage.total()), counters.bytes_written),
        interval_s = seconds(period),
        interval_read_per_s = per_second(counters.bytes_read - past.bytes_read, period),
        interval_written_per_s = per_second(written, period),
        interval_cpu_s = cost.map(seconds),
        interval_cpu_s_per_gib = per_gib(cost, written),
    );
}

fn punts(usage: Option<Usage>) -> Option<u64> {
    Some(usage?.workers?.punts)
}

fn worker_cpu(usage: Option<Usage>) -> Option<f64> {
    Some(seconds(usage?.workers?.cpu))
}

/// CPU time from one sample to the next. Nothing known of the first: it was the start.
fn cost_between(now: Option<Usage>, last: Option<Usage>) -> Option<Duration> {
    let last = last.map_or(Duration::ZERO, |usage| usage.total());
    Some(now?.total().saturating_sub(last))
}

/// To a tenth of a millisecond.
fn seconds(period: Duration) -> f64 {
    (period.as_secs_f64() * 1e4).round() / 1e4
}

/// Whole units a second; 0 for no time.
fn per_second(count: u64, period: Duration) -> u64 {
    let seconds = period.as_secs_f64();
    if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 }
}

/// CPU seconds for each GiB (2^30 bytes); unknown for no bytes.
fn per_gib(cost: Option<Duration>, bytes: u64) -> Option<f64> {
    let gib = bytes as f64 / GIB;
    cost.filter(|_| bytes > 0).map(|cost| (cost.as_secs_f64() / gib * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::ingest::shard::ShardCounters;
    use crate::ring::RingCounters;

    fn usage(ms: u64, workers: Option<(u64, u64)>) -> Usage {
        Usage {
            cpu: Duration::from_millis(ms),
            user: Duration::from_millis(ms / 10 * 10),
            system: Duration::ZERO,
            workers: workers.map(|(ms, punts)| Workers { cpu: Duration::from_millis(ms), punts }),
        }
    }

    #[test]
    fn rates_and_costs() {
        let half = Duration::from_millis(500);
        assert_eq!(per_second(1000, half), 2000);
        assert_eq!(per_second(1000, Duration::ZERO), 0);
        assert_eq!(per_gib(Some(half), 1 << 30), Some(0.5));
        assert_eq!(per_gib(Some(half), 3 << 29), Some(0.3333));
        assert_eq!(per_gib(Some(half), 0), None);
        assert_eq!(per_gib(None, 1 << 30), None);
        assert_eq!(seconds(Duration::from_micros(1_234_567)), 1.2346);
        let (early, late) = (usage(100, Some((40, 3))), usage(350, Some((90, 5))));
        assert_eq!(cost_between(Some(late), Some(early)), Some(Duration::from_millis(300)));
        assert_eq!(cost_between(Some(late), None), Some(Duration::from_millis(440)));
        assert_eq!(cost_between(None, Some(early)), None);
    }

    #[test]
    fn a_sum_knows_what_all_know() {
        let sample = |bytes, usage| Sample {
            counters: WorkerCounters {
                shard: ShardCounters { bytes, chunks: 1, ..ShardCounters::default() },
                ring: RingCounters { enters: 10, completions: 20 },
            },
            usage,
        };
        let known =
            [sample(5, Some(usage(10, Some((1, 2))))), sample(7, Some(usage(20, Some((3, 4)))))];
        let sum = Sample::sum(&known);
        assert_eq!((sum.counters.shard.bytes, sum.counters.shard.chunks), (12, 2));
        assert_eq!(sum.counters.ring, RingCounters { enters: 20, completions: 40 });
        assert_eq!(sum.usage, Some(usage(30, Some((4, 6)))));
        let hidden = Sample::sum([&known[0], &sample(1, Some(usage(20, None)))]);
        assert_eq!(hidden.usage, Some(usage(30, None)));
        assert_eq!(Sample::sum([&known[0], &sample(1, None)]).usage, None);
    }

    /// What the log gets.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(events: impl FnOnce()) -> Vec<String> {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt::Subscriber::builder()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        tracing::subscriber::with_default(subscriber, events);
        let text = String::from_utf8(sink.0.lock().expect("no panic").clone()).expect("UTF-8");
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }

    /// A ring after `round` seconds in each of which it has done the same.
    fn busy(round: u64) -> Samples {
        let shard = ShardCounters {
            sessions: 1,
            files: 2 * round,
            bytes: round << 30,
            chunks: 1000 * round,
            receives: 3000 * round,
            short_receives: 5 * round,
            writes: 2048 * round,
            bytes_written: round << 29,
            short_writes: 3,
            resubmissions: 8 * round,
        };
        let ring = RingCounters { enters: 4000 * round, completions: 6000 * round };
        let counters = WorkerCounters { shard, ring };
        let drained = DrainCounters { bytes_read: round << 20, bytes_written: round << 19, ring };
        Samples {
            ingest: vec![
                Some(Sample { counters, usage: Some(usage(300 * round, Some((100 * round, 7)))) }),
                Some(Sample { counters, usage: Some(usage(300 * round, Some((100 * round, 0)))) }),
            ],
            drain: vec![Sample { counters: drained, usage: Some(usage(10 * round, None)) }],
        }
    }

    #[test]
    fn a_report_has_totals_and_rates_of_each_ring_and_of_all() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let lines = logged(|| {
            let mut statistics = Statistics::new(LogFormat::Fsq, 2, 1, start);
            statistics.report(at(2), &busy(2), true);
            statistics.report(at(6), &busy(10), true);
        });
        let one = "sessions 1, files 20, bytes 10737418240, chunks 10000, receives 30000, \
                   short_receives 50, writes 20480, bytes_written 5368709120, short_writes 3, \
                   resubmissions 80, enters 40000, completions 60000, punts 7, cpu_s 3, user_s 3, \
                   system_s 0, worker_cpu_s 1, cpu_s_per_gib 0.4, interval_s 4, \
                   interval_bytes_per_s 2147483648, interval_written_per_s 1073741824, \
                   interval_chunks_per_s 2000, interval_cpu_s 3.2, interval_cpu_s_per_gib 0.4";
        let all = "sessions 2, files 40, bytes 21474836480, chunks 20000, receives 60000, \
                   short_receives 100, writes 40960, bytes_written 10737418240, short_writes 6, \
                   resubmissions 160, enters 80000, completions 120000, punts 7, cpu_s 6, \
                   user_s 6, system_s 0, worker_cpu_s 2, cpu_s_per_gib 0.4, interval_s 4, \
                   interval_bytes_per_s 4294967296, interval_written_per_s 2147483648, \
                   interval_chunks_per_s 4000, interval_cpu_s 6.4, interval_cpu_s_per_gib 0.4";
        let drain = "bytes_read 10485760, bytes_written 5242880, enters 40000, completions 60000, \
                     punts unknown, cpu_s 0.1, user_s 0.1, system_s 0, worker_cpu_s unknown, \
                     cpu_s_per_gib 20.48, interval_s 4, interval_read_per_s 2097152, \
                     interval_written_per_s 1048576, interval_cpu_s 0.08, \
                     interval_cpu_s_per_gib 20.48";
        let idle = one.replace("punts 7", "punts 0");
        let expected = [
            format!("INFO ring 0: {one}"),
            format!("INFO ring 1: {idle}"),
            format!("INFO all rings: {all}"),
            format!("INFO drain ring 0: {drain}"),
            format!("INFO all drain rings: {drain}"),
        ];
        assert_eq!(lines[5..], expected);
        assert!(lines[2].contains(" interval_bytes_per_s 2147483648,"), "{}", lines[2]);
    }

    #[test]
    fn a_ring_that_does_not_answer_is_named_and_its_next_rate_spans_both_intervals() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let lines = logged(|| {
            let mut statistics = Statistics::new(LogFormat::Fsq, 2, 1, start);
            let mut silent = busy(1);
            silent.ingest[1] = None;
            statistics.report(at(1), &silent, true);
            statistics.report(at(4), &busy(4), true);
        });
        assert_eq!(lines[1], "WARN ring 1 has not said in time what it has counted");
        assert!(lines[2].contains("all rings: sessions 1, files 2,"), "{}", lines[2]);
        assert!(lines[6].contains(" interval_s 4, interval_bytes_per_s 1073741824,"), "{lines:?}");
    }

    #[test]
    fn json_has_the_keys_as_fields() {
        let start = Instant::now();
        let lines = logged(|| {
            let mut statistics = Statistics::new(LogFormat::Json, 2, 1, start);
            statistics.report(start + Duration::from_secs(1), &busy(1), true);
        });
        assert!(
            lines[0].starts_with("INFO ring 0 sessions=1 files=2 bytes=1073741824 "),
            "{lines:?}"
        );
        assert!(lines[0].contains(" punts=7 cpu_s=0.3 "), "{lines:?}");
        assert!(!lines[3].contains("punts") && lines[3].contains(" bytes_read=1048576 "));
    }

    #[test]
    fn values_in_words() {
        let mut text = String::new();
        7_u64.show(&mut text);
        text.push(' ');
        0.25.show(&mut text);
        text.push(' ');
        Some(3_u64).show(&mut text);
        text.push(' ');
        None::<f64>.show(&mut text);
        assert_eq!(text, "7 0.25 3 unknown");
    }
}
