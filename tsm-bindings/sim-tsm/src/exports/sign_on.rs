//! Set-up, sign-on, session information, filespaces, messages.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;

use tsm_bindings::Zeroed;
use tsm_bindings::tsm::{ReturnCode, sys};

use super::{code, fixed, put, read, text};
use crate::rc;
use crate::server::{Level, Process, process, with_session};
use crate::session::{Session, current_password, management_class};
use crate::store::Filespace;

/// The name that the server gives itself.
const SERVER: &str = "TSM-SIM";

/// # Safety
/// Null, or pointing to the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmQueryApiVersion(version: *mut sys::dsmApiVersion) {
    let [v, r, l, _] = process().level();
    if !version.is_null() {
        // SAFETY: the caller's promise.
        unsafe { version.write(sys::dsmApiVersion { version: v, release: r, level: l }) };
    }
}

/// # Safety
/// Null, or pointing to the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmQueryApiVersionEx(version: *mut sys::dsmApiVersionEx) {
    let level = process().level();
    if version.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*version).version = level[0];
        (*version).release = level[1];
        (*version).level = level[2];
        (*version).subLevel = level[3];
        (*version).unicode = 0;
    }
}

/// # Safety
/// Null, or pointing to the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmSetUp(
    multi_thread: sys::dsmBool_t,
    environment: *mut sys::envSetUp,
) -> i16 {
    let mut process = process();
    if process.multi_thread.is_some() || process.cleaned_up || !process.sessions.is_empty() {
        return rc::BAD_CALL_SEQUENCE;
    }
    // SAFETY: the caller's promise.
    let directory = match unsafe { read(environment, rc::OK) } {
        Ok(environment) => match fixed(&environment.dsmiDir, rc::STRING_TOO_LONG) {
            Ok(directory) if directory.is_empty() => None,
            Ok(directory) => Some(PathBuf::from(OsStr::from_bytes(&directory))),
            Err(code) => return code,
        },
        Err(_) => None,
    };
    if let Err(code) = process.choose(directory) {
        return code;
    }
    match process.enter(None, "dsmSetUp").map(|verdict| verdict.fault) {
        Err(code) => code,
        Ok(Some(fault)) => fault.code as i16,
        Ok(None) => {
            process.multi_thread = Some(multi_thread != 0);
            rc::OK
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmCleanUp(_multi_thread: sys::dsmBool_t) -> i16 {
    let mut process = process();
    if !process.sessions.is_empty() || process.cleaned_up {
        return rc::BAD_CALL_SEQUENCE;
    }
    process.cleaned_up = true;
    rc::OK
}

/// What a sign-on says, out of C.
struct Request {
    node: String,
    owner: Vec<u8>,
    password: Vec<u8>,
    server: Option<String>,
}

impl Request {
    /// # Safety
    /// Null, or pointing to the structure with strings or nulls in it.
    unsafe fn new(raw: *const sys::dsmInitExIn_t, level: Level) -> Result<Self, i16> {
        let newest = if level >= [8, 1, 0, 0] { 5 } else { 4 };
        // SAFETY: only this member, which every version has, is looked at before it is known
        // that the caller's structure is not shorter.
        let version = unsafe { read(raw.cast::<u16>(), rc::INVALID_PARAMETER)? };
        if version == 0 || version > newest {
            return Err(rc::WRONG_VERSION_PARM);
        }
        // SAFETY: all members that are read are in every version.
        unsafe {
            let api = read((*raw).apiVersionExP, rc::INVALID_PARAMETER)?;
            if [api.version, api.release, api.level, api.subLevel] > level {
                return Err(rc::WRONG_VERSION);
            }
            let node = text((*raw).clientNodeNameP).unwrap_or_else(|| {
                process().text("", "node-name").unwrap_or_default().into_bytes()
            });
            let owner = text((*raw).clientOwnerNameP).unwrap_or_default();
            let password = text((*raw).clientPasswordP).unwrap_or_default();
            let options = text((*raw).options).unwrap_or_default();
            if password.len() > sys::ID_BYTES_MAX {
                return Err(rc::PASSWD_TOOLONG);
            }
            let node = String::from_utf8(node).map_err(|_| rc::REJECT_ID_UNKNOWN)?;
            // The node is a file's name here.
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+&".contains(&byte);
            let plain = node.bytes().enumerate().all(|(i, b)| known(b) || (i > 0 && b == b'.'));
            if node.is_empty() || !plain {
                return Err(rc::REJECT_ID_UNKNOWN);
            }
            let options = String::from_utf8_lossy(&options).into_owned();
            let server = options.split_ascii_whitespace().find_map(|word| {
                let (key, value) = word.split_once('=')?;
                let key = key.strip_prefix('-')?.to_ascii_lowercase();
                (key.len() > 1 && "servername".starts_with(&key)).then(|| value.to_owned())
            });
            Ok(Self { node: node.to_ascii_uppercase(), owner, password, server })
        }
    }

    fn sign_on(self) -> Result<(u32, u16), i16> {
        // The library lets one sign-on in at a time, however long the server takes.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let (store, verdict) = {
            let mut process = process();
            if process.cleaned_up {
                return Err(rc::BAD_CALL_SEQUENCE);
            }
            if process.multi_thread != Some(true) && !process.sessions.is_empty() {
                return Err(rc::BAD_CALL_SEQUENCE);
            }
            (process.store()?, process.enter(Some(&self.node), "dsmInitEx")?)
        };
        let _waiting = ONE_AT_A_TIME.lock();
        std::thread::sleep(verdict.delay);
        if let Some(fault) = verdict.fault {
            return Err(fault.code as i16);
        }
        let password = current_password(&store, &self.node).ok_or(rc::REJECT_ID_UNKNOWN)?;
        let changed = process().password(&self.node).is_some_and(|first| first != password);
        let process_now = process();
        if self.server.is_some_and(|server| !process_now.knows_server(&server)) {
            return Err(rc::INVALID_SERVER);
        }
        if process_now.switch(&self.node, "locked", false) {
            return Err(rc::REJECT_ID_LOCKED);
        }
        if password != self.password && !uses_stored_password(&process_now, &self.node) {
            return Err(rc::AUTH_FAILURE);
        }
        if process_now.uses_of(&self.node).0
            >= process_now.number(&self.node, "max-sessions", u64::MAX)
        {
            return Err(rc::REJECT_NO_RESOURCES);
        }
        let expired = process_now.switch(&self.node, "password-expired", false) && !changed;
        let notice = process_now.number(&self.node, "notice", 0) as u16;
        drop(process_now);
        let session = Session::new(self.node.clone(), self.owner, store, expired);
        let mut process = process();
        let handle = process.add(&self.node, session);
        if let Some(session) = process.sessions.get(&handle)
            && let Ok(mut session) = session.lock()
        {
            session.signed_on(handle, SERVER);
        }
        let answer = if expired { rc::REJECT_VERIFIER_EXPIRED.cast_unsigned() } else { notice };
        Ok((handle, answer))
    }
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmInitEx(
    handle: *mut sys::Handle,
    request: *mut sys::dsmInitExIn_t,
    answer: *mut sys::dsmInitExOut_t,
) -> i16 {
    if handle.is_null() || answer.is_null() {
        return rc::INVALID_PARAMETER;
    }
    let level = process().level();
    // SAFETY: the caller's promise.
    let signed_on = unsafe { Request::new(request, level) }.and_then(Request::sign_on);
    let (number, info) = match signed_on {
        Ok(signed_on) => signed_on,
        Err(code) => return code,
    };
    // SAFETY: neither is null; members of the first 80 bytes are in every version.
    unsafe {
        *handle = number;
        (*answer).userNameAuthorities = 0;
        (*answer).infoRC = info.cast_signed();
        put(&raw mut (*answer).adsmServerName, SERVER.as_bytes());
        (*answer).serverVer = level[0];
        (*answer).serverRel = level[1];
        (*answer).serverLev = level[2];
        (*answer).serverSubLev = level[3];
        if (*answer).stVersion >= 3 {
            (*answer).bIsFailOverMode = 0;
            put(&raw mut (*answer).homeServerName, SERVER.as_bytes());
        }
    }
    if info == rc::REJECT_VERIFIER_EXPIRED.cast_unsigned() { info.cast_signed() } else { rc::OK }
}

#[unsafe(no_mangle)]
pub extern "C" fn dsmTerminate(handle: sys::Handle) -> i16 {
    let mut process = process();
    process.uses.remove(&handle);
    let session = process.sessions.remove(&handle);
    drop(process);
    match session {
        // Dropping it aborts what it was doing.
        Some(_) => rc::OK,
        None => rc::INVALID_DS_HANDLE,
    }
}

/// # Safety
/// Null, or C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmChangePW(
    handle: sys::Handle,
    old: *mut c_char,
    new: *mut c_char,
) -> i16 {
    // SAFETY: the caller's promise.
    let (Some(old), Some(new)) = (unsafe { text(old) }, unsafe { text(new) }) else {
        return rc::INVALID_PARAMETER;
    };
    if new.is_empty() || new.len() > sys::ID_BYTES_MAX {
        return rc::PASSWD_TOOLONG;
    }
    with_session(handle, "dsmChangePW", |session| code(session.change_password(&old, &new)))
}

/// # Safety
/// Null, or pointing to a structure as long as its version says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmQuerySessInfo(handle: sys::Handle, info: *mut sys::ApiSessInfo) -> i16 {
    with_session(handle, "dsmQuerySessInfo", |session| {
        if info.is_null() {
            return rc::INVALID_PARAMETER;
        }
        let mut answer = sys::ApiSessInfo::zeroed();
        let (level, objects, bytes, may_delete) = {
            let mut process = process();
            let node = &session.node;
            (
                process.level(),
                process.number(node, "max-objects", 4096),
                process.number(node, "max-bytes", 25_600 * 1024),
                process.switch(node, "archive-delete", true),
            )
        };
        let [ver, rel, lev, sub] = level;
        answer.serverPort = 1500;
        (answer.serverVer, answer.serverRel) = (ver, rel);
        (answer.serverLev, answer.serverSubLev) = (lev, sub);
        (answer.fsdelim, answer.hldelim) = (b'/', b'/');
        answer.compression = 2;
        answer.archDel = if may_delete { sys::MAY_DELETE } else { sys::MAY_NOT_DELETE };
        answer.backDel = sys::MAY_NOT_DELETE;
        answer.maxBytesPerTxn = u32::try_from(bytes).unwrap_or(u32::MAX);
        answer.maxBytesPerTxn_64 = sys::dsStruct64_t::new(bytes);
        answer.maxObjPerTxn = u16::try_from(objects).unwrap_or(u16::MAX);
        // SAFETY: arrays of a local structure.
        unsafe {
            put(&raw mut answer.serverHost, b"localhost");
            put(&raw mut answer.serverType, b"directory");
            put(&raw mut answer.nodeType, b"GNU/Linux");
            put(&raw mut answer.id, session.node.as_bytes());
            put(&raw mut answer.owner, &session.owner);
            put(&raw mut answer.domainName, b"STANDARD");
            put(&raw mut answer.policySetName, b"STANDARD");
            put(&raw mut answer.dfltMCName, management_class(&session.node).as_bytes());
            put(&raw mut answer.adsmServerName, session.server.as_bytes());
            put(&raw mut answer.homeServerName, session.server.as_bytes());
        }
        // SAFETY: every version begins with its number.
        let version = unsafe { (*info).stVersion };
        if version > 6 {
            return rc::WRONG_VERSION_PARM;
        }
        answer.stVersion = version;
        let bytes = if version == 6 { size_of::<sys::ApiSessInfo>() } else { 1824 };
        // SAFETY: the caller's structure has this many bytes in this version.
        unsafe {
            std::ptr::copy_nonoverlapping((&raw const answer).cast::<u8>(), info.cast(), bytes);
        }
        rc::OK
    })
}

fn uses_stored_password(process: &Process, node: &str) -> bool {
    process.text(node, "password-access").as_deref() == Some("generate")
}

fn options(node: &str, server: &str) -> sys::optStruct {
    let mut answer = sys::optStruct::zeroed();
    answer.commMethod = 1;
    // SAFETY: arrays of a local structure.
    unsafe {
        put(&raw mut answer.serverName, server.as_bytes());
        put(&raw mut answer.serverAddress, b"localhost");
        put(&raw mut answer.nodeName, node.as_bytes());
    }
    answer
}

/// # Safety
/// Null, or pointing to the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmQuerySessOptions(
    handle: sys::Handle,
    answer: *mut sys::optStruct,
) -> i16 {
    with_session(handle, "dsmQuerySessOptions", |session| {
        if answer.is_null() {
            return rc::INVALID_PARAMETER;
        }
        let mut options = options(&session.node, &session.server);
        options.passwordAccess = uses_stored_password(&process(), &session.node).into();
        // SAFETY: the caller's promise.
        unsafe { answer.write(options) };
        rc::OK
    })
}

/// # Safety
/// Null, or pointing to the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmQueryCliOptions(answer: *mut sys::optStruct) -> i16 {
    if answer.is_null() {
        return rc::INVALID_PARAMETER;
    }
    if !process().sessions.is_empty() {
        return rc::BAD_CALL_SEQUENCE;
    }
    // SAFETY: the caller's promise.
    unsafe { answer.write(options("", SERVER)) };
    rc::OK
}

/// Attributes of a filespace out of their C form.
fn fs_info(attributes: &sys::dsmFSAttr) -> Result<Vec<u8>, i16> {
    // SAFETY: all members are plain bytes; on UNIX this is the one that is set.
    let unix = unsafe { attributes.unixFSAttr };
    let length = usize::from(unix.fsInfoLength);
    if length > sys::FSINFO_BYTES_MAX {
        return Err(rc::FSINFO_TOOLONG);
    }
    Ok(unix.fsInfo[..length].to_vec())
}

fn check_fs(name: Option<Vec<u8>>) -> Result<Vec<u8>, i16> {
    let name = name.ok_or(rc::NULL_FSNAME)?;
    match name.first() {
        Some(b'/') if name.len() <= sys::FSNAME_BYTES_MAX => Ok(name),
        Some(b'/') => Err(rc::FILESPACE_TOOLONG),
        _ => Err(rc::INVALID_FSNAME),
    }
}

/// # Safety
/// Null, or pointing to the structure with C strings or nulls in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmRegisterFS(handle: sys::Handle, fs: *mut sys::regFSData) -> i16 {
    // SAFETY: the caller's promise.
    let request = unsafe { read(fs, rc::INVALID_PARAMETER) }.and_then(|raw| {
        if raw.stVersion != 1 {
            return Err(rc::WRONG_VERSION_PARM);
        }
        // SAFETY: the caller's promise.
        let (name, fs_type) = unsafe { (text(raw.fsName), text(raw.fsType)) };
        let fs_type = fs_type.unwrap_or_default();
        if fs_type.len() > sys::FSTYPE_BYTES_MAX {
            return Err(rc::STRING_TOO_LONG);
        }
        let filespace = Filespace {
            fs_type: [b"API:", &fs_type[..]].concat(),
            info: fs_info(&raw.fsAttr)?,
            occupancy: raw.occupancy.value(),
            capacity: raw.capacity.value(),
        };
        Ok((check_fs(name)?, filespace))
    });
    with_session(handle, "dsmRegisterFS", |session| {
        code(request.and_then(|(fs, filespace)| session.register(fs, filespace)))
    })
}

/// # Safety
/// Null, or pointing to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmUpdateFS(
    handle: sys::Handle,
    fs: *mut c_char,
    update: *mut sys::dsmFSUpd,
    mask: u32,
) -> i16 {
    // SAFETY: the caller's promise.
    let request = unsafe { read(update, rc::INVALID_PARAMETER) }.and_then(|raw| {
        // SAFETY: the caller's promise.
        let (name, fs_type) = unsafe { (text(fs), text(raw.fsType)) };
        Ok((check_fs(name)?, raw, fs_type, fs_info(&raw.fsAttr)?))
    });
    with_session(handle, "dsmUpdateFS", |session| {
        code(request.and_then(|(fs, raw, fs_type, info)| {
            session.update_filespace(fs, |filespace| {
                if let (true, Some(fs_type)) = (mask & 0x02 != 0, fs_type) {
                    filespace.fs_type = [b"API:", &fs_type[..]].concat();
                }
                if mask & 0x04 != 0 {
                    filespace.info = info;
                }
                if mask & 0x20 != 0 {
                    filespace.occupancy = raw.occupancy.value();
                }
                if mask & 0x40 != 0 {
                    filespace.capacity = raw.capacity.value();
                }
            })
        }))
    })
}

/// # Safety
/// Null, or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmDeleteFS(handle: sys::Handle, fs: *mut c_char, repository: u8) -> i16 {
    // SAFETY: the caller's promise.
    let name = check_fs(unsafe { text(fs) });
    with_session(handle, "dsmDeleteFS", |session| {
        if !matches!(repository, sys::REPOSITORY_ARCHIVE | sys::REPOSITORY_ALL) {
            return rc::INVALID_REPOS;
        }
        code(name.and_then(|name| session.drop_filespace(name)))
    })
}

/// # Safety
/// Null, or a buffer of at least 1025 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dsmRCMsg(_handle: sys::Handle, code: i16, message: *mut c_char) -> i16 {
    if message.is_null() {
        return rc::NULL_MSG;
    }
    let known = ReturnCode(code);
    let listed = known.name().starts_with("DSM_");
    let letter = if matches!(code, 0 | 121 | 2200) { 'I' } else { 'E' };
    // Never empty: ltsm cuts the last character off unseen.
    let text = format!("ANS0000{letter} (RC{code})   {}.", known.text());
    // SAFETY: the caller's promise; the longest text is far shorter than the buffer.
    unsafe { put(message.cast::<[u8; sys::MESSAGE_BYTES]>(), text.as_bytes()) };
    if listed { rc::OK } else { rc::INVALID_RETCODE }
}
