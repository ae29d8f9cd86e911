//! What clients can do wrong: each is answered with a reason, leaves nothing behind, and disturbs
//! nobody, which another session on the same daemon checks by writing files throughout.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use fsq_wire::{Field, Layout, Op, PACKET_BYTES, State, StorageDest};

use crate::support::bystander::Bystander;
use crate::support::content::{Random, bytes};
use crate::support::daemon::Daemon;
use crate::support::deployed::{Deployed, Reply, unterminate};
use crate::support::site::{FS, NODE, PASSWORD, Site};
use crate::support::tree::{self, Entry};
use crate::support::{eventually, shared_turn};

// Linux's numbers (asm-generic/errno.h), as they go over the wire.
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EINVAL: i32 = 22;
const EFBIG: i32 = 27;
const ENAMETOOLONG: i32 = 36;
const EPROTO: i32 = 71;
const ENOPROTOOPT: i32 = 92;
const ETIMEDOUT: i32 = 110;

type Tree = BTreeMap<PathBuf, Entry>;

/// A daemon with another session on it, and what was on disk before.
struct Scene {
    site: Site,
    daemon: Daemon,
    bystander: Bystander,
    before: [Tree; 3],
}

impl Scene {
    fn new(options: &[&str]) -> Self {
        Self::with(Site::new(), options, |_| {})
    }

    /// `prepare` makes what is to be there before.
    fn with(site: Site, options: &[&str], prepare: impl FnOnce(&Site)) -> Self {
        let daemon = site.start_with(options);
        let bystander = Bystander::start(daemon.port());
        bystander.wait_progress();
        prepare(&site);
        let before = Self::look(&site);
        Self { site, daemon, bystander, before }
    }

    /// Staging, target and archive without the other session's files.
    fn look(site: &Site) -> [Tree; 3] {
        [site.staging(), site.target(), site.archive()].map(|root| {
            let mut tree = tree::below(&root);
            tree.retain(|path, _| !path.starts_with("vega"));
            tree
        })
    }

    fn port(&self) -> u16 {
        self.daemon.port()
    }

    /// The daemon is alive, the other session is well, and on disk all is as before.
    fn finish(self) {
        eventually("everything is as before", || {
            (Self::look(&self.site) == self.before).then_some(())
        });
        self.bystander.finish(&self.site);
        self.daemon.stop();
    }
}

/// A mistake: how it is made on a fresh connection, and what comes of it.
type Mistake = (&'static str, fn(&mut Deployed) -> Reply, i32, &'static [&'static str]);

fn signed_on(client: &mut Deployed) {
    client.sign_on(NODE, PASSWORD).accepted(Op::Connect);
}

/// Signs on and opens a file that must never appear.
fn opened(client: &mut Deployed) {
    signed_on(client);
    // Each its own: the one before is told of its end before its name is free again.
    let number = client.stream.local_addr().expect("connected").port();
    let path = format!("/lustre/data/never/opened-{number}");
    client.open(&path, StorageDest::Lustre).accepted(Op::Open);
}

fn bare(client: &mut Deployed, state: u32) -> Reply {
    let packet = client.packet(State::from_bits(state), |_| {});
    client.ask(&packet)
}

fn login_without_end(client: &mut Deployed, field: Field) -> Reply {
    let mut packet = client.login_packet(NODE, PASSWORD);
    unterminate(&mut packet, client.layout(), field);
    client.ask(&packet)
}

fn open_without_end(client: &mut Deployed, field: Field) -> Reply {
    signed_on(client);
    let mut packet = client.open_packet(FS.as_bytes(), b"/lustre/data/never/ends", 1);
    unterminate(&mut packet, client.layout(), field);
    client.ask(&packet)
}

fn data_of(client: &mut Deployed, size: u64) -> Reply {
    opened(client);
    let packet = client.data_packet(size);
    client.ask(&packet)
}

/// After each of these nobody knows what the client means: the session ends with the reason.
const BREACHES: &[Mistake] = &[
    (
        "another version",
        |client| {
            let mut packet = client.login_packet(NODE, PASSWORD);
            packet[0] = 2;
            client.ask(&packet)
        },
        ENOPROTOOPT,
        &["version 1", "version 2"],
    ),
    ("an unknown node", |client| client.sign_on("nobody", PASSWORD), EACCES, &["nobody"]),
    ("a wrong password", |client| client.sign_on(NODE, "guessed-this"), EACCES, &[NODE]),
    ("an empty password", |client| client.sign_on(NODE, ""), EACCES, &[NODE]),
    ("another's password", |client| client.sign_on(NODE, "vega-5678"), EACCES, &[NODE]),
    ("a node without end", |c| login_without_end(c, Field::Node), EPROTO, &["node"]),
    ("a password without end", |c| login_without_end(c, Field::Password), EPROTO, &["password"]),
    ("a host without end", |c| login_without_end(c, Field::Hostname), EPROTO, &["hostname"]),
    ("an fs without end", |c| open_without_end(c, Field::Fs), EPROTO, &["fs"]),
    ("an fpath without end", |c| open_without_end(c, Field::Fpath), EPROTO, &["fpath"]),
    ("a desc without end", |c| open_without_end(c, Field::Desc), EPROTO, &["desc"]),
    (
        "CONNECT twice",
        |client| {
            signed_on(client);
            client.sign_on(NODE, PASSWORD)
        },
        EPROTO,
        &["CONNECT"],
    ),
    (
        "DATA before OPEN",
        |client| {
            signed_on(client);
            let packet = client.data_packet(5);
            client.ask(&packet)
        },
        EPROTO,
        &["DATA", "no file is open"],
    ),
    (
        "CLOSE before OPEN",
        |client| {
            signed_on(client);
            client.close()
        },
        EPROTO,
        &["CLOSE", "no file is open"],
    ),
    (
        "a second OPEN",
        |client| {
            opened(client);
            client.data(b"some content").accepted(Op::Data);
            client.open("/lustre/data/never/second", StorageDest::Lustre)
        },
        EPROTO,
        &["OPEN", "a file is open"],
    ),
    ("2^63 bytes of DATA", |client| data_of(client, 1 << 63), EFBIG, &["9223372036854775808"]),
    ("2^64-1 bytes of DATA", |client| data_of(client, u64::MAX), EFBIG, &["longer than any file"]),
    (
        "two requests in one",
        |client| {
            signed_on(client);
            bare(client, 0x2 | 0x8)
        },
        EPROTO,
        &["OPEN|CLOSE"],
    ),
    (
        "a reply as request",
        |client| {
            signed_on(client);
            bare(client, 0x22)
        },
        EPROTO,
        &["OPEN|REPLY"],
    ),
    (
        "no request at all",
        |client| {
            signed_on(client);
            bare(client, 0)
        },
        EPROTO,
        &["0x0"],
    ),
];

#[test]
fn breaches_of_the_protocol() {
    let _turn = shared_turn();
    let scene = Scene::new(&[]);
    for &(what, make, errno, words) in BREACHES {
        for layout in [Layout::C, Layout::B] {
            println!("{what} in layout {layout}");
            let mut client = Deployed::connect_as(scene.port(), layout);
            let reply = make(&mut client);
            reply.refused(errno, words);
            for secret in [PASSWORD, "guessed-this", "vega-5678"] {
                let mut windows = reply.bytes.windows(secret.len());
                let comes_back = windows.any(|window| window == secret.as_bytes());
                assert!(!comes_back, "{what}: a password came back");
            }
            assert!(client.is_closed(), "{what}: the session goes on");
        }
    }
    for secret in ["guessed-this", PASSWORD] {
        let lines = scene.daemon.log().lines();
        assert!(!lines.iter().any(|line| line.contains(secret)), "{secret} is in the log");
    }
    scene.finish();
}

#[test]
fn garbage_instead_of_connect() {
    let _turn = shared_turn();
    let scene = Scene::new(&[]);
    let mut garbage = [0; PACKET_BYTES];
    for seed in 0..20 {
        Random::new(seed).fill(&mut garbage);
        // Half of them get past the check of the version.
        garbage[0] = u8::try_from(seed % 2).expect("0 or 1");
        let errno = if seed % 2 == 0 { ENOPROTOOPT } else { EPROTO };
        let mut client = Deployed::connect(scene.port());
        let packet = garbage;
        client.ask(&packet).refused(errno, &[]);
        assert!(client.is_closed());
    }
    // A proper packet, but not the one that tells the layout: answered in layout C.
    let mut client = Deployed::connect(scene.port());
    client.open("/lustre/data/never/opened", StorageDest::Null).refused(EPROTO, &["CONNECT"]);
    assert!(client.is_closed());
    scene.finish();
}

/// Refused OPENs: `fs`, `fpath`, destination, and what comes of it.
fn refused_opens() -> Vec<(String, String, i32, i32, &'static str)> {
    let local = i32::from(StorageDest::Local);
    let name = |fpath: &str, errno, word| (FS.to_owned(), fpath.to_owned(), local, errno, word);
    let fs =
        |fs: &str, errno, word| (fs.to_owned(), "/lustre/data/f".to_owned(), local, errno, word);
    let dest = |dest| (FS.to_owned(), "/lustre/data/f".to_owned(), dest, EINVAL, "destination");
    let component = "c".repeat(256);
    let deep = format!("/lustre/data{}", "/deep".repeat(796));
    // Fits a path, but not the attributes of an ext4 inode.
    let wide = format!("/lustre/data{}", "/0123456789abcde".repeat(250));
    vec![
        name("/lustre/data/../vega/f", EACCES, "'..'"),
        name("/lustre/data/..", EACCES, "'..'"),
        name("/lustre/../etc/passwd", EACCES, "'..'"),
        name("/lustre/data/./f", EINVAL, "'.'"),
        name("/lustre/data//f", EINVAL, "'//'"),
        name("/lustre/data/f/", EINVAL, "'/'"),
        name("/lustre/data/a\nb", EINVAL, "control character"),
        name("/lustre/data/\x1b[2J", EINVAL, "control character"),
        name("lustre/data/f", EINVAL, "absolute"),
        name("", EINVAL, "absolute"),
        name("/lustre/vega/f", EACCES, "/lustre/data"),
        name("/lustre/f", EACCES, "/lustre/data"),
        name("/lustre/data", EACCES, "/lustre/data"),
        // Begins with the directory as text only.
        name("/lustre/data2/f", EACCES, "/lustre/data"),
        name("/etc/passwd", EINVAL, "fs"),
        name(&format!("/lustre/data/{component}"), ENAMETOOLONG, "255 bytes"),
        name(&deep, ENAMETOOLONG, ""),
        name(&wide, ENAMETOOLONG, ""),
        name("/lustre/data/.fsq-part.f", EINVAL, ".fsq-part."),
        name("/lustre/data/there", EEXIST, "exists already"),
        name("/lustre/data/directory", EEXIST, "exists already"),
        name("/lustre/data/there/f", ENOTDIR, "as a file"),
        name("/lustre/data/link", EEXIST, "exists already"),
        name("/lustre/data/link/f", EACCES, "symlink"),
        name("/lustre/data/link/new/f", EACCES, "symlink"),
        fs("/lustre/data/f", EINVAL, "fs"),
        fs("/lustre/dat", EINVAL, "fs"),
        fs("/other", EINVAL, "fs"),
        fs("", EINVAL, "fs"),
        fs("lustre", EINVAL, "fs"),
        fs("/lustre/..", EACCES, "'..'"),
        // Would choose where on the target, among the directories of others, it lands.
        fs("/lustre/data", EACCES, "fs"),
        dest(5),
        dest(-1),
        dest(i32::MAX),
        dest(i32::MIN),
    ]
}

#[test]
fn refused_opens_leave_the_session_alone() {
    let _turn = shared_turn();
    let outside = tempfile::tempdir().expect("a directory");
    let scene = Scene::with(Site::new(), &[], |site| {
        std::fs::create_dir_all(site.staged("data/directory")).expect("created");
        std::fs::write(site.staged("data/there"), "there").expect("written");
        symlink(outside.path(), site.staged("data/link")).expect("linked");
    });
    let mut client = Deployed::signed_on(scene.port());
    for (fs, fpath, dest, errno, word) in refused_opens() {
        println!("fs {fs:?}, fpath {fpath:?}, destination {dest}");
        let packet = client.open_packet(fs.as_bytes(), fpath.as_bytes(), dest);
        client.ask(&packet).refused(errno, &[word]);
    }
    // Not UTF-8, and a name that is one: both are names on Linux.
    let packet = client.open_packet(FS.as_bytes(), b"/lustre/data/../\xff", 1);
    client.ask(&packet).refused(EACCES, &["'..'"]);
    client.upload("/lustre/data/still-works", StorageDest::Null, b"content", 7);
    client.disconnect();
    assert_eq!(std::fs::read_dir(outside.path()).expect("readable").count(), 0);
    scene.finish();
}

#[test]
fn symlinks_on_the_target_are_not_followed() {
    let _turn = shared_turn();
    let outside = tempfile::tempdir().expect("a directory");
    let site = Site::new();
    std::fs::create_dir(site.delivered("data")).expect("created");
    symlink(outside.path(), site.delivered("data/link")).expect("linked");
    let daemon = site.start_with(&["-t", "0"]);
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/link/f", StorageDest::Lustre, b"content", 7);
    client.disconnect();
    let line = daemon.log().wait("that it goes nowhere", |line| {
        (line.starts_with("[E]") || line.starts_with("[W]")) && line.contains("data/link/f")
    });
    println!("{line}");
    daemon.stop();
    assert_eq!(std::fs::read_dir(outside.path()).expect("readable").count(), 0);
    assert_eq!(std::fs::read(site.staged("data/link/f")).expect("it is kept"), b"content");
}

#[test]
fn half_packets_and_silence() {
    let _turn = shared_turn();
    let scene = Scene::new(&["--stall-timeout", "1"]);
    // Between its requests a session may rest for as long as it likes.
    let mut resting = Deployed::signed_on(scene.port());
    let mut resting_in_file = Deployed::signed_on(scene.port());
    resting_in_file.open("/lustre/data/resting", StorageDest::Null).accepted(Op::Open);

    let mut silent: Vec<(Deployed, &str)> = Vec::new();
    silent.push((Deployed::connect(scene.port()), "no CONNECT within 1 s"));
    let mut client = Deployed::connect(scene.port());
    let login = client.login_packet(NODE, PASSWORD);
    client.send(&login[..3000]);
    silent.push((client, "the rest of a packet"));
    let mut client = Deployed::signed_on(scene.port());
    let open = client.open_packet(FS.as_bytes(), b"/lustre/data/never/half", 2);
    client.send(&open[..PACKET_BYTES - 1]);
    silent.push((client, "the rest of a packet"));
    let mut client = Deployed::connect(scene.port());
    opened(&mut client);
    let data = client.data_packet(1_000_000);
    client.send(&data);
    client.send(&bytes(0, 300_000));
    silent.push((client, "700000 bytes of payload to come"));

    for (client, words) in &mut silent {
        client.reply().refused(ETIMEDOUT, &[words]);
        assert!(client.is_closed());
    }
    resting_in_file.close().accepted(Op::Close);
    resting.upload("/lustre/data/rested", StorageDest::Null, b"content", 7);
    scene.finish();
}

/// How a client leaves in the middle of something.
type Exit = fn(Deployed);

#[test]
fn clients_that_vanish_leave_nothing() {
    let _turn = shared_turn();
    let scene = Scene::new(&[]);
    let exits: [(&str, Exit); 2] = [("closed", drop), ("reset", Deployed::reset)];
    for (how, leave) in exits {
        // What was sent of a file before the client was gone.
        for received in [0_usize, 1, 5000, 1_048_576, 3_500_000] {
            println!("{how} after {received} bytes");
            let path = "/lustre/data/never/whole";
            // In the middle of a payload.
            let mut client = Deployed::signed_on(scene.port());
            client.open(path, StorageDest::LustreTsm).accepted(Op::Open);
            let data = client.data_packet(4_000_000);
            client.send(&data);
            client.send(&bytes(1, received));
            leave(client);
            // Between the last DATA and CLOSE; the name is free as soon as the daemon has noticed.
            let mut client = Deployed::signed_on(scene.port());
            eventually("the name is free", || {
                client.open(path, StorageDest::LustreTsm).accepts(Op::Open).then_some(())
            });
            client.data(&bytes(2, received)).accepted(Op::Data);
            leave(client);
            // In the middle of a packet.
            let mut client = Deployed::signed_on(scene.port());
            eventually("the name is free", || {
                client.open(path, StorageDest::LustreTsm).accepts(Op::Open).then_some(())
            });
            let close = client.packet(State::CLOSE, |_| {});
            client.send(&close[..received.min(PACKET_BYTES - 1)]);
            leave(client);
            eventually("the name is free", || {
                let mut client = Deployed::signed_on(scene.port());
                let reply = client.open(path, StorageDest::LustreTsm);
                reply.accepts(Op::Open).then(|| client.disconnect())
            });
        }
    }
    scene.finish();
}
