//! Mounts that tests make where they may: small file systems, and the kernel's trace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::site::is_root;
use super::{scratch, text};

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    // Dropped after the unmount.
    directory: TempDir,
}

impl Mount {
    /// An empty ext4 of so many MiB, with these mount options besides.
    ///
    /// # Errors
    /// Why it cannot be had on this machine.
    pub(crate) fn ext4(mib: u64, options: &str) -> Result<Self, String> {
        Self::may()?;
        let directory = tempfile::tempdir_in(scratch()).map_err(|error| error.to_string())?;
        let image = directory.path().join("image");
        let file = File::create(&image).and_then(|file| file.set_len(mib << 20));
        file.map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", text(&image)])?;
        let point = directory.path().join("root");
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        let options = format!("loop{options}");
        run("mount", &["-t", "ext4", "-o", &options, text(&image), text(&point)])?;
        Ok(Self { directory })
    }

    /// The kernel's trace files.
    ///
    /// # Errors
    /// Why they cannot be had.
    pub(crate) fn tracefs() -> Result<Self, String> {
        Self::may()?;
        let directory = tempfile::tempdir_in(scratch()).map_err(|error| error.to_string())?;
        let point = directory.path().join("root");
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        run("mount", &["-t", "tracefs", "none", text(&point)])?;
        Ok(Self { directory })
    }

    fn may() -> Result<(), String> {
        if is_root() { Ok(()) } else { Err("only root may mount".to_owned()) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a daemon of a failed test may still be at work on it.
        let _ = run("umount", &["-l", text(&self.path())]);
    }
}

/// Runs a tool of the system.
///
/// # Errors
/// What it said.
pub(crate) fn run(tool: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{tool}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{tool} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// Whether a directory is on ext4.
pub(crate) fn is_ext4(path: &Path) -> bool {
    const EXT4_SUPER_MAGIC: rustix::fs::FsWord = 0xef53;
    rustix::fs::statfs(path).is_ok_and(|statfs| statfs.f_type == EXT4_SUPER_MAGIC)
}
