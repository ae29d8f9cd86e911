//! Small files the safe way: created under a temporary name, written, synced, renamed, and the
//! directory synced.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::record::Times;

/// So many writers do that in `dir` until `time` is over; how long it took, s, and the time of
/// each file.
pub(super) fn probe(
    dir: &Path,
    writers: usize,
    size_bytes: usize,
    time: Duration,
) -> io::Result<(f64, Times)> {
    let content = vec![0x5a; size_bytes];
    let start = Instant::now();
    let end = start + time;
    let written = thread::scope(|scope| {
        let content = &content[..];
        let writers: Vec<_> = (0..writers)
            .map(|writer| scope.spawn(move || write(dir, writer, content, end)))
            .collect();
        let join = |writer: thread::ScopedJoinHandle<'_, io::Result<Times>>| {
            writer.join().expect("a writer does not panic")
        };
        writers.into_iter().map(join).collect::<Vec<_>>()
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut sum = Times::default();
    for times in written {
        sum.merge(&times?);
    }
    Ok((seconds, sum))
}

fn write(dir: &Path, writer: usize, content: &[u8], end: Instant) -> io::Result<Times> {
    let mut times = Times::default();
    let parent = File::open(dir)?;
    for number in 0_u64.. {
        let began = Instant::now();
        if began >= end {
            break;
        }
        let temporary = dir.join(format!("{writer}-{number}.part"));
        let mut file = File::create_new(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        drop(file);
        fs::rename(&temporary, dir.join(format!("{writer}-{number}")))?;
        parent.sync_all()?;
        times.add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}
