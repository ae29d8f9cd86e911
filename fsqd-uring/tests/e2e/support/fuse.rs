//! [`VolatileDevice`]: a disk of a [`Machine`] as a file that a loop device can be made of.
//!
//! The file is the root of a FUSE file system served by a thread of this process. The kernel keeps
//! no dirty pages for it (no write-back cache is agreed on), so a write to the loop device is in
//! the machine's log before it is reported as done, and a flush of the loop device is an fsync of the
//! file. Requests are served one after the other: a flush in the log covers exactly the writes
//! before it.
//!
//! The protocol is that of Linux, version 7.31; numbers and layouts are part of the kernel's stable
//! interface. Invariant: the server owns the only handle of the connection, so that whenever it
//! ends, requests under way fail and nobody hangs on them.

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use super::site::is_root;
use super::volatile::Machine;
use super::{scratch, text};

/// The largest write that is agreed on, bytes.
const WRITE_BYTES_MAX: usize = 1 << 20;
/// Header of a request, and of a write before its data, bytes.
const HEADER_BYTES: usize = 40;
const WRITE_HEADER_BYTES: usize = 40;
/// Inode of the root, which is the file.
const ROOT: u64 = 1;
/// S_IFREG, readable and writable by its owner.
const MODE: u32 = 0o100_600;

/// Requests that are served (FUSE opcodes).
mod op {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const WRITE: u32 = 16;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FSYNC: u32 = 20;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// FUSE_BIG_WRITES and FUSE_MAX_PAGES.
const INIT_FLAGS: u32 = 1 << 5 | 1 << 22;

/// A disk with a volatile cache as a file; unmounted when dropped, which must be after everything
/// that uses the file.
#[derive(Debug)]
pub(crate) struct VolatileDevice {
    directory: TempDir,
    server: Option<JoinHandle<()>>,
}

impl VolatileDevice {
    /// # Errors
    /// Why it cannot be had on this machine.
    pub(crate) fn new(machine: &Machine, disk: usize) -> Result<Self, String> {
        if !is_root() {
            return Err("only root may mount".to_owned());
        }
        let directory = tempfile::tempdir_in(scratch()).map_err(|error| error.to_string())?;
        let path = directory.path().join("device");
        File::create(&path).map_err(|error| error.to_string())?;
        let connection = File::options().read(true).write(true).open("/dev/fuse");
        let connection = connection.map_err(|error| format!("/dev/fuse: {error}"))?;
        let options =
            format!("fd={},rootmode={MODE:o},user_id=0,group_id=0", connection.as_raw_fd());
        let options = CString::new(options).expect("no NUL");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount(c"volatile", &path, c"fuse", flags, &*options)
            .map_err(|error| format!("mount of a FUSE file system: {error}"))?;
        let server = Server { connection, machine: machine.clone(), disk };
        let server = Some(std::thread::spawn(move || server.run()));
        Ok(Self { directory, server })
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("device")
    }
}

impl Drop for VolatileDevice {
    fn drop(&mut self) {
        // A loop device lets go of its file a moment after it is unmounted.
        for _ in 0..200 {
            match rustix::mount::unmount(text(&self.path()), UnmountFlags::empty()) {
                Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_millis(10)),
                Ok(()) => {
                    // Ends with the connection.
                    let _ = self.server.take().map(JoinHandle::join);
                    return;
                }
                Err(_) => break,
            }
        }
        // Somebody still uses it: the server goes on as long as this process.
        let _ = rustix::mount::unmount(text(&self.path()), UnmountFlags::DETACH);
    }
}

struct Server {
    connection: File,
    machine: Machine,
    disk: usize,
}

/// The number at `offset` of a request; the kernel sends whole ones.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

impl Server {
    /// Serves until the file system is unmounted.
    fn run(mut self) {
        let mut buffer = vec![0; HEADER_BYTES + WRITE_HEADER_BYTES + WRITE_BYTES_MAX];
        loop {
            let len = match self.connection.read(&mut buffer) {
                Ok(len) => len,
                Err(error) => match Errno::from_io_error(&error) {
                    // The caller of a request went away before it was read.
                    Some(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
                    _ => return,
                },
            };
            let (header, body) = buffer[..len].split_at(HEADER_BYTES);
            let opcode = u32_at(header, 4);
            if matches!(opcode, op::FORGET | op::BATCH_FORGET | op::INTERRUPT) {
                continue;
            }
            let (error, reply) = match self.serve(opcode, body) {
                Ok(reply) => (0, reply),
                Err(errno) => (-errno.raw_os_error(), Vec::new()),
            };
            let mut head = Vec::with_capacity(16);
            head.extend((16 + reply.len() as u32).to_ne_bytes());
            head.extend(error.to_ne_bytes());
            head.extend(&header[8..16]);
            // Fails if the caller has gone.
            let _ = self.connection.write_vectored(&[IoSlice::new(&head), IoSlice::new(&reply)]);
            if opcode == op::DESTROY {
                return;
            }
        }
    }

    fn serve(&self, opcode: u32, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let (machine, disk) = (&self.machine, self.disk);
        match opcode {
            op::INIT => Ok(init_reply(body)),
            op::GETATTR => Ok(attributes(machine.len(disk))),
            // No handle, no flags: the kernel caches pages, and drops them at the next open.
            op::OPEN => Ok(vec![0; 16]),
            op::READ => Ok(machine.read(disk, u64_at(body, 8), u32_at(body, 16) as usize)),
            op::WRITE => {
                let (offset, bytes) = (u64_at(body, 8), &body[WRITE_HEADER_BYTES..]);
                if offset.saturating_add(bytes.len() as u64) > machine.len(disk) {
                    return Err(Errno::NOSPC);
                }
                machine.write(disk, offset, bytes);
                let mut reply = (bytes.len() as u32).to_ne_bytes().to_vec();
                reply.resize(8, 0);
                Ok(reply)
            }
            op::FSYNC => {
                machine.flush(disk);
                Ok(Vec::new())
            }
            op::FLUSH | op::RELEASE | op::DESTROY => Ok(Vec::new()),
            // Whoever asks for more does without it.
            _ => Err(Errno::NOSYS),
        }
    }
}

/// Agrees on the version, and on large writes without write-back.
fn init_reply(body: &[u8]) -> Vec<u8> {
    let (read_ahead, offered) = (u32_at(body, 8), u32_at(body, 12));
    let mut reply = Vec::with_capacity(64);
    for number in [7, 31, read_ahead, offered & INIT_FLAGS] {
        reply.extend(number.to_ne_bytes());
    }
    // Requests in the background: as many as the kernel likes.
    reply.extend(0_u32.to_ne_bytes());
    reply.extend((WRITE_BYTES_MAX as u32).to_ne_bytes());
    // Resolution of time stamps, ns.
    reply.extend(1_u32.to_ne_bytes());
    let pages = WRITE_BYTES_MAX / 4096;
    reply.extend((pages as u16).to_ne_bytes());
    reply.resize(64, 0);
    reply
}

/// Attributes of the file, which never change.
fn attributes(len: u64) -> Vec<u8> {
    let mut reply = Vec::with_capacity(104);
    // Valid for so many seconds, and nanoseconds.
    reply.extend(3600_u64.to_ne_bytes());
    reply.extend(0_u64.to_ne_bytes());
    for number in [ROOT, len, len / 512, 0, 0, 0] {
        reply.extend(number.to_ne_bytes());
    }
    let (links, user, group, device, block) = (1_u32, 0, 0, 0, 4096);
    for number in [0, 0, 0, MODE, links, user, group, device, block, 0] {
        reply.extend(number.to_ne_bytes());
    }
    reply
}
