//! In steady state an ingest ring's thread allocates nothing for a DATA chunk: a counting allocator
//! watches a real ring that stores and drops files.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CStr;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use fsq_wire::{Info, Login, Op, PACKET_BYTES, Packet, PacketMut, StorageDest, VERSION};
use fsqd_uring::auth::{NoAuth, SignOn};
use fsqd_uring::clock::SystemClock;
use fsqd_uring::config::Durability;
use fsqd_uring::fs::linux::LinuxFs;
use fsqd_uring::identmap::{IdentityMap, SharedIdentityMap};
use fsqd_uring::ingest::acceptor::{Acceptor, Listener, Place};
use fsqd_uring::ingest::inbox::Message;
use fsqd_uring::ingest::shard::ShardConfig;
use fsqd_uring::ingest::worker::{Worker, WorkerConfig};
use fsqd_uring::path::Admission;
use fsqd_uring::ring::setup::Rung;
use fsqd_uring::staging::root::StagingRoot;
use fsqd_uring::staging::{Neighbours, StagingConfig, StagingService};

/// Allocations made by threads whose name begins with `fsq_ingest`.
static INGEST_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// A thread's name is looked up for its first few allocations: it gets it soon after its start.
const LOOKUPS_MAX: u32 = 64;

thread_local! {
    static LOOKUPS: Cell<u32> = const { Cell::new(0) };
    static IS_INGEST: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

fn note() {
    if IS_INGEST.get() {
        INGEST_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    } else if LOOKUPS.get() < LOOKUPS_MAX {
        LOOKUPS.set(LOOKUPS.get() + 1);
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes, terminated, to the buffer it is given.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
        IS_INGEST.set(name.to_bytes().starts_with(b"fsq_ingest"));
    }
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Client {
    socket: TcpStream,
    packet: Box<[u8; PACKET_BYTES]>,
}

impl Client {
    fn request(&mut self, op: Op, payload: &[u8], fill: impl FnOnce(&mut PacketMut<'_>)) {
        let mut packet = PacketMut::new(&mut self.packet, fsq_wire::Layout::C);
        packet.set_version(VERSION);
        packet.set_state(op.request());
        fill(&mut packet);
        self.socket.write_all(&self.packet[..]).expect("the daemon reads");
        self.socket.write_all(payload).expect("the daemon reads");
        self.socket.read_exact(&mut self.packet[..]).expect("the daemon answers");
        let reply = Packet::new(&self.packet, fsq_wire::Layout::C);
        assert_eq!((reply.state(), reply.rc()), (op.reply(), 0), "{:?}", reply.error_text());
    }

    fn open(&mut self, fpath: &str, dest: StorageDest) {
        let storage_dest = dest as i32;
        let info = Info { fs: b"/lustre", fpath: fpath.as_bytes(), desc: b"", storage_dest };
        self.request(Op::Open, b"", |packet| packet.set_info(&info).expect("fits"));
    }

    fn data(&mut self, payload: &[u8]) {
        self.request(Op::Data, payload, |packet| packet.set_data_size(payload.len() as u64));
    }
}

struct Ring {
    worker: Worker,
    acceptor: Acceptor,
    port: u16,
    _staging: StagingService<LinuxFs>,
}

fn start(localfs: &Path) -> Ring {
    let map = "polaris tsmserver-8 1 1000 2000 /lustre/data\n";
    let map = IdentityMap::parse(map, "identmap").expect("a good map");
    let map = SharedIdentityMap::new(map, "identmap".into());
    let clock = Arc::new(SystemClock::new());
    let root = StagingRoot::open(Arc::new(LinuxFs), localfs, std::process::id());
    let root = Arc::new(root.expect("a staging directory"));
    let sign_on = Arc::new(SignOn { map: map.clone(), auth: Box::new(NoAuth) });
    let staging = StagingService::start(
        root,
        StagingConfig::new(Durability::Fsync, 16),
        Arc::clone(&clock) as Arc<_>,
        Neighbours {
            gate: Box::new(sign_on),
            outbox: Box::new(|_, _| {}),
            is_taken: Box::new(|_| false),
        },
    );
    let staging = staging.expect("threads");
    let shard =
        ShardConfig { sessions_max: 8, windows: 15, stall_timeout: Duration::from_secs(60) };
    let admission = Admission::new("/lustre".into(), map, Ok(()), None);
    let connector = staging.connector();
    let worker = Worker::start(
        WorkerConfig { number: 0, shard, best: Rung::DeferNoArray },
        Arc::new(admission),
        clock,
        None,
        move |inbox, arena| connector(inbox, arena),
    );
    let worker = worker.expect("a ring");
    let listener = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let port = listener.port;
    let place = Place { inbox: Arc::clone(&worker.inbox), load: Arc::clone(&worker.load) };
    let acceptor = Acceptor::start(listener, vec![place]).expect("a thread");
    Ring { worker, acceptor, port, _staging: staging }
}

#[test]
fn no_allocation_for_a_chunk() {
    let localfs = tempfile::tempdir().expect("a directory");
    let ring = start(localfs.path());
    let socket = TcpStream::connect(("127.0.0.1", ring.port)).expect("a listener");
    let mut client = Client { socket, packet: Box::new([0; PACKET_BYTES]) };
    let login = Login { node: b"polaris", password: b"", hostname: b"localhost", port: 0 };
    client.request(Op::Connect, b"", |packet| packet.set_login(&login).expect("fits"));
    let payload = vec![0x37; 1_048_575];
    for dest in [StorageDest::Null, StorageDest::Local] {
        client.open(&format!("/lustre/data/{dest}"), dest);
        // Past the first preallocation and the first use of everything.
        for _ in 0..40 {
            client.data(&payload);
        }
        let before = INGEST_ALLOCATIONS.load(Ordering::Relaxed);
        assert!(before > 0, "the counter counts: opening the file allocates");
        for _ in 0..100 {
            client.data(&payload);
        }
        let (to, answer) = sync_channel(1);
        ring.worker.inbox.post(Message::Count(7, to));
        let (number, counted) = answer.recv().expect("an answer");
        assert_eq!((number, counted.shard.chunks % 140), (7, 0));
        let after = INGEST_ALLOCATIONS.load(Ordering::Relaxed);
        assert_eq!(after - before, 0, "allocations in 100 chunks to {dest} and a report");
        client.request(Op::Close, b"", |_| {});
    }
    let stored = localfs.path().join("data/local");
    assert_eq!(stored.metadata().expect("stored").len(), 140 * payload.len() as u64);
    ring.acceptor.stop();
    ring.worker.inbox.post(Message::Stop);
    let totals = ring.worker.join().expect("a clean end");
    assert_eq!((totals.shard.files, totals.shard.chunks), (1, 280));
}
