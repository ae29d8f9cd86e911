//! [`Site`]: the directories and files that one daemon works on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::{scratch, text};

/// The node of the recorded sessions.
pub(crate) const NODE: &str = "polaris";
/// Its password.
pub(crate) const PASSWORD: &str = "polaris1234";
/// A node that may write elsewhere.
pub(crate) const OTHER_NODE: &str = "vega";
/// Its password.
pub(crate) const OTHER_PASSWORD: &str = "vega-5678";
/// Archive id of [`NODE`].
const ARCHIVE_ID: &str = "1";
/// The target as clients call it.
pub(crate) const FS: &str = "/lustre";

/// Staging, target and archive directories with identity map and passwords; removed when dropped.
#[derive(Debug)]
pub(crate) struct Site {
    root: TempDir,
    staging: PathBuf,
    target: PathBuf,
}

impl Site {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir_in(scratch()).expect("a directory");
        let staging = root.path().join("staging");
        fs::create_dir(&staging).expect("created");
        let target = Self::default_target(&root);
        Self::on(root, staging, target)
    }

    /// With another staging directory.
    pub(crate) fn with_staging(staging: &Path) -> Self {
        let root = tempfile::tempdir_in(scratch()).expect("a directory");
        let target = Self::default_target(&root);
        Self::on(root, staging.to_path_buf(), target)
    }

    /// With another target, which is there.
    pub(crate) fn with_target(target: &Path) -> Self {
        let root = tempfile::tempdir_in(scratch()).expect("a directory");
        let staging = root.path().join("staging");
        fs::create_dir(&staging).expect("created");
        Self::on(root, staging, target.to_path_buf())
    }

    fn default_target(root: &TempDir) -> PathBuf {
        let target = root.path().join("target");
        fs::create_dir(&target).expect("created");
        target
    }

    fn on(root: TempDir, staging: PathBuf, target: PathBuf) -> Self {
        let site = Self { root, staging, target };
        fs::create_dir(site.archive()).expect("created");
        let (uid, gid) = owner();
        site.write_identmap(&format!(
            "# node servername archive-id uid gid lustre-dirpath\n\
             {NODE} tsmserver-8 {ARCHIVE_ID} {uid} {gid} /lustre/data\n\
             {OTHER_NODE} tsmserver-8 2 {uid} {gid} /lustre/vega\n"
        ));
        let passwords = format!("{NODE} {PASSWORD}\n{OTHER_NODE} {OTHER_PASSWORD}\n");
        fs::write(site.passwords(), passwords).expect("written");
        fs::set_permissions(site.passwords(), fs::Permissions::from_mode(0o600)).expect("set");
        site
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.staging.clone()
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.target.clone()
    }

    pub(crate) fn archive(&self) -> PathBuf {
        self.root.path().join("archive")
    }

    pub(crate) fn identmap(&self) -> PathBuf {
        self.root.path().join("identmap.conf")
    }

    pub(crate) fn passwords(&self) -> PathBuf {
        self.root.path().join("passwords")
    }

    pub(crate) fn write_identmap(&self, text: &str) {
        fs::write(self.identmap(), text).expect("written");
    }

    /// Where a file sent as `/lustre/NAME` is on staging.
    pub(crate) fn staged(&self, name: &str) -> PathBuf {
        self.staging.join(name)
    }

    /// Where it is on the target.
    pub(crate) fn delivered(&self, name: &str) -> PathBuf {
        self.target().join(name)
    }

    /// Where a file of [`NODE`] is in the archive.
    pub(crate) fn archived(&self, name: &str) -> PathBuf {
        self.archive().join(ARCHIVE_ID).join("lustre").join(name)
    }

    /// `fsqd` without any option.
    pub(crate) fn bare_command() -> Command {
        Command::new(env!("CARGO_BIN_EXE_fsqd"))
    }

    /// `fsqd` on this site, with more or other options.
    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = Self::bare_command();
        command
            .args(["-l", text(&self.staging), "-i", text(&self.identmap())])
            .args(["--bind", "127.0.0.1", "-p", "0", "-v", "info", "-s", "2", "-q", "2"])
            .args(["--athreads", "2", "--buffer-memory", "64M"])
            .args(["--auth", &format!("file:{}", text(&self.passwords()))])
            .args(["--archive", &format!("dir:{}", text(&self.archive()))])
            .args(options)
            .arg(self.target());
        command
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, options: &[&str]) -> Daemon {
        Daemon::start(&mut self.command(options), &[PASSWORD, OTHER_PASSWORD])
    }
}

/// Who files on the target are to belong to: somebody else where we may give files away.
pub(crate) fn owner() -> (u32, u32) {
    if is_root() {
        (1000, 2000)
    } else {
        (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
