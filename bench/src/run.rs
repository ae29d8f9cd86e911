//! One run: the engine, and around it what watches: progress, arrivals, the server's process.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::arrival::Lookout;
use crate::engine::{Clock, Engine};
use crate::error::Error;
use crate::feed::Feed;
use crate::idle::Idle;
use crate::plan::Plan;
use crate::record::Timed;
use crate::report::{Report, describe};
use crate::upload::{Shared, Totals};
use crate::usage::Usage;

/// How often progress is shown.
const PROGRESS_TICK: Duration = Duration::from_millis(200);

/// What is watched in a run.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Arrivals at the destination.
    pub lookout: Option<Lookout>,
    /// Process of the server.
    pub pid: Option<u32>,
    /// Show progress, if standard error is a terminal.
    pub has_progress: bool,
    /// Ends the run early.
    pub is_stopped: Arc<AtomicBool>,
}

/// Runs a plan.
///
/// # Errors
/// If it could not be run at all; failed files are in the report.
pub fn run(plan: &Plan, engine: Engine, watch: &Watch) -> Result<Report, Error> {
    // Held to the end of the run.
    let _idle = Idle::sign_on(plan)?;
    let feed = Feed::new(plan.quota, Arc::clone(&watch.is_stopped));
    let totals = Totals::default();
    let shared = Shared { plan, feed: &feed, totals: &totals };
    let usage = |pid| Usage::of(pid).map_err(Error::io(format!("CPU time of process {pid}")));
    let used_before = watch.pid.map(usage).transpose()?;
    let clock = Clock::start();

    let (record, arrivals) = thread::scope(|scope| {
        let (announce, announced) = mpsc::channel();
        let watcher = watch
            .lookout
            .as_ref()
            .map(|lookout| scope.spawn(move || lookout.watch(plan, clock, &announced)));
        let (over, is_over) = mpsc::channel::<()>();
        if watch.has_progress && stderr().is_terminal() {
            let totals = &totals;
            scope.spawn(move || show_progress(totals, clock, &is_over));
        }
        let record = engine.run(shared, clock, watcher.is_some().then_some(&announce));
        drop((announce, over));
        let arrivals = watcher.map(|watcher| watcher.join().expect("the watcher does not panic"));
        record.map(|record| (record, arrivals))
    })?;

    // Before the report is made: the server idles now, and costs nothing more.
    let used = watch.pid.map(usage).transpose()?;
    let mut report = Report {
        what: describe(plan, engine),
        record,
        usage: used.zip(used_before).map(|(used, before)| used.since(before)),
        total_bytes: totals.bytes.load(Ordering::Relaxed),
        missing: arrivals.as_ref().map(|arrivals| arrivals.missing),
        arrived_ns: arrivals.as_ref().map(|arrivals| arrivals.last_ns),
        is_interrupted: feed.is_stopped(),
        is_paced: plan.quota.rate.is_some(),
    };
    if let Some(arrivals) = arrivals {
        report.record.times_mut(Timed::Arrival).merge(&arrivals.times);
    }
    Ok(report)
}

/// Until the other end of `is_over` is dropped.
fn show_progress(totals: &Totals, clock: Clock, is_over: &Receiver<()>) {
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("a constant template");
    let bar = ProgressBar::new_spinner().with_style(style);
    let (mut last_ns, mut last_bytes) = (0, 0);
    while is_over.recv_timeout(PROGRESS_TICK) == Err(RecvTimeoutError::Timeout) {
        let (now_ns, bytes) = (clock.now_ns(), totals.bytes.load(Ordering::Relaxed));
        // Bytes per ns are thousands of MB per s.
        let mb_per_s = (bytes - last_bytes) as f64 * 1e3 / (now_ns - last_ns).max(1) as f64;
        bar.set_message(format!(
            "{:.1} s  {:.3} GB  {mb_per_s:.1} MB/s  {} files  {} failed",
            now_ns as f64 / 1e9,
            bytes as f64 / 1e9,
            totals.files.load(Ordering::Relaxed),
            totals.failed.load(Ordering::Relaxed),
        ));
        bar.tick();
        (last_ns, last_bytes) = (now_ns, bytes);
    }
    bar.finish_and_clear();
}
