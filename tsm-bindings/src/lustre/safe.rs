//! Lustre without unsafe: where a path is, which file it is, and what its archive copy is worth.
//!
//! Invariant: a request always names whole files (an extent left at zero would archive nothing,
//! successfully), and at most as many as one request may hold.

use std::ffi::CString;
use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::layout::Layout;
use super::result::{CallError, Calls, LayoutCalls};
use super::sys;
use crate::Zeroed;
use crate::abi::{LoadError, Loaded, Wanted, c_string};

const WANTED: Wanted = Wanted {
    what: "the Lustre client library",
    env: "FSQD_LUSTRE_LIBRARY",
    candidates: &["liblustreapi.so.1", "liblustreapi.so"],
    advice: "install the Lustre client's user-space package (lustre-client)",
};

/// What a failed call means for who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The path is not in a Lustre file system.
    NotLustre,
    /// The file is not there any more.
    Gone,
    /// Not permitted: the coordinator's masks, the file's flags, or another archive id.
    Denied,
    /// Too many files in one request.
    TooMany,
    /// The file system or its coordinator is not able at present; try again later.
    Later,
    /// Anything else: the request is wrong.
    Other,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library said so.
    #[error("{}: {error}", .subject.display())]
    Call {
        /// What it was about.
        subject: PathBuf,
        /// The call.
        error: CallError,
    },
    /// The path cannot be given to the library.
    #[error("{}: not an absolute path without NUL bytes", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The library lacks functions that are needed for this and nothing else.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// More files than one request holds.
    #[error("{files} files are too many for one request, at most {max} are taken")]
    TooMany {
        /// How many.
        files: usize,
        /// The limit.
        max: usize,
    },
}

impl Error {
    /// What it means.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Call { error, .. } => cause(*error),
            Self::Path { .. } | Self::Load(_) => Cause::Other,
            Self::TooMany { .. } => Cause::TooMany,
        }
    }

    /// The errno behind it, where the library answered.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { error, .. } => Some(error.errno),
            _ => None,
        }
    }
}

/// `ENOTSUPP`, which some kernels let out.
const NOT_SUPPORTED_BY_KERNEL: i32 = 524;

fn cause(error: CallError) -> Cause {
    let searches =
        matches!(error.call, "llapi_search_mounts" | "llapi_search_fsname" | "llapi_hsm_request");
    match error.errno {
        // For the calls on an open file it means a lost connection instead.
        Errno::NODEV if searches => Cause::NotLustre,
        // Versions and builds of the library differ in which of these they return.
        Errno::NOTTY | Errno::OPNOTSUPP | Errno::NODATA => Cause::NotLustre,
        errno if errno.raw_os_error() == NOT_SUPPORTED_BY_KERNEL => Cause::NotLustre,
        Errno::NOENT | Errno::STALE => Cause::Gone,
        Errno::PERM | Errno::ACCESS => Cause::Denied,
        Errno::TOOBIG => Cause::TooMany,
        Errno::AGAIN
        | Errno::INTR
        | Errno::IO
        | Errno::NODEV
        | Errno::NOTCONN
        | Errno::SHUTDOWN
        | Errno::TIMEDOUT
        | Errno::INPROGRESS
        | Errno::BUSY
        | Errno::NOMEM
        | Errno::NOSPC
        | Errno::ROFS => Cause::Later,
        _ => Cause::Other,
    }
}

/// Identity of a file, the same on all clients and under all names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fid {
    /// Sequence.
    pub seq: u64,
    /// Object in the sequence.
    pub oid: u32,
    /// Version.
    pub ver: u32,
}

impl Fid {
    fn from_raw(raw: sys::lu_fid) -> Self {
        Self { seq: raw.f_seq, oid: raw.f_oid, ver: raw.f_ver }
    }

    fn to_raw(self) -> sys::lu_fid {
        sys::lu_fid { f_seq: self.seq, f_oid: self.oid, f_ver: self.ver }
    }
}

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}:{:#x}:{:#x}]", self.seq, self.oid, self.ver)
    }
}

/// The text is not a FID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form [0xSEQUENCE:0xOBJECT:0xVERSION]")]
pub struct FidError;

impl FromStr for Fid {
    type Err = FidError;

    /// Reads what `Display` writes; the brackets may be missing.
    fn from_str(text: &str) -> Result<Self, FidError> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let mut parts = inner.split(':').map(|part| {
            let digits = part.strip_prefix("0x").ok_or(FidError)?;
            // `from_str_radix` would take a sign.
            if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(FidError);
            }
            u64::from_str_radix(digits, 16).map_err(|_| FidError)
        });
        let mut next = || parts.next().ok_or(FidError)?;
        let (seq, oid, ver) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(FidError);
        }
        let word = |value: u64| u32::try_from(value).map_err(|_| FidError);
        Ok(Self { seq, oid: word(oid)?, ver: word(ver)? })
    }
}

/// A mounted Lustre file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub directory: PathBuf,
    /// Its name.
    pub fsname: String,
}

/// What HSM is asked to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Copy it to the archive.
    Archive,
    /// Copy it back.
    Restore,
    /// Free its space in the file system; done when the call returns.
    Release,
    /// Remove it from the archive.
    Remove,
    /// Forget a request that has not begun.
    Cancel,
}

impl Action {
    const fn code(self) -> u32 {
        match self {
            Self::Archive => sys::HUA_ARCHIVE,
            Self::Restore => sys::HUA_RESTORE,
            Self::Release => sys::HUA_RELEASE,
            Self::Remove => sys::HUA_REMOVE,
            Self::Cancel => sys::HUA_CANCEL,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        [Self::Archive, Self::Restore, Self::Release, Self::Remove, Self::Cancel]
            .into_iter()
            .find(|action| action.code() == code)
    }
}

/// What HSM knows of a file. New versions of Lustre add flags: ask for those that matter.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// Whether all of these `sys::HS_` bits are set.
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }

    /// Whether the archive holds a complete copy of the file as it is now.
    #[must_use]
    pub const fn is_archived(self) -> bool {
        self.has(sys::HS_ARCHIVED) && self.0 & (sys::HS_DIRTY | sys::HS_LOST) == 0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u32, &str); 7] = [
            (sys::HS_EXISTS, "exists"),
            (sys::HS_DIRTY, "dirty"),
            (sys::HS_RELEASED, "released"),
            (sys::HS_ARCHIVED, "archived"),
            (sys::HS_NORELEASE, "never-release"),
            (sys::HS_NOARCHIVE, "never-archive"),
            (sys::HS_LOST, "lost"),
        ];
        write!(f, "{:#x}", self.0)?;
        for (_, name) in NAMES.iter().filter(|(bit, _)| self.has(*bit)) {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

/// HSM state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// Flags.
    pub flags: Flags,
    /// Archive that has or gets the copy; 0 before the first one.
    pub archive_id: u32,
}

/// A request that a file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentAction {
    /// What it asks for, `None` for what this program does not know.
    pub action: Option<Action>,
    /// Whether a copytool has it, or else it waits.
    pub running: bool,
    /// Bytes moved so far.
    pub moved_bytes: u64,
}

/// The library, loaded.
pub struct Lustre {
    calls: Calls,
    /// Optional, because only who wants layouts needs them.
    layouts: Result<LayoutCalls, LoadError>,
    path: PathBuf,
}

static LOADED: Mutex<Option<&'static Lustre>> = Mutex::new(None);

impl Lustre {
    /// Most files in one [`Lustre::request`].
    pub const FILES_PER_REQUEST_MAX: usize = sys::FILES_PER_REQUEST_MAX;

    /// Loads the library, once per process; later calls return the same. It is never unloaded.
    /// `library` is its file, instead of the usual names and the environment's
    /// `FSQD_LUSTRE_LIBRARY`. Loading it seeds the C library's `random()` anew.
    ///
    /// # Errors
    /// There is no such library, or another file was loaded before.
    pub fn load(library: Option<&Path>) -> Result<&'static Self, LoadError> {
        // What it guards is set in one step; a panic elsewhere leaves it whole.
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lustre) = *loaded {
            return match library {
                Some(wanted) if *wanted != *lustre.path => Err(LoadError::Loaded {
                    what: WANTED.what,
                    loaded: lustre.path.clone(),
                    wanted: wanted.to_path_buf(),
                }),
                _ => Ok(lustre),
            };
        }
        // SAFETY: the operator names this file as the Lustre client library.
        let file = unsafe { Loaded::open(&WANTED, library)? };
        // SAFETY: the signatures are those of the library since 2.5.
        let symbols = unsafe { sys::Symbols::resolve(&file)? };
        // SAFETY: the signatures are those of the library since 2.7.
        let layouts = unsafe { sys::LayoutSymbols::resolve(&file) }.map(LayoutCalls::new);
        let path = file.path().to_path_buf();
        let lustre = Self { calls: Calls::new(symbols), layouts, path };
        Ok(loaded.insert(Box::leak(Box::new(lustre))))
    }

    /// The file that was loaded.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the library can give files layouts.
    ///
    /// # Errors
    /// It lacks functions for that, which are named.
    pub fn has_layouts(&self) -> Result<(), LoadError> {
        self.layouts.as_ref().map(drop).map_err(Clone::clone)
    }

    /// A layout for new files that says nothing yet.
    ///
    /// # Errors
    /// [`Self::has_layouts`], or no memory.
    pub fn new_layout(&'static self) -> Result<Layout, Error> {
        let calls = self.layouts.as_ref().map_err(|error| Error::Load(error.clone()))?;
        Layout::new(calls)
    }

    /// The mounted file system that an absolute path begins with. It is compared as text: resolve
    /// symlinks before.
    ///
    /// # Errors
    /// [`Cause::NotLustre`] and others.
    pub fn mount_of(&self, path: &Path) -> Result<Mount, Error> {
        let found = self.calls.search_mounts(&absolute(path)?);
        let (directory, fsname) = found.map_err(|error| about(path, error))?;
        let directory = std::ffi::OsString::from_vec(c_string(&directory[..]).to_vec());
        Ok(Mount { directory: directory.into(), fsname: lossy(&fsname[..]) })
    }

    /// Name of the file system that a file is in.
    ///
    /// # Errors
    /// [`Cause::NotLustre`] and others.
    pub fn fsname(&self, path: &Path) -> Result<String, Error> {
        let found = self.calls.search_fsname(&absolute(path)?);
        found.map(|name| lossy(&name[..])).map_err(|error| about(path, error))
    }

    /// Identity of the file at a path; a symlink is not followed.
    ///
    /// # Errors
    /// [`Cause::NotLustre`], [`Cause::Gone`] and others.
    pub fn fid(&self, path: &Path) -> Result<Fid, Error> {
        let found = self.calls.path2fid(&absolute(path)?);
        found.map(Fid::from_raw).map_err(|error| about(path, error))
    }

    /// Identity of an open file.
    ///
    /// # Errors
    /// [`Cause::NotLustre`] and others.
    pub fn fid_of(&self, file: impl AsFd) -> Result<Fid, Error> {
        let found = self.calls.fd2fid(file.as_fd());
        found.map(Fid::from_raw).map_err(|error| about(Path::new("open file"), error))
    }

    /// Asks HSM for something. Returns when the requests are in the queue, which survives
    /// restarts of the server. An `archive_id` of 0 means the file's former one or the default.
    ///
    /// Not all or nothing: after an error the files before the bad one are queued, and it is not
    /// told which that is. Nor does Lustre, since 2.14, notice that a file is queued already: look
    /// at [`Lustre::state`] and [`Lustre::current_action`] before asking again. A file to be
    /// archived must have its final name, no other one, and be closed for writing.
    ///
    /// # Errors
    /// More than [`Lustre::FILES_PER_REQUEST_MAX`] files, or the library's.
    pub fn request(
        &self,
        mount: &Path,
        action: Action,
        archive_id: u32,
        files: &[Fid],
    ) -> Result<(), Error> {
        let max = Self::FILES_PER_REQUEST_MAX;
        if files.len() > max {
            return Err(Error::TooMany { files: files.len(), max });
        }
        let mut request = Box::new(sys::hsm_user_request::zeroed());
        request.hur_request.hr_action = action.code();
        request.hur_request.hr_archive_id = archive_id;
        request.hur_request.hr_itemcount = files.len() as u32;
        for (item, file) in request.hur_user_item.iter_mut().zip(files) {
            item.hui_fid = file.to_raw();
            item.hui_extent = sys::hsm_extent { offset: 0, length: sys::TO_THE_END };
        }
        let asked = self.calls.hsm_request(&absolute(mount)?, &request);
        asked.map_err(|error| about(mount, error))
    }

    /// HSM state of the file at a path. One round trip to the server; does not restore anything.
    ///
    /// # Errors
    /// [`Cause::NotLustre`], [`Cause::Gone`] and others.
    pub fn state(&self, path: &Path) -> Result<FileState, Error> {
        let found = self.calls.hsm_state(&absolute(path)?);
        found.map(file_state).map_err(|error| about(path, error))
    }

    /// HSM state of an open file.
    ///
    /// # Errors
    /// [`Cause::NotLustre`] and others.
    pub fn state_of(&self, file: impl AsFd) -> Result<FileState, Error> {
        let found = self.calls.hsm_state_fd(file.as_fd());
        found.map(file_state).map_err(|error| about(Path::new("open file"), error))
    }

    /// The request that a file is in, if any. Expensive: the server searches its queue.
    ///
    /// # Errors
    /// [`Cause::NotLustre`], [`Cause::Gone`] and others.
    pub fn current_action(&self, path: &Path) -> Result<Option<CurrentAction>, Error> {
        let found = self.calls.hsm_current_action(&absolute(path)?);
        let raw = found.map_err(|error| about(path, error))?;
        // Only the action tells: the state of an idle file is "waiting" as well.
        Ok((raw.hca_action != sys::HUA_NONE).then(|| CurrentAction {
            action: Action::from_code(raw.hca_action),
            running: raw.hca_state == sys::HPS_RUNNING,
            moved_bytes: raw.hca_location.length,
        }))
    }
}

impl fmt::Debug for Lustre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lustre({})", self.path.display())
    }
}

fn file_state(raw: sys::hsm_user_state) -> FileState {
    FileState { flags: Flags(raw.hus_states), archive_id: raw.hus_archive_id }
}

pub(super) fn about(subject: &Path, error: CallError) -> Error {
    Error::Call { subject: subject.to_path_buf(), error }
}

pub(super) fn absolute(path: &Path) -> Result<CString, Error> {
    let bytes = path.as_os_str().as_bytes();
    let fits = path.is_absolute() && bytes.len() < sys::PATH_BYTES;
    let text = fits.then(|| CString::new(bytes).ok()).flatten();
    text.ok_or_else(|| Error::Path { path: path.to_path_buf() })
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(c_string(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fids_are_written_and_read_in_lustre_s_form() {
        let fid = Fid { seq: 0x2_0000_0401, oid: 0x1f, ver: 0 };
        assert_eq!(fid.to_string(), "[0x200000401:0x1f:0x0]");
        assert_eq!("[0x200000401:0x1f:0x0]".parse(), Ok(fid));
        assert_eq!("0x200000401:0x1f:0x0".parse(), Ok(fid));
        for text in [
            "",
            "[]",
            "[0x1:0x2]",
            "[0x1:0x2:0x3:0x4]",
            "[1:2:3]",
            "[0x1:0x100000000:0x0]",
            "[0x+1:0x2:0x3]",
            "[0x1:0x2:0x3",
        ] {
            assert_eq!(text.parse::<Fid>(), Err(FidError), "{text}");
        }
    }

    #[test]
    fn only_a_complete_and_current_copy_counts() {
        for (flags, archived) in [
            (0x0, false),
            (0x1, false),
            (0x9, true),
            (0x3, false),
            (0xb, false),
            (0xd, true),
            (0x49, false),
            (0x109, true),
        ] {
            assert_eq!(Flags(flags).is_archived(), archived, "{flags:#x}");
        }
        assert_eq!(format!("{:?}", Flags(0x10b)), "0x10b exists dirty archived");
    }

    #[test]
    fn errnos_mean_what_the_call_makes_of_them() {
        let cause = |call, errno| cause(CallError { call, errno });
        assert_eq!(cause("llapi_hsm_request", Errno::NODEV), Cause::NotLustre);
        assert_eq!(cause("llapi_hsm_state_get", Errno::NODEV), Cause::Later);
        for errno in [Errno::NOTTY, Errno::OPNOTSUPP, Errno::NODATA, Errno::from_raw_os_error(524)]
        {
            assert_eq!(cause("llapi_path2fid", errno), Cause::NotLustre);
        }
        assert_eq!(cause("llapi_hsm_request", Errno::TOOBIG), Cause::TooMany);
        assert_eq!(cause("llapi_hsm_request", Errno::AGAIN), Cause::Later);
        assert_eq!(cause("llapi_hsm_request", Errno::PERM), Cause::Denied);
        assert_eq!(cause("llapi_hsm_request", Errno::INVAL), Cause::Other);
    }
}
