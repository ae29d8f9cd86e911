//! What is on disk, as sets to compare.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory,
    Symlink,
    /// Length, bytes.
    File(u64),
}

/// Everything below `root`, relative to it, without the daemon's own directory on staging.
pub(crate) fn below(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    visit(root, Path::new(""), &mut found);
    found
}

/// The files among [`below`].
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let files = below(root).into_iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
    files.map(|(path, _)| path).collect()
}

fn visit(root: &Path, relative: &Path, found: &mut BTreeMap<PathBuf, Entry>) {
    // The daemon may take away what is being looked at: what is gone is not there.
    let Ok(entries) = std::fs::read_dir(root.join(relative)) else { return };
    for entry in entries.flatten() {
        let path = relative.join(entry.file_name());
        if path == Path::new(fsqd_uring::path::PRIVATE_DIRECTORY) || path == Path::new("lost+found")
        {
            continue;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_dir() {
            found.insert(path.clone(), Entry::Directory);
            visit(root, &path, found);
        } else if kind.is_symlink() {
            found.insert(path, Entry::Symlink);
        } else {
            found.insert(path, Entry::File(metadata.len()));
        }
    }
}
