//! The result of a run, for people and for programs.
//!
//! Invariant: the last line of the text is the one that scripts around the old tool look for.

use std::fmt;

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::plan::{Behaviour, Plan};
use crate::record::{Record, Timed};
use crate::usage::Usage;

/// Percentiles of a report.
const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// A finished run.
#[derive(Clone, Debug)]
pub struct Report {
    /// One line that says what was run.
    pub what: String,
    /// What was measured.
    pub record: Record,
    /// Processor time of the server, warm-up included, if its process is known.
    pub usage: Option<Usage>,
    /// Everything that was sent, bytes, warm-up included: what `usage` was spent on.
    pub total_bytes: u64,
    /// Acknowledged files that did not arrive; `None` if nobody looked.
    pub missing: Option<u64>,
    /// When the last file was seen at its destination, ns of the run; `None` if nobody looked.
    pub arrived_ns: Option<u64>,
    /// Whether the user ended it.
    pub is_interrupted: bool,
    /// Whether files were sent at a fixed rate.
    pub is_paced: bool,
}

impl Report {
    /// Bytes of acknowledged files per second; 0 if there is none.
    #[must_use]
    pub fn bytes_per_s(&self) -> f64 {
        per_second(self.record.bytes, self.record.seconds())
    }

    /// Bytes per second that have arrived, from the first OPEN to the last arrival; `None` if nobody
    /// looked, 0 if a file is missing.
    #[must_use]
    pub fn arrived_bytes_per_s(&self) -> Option<f64> {
        let (arrived_ns, first_ns) = (self.arrived_ns?, self.record.first_ns?);
        let bytes = if self.missing == Some(0) { self.record.bytes } else { 0 };
        Some(per_second(bytes, seconds(arrived_ns.saturating_sub(first_ns))))
    }

    /// Acknowledged files per second; 0 if there is none.
    #[must_use]
    pub fn files_per_s(&self) -> f64 {
        per_second(self.record.files, self.record.seconds())
    }

    /// Processor time of the server for each GiB, s.
    #[must_use]
    pub fn cpu_s_per_gib(&self) -> Option<f64> {
        let gib = self.total_bytes as f64 / f64::from(1 << 30);
        self.usage.filter(|_| gib > 0.0).map(|usage| usage.seconds() / gib)
    }

    /// Whether everything was acknowledged, and arrived if that was looked for.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.record.failed == 0 && self.record.files > 0 && self.missing.unwrap_or(0) == 0
    }

    /// The line of the old tool. Its Mbytes are 1,000,000 bytes.
    #[must_use]
    pub fn measurement(&self) -> String {
        let (bytes, seconds) = (self.record.bytes, self.record.seconds());
        format!(
            "[measurement] 'fsq_fwrite' processed {bytes} bytes in {seconds:.3} secs \
             ({:.3} Mbytes / sec)",
            self.bytes_per_s() / 1e6
        )
    }

    /// Everything, for programs; times in seconds.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let latencies = self.timed().map(|timed| {
            let times = self.record.times(timed);
            let mut shown = json!({"count": times.count(), "max_s": seconds(times.max_ns())});
            for (name, percent) in PERCENTILES {
                shown[format!("{name}_s")] = json!(seconds(times.percentile_ns(percent)));
            }
            (timed.name().to_owned(), shown)
        });
        json!({
            "what": self.what,
            "files": self.record.files,
            "bytes": self.record.bytes,
            "seconds": self.record.seconds(),
            "bytes_per_s": self.bytes_per_s(),
            "files_per_s": self.files_per_s(),
            "failed": self.record.failed,
            "reasons": self.record.reasons(),
            "missing": self.missing,
            "arrived_bytes_per_s": self.arrived_bytes_per_s(),
            "interrupted": self.is_interrupted,
            "cpu_user_s": self.usage.map(|usage| usage.user_s),
            "cpu_system_s": self.usage.map(|usage| usage.system_s),
            "cpu_s_per_gib": self.cpu_s_per_gib(),
            "latency": latencies.collect::<serde_json::Map<_, _>>(),
        })
    }

    /// What has been timed at all; Service differs from File at a fixed rate only.
    fn timed(&self) -> impl Iterator<Item = Timed> + '_ {
        Timed::ALL.into_iter().filter(|&timed| {
            self.record.times(timed).count() > 0 && (self.is_paced || timed != Timed::Service)
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        if self.is_interrupted {
            writeln!(f, "  interrupted: what was acknowledged until then counts")?;
        }
        let record = &self.record;
        writeln!(
            f,
            "  {} files, {} bytes in {:.3} s: {:.1} MB/s, {:.1} files/s; {} failed",
            record.files,
            record.bytes,
            record.seconds(),
            self.bytes_per_s() / 1e6,
            self.files_per_s(),
            record.failed
        )?;
        for (reason, count) in record.reasons() {
            writeln!(f, "    {count} x {reason}")?;
        }
        if let Some(rate) = self.arrived_bytes_per_s().filter(|&rate| rate > 0.0) {
            writeln!(f, "  {:.1} MB/s arrived, to the last file", rate / 1e6)?;
        }
        if let Some(missing) = self.missing.filter(|&missing| missing > 0) {
            writeln!(f, "  {missing} acknowledged files did not arrive in time")?;
        }
        if let (Some(usage), Some(per_gib)) = (self.usage, self.cpu_s_per_gib()) {
            let Usage { user_s, system_s } = usage;
            writeln!(
                f,
                "  server: {user_s:.2} s user, {system_s:.2} s system, {per_gib:.3} s/GiB"
            )?;
        }
        write!(f, "  {:<8} {:>9}", "ms", "count")?;
        for (name, _) in PERCENTILES {
            write!(f, " {name:>9}")?;
        }
        writeln!(f, " {:>9}", "max")?;
        for timed in self.timed() {
            let times = record.times(timed);
            write!(f, "  {:<8} {:>9}", timed.name(), times.count())?;
            for (_, percent) in PERCENTILES {
                write!(f, " {:>9.3}", seconds(times.percentile_ns(percent)) * 1e3)?;
            }
            writeln!(f, " {:>9.3}", seconds(times.max_ns()) * 1e3)?;
        }
        f.write_str(&self.measurement())
    }
}

/// One line that says what a plan is.
#[must_use]
pub fn describe(plan: &Plan, engine: Engine) -> String {
    let behaviour = match plan.behaviour {
        Behaviour::Deployed => "as deployed".to_owned(),
        Behaviour::Pipelined => format!("window {}", plan.window),
    };
    let rate = plan.quota.rate.map(|rate| format!(", {rate} files/s")).unwrap_or_default();
    let idle = if plan.idle > 0 { format!(", {} idle", plan.idle) } else { String::new() };
    format!(
        "{}:{}, {}: {} connections{idle} ({engine:?}, {behaviour}), files of {}, chunks of {}{rate}",
        plan.hostname,
        plan.port,
        plan.dest,
        plan.connections,
        plan.sizes,
        crate::size::show_bytes(plan.chunk_bytes),
    )
}

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut record = Record::default();
        (record.files, record.bytes) = (2, 3_000_000);
        (record.first_ns, record.last_ns) = (Some(500_000_000), 2_000_000_000);
        record.times_mut(Timed::Close).add(4_000_000);
        record.times_mut(Timed::Service).add(4_000_000);
        Report {
            what: "a run".into(),
            record,
            usage: Some(Usage { user_s: 1.0, system_s: 2.0 }),
            total_bytes: 2 << 30,
            missing: None,
            arrived_ns: None,
            is_interrupted: false,
            is_paced: false,
        }
    }

    #[test]
    fn the_last_line_is_the_old_tools() {
        let text = report().to_string();
        let line = "[measurement] 'fsq_fwrite' processed 3000000 bytes in 1.500 secs \
                    (2.000 Mbytes / sec)";
        assert_eq!(text.lines().last(), Some(line));
        assert!(
            text.contains("2 files, 3000000 bytes in 1.500 s: 2.0 MB/s, 1.3 files/s; 0 failed")
        );
        assert!(text.contains("1.500 s/GiB"), "{text}");
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        let empty = Report { record: Record::default(), total_bytes: 0, ..report() };
        let line =
            "[measurement] 'fsq_fwrite' processed 0 bytes in 0.000 secs (0.000 Mbytes / sec)";
        assert_eq!(empty.measurement(), line);
        assert!(!empty.is_good());
        assert_eq!(empty.cpu_s_per_gib(), None);
    }

    #[test]
    fn arrivals_have_a_rate_of_their_own() {
        assert_eq!(report().arrived_bytes_per_s(), None);
        let arrived = Report { missing: Some(0), arrived_ns: Some(3_500_000_000), ..report() };
        assert_eq!(arrived.arrived_bytes_per_s(), Some(1e6));
        assert!(arrived.to_string().contains("1.0 MB/s arrived"), "{arrived}");
        let incomplete = Report { missing: Some(1), ..arrived };
        assert_eq!(incomplete.arrived_bytes_per_s(), Some(0.0));
    }

    #[test]
    fn json_has_the_numbers_and_only_what_was_timed() {
        let json = report().to_json();
        assert_eq!(json["bytes_per_s"], 2e6);
        assert_eq!(json["cpu_s_per_gib"], 1.5);
        assert_eq!(json["latency"]["close"]["count"], 1);
        assert!(json["latency"].get("open").is_none());
        // At no fixed rate it would say the same as "file".
        assert!(json["latency"].get("service").is_none());
        let paced = Report { is_paced: true, ..report() };
        assert_eq!(paced.to_json()["latency"]["service"]["count"], 1);
    }
}
