//! Loss of power at many instants, on a device that loses what was not flushed: what was
//! acknowledged is there, byte for byte, and everything else is whole or leaves no trace.
//!
//! `FSQ_SIM_SEED=n cargo test -p fsqd-uring --test e2e power` repeats one seed; `FSQ_SIM_SEEDS=n`
//! runs that many. A seed fixes files, cuts and losses; the order of events in between is the
//! kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fsq_wire::{Op, StorageDest};
use fsqd_uring::queue::record::{FileState, SEAL};

use crate::support::content::{Random, bytes};
use crate::support::daemon::Daemon;
use crate::support::deployed::Deployed;
use crate::support::site::Site;
use crate::support::volatile::{Disk, Event};
use crate::support::volatile_fs::{Kind, VolatileFs};
use crate::support::{eventually, skip, sole_turn, tree};

const CLIENTS: u64 = 8;
const FILES_PER_CLIENT: u64 = 16;
const PIECE_BYTES: usize = 300_000;
/// Most files are small, as in the field where a loss is likeliest.
const LENS: [usize; 8] = [0, 1, 4096, 4096, 70_001, 262_144, 524_289, 2_300_001];
/// Losses of power of one run.
const CUTS: usize = 12;
/// Size of the device. XFS takes no less.
const DEVICE_MIB: usize = 320;

/// One upload; instants as [`crate::support::volatile::Disk::log`] counts them.
#[derive(Clone, Debug)]
struct Sent {
    name: String,
    seed: u64,
    len: usize,
    dest: StorageDest,
    /// Just before CLOSE was sent; `None`: it was not.
    closing: Option<usize>,
    /// Just after the reply had come.
    acknowledged: Option<usize>,
}

impl Sent {
    fn new(seed: u64, client: u64, n: u64) -> Self {
        let seed = seed << 32 | client << 16 | n;
        let mut random = Random::new(seed);
        let len = LENS[random.below(LENS.len() as u64) as usize];
        let dest = if random.below(2) == 0 { StorageDest::Local } else { StorageDest::Lustre };
        // Some in a directory that exists by then, some in one of their own.
        let directory = if random.below(3) == 0 { format!("own/{n}") } else { "all".to_owned() };
        let name = format!("data/{directory}/{client}-{n}");
        Self { name, seed, len, dest, closing: None, acknowledged: None }
    }

    fn content(&self) -> Vec<u8> {
        bytes(self.seed, self.len)
    }

    fn is_acknowledged(&self, cut: usize) -> bool {
        self.acknowledged.is_some_and(|instant| instant <= cut)
    }

    /// Whether it may be there after a cut.
    fn may_be_there(&self, cut: usize) -> bool {
        self.closing.is_some_and(|instant| instant < cut)
    }
}

/// Uploads of all clients on a fresh file system; the daemon is killed at the end, with an upload
/// of each client under way.
struct Run {
    disk: Disk,
    sent: Vec<Sent>,
    /// The number that the daemon gave to the staging directory.
    instance: Vec<u8>,
    /// Before the daemon was started, when it had started, and after the last upload.
    start: usize,
    ready: usize,
    end: usize,
}

impl Run {
    fn new(kind: Kind, seed: u64, durability: &str) -> Result<Self, String> {
        let fs = VolatileFs::make(kind, DEVICE_MIB)?;
        let site = Site::with_staging(&fs.path());
        let now = || fs.disk().log().len();
        let start = now();
        let daemon = site.start_with(&["--durability", durability]);
        wait_scan(&daemon);
        let ready = now();
        // Gone, so that files for it stay on staging.
        fs::remove_dir(site.target()).expect("removed");
        let port = daemon.port();
        // One alone first: for a single file the daemon syncs no more than that file.
        let (first, _) = upload(&fs, port, seed, CLIENTS, 1);
        let (sent, connections): (Vec<_>, Vec<_>) = std::thread::scope(|scope| {
            let client = |client| upload(&fs, port, seed, client, FILES_PER_CLIENT);
            let start = |n| scope.spawn(move || client(n));
            let threads: Vec<_> = (0..CLIENTS).map(start).collect();
            threads.into_iter().map(|thread| thread.join().expect("uploads succeed")).unzip()
        });
        let sent = [first, sent.concat()].concat();
        let end = now();
        daemon.kill();
        drop::<Vec<Deployed>>(connections);
        let instance = instance(&fs).expect("it is there");
        // XFS does not mount two that look the same.
        let disk = fs.unmount().expect("nobody uses it");
        Ok(Self { disk, sent, instance, start, ready, end })
    }

    /// One while the daemon starts, one after the first acknowledgement, of the others half right after an acknowledgement, when the least has
    /// been flushed by chance, the others anywhere.
    fn cuts(&self, random: &mut Random) -> Vec<usize> {
        let acknowledged: Vec<_> = self.sent.iter().filter_map(|file| file.acknowledged).collect();
        let mut between =
            |start: usize, end: usize| start + random.below((end - start) as u64 + 1) as usize;
        let cut = |n| match n {
            0 => between(self.start, self.ready),
            1 => *acknowledged.iter().min().expect("the first was alone"),
            n if n % 2 == 0 => between(self.ready, self.end),
            _ => acknowledged[between(0, acknowledged.len() - 1)],
        };
        (0..CUTS).map(cut).collect()
    }
}

/// What the daemon tells its temporaries on the target by.
fn instance(fs: &VolatileFs) -> std::io::Result<Vec<u8>> {
    fs::read(fs.path().join(".fsqd/instance"))
}

/// What is printed when a daemon has taken up what it finds.
fn wait_scan(daemon: &Daemon) {
    daemon.log().wait("about the scan", |line| line.contains("scan of staging"));
}

/// The files of one client, and one more without its CLOSE.
fn upload(fs: &VolatileFs, port: u16, seed: u64, client: u64, files: u64) -> (Vec<Sent>, Deployed) {
    let now = || Some(fs.disk().log().len());
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

/// What is wrong with a file that is there.
fn damage(path: &Path, file: &Sent) -> Option<String> {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let content = file.content();
    if found.len() != content.len() {
        return Some(format!("{} bytes of {}", found.len(), content.len()));
    }
    let differs = found.iter().zip(&content).position(|(found, sent)| found != sent);
    differs.map(|offset| format!("another byte at {offset} of {}", content.len()))
}

/// What is wrong with the attributes of a file on staging.
fn wrong_record(path: &Path, file: &Sent) -> Option<String> {
    let attribute = |name: &str, len| {
        let mut value = vec![0; 64];
        let count = rustix::fs::getxattr(path, name, &mut value[..]).unwrap_or(0);
        value.truncate(count);
        if count == len { Ok(value) } else { Err(format!("{name} has {count} bytes of {len}")) }
    };
    let states: &[FileState] = match file.dest {
        StorageDest::Local => &[FileState::FileKeep],
        // The drain may have tried.
        _ => &[FileState::LocalCopyDone, FileState::LustreCopyRun, FileState::LustreCopyError],
    };
    let state = match attribute("user.fsq.state", 4) {
        Ok(value) => u32::from_ne_bytes(value.try_into().expect("four bytes")),
        Err(error) => return Some(error),
    };
    if !states.iter().any(|wanted| wanted.bits() == state) {
        return Some(format!("state {state:#x}, wanted one of {states:?}"));
    }
    let mut wanted = (file.len as u64).to_ne_bytes().to_vec();
    wanted.extend(crc32fast::hash(&file.content()).to_ne_bytes());
    wanted.extend(SEAL.to_ne_bytes());
    match attribute("user.fsq.crc", 16) {
        Ok(value) if value == wanted => None,
        Ok(value) => Some(format!("checksum attribute {value:x?}, wanted {wanted:x?}")),
        Err(error) => Some(error),
    }
}

/// What is found after a loss of power.
#[derive(Debug, Default)]
struct Survey {
    there: usize,
    /// Acknowledged and gone, in whole or in part.
    lost: Vec<String>,
    /// There and incomplete, or without anybody having asked for it.
    wrong: Vec<String>,
}

impl Survey {
    /// `places`: which files are looked for below `root`, and whether they are staged there.
    fn take(&mut self, root: &Path, files: &[&Sent], cut: usize, is_staging: bool) {
        let found: BTreeSet<PathBuf> = tree::files(root).into_iter().collect();
        let known: BTreeMap<_, _> =
            files.iter().map(|&file| (PathBuf::from(&file.name), file)).collect();
        for name in &found {
            let path = root.join(name);
            let wrong = match known.get(name) {
                None => Some("nobody has sent it here".to_owned()),
                Some(file) if !file.may_be_there(cut) => Some("CLOSE had not been sent".to_owned()),
                Some(file) => damage(&path, file)
                    .or_else(|| is_staging.then(|| wrong_record(&path, file)).flatten()),
            };
            self.there += usize::from(wrong.is_none());
            if let Some(wrong) = wrong {
                let is_lost = known.get(name).is_some_and(|file| file.is_acknowledged(cut));
                let list = if is_lost { &mut self.lost } else { &mut self.wrong };
                list.push(format!("{}: {wrong}", path.display()));
            }
        }
        for file in files.iter().filter(|file| file.is_acknowledged(cut)) {
            if !found.contains(Path::new(&file.name)) {
                self.lost.push(format!("{} ({} bytes): not there", file.name, file.len));
            }
        }
    }

    fn assert_good(&self, when: &str) {
        assert!(self.lost.is_empty(), "{when}: acknowledged and lost: {:#?}", self.lost);
        assert!(self.wrong.is_empty(), "{when}: should not be there: {:#?}", self.wrong);
    }
}

/// A fresh daemon on what is left: everything goes where it belongs, once, and nothing else stays.
fn restart(fs: &VolatileFs, sent: &[Sent], cut: usize, when: &str) {
    let site = Site::with_staging(&fs.path());
    let daemon = site.start();
    let belongs = |dest| move |file: &&Sent| file.dest == dest && file.may_be_there(cut);
    let stay: Vec<_> = sent.iter().filter(belongs(StorageDest::Local)).collect();
    let leave: Vec<_> = sent.iter().filter(belongs(StorageDest::Lustre)).collect();
    wait_scan(&daemon);
    eventually(&format!("{when}: staging is left by all that do not stay"), || {
        let names = tree::files(&site.staging());
        let stays = |name| stay.iter().any(|file| Path::new(&file.name) == name);
        names.iter().all(|name| stays(name.as_path())).then_some(())
    });
    daemon.stop();
    let mut survey = Survey::default();
    survey.take(&site.staging(), &stay, cut, true);
    survey.take(&site.target(), &leave, cut, false);
    survey.assert_good(&format!("{when}, after the start"));
    let private = fs::read_dir(site.staging().join(".fsqd")).expect("it is there");
    let names: BTreeSet<_> = private.map(|entry| entry.expect("readable").file_name()).collect();
    let wanted = ["instance", "lock"].map(Into::into).into();
    assert_eq!(names, wanted, "{when}: the daemon's own directory");
}

fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("FSQ_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("FSQ_SIM_SEEDS").unwrap_or(default)).collect(),
    }
}

fn acknowledged_files_survive(kind: Kind, seed: u64) -> Result<(), String> {
    let run = Run::new(kind, seed, "fsync")?;
    let mut random = Random::new(seed);
    let (mut acknowledged, mut others) = (0, 0);
    for cut in run.cuts(&mut random) {
        let when = format!("{kind:?}, seed {seed}, cut at {cut} of {}..{}", run.start, run.end);
        let image = run.disk.after_power_loss(cut, &mut random);
        let fs = VolatileFs::mount(kind, image).unwrap_or_else(|error| panic!("{when}: {error}"));
        let mut survey = Survey::default();
        survey.take(&fs.path(), &run.sent.iter().collect::<Vec<_>>(), cut, true);
        let safe = run.sent.iter().filter(|file| file.is_acknowledged(cut)).count();
        println!("{when}: {safe} acknowledged, {} there", survey.there);
        survey.assert_good(&when);
        let instance = instance(&fs).unwrap_or_default();
        assert!(cut < run.ready || instance == run.instance, "{when}: another {instance:?}");
        (acknowledged, others) = (acknowledged + safe, others + survey.there - safe);
        restart(&fs, &run.sent, cut, &when);
        fs.check().unwrap_or_else(|error| panic!("{when}: {error}"));
    }
    println!("{kind:?}, seed {seed}: {acknowledged} acknowledged files, {others} others whole");
    assert!(acknowledged > 0, "the cuts were in the middle of something");
    Ok(())
}

#[test]
fn acknowledged_files_survive_power_loss_on_ext4() {
    let _turn = sole_turn();
    for seed in seeds(2) {
        if let Err(reason) = acknowledged_files_survive(Kind::Ext4, seed) {
            return skip("acknowledged_files_survive_power_loss_on_ext4", &reason);
        }
    }
}

#[test]
fn acknowledged_files_survive_power_loss_on_xfs() {
    let _turn = sole_turn();
    for seed in seeds(1) {
        if let Err(reason) = acknowledged_files_survive(Kind::Xfs, seed) {
            return skip("acknowledged_files_survive_power_loss_on_xfs", &reason);
        }
    }
}

/// The control: acknowledged without a sync, files do get lost, or the device would prove nothing.
#[test]
fn unsynced_files_are_lost_with_the_power() {
    let _turn = sole_turn();
    let run = match Run::new(Kind::Ext4, 7, "written") {
        Ok(run) => run,
        Err(reason) => return skip("unsynced_files_are_lost_with_the_power", &reason),
    };
    let mut random = Random::new(7);
    let mut survey = Survey::default();
    for cut in run.cuts(&mut random).into_iter().take(4) {
        let image = run.disk.after_power_loss(cut, &mut random);
        let fs = VolatileFs::mount(Kind::Ext4, image).expect("the journal is replayed");
        survey.take(&fs.path(), &run.sent.iter().collect::<Vec<_>>(), cut, true);
    }
    println!("{} there, {} lost", survey.there, survey.lost.len());
    assert!(!survey.lost.is_empty(), "nothing was lost without a sync: the device is too kind");
}

/// What the device stands on: a write is in the log when the kernel reports it as done, and a sync
/// puts a flush behind it.
#[test]
fn volatile_device_sees_writes_and_flushes_before_they_are_reported() {
    let _turn = sole_turn();
    let fs = match VolatileFs::make(Kind::Ext4, DEVICE_MIB) {
        Ok(fs) => fs,
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
            Event::Flush => false,
        })
    };
    let file = fs::File::create(fs.path().join("file")).expect("created");
    file.write_all_at(&content, 0).expect("written");
    assert_eq!(find(fs.disk().log()), None, "it is in the page cache");
    rustix::fs::fdatasync(&file).expect("synced");
    let disk = fs.disk();
    let written = find(disk.log()).expect("it is on the device");
    assert!(disk.log()[written..].contains(&Event::Flush), "no flush after the write");
    drop((disk, file));
    fs.check().expect("nothing is damaged");
}
