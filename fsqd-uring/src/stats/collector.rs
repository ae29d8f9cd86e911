//! [`Collector`]: asks the rings of a running daemon for their numbers and has them logged.
//!
//! Invariant: a ring that does not answer holds nobody up for long.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::usage::{RingThread, Scan};
use super::{Sample, Samples, Statistics};
use crate::config::LogFormat;
use crate::drain::SharedCounters;
use crate::ingest::inbox::{Inbox, Message};
use crate::ingest::worker::{Worker, WorkerCounters};

/// How long all ingest rings together are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the numbers of a drain worker come from.
#[derive(Debug)]
pub struct Consumer {
    /// What it has moved.
    pub counters: Arc<SharedCounters>,
    /// What it costs.
    pub usage: Arc<RingThread>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Collector {
    rings: Vec<(Arc<Inbox>, Arc<RingThread>)>,
    consumers: Vec<Consumer>,
    statistics: Statistics,
    interval: Option<Duration>,
    next: Option<Instant>,
}

impl Collector {
    /// For all rings of a daemon, which have just been started. `interval` is the time between two
    /// reports that nobody asks for; zero: there are none.
    #[must_use]
    pub fn new(
        format: LogFormat,
        interval: Duration,
        workers: &[Worker],
        consumers: Vec<Consumer>,
    ) -> Self {
        let now = Instant::now();
        let interval = (!interval.is_zero()).then_some(interval);
        let source = |worker: &Worker| (Arc::clone(&worker.inbox), Arc::clone(&worker.usage));
        Self {
            rings: workers.iter().map(source).collect(),
            statistics: Statistics::new(format, workers.len(), consumers.len(), now),
            consumers,
            interval,
            next: interval.map(|interval| now + interval),
        }
    }

    /// Reports if it is time; how long until it is again, at most `longest`.
    pub fn tick(&mut self, longest: Duration) -> Duration {
        let Some((next, interval)) = self.next.zip(self.interval) else { return longest };
        let now = Instant::now();
        if now < next {
            return longest.min(next - now);
        }
        // A late report is not made up for by an early one.
        let following = if next + interval > now { next + interval } else { now + interval };
        self.next = Some(following);
        self.report();
        longest.min(following.saturating_duration_since(Instant::now()))
    }

    /// Logs what all rings have done so far.
    pub fn report(&mut self) {
        let counted = self.ask();
        self.log(counted, true);
    }

    /// Logs what they have done in all; `counted` is what the ingest rings have said when they
    /// ended. At the default verbosity only where reports are wanted at all.
    pub fn report_end(&mut self, counted: Vec<Option<WorkerCounters>>) {
        self.log(counted, self.interval.is_some());
    }

    fn ask(&self) -> Vec<Option<WorkerCounters>> {
        let mut counted = vec![None; self.rings.len()];
        let (to, answers) = sync_channel(self.rings.len());
        for (number, (inbox, _)) in self.rings.iter().enumerate() {
            inbox.post(Message::Count(number, to.clone()));
        }
        let until = Instant::now() + PATIENCE;
        for _ in 0..self.rings.len() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((number, counters)) = answers.recv_timeout(left) else { break };
            counted[number] = Some(counters);
        }
        counted
    }

    fn log(&mut self, counted: Vec<Option<WorkerCounters>>, asked: bool) {
        let scan = Scan::now();
        let ingest = counted.into_iter().zip(&self.rings).map(|(counters, (_, thread))| {
            let usage = thread.sample(&scan);
            counters.map(|counters| Sample { counters, usage })
        });
        let drain = self.consumers.iter().map(|consumer| Sample {
            counters: consumer.counters.get(),
            usage: consumer.usage.sample(&scan),
        });
        let samples = Samples { ingest: ingest.collect(), drain: drain.collect() };
        self.statistics.report(Instant::now(), &samples, asked);
    }
}
