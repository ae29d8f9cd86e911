//! [`Plan`]: which files go where.
//!
//! Invariant: every FILE of the command line, and every regular file and unreadable directory
//! below one with `--recursive`, is exactly one entry; what is left out on purpose (symbolic
//! links, special files) is reported.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::args::{Input, Request};
use crate::report::Report;

/// Where the bytes of a file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdin,
    File(PathBuf),
}

impl Source {
    /// For messages and reports.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// One file to send, or the reason why it cannot be.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) source: Source,
    /// Full path on the target file system.
    pub(crate) destination: Vec<u8>,
    pub(crate) reason: Option<String>,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) entries: Vec<Entry>,
}

impl Plan {
    pub(crate) fn new(request: &Request, report: &Report) -> Self {
        let mut plan = Self::default();
        match &request.input {
            Input::Pipe(name) => plan.add(Source::Stdin, join(&request.directory, name), 0),
            Input::Files(files) => {
                for file in files {
                    plan.add_argument(file, request, report);
                }
            }
        }
        plan
    }

    /// What is known of the amount, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// Symbolic links are followed here: the user has named them.
    fn add_argument(&mut self, path: &Path, request: &Request, report: &Report) {
        let name = path.file_name();
        let destination =
            name.map_or_else(|| request.directory.clone(), |name| join(&request.directory, name));
        match fs::metadata(path) {
            Err(error) => self.fail(path, destination, error.to_string()),
            Ok(metadata) if !metadata.is_dir() => {
                self.add(Source::File(path.to_owned()), destination, metadata.len());
            }
            Ok(_) if request.is_recursive => self.add_tree(path, destination, report),
            Ok(_) => self.fail(path, destination, "is a directory, use --recursive".to_owned()),
        }
    }

    /// Depth first, each directory in the order of its names, so that two runs do the same.
    fn add_tree(&mut self, root: &Path, destination: Vec<u8>, report: &Report) {
        let mut directories = vec![(root.to_owned(), destination)];
        while let Some((directory, destination)) = directories.pop() {
            let listing = fs::read_dir(&directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let mut listing = match listing {
                Ok(listing) => listing,
                Err(error) => {
                    self.fail(&directory, destination, error.to_string());
                    continue;
                }
            };
            listing.sort_by_key(fs::DirEntry::file_name);
            let mut below = Vec::new();
            for entry in listing {
                let (path, target) = (entry.path(), join(&destination, &entry.file_name()));
                match entry.metadata() {
                    Err(error) => self.fail(&path, target, error.to_string()),
                    Ok(metadata) if metadata.is_dir() => below.push((path, target)),
                    Ok(metadata) if metadata.is_file() => {
                        self.add(Source::File(path), target, metadata.len());
                    }
                    Ok(metadata) => {
                        let is_link = metadata.is_symlink();
                        let kind = if is_link { "a symbolic link" } else { "no regular file" };
                        report.warn(&format!("left out '{}': it is {kind}", path.display()));
                    }
                }
            }
            directories.extend(below.into_iter().rev());
        }
    }

    fn add(&mut self, source: Source, destination: Vec<u8>, bytes: u64) {
        self.entries.push(Entry { source, destination, reason: None, bytes });
    }

    fn fail(&mut self, path: &Path, destination: Vec<u8>, reason: String) {
        let source = Source::File(path.to_owned());
        self.entries.push(Entry { source, destination, reason: Some(reason), bytes: 0 });
    }
}

fn join(directory: &[u8], name: &OsStr) -> Vec<u8> {
    let separator: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, separator, name.as_bytes()].concat()
}
