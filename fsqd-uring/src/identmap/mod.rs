//! The identity map: which node may sign on, whose files it writes, and where.
//!
//! Owns the parser of `node servername archive-id uid gid [lustre-dirpath]` and the shared handle
//! that SIGHUP renews. Invariant: a map is either wholly good or not taken at all, because a
//! skipped line would silently lock an experiment out.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::text::{self, FileError};

/// Longest node and server name, bytes: what the login packet and the TSM API have room for.
const NAME_BYTES_MAX: usize = 64;
/// Longest directory, bytes: below PATH_MAX with room for a file name.
const DIRECTORY_BYTES_MAX: usize = 3840;
const COLUMNS: &str = "node servername archive-id uid gid [lustre-dirpath]";

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// TSM node name, as the client sends it.
    pub node: String,
    /// TSM server that the node belongs to.
    pub servername: String,
    /// HSM archive id.
    pub archive_id: i32,
    /// Owner of its files.
    pub uid: u32,
    /// Group of its files.
    pub gid: u32,
    /// The node writes only below this absolute directory; `None`: below the whole mount.
    pub directory: Option<String>,
}

/// As the log has shown it from the first release on; the directory is not part of the line.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "node: '{}', servername: '{}', archive_id: {}, uid: {}, gid: {}",
            self.node, self.servername, self.archive_id, self.uid, self.gid
        )
    }
}

/// All identities, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityMap {
    identities: Vec<Arc<Identity>>,
    by_node: HashMap<String, usize>,
}

impl IdentityMap {
    /// Parses the text of a map; `file` is only named in errors.
    ///
    /// # Errors
    /// [`FileError::Line`] for the first line that is not a valid identity or repeats a node;
    /// [`FileError::Unfit`] if there is no identity at all.
    pub fn parse(text: impl AsRef<[u8]>, file: &str) -> Result<Self, FileError> {
        let mut map = Self::default();
        let mut seen_at: HashMap<String, usize> = HashMap::new();
        for (number, line) in text::lines(text.as_ref()) {
            let identity = parse_line(line).map_err(|why| FileError::line(file, number, why))?;
            if let Some(first) = seen_at.insert(identity.node.clone(), number) {
                let text = format!("node '{}' is already defined in line {first}", identity.node);
                return Err(FileError::line(file, number, text));
            }
            map.by_node.insert(identity.node.clone(), map.identities.len());
            map.identities.push(Arc::new(identity));
        }
        if map.identities.is_empty() {
            // Also what a reload sees of a file that an editor is just rewriting.
            let text = format!("no identity in it, so nobody could sign on; lines are: {COLUMNS}");
            return Err(FileError::unfit(file, text));
        }
        Ok(map)
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    /// If it cannot be read, is longer than [`text::FILE_BYTES_MAX`], or does not parse.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let (bytes, _) = text::read(path)?;
        Self::parse(bytes, &path.display().to_string())
    }

    /// The identity of a node.
    #[must_use]
    pub fn lookup(&self, node: &str) -> Option<Arc<Identity>> {
        self.by_node.get(node).map(|&index| Arc::clone(&self.identities[index]))
    }

    /// The identities in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.identities.iter()
    }
}

fn parse_line(line: &[u8]) -> Result<Identity, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let &[node, servername, archive_id, uid, gid, ref directory @ ..] = columns.as_slice() else {
        return Err(format!("{} columns, 5 or 6 are needed: {COLUMNS}", columns.len()));
    };
    if directory.len() > 1 {
        return Err(format!("{} columns, 5 or 6 are needed: {COLUMNS}", columns.len()));
    }
    Ok(Identity {
        node: name("node", node)?,
        servername: name("servername", servername)?,
        archive_id: archive_id.parse().ok().filter(|&id| id >= 0).ok_or_else(|| {
            format!("archive-id {archive_id:?} is not a number from 0 to {}", i32::MAX)
        })?,
        uid: owner("uid", uid)?,
        gid: owner("gid", gid)?,
        directory: directory.first().map(|&path| parse_directory(path)).transpose()?,
    })
}

fn name(column: &str, word: &str) -> Result<String, String> {
    if word.len() > NAME_BYTES_MAX {
        return Err(format!("{column} has {} bytes, at most {NAME_BYTES_MAX} fit", word.len()));
    }
    if word.chars().any(char::is_control) {
        return Err(format!("{column} {word:?} contains a control character"));
    }
    Ok(word.to_owned())
}

fn owner(column: &str, word: &str) -> Result<u32, String> {
    // chown takes the highest number for "leave as it is": the files would stay the daemon's.
    word.parse()
        .ok()
        .filter(|&id| id != u32::MAX)
        .ok_or_else(|| format!("{column} {word:?} is not a number from 0 to {}", u32::MAX - 1))
}

/// Only trailing slashes are forgiven: old maps have them.
fn parse_directory(word: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("lustre-dirpath {word:?} {why}"));
    if !word.starts_with('/') {
        return wrong("is not absolute");
    }
    if word.len() > DIRECTORY_BYTES_MAX {
        return Err(format!("lustre-dirpath is longer than {DIRECTORY_BYTES_MAX} bytes"));
    }
    if word.chars().any(char::is_control) {
        return wrong("contains a control character");
    }
    let path = word.trim_end_matches('/');
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    for component in path[1..].split('/') {
        match component {
            "" => return wrong("contains '//'"),
            "." | ".." => return wrong("contains '.' or '..'; write the path without them"),
            _ => {}
        }
    }
    Ok(path.to_owned())
}

/// The map as all parts of the daemon see it, renewed by [`Self::reload`]. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedIdentityMap {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    map: RwLock<Arc<IdentityMap>>,
}

impl SharedIdentityMap {
    /// Shares `map`; [`Self::reload`] will read `path`.
    #[must_use]
    pub fn new(map: IdentityMap, path: PathBuf) -> Self {
        Self { shared: Arc::new(Shared { path, map: RwLock::new(Arc::new(map)) }) }
    }

    /// Loads the map from a file and shares it.
    ///
    /// # Errors
    /// As [`IdentityMap::load`].
    pub fn load(path: &Path) -> Result<Self, FileError> {
        Ok(Self::new(IdentityMap::load(path)?, path.to_path_buf()))
    }

    /// The map of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<IdentityMap> {
        Arc::clone(&self.shared.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The identity of a node.
    #[must_use]
    pub fn lookup(&self, node: &str) -> Option<Arc<Identity>> {
        self.current().lookup(node)
    }

    /// Reads the file again and returns the new map. Sessions that are signed on keep the identity
    /// they have.
    ///
    /// # Errors
    /// As [`IdentityMap::load`]; the old map stays.
    pub fn reload(&self) -> Result<Arc<IdentityMap>, FileError> {
        let map = Arc::new(IdentityMap::load(&self.shared.path)?);
        let mut current = self.shared.map.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::clone(&map);
        Ok(map)
    }
}

#[cfg(test)]
mod tests;
