//! Loss of power at many instants, on a device that loses what was not flushed: what was
//! acknowledged is there, byte for byte, and everything else is whole or leaves no trace.
//!
//! `FSQ_SIM_SEED=n cargo test -p fsqd-uring --test e2e power` repeats one seed; `FSQ_SIM_SEEDS=n`
//! runs that many. A seed fixes files, cuts and losses; the order of events in between is the
//! kernel's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use fsq_wire::{Op, StorageDest};

use self::survey::{Sent, Survey, of};
use crate::support::content::{Random, bytes};
use crate::support::daemon::Daemon;
use crate::support::deployed::Deployed;
use crate::support::site::Site;
use crate::support::volatile::{Event, Image, Machine};
use crate::support::volatile_fs::{Kind, VolatileFs};
use crate::support::{eventually, skip, sole_turn, tree};

mod survey;

const CLIENTS: u64 = 8;
const FILES_PER_CLIENT: u64 = 16;
const PIECE_BYTES: usize = 300_000;
/// Losses of power of one run.
const CUTS: usize = 12;
/// The same, where each is followed by another one.
const CUTS_BOTH: usize = 6;
/// Size of the device. XFS takes no less.
const DEVICE_MIB: usize = 320;

/// What is on disks that lose their power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Staging; the target is away while files come in.
    Staging,
    /// Staging and target.
    Both,
}

/// A site with its staging, and its target too if that has a disk, on disks of a machine.
struct World {
    staging: VolatileFs,
    target: Option<VolatileFs>,
    // Dropped after the unmounts.
    site: Site,
}

impl World {
    fn make(kind: Kind, machine: &Machine, ends: Ends) -> Result<Self, String> {
        Self::with(ends, |disk, point| VolatileFs::make(kind, machine, disk, point))
    }

    fn mount(kind: Kind, machine: &Machine, ends: Ends) -> Result<Self, String> {
        Self::with(ends, |disk, point| VolatileFs::mount(kind, machine, disk, point))
    }

    fn with(
        ends: Ends,
        mount: impl Fn(usize, &Path) -> Result<VolatileFs, String>,
    ) -> Result<Self, String> {
        let site = Site::new();
        let staging = mount(0, &site.staging())?;
        let target = match ends {
            Ends::Staging => None,
            Ends::Both => Some(mount(1, &site.target())?),
        };
        Ok(Self { staging, target, site })
    }

    /// What the daemon tells its temporaries on the target by.
    fn instance(&self) -> std::io::Result<Vec<u8>> {
        fs::read(self.site.staged(".fsqd/instance"))
    }

    fn unmount(self) -> Result<(), String> {
        self.staging.unmount()?;
        self.target.map_or(Ok(()), VolatileFs::unmount)
    }

    /// Unmounts all and looks for damage of the file systems.
    fn check(self) -> Result<(), String> {
        self.staging.check()?;
        self.target.map_or(Ok(()), VolatileFs::check)
    }
}

/// Uploads of all clients on fresh file systems; the daemon is killed at the end, with an upload
/// of each client under way.
struct Run {
    machine: Machine,
    sent: Vec<Sent>,
    /// The number that the daemon gave to the staging directory.
    instance: Vec<u8>,
    /// Before the daemon was started, when it had started, and when all was done.
    start: usize,
    ready: usize,
    end: usize,
}

impl Run {
    fn new(kind: Kind, ends: Ends, seed: u64, durability: &str) -> Result<Self, String> {
        let machine = Machine::new(vec![Image::zeroed(DEVICE_MIB); 2]);
        let world = World::make(kind, &machine, ends)?;
        let start = machine.now();
        let daemon = world.site.start_with(&["--durability", durability]);
        wait_scan(&daemon);
        let ready = machine.now();
        if ends == Ends::Staging {
            // So that files for it stay.
            fs::remove_dir(world.site.target()).expect("removed");
        }
        let port = daemon.port();
        let upload = |client, files| upload(&machine, port, seed, client, files);
        // One alone first: for a single file the daemon syncs no more than that file.
        let (first, _) = upload(CLIENTS, 1);
        let (sent, _connections): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
            let start = |client| scope.spawn(move || upload(client, FILES_PER_CLIENT));
            let threads: Vec<_> = (0..CLIENTS).map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("uploads succeed")).unzip()
        });
        let sent = [first, sent.concat()].concat();
        let daemon = match ends {
            Ends::Staging => daemon,
            // Killed in the middle of the drain, so that another one takes up what it left.
            Ends::Both => {
                daemon.kill();
                let daemon = world.site.start();
                wait_drained(&world, &sent, "the run");
                daemon
            }
        };
        let end = machine.now();
        daemon.kill();
        let instance = world.instance().expect("it is there");
        // XFS does not mount two that look the same.
        world.unmount().expect("nobody uses it");
        Ok(Self { machine, sent, instance, start, ready, end })
    }

    /// One while the daemon starts, one after the first acknowledgement; of the others half right
    /// after an acknowledgement, when the least has been flushed by chance, and half anywhere.
    fn cuts(&self, count: usize, random: &mut Random) -> Vec<usize> {
        let acknowledged: Vec<_> = self.sent.iter().filter_map(|file| file.acknowledged).collect();
        let mut between =
            |start: usize, end: usize| start + random.below((end - start) as u64 + 1) as usize;
        let cut = |n| match n {
            0 => between(self.start, self.ready),
            1 => *acknowledged.iter().min().expect("the first was alone"),
            n if n % 2 == 0 => between(self.ready, self.end),
            _ => acknowledged[between(0, acknowledged.len() - 1)],
        };
        (0..count).map(cut).collect()
    }
}

/// What is printed when a daemon has taken up what it finds.
fn wait_scan(daemon: &Daemon) {
    daemon.log().wait("about the scan", |line| line.contains("scan of staging"));
}

/// Waits until staging is left by all files that do not stay.
fn wait_drained(world: &World, sent: &[Sent], when: &str) {
    let staging = world.site.staging();
    let stay: BTreeSet<_> =
        of(sent, StorageDest::Local).map(|file| Path::new(&file.name)).collect();
    eventually(&format!("{when}: staging is left by all that do not stay"), || {
        tree::files(&staging).iter().all(|name| stay.contains(name.as_path())).then_some(())
    });
}

/// The files of one client, and one more without its CLOSE.
fn upload(
    machine: &Machine,
    port: u16,
    seed: u64,
    client: u64,
    files: u64,
) -> (Vec<Sent>, Deployed) {
    let now = || Some(machine.now());
    let mut connection = Deployed::signed_on(port);
    let mut sent = Vec::new();
    for n in 0..=files {
        let mut file = Sent::new(seed, client, n);
        let path = format!("/lustre/{}", file.name);
        connection.open(&path, file.dest).accepted(Op::Open);
        for piece in file.content().chunks(PIECE_BYTES) {
            connection.data(piece).accepted(Op::Data);
        }
        if n < files {
            file.closing = now();
            connection.close().accepted(Op::Close);
            file.acknowledged = now();
        }
        sent.push(file);
    }
    (sent, connection)
}

/// A fresh daemon on what is left: everything goes where it belongs, once, and nothing else stays.
fn restart(world: &World, sent: &[Sent], cut: usize, when: &str) {
    let daemon = world.site.start();
    wait_scan(&daemon);
    wait_drained(world, sent, when);
    daemon.stop();
    let mut survey = Survey::default();
    survey.after(&world.site, sent, cut);
    survey.assert_good(&format!("{when}, after the start"));
    let private = fs::read_dir(world.site.staged(".fsqd")).expect("it is there");
    let names: BTreeSet<_> = private.map(|entry| entry.expect("readable").file_name()).collect();
    let wanted = ["instance", "lock"].map(Into::into).into();
    assert_eq!(names, wanted, "{when}: the daemon's own directory");
}

/// What all losses of power of a run have in common.
struct Trial {
    kind: Kind,
    ends: Ends,
    run: Run,
    /// Acknowledged, and whole besides.
    acknowledged: usize,
    others: usize,
}

impl Trial {
    /// Looks at what a machine has left, and starts a daemon on it. `cut`: when it had run.
    fn survives(&mut self, machine: &Machine, cut: usize, when: &str) {
        let Run { sent, .. } = &self.run;
        let world = World::mount(self.kind, machine, self.ends);
        let world = world.unwrap_or_else(|error| panic!("{when}: {error}"));
        let mut survey = Survey::default();
        survey.before(&world.site, sent, cut);
        let acknowledged = sent.iter().filter(|file| file.is_acknowledged(cut)).count();
        println!("{when}: {acknowledged} acknowledged, {} there", survey.there);
        survey.assert_good(when);
        let instance = world.instance().unwrap_or_default();
        let is_kept = instance == self.run.instance;
        assert!(cut < self.run.ready || is_kept, "{when}: the instance became {instance:?}");
        self.acknowledged += acknowledged;
        self.others += survey.there - acknowledged;
        restart(&world, sent, cut, when);
        world.check().unwrap_or_else(|error| panic!("{when}: {error}"));
    }
}

fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("FSQ_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("FSQ_SIM_SEEDS").unwrap_or(default)).collect(),
    }
}

fn acknowledged_files_survive(
    kind: Kind,
    ends: Ends,
    cuts: usize,
    seed: u64,
) -> Result<(), String> {
    let run = Run::new(kind, ends, seed, "fsync")?;
    let mut random = Random::new(seed);
    let mut trial = Trial { kind, ends, run, acknowledged: 0, others: 0 };
    for cut in trial.run.cuts(cuts, &mut random) {
        let Run { start, end, .. } = trial.run;
        let when = format!("{kind:?}, seed {seed}, cut at {cut} of {start}..{end}");
        let machine = trial.run.machine.after_power_loss(cut, &mut random);
        trial.survives(&machine, cut, &when);
        // Once more, somewhere between the replay of the journal and the end of that daemon. What
        // has gone to a target without a disk is not on the machine any more.
        if ends == Ends::Both {
            let again = random.below(machine.now() as u64 + 1) as usize;
            let when = format!("{when}, then at {again} of {}", machine.now());
            trial.survives(&machine.after_power_loss(again, &mut random), cut, &when);
        }
    }
    let Trial { acknowledged, others, .. } = trial;
    println!("{kind:?}, seed {seed}: {acknowledged} acknowledged files, {others} others whole");
    assert!(acknowledged > 0, "the cuts were in the middle of something");
    Ok(())
}

#[test]
fn acknowledged_files_survive_power_loss_on_ext4() {
    let _turn = sole_turn();
    for seed in seeds(2) {
        let result = acknowledged_files_survive(Kind::Ext4, Ends::Staging, CUTS, seed);
        if let Err(reason) = result {
            return skip("acknowledged_files_survive_power_loss_on_ext4", &reason);
        }
    }
}

#[test]
fn acknowledged_files_survive_power_loss_on_xfs() {
    let _turn = sole_turn();
    for seed in seeds(1) {
        let result = acknowledged_files_survive(Kind::Xfs, Ends::Staging, CUTS, seed);
        if let Err(reason) = result {
            return skip("acknowledged_files_survive_power_loss_on_xfs", &reason);
        }
    }
}

/// Staging and target lose their power together, in the middle of the drain and again in the middle
/// of the next start.
#[test]
fn drained_files_survive_power_loss_of_both_ends() {
    let _turn = sole_turn();
    for seed in seeds(1) {
        let result = acknowledged_files_survive(Kind::Ext4, Ends::Both, CUTS_BOTH, seed);
        if let Err(reason) = result {
            return skip("drained_files_survive_power_loss_of_both_ends", &reason);
        }
    }
}

/// The control: acknowledged without a sync, files do get lost, or the device would prove nothing.
#[test]
fn unsynced_files_are_lost_with_the_power() {
    let _turn = sole_turn();
    let run = match Run::new(Kind::Ext4, Ends::Staging, 7, "written") {
        Ok(run) => run,
        Err(reason) => return skip("unsynced_files_are_lost_with_the_power", &reason),
    };
    let mut random = Random::new(7);
    let mut survey = Survey::default();
    for cut in run.cuts(4, &mut random) {
        let machine = run.machine.after_power_loss(cut, &mut random);
        let world = World::mount(Kind::Ext4, &machine, Ends::Staging).expect("can be mounted");
        survey.before(&world.site, &run.sent, cut);
    }
    println!("{} there, {} lost", survey.there, survey.lost.len());
    assert!(!survey.lost.is_empty(), "nothing was lost without a sync: the device is too kind");
}

/// What the device stands on: a write is in the log when the kernel reports it as done, and a sync
/// puts a flush behind it.
#[test]
fn volatile_device_sees_writes_and_flushes_before_they_are_reported() {
    let _turn = sole_turn();
    let machine = Machine::new(vec![Image::zeroed(DEVICE_MIB)]);
    let world = match World::make(Kind::Ext4, &machine, Ends::Staging) {
        Ok(world) => world,
        Err(reason) => {
            return skip(
                "volatile_device_sees_writes_and_flushes_before_they_are_reported",
                &reason,
            );
        }
    };
    let content = bytes(3, 8192);
    let find = |events: &[Event]| {
        events.iter().position(|event| match event {
            Event::Write { bytes, .. } => bytes.windows(4096).any(|part| part == &content[..4096]),
            Event::Flush { .. } => false,
        })
    };
    let file = fs::File::create(world.site.staged("file")).expect("created");
    file.write_all_at(&content, 0).expect("written");
    assert_eq!(machine.with_log(find), None, "it is in the page cache");
    rustix::fs::fdatasync(&file).expect("synced");
    machine.with_log(|log| {
        let written = find(log).expect("it is on the device");
        assert!(log[written..].contains(&Event::Flush { disk: 0 }), "no flush after the write");
    });
    drop(file);
    world.check().expect("nothing is damaged");
}
