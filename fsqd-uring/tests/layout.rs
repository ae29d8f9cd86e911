//! Files with a layout on the file systems of this machine, through a simulated Lustre library.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use fsqd_uring::fs::layout::StripeCount;
use fsqd_uring::fs::{Fs, FsType, Kind, Layout, LinuxFs, Ownership};
use rustix::io::Errno;
use tsm_bindings::lustre::Lustre;

const OWNER: Ownership = Ownership { uid: None, gid: None, mode: 0o2666 };

fn layout() -> Layout {
    Layout { stripes: StripeCount::All, stripe_bytes: Some(1 << 20), pool: Some("p".to_owned()) }
}

/// A directory on the simulated file system, with two directories in it.
fn site() -> tempfile::TempDir {
    let library = sim_lustre::library().expect("the simulator is built");
    Lustre::load(Some(&library)).expect("loaded");
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    sim_lustre::configure(root.path(), "").expect("configured");
    for name in ["mine", "other"] {
        fs::create_dir(root.path().join(name)).expect("created");
    }
    root
}

#[test]
fn a_file_is_made_in_the_open_directory_wherever_its_path_leads() {
    let site = site();
    let root = LinuxFs.open_root(site.path()).expect("a directory");
    let mine = LinuxFs.directory(&root, Path::new("mine"), None, false).expect("there");
    fs::rename(site.path().join("mine"), site.path().join("moved")).expect("moved");
    symlink("other", site.path().join("mine")).expect("linked");

    let file = LinuxFs.create_laid_out(&mine, Path::new("f"), OWNER, &layout()).expect("made");
    LinuxFs.write_all_at(&file, b"content", 0).expect("open for writing");
    let path = site.path().join("moved/f");
    assert_eq!(fs::read(&path).expect("there"), b"content");
    assert_eq!(fs::read_dir(site.path().join("other")).expect("readable").count(), 0);
    // Exactly, whatever the umask.
    let mode = path.metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, OWNER.mode);
    let kept = sim_lustre::layout_of(&path).expect("on Lustre").expect("made with a layout");
    assert_eq!((kept.stripe_bytes, kept.pool.as_str()), (1 << 20, "p"));
}

#[test]
fn what_stands_under_the_name_is_neither_followed_nor_touched() {
    let site = site();
    let root = LinuxFs.open_root(site.path()).expect("a directory");
    fs::write(site.path().join("file"), b"old").expect("written");
    symlink("other/new", site.path().join("link")).expect("linked");
    for (name, kind) in [("file", Kind::File), ("link", Kind::Other), ("mine", Kind::Directory)] {
        let made = LinuxFs.create_laid_out(&root, Path::new(name), OWNER, &layout());
        assert_eq!(made.expect_err(name).errno, Errno::EXIST, "{name}");
        assert_eq!(LinuxFs.stat_at(&root, Path::new(name)).map(|stat| stat.kind), Ok(kind));
    }
    assert_eq!(fs::read(site.path().join("file")).expect("there"), b"old");
    assert!(!site.path().join("other/new").exists());
}

#[test]
fn where_there_are_no_layouts_the_library_s_answer_arrives() {
    let _site = site();
    let elsewhere = tempfile::tempdir().expect("a directory");
    let root = LinuxFs.open_root(elsewhere.path()).expect("a directory");
    assert_ne!(LinuxFs.fs_type(&root), Ok(FsType::LUSTRE));
    let error = LinuxFs.create_laid_out(&root, Path::new("f"), OWNER, &layout());
    let error = error.expect_err("not Lustre");
    assert_eq!((error.call, error.errno), ("llapi_layout_file_open", Errno::NOTTY));
    // Whoever asked removes what is left behind.
    assert_eq!(LinuxFs.stat_at(&root, Path::new("f")).map(|stat| stat.len), Ok(0));
}
