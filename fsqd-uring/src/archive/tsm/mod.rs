//! [`TsmArchive`]: files as objects of a TSM server, many in a transaction.
//!
//! A commit costs the server a fifth of a second however much it commits, so what waits travels
//! together. All of a file is known before it is sent (its CRC was computed when it arrived), so
//! the object information is final at once; what is read from staging is checked again on the way,
//! and a file of up to a chunk before anything of it is sent.
//!
//! Every failure belongs to one of these: the server aborted, so nothing is stored and the files go
//! again (`plan`); the session is lost, likewise, in a new one; the outcome of a commit is not
//! known, so the server is asked for each object, later, before anything is sent again; the server
//! has too few mount points, so one thread less works at a time (`seats`); this file cannot be
//! archived, so it is omitted with the reason.
//!
//! Invariant: an object is sent only if the archive is known not to hold it: it was never sent, or
//! its transaction was aborted, or a query did not find it.

use std::sync::Arc;
use std::time::Duration;

use tsm_bindings::tsm::{
    Class, CommitError, Error, NamePattern, NewObject, QueryFilter, ReturnCode, Transaction,
};

use self::object::Object;
use self::plan::{Bounds, Load, Plan};
use self::server::SignedOn;
pub use self::server::{Account, TsmServer};
use super::{Archive, ArchiveItem, BATCH_MAX, Verdict};
use crate::fs::Fs;
use crate::queue::record::Content;
use crate::queue::staged::StagingTree;
use crate::queue::{Failure, FailureClass, Pulse, Side};

pub(in crate::archive) mod object;
mod plan;
mod seats;
mod server;

/// Most bytes of a transaction, whatever the server allows: what an abort makes travel again.
const TRANSACTION_BYTES_MAX: u64 = 2 << 30;

/// Read and sent at a time, bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// When the server is asked for objects of a commit whose outcome is unknown: by then it has
/// noticed that the session is gone, and has ended its transaction.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// Reasons that concern the node or the server's configuration, and so all files alike.
const NOT_OF_THE_FILE: [i16; 4] = [25, 27, 30, 36];

/// Filespace gone (20, 2060, 2061): it is registered anew.
const NO_FILESPACE: [i16; 3] = [20, 2060, 2061];

/// A session with the server, used by one thread.
pub struct TsmArchive<F: Fs> {
    tree: Arc<StagingTree<F>>,
    server: Arc<TsmServer>,
    signed_on: Option<SignedOn>,
    chunk: Box<[u8]>,
    pulse: Option<Arc<Pulse>>,
}

/// A file on its way.
struct Job<'a> {
    item: &'a ArchiveItem<'a>,
    object: Object,
}

/// How a transaction ended that did not go well. Nothing of it is stored, but for the last.
enum Stop {
    /// Some members have their verdict; the others may go again.
    Blamed,
    /// The server's or the library's doing.
    Aborted(Error),
    /// No session.
    SignOn(Failure),
    /// Everything is stored or nothing.
    Unknown(Error),
}

/// Why one object was not sent.
enum Unsent {
    /// The transaction takes no more.
    Full,
    /// This file's own fault.
    Blame(Failure),
    /// The transaction's end.
    Stop(Stop),
}

impl<F: Fs> TsmArchive<F> {
    /// A session that is opened when there is something to archive, or by [`TsmArchive::warm_up`].
    #[must_use]
    pub fn new(tree: Arc<StagingTree<F>>, server: Arc<TsmServer>) -> Self {
        let chunk = vec![0; CHUNK_BYTES].into();
        Self { tree, server, signed_on: None, chunk, pulse: None }
    }

    /// Signs on before there is anything to do, so that a wrong set-up is in the log at the start.
    #[must_use]
    pub fn warm_up(mut self) -> Self {
        match self.server.sign_on() {
            Ok(signed_on) => self.signed_on = Some(signed_on),
            Err(failure) => tracing::warn!("{failure}; tried again when there are files"),
        }
        self
    }

    /// Names and checksums of a batch; what needs no sending gets its verdict.
    fn jobs<'a>(&mut self, batch: &'a [ArchiveItem<'a>]) -> Vec<Result<Job<'a>, Verdict>> {
        let mut asked = Ok(());
        batch
            .iter()
            .map(|item| {
                let job = self.job(item)?;
                if item.again {
                    // One question that fails is enough: the others would wait as long.
                    asked.clone()?;
                    match self.find(&job.object) {
                        Ok(true) => return Err(Verdict::Confirmed),
                        Ok(false) => {}
                        Err(failure) => {
                            asked = Err(Verdict::from(failure.clone()));
                            return Err(failure.into());
                        }
                    }
                }
                Ok(job)
            })
            .collect()
    }

    fn job<'a>(&mut self, item: &'a ArchiveItem<'a>) -> Result<Job<'a>, Failure> {
        let content = match item.record.content {
            Some(content) => content,
            // The old daemon left no checksum: two reads instead of one.
            None => self.sum(item)?,
        };
        let object = Object::new(item.record, content).map_err(|error| {
            let text = format!("{:?} cannot be archived: {error}", item.staging);
            Failure::new(FailureClass::Permanent, text)
        })?;
        Ok(Job { item, object })
    }

    fn sum(&mut self, item: &ArchiveItem<'_>) -> Result<Content, Failure> {
        let mut reader = Reader::open(&self.tree, item)?;
        while reader.fill(&mut self.chunk)? > 0 {
            beat(&self.server, self.pulse.as_deref());
        }
        Ok(reader.content())
    }

    fn session(&mut self) -> Result<&mut SignedOn, Failure> {
        if !self.signed_on.as_ref().is_some_and(|signed_on| signed_on.session.is_usable()) {
            // Signed off first: the server may have no room for both.
            self.signed_on = None;
            self.signed_on = Some(self.server.sign_on()?);
        }
        Ok(self.signed_on.as_mut().expect("signed on just now"))
    }

    /// Whether the archive holds this very content under this name.
    fn find(&mut self, object: &Object) -> Result<bool, Failure> {
        let failed = |error: Error| {
            // Whether the archive has it is still open: it must not count, or it would be sent.
            Failure::new(FailureClass::Target, format!("query of {}: {error}", object.name))
        };
        let session = &mut self.session()?.session;
        let pattern = NamePattern::exactly(&object.name);
        let found = session.query(&pattern, &QueryFilter::default()).map_err(failed)?;
        for candidate in found {
            if object.is(&candidate.map_err(failed)?.info) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn bounds(&self) -> Bounds {
        let limits = self.signed_on.as_ref().map(|signed_on| signed_on.limits);
        let objects = limits.map_or(BATCH_MAX, |limits| limits.transaction_objects as usize);
        let bytes = limits.map(|limits| limits.transaction_bytes).filter(|&bytes| bytes > 0);
        Bounds {
            objects: objects.clamp(1, BATCH_MAX),
            bytes: bytes.map_or(TRANSACTION_BYTES_MAX, |bytes| bytes.min(TRANSACTION_BYTES_MAX)),
        }
    }

    /// One transaction with the first of the group, as many as it takes: how many those are. Members
    /// that are themselves to blame get their verdict in any case.
    fn transact(
        &mut self,
        jobs: &[Result<Job<'_>, Verdict>],
        group: &[usize],
        plan: &mut Plan,
        failed: &mut Vec<usize>,
    ) -> Result<usize, Stop> {
        let members =
            || group.iter().filter_map(|&index| Some((index, jobs[index].as_ref().ok()?)));
        self.session().map_err(Stop::SignOn)?;
        let Self { tree, server, signed_on, chunk, pulse } = self;
        let signed_on = signed_on.as_mut().expect("there is a session");
        for (_, job) in members() {
            signed_on.register(job.object.name.fs()).map_err(Stop::Aborted)?;
        }
        let mut transaction = signed_on.session.begin().map_err(Stop::Aborted)?;
        let mut sent = group.len();
        for (at, (index, job)) in members().enumerate() {
            let mut sender = Sender { tree, chunk, server, pulse: pulse.as_deref() };
            match sender.send(&mut transaction, job) {
                Ok(()) => {}
                Err(Unsent::Full) if transaction.objects() > 0 => {
                    sent = at;
                    break;
                }
                Err(Unsent::Full) => {
                    let text = format!("{} does not fit into any transaction", job.object.name);
                    plan.give(&[index], &Failure::new(FailureClass::File, text).into());
                    failed.push(index);
                    return Err(Stop::Blamed);
                }
                Err(Unsent::Blame(failure)) => {
                    plan.give(&[index], &failure.into());
                    failed.push(index);
                    if !transaction.is_open() {
                        return Err(Stop::Blamed);
                    }
                }
                Err(Unsent::Stop(stop)) => return Err(stop),
            }
        }
        let (objects, bytes) = (transaction.objects(), transaction.bytes());
        if objects > 0 {
            transaction.commit().map_err(|error| match error {
                CommitError::Aborted(error) => Stop::Aborted(error),
                CommitError::Unknown(error) => Stop::Unknown(error),
            })?;
            tracing::debug!("committed a transaction of {objects} objects, {bytes} bytes");
        }
        Ok(sent)
    }

    /// Sends a group in a transaction and notes what became of it.
    fn step(&mut self, jobs: &[Result<Job<'_>, Verdict>], mut group: Vec<usize>, plan: &mut Plan) {
        if let Some(pulse) = &self.pulse {
            // Waiting for another thread is no silence of the server.
            pulse.rest();
        }
        let server = Arc::clone(&self.server);
        let _seat = server.seats.take();
        beat(&server, self.pulse.as_deref());
        let mut failed = Vec::new();
        let ended = self.transact(jobs, &group, plan, &mut failed);
        let rest = |group: &mut Vec<usize>| group.retain(|index| !failed.contains(index));
        match ended {
            Ok(sent) => {
                let later = group.split_off(sent);
                rest(&mut group);
                plan.confirmed(&group);
                plan.again(later);
                if let Some(seats) = server.seats.went_well() {
                    tracing::info!("{seats} archive threads are at work at a time now");
                }
            }
            Err(stop) => {
                rest(&mut group);
                self.stopped(stop, group, plan);
            }
        }
    }

    fn stopped(&mut self, stop: Stop, group: Vec<usize>, plan: &mut Plan) {
        match stop {
            Stop::Blamed => plan.again(group),
            Stop::SignOn(failure) => plan.spare(&failure),
            Stop::Unknown(error) => {
                tracing::warn!(
                    "{error}; {} files: the server is asked for them in {} s",
                    group.len(),
                    UNKNOWN_FOR.as_secs()
                );
                plan.give(&group, &Verdict::Pending { check_after: UNKNOWN_FOR });
            }
            Stop::Aborted(error) => {
                if error.class() == Class::FewerSessions
                    && let Some(seats) = self.server.seats.fewer()
                {
                    tracing::warn!(
                        "{error}; {seats} archive threads work at a time from now on; raise \
                         MAXNUMMP of the node, or lower --athreads"
                    );
                    return plan.again(group);
                }
                if error.code().is_some_and(|code| NO_FILESPACE.contains(&code.0))
                    && let Some(signed_on) = &mut self.signed_on
                {
                    signed_on.forget_filespaces();
                }
                tracing::debug!("a transaction of {} files was aborted: {error}", group.len());
                plan.aborted(group, failure(&error));
            }
        }
    }
}

impl<F: Fs> Archive for TsmArchive<F> {
    fn batch_max(&self) -> usize {
        self.bounds().objects
    }

    fn batch_bytes(&self) -> u64 {
        self.bounds().bytes
    }

    fn must_not_repeat(&self) -> bool {
        // The server keeps all objects of a name.
        true
    }

    fn report_to(&mut self, pulse: Arc<Pulse>) {
        self.pulse = Some(pulse);
    }

    fn archive(&mut self, batch: &[ArchiveItem<'_>]) -> Vec<Verdict> {
        let jobs = self.jobs(batch);
        let mut filespaces: Vec<&[u8]> = Vec::new();
        let mut loads = Vec::with_capacity(jobs.len());
        for job in &jobs {
            loads.push(job.as_ref().ok().map(|job| {
                let fs = job.object.name.fs();
                let known = filespaces.iter().position(|known| *known == fs);
                let filespace = known.unwrap_or_else(|| {
                    filespaces.push(fs);
                    filespaces.len() - 1
                });
                Load { bytes: job.object.content.len, filespace }
            }));
        }
        let verdicts = jobs.iter().map(|job| job.as_ref().err().cloned()).collect();
        let mut plan = Plan::new(&loads, verdicts, self.bounds());
        while let Some(group) = plan.next() {
            self.step(&jobs, group, &mut plan);
        }
        plan.finish()
    }

    fn confirm(&mut self, item: &ArchiveItem<'_>) -> Verdict {
        let found = self.job(item).and_then(|job| self.find(&job.object));
        match found {
            Ok(true) => Verdict::Confirmed,
            Ok(false) => Verdict::Missing,
            Err(failure) => failure.into(),
        }
    }
}

/// What a failed call means for the files it was about. Where waiting is advised it is the server's
/// state; where it is not, the same would happen again to the same file.
fn failure(error: &Error) -> Failure {
    let code = error.code().unwrap_or(ReturnCode::OK);
    let class = match error.class() {
        Class::Permanent if NOT_OF_THE_FILE.contains(&code.0) => FailureClass::Target,
        Class::Permanent => FailureClass::Permanent,
        Class::Session | Class::FewerSessions => FailureClass::Target,
        Class::Transaction | Class::Flow if code.pause().is_zero() => FailureClass::File,
        Class::Transaction | Class::Flow => FailureClass::Target,
    };
    Failure::new(class, error.to_string())
}

fn beat(server: &TsmServer, pulse: Option<&Pulse>) {
    if let Some(pulse) = pulse {
        pulse.beat(server.now());
    }
}

/// What is needed to send objects while the session is in a transaction.
struct Sender<'a, F: Fs> {
    tree: &'a StagingTree<F>,
    chunk: &'a mut [u8],
    server: &'a TsmServer,
    pulse: Option<&'a Pulse>,
}

impl<F: Fs> Sender<'_, F> {
    fn send(&mut self, transaction: &mut Transaction<'_>, job: &Job<'_>) -> Result<(), Unsent> {
        let Job { item, object } = job;
        let mut reader = Reader::open(self.tree, item).map_err(Unsent::Blame)?;
        let mut filled = reader.fill(self.chunk).map_err(Unsent::Blame)?;
        let whole = object.content.len <= CHUNK_BYTES as u64;
        if whole {
            reader.check(object.content).map_err(Unsent::Blame)?;
        }
        let new = NewObject {
            name: &object.name,
            description: &object.description,
            info: &object.info().encode(),
            size: object.content.len,
        };
        let mut sending = match transaction.send(&new) {
            Ok(sending) => sending,
            Err(error) if error.is_transaction_full() => return Err(Unsent::Full),
            Err(error) => return Err(unsent(error)),
        };
        while filled > 0 {
            sending.write(&self.chunk[..filled]).map_err(unsent)?;
            beat(self.server, self.pulse);
            filled = reader.fill(self.chunk).map_err(Unsent::Blame)?;
        }
        if !whole {
            reader.check(object.content).map_err(Unsent::Blame)?;
        }
        sending.finish().map_err(unsent)?;
        beat(self.server, self.pulse);
        Ok(())
    }
}

/// An error of a call that was about one object. Only what can never be otherwise is put down to
/// it: the rest may be the server's state at the moment.
fn unsent(error: Error) -> Unsent {
    if matches!(error, Error::OutcomeUnknown(_)) {
        return Unsent::Stop(Stop::Unknown(error));
    }
    match failure(&error) {
        failure if failure.class == FailureClass::Permanent => Unsent::Blame(failure),
        _ => Unsent::Stop(Stop::Aborted(error)),
    }
}

/// A staged file, read from its beginning to its end.
struct Reader<'a, F: Fs> {
    tree: &'a StagingTree<F>,
    item: &'a ArchiveItem<'a>,
    node: F::Node,
    hasher: crc32fast::Hasher,
    len: u64,
}

impl<'a, F: Fs> Reader<'a, F> {
    fn open(tree: &'a StagingTree<F>, item: &'a ArchiveItem<'a>) -> Result<Self, Failure> {
        let Some(staged) = tree.open_buffered(item.staging)? else {
            let text = format!("{:?} is not on staging any more", item.staging);
            return Err(Failure::new(FailureClass::Staging, text));
        };
        Ok(Self { tree, item, node: staged.node, hasher: crc32fast::Hasher::new(), len: 0 })
    }

    /// The next bytes; 0 at the end.
    fn fill(&mut self, chunk: &mut [u8]) -> Result<usize, Failure> {
        let count = self.tree.fs().read_at(&self.node, chunk, self.len).map_err(|error| {
            Failure::call(Side::Staging, format_args!("read {:?}", self.item.staging), error)
        })?;
        self.hasher.update(&chunk[..count]);
        self.len += count as u64;
        Ok(count)
    }

    /// What has been read so far.
    fn content(&self) -> Content {
        Content { len: self.len, crc: self.hasher.clone().finalize() }
    }

    fn check(&self, expected: Content) -> Result<(), Failure> {
        let content = self.content();
        if content == expected {
            return Ok(());
        }
        let text = format!(
            "staging copy damaged: {:?} reads as {content:?}, acknowledged was {expected:?}",
            self.item.staging
        );
        Err(Failure::new(FailureClass::Staging, text))
    }
}
