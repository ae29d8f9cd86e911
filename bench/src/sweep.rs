//! Many runs: connections x file size x window, with what they were taken on.
//!
//! Invariant: what is written can be published and repeated: every run with its numbers, the
//! machine, the load; no password, no name of a host. Points are visited round by round, so that
//! what changes on the machine meanwhile does not look like an effect of one of the axes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::compare::{measure, shell};
use crate::error::Error;
use crate::limit::yardstick::Yardstick;
use crate::machine::{Machine, file_system};
use crate::options::{LoadArgs, SweepArgs};
use crate::plan::Behaviour;
use crate::record::Timed;
use crate::report::Report;
use crate::size::{Sizes, show_bytes};

/// Columns of the table.
const COLUMNS: &str = "round,connections,size_bytes,window,files,bytes,seconds,bytes_per_s,\
    files_per_s,open_p99_s,write_p99_s,close_p99_s,file_p50_s,file_p99_s,file_max_s,cpu_s_per_gib,\
    limit,share";

/// A point of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Sessions at a time.
    pub connections: u32,
    /// Size of every file, bytes.
    pub size_bytes: u64,
    /// DATA under way; 1 is the deployed client.
    pub window: u32,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Row {
    /// Counted from 1.
    pub round: u32,
    /// What was varied.
    pub point: Point,
    /// What was measured.
    pub report: Report,
    /// What the machine could do just before, in the yardstick's unit, if it was probed.
    pub limit: Option<(Yardstick, f64)>,
}

/// All runs.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Where.
    pub machine: Machine,
    /// Type of the staging file system, if it is known.
    pub staging: Option<String>,
    /// What the user says about this sweep.
    pub note: String,
    /// When it was over, seconds since 1970.
    pub time_s: u64,
    /// What all runs have in common.
    pub load: Value,
    /// In the order in which they were run.
    pub rows: Vec<Row>,
}

/// Runs every point. `say` gets a line after each.
///
/// # Errors
/// If a server does not start, does not acknowledge everything, or a probe fails.
pub fn sweep(
    args: &SweepArgs,
    is_stopped: &Arc<AtomicBool>,
    mut say: impl FnMut(&str),
) -> Result<Sweep, Error> {
    let mut rows = Vec::new();
    for round in 1..=args.rounds {
        for point in points(args) {
            if let Some(command) = &args.probe.between {
                shell(command)?;
            }
            let load = load_at(&args.load, point);
            let limit = match args.probe.limits(&load, &args.arrival)? {
                Some((yardstick, limits)) => Some((yardstick, yardstick.probe(&limits)?)),
                None => None,
            };
            let lookout = args.arrival.lookout();
            let report = measure(&load, &args.start, &args.server, lookout, is_stopped)?;
            let row = Row { round, point, report, limit };
            say(&row.line());
            rows.push(row);
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Sweep {
        machine: Machine::here(),
        staging: args.probe.staging.as_deref().map(file_system),
        note: args.note.clone(),
        time_s: now.as_secs(),
        load: describe(&args.load),
        rows,
    })
}

/// The axes, the slowest first.
fn points(args: &SweepArgs) -> Vec<Point> {
    let mut points = Vec::new();
    for &size_bytes in &args.sizes {
        for &window in &args.windows {
            for &connections in &args.connections_list {
                points.push(Point { connections, size_bytes, window });
            }
        }
    }
    points
}

fn load_at(load: &LoadArgs, point: Point) -> LoadArgs {
    let client = if point.window == 1 { Behaviour::Deployed } else { Behaviour::Pipelined };
    LoadArgs {
        connections: point.connections,
        size: Sizes::Fixed(point.size_bytes),
        window: Some(point.window),
        client,
        ..load.clone()
    }
}

fn describe(load: &LoadArgs) -> Value {
    json!({
        "destination": load.storagedest.name(),
        "chunk_bytes": load.chunk,
        "edge_bytes": load.edge,
        "files": load.files,
        "duration_s": load.duration.map(|duration| duration.as_secs_f64()),
        "warm_up_s": load.warm_up.as_secs_f64(),
        "rate": load.rate,
        "reconnect": load.reconnect,
        "engine": format!("{:?}", load.engine),
        "seed": load.seed,
    })
}

impl Row {
    /// For whoever watches.
    fn line(&self) -> String {
        let Point { connections, size_bytes, window } = self.point;
        let limit = self.limit.zip(self.share()).map(|((yardstick, limit), share)| {
            format!("  {share:.2} of {}", yardstick.show(limit))
        });
        format!(
            "{:>3}  {connections:>4} connections  {:>9}  window {window:>2}  {:>8.1} MB/s  {:>8.1} \
             files/s{}",
            self.round,
            show_bytes(size_bytes),
            self.report.bytes_per_s() / 1e6,
            self.report.files_per_s(),
            limit.unwrap_or_default()
        )
    }

    /// Share of what the machine could do.
    fn share(&self) -> Option<f64> {
        self.limit.map(|(yardstick, limit)| yardstick.of(&self.report) / limit)
    }

    fn seconds(&self, timed: Timed, percent: f64) -> f64 {
        self.report.record.times(timed).percentile_ns(percent) as f64 / 1e9
    }

    /// A line of the table; what is not known is empty.
    fn csv(&self) -> String {
        let Point { connections, size_bytes, window } = self.point;
        let record = &self.report.record;
        let maybe = |number: Option<f64>| number.map(|n| n.to_string()).unwrap_or_default();
        let mut line = format!(
            "{},{connections},{size_bytes},{window},{},{},{},{},{}",
            self.round,
            record.files,
            record.bytes,
            record.seconds(),
            self.report.bytes_per_s(),
            self.report.files_per_s(),
        );
        for (timed, percent) in [
            (Timed::Open, 99.0),
            (Timed::Write, 99.0),
            (Timed::Close, 99.0),
            (Timed::File, 50.0),
            (Timed::File, 99.0),
            (Timed::File, 100.0),
        ] {
            let _ = write!(line, ",{}", self.seconds(timed, percent));
        }
        let _ = write!(line, ",{}", maybe(self.report.cpu_s_per_gib()));
        let limit = self.limit.map(|(_, limit)| limit);
        let _ = write!(line, ",{},{}", maybe(limit), maybe(self.share()));
        line
    }
}

impl Sweep {
    /// Writes the table, the JSON and the charts to a directory.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let save = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(Error::io(format!("writing {}", path.display())))
        };
        save("raw.csv", self.csv())?;
        save("sweep.json", format!("{:#}\n", self.to_json()))?;
        #[cfg(feature = "plots")]
        for (name, chart) in self.charts() {
            chart.write(dir, name)?;
        }
        Ok(())
    }

    /// The table, with its heading.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut table = format!("{COLUMNS}\n");
        for row in &self.rows {
            table.push_str(&row.csv());
            table.push('\n');
        }
        table
    }

    /// Everything, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "round": row.round,
                "connections": row.point.connections,
                "size_bytes": row.point.size_bytes,
                "window": row.point.window,
                "yardstick": row.limit.map(|(yardstick, _)| yardstick.to_string()),
                "limit": row.limit.map(|(_, limit)| limit),
                "share": row.share(),
                "result": row.report.to_json(),
            })
        });
        json!({
            "program": concat!("fsq-bench ", env!("CARGO_PKG_VERSION")),
            "machine": self.machine.to_json(),
            "staging": self.staging,
            "note": self.note,
            "time_s": self.time_s,
            "load": self.load,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

#[cfg(feature = "plots")]
mod charts {
    //! What of a sweep is shown: the medians of the rounds.

    use super::{Point, Row, Sweep};
    use crate::compare::Spread;
    use crate::plot::{Chart, Line};
    use crate::record::Timed;
    use crate::size::show_bytes;

    impl Sweep {
        /// The charts and the names of their files.
        pub(super) fn charts(&self) -> [(&'static str, Chart); 4] {
            let over_connections = |title: &str, y: &str, of: &dyn Fn(&Row) -> Option<f64>| Chart {
                title: title.into(),
                x: "connections".into(),
                y: y.into(),
                lines: self.lines(
                    |point| (point.size_bytes, point.window),
                    |(size, window)| format!("{}, window {window}", show_bytes(size)),
                    |point| f64::from(point.connections),
                    of,
                ),
            };
            let files_per_s = Chart {
                title: "acknowledged files".into(),
                x: "size of a file, bytes".into(),
                y: "files/s".into(),
                lines: self.lines(
                    |point| (point.connections, point.window),
                    |(connections, window)| format!("connections {connections}, window {window}"),
                    |point| point.size_bytes as f64,
                    &|row| Some(row.report.files_per_s()),
                ),
            };
            [
                (
                    "throughput",
                    over_connections("acknowledged bytes", "bytes/s", &|row| {
                        Some(row.report.bytes_per_s())
                    }),
                ),
                (
                    "file-p99",
                    over_connections("time of a file, p99", "seconds", &|row| {
                        Some(row.seconds(Timed::File, 99.0))
                    }),
                ),
                ("files-per-second", files_per_s),
                (
                    "share-of-limit",
                    over_connections("share of what the machine can do", "share", &|row| {
                        row.share()
                    }),
                ),
            ]
        }

        /// A line for each value of `key`, in the order of the runs.
        fn lines<K: Copy + PartialEq>(
            &self,
            key: impl Fn(Point) -> K,
            name: impl Fn(K) -> String,
            x: impl Fn(Point) -> f64,
            of: &dyn Fn(&Row) -> Option<f64>,
        ) -> Vec<Line> {
            let mut keys = Vec::new();
            let mut lines: Vec<Line> = Vec::new();
            let first = self.rows.first().map_or(0, |row| row.round);
            for row in self.rows.iter().filter(|row| row.round == first) {
                let Some(y) = self.median(row.point, of) else { continue };
                let number = keys.iter().position(|&known| known == key(row.point));
                let number = number.unwrap_or_else(|| {
                    keys.push(key(row.point));
                    lines.push(Line { name: name(key(row.point)), points: Vec::new() });
                    lines.len() - 1
                });
                lines[number].points.push((x(row.point), y));
            }
            lines.iter_mut().for_each(|line| line.points.sort_by(|a, b| a.0.total_cmp(&b.0)));
            lines
        }

        /// The middle of a number over the rounds of a point.
        fn median(&self, point: Point, of: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
            let rows = self.rows.iter().filter(|row| row.point == point);
            Spread::of(rows.filter_map(of)).map(|spread| spread.median)
        }
    }
}

#[cfg(test)]
mod tests;
