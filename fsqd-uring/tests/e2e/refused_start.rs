//! What keeps the daemon from starting: one clear line, an exit status, and nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::daemon::{Ended, run_to_end};
use crate::support::mount::Mount;
use crate::support::site::{PASSWORD, Site};
use crate::support::{shared_turn, skip, text, tree};

/// Options that make no sense.
const USAGE: i32 = 2;
/// Everything else that prevents the start.
const UNUSABLE: i32 = 1;

/// The daemon has said no, with all of `words`, in a single line of complaint.
fn refused(ended: &Ended, status: i32, words: &[&str]) {
    assert_eq!(ended.status, status, "{}", ended.text);
    for word in words {
        assert!(ended.text.contains(word), "'{word}' is not in: {}", ended.text);
    }
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
    assert!(!ended.text.contains(PASSWORD), "a password is shown: {}", ended.text);
    assert!(!ended.text.contains("listening"), "{}", ended.text);
}

#[test]
fn senseless_options() {
    let site = Site::new();
    for (options, words) in [
        (&["--frobnicate"][..], &["--frobnicate"][..]),
        (&["-p", "65536"], &["65536", "65535"]),
        (&["-s", "0"], &["-s", "0"]),
        (&["-q", "many"], &["many"]),
        (&["-t", "-1"], &["-1"]),
        (&["-v", "loud"], &["loud"]),
        (&["--durability", "maybe"], &["maybe"]),
        (&["--archive", "dir:"], &["--archive", "dir:"]),
        (&["--bind", "localhost:1"], &["localhost:1"]),
        (&["--bind", "0.0.0.0", "--auth", "none"], &["--auth none", "--insecure"]),
        (&["--buffer-memory", "1"], &["--buffer-memory"]),
    ] {
        refused(&run_to_end(&mut site.command(options)), USAGE, words);
    }
    let without_target = run_to_end(Site::bare_command().args(["-l", "/tmp", "-i", "/dev/null"]));
    refused(&without_target, USAGE, &["lustre_mount_point"]);
    let without_staging = run_to_end(Site::bare_command().args(["-i", "/dev/null", "/tmp"]));
    refused(&without_staging, USAGE, &["localfs"]);
    assert!(tree::below(&site.staging()).is_empty());
}

#[test]
fn bad_lines_are_named_by_file_and_number() {
    let site = Site::new();
    let good = "polaris tsmserver-8 1 1000 2000 /lustre/data\n";
    for (line, words) in [
        ("vega tsmserver-8 1 1000", "columns"),
        ("vega tsmserver-8 1 1000 2000 /lustre x", "columns"),
        ("vega tsmserver-8 one 1000 2000", "archive-id"),
        ("vega tsmserver-8 1 -1 2000", "uid"),
        ("vega tsmserver-8 1 1000 99999999999", "gid"),
        ("vega tsmserver-8 1 1000 2000 lustre/data", "lustre/data"),
        ("vega tsmserver-8 1 1000 2000 /lustre/../etc", "'..'"),
        ("polaris tsmserver-8 1 1000 2000", "already"),
    ] {
        site.write_identmap(&format!("{good}\n# comment\n{line}\n"));
        let ended = run_to_end(&mut site.command(&[]));
        refused(&ended, UNUSABLE, &["identmap.conf:4: ", words]);
    }
    site.write_identmap("# nobody\n");
    refused(&run_to_end(&mut site.command(&[])), UNUSABLE, &["identmap.conf", "no identity"]);
    site.write_identmap(good);

    let conf = site.root().join("fsqd.conf");
    for (line, words) in
        [("frobnicate 1", "frobnicate"), ("port 65536", "port"), ("qthreads", "qthreads")]
    {
        fs::write(&conf, format!("sthreads 2\n\n{line}\n")).expect("written");
        let ended = run_to_end(&mut site.command(&["-c", text(&conf)]));
        refused(&ended, UNUSABLE, &["fsqd.conf:3: ", words]);
    }

    // No word of such a line: it may be a password.
    fs::write(site.passwords(), format!("polaris {PASSWORD}\n{PASSWORD}\n")).expect("written");
    refused(&run_to_end(&mut site.command(&[])), UNUSABLE, &["passwords:2: ", "columns"]);
    assert!(tree::below(&site.staging()).is_empty());
}

#[test]
fn files_and_directories_that_cannot_be_used() {
    let site = Site::new();
    let missing = site.root().join("missing");
    let missing = text(&missing);
    refused(&run_to_end(&mut site.command(&["-l", missing])), UNUSABLE, &[missing, "No such file"]);
    refused(&run_to_end(&mut site.command(&["-i", missing])), UNUSABLE, &[missing, "No such file"]);
    refused(&run_to_end(&mut site.command(&["-c", missing])), UNUSABLE, &[missing, "No such file"]);
    let archive = format!("dir:{missing}");
    let ended = run_to_end(&mut site.command(&["--archive", &archive]));
    refused(&ended, UNUSABLE, &[missing, "No such file"]);

    let inside = format!("dir:{}", text(&site.staging()));
    let ended = run_to_end(&mut site.command(&["--archive", &inside]));
    refused(&ended, USAGE, &["staging directory", "archive directory"]);

    fs::set_permissions(site.passwords(), fs::Permissions::from_mode(0o644)).expect("set");
    refused(&run_to_end(&mut site.command(&[])), UNUSABLE, &["passwords", "chmod 600"]);
    fs::set_permissions(site.passwords(), fs::Permissions::from_mode(0o600)).expect("set");

    fs::remove_dir(site.target()).expect("empty");
    let target = site.target();
    let words = ["target", text(&target), "No such file"];
    refused(&run_to_end(&mut site.command(&[])), UNUSABLE, &words);
}

#[test]
fn occupied_port() {
    let site = Site::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("bound").port().to_string();
    let ended = run_to_end(&mut site.command(&["-p", &port]));
    refused(&ended, UNUSABLE, &[&port, "taken by another process"]);
}

#[test]
fn staging_directory_of_another_daemon() {
    let _turn = shared_turn();
    let site = Site::new();
    let first = site.start();
    let staging = site.staging();
    let ended = run_to_end(&mut site.command(&[]));
    refused(&ended, UNUSABLE, &[text(&staging), "another"]);
    first.stop();
    // The lock is gone with the process.
    site.start().stop();
    let killed = site.start();
    killed.kill();
    site.start().stop();
}

#[test]
fn staging_that_cannot_be_written() {
    let _turn = shared_turn();
    let mount = match Mount::ext4(32, ",ro") {
        Ok(mount) => mount,
        Err(reason) => return skip("staging_that_cannot_be_written", &reason),
    };
    let staging = mount.path();
    let site = Site::with_staging(&staging);
    let ended = run_to_end(&mut site.command(&[]));
    refused(&ended, UNUSABLE, &[text(&staging), "ead-only"]);
}
