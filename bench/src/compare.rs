//! Two servers in turn under the same load, and what this machine can do in between.
//!
//! Machines are shared and their disks vary by a factor of 3 within minutes, so two absolute
//! numbers taken minutes apart say nothing. Invariant: only runs that follow each other are
//! compared, and every result is a ratio with its spread.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::arrival::Lookout;
use crate::error::Error;
use crate::limit::yardstick::Yardstick;
use crate::machine::Machine;
use crate::options::{CompareArgs, LoadArgs, StartArgs};
use crate::record::Timed;
use crate::report::Report;
use crate::run::{Watch, run};
use crate::server::{Started, Target};

/// One run of each server, one after the other.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The first server.
    pub a: Report,
    /// The second one.
    pub b: Report,
    /// What the machine could do around each of the two, the mean of before and after, in the
    /// yardstick's unit, if it was probed.
    pub limits: Option<[f64; 2]>,
}

/// Smallest, middle and largest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one, or the mean of the middle two.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these numbers; `None` without any finite one.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> =
            numbers.into_iter().filter(|number| number.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Some(Self { min, median, max })
    }

    fn to_json(self) -> Value {
        json!({"min": self.min, "median": self.median, "max": self.max})
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, max } = self;
        write!(f, "min {min:.3}  median {median:.3}  max {max:.3}")
    }
}

/// All pairs.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Where.
    pub machine: Machine,
    /// What the limits are of.
    pub yardstick: Option<Yardstick>,
    /// In the order in which they were run.
    pub pairs: Vec<Pair>,
}

/// A number of a report, and how it is called; larger is better unless it says otherwise.
type Quantity = (&'static str, fn(&Report) -> f64);

/// What is compared.
const QUANTITIES: [Quantity; 5] = [
    ("bytes/s", Report::bytes_per_s),
    ("bytes/s arrived", |report| report.arrived_bytes_per_s().unwrap_or(f64::NAN)),
    ("files/s", Report::files_per_s),
    ("p99 of a file's time (less is better)", |report| {
        report.record.times(Timed::File).percentile_ns(99.0) as f64
    }),
    ("CPU time per GiB (less is better)", |report| report.cpu_s_per_gib().unwrap_or(f64::NAN)),
];

/// Runs all pairs. `say` gets a line after each.
///
/// # Errors
/// If a server does not start, does not acknowledge everything, or a probe fails: a ratio of such
/// runs would mean nothing.
pub fn compare(
    args: &CompareArgs,
    is_stopped: &Arc<AtomicBool>,
    mut say: impl FnMut(&str),
) -> Result<Comparison, Error> {
    let limits = args.probe.limits(&args.load, &args.arrival)?;
    let yardstick = limits.as_ref().map(|&(yardstick, _)| yardstick);
    let probe = || {
        if let Some(command) = &args.probe.between {
            shell(command)?;
        }
        limits.as_ref().map(|(yardstick, limits)| yardstick.probe(limits)).transpose()
    };
    let loads = args.loads();
    let mut before = probe()?;
    let mut one = |target, load| {
        let report = measure(load, &args.start, target, args.arrival.lookout(), is_stopped)?;
        let after = probe()?;
        let limit = before.zip(after).map(|(before, after)| f64::midpoint(before, after));
        before = after;
        Ok::<_, Error>((limit, report))
    };
    let mut pairs = Vec::new();
    for round in 1..=args.rounds {
        let (limit_a, a) = one(&args.a, &loads[0])?;
        let (limit_b, b) = one(&args.b, &loads[1])?;
        let pair = Pair { a, b, limits: limit_a.zip(limit_b).map(|(a, b)| [a, b]) };
        say(&format!("{round:>3}  {}", pair.line(yardstick)));
        pairs.push(pair);
    }
    Ok(Comparison { machine: Machine::here(), yardstick, pairs })
}

/// Starts the server if it is to be started, and runs the load on it.
///
/// # Errors
/// If the server does not start or stop as it should, does not acknowledge everything, or if the
/// user has stopped the measurement.
pub fn measure(
    load: &LoadArgs,
    start: &StartArgs,
    target: &Target,
    lookout: Option<Lookout>,
    is_stopped: &Arc<AtomicBool>,
) -> Result<Report, Error> {
    let plan = load.plan(&target.address)?;
    let command = target.command.as_ref();
    let started = command
        .map(|command| {
            let log = start.server_log.as_deref();
            Started::start(command, &plan.addresses, log, start.start_wait)
        })
        .transpose()?;
    let watch = Watch {
        lookout,
        pid: started.as_ref().map(Started::pid),
        is_stopped: Arc::clone(is_stopped),
        ..Watch::default()
    };
    let report = run(&plan, load.engine, &watch)?;
    if report.is_interrupted {
        return Err(Error::Failed("interrupted".into()));
    }
    if !report.is_good() {
        let text = format!("not everything was acknowledged, or did not arrive\n{report}");
        return Err(Error::Failed(text));
    }
    started.map_or(Ok(()), Started::stop)?;
    Ok(report)
}

/// Runs a command of the user.
///
/// # Errors
/// If it fails.
pub(crate) fn shell(command: &str) -> Result<(), Error> {
    let status = Command::new("sh")
        .args(["-c", command])
        .status()
        .map_err(Error::io(format!("running '{command}'")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::Failed(format!("'{command}' failed, {status}")))
    }
}

impl Comparison {
    /// A's number divided by B's, pair by pair.
    fn ratios(&self, of: fn(&Report) -> f64) -> Option<Spread> {
        Spread::of(self.pairs.iter().map(|pair| of(&pair.a) / of(&pair.b)))
    }

    /// The servers' shares of what the machine could do.
    fn shares(&self) -> Option<[Spread; 2]> {
        let yardstick = self.yardstick?;
        let share = |server: usize| {
            Spread::of(self.pairs.iter().filter_map(|pair| {
                let report = [&pair.a, &pair.b][server];
                pair.limits.map(|limits| yardstick.of(report) / limits[server])
            }))
        };
        Some([share(0)?, share(1)?])
    }

    /// Everything, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let ratios = QUANTITIES.iter().map(|&(name, of)| {
            (name.to_owned(), self.ratios(of).map_or(Value::Null, Spread::to_json))
        });
        let pairs = self.pairs.iter().map(
            |pair| json!({"a": pair.a.to_json(), "b": pair.b.to_json(), "limits": pair.limits}),
        );
        json!({
            "machine": self.machine.to_json(),
            "a_to_b": ratios.collect::<serde_json::Map<_, _>>(),
            "yardstick": self.yardstick.map(|yardstick| yardstick.to_string()),
            "share_of_limit": self.shares().map(|shares| shares.map(Spread::to_json)),
            "pairs": pairs.collect::<Vec<_>>(),
        })
    }
}

impl Pair {
    /// For whoever watches.
    fn line(&self, yardstick: Option<Yardstick>) -> String {
        let [a, b] = [&self.a, &self.b].map(Report::bytes_per_s);
        let limits = self.limits.zip(yardstick).map(|([limit_a, limit_b], yardstick)| {
            format!("  limits {} {}", yardstick.show(limit_a), yardstick.show(limit_b))
        });
        format!(
            "A {:>9.1} MB/s  B {:>9.1} MB/s  A/B {:>7.3}  files/s {:>8.1} {:>8.1}{}",
            a / 1e6,
            b / 1e6,
            a / b,
            self.a.files_per_s(),
            self.b.files_per_s(),
            limits.unwrap_or_default()
        )
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        if let Some(pair) = self.pairs.first() {
            writeln!(f, "A: {}\nB: {}", pair.a.what, pair.b.what)?;
        }
        write!(f, "A/B over {} pairs", self.pairs.len())?;
        for (name, of) in QUANTITIES {
            if let Some(spread) = self.ratios(of) {
                write!(f, "\n  {spread}  {name}")?;
            }
        }
        if let Some([a, b]) = self.shares() {
            let yardstick = self.yardstick.map(|yardstick| yardstick.to_string());
            let yardstick = yardstick.unwrap_or_default();
            write!(f, "\nshare of the limit ({yardstick})\n  {a}  A\n  {b}  B")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn report(bytes: u64) -> Report {
        let mut record = Record::default();
        (record.files, record.bytes) = (10, bytes);
        (record.first_ns, record.last_ns) = (Some(0), 1_000_000_000);
        record.times_mut(Timed::File).add(2_000_000);
        Report {
            what: "a run".into(),
            record,
            usage: None,
            total_bytes: bytes,
            missing: None,
            arrived_ns: None,
            is_interrupted: false,
            is_paced: false,
        }
    }

    fn comparison(pairs: &[(u64, u64)]) -> Comparison {
        let pair = |&(a, b)| Pair { a: report(a), b: report(b), limits: Some([1000.0, 2000.0]) };
        let yardstick = Some(Yardstick::Staging);
        Comparison {
            machine: Machine::default(),
            yardstick,
            pairs: pairs.iter().map(pair).collect(),
        }
    }

    #[test]
    fn spreads_have_a_middle() {
        let spread = |numbers: &[f64]| Spread::of(numbers.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[f64::NAN]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some(Spread { min: 1.0, median: 3.0, max: 9.0 }));
        assert_eq!(spread(&[3.0, 1.0]), Some(Spread { min: 1.0, median: 2.0, max: 3.0 }));
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The machine was three times as fast in the second round: the ratio of the sums would be
        // 1.5, that of the medians depends on luck; each pair says 2 or 1.
        let comparison = comparison(&[(200, 100), (600, 300), (500, 500)]);
        let ratios = comparison.ratios(Report::bytes_per_s);
        assert_eq!(ratios, Some(Spread { min: 1.0, median: 2.0, max: 2.0 }));
        let shares = comparison.shares().expect("limits were probed");
        assert_eq!(shares[0], Spread { min: 0.2, median: 0.5, max: 0.6 });
        assert_eq!(shares[1], Spread { min: 0.05, median: 0.15, max: 0.25 });
        let text = comparison.to_string();
        assert!(text.contains("min 1.000  median 2.000  max 2.000  bytes/s"), "{text}");
        // Nobody measured it, so nobody is told a ratio of nothing.
        assert!(!text.contains("CPU"), "{text}");
        assert_eq!(comparison.to_json()["a_to_b"]["bytes/s"]["median"], 2.0);
    }
}
