//! [`NameRule`]: which names an archive can give back. Pure.
//!
//! What it cannot is refused at OPEN, where the client can still do something about it; later it
//! would be a file on staging that nobody moves.
//!
//! Invariant: a name that passes is one that the archive's library takes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tsm_bindings::tsm::NameError;

use super::tsm::object;
use crate::refusal::Refusal;

/// Limit of TSM for the directory below the filespace with its leading slash, bytes. The copytool
/// that brings files from Lustre to TSM does not check it, so nothing longer may get as far as there.
/// (The last component fits in any case: TSM takes one byte more than Lustre.)
const DIRECTORY_BYTES_MAX: usize = 1023;

/// See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Objects named by `fs` and `fpath`.
    Objects,
    /// Files that a copytool archives under their path below the mount point.
    Mounted {
        /// The target's root, below the mount point.
        below: PathBuf,
    },
}

impl NameRule {
    /// Whether a file may be archived that was sent as `fs` and `fpath` and goes to `target`, below
    /// the target's root.
    ///
    /// # Errors
    /// ENAMETOOLONG or EINVAL, with the reason.
    pub fn check(&self, fs: &OsStr, fpath: &OsStr, target: &Path) -> Result<(), Refusal> {
        match self {
            Self::Objects => object::name(fs, fpath).map(|_| ()).map_err(|error| {
                let errno = match error {
                    NameError::TooLong { .. } => Errno::NAMETOOLONG,
                    _ => Errno::INVAL,
                };
                Refusal::new(errno, format!("the file could not be archived: {error}"))
            }),
            Self::Mounted { below } => {
                let path = Path::new("/").join(below).join(target);
                let directory = path.parent().map_or(0, |parent| parent.as_os_str().len());
                if directory <= DIRECTORY_BYTES_MAX {
                    return Ok(());
                }
                let text = format!(
                    "the file could not be archived: below the mount point of Lustre its directory \
                     has {directory} bytes of at most {DIRECTORY_BYTES_MAX}; shorten it"
                );
                Err(Refusal::new(Errno::NAMETOOLONG, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_need_names_that_tsm_takes() {
        let check = |fpath: &str| {
            let target = Path::new("unused");
            NameRule::Objects.check(OsStr::new("/lustre"), OsStr::new(fpath), target)
        };
        assert_eq!(check("/lustre/a/b.cbf"), Ok(()));
        let refused = check("/lustre/a/b?.cbf").expect_err("a wildcard");
        assert_eq!(refused.errno, Errno::INVAL);
        assert!(refused.text.contains("'?'"), "{}", refused.text);
        let refused = check(&format!("/lustre/{}/b", "d".repeat(1024))).expect_err("too long");
        assert_eq!(refused.errno, Errno::NAMETOOLONG);
    }

    #[test]
    fn files_on_lustre_need_names_that_the_copytool_survives() {
        let rule = NameRule::Mounted { below: "data".into() };
        let check = |directory_bytes: usize| {
            let target = Path::new(&"d".repeat(directory_bytes)).join("f?");
            rule.check(OsStr::new("/l"), OsStr::new("/l/unused"), &target)
        };
        // "/data/" and the directory.
        assert_eq!(check(DIRECTORY_BYTES_MAX - 6), Ok(()));
        let refused = check(DIRECTORY_BYTES_MAX - 5).expect_err("too long");
        assert_eq!(refused.errno, Errno::NAMETOOLONG);
        assert!(refused.text.contains("1024 bytes"), "{}", refused.text);
    }
}
