//! The engine on tokio-uring: a runtime for each processor, many connections on each.
//!
//! Buffers are handed to the kernel and come back, so packets are copied into ones of the engine's
//! own; the payload is shared by all connections, as in the other engine.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsq_wire::PACKET_BYTES;
use futures_util::future::join_all;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use super::{Clock, dial};
use crate::error::Error;
use crate::plan::{Behaviour, Plan};
use crate::record::Record;
use crate::upload::{Step, Upload};

/// Runs every upload to its end.
pub(super) fn run(
    plan: &Plan,
    uploads: Vec<Upload<'_>>,
    payload: Box<[u8]>,
    clock: Clock,
) -> Result<Record, Error> {
    let payload = Bytes::from(payload);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let count = cores.min(uploads.len()).max(1);
    let mut shares: Vec<Vec<Upload<'_>>> = (0..count).map(|_| Vec::new()).collect();
    for (number, upload) in uploads.into_iter().enumerate() {
        shares[number % count].push(upload);
    }
    // The runtime panics where the kernel has no io_uring for us: ask first.
    tokio_uring_works()?;
    thread::scope(|scope| {
        let started = shares.into_iter().enumerate().map(|(number, share)| {
            let payload = payload.clone();
            thread::Builder::new()
                .name(format!("ring {number}"))
                .spawn_scoped(scope, move || {
                    tokio_uring::start(async {
                        let carried = share
                            .into_iter()
                            .map(|upload| carry_out(plan, upload, payload.clone(), clock));
                        join_all(carried).await
                    })
                })
                .map_err(Error::io(format!("starting the thread of ring {number}")))
        });
        let threads = started.collect::<Result<Vec<_>, _>>()?;
        let mut sum = Record::default();
        for thread in threads {
            for record in thread.join().expect("an engine's thread does not panic") {
                sum.merge(&record);
            }
        }
        Ok(sum)
    })
}

fn tokio_uring_works() -> Result<(), Error> {
    io_uring::IoUring::new(2)
        .map(drop)
        .map_err(Error::io("this machine lets us have no io_uring (use --engine threads)"))
}

async fn carry_out(plan: &Plan, mut upload: Upload<'_>, payload: Bytes, clock: Clock) -> Record {
    let mut connection: Option<Connection> = None;
    loop {
        let step = upload.step(clock.now_ns());
        let done = match (step, &mut connection) {
            (Step::Dial, _) => match dial(plan) {
                Ok(stream) => {
                    connection = Some(Connection::new(stream, plan));
                    upload.dialled();
                    Ok(())
                }
                Err(error) => Err(("no connection", error)),
            },
            (Step::Send { payload_bytes }, Some(connection)) => connection
                .send(upload.packet(), Bytes::slice(&payload, ..payload_bytes))
                .await
                .map_err(|error| ("connection lost while sending", error)),
            (Step::Receive, Some(connection)) => match connection.receive().await {
                Ok(()) => {
                    upload.reply(connection.reply(), clock.now_ns());
                    Ok(())
                }
                Err(error) => Err(("connection lost while waiting for a reply", error)),
            },
            (Step::Wait { until_ns }, _) => {
                let left = clock.instant(until_ns).saturating_duration_since(Instant::now());
                tokio::time::sleep(left).await;
                Ok(())
            }
            (Step::HangUp, _) => {
                connection = None;
                Ok(())
            }
            (Step::Done, _) => return upload.into_record(),
            (Step::Send { .. } | Step::Receive, None) => {
                unreachable!("the machine dials before it sends or receives")
            }
        };
        if let Err((what, error)) = done {
            connection = None;
            upload.lost(&format!("{what}: {error}"));
        }
    }
}

struct Connection {
    stream: TcpStream,
    behaviour: Behaviour,
    timeout: Duration,
    /// The next packet to send; empty while the kernel has it.
    outgoing: Vec<u8>,
    /// The last reply; empty while the kernel has it.
    incoming: Vec<u8>,
}

impl Connection {
    fn new(stream: std::net::TcpStream, plan: &Plan) -> Self {
        Self {
            stream: TcpStream::from_std(stream),
            behaviour: plan.behaviour,
            timeout: plan.timeout,
            outgoing: vec![0; PACKET_BYTES],
            incoming: vec![0; PACKET_BYTES],
        }
    }

    fn reply(&self) -> &[u8; PACKET_BYTES] {
        self.incoming.first_chunk().expect("a whole packet was received")
    }

    async fn send(&mut self, packet: &[u8; PACKET_BYTES], payload: Bytes) -> io::Result<()> {
        if self.behaviour == Behaviour::Deployed || payload.is_empty() {
            let mut outgoing = std::mem::take(&mut self.outgoing);
            outgoing.copy_from_slice(packet);
            let (sent, outgoing) = self.stream.write_all(outgoing).await;
            self.outgoing = outgoing;
            sent?;
            return if payload.is_empty() {
                Ok(())
            } else {
                self.stream.write_all(payload).await.0
            };
        }
        let pieces = vec![Bytes::copy_from_slice(packet), payload];
        let (sent, mut pieces) = self.stream.writev(pieces).await;
        let mut sent = sent?;
        for piece in &mut pieces {
            let gone = sent.min(piece.len());
            let rest = piece.split_off(gone);
            sent -= gone;
            if !rest.is_empty() {
                self.stream.write_all(rest).await.0?;
            }
        }
        Ok(())
    }

    async fn receive(&mut self) -> io::Result<()> {
        let mut filled = 0;
        while filled < PACKET_BYTES {
            let incoming = std::mem::take(&mut self.incoming);
            let read = self.stream.read(incoming.slice(filled..));
            // A read that is given up keeps its buffer; the connection is not used any more.
            let (count, incoming) = tokio::time::timeout(self.timeout, read)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            self.incoming = incoming.into_inner();
            match count? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    }
}
