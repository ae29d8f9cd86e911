//! The options as typed: the command line that `clap` parses, and the bounds of each value.
//!
//! Every option is an `Option`, so that "not given" stays apart from the default; the defaults are
//! filled in by [`super::Config`].

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::BoolishValueParser;

use super::{Durability, LogFormat, RingMode, TargetIo, Verbosity, Verify};
use crate::fs::layout::{Layout, StripeCount};

/// Most ingest rings.
pub(super) const STHREADS_MAX: usize = 1024;

/// Takes files from detector read-out clients over TCP, makes them safe on a local staging file
/// system, and moves them on to Lustre and the archive in the background.
#[derive(Clone, Debug, Parser)]
#[command(name = "fsqd", version, args_override_self = true)]
#[command(override_usage = "fsqd [OPTIONS] -l <DIR> -i <FILE> <lustre_mount_point>")]
#[command(
    after_help = "Every option but --conf and --check-config is also a key of the conf file."
)]
pub(super) struct Options {
    /// Root of the file system that files are moved to
    #[arg(value_name = "lustre_mount_point")]
    pub(super) target: Option<PathBuf>,

    /// Staging file system (required)
    #[arg(short, long, value_name = "DIR")]
    pub(super) localfs: Option<PathBuf>,

    /// Who may write where (required)
    #[arg(short, long, value_name = "FILE")]
    pub(super) identmap: Option<PathBuf>,

    /// TCP port [default: 7625; 0 takes any free one]
    #[arg(short, long, value_name = "N", value_parser = bounded::<u16>(0, 65535, "a TCP port"))]
    pub(super) port: Option<u16>,

    /// Ingest rings [default: one per online core]
    #[arg(short, long, value_name = "N",
          value_parser = bounded::<usize>(1, STHREADS_MAX as u64, "each ring is a thread"))]
    pub(super) sthreads: Option<usize>,

    /// Drain workers, each with its own ring [default: 4]
    #[arg(short, long, value_name = "N",
          value_parser = bounded::<usize>(1, 256, "each worker is a thread with a file in flight"))]
    pub(super) qthreads: Option<usize>,

    /// Errors of a file before it is omitted [default: 16]
    #[arg(short, long, value_name = "N",
          value_parser = bounded::<u32>(0, 1_000_000, "a number of tries"))]
    pub(super) tolerr: Option<u32>,

    /// Options as `key value` lines; the command line wins
    #[arg(short, long, value_name = "FILE")]
    pub(super) conf: Option<PathBuf>,

    /// How much is logged [default: message]
    #[arg(short, long, value_name = "LEVEL", value_enum)]
    pub(super) verbose: Option<Verbosity>,

    /// Address to listen on [default: all]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(super) bind: Option<IpAddr>,

    /// Most sessions at a time [default: 4096]
    #[arg(long, value_name = "N",
          value_parser = bounded::<usize>(1, 65536, "each session is an open socket"))]
    pub(super) max_sessions: Option<usize>,

    /// Receive buffers of all ingest rings together, with K, M or G [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub(super) buffer_memory: Option<u64>,

    /// When a CLOSE is acknowledged [default: fsync]
    #[arg(long, value_name = "WHEN", value_enum)]
    pub(super) durability: Option<Durability>,

    /// How nodes prove who they are: tsm, file:PATH or none [default: tsm; without the TSM client
    /// library every sign-on is then refused]
    #[arg(long, value_name = "KIND", value_parser = auth)]
    pub(super) auth: Option<AuthOption>,

    /// How long --auth tsm believes a right password without asking the server again [default: 60]
    #[arg(long, value_name = "SECONDS",
          value_parser = bounded::<u64>(0, 86400, "a changed password works for that much longer"))]
    pub(super) sign_on_cache: Option<u64>,

    /// The TSM client library [default: libApiTSM64.so, or what FSQD_TSM_LIBRARY names]
    #[arg(long, value_name = "FILE")]
    pub(super) tsm_library: Option<PathBuf>,

    /// Accept --auth none on addresses that others can reach
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true,
          default_missing_value = "yes", value_parser = BoolishValueParser::new())]
    pub(super) insecure: Option<bool>,

    /// Where archive destinations go: hsm, tsm, dir:PATH or none [default: hsm where
    /// the target is Lustre, else none]
    #[arg(long, value_name = "KIND", value_parser = archive)]
    pub(super) archive: Option<ArchiveOption>,

    /// Node that --archive tsm signs on as [default: that of the stanza in dsm.sys]
    #[arg(long, value_name = "NODE", value_parser = word)]
    pub(super) archive_node: Option<String>,

    /// File with nothing but the password of that node, for its owner only [default: the password
    /// that the TSM client has stored, PASSWORDACCESS GENERATE]
    #[arg(long, value_name = "FILE")]
    pub(super) archive_password_file: Option<PathBuf>,

    /// Stanza of dsm.sys that --archive tsm uses [default: the default one]
    #[arg(long, value_name = "NAME", value_parser = word)]
    pub(super) archive_server: Option<String>,

    /// Archive threads [default: 4]
    #[arg(long, value_name = "N",
          value_parser = bounded::<usize>(1, 256, "each is a thread with a session of its own"))]
    pub(super) athreads: Option<usize>,

    /// How files are written on the target [default: auto]
    #[arg(long, value_name = "HOW", value_enum)]
    pub(super) target_io: Option<TargetIo>,

    /// Files of at least this size are spread over several OSTs of Lustre, with K, M, G or T
    /// [default: all files get the layout of their directory]
    #[arg(long, value_name = "SIZE", value_parser = stripe_above)]
    pub(super) stripe_above: Option<u64>,

    /// Over how many: all or a number [default: all]
    #[arg(long, value_name = "N", value_parser = stripe_count)]
    pub(super) stripe_count: Option<StripeCount>,

    /// Bytes on one OST before the next one's begin [default: the file system's]
    #[arg(long, value_name = "SIZE", value_parser = stripe_size)]
    pub(super) stripe_size: Option<u32>,

    /// The pool whose OSTs are taken [default: the file system's]
    #[arg(long, value_name = "NAME", value_parser = pool)]
    pub(super) stripe_pool: Option<String>,

    /// How far a copy is checked before its staging file goes [default: stream]
    #[arg(long, value_name = "HOW", value_enum)]
    pub(super) verify: Option<Verify>,

    /// Use of the staging file system above which an OPEN waits [default: 90]
    #[arg(long, value_name = "PERCENT", value_parser = bounded::<u8>(1, 100, "percent"))]
    pub(super) staging_high: Option<u8>,

    /// How long such an OPEN waits before it fails [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = bounded::<u64>(0, 86400, "at most a day"))]
    pub(super) space_wait: Option<u64>,

    /// How long half a packet or a payload may stand still [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = bounded::<u64>(1, 86400, "at most a day"))]
    pub(super) stall_timeout: Option<u64>,

    /// How long the target or the archive may keep a worker waiting before that is reported, and again
    /// each time it has doubled [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = bounded::<u64>(1, 86400, "at most a day"))]
    pub(super) hung_after: Option<u64>,

    /// The io_uring features to use [default: auto]
    #[arg(long, value_name = "MODE", value_enum)]
    pub(super) ring_mode: Option<RingMode>,

    /// The shape of log lines [default: fsq]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(super) log_format: Option<LogFormat>,

    /// How often the rings' counters are logged; SIGUSR1 logs them at any time [default: 0, never]
    #[arg(long, value_name = "SECONDS", value_parser = bounded::<u64>(0, 86400, "at most a day"))]
    pub(super) stats_interval: Option<u64>,

    /// Check configuration, directories and files, and exit
    #[arg(long)]
    pub(super) check_config: bool,
}

/// `--auth` as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthOption {
    Tsm,
    File(PathBuf),
    None,
}

/// `--archive` as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ArchiveOption {
    Hsm,
    Tsm,
    Dir(PathBuf),
    None,
}

/// A decimal number from `min` to `max`; `why` explains the bounds.
fn bounded<T: TryFrom<u64>>(
    min: u64,
    max: u64,
    why: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("not a number from {min} to {max} ({why})"))
    }
}

/// The bounds keep a slip of the unit from locking all memory or leaving none.
fn memory(text: &str) -> Result<u64, String> {
    const MIN: u64 = 16 << 20;
    const MAX: u64 = 1 << 40;
    size(text).filter(|bytes| (MIN..=MAX).contains(bytes)).ok_or_else(|| {
        "not a size from 16M to 1024G (bytes, or with K, M or G for powers of 1024)".to_owned()
    })
}

/// Bytes, as a decimal number and perhaps a unit.
fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit))
}

/// A file below the least stripe size never has a second stripe.
fn stripe_above(text: &str) -> Result<u64, String> {
    const MIN: u64 = Layout::STRIPE_UNIT_BYTES as u64;
    const MAX: u64 = 1 << 50;
    size(text).filter(|bytes| (MIN..=MAX).contains(bytes)).ok_or_else(|| {
        "not a size from 64K to 1024T (bytes, or with K, M, G or T for powers of 1024)".to_owned()
    })
}

fn stripe_count(text: &str) -> Result<StripeCount, String> {
    if text == "all" {
        return Ok(StripeCount::All);
    }
    let number = text.parse().ok().filter(|number: &NonZeroU16| number.get() <= StripeCount::MAX);
    number
        .map(StripeCount::Number)
        .ok_or_else(|| format!("neither all nor a number from 1 to {}", StripeCount::MAX))
}

fn stripe_size(text: &str) -> Result<u32, String> {
    let bytes = size(text).and_then(|bytes| u32::try_from(bytes).ok());
    bytes
        .filter(|bytes| *bytes > 0 && bytes.is_multiple_of(Layout::STRIPE_UNIT_BYTES))
        .ok_or_else(|| "not a multiple of 64K below 4G, as Lustre has it".to_owned())
}

fn pool(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = Layout::POOL_BYTES_MAX;
    let good =
        (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| text.to_owned())
        .ok_or_else(|| format!("not 1 to {BYTES_MAX} printable ASCII characters"))
}

fn address(text: &str) -> Result<IpAddr, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    inner.parse().map_err(|_| "not an IPv4 or IPv6 address (the port is --port)".to_owned())
}

/// What the TSM client takes as a name.
fn word(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 64;
    let good = (1..=BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\''));
    good.then(|| text.to_owned())
        .ok_or_else(|| format!("not 1 to {BYTES_MAX} printable ASCII characters without quotes"))
}

fn auth(text: &str) -> Result<AuthOption, String> {
    match text.split_once(':') {
        None if text == "tsm" => Ok(AuthOption::Tsm),
        None if text == "none" => Ok(AuthOption::None),
        Some(("file", path)) if !path.is_empty() => Ok(AuthOption::File(path.into())),
        _ => Err("not tsm, file:PATH or none".to_owned()),
    }
}

fn archive(text: &str) -> Result<ArchiveOption, String> {
    match text.split_once(':') {
        None if text == "hsm" => Ok(ArchiveOption::Hsm),
        None if text == "tsm" => Ok(ArchiveOption::Tsm),
        None if text == "none" => Ok(ArchiveOption::None),
        Some(("dir", path)) if !path.is_empty() => Ok(ArchiveOption::Dir(path.into())),
        _ => Err("not hsm, tsm, dir:PATH or none".to_owned()),
    }
}

/// What `clap` says in a paragraph with usage and hints, as one line.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraphs = text.split("\n\n").take_while(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
    });
    let sentences: Vec<String> = paragraphs
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|sentence| !sentence.is_empty())
        .collect();
    let mut line = String::new();
    for char in sentences.join("; ").chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    line
}
