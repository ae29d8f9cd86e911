//! Which staged file is worked on next, and when: pure bookkeeping, told the time.
//!
//! It holds paths only; what a file is and how far it has come stands in its attributes on disk.
//! Forgetting an entry is therefore harmless (a scan of the staging tree finds the file again), so
//! the set is bounded and says when it overflowed. A file is in one of two lanes, copy or archive,
//! and there ready, waiting for a time, or active.
//!
//! Invariants: a path is in the set at most once, so no two workers ever hold the same file; and no
//! lane takes the room that is kept for the other one, so an archive that confirms nothing for days
//! does not keep files from the target, nor the other way round.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::{Backoff, DelayBounds};
use super::failure::FailureClass;
use super::health::{Change, Gate, Health};

/// The two kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Staging to target.
    Copy,
    /// To the archive.
    Archive,
}

/// What the archive lane does with a file next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Hands it over.
    Submit,
    /// Asks whether it has arrived.
    Confirm,
}

/// Bounds and tolerances.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Files held in memory; the others wait on disk for a scan. A quarter is kept for each lane.
    pub entries_max: usize,
    /// Bytes of their paths together, so that long names cannot take more memory than many files.
    /// Shared out in the same way.
    pub path_bytes_max: usize,
    /// The error of this number, counted per file, is the last: the file is omitted.
    pub tolerated_errors: u32,
    /// Silence of a worker after which it is reported.
    pub hung_after: Duration,
    /// Delays after failures, of single files and between probes.
    pub delays: DelayBounds,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_max: 65_536,
            path_bytes_max: 16 << 20,
            tolerated_errors: 16,
            hung_after: Duration::from_secs(60),
            delays: DelayBounds::default(),
            seed: 0,
        }
    }
}

/// A file to work on. Comes back with [`Scheduler::finished`].
#[derive(Debug)]
pub struct Ticket {
    /// Which file, below the staging root.
    pub path: Arc<Path>,
    /// Which lane it is in.
    pub stage: Stage,
    /// In the archive lane: hand over, or ask.
    pub phase: Phase,
    /// Counted errors so far.
    pub errors: u32,
    /// It tells whether the other end is back.
    pub probe: bool,
}

/// How a worker left a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its destination is reached and the staging copy freed. It leaves the set.
    Done,
    /// Copied; goes on to the archive lane.
    Copied,
    /// Leaves the set without its other end having been asked: given up until the next start, kept
    /// where it is, or not there any more.
    Left,
    /// Its attributes say that it belongs elsewhere.
    Moved(Stage, Phase),
    /// The archive has it in hand; ask again after this time.
    CheckAfter(Duration),
    /// To be tried again.
    Failed(FailureClass),
    /// The worker stopped half-way; nothing is known.
    Interrupted,
}

/// What became of an offered path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Taken in.
    Queued,
    /// Already there.
    Known,
    /// No room; a scan of the staging tree will find it later.
    Overflow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Ready,
    Waiting,
    Active,
}

#[derive(Debug)]
struct Entry {
    stage: Stage,
    phase: Phase,
    standing: Standing,
    /// Counted errors in this lane.
    errors: u32,
    /// Uncounted failures in a row.
    setbacks: u32,
}

#[derive(Debug)]
struct Lane {
    submit: VecDeque<Arc<Path>>,
    confirm: VecDeque<Arc<Path>>,
    waiting: BinaryHeap<Reverse<(Duration, u64, Arc<Path>)>>,
    active: usize,
    health: Health,
    held: Room,
    /// It has turned files away, which only a scan will find.
    overflowed: bool,
    /// The scan that is due or under way is to find files for it.
    sought: bool,
}

/// Files, and bytes of their paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    entries: usize,
    path_bytes: usize,
}

impl Room {
    fn with(self, path: &Path) -> Self {
        Self { entries: self.entries + 1, path_bytes: self.path_bytes + path.as_os_str().len() }
    }

    fn without(self, path: &Path) -> Self {
        Self { entries: self.entries - 1, path_bytes: self.path_bytes - path.as_os_str().len() }
    }

    fn fits(self, whole: Self) -> bool {
        self.entries <= whole.entries && self.path_bytes <= whole.path_bytes
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            submit: VecDeque::new(),
            confirm: VecDeque::new(),
            waiting: BinaryHeap::new(),
            active: 0,
            health: Health::Up,
            held: Room::default(),
            overflowed: false,
            // The scan at the start looks for everything.
            sought: true,
        }
    }

    /// A file was turned away.
    fn overflow(&mut self) {
        self.overflowed = true;
        self.sought = false;
    }

    fn ready(&mut self, phase: Phase) -> &mut VecDeque<Arc<Path>> {
        match phase {
            Phase::Submit => &mut self.submit,
            Phase::Confirm => &mut self.confirm,
        }
    }
}

/// How many files stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Ready to be taken.
    pub ready: usize,
    /// Waiting for a time.
    pub waiting: usize,
    /// In a worker's hands.
    pub active: usize,
}

/// See the module's description.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    entries: HashMap<Arc<Path>, Entry>,
    copy: Lane,
    archive: Lane,
    backoff: Backoff,
    sequence: u64,
}

impl Scheduler {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            copy: Lane::new(),
            archive: Lane::new(),
            backoff: Backoff::new(limits.delays, limits.seed),
            sequence: 0,
        }
    }

    /// Takes a path in, at the end of its lane.
    pub fn enqueue(&mut self, path: &Path, stage: Stage, phase: Phase) -> Admission {
        if self.entries.contains_key(path) {
            return Admission::Known;
        }
        if !self.has_room(stage, path) {
            self.lane(stage).overflow();
            return Admission::Overflow;
        }
        let path: Arc<Path> = path.into();
        let entry = Entry { stage, phase, standing: Standing::Ready, errors: 0, setbacks: 0 };
        self.entries.insert(Arc::clone(&path), entry);
        let lane = self.lane(stage);
        lane.held = lane.held.with(&path);
        lane.ready(phase).push_back(path);
        Admission::Queued
    }

    /// Hands out up to `max` files of a lane: of the archive lane either files to submit or one file
    /// to ask about; while the other end is down, one probe.
    ///
    /// # Errors
    /// Nothing to do now: the time at which that changes by itself, if any.
    pub fn take(
        &mut self,
        stage: Stage,
        max: usize,
        now: Duration,
    ) -> Result<Vec<Ticket>, Option<Duration>> {
        self.wake(stage, now);
        let lane = self.lane(stage);
        let due = lane.waiting.peek().map(|Reverse((due, ..))| *due);
        if lane.submit.is_empty() && lane.confirm.is_empty() {
            return Err(due);
        }
        let (max, probe) = match lane.health.gate(now) {
            Gate::Open => (max, false),
            Gate::Probe => (1, true),
            Gate::Until(at) => return Err(Some(at)),
            Gate::Probing => return Err(None),
        };
        // Asking comes first: it is cheap, and what is confirmed frees staging space.
        let (phase, max) =
            if lane.confirm.is_empty() { (Phase::Submit, max) } else { (Phase::Confirm, 1) };
        let ready = lane.ready(phase);
        let count = max.min(ready.len());
        let paths: Vec<_> = ready.drain(..count).collect();
        lane.active += count;
        if probe {
            lane.health.probe_started();
        }
        let ticket = |path: Arc<Path>| {
            let entry = self.entries.get_mut(&path).expect("what is ready is in the set");
            entry.standing = Standing::Active;
            Ticket { path, stage, phase, errors: entry.errors, probe }
        };
        Ok(paths.into_iter().map(ticket).collect())
    }

    /// Takes a file back from a worker; says when that changed the health of the lane's other end.
    ///
    /// # Panics
    /// If the ticket is not one that was handed out and is still out.
    pub fn finished(&mut self, ticket: &Ticket, outcome: Outcome, now: Duration) -> Option<Change> {
        let entry = self.entries.get_mut(&ticket.path).expect("a ticket's file is in the set");
        assert_eq!(
            (entry.standing, entry.stage),
            (Standing::Active, ticket.stage),
            "a ticket comes back once"
        );
        let change = self.note_health(ticket, outcome, now);
        self.lane(ticket.stage).active -= 1;
        match outcome {
            Outcome::Done | Outcome::Left => {
                self.entries.remove(&ticket.path);
                let lane = self.lane(ticket.stage);
                lane.held = lane.held.without(&ticket.path);
            }
            Outcome::Copied => self.ready_again(&ticket.path, Stage::Archive, Phase::Submit),
            Outcome::Moved(stage, phase) => self.ready_again(&ticket.path, stage, phase),
            Outcome::CheckAfter(delay) => {
                let entry = self.entry(&ticket.path);
                entry.phase = Phase::Confirm;
                entry.setbacks = 0;
                self.wait_until(&ticket.path, now + delay);
            }
            Outcome::Failed(class) => {
                let entry = self.entry(&ticket.path);
                let failures = if class.is_counted() {
                    entry.errors = entry.errors.saturating_add(1);
                    entry.setbacks = 0;
                    entry.errors
                } else {
                    entry.setbacks = entry.setbacks.saturating_add(1);
                    entry.setbacks
                };
                // What failed is handed over anew, whether it was handed over or asked about;
                // unless the archive could not be asked at all.
                if class.is_counted() {
                    entry.phase = Phase::Submit;
                }
                let due = now + self.backoff.delay(failures);
                self.wait_until(&ticket.path, due);
            }
            Outcome::Interrupted => self.ready_again(&ticket.path, ticket.stage, ticket.phase),
        }
        change
    }

    /// Whether a failure of this class ends a file that has had `errors` counted errors before.
    #[must_use]
    pub fn gives_up(&self, class: FailureClass, errors: u32) -> bool {
        class == FailureClass::Permanent
            || class.is_counted() && errors.saturating_add(1) >= self.limits.tolerated_errors
    }

    /// The disk has more for a lane than memory holds, and the lane is half empty again: time to
    /// scan. Asking takes the lane's flag down; a scan that overflows again sets it again.
    pub fn take_rescan(&mut self) -> bool {
        let due = [Stage::Copy, Stage::Archive].map(|stage| {
            let lane = self.lane_of(stage);
            let Room { entries, path_bytes } = self.share(stage);
            let half = Room { entries: entries / 2, path_bytes: path_bytes / 2 };
            // Where nothing fits a scan finds nothing, and would be due again at once.
            lane.overflowed && entries > 0 && lane.held.fits(half)
        });
        if due == [false; 2] {
            return false;
        }
        for (stage, due) in [Stage::Copy, Stage::Archive].into_iter().zip(due) {
            let lane = self.lane(stage);
            lane.sought = due;
            lane.overflowed &= !due;
        }
        true
    }

    /// There are files that only a scan will find.
    #[must_use]
    pub fn rescan_pending(&self) -> bool {
        self.copy.overflowed || self.archive.overflowed
    }

    /// A lane for which the scan was due still takes what the scan finds.
    #[must_use]
    pub fn is_seeking(&self) -> bool {
        self.copy.sought || self.archive.sought
    }

    /// Health of a lane's other end.
    #[must_use]
    pub fn health(&self, stage: Stage) -> Health {
        self.lane_of(stage).health
    }

    /// How many files of a lane stand where.
    #[must_use]
    pub fn occupancy(&self, stage: Stage) -> Occupancy {
        let lane = self.lane_of(stage);
        Occupancy {
            ready: lane.submit.len() + lane.confirm.len(),
            waiting: lane.waiting.len(),
            active: lane.active,
        }
    }

    /// What a lane may hold now: all that the other one does not, but for a quarter of the whole.
    fn share(&self, stage: Stage) -> Room {
        let Limits { entries_max, path_bytes_max, .. } = self.limits;
        let other = match stage {
            Stage::Copy => self.archive.held,
            Stage::Archive => self.copy.held,
        };
        Room {
            entries: entries_max - other.entries.max(entries_max / 4),
            path_bytes: path_bytes_max - other.path_bytes.max(path_bytes_max / 4),
        }
    }

    fn has_room(&self, stage: Stage, path: &Path) -> bool {
        self.lane_of(stage).held.with(path).fits(self.share(stage))
    }

    /// All files and all bytes of their paths, counted afresh.
    #[cfg(test)]
    pub(crate) fn footprint(&self) -> (usize, usize) {
        let paths = self.entries.keys();
        (self.entries.len(), paths.map(|path| path.as_os_str().len()).sum())
    }

    fn lane_of(&self, stage: Stage) -> &Lane {
        match stage {
            Stage::Copy => &self.copy,
            Stage::Archive => &self.archive,
        }
    }

    fn lane(&mut self, stage: Stage) -> &mut Lane {
        match stage {
            Stage::Copy => &mut self.copy,
            Stage::Archive => &mut self.archive,
        }
    }

    fn entry(&mut self, path: &Path) -> &mut Entry {
        self.entries.get_mut(path).expect("an active file is in the set")
    }

    /// Moves what has waited long enough to the ready queues.
    fn wake(&mut self, stage: Stage, now: Duration) {
        while let Some(Reverse((due, ..))) = self.lane(stage).waiting.peek()
            && *due <= now
        {
            let Some(Reverse((.., path))) = self.lane(stage).waiting.pop() else { break };
            let entry = self.entry(&path);
            entry.standing = Standing::Ready;
            let phase = entry.phase;
            self.lane(stage).ready(phase).push_back(path);
        }
    }

    fn ready_again(&mut self, path: &Arc<Path>, stage: Stage, phase: Phase) {
        let from = self.entry(path).stage;
        if from != stage {
            let lane = self.lane(from);
            lane.held = lane.held.without(path);
            if !self.has_room(stage, path) {
                // How far it has come is on disk.
                self.entries.remove(path);
                return self.lane(stage).overflow();
            }
            let lane = self.lane(stage);
            lane.held = lane.held.with(path);
            let entry = self.entry(path);
            entry.errors = 0;
            entry.setbacks = 0;
        }
        let entry = self.entry(path);
        entry.stage = stage;
        entry.phase = phase;
        entry.standing = Standing::Ready;
        self.lane(stage).ready(phase).push_back(Arc::clone(path));
    }

    fn wait_until(&mut self, path: &Arc<Path>, due: Duration) {
        let entry = self.entry(path);
        entry.standing = Standing::Waiting;
        let stage = entry.stage;
        let sequence = self.sequence;
        self.sequence += 1;
        self.lane(stage).waiting.push(Reverse((due, sequence, Arc::clone(path))));
    }

    fn note_health(&mut self, ticket: &Ticket, outcome: Outcome, now: Duration) -> Option<Change> {
        let Self { copy, archive, backoff, .. } = self;
        let health = match ticket.stage {
            Stage::Copy => &mut copy.health,
            Stage::Archive => &mut archive.health,
        };
        match outcome {
            Outcome::Failed(FailureClass::Target) => health.failed(now, ticket.probe, backoff),
            Outcome::Failed(FailureClass::File)
            | Outcome::Done
            | Outcome::Copied
            | Outcome::CheckAfter(_) => health.answered(now),
            Outcome::Failed(
                FailureClass::Passing | FailureClass::Staging | FailureClass::Permanent,
            )
            | Outcome::Left
            | Outcome::Moved(..)
            | Outcome::Interrupted => {
                health.unanswered(ticket.probe);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
