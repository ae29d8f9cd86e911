//! [`VolatileFs`]: a real file system on a disk with a volatile cache, through a loop device.
//!
//! Invariant: what stands on top goes first (file system, loop device, then the disk's file).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::fuse::VolatileDevice;
use super::mount::run;
use super::volatile::Machine;
use super::{PATIENCE, text};

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Makes one, without discarding what is there: tool and options.
    fn make(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-b", "4096", "-E", "nodiscard"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "-K"]),
        }
    }

    /// Looks for damage without repairing it: tool and options.
    fn check(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Ext4 => ("e2fsck", &["-f", "-n"]),
            Self::Xfs => ("xfs_repair", &["-f", "-n"]),
        }
    }
}

/// A directory with something mounted on it.
#[derive(Debug)]
struct Mounted {
    point: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// The rings of a daemon that was killed go a moment after it: until then it is busy.
    fn unmount(&mut self, patience: Duration) -> Result<(), String> {
        let end = Instant::now() + patience;
        while let Err(error) = run("umount", &[text(&self.point)]) {
            if Instant::now() >= end {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted && self.unmount(Duration::from_secs(2)).is_err() {
            // Of a test that failed, with somebody still at work.
            let _ = run("umount", &["-l", text(&self.point)]);
        }
    }
}

/// A mounted file system whose device loses what was not flushed.
#[derive(Debug)]
pub(crate) struct VolatileFs {
    kind: Kind,
    mounted: Mounted,
    // Dropped after the unmount.
    device: VolatileDevice,
}

impl VolatileFs {
    /// An empty one at `point`, on a disk of a machine.
    ///
    /// # Errors
    /// Why it cannot be had on this machine.
    pub(crate) fn make(
        kind: Kind,
        machine: &Machine,
        disk: usize,
        point: &Path,
    ) -> Result<Self, String> {
        let device = VolatileDevice::new(machine, disk)?;
        let (tool, options) = kind.make();
        run(tool, &[options, &[text(&device.path())]].concat())?;
        Self::on(kind, device, point)
    }

    /// What is on a disk; the file system replays its journal.
    ///
    /// # Errors
    /// What the mount says.
    pub(crate) fn mount(
        kind: Kind,
        machine: &Machine,
        disk: usize,
        point: &Path,
    ) -> Result<Self, String> {
        Self::on(kind, VolatileDevice::new(machine, disk)?, point)
    }

    fn on(kind: Kind, device: VolatileDevice, point: &Path) -> Result<Self, String> {
        let file = device.path();
        run("mount", &["-t", kind.name(), "-o", "loop", text(&file), text(point)])?;
        let mounted = Mounted { point: point.to_path_buf(), is_mounted: true };
        Ok(Self { kind, mounted, device })
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// What the tool says.
    pub(crate) fn unmount(mut self) -> Result<(), String> {
        self.mounted.unmount(PATIENCE)
    }

    /// Unmounts it and has it checked by its own tool.
    ///
    /// # Errors
    /// The damage that was found.
    pub(crate) fn check(mut self) -> Result<(), String> {
        self.mounted.unmount(PATIENCE)?;
        let (tool, options) = self.kind.check();
        let output = Command::new(tool)
            .args(options)
            .arg(self.device.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{tool}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let (said, more) = (String::from_utf8_lossy(&output.stdout), &output.stderr);
        Err(format!("{tool}: {}\n{said}{}", output.status, String::from_utf8_lossy(more)))
    }
}
