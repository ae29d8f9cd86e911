//! Which mount a path lies on, out of the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    point: PathBuf,
    fs_type: String,
    source: String,
}

impl Mount {
    /// Whether it is the root of all.
    pub(super) fn is_root(&self) -> bool {
        self.point == Path::new("/")
    }

    /// Lustre's name for the file system: what follows the servers in the source.
    fn fsname(&self) -> Option<&str> {
        let (_, name) = self.source.rsplit_once(":/").filter(|_| self.fs_type == "lustre")?;
        name.split('/').next().filter(|name| !name.is_empty())
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fsname) = self.fsname() {
            write!(f, "file system '{fsname}', ")?;
        }
        write!(f, "mounted on {} from {}", self.point.display(), self.source)
    }
}

/// The mount that an absolute path without symlinks lies on.
pub(super) fn of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(parse);
    // Of several on one directory the last hides the others.
    mounts
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let point = unescaped(front.split(' ').nth(4)?);
    let mut back = back.split(' ');
    let (fs_type, source) = (back.next()?.to_owned(), unescaped(back.next()?));
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(point)),
        fs_type,
        source: String::from_utf8_lossy(&source).into_owned(),
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescaped(word: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<3>().filter(|_| byte == b'\\');
        let escaped = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
30 22 0:27 / /proc rw - proc proc rw
40 22 8:3 / /fsqdata rw,noatime shared:9 - xfs /dev/sdb1 rw
41 22 0:50 / /lustre rw master:1 shared:2 - lustre 10.0.0.1@tcp:10.0.0.2@tcp:/hpc rw,flock
42 22 0:51 / /lustre/sub rw - lustre 10.0.0.1@o2ib:/other/project rw
43 22 0:52 / /with\\040blank rw - tmpfs tmp\\134fs rw
44 22 0:53 / /fsqdata rw - ext4 /dev/sdc1 rw
";

    fn shown(path: &str) -> String {
        of(MOUNTINFO, Path::new(path)).map_or_else(String::new, |mount| mount.to_string())
    }

    #[test]
    fn the_longest_mount_point_counts() {
        let hpc = "file system 'hpc', mounted on /lustre from 10.0.0.1@tcp:10.0.0.2@tcp:/hpc";
        assert_eq!(shown("/lustre"), hpc);
        assert_eq!(shown("/lustre/submarine/x"), hpc);
        assert!(shown("/lustre/sub/x").starts_with("file system 'other', mounted on /lustre/sub "));
        assert_eq!(shown("/lustrefs"), "mounted on / from /dev/sda2");
        assert_eq!(shown("/with blank/x"), "mounted on /with blank from tmp\\fs");
        assert_eq!(shown("/fsqdata"), "mounted on /fsqdata from /dev/sdc1");
        assert!(of(MOUNTINFO, Path::new("/home")).expect("on the root").is_root());
        assert!(!of(MOUNTINFO, Path::new("/proc/1")).expect("on /proc").is_root());
    }

    #[test]
    fn lines_that_make_no_sense_are_none() {
        assert_eq!(of("nonsense\n1 2 3\n1 2 3 4 / - x\n", Path::new("/")), None);
    }
}
