//! Loopback under stop and wait: what the protocol leaves of it when the client is a deployed one.
//!
//! Sender and receiver are blocking threads, a pair for each connection, on sockets as the system
//! makes them. Invariant: a byte counts when its chunk has been answered.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use fsq_wire::PACKET_BYTES;

/// What the receiver reads at a time, bytes: it stays in the cache nearest to a core.
const READ_BYTES: usize = 256 << 10;

/// Sends chunks with a packet before each, waits for a packet after each, on so many connections
/// until `end`; bytes of payload.
pub(super) fn probe(connections: usize, chunk_bytes: usize, end: Instant) -> io::Result<u64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..connections {
        pairs.push((TcpStream::connect(address)?, listener.accept()?.0));
    }
    thread::scope(|scope| {
        let senders: Vec<_> = pairs
            .into_iter()
            .map(|(sender, receiver)| {
                scope.spawn(move || answer(receiver, chunk_bytes));
                scope.spawn(move || send(sender, chunk_bytes, end))
            })
            .collect();
        let join = |sender: thread::ScopedJoinHandle<'_, io::Result<u64>>| {
            sender.join().expect("a sender does not panic")
        };
        senders.into_iter().map(join).sum()
    })
}

fn send(mut stream: TcpStream, chunk_bytes: usize, end: Instant) -> io::Result<u64> {
    let chunk = vec![0x5a; chunk_bytes];
    let mut packet = [0; PACKET_BYTES];
    let mut bytes = 0;
    while Instant::now() < end {
        stream.write_all(&packet)?;
        stream.write_all(&chunk)?;
        stream.read_exact(&mut packet)?;
        bytes += chunk_bytes as u64;
    }
    Ok(bytes)
}

/// Until the sender hangs up; what goes wrong shows at its end.
fn answer(mut stream: TcpStream, chunk_bytes: usize) {
    let mut packet = [0; PACKET_BYTES];
    let mut buffer = vec![0; READ_BYTES];
    while stream.read_exact(&mut packet).is_ok() {
        let mut left = chunk_bytes;
        while left > 0 {
            let most = left.min(READ_BYTES);
            match stream.read(&mut buffer[..most]) {
                Ok(count) if count > 0 => left -= count,
                _ => return,
            }
        }
        if stream.write_all(&packet).is_err() {
            return;
        }
    }
}
