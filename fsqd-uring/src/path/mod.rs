//! Path confinement: whether an OPEN may be, and where its file goes.
//!
//! Owns the rules that a name sent by a client must obey before anything is created. Pure: nothing
//! here looks at a file system, so symlinks are the business of [`crate::fs`], which resolves what
//! is admitted here beneath a root. Invariant: both halves of a [`Placement`] are relative, not
//! empty, made of ordinary components only, and the target half lies where no other node's
//! directory is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use fsq_wire::StorageDest;
use rustix::io::Errno;

use crate::archive::names::NameRule;
use crate::identmap::{Identity, IdentityMap, SharedIdentityMap};
use crate::refusal::Refusal;

pub use self::attributes::{attribute_bytes, attribute_entry_bytes};
pub use self::quoted::Quoted;

mod attributes;
mod quoted;

/// First component on staging under which the daemon keeps its own files (the lock).
pub const PRIVATE_DIRECTORY: &str = ".fsqd";
/// What the temporary names of the drain begin with.
pub const TEMPORARY_PREFIX: &str = ".fsq-part.";
/// NAME_MAX of Linux and of Lustre, bytes.
const COMPONENT_BYTES_MAX: usize = 255;
/// PATH_MAX of Linux, bytes, with the NUL.
const PATH_BYTES_MAX: usize = 4096;

/// Where a file goes, relative to the two roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Below the staging root.
    pub staging: PathBuf,
    /// Below the target root.
    pub target: PathBuf,
}

/// The target path, relative to `target`, of a file that was admitted as `fs` and `fpath`: what
/// recovery has of it. A path below the target stands for itself; any other name of the mount
/// point (clients may see the file system elsewhere) is `fs`.
///
/// `None` if the two strings do not give a path of ordinary components. Whether the node may write
/// there was decided at OPEN and is not decided again.
#[must_use]
pub fn target_path(target: &Path, fs: &OsStr, fpath: &OsStr) -> Option<PathBuf> {
    let fpath = Path::new(fpath);
    below(fpath, target).or_else(|| below(fpath, Path::new(fs)))
}

/// What of `path` is strictly below `root`, if it consists of ordinary components.
fn below(path: &Path, root: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(root).ok()?;
    let ordinary = rest.components().all(|part| matches!(part, Component::Normal(_)));
    (ordinary && !rest.as_os_str().is_empty()).then(|| rest.to_path_buf())
}

/// An OPEN that may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Final destination.
    pub dest: StorageDest,
    /// Where the file goes.
    pub placement: Placement,
    /// `fs` as sent.
    pub fs: OsString,
    /// `fpath` as sent.
    pub fpath: OsString,
    /// `desc` as sent.
    pub desc: Vec<u8>,
}

/// The rules of this daemon for an OPEN.
#[derive(Clone, Debug)]
pub struct Admission {
    target: PathBuf,
    map: SharedIdentityMap,
    archive: Result<(), String>,
    archive_names: Option<NameRule>,
    attribute_bytes_max: Option<usize>,
}

impl Admission {
    /// Rules for a target root (absolute, normalised) and the identities of `map`, whose reloads
    /// take effect at the next OPEN.
    ///
    /// `archive` says why archive destinations are refused, if they are
    /// ([`crate::archive::backend::Backend::accepts`]). `attribute_bytes_max` is
    /// what the staging file system holds of one file's attributes, in the measure of
    /// [`attribute_bytes`]; `None` where there is no such limit.
    #[must_use]
    pub fn new(
        target: PathBuf,
        map: SharedIdentityMap,
        archive: Result<(), String>,
        attribute_bytes_max: Option<usize>,
    ) -> Self {
        Self { target, map, archive, archive_names: None, attribute_bytes_max }
    }

    /// The same rules for an archive that does not take every name.
    #[must_use]
    pub fn with_archive_names(self, archive_names: Option<NameRule>) -> Self {
        Self { archive_names, ..self }
    }

    /// Decides an OPEN of the node `identity`; the strings are as in the packet, without their NUL.
    ///
    /// # Errors
    /// The first rule that is broken: EINVAL for what is no proper name, `fs` that does not
    /// contain `fpath`, an unknown destination and names the daemon uses itself; EACCES for what
    /// lies outside the node's directory or might; ENAMETOOLONG; ENOSYS for an archive destination
    /// where there is no archive; EINVAL or ENAMETOOLONG for a name that the archive cannot keep.
    pub fn admit(
        &self,
        identity: &Identity,
        fs: &[u8],
        fpath: &[u8],
        desc: &[u8],
        storage_dest: i32,
    ) -> Result<Admitted, Refusal> {
        let dest = self.destination(storage_dest)?;
        check_name("fpath", fpath)?;
        check_name("fs", without_trailing_slash(fs))?;
        self.check_attributes(fs, fpath, desc)?;
        let (fs_path, path) = (Path::new(OsStr::from_bytes(fs)), path_of(fpath));
        let Some(staging) = below(path, fs_path) else {
            return refuse(
                Errno::INVAL,
                format!("fs {} is no directory above fpath {}", Quoted(fs), Quoted(fpath)),
            );
        };
        self.check_directory(identity, path)?;
        let target = match below(path, &self.target) {
            Some(target) => target,
            None => {
                self.check_foreign(fs_path, path, &staging)?;
                staging.clone()
            }
        };
        if self.target.as_os_str().len() + 1 + target.as_os_str().len() >= PATH_BYTES_MAX {
            return refuse(Errno::NAMETOOLONG, "fpath is too long below the target".to_owned());
        }
        let placement = Placement { staging, target };
        check_reserved(&placement)?;
        let (fs, fpath) = (OsString::from_vec(fs.to_vec()), OsString::from_vec(fpath.to_vec()));
        if let Some(rule) = &self.archive_names
            && matches!(dest, StorageDest::Tsm | StorageDest::LustreTsm)
        {
            rule.check(&fs, &fpath, &placement.target)?;
        }
        Ok(Admitted { dest, placement, fs, fpath, desc: desc.to_vec() })
    }

    fn destination(&self, storage_dest: i32) -> Result<StorageDest, Refusal> {
        let Ok(dest) = StorageDest::try_from(storage_dest) else {
            let text = format!("storage destination {storage_dest} is unknown; 0 to 4 are known");
            return refuse(Errno::INVAL, text);
        };
        match (dest, &self.archive) {
            (StorageDest::Tsm | StorageDest::LustreTsm, Err(why)) => {
                refuse(Errno::NOSYS, format!("files cannot be archived here: {why}"))
            }
            _ => Ok(dest),
        }
    }

    fn check_attributes(&self, fs: &[u8], fpath: &[u8], desc: &[u8]) -> Result<(), Refusal> {
        let Some(max) = self.attribute_bytes_max else { return Ok(()) };
        let needed = attribute_bytes(fs.len(), fpath.len(), desc.len());
        if needed <= max {
            return Ok(());
        }
        let excess = needed - max;
        refuse(
            Errno::NAMETOOLONG,
            format!(
                "fs, fpath and desc do not fit into the attributes of a staging file: {excess} \
                 bytes too many ({} + {} + {} bytes given)",
                fs.len(),
                fpath.len(),
                desc.len()
            ),
        )
    }

    fn check_directory(&self, identity: &Identity, path: &Path) -> Result<(), Refusal> {
        let directory = identity.directory.as_deref().map_or(self.target.as_path(), Path::new);
        if below(path, directory).is_some() {
            return Ok(());
        }
        refuse(
            Errno::ACCESS,
            format!(
                "fpath {} is not below {}, where node {} may write",
                Quoted(path.as_os_str().as_bytes()),
                Quoted(directory.as_os_str().as_bytes()),
                Quoted(identity.node.as_bytes())
            ),
        )
    }

    /// A path that is not below the target lands at `staging` below it, and the client chooses
    /// `fs`: it must not be able to choose where among other nodes' directories that is.
    fn check_foreign(&self, fs: &Path, path: &Path, staging: &Path) -> Result<(), Refusal> {
        let map = self.map.current();
        if let Some(other) = directories(&map).find(|directory| !directory.starts_with(fs)) {
            return refuse(
                Errno::ACCESS,
                format!(
                    "fpath {} is not below the target {}, so fs must be a directory above all \
                     directories of the identity map; {} is not above {}",
                    Quoted(path.as_os_str().as_bytes()),
                    Quoted(self.target.as_os_str().as_bytes()),
                    Quoted(fs.as_os_str().as_bytes()),
                    Quoted(other.as_os_str().as_bytes())
                ),
            );
        }
        if self.lands_in_another(&map, path, staging) {
            return refuse(
                Errno::ACCESS,
                format!(
                    "fpath {} with fs {} would land in the directory of another node",
                    Quoted(path.as_os_str().as_bytes()),
                    Quoted(fs.as_os_str().as_bytes())
                ),
            );
        }
        Ok(())
    }

    /// Whether `landing` is within what another node's directory is on the target. Several
    /// choices of `fs` are legal for that node as well, so its directory may be found under
    /// several names there; all of them are its own.
    fn lands_in_another(&self, map: &IdentityMap, path: &Path, landing: &Path) -> bool {
        // The ancestors of any one directory that are above all of them.
        let mounts = directories(map).next().into_iter().flat_map(Path::ancestors);
        let mounts: Vec<&Path> =
            mounts.filter(|mount| directories(map).all(|all| all.starts_with(mount))).collect();
        directories(map)
            .filter(|directory| !path.starts_with(directory))
            // Whoever owns the whole target shares it with every other node anyway.
            .filter(|directory| !self.target.starts_with(directory))
            .any(|directory| match directory.strip_prefix(&self.target) {
                Ok(own) => landing.starts_with(own),
                Err(_) => mounts
                    .iter()
                    .filter_map(|mount| directory.strip_prefix(mount).ok())
                    .any(|own| landing.starts_with(own)),
            })
    }
}

fn directories(map: &IdentityMap) -> impl Iterator<Item = &Path> {
    map.iter().filter_map(|identity| identity.directory.as_deref().map(Path::new))
}

fn refuse<T>(errno: Errno, text: String) -> Result<T, Refusal> {
    Err(Refusal::new(errno, text))
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Clients write both `/lustre` and `/lustre/`; the root stays.
fn without_trailing_slash(fs: &[u8]) -> &[u8] {
    match fs {
        [head @ .., b'/'] if head.len() > 1 => head,
        _ => fs,
    }
}

/// An absolute path of ordinary components, `/` included. Bytes above ASCII are taken as they are:
/// a file name on Linux has no encoding, and old clients send Latin-1.
fn check_name(field: &str, name: &[u8]) -> Result<(), Refusal> {
    let wrong = |errno, why: &str| refuse(errno, format!("{field} {} {why}", Quoted(name)));
    if name.first() != Some(&b'/') {
        return wrong(Errno::INVAL, "is not an absolute path");
    }
    if name.len() >= PATH_BYTES_MAX {
        return wrong(Errno::NAMETOOLONG, "is longer than 4095 bytes");
    }
    if name.iter().any(u8::is_ascii_control) {
        return wrong(Errno::INVAL, "contains a control character");
    }
    if name == b"/" {
        return Ok(());
    }
    for component in name[1..].split(|&byte| byte == b'/') {
        match component {
            b"" => return wrong(Errno::INVAL, "contains '//' or ends in '/'"),
            b"." => return wrong(Errno::INVAL, "contains the component '.'"),
            b".." => return wrong(Errno::ACCESS, "contains the component '..'"),
            _ if component.len() > COMPONENT_BYTES_MAX => {
                return wrong(Errno::NAMETOOLONG, "has a component of more than 255 bytes");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Names that would get in the way of the daemon's own files, of another node's too.
fn check_reserved(placement: &Placement) -> Result<(), Refusal> {
    let reserved = |path: &Path| {
        path.starts_with(PRIVATE_DIRECTORY)
            || path.iter().any(|part| part.as_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))
    };
    if !reserved(&placement.staging) && !reserved(&placement.target) {
        return Ok(());
    }
    refuse(
        Errno::INVAL,
        format!(
            "fpath {} uses a name that the daemon keeps for itself ({PRIVATE_DIRECTORY} at the \
             top, {TEMPORARY_PREFIX}* anywhere)",
            Quoted(placement.staging.as_os_str().as_bytes())
        ),
    )
}

#[cfg(test)]
mod tests;
