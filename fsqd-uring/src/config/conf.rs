//! The conf file: `key value` lines, turned into the options they stand for.
//!
//! Keys are the long names of the options, so that both have one set of bounds and one set of
//! error texts. Invariant: every line is either an option that parses or an error with its number.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::options::{self, Options};
use super::text::{self, FileError};

/// Options that make sense on the command line only.
const NOT_KEYS: [&str; 4] = ["conf", "check-config", "help", "version"];

/// Reads a conf file into arguments that stand in front of those of the command line.
pub(super) fn load(path: &Path) -> Result<Vec<OsString>, FileError> {
    let (bytes, _) = text::read(path)?;
    arguments(&bytes, &path.display().to_string())
}

/// The options that the lines of `text` stand for.
pub(super) fn arguments(text: &[u8], file: &str) -> Result<Vec<OsString>, FileError> {
    let command = Options::command();
    let keys: Vec<&str> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|key| !NOT_KEYS.contains(key))
        .collect();
    let mut seen_at: HashMap<&str, usize> = HashMap::new();
    let mut arguments = Vec::new();
    for (number, line) in text::lines(text) {
        let wrong = |text: String| Err(FileError::line(file, number, text));
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (word, value) = (&line[..end], line[end..].trim_ascii());
        let Some(&key) = keys.iter().find(|key| key.as_bytes() == word) else {
            let word = String::from_utf8_lossy(word);
            return wrong(format!("unknown key {word:?}; keys are: {}", keys.join(" ")));
        };
        if value.is_empty() {
            return wrong(format!("key {key} has no value; lines are: key value"));
        }
        if let Some(first) = seen_at.insert(key, number) {
            return wrong(format!("key {key} is already set in line {first}"));
        }
        let mut argument = OsString::from(format!("--{key}="));
        argument.push(OsStr::from_bytes(value));
        if let Err(error) = Options::try_parse_from([OsStr::new("fsqd"), &argument]) {
            return wrong(options::one_line(&error));
        }
        arguments.push(argument);
    }
    Ok(arguments)
}
