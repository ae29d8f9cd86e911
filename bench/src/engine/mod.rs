//! Engines carry out the steps of the [`Upload`]s of a run over real sockets.
//!
//! Invariant: an engine decides nothing and measures nothing.

pub mod threads;
#[cfg(feature = "tokio-uring")]
pub mod uring;

use std::io;
use std::net::TcpStream;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use crate::error::Error;
use crate::plan::{Behaviour, Plan};
use crate::record::Record;
use crate::upload::{Acknowledged, Shared, Upload};

/// Longest wait for a TCP connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Above this window the socket's first buffer might not take all replies.
const SMALL_WINDOW: u32 = 8;
/// What the kernel charges for a reply in a receive buffer, bytes, generously.
const REPLY_COST_BYTES: usize = 16 << 10;

/// How the bytes are moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// One thread with blocking calls for each connection, as in the deployed clients.
    #[default]
    Threads,
    /// One tokio-uring runtime for each processor, the connections spread over them. Measured
    /// against threads (2 cores, Linux 6.18, reference server, destination null, in turn): large
    /// files 2.1 to 5.5 against 3.3 to 5.3 GB/s, no difference beyond the noise; files of 4 KiB
    /// with 16 connections 16,000 to 22,000 against 32,000 to 35,000 files/s.
    #[cfg(feature = "tokio-uring")]
    TokioUring,
}

/// The clock of a run.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start, ns.
    #[must_use]
    pub fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// That time as the system counts it.
    #[must_use]
    pub fn instant(self, ns: u64) -> Instant {
        self.0 + Duration::from_nanos(ns)
    }
}

impl Engine {
    /// Runs the plan to its end, over all its connections.
    ///
    /// # Errors
    /// If the engine cannot work on this machine. What goes wrong with a connection is in the
    /// record.
    pub fn run(
        self,
        shared: Shared<'_>,
        clock: Clock,
        arrivals: Option<&Sender<Acknowledged>>,
    ) -> Result<Record, Error> {
        let payload = shared.plan.payload();
        let uploads = (0..shared.plan.connections)
            .map(|_| Upload::new(shared, arrivals.cloned()))
            .collect::<Vec<_>>();
        match self {
            Self::Threads => threads::run(shared.plan, uploads, &payload, clock),
            #[cfg(feature = "tokio-uring")]
            Self::TokioUring => uring::run(shared.plan, uploads, payload, clock),
        }
    }
}

/// Opens a connection as the plan's client would.
pub(crate) fn dial(plan: &Plan) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the server has no address");
    for address in &plan.addresses {
        match TcpStream::connect_timeout(address, DIAL_TIMEOUT) {
            Ok(stream) => {
                prepare(plan, &stream)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn prepare(plan: &Plan, stream: &TcpStream) -> io::Result<()> {
    if plan.behaviour == Behaviour::Pipelined {
        stream.set_nodelay(true)?;
    }
    if plan.window > SMALL_WINDOW {
        let bytes = plan.window as usize * REPLY_COST_BYTES;
        sockopt::set_socket_recv_buffer_size(stream, bytes)?;
    }
    stream.set_read_timeout(Some(plan.timeout))?;
    stream.set_write_timeout(Some(plan.timeout))
}
