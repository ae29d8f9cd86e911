//! The command line, and the plan that it means.
//!
//! Invariant: what cannot be run is refused here, before anything is sent.

use std::fs;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand, ValueEnum};
use fsq_wire::{DEFAULT_PORT, Layout, StorageDest};

use crate::arrival::Lookout;
use crate::engine::Engine;
use crate::error::Error;
use crate::feed::Quota;
use crate::limit::Limits;
use crate::limit::yardstick::Yardstick;
use crate::plan::{Behaviour, Password, Plan, WINDOW_MAX};
use crate::server::Target;
use crate::size::{Sizes, parse_bytes};

/// Window of the pipelined client unless given.
const PIPELINED_WINDOW: u32 = 8;
/// Larger chunks than any client sends would only cost memory, bytes.
const CHUNK_BYTES_MAX: u64 = 1 << 30;
/// A password file is one line.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

/// Measures servers that speak the FSQ protocol, and the machine they run on.
#[derive(Debug, Parser)]
#[command(
    name = "fsq-bench",
    version,
    after_help = "Without a command, options are those of \
    `run`: the command lines of the old fsqbench work."
)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send files to a server and measure
    Run(Box<RunArgs>),
    /// Run two servers in turn under the same load: A B A B ...
    Compare(Box<CompareArgs>),
    /// Run a server over connections x file sizes x windows, with tables and charts
    Sweep(Box<SweepArgs>),
    /// Measure what this machine can do without any server
    Limit(LimitArgs),
    /// A plain read()/write() page-cache server that syncs nothing, to compare CPU time with
    ReferenceServer(ReferenceArgs),
}

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = "-z -b -t -d -f -a -o -n -p -s -v are those of the old fsqbench as far as \
    their meanings are known: size, bytes per write, threads, duration, file system, path, \
    destination, node, password, server, verbosity. Mbytes are 1,000,000 bytes.\n\n\
    Files go to a directory of the run's own below PATH, and are left there.")]
pub struct RunArgs {
    /// The server
    #[arg(short, long, value_name = "HOST[:PORT]", default_value = "127.0.0.1")]
    pub servername: String,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Whether arrivals are watched.
    #[command(flatten)]
    pub arrival: ArrivalArgs,
    /// Process of the server, on this machine, whose CPU time is to be reported
    #[arg(long)]
    pub pid: Option<u32>,
    /// Write the result as JSON, too ('-': to standard output, instead of the text)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How much is said
    #[arg(short, long, value_name = "LEVEL", value_enum, default_value = "message")]
    pub verbose: Verbosity,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Verbosity {
    /// The measurement line and errors
    Error,
    /// The same
    Warn,
    /// The report, and progress on a terminal
    Message,
    /// The plan, too
    Info,
    /// The same
    Debug,
}

/// How servers are started that are started here.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// File that what started servers say is added to
    #[arg(long, value_name = "FILE")]
    pub server_log: Option<PathBuf>,
    /// How long a server may take to listen
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub start_wait: Duration,
}

/// What happens before each run of a series.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// Probe what the machine can do before and after each run, in the directory given by --staging
    #[arg(long, requires = "staging")]
    pub limit: bool,
    /// What the runs are held against [default: what fits destination and size of the files]
    #[arg(long, value_name = "YARDSTICK", requires = "limit")]
    pub limit_of: Option<Yardstick>,
    /// Directory on the staging file system
    #[arg(long, value_name = "DIR")]
    pub staging: Option<PathBuf>,
    /// Directory on the target file system, for the yardstick end-to-end
    #[arg(long, value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Time of each probe
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    pub limit_seconds: Duration,
    /// Most bytes of each probe
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_bytes)]
    pub limit_volume: u64,
    /// Shell command to run before each probe and start, as to empty the staging directory
    #[arg(long, value_name = "COMMAND")]
    pub between: Option<String>,
}

impl CompareArgs {
    /// The loads of A and B.
    #[must_use]
    pub fn loads(&self) -> [LoadArgs; 2] {
        let mut b = self.load.clone();
        b.chunk = self.chunk_b.unwrap_or(b.chunk);
        b.idle = self.idle_b.unwrap_or(b.idle);
        [self.load.clone(), b]
    }
}

impl ProbeArgs {
    /// The probes for runs with this load, if asked for.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn limits(
        &self,
        load: &LoadArgs,
        arrival: &ArrivalArgs,
    ) -> Result<Option<(Yardstick, Limits)>, Error> {
        /// So many sizes tell what the files are like.
        const SIZES: u64 = 64;
        let Some(staging) = self.staging.clone().filter(|_| self.limit) else { return Ok(None) };
        let sum: u64 = (0..SIZES).map(|index| load.size.size(load.seed, index)).sum();
        let yardstick = self.limit_of.unwrap_or_else(|| {
            let size_bytes = sum as f64 / SIZES as f64;
            Yardstick::for_load(load.storagedest, size_bytes, arrival.arrival.is_some())
        });
        let has_all = match yardstick {
            Yardstick::EndToEnd => self.target.is_some() && arrival.arrival.is_some(),
            _ => true,
        };
        if !has_all {
            let text = "the yardstick end-to-end needs --target DIR and --arrival DIR";
            return Err(Error::Usage(text.into()));
        }
        let limits = Limits {
            staging,
            target: self.target.clone(),
            connections: load.connections as usize,
            chunk_bytes: usize::try_from(load.chunk_bytes()?).expect("at most 1 GiB"),
            time: self.limit_seconds,
            volume_bytes: self.limit_volume,
            small_bytes: usize::try_from(load.size.size(load.seed, 0)).unwrap_or(usize::MAX),
        };
        Ok(Some((yardstick, limits)))
    }
}

/// Whether files are looked for at their destination.
#[derive(Clone, Debug, Args)]
pub struct ArrivalArgs {
    /// Look for files at their destination: DIR is where FSNAME is on this machine
    #[arg(long, value_name = "DIR")]
    pub arrival: Option<PathBuf>,
    /// How long to wait for the last arrival
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub arrival_wait: Duration,
}

impl ArrivalArgs {
    /// What looks for them, if that is wanted.
    #[must_use]
    pub fn lookout(&self) -> Option<Lookout> {
        self.arrival.clone().map(|root| Lookout { root, patience: self.arrival_wait })
    }
}

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "A and B are HOST:PORT of a running server, or HOST:PORT=COMMAND for one \
    that is started for each of its runs and stopped afterwards (SIGTERM); the shell runs \
    `exec COMMAND`.\n\n\
    Only ratios of neighbouring runs are results: shared machines vary by a factor of 3 within \
    minutes. CPU time is known of servers that were started here.")]
pub struct CompareArgs {
    /// The first server
    pub a: Target,
    /// The second server
    pub b: Target,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What a client of B writes at a time, where it differs
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub chunk_b: Option<u64>,
    /// Idle sessions of B, where they differ
    #[arg(long, value_name = "N")]
    pub idle_b: Option<u32>,
    /// Whether arrivals are watched.
    #[command(flatten)]
    pub arrival: ArrivalArgs,
    /// Runs of each server
    #[arg(long, value_name = "N", default_value = "5")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// What happens before each run.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// How servers are started.
    #[command(flatten)]
    pub start: StartArgs,
    /// Write the result as JSON, too ('-': to standard output, instead of the text)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Options of `sweep`.
#[derive(Debug, Args)]
#[command(mut_arg("connections", |arg| arg.hide(true)), mut_arg("size", |arg| arg.hide(true)))]
#[command(mut_arg("window", |arg| arg.hide(true)), mut_arg("client", |arg| arg.hide(true)))]
#[command(
    after_help = "SERVER is HOST:PORT of a running server, or HOST:PORT=COMMAND for one that \
    is started for each run, as in `compare`. Each run takes --duration [default: 3 s]. DIR gets \
    raw.csv, sweep.json, and charts as SVG and PNG."
)]
pub struct SweepArgs {
    /// The server
    pub server: Target,
    /// Where the results go; made if it is missing
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Numbers of connections
    #[arg(long = "over-connections", value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "1,2,4,8,16", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub connections_list: Vec<u32>,
    /// Sizes of files
    #[arg(long = "over-sizes", value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "4K,1M,64M", value_parser = parse_bytes)]
    pub sizes: Vec<u64>,
    /// Writes under way; 1 is the deployed client
    #[arg(long = "over-windows", value_name = "LIST", value_delimiter = ',')]
    #[arg(default_value = "1,8", value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    pub windows: Vec<u32>,
    /// Runs of each point; charts show their median
    #[arg(long, value_name = "N", default_value = "3")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// What was measured, for the record: version and options of the server
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Whether arrivals are watched.
    #[command(flatten)]
    pub arrival: ArrivalArgs,
    /// What happens before each run.
    #[command(flatten)]
    pub probe: ProbeArgs,
    /// How servers are started.
    #[command(flatten)]
    pub start: StartArgs,
}

/// Options of `limit`.
#[derive(Clone, Debug, Args)]
pub struct LimitArgs {
    /// Directory on the staging file system
    #[arg(long, value_name = "DIR")]
    pub staging: PathBuf,
    /// Directory on the target file system
    #[arg(long, value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Connections, and files written at a time
    #[arg(short = 't', long, value_name = "N", default_value = "8")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub connections: u16,
    /// What a client writes at a time
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "1M", value_parser = parse_bytes)]
    pub chunk: u64,
    /// Each probe ends after this time,
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub seconds: Duration,
    /// or after so many bytes, whichever comes first; so much space is needed
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_bytes)]
    pub volume: u64,
    /// Size of the small files
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = parse_bytes)]
    pub small: u64,
    /// Write the result as JSON, too ('-': to standard output, instead of the text)
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl LimitArgs {
    /// The probes that these options mean.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn limits(&self) -> Result<Limits, Error> {
        if !(1..=CHUNK_BYTES_MAX).contains(&self.chunk) || self.small > CHUNK_BYTES_MAX {
            return Err(Error::Usage(
                "--chunk must be 1 byte to 1 GiB, --small at most 1 GiB".into(),
            ));
        }
        let in_memory = |bytes| usize::try_from(bytes).expect("at most 1 GiB");
        Ok(Limits {
            staging: self.staging.clone(),
            target: self.target.clone(),
            connections: usize::from(self.connections),
            chunk_bytes: in_memory(self.chunk),
            time: self.seconds,
            volume_bytes: self.volume,
            small_bytes: in_memory(self.small),
        })
    }
}

/// Options of `reference-server`.
#[derive(Debug, Args)]
pub struct ReferenceArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7625")]
    pub listen: String,
    /// Where files are written, below their paths
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// What is sent.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Node that signs on
    #[arg(short, long)]
    pub node: String,
    /// Its password; visible to every user of the machine, so prefer FILE or environment
    #[arg(short, long, env = "FSQ_PASSWORD", hide_env_values = true, default_value = "")]
    #[arg(hide_default_value = true)]
    pub password: Password,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// File system, as the server knows it
    #[arg(short, long)]
    pub fsname: String,
    /// Directory, FSNAME or below it [default: FSNAME]
    #[arg(short = 'a', long, value_name = "PATH")]
    pub fpath: Option<String>,
    /// Where files are to end up: null, local, lustre, tsm, lustre_tsm
    #[arg(short = 'o', long, value_name = "DESTINATION", default_value = "null")]
    pub storagedest: StorageDest,
    /// Connections at a time
    #[arg(short = 't', long, visible_alias = "threads", value_name = "N", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub connections: u32,
    /// Sessions besides that sign on before the run and say nothing until it is over
    #[arg(long, value_name = "N", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(u32).range(..=65536))]
    pub idle: u32,
    /// Size of the files: 16M, a list 4K,1M, lognormal:MEDIAN:SIGMA or lognormal:MEDIAN:SIGMA:MAX
    #[arg(short = 'z', long, default_value = "16M")]
    pub size: Sizes,
    /// Payload of one write
    #[arg(short = 'b', long, value_name = "SIZE", default_value = "1M", value_parser = parse_bytes)]
    pub chunk: u64,
    /// Send the first and the last SIZE bytes of a file on their own, as event builders do
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_bytes)]
    pub edge: u64,
    /// Files to send, over all connections [default: one each, or without end if there is a duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub files: Option<u64>,
    /// No file begins (with --rate: is due) later; those under way are finished
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,
    /// Sent first and not counted; comes on top of the duration
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = parse_seconds)]
    pub warm_up: Duration,
    /// Files per second over all connections, whether or not the server keeps up [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// How requests are sent
    #[arg(long, value_enum, default_value = "deployed")]
    pub client: Behaviour,
    /// Writes under way without a reply, pipelined client only, at most 32 [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    pub window: Option<u32>,
    /// Begin a new session after so many files
    #[arg(long, value_name = "FILES", value_parser = clap::value_parser!(u64).range(1..))]
    pub reconnect: Option<u64>,
    /// Packets of release 0.9.0
    #[arg(long)]
    pub layout_b: bool,
    /// Of all that is drawn: sizes and content
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// Longest wait for a reply
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = parse_seconds)]
    pub timeout: Duration,
    /// How the bytes are moved
    #[arg(long, value_enum, default_value_t)]
    pub engine: Engine,
}

impl LoadArgs {
    /// The plan that these options mean, with a directory of its own, against a server at
    /// HOST\[:PORT\]. Resolves its name.
    ///
    /// # Errors
    /// [`Error::Usage`] for options that do not go together.
    pub fn plan(&self, server: &str) -> Result<Plan, Error> {
        let (hostname, port) = split_server(server)?;
        let addresses = (hostname.as_str(), port)
            .to_socket_addrs()
            .map_err(Error::io(format!("finding the address of '{hostname}'")))?
            .collect();
        let dir = self.fpath.as_ref().unwrap_or(&self.fsname);
        let files = match (self.files, self.duration) {
            (None, None) => Some(u64::from(self.connections)),
            (files, _) => files,
        };
        let warm_up_ns = nanoseconds(self.warm_up);
        let end_ns = self.duration.map(|duration| warm_up_ns.saturating_add(nanoseconds(duration)));
        let plan = Plan {
            hostname,
            port,
            addresses,
            node: self.node.clone(),
            password: self.password()?,
            fs: self.fsname.clone(),
            dir: dir.clone(),
            run_id: run_id(),
            dest: self.storagedest,
            layout: if self.layout_b { Layout::B } else { Layout::C },
            behaviour: self.client,
            connections: self.connections,
            idle: self.idle,
            reconnect_after: self.reconnect,
            sizes: self.size.clone(),
            seed: self.seed,
            chunk_bytes: self.chunk_bytes()?,
            edge_bytes: self.edge,
            window: self.window()?,
            quota: Quota { files, end_ns, rate: self.rate },
            warm_up_ns,
            timeout: self.timeout.max(Duration::from_millis(1)),
        };
        plan.check().map_err(|error| Error::Usage(error.to_string()))?;
        Ok(plan)
    }

    fn chunk_bytes(&self) -> Result<u64, Error> {
        let range = 1..=CHUNK_BYTES_MAX;
        if range.contains(&self.chunk) && self.edge <= CHUNK_BYTES_MAX {
            return Ok(self.chunk);
        }
        Err(Error::Usage("--chunk must be 1 byte to 1 GiB, --edge at most 1 GiB".into()))
    }

    fn window(&self) -> Result<u32, Error> {
        match (self.client, self.window) {
            (Behaviour::Deployed, None | Some(1)) => Ok(1),
            (Behaviour::Deployed, Some(_)) => Err(Error::Usage(
                "the deployed client waits for each reply: --window needs --client pipelined"
                    .into(),
            )),
            (Behaviour::Pipelined, window) => Ok(window.unwrap_or(PIPELINED_WINDOW)),
        }
    }

    fn password(&self) -> Result<Password, Error> {
        let Some(file) = &self.password_file else {
            return Ok(self.password.clone());
        };
        let what = format!("password file {}", file.display());
        let metadata = fs::metadata(file).map_err(Error::io(what.clone()))?;
        if !metadata.is_file() || metadata.len() > PASSWORD_FILE_BYTES_MAX {
            return Err(Error::Usage(format!("{what}: not a short regular file")));
        }
        let text = fs::read_to_string(file).map_err(Error::io(what))?;
        Ok(Password::new(text.lines().next().unwrap_or_default().to_owned()))
    }
}

/// Puts `run` in front of options without a command, as the old tool was called.
#[must_use]
pub fn with_command(mut arguments: Vec<std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let is_old = arguments.get(1).is_some_and(|first| {
        let first = first.as_encoded_bytes();
        first.starts_with(b"-") && !matches!(first, b"-h" | b"--help" | b"-V" | b"--version")
    });
    if is_old {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address.
fn split_server(server: &str) -> Result<(String, u16), Error> {
    let bad = || Error::Usage(format!("'{server}' is no server: write HOST or HOST:PORT"));
    let (host, port) = if let Some(rest) = server.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(bad()),
        }
    } else {
        match server.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (server, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|&port: &u16| port != 0).ok_or_else(bad)?,
        None => DEFAULT_PORT,
    };
    if host.is_empty() { Err(bad()) } else { Ok((host.to_owned(), port)) }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=1e7).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds, at most 10 million".into())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1e-3..=1e7).contains(rate));
    rate.ok_or_else(|| "a number of files per second, 0.001 to 10 million".into())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The time to the microsecond and the process, so that a run finds no file of another.
fn run_id() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("fsq-bench-{:x}-{:x}", since.as_micros(), std::process::id())
}

#[cfg(test)]
mod tests;
