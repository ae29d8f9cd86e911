//! The process's side of the server: set-up, open sessions, and the control files.
//!
//! Invariant: every exported call passes through [`Process::enter`] or [`with_session`], which
//! refuse unknown handles and calls of two threads in one session, and apply the script.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use sim_control::{ControlFile, Fault, Verdict};

use crate::rc;
use crate::session::Session;
use crate::store::Store;

/// Keys of the control files; node files may override all of them but the first three.
const KEYS: &[&str] = &[
    "api-level",
    "server",
    "node-name",
    "password",
    "password-expired",
    "password-access",
    "locked",
    "notice",
    "archive-delete",
    "archive-copy-group",
    "management-class",
    "max-sessions",
    "max-mount-points",
    "max-objects",
    "max-bytes",
    "max-object-bytes",
    "capacity-bytes",
];

/// Version of the library that it pretends to be.
pub(crate) type Level = [u16; 4];

/// What the process shares.
pub(crate) struct Process {
    pub(crate) multi_thread: Option<bool>,
    pub(crate) cleaned_up: bool,
    directory: Option<PathBuf>,
    store: Option<Arc<Store>>,
    control: Option<ControlFile>,
    nodes: BTreeMap<String, ControlFile>,
    pub(crate) sessions: BTreeMap<u32, Arc<Mutex<Session>>>,
    /// Node of each session, and whether it holds a mount point.
    pub(crate) uses: BTreeMap<u32, (String, bool)>,
    last_handle: u32,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    multi_thread: None,
    cleaned_up: false,
    directory: None,
    store: None,
    control: None,
    nodes: BTreeMap::new(),
    sessions: BTreeMap::new(),
    uses: BTreeMap::new(),
    last_handle: 0,
});

/// The process's state.
pub(crate) fn process() -> MutexGuard<'static, Process> {
    // Every change to it is a single step; a panic elsewhere leaves it whole.
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message for who runs the test; there is no other way out of a C interface.
pub(crate) fn complain(text: &dyn std::fmt::Display) {
    eprintln!("sim-tsm: {text}");
}

impl Process {
    /// Chooses the server's directory: the one of the set-up, else that of the environment.
    pub(crate) fn choose(&mut self, directory: Option<PathBuf>) -> Result<(), i16> {
        let named = || {
            let value = std::env::var_os("TSM_SIM_DIR").filter(|v: &OsString| !v.is_empty());
            value.map(PathBuf::from)
        };
        let Some(directory) = directory.or_else(named) else {
            complain(&"neither the set-up's dsmiDir nor TSM_SIM_DIR names a directory");
            return Err(rc::NO_OPT_FILE);
        };
        let store = Store::open(&directory).map_err(|error| {
            complain(&format_args!("{}: {error}", directory.display()));
            rc::NO_OPT_FILE
        })?;
        self.store = Some(Arc::new(store));
        self.control = Some(ControlFile::new(directory.join("control"), KEYS));
        self.directory = Some(directory);
        Ok(())
    }

    /// The store, chosen from the environment if there was no set-up.
    pub(crate) fn store(&mut self) -> Result<Arc<Store>, i16> {
        if self.store.is_none() {
            self.choose(None)?;
        }
        self.store.clone().ok_or(rc::NO_OPT_FILE)
    }

    /// Reads the control files that have changed and judges a call of this node.
    pub(crate) fn enter(&mut self, node: Option<&str>, call: &str) -> Result<Verdict, i16> {
        self.store()?;
        let directory = self.directory.clone().unwrap_or_default();
        let broken = |error| {
            complain(&error);
            rc::INVALID_KEYWORD
        };
        let mut verdict = Verdict::default();
        if let Some(control) = &mut self.control {
            control.refresh().map_err(broken)?;
            verdict = control.judge(call);
        }
        if let Some(node) = node {
            let file = self
                .nodes
                .entry(node.to_owned())
                .or_insert_with(|| ControlFile::new(directory.join("nodes").join(node), KEYS));
            file.refresh().map_err(broken)?;
            let own = file.judge(call);
            verdict.delay += own.delay;
            verdict.fault = own.fault.or(verdict.fault);
        }
        Ok(verdict)
    }

    fn setting<T>(&self, node: &str, read: impl Fn(&ControlFile) -> Option<T>) -> Option<T> {
        self.nodes.get(node).and_then(&read).or_else(|| self.control.as_ref().and_then(&read))
    }

    pub(crate) fn number(&self, node: &str, key: &str, default: u64) -> u64 {
        self.setting(node, |file| file.number(key)).unwrap_or(default)
    }

    pub(crate) fn switch(&self, node: &str, key: &str, default: bool) -> bool {
        self.setting(node, |file| file.switch(key)).unwrap_or(default)
    }

    pub(crate) fn text(&self, node: &str, key: &str) -> Option<String> {
        self.setting(node, |file| file.text(key).map(str::to_owned))
    }

    /// The password in the node's own file; a node without one is not registered.
    pub(crate) fn password(&self, node: &str) -> Option<Vec<u8>> {
        Some(self.nodes.get(node)?.text("password")?.as_bytes().to_vec())
    }

    /// Whether a server of this name is known; without any named one, all are.
    pub(crate) fn knows_server(&self, name: &str) -> bool {
        let known = self.control.as_ref().map_or(&[][..], |control| control.all("server"));
        known.is_empty() || known.iter().any(|words| words.first().is_some_and(|w| w == name))
    }

    /// May be asked before the set-up; then only the environment can tell where to look.
    pub(crate) fn level(&mut self) -> Level {
        if self.store.is_none() && std::env::var_os("TSM_SIM_DIR").is_some() {
            // A failure is told by the set-up.
            let _ = self.choose(None);
        }
        if let Some(control) = &mut self.control
            && control.refresh().is_ok()
            && let Some(text) = control.text("api-level")
        {
            let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
            return std::array::from_fn(|_| parts.next().unwrap_or(0));
        }
        [8, 1, 13, 0]
    }

    pub(crate) fn add(&mut self, node: &str, session: Session) -> u32 {
        self.last_handle += 1;
        let handle = self.last_handle;
        self.sessions.insert(handle, Arc::new(Mutex::new(session)));
        self.uses.insert(handle, (node.to_owned(), false));
        handle
    }

    /// Sessions of a node, and how many of them hold a mount point.
    pub(crate) fn uses_of(&self, node: &str) -> (u64, u64) {
        let uses = self.uses.values().filter(|(user, _)| user == node);
        uses.fold((0, 0), |(all, mounted), (_, mounts)| (all + 1, mounted + u64::from(*mounts)))
    }
}

/// Runs a call inside a session, as the script has it.
pub(crate) fn with_session(
    handle: u32,
    call: &'static str,
    work: impl FnOnce(&mut Session) -> i16,
) -> i16 {
    with_session_and_fault(handle, call, |session, fault| match fault {
        Some(Fault { after: false, code, .. }) => code as i16,
        Some(Fault { after: true, code, .. }) => {
            work(session);
            code as i16
        }
        None => work(session),
    })
}

/// The same for calls that fail in a way of their own.
pub(crate) fn with_session_and_fault(
    handle: u32,
    call: &'static str,
    work: impl FnOnce(&mut Session, Option<Fault>) -> i16,
) -> i16 {
    let (session, verdict) = {
        let mut process = process();
        let Some(session) = process.sessions.get(&handle).cloned() else {
            return rc::INVALID_DS_HANDLE;
        };
        let node = process.uses.get(&handle).map(|(node, _)| node.clone());
        match process.enter(node.as_deref(), call) {
            Ok(verdict) => (session, verdict),
            Err(code) => return code,
        }
    };
    let mut session = match session.try_lock() {
        Ok(session) => session,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            complain(&format_args!("{call}: two threads in session {handle}"));
            return rc::BAD_CALL_SEQUENCE;
        }
    };
    if !verdict.delay.is_zero() {
        std::thread::sleep(verdict.delay);
    }
    work(&mut session, verdict.fault)
}
