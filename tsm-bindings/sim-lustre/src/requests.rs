//! The queue: what is asked of HSM and has not ended.
//!
//! Invariant: a request is a file of its own, numbered in the order of arrival, that is there
//! until the request has ended, whatever happens to the processes.

use std::fs;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use tsm_bindings::lustre::sys;

use crate::mount::{Fid, Guard, Mount, Record, errno};

/// Bytes of a request from which on the kernel refuses it.
const REQUEST_BYTES_END: usize = 5120 / 3;

/// A request that waits or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) number: u128,
    pub(crate) fid: Fid,
    pub(crate) action: u32,
    pub(crate) archive_id: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) running: bool,
}

/// One file of a call, with the part of it that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) fid: Fid,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// All requests, oldest first.
pub(crate) fn queue(mount: &Mount, _guard: &Guard<'_>) -> Result<Vec<Request>, Errno> {
    let entries = fs::read_dir(mount.state().join("queue")).map_err(|error| errno(&error))?;
    let mut requests = Vec::new();
    for entry in entries.flatten() {
        let text = fs::read_to_string(entry.path()).map_err(|error| errno(&error))?;
        let words: Vec<u128> =
            text.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| Errno::IO)?;
        let [number, seq, oid, action, archive_id, offset, length, running] = words[..] else {
            return Err(Errno::IO);
        };
        requests.push(Request {
            number,
            fid: (seq as u64, oid as u32),
            action: action as u32,
            archive_id: archive_id as u32,
            offset: offset as u64,
            length: length as u64,
            running: running != 0,
        });
    }
    requests.sort_by_key(|request| request.number);
    Ok(requests)
}

/// Writes a request, new or changed.
pub(crate) fn put(mount: &Mount, _guard: &Guard<'_>, request: &Request) -> Result<(), Errno> {
    let Request { number, fid: (seq, oid), action, archive_id, offset, length, running } = request;
    let running = u8::from(*running);
    let text = format!("{number} {seq} {oid} {action} {archive_id} {offset} {length} {running}");
    // Not in the queue's own directory, where a half-written one would be read.
    let new = mount.state().join("queue.new");
    fs::write(&new, text).map_err(|error| errno(&error))?;
    let path = mount.state().join("queue").join(number.to_string());
    fs::rename(new, path).map_err(|error| errno(&error))
}

/// Ends a request.
pub(crate) fn remove(mount: &Mount, _guard: &Guard<'_>, request: &Request) -> Result<(), Errno> {
    let path = mount.state().join("queue").join(request.number.to_string());
    fs::remove_file(path).map_err(|error| errno(&error))
}

/// A call to HSM: files in order, up to the first that is refused.
pub(crate) fn submit(mount: &Mount, head: &sys::hsm_request, items: &[Item]) -> Result<(), Errno> {
    let bytes = size_of::<sys::hsm_request>()
        + items.len() * size_of::<sys::hsm_user_item>()
        + head.hr_data_len as usize;
    if bytes >= REQUEST_BYTES_END {
        return Err(Errno::TOOBIG);
    }
    if mount.text("coordinator", "enabled") == "stopped" {
        return Err(Errno::AGAIN);
    }
    let guard = mount.lock()?;
    for (position, item) in items.iter().enumerate() {
        if items[..position].iter().any(|earlier| earlier.fid == item.fid) {
            continue;
        }
        submit_one(mount, &guard, head, item)?;
    }
    drop(guard);
    mount.wake();
    Ok(())
}

fn submit_one(
    mount: &Mount,
    guard: &Guard<'_>,
    head: &sys::hsm_request,
    item: &Item,
) -> Result<(), Errno> {
    let (_, file) = guard.open(item.fid)?;
    let record = guard.current(item.fid, &file)?;
    let has = |bit: u32| record.states & bit != 0;
    match head.hr_action {
        sys::HUA_ARCHIVE => {
            let other = head.hr_archive_id != 0 && head.hr_archive_id != record.archive_id;
            if has(sys::HS_NOARCHIVE) || (has(sys::HS_EXISTS) && other) {
                return Err(Errno::PERM);
            }
            let clean = has(sys::HS_ARCHIVED) && !has(sys::HS_DIRTY);
            if clean && head.hr_flags & sys::HR_FORCE_ACTION == 0 {
                return Ok(());
            }
        }
        sys::HUA_RESTORE if !has(sys::HS_RELEASED) => return Ok(()),
        sys::HUA_RESTORE | sys::HUA_REMOVE => {}
        sys::HUA_RELEASE => return release(guard, item.fid, record),
        sys::HUA_CANCEL => {
            let waiting = |request: &&Request| request.fid == item.fid && !request.running;
            return queue(mount, guard)?
                .iter()
                .filter(waiting)
                .try_for_each(|request| remove(mount, guard, request));
        }
        _ => return Err(Errno::INVAL),
    }
    let queued = queue(mount, guard)?;
    let same = |request: &Request| request.fid == item.fid && request.action == head.hr_action;
    if mount.text("dedupe", "no") == "yes" && queued.iter().any(same) {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let last = queued.last().map_or(0, |request| request.number);
    // The former archive, else the one that is asked for, else the default one.
    let archive_id = match (record.archive_id, head.hr_archive_id) {
        (0, 0) => 1,
        (0, asked) => asked,
        (former, _) => former,
    };
    let request = Request {
        number: now.max(last + 1),
        fid: item.fid,
        action: head.hr_action,
        archive_id,
        offset: item.offset,
        length: item.length,
        running: false,
    };
    put(mount, guard, &request)
}

fn release(guard: &Guard<'_>, fid: Fid, record: Record) -> Result<(), Errno> {
    let states = record.states;
    if states & sys::HS_RELEASED != 0 {
        return Ok(());
    }
    let forbidden = sys::HS_DIRTY | sys::HS_NORELEASE | sys::HS_LOST;
    if states & sys::HS_ARCHIVED == 0 || states & forbidden != 0 {
        return Err(Errno::PERM);
    }
    guard.set_record(fid, &Record { states: states | sys::HS_RELEASED, ..record })
}

/// Changes the flags of a file as its owner may.
pub(crate) fn set_flags(
    guard: &Guard<'_>,
    file: impl AsFd + Copy,
    set: u64,
    clear: u64,
    archive_id: u32,
) -> Result<(), Errno> {
    let all = u64::from(
        sys::HS_EXISTS
            | sys::HS_DIRTY
            | sys::HS_RELEASED
            | sys::HS_ARCHIVED
            | sys::HS_NORELEASE
            | sys::HS_NOARCHIVE
            | sys::HS_LOST,
    );
    if (set | clear) & !all != 0 {
        return Err(Errno::INVAL);
    }
    let fid = guard.identify(file)?;
    let record = guard.current(fid, file)?;
    let states = (u64::from(record.states) & !clear | set) as u32;
    let has = |bit: u32| states & bit != 0;
    let incoherent = has(sys::HS_DIRTY) && !has(sys::HS_EXISTS)
        || has(sys::HS_RELEASED) && (has(sys::HS_DIRTY) || !has(sys::HS_ARCHIVED))
        || has(sys::HS_LOST) && !has(sys::HS_ARCHIVED);
    if incoherent {
        return Err(Errno::INVAL);
    }
    let archive_id = if archive_id == 0 { record.archive_id } else { archive_id };
    guard.set_record(fid, &Record { states, archive_id, ..record })
}
