//! [`Daemon`]: a running `fsqd`, and [`run_to_end`] for one that is not expected to run on.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::log::{Log, show};
use super::{PATIENCE, eventually};

/// What precedes the port in the line that says the daemon is ready.
const LISTENING: &str = "listening on port ";

/// A daemon that is up; killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    port: u16,
    log: Log,
    /// What must be in no line.
    secrets: Vec<String>,
}

impl Daemon {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// If it does not come up; what it said is in the message.
    pub(crate) fn start(command: &mut Command, secrets: &[&str]) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("fsqd can be started");
        let log = Log::default();
        log.collect(child.stdout.take().expect("piped"));
        log.collect(child.stderr.take().expect("piped"));
        let secrets = secrets.iter().map(|&secret| secret.to_owned()).collect();
        // Before the wait: a daemon that hangs must go as well.
        let mut daemon = Self { child, port: 0, log, secrets };
        let line = daemon.log.wait("that it listens", |line| line.contains(LISTENING));
        let (_, rest) = line.split_once(LISTENING).expect("just found");
        let digits = rest.split(' ').next().unwrap_or_default();
        daemon.port = digits.parse().unwrap_or_else(|_| panic!("no port in: {line}"));
        daemon
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon is ours");
    }

    /// Ends it in the regular way.
    ///
    /// # Panics
    /// If it does not end in time or with another status than 0.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "exit status after SIGTERM");
        self.check_secrets();
    }

    /// Ends it at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the daemon is ours");
        self.wait();
        self.check_secrets();
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the end of fsqd", || child.try_wait().expect("a child of ours"));
        self.log.wait_closed();
        status
    }

    /// A line of /proc/PID/status, KiB.
    pub(crate) fn memory_kib(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).expect("the daemon runs");
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = value.and_then(|value| value.trim().strip_suffix(" kB"));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{key} in {path}"))
    }

    fn check_secrets(&self) {
        for line in self.log.lines() {
            let shown = self.secrets.iter().any(|secret| line.contains(secret.as_str()));
            assert!(!shown, "a password is in the log: {line}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of fsqd:\n{}", show(&self.log.lines()));
        } else {
            self.check_secrets();
        }
    }
}

/// What became of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    /// Standard output and standard error.
    pub(crate) text: String,
}

/// Runs a daemon that refuses to start, or only checks.
///
/// # Panics
/// If it runs on.
pub(crate) fn run_to_end(command: &mut Command) -> Ended {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fsqd can be started");
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            panic!("fsqd was expected to refuse and runs on");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    let mut streams =
        child.stdout.take().expect("piped").chain(child.stderr.take().expect("piped"));
    streams.read_to_string(&mut text).expect("UTF-8");
    Ended { status: status.code().unwrap_or(-1), text }
}
