//! The receiving side of a session: packets, payload, and where payload goes while memory is short.
//!
//! A receive is armed only for bytes that the protocol says come next, so that nothing is ever read
//! ahead of its place. While memory is short no session waits for its peer with a window in hand:
//! it polls without memory, then queues for a window, and flushes it again when the socket is empty.

use fsq_wire::{PACKET_BYTES, Phase};
use rustix::io::Errno;

use super::session::{Life, NEVER, Receive, Sink};
use super::shard::{Io, Shard, kind};
use crate::limits::WINDOWS_PER_SESSION;
use crate::ring::{Completion, Op, Ring, Span};
use crate::services::Services;

impl Shard {
    /// Arms the receive that the session's phase calls for.
    pub(super) fn receive<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        debug_assert!(!session.receiving());
        session.receive = Receive::Idle;
        if session.life == Life::Closing {
            return;
        }
        if session.life == Life::Leaving {
            let into = self.scratch;
            self.arm(io, slot, Receive::Scratch, into, false);
            return;
        }
        match session.wire.phase() {
            Phase::Greeting | Phase::Ready | Phase::Writing => {
                // Between requests a client may rest for hours; within a packet it may not.
                let fresh = session.filled == 0 && session.wire.phase() != Phase::Greeting;
                if !fresh {
                    let deadline = io.now + self.config.stall_timeout;
                    session.deadline = session.deadline.min(deadline);
                }
                let into = session.memory.packet();
                let into = into.part(session.filled, into.len - session.filled);
                self.arm(io, slot, Receive::Packet, into, false);
            }
            Phase::Payload { remaining } => self.receive_payload(io, slot, remaining, false),
            _ => {}
        }
    }

    /// Arms a receive for payload. With `ready` the socket is known to have some.
    fn receive_payload<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        remaining: u64,
        ready: bool,
    ) {
        let session = &mut self.sessions[slot as usize];
        session.deadline = io.now + self.config.stall_timeout;
        let upload = match &mut session.upload {
            Some(upload) if session.sink == Sink::Staging => upload,
            _ => {
                let len = u64::from(self.scratch.len).min(remaining) as u32;
                let into = self.scratch.part(0, len);
                self.arm(io, slot, Receive::Scratch, into, true);
                return;
            }
        };
        if upload.content.flushing() {
            // The window goes back as soon as its blocks are written.
            session.receive = Receive::Own;
            session.deadline = NEVER;
            return;
        }
        if upload.content.room().is_none() {
            let held = upload.content.held();
            match self.pool.take(held) {
                Some(window) => self.attach(io, slot, window),
                // Whoever has a share gets the next window from its own writes: from the queue it
                // would come on top, and there is room for no more than the largest share.
                None if held >= WINDOWS_PER_SESSION => {
                    session.receive = Receive::Own;
                    // As below; staging may be full for long.
                    session.deadline = NEVER;
                    return;
                }
                None if !ready => {
                    let socket = session.socket;
                    session.receive = Receive::Poll;
                    self.push(io, slot, kind::RECEIVE, Op::Poll { socket });
                    return;
                }
                None => {
                    session.receive = Receive::Queued;
                    // Waiting for memory is our doing, not the peer's.
                    session.deadline = NEVER;
                    self.pool.wait(slot);
                    self.squeeze(io);
                    self.serve_queue(io);
                    return;
                }
            }
        }
        self.receive_into_window(io, slot);
    }

    /// Arms a receive for payload into the window that has room.
    pub(super) fn receive_into_window<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
    ) {
        let session = &mut self.sessions[slot as usize];
        let Phase::Payload { remaining } = session.wire.phase() else { return };
        let room = session.upload.as_ref().and_then(|upload| upload.content.room());
        let room = room.expect("a window with room is attached");
        let into = room.part(0, u64::from(room.len).min(remaining) as u32);
        session.deadline = io.now + self.config.stall_timeout;
        let wait_all = !self.pool.scarce();
        self.arm(io, slot, Receive::Payload(into), into, wait_all);
    }

    fn arm<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        receive: Receive,
        into: Span,
        wait_all: bool,
    ) {
        let session = &mut self.sessions[slot as usize];
        session.receive = receive;
        session.armed_at = io.now;
        let socket = session.socket;
        self.push(io, slot, kind::RECEIVE, Op::Recv { socket, into, wait_all });
    }

    /// A receive or a poll has completed.
    pub(super) fn receive_done<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        done: Completion,
    ) {
        let session = &mut self.sessions[slot as usize];
        let was = std::mem::replace(&mut session.receive, Receive::Idle);
        let given_up = session.life != Life::Open || session.sink == Sink::Nowhere;
        if given_up && matches!(was, Receive::Payload(_)) {
            // The window that was received into can go now.
            self.pump(io, slot);
        }
        let session = &mut self.sessions[slot as usize];
        if session.life != Life::Open {
            match done.result {
                Ok(count) if count > 0 => self.receive(io, slot),
                Err(Errno::AGAIN | Errno::INTR) => self.receive_again(io, slot),
                _ => self.close(io, slot),
            }
            return;
        }
        match done.result {
            Err(Errno::CANCELED) if was != Receive::Packet => {
                self.receive_cancelled(io, slot);
            }
            // Old kernels let these through; the operation has not happened.
            Err(Errno::AGAIN | Errno::INTR) => self.receive_again(io, slot),
            Ok(_) if was == Receive::Poll => {
                let Phase::Payload { remaining } = session.wire.phase() else { return };
                self.receive_payload(io, slot, remaining, true);
            }
            Err(_) | Ok(0) => self.close(io, slot),
            Ok(count) => match was {
                Receive::Packet => self.packet_part(io, slot, count, done.more_waiting),
                Receive::Payload(into) => {
                    let more = done.more_waiting;
                    self.payload_part(io, slot, into.part(0, count), into.len, more);
                }
                _ => self.payload_dropped(io, slot, count),
            },
        }
    }

    /// Arms the same once more.
    fn receive_again<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        self.counters.resubmissions += 1;
        self.receive(io, slot);
    }

    /// A receive was ended by us before anything came: the peer has stalled, or its window is
    /// wanted elsewhere.
    fn receive_cancelled<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        if self.sessions[slot as usize].deadline == NEVER {
            self.stalled(io, slot);
        } else {
            self.let_window_go(io, slot);
            self.receive(io, slot);
        }
    }

    fn packet_part<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        count: u32,
        more_waiting: bool,
    ) {
        let session = &mut self.sessions[slot as usize];
        session.filled += count;
        session.more_waiting = more_waiting;
        if session.filled < PACKET_BYTES as u32 {
            self.receive_again(io, slot);
        } else if session.sending.is_some() {
            session.packet_held = true;
        } else {
            self.request(io, slot);
        }
    }

    fn payload_part<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        part: Span,
        asked: u32,
        more_waiting: bool,
    ) {
        let short = self.count_payload(part.len, asked);
        let session = &mut self.sessions[slot as usize];
        session.wire.payload(u64::from(part.len));
        // The upload may have failed while the receive was in flight.
        match &mut session.upload {
            Some(upload) if session.sink == Sink::Staging => {
                upload.content.received(io.ring.bytes(part));
            }
            _ => {}
        }
        if short && !more_waiting && self.pool.scarce() {
            self.let_window_go(io, slot);
        }
        self.pump(io, slot);
        self.payload_goes_on(io, slot);
    }

    fn payload_dropped<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        count: u32,
    ) {
        let session = &mut self.sessions[slot as usize];
        let asked = match session.wire.phase() {
            Phase::Payload { remaining } => remaining.min(u64::from(self.scratch.len)) as u32,
            _ => count,
        };
        session.wire.payload(u64::from(count));
        self.count_payload(count, asked);
        self.payload_goes_on(io, slot);
    }

    /// Counts a receive of payload; whether it was short, and the rest will be asked for again.
    fn count_payload(&mut self, count: u32, asked: u32) -> bool {
        let short = count < asked;
        self.counters.bytes += u64::from(count);
        self.counters.receives += 1;
        self.counters.short_receives += u64::from(short);
        self.counters.resubmissions += u64::from(short);
        short
    }

    fn payload_goes_on<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if session.life != Life::Open {
            return;
        }
        match session.wire.phase() {
            Phase::Acknowledging => self.acknowledge_data(io, slot),
            // Pumping may have re-armed it already.
            _ if session.receive == Receive::Idle => self.receive(io, slot),
            _ => {}
        }
    }

    /// Asks the upload to write what it has and give its window back.
    fn let_window_go<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        if let Some(upload) = &mut self.sessions[slot as usize].upload {
            upload.content.flush();
            self.pump(io, slot);
        }
    }

    /// The same for a session that rests between two DATA packets; whether it held any.
    pub(super) fn flush_idle<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return false };
        let Some(upload) = &mut session.upload else { return false };
        let resting = session.receive == Receive::Packet && upload.content.held() > 0;
        if resting && !upload.content.flushing() {
            upload.content.flush();
            self.pump(io, slot);
            return true;
        }
        false
    }

    /// Somebody waits for a window: takes one from a session that rests.
    fn squeeze<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>) {
        let slots = self.sessions.capacity();
        for _ in 0..slots {
            let slot = self.squeeze_from;
            self.squeeze_from = (slot + 1) % slots;
            if self.flush_idle(io, slot as u32) {
                return;
            }
        }
    }

    /// Hands free windows to those who wait, in order.
    pub(super) fn serve_queue<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>) {
        while let Some((slot, window)) = self.pool.take_waiting() {
            self.attach(io, slot, window);
            self.sessions[slot as usize].receive = Receive::Idle;
            self.receive_into_window(io, slot);
        }
    }
}
