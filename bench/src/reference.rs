//! The reference server: what the protocol costs with plain `read` and `write` and the page cache.
//!
//! One blocking thread and one buffer of 1 MiB for each connection; files are written in place and
//! never synced, so its CLOSE promises nothing. It is the yardstick for CPU time, and the server
//! that the tests of this crate run against. It is no daemon: nobody signs on, and paths are
//! only kept below its directory.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::thread;

use fsq_wire::server::{Next, Request};
use fsq_wire::{Info, PACKET_BYTES, ServerSession, StorageDest};

/// What is read and written at a time, bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// A refusal: positive errno and reason.
type Refusal = (i32, String);

/// Serves connections until the listener fails. Destination `null` is dropped, any other is
/// written below `dir` under the path that the client names.
///
/// # Errors
/// What `accept` says.
pub fn serve(listener: &TcpListener, dir: &Path) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let dir = dir.to_owned();
        thread::Builder::new().spawn(move || {
            // The end of a connection, orderly or not, is the end of the session.
            let _ = session(stream, &dir);
        })?;
    }
}

fn session(mut stream: TcpStream, dir: &Path) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = ServerSession::new();
    let mut packet = [0; PACKET_BYTES];
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut file: Option<File> = None;
    let mut failure: Option<Refusal> = None;
    loop {
        stream.read_exact(&mut packet)?;
        let outcome = match session.packet(&packet) {
            Ok(Request::Connect(_)) => Ok(()),
            Ok(Request::Open(info)) => {
                failure = None;
                create(dir, &info).map(|created| file = created)
            }
            Ok(Request::Data { size }) => {
                let received = receive(&mut stream, size, &mut buffer, file.as_mut(), failure)?;
                failure = received.clone().err();
                session.payload(size);
                received
            }
            Ok(Request::Close) => {
                file = None;
                failure.take().map_or(Ok(()), Err)
            }
            Ok(Request::Disconnect) => return Ok(()),
            Err(violation) => {
                let _ = session.reject(&mut packet, &violation);
                return stream.write_all(&packet);
            }
        };
        let answer = outcome.as_ref().map(|&()| ()).map_err(|(errno, text)| (*errno, &text[..]));
        let next = session.reply(&mut packet, answer);
        stream.write_all(&packet)?;
        if next == Next::Close {
            return Ok(());
        }
    }
}

/// The file of an OPEN; none for what is dropped.
fn create(dir: &Path, info: &Info<'_>) -> Result<Option<File>, Refusal> {
    if info.storage_dest == i32::from(StorageDest::Null) {
        return Ok(None);
    }
    let path = str::from_utf8(info.fpath).ok().and_then(|fpath| below(dir, fpath));
    let path = path.ok_or_else(|| (13, "the path leaves the directory".to_owned()))?;
    let parent = path.parent().expect("a path below a directory has a parent");
    let made = fs::create_dir_all(parent).and_then(|()| File::create_new(&path));
    made.map(Some).map_err(|error| refusal(&error))
}

/// `fpath` below `dir`; `None` if it has other components than names.
fn below(dir: &Path, fpath: &str) -> Option<PathBuf> {
    let path = Path::new(fpath.trim_start_matches('/'));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && path.file_name().is_some()).then(|| dir.join(path))
}

/// Takes a payload to its end, whatever becomes of it.
fn receive(
    stream: &mut TcpStream,
    size: u64,
    buffer: &mut [u8],
    mut file: Option<&mut File>,
    failure: Option<Refusal>,
) -> io::Result<Result<(), Refusal>> {
    let mut outcome = failure.map_or(Ok(()), Err);
    let mut left = size;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        stream.read_exact(&mut buffer[..part])?;
        if let (Ok(()), Some(file)) = (&outcome, &mut file) {
            outcome = file.write_all(&buffer[..part]).map_err(|error| refusal(&error));
        }
        left -= part as u64;
    }
    Ok(outcome)
}

fn refusal(error: &io::Error) -> Refusal {
    (error.raw_os_error().unwrap_or(5), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_directory() {
        let dir = Path::new("/srv");
        assert_eq!(below(dir, "/lustre/a"), Some(PathBuf::from("/srv/lustre/a")));
        assert_eq!(below(dir, "//a"), Some(PathBuf::from("/srv/a")));
        for bad in ["/lustre/../../etc/x", "", "/", "./a"] {
            assert_eq!(below(dir, bad), None, "{bad}");
        }
    }
}
