//! Sessions that sign on and then say nothing, as those of detectors between two exposures.
//!
//! Invariant: they are there before the run begins and until it is over, and cost this side no
//! thread and no processor time.

use std::io::{Read, Write};
use std::net::TcpStream;

use fsq_wire::client::Window;
use fsq_wire::{ClientSession, PACKET_BYTES};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::dial;
use crate::error::Error;
use crate::plan::Plan;

/// Files that the rest of the program needs, generously.
const OTHER_FILES: u64 = 256;

/// Sessions that are held until this is dropped.
#[derive(Debug)]
pub struct Idle(Vec<TcpStream>);

impl Idle {
    /// Opens and signs on as many as the plan has, one after the other.
    ///
    /// # Errors
    /// If the server refuses one, or this process may not have so many open files.
    pub fn sign_on(plan: &Plan) -> Result<Self, Error> {
        allow_files(u64::from(plan.idle) + u64::from(plan.connections) + OTHER_FILES);
        (0..plan.idle).map(|number| one(plan, number)).collect::<Result<_, _>>().map(Self)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn one(plan: &Plan, number: u32) -> Result<TcpStream, Error> {
    let failed = |what: &str| Error::Failed(format!("idle session {number}: {what}"));
    let mut session = ClientSession::new(plan.layout, Window { packets: 1, bytes: u64::MAX });
    let mut packet = [0; PACKET_BYTES];
    session.connect(&plan.login(), &mut packet).map_err(|error| failed(&error.to_string()))?;
    let mut stream = dial(plan).map_err(Error::io(format!("idle session {number}")))?;
    stream
        .write_all(&packet)
        .and_then(|()| stream.read_exact(&mut packet))
        .map_err(Error::io(format!("idle session {number}")))?;
    let reply = session.reply(&packet).map_err(|breach| failed(&breach.to_string()))?;
    match reply.outcome {
        Ok(()) => Ok(stream),
        Err(refused) => Err(failed(&format!("{} refused: {}", refused.op, refused.text))),
    }
}

/// Raises the number of open files as far as it goes; too few show as an error of the session that
/// is one too many.
fn allow_files(count: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(count, |maximum| maximum.min(count));
    if current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}
