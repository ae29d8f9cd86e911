//! The command line of `fsqc`, checked.
//!
//! Invariant: a [`Request`] makes sense: its directory is the file system or below it, both are
//! absolute and without `//`, `.` or `..`, and there is something to send.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use fsq::{DEFAULT_PORT, Options, StorageDest};

/// The longest password file that is read; a longer one is no password.
const PASSWORD_FILE_BYTES_MAX: usize = 4096;

/// Send files to an FSQ server, each to DIR under its own name.
///
/// With --recursive a directory D is sent to DIR/D with the structure it has;
/// symbolic links inside it are not followed but reported and left out, and so is everything else
/// that is no regular file.
#[derive(Debug, Parser)]
#[command(
    name = "fsqc",
    version,
    max_term_width = 100,
    after_help = "\
Exit status: 0 every file was acknowledged by the server; 1 at least one was not; 2 usage error; \
3 the server cannot be reached, refused the node, or the connection was lost.

Environment: FSQ_PASSWORD; FSQ_CONNECT_TIMEOUT_MS [10000]; FSQ_REPLY_TIMEOUT_MS [900000]; \
FSQ_WINDOW [16], the DATA packets sent ahead of their replies, 1 for none."
)]
struct Args {
    /// Name of the target file system, e.g. /lustre
    #[arg(short = 'f', long, value_name = "FSNAME")]
    fsname: OsString,
    /// Directory for the files, FSNAME or below it
    #[arg(short = 'a', long, value_name = "DIR")]
    fpath: OsString,
    /// Where the files are to end up
    #[arg(short = 'o', long, value_name = "DEST", default_value = "lustre_tsm", value_parser = dest)]
    storagedest: StorageDest,
    /// Name of this node, as the server knows it
    #[arg(short = 'n', long)]
    node: OsString,
    /// Password of the node; other users can see it here, prefer --password-file or FSQ_PASSWORD
    #[arg(short = 'p', long, conflicts_with = "password_file")]
    password: Option<OsString>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Name or address of the server
    #[arg(short = 's', long, value_name = "SERVER")]
    servername: String,
    /// Port of the server
    #[arg(short = 'P', long, default_value_t = DEFAULT_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// What is told on standard error
    #[arg(short = 'v', long, value_name = "LEVEL", default_value = "message")]
    verbose: Level,
    /// Send directories with all that is below them
    #[arg(short = 'r', long)]
    recursive: bool,
    /// Send standard input, to DIR/NAME
    #[arg(long, requires = "filename", conflicts_with_all = ["files", "recursive"])]
    pipe: bool,
    /// Name of the file that --pipe makes
    #[arg(short = 'l', long, value_name = "NAME", requires = "pipe")]
    filename: Option<OsString>,
    /// One JSON object per file on standard output
    #[arg(long)]
    json: bool,
    /// Payload of one DATA packet, bytes (a multiple of 4096 reads best)
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(4096..=64 << 20))]
    chunk_bytes: u32,
    /// Files to send
    #[arg(value_name = "FILE", required_unless_present = "pipe")]
    files: Vec<PathBuf>,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Message,
    Info,
    Debug,
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) enum Input {
    /// Standard input, under this name.
    Pipe(OsString),
    Files(Vec<PathBuf>),
}

/// What the user wants.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) options: Options,
    /// The target file system.
    pub(crate) fs: Vec<u8>,
    /// The directory for the files, `fs` or below it.
    pub(crate) directory: Vec<u8>,
    pub(crate) dest: StorageDest,
    pub(crate) input: Input,
    pub(crate) is_recursive: bool,
    pub(crate) chunk_bytes: usize,
    pub(crate) level: Level,
    pub(crate) json: bool,
    /// What the user should know before anything is sent.
    pub(crate) warnings: Vec<String>,
}

/// The command line of this process; a wrong one ends it with status 2.
pub(crate) fn parse() -> Request {
    let args = Args::parse();
    args.check()
        .unwrap_or_else(|message| Args::command().error(ErrorKind::ValueValidation, message).exit())
}

impl Args {
    fn check(self) -> Result<Request, String> {
        let fs = normal("--fsname", &self.fsname)?;
        let directory = normal("--fpath", &self.fpath)?;
        if !is_at_or_below(&directory, &fs) {
            return Err(format!(
                "--fpath '{}' is not below --fsname '{}'",
                self.fpath.display(),
                self.fsname.display()
            ));
        }
        let mut warnings = Vec::new();
        let password = password(self.password, self.password_file.as_deref(), &mut warnings)?;
        let mut options = Options::new(self.servername, self.node.into_vec(), password)
            .with_environment()
            .map_err(|error| error.to_string())?;
        options.port = self.port;
        let input = match self.filename {
            Some(name) => Input::Pipe(plain_name(name)?),
            None => Input::Files(self.files),
        };
        Ok(Request {
            options,
            fs,
            directory,
            dest: self.storagedest,
            input,
            is_recursive: self.recursive,
            chunk_bytes: self.chunk_bytes as usize,
            level: self.verbose,
            json: self.json,
            warnings,
        })
    }
}

fn dest(word: &str) -> Result<StorageDest, String> {
    word.parse().map_err(|_| "use null, local, lustre, tsm or lustre_tsm".to_owned())
}

/// An absolute path without the slashes that the server would refuse, at its end and in between.
fn normal(option: &str, path: &OsStr) -> Result<Vec<u8>, String> {
    let bytes = path.as_bytes();
    if !bytes.starts_with(b"/") {
        return Err(format!("{option} '{}' must begin with a slash", path.display()));
    }
    let mut normal = Vec::with_capacity(bytes.len());
    for component in bytes.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        if component == b"." || component == b".." {
            return Err(format!("{option} '{}' must not contain . or ..", path.display()));
        }
        normal.push(b'/');
        normal.extend_from_slice(component);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    Ok(normal)
}

fn is_at_or_below(path: &[u8], ancestor: &[u8]) -> bool {
    let rest = path.strip_prefix(ancestor);
    ancestor == b"/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn plain_name(name: OsString) -> Result<OsString, String> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(format!("--filename '{}' is not the name of a file", name.display()));
    }
    Ok(name)
}

fn password(
    visible: Option<OsString>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>, String> {
    if let Some(password) = visible {
        warnings.push(
            "a password on the command line can be read by every user of this machine; \
             use --password-file or FSQ_PASSWORD"
                .to_owned(),
        );
        return Ok(password.into_vec());
    }
    if let Some(path) = file {
        return read_password(path, warnings);
    }
    let from_environment = std::env::var_os("FSQ_PASSWORD").map(OsString::into_vec);
    from_environment
        .ok_or_else(|| "no password: use --password-file, FSQ_PASSWORD or --password".to_owned())
}

fn read_password(path: &Path, warnings: &mut Vec<String>) -> Result<Vec<u8>, String> {
    let failed = |reason: String| format!("--password-file '{}': {reason}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if metadata.is_file() && metadata.mode() & 0o007 != 0 {
        warnings.push(failed("every user may read it; chmod 600 it".to_owned()));
    }
    let mut content = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    if content.len() > PASSWORD_FILE_BYTES_MAX {
        return Err(failed("too long for a password".to_owned()));
    }
    let line_end = content.iter().position(|&byte| byte == b'\n').unwrap_or(content.len());
    content.truncate(line_end);
    if content.is_empty() { Err(failed("its first line is empty".to_owned())) } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: [&str; 9] =
        ["fsqc", "-f", "/lustre", "-n", "polaris", "-p", "pw", "-s", "server"];

    fn request(more: &[&str]) -> Result<Request, String> {
        let args = Args::try_parse_from(REQUIRED.iter().chain(more)).map_err(|e| e.to_string())?;
        args.check()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn slashes_are_normalised() {
        for (given, directory) in
            [("/lustre/a/", "/lustre/a"), ("/lustre//a///", "/lustre/a"), ("/lustre/", "/lustre")]
        {
            let request = request(&["-a", given, "file"]).unwrap();
            assert_eq!(request.directory, directory.as_bytes());
        }
    }

    #[test]
    fn the_directory_must_be_below_the_file_system() {
        for given in ["/lustre2", "/", "/other/lustre", "lustre/a", "/lustre/../etc", "/lustre/./a"]
        {
            assert!(request(&["-a", given, "file"]).is_err(), "{given}");
        }
        assert!(is_at_or_below(b"/any", b"/"));
    }

    #[test]
    fn both_generations_of_options() {
        let old = request(&["--pipe", "-a", "/lustre/a", "-l", "name", "-o", "tsm"]).unwrap();
        assert!(matches!(old.input, Input::Pipe(name) if name == "name"));
        assert_eq!(old.dest, StorageDest::Tsm);
        let long = ["--fpath", "/lustre", "--storagedest", "null", "--verbose", "debug", "x", "y"];
        let new = request(&long).unwrap();
        assert!(matches!(new.input, Input::Files(files) if files.len() == 2));
        assert_eq!((new.dest, new.level), (StorageDest::Null, Level::Debug));
    }

    #[test]
    fn nonsense_is_refused() {
        for more in [
            &["-a", "/lustre"][..],
            &["-a", "/lustre", "--pipe"],
            &["-a", "/lustre", "-l", "name"],
            &["-a", "/lustre", "--pipe", "-l", "a/b"],
            &["-a", "/lustre", "--pipe", "-l", "name", "file"],
            &["-a", "/lustre", "-o", "disk", "file"],
            &["-a", "/lustre", "-P", "0", "file"],
            &["-a", "/lustre", "--chunk-bytes", "1", "file"],
            &["-a", "/lustre", "--password-file", "/dev/null", "file"],
        ] {
            assert!(request(more).is_err(), "{more:?}");
        }
    }
}
