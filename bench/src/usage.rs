//! Processor time of another process: what a server costs for each byte.

use std::fs;
use std::io;

/// Processor time that a process has used, all its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// In its own code, s.
    pub user_s: f64,
    /// In the kernel, s.
    pub system_s: f64,
}

impl Usage {
    /// What process `pid` has used since it started. Threads of the kernel that work for it on an
    /// io_uring are its own since Linux 5.12.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat is odd"))
    }

    /// User and system time are fields 14 and 15 of proc(5)'s stat; the second one, the name, may
    /// contain anything and ends with the last parenthesis.
    fn parse(stat: &str, ticks_per_s: u64) -> Option<Self> {
        let (_, behind_name) = stat.rsplit_once(')')?;
        let mut fields = behind_name.split_ascii_whitespace().skip(11);
        let mut seconds = || Some(fields.next()?.parse::<u64>().ok()? as f64 / ticks_per_s as f64);
        Some(Self { user_s: seconds()?, system_s: seconds()? })
    }

    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { user_s: self.user_s - before.user_s, system_s: self.system_s - before.system_s }
    }

    /// User and system together, s.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.user_s + self.system_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 1 0 9 10";
        assert_eq!(Usage::parse(stat, 100), Some(Usage { user_s: 2.5, system_s: 0.5 }));
        assert_eq!(Usage::parse("42 (short) S 1", 100), None);
    }

    #[test]
    fn this_process_has_used_some() {
        let before = Usage::of(std::process::id()).expect("this process exists");
        let mut bits = 0;
        let used = loop {
            bits = (0..1_000_000).fold(bits, crate::size::mixed);
            let used = Usage::of(std::process::id()).expect("this process exists").since(before);
            // Reading the sum keeps the compiler from leaving the work out.
            if used.seconds() > 0.0 || bits == 0 {
                break used;
            }
        };
        assert!(used.user_s >= 0.0 && used.system_s >= 0.0 && used.seconds() < 60.0, "{used:?}");
        assert!(Usage::of(u32::MAX).is_err());
    }
}
