//! The staging side of a session: windows, writes, and the end of a file one way or the other.

use rustix::io::Errno;
use tracing::{debug, error};

use super::content::{Step, Written};
use super::session::{Life, Receive, Sink, Stage};
use super::shard::{Io, Shard, kind};
use crate::refusal::Refusal;
use crate::ring::{Op, Ring, Span, Token};
use crate::services::{Job, Services};

impl Shard {
    /// Gives the session's upload a window, with what it carried in front.
    pub(super) fn attach<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        window: Span,
    ) {
        let session = &mut self.sessions[slot as usize];
        let upload = session.upload.as_mut().expect("only an upload takes windows");
        let carried = upload.content.attach(window);
        if carried > 0 {
            io.ring.copy(session.memory.carry().part(0, carried), window.part(0, carried));
        }
    }

    /// Does all that the upload can do now: steps, windows back, commit, abort.
    pub(super) fn pump<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let Some(upload) = &mut self.sessions[slot as usize].upload else { return };
        let staged = upload.staged;
        while let Some(upload) = &mut self.sessions[slot as usize].upload {
            match upload.content.step() {
                Some(Step::Write { index, from, offset }) => {
                    let op = Op::Write { file: staged.file, from, offset };
                    self.push(io, slot, kind::WRITE + index, op);
                }
                Some(Step::Extend { from, len }) => {
                    self.job(io, slot, Job::Extend { staged, from, len });
                }
                None => break,
            }
        }
        self.release_windows(io, slot);
        self.advance_end(io, slot);
        self.serve_queue(io);
        let session = &self.sessions[slot as usize];
        if session.receive == Receive::Own {
            self.receive(io, slot);
        }
    }

    fn release_windows<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        let carry = session.memory.carry();
        let receiving = matches!(session.receive, Receive::Payload(_));
        let Some(upload) = &mut session.upload else { return };
        if upload.stage == Stage::Committing {
            return;
        }
        while let Some((window, left)) = upload.content.release(receiving) {
            if let Some(left) = left {
                io.ring.copy(left, carry.part(0, left.len));
            }
            self.pool.give(window);
        }
    }

    /// Commits or aborts, once nothing is in flight.
    fn advance_end<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        let carry = session.memory.carry();
        let receiving = matches!(session.receive, Receive::Payload(_));
        let Some(upload) = &mut session.upload else { return };
        let staged = upload.staged;
        match upload.stage {
            Stage::Sealing if !upload.content.busy() => {
                upload.stage = Stage::Committing;
                let content = &upload.content;
                let (tail, len, crc) = (content.tail(carry), content.len(), content.crc());
                self.job(io, slot, Job::Commit { staged, tail, len, crc });
            }
            // A preallocation that waits for space is ended by this, not waited for.
            Stage::Failing if !upload.content.writing() && !receiving => {
                upload.stage = Stage::Aborting;
                self.job(io, slot, Job::Abort { staged });
            }
            _ => {}
        }
    }

    /// Hands a job over on behalf of a session.
    pub(super) fn job<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32, job: Job) {
        let session = &mut self.sessions[slot as usize];
        session.pending += 1;
        io.services.submit(Token::new(kind::JOB, slot, session.serial), job);
    }

    /// A write has completed.
    pub(super) fn write_done<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        index: u8,
        result: Result<u32, Errno>,
    ) {
        let upload = self.sessions[slot as usize].upload.as_mut();
        let upload = upload.expect("an upload outlives its writes");
        let staged = upload.staged;
        let again = match result {
            // A write of nothing is a full device that does not say so.
            Ok(0) => Err(Errno::NOSPC),
            Ok(count) => {
                let written = upload.content.written(index, count);
                self.counters.writes += 1;
                self.counters.bytes_written += u64::from(count);
                self.counters.short_writes += u64::from(written != Written::Whole);
                Ok(written)
            }
            // Old kernels let these through; nothing was written.
            Err(Errno::AGAIN | Errno::INTR) => Ok(upload.content.rewrite(index)),
            Err(errno) => Err(errno),
        };
        match again {
            Ok(Written::Whole) => {}
            Ok(Written::Again { from, offset }) => {
                self.counters.resubmissions += 1;
                let op = Op::Write { file: staged.file, from, offset };
                self.push(io, slot, kind::WRITE + index, op);
            }
            Err(errno) => {
                upload.content.write_failed(index);
                let fpath = &self.sessions[slot as usize].fpath;
                let text = format!("writing '{fpath}' to the staging file system failed: {errno}");
                error!("{text}");
                self.fail_upload(io, slot, Refusal::new(errno, text));
            }
        }
        self.pump(io, slot);
    }

    /// The file cannot be stored any more: what still comes in is dropped, and DATA and CLOSE get
    /// this answer.
    pub(super) fn fail_upload<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        refusal: Refusal,
    ) {
        let session = &mut self.sessions[slot as usize];
        let Some(upload) = &session.upload else { return };
        let sealing = upload.stage == Stage::Sealing;
        session.sink = Sink::Nowhere;
        session.failure.get_or_insert(refusal);
        if session.receive == Receive::Queued {
            self.pool.forget(slot);
            session.receive = Receive::Own;
        }
        self.give_up_upload(io, slot);
        if sealing && self.sessions[slot as usize].life == Life::Open {
            let failure = self.sessions[slot as usize].failure.take();
            self.reply(io, slot, Err(&failure.expect("just set")));
        }
    }

    /// The answer to [`Job::Extend`].
    pub(super) fn extended<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        result: Result<u64, Refusal>,
    ) {
        let upload = self.sessions[slot as usize].upload.as_mut();
        let upload = upload.expect("an upload outlives its jobs");
        match result {
            Ok(end) => upload.content.extended(end),
            Err(refusal) => {
                upload.content.extend_failed();
                if upload.stage == Stage::Content || upload.stage == Stage::Sealing {
                    self.fail_upload(io, slot, refusal);
                }
            }
        }
        let upload = self.sessions[slot as usize].upload.as_ref();
        if upload.is_some_and(|upload| upload.stage == Stage::Aborted) {
            self.aborted(io, slot);
        }
        self.pump(io, slot);
    }

    /// The answer to [`Job::Commit`].
    pub(super) fn committed<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        result: Result<(), Refusal>,
    ) {
        self.drop_upload(io, slot);
        let session = &self.sessions[slot as usize];
        if result.is_ok() {
            self.counters.files += 1;
            debug!("stored '{}' of node '{}'", session.fpath, session.node());
        }
        if session.life == Life::Open {
            self.reply(io, slot, result.as_ref().map(|&()| ()));
        }
    }

    /// The answer to [`Job::Abort`].
    pub(super) fn aborted<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let upload = self.sessions[slot as usize].upload.as_mut();
        let upload = upload.expect("an upload outlives its jobs");
        if upload.content.extending() {
            upload.stage = Stage::Aborted;
            return;
        }
        self.drop_upload(io, slot);
        let session = &mut self.sessions[slot as usize];
        if session.life == Life::Open
            && let Some(file) = session.opening.take()
        {
            self.job(io, slot, Job::Open(file));
        }
    }

    /// The staging service is done with the file: its windows are free.
    fn drop_upload<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let upload = self.sessions[slot as usize].upload.take();
        let mut content = upload.expect("an upload outlives its jobs").content;
        content.stop();
        while let Some((window, _)) = content.release(false) {
            self.pool.give(window);
        }
        debug_assert_eq!(content.held(), 0);
        self.serve_queue(io);
    }
}
