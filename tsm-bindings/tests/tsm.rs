//! The safe layer against the simulated server: what a daemon that archives does all day, and
//! every way in which it goes wrong.

use std::path::Path;
use std::sync::OnceLock;

use tsm_bindings::LoadError;
use tsm_bindings::tsm::{
    ArchivedObject, Class, CommitError, Credentials, Error, Kind, Login, NamePattern, NewObject,
    ObjectInfo, ObjectName, QueryFilter, ReturnCode, Session, Start, StartError, Tsm,
};

const FS: &[u8] = b"/lustre";

/// The library, and the directory of its server; one for all tests of this program.
fn server() -> (&'static Tsm, &'static Path) {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let directory = DIRECTORY
        .get_or_init(|| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory"))
        .path();
    let library = sim_tsm::library().expect("the simulator is built");
    let start = Start {
        library: Some(library),
        directory: Some(directory.to_path_buf()),
        ..Start::default()
    };
    (Tsm::start(&start).expect("the simulator starts"), directory)
}

/// A session of a node of its own, with these settings.
fn session(node: &str, settings: &str) -> Session {
    let mut session = sign_on(node, settings).expect("signed on");
    session.register_filespace(FS, "fsqd").expect("registered");
    session
}

fn sign_on(node: &str, settings: &str) -> Result<Session, Error> {
    let (tsm, directory) = server();
    sim_tsm::register_node(directory, node, "geheim", settings).expect("registered");
    tsm.sign_on(&login(node))
}

fn login(node: &str) -> Login<'_> {
    with_password(node, b"geheim")
}

fn with_password<'a>(node: &'a str, password: &'a [u8]) -> Login<'a> {
    let credentials = Credentials::Password { node, password };
    Login { credentials, server: Some("tsmserver-8") }
}

fn set(node: &str, settings: &str) {
    sim_tsm::register_node(server().1, node, "geheim", settings).expect("written");
}

fn name(path: &str) -> ObjectName {
    ObjectName::from_path(FS, path.as_bytes(), Kind::File).expect("a good name")
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn info(data: &[u8]) -> ObjectInfo {
    let (size, crc) = (data.len() as u64, crc32fast::hash(data));
    ObjectInfo { size, mode: 0o100_640, crc, ..Default::default() }
}

/// Archives files in one transaction.
fn archive(session: &mut Session, files: &[(&str, &[u8])]) -> Result<(), CommitError> {
    let mut transaction = session.begin().expect("begun");
    for (path, data) in files {
        let (name, info) = (name(path), info(data));
        let object =
            NewObject { name: &name, description: "run 7", info: &info.encode(), size: info.size };
        let mut sending = transaction.send(&object).expect("taken");
        for chunk in data.chunks(1000) {
            sending.write(chunk).expect("sent");
        }
        sending.finish().expect("ended");
    }
    transaction.commit()
}

fn list(session: &mut Session, hl: &str, ll: &str) -> Vec<ArchivedObject> {
    let pattern = NamePattern::new(FS, hl.as_bytes(), ll.as_bytes(), None).expect("a pattern");
    let query = session.query(&pattern, &QueryFilter::default()).expect("begun");
    query.collect::<Result<_, _>>().expect("listed")
}

fn retrieve(session: &mut Session, object: &ArchivedObject) -> Vec<u8> {
    let mut retrieval = session.retrieve(&[object.id]).expect("begun");
    let mut retrieved = retrieval.next_object().expect("usable").expect("one object");
    let (mut data, mut buffer) = (Vec::new(), [0; 777]);
    loop {
        match retrieved.read(&mut buffer).expect("read") {
            0 => break,
            bytes => data.extend_from_slice(&buffer[..bytes]),
        }
    }
    drop(retrieved);
    assert!(retrieval.next_object().expect("usable").is_none());
    retrieval.finish().expect("ended");
    data
}

#[test]
fn files_come_back_as_they_were_and_go_when_deleted() {
    let mut session = session("cycle", "");
    let files = [
        ("/lustre/a/one.cbf", content(123_456)),
        ("/lustre/top", content(1)),
        ("/lustre/a/b/empty", content(0)),
    ];
    let list_of = files.each_ref().map(|(path, data)| (*path, &data[..]));
    archive(&mut session, &list_of).expect("committed");

    let mut objects = list(&mut session, "/*", "/*");
    objects.sort_by_key(|object| object.restore_order);
    assert_eq!(objects.len(), 3);
    for ((path, data), object) in files.iter().zip(&objects) {
        assert_eq!(object.name, name(path));
        assert_eq!(object.description, b"run 7");
        assert_eq!(object.size, data.len().max(1) as u64);
        let info = ObjectInfo::decode(&object.info).expect("ltsm's form");
        assert_eq!((info.size, info.crc), (data.len() as u64, crc32fast::hash(data)));
        assert!(object.archived[0] > 2020);
        assert!(retrieve(&mut session, object) == *data, "{path}");
    }

    let mut transaction = session.begin().expect("begun");
    transaction.delete(objects[0].id).expect("deleted");
    transaction.delete(objects[2].id).expect("deleted");
    transaction.commit().expect("committed");
    let left = list(&mut session, "/*", "/*");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0], objects[1]);
}

#[test]
fn a_sign_on_is_refused_with_the_reason_and_without_the_password() {
    let (tsm, directory) = server();
    set("refused", "");
    let wrong = with_password("refused", b"hunter2");
    let refused = |login: &Login<'_>| tsm.sign_on(login).expect_err("refused");
    let error = refused(&wrong);
    assert_eq!(error.code(), Some(ReturnCode::AUTH_FAILURE));
    assert_eq!(error.class(), Class::Permanent);
    for text in [format!("{error} {error:?}"), format!("{wrong:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("geheim"), "{text}");
    }
    assert_eq!(refused(&login("nobody")).code(), Some(ReturnCode(53)));
    set("refused", "locked yes");
    assert_eq!(refused(&login("refused")).code(), Some(ReturnCode(61)));
    set("refused", "password-expired yes");
    assert_eq!(refused(&login("refused")).code(), Some(ReturnCode::PASSWORD_EXPIRED));
    set("refused", "max-sessions 0");
    let full = refused(&login("refused"));
    assert_eq!((full.code(), full.class()), (Some(ReturnCode(51)), Class::Session));
    set("refused", "no-such-setting 1");
    assert_eq!(refused(&login("refused")).code(), Some(ReturnCode(410)));
    set("refused", "fail dsmInitEx 1 -52");
    assert_eq!(refused(&login("refused")).class(), Class::Session);
    tsm.sign_on(&login("refused")).expect("the fault was for once");
    assert!(directory.join("nodes/REFUSED").exists());
}

#[test]
fn nothing_that_the_library_would_misread_reaches_it() {
    let (tsm, _) = server();
    let bad = |login: Login<'_>| tsm.sign_on(&login).expect_err("refused");
    for node in ["", "a b", "x\0y", "n\u{e9}"] {
        assert_eq!(bad(login(node)), Error::Invalid { what: "node name" }, "{node:?}");
    }
    let long = "n".repeat(65);
    assert!(matches!(bad(login(&long)), Error::TooLong { what: "node name", .. }));
    for password in [&b""[..], b"a\0b"] {
        assert_eq!(bad(with_password("x", password)), Error::Invalid { what: "password" });
    }
    for server in ["a -optfile=/etc/passwd", "a\"b", ""] {
        let login = Login { server: Some(server), ..login("x") };
        assert_eq!(bad(login), Error::Invalid { what: "server name" }, "{server:?}");
    }
}

#[test]
fn what_is_not_committed_is_never_seen() {
    let mut writer = session("invisible", "");
    let mut reader = sign_on("invisible", "").expect("a second session");
    let (name, data) = (name("/lustre/x"), content(5));
    let object = NewObject { name: &name, description: "", info: &[], size: 5 };
    {
        let mut transaction = writer.begin().expect("begun");
        let mut sending = transaction.send(&object).expect("taken");
        sending.write(&data).expect("sent");
        sending.finish().expect("ended");
        assert_eq!((transaction.objects(), transaction.bytes()), (1, 5));
        assert_eq!(list(&mut reader, "/*", "/*"), []);
        transaction.abort().expect("aborted");
    }
    {
        let mut transaction = writer.begin().expect("begun");
        drop(transaction.send(&object).expect("taken"));
        let error = transaction.commit().expect_err("an object was left unfinished");
        assert_eq!(error, CommitError::Aborted(Error::TransactionOver));
    }
    drop(writer.begin().expect("begun").send(&object).expect("taken"));
    assert_eq!(list(&mut reader, "/*", "/*"), []);
    archive(&mut writer, &[("/lustre/x", &data)]).expect("the session is as good as new");
    assert_eq!(list(&mut reader, "/*", "/*").len(), 1);
}

#[test]
fn a_full_transaction_says_so_and_takes_nothing_more() {
    let mut session = session("full", "max-objects 2\nmax-bytes 100");
    let limits = session.limits().expect("known");
    assert_eq!((limits.transaction_objects, limits.transaction_bytes), (2, 100));
    assert!(limits.may_delete && !limits.retention_protection);
    let names = ["/lustre/1", "/lustre/2", "/lustre/3"].map(name);
    let object = |i: usize, size| NewObject { name: &names[i], description: "", info: &[], size };

    let mut transaction = session.begin().expect("begun");
    // One that is larger than the limit travels alone.
    let mut sending = transaction.send(&object(0, 500)).expect("taken");
    sending.write(&content(500)).expect("sent");
    sending.finish().expect("ended");
    let error = transaction.send(&object(1, 1)).expect_err("beyond the bytes");
    assert!(error.is_transaction_full() && error.class() == Class::Transaction, "{error}");
    transaction.commit().expect("the first is stored");

    let mut transaction = session.begin().expect("begun");
    for i in [1, 2] {
        transaction.send(&object(i, 0)).expect("taken").finish().expect("ended");
    }
    assert!(transaction.send(&object(0, 0)).expect_err("third").is_transaction_full());
    transaction.commit().expect("both are stored");
    assert_eq!(list(&mut session, "/*", "/*").len(), 3);
}

#[test]
fn a_failed_commit_tells_aborted_from_unknown() {
    let node = "commit";
    let mut session = session(node, "fail dsmEndTxn 1 0 11\nfail dsmEndTxn 2 2302 41");
    let file = [("/lustre/f", &b"data"[..])];
    for (code, class) in [(11, Class::Transaction), (41, Class::FewerSessions)] {
        let error = archive(&mut session, &file).expect_err("scripted");
        assert!(matches!(error, CommitError::Aborted(_)), "{error}");
        assert_eq!(error.error().code(), Some(ReturnCode(code)));
        assert_eq!(error.error().class(), class);
        assert!(session.is_usable());
    }
    for (settings, stored) in [("fail dsmEndTxn 1 -50", 0), ("fail-after dsmEndTxn 1 -50", 1)] {
        set(node, settings);
        let error = archive(&mut session, &file).expect_err("scripted");
        assert!(matches!(error, CommitError::Unknown(_)), "{error}");
        assert!(!session.is_usable());
        assert_eq!(session.begin().expect_err("lost"), Error::SessionLost);
        session = sign_on(node, "").expect("signed on again");
        assert_eq!(list(&mut session, "/", "/f").len(), stored, "{settings}");
    }
}

#[test]
fn an_announced_abort_is_told_with_the_server_s_reason() {
    let mut session = session("doomed", "max-object-bytes 10");
    let name = name("/lustre/big");
    let mut transaction = session.begin().expect("begun");
    let object = NewObject { name: &name, description: "", info: &[], size: 20 };
    let mut sending = transaction.send(&object).expect("taken");
    sending.write(&content(10)).expect("sent");
    let error = sending.write(&content(10)).expect_err("too much");
    assert_eq!(error.code(), Some(ReturnCode(10)), "{error}");
    assert_eq!(error.class(), Class::Permanent);
    drop(sending);
    let error = transaction.commit().expect_err("over");
    assert_eq!(error, CommitError::Aborted(Error::TransactionOver));
    archive(&mut session, &[("/lustre/small", b"x")]).expect("the session goes on");

    // An announcement without the abort: the vote that was to bring out the reason has committed.
    set("doomed", "fail-after dsmEndSendObj 1 157");
    let mut transaction = session.begin().expect("begun");
    let object = NewObject { size: 0, ..object };
    let error = transaction.send(&object).expect("taken").finish().expect_err("announced");
    assert!(matches!(error, Error::OutcomeUnknown(_)), "{error}");
    assert!(matches!(transaction.commit(), Err(CommitError::Unknown(_))));
    assert!(!session.is_usable());
    drop(session);
    let mut session = sign_on("doomed", "").expect("signed on again");
    assert_eq!(list(&mut session, "/", "/big").len(), 1, "it is stored after all");
}

#[test]
fn the_announced_length_is_kept() {
    let mut session = session("length", "");
    let name = name("/lustre/x");
    let object = NewObject { name: &name, description: "", info: &[], size: 3 };
    let mut transaction = session.begin().expect("begun");
    let mut sending = transaction.send(&object).expect("taken");
    sending.write(b"ab").expect("sent");
    assert_eq!(sending.write(b"cd"), Err(Error::Size { announced: 3, written: 4 }));
    drop(sending);
    assert!(transaction.commit().is_err());
    let mut transaction = session.begin().expect("begun");
    let mut sending = transaction.send(&object).expect("taken");
    sending.write(b"ab").expect("sent");
    assert_eq!(sending.finish(), Err(Error::Size { announced: 3, written: 2 }));
    assert!(transaction.commit().is_err());
    assert_eq!(list(&mut session, "/*", "/*"), []);
}

#[test]
fn queries_match_names_kinds_and_descriptions() {
    let mut session = session("query", "");
    archive(&mut session, &[("/lustre/a/1", b"1"), ("/lustre/a/b/2", b"2")]).expect("stored");
    archive(&mut session, &[("/lustre/a/1", b"one")]).expect("stored again");
    let directory = ObjectName::from_path(FS, b"/lustre/a", Kind::Directory).expect("a name");
    let mut transaction = session.begin().expect("begun");
    let object = NewObject { name: &directory, description: "dir", info: &[], size: 0 };
    transaction.send(&object).expect("taken").finish().expect("ended");
    transaction.commit().expect("stored");

    assert_eq!(list(&mut session, "/*", "/*").len(), 4);
    assert_eq!(list(&mut session, "/a", "/1").len(), 2, "copies of a name add up");
    assert_eq!(list(&mut session, "/a*", "/?").len(), 3);
    assert_eq!(list(&mut session, "/nowhere", "/*"), []);
    let mut count = |pattern: &NamePattern, description: &str| {
        session.query(pattern, &QueryFilter { description }).expect("begun").count()
    };
    let all = NamePattern::new(FS, b"/*", b"/*", Some(Kind::File)).expect("a pattern");
    assert_eq!(count(&all, "*"), 3);
    assert_eq!(count(&all, "run ?"), 3);
    assert_eq!(count(&all, "dir"), 0);
    assert_eq!(count(&NamePattern::exactly(&directory), "d*"), 1);
    let elsewhere = NamePattern::new(b"/nofs", b"/*", b"/*", None).expect("a pattern");
    assert_eq!(count(&elsewhere, "*"), 0);
    // Left in the middle, a query is ended all the same.
    let first = session.query(&all, &QueryFilter::default()).expect("begun").next();
    assert!(first.expect("there is one").is_ok());
    session.begin().expect("no query is in the way");
}

#[test]
fn objects_of_a_retrieval_may_be_skipped_or_left() {
    let node = "retrieve";
    let mut session = session(node, "");
    let data = content(10_000);
    let files = [("/lustre/1", &data[..]), ("/lustre/2", b"two"), ("/lustre/3", b"three")];
    archive(&mut session, &files).expect("stored");
    let ids: Vec<_> = list(&mut session, "/*", "/*").iter().map(|object| object.id).collect();
    let mut buffer = [0; 100];
    {
        let mut retrieval = session.retrieve(&ids).expect("begun");
        let mut object = retrieval.next_object().expect("usable").expect("first");
        assert_eq!(object.read(&mut buffer), Ok(100));
        assert!(matches!(object.read(&mut []), Err(Error::Invalid { .. })));
        drop(object);
        drop(retrieval.next_object().expect("usable").expect("second, not read"));
        let mut object = retrieval.next_object().expect("usable").expect("third");
        assert_eq!(object.read(&mut buffer), Ok(5));
        assert_eq!(&buffer[..5], b"three");
        assert_eq!(object.read(&mut buffer), Ok(0));
    }
    assert!(matches!(session.retrieve(&[]), Err(Error::Invalid { .. })));
    let many = vec![ids[0]; 4081];
    assert!(matches!(session.retrieve(&many), Err(Error::TooMany { .. })));

    set(node, "fail dsmGetData 2 14");
    let mut retrieval = session.retrieve(&ids).expect("begun");
    let mut object = retrieval.next_object().expect("usable").expect("first");
    assert_eq!(object.read(&mut buffer), Ok(100));
    assert_eq!(object.read(&mut buffer), Ok(100));
    assert_eq!(object.read(&mut buffer).expect_err("scripted").code(), Some(ReturnCode(14)));
    drop(object);
    assert_eq!(retrieval.next_object().expect_err("lost"), Error::SessionLost);
    drop(retrieval);
    assert!(!session.is_usable());
}

#[test]
fn errors_of_one_object_leave_the_transaction_alone() {
    let node = "unbound";
    let mut session = session(node, "fail dsmBindMC 1 185");
    let (first, second) = (name("/lustre/1"), name("/lustre/2"));
    let object = |name| NewObject { name, description: "", info: &[], size: 0 };
    let mut transaction = session.begin().expect("begun");
    let error = transaction.send(&object(&first)).expect_err("excluded");
    assert_eq!((error.code(), error.class()), (Some(ReturnCode(185)), Class::Permanent));
    let long = "d".repeat(256);
    let bad = NewObject { description: &long, ..object(&first) };
    assert!(matches!(transaction.send(&bad), Err(Error::TooLong { .. })));
    let bad = NewObject { info: &[0; 256], ..object(&first) };
    assert!(matches!(transaction.send(&bad), Err(Error::TooLong { .. })));
    transaction.send(&object(&second)).expect("taken").finish().expect("ended");
    transaction.commit().expect("stored");
    assert_eq!(list(&mut session, "/*", "/*").len(), 1);

    set(node, "archive-copy-group no");
    let mut transaction = session.begin().expect("begun");
    let error = transaction.send(&object(&first)).expect_err("no copy group");
    assert_eq!(error.code(), Some(ReturnCode(186)));
}

#[test]
fn more_sessions_than_mount_points_are_told_to_be_fewer() {
    let node = "mounts";
    let mut one = session(node, "max-mount-points 1");
    let mut two = sign_on(node, "max-mount-points 1").expect("signed on");
    let name = name("/lustre/1");
    let object = NewObject { name: &name, description: "", info: &[], size: 0 };
    let mut transaction = one.begin().expect("begun");
    transaction.send(&object).expect("taken").finish().expect("ended");
    let error = archive(&mut two, &[("/lustre/2", b"x")]).expect_err("no mount point left");
    assert_eq!(error.error().class(), Class::FewerSessions);
    transaction.commit().expect("stored");
    archive(&mut two, &[("/lustre/2", b"x")]).expect("the mount point is free");
}

#[test]
fn object_information_can_be_replaced() {
    let mut session = session("update", "");
    archive(&mut session, &[("/lustre/1", b"abc"), ("/lustre/2", b"abc")]).expect("stored");
    let id = list(&mut session, "/", "/1")[0].id;
    session.update_info(id, b"new", 3).expect("updated");
    assert_eq!(list(&mut session, "/", "/1")[0].info, b"new");
    assert_eq!(list(&mut session, "/", "/2")[0].info.len(), 48);
    let gone = tsm_bindings::tsm::ObjectId(1);
    assert_eq!(session.update_info(gone, b"new", 3).expect_err("none").code(), Some(ReturnCode(2)));
}

#[test]
fn a_delete_that_the_server_forbids_shows_at_the_commit() {
    let mut session = session("keeper", "archive-delete no");
    archive(&mut session, &[("/lustre/1", b"abc")]).expect("stored");
    assert!(!session.limits().expect("known").may_delete);
    let id = list(&mut session, "/*", "/*")[0].id;
    let mut transaction = session.begin().expect("begun");
    transaction.delete(id).expect("not yet refused");
    let error = transaction.commit().expect_err("refused");
    assert!(matches!(&error, CommitError::Aborted(e) if e.class() == Class::Permanent), "{error}");
    assert_eq!(list(&mut session, "/*", "/*").len(), 1);
}

#[test]
fn sessions_work_side_by_side() {
    fn assert_send<T: Send>(_: &T) {}
    const THREADS: usize = 4;
    const FILES: usize = 10;
    let mut first = session("parallel", "");
    assert_send(&first);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut session = server().0.sign_on(&login("parallel")).expect("signed on");
            scope.spawn(move || {
                for file in 0..FILES {
                    let path = format!("/lustre/{thread}/{file}");
                    archive(&mut session, &[(&path, path.as_bytes())]).expect("stored");
                }
            });
        }
    });
    let objects = list(&mut first, "/*", "/*");
    assert_eq!(objects.len(), THREADS * FILES);
    for object in &objects {
        assert_eq!(retrieve(&mut first, object), object.name.to_string().into_bytes());
    }
}

#[test]
fn a_name_of_the_server_and_a_notice_come_with_the_session() {
    let session = session("notice", "notice 69");
    assert_eq!(session.server(), "TSM-SIM");
    assert_eq!(session.notice(), Some(ReturnCode(69)));
}

#[test]
fn the_library_is_started_once() {
    let (tsm, directory) = server();
    assert_eq!(tsm.version().to_string(), "8.1.13.0");
    let again = Tsm::start(&Start::default()).expect("the same");
    assert!(std::ptr::eq(tsm, again));
    let other = Start { library: Some(directory.join("other.so")), ..Start::default() };
    let error = Tsm::start(&other).expect_err("another library");
    assert!(matches!(error, StartError::Load(LoadError::Loaded { .. })), "{error}");
    let session = session("open", "");
    assert!(matches!(tsm.clean_up(), Err(Error::SessionsOpen { .. })));
    drop(session);
}

#[test]
fn a_password_is_checked_only_where_the_library_looks_at_it() {
    let (tsm, directory) = server();
    set("check", "");
    let check = |password: &[u8]| tsm.check_password("check", password, None);
    check(b"geheim").expect("the right one");
    let error = check(b"wrong").expect_err("a wrong one");
    assert_eq!(error.code(), Some(ReturnCode::AUTH_FAILURE));
    set("check", "password-access generate");
    for password in [&b"wrong"[..], b"geheim"] {
        assert_eq!(check(password), Err(Error::PasswordNotChecked));
    }
    sim_tsm::configure(directory, "node-name check").expect("configured");
    for node in [None, Some("check")] {
        let login = Login { credentials: Credentials::Stored { node }, server: None };
        let mut session = tsm.sign_on(&login).expect("the stored one");
        assert_eq!(session.has_stored_password(), Ok(true));
    }
}
