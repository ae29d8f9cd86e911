//! The coordinator and its copytool: one thread, in one process of those that use a file system.
//!
//! Invariant: only the holder of the coordinator's lock starts or ends requests. Where it dies
//! with requests running, the next one begins them anew.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sim_control::Fault;
use tsm_bindings::lustre::sys;

use crate::exports::complain;
use crate::mount::{DataVersion, Guard, Mount, Record, data_version, errno, forget, key};
use crate::requests::{Request, put, queue, remove};

/// A request that the copytool has.
struct Job {
    request: Request,
    /// The content when it began.
    began_with: DataVersion,
    due: Instant,
    fault: Option<Fault>,
}

/// Runs until the file system is gone.
pub(crate) fn run(mount: &Mount) {
    let tick = |mount: &Mount| Duration::from_millis(mount.number("tick-ms", 10).max(1));
    let mut lock = None;
    let mut jobs = Vec::new();
    while mount.state().is_dir() {
        if lock.is_none() {
            lock = take_over(mount);
        }
        let pause = if lock.is_some() {
            match work(mount, &mut jobs) {
                // What is due already is held back by the settings.
                Ok(Some(due)) if due > Instant::now() => {
                    tick(mount).min(due.saturating_duration_since(Instant::now()))
                }
                Ok(_) => tick(mount),
                Err(error) => {
                    if mount.state().is_dir() {
                        complain(&format_args!("coordinator of {}: {error}", mount.root.display()));
                    }
                    tick(mount)
                }
            }
        } else {
            tick(mount)
        };
        mount.wait(pause);
    }
    forget(mount);
}

/// The coordinator's lock, if no other process has it. What runs without a copytool waits again.
fn take_over(mount: &Mount) -> Option<File> {
    let file = File::create(mount.state().join("coordinator")).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    let guard = mount.lock().ok()?;
    for request in queue(mount, &guard).ok()? {
        put(mount, &guard, &Request { running: false, ..request }).ok()?;
    }
    Some(file)
}

/// Ends what is due, begins what there is room for; says when the next one is due.
fn work(mount: &Mount, jobs: &mut Vec<Job>) -> Result<Option<Instant>, Errno> {
    drop(mount.refresh()?);
    if mount.text("copytool", "work") != "hold" {
        let now = Instant::now();
        let (due, running): (Vec<Job>, Vec<Job>) = jobs.drain(..).partition(|job| job.due <= now);
        *jobs = running;
        for job in due {
            finish(mount, &job)?;
        }
    }
    let room = usize::try_from(mount.number("max-requests", 3)).unwrap_or(usize::MAX);
    if mount.text("coordinator", "enabled") == "enabled" {
        let guard = mount.lock()?;
        for request in queue(mount, &guard)? {
            if jobs.len() >= room {
                break;
            }
            if !request.running && mount.has_agent(request.archive_id) {
                jobs.extend(begin(mount, &guard, request)?);
            }
        }
    }
    Ok(jobs.iter().map(|job| job.due).min())
}

/// Hands a request to the copytool; `None` where it has ended already.
fn begin(mount: &Mount, guard: &Guard<'_>, request: Request) -> Result<Option<Job>, Errno> {
    let file = match guard.open(request.fid) {
        Ok((_, file)) => file,
        Err(Errno::NOENT) => return remove(mount, guard, &request).map(|()| None),
        Err(error) => return Err(error),
    };
    let record = guard.current(request.fid, &file)?;
    let clean = record.states & (sys::HS_ARCHIVED | sys::HS_DIRTY) == sys::HS_ARCHIVED;
    if request.action == sys::HUA_ARCHIVE && clean {
        // A second request for the same file, whose first one has ended well.
        return remove(mount, guard, &request).map(|()| None);
    }
    let verdict = mount.judge("copytool")?;
    if request.action == sys::HUA_ARCHIVE {
        let (states, archive_id) = (record.states | sys::HS_EXISTS, request.archive_id);
        guard.set_record(request.fid, &Record { states, archive_id, ..record })?;
    }
    let request = Request { running: true, ..request };
    put(mount, guard, &request)?;
    Ok(Some(Job {
        request,
        began_with: data_version(&file)?,
        due: Instant::now() + verdict.delay,
        fault: verdict.fault,
    }))
}

/// Does the copytool's work and reports it.
fn finish(mount: &Mount, job: &Job) -> Result<(), Errno> {
    let request = &job.request;
    let (seq, oid) = request.fid;
    let copy = mount.state().join("archive").join(key(seq, oid));
    let source = mount.lock()?.open(request.fid).map(|(path, _)| path);
    let done = match (&source, job.fault, request.action) {
        (Err(error), ..) => Err(*error),
        (_, Some(fault), _) => Err(Errno::from_raw_os_error(fault.code)),
        (Ok(path), None, sys::HUA_ARCHIVE) => {
            copy_part(path, request, &copy).map_err(|error| errno(&error))
        }
        (_, None, sys::HUA_REMOVE) => fs::remove_file(&copy).map_err(|error| errno(&error)),
        (_, None, _) => Ok(()),
    };

    let guard = mount.lock()?;
    if let Ok((_, file)) = guard.open(request.fid) {
        let record = guard.record(request.fid)?;
        let version = data_version(&file)?;
        let states = match (request.action, done) {
            (sys::HUA_ARCHIVE, Ok(())) if version == job.began_with => {
                record.states & !(sys::HS_DIRTY | sys::HS_LOST) | sys::HS_ARCHIVED
            }
            // Changed while it was copied: what the archive has is of no use.
            (sys::HUA_ARCHIVE, Ok(())) => record.states | sys::HS_DIRTY,
            (sys::HUA_RESTORE, Ok(())) => record.states & !sys::HS_RELEASED,
            (sys::HUA_REMOVE, Ok(())) => {
                record.states & !(sys::HS_EXISTS | sys::HS_ARCHIVED | sys::HS_DIRTY)
            }
            _ => record.states,
        };
        let archived = match (request.action, done) {
            (sys::HUA_ARCHIVE, Ok(())) => job.began_with,
            _ => record.archived,
        };
        guard.set_record(request.fid, &Record { states, archived, ..record })?;
    }
    remove(mount, &guard, request)
}

fn copy_part(from: &Path, request: &Request, to: &Path) -> io::Result<()> {
    let mut source = File::open(from)?;
    source.seek(SeekFrom::Start(request.offset))?;
    let new = to.with_extension("new");
    let mut target = File::create(&new)?;
    io::copy(&mut source.take(request.length), &mut target)?;
    target.sync_all()?;
    fs::rename(new, to)
}
