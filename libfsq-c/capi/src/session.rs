//! The functions that send files: `fsq_init` to `fsq_recv`.
//!
//! Invariant: a call returns 0 (or all bytes asked for) and leaves rc 0 in the session's packet, or
//! it returns a negative errno and leaves it and the reason there. When the connection is gone,
//! the socket is closed and `fd` is -1.

use std::ffi::{CStr, c_char, c_int, c_void};

use fsq_wire::{Info, Login as WireLogin, State, VERSION};
use libfsq::{Client, Error, Field, FieldError, Options, StorageDest};
use rustix::io::Errno;

use crate::abi::{Login, RawPacket, Session};
use crate::table;
use crate::{PANICKED, guarded, log, negated};

/// Why a call failed.
struct Failure {
    errno: Errno,
    text: String,
}

impl Failure {
    fn new(errno: Errno, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }

    fn not_connected() -> Self {
        Self::new(Errno::NOTCONN, "the session is not connected, call fsq_fconnect first")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.errno(), error.to_string())
    }
}

/// Fills a login for [`fsq_fconnect`].
///
/// # Safety
/// `login` is NULL or valid for writing, the strings are NULL or end in a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_init(
    login: *mut Login,
    node: *const c_char,
    password: *const c_char,
    hostname: *const c_char,
) -> c_int {
    if login.is_null() || node.is_null() || password.is_null() || hostname.is_null() {
        return negated(Errno::FAULT);
    }
    // SAFETY: the caller's strings end in a NUL.
    let strings = unsafe { [node, password, hostname].map(|string| CStr::from_ptr(string)) };
    // SAFETY: zeros are a `Login`, and the caller lets us write one. It may be uninitialised
    // memory, so there is no reference to it before.
    let login = unsafe {
        login.write_bytes(0, 1);
        &mut *login
    };
    let Login { node, password, hostname, port } = login;
    for (array, string) in [node, password, hostname].into_iter().zip(strings) {
        let string = string.to_bytes_with_nul();
        if string.len() > array.len() {
            return negated(Errno::OVERFLOW);
        }
        for (to, from) in array.iter_mut().zip(string) {
            *to = from.cast_signed();
        }
    }
    *port = c_int::from(libfsq::DEFAULT_PORT);
    0
}

/// Connects and signs on.
///
/// # Safety
/// `login` is NULL or valid for reading, `session` is NULL or valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_fconnect(login: *mut Login, session: *mut Session) -> c_int {
    if login.is_null() || session.is_null() {
        return negated(Errno::FAULT);
    }
    // SAFETY: both are valid as promised. Zeros are a `Session`; it may be uninitialised memory,
    // so there is no reference to it before.
    let (login, session) = unsafe {
        session.write_bytes(0, 1);
        (&*login, &mut *session)
    };
    session.fd = -1;
    status(call(session, State::CONNECT, |session| connect(login, session)))
}

/// Signs off and closes the socket.
///
/// # Safety
/// `session` is NULL or one that [`fsq_fconnect`] has filled, or zeroed memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_fdisconnect(session: *mut Session) {
    // SAFETY: valid as promised.
    let Some(session) = (unsafe { session.as_mut() }) else { return };
    guarded((), || {
        if let Some(entry) = table::find(session.fd) {
            // First out of the table: once closed, the number may be another session's.
            table::remove(session.fd, &entry);
            let client = entry.lock().take();
            if let Some(client) = client {
                client.disconnect();
            }
        }
    });
    session.fd = -1;
}

/// Begins a file that is to be copied to Lustre and archived.
///
/// # Safety
/// As for [`fsq_fdopen`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_fopen(
    fs: *const c_char,
    fpath: *const c_char,
    desc: *const c_char,
    session: *mut Session,
) -> c_int {
    // SAFETY: the same promise.
    unsafe { fsq_fdopen(fs, fpath, desc, StorageDest::LustreTsm.into(), session) }
}

/// Begins a file.
///
/// # Safety
/// The strings are NULL or end in a NUL; `session` is as for [`fsq_fdisconnect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_fdopen(
    fs: *const c_char,
    fpath: *const c_char,
    desc: *const c_char,
    dest: c_int,
    session: *mut Session,
) -> c_int {
    // SAFETY: valid as promised.
    let Some(session) = (unsafe { session.as_mut() }) else { return negated(Errno::FAULT) };
    let string = |string: *const c_char| {
        // SAFETY: the strings are NULL or end in a NUL.
        (!string.is_null()).then(|| unsafe { CStr::from_ptr(string) }.to_bytes())
    };
    let (fs, fpath, desc) = (string(fs), string(fpath), string(desc).unwrap_or_default());
    status(call(session, State::OPEN, |session| {
        let (Some(fs), Some(fpath)) = (fs, fpath) else {
            return Err(Failure::new(Errno::FAULT, "fs and fpath must not be NULL"));
        };
        let dest = StorageDest::try_from(dest)
            .map_err(|error| Failure::new(Errno::INVAL, format!("{dest} is {error}")))?;
        let info = Info { fs, fpath, desc, storage_dest: dest.into() };
        let mut packet = session.packet.packet_mut();
        packet.clear();
        // Callers read it back. Too long a string is refused by the client below.
        let _: Result<(), FieldError> = packet.set_info(&info);
        with_client(session, |client| client.open(fs, fpath, desc, dest))
    }))
}

/// Writes the next bytes of the file: all of them, or a negative errno.
///
/// # Safety
/// `ptr` points to `size * nmemb` bytes; `session` is as for [`fsq_fdisconnect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_fwrite(
    ptr: *const c_void,
    size: usize,
    nmemb: usize,
    session: *mut Session,
) -> isize {
    // SAFETY: valid as promised.
    let Some(session) = (unsafe { session.as_mut() }) else {
        return negated(Errno::FAULT) as isize;
    };
    let written = call(session, State::DATA, |session| {
        let bytes = size
            .checked_mul(nmemb)
            .and_then(|bytes| isize::try_from(bytes).ok())
            .ok_or_else(|| Failure::new(Errno::OVERFLOW, "more bytes than ssize_t can count"))?;
        let payload = match bytes {
            0 => &[],
            _ if ptr.is_null() => {
                return Err(Failure::new(Errno::FAULT, "the data must not be NULL"));
            }
            // SAFETY: as many bytes as the caller says, fewer than isize::MAX.
            _ => unsafe { std::slice::from_raw_parts(ptr.cast::<u8>(), bytes.cast_unsigned()) },
        };
        with_client(session, |client| client.write(payload))?;
        Ok(bytes)
    });
    written.unwrap_or_else(|errno| negated(errno) as isize)
}

/// Completes the file; 0 says that the server has all of it.
///
/// # Safety
/// As for [`fsq_fdisconnect`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_fclose(session: *mut Session) -> c_int {
    // SAFETY: valid as promised.
    let Some(session) = (unsafe { session.as_mut() }) else { return negated(Errno::FAULT) };
    status(call(session, State::CLOSE, |session| with_client(session, Client::close)))
}

/// Sends the session's packet with this state.
///
/// # Safety
/// As for [`fsq_fdisconnect`]; a socket that is not from [`fsq_fconnect`] is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_send(session: *mut Session, state: c_int) -> c_int {
    // SAFETY: valid as promised.
    let Some(session) = (unsafe { session.as_mut() }) else { return negated(Errno::FAULT) };
    let mut packet = session.packet.packet_mut();
    packet.set_version(VERSION);
    packet.set_state(State::from_bits(state.cast_unsigned()));
    let bytes = session.packet.bytes;
    let sent = guarded(Err(Failure::new(PANICKED, "internal error")), || {
        if table::find(session.fd).is_some() {
            return with_client(session, |client| client.send_packet(&bytes));
        }
        // SAFETY: `bytes` is as long as it says.
        let sent = unsafe {
            crate::convenience::write_size(session.fd, bytes.as_ptr().cast(), bytes.len())
        };
        complete(sent, bytes.len())
    });
    // The packet stays as it was sent, but for a failure.
    sent.map_or_else(|failure| negated(note(session, failure)), |()| 0)
}

/// Receives a packet into the session and returns its rc.
///
/// # Safety
/// As for [`fsq_send`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsq_recv(session: *mut Session, expected: c_int) -> c_int {
    // SAFETY: valid as promised.
    let Some(session) = (unsafe { session.as_mut() }) else { return negated(Errno::FAULT) };
    let received = guarded(Err(Failure::new(PANICKED, "internal error")), || {
        let mut bytes = [0; fsq_wire::PACKET_BYTES];
        if table::find(session.fd).is_some() {
            with_client(session, |client| client.receive_packet(&mut bytes))?;
        } else {
            // SAFETY: `bytes` is as long as it says.
            let received = unsafe {
                crate::convenience::read_size(session.fd, bytes.as_mut_ptr().cast(), bytes.len())
            };
            complete(received, bytes.len())?;
        }
        session.packet.bytes = bytes;
        let (state, rc) = (session.packet.packet().state(), session.packet.packet().rc());
        let expected = State::from_bits(expected.cast_unsigned());
        if state.answers(expected) {
            Ok(rc)
        } else {
            let text = format!("a packet says {state} where {expected} was expected");
            Err(Failure::new(Errno::PROTO, text))
        }
    });
    received.unwrap_or_else(|failure| negated(note(session, failure)))
}

/// Between the order of this machine and that of the wire, which on every machine that this
/// library is built for are the same.
#[unsafe(no_mangle)]
pub extern "C" fn fsq_packet_endian_swap(_packet: *mut RawPacket) {}

fn connect(login: &Login, session: &mut Session) -> Result<(), Failure> {
    let node = bytes_of(&login.node, Field::Node)?;
    let password = bytes_of(&login.password, Field::Password)?;
    let hostname = bytes_of(&login.hostname, Field::Hostname)?;
    let host = str::from_utf8(&hostname)
        .map_err(|_| Failure::new(Errno::INVAL, "the host name is not UTF-8"))?;
    let port = u16::try_from(login.port).ok().filter(|&port| port != 0).ok_or_else(|| {
        let text = format!("port {} is not from 1 to 65535, fsq_init sets a valid one", login.port);
        Failure::new(Errno::INVAL, text)
    })?;
    let mut options = Options::new(host, node.as_slice(), password).with_environment()?;
    options.port = port;
    let client = Client::connect(&options)?;
    session.fd = table::enter(client).ok_or_else(Failure::not_connected)?;
    // As after the old library's reply, but for the password.
    let shown =
        WireLogin { node: &node, password: b"", hostname: &hostname, port: i32::from(port) };
    let _: Result<(), FieldError> = session.packet.packet_mut().set_login(&shown);
    Ok(())
}

/// The string in an array of the caller, which need not be set up behind its NUL.
fn bytes_of(array: &[c_char; 65], field: Field) -> Result<Vec<u8>, Failure> {
    let bytes = array.map(c_char::cast_unsigned);
    let end = bytes.iter().position(|&byte| byte == 0);
    end.map(|end| bytes[..end].to_vec()).ok_or_else(|| {
        Failure::new(Errno::OVERFLOW, format!("the {field} in the login has no NUL"))
    })
}

/// Runs one call on a connected session, and takes it out of the table if the connection broke.
fn with_client<T>(
    session: &mut Session,
    body: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Failure> {
    let entry = table::find(session.fd).ok_or_else(Failure::not_connected)?;
    let mut client = entry.lock();
    let result = match client.as_mut() {
        Some(client) => body(client).map_err(Failure::from),
        None => Err(Failure::not_connected()),
    };
    if !client.as_ref().is_some_and(Client::is_connected) {
        let closed = client.take();
        drop(client);
        table::remove(session.fd, &entry);
        drop(closed);
        session.fd = -1;
    }
    result
}

/// Runs the body of an exported function and leaves the outcome in the session's packet.
fn call<T>(
    session: &mut Session,
    state: State,
    body: impl FnOnce(&mut Session) -> Result<T, Failure>,
) -> Result<T, Errno> {
    let panicked = Err(Failure::new(PANICKED, "internal error in libfsqapi"));
    match guarded(panicked, || body(session)) {
        Ok(value) => {
            let mut packet = session.packet.packet_mut();
            packet.set_version(VERSION);
            packet.set_state(state | State::REPLY);
            packet.set_rc(0);
            packet.set_error_sentence("");
            Ok(value)
        }
        Err(failure) => Err(note(session, failure)),
    }
}

/// Leaves the reason in the session's packet and in the log.
fn note(session: &mut Session, failure: Failure) -> Errno {
    let mut packet = session.packet.packet_mut();
    packet.set_version(VERSION);
    packet.set_state(State::REFUSED);
    packet.set_rc(negated(failure.errno));
    packet.set_error_sentence(&failure.text);
    guarded((), || log::error(&failure.text));
    failure.errno
}

/// A whole packet, or why it is none.
fn complete(done: isize, bytes: usize) -> Result<(), Failure> {
    match i32::try_from(done) {
        Ok(errno) if errno < 0 => {
            let errno = Errno::from_raw_os_error(-errno);
            Err(Failure::new(errno, format!("the packet did not get through: {errno}")))
        }
        _ if done.unsigned_abs() == bytes => Ok(()),
        _ => Err(Failure::new(Errno::CONNRESET, "the connection ended within a packet")),
    }
}

fn status(result: Result<(), Errno>) -> c_int {
    result.map_or_else(negated, |()| 0)
}
