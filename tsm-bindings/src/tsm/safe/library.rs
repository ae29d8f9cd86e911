//! The library as a whole: found and started once, then the source of sessions.

use std::ffi::c_char;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::session::Session;
use super::{Error, check_length, check_word};
use crate::Zeroed;
use crate::abi::{LoadError, Loaded, Wanted, c_string, put_c_string};
use crate::tsm::rc::ReturnCode;
use crate::tsm::result::{CallError, Calls, Level, Version};
use crate::tsm::sys;

const WANTED: Wanted = Wanted {
    what: "the TSM client library",
    env: "FSQD_TSM_LIBRARY",
    candidates: &["libApiTSM64.so", "/opt/tivoli/tsm/client/api/bin64/libApiTSM64.so"],
    advice: "install the package TIVsm-API64 (tivsm-api64)",
};

/// How `dsmInitEx` is told who calls; sites see it in the server's list of nodes.
const APPLICATION: &std::ffi::CStr = c"GNU/Linux";

/// Where the library and its files are; nothing set means: as the library finds them itself.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The library's file, instead of the usual places and the environment's `FSQD_TSM_LIBRARY`.
    pub library: Option<PathBuf>,
    /// Directory with `dsm.sys` and the message catalog.
    pub directory: Option<PathBuf>,
    /// The file `dsm.opt`.
    pub config: Option<PathBuf>,
    /// Directory for the error log.
    pub log: Option<PathBuf>,
}

/// Why the library could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// It is not there.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It is older than 6.3.
    #[error("{}: TSM client library {version} is too old, 6.3 or later is needed", .path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// A path cannot be given to it.
    #[error("{what} of the TSM client: {} is longer than the library takes", .path.display())]
    Path {
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// It refuses its configuration.
    #[error("the TSM client library does not start: {0}")]
    SetUp(CallError),
}

/// Who signs on, and where.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Who.
    pub credentials: Credentials<'a>,
    /// Stanza of `dsm.sys`; the default one where none is named.
    pub server: Option<&'a str>,
}

/// By what a node proves that it is itself.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// By the password given (`PASSWORDACCESS PROMPT`).
    Password {
        /// Node name.
        node: &'a str,
        /// Its password.
        password: &'a [u8],
    },
    /// By the one that the library has stored (`PASSWORDACCESS GENERATE`), for the node of the
    /// stanza unless it is named.
    Stored {
        /// Node name.
        node: Option<&'a str>,
    },
}

impl std::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { node, .. } => write!(f, "password of {node:?}"),
            Self::Stored { node } => write!(f, "stored password of {node:?}"),
        }
    }
}

#[derive(Debug, Default)]
struct Doors {
    sessions: usize,
    cleaned_up: bool,
}

/// The library, loaded and started.
pub struct Tsm {
    pub(super) calls: Calls,
    version: Version,
    path: PathBuf,
    doors: Mutex<Doors>,
    /// The library lets one sign-on in at a time; waiting here costs nothing of it.
    sign_on: Mutex<()>,
}

static STARTED: Mutex<Option<&'static Tsm>> = Mutex::new(None);

impl Tsm {
    /// Loads and starts the library, once per process; later calls return the same. It is never
    /// unloaded. Call it from the main thread before there are others: it sets the process's
    /// locale from the environment, in which the library reads names, and the library may read
    /// the environment.
    ///
    /// # Errors
    /// There is no such library, it is too old, it does not like its configuration, or another
    /// file was loaded before.
    pub fn start(start: &Start) -> Result<&'static Self, StartError> {
        let mut started = lock(&STARTED);
        if let Some(tsm) = *started {
            return match &start.library {
                Some(wanted) if *wanted != tsm.path => Err(StartError::Load(LoadError::Loaded {
                    what: WANTED.what,
                    loaded: tsm.path.clone(),
                    wanted: wanted.clone(),
                })),
                _ => Ok(tsm),
            };
        }
        let tsm = Self::load(start)?;
        Ok(started.insert(Box::leak(Box::new(tsm))))
    }

    fn load(start: &Start) -> Result<Self, StartError> {
        let mut environment = environment(start)?;
        // SAFETY: the operator names this file as the TSM client library.
        let library = unsafe { Loaded::open(&WANTED, start.library.as_deref())? };
        // SAFETY: the signatures are those of the vendor's interface, the same since 6.3.
        let symbols = unsafe { sys::Symbols::resolve(&library)? };
        let path = library.path().to_path_buf();
        // SAFETY: the string is static; no thread of this program depends on the locale.
        unsafe { libc::setlocale(libc::LC_ALL, c"".as_ptr()) };
        let version = ask_version(&symbols);
        let Some(level) = Level::of(version) else {
            return Err(StartError::TooOld { path, version });
        };
        let calls = Calls::new(symbols, level);
        // SAFETY: first call after the load, under the lock of STARTED; there are no sessions.
        unsafe { calls.set_up(environment.as_deref_mut()) }.map_err(StartError::SetUp)?;
        let (doors, sign_on) = (Mutex::default(), Mutex::default());
        Ok(Self { calls, version, path, doors, sign_on })
    }

    /// Version of the library.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file that was loaded.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a session. Takes a fraction of a second, one at a time in the whole process; keep
    /// sessions, and never call this once per file.
    ///
    /// # Errors
    /// The server refuses ([`ReturnCode::AUTH_FAILURE`] and others), cannot be reached, or an
    /// argument cannot be what it claims to be.
    pub fn sign_on(&'static self, login: &Login<'_>) -> Result<Session, Error> {
        let mut words = Words::new(login)?;
        self.enter()?;
        let signed_on = {
            let _one_at_a_time = lock(&self.sign_on);
            self.init(&mut words)
        };
        signed_on.map_err(Error::from).inspect_err(|_| self.leave())
    }

    fn init(&'static self, words: &mut Words) -> Result<Session, CallError> {
        let level = self.calls.level();
        let mut version = raw_version(self.version);
        let mut application = application_version();
        let mut request = sys::dsmInitExIn_t::zeroed();
        request.stVersion = level.init_in;
        request.apiVersionExP = &raw mut version;
        request.clientNodeNameP = pointer(&mut words.node);
        request.clientOwnerNameP = pointer(&mut words.owner);
        request.clientPasswordP = pointer(&mut words.password);
        request.applicationTypeP = APPLICATION.as_ptr().cast_mut();
        request.options = pointer(&mut words.options);
        if level == Level::V8 {
            request.appVersionP = &raw mut application;
        }
        let mut answer = Box::new(sys::dsmInitExOut_t::zeroed());
        answer.stVersion = level.init_out;
        // SAFETY: every pointer of the request is null or a C string or structure that lives to
        // the end of this function; no other thread knows the new handle.
        let handle = unsafe { self.calls.init(&mut request, &mut answer)? };
        let server = String::from_utf8_lossy(c_string(&answer.adsmServerName)).into_owned();
        let notice = Some(ReturnCode(answer.infoRC)).filter(|&code| code != ReturnCode::OK);
        Ok(Session::new(self, handle, server, notice))
    }

    /// Whether the password is that of the node: signs on and off again.
    ///
    /// # Errors
    /// It is not ([`ReturnCode::AUTH_FAILURE`]), or there is no telling: the server cannot be
    /// reached, or the stanza stores passwords, so that whatever is given would be accepted.
    pub fn check_password(
        &'static self,
        node: &str,
        password: &[u8],
        server: Option<&str>,
    ) -> Result<(), Error> {
        let credentials = Credentials::Password { node, password };
        let mut session = self.sign_on(&Login { credentials, server })?;
        if session.has_stored_password()? { Err(Error::PasswordNotChecked) } else { Ok(()) }
    }

    /// Closes the library down at the end of the process; it cannot be started again.
    ///
    /// # Errors
    /// Sessions are still open, or the library objects.
    pub fn clean_up(&self) -> Result<(), Error> {
        let mut doors = lock(&self.doors);
        if doors.sessions > 0 {
            return Err(Error::SessionsOpen { sessions: doors.sessions });
        }
        if doors.cleaned_up {
            return Ok(());
        }
        doors.cleaned_up = true;
        // SAFETY: no session is left, and `enter` lets no new one in.
        unsafe { self.calls.clean_up() }.map_err(Error::from)
    }

    fn enter(&self) -> Result<(), Error> {
        let mut doors = lock(&self.doors);
        if doors.cleaned_up {
            return Err(Error::CleanedUp);
        }
        doors.sessions += 1;
        Ok(())
    }

    pub(super) fn leave(&self) {
        lock(&self.doors).sessions -= 1;
    }
}

impl std::fmt::Debug for Tsm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tsm({} {})", self.path.display(), self.version)
    }
}

/// What these locks guard is changed in single steps; a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask_version(symbols: &sys::Symbols) -> Version {
    let mut raw = sys::dsmApiVersionEx::zeroed();
    raw.stVersion = 2;
    // SAFETY: fills the structure it is given; may be called at any time.
    unsafe { (symbols.dsmQueryApiVersionEx)(&mut raw) };
    Version { version: raw.version, release: raw.release, level: raw.level, sublevel: raw.subLevel }
}

/// The library refuses callers newer than itself, so it is told its own version.
fn raw_version(version: Version) -> sys::dsmApiVersionEx {
    let mut raw = sys::dsmApiVersionEx::zeroed();
    raw.stVersion = 2;
    raw.version = version.version;
    raw.release = version.release;
    raw.level = version.level;
    raw.subLevel = version.sublevel;
    raw
}

fn application_version() -> sys::dsmAppVersion {
    let part = |text: &str| text.parse().unwrap_or(0);
    sys::dsmAppVersion {
        stVersion: 1,
        applicationVersion: part(env!("CARGO_PKG_VERSION_MAJOR")),
        applicationRelease: part(env!("CARGO_PKG_VERSION_MINOR")),
        applicationLevel: part(env!("CARGO_PKG_VERSION_PATCH")),
        applicationSubLevel: 0,
    }
}

fn environment(start: &Start) -> Result<Option<Box<sys::envSetUp>>, StartError> {
    let Start { directory, config, log, .. } = start;
    if directory.is_none() && config.is_none() && log.is_none() {
        return Ok(None);
    }
    let mut raw = Box::new(sys::envSetUp::zeroed());
    raw.stVersion = 4;
    for (what, path, array) in [
        ("directory", directory, &mut raw.dsmiDir),
        ("options file", config, &mut raw.dsmiConfig),
        ("log directory", log, &mut raw.dsmiLog),
    ] {
        let Some(path) = path else { continue };
        if !put_c_string(array, path.as_os_str().as_bytes()) {
            return Err(StartError::Path { what, path: path.clone() });
        }
    }
    Ok(Some(raw))
}

/// The strings of a sign-on, writable as the interface's types demand.
struct Words {
    node: Option<Vec<u8>>,
    owner: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
    options: Option<Vec<u8>>,
}

impl Words {
    fn new(login: &Login<'_>) -> Result<Self, Error> {
        let (node, password) = match login.credentials {
            Credentials::Password { node, password } => (Some(node), Some(password)),
            Credentials::Stored { node } => (node, None),
        };
        if let Some(node) = node {
            check_word("node name", node, sys::ID_BYTES_MAX)?;
        }
        if let Some(password) = password {
            check_length("password", password.len(), sys::ID_BYTES_MAX)?;
            if password.is_empty() || password.contains(&0) {
                return Err(Error::Invalid { what: "password" });
            }
        }
        let options = login.server.map(|server| {
            check_word("server name", server, sys::ID_BYTES_MAX)?;
            // In the option string a quote would begin another word.
            if server.contains(['"', '\'']) {
                return Err(Error::Invalid { what: "server name" });
            }
            Ok(format!("-se={server}\0").into_bytes())
        });
        Ok(Self {
            node: node.map(|node| c_bytes(node.as_bytes())),
            // Empty: the objects of all owners. With a stored password none may be named.
            owner: password.map(|_| vec![0]),
            password: password.map(c_bytes),
            options: options.transpose()?,
        })
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let Some(password) = &mut self.password {
            password.fill(0);
            // Without a reader the compiler may leave the fill out.
            std::hint::black_box(password);
        }
    }
}

fn c_bytes(bytes: &[u8]) -> Vec<u8> {
    // One allocation of the final size: no copy of a password is left behind by growth.
    let mut text = Vec::with_capacity(bytes.len() + 1);
    text.extend_from_slice(bytes);
    text.push(0);
    text
}

fn pointer(text: &mut Option<Vec<u8>>) -> *mut c_char {
    text.as_mut().map_or(std::ptr::null_mut(), |text| text.as_mut_ptr().cast())
}
