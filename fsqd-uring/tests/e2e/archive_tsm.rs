//! `--archive tsm` from the client's file to the object of a simulated TSM server.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fsq_wire::StorageDest;
use tsm_bindings::tsm::{
    Credentials, Login, NamePattern, ObjectInfo, QueryFilter, Session, Start, Tsm,
};

use crate::support::content::bytes;
use crate::support::daemon::{Daemon, run_to_end};
use crate::support::deployed::Deployed;
use crate::support::site::{OTHER_PASSWORD, PASSWORD, Site};
use crate::support::{eventually, shared_turn, sole_turn, text, tree};

const ARCHIVE_NODE: &str = "fsqarchive";
const ARCHIVE_PASSWORD: &str = "archive-9012";

/// A server, and a site whose daemon archives there.
struct Shop {
    site: Site,
    server: PathBuf,
}

impl Shop {
    fn new(settings: &str) -> Self {
        let site = Site::new();
        let server = site.root().join("tsm");
        let shop = Self { site, server };
        shop.set(settings);
        shop.write_password(ARCHIVE_PASSWORD);
        shop
    }

    fn set(&self, settings: &str) {
        sim_tsm::register_node(&self.server, ARCHIVE_NODE, ARCHIVE_PASSWORD, settings)
            .expect("registered");
    }

    fn password_file(&self) -> PathBuf {
        self.site.root().join("archive-password")
    }

    fn write_password(&self, password: &str) {
        fs::write(self.password_file(), format!("{password}\n")).expect("written");
        fs::set_permissions(self.password_file(), fs::Permissions::from_mode(0o600)).expect("set");
    }

    fn command(&self) -> Command {
        let mut command = self.site.command(&[
            "--archive",
            "tsm",
            "--archive-node",
            ARCHIVE_NODE,
            "--archive-password-file",
            text(&self.password_file()),
            "--athreads",
            "4",
        ]);
        command
            .env("FSQD_TSM_LIBRARY", sim_tsm::library().expect("the simulator is built"))
            .env("TSM_SIM_DIR", &self.server);
        command
    }

    fn start(&self) -> Daemon {
        Daemon::start(&mut self.command(), &[PASSWORD, OTHER_PASSWORD, ARCHIVE_PASSWORD])
    }

    fn staged(&self) -> Vec<PathBuf> {
        tree::files(&self.site.staging())
    }

    fn until_archived(&self) {
        eventually("everything is archived", || self.staged().is_empty().then_some(()));
    }

    /// Transactions that the server has committed, those that register filespaces included.
    fn transactions(&self) -> usize {
        fs::read_dir(self.server.join("log")).expect("the server has run").count()
    }
}

/// A session of this process's own. Its library is started once, with one server: only one test can
/// have one.
fn session(server: &Path) -> Session {
    let start = Start {
        library: Some(sim_tsm::library().expect("the simulator is built")),
        directory: Some(server.to_path_buf()),
        ..Start::default()
    };
    let tsm = Tsm::start(&start).expect("the simulator starts");
    let credentials =
        Credentials::Password { node: ARCHIVE_NODE, password: ARCHIVE_PASSWORD.as_bytes() };
    tsm.sign_on(&Login { credentials, server: None }).expect("signed on")
}

const FILES: usize = 2000;
const CONNECTIONS: usize = 8;

/// Mostly small, some around the sizes at which something changes, and a few large ones.
fn file(n: usize) -> (String, StorageDest, Vec<u8>) {
    let len = match n {
        _ if n % 400 == 7 => (1 << 20) + n,
        _ if n % 50 == 3 => [0, 1, 4095, 4096, 4097][n / 50 % 5],
        _ => n * 37 % 20_000,
    };
    let dest = if n.is_multiple_of(2) { StorageDest::Tsm } else { StorageDest::LustreTsm };
    (format!("data/run{}/{n}", n % 3), dest, bytes(n as u64, len))
}

fn upload_all(port: u16) {
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            scope.spawn(move || {
                let mut client = Deployed::signed_on(port);
                for n in (connection..FILES).step_by(CONNECTIONS) {
                    let (name, dest, content) = file(n);
                    client.upload(&format!("/lustre/{name}"), dest, &content, 1 << 20);
                }
            });
        }
    });
}

/// The server is away while the files come, which the clients do not notice, and takes as long for a
/// commit as a live one when it is back.
#[test]
fn two_thousand_files_arrive_in_few_transactions() {
    let _turn = sole_turn();
    let shop = Shop::new("fail dsmInitEx * -52");
    let daemon = shop.start();
    upload_all(daemon.port());
    let waiting = shop.staged().len();
    assert!(waiting >= FILES / 2, "only {waiting} files wait for the archive");
    shop.set("delay dsmEndTxn 185");
    shop.until_archived();
    shop.set("");

    let mut session = session(&shop.server);
    let all = NamePattern::new(b"/lustre", b"/*", b"/*", None).expect("a pattern");
    let query = session.query(&all, &QueryFilter::default()).expect("begun");
    let mut objects = HashMap::new();
    for object in query {
        let object = object.expect("listed");
        let info = ObjectInfo::decode(&object.info).expect("ltsm's form");
        let before = objects.insert(object.name.to_string(), (object.size, info));
        assert_eq!(before, None, "{} is there twice", object.name);
    }
    assert_eq!(objects.len(), FILES);
    for n in 0..FILES {
        let (name, dest, content) = file(n);
        let size = content.len() as u64;
        let crc = crc32fast::hash(&content);
        let info = ObjectInfo { size, crc, mode: 0o100_640, ..ObjectInfo::default() };
        assert_eq!(objects[&format!("/lustre/{name}")], (size.max(1), info), "{name}");
        let delivered = fs::read(shop.site.delivered(&name)).ok();
        let expected = (dest == StorageDest::LustreTsm).then_some(content);
        assert!(delivered == expected, "{name} on the target");
    }
    let transactions = shop.transactions();
    assert!(
        FILES / transactions >= 50,
        "{transactions} transactions, {} files each",
        FILES / transactions
    );
    daemon.stop();
}

#[test]
fn a_file_that_the_server_never_takes_is_omitted_with_the_code_s_text() {
    let _turn = shared_turn();
    let shop = Shop::new("max-object-bytes 1000");
    let daemon = shop.start();
    let mut client = Deployed::signed_on(daemon.port());
    for (name, len) in [("small", 900), ("large", 1001), ("smaller", 9)] {
        let path = format!("/lustre/data/{name}");
        client.upload(&path, StorageDest::Tsm, &bytes(1, len), 4096);
    }
    // What is known beforehand is refused, for the archive only.
    let open = client.open("/lustre/data/a*b", StorageDest::LustreTsm);
    open.refused(22, &["could not be archived", "'*'"]);
    let line = daemon.log().wait("of the omitted file", |line| line.contains(" omitted \""));
    assert!(line.starts_with("[E]") && line.contains("data/large"), "{line}");
    assert!(line.contains("10 DSM_RC_ABORT_EXCLUDED_BY_SIZE: object is larger"), "{line}");
    eventually("the others are archived", || (shop.staged().len() == 1).then_some(()));
    daemon.stop();
}

#[test]
fn a_wrong_archive_password_stops_the_archive_but_not_the_experiment() {
    let _turn = shared_turn();
    let shop = Shop::new("");
    shop.write_password("wrong-3456");
    let secrets = [PASSWORD, OTHER_PASSWORD, ARCHIVE_PASSWORD, "wrong-3456"];
    let daemon = Daemon::start(&mut shop.command(), &secrets);
    let line = daemon.log().wait("of the refusal", |line| line.contains("137 DSM_RC_AUTH_FAILURE"));
    assert!(line.starts_with("[E]") && line.contains(ARCHIVE_NODE), "{line}");
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/f", StorageDest::Tsm, b"data", 4096);
    daemon.log().wait("of the pause", |line| line.contains("archive is down"));
    assert_eq!(shop.staged(), [PathBuf::from("data/f")]);
    daemon.stop();
    // With the right one it goes on where it stood.
    shop.write_password(ARCHIVE_PASSWORD);
    let daemon = shop.start();
    shop.until_archived();
    daemon.stop();
}

#[test]
fn without_the_client_library_or_its_password_nothing_starts() {
    let _turn = shared_turn();
    let shop = Shop::new("");
    let mut command = shop.command();
    command.env("FSQD_TSM_LIBRARY", "/no/such/library.so");
    let ended = run_to_end(&mut command);
    assert_eq!(ended.status, 1, "{}", ended.text);
    for word in ["--archive tsm", "/no/such/library.so", "TIVsm-API64", "--archive dir:PATH"] {
        assert!(ended.text.contains(word), "{word} is not in: {}", ended.text);
    }
    fs::set_permissions(shop.password_file(), fs::Permissions::from_mode(0o644)).expect("set");
    let ended = run_to_end(&mut shop.command());
    assert_eq!(ended.status, 1, "{}", ended.text);
    assert!(ended.text.contains("chmod 600"), "{}", ended.text);
    assert!(!ended.text.contains(ARCHIVE_PASSWORD), "{}", ended.text);
}
