//! Mounts that tests make where they may: small file systems, and the kernel's trace.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::site::is_root;
use super::{eventually, scratch, text};

/// How long a file system stays frozen at most, seconds, whatever becomes of the test.
const FROZEN_MAX: &str = "100";

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

    /// Lets every call that changes something block in the kernel.
    ///
    /// # Panics
    /// If the file system cannot be frozen.
    pub(crate) fn freeze(&self) -> Frozen {
        let point = self.path();
        // Thaws it also when this process is killed, or waits for something that never comes.
        let script = format!("timeout {FROZEN_MAX} cat; fsfreeze -u '{}'", point.display());
        let mut sentinel = Command::new("sh");
        sentinel.args(["-c", &script]).stdin(Stdio::piped());
        sentinel.stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = sentinel.spawn().expect("a shell");
        let frozen = Frozen { point, sentinel };
        run("fsfreeze", &["-f", text(&frozen.point)]).expect("it can be frozen");
        frozen
    }

    /// Takes the file system away as the loss of its device does: from now on every call fails, and
    /// what was not written is lost; with `flush` the journal is written first.
    ///
    /// # Panics
    /// If it is not ext4.
    pub(crate) fn shut_down(&self, flush: bool) {
        // EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32); flags: 1 flushes the journal, 2 does not.
        const OPCODE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
        let flags: u32 = if flush { 1 } else { 2 };
        let root = File::open(self.path()).expect("it is mounted");
        // SAFETY: the kernel reads a u32 at the pointer, and keeps nothing.
        let shut_down = unsafe {
            let call = rustix::ioctl::Setter::<OPCODE, u32>::new(flags);
            rustix::ioctl::ioctl(&root, call)
        };
        shut_down.expect("ext4 shuts down");
    }

    /// Unmounts it and waits until nobody has anything open on it.
    pub(crate) fn detach(&self) {
        run("umount", &["-l", text(&self.path())]).expect("it is mounted");
        let image = self.image();
        eventually("nobody holds on to the file system that is gone", || {
            (!has_loop_device(&image)).then_some(())
        });
    }

    /// Mounts it again, where it was.
    pub(crate) fn attach(&self) {
        let (image, point) = (self.image(), self.path());
        run("mount", &["-t", "ext4", "-o", "loop", text(&image), text(&point)]).expect("mounted");
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
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

/// A file system that is frozen; thawed when dropped. Whatever may wait for it must be dropped later.
#[derive(Debug)]
pub(crate) struct Frozen {
    point: PathBuf,
    sentinel: Child,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let thawed = run("fsfreeze", &["-u", text(&self.point)]);
        drop(self.sentinel.stdin.take());
        let _ = self.sentinel.wait();
        if let Err(reason) = thawed {
            eprintln!("the file system was not frozen to the end of the test: {reason}");
        }
    }
}

/// Whether a loop device has this file.
fn has_loop_device(image: &Path) -> bool {
    let Ok(devices) = std::fs::read_dir("/sys/block") else { return false };
    devices.flatten().any(|device| {
        let file = std::fs::read_to_string(device.path().join("loop/backing_file"));
        file.is_ok_and(|file| Path::new(file.trim_end()) == image)
    })
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
