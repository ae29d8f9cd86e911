//! A file system: where it begins, which file is which, and what HSM knows of each.
//!
//! Invariant: a record is read and replaced only under the file system's lock, which all processes
//! share.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use sim_control::{ControlFile, Verdict};
use tsm_bindings::lustre::sys;

use crate::STATE;

const KEYS: &[&str] = &[
    "fsname",
    "tick-ms",
    "max-requests",
    "agents",
    "coordinator",
    "copytool",
    "dedupe",
    "extra-states",
];

/// Identity of a file.
pub(crate) type Fid = (u64, u32);

/// Changes whenever the content does, as far as the directory's file system tells: length and
/// time of the last change in nanoseconds.
pub(crate) type DataVersion = (u64, i128);

/// What HSM knows of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) states: u32,
    pub(crate) archive_id: u32,
    /// The content that was archived.
    pub(crate) archived: DataVersion,
    /// Where it was last seen.
    pub(crate) path: PathBuf,
}

/// A file system in use by this process.
pub(crate) struct Mount {
    pub(crate) root: PathBuf,
    control: Mutex<ControlFile>,
    /// Whether the coordinator has been woken.
    woken: Mutex<bool>,
    wake: Condvar,
}

static MOUNTS: Mutex<BTreeMap<PathBuf, Arc<Mount>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these guard is changed in single steps; a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of the files that belong to a FID.
pub(crate) fn key(seq: u64, oid: u32) -> String {
    format!("{seq:x}-{oid:x}")
}

/// The errno behind an error.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The file system that a path without symlinks lies in.
pub(crate) fn find(path: &Path) -> Option<Arc<Mount>> {
    let root = path.ancestors().find(|directory| directory.join(STATE).is_dir())?;
    let mut mounts = lock(&MOUNTS);
    if let Some(mount) = mounts.get(root) {
        return Some(Arc::clone(mount));
    }
    let state = root.join(STATE);
    for directory in ["files", "queue", "archive", "layouts"] {
        fs::create_dir_all(state.join(directory)).ok()?;
    }
    let mount = Arc::new(Mount {
        root: root.to_path_buf(),
        control: Mutex::new(ControlFile::new(state.join("control"), KEYS)),
        woken: Mutex::new(false),
        wake: Condvar::new(),
    });
    mounts.insert(root.to_path_buf(), Arc::clone(&mount));
    let coordinator = Arc::clone(&mount);
    std::thread::spawn(move || crate::coordinator::run(&coordinator));
    Some(mount)
}

/// Forgets a file system that is not there any more.
pub(crate) fn forget(mount: &Mount) {
    lock(&MOUNTS).remove(&mount.root);
}

/// The path of an open file.
pub(crate) fn path_of(file: impl AsFd) -> Result<PathBuf, Errno> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    fs::read_link(link).map_err(|error| errno(&error))
}

/// Opens a file only to name it; a symlink itself where it is one.
pub(crate) fn open_path(path: &Path) -> Result<rustix::fd::OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn identify(file: impl AsFd) -> Result<Fid, Errno> {
    let stat =
        rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
    // The time of birth tells a file from an earlier one that had its inode number.
    let birth = (stat.stx_btime.tv_sec as u64) << 30 ^ u64::from(stat.stx_btime.tv_nsec);
    let mixed = birth.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (stat.stx_ino >> 32);
    Ok((0x2_0000_0400 + (mixed >> 24), stat.stx_ino as u32))
}

pub(crate) fn data_version(file: impl AsFd) -> Result<DataVersion, Errno> {
    let stat =
        rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE | StatxFlags::MTIME)?;
    let mtime = i128::from(stat.stx_mtime.tv_sec) * 1_000_000_000;
    Ok((stat.stx_size, mtime + i128::from(stat.stx_mtime.tv_nsec)))
}

/// The file system's lock; free when dropped.
pub(crate) struct Guard<'m> {
    mount: &'m Mount,
    _file: File,
}

impl Mount {
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join(STATE)
    }

    /// Waits for the lock that all processes share.
    pub(crate) fn lock(&self) -> Result<Guard<'_>, Errno> {
        let file = File::create(self.state().join("lock")).map_err(|error| errno(&error))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        Ok(Guard { mount: self, _file: file })
    }

    /// The settings, read again if they have changed.
    pub(crate) fn refresh(&self) -> Result<MutexGuard<'_, ControlFile>, Errno> {
        let mut control = lock(&self.control);
        control.refresh().map_err(|error| {
            crate::exports::complain(&error);
            Errno::INVAL
        })?;
        Ok(control)
    }

    /// What the settings have in store for a call.
    pub(crate) fn judge(&self, call: &str) -> Result<Verdict, Errno> {
        Ok(self.refresh()?.judge(call))
    }

    pub(crate) fn text(&self, key: &str, default: &str) -> String {
        lock(&self.control).text(key).unwrap_or(default).to_owned()
    }

    pub(crate) fn number(&self, key: &str, default: u64) -> u64 {
        lock(&self.control).number(key).unwrap_or(default)
    }

    /// Whether there is a copytool for an archive.
    pub(crate) fn has_agent(&self, archive_id: u32) -> bool {
        let control = lock(&self.control);
        let Some(agents) = control.all("agents").last() else { return true };
        agents.iter().any(|id| id.parse() == Ok(archive_id))
    }

    /// Makes the coordinator of this process look at the queue.
    pub(crate) fn wake(&self) {
        *lock(&self.woken) = true;
        self.wake.notify_all();
    }

    /// Waits to be woken, or for so long.
    pub(crate) fn wait(&self, at_most: std::time::Duration) {
        let woken = lock(&self.woken);
        let waited = self.wake.wait_timeout_while(woken, at_most, |woken| !*woken);
        let (mut woken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *woken = false;
    }
}

impl Guard<'_> {
    fn record_path(&self, fid: Fid) -> PathBuf {
        self.mount.state().join("files").join(key(fid.0, fid.1))
    }

    /// What is known of a file; nothing of one that HSM never heard of.
    pub(crate) fn record(&self, fid: Fid) -> Result<Record, Errno> {
        let bytes = match fs::read(self.record_path(fid)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(errno(&error)),
        };
        let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(Errno::IO)?;
        let numbers = str::from_utf8(&bytes[..end]).map_err(|_| Errno::IO)?;
        let numbers: Vec<i128> =
            numbers.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| Errno::IO)?;
        let [states, archive_id, size, mtime] = numbers[..] else { return Err(Errno::IO) };
        Ok(Record {
            states: states as u32,
            archive_id: archive_id as u32,
            archived: (size as u64, mtime),
            path: std::ffi::OsString::from_vec(bytes[end + 1..].to_vec()).into(),
        })
    }

    pub(crate) fn set_record(&self, fid: Fid, record: &Record) -> Result<(), Errno> {
        let Record { states, archive_id, archived: (size, mtime), path } = record;
        let mut bytes = format!("{states} {archive_id} {size} {mtime}\n").into_bytes();
        bytes.extend_from_slice(path.as_os_str().as_bytes());
        sim_control::replace(&self.record_path(fid), &bytes).map_err(|error| errno(&error))
    }

    /// Identity of an open file, which is remembered with its path for requests that have
    /// nothing but the FID.
    pub(crate) fn identify(&self, file: impl AsFd + Copy) -> Result<Fid, Errno> {
        let fid = identify(file)?;
        let (path, record) = (path_of(file)?, self.record(fid)?);
        if record.path != path {
            self.set_record(fid, &Record { path, ..record })?;
        }
        Ok(fid)
    }

    /// The file of a FID, opened by name only, wherever it has been moved to.
    pub(crate) fn open(&self, fid: Fid) -> Result<(PathBuf, rustix::fd::OwnedFd), Errno> {
        let is_it = |path: &Path| {
            let file = open_path(path).ok()?;
            (identify(&file) == Ok(fid)).then_some(file)
        };
        let record = self.record(fid)?;
        if let Some(file) = is_it(&record.path) {
            return Ok((record.path, file));
        }
        let mut directories = vec![self.mount.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && entry.file_name() != STATE {
                    directories.push(path);
                } else if meta.ino() as u32 == fid.1
                    && let Some(file) = is_it(&path)
                {
                    self.set_record(fid, &Record { path: path.clone(), ..record })?;
                    return Ok((path, file));
                }
            }
        }
        Err(Errno::NOENT)
    }

    /// What HSM knows of an open file, with the change since its copy was made.
    pub(crate) fn current(&self, fid: Fid, file: impl AsFd) -> Result<Record, Errno> {
        let mut record = self.record(fid)?;
        let archived = record.states & sys::HS_ARCHIVED != 0;
        let released = record.states & sys::HS_RELEASED != 0;
        if archived && !released && data_version(file)? != record.archived {
            record.states |= sys::HS_DIRTY;
        }
        Ok(record)
    }
}
