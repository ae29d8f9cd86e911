//! Small text files written by administrators: the conf file, the identity map, the password file.
//!
//! Owns how they are read (bounded, regular files only) and how a line is cut into words.
//! Invariant: every error names the file, and the line where there is one.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The most that is read of such a file, bytes. Ten thousand long lines fit.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a file of an administrator could not be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be read.
    #[error("{file}: {source}")]
    Read {
        /// The file's name as given.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file as a whole is not acceptable.
    #[error("{file}: {text}")]
    Unfit {
        /// The file's name as given.
        file: String,
        /// What is wrong, and the cure.
        text: String,
    },
    /// One of its lines is wrong.
    #[error("{file}:{line}: {text}")]
    Line {
        /// The file's name as given.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        text: String,
    },
}

impl FileError {
    /// The error of one line.
    pub(crate) fn line(file: &str, line: usize, text: impl Into<String>) -> Self {
        Self::Line { file: file.into(), line, text: text.into() }
    }

    /// The error of the file as a whole.
    pub(crate) fn unfit(file: &str, text: impl Into<String>) -> Self {
        Self::Unfit { file: file.into(), text: text.into() }
    }
}

/// Reads a regular file of at most [`FILE_BYTES_MAX`] bytes; its metadata are those of the very
/// file that was read, not of whatever has the name a moment later.
///
/// # Errors
/// If it cannot be opened or read, is not a regular file, or is too long.
pub fn read(path: &Path) -> Result<(Vec<u8>, Metadata), FileError> {
    let file = path.display().to_string();
    let failed = |source| FileError::Read { file: file.clone(), source };
    // Without NONBLOCK the open of a pipe that nobody writes would hang the start.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let open: File =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = open.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileError::unfit(&file, "not a regular file"));
    }
    let mut bytes = Vec::new();
    open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("longer than {FILE_BYTES_MAX} bytes: surely not the file meant");
        return Err(FileError::unfit(&file, text));
    }
    Ok((bytes, metadata))
}

/// The lines that say something: number (from 1) and content, without comment and outer white
/// space. A `#` begins a comment at the start of a line and after white space.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    text.split(|&byte| byte == b'\n').enumerate().filter_map(|(index, line)| {
        let comment = (0..line.len())
            .find(|&at| line[at] == b'#' && (at == 0 || line[at - 1].is_ascii_whitespace()));
        let content = line[..comment.unwrap_or(line.len())].trim_ascii();
        (!content.is_empty()).then_some((index + 1, content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_comments_and_carriage_returns() {
        let text = b"# all\r\n\r\n  a b # tail\r\nc#d\n\t\n e";
        let found: Vec<_> = lines(text).collect();
        assert_eq!(found, [(3, &b"a b"[..]), (4, b"c#d"), (6, b"e")]);
    }

    #[test]
    fn only_regular_files_of_bounded_length_are_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = read(&dir.path().join("none")).expect_err("missing").to_string();
        assert!(missing.contains("none: No such file"), "{missing}");
        let directory = read(dir.path()).expect_err("directory").to_string();
        assert!(directory.ends_with("not a regular file"), "{directory}");
        let long = dir.path().join("long");
        let file = File::create(&long).expect("created");
        file.set_len(FILE_BYTES_MAX).expect("extended");
        assert_eq!(read(&long).expect("fits").0.len() as u64, FILE_BYTES_MAX);
        file.set_len(FILE_BYTES_MAX + 1).expect("extended");
        assert!(read(&long).expect_err("too long").to_string().contains("longer than"));
    }
}
