//! Whether the target is Lustre, and which.
//!
//! Invariant: looking at it needs no library, and a library that is not there hides only the name.

use std::path::Path;

use tsm_bindings::lustre::Lustre;

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
