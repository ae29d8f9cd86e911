//! The simulated world: clients feed bytes, the shard runs, the model remembers what was committed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fsq_wire::{Info, Layout, Login, Op as Request, PACKET_BYTES, Packet, PacketMut, StorageDest};
use rustix::io::Errno;

use crate::identmap::{Identity, IdentityMap, SharedIdentityMap};
use crate::ingest::shard::{Io, Shard, ShardConfig};
use crate::limits::{BLOCK_BYTES, WINDOW_BYTES};
use crate::path::Admission;
use crate::prng::Prng;
use crate::refusal::Refusal;
use crate::ring::sim::{Files, Sim, SimOptions};
use crate::ring::{Completion, FileId, Ring, SocketId, Span, Token};
use crate::services::{Answer, Job, NewFile, Services, StagedFile};

pub(super) const PASSWORD: &[u8] = b"polaris1234";

/// A file that the model has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) bytes: Vec<u8>,
    pub(super) crc: u32,
}

#[derive(Debug, Default)]
struct Receiving {
    name: PathBuf,
    bytes: Vec<u8>,
    allocated: u64,
}

/// Files of the model: those being received, and those committed under their name.
#[derive(Debug, Default)]
pub(super) struct Store {
    receiving: BTreeMap<u64, Receiving>,
    pub(super) stored: BTreeMap<PathBuf, Stored>,
    keys: u64,
}

impl Store {
    fn put(&mut self, key: u64, bytes: &[u8], offset: u64) {
        let file = self.receiving.get_mut(&key).expect("an open file");
        let end = offset as usize + bytes.len();
        if file.bytes.len() < end {
            file.bytes.resize(end, 0xee);
        }
        file.bytes[offset as usize..end].copy_from_slice(bytes);
    }
}

/// The store as the ring's files.
#[derive(Clone, Debug)]
pub(super) struct StoreFiles(Rc<RefCell<Store>>);

impl Files for StoreFiles {
    fn write(&mut self, file: FileId, bytes: &[u8], offset: u64) -> Result<u32, Errno> {
        let mut store = self.0.borrow_mut();
        let key = file.0 as u64;
        let allocated = store.receiving[&key].allocated;
        assert!(
            offset + bytes.len() as u64 <= allocated,
            "writes stay within what is preallocated"
        );
        store.put(key, bytes, offset);
        Ok(bytes.len() as u32)
    }

    fn read(&mut self, _: FileId, _: &mut [u8], _: u64) -> Result<u32, Errno> {
        Err(Errno::BADF)
    }
}

/// Jobs wait here until the world answers them.
#[derive(Debug, Default)]
pub(super) struct Jobs(Vec<(Token, Job)>);

impl Services for Jobs {
    fn submit(&mut self, token: Token, job: Job) {
        self.0.push((token, job));
    }
}

/// What the world does besides what [`SimOptions`] say.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorldOptions {
    pub(super) sim: SimOptions,
    pub(super) windows: u32,
    pub(super) sessions_max: u32,
    /// Percent of Open, Extend and Commit jobs that fail.
    pub(super) failing_jobs: u8,
}

impl WorldOptions {
    pub(super) fn new(sim: SimOptions) -> Self {
        Self { sim, windows: 8, sessions_max: 64, failing_jobs: 0 }
    }
}

pub(super) struct World {
    pub(super) shard: Shard,
    pub(super) sim: Sim<StoreFiles>,
    pub(super) store: Rc<RefCell<Store>>,
    pub(super) now: Duration,
    jobs: Jobs,
    identity: Arc<Identity>,
    prng: Prng,
    options: WorldOptions,
    completions: Vec<Completion>,
}

impl World {
    pub(super) fn new(options: WorldOptions) -> Self {
        let config = ShardConfig {
            sessions_max: options.sessions_max,
            windows: options.windows,
            stall_timeout: Duration::from_secs(60),
        };
        let map = "polaris tsmserver-8 1 1000 2000 /lustre/data\n";
        let map = IdentityMap::parse(map, "identmap").expect("a good map");
        let identity = map.lookup("polaris").expect("in the map");
        let map = SharedIdentityMap::new(map, PathBuf::from("identmap"));
        let admission = Admission::new(PathBuf::from("/lustre"), map, Ok(()), None);
        let store = Rc::new(RefCell::new(Store::default()));
        let scratch = Span { start: 0, len: WINDOW_BYTES };
        let files = StoreFiles(Rc::clone(&store));
        Self {
            sim: Sim::new(options.sim, config.arena_bytes(), scratch, files),
            shard: Shard::new(config, Arc::new(admission)),
            store,
            now: Duration::from_secs(1),
            jobs: Jobs::default(),
            identity,
            prng: Prng::new(!options.sim.seed),
            options,
            completions: Vec::new(),
        }
    }

    /// A client connects.
    pub(super) fn connect(&mut self) -> SocketId {
        let socket = self.sim.connect();
        let now = self.now;
        let mut io = Io { ring: &mut self.sim, services: &mut self.jobs, now };
        self.shard.accept(&mut io, socket, format!("client-{}", socket.0));
        socket
    }

    /// One turn of the loop; whether anything happened.
    pub(super) fn step(&mut self) -> bool {
        self.now += Duration::from_micros(100);
        let now = self.now;
        let mut busy = !self.jobs.0.is_empty();
        if busy {
            let reorder = self.options.sim.reorder;
            let at = if reorder { self.prng.below(self.jobs.0.len() as u64) as usize } else { 0 };
            let (token, job) = self.jobs.0.remove(at);
            let answer = self.answer(job);
            let mut io = Io { ring: &mut self.sim, services: &mut self.jobs, now };
            self.shard.answered(&mut io, token, answer);
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.sim.reap(Some(Duration::ZERO), &mut completions).expect("the simulated ring holds");
        busy |= !completions.is_empty() || !self.jobs.0.is_empty();
        for completion in completions.drain(..) {
            let mut io = Io { ring: &mut self.sim, services: &mut self.jobs, now };
            self.shard.completed(&mut io, completion);
        }
        self.completions = completions;
        let mut io = Io { ring: &mut self.sim, services: &mut self.jobs, now };
        let flight = io.ring.in_flight();
        self.shard.tick(&mut io);
        busy |= self.sim.in_flight() != flight || self.sim.file_busy();
        busy
    }

    /// Runs until nothing happens any more.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..2_000_000 {
            // The simulator may pass over what is ready; a few empty turns are no rest yet. Half a
            // second of them lets the deadlines of the shard's own making (window hold) come.
            quiet = if self.step() { 0 } else { quiet + 1 };
            if quiet > 40 {
                return;
            }
        }
        panic!("the world does not come to rest (seed {})", self.options.sim.seed);
    }

    /// Lets virtual time pass.
    pub(super) fn pass(&mut self, period: Duration) {
        let until = self.now + period;
        while self.now < until {
            self.now += Duration::from_millis(60);
            self.step();
        }
        self.settle();
    }

    /// Whether a commit has been asked for and not been answered.
    pub(super) fn commit_waits(&self) -> bool {
        self.jobs.0.iter().any(|(_, job)| matches!(job, Job::Commit { .. }))
    }

    pub(super) fn stop(&mut self) {
        let now = self.now;
        let mut io = Io { ring: &mut self.sim, services: &mut self.jobs, now };
        self.shard.stop(&mut io);
    }

    /// Everything that was taken has been given back.
    pub(super) fn check_empty(&self) {
        let seed = self.options.sim.seed;
        assert_eq!(self.shard.sessions(), 0, "none is left (seed {seed}): {:#?}", self.shard);
        assert_eq!(self.shard.windows_free(), self.options.windows, "windows (seed {seed})");
        assert_eq!(self.sim.in_flight(), 0, "nothing is in flight (seed {seed})");
        assert!(self.store.borrow().receiving.is_empty(), "no file is open (seed {seed})");
    }

    fn job_fails(&mut self) -> bool {
        self.prng.below(100) < u64::from(self.options.failing_jobs)
    }

    fn answer(&mut self, job: Job) -> Answer {
        let broken = || Refusal::new(Errno::IO, "the model fails this");
        let fails = self.job_fails();
        match job {
            Job::SignOn { node, password, .. } => {
                let known = node == "polaris" && password.expose() == PASSWORD;
                let refusal = || Refusal::new(Errno::ACCESS, format!("node '{node}' is refused"));
                Answer::SignOn(known.then(|| Arc::clone(&self.identity)).ok_or_else(refusal))
            }
            Job::Open(_) if fails => Answer::Open(Err(broken())),
            Job::Open(file) => Answer::Open(self.open(&file)),
            Job::Extend { .. } if fails => Answer::Extend(Err(broken())),
            Job::Extend { staged, from, len } => {
                let mut store = self.store.borrow_mut();
                // It may have been aborted while the job waited.
                let Some(file) = store.receiving.get_mut(&staged.key) else {
                    return Answer::Extend(Err(broken()));
                };
                assert_eq!(file.allocated, from, "extended where it ends");
                // Space is short now and then: less than asked for.
                file.allocated += if self.prng.below(4) == 0 { len.min(1 << 20) } else { len };
                Answer::Extend(Ok(file.allocated))
            }
            Job::Commit { staged, tail, len, crc } => {
                if let Some(tail) = tail {
                    assert!(tail.span.start.is_multiple_of(u64::from(BLOCK_BYTES)));
                    assert!(tail.offset.is_multiple_of(u64::from(BLOCK_BYTES)));
                    let bytes = self.sim.bytes(tail.span).to_vec();
                    self.store.borrow_mut().put(staged.key, &bytes, tail.offset);
                }
                let mut store = self.store.borrow_mut();
                let file = store.receiving.remove(&staged.key).expect("an open file");
                if fails {
                    return Answer::Commit(Err(broken()));
                }
                let mut bytes = file.bytes;
                assert!(bytes.len() as u64 >= len, "every byte was written");
                bytes.truncate(len as usize);
                let before = store.stored.insert(file.name, Stored { bytes, crc });
                assert_eq!(before, None, "nothing is overwritten");
                Answer::Commit(Ok(()))
            }
            Job::Abort { staged } => {
                self.store.borrow_mut().receiving.remove(&staged.key).expect("an open file");
                Answer::Abort
            }
        }
    }

    fn open(&mut self, file: &NewFile) -> Result<StagedFile, Refusal> {
        let mut store = self.store.borrow_mut();
        let name = file.placement.staging.clone();
        let taken = store.stored.contains_key(&name)
            || store.receiving.values().any(|receiving| receiving.name == name);
        if taken {
            return Err(Refusal::new(Errno::EXIST, format!("'{}' exists", name.display())));
        }
        store.keys += 1;
        let key = store.keys;
        store.receiving.insert(key, Receiving { name, ..Receiving::default() });
        Ok(StagedFile { key, file: FileId(key as i32) })
    }
}

/// Bytes of a client's side of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Script(pub(super) Vec<u8>);

impl Script {
    pub(super) fn connected() -> Self {
        let mut script = Self::default();
        script.connect(PASSWORD);
        script
    }

    fn packet(&mut self, request: Request, fill: impl FnOnce(&mut PacketMut<'_>)) -> &mut Self {
        // Deployed clients do not clear their packets.
        let mut bytes = [0xa5; PACKET_BYTES];
        let mut packet = PacketMut::new(&mut bytes, Layout::C);
        packet.set_version(fsq_wire::VERSION);
        packet.set_state(request.request());
        fill(&mut packet);
        self.0.extend_from_slice(&bytes);
        self
    }

    pub(super) fn connect(&mut self, password: &[u8]) -> &mut Self {
        let login = Login { node: b"polaris", password, hostname: b"localhost", port: 7625 };
        self.packet(Request::Connect, |packet| packet.set_login(&login).expect("fits"))
    }

    pub(super) fn open(&mut self, name: &str, dest: StorageDest) -> &mut Self {
        let fpath = format!("/lustre/data/{name}");
        let storage_dest = dest as i32;
        let info = Info { fs: b"/lustre", fpath: fpath.as_bytes(), desc: b"", storage_dest };
        self.packet(Request::Open, |packet| packet.set_info(&info).expect("fits"))
    }

    pub(super) fn data_header(&mut self, size: u64) -> &mut Self {
        self.packet(Request::Data, |packet| packet.set_data_size(size))
    }

    pub(super) fn data(&mut self, payload: &[u8]) -> &mut Self {
        self.data_header(payload.len() as u64).0.extend_from_slice(payload);
        self
    }

    pub(super) fn close(&mut self) -> &mut Self {
        self.packet(Request::Close, |_| {})
    }

    pub(super) fn disconnect(&mut self) -> &mut Self {
        self.packet(Request::Disconnect, |_| {})
    }
}

/// A reply, as the client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) state: u32,
    pub(super) rc: i32,
    pub(super) text: String,
}

/// Splits what was sent into replies.
pub(super) fn replies(sent: &[u8]) -> Vec<Reply> {
    assert!(sent.len().is_multiple_of(PACKET_BYTES), "whole packets");
    let reply = |bytes: &[u8]| {
        let packet = Packet::new(bytes.try_into().expect("whole"), Layout::C);
        let text = packet.error_text().expect("terminated");
        let text = String::from_utf8(text.to_vec()).expect("utf-8");
        Reply { state: packet.state().bits(), rc: packet.rc(), text }
    };
    sent.chunks(PACKET_BYTES).map(reply).collect()
}

/// States and codes of the replies.
pub(super) fn codes(sent: &[u8]) -> Vec<(u32, i32)> {
    replies(sent).iter().map(|reply| (reply.state, reply.rc)).collect()
}

/// Content that differs at every place.
pub(super) fn content(len: usize, salt: u64) -> Vec<u8> {
    let mut prng = Prng::new(salt);
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&prng.bits().to_ne_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Names in the store.
pub(super) fn names(store: &Store) -> BTreeSet<&Path> {
    store.stored.keys().map(PathBuf::as_path).collect()
}
