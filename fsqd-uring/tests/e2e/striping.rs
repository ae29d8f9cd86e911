//! `--stripe-above`: large files get their layout on a simulated Lustre, and never wait for it.

use std::fs;
use std::process::Command;

use fsq_wire::StorageDest;
use sim_lustre::FileLayout;
use tsm_bindings::lustre::sys;

use crate::support::content::bytes;
use crate::support::daemon::{Daemon, Ended, run_to_end};
use crate::support::deployed::Deployed;
use crate::support::site::{OTHER_PASSWORD, PASSWORD, Site};
use crate::support::{eventually, shared_turn, text, tree};

const MIB: usize = 1 << 20;

fn command(site: &Site, options: &[&str]) -> Command {
    let mut command = site.command(options);
    let library = sim_lustre::library().expect("the simulator is built");
    command.env("FSQD_LUSTRE_LIBRARY", library);
    command
}

fn start(site: &Site, options: &[&str]) -> Daemon {
    Daemon::start(&mut command(site, options), &[PASSWORD, OTHER_PASSWORD])
}

fn upload(site: &Site, daemon: &Daemon, name: &str, len: usize) {
    let mut client = Deployed::signed_on(daemon.port());
    let content = bytes(len as u64, len);
    client.upload(&format!("/lustre/data/{name}"), StorageDest::Lustre, &content, MIB);
    let delivered = site.delivered(&format!("data/{name}"));
    eventually("it is delivered", || delivered.exists().then_some(()));
    assert!(fs::read(&delivered).expect("readable") == content, "{name}");
}

fn layout(site: &Site, name: &str) -> Option<FileLayout> {
    sim_lustre::layout_of(&site.delivered(&format!("data/{name}"))).expect("on Lustre")
}

#[test]
fn files_from_the_limit_on_get_the_layout() {
    let _turn = shared_turn();
    let site = Site::new();
    sim_lustre::configure(&site.target(), "fsname scratch").expect("configured");
    let conf = site.root().join("fsqd.conf");
    fs::write(&conf, "stripe-count 4\nstripe-size 2M\nstripe-pool flash\n").expect("written");
    let daemon = start(&site, &["-c", text(&conf), "--stripe-above", "1M"]);
    daemon.log().wait("of the striping", |line| {
        line.contains("files from 1048576 bytes on get stripe count 4") && line.contains("flash")
    });
    for (name, len) in [("under", MIB - 1), ("at", MIB), ("over", 3 * MIB + 5)] {
        upload(&site, &daemon, name, len);
    }
    assert_eq!(layout(&site, "under"), None);
    let flash = FileLayout { stripe_count: 4, stripe_bytes: 2 << 20, pool: "flash".to_owned() };
    assert_eq!(layout(&site, "at"), Some(flash.clone()));
    assert_eq!(layout(&site, "over"), Some(flash));
    daemon.stop();

    let daemon = start(&site, &["--stripe-above", "64K"]);
    upload(&site, &daemon, "wide", 64 << 10);
    let (stripe_count, stripe_bytes) = (sys::LAYOUT_WIDE, sys::LAYOUT_DEFAULT);
    let wide = FileLayout { stripe_count, stripe_bytes, pool: String::new() };
    assert_eq!(layout(&site, "wide"), Some(wide));
    daemon.stop();
    // Off unless it is asked for.
    let daemon = start(&site, &[]);
    upload(&site, &daemon, "plain", 2 * MIB);
    assert_eq!(layout(&site, "plain"), None);
    daemon.stop();
}

#[test]
fn a_layout_that_is_refused_keeps_no_file_back_and_is_told_of_once() {
    let _turn = shared_turn();
    let site = Site::new();
    for (errno, words) in [(22, "Invalid argument"), (28, "No space left")] {
        let fault = format!("fail setstripe * {errno}");
        sim_lustre::configure(&site.target(), &fault).expect("configured");
        let daemon = start(&site, &["--stripe-above", "1M"]);
        for n in 0..5 {
            let name = format!("{errno}-{n}");
            upload(&site, &daemon, &name, MIB + n);
            assert_eq!(layout(&site, &name), None);
        }
        let last = format!("data/{errno}-4");
        daemon
            .log()
            .wait("of the last file", |line| line.contains(" copied ") && line.contains(&last));
        eventually("staging is free", || tree::files(&site.staging()).is_empty().then_some(()));
        let lines = daemon.log().lines();
        let told: Vec<_> = lines.iter().filter(|line| line.contains("could not get")).collect();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].starts_with("[W] ") && told[0].contains(words), "{told:#?}");
        assert!(told[0].contains(&format!("data/{errno}-0")), "{told:#?}");
        assert!(!lines.iter().any(|line| line.contains("target is down")), "{lines:#?}");
        daemon.stop();
    }
    let parts = |name: &String| name.contains(".fsq-part.");
    let names: Vec<_> = tree::files(&site.target().join("data"))
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert!(names.len() == 10 && !names.iter().any(parts), "{names:?}");
}

fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status, 1, "{}", ended.text);
    for word in words {
        assert!(ended.text.contains(word), "{word} is not in: {}", ended.text);
    }
    assert!(!ended.text.contains("listening"), "{}", ended.text);
}

#[test]
fn without_lustre_or_a_library_that_can_do_it_nothing_starts() {
    let site = Site::new();
    let cure = "leave the --stripe options away";
    let asked = ["--stripe-above", "1G"];
    let ended = run_to_end(&mut command(&site, &asked));
    refused(&ended, &["--stripe-above", "must be on Lustre", text(&site.target()), cure]);

    let mut missing = site.command(&asked);
    missing.env("FSQD_LUSTRE_LIBRARY", "/no/such/library.so");
    let words = ["--stripe-above", "/no/such/library.so", "lustre-client", cure];
    refused(&run_to_end(&mut missing), &words);

    sim_lustre::configure(&site.target(), "").expect("configured");
    let library = sim_lustre::library_before_layouts(site.root()).expect("made");
    let mut old = site.command(&asked);
    old.env("FSQD_LUSTRE_LIBRARY", &library);
    let words = ["--stripe-above", text(&library), "llapi_layout_file_open", "too old", cure];
    refused(&run_to_end(&mut old), &words);
    assert!(tree::below(&site.staging()).is_empty());
}

#[test]
fn check_config_makes_a_file_with_the_layout_and_removes_it() {
    let site = Site::new();
    let check = |settings: &str| {
        sim_lustre::configure(&site.target(), settings).expect("configured");
        let options = ["--check-config", "--stripe-above", "1G", "--stripe-count", "8"];
        let ended = run_to_end(&mut command(&site, &options));
        let left: Vec<_> = fs::read_dir(site.target())
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name())
            .filter(|name| name != sim_lustre::STATE)
            .collect();
        assert!(left.is_empty(), "{left:?}");
        ended
    };
    let good = check("");
    assert_eq!(good.status, 0, "{}", good.text);
    assert!(good.text.contains("a file can be made with stripe count 8"), "{}", good.text);
    let bad = check("fail setstripe * 22");
    refused(&bad, &["no file can be made with stripe count 8", "Invalid argument", "pool_list"]);
    let full = check("fail setstripe * 28");
    assert_eq!(full.status, 0, "{}", full.text);
    assert!(full.text.contains("[W] ") && full.text.contains("No space left"), "{}", full.text);
}
