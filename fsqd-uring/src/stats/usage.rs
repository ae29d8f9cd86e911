//! What a ring costs: the CPU time of its thread, and the kernel's worker threads behind it.
//!
//! Read from /proc/self/task, without privileges and without a call of the ring's own thread but at
//! its start and end. An operation that the kernel cannot do at once and cannot wait for either goes
//! to its worker pool ("is punted"). Since Linux 5.12 those workers are threads of this process, one
//! pool for each thread that submits, named `iou-wrk-` and the submitter's thread id
//! (`create_io_thread`, and the name that every worker gives itself).
//!
//! How many operations were punted the kernel does not tell without root; that a worker had something
//! to do can be seen. [`Workers::punts`] says what is counted for it.
//!
//! Invariant: what has been counted is never taken back, also when a worker has ended.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::ring::setup::Rung;
use crate::ring::uring::{Uring, UringConfig};
use crate::ring::{FileId, Op, Ring, Span, Token};

/// How long an idle worker sleeps before it looks whether it is still needed.
const IDLE: Duration = Duration::from_secs(5);

/// How the kernel names its workers.
const WORKER_NAME: &str = "iou-wrk-";

/// CPU time of a ring since it was ready; opening it and registering its memory is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the ring's thread, user and system. By the scheduler, to the nanosecond, where the kernel
    /// has `schedstat`; otherwise the sum of the other two.
    pub cpu: Duration,
    /// Its part in user space, in steps of a clock tick (10 ms).
    pub user: Duration,
    /// Its part in the kernel, likewise.
    pub system: Duration,
    /// Its kernel workers; `None` where they cannot be told apart (see [`workers_visible`]).
    pub workers: Option<Workers>,
}

/// The kernel's worker threads of a ring, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workers {
    /// Their CPU time. What one used after it was last looked at, and before it ended (it does after
    /// some idle seconds, unless it is the last), is not in it.
    pub cpu: Duration,
    /// How often one of them has gone back to sleep, less one for each 5 s of its age, because that
    /// often it wakes with nothing to do; but at least 1 for each worker. 0 means that no operation
    /// was handed over since the ring was ready (unless its worker has ended before it was looked
    /// at). Otherwise it shows the order of magnitude: a worker that finds several operations sleeps
    /// once, and one whose operation waits for a device or a lock sleeps more than once.
    pub punts: u64,
}

impl Usage {
    /// CPU time of the thread and, as far as known, of its workers.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.cpu + self.workers.map_or(Duration::ZERO, |workers| workers.cpu)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.user += other.user;
        self.system += other.system;
        self.workers = self.workers.zip(other.workers).map(|(ours, theirs)| Workers {
            cpu: ours.cpu + theirs.cpu,
            punts: ours.punts + theirs.punts,
        });
    }
}

/// A thread as /proc shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    cpu: Duration,
    user: Duration,
    system: Duration,
    /// When it was started, since boot.
    started: Duration,
    /// How often it went to sleep by itself.
    sleeps: u64,
}

impl Reading {
    fn of(thread: i32) -> Option<Self> {
        let file = |name| std::fs::read_to_string(format!("/proc/self/task/{thread}/{name}")).ok();
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        Self::parse(
            &file("stat")?,
            &file("status")?,
            file("schedstat").as_deref(),
            ticks_per_second,
        )
    }

    /// From the three files of proc_pid_stat(5), proc_pid_status(5) and the kernel's sched-stats.rst.
    fn parse(stat: &str, status: &str, sched: Option<&str>, ticks_per_second: u64) -> Option<Self> {
        // The name may contain anything, also blanks and parentheses.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first of these fields is number 3, the state.
        let ticks = |number: usize| {
            let ticks: u64 = fields.get(number - 3)?.parse().ok()?;
            Some(Duration::from_nanos(
                ticks.saturating_mul(1_000_000_000 / ticks_per_second.max(1)),
            ))
        };
        let (user, system, started) = (ticks(14)?, ticks(15)?, ticks(22)?);
        let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let exact = sched.and_then(|sched| sched.split_ascii_whitespace().next()?.parse().ok());
        Some(Self {
            cpu: exact.map_or(user + system, Duration::from_nanos),
            user,
            system,
            started,
            sleeps: sleeps?.trim().parse().ok()?,
        })
    }

    /// What [`Workers::punts`] says, of one worker at a time since boot.
    fn punts(&self, now: Duration) -> u64 {
        let age = now.saturating_sub(self.started);
        let idle = age.as_secs() / IDLE.as_secs();
        self.sleeps.saturating_sub(idle).max(1)
    }
}

/// The worker threads of the process at one instant, by the thread they work for.
#[derive(Debug, Default)]
pub struct Scan {
    /// Since boot.
    now: Duration,
    workers: HashMap<i32, Vec<(i32, Reading)>>,
}

impl Scan {
    /// Looks at all threads of the process.
    #[must_use]
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
        let mut workers: HashMap<i32, Vec<_>> = HashMap::new();
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            // Threads come and go: one that is gone is not there.
            let owner = std::fs::read_to_string(task.path().join("comm")).ok();
            let owner = owner.as_deref().and_then(owner_of);
            let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some((owner, thread)) = owner.zip(thread)
                && let Some(reading) = Reading::of(thread)
            {
                workers.entry(owner).or_default().push((thread, reading));
            }
        }
        Self { now, workers }
    }

    fn workers_of(&self, thread: i32) -> &[(i32, Reading)] {
        self.workers.get(&thread).map_or(&[], Vec::as_slice)
    }
}

/// The thread that a worker of this name works for.
fn owner_of(name: &str) -> Option<i32> {
    name.trim_end().strip_prefix(WORKER_NAME)?.parse().ok()
}

#[derive(Debug)]
struct Counted {
    started: Duration,
    /// What it had done before the ring was ready, and may still be finishing.
    excused: Workers,
    workers: Workers,
}

/// What was seen of a ring's thread and its workers so far.
#[derive(Debug, Default)]
struct Ledger {
    /// The thread when the ring was ready, and at last.
    own: Option<(Reading, Reading)>,
    alive: HashMap<i32, Counted>,
    gone: Workers,
}

impl Ledger {
    /// Begins with the workers that are there already: what they did is not counted.
    fn begin(now: Duration, own: Option<Reading>, workers: &[(i32, Reading)]) -> Self {
        let mut ledger = Self { own: own.map(|own| (own, own)), ..Self::default() };
        for (thread, reading) in workers {
            let started = reading.started;
            let excused = Workers { cpu: reading.cpu, punts: reading.punts(now) + 1 };
            let counted = Counted { started, excused, workers: Workers::default() };
            ledger.alive.insert(*thread, counted);
        }
        ledger
    }

    fn note(&mut self, now: Duration, own: Option<Reading>, workers: &[(i32, Reading)]) {
        if let Some(((_, last), own)) = self.own.as_mut().zip(own) {
            *last = own;
        }
        let gone = &mut self.gone;
        self.alive.retain(|thread, counted| {
            let same = |(other, reading): &(i32, Reading)| {
                other == thread && reading.started == counted.started
            };
            let alive = workers.iter().any(same);
            if !alive {
                gone.cpu += counted.workers.cpu;
                gone.punts += counted.workers.punts;
            }
            alive
        });
        for (thread, reading) in workers {
            let none = Workers::default();
            let fresh = || Counted { started: reading.started, excused: none, workers: none };
            let counted = self.alive.entry(*thread).or_insert_with(fresh);
            let punts = reading.punts(now).saturating_sub(counted.excused.punts);
            counted.workers.punts = counted.workers.punts.max(punts);
            let cpu = reading.cpu.saturating_sub(counted.excused.cpu);
            counted.workers.cpu = counted.workers.cpu.max(cpu);
        }
    }

    fn workers(&self) -> Workers {
        self.alive.values().fold(self.gone, |sum, counted| Workers {
            cpu: sum.cpu + counted.workers.cpu,
            punts: sum.punts + counted.workers.punts,
        })
    }
}

/// The thread of a ring, to be looked at from any thread.
#[derive(Debug)]
pub struct RingThread {
    thread: i32,
    visible: bool,
    ledger: Mutex<Ledger>,
}

impl RingThread {
    /// The calling thread, whose ring is ready.
    #[must_use]
    pub fn this() -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let visible = workers_visible();
        let scan = Scan::now();
        let ledger = Ledger::begin(scan.now, Reading::of(thread), scan.workers_of(thread));
        Self { thread, visible, ledger: Mutex::new(ledger) }
    }

    /// What it has cost so far. A thread looks at itself when it ends; later samples repeat that
    /// one. `None` where /proc does not show threads.
    #[must_use]
    pub fn sample(&self, scan: &Scan) -> Option<Usage> {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.note(scan.now, Reading::of(self.thread), scan.workers_of(self.thread));
        let (first, last) = ledger.own?;
        Some(Usage {
            cpu: last.cpu.saturating_sub(first.cpu),
            user: last.user.saturating_sub(first.user),
            system: last.system.saturating_sub(first.system),
            workers: self.visible.then(|| ledger.workers()),
        })
    }
}

/// Whether the kernel's workers can be seen here under the id of the thread they work for. They
/// cannot before Linux 5.12, without /proc, and in a PID namespace, where their names have the ids
/// of the namespace above. Found out once, by an operation that always goes to a worker.
#[must_use]
pub fn workers_visible() -> bool {
    static VISIBLE: OnceLock<bool> = OnceLock::new();
    *VISIBLE.get_or_init(|| {
        // A thread of its own: the workers of the others must be theirs alone.
        let probe = std::thread::Builder::new().name("fsq_probe".to_owned()).spawn(|| {
            let mut ring = probe_ring()?;
            punt(&mut ring).ok()?;
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            Some(!Scan::now().workers_of(thread).is_empty())
        });
        let found = probe.ok().and_then(|probe| probe.join().ok()?);
        found.unwrap_or(false)
    })
}

const PROBE_BYTES: u32 = 4096;

fn probe_ring() -> Option<Uring> {
    let config = UringConfig {
        entries: 2,
        completions: 4,
        arena_bytes: PROBE_BYTES.into(),
        registered_bytes: 0,
        best: Rung::Plain,
        workers_max: 0,
    };
    Uring::open(&config).ok()
}

/// Reads a file that knows no other reading than a waiting one, which a ring leaves to a worker.
fn punt(ring: &mut Uring) -> Result<(), Errno> {
    let status = File::open("/proc/self/status").map_err(|_| Errno::NOENT)?;
    let into = Span { start: 0, len: PROBE_BYTES };
    let file = FileId(status.as_raw_fd());
    ring.push(Token::new(1, 0, 0), Op::Read { file, into, offset: 0 });
    let mut done = Vec::new();
    while done.is_empty() {
        ring.reap(None, &mut done)?;
    }
    done[0].result.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4711 (iou) wrk-) S 1 4711 4711 0 -1 4194368 76 0 0 0 123 456 0 0 20 0 4 0 \
                        98765 1 2 3";
    const STATUS: &str = "Name:\tx\nvoluntary_ctxt_switches:\t42\nnonvoluntary_ctxt_switches:\t7\n";

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn worker(started_s: u64, sleeps: u64, cpu_s: u64) -> Reading {
        Reading { cpu: secs(cpu_s), started: secs(started_s), sleeps, ..Reading::default() }
    }

    #[test]
    fn files_of_proc_are_read_by_field() {
        let mut expected = Reading {
            cpu: Duration::from_nanos(5_791_234_567),
            user: Duration::from_millis(1230),
            system: Duration::from_millis(4560),
            started: Duration::from_millis(987_650),
            sleeps: 42,
        };
        let parsed = Reading::parse(STAT, STATUS, Some("5791234567 88 99\n"), 100);
        assert_eq!(parsed, Some(expected));
        expected.cpu = Duration::from_millis(5790);
        assert_eq!(Reading::parse(STAT, STATUS, None, 100), Some(expected));
        for broken in ["", "4711 (x)", "4711 (x) S 1 2", "1 (x) S 1 1 1 1 1 1 1 1 1 1 a b c d"] {
            assert_eq!(Reading::parse(broken, STATUS, None, 100), None, "{broken}");
        }
        assert_eq!(Reading::parse(STAT, "Name:\tx\n", None, 100), None);
    }

    #[test]
    fn workers_are_known_by_their_name() {
        assert_eq!(owner_of("iou-wrk-4194304\n"), Some(4_194_304));
        for other in ["iou-sqp-12\n", "iou-wrk-\n", "iou-wrk-x\n", "fsq_ingest/0\n"] {
            assert_eq!(owner_of(other), None, "{other}");
        }
    }

    #[test]
    fn idle_wakes_do_not_count() {
        // One operation, then idle: it sleeps again every 5 s.
        for age in 0..1000 {
            assert_eq!(worker(100, 1 + age / 5, 0).punts(secs(100 + age)), 1, "after {age} s");
        }
        assert_eq!(worker(100, 1002, 0).punts(secs(111)), 1000);
        assert_eq!(worker(100, 0, 0).punts(secs(100)), 1, "it is there because of an operation");
    }

    #[test]
    fn what_was_counted_stays() {
        let own = |cpu_s| Reading { cpu: secs(cpu_s), ..Reading::default() };
        let mut ledger = Ledger::begin(secs(100), Some(own(4)), &[(7, worker(99, 3, 1))]);
        // What worker 7 did before does not count; that it finished it then does not either.
        ledger.note(secs(101), Some(own(9)), &[(7, worker(99, 4, 2))]);
        assert_eq!(ledger.workers(), Workers { cpu: secs(1), punts: 0 });
        ledger.note(secs(102), None, &[(7, worker(99, 14, 2)), (8, worker(102, 5, 2))]);
        assert_eq!(ledger.workers(), Workers { cpu: secs(3), punts: 15 });
        assert_eq!(
            ledger.own,
            Some((own(4), own(9))),
            "of a thread that has ended the last reading stays"
        );
        // Both have ended; another one has the number of the first.
        ledger.note(secs(200), Some(own(9)), &[(7, worker(199, 2, 4))]);
        assert_eq!(ledger.workers(), Workers { cpu: secs(7), punts: 17 });
        assert_eq!(ledger.alive.len(), 1);
        // Long blocked: it cannot have done less than before.
        ledger.note(secs(900), Some(own(9)), &[(7, worker(199, 2, 4))]);
        assert_eq!(ledger.workers(), Workers { cpu: secs(7), punts: 17 });
    }

    #[test]
    fn an_operation_that_always_goes_to_a_worker_is_seen() {
        if !workers_visible() {
            eprintln!(
                "SKIPPED an_operation_that_always_goes_to_a_worker_is_seen: no workers shown"
            );
            return;
        }
        let count = std::thread::spawn(|| {
            let mut ring = probe_ring().expect("a ring");
            let thread = RingThread::this();
            let punts = || {
                let usage = thread.sample(&Scan::now()).expect("/proc is there");
                usage.workers.expect("visible").punts
            };
            let before = punts();
            // Served at once: the ring's own wake-up.
            ring.waker().wake();
            ring.reap(Some(Duration::from_millis(1)), &mut Vec::new()).expect("it works");
            let between = punts();
            for _ in 0..100 {
                punt(&mut ring).expect("readable");
            }
            [before, between, punts()]
        });
        let [before, between, after] = count.join().expect("no panic");
        assert_eq!((before, between), (0, 0));
        // One is certain; more than that depends on how the worker is scheduled.
        assert!(after >= 1, "{after}");
        println!("100 punted operations counted as {after}");
    }

    #[test]
    fn the_time_of_a_busy_thread_grows() {
        let thread = RingThread::this();
        let cpu = || thread.sample(&Scan::now()).expect("/proc is there").cpu;
        let before = cpu();
        let end = std::time::Instant::now() + secs(30);
        while cpu() < before + Duration::from_millis(20) {
            assert!(std::time::Instant::now() < end, "half a minute of work is not seen");
        }
    }
}
