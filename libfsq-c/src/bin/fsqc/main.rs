//! `fsqc`: sends files to an FSQ server, one after the other in one session.
//!
//! Invariant: the exit status is 0 only if the server has acknowledged every file that was asked
//! for. [`args`] says what was asked, [`plan`] turns that into a list of files, [`source`] reads
//! them, [`sender`] sends them, [`report`] tells the user.

mod args;
mod plan;
mod report;
mod sender;
mod source;

use std::process::ExitCode;

use args::Request;
use plan::Plan;
use report::Report;
use sender::{Outcome, Sender};

/// At least one file was not acknowledged.
const FILES_FAILED: u8 = 1;
/// The server could not be reached, refused us, or went away; files may be left over. (2 is a
/// usage error.)
const SERVER_GONE: u8 = 3;

fn main() -> ExitCode {
    let request = args::parse();
    let report = Report::new(&request);
    for warning in &request.warnings {
        report.warn(warning);
    }
    ExitCode::from(run(&request, report))
}

fn run(request: &Request, mut report: Report) -> u8 {
    let plan = Plan::new(request, &report);
    report.start(plan.bytes());
    let mut sender = match Sender::connect(request) {
        Ok(sender) => sender,
        Err(error) => {
            report.error(&error.to_string());
            for entry in &plan.entries {
                report.left_over(&entry.source, &entry.destination);
            }
            report.finish();
            return SERVER_GONE;
        }
    };
    for entry in plan.entries {
        let outcome = match entry.reason {
            Some(reason) => Outcome::failed(reason),
            None if sender.is_gone() => {
                report.left_over(&entry.source, &entry.destination);
                continue;
            }
            None => sender.send(&entry.source, &entry.destination, &report),
        };
        report.file(&entry.source, &entry.destination, &outcome);
    }
    let is_gone = sender.is_gone();
    sender.finish();
    match (is_gone, report.finish()) {
        (true, _) => SERVER_GONE,
        (false, false) => FILES_FAILED,
        (false, true) => 0,
    }
}
