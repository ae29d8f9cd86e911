//! Tries on a file system what the daemon will do there: create, write, sync, give away, link,
//! remove.
//!
//! Invariant: what it creates it removes, whatever fails in between, or names it.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Findings;
use crate::drain::stripe::is_lack_of_space;
use crate::fs::{Fs, FsError, Layout, Ownership};

const ATTRIBUTE: &str = "user.fsq.check";
const CONTENT: &[u8] = b"written by fsqd --check-config\n";

/// Tries it in the directory `root`, called `what` in the findings. Files are to be given to
/// `owner`, user and group.
pub(super) fn run<F: Fs>(
    fs: &F,
    root: &F::Node,
    what: &str,
    owner: Option<(u32, u32)>,
    findings: &mut Findings,
) {
    let name = PathBuf::from(format!(".fsqd-check-{}", std::process::id()));
    let mode = Ownership { uid: None, gid: None, mode: 0o600 };
    let file = match fs.create_named(root, &name, mode, false) {
        Ok(file) => file,
        Err(error) => {
            return findings.error(format!(
                "{what}: no file can be created: {error}; check its owner and mode, whether it is \
                 mounted read-only, and whether the user of the daemon may write there"
            ));
        }
    };
    let before = findings.0.len();
    let written = fs.write_all_at(&file, CONTENT, 0).and_then(|()| fs.sync(&file));
    if let Err(error) = written {
        findings.error(format!("{what}: a file cannot be written: {error}"));
    }
    give_away(fs, &file, what, owner, findings);
    name_again(fs, root, &file, &name, what, findings);
    let stored = fs.set_attribute(&file, ATTRIBUTE, CONTENT);
    let kept = stored.and_then(|()| fs.attribute(&file, ATTRIBUTE));
    let attributes = kept.is_ok_and(|value| value.as_deref() == Some(CONTENT));
    remove(fs, root, &name, what, findings);
    if findings.0.len() == before {
        let attributes = if attributes { "it keeps" } else { "it keeps no" };
        findings.good(format!(
            "{what}: files can be written, published and removed; {attributes} extended attributes"
        ));
    }
}

/// Tries to make a file with a layout in the directory `root`, called `what` in the findings.
pub(super) fn layout<F: Fs>(
    fs: &F,
    root: &F::Node,
    what: &str,
    layout: &Layout,
    findings: &mut Findings,
) {
    let name = PathBuf::from(format!(".fsqd-check-{}.layout", std::process::id()));
    let mode = Ownership { uid: None, gid: None, mode: 0o600 };
    let Err(error) = fs.create_laid_out(root, &name, mode, layout) else {
        findings.good(format!("{what}: a file can be made with {layout}"));
        return remove(fs, root, &name, what, findings);
    };
    let text = format!("{what}: no file can be made with {layout}: {error}");
    if is_lack_of_space(error.errno) {
        findings.warning(format!("{text}; while that is so, large files are delivered without"));
    } else {
        findings.error(format!(
            "{text}; large files would be delivered without; check the pool (lfs pool_list) and \
             the numbers, or leave the --stripe options away"
        ));
    }
    // Most failures leave the file behind.
    if error.errno != Errno::EXIST
        && !matches!(fs.stat_at(root, &name), Err(FsError { errno: Errno::NOENT, .. }))
    {
        remove(fs, root, &name, what, findings);
    }
}

fn give_away<F: Fs>(
    fs: &F,
    file: &F::Node,
    what: &str,
    owner: Option<(u32, u32)>,
    findings: &mut Findings,
) {
    let Some((uid, gid)) = owner else { return };
    let owner = Ownership { uid: Some(uid), gid: Some(gid), mode: 0o640 };
    match fs.set_ownership(file, owner) {
        Ok(()) => {}
        Err(error) if error.errno == Errno::PERM => findings.error(format!(
            "{what}: files cannot be given to uid {uid}, gid {gid}, as the identity map wants it \
             ({error}); run the daemon as root, and export the file system without root squash"
        )),
        Err(error) => findings
            .error(format!("{what}: files cannot be given to uid {uid}, gid {gid}: {error}")),
    }
}

/// Publishing without replacing needs hard links or renameat2 with its flag.
fn name_again<F: Fs>(
    fs: &F,
    root: &F::Node,
    file: &F::Node,
    name: &Path,
    what: &str,
    findings: &mut Findings,
) {
    let second = name.with_extension("2");
    let linked = fs.stat(file).and_then(|stat| fs.link(root, name, stat.inode, &second));
    match linked {
        Ok(()) => remove(fs, root, &second, what, findings),
        Err(error) => {
            let there_and_back = fs
                .rename_noreplace(root, name, &second)
                .and_then(|()| fs.rename_noreplace(root, &second, name));
            if there_and_back.is_err() {
                findings.error(format!(
                    "{what}: a file cannot be given a second name ({error}), nor another one without \
                     replacing: files could not appear there whole or not at all"
                ));
            }
        }
    }
}

fn remove<F: Fs>(fs: &F, root: &F::Node, name: &Path, what: &str, findings: &mut Findings) {
    if let Err(error) = fs.remove(root, name) {
        let name = name.display();
        findings.error(format!("{what}: {name} cannot be removed: {error}; remove it by hand"));
    }
}
