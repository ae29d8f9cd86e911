//! Names of archive objects: filespace, high-level and low-level part.
//!
//! Invariant: a name that exists can be sent: each part begins with `/`, fits its limit, and has
//! neither a NUL nor a wildcard in it. Paths are cut as `ltsm` does it, so that either program
//! finds what the other archived.

use std::fmt;

use super::sys;
use crate::Zeroed;
use crate::abi::{c_string, put_c_string};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

impl Kind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::File => sys::OBJ_FILE,
            Self::Directory => sys::OBJ_DIRECTORY,
        }
    }
}

/// Why something cannot be the name of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The path is not below the filespace.
    #[error("the path is not below the filespace; archive it under the filespace it belongs to")]
    OutsideFilespace,
    /// A part lacks its leading slash or is empty.
    #[error("the {part} does not begin with '/' followed by a name")]
    Form {
        /// Which part.
        part: &'static str,
    },
    /// A part is too long.
    #[error("the {part} has {bytes} bytes, the archive takes at most {max}; shorten the path")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A part holds a byte that the archive gives a meaning of its own.
    #[error("the {part} contains {byte:?}, which the archive cannot store in a name; rename it")]
    Byte {
        /// Which part.
        part: &'static str,
        /// The byte, as a character.
        byte: char,
    },
}

/// Name of an object, cut in three.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    fs: Vec<u8>,
    hl: Vec<u8>,
    ll: Vec<u8>,
    kind: Kind,
}

impl ObjectName {
    /// Cuts an absolute path below the filespace `fs`: the low-level part is the last component,
    /// the high-level part what is between (`/` where nothing is), each with its leading slash.
    ///
    /// # Errors
    /// The path is not strictly below `fs`, or a part cannot be sent.
    pub fn from_path(fs: &[u8], path: &[u8], kind: Kind) -> Result<Self, NameError> {
        let rest = path.strip_prefix(fs).ok_or(NameError::OutsideFilespace)?;
        // A filespace "/" is part of the path's first slash and stays with the rest.
        let rest = if fs == b"/" { path } else { rest };
        if rest.first() != Some(&b'/') {
            return Err(NameError::OutsideFilespace);
        }
        let cut = rest.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let (hl, ll) = rest.split_at(cut);
        let hl: &[u8] = if hl.is_empty() { b"/" } else { hl };
        Self::from_parts(fs, hl, ll, kind)
    }

    /// The parts as they are stored.
    ///
    /// # Errors
    /// A part cannot be sent.
    pub fn from_parts(fs: &[u8], hl: &[u8], ll: &[u8], kind: Kind) -> Result<Self, NameError> {
        check("filespace", fs, sys::FSNAME_BYTES_MAX)?;
        check("directory", hl, sys::HL_BYTES_MAX)?;
        check("last component", ll, sys::LL_BYTES_MAX)?;
        if ll.len() < 2 {
            return Err(NameError::Form { part: "last component" });
        }
        Ok(Self { fs: fs.to_vec(), hl: hl.to_vec(), ll: ll.to_vec(), kind })
    }

    /// Filespace.
    #[must_use]
    pub fn fs(&self) -> &[u8] {
        &self.fs
    }

    /// High-level part: the directory below the filespace.
    #[must_use]
    pub fn hl(&self) -> &[u8] {
        &self.hl
    }

    /// Low-level part: the last component with its leading slash.
    #[must_use]
    pub fn ll(&self) -> &[u8] {
        &self.ll
    }

    /// File or directory.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn fill(&self, name: &mut sys::dsmObjName) {
        fill(name, &self.fs, &self.hl, &self.ll, self.kind.code());
    }

    /// The name in an answer of the library. It may hold what could not be sent: another program
    /// wrote it.
    pub(super) fn from_answer(name: &sys::dsmObjName) -> Self {
        let kind = if name.objType == sys::OBJ_DIRECTORY { Kind::Directory } else { Kind::File };
        let [fs, hl, ll] = [&name.fs[..], &name.hl, &name.ll].map(|part| c_string(part).to_vec());
        Self { fs, hl, ll, kind }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.fs, &self.hl, &self.ll] {
            write!(f, "{}", part.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [fs, hl, ll] = [&self.fs, &self.hl, &self.ll].map(|part| part.escape_ascii());
        write!(f, "{:?} {fs}|{hl}|{ll}", self.kind)
    }
}

/// Which names a query is about: `*` and `?` in the directory and the last component match any
/// text, slashes included, and any one byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    fs: Vec<u8>,
    hl: Vec<u8>,
    ll: Vec<u8>,
    kind: Option<Kind>,
}

impl NamePattern {
    /// A pattern; `kind` of `None` means files and directories.
    ///
    /// # Errors
    /// A part is too long, does not begin with `/`, or has a NUL.
    pub fn new(fs: &[u8], hl: &[u8], ll: &[u8], kind: Option<Kind>) -> Result<Self, NameError> {
        check("filespace", fs, sys::FSNAME_BYTES_MAX)?;
        check_form("directory", hl, sys::HL_BYTES_MAX)?;
        check_form("last component", ll, sys::LL_BYTES_MAX)?;
        Ok(Self { fs: fs.to_vec(), hl: hl.to_vec(), ll: ll.to_vec(), kind })
    }

    /// Exactly this name.
    #[must_use]
    pub fn exactly(name: &ObjectName) -> Self {
        let ObjectName { fs, hl, ll, kind } = name.clone();
        Self { fs, hl, ll, kind: Some(kind) }
    }

    pub(super) fn to_raw(&self) -> sys::dsmObjName {
        let mut name = sys::dsmObjName::zeroed();
        fill(&mut name, &self.fs, &self.hl, &self.ll, self.kind.map_or(sys::OBJ_ANY, Kind::code));
        name
    }
}

fn fill(name: &mut sys::dsmObjName, fs: &[u8], hl: &[u8], ll: &[u8], kind: u8) {
    let fits = put_c_string(&mut name.fs, fs)
        && put_c_string(&mut name.hl, hl)
        && put_c_string(&mut name.ll, ll);
    assert!(fits, "lengths were checked when the name was made");
    name.objType = kind;
}

fn check(part: &'static str, bytes: &[u8], max: usize) -> Result<(), NameError> {
    check_form(part, bytes, max)?;
    match bytes.iter().find(|&&byte| byte == b'*' || byte == b'?') {
        Some(&byte) => Err(NameError::Byte { part, byte: char::from(byte) }),
        None => Ok(()),
    }
}

fn check_form(part: &'static str, bytes: &[u8], max: usize) -> Result<(), NameError> {
    if bytes.first() != Some(&b'/') {
        return Err(NameError::Form { part });
    }
    if bytes.len() > max {
        return Err(NameError::TooLong { part, bytes: bytes.len(), max });
    }
    if bytes.contains(&0) {
        return Err(NameError::Byte { part, byte: '\0' });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(fs: &str, path: &str) -> Result<(String, String, String), NameError> {
        let name = ObjectName::from_path(fs.as_bytes(), path.as_bytes(), Kind::File)?;
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).expect("the test's own text");
        Ok((text(name.fs()), text(name.hl()), text(name.ll())))
    }

    #[test]
    fn paths_are_cut_as_ltsm_does() {
        for (fs, path, hl, ll) in [
            ("/lustre", "/lustre/dir/sub/file", "/dir/sub", "/file"),
            ("/lustre", "/lustre/file", "/", "/file"),
            ("/", "/data.txt", "/", "/data.txt"),
            ("/", "/d/f", "/d", "/f"),
            ("/a/b", "/a/b/c", "/", "/c"),
        ] {
            assert_eq!(cut(fs, path), Ok((fs.into(), hl.into(), ll.into())), "{fs} {path}");
        }
    }

    #[test]
    fn what_cannot_be_archived_is_refused_with_the_reason() {
        assert_eq!(cut("/lustre", "/lustre2/file"), Err(NameError::OutsideFilespace));
        assert_eq!(cut("/lustre", "/lustre"), Err(NameError::OutsideFilespace));
        assert_eq!(cut("/lustre", "/other/file"), Err(NameError::OutsideFilespace));
        let part = "last component";
        assert_eq!(cut("/lustre", "/lustre/dir/"), Err(NameError::Form { part }));
        assert_eq!(cut("lustre", "lustre/file"), Err(NameError::Form { part: "filespace" }));
        assert_eq!(cut("/l", "/l/a?b"), Err(NameError::Byte { part, byte: '?' }));
        assert_eq!(cut("/l", "/l/a*/b"), Err(NameError::Byte { part: "directory", byte: '*' }));
        assert_eq!(cut("/l", "/l/a\0"), Err(NameError::Byte { part, byte: '\0' }));
    }

    #[test]
    fn limits_are_inclusive() {
        let path = |bytes: usize| format!("/l/{}", "x".repeat(bytes));
        assert!(cut("/l", &path(255)).is_ok());
        assert_eq!(
            cut("/l", &path(256)),
            Err(NameError::TooLong { part: "last component", bytes: 257, max: 256 })
        );
        let deep = |bytes: usize| format!("/l/{}/f", "d".repeat(bytes));
        assert!(cut("/l", &deep(1023)).is_ok());
        assert_eq!(
            cut("/l", &deep(1024)),
            Err(NameError::TooLong { part: "directory", bytes: 1025, max: 1024 })
        );
    }

    #[test]
    fn patterns_take_wildcards_but_not_in_the_filespace() {
        assert!(NamePattern::new(b"/l", b"/*", b"/*", None).is_ok());
        assert_eq!(
            NamePattern::new(b"/*", b"/*", b"/*", None),
            Err(NameError::Byte { part: "filespace", byte: '*' })
        );
    }
}
