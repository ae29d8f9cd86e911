//! The control files of the simulators: settings, delays and scripted faults in one text file that
//! is read again whenever it changes.
//!
//! Invariant: a line that is not understood makes every call fail, rather than a test pass.
//!
//! One setting a line: a key and its words, separated by blanks; `#` begins a comment. Known to
//! all simulators are
//!
//! ```text
//! delay CALL MS                every call of CALL takes MS milliseconds longer
//! fail CALL WHICH CODE [CODE2]         CALL does nothing and returns CODE
//! fail-after CALL WHICH CODE [CODE2]   CALL does its work and returns CODE all the same
//! ```
//!
//! where WHICH is `3` for the third call since the file was read, `3+` for it and all later ones,
//! `*` for all, and `every:3` for each third; calls are counted in each process by itself.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a control file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It cannot be read.
    #[error("{}: {why}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// A line is wrong.
    #[error("{}:{line}: {why}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The reason.
        why: String,
    },
}

/// What is to happen to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much longer it takes.
    pub delay: Duration,
    /// How it fails.
    pub fault: Option<Fault>,
}

/// A scripted failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the call does its work before it fails.
    pub after: bool,
    /// What it returns.
    pub code: i32,
    /// A second code, for calls that have one; 0 where none is given.
    pub second: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Only(u64),
    From(u64),
    Every(u64),
}

impl Which {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::From(1));
        }
        let positive = |digits: &str| digits.parse::<u64>().ok().filter(|&n| n > 0);
        if let Some(rest) = text.strip_prefix("every:") {
            return positive(rest).map(Self::Every);
        }
        match text.strip_suffix('+') {
            Some(rest) => positive(rest).map(Self::From),
            None => positive(text).map(Self::Only),
        }
    }

    fn matches(self, count: u64) -> bool {
        match self {
            Self::Only(n) => count == n,
            Self::From(n) => count >= n,
            Self::Every(n) => count.is_multiple_of(n),
        }
    }
}

#[derive(Debug)]
struct Rule {
    call: String,
    which: Which,
    fault: Fault,
}

/// Identity of a file's content: replaced or rewritten, one of these differs.
type Stamp = Option<(u64, u64, i64, i64)>;

/// A control file and the count of calls since it was read.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
    keys: &'static [&'static str],
    stamp: Stamp,
    failed: Option<ControlError>,
    settings: HashMap<String, Vec<Vec<String>>>,
    delays: HashMap<String, Duration>,
    rules: Vec<Rule>,
    counts: HashMap<String, u64>,
}

impl ControlFile {
    /// A file in which the given keys are known besides the common ones. It need not exist: then
    /// it says nothing.
    #[must_use]
    pub fn new(path: PathBuf, keys: &'static [&'static str]) -> Self {
        Self {
            path,
            keys,
            stamp: None,
            failed: None,
            settings: HashMap::new(),
            delays: HashMap::new(),
            rules: Vec::new(),
            counts: HashMap::new(),
        }
    }

    /// Reads the file again if it has changed, which sets the counts of calls to zero.
    ///
    /// # Errors
    /// It cannot be read, or a line is wrong. The error stays until the file changes.
    pub fn refresh(&mut self) -> Result<(), ControlError> {
        let stamp = match fs::metadata(&self.path) {
            Ok(meta) => Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.unreadable(&error)),
        };
        if stamp != self.stamp {
            let text = match stamp {
                Some(_) => fs::read_to_string(&self.path).map_err(|e| self.unreadable(&e))?,
                None => String::new(),
            };
            *self = Self { stamp, ..Self::new(std::mem::take(&mut self.path), self.keys) };
            self.failed = self.parse(&text).err();
        }
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn unreadable(&self, error: &io::Error) -> ControlError {
        ControlError::Read { path: self.path.clone(), why: error.to_string() }
    }

    fn parse(&mut self, text: &str) -> Result<(), ControlError> {
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> =
                line.split('#').next().into_iter().flat_map(str::split_ascii_whitespace).collect();
            let Some((&key, words)) = words.split_first() else { continue };
            self.line(key, words).map_err(|why| ControlError::Line {
                path: self.path.clone(),
                line: number + 1,
                why,
            })?;
        }
        Ok(())
    }

    fn line(&mut self, key: &str, words: &[&str]) -> Result<(), String> {
        match (key, words) {
            ("delay", [call, ms]) => {
                let ms = ms.parse().map_err(|_| format!("{ms:?} are not milliseconds"))?;
                self.delays.insert((*call).to_owned(), Duration::from_millis(ms));
            }
            ("fail" | "fail-after", [call, which, code, second @ ..]) if second.len() < 2 => {
                let number =
                    |text: &str| text.parse::<i32>().map_err(|_| format!("{text:?} is no code"));
                let which =
                    Which::parse(which).ok_or_else(|| format!("{which:?} counts no call"))?;
                let fault = Fault {
                    after: key == "fail-after",
                    code: number(code)?,
                    second: second.first().map_or(Ok(0), |text| number(text))?,
                };
                self.rules.push(Rule { call: (*call).to_owned(), which, fault });
            }
            ("delay" | "fail" | "fail-after", _) => {
                return Err(format!("{key} has {} words after it", words.len()));
            }
            _ if self.keys.contains(&key) => {
                let words = words.iter().map(|&word| word.to_owned()).collect();
                self.settings.entry(key.to_owned()).or_default().push(words);
            }
            _ => return Err(format!("unknown key {key:?}")),
        }
        Ok(())
    }

    /// Counts a call and says what happens to it.
    pub fn judge(&mut self, call: &str) -> Verdict {
        let count = match self.counts.get_mut(call) {
            Some(count) => {
                *count += 1;
                *count
            }
            None => {
                self.counts.insert(call.to_owned(), 1);
                1
            }
        };
        let matching = |rule: &&Rule| rule.call == call && rule.which.matches(count);
        Verdict {
            delay: self.delays.get(call).copied().unwrap_or_default(),
            fault: self.rules.iter().find(matching).map(|rule| rule.fault),
        }
    }

    /// All lines with this key, each as its words.
    #[must_use]
    pub fn all(&self, key: &str) -> &[Vec<String>] {
        self.settings.get(key).map_or(&[], Vec::as_slice)
    }

    /// First word of the last line with this key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.all(key).last()?.first().map(String::as_str)
    }

    /// The same as a number; `None` also where it is none.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// The same as a switch: `yes` or anything else.
    #[must_use]
    pub fn switch(&self, key: &str) -> Option<bool> {
        self.text(key).map(|text| text == "yes")
    }
}

/// Replaces a file in one step, so that no reader sees half of it.
///
/// # Errors
/// The directory cannot be written.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".new-{}-{:?}", std::process::id(), std::thread::current().id()));
    let new = path.with_file_name(name);
    let mut file = fs::File::create(&new)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

/// The shared library that Cargo built beside the running test program, by the name of its crate.
///
/// # Errors
/// It is not there: the test's crate does not depend on the simulator.
pub fn built_library(crate_name: &str) -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let file = format!("lib{crate_name}.so");
    let places = program
        .ancestors()
        .skip(1)
        .take(2)
        .flat_map(|directory| [directory.join(&file), directory.join("deps").join(&file)]);
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let why = format!("{file} is neither beside {} nor in deps", program.display());
        io::Error::new(io::ErrorKind::NotFound, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &str) -> (tempfile::TempDir, ControlFile) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("control");
        replace(&path, text.as_bytes()).expect("written");
        (directory, ControlFile::new(path, &["limit", "node"]))
    }

    #[test]
    fn settings_delays_and_faults_are_read() {
        let text = "# comment\nlimit 5\nlimit 7 # the last one counts\nnode a secret\nnode b x\n\
                    delay send 20\nfail end 2 0 11\nfail-after end 4+ -50\n";
        let (_directory, mut control) = control(text);
        control.refresh().expect("well-formed");
        assert_eq!(control.number("limit"), Some(7));
        assert_eq!(control.all("node").len(), 2);
        assert_eq!(control.all("node")[0], ["a", "secret"]);
        assert_eq!(control.judge("send").delay, Duration::from_millis(20));
        let faults: Vec<_> = (0..5).map(|_| control.judge("end").fault).collect();
        let reason = Some(Fault { after: false, code: 0, second: 11 });
        let lost = Some(Fault { after: true, code: -50, second: 0 });
        assert_eq!(faults, [None, reason, None, lost, lost]);
    }

    #[test]
    fn a_changed_file_is_read_again_and_counting_begins_anew() {
        let (directory, mut control) = control("fail x 1 5\n");
        control.refresh().expect("well-formed");
        assert_eq!(control.judge("x").fault.map(|fault| fault.code), Some(5));
        control.refresh().expect("unchanged");
        assert_eq!(control.judge("x").fault, None);
        replace(&directory.path().join("control"), b"fail x 1 6\n").expect("written");
        control.refresh().expect("well-formed");
        assert_eq!(control.judge("x").fault.map(|fault| fault.code), Some(6));
        fs::remove_file(directory.path().join("control")).expect("removed");
        control.refresh().expect("absent says nothing");
        assert_eq!(control.judge("x").fault, None);
    }

    #[test]
    fn each_nth_call_can_fail() {
        let (_directory, mut control) = control("fail x every:3 9\n");
        control.refresh().expect("well-formed");
        let failed: Vec<_> = (0..7).map(|_| control.judge("x").fault.is_some()).collect();
        assert_eq!(failed, [false, false, true, false, false, true, false]);
    }

    #[test]
    fn a_wrong_line_is_an_error_with_its_number_until_it_is_mended() {
        for text in ["nod a b", "fail x 0 1", "fail x 1", "fail x 1 y", "delay x soon", "delay x"] {
            let (directory, mut control) = control(&format!("limit 1\n{text}\n"));
            for _ in 0..2 {
                let error = control.refresh().expect_err(text);
                assert!(matches!(error, ControlError::Line { line: 2, .. }), "{text}: {error}");
            }
            replace(&directory.path().join("control"), b"limit 1\n").expect("written");
            control.refresh().expect("mended");
        }
    }
}
