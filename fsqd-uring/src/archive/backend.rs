//! [`Backend`]: the archive that the configuration asks for, found and opened at the start.
//!
//! Invariant: what is asked for by name and cannot be had ends the start, with what was tried and
//! what to do instead. That a server does not answer at present is no reason: the files wait on
//! staging, and the experiment must not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tsm_bindings::lustre::{Lustre, Mount};
use tsm_bindings::tsm::{StartError, Tsm};

use super::hsm::{Hsm, HsmArchive};
use super::names::NameRule;
use super::tsm::{Account, TsmArchive, TsmServer};
use super::{ArchiveWorker, DirArchive, Pool, spawn};
use crate::auth;
use crate::clock::{Clock, SystemClock};
use crate::config::text::{self, FileError};
use crate::config::{Archive, Config, TsmAccount};
use crate::drain;
use crate::drain::lustre::{Found, Unfit};
use crate::fs::linux::LinuxFs;
use crate::queue::route::ArchiveMode;
use crate::services::Secret;

/// Longest password of a node, bytes (TSM API: DSM_MAX_VERIFIER_LENGTH).
const PASSWORD_BYTES_MAX: usize = 64;

/// Why the archive that is asked for cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The TSM client.
    #[error("--archive tsm: {0}; or use --archive dir:PATH")]
    Tsm(#[from] StartError),
    /// The target is not Lustre, or the Lustre client's library is missing.
    #[error("--archive hsm: {0}; or use --archive tsm or --archive dir:PATH")]
    Lustre(#[from] Unfit),
    /// The file with the password.
    #[error("--archive-password-file {0}")]
    Password(#[from] FileError),
}

/// An archive, ready for sessions.
#[derive(Debug)]
pub enum Backend {
    /// There is none.
    None,
    /// A directory.
    Dir(PathBuf),
    /// A TSM server.
    Tsm {
        /// The client library.
        tsm: &'static Tsm,
        /// Who signs on.
        account: Account,
    },
    /// Lustre's HSM.
    Hsm {
        /// The Lustre client's library.
        lustre: &'static Lustre,
        /// The file system.
        mount: Mount,
        /// The target's root in it, without symlinks.
        root: PathBuf,
    },
}

impl Backend {
    /// Finds what the configuration asks for. Call it while there are few threads: client libraries
    /// read the environment when they start.
    ///
    /// # Errors
    /// It cannot be had on this machine.
    pub fn open(config: &Config) -> Result<Self, BackendError> {
        Ok(match &config.archive {
            Archive::None => Self::None,
            Archive::Default => Self::default_of(&config.target),
            Archive::Hsm => Self::hsm(&config.target)?,
            Archive::Dir(path) => Self::Dir(path.clone()),
            Archive::Tsm(account) => {
                let account = read_account(account)?;
                let tsm = auth::tsm::load(config.tsm_library.as_deref())?;
                tracing::info!("archive tsm: {} version {}", tsm.path().display(), tsm.version());
                Self::Tsm { tsm, account }
            }
        })
    }

    fn default_of(target: &Path) -> Self {
        if !drain::lustre::is_lustre(target) {
            return Self::None;
        }
        Self::hsm(target).unwrap_or_else(|error| {
            tracing::warn!("the target is Lustre, but its archive cannot be used: {error}");
            Self::None
        })
    }

    fn hsm(target: &Path) -> Result<Self, BackendError> {
        let Found { lustre, mount, root } = drain::lustre::find(target)?;
        tracing::info!(
            "archive hsm: {}, file system {} mounted on {}",
            lustre.path().display(),
            mount.fsname,
            mount.directory.display()
        );
        Ok(Self::Hsm { lustre, mount, root })
    }

    /// Whether archive destinations are accepted, or why not: what [`crate::path::Admission`]
    /// takes.
    ///
    /// # Errors
    /// The reason, as one part of a sentence.
    pub fn accepts(&self) -> Result<(), String> {
        match self {
            Self::Dir(_) | Self::Tsm { .. } | Self::Hsm { .. } => Ok(()),
            Self::None => Err("this daemon runs without an archive (--archive dir:PATH sets \
                               one); use the destination lustre or local"
                .to_owned()),
        }
    }

    /// Which names it can give back; `None`: all.
    #[must_use]
    pub fn names(&self) -> Option<NameRule> {
        match self {
            Self::None | Self::Dir(_) => None,
            Self::Tsm { .. } => Some(NameRule::Objects),
            Self::Hsm { mount, root, .. } => {
                let below = root.strip_prefix(&mount.directory).unwrap_or(root);
                Some(NameRule::Mounted { below: below.to_path_buf() })
            }
        }
    }

    /// What it takes files from.
    #[must_use]
    pub fn mode(&self) -> ArchiveMode {
        match self {
            Self::None => ArchiveMode::Off,
            Self::Dir(_) | Self::Tsm { .. } => ArchiveMode::FromStaging,
            Self::Hsm { .. } => ArchiveMode::FromTarget,
        }
    }

    /// Starts its threads. `instance` as for the drain.
    ///
    /// # Errors
    /// There are no more threads.
    pub fn start(
        &self,
        pool: Pool<LinuxFs, SystemClock>,
        threads: usize,
        instance: u64,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let pool = Arc::new(pool);
        let clock: Arc<dyn Clock> = pool.queue.shared_clock();
        match self {
            Self::None => Ok(Vec::new()),
            Self::Dir(path) => start_each(threads, || {
                let (pool, path) = (Arc::clone(&pool), path.clone());
                move || {
                    let tree = Arc::clone(&pool.tree);
                    let archive = DirArchive::new(tree, Arc::new(LinuxFs), &path, instance);
                    ArchiveWorker::new(pool, archive)
                }
            }),
            Self::Hsm { lustre, mount, root } => {
                let hsm = Hsm::new(lustre, mount.clone(), root.clone(), clock);
                start_each(threads, || {
                    let (pool, hsm) = (Arc::clone(&pool), Arc::clone(&hsm));
                    move || ArchiveWorker::new(pool, HsmArchive::new(hsm))
                })
            }
            Self::Tsm { tsm, account } => {
                let server = TsmServer::new(tsm, account.clone(), threads, clock);
                start_each(threads, || {
                    let (pool, server) = (Arc::clone(&pool), Arc::clone(&server));
                    move || {
                        let tree = Arc::clone(&pool.tree);
                        ArchiveWorker::new(pool, TsmArchive::new(tree, server).warm_up())
                    }
                })
            }
        }
    }
}

fn start_each<A, M>(threads: usize, make: impl Fn() -> M) -> std::io::Result<Vec<JoinHandle<()>>>
where
    A: super::Archive,
    M: FnOnce() -> ArchiveWorker<LinuxFs, SystemClock, A> + Send + 'static,
{
    (0..threads).map(|index| spawn(index, make())).collect()
}

fn read_account(account: &TsmAccount) -> Result<Account, FileError> {
    let TsmAccount { node, password_file, server } = account.clone();
    let password = password_file.as_deref().map(read_password).transpose()?;
    Ok(Account { node, password, server })
}

/// The first line of the file, which must be its only one: a password with a line feed in it was
/// never meant.
fn read_password(path: &Path) -> Result<Secret, FileError> {
    let file = path.display().to_string();
    let (mut bytes, metadata) = text::read(path)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let text = format!("mode {mode:04o} lets others at the password; chmod 600 {file}");
        return Err(FileError::unfit(&file, text));
    }
    let password = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let good = (1..=PASSWORD_BYTES_MAX).contains(&password.len())
        && !password.iter().any(|byte| matches!(byte, 0 | b'\n' | b'\r'));
    let secret = good.then(|| Secret::new(password));
    bytes.fill(0);
    std::hint::black_box(&bytes);
    secret.ok_or_else(|| {
        let text =
            format!("does not hold one line with a password of 1 to {PASSWORD_BYTES_MAX} bytes");
        FileError::unfit(&file, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_archive_the_reason_names_the_cure() {
        assert!(Backend::None.accepts().expect_err("none").contains("--archive dir:PATH"));
        assert_eq!(Backend::Dir("/a".into()).accepts(), Ok(()));
    }

    fn password(content: &[u8], mode: u32) -> Result<Secret, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("password");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        read_password(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_the_only_line_of_a_private_file() {
        for good in [&b"geheim\n"[..], b"geheim"] {
            assert_eq!(password(good, 0o600).expect("good").expose(), b"geheim");
        }
        let long = [b'x'; PASSWORD_BYTES_MAX + 1];
        for bad in [&b""[..], b"\n", b"geheim\nzwei\n", b"geheim\r\n", b"ge\0heim", &long] {
            let text = password(bad, 0o600).expect_err("bad");
            assert!(text.contains("one line") && !text.contains("geheim"), "{text}");
        }
        let text = password(b"geheim", 0o640).expect_err("readable by the group");
        assert!(text.contains("0640") && !text.contains("geheim"), "{text}");
    }
}
