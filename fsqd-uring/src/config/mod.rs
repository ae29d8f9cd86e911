//! Configuration: what was typed becomes a [`Config`] of ready values, or one clear line.
//!
//! Two stages. `options` is what was typed, on the command line and in the conf file, each value
//! within its bounds; [`Config`] is what it means together, with all defaults filled in.
//! Invariant: a `Config` exists only if the whole of it is good; nothing starts half-configured
//! and nothing is asked for and silently not done.
//!
//! Exit status: 2 for options that make no sense (the status of `clap` for usage errors, also when
//! the value came from the conf file but only the combination is wrong), 1 for everything else
//! that prevents the start: a line of the conf file, a file or directory, a feature that this
//! version lacks.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use self::options::{ArchiveOption, AuthOption, Options};
use self::text::FileError;
use crate::fs::layout::{Layout, StripeCount};

mod conf;
mod options;
pub mod text;

/// The port clients connect to unless told otherwise.
pub const DEFAULT_PORT: u16 = 7625;
/// The least memory an ingest ring can work with, bytes: one huge page.
pub const BUFFER_BYTES_PER_RING_MIN: u64 = 2 << 20;

/// When CLOSE is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// When data, metadata and name are on stable storage
    #[default]
    Fsync,
    /// When all has been handed to the staging file system; power loss may take it
    Written,
}

/// How files are written on the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TargetIo {
    /// Direct where the target can and the file is large enough to gain
    #[default]
    Auto,
    /// Past the page cache
    Direct,
    /// Through the page cache
    Buffered,
}

/// How far a copy on the target is checked before the staging copy may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Verify {
    /// The CRC of what was read from staging and written
    #[default]
    Stream,
    /// In addition the CRC of what the target gives back after the sync
    Readback,
}

/// The io_uring features a ring is set up with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RingMode {
    /// The best that the kernel grants
    #[default]
    Auto,
    /// Deferred task work, single issuer (Linux 6.1)
    Defer,
    /// Cooperative task work (Linux 5.19)
    Coop,
    /// Only a completion queue of chosen size
    Cqsize,
    /// What Linux 5.10 has
    Plain,
}

/// How much is logged; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Verbosity {
    /// What went wrong
    Error,
    /// What may go wrong
    Warn,
    /// What operators want to know
    #[default]
    Message,
    /// What explains a single session or file
    Info,
    /// What developers want to know
    Debug,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `[M] seconds [thread] where text`
    #[default]
    Fsq,
    /// One JSON object per line
    Json,
}

/// How nodes prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// By the password that its TSM server knows.
    Tsm {
        /// Asked for, and not only the default. Without the TSM library the default lets nobody
        /// sign on, but the daemon runs all the same, because it must go on draining.
        asked: bool,
        /// How long a right password is believed without asking the server again.
        cache: Duration,
    },
    /// By a line of this password file.
    File(PathBuf),
    /// Not at all: knowing a name of the identity map is enough.
    None,
}

/// Where archive destinations go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archive {
    /// Into this directory.
    Dir(PathBuf),
    /// To a TSM server, as objects of this account.
    Tsm(TsmAccount),
    /// Where the requests of Lustre's HSM go.
    Hsm,
    /// Nothing was said: [`Self::Hsm`] where the target is Lustre with its library, else
    /// [`Self::None`].
    Default,
    /// Nowhere: such OPENs are refused.
    None,
}

/// How `--archive tsm` signs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TsmAccount {
    /// Node; `None`: that of the stanza.
    pub node: Option<String>,
    /// File with its password; `None`: the one that the TSM client has stored.
    pub password_file: Option<PathBuf>,
    /// Stanza of `dsm.sys`; `None`: the default one.
    pub server: Option<String>,
}

/// Which files are spread over the servers of the target, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StripeHint {
    /// Files of at least so many bytes.
    pub above_bytes: u64,
    /// What they get.
    pub layout: Layout,
}

/// Everything the daemon is told at start, ready for use. Fields are named as the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Root of the file system that files end up on; absolute and normalised.
    pub target: PathBuf,
    /// Root of the staging file system; absolute and normalised.
    pub localfs: PathBuf,
    /// The identity map; absolute.
    pub identmap: PathBuf,
    /// Where to listen. `[::]` means all addresses, IPv4 included; the listener falls back to
    /// `0.0.0.0` where IPv6 is off. Port 0 is any free one.
    pub bind: SocketAddr,
    /// Number of ingest rings, each with a thread.
    pub sthreads: usize,
    /// Number of drain workers, each with a ring and a thread.
    pub qthreads: usize,
    /// Number of archive threads.
    pub athreads: usize,
    /// Errors of one file before it is omitted.
    pub tolerr: u32,
    /// Most sessions at a time.
    pub max_sessions: usize,
    /// Receive buffers of all ingest rings together, bytes; at least
    /// [`BUFFER_BYTES_PER_RING_MIN`] for each.
    pub buffer_memory_bytes: u64,
    /// When CLOSE is acknowledged.
    pub durability: Durability,
    /// How nodes prove who they are.
    pub auth: Auth,
    /// The file of the TSM client library; `None`: in the usual places.
    pub tsm_library: Option<PathBuf>,
    /// Where archive destinations go.
    pub archive: Archive,
    /// How files are written on the target.
    pub target_io: TargetIo,
    /// Which files get a layout of their own; `None`: none does.
    pub striping: Option<StripeHint>,
    /// How far copies are checked.
    pub verify: Verify,
    /// Use of the staging file system above which an OPEN waits, percent.
    pub staging_high_percent: u8,
    /// How long such an OPEN waits before it fails.
    pub space_wait: Duration,
    /// How long half a packet or a payload may stand still before the session is closed.
    pub stall_timeout: Duration,
    /// How long the target or the archive may keep a worker waiting before that is reported.
    pub hung_after: Duration,
    /// The io_uring features to use.
    pub ring_mode: RingMode,
    /// How much is logged.
    pub verbose: Verbosity,
    /// The shape of log lines.
    pub log_format: LogFormat,
    /// How often the rings' counters are logged; zero: only when asked for by SIGUSR1.
    pub stats_interval: Duration,
    /// Check all this and exit.
    pub check_config: bool,
}

/// What a command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run (or check) with this configuration.
    Run(Box<Config>),
    /// Print this help or version text on standard output and exit 0.
    Print(String),
}

/// Why the daemon does not start; one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Options that make no sense.
    #[error("{0} (fsqd --help shows all options)")]
    Usage(String),
    /// The conf file, or another file, cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is asked for cannot be had here.
    #[error("{0}")]
    Unusable(String),
}

impl ConfigError {
    /// The exit status of the process, see the module's documentation.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::File(_) | Self::Unusable(_) => 1,
        }
    }
}

impl Config {
    /// Reads a command line (with the program's name in front) and the conf file it names.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`ConfigError`].
    pub fn parse<I>(arguments: I) -> Result<Invocation, ConfigError>
    where
        I: IntoIterator<Item = OsString>,
    {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let typed = match Options::try_parse_from(&arguments) {
            Ok(typed) => typed,
            Err(error) if error.exit_code() == 0 => {
                return Ok(Invocation::Print(error.render().to_string()));
            }
            Err(error) => return Err(ConfigError::Usage(options::one_line(&error))),
        };
        let typed = match &typed.conf {
            None => typed,
            Some(conf) => {
                // The last of two equal options counts: so the command line wins.
                let (program, rest) = arguments.split_at(1.min(arguments.len()));
                let all = program.iter().cloned().chain(conf::load(conf)?);
                Options::try_parse_from(all.chain(rest.iter().cloned()))
                    .map_err(|error| ConfigError::Usage(options::one_line(&error)))?
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Invocation::Run(Box::new(Self::validate(typed, cores)?)))
    }

    fn validate(typed: Options, cores: usize) -> Result<Self, ConfigError> {
        let target = typed.target.as_deref().ok_or_else(|| {
            ConfigError::Usage("the target directory <lustre_mount_point> is missing".to_owned())
        })?;
        let (archive, striping) = (archive(&typed)?, striping(&typed)?);
        let ip = typed.bind.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let buffer_memory_bytes = typed.buffer_memory.unwrap_or(256 << 20);
        let config = Self {
            target: normalised("<lustre_mount_point>", target)?,
            localfs: normalised("--localfs", &required("localfs", typed.localfs)?)?,
            identmap: normalised("--identmap", &required("identmap", typed.identmap)?)?,
            bind: SocketAddr::new(ip, typed.port.unwrap_or(DEFAULT_PORT)),
            sthreads: ring_count(typed.sthreads, cores, buffer_memory_bytes)?,
            qthreads: typed.qthreads.unwrap_or(4),
            athreads: typed.athreads.unwrap_or(4),
            tolerr: typed.tolerr.unwrap_or(16),
            max_sessions: typed.max_sessions.unwrap_or(4096),
            buffer_memory_bytes,
            durability: typed.durability.unwrap_or_default(),
            auth: auth(typed.auth, typed.sign_on_cache, ip, typed.insecure.unwrap_or(false))?,
            tsm_library: typed.tsm_library,
            archive,
            target_io: typed.target_io.unwrap_or_default(),
            striping,
            verify: typed.verify.unwrap_or_default(),
            staging_high_percent: typed.staging_high.unwrap_or(90),
            space_wait: Duration::from_secs(typed.space_wait.unwrap_or(600)),
            stall_timeout: Duration::from_secs(typed.stall_timeout.unwrap_or(60)),
            hung_after: Duration::from_secs(typed.hung_after.unwrap_or(60)),
            ring_mode: typed.ring_mode.unwrap_or_default(),
            verbose: typed.verbose.unwrap_or_default(),
            log_format: typed.log_format.unwrap_or_default(),
            stats_interval: Duration::from_secs(typed.stats_interval.unwrap_or(0)),
            check_config: typed.check_config,
        };
        config.check_disjoint(|path| path.to_path_buf()).map_err(ConfigError::Usage)?;
        Ok(config)
    }

    /// Looks at the file systems: the directories must be there and apart from each other, and the
    /// identity map readable. Whether they can be written is found out by those who do.
    ///
    /// # Errors
    /// The first that is not as it must be.
    pub fn check_paths(&self) -> Result<(), ConfigError> {
        directory("staging directory (--localfs)", &self.localfs)?;
        directory("target directory <lustre_mount_point>", &self.target)?;
        if let Archive::Dir(path) = &self.archive {
            directory("archive directory (--archive)", path)?;
        }
        text::read(&self.identmap)?;
        self.check_overlap()
    }

    /// Whether the directories lie apart from each other also when symlinks are followed.
    ///
    /// # Errors
    /// The first two that do not.
    pub fn check_overlap(&self) -> Result<(), ConfigError> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        self.check_disjoint(real).map_err(ConfigError::Unusable)
    }

    /// No root may lie in another: recovery would take archived files for staged ones, and
    /// clients could write where the daemon alone does.
    fn check_disjoint(&self, real: impl Fn(&Path) -> PathBuf) -> Result<(), String> {
        let mut roots = vec![("staging directory", &self.localfs), ("target", &self.target)];
        if let Archive::Dir(path) = &self.archive {
            roots.push(("archive directory", path));
        }
        for (index, (one, path)) in roots.iter().enumerate() {
            for (two, other) in &roots[index + 1..] {
                let (real_path, real_other) = (real(path), real(other));
                if real_path.starts_with(&real_other) || real_other.starts_with(&real_path) {
                    return Err(format!(
                        "{one} {} and {two} {} must not lie in each other",
                        path.display(),
                        other.display()
                    ));
                }
            }
        }
        Ok(())
    }
}

fn required(name: &str, path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    path.ok_or_else(|| {
        ConfigError::Usage(format!(
            "--{name} is missing; give it on the command line or as the key {name} in the conf file"
        ))
    })
}

/// Absolute, without `.` and empty components. `..` is refused: taking it out would change what
/// the path means where symlinks are about.
fn normalised(option: &str, path: &Path) -> Result<PathBuf, ConfigError> {
    let absolute = std::path::absolute(path)
        .map_err(|error| ConfigError::Usage(format!("{option} {}: {error}", path.display())))?;
    if absolute.components().any(|part| part == Component::ParentDir) {
        let text = format!("{option} {} contains '..'; write it without", path.display());
        return Err(ConfigError::Usage(text));
    }
    Ok(absolute.components().collect())
}

/// By default one ring per core, as far as the memory goes round.
fn ring_count(typed: Option<usize>, cores: usize, bytes: u64) -> Result<usize, ConfigError> {
    let most = usize::try_from(bytes / BUFFER_BYTES_PER_RING_MIN).unwrap_or(usize::MAX);
    match typed {
        None => Ok(cores.min(most).clamp(1, options::STHREADS_MAX)),
        Some(count) if count <= most => Ok(count),
        Some(count) => Err(ConfigError::Usage(format!(
            "--buffer-memory {bytes} bytes is too little for --sthreads {count}: each ring needs \
             {BUFFER_BYTES_PER_RING_MIN}"
        ))),
    }
}

fn auth(
    typed: Option<AuthOption>,
    cache_s: Option<u64>,
    ip: IpAddr,
    insecure: bool,
) -> Result<Auth, ConfigError> {
    match typed {
        None | Some(AuthOption::Tsm) => {
            let cache = Duration::from_secs(cache_s.unwrap_or(60));
            Ok(Auth::Tsm { asked: typed.is_some(), cache })
        }
        Some(AuthOption::File(path)) => Ok(Auth::File(normalised("--auth file:", &path)?)),
        Some(AuthOption::None) if insecure || ip.to_canonical().is_loopback() => Ok(Auth::None),
        Some(AuthOption::None) => Err(ConfigError::Usage(format!(
            "--auth none lets anybody who reaches {ip} write files: use it with --bind 127.0.0.1, \
             or add --insecure if that is wanted"
        ))),
    }
}

fn archive(typed: &Options) -> Result<Archive, ConfigError> {
    let account = TsmAccount {
        node: typed.archive_node.clone(),
        password_file: typed
            .archive_password_file
            .as_deref()
            .map(|path| normalised("--archive-password-file", path))
            .transpose()?,
        server: typed.archive_server.clone(),
    };
    if typed.archive != Some(ArchiveOption::Tsm) && account != TsmAccount::default() {
        let text = "--archive-node, --archive-password-file and --archive-server go with \
                    --archive tsm only";
        return Err(ConfigError::Usage(text.to_owned()));
    }
    match &typed.archive {
        None => Ok(Archive::Default),
        Some(ArchiveOption::None) => Ok(Archive::None),
        Some(ArchiveOption::Hsm) => Ok(Archive::Hsm),
        Some(ArchiveOption::Dir(path)) => Ok(Archive::Dir(normalised("--archive dir:", path)?)),
        Some(ArchiveOption::Tsm) if account.password_file.is_some() && account.node.is_none() => {
            let text = "--archive-password-file needs --archive-node: whose password it is";
            Err(ConfigError::Usage(text.to_owned()))
        }
        Some(ArchiveOption::Tsm) => Ok(Archive::Tsm(account)),
    }
}

/// By default over all OSTs: who asks for nothing but large files to be spread needs no knowledge
/// of the site for that, and no other number would be right everywhere.
fn striping(typed: &Options) -> Result<Option<StripeHint>, ConfigError> {
    let Some(above_bytes) = typed.stripe_above else {
        let details = typed.stripe_count.is_some()
            || typed.stripe_size.is_some()
            || typed.stripe_pool.is_some();
        let text = "--stripe-count, --stripe-size and --stripe-pool go with --stripe-above only: \
                    from which size on files get them";
        return if details { Err(ConfigError::Usage(text.to_owned())) } else { Ok(None) };
    };
    let layout = Layout {
        stripes: typed.stripe_count.unwrap_or(StripeCount::All),
        stripe_bytes: typed.stripe_size,
        pool: typed.stripe_pool.clone(),
    };
    Ok(Some(StripeHint { above_bytes, layout }))
}

/// Whether `path` is a directory; `what` is what it is called.
pub(crate) fn directory(what: &str, path: &Path) -> Result<(), ConfigError> {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => {
            Err(ConfigError::Unusable(format!("{what} {} is not a directory", path.display())))
        }
        Err(error) => Err(ConfigError::Unusable(format!("{what} {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests;
