//! What this machine can do without any server: the yardstick for what a server does on it.
//!
//! Each probe does one thing that a daemon cannot avoid, with the same connections and chunks, and
//! nothing else: no protocol, no checksums, no names. Invariant: a probe counts what has been
//! synced, and leaves nothing behind.

mod exchange;
mod lanes;
mod memory;
mod small;
pub mod yardstick;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::net::sockopt;
use serde_json::{Value, json};

use crate::error::Error;
use crate::machine::{Machine, file_system};
use crate::record::Times;
use lanes::{Lane, Moved, Source, Transfer};

/// What goes to and from the staging file system at a time, bytes.
const STAGING_BLOCK_BYTES: usize = 512 << 10;
/// What goes to the target at a time, bytes.
const TARGET_BLOCK_BYTES: usize = 4 << 20;

/// Socket buffers of the probes, bytes. Left alone, they grow to megabytes for each connection,
/// and what is sent leaves the processor's caches before it is received: 2 to 3 GB/s where these
/// reach 6 to 7 (2 cores, Linux 6.18).
const SOCKET_BUFFER_BYTES: usize = 100 << 10;

/// What is probed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Directory on the staging file system.
    pub staging: PathBuf,
    /// Directory on the target file system; none: staging only.
    pub target: Option<PathBuf>,
    /// Connections, and files under way; above 0.
    pub connections: usize,
    /// What a client writes at a time, bytes; above 0.
    pub chunk_bytes: usize,
    /// Each probe stops after this time,
    pub time: Duration,
    /// or after so many bytes, whichever comes first.
    pub volume_bytes: u64,
    /// Size of the small files, bytes.
    pub small_bytes: usize,
}

/// What a probe has found.
#[derive(Clone, Debug)]
pub struct Rate {
    /// Which probe.
    pub name: &'static str,
    /// Bytes per second.
    pub bytes_per_s: f64,
    /// How it was done.
    pub how: String,
}

/// What the probe of small files has found.
#[derive(Clone, Debug)]
pub struct SmallFiles {
    /// Size of each, bytes.
    pub size_bytes: usize,
    /// Files per second.
    pub files_per_s: f64,
    /// Time of each.
    pub times: Times,
}

/// What the machine can do.
#[derive(Clone, Debug)]
pub struct Found {
    /// The machine.
    pub machine: Machine,
    /// Type of the staging file system.
    pub staging: String,
    /// Type of the target file system.
    pub target: Option<String>,
    /// Streams of bytes, in the order of their way through a daemon.
    pub rates: Vec<Rate>,
    /// Staging write, staging read and target write at once, if there is a target.
    pub end_to_end: Option<Rate>,
    /// Small files on the staging file system.
    pub small_files: SmallFiles,
}

impl Limits {
    /// Runs all probes.
    ///
    /// # Errors
    /// If one does not run here.
    pub fn probe(&self) -> Result<Found, Error> {
        let mut rates =
            vec![self.loopback()?, self.exchange()?, self.staging_write()?, self.both()?];
        rates.push(self.staging_read()?);
        let mut end_to_end = None;
        if self.target.is_some() {
            rates.push(self.target_write()?);
            end_to_end = Some(self.end_to_end()?);
        }
        Ok(Found {
            machine: Machine::here(),
            staging: file_system(&self.staging),
            target: self.target.as_deref().map(file_system),
            rates,
            end_to_end,
            small_files: self.small_files()?,
        })
    }

    /// Receives over loopback what as many senders send, and drops it.
    ///
    /// # Errors
    /// If it does not run here.
    pub fn loopback(&self) -> Result<Rate, Error> {
        let how = format!("{} connections, received and dropped", self.connections);
        self.measured("loopback", &how, STAGING_BLOCK_BYTES, || {
            self.with_senders(|streams| {
                let lane =
                    |stream| Lane { source: Source::Socket(stream), sink: None, len: u64::MAX / 2 };
                self.spread(streams.into_iter().map(lane).collect(), STAGING_BLOCK_BYTES)
            })
        })
    }

    /// Receives over loopback and drops it, with an answer to each chunk that the sender waits for.
    ///
    /// # Errors
    /// If it does not run here.
    pub fn exchange(&self) -> Result<Rate, Error> {
        let start = Instant::now();
        let bytes = exchange::probe(self.connections, self.chunk_bytes, start + self.time)
            .map_err(Error::io("probe 'exchange'"))?;
        let how = format!("{} connections, each waits for a reply to each chunk", self.connections);
        Ok(Rate {
            name: "exchange",
            bytes_per_s: bytes as f64 / start.elapsed().as_secs_f64(),
            how,
        })
    }

    /// Writes preallocated files on the staging file system.
    ///
    /// # Errors
    /// If it does not run here.
    pub fn staging_write(&self) -> Result<Rate, Error> {
        let scratch = Scratch::new(&self.staging)?;
        self.write("staging write", &scratch, STAGING_BLOCK_BYTES)
    }

    /// Receives over loopback and writes what was received: what a perfect daemon does.
    ///
    /// # Errors
    /// If it does not run here.
    pub fn both(&self) -> Result<Rate, Error> {
        let scratch = Scratch::new(&self.staging)?;
        let (files, mode) = self.preallocated(&scratch, STAGING_BLOCK_BYTES)?;
        let how = format!("loopback to staging, {mode}");
        self.measured("both together", &how, STAGING_BLOCK_BYTES, || {
            self.with_senders(|streams| {
                let len = self.file_bytes(STAGING_BLOCK_BYTES);
                let lanes = streams.into_iter().zip(files).map(|(stream, file)| Lane {
                    source: Source::Socket(stream),
                    sink: Some(file),
                    len,
                });
                self.spread(lanes.collect(), STAGING_BLOCK_BYTES)
            })
        })
    }

    /// Reads files on the staging file system, past the page cache.
    ///
    /// # Errors
    /// If it does not run here.
    pub fn staging_read(&self) -> Result<Rate, Error> {
        let scratch = Scratch::new(&self.staging)?;
        // They must have been written: reading what is only preallocated reads no device.
        self.write("staging write", &scratch, STAGING_BLOCK_BYTES)?;
        let (lanes, mode) = scratch.open_all(self.connections)?;
        self.measured("staging read", &mode.to_string(), STAGING_BLOCK_BYTES, || {
            self.spread(lanes, STAGING_BLOCK_BYTES)
        })
    }

    /// Writes files on the target file system.
    ///
    /// # Errors
    /// If there is no target, or it does not run here.
    pub fn target_write(&self) -> Result<Rate, Error> {
        let scratch = Scratch::new(self.target()?)?;
        self.write("target write", &scratch, TARGET_BLOCK_BYTES)
    }

    /// Creates, syncs and renames small files on the staging file system.
    ///
    /// # Errors
    /// If it does not run here.
    pub fn small_files(&self) -> Result<SmallFiles, Error> {
        let scratch = Scratch::new(&self.staging)?;
        let (seconds, times) =
            small::probe(&scratch.0, self.connections, self.small_bytes, self.time)
                .map_err(Error::io(format!("small files in {}", shown(&scratch.0))))?;
        let files_per_s = times.count() as f64 / seconds;
        Ok(SmallFiles { size_bytes: self.small_bytes, files_per_s, times })
    }

    /// Writes files on the staging file system, reads others there and writes files on the target,
    /// all at once: what bytes on their way from clients to the target need of the devices.
    ///
    /// # Errors
    /// If there is no target, or it does not run here.
    pub fn end_to_end(&self) -> Result<Rate, Error> {
        let target = self.target()?;
        let (staged, delivered) = (Scratch::new(&self.staging)?, Scratch::named(target, "target")?);
        // Read first, and filled before: reading what is only preallocated reads no device.
        let readable = Scratch::named(&self.staging, "read")?;
        self.write("staging write", &readable, STAGING_BLOCK_BYTES)?;
        let (sources, mut mode) = readable.open_all(self.connections)?;
        let mut parts = vec![(sources, STAGING_BLOCK_BYTES)];
        for (scratch, block_bytes) in
            [(&staged, STAGING_BLOCK_BYTES), (&delivered, TARGET_BLOCK_BYTES)]
        {
            let (files, opened) = self.preallocated(scratch, block_bytes)?;
            mode = mode.max(opened);
            let len = self.file_bytes(block_bytes);
            let lane = |file| Lane { source: Source::Memory, sink: Some(file), len };
            parts.push((files.into_iter().map(lane).collect(), block_bytes));
        }
        self.measured(
            "end to end",
            &format!("all three at once, {mode}"),
            STAGING_BLOCK_BYTES,
            || {
                let parts = thread::scope(|scope| {
                    let run = |(lanes, block)| scope.spawn(move || self.spread(lanes, block));
                    let parts: Vec<_> = parts.into_iter().map(run).collect();
                    let join = |part: thread::ScopedJoinHandle<'_, _>| {
                        part.join().expect("a probe's thread does not panic")
                    };
                    parts.into_iter().map(join).collect::<io::Result<Vec<_>>>()
                })?;
                // A byte has arrived when it has gone all the way.
                let least = |(sum, seconds): (Moved, f64), (moved, time): (Moved, f64)| {
                    let bytes = sum.bytes.min(moved.bytes);
                    let is_registered = sum.is_registered && moved.is_registered;
                    (Moved { bytes, is_registered }, seconds.max(time))
                };
                let all = Moved { bytes: u64::MAX, is_registered: true };
                Ok(parts.into_iter().fold((all, 0.0), least))
            },
        )
    }

    fn target(&self) -> Result<&Path, Error> {
        let target = self.target.as_deref();
        target.ok_or_else(|| Error::Usage("no --target to write to".into()))
    }

    fn write(
        &self,
        name: &'static str,
        scratch: &Scratch,
        block_bytes: usize,
    ) -> Result<Rate, Error> {
        let (files, mode) = self.preallocated(scratch, block_bytes)?;
        let len = self.file_bytes(block_bytes);
        let lane = |file| Lane { source: Source::Memory, sink: Some(file), len };
        let lanes = files.into_iter().map(lane).collect();
        self.measured(name, &mode.to_string(), block_bytes, || self.spread(lanes, block_bytes))
    }

    fn measured(
        &self,
        name: &'static str,
        how: &str,
        block_bytes: usize,
        probe: impl FnOnce() -> io::Result<(Moved, f64)>,
    ) -> Result<Rate, Error> {
        let (moved, seconds) = probe().map_err(Error::io(format!("probe '{name}'")))?;
        let registered = if moved.is_registered { "" } else { ", buffers NOT registered" };
        let block = crate::size::show_bytes(block_bytes as u64);
        let how = format!("{how}, blocks of {block}{registered}");
        Ok(Rate { name, bytes_per_s: moved.bytes as f64 / seconds, how })
    }

    /// Runs the lanes on one ring for each processor; what was moved, and in how many seconds.
    fn spread(&self, lanes: Vec<Lane>, block_bytes: usize) -> io::Result<(Moved, f64)> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = cores.min(lanes.len()).max(1);
        let mut shares: Vec<Vec<Lane>> = (0..count).map(|_| Vec::new()).collect();
        for (number, lane) in lanes.into_iter().enumerate() {
            shares[number % count].push(lane);
        }
        let transfers = shares
            .into_iter()
            .map(|share| Transfer::new(share, block_bytes))
            .collect::<io::Result<Vec<_>>>()?;
        let start = Instant::now();
        let end = start + self.time;
        let moved = thread::scope(|scope| {
            let rings: Vec<_> = transfers
                .into_iter()
                .map(|transfer| scope.spawn(move || transfer.run(end)))
                .collect();
            let join = |ring: thread::ScopedJoinHandle<'_, io::Result<Moved>>| {
                ring.join().expect("a probe's thread does not panic")
            };
            // All are joined before the first error is looked at.
            rings.into_iter().map(join).collect::<Vec<_>>()
        });
        let mut sum = Moved { bytes: 0, is_registered: true };
        for moved in moved {
            let moved = moved?;
            sum.bytes += moved.bytes;
            sum.is_registered &= moved.is_registered;
        }
        Ok((sum, start.elapsed().as_secs_f64()))
    }

    /// Calls `receive` with the receiving ends of connections on which somebody sends for as long
    /// as they are open.
    fn with_senders<T>(
        &self,
        receive: impl FnOnce(Vec<TcpStream>) -> io::Result<T>,
    ) -> io::Result<T> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        // Accepted connections inherit it.
        sockopt::set_socket_recv_buffer_size(&listener, SOCKET_BUFFER_BYTES)?;
        let chunk = vec![0x5a; self.chunk_bytes];
        let start = Barrier::new(self.connections + 1);
        let mut pairs = Vec::new();
        for _ in 0..self.connections {
            let sender = TcpStream::connect(address)?;
            sockopt::set_socket_send_buffer_size(&sender, SOCKET_BUFFER_BYTES)?;
            pairs.push((sender, listener.accept()?.0));
        }
        let (senders, receivers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let closers = receivers.iter().map(TcpStream::try_clone).collect::<io::Result<Vec<_>>>()?;
        thread::scope(|scope| {
            for mut sender in senders {
                let (chunk, start) = (&chunk, &start);
                scope.spawn(move || {
                    start.wait();
                    // Ends when the other end closes.
                    while sender.write_all(chunk).is_ok() {}
                });
            }
            start.wait();
            let received = receive(receivers);
            for closer in closers {
                // Gone already is as good.
                let _ = closer.shutdown(Shutdown::Both);
            }
            received
        })
    }

    /// The files that are written, with their space, and how they are open.
    fn preallocated(
        &self,
        scratch: &Scratch,
        block_bytes: usize,
    ) -> Result<(Vec<File>, Mode), Error> {
        let mut mode = Mode::Direct;
        let mut files = Vec::new();
        for path in scratch.files(self.connections) {
            let (file, opened) = open(&path, OpenOptions::new().write(true).create_new(true))?;
            mode = mode.max(opened);
            let reserved =
                fallocate(&file, FallocateFlags::empty(), 0, self.file_bytes(block_bytes));
            match reserved {
                // Lustre has no fallocate before 2.14, NFS none before 4.2.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => {
                    return Err(Error::io(format!("reserving {}", shown(&path)))(error.into()));
                }
            }
            files.push(file);
        }
        Ok((files, mode))
    }

    /// Size of the files that a probe writes, whole blocks, at least one.
    fn file_bytes(&self, block_bytes: usize) -> u64 {
        let share = self.volume_bytes / self.connections as u64;
        share.next_multiple_of(block_bytes as u64).max(block_bytes as u64)
    }
}

/// How a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Direct,
    Buffered,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "O_DIRECT",
            Self::Buffered => "through the page cache (no O_DIRECT here)",
        })
    }
}

/// Opens a file past the page cache, where the file system can do that.
fn open(path: &Path, options: &mut OpenOptions) -> Result<(File, Mode), Error> {
    let direct = options.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
    let opened = match direct {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            // An O_CREAT that is refused for O_DIRECT may have created the file (open(2)).
            let _ = fs::remove_file(path);
            options.custom_flags(0).open(path).map(|file| (file, Mode::Buffered))
        }
        direct => direct.map(|file| (file, Mode::Direct)),
    };
    opened.map_err(Error::io(format!("opening {}", shown(path))))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A directory that goes away with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Self, Error> {
        Self::named(parent, "limit")
    }

    /// Several at a time need names of their own.
    fn named(parent: &Path, name: &str) -> Result<Self, Error> {
        let dir = parent.join(format!("fsq-bench-{name}-{}", std::process::id()));
        fs::create_dir(&dir).map_err(Error::io(format!("creating {}", shown(&dir))))?;
        Ok(Self(dir))
    }

    fn files(&self, count: usize) -> impl Iterator<Item = PathBuf> + '_ {
        (0..count).map(|number| self.0.join(number.to_string()))
    }

    /// Lanes that read the files to their ends, and how they are open.
    fn open_all(&self, count: usize) -> Result<(Vec<Lane>, Mode), Error> {
        let mut mode = Mode::Direct;
        let mut lanes = Vec::new();
        for path in self.files(count) {
            let (file, opened) = open(&path, OpenOptions::new().read(true))?;
            let len = file.metadata().map_err(Error::io(shown(&path)))?.len();
            mode = mode.max(opened);
            lanes.push(Lane { source: Source::File(file), sink: None, len });
        }
        Ok((lanes, mode))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("fsq-bench: {} stays behind, remove it: {error}", shown(&self.0));
        }
    }
}

impl Found {
    /// The slowest of the streams: no daemon passes data on faster.
    #[must_use]
    pub fn smallest(&self) -> Option<&Rate> {
        self.rates.iter().min_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s))
    }

    /// Everything, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let small = &self.small_files;
        let show = |rate: &Rate| json!({"name": rate.name, "bytes_per_s": rate.bytes_per_s, "how": rate.how});
        json!({
            "machine": self.machine.to_json(),
            "staging": self.staging,
            "target": self.target,
            "rates": self.rates.iter().map(show).collect::<Vec<_>>(),
            "end_to_end": self.end_to_end.as_ref().map(show),
            "small_files": {
                "size_bytes": small.size_bytes,
                "files_per_s": small.files_per_s,
                "p50_s": small.times.percentile_ns(50.0) as f64 / 1e9,
                "p99_s": small.times.percentile_ns(99.0) as f64 / 1e9,
            },
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let target = self.target.as_deref().unwrap_or("none");
        writeln!(f, "staging {}, target {target}", self.staging)?;
        for rate in self.rates.iter().chain(&self.end_to_end) {
            let Rate { name, bytes_per_s, how } = rate;
            writeln!(f, "  {name:<14} {:>9.1} MB/s     {how}", bytes_per_s / 1e6)?;
        }
        let small = &self.small_files;
        writeln!(
            f,
            "  {:<14} {:>9.1} files/s  {} each: created, synced, renamed; p99 {:.3} ms",
            "small files",
            small.files_per_s,
            crate::size::show_bytes(small.size_bytes as u64),
            small.times.percentile_ns(99.0) as f64 / 1e6,
        )?;
        match self.smallest() {
            Some(rate) => {
                write!(f, "limit: {:.1} MB/s ({})", rate.bytes_per_s / 1e6, rate.name)
            }
            None => f.write_str("limit: none was probed"),
        }
    }
}

#[cfg(test)]
mod tests;
