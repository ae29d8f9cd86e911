//! A server under test: one that runs already, or one that is started for a measurement.
//!
//! Invariant: what was started is stopped, whatever happens to the measurement.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;

/// How often is looked whether a server has started or ended.
const TICK: Duration = Duration::from_millis(20);
/// A server that does not end on SIGTERM within this time is killed. Long: it may have files open.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// Which server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// HOST\[:PORT\] where it listens.
    pub address: String,
    /// What starts it; `None` if it runs already.
    pub command: Option<String>,
}

/// Not a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write HOST:PORT of a running server, or HOST:PORT=COMMAND for one to be started")]
pub struct BadTarget;

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, command) = match text.split_once('=') {
            Some((address, command)) => (address, Some(command.trim())),
            None => (text, None),
        };
        let is_odd = address.is_empty() || address.contains([' ', '/']);
        if is_odd || command.is_some_and(str::is_empty) {
            return Err(BadTarget);
        }
        Ok(Self { address: address.to_owned(), command: command.map(str::to_owned) })
    }
}

/// A server that was started here.
#[derive(Debug)]
pub struct Started {
    child: Child,
    command: String,
}

impl Started {
    /// Starts a server and waits until it accepts connections at one of these addresses. The shell
    /// replaces itself by the command, so that its process is the server's. What the server says
    /// is added to `log`.
    ///
    /// # Errors
    /// If it does not start, ends, or does not listen within `patience`.
    pub fn start(
        command: &str,
        addresses: &[SocketAddr],
        log: Option<&Path>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let sink = || -> Result<Stdio, Error> {
            let Some(path) = log else { return Ok(Stdio::null()) };
            let file: io::Result<File> = OpenOptions::new().append(true).create(true).open(path);
            file.map(Stdio::from).map_err(Error::io(format!("opening {}", path.display())))
        };
        if addresses.iter().any(|address| TcpStream::connect(address).is_ok()) {
            let text = format!("something listens at the address of '{command}' already");
            return Err(Error::Failed(text));
        }
        let child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .stdin(Stdio::null())
            .stdout(sink()?)
            .stderr(sink()?)
            .spawn()
            .map_err(Error::io(format!("starting '{command}'")))?;
        let mut started = Self { child, command: command.to_owned() };
        let end = Instant::now() + patience;
        loop {
            if addresses.iter().any(|address| TcpStream::connect(address).is_ok()) {
                return Ok(started);
            }
            if let Some(status) = started.status()? {
                let hint = if log.is_some() { "" } else { "; --server-log shows what it said" };
                return Err(Error::Failed(format!("'{command}' ended at once, {status}{hint}")));
            }
            if Instant::now() >= end {
                return Err(Error::Failed(format!("'{command}' runs and does not listen")));
            }
            thread::sleep(TICK);
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// If it had ended before, as a server must not, or had to be killed.
    pub fn stop(mut self) -> Result<(), Error> {
        if let Some(status) = self.status()? {
            return Err(Error::Failed(format!("'{}' ended on its own, {status}", self.command)));
        }
        self.signal(Signal::TERM);
        let end = Instant::now() + STOP_WAIT;
        while self.status()?.is_none() {
            if Instant::now() >= end {
                return Err(Error::Failed(format!("'{}' ignores SIGTERM", self.command)));
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn status(&mut self) -> Result<Option<std::process::ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::io(format!("waiting for '{}'", self.command)))
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Not waited for yet, so the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_run_or_are_started() {
        let target = |text: &str| text.parse::<Target>();
        let running = Target { address: "host:7625".into(), command: None };
        assert_eq!(target("host:7625"), Ok(running));
        let command = Some("fsqd --bind ::1 -l /x=y".into());
        let started = Target { address: "[::1]:7".into(), command };
        assert_eq!(target("[::1]:7=fsqd --bind ::1 -l /x=y"), Ok(started));
        for bad in ["", "=x", "host=", "host= ", "/usr/bin/fsqd -l x", "fsqd -p=3"] {
            assert_eq!(target(bad), Err(BadTarget), "{bad}");
        }
    }

    #[test]
    fn what_does_not_listen_is_an_error_and_is_gone() {
        // Nobody listens on a port that was just given back.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addresses = [listener.local_addr().expect("bound")];
        let start = |command, patience| Started::start(command, &addresses, None, patience);
        let taken = start("sleep 600", TICK).expect_err("somebody listens");
        assert!(taken.to_string().contains("already"), "{taken}");
        drop(listener);
        let ended = start("false", STOP_WAIT).expect_err("it ends");
        assert!(ended.to_string().contains("ended at once"), "{ended}");
        let deaf = start("sleep 600", TICK).expect_err("it does not listen");
        assert!(deaf.to_string().contains("does not listen"), "{deaf}");
    }
}
