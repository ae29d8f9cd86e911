use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rustix::io::Errno;

use super::*;
use crate::config::Invocation;
use crate::fs::FsError;
use crate::fs::layout::{Layout, StripeCount};
use crate::fs::sim::{Operation, SimConfig, SimFs};

/// Directories, a map and passwords that are good, for this user.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a directory"));
        for directory in ["staging", "target", "archive"] {
            fs::create_dir(site.path(directory)).expect("made");
        }
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        fs::write(site.path("map"), format!("polaris tsmserver-8 1 {uid} {gid}\n")).expect("map");
        site.passwords("polaris hidden-word\n", 0o600);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn passwords(&self, text: &str, mode: u32) {
        fs::write(self.path("passwords"), text).expect("written");
        fs::set_permissions(self.path("passwords"), fs::Permissions::from_mode(mode)).expect("set");
    }

    fn config(&self, more: &[&str]) -> Config {
        let text = |name: &str| self.path(name).to_str().expect("UTF-8").to_owned();
        let mut arguments = vec!["fsqd".to_owned()];
        arguments.extend(["-l".to_owned(), text("staging"), "-i".to_owned(), text("map")]);
        arguments.extend(["--auth".to_owned(), format!("file:{}", text("passwords"))]);
        arguments.extend(["--archive".to_owned(), format!("dir:{}", text("archive"))]);
        arguments.extend(["--bind", "127.0.0.1", "-p", "0", "-s", "1"].map(str::to_owned));
        arguments.extend(["--buffer-memory", "16M", "--max-sessions", "8"].map(str::to_owned));
        arguments.extend(more.iter().map(|&word| word.to_owned()));
        arguments.push(text("target"));
        match Config::parse(arguments.into_iter().map(Into::into)) {
            Ok(Invocation::Run(config)) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn check(&self, more: &[&str]) -> Vec<Finding> {
        let mut findings = Vec::new();
        all(&self.config(more), |finding| findings.push(finding));
        assert!(findings.iter().all(|finding| !finding.text.contains("hidden-word")));
        findings
    }
}

fn texts(findings: &[Finding], severity: Severity) -> Vec<&str> {
    let of = findings.iter().filter(|finding| finding.severity == severity);
    of.map(|finding| finding.text.as_str()).collect()
}

/// That all of these, and nothing else, is found wrong.
fn only_errors(findings: &[Finding], parts: &[&str]) {
    let errors = texts(findings, Severity::Error);
    assert_eq!(errors.len(), parts.len(), "{errors:#?}");
    for part in parts {
        assert!(errors.iter().any(|error| error.contains(part)), "{part}: {errors:#?}");
    }
}

fn contains(findings: &[Finding], severity: Severity, part: &str) {
    let found = texts(findings, severity);
    assert!(found.iter().any(|text| text.contains(part)), "{part}: {findings:#?}");
}

#[test]
fn what_works_is_said_and_nothing_is_left_behind() {
    let site = Site::new();
    let findings = site.check(&[]);
    only_errors(&findings, &[]);
    for part in [
        "map: 1 nodes",
        "passwords: 1 nodes",
        "staging directory",
        "ring ",
        "io_uring writes to the staging directory",
        "target: files can be written, published and removed; it keeps",
        "is not Lustre",
        "archive: files can be written",
        "mounted on ",
        "are free",
        "the directories lie apart",
        "is free",
    ] {
        contains(&findings, Severity::Good, part);
    }
    for directory in ["target", "archive"] {
        assert_eq!(fs::read_dir(site.path(directory)).expect("there").count(), 0);
    }
    // A second check finds the same.
    only_errors(&site.check(&[]), &[]);
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let site = Site::new();
    fs::write(site.path("map"), "polaris tsmserver-8 1\n").expect("written");
    site.passwords("polaris hidden-word\n", 0o644);
    for directory in ["staging", "target", "archive"] {
        fs::remove_dir(site.path(directory)).expect("empty");
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let findings = site.check(&["-p", &port]);
    only_errors(
        &findings,
        &[
            "map:1: 3 columns",
            "chmod 600",
            "staging directory (--localfs)",
            "target directory",
            "archive directory",
            "is taken by another process",
        ],
    );
    contains(&findings, Severity::Good, "ring ");
}

#[test]
fn directories_in_each_other_are_found_behind_symlinks() {
    let site = Site::new();
    fs::remove_dir(site.path("target")).expect("empty");
    std::os::unix::fs::symlink("staging", site.path("target")).expect("linked");
    only_errors(&site.check(&[]), &["must not lie in each other"]);
}

#[test]
fn nodes_that_cannot_sign_on_are_named() {
    let site = Site::new();
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let lines: Vec<_> = (0..12).map(|number| format!("n{number} server 1 {uid} {gid}\n")).collect();
    fs::write(site.path("map"), lines.concat()).expect("written");
    site.passwords("n0 hidden-word\nn5 hidden-word\n", 0o600);
    let findings = site.check(&[]);
    only_errors(&findings, &[]);
    contains(&findings, Severity::Warning, "none for n1, n2, n3, n4, n6, n7, n8, n9 and 2 more, ");
    let open = site.check(&["--auth", "none"]);
    contains(&open, Severity::Warning, "passwords are not checked (--auth none)");
}

#[test]
fn a_missing_tsm_library_is_an_error_only_where_it_was_asked_for() {
    let site = Site::new();
    let library = ["--tsm-library", "/nonexistent/libApiTSM64.so"];
    let asked = site.check(&["--auth", "tsm", library[0], library[1]]);
    only_errors(&asked, &["/nonexistent/libApiTSM64.so"]);
    let mut default = site.config(&library);
    default.auth = Auth::Tsm { asked: false, cache: Duration::ZERO };
    let mut findings = Findings::default();
    passwords(&default, &IdentityMap::default(), &mut findings);
    assert_eq!(findings.0.len(), 1);
    contains(&findings.0, Severity::Warning, "nobody could sign on");
    contains(&findings.0, Severity::Warning, "--auth file:PATH");
}

#[test]
fn a_staging_directory_that_is_too_full_is_named() {
    let mut findings = Findings::default();
    let half = Space { total_bytes: 100 << 30, available_bytes: 5 << 30 };
    let complain = |used: u64| (used > 90).then(|| "above --staging-high 90".to_owned());
    space("staging", Path::new("/s"), Ok(half), &mut findings, complain);
    let text = "staging /s: 5.0 GiB of 100 GiB are free, 95 % used, above --staging-high 90";
    assert_eq!(texts(&findings.0, Severity::Warning), [text]);
    let failed = Err(FsError { call: "fstatfs", errno: Errno::IO });
    space("staging", Path::new("/s"), failed, &mut findings, complain);
    contains(&findings.0, Severity::Error, "staging /s: fstatfs");
}

/// What a probe finds on a file system where one operation fails.
fn probed(operation: Option<(Operation, Errno)>) -> (Vec<Finding>, usize) {
    let fs = SimFs::new(SimConfig::lustre());
    let root = fs.open_root(Path::new("/")).expect("a root");
    if let Some((operation, errno)) = operation {
        fs.fail_nth(operation, 1, errno);
    }
    let mut findings = Findings::default();
    probe::run(&fs, &root, "target /t", Some((1000, 2000)), &mut findings);
    (findings.0, fs.entries(&root).expect("listed").len())
}

#[test]
fn a_probe_tells_what_fails_and_removes_what_it_made() {
    let (findings, left) = probed(None);
    assert_eq!((findings.len(), left), (1, 0), "{findings:?}");
    assert_eq!(findings[0].severity, Severity::Good);
    for (operation, errno, part) in [
        (Operation::CreateNamed, Errno::ROFS, "no file can be created"),
        (Operation::WriteAllAt, Errno::NOSPC, "cannot be written"),
        (Operation::Sync, Errno::IO, "cannot be written"),
        (Operation::SetOwnership, Errno::PERM, "without root squash"),
        (Operation::Link, Errno::PERM, "second name"),
        // The first to be removed is the second name.
        (Operation::Remove, Errno::IO, ".2 cannot be removed"),
    ] {
        let (findings, left) = probed(Some((operation, errno)));
        let expected = (1, usize::from(operation == Operation::Remove));
        assert_eq!((findings.len(), left), expected, "{operation:?}: {findings:?}");
        assert_eq!(findings[0].severity, Severity::Error);
        assert!(findings[0].text.contains(part), "{findings:?}");
    }
}

#[test]
fn a_check_that_hangs_is_left_behind() {
    let (_hold, hang) = mpsc::channel::<()>();
    let findings = within(Duration::from_millis(20), "target", move |findings| {
        let _ = hang.recv();
        findings.good("never said");
    });
    assert_eq!(findings.len(), 1);
    contains(&findings, Severity::Error, "target: no answer within");
}

#[test]
fn sizes_are_said_as_people_do() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (256 << 20, "256 MiB"),
        ((10 << 30) - 1, "9.9 GiB"),
        (u64::MAX, "16383 PiB"),
    ] {
        assert_eq!(Bytes(bytes).to_string(), text);
    }
}

#[test]
fn a_layout_is_tried_and_nothing_is_left_of_it() {
    let layout = Layout { stripes: StripeCount::All, stripe_bytes: None, pool: None };
    let check = |config: SimConfig, fault: Option<(Operation, Errno)>| {
        let fs = SimFs::new(config);
        let root = fs.open_root(Path::new("/")).expect("a root");
        if let Some((operation, errno)) = fault {
            fs.fail_nth(operation, 1, errno);
        }
        let mut findings = Findings::default();
        probe::layout(&fs, &root, "target /t", &layout, &mut findings);
        assert_eq!(fs.paths(), [], "{fault:?}");
        let [finding] = &findings.0[..] else { panic!("{findings:?}") };
        finding.severity
    };
    assert_eq!(check(SimConfig::lustre(), None), Severity::Good);
    assert_eq!(check(SimConfig::ext4(), None), Severity::Error);
    for (operation, errno, severity) in [
        (Operation::SetLayout, Errno::NOSPC, Severity::Warning),
        (Operation::SetLayout, Errno::INVAL, Severity::Error),
        (Operation::CreateNamed, Errno::ACCESS, Severity::Error),
    ] {
        assert_eq!(check(SimConfig::lustre(), Some((operation, errno))), severity, "{errno}");
    }
}
