//! [`Record`]: the extended attributes of a staged file, which are the queue on disk.
//!
//! Names and formats of the first six are those of the deployed daemon, so that a directory it left
//! behind is taken over; all numbers are in native byte order. Strings are written without
//! padding and read with or without it.
//!
//! | attribute | value |
//! |---|---|
//! | `user.fsq.state` | u32, [`FileState`] |
//! | `user.fsq.arvid` | i32, archive id |
//! | `user.fsq.fs`, `.fpath`, `.desc` | strings |
//! | `user.fsq.stordest` | i32, destination |
//! | `user.fsq.owner` | u32 uid, u32 gid, name of the node |
//! | `user.fsq.crc` | u64 length, u32 CRC-32, u32 [`SEAL`] |
//!
//! Invariant: the state is the last attribute a file gets, after its content is described by the
//! CRC attribute; a file of ours (it has an owner) without both was never acknowledged.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use fsq_wire::StorageDest;
use rustix::io::Errno;

use crate::fs::{Fs, FsError};

#[cfg(test)]
mod tests;

const STATE: &str = "user.fsq.state";
const ARCHIVE_ID: &str = "user.fsq.arvid";
const FS: &str = "user.fsq.fs";
const FPATH: &str = "user.fsq.fpath";
const DESC: &str = "user.fsq.desc";
const DEST: &str = "user.fsq.stordest";
const OWNER: &str = "user.fsq.owner";
const CONTENT: &str = "user.fsq.crc";

/// Ends the content attribute: "FSQ" and the version of its format.
pub const SEAL: u32 = u32::from_be_bytes(*b"FSQ\x01");

/// Longest `fs`, bytes (FSQ protocol: `char[1025]` with its NUL).
pub const FS_BYTES_MAX: usize = 1024;
/// Longest `fpath`, bytes (FSQ protocol: `char[4097]` with its NUL).
pub const FPATH_BYTES_MAX: usize = 4096;
/// Longest `desc`, bytes (FSQ protocol: `char[256]` with its NUL).
pub const DESC_BYTES_MAX: usize = 255;
/// Longest name of a node, bytes (FSQ protocol: `char[65]` with its NUL).
pub const NODE_BYTES_MAX: usize = 64;

/// How far a staged file has come; the values are on disk and in the C library's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FileState {
    /// Complete and acknowledged.
    LocalCopyDone = 0x1,
    /// Being copied to Lustre.
    LustreCopyRun = 0x2,
    /// The copy failed and will be done again.
    LustreCopyError = 0x4,
    /// Safe on Lustre under its name.
    LustreCopyDone = 0x8,
    /// Being archived.
    TsmArchiveRun = 0x10,
    /// The archive failed and will be asked again.
    TsmArchiveError = 0x20,
    /// Confirmed by the archive.
    TsmArchiveDone = 0x40,
    /// Given up until the next start: too many errors.
    FileOmitted = 0x80,
    /// At its destination.
    FileKeep = 0x100,
}

impl FileState {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 9] = [
        Self::LocalCopyDone,
        Self::LustreCopyRun,
        Self::LustreCopyError,
        Self::LustreCopyDone,
        Self::TsmArchiveRun,
        Self::TsmArchiveError,
        Self::TsmArchiveDone,
        Self::FileOmitted,
        Self::FileKeep,
    ];

    /// The value on disk.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self as u32
    }

    /// From the value on disk. Several known bits at once tell nothing certain: such a file begins
    /// again, which is always safe (what is already at its destination is recognised there). No
    /// bit, or an unknown one: `None`.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        let known = Self::ALL.into_iter().fold(0, |known, state| known | state.bits());
        if bits == 0 || bits & !known != 0 {
            return None;
        }
        let single = Self::ALL.into_iter().find(|state| state.bits() == bits);
        Some(single.unwrap_or(Self::LocalCopyDone))
    }

    /// Whether a file in this state may be put into `next`. To stay is always allowed: after a
    /// restart a copy that was running runs again.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use FileState::*;
        let successors: &[Self] = match self {
            // An archive that reads from staging, and LOCAL files that an older daemon queued.
            LocalCopyDone => &[LustreCopyRun, TsmArchiveRun, FileKeep],
            LustreCopyRun => &[LustreCopyDone, LustreCopyError],
            LustreCopyError => &[LustreCopyRun, FileOmitted],
            LustreCopyDone => &[TsmArchiveRun, FileKeep],
            TsmArchiveRun => &[TsmArchiveDone, TsmArchiveError],
            TsmArchiveError => &[TsmArchiveRun, FileOmitted],
            TsmArchiveDone => &[FileKeep],
            // A fresh chance, from the start: which step was given up is not recorded.
            FileOmitted => &[LocalCopyDone, LustreCopyRun, TsmArchiveRun],
            FileKeep => &[],
        };
        self == next || successors.contains(&next)
    }
}

/// What a complete file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes.
    pub len: u64,
    /// CRC-32 (zlib polynomial) of all bytes.
    pub crc: u32,
}

/// Who sent a file and whom it will belong to on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The node's name.
    pub node: String,
}

/// What the queue knows of a staged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How far it has come.
    pub state: FileState,
    /// Archive id of its node.
    pub archive_id: i32,
    /// The file system it belongs to, as the client named it.
    pub fs: OsString,
    /// Its path on the target, as the client named it; begins with `fs`.
    pub fpath: OsString,
    /// The client's description.
    pub desc: Vec<u8>,
    /// Where it is to end up.
    pub dest: StorageDest,
    /// Length and checksum; `None` for files that the older daemon has staged.
    pub content: Option<Content>,
    /// `None` for files that the older daemon has staged.
    pub owner: Option<Owner>,
}

/// An attribute that cannot be read, written or understood. Names the attribute; the caller adds
/// the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("attribute {attribute}: {error}")]
    Fs {
        /// Which attribute.
        attribute: &'static str,
        /// What it said.
        #[source]
        error: FsError,
    },
    /// The file is in the queue and lacks this attribute.
    #[error("attribute {attribute} is missing")]
    Missing {
        /// Which attribute.
        attribute: &'static str,
    },
    /// The value is not one of ours.
    #[error("attribute {attribute}: {reason}")]
    Malformed {
        /// Which attribute.
        attribute: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of ours that was never completed, and so never acknowledged.
    #[error("attribute {attribute} is missing: the file was never completed")]
    Unsealed {
        /// The attribute that completes it.
        attribute: &'static str,
    },
    /// The state machine does not know this step: an error of this program.
    #[error("a file in state {from:?} cannot become {to:?}")]
    Transition {
        /// The state it is in.
        from: FileState,
        /// The state it was to have.
        to: FileState,
    },
}

impl RecordError {
    /// The errno to answer with.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Fs { error, .. } => error.errno,
            _ => Errno::INVAL,
        }
    }
}

type Result<T> = std::result::Result<T, RecordError>;

impl Record {
    /// Writes what is known when a file begins: all but its state and its content.
    ///
    /// # Errors
    /// A string is too long or contains a NUL; the file system refuses (ENOSPC: the attributes do
    /// not fit into the inode, or the file system is full).
    pub fn store_static<F: Fs>(&self, fs: &F, file: &F::Node) -> Result<()> {
        check(FS, self.fs.as_bytes(), FS_BYTES_MAX)?;
        check(FPATH, self.fpath.as_bytes(), FPATH_BYTES_MAX)?;
        check(DESC, &self.desc, DESC_BYTES_MAX)?;
        // The owner first: it marks the file as ours until it is complete.
        if let Some(owner) = &self.owner {
            check(OWNER, owner.node.as_bytes(), NODE_BYTES_MAX)?;
            let mut value = Vec::with_capacity(8 + owner.node.len());
            value.extend(owner.uid.to_ne_bytes());
            value.extend(owner.gid.to_ne_bytes());
            value.extend(owner.node.as_bytes());
            store(fs, file, OWNER, &value)?;
        }
        store(fs, file, ARCHIVE_ID, &self.archive_id.to_ne_bytes())?;
        store(fs, file, FS, self.fs.as_bytes())?;
        store(fs, file, FPATH, self.fpath.as_bytes())?;
        store(fs, file, DESC, &self.desc)?;
        store(fs, file, DEST, &(self.dest as i32).to_ne_bytes())
    }

    /// Reads the record of a file; `None`: it is not in the queue.
    ///
    /// # Errors
    /// [`RecordError::Unsealed`] for a file of ours that was never acknowledged; else what cannot be
    /// read or understood.
    pub fn load<F: Fs>(fs: &F, file: &F::Node) -> Result<Option<Self>> {
        let owner = load(fs, file, OWNER)?.map(|value| parse_owner(&value)).transpose()?;
        let content = load(fs, file, CONTENT)?.map(|value| parse_content(&value)).transpose()?;
        let state = match (load(fs, file, STATE)?, &owner, content) {
            (None, None, _) => return Ok(None),
            (None, Some(_), _) => return Err(RecordError::Unsealed { attribute: STATE }),
            (Some(_), Some(_), None) => return Err(RecordError::Unsealed { attribute: CONTENT }),
            (Some(value), _, _) => u32::from_ne_bytes(number(STATE, &value)?),
        };
        let state = FileState::from_bits(state)
            .ok_or_else(|| malformed(STATE, format!("{state:#x} is not a state")))?;
        let dest = i32::from_ne_bytes(number(DEST, &required(fs, file, DEST)?)?);
        Ok(Some(Self {
            state,
            archive_id: i32::from_ne_bytes(number(ARCHIVE_ID, &required(fs, file, ARCHIVE_ID)?)?),
            fs: OsString::from_vec(string(FS, required(fs, file, FS)?, FS_BYTES_MAX)?),
            fpath: OsString::from_vec(string(FPATH, required(fs, file, FPATH)?, FPATH_BYTES_MAX)?),
            // The older daemon leaves it out when the client sends none.
            desc: string(DESC, load(fs, file, DESC)?.unwrap_or_default(), DESC_BYTES_MAX)?,
            dest: StorageDest::try_from(dest)
                .map_err(|_| malformed(DEST, format!("{dest} is not a destination")))?,
            content,
            owner,
        }))
    }

    /// Records that the file has come to `next`. Not synced: a state that is lost is reached again.
    ///
    /// # Errors
    /// The step is not one of [`FileState::may_become`]; the file system refuses. The record is
    /// unchanged then.
    pub fn set_state<F: Fs>(&mut self, fs: &F, file: &F::Node, next: FileState) -> Result<()> {
        if !self.state.may_become(next) {
            return Err(RecordError::Transition { from: self.state, to: next });
        }
        store(fs, file, STATE, &next.bits().to_ne_bytes())?;
        self.state = next;
        Ok(())
    }
}

/// Completes a file: writes what it contains, and then its first state.
///
/// # Errors
/// The file system refuses.
pub fn seal<F: Fs>(fs: &F, file: &F::Node, content: Content, state: FileState) -> Result<()> {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&content.len.to_ne_bytes());
    value[8..12].copy_from_slice(&content.crc.to_ne_bytes());
    value[12..].copy_from_slice(&SEAL.to_ne_bytes());
    store(fs, file, CONTENT, &value)?;
    store(fs, file, STATE, &state.bits().to_ne_bytes())
}

fn malformed(attribute: &'static str, reason: impl Into<String>) -> RecordError {
    RecordError::Malformed { attribute, reason: reason.into() }
}

fn check(attribute: &'static str, value: &[u8], bytes_max: usize) -> Result<()> {
    if value.contains(&0) {
        return Err(malformed(attribute, "contains a NUL"));
    }
    if value.len() > bytes_max {
        return Err(malformed(attribute, format!("longer than {bytes_max} bytes")));
    }
    Ok(())
}

fn store<F: Fs>(fs: &F, file: &F::Node, attribute: &'static str, value: &[u8]) -> Result<()> {
    fs.set_attribute(file, attribute, value).map_err(|error| RecordError::Fs { attribute, error })
}

fn load<F: Fs>(fs: &F, file: &F::Node, attribute: &'static str) -> Result<Option<Vec<u8>>> {
    fs.attribute(file, attribute).map_err(|error| RecordError::Fs { attribute, error })
}

fn required<F: Fs>(fs: &F, file: &F::Node, attribute: &'static str) -> Result<Vec<u8>> {
    load(fs, file, attribute)?.ok_or(RecordError::Missing { attribute })
}

fn number(attribute: &'static str, value: &[u8]) -> Result<[u8; 4]> {
    value.try_into().map_err(|_| malformed(attribute, format!("{} bytes, not 4", value.len())))
}

/// A string up to its NUL, if it has one: what the older daemon leaves behind it is padding.
fn string(attribute: &'static str, mut value: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>> {
    if let Some(end) = value.iter().position(|&byte| byte == 0) {
        value.truncate(end);
    }
    check(attribute, &value, bytes_max)?;
    Ok(value)
}

fn parse_content(value: &[u8]) -> Result<Content> {
    let value: &[u8; 16] = value
        .try_into()
        .map_err(|_| malformed(CONTENT, format!("{} bytes, not 16", value.len())))?;
    let [l0, l1, l2, l3, l4, l5, l6, l7, c0, c1, c2, c3, s0, s1, s2, s3] = *value;
    if u32::from_ne_bytes([s0, s1, s2, s3]) != SEAL {
        return Err(malformed(CONTENT, "of an unknown version"));
    }
    Ok(Content {
        len: u64::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]),
        crc: u32::from_ne_bytes([c0, c1, c2, c3]),
    })
}

fn parse_owner(value: &[u8]) -> Result<Owner> {
    let Some((&[u0, u1, u2, u3, g0, g1, g2, g3], node)) = value.split_first_chunk() else {
        return Err(malformed(OWNER, format!("{} bytes, fewer than 8", value.len())));
    };
    let node = string(OWNER, node.to_vec(), NODE_BYTES_MAX)?;
    let node = String::from_utf8(node).map_err(|_| malformed(OWNER, "the node is not UTF-8"))?;
    Ok(Owner {
        uid: u32::from_ne_bytes([u0, u1, u2, u3]),
        gid: u32::from_ne_bytes([g0, g1, g2, g3]),
        node,
    })
}
