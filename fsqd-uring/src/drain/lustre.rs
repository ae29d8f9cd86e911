//! Whether the target is Lustre, and which.
//!
//! Invariant: [`describe`] needs no library, and one that is not there hides only the name; what
//! needs the library asks [`find`].

use std::path::{Path, PathBuf};

use tsm_bindings::LoadError;
use tsm_bindings::lustre::{Error, Lustre, Mount};

use crate::fs::linux::LinuxFs;
use crate::fs::{Fs, FsType};

/// Whether a directory is on Lustre, by the number of its kind; not if it cannot be looked at.
#[must_use]
pub fn is_lustre(target: &Path) -> bool {
    fs_type(target) == Some(FsType::LUSTRE)
}

/// The target's file system in words, for the log: its kind, and of Lustre its name.
#[must_use]
pub fn describe(target: &Path) -> String {
    match fs_type(target) {
        None => "file system unknown".to_owned(),
        Some(FsType::LUSTRE) => {
            let name = Lustre::load(None)
                .map_err(|error| error.to_string())
                .and_then(|lustre| lustre.fsname(target).map_err(|error| error.to_string()));
            match name {
                Ok(name) => format!("lustre {name}"),
                Err(error) => format!("lustre, name unknown: {error}"),
            }
        }
        Some(other) => other.to_string(),
    }
}

/// A target on Lustre, with the library for it.
#[derive(Debug)]
pub struct Found {
    /// The client's library.
    pub lustre: &'static Lustre,
    /// The file system.
    pub mount: Mount,
    /// The target's root in it, without symlinks.
    pub root: PathBuf,
}

/// Why the target cannot be used as Lustre.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The library.
    #[error("{0}")]
    Library(#[from] LoadError),
    /// The target is something else.
    #[error("the target must be on Lustre: {0}")]
    NotLustre(#[from] Error),
    /// The target has no path.
    #[error("target {}: {error}", .target.display())]
    Target {
        /// The target.
        target: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
}

/// Asks the library about the target.
///
/// # Errors
/// See [`Unfit`].
pub fn find(target: &Path) -> Result<Found, Unfit> {
    let lustre = Lustre::load(None)?;
    // The library compares paths with the table of mounts as they are written.
    let root = target
        .canonicalize()
        .map_err(|error| Unfit::Target { target: target.to_path_buf(), error })?;
    let mount = lustre.mount_of(&root)?;
    Ok(Found { lustre, mount, root })
}

fn fs_type(target: &Path) -> Option<FsType> {
    LinuxFs.open_root(target).and_then(|root| LinuxFs.fs_type(&root)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_this_machine_is_told_by_its_kind() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(!is_lustre(directory.path()));
        assert!(!describe(directory.path()).contains("unknown"));
        assert!(!is_lustre(Path::new("/no/such/directory")));
        assert_eq!(describe(Path::new("/no/such/directory")), "file system unknown");
    }
}
