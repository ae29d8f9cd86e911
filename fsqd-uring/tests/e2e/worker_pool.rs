//! Writes to staging must not go through the kernel's worker pool: its threads cost a switch each,
//! serialise writes per inode, and are the first thing to look for when ingest is slow.

use std::collections::BTreeSet;
use std::fs;

use fsq_wire::StorageDest;

use crate::counters::report;
use crate::support::content::bytes;
use crate::support::deployed::Deployed;
use crate::support::mount::{Mount, is_ext4};
use crate::support::site::Site;
use crate::support::{eventually, skip, sole_turn};

/// The kernel's trace of io_uring requests that went to the pool, in a buffer of its own.
struct Trace {
    tracefs: Mount,
}

impl Trace {
    fn start() -> Result<Self, String> {
        let trace = Self { tracefs: Mount::tracefs()? };
        let make = || -> std::io::Result<()> {
            fs::create_dir(trace.instance())?;
            let event = "events/io_uring/io_uring_queue_async_work/enable";
            fs::write(trace.instance().join(event), "1")
        };
        make().map_err(|error| format!("no trace of io_uring: {error}"))?;
        trace.prove();
        Ok(trace)
    }

    /// A request that is asked to go to the pool must be seen, or seeing none would mean nothing.
    fn prove(&self) {
        let mut ring = io_uring::IoUring::new(1).expect("the daemon needs one as well");
        let nop = io_uring::opcode::Nop::new().build().flags(io_uring::squeue::Flags::ASYNC);
        // SAFETY: a NOP refers to no memory.
        unsafe { ring.submission().push(&nop) }.expect("the queue is empty");
        ring.submit_and_wait(1).expect("a NOP completes");
        let this = rustix::thread::gettid().as_raw_nonzero().to_string();
        let seen = self.opcodes(&BTreeSet::from([this]));
        assert!(seen.iter().any(|opcode| opcode == "NOP"), "the trace does not show {seen:?}");
    }

    fn instance(&self) -> std::path::PathBuf {
        self.tracefs.path().join("instances").join(format!("fsqd-test-{}", std::process::id()))
    }

    /// Forgets what was seen so far.
    fn clear(&self) {
        fs::write(self.instance().join("trace"), "").expect("writable");
    }

    /// Opcodes that threads of `pid` have handed to the pool.
    fn opcodes(&self, threads: &BTreeSet<String>) -> Vec<String> {
        let trace = fs::read_to_string(self.instance().join("trace")).expect("readable");
        let lines = trace.lines().filter_map(|line| {
            // "  fsq_ring/0-1234  [001] ....  12.345: io_uring_queue_async_work: ... opcode WRITE, ..."
            let (task, rest) = line.split_once('[')?;
            let (_, thread) = task.trim().rsplit_once('-')?;
            let (_, opcode) = rest.split_once("opcode ")?;
            let (opcode, _) = opcode.split_once(',')?;
            threads.contains(thread).then(|| opcode.to_owned())
        });
        lines.collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.instance());
    }
}

fn threads(pid: u32) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
    tasks.flatten().map(|task| task.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn writes_to_ext4_never_go_to_the_worker_pool() {
    const NAME: &str = "writes_to_ext4_never_go_to_the_worker_pool";
    let _turn = sole_turn();
    let site = Site::new();
    if !is_ext4(&site.staging()) {
        return skip(NAME, "the build directory is not on ext4");
    }
    let trace = match Trace::start() {
        Ok(trace) => trace,
        Err(reason) => return skip(NAME, &reason),
    };
    let daemon = site.start();
    let mut client = Deployed::signed_on(daemon.port());
    // The daemon has tried its rings out on a file that was not prepared like a staging file.
    trace.clear();
    // Kept on staging: the copies of the drain do go to the pool, and are meant to.
    let content = bytes(64, 64 << 20);
    client.upload("/lustre/data/large", StorageDest::Local, &content, 1_048_575);
    client.disconnect();
    let opcodes = trace.opcodes(&threads(daemon.pid()));
    println!("handed to the pool: {opcodes:?}");
    let writes = opcodes.iter().filter(|opcode| opcode.contains("WRITE")).count();
    assert_eq!(writes, 0, "of {} requests to the pool", opcodes.len());
    // The daemon itself sees the pool without root, by its threads.
    let ingest = report(&daemon, "all rings");
    assert_eq!(ingest["bytes"], content.len() as f64, "{ingest:?}");
    match ingest.get("punts") {
        None => skip(NAME, "whose workers are whose cannot be seen here"),
        Some(punts) => assert_eq!(opcodes.is_empty(), *punts == 0.0, "{punts} punts, {opcodes:?}"),
    }
    assert!(fs::read(site.staged("data/large")).expect("it is there") == content);

    // Seeing none proves something only where some would be seen: the drain extends its files.
    let mut client = Deployed::signed_on(daemon.port());
    client.upload("/lustre/data/drained", StorageDest::Lustre, &content, 1_048_575);
    eventually("the copy arrives", || site.delivered("data/drained").exists().then_some(()));
    let opcodes = trace.opcodes(&threads(daemon.pid()));
    let drain = report(&daemon, "all drain rings");
    println!("of the drain: {opcodes:?}, counted as {:?} punts", drain.get("punts"));
    assert!(opcodes.iter().any(|opcode| opcode.contains("WRITE")), "{opcodes:?}");
    assert!(drain.get("punts").is_none_or(|punts| *punts > 0.0), "{drain:?}");
    daemon.stop();
}
