//! Tables and charts of a sweep that was never run.

use super::*;
use crate::record::Record;

fn row(round: u32, connections: u32, size_bytes: u64, bytes: u64, limit: Option<f64>) -> Row {
    let mut record = Record::default();
    (record.files, record.bytes) = (2, bytes);
    (record.first_ns, record.last_ns) = (Some(0), 1_000_000_000);
    record.times_mut(Timed::File).add(3_000_000);
    let report = Report {
        what: "a run".into(),
        record,
        usage: None,
        total_bytes: bytes,
        missing: None,
        arrived_ns: None,
        is_interrupted: false,
        is_paced: false,
    };
    let limit = limit.map(|limit| (Yardstick::Staging, limit));
    Row { round, point: Point { connections, size_bytes, window: 1 }, report, limit }
}

fn sweep(rows: Vec<Row>) -> Sweep {
    Sweep {
        machine: Machine::default(),
        staging: Some("ext4".into()),
        note: "a test".into(),
        time_s: 0,
        load: Value::Null,
        rows,
    }
}

#[test]
fn the_table_has_a_line_for_each_run_and_a_number_for_each_column() {
    let table = sweep(vec![row(1, 4, 4096, 100, Some(200.0)), row(1, 8, 4096, 300, None)]).csv();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3);
    let columns = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{table}");
    assert!(lines[1].starts_with("1,4,4096,1,2,100,1,100,2,"), "{table}");
    assert!(lines[1].ends_with(",,200,0.5") && lines[2].ends_with(",,,"), "{table}");
    assert!(!lines[0].contains(' '), "{}", lines[0]);
}

#[cfg(feature = "plots")]
#[test]
fn charts_show_the_median_of_the_rounds() {
    let rows =
        [(1, 100, 1000.0), (2, 500, 1000.0), (3, 300, 1000.0)].map(|(round, bytes, limit)| {
            [row(round, 8, 4096, bytes, Some(limit)), row(round, 2, 4096, bytes / 2, Some(limit))]
        });
    let sweep = sweep(rows.into_iter().flatten().collect());
    let charts = sweep.charts();
    let lines = |name| {
        let (_, chart) = charts.iter().find(|(known, _)| *known == name).expect("a chart");
        &chart.lines
    };
    let throughput = lines("throughput");
    assert_eq!(throughput.len(), 1);
    assert_eq!(throughput[0].name, "4 KiB, window 1");
    assert_eq!(throughput[0].points, [(2.0, 150.0), (8.0, 300.0)]);
    assert_eq!(lines("share-of-limit")[0].points, [(2.0, 0.15), (8.0, 0.3)]);
    let files = lines("files-per-second");
    assert_eq!(files.len(), 2);
    assert_eq!(files[0].points, [(4096.0, 2.0)]);

    let dir = tempfile::tempdir().expect("a directory");
    sweep.write(dir.path()).expect("written");
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .collect();
    names.sort();
    let charts = ["file-p99", "files-per-second", "share-of-limit", "throughput"];
    let mut expected: Vec<_> =
        charts.iter().flat_map(|name| [format!("{name}.png"), format!("{name}.svg")]).collect();
    expected.extend(["raw.csv".into(), "sweep.json".into()]);
    expected.sort();
    assert_eq!(names, expected);
}
