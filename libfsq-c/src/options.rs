//! [`Options`]: what a session needs to know, and the environment variables that tune it.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `FSQ_CONNECT_TIMEOUT_MS` | limit for connecting, over all addresses of the server, ms | 10000 |
//! | `FSQ_REPLY_TIMEOUT_MS` | limit for a reply, or for the server to take more data, ms | 900000 |
//! | `FSQ_WINDOW` | unanswered DATA packets; 1 is stop and wait without gathering | 16 |

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use fsq_wire::client::{WINDOW_MAX, Window};
use fsq_wire::{DEFAULT_PORT, Layout};

use crate::error::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the 600 s for which a server waits for staging space before it gives up itself:
/// its reason is worth more than our time-out.
const REPLY_TIMEOUT: Duration = Duration::from_secs(900);
/// Hides a round trip of 2 ms at 8 GB/s and 1 MiB writes.
const WINDOW: Window = Window { packets: 16, bytes: 64 << 20 };

/// The longest time-out that can be asked for: a day.
const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A password: compares and copies like the bytes, but never shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the wire only.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    /// Best effort: a copy that the compiler or the allocator made is out of reach.
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// How to reach the server, who we are, and the limits of waiting.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name or address of the server.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Our name, as the server's identity map knows it.
    pub node: Vec<u8>,
    /// Our password.
    pub password: Secret,
    /// How packets are laid out; C is right for every server since 0.9.1.
    pub layout: Layout,
    /// How much DATA may be unanswered. `packets` = 1 is stop and wait, and then small writes are
    /// not gathered either.
    pub window: Window,
    /// Limit for connecting, over all addresses of `host`. The resolver has its own limits.
    pub connect_timeout: Duration,
    /// Limit for a reply, and for the server to take more of what is being sent.
    pub reply_timeout: Duration,
}

impl Options {
    /// The defaults, on the default port.
    pub fn new(
        host: impl Into<String>,
        node: impl Into<Vec<u8>>,
        password: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            host: host.into(),
            port: DEFAULT_PORT,
            node: node.into(),
            password: Secret::new(password),
            layout: Layout::C,
            window: WINDOW,
            connect_timeout: CONNECT_TIMEOUT,
            reply_timeout: REPLY_TIMEOUT,
        }
    }

    /// These options as the environment variables tune them.
    ///
    /// # Errors
    /// [`Error::Environment`] for a value that is no number or out of range.
    pub fn with_environment(self) -> Result<Self, Error> {
        self.tuned_by(|name| std::env::var_os(name))
    }

    fn tuned_by(mut self, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let number = |name, legal: RangeInclusive<u64>| match lookup(name) {
            None => Ok(None),
            Some(value) => parse(name, &value, legal).map(Some),
        };
        if let Some(ms) = number("FSQ_CONNECT_TIMEOUT_MS", 1..=TIMEOUT_MS_MAX)? {
            self.connect_timeout = Duration::from_millis(ms);
        }
        if let Some(ms) = number("FSQ_REPLY_TIMEOUT_MS", 1..=TIMEOUT_MS_MAX)? {
            self.reply_timeout = Duration::from_millis(ms);
        }
        if let Some(packets) = number("FSQ_WINDOW", 1..=u64::from(WINDOW_MAX))? {
            self.window.packets = u32::try_from(packets).expect("the range ends at WINDOW_MAX");
        }
        Ok(self)
    }
}

fn parse(name: &'static str, value: &OsString, legal: RangeInclusive<u64>) -> Result<u64, Error> {
    let number = value.to_str().and_then(|text| text.trim().parse().ok());
    number.filter(|number| legal.contains(number)).ok_or_else(|| Error::Environment {
        name,
        value: value.to_string_lossy().chars().filter(|c| !c.is_control()).collect(),
        min: *legal.start(),
        max: *legal.end(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuned(name: &'static str, value: &'static str) -> Result<Options, Error> {
        Options::new("h", "n", "p").tuned_by(|asked| (asked == name).then(|| value.into()))
    }

    #[test]
    fn the_environment_tunes_limits() {
        assert_eq!(tuned("FSQ_WINDOW", "1").unwrap().window.packets, 1);
        let options = tuned("FSQ_CONNECT_TIMEOUT_MS", " 250 ").unwrap();
        assert_eq!(options.connect_timeout, Duration::from_millis(250));
        assert_eq!(options.reply_timeout, REPLY_TIMEOUT);
        let options = tuned("FSQ_REPLY_TIMEOUT_MS", "1500").unwrap();
        assert_eq!(options.reply_timeout, Duration::from_millis(1500));
        assert_eq!(options.window, WINDOW);
    }

    #[test]
    fn senseless_values_are_refused_by_name() {
        for (name, value) in [
            ("FSQ_WINDOW", "0"),
            ("FSQ_WINDOW", "257"),
            ("FSQ_WINDOW", ""),
            ("FSQ_REPLY_TIMEOUT_MS", "-1"),
            ("FSQ_REPLY_TIMEOUT_MS", "99999999999999999999"),
            ("FSQ_CONNECT_TIMEOUT_MS", "10s"),
        ] {
            let error = tuned(name, value).unwrap_err();
            assert_eq!(error.errno(), rustix::io::Errno::INVAL);
            assert!(error.to_string().starts_with(&format!("{name}='{value}'")), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", Options::new("h", "n", "hunter2"));
        assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
    }
}
