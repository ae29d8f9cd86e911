//! What a staged file is in the archive: name, description, object information. Pure.
//!
//! Invariant: name and object information are those that `ltsm` gives the same file, so that the
//! site's tools find and retrieve what this daemon archived.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use tsm_bindings::tsm::{Kind, NameError, ObjectInfo, ObjectName};

use crate::queue::record::{Content, DESC_BYTES_MAX, Record};

/// `st_mode` of a file as the drain publishes it: `ltsm` gives a retrieved file this mode.
const MODE: u32 = 0o100_640;

/// A file as an object.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) name: ObjectName,
    pub(super) description: String,
    pub(super) content: Content,
}

impl Object {
    pub(super) fn new(record: &Record, content: Content) -> Result<Self, NameError> {
        Ok(Self {
            name: name(&record.fs, &record.fpath)?,
            description: description(&record.desc),
            content,
        })
    }

    /// Without FID and stripes: the object is to be restored by its name, wherever that is.
    pub(super) fn info(&self) -> ObjectInfo {
        let Content { len, crc } = self.content;
        ObjectInfo { size: len, mode: MODE, crc, ..ObjectInfo::default() }
    }

    /// Whether object information found in the archive describes the same content.
    pub(super) fn is(&self, info: &[u8]) -> bool {
        ObjectInfo::decode(info)
            .is_ok_and(|info| info.size == self.content.len && info.crc == self.content.crc)
    }
}

/// The client's `fs` is the filespace, the rest of `fpath` the name in it. Double and trailing
/// slashes are no part of either, as they are none of the path on the target.
pub(in crate::archive) fn name(fs: &OsStr, fpath: &OsStr) -> Result<ObjectName, NameError> {
    ObjectName::from_path(&absolute(Path::new(fs)), &absolute(Path::new(fpath)), Kind::File)
}

fn absolute(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for component in path.components() {
        if let Component::Normal(name) = component {
            bytes.push(b'/');
            bytes.extend_from_slice(name.as_bytes());
        }
    }
    if bytes.is_empty() { b"/".to_vec() } else { bytes }
}

/// As text, since queries are asked with text; cut where it does not fit any more.
fn description(desc: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(desc).into_owned();
    while text.len() > DESC_BYTES_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::testing::record;
    use fsq_wire::StorageDest::Tsm;

    fn named(fs: &str, fpath: &str) -> Result<String, NameError> {
        let mut record = record(Path::new("f"), Tsm, b"data", true);
        record.fs = fs.into();
        record.fpath = fpath.into();
        let content = record.content.expect("ours");
        Object::new(&record, content).map(|object| format!("{:?}", object.name))
    }

    #[test]
    fn names_are_cut_at_the_file_system_and_before_the_last_component() {
        for (fs, fpath, name) in [
            ("/lustre", "/lustre/a/b/c", "File /lustre|/a/b|/c"),
            ("/lustre/", "/lustre//a//c", "File /lustre|/a|/c"),
            ("/lustre", "/lustre/c", "File /lustre|/|/c"),
            ("/", "/a/c", "File /|/a|/c"),
        ] {
            assert_eq!(named(fs, fpath).as_deref(), Ok(name));
        }
        assert!(matches!(named("/l", "/l/a*"), Err(NameError::Byte { .. })));
        assert_eq!(named("/l", "/lustre/a"), Err(NameError::OutsideFilespace));
    }

    #[test]
    fn descriptions_fit_whatever_was_sent() {
        assert_eq!(description(b"run 7"), "run 7");
        let text = description(&[0xff; DESC_BYTES_MAX]);
        assert_eq!(text.chars().count(), DESC_BYTES_MAX / '\u{fffd}'.len_utf8());
    }

    #[test]
    fn only_the_same_content_is_the_same_object() {
        let record = record(Path::new("f"), Tsm, b"data", true);
        let object = Object::new(&record, record.content.expect("ours")).expect("a name");
        let info = object.info();
        assert!(object.is(&info.encode()));
        assert!(!object.is(&ObjectInfo { crc: 0, ..info }.encode()));
        assert!(!object.is(&ObjectInfo { size: 5, ..info }.encode()));
        assert!(!object.is(b"of another program"));
    }
}
