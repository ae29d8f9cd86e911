//! What packets ask for, and the replies.

use std::sync::Arc;
use std::time::Duration;

use fsq_wire::{Info, Login, Next, PACKET_BYTES, Request, StorageDest};
use rustix::io::Errno;
use tracing::{debug, warn};

use super::content::Content;
use super::session::{Life, NEVER, Receive, Sink, Stage, Upload};
use super::shard::{Io, Shard, kind};
use crate::identmap::Identity;
use crate::limits::{LINGER_MS, QUICK_ACK_PAYLOAD_BYTES_MAX};
use crate::path::{Admission, Admitted};
use crate::refusal::Refusal;
use crate::ring::{Op, Ring};
use crate::services::{Job, NewFile, Secret, Services, StagedFile};

/// A request, freed from the packet it came in.
enum Asked {
    SignOn { node: String, password: Secret },
    Open(Result<Admitted, Refusal>),
    Data(u64),
    Close,
    Disconnect,
}

impl Shard {
    /// A whole packet is there and the reply before it is gone.
    pub(super) fn request<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        session.packet_held = false;
        let packet = packet(io.ring.bytes(session.memory.packet()));
        let asked = match session.wire.packet(packet) {
            Ok(Request::Connect(login)) => sign_on(login),
            Ok(Request::Open(info)) => {
                let identity = session.identity.as_ref().expect("OPEN comes after CONNECT");
                Asked::Open(admit(&self.admission, identity, info))
            }
            Ok(Request::Data { size }) => Asked::Data(size),
            Ok(Request::Close) => Asked::Close,
            Ok(Request::Disconnect) => Asked::Disconnect,
            Err(violation) => {
                warn!(
                    "closing the session of node '{}' from {}: {violation}",
                    session.node(),
                    session.peer
                );
                let packet = packet_mut(io.ring.bytes_mut(session.memory.packet()));
                let _ = session.wire.reject(packet, &violation);
                self.send(io, slot);
                self.leave(io, slot);
                return;
            }
        };
        session.deadline = NEVER;
        match asked {
            Asked::SignOn { .. } if session.surplus => {
                let max = self.config.sessions_max;
                let text = if self.stopping {
                    "the server is shutting down".to_owned()
                } else {
                    format!("too many sessions: this ring serves {max} (--max-sessions)")
                };
                self.reply(io, slot, Err(&Refusal::new(Errno::USERS, text)));
            }
            Asked::SignOn { node, password } => {
                let peer = session.peer.clone();
                self.job(io, slot, Job::SignOn { node, password, peer });
            }
            Asked::Open(Ok(admitted)) => self.open(io, slot, admitted),
            Asked::Open(Err(refusal)) => self.open_refused(io, slot, &refusal),
            Asked::Data(size) => self.data(io, slot, size),
            Asked::Close => self.close_file(io, slot),
            Asked::Disconnect => self.close(io, slot),
        }
    }

    /// The answer to a sign-on.
    pub(super) fn signed_on<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        result: Result<Arc<Identity>, Refusal>,
    ) {
        let session = &mut self.sessions[slot as usize];
        if session.life != Life::Open {
            return;
        }
        match result {
            Ok(identity) => {
                debug!("node '{}' signed on from {}", identity.node, session.peer);
                session.identity = Some(identity);
                self.reply(io, slot, Ok(()));
            }
            // The check has logged it, with details that are not for the client.
            Err(refusal) => self.reply(io, slot, Err(&refusal)),
        }
    }

    fn open<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32, admitted: Admitted) {
        let session = &mut self.sessions[slot as usize];
        session.failure = None;
        session.fpath = admitted.fpath.to_string_lossy().into_owned();
        if admitted.dest == StorageDest::Null {
            session.sink = Sink::Nowhere;
            self.reply(io, slot, Ok(()));
            return;
        }
        let identity = session.identity.clone().expect("OPEN comes after CONNECT");
        let Admitted { dest, placement, fs, fpath, desc } = admitted;
        let file = Box::new(NewFile { identity, placement, fs, fpath, desc, dest });
        if session.upload.is_some() {
            // The failed file before it is still being cleared away; it may hold the same name.
            session.opening = Some(file);
        } else {
            self.job(io, slot, Job::Open(file));
        }
    }

    fn open_refused<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        refusal: &Refusal,
    ) {
        let session = &mut self.sessions[slot as usize];
        session.failure = None;
        warn!("OPEN of node '{}' from {} refused: {refusal}", session.node(), session.peer);
        self.reply(io, slot, Err(refusal));
    }

    /// The answer to [`Job::Open`].
    pub(super) fn opened<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        result: Result<StagedFile, Refusal>,
    ) {
        let session = &mut self.sessions[slot as usize];
        match result {
            Ok(staged) => {
                let content = Content::new();
                session.upload = Some(Upload { staged, content, stage: Stage::Content });
                session.sink = Sink::Staging;
                if session.life == Life::Open {
                    self.reply(io, slot, Ok(()));
                } else {
                    self.give_up_upload(io, slot);
                }
            }
            Err(refusal) if session.life == Life::Open => self.open_refused(io, slot, &refusal),
            Err(_) => {}
        }
    }

    fn data<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32, size: u64) {
        let session = &mut self.sessions[slot as usize];
        if size == 0 {
            self.acknowledge_data(io, slot);
            return;
        }
        // The deployed client's kernel holds a small payload back until its header is acknowledged;
        // delayed, that would cost 40 ms a file.
        if size <= QUICK_ACK_PAYLOAD_BYTES_MAX && !session.more_waiting {
            io.ring.quick_ack(session.socket);
        }
        if let Some(upload) = &mut session.upload {
            upload.content.keep();
        }
        self.receive(io, slot);
    }

    /// A whole DATA has arrived.
    pub(super) fn acknowledge_data<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
    ) {
        self.counters.chunks += 1;
        let failure = self.sessions[slot as usize].failure.clone();
        match &failure {
            Some(failure) => self.reply(io, slot, Err(failure)),
            None => self.reply(io, slot, Ok(())),
        }
        if self.pool.scarce() {
            self.flush_idle(io, slot);
        }
    }

    fn close_file<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        if let Some(failure) = session.failure.take() {
            self.reply(io, slot, Err(&failure));
            return;
        }
        match &mut session.upload {
            Some(upload) if session.sink == Sink::Staging => {
                upload.stage = Stage::Sealing;
                self.pump(io, slot);
            }
            _ => self.reply(io, slot, Ok(())),
        }
    }

    /// Answers the request in hand and goes on to the next, unless the session ends with it.
    pub(super) fn reply<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        outcome: Result<(), &Refusal>,
    ) {
        let stopping = self.stopping;
        let session = &mut self.sessions[slot as usize];
        let packet = packet_mut(io.ring.bytes_mut(session.memory.packet()));
        let outcome =
            outcome.map_err(|refusal| (refusal.errno.raw_os_error(), refusal.text.as_str()));
        let next = session.wire.reply(packet, outcome);
        self.send(io, slot);
        if next == Next::Close || stopping {
            self.leave(io, slot);
        } else {
            self.receive(io, slot);
        }
    }

    /// Ends a session with a reason that answers no request.
    pub(super) fn dismiss<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        refusal: &Refusal,
    ) {
        let session = &mut self.sessions[slot as usize];
        warn!("closing the session of node '{}' from {}: {refusal}", session.node(), session.peer);
        if session.sending.is_some() || session.life != Life::Open {
            self.close(io, slot);
            return;
        }
        if session.receive == Receive::Queued {
            self.pool.forget(slot);
            session.receive = Receive::Idle;
        }
        // The packet that is being received into may still be the kernel's: answer from the other.
        session.memory.swap();
        let packet = packet_mut(io.ring.bytes_mut(session.memory.packet()));
        session.wire.dismiss(packet, refusal.errno.raw_os_error(), &refusal.text);
        self.send(io, slot);
        self.leave(io, slot);
    }

    /// Sends the packet in hand and turns to the other one.
    fn send<R: Ring, S: Services>(&mut self, io: &mut Io<'_, R, S>, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        debug_assert!(session.sending.is_none(), "one reply at a time");
        let from = session.memory.packet();
        session.memory.swap();
        session.filled = 0;
        session.more_waiting = false;
        session.sending = Some(from);
        session.deadline = io.now + self.config.stall_timeout;
        let socket = session.socket;
        self.push(io, slot, kind::SEND, Op::Send { socket, from });
    }

    /// A send has completed.
    pub(super) fn send_done<R: Ring, S: Services>(
        &mut self,
        io: &mut Io<'_, R, S>,
        slot: u32,
        result: Result<u32, Errno>,
    ) {
        let session = &mut self.sessions[slot as usize];
        let from = session.sending.take().expect("a send was in flight");
        if session.life == Life::Closing {
            return;
        }
        let sent = match result {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => return self.close(io, slot),
        };
        if sent < from.len {
            let rest = from.part(sent, from.len - sent);
            session.sending = Some(rest);
            let socket = session.socket;
            self.counters.resubmissions += 1;
            return self.push(io, slot, kind::SEND, Op::Send { socket, from: rest });
        }
        if session.life == Life::Leaving {
            session.deadline = io.now + Duration::from_millis(LINGER_MS);
            let socket = session.socket;
            self.push(io, slot, kind::SHUTDOWN, Op::Shutdown { socket, both: false });
            if !self.sessions[slot as usize].receiving() {
                self.receive(io, slot);
            }
            return;
        }
        // Greeting and half a packet keep their own deadline; otherwise the peer may rest now.
        if session.filled == 0 && session.receive == Receive::Packet {
            session.deadline = NEVER;
        }
        if session.packet_held {
            self.request(io, slot);
        }
    }
}

fn sign_on(login: Login<'_>) -> Asked {
    let node = String::from_utf8_lossy(login.node).into_owned();
    Asked::SignOn { node, password: Secret::new(login.password) }
}

fn admit(admission: &Admission, identity: &Identity, info: Info<'_>) -> Result<Admitted, Refusal> {
    admission.admit(identity, info.fs, info.fpath, info.desc, info.storage_dest)
}

fn packet(bytes: &[u8]) -> &[u8; PACKET_BYTES] {
    bytes.try_into().expect("a slot's packet is a whole packet")
}

fn packet_mut(bytes: &mut [u8]) -> &mut [u8; PACKET_BYTES] {
    bytes.try_into().expect("a slot's packet is a whole packet")
}
