//! Sign-on at a TSM server from outside: the daemon, the simulated client library, and clients that
//! speak the protocol. No line of any daemon may show a password.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fsq_wire::{Layout, Login, PACKET_BYTES, Packet, PacketMut, State, VERSION};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

const RIGHT: &str = "polaris1234";
const WRONG: &str = "hunter2-hunter2";
const SECRETS: [&str; 3] = [RIGHT, WRONG, "vega-5678"];

/// The directories of a daemon and of a TSM server.
struct Site(tempfile::TempDir);

impl Site {
    fn new(server: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let site = Self(tempfile::tempdir_in(root).expect("a directory"));
        for directory in ["staging", "target"] {
            fs::create_dir(site.path(directory)).expect("made");
        }
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let map = format!(
            "polaris tsmserver-8 1 {uid} {gid} /lustre/data\nvega tsmserver-8 2 {uid} {gid}\n"
        );
        fs::write(site.path("map"), map).expect("written");
        sim_tsm::configure(&site.tsm(), server).expect("configured");
        sim_tsm::register_node(&site.tsm(), "polaris", RIGHT, "").expect("registered");
        sim_tsm::register_node(&site.tsm(), "vega", "vega-5678", "").expect("registered");
        sim_tsm::register_node(&site.tsm(), "foreign", RIGHT, "").expect("registered");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn tsm(&self) -> PathBuf {
        self.path("tsm")
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fsqd"));
        let library = sim_tsm::library().expect("the simulator is built");
        command
            .env("TSM_SIM_DIR", self.tsm())
            .env_remove("FSQD_TSM_LIBRARY")
            .arg("-l")
            .arg(self.path("staging"))
            .arg("-i")
            .arg(self.path("map"))
            .arg("--tsm-library")
            .arg(library)
            .args(["--bind", "127.0.0.1", "-p", "0", "-v", "debug", "-s", "1", "-q", "1"])
            .args(["--buffer-memory", "16M", "--max-sessions", "64", "--archive", "none"])
            .args(options)
            .arg(self.path("target"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, options: &[&str]) -> Daemon {
        Daemon::start(&mut self.command(&[&["--auth", "tsm"], options].concat()))
    }

    /// Runs a daemon that is to end by itself: status, and all it says.
    fn run(&self, options: &[&str]) -> (Option<i32>, String) {
        let output = self.command(options).output().expect("fsqd runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).expect("UTF-8");
        check_secrets(&said);
        (output.status.code(), said)
    }
}

fn check_secrets(line: &str) {
    assert!(SECRETS.iter().all(|secret| !line.contains(secret)), "a password is shown: {line}");
}

/// A running daemon, killed when dropped.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
    port: u16,
}

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("fsqd can be started");
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        collect(stdout.expect("piped"), sender.clone());
        collect(stderr.expect("piped"), sender);
        let mut daemon = Self { child, lines, port: 0 };
        let line = daemon.wait("listening on port ");
        let digits =
            line.split("listening on port ").nth(1).and_then(|rest| rest.split(' ').next());
        daemon.port = digits.and_then(|digits| digits.parse().ok()).expect("a port");
        daemon
    }

    /// The next line with these words.
    fn wait(&self, words: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no line {words}"));
            check_secrets(&line);
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon is ours");
    }

    /// Ends it; all that it said since the last wait.
    fn stop(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        assert_eq!(self.child.wait().expect("a child of ours").code(), Some(0));
        let lines: Vec<String> = self.lines.iter().collect();
        lines.iter().for_each(|line| check_secrets(line));
        lines
    }

    fn sign_on(&self, node: &str, password: &str) -> (i32, String) {
        sign_on(self.port, node, password)
    }
}

/// Sends the lines of a stream on, to its end.
fn collect(stream: impl Read + Send + 'static, lines: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // After the test nobody listens.
            let _ = lines.send(line);
        }
    });
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails if it has ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One CONNECT; the code and reason of its answer.
fn sign_on(port: u16, node: &str, password: &str) -> (i32, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut bytes = [0; PACKET_BYTES];
    let mut packet = PacketMut::new(&mut bytes, Layout::C);
    packet.set_version(VERSION);
    packet.set_state(State::CONNECT);
    let (node, password) = (node.as_bytes(), password.as_bytes());
    let login = Login { node, password, hostname: b"localhost", port: 7625 };
    packet.set_login(&login).expect("fits");
    stream.write_all(&bytes).expect("sent");
    stream.read_exact(&mut bytes).expect("answered");
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    check_secrets(&shown);
    let packet = Packet::new(&bytes, Layout::C);
    let text = packet.error_text().expect("terminated");
    (packet.rc(), String::from_utf8(text.to_vec()).expect("UTF-8"))
}

/// How often the server was asked, by the daemon's own account.
fn questions(lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains(", asked for ")).count()
}

#[test]
fn right_and_wrong_passwords() {
    let site = Site::new("");
    let daemon = site.start(&[]);
    let access = -Errno::ACCESS.raw_os_error();
    assert_eq!(daemon.sign_on("polaris", RIGHT).0, 0);

    let (rc, reason) = daemon.sign_on("polaris", WRONG);
    assert_eq!(rc, access);
    let words = "node 'polaris': TSM server 'tsmserver-8' refuses the password: 137 DSM_RC_";
    assert!(reason.starts_with(words), "{reason}");
    assert_eq!(daemon.sign_on("vega", RIGHT).0, access, "the password of another node");
    assert_eq!(daemon.sign_on("vega", "vega-5678").0, 0);
    assert_eq!(daemon.sign_on("polaris", "").0, access);

    // Known to the server, but not here: nobody is asked about it.
    let (rc, reason) = daemon.sign_on("foreign", RIGHT);
    assert_eq!(rc, access);
    assert_eq!(reason, "node 'foreign' is unknown here or its password is wrong");

    sim_tsm::register_node(&site.tsm(), "vega", "vega-5678", "locked yes").expect("written");
    daemon.signal(Signal::HUP);
    daemon.wait("read again");
    let (rc, reason) = daemon.sign_on("vega", "vega-5678");
    assert_eq!(rc, access, "{reason}");
    assert!(reason.contains("61 DSM_RC_"), "{reason}");

    let lines = daemon.stop();
    assert!(lines.iter().all(|line| !line.contains("node 'foreign', asked")), "{lines:#?}");
}

#[test]
fn reconnecting_is_not_slowed_by_a_slow_server() {
    let site = Site::new("delay dsmInitEx 200\n");
    let daemon = site.start(&[]);
    const RECONNECTS: u32 = 200;
    let begun = Instant::now();
    for _ in 0..RECONNECTS {
        assert_eq!(daemon.sign_on("polaris", RIGHT).0, 0);
    }
    let took = begun.elapsed();
    // Each by itself would take 40 s.
    assert!(took >= Duration::from_millis(200), "the server is slow: {took:?}");
    assert!(took < Duration::from_millis(200) * (RECONNECTS / 4), "{took:?}");
    println!("{:.0} sign-ons/s", f64::from(RECONNECTS) / took.as_secs_f64());
    assert_eq!(questions(&daemon.stop()), 1);

    let uncached = site.start(&["--sign-on-cache", "0"]);
    for _ in 0..3 {
        assert_eq!(uncached.sign_on("polaris", RIGHT).0, 0);
    }
    assert_eq!(questions(&uncached.stop()), 3);
}

#[test]
fn clients_that_start_together_wait_for_one_question_a_node() {
    let site = Site::new("delay dsmInitEx 200\n");
    let daemon = site.start(&[]);
    std::thread::scope(|scope| {
        for client in 0..32 {
            let port = daemon.port;
            scope.spawn(move || {
                let vega = client % 2 == 0;
                let (node, password) =
                    if vega { ("vega", "vega-5678") } else { ("polaris", RIGHT) };
                assert_eq!(sign_on(port, node, password).0, 0);
            });
        }
    });
    assert_eq!(questions(&daemon.stop()), 2);
}

#[test]
fn a_loop_with_wrong_passwords_does_not_reach_the_server() {
    let site = Site::new("");
    let daemon = site.start(&[]);
    let access = -Errno::ACCESS.raw_os_error();
    for _ in 0..100 {
        assert_eq!(daemon.sign_on("polaris", WRONG).0, access);
    }
    let (_, reason) = daemon.sign_on("polaris", WRONG);
    assert!(reason.contains("137 DSM_RC_") && reason.contains("is tried again in"), "{reason}");
    // The right one is not made to wait by one wrong one, and stays usable through a guesser.
    assert_eq!(daemon.sign_on("polaris", RIGHT).0, 0);
    for guess in 0..100 {
        assert_eq!(daemon.sign_on("polaris", &format!("guess {guess}")).0, access);
    }
    assert_eq!(daemon.sign_on("polaris", RIGHT).0, 0);
    // The wrong one, the right one, three guesses, and the right one anew.
    assert_eq!(questions(&daemon.stop()), 6);
}

#[test]
fn a_server_that_cannot_be_reached_is_told_from_a_wrong_password() {
    let site = Site::new("");
    let daemon = site.start(&[]);
    assert_eq!(daemon.sign_on("vega", "vega-5678").0, 0);
    sim_tsm::configure(&site.tsm(), "fail dsmInitEx * -50\n").expect("configured");
    let (rc, reason) = daemon.sign_on("polaris", RIGHT);
    assert_eq!(rc, -Errno::AGAIN.raw_os_error());
    assert!(reason.contains("try again later: -50 DSM_RC_TCPIP_FAILURE"), "{reason}");
    assert_eq!(daemon.sign_on("vega", "vega-5678").0, 0, "is remembered");
    sim_tsm::configure(&site.tsm(), "").expect("configured");
    daemon.signal(Signal::HUP);
    daemon.wait("read again");
    assert_eq!(daemon.sign_on("polaris", RIGHT).0, 0);
    daemon.stop();
}

#[test]
fn without_the_library_the_names_tried_and_the_alternative_are_given() {
    let site = Site::new("");
    let missing = ["--tsm-library", "/nonexistent/libApiTSM64.so"];
    let (status, said) = site.run(&["--auth", "tsm", missing[0], missing[1]]);
    assert_eq!(status, Some(1), "{said}");
    for part in [missing[1], "No such file", "--auth file:PATH", "--tsm-library"] {
        assert!(said.contains(part), "{said}");
    }
    // As the default it does not keep the daemon from draining.
    let daemon = Daemon::start(&mut site.command(&missing));
    let (rc, reason) = daemon.sign_on("polaris", RIGHT);
    assert_eq!(rc, -Errno::ACCESS.raw_os_error());
    assert!(reason.contains("nobody can sign on here"), "{reason}");
    daemon.stop();
}

#[test]
fn check_config_says_what_works_and_what_does_not() {
    let site = Site::new("");
    // Also where the log would be silent.
    let (status, said) = site.run(&["--auth", "tsm", "--check-config", "-v", "error"]);
    assert_eq!(status, Some(0), "{said}");
    for part in ["level 8.1.13.0, starts", "not tried", "tsmserver-8", "the configuration works"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        said.lines().all(|line| line.starts_with("[M] ") || line.starts_with("[W] ")),
        "{said}"
    );

    let passwords = site.path("passwords");
    fs::write(&passwords, format!("polaris {RIGHT}\n{RIGHT}\n")).expect("written");
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).expect("set");
    fs::remove_dir(site.path("target")).expect("empty");
    let file = format!("file:{}", passwords.display());
    let (status, said) = site.run(&["--auth", &file, "--check-config"]);
    assert_eq!(status, Some(1), "{said}");
    for part in ["passwords:2: 1 columns", "target directory", "does not work: 2 errors"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
