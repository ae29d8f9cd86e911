//! Functional tests of what no feature bit tells, made once when a ring is opened.

use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::uring::Uring;
use super::{Completion, FileId, Op, Ring, SocketId, Span, Token};

const RECEIVE: Token = Token::new(0xfe, 0, 0);
const CANCEL: Token = Token::new(0xfe, 1, 0);
const WRITE: Token = Token::new(0xfe, 2, 0);
const PATIENCE: Duration = Duration::from_secs(5);

fn await_token(ring: &mut Uring, token: Token) -> Result<u32, Errno> {
    let mut done: Vec<Completion> = Vec::new();
    for _ in 0..100 {
        ring.reap(Some(PATIENCE / 100), &mut done)?;
        if let Some(found) = done.iter().find(|completion| completion.token == token) {
            return found.result;
        }
    }
    Err(Errno::TIMEDOUT)
}

/// Whether a receive with MSG_WAITALL that has got a part hands that part out when it is cancelled.
/// Kernels from 5.18 on retain the part; one that then lost it would lose data, so receives go
/// without MSG_WAITALL unless this holds. Before 5.18 the receive completes short by itself.
pub(super) fn wait_all_keeps_what_it_got(ring: &mut Uring) -> bool {
    let attempt = |ring: &mut Uring| -> Result<bool, Errno> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let socket = SocketId(ours.as_raw_fd());
        let into = Span { start: 0, len: 64 };
        rustix::io::write(&theirs, &[7; 24])?;
        ring.push(RECEIVE, Op::Recv { socket, into, wait_all: true });
        ring.push(CANCEL, Op::Cancel { target: RECEIVE });
        let got = match await_token(ring, RECEIVE) {
            Err(Errno::TIMEDOUT) => {
                // The cancel came too early or is not heard: end the receive before its memory goes.
                drop(theirs);
                await_token(ring, RECEIVE)
            }
            got => got,
        };
        Ok(got == Ok(24))
    };
    attempt(ring).unwrap_or(false)
}

/// Writes one block through the ring to `file`, which was opened O_DIRECT on staging.
///
/// # Errors
/// Why staging cannot be written this way.
pub fn write_block(ring: &mut Uring, file: FileId) -> Result<(), Errno> {
    let from = Span { start: 0, len: crate::limits::BLOCK_BYTES };
    ring.bytes_mut(from).fill(0);
    ring.push(WRITE, Op::Write { file, from, offset: 0 });
    match await_token(ring, WRITE)? {
        count if count == from.len => Ok(()),
        _ => Err(Errno::IO),
    }
}
