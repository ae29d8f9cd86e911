//! [`DirArchive`]: a directory as archive, `DIR/<archive id>/<path of the file>`.
//!
//! The checksum goes into an extended attribute of the object rather than a file beside it: so it
//! is complete when the object gets its name, moves with it, and cannot collide with a client's
//! file name. Nothing here relies on it (what is there already is read in whole); it is for whoever
//! checks the archive later, so a file system without attributes is reported once and used.
//!
//! Invariant: an object appears under its name whole, synced, and with the checksum that was
//! acknowledged; an existing object is never replaced.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::{Archive, ArchiveItem, Verdict};
use crate::drain::publish::{Publisher, disturbed, remove_temporary, temporary_name};
use crate::fs::{Access, Fs, FsError, Kind, Ownership};
use crate::path::target_path;
use crate::queue::record::Content;
use crate::queue::staged::{StagingTree, split};
use crate::queue::{Failure, FailureClass, Side};

/// Read and written at a time, bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Attribute of an object: its CRC-32 as eight lower-case hexadecimal digits.
pub const CHECKSUM_ATTRIBUTE: &str = "user.fsq.crc32";

const DIRECTORY: Ownership = Ownership { uid: None, gid: None, mode: 0o755 };
/// While an object is written: who is not root labels only what the mode lets them write.
const BEGUN: Ownership = Ownership { uid: None, gid: None, mode: 0o600 };
const OBJECT: Ownership = Ownership { uid: None, gid: None, mode: 0o440 };

/// See the module's description.
pub struct DirArchive<F: Fs> {
    tree: Arc<StagingTree<F>>,
    fs: Arc<F>,
    path: PathBuf,
    publisher: Publisher,
    instance: u64,
    chunk: Box<[u8]>,
    attributes_refused: bool,
}

/// Where an object is or will be.
struct Place<N> {
    directory: N,
    object: PathBuf,
}

impl<N> Place<N> {
    fn name(&self) -> &Path {
        split(&self.object).1
    }

    fn failure(&self, error: FsError) -> Failure {
        Failure::call(Side::Target, format_args!("archive object {:?}", self.object), error)
    }

    /// The same for its temporary.
    fn disturbed_or(&self, error: FsError) -> Failure {
        disturbed(&self.object, error).unwrap_or_else(|| self.failure(error))
    }
}

impl<F: Fs> DirArchive<F> {
    /// A session with the archive in the directory `path` of `fs`; `instance` as for the drain.
    pub fn new(tree: Arc<StagingTree<F>>, fs: Arc<F>, path: &Path, instance: u64) -> Self {
        Self {
            tree,
            fs,
            path: path.into(),
            publisher: Publisher::default(),
            instance,
            chunk: vec![0; CHUNK_BYTES].into(),
            attributes_refused: false,
        }
    }

    fn store(&mut self, item: &ArchiveItem<'_>) -> Result<Verdict, Failure> {
        let Some(staged) = self.tree.open_buffered(item.staging)? else {
            let text = format!("{:?} is not on staging any more", item.staging);
            return Err(Failure::new(FailureClass::Staging, text));
        };
        let stat = self.tree.check_len(item.staging, &staged.node, item.record)?;
        let place = self.place(item, true)?;
        let temporary = temporary_name(self.instance, stat.inode, item.staging);
        remove_temporary(&*self.fs, &place.directory, &temporary).map_err(|e| place.failure(e))?;
        if let Some(len) = self.existing(&place)? {
            let crc = match item.record.content {
                Some(content) => content.crc,
                None => self.sum_staged(item, &staged.node)?.crc,
            };
            return self.recognise(&place, len, Content { len: stat.len, crc });
        }
        let written = self.write(item, &staged.node, &place, &temporary);
        if let Err(failure) = written {
            // Best effort: the next attempt removes what is left.
            let _ = remove_temporary(&*self.fs, &place.directory, &temporary);
            let Some(content) = item.record.content else { return Err(failure) };
            return match failure.class {
                // The name was taken meanwhile.
                FailureClass::Permanent => match self.existing(&place)? {
                    Some(len) => self.recognise(&place, len, content),
                    None => Err(failure),
                },
                _ => Err(failure),
            };
        }
        Ok(Verdict::Confirmed)
    }

    fn write(
        &mut self,
        item: &ArchiveItem<'_>,
        staged: &F::Node,
        place: &Place<F::Node>,
        temporary: &Path,
    ) -> Result<(), Failure> {
        let fs = Arc::clone(&self.fs);
        let failed = |error| place.failure(error);
        let object = fs
            .create_named(&place.directory, temporary, BEGUN, false)
            .map_err(|error| place.disturbed_or(error))?;
        let content = self.read(staged, Side::Staging, &item.staging, |bytes, offset| {
            fs.write_all_at(&object, bytes, offset).map_err(failed)
        })?;
        if let Some(expected) = item.record.content
            && expected != content
        {
            let text = format!(
                "staging copy damaged: {:?} reads as {content:?}, acknowledged was {expected:?}",
                item.staging
            );
            return Err(Failure::new(FailureClass::Staging, text));
        }
        self.label(place, &object, content.crc)?;
        fs.set_ownership(&object, OBJECT).map_err(failed)?;
        fs.sync(&object).map_err(failed)?;
        let inode = fs.stat(&object).map_err(failed)?.inode;
        drop(object);
        self.publisher
            .publish(&*fs, &place.directory, temporary, inode, place.name())
            .map_err(|error| place.disturbed_or(error))?;
        fs.sync(&place.directory).map_err(failed)
    }

    fn label(&mut self, place: &Place<F::Node>, node: &F::Node, crc: u32) -> Result<(), Failure> {
        let value = format!("{crc:08x}");
        match self.fs.set_attribute(node, CHECKSUM_ATTRIBUTE, value.as_bytes()) {
            Err(FsError { errno: Errno::OPNOTSUPP, .. }) => {
                if !self.attributes_refused {
                    tracing::warn!(
                        "archive {:?} keeps no extended attributes: objects are stored without \
                         their checksum beside them",
                        self.path
                    );
                }
                self.attributes_refused = true;
                Ok(())
            }
            result => result.map_err(|error| place.failure(error)),
        }
    }

    /// There is an object: the file itself, archived by an earlier attempt, or something else.
    fn recognise(
        &mut self,
        place: &Place<F::Node>,
        len: u64,
        ours: Content,
    ) -> Result<Verdict, Failure> {
        let fs = Arc::clone(&self.fs);
        let found = if len == ours.len {
            let node = fs
                .open(&place.directory, place.name(), Access::Read)
                .map_err(|error| place.failure(error))?;
            let found = self.read(&node, Side::Target, &place.object, |_, _| Ok(()))?;
            // The attempt that made it may have ended before its syncs.
            fs.sync(&node)
                .and_then(|()| fs.sync(&place.directory))
                .map_err(|error| place.failure(error))?;
            found
        } else {
            Content { len, crc: 0 }
        };
        if found == ours {
            return Ok(Verdict::Confirmed);
        }
        let text = format!(
            "archive object {:?} exists already with other content; it is not overwritten: move one \
             of the two away",
            place.object
        );
        Err(Failure::new(FailureClass::Permanent, text))
    }

    fn ask(&mut self, item: &ArchiveItem<'_>) -> Result<Verdict, Failure> {
        let place = match self.place(item, false) {
            Ok(place) => place,
            Err(failure) if failure.class == FailureClass::File => return Ok(Verdict::Missing),
            Err(failure) => return Err(failure),
        };
        match self.existing(&place)? {
            None => Ok(Verdict::Missing),
            // Handing it over compares the two.
            Some(_) => self.store(item),
        }
    }

    /// Length of what has the object's name.
    fn existing(&self, place: &Place<F::Node>) -> Result<Option<u64>, Failure> {
        match self.fs.stat_at(&place.directory, place.name()) {
            Ok(stat) if stat.kind == Kind::File => Ok(Some(stat.len)),
            Ok(_) => {
                let text = format!("archive object {:?} is not a regular file", place.object);
                Err(Failure::new(FailureClass::Permanent, text))
            }
            Err(FsError { errno: Errno::NOENT, .. }) => Ok(None),
            Err(error) => Err(place.failure(error)),
        }
    }

    /// The root is opened anew for every file: what was open may belong to a mount that is gone.
    fn place(&self, item: &ArchiveItem<'_>, create: bool) -> Result<Place<F::Node>, Failure> {
        let relative = target_path(Path::new("/"), OsStr::new("/"), &item.record.fpath);
        let relative = relative.ok_or_else(|| {
            let text = format!("{:?} is no path of an archive object", item.record.fpath);
            Failure::new(FailureClass::Permanent, text)
        })?;
        let object = Path::new(&item.record.archive_id.to_string()).join(relative);
        let root = self.fs.open_root(&self.path).map_err(|error| {
            Failure::new(FailureClass::Target, format!("archive {:?}: {error}", self.path))
        })?;
        let directory = self
            .fs
            .directory(&root, split(&object).0, create.then_some(DIRECTORY), create)
            .map_err(|error| {
                Failure::call(Side::Target, format_args!("directory of {object:?}"), error)
            })?;
        Ok(Place { directory, object })
    }

    fn sum_staged(&mut self, item: &ArchiveItem<'_>, node: &F::Node) -> Result<Content, Failure> {
        self.read(node, Side::Staging, &item.staging, |_, _| Ok(()))
    }

    /// Reads a file to its end and shows each chunk with its offset.
    fn read(
        &mut self,
        node: &F::Node,
        side: Side,
        what: &dyn std::fmt::Debug,
        mut chunk: impl FnMut(&[u8], u64) -> Result<(), Failure>,
    ) -> Result<Content, Failure> {
        let mut hasher = crc32fast::Hasher::new();
        let mut len = 0;
        let fs = match side {
            Side::Staging => self.tree.fs(),
            Side::Target => &*self.fs,
        };
        loop {
            let count = fs
                .read_at(node, &mut self.chunk, len)
                .map_err(|error| Failure::call(side, format_args!("read {what:?}"), error))?;
            if count == 0 {
                return Ok(Content { len, crc: hasher.finalize() });
            }
            hasher.update(&self.chunk[..count]);
            chunk(&self.chunk[..count], len)?;
            len += count as u64;
        }
    }
}

impl<F: Fs> Archive for DirArchive<F> {
    fn batch_max(&self) -> usize {
        1
    }

    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict> {
        batch.iter().map(|item| self.store(item).unwrap_or_else(Verdict::from)).collect()
    }

    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict {
        self.ask(item).unwrap_or_else(Verdict::from)
    }
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        Self::Failed { class: failure.class, text: failure.text }
    }
}
