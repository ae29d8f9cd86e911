//! Sign-on at a TSM server, which is the simulated client library and a directory. How often the
//! server was asked is what the daemon says in its log of questions.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fsq_wire::Op;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::support::daemon::{Daemon, run_to_end};
use crate::support::deployed::{Deployed, Reply};
use crate::support::log::Log;
use crate::support::site::{NODE, OTHER_NODE, OTHER_PASSWORD, PASSWORD, Site};
use crate::support::{shared_turn, text};

const WRONG: &str = "hunter2-hunter2";
const SECRETS: [&str; 3] = [PASSWORD, OTHER_PASSWORD, WRONG];
const ACCESS: i32 = Errno::ACCESS.raw_os_error();

/// The directory of the server.
fn server(site: &Site) -> PathBuf {
    site.root().join("tsm")
}

/// Both nodes of the site, and one that it does not know, on a server with these settings.
fn register(site: &Site, settings: &str) {
    let server = server(site);
    sim_tsm::configure(&server, settings).expect("configured");
    for (node, password) in [(NODE, PASSWORD), (OTHER_NODE, OTHER_PASSWORD), ("foreign", PASSWORD)]
    {
        sim_tsm::register_node(&server, node, password, "").expect("registered");
    }
}

fn command(site: &Site, options: &[&str]) -> Command {
    let mut command = site.command(&[&["-v", "info"], options].concat());
    command.env("TSM_SIM_DIR", server(site)).env_remove("FSQD_TSM_LIBRARY");
    command
}

/// With sign-on at the server.
fn start(site: &Site, options: &[&str]) -> Daemon {
    let library = sim_tsm::library().expect("the simulator is built");
    let tsm = ["--auth", "tsm", "--tsm-library", text(&library)];
    Daemon::start(&mut command(site, &[&tsm, options].concat()), &SECRETS)
}

/// One client that signs on; its answer, in which no password may be.
fn sign_on(port: u16, node: &str, password: &str) -> Reply {
    let reply = Deployed::connect(port).sign_on(node, password);
    let shown = String::from_utf8_lossy(&reply.bytes).into_owned();
    assert!(SECRETS.iter().all(|secret| !shown.contains(secret)), "a password comes back");
    reply
}

fn accepted(daemon: &Daemon, node: &str, password: &str) {
    sign_on(daemon.port(), node, password).accepted(Op::Connect);
}

fn refused(daemon: &Daemon, node: &str, password: &str, errno: i32, words: &[&str]) {
    sign_on(daemon.port(), node, password).refused(errno, words);
}

/// Ends the daemon; how often it has asked the server.
fn questions(daemon: Daemon) -> usize {
    let log: Log = daemon.log().clone();
    daemon.stop();
    log.lines().iter().filter(|line| line.contains(", asked for ")).count()
}

fn reload(daemon: &Daemon) {
    let before = daemon.log().lines().len();
    daemon.signal(Signal::HUP);
    daemon.log().wait_from(before, "of the reload", |line| line.ends_with("read again"));
}

#[test]
fn passwords_are_those_that_the_server_knows() {
    let _turn = shared_turn();
    let site = Site::new();
    register(&site, "");
    let daemon = start(&site, &[]);
    accepted(&daemon, NODE, PASSWORD);
    let words = ["node 'polaris': TSM server 'tsmserver-8' refuses the password: 137 DSM_RC_"];
    refused(&daemon, NODE, WRONG, ACCESS, &words);
    refused(&daemon, NODE, "", ACCESS, &["password"]);
    refused(&daemon, OTHER_NODE, PASSWORD, ACCESS, &["137 DSM_RC_"]);
    accepted(&daemon, OTHER_NODE, OTHER_PASSWORD);
    // The server knows it, but the site does not.
    refused(&daemon, "foreign", PASSWORD, ACCESS, &["unknown here or its password is wrong"]);

    sim_tsm::register_node(&server(&site), OTHER_NODE, OTHER_PASSWORD, "locked yes")
        .expect("written");
    accepted(&daemon, OTHER_NODE, OTHER_PASSWORD);
    reload(&daemon);
    refused(&daemon, OTHER_NODE, OTHER_PASSWORD, ACCESS, &["refuses the sign-on: 61 DSM_RC_"]);

    let log = daemon.log().clone();
    daemon.stop();
    assert!(log.lines().iter().all(|line| !line.contains("node 'foreign', asked")));
}

#[test]
fn reconnecting_does_not_wait_for_a_slow_server() {
    let _turn = shared_turn();
    const RECONNECTS: u32 = 200;
    let site = Site::new();
    register(&site, "delay dsmInitEx 200\n");
    let daemon = start(&site, &[]);
    let begun = Instant::now();
    for _ in 0..RECONNECTS {
        accepted(&daemon, NODE, PASSWORD);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(200), "the server is slow: {took:?}");
    println!("{:.0} sign-ons/s", f64::from(RECONNECTS) / took.as_secs_f64());
    assert_eq!(questions(daemon), 1);

    let daemon = start(&site, &["--sign-on-cache", "0"]);
    for _ in 0..3 {
        accepted(&daemon, NODE, PASSWORD);
    }
    assert_eq!(questions(daemon), 3);
}

#[test]
fn clients_that_come_together_cost_one_question_a_node() {
    let _turn = shared_turn();
    let site = Site::new();
    register(&site, "delay dsmInitEx 200\n");
    let daemon = start(&site, &[]);
    let port = daemon.port();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| sign_on(port, NODE, PASSWORD).accepted(Op::Connect));
            scope.spawn(|| sign_on(port, OTHER_NODE, OTHER_PASSWORD).accepted(Op::Connect));
        }
    });
    assert_eq!(questions(daemon), 2);
}

#[test]
fn a_client_in_a_loop_does_not_get_its_node_locked() {
    let _turn = shared_turn();
    let site = Site::new();
    register(&site, "");
    let daemon = start(&site, &[]);
    for _ in 0..100 {
        refused(&daemon, NODE, WRONG, ACCESS, &["137 DSM_RC_"]);
    }
    refused(&daemon, NODE, WRONG, ACCESS, &["the same password is tried again in"]);
    // Who knows the password is held up neither by one that does not nor by one who guesses.
    accepted(&daemon, NODE, PASSWORD);
    for guess in 0..100 {
        refused(&daemon, NODE, &format!("guess {guess}"), ACCESS, &["137 DSM_RC_"]);
    }
    accepted(&daemon, NODE, PASSWORD);
    // The wrong one, the right one, three guesses, and the right one anew.
    assert_eq!(questions(daemon), 6);
}

#[test]
fn a_server_that_is_down_is_told_from_a_wrong_password() {
    let _turn = shared_turn();
    let site = Site::new();
    register(&site, "");
    let daemon = start(&site, &[]);
    accepted(&daemon, OTHER_NODE, OTHER_PASSWORD);
    register(&site, "fail dsmInitEx * -50\n");
    let again = Errno::AGAIN.raw_os_error();
    refused(&daemon, NODE, PASSWORD, again, &["try again later: -50 DSM_RC_TCPIP_FAILURE"]);
    // It is remembered.
    accepted(&daemon, OTHER_NODE, OTHER_PASSWORD);
    register(&site, "");
    reload(&daemon);
    accepted(&daemon, NODE, PASSWORD);
    daemon.stop();
}

const MISSING: &str = "/nonexistent/libApiTSM64.so";

#[test]
fn without_the_library_the_names_tried_and_the_alternative_are_given() {
    let _turn = shared_turn();
    let site = Site::new();
    let asked = ["--auth", "tsm", "--tsm-library", MISSING];
    let ended = run_to_end(&mut command(&site, &asked));
    assert_eq!(ended.status, 1, "{}", ended.text);
    for words in [MISSING, "No such file", "--tsm-library", "--auth file:PATH"] {
        assert!(ended.text.contains(words), "{}", ended.text);
    }
    // As the default it does not keep the daemon from draining.
    let mut default = Site::bare_command();
    let (staging, identmap) = (site.staging(), site.identmap());
    default.args(["-l", text(&staging), "-i", text(&identmap), "--tsm-library", MISSING]);
    default.args(["--bind", "127.0.0.1", "-p", "0", "-s", "1"]).arg(site.target());
    let daemon = Daemon::start(&mut default, &SECRETS);
    refused(&daemon, NODE, PASSWORD, ACCESS, &["nobody can sign on here", MISSING]);
    daemon.stop();
}

#[test]
fn check_config_says_what_works_and_what_does_not() {
    let _turn = shared_turn();
    let site = Site::new();
    register(&site, "");
    let library = sim_tsm::library().expect("the simulator is built");
    let checked = |options: &[&str]| {
        let ended = run_to_end(&mut command(&site, &[&["--check-config"], options].concat()));
        let secret = SECRETS.iter().find(|secret| ended.text.contains(**secret));
        assert_eq!(secret, None, "a password is shown");
        ended
    };
    // Also where the log would be silent.
    let tsm = ["--auth", "tsm", "--tsm-library", text(&library), "-v", "error"];
    let good = checked(&tsm);
    assert_eq!(good.status, 0, "{}", good.text);
    for words in ["level 8.1.13.0, starts", "not tried", "tsmserver-8", "the configuration works"] {
        assert!(good.text.contains(words), "{words}: {}", good.text);
    }
    let is_good = |line: &str| line.starts_with("[M] ") || line.starts_with("[W] ");
    assert!(good.text.lines().all(is_good), "{}", good.text);

    // The archive's account is the daemon's own, so that its password can be tried.
    let file = site.root().join("archive-password");
    let node = ["--archive", "tsm", "--archive-node", NODE, "--archive-password-file", text(&file)];
    for (password, status, words) in
        [(PASSWORD, 0, "signs on to TSM-SIM as polaris"), (WRONG, 1, "137 DSM_RC_")]
    {
        std::fs::write(&file, password).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        let ended = checked(&[&tsm[..], &node].concat());
        assert_eq!(ended.status, status, "{}", ended.text);
        assert!(ended.text.contains(words), "{words}: {}", ended.text);
    }

    std::fs::remove_dir(site.target()).expect("empty");
    let missing = Path::new(MISSING);
    let bad = checked(&["--auth", "tsm", "--tsm-library", text(missing)]);
    assert_eq!(bad.status, 1, "{}", bad.text);
    for words in [MISSING, "target directory", "does not work: 2 errors"] {
        assert!(bad.text.contains(words), "{words}: {}", bad.text);
    }
}
