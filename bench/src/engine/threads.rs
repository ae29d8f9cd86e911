//! The engine with one blocking thread for each connection.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use fsq_wire::PACKET_BYTES;

use super::{Clock, dial};
use crate::error::Error;
use crate::plan::{Behaviour, Plan};
use crate::record::Record;
use crate::upload::{Step, Upload};

/// The machine and its packet are on the heap; a thousand threads are to be cheap.
const STACK_BYTES: usize = 256 << 10;

/// Runs every upload to its end.
pub(super) fn run(
    plan: &Plan,
    uploads: Vec<Upload<'_>>,
    payload: &[u8],
    clock: Clock,
) -> Result<Record, Error> {
    thread::scope(|scope| {
        let started = uploads.into_iter().enumerate().map(|(number, upload)| {
            thread::Builder::new()
                .name(format!("connection {number}"))
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || carry_out(plan, upload, payload, clock))
                .map_err(Error::io(format!("starting the thread of connection {number}")))
        });
        let threads = started.collect::<Result<Vec<_>, _>>()?;
        let mut sum = Record::default();
        for thread in threads {
            sum.merge(&thread.join().expect("a connection's thread does not panic"));
        }
        Ok(sum)
    })
}

fn carry_out(plan: &Plan, mut upload: Upload<'_>, payload: &[u8], clock: Clock) -> Record {
    let mut stream: Option<TcpStream> = None;
    let mut packet = Box::new([0; PACKET_BYTES]);
    loop {
        let step = upload.step(clock.now_ns());
        let done = match (step, &mut stream) {
            (Step::Dial, _) => match dial(plan) {
                Ok(dialled) => {
                    stream = Some(dialled);
                    upload.dialled();
                    Ok(())
                }
                Err(error) => Err(("no connection", error)),
            },
            (Step::Send { payload_bytes }, Some(stream)) => {
                send(plan.behaviour, stream, upload.packet(), &payload[..payload_bytes])
                    .map_err(|error| ("connection lost while sending", error))
            }
            (Step::Receive, Some(stream)) => match stream.read_exact(&mut packet[..]) {
                Ok(()) => {
                    upload.reply(&packet, clock.now_ns());
                    Ok(())
                }
                Err(error) => Err(("connection lost while waiting for a reply", error)),
            },
            (Step::Wait { until_ns }, _) => {
                thread::sleep(clock.instant(until_ns).saturating_duration_since(Instant::now()));
                Ok(())
            }
            (Step::HangUp, _) => {
                stream = None;
                Ok(())
            }
            (Step::Done, _) => return upload.into_record(),
            (Step::Send { .. } | Step::Receive, None) => {
                unreachable!("the machine dials before it sends or receives")
            }
        };
        if let Err((what, error)) = done {
            stream = None;
            upload.lost(&format!("{what}: {error}"));
        }
    }
}

fn send(
    behaviour: Behaviour,
    stream: &mut TcpStream,
    packet: &[u8; PACKET_BYTES],
    payload: &[u8],
) -> io::Result<()> {
    if behaviour == Behaviour::Deployed || payload.is_empty() {
        stream.write_all(packet)?;
        return stream.write_all(payload);
    }
    let sent = stream.write_vectored(&[IoSlice::new(packet), IoSlice::new(payload)])?;
    match sent.checked_sub(packet.len()) {
        Some(sent) => stream.write_all(&payload[sent..]),
        None => {
            stream.write_all(&packet[sent..])?;
            stream.write_all(payload)
        }
    }
}
