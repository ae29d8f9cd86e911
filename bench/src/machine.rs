//! What a measurement was taken on, in words that can be published: no names of hosts or users.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use serde_json::{Value, json};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// Model of the processor; empty if the kernel does not say.
    pub processor: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Release of the kernel.
    pub kernel: String,
}

impl Machine {
    /// This one. What cannot be found out stays empty: a measurement is not lost for it.
    #[must_use]
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or_default().to_owned(),
            cores: available_parallelism().map_or(0, usize::from),
            memory_bytes: kib.unwrap_or(0_u64) << 10,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        }
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "kernel": self.kernel,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { processor, cores, memory_bytes, kernel } = self;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        write!(f, "{cores} cores ({processor}), {gib:.0} GiB, Linux {kernel}")
    }
}

/// Type of the file system that a directory is on, as `ext4`.
#[must_use]
pub fn file_system(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    mount_of(&mounts, &dir).unwrap_or("unknown").to_owned()
}

fn mount_of<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let columns = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        // Blanks and the like in a mount point are octal escapes; only the blank is common.
        let point = PathBuf::from(words.next()?.replace("\\040", " "));
        dir.starts_with(&point).then_some((point.components().count(), words.next()?))
    });
    // Of two mounts at one point the later one is seen, and max_by_key takes the last.
    columns.max_by_key(|&(depth, _)| depth).map(|(_, kind)| kind)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\n/dev/b /data\\0401 xfs rw 0 0\n\
                      none /data tmpfs rw 0 0\nx /data lustre rw 0 0\n";
        assert_eq!(mount_of(mounts, Path::new("/data 1/x")), Some("xfs"));
        assert_eq!(mount_of(mounts, Path::new("/data/x")), Some("lustre"));
        assert_eq!(mount_of(mounts, Path::new("/database")), Some("ext4"));
    }

    #[test]
    fn this_machine_is_one() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with(|c: char| c.is_ascii_digit()), "{machine:?}");
    }
}
