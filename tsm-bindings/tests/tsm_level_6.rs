//! The same library, were it of level 6.3: older structures everywhere, and the object
//! information in another place. A program of its own, without the test harness: it sets the
//! environment, and it ends with the end of the library.

use tsm_bindings::tsm::{
    Credentials, Error, Kind, Login, NamePattern, NewObject, ObjectInfo, ObjectName, QueryFilter,
    Start, Tsm,
};

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    sim_tsm::configure(directory.path(), "api-level 6.3.1.0").expect("configured");
    sim_tsm::register_node(directory.path(), "old", "pw", "").expect("registered");
    // SAFETY: the program has no other thread.
    unsafe { std::env::set_var("TSM_SIM_DIR", directory.path()) };
    let library = sim_tsm::library().expect("the simulator is built");
    let start = Start { library: Some(library), ..Start::default() };
    let tsm = Tsm::start(&start).expect("started");
    assert_eq!(tsm.version().to_string(), "6.3.1.0");
    let credentials = Credentials::Password { node: "old", password: b"pw" };
    let login = Login { credentials, server: None };
    let mut session = tsm.sign_on(&login).expect("signed on");
    session.register_filespace(b"/fs", "fsqd").expect("registered");
    session.register_filespace(b"/fs", "fsqd").expect("is there");
    assert_eq!(session.limits().expect("known").transaction_objects, 4096);

    let name = ObjectName::from_path(b"/fs", b"/fs/a/b", Kind::File).expect("a name");
    let info = ObjectInfo { size: 3, mode: 0o100_644, crc: 7, ..Default::default() };
    let object = NewObject { name: &name, description: "d", info: &info.encode(), size: 3 };
    let mut transaction = session.begin().expect("begun");
    let mut sending = transaction.send(&object).expect("taken");
    sending.write(b"abc").expect("sent");
    sending.finish().expect("ended");
    transaction.commit().expect("stored");

    let pattern = NamePattern::exactly(&name);
    let mut query = session.query(&pattern, &QueryFilter::default()).expect("begun");
    let found = query.next().expect("one").expect("listed");
    assert!(query.next().is_none());
    drop(query);
    assert_eq!(found.name, name);
    assert_eq!(ObjectInfo::decode(&found.info), Ok(info));
    let mut buffer = [0; 10];
    {
        let mut retrieval = session.retrieve(&[found.id]).expect("begun");
        let mut object = retrieval.next_object().expect("usable").expect("one");
        assert_eq!(object.read(&mut buffer), Ok(3));
    }
    drop(session);
    tsm.clean_up().expect("no session is left");
    assert_eq!(tsm.sign_on(&login).expect_err("closed"), Error::CleanedUp);
}
