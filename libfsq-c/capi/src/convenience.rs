//! The symbols that are no part of sending files: callers of the old library use them, so they
//! stay.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::abi::{Kv, KvOpt};
use crate::{PANICKED, guarded, negated};

/// Longest configuration file that is read.
const CONF_BYTES_MAX: u64 = 1 << 20;

/// Seconds since the epoch.
#[unsafe(no_mangle)]
pub extern "C" fn time_now() -> f64 {
    // A clock before 1970 is 1970; there is no better answer and nobody to tell.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Reads `size` bytes, fewer only at the end of the file; returns them or a negative errno.
///
/// # Safety
/// `ptr` points to `size` writable bytes, which need not be initialised.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read_size(fd: c_int, ptr: *mut c_void, size: usize) -> isize {
    let step = |fd: BorrowedFd<'_>, done: usize| {
        // SAFETY: within the caller's bytes; they are only written to.
        let rest = unsafe {
            std::slice::from_raw_parts_mut(ptr.cast::<MaybeUninit<u8>>().add(done), size - done)
        };
        rustix::io::read(fd, rest).map(|(filled, _)| filled.len())
    };
    transfer(fd, ptr, size, step)
}

/// Writes `size` bytes; returns them or a negative errno. Raises no SIGPIPE on a socket.
///
/// # Safety
/// `ptr` points to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write_size(fd: c_int, ptr: *const c_void, size: usize) -> isize {
    let step = |fd: BorrowedFd<'_>, done: usize| {
        // SAFETY: within the caller's bytes.
        let rest = unsafe { std::slice::from_raw_parts(ptr.cast::<u8>().add(done), size - done) };
        match send(fd, rest, SendFlags::NOSIGNAL) {
            Err(Errno::NOTSOCK) => rustix::io::write(fd, rest),
            other => other,
        }
    };
    transfer(fd, ptr, size, step)
}

/// Repeats `step`, which says how many bytes it moved, until all are moved or it moves none.
fn transfer(
    fd: c_int,
    ptr: *const c_void,
    size: usize,
    step: impl Fn(BorrowedFd<'_>, usize) -> Result<usize, Errno>,
) -> isize {
    if fd < 0 {
        return negated(Errno::BADF) as isize;
    }
    if ptr.is_null() || size > isize::MAX.cast_unsigned() {
        return negated(Errno::FAULT) as isize;
    }
    // SAFETY: not negative, and the caller keeps it open for the call, as for read(2).
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut done = 0;
    while done < size {
        match step(fd, done) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return negated(errno) as isize,
        }
    }
    done.cast_signed()
}

/// Reads a configuration file of `key value` lines; `#` begins a comment.
///
/// # Safety
/// `filename` is NULL or ends in a NUL, `kv_opt` is NULL or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn parse_conf(filename: *const c_char, kv_opt: *mut KvOpt) -> c_int {
    if filename.is_null() || kv_opt.is_null() {
        return negated(Errno::FAULT);
    }
    // SAFETY: valid as promised.
    let (filename, kv_opt) = unsafe {
        kv_opt.write(KvOpt { n: 0, kv: std::ptr::null_mut() });
        (CStr::from_ptr(filename), &mut *kv_opt)
    };
    let parsed =
        guarded(Err(PANICKED), || parse(Path::new(OsStr::from_bytes(filename.to_bytes()))));
    match parsed.and_then(|lines| export(&lines)) {
        Ok(exported) => {
            *kv_opt = exported;
            0
        }
        Err(errno) => negated(errno),
    }
}

/// Copies the lines to where the caller can free them.
fn export(lines: &[Kv]) -> Result<KvOpt, Errno> {
    let n = c_int::try_from(lines.len()).map_err(|_| Errno::OVERFLOW)?;
    if lines.is_empty() {
        return Ok(KvOpt { n, kv: std::ptr::null_mut() });
    }
    // SAFETY: calloc has no preconditions.
    let kv = unsafe { libc::calloc(lines.len(), size_of::<Kv>()) }.cast::<Kv>();
    if kv.is_null() {
        return Err(Errno::NOMEM);
    }
    // SAFETY: `kv` is new and has room for all lines.
    unsafe { std::ptr::copy_nonoverlapping(lines.as_ptr(), kv, lines.len()) };
    Ok(KvOpt { n, kv })
}

fn parse(path: &Path) -> Result<Vec<Kv>, Errno> {
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut text = Vec::new();
    let file = File::open(path).map_err(errno)?;
    file.take(CONF_BYTES_MAX + 1).read_to_end(&mut text).map_err(errno)?;
    if text.len() as u64 > CONF_BYTES_MAX {
        return Err(Errno::FBIG);
    }
    let lines = text.split(|&byte| byte == b'\n');
    lines.filter_map(|line| parse_line(line).transpose()).collect()
}

/// `None` for a line without words.
fn parse_line(line: &[u8]) -> Result<Option<Kv>, Errno> {
    let code = line.split(|&byte| byte == b'#').next().unwrap_or_default();
    let mut words = code.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let array = |word: &[u8]| {
        let mut array = [0; 65];
        if word.len() >= array.len() {
            return Err(Errno::OVERFLOW);
        }
        for (to, &from) in array.iter_mut().zip(word) {
            *to = from.cast_signed();
        }
        Ok(array)
    };
    match (words.next(), words.next(), words.next()) {
        (None, _, _) => Ok(None),
        (Some(key), Some(val), None) => Ok(Some(Kv { key: array(key)?, val: array(val)? })),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn conf(text: &[u8]) -> Result<Vec<(String, String)>, c_int> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let name = std::ffi::CString::new(file.path().as_os_str().as_bytes()).unwrap();
        let mut kv_opt = KvOpt { n: 77, kv: std::ptr::dangling_mut() };
        // SAFETY: a C string and a struct of ours.
        let rc = unsafe { parse_conf(name.as_ptr(), &raw mut kv_opt) };
        if rc != 0 {
            assert!(kv_opt.n == 0 && kv_opt.kv.is_null());
            return Err(rc);
        }
        let text = |array: &[c_char; 65]| {
            let bytes: Vec<u8> = array.iter().map(|c| c.cast_unsigned()).collect();
            CStr::from_bytes_until_nul(&bytes).unwrap().to_str().unwrap().to_owned()
        };
        let n = usize::try_from(kv_opt.n).unwrap();
        // SAFETY: `n` lines from calloc, or NULL if there are none.
        let lines = (0..n).map(|i| unsafe { &*kv_opt.kv.add(i) });
        let lines = lines.map(|kv| (text(&kv.key), text(&kv.val))).collect();
        // SAFETY: from calloc, and not used any more.
        unsafe { libc::free(kv_opt.kv.cast()) };
        Ok(lines)
    }

    #[test]
    fn a_configuration_file_is_read() {
        let pair = |key: &str, val: &str| (key.to_owned(), val.to_owned());
        let lines = conf(b"# all\n\nport 7625 # the usual\n\t localfs\t/fsqdata\r\n").unwrap();
        assert_eq!(lines, [pair("port", "7625"), pair("localfs", "/fsqdata")]);
        assert_eq!(conf(b""), Ok(vec![]));
        let longest = "x".repeat(64);
        assert_eq!(conf(format!("k {longest}").as_bytes()), Ok(vec![pair("k", &longest)]));
    }

    #[test]
    fn a_broken_configuration_file_is_refused() {
        assert_eq!(conf(b"port"), Err(negated(Errno::INVAL)));
        assert_eq!(conf(b"port 1 2"), Err(negated(Errno::INVAL)));
        assert_eq!(conf(format!("k {}", "x".repeat(65)).as_bytes()), Err(negated(Errno::OVERFLOW)));
        assert_eq!(conf(&vec![b'\n'; 2 << 20]), Err(negated(Errno::FBIG)));
    }

    #[test]
    fn bytes_are_moved_whole() {
        let (here, there) = UnixStream::pair().unwrap();
        let sent = vec![7_u8; 1 << 20];
        let mut received = vec![0_u8; (1 << 20) + 1];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: as long as it says.
                let n = unsafe { write_size(here.as_raw_fd(), sent.as_ptr().cast(), sent.len()) };
                assert_eq!(n, 1 << 20);
                here.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let (to, len) = (received.as_mut_ptr().cast(), received.len());
            // SAFETY: as long as it says.
            assert_eq!(unsafe { read_size(there.as_raw_fd(), to, len) }, 1 << 20);
        });
        assert!(received[..1 << 20] == sent);
        drop(there);
        // SAFETY: as long as it says.
        let n = unsafe { write_size(here.as_raw_fd(), sent.as_ptr().cast(), 1) };
        assert_eq!(n, negated(Errno::PIPE) as isize);
        // SAFETY: nothing is read or written.
        let n = unsafe { write_size(-1, sent.as_ptr().cast(), 1) };
        assert_eq!(n, negated(Errno::BADF) as isize);
        // SAFETY: nothing is read or written.
        let n = unsafe { read_size(0, std::ptr::null_mut(), 1) };
        assert_eq!(n, negated(Errno::FAULT) as isize);
    }
}
