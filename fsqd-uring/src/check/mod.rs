//! `--check-config`: tries everything that the configuration asks for, and says in words what works
//! and what does not.
//!
//! Owns the findings and their order. Invariant: a check that fails or hangs keeps no other from
//! being made, nothing but empty housekeeping files of the staging directory is left behind, and
//! all is good only if the daemon could start and deliver as asked.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tracing::{error, info, warn};
use tsm_bindings::tsm::{Class, Tsm};

use crate::archive::backend::Backend;
use crate::archive::tsm::Account;
use crate::auth::{self, FileAuth};
use crate::config::{Auth, Config, RingMode, directory};
use crate::daemon::{best_rung, raise_limits, ring_config};
use crate::drain::Striping;
use crate::fs::linux::LinuxFs;
use crate::fs::{Fs, FsType, Handle, Space};
use crate::identmap::IdentityMap;
use crate::ingest::acceptor::Listener;
use crate::ring::selftest;
use crate::ring::setup::memlock_limit;
use crate::ring::uring::Uring;
use crate::staging::root::StagingRoot;

mod mount;
mod probe;
#[cfg(test)]
mod tests;

/// How long file systems may take to answer. The daemon itself would wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names that a finding lists before it says how many more there are.
const NAMES_MAX: usize = 8;

/// What a finding means for the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works.
    Good,
    /// The daemon runs, but somebody will miss something.
    Warning,
    /// It would not start, or not do what it is asked to.
    Error,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it means.
    pub severity: Severity,
    /// What was found, and what to do about it.
    pub text: String,
}

/// The findings about one part.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, text: impl Into<String>) {
        self.0.push(Finding { severity, text: text.into() });
    }

    fn good(&mut self, text: impl Into<String>) {
        self.add(Severity::Good, text);
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.add(Severity::Warning, text);
    }

    fn error(&mut self, text: impl Into<String>) {
        self.add(Severity::Error, text);
    }
}

/// Makes all checks and logs each finding as it comes. Successful only if none is an error.
#[must_use]
pub fn run(config: &Config) -> ExitCode {
    let (mut warnings, mut errors) = (0, 0);
    all(config, |finding| match finding.severity {
        Severity::Good => info!("{}", finding.text),
        Severity::Warning => {
            warnings += 1;
            warn!("{}", finding.text);
        }
        Severity::Error => {
            errors += 1;
            error!("{}", finding.text);
        }
    });
    if errors == 0 {
        info!("the configuration works ({warnings} warnings)");
        ExitCode::SUCCESS
    } else {
        error!("the configuration does not work: {errors} errors, {warnings} warnings");
        ExitCode::FAILURE
    }
}

/// All checks in the order of the start; `report` is told of each finding.
pub fn all(config: &Config, mut report: impl FnMut(Finding)) {
    let config = Arc::new(config.clone());
    let map = IdentityMap::load(&config.identmap);
    let mut findings = Findings::default();
    limits(&config, &mut findings);
    match &map {
        Ok(map) => identities(&config, map, &mut findings),
        Err(error) => findings.error(format!("identity map: {error}")),
    }
    let map = Arc::new(map.unwrap_or_default());
    // On this thread, the main one: it may start the TSM library.
    passwords(&config, &map, &mut findings);
    findings.0.into_iter().for_each(&mut report);

    let parts: [(&str, Part); 6] = [
        ("staging", staging),
        ("target", target),
        ("striping", striping),
        ("archive", archive),
        ("directories", directories),
        ("port", port),
    ];
    for (name, part) in parts {
        patiently(name, part, &config, &map).into_iter().for_each(&mut report);
    }
}

type Part = fn(&Config, &IdentityMap, &mut Findings);

/// Makes checks on a thread of their own, since a mount whose server is gone blocks whoever
/// touches it.
fn patiently(name: &str, part: Part, config: &Arc<Config>, map: &Arc<IdentityMap>) -> Vec<Finding> {
    let (config, map) = (Arc::clone(config), Arc::clone(map));
    within(PATIENCE, name, move |findings| part(&config, &map, findings))
}

fn within(
    patience: Duration,
    name: &str,
    work: impl FnOnce(&mut Findings) + Send + 'static,
) -> Vec<Finding> {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("fsq_check/{name}"));
    let spawned = thread.spawn(move || {
        let mut findings = Findings::default();
        work(&mut findings);
        // Nobody listens any more if it took too long.
        let _ = done.send(findings);
    });
    let mut late = Findings::default();
    match spawned.map(|_| wait.recv_timeout(patience)) {
        Ok(Ok(findings)) => return findings.0,
        Ok(Err(_)) => late.error(format!(
            "{name}: no answer within {} s: a mount or a server hangs; dmesg names that of a mount",
            patience.as_secs()
        )),
        Err(error) => late.error(format!("{name}: no thread to check it: {error}")),
    }
    late.0
}

/// Limits of the process, raised as far as the daemon would raise them.
fn limits(config: &Config, findings: &mut Findings) {
    let shortage = raise_limits(config);
    match shortage.files {
        None => findings.good(format!("{} sessions have file descriptors", config.max_sessions)),
        Some(_) => findings.warning(shortage.to_string()),
    }
    let needed = config.buffer_memory_bytes;
    if shortage.memlock && !may_lock_memory() {
        findings.warning(format!(
            "locked memory: {} of receive buffers are to be registered, the limit is {}; writes to \
             staging would cost three times the CPU; set LimitMEMLOCK=infinity or lower \
             --buffer-memory",
            Bytes(needed),
            memlock_limit()
        ));
    } else {
        findings.good(format!("locked memory: {} may be registered", Bytes(needed)));
    }
}

fn may_lock_memory() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK))
}

fn identities(config: &Config, map: &IdentityMap, findings: &mut Findings) {
    let path = config.identmap.display();
    findings.good(format!("identity map {path}: {} nodes", map.iter().count()));
    let root: Vec<&str> =
        map.iter().filter(|node| node.uid == 0).map(|node| node.node.as_str()).collect();
    if !root.is_empty() {
        findings.warning(format!("identity map {path}: files of {} belong to root", Names(&root)));
    }
}

fn passwords(config: &Config, map: &IdentityMap, findings: &mut Findings) {
    match &config.auth {
        Auth::None => findings.warning(format!(
            "passwords are not checked (--auth none): whoever reaches {} and knows a node's name \
             writes its files",
            config.bind
        )),
        Auth::File(path) => match FileAuth::load(path) {
            Err(error) => findings.error(format!("passwords: {error}")),
            Ok(file) => {
                findings.good(format!("passwords {}: {} nodes", path.display(), file.count()));
                let without: Vec<&str> = map
                    .iter()
                    .map(|identity| identity.node.as_str())
                    .filter(|node| !file.knows(node))
                    .collect();
                if !without.is_empty() {
                    findings.warning(format!(
                        "passwords {}: none for {}, who can therefore not sign on",
                        path.display(),
                        Names(&without)
                    ));
                }
            }
        },
        Auth::Tsm { asked, .. } => match auth::tsm::load(config.tsm_library.as_deref()) {
            Ok(library) => {
                findings.good(format!(
                    "passwords: TSM client library {}, level {}, starts",
                    library.path().display(),
                    library.version()
                ));
                let mut servers: Vec<&str> =
                    map.iter().map(|identity| identity.servername.as_str()).collect();
                servers.sort_unstable();
                servers.dedup();
                findings.good(format!(
                    "passwords: not tried, since no node's password is known here; each of the TSM \
                     servers {} needs a stanza in dsm.sys with PASSWORDACCESS PROMPT",
                    Names(&servers)
                ));
            }
            Err(error) if *asked => findings.error(auth::tsm_missing(&error)),
            Err(error) => findings.warning(format!(
                "passwords: nobody could sign on, only what is staged would be drained: {}",
                auth::tsm_missing(&error)
            )),
        },
    }
}

fn staging(config: &Config, _: &IdentityMap, findings: &mut Findings) {
    if let Err(error) = directory("staging directory (--localfs)", &config.localfs) {
        findings.error(error.to_string());
        return rings(config, None, findings);
    }
    let root = match StagingRoot::open(Arc::new(LinuxFs), &config.localfs, std::process::id()) {
        Ok(root) => root,
        Err(error) => {
            findings.error(error.to_string());
            return rings(config, None, findings);
        }
    };
    let (path, facts) = (config.localfs.display(), root.facts);
    findings.good(format!("staging directory {path}: {facts}"));
    if facts.fs_type == FsType::TMPFS {
        findings.warning(format!(
            "staging directory {path} is memory: a power failure takes what was acknowledged"
        ));
    }
    space("staging directory", &config.localfs, root.fs.space(&root.node), findings, |used| {
        (used > u64::from(config.staging_high_percent)).then(|| {
            let limit = config.staging_high_percent;
            format!("above --staging-high {limit}: every OPEN would wait")
        })
    });
    rings(config, Some(&root), findings);
}

fn rings(config: &Config, root: Option<&StagingRoot<LinuxFs>>, findings: &mut Findings) {
    let ring = Uring::open(&ring_config(best_rung(config.ring_mode), 0, 1 << 20));
    let mut ring = match ring {
        Ok(ring) => ring,
        Err(error) => return findings.error(error.to_string()),
    };
    let release = rustix::system::uname();
    findings.good(format!("linux {}: {}", release.release().to_string_lossy(), ring.caps()));
    if config.ring_mode != RingMode::Auto && ring.caps().rung < best_rung(config.ring_mode) {
        findings.warning("this kernel has less than --ring-mode asks for");
    }
    let Some(root) = root else { return };
    let owner = crate::fs::Ownership { uid: None, gid: None, mode: 0o600 };
    let block = root.fs.create_unnamed(&root.node, owner, root.facts.direct);
    let written = block
        .map_err(|error| error.errno)
        .and_then(|block| selftest::write_block(&mut ring, block.id()));
    match written {
        Ok(()) => findings.good("io_uring writes to the staging directory"),
        Err(errno) => findings.error(format!(
            "io_uring cannot write to the staging directory {}: {errno}",
            config.localfs.display()
        )),
    }
}

fn target(config: &Config, map: &IdentityMap, findings: &mut Findings) {
    if let Err(error) = directory("target directory <lustre_mount_point>", &config.target) {
        return findings.error(error.to_string());
    }
    let path = config.target.display();
    let fs = LinuxFs;
    let root = match fs.open_root(&config.target) {
        Ok(root) => root,
        Err(error) => return findings.error(format!("target {path}: {error}")),
    };
    let fs_type = fs.fs_type(&root);
    let kind = fs_type.map_or_else(|error| error.to_string(), |kind| kind.to_string());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let real = config.target.canonicalize().unwrap_or_else(|_| config.target.clone());
    match mount::of(&mounts, &real) {
        Some(mount) => {
            findings.good(format!("target {path}: {kind}, {mount}"));
            if mount.is_root() {
                findings.warning(format!(
                    "target {path} lies on the root file system: if another is to be mounted \
                     there, it is not"
                ));
            }
        }
        None => findings.good(format!("target {path}: {kind}")),
    }
    if fs_type.is_ok_and(|kind| kind != FsType::LUSTRE) {
        findings.good(format!("target {path} is not Lustre: files are delivered all the same"));
    }
    // Someone else than us, as most nodes are.
    let me = rustix::process::geteuid().as_raw();
    let other = map.iter().find(|identity| identity.uid != me).or_else(|| map.iter().next());
    let owner = other.map(|identity| (identity.uid, identity.gid));
    probe::run(&fs, &root, &format!("target {path}"), owner, findings);
    space("target", &config.target, fs.space(&root), findings, |used| {
        (used >= 99).then(|| "nearly full".to_owned())
    });
}

fn striping(config: &Config, _: &IdentityMap, findings: &mut Findings) {
    let striping = match Striping::open(config) {
        Ok(None) => return,
        Ok(Some(striping)) => striping,
        Err(error) => return findings.error(error.to_string()),
    };
    let what = format!("target {}", config.target.display());
    match LinuxFs.open_root(&config.target) {
        Ok(root) => probe::layout(&LinuxFs, &root, &what, &striping.hint().layout, findings),
        Err(error) => findings.error(format!("{what}: {error}")),
    }
}

fn archive(config: &Config, _: &IdentityMap, findings: &mut Findings) {
    let backend = match Backend::open(config) {
        Ok(backend) => backend,
        Err(error) => return findings.error(error.to_string()),
    };
    if let Err(reason) = backend.accepts() {
        return findings.good(format!("archive destinations are refused: {reason}"));
    }
    match &backend {
        Backend::None => {}
        Backend::Dir(path) => archive_directory(path, findings),
        Backend::Tsm { tsm, account } => archive_server(tsm, account, findings),
        Backend::Hsm { lustre, mount, .. } => findings.good(format!(
            "archive hsm: {}, Lustre file system {} mounted on {}; whether its copytool runs shows \
             with the first file",
            lustre.path().display(),
            mount.fsname,
            mount.directory.display()
        )),
    }
}

fn archive_directory(path: &Path, findings: &mut Findings) {
    if let Err(error) = directory("archive directory (--archive)", path) {
        return findings.error(error.to_string());
    }
    let fs = LinuxFs;
    let name = format!("archive directory {}", path.display());
    match fs.open_root(path) {
        Err(error) => findings.error(format!("{name}: {error}")),
        Ok(root) => {
            probe::run(&fs, &root, &name, None, findings);
            space("archive directory", path, fs.space(&root), findings, |used| {
                (used >= 99).then(|| "nearly full".to_owned())
            });
        }
    }
}

/// Here a sign-on can be tried, since the account is the daemon's own.
fn archive_server(tsm: &'static Tsm, account: &Account, findings: &mut Findings) {
    let (library, level) = (tsm.path().display(), tsm.version());
    findings.good(format!("archive tsm: client library {library}, level {level}, starts"));
    let signed_on = tsm.sign_on(&account.login()).and_then(|mut session| {
        let limits = session.limits()?;
        Ok((session.server().to_owned(), limits))
    });
    let whom = account.whom();
    match signed_on {
        Ok((server, limits)) => findings.good(format!(
            "archive tsm: signs on to {server} as {whom}; a transaction takes {} objects",
            limits.transaction_objects
        )),
        Err(error) if error.class() == Class::Permanent => {
            findings.error(format!("archive tsm: no sign-on as {whom}: {error}"));
        }
        Err(error) => findings.warning(format!(
            "archive tsm: no sign-on as {whom} now: {error}; files would wait on staging"
        )),
    }
}

fn directories(config: &Config, _: &IdentityMap, findings: &mut Findings) {
    match config.check_overlap() {
        Ok(()) => findings.good("the directories lie apart from each other"),
        Err(error) => findings.error(error.to_string()),
    }
}

fn port(config: &Config, _: &IdentityMap, findings: &mut Findings) {
    match Listener::bind(config.bind) {
        Ok(listener) => findings.good(format!("port {} is free", listener.port)),
        Err(error) => findings.error(error.to_string()),
    }
}

/// How full a file system is; `complain` turns a percentage into what is wrong with it.
fn space(
    what: &str,
    path: &Path,
    space: crate::fs::Result<Space>,
    findings: &mut Findings,
    complain: impl FnOnce(u64) -> Option<String>,
) {
    let space = match space {
        Ok(space) => space,
        Err(error) => return findings.error(format!("{what} {}: {error}", path.display())),
    };
    let used = space.total_bytes.saturating_sub(space.available_bytes);
    let percent = u128::from(used) * 100 / u128::from(space.total_bytes.max(1));
    let (free, total) = (Bytes(space.available_bytes), Bytes(space.total_bytes));
    let text = format!("{what} {}: {free} of {total} are free", path.display());
    match complain(u64::try_from(percent).unwrap_or(100)) {
        None => findings.good(text),
        Some(complaint) => findings.warning(format!("{text}, {percent} % used, {complaint}")),
    }
}

/// A number of bytes as people say it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let power = (self.0.max(1).ilog2() / 10).min(5);
        let whole = self.0 >> (10 * power);
        // Tenths, of the part that the shift has cut off.
        let rest = u128::from(self.0 - (whole << (10 * power)));
        let tenths = (rest * 10) >> (10 * power);
        match power {
            0 => write!(f, "{whole} bytes"),
            _ if whole < 10 => write!(f, "{whole}.{tenths} {}", units[power as usize]),
            _ => write!(f, "{whole} {}", units[power as usize]),
        }
    }
}

/// Some names, and how many more there are.
struct Names<'a>(&'a [&'a str]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len().min(NAMES_MAX);
        f.write_str(&self.0[..shown].join(", "))?;
        match self.0.len() - shown {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
