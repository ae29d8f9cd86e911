//! The numbers that a daemon counts of itself, on SIGUSR1, every `--stats-interval` and at its end.

use std::collections::BTreeMap;
use std::fs;

use fsq_wire::{Op, StorageDest};
use rustix::process::Signal;

use crate::support::content::bytes;
use crate::support::daemon::Daemon;
use crate::support::deployed::Deployed;
use crate::support::log::Line;
use crate::support::site::Site;
use crate::support::{eventually, shared_turn};

/// The numbers of a `name: key value, ...` line by key, without those that are unknown.
pub(crate) fn numbers(line: &str) -> BTreeMap<String, f64> {
    let line = Line::parse(line).expect("a line of the log");
    let (_, list) = line.text.split_once(": ").expect("a name");
    let pairs = list.split(", ").map(|pair| pair.split_once(' ').expect("key and value"));
    let known = pairs.filter(|(_, value)| *value != "unknown");
    known.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

/// Asks a daemon for its numbers; the line that begins with `name`.
pub(crate) fn report(daemon: &Daemon, name: &str) -> BTreeMap<String, f64> {
    let from = daemon.log().lines().len();
    daemon.signal(Signal::USR1);
    let name = format!(" {name}: ");
    // The last line of a report: all others are there then.
    daemon.log().wait_from(from, "of all drain rings", |line| line.contains(" all drain rings: "));
    let lines = daemon.log().lines();
    let line = lines[from..].iter().find(|line| line.contains(&name));
    numbers(line.unwrap_or_else(|| panic!("no line{name}")))
}

#[test]
fn sigusr1_tells_what_was_sent_and_moved() {
    let _turn = shared_turn();
    let site = Site::new();
    let mut daemon = site.start();
    let before = report(&daemon, "all rings");
    for key in ["sessions", "bytes", "bytes_written", "chunks", "receives", "writes"] {
        assert_eq!(before[key], 0.0, "{key} of a daemon that has done nothing");
    }
    assert!(!before.contains_key("cpu_s_per_gib"), "{before:?}");

    let content = bytes(5, 3_000_001);
    for name in ["one", "two"] {
        // On whichever ring has less to do.
        let mut client = Deployed::signed_on(daemon.port());
        client.upload(&format!("/lustre/data/{name}"), StorageDest::Lustre, &content, 1_000_000);
        client.disconnect();
    }
    let mut client = Deployed::signed_on(daemon.port());
    client.open("/lustre/data/nothing", StorageDest::Null).accepted(Op::Open);
    client.data(&content).accepted(Op::Data);
    client.data(b"").accepted(Op::Data);
    client.close().accepted(Op::Close);
    for name in ["data/one", "data/two"] {
        let arrived = || fs::read(site.delivered(name)).ok();
        assert!(eventually("a file arrives", arrived) == content, "{name}");
    }

    let sum = report(&daemon, "all rings");
    let length = content.len() as f64;
    assert_eq!(sum["sessions"], 3.0);
    assert_eq!(sum["files"], 2.0);
    assert_eq!(sum["bytes"], 3.0 * length);
    assert_eq!(sum["chunks"], 2.0 * 4.0 + 2.0);
    // Half windows; what is left of a file is written at its CLOSE.
    let half = f64::from(fsqd_uring::limits::WRITE_BYTES);
    assert!(sum["bytes_written"] >= 2.0 * (length / half).floor() * half, "{sum:?}");
    assert!(sum["writes"] >= 10.0 && sum["receives"] >= 9.0 + 9.0, "{sum:?}");
    assert!(sum["resubmissions"] >= sum["short_receives"], "{sum:?}");
    assert!(sum["completions"] > sum["writes"] + sum["receives"], "{sum:?}");
    assert!(sum["enters"] > 0.0, "{sum:?}");
    let gib = sum["bytes"] / f64::from(1 << 30);
    let cpu = sum["cpu_s"] + sum.get("worker_cpu_s").unwrap_or(&0.0);
    // All of them are rounded.
    assert!((sum["cpu_s_per_gib"] * gib - cpu).abs() < 0.001, "{sum:?}");
    let rings = ["ring 0", "ring 1"].map(|name| report(&daemon, name));
    for key in ["sessions", "files", "bytes", "chunks", "receives", "writes", "bytes_written"] {
        assert_eq!(rings[0][key] + rings[1][key], sum[key], "{key}");
    }
    let idle = report(&daemon, "all rings");
    assert_eq!((idle["interval_bytes_per_s"], idle["interval_chunks_per_s"]), (0.0, 0.0));

    let drained = report(&daemon, "all drain rings");
    // A direct write is padded to a whole block.
    let padded = (content.len() as f64 / 4096.0).ceil() * 4096.0;
    assert!([length, padded].contains(&(drained["bytes_written"] / 2.0)), "{drained:?}");
    assert!(drained["bytes_read"] >= 2.0 * length, "{drained:?}");
    assert!(drained["completions"] >= 4.0 && drained["enters"] > 0.0, "{drained:?}");
    drop(client);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let lines = daemon.log().lines();
    let last = lines.iter().rfind(|line| line.contains(" all rings: ")).expect("at the end");
    assert!(last.starts_with("[I] "), "not asked for, so below the default: {last}");
    let last = numbers(last);
    for key in ["sessions", "files", "bytes", "chunks", "receives", "writes", "bytes_written"] {
        assert_eq!(last[key], sum[key], "{key}");
    }
    assert!(last["cpu_s"] >= sum["cpu_s"], "{last:?} after {sum:?}");
}

#[test]
fn reports_come_by_themselves_and_at_the_end() {
    let _turn = shared_turn();
    let site = Site::new();
    let mut daemon = site.start_with(&["--stats-interval", "1", "-v", "message"]);
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/kept", StorageDest::Local, &bytes(6, 100_000), 100_000);
    let shows = |line: &str| line.starts_with("[M] ") && line.contains(" all rings: sessions 1,");
    let line = daemon.log().wait("of the counters", shows);
    let from = daemon.log().lines().len();
    daemon.log().wait_from(from, "of the counters again", shows);
    assert!(numbers(&line)["interval_s"] >= 1.0, "{line}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    let lines = daemon.log().lines();
    let mut ending = lines.iter().skip_while(|line| !line.contains(" stopping; "));
    let last = ending.find(|line| shows(line)).expect("a report at the end");
    assert_eq!(numbers(last)["bytes"], 100_000.0, "{last}");
}

#[test]
fn json_has_the_numbers_as_fields() {
    let _turn = shared_turn();
    let site = Site::new();
    let daemon = site.start_with(&["--log-format", "json"]);
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/kept", StorageDest::Local, &bytes(7, 12_345), 12_345);
    daemon.signal(Signal::USR1);
    let line = daemon.log().wait("of the counters", |line| line.contains("\"all rings\""));
    for part in ["\"level\":\"message\"", "\"bytes\":12345,", "\"chunks\":1,", "\"cpu_s\":"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    daemon.stop();
}
