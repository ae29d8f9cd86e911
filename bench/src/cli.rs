//! From the command line to the exit status.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::compare::compare;
use crate::error::Error;
use crate::options::{
    Command, CompareArgs, LimitArgs, Options, ReferenceArgs, RunArgs, SweepArgs, Verbosity,
    with_command,
};
use crate::reference;
use crate::run::{Watch, run};
use crate::sweep::sweep;

/// Not everything was acknowledged, or there is no result.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;
/// Of each run of a sweep unless the user says how much is sent.
const SWEEP_DURATION: Duration = Duration::from_secs(3);

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse_from(with_command(std::env::args_os().collect()));
    let done = match options.command {
        Command::Run(args) => run_once(&args),
        Command::Compare(args) => compare_two(&args),
        Command::Limit(args) => limit(&args),
        Command::Sweep(args) => sweep_all(*args),
        Command::ReferenceServer(args) => serve(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("fsq-bench: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { USAGE } else { FAILED })
        }
    }
}

/// Whether all went well.
fn run_once(args: &RunArgs) -> Result<bool, Error> {
    let plan = args.load.plan(&args.servername)?;
    if args.verbose >= Verbosity::Info {
        eprintln!("{plan:#?}");
    }
    let watch = Watch {
        lookout: args.arrival.lookout(),
        pid: args.pid,
        has_progress: args.verbose >= Verbosity::Message,
        is_stopped: stop_on_signal()?,
    };
    let report = run(&plan, args.load.engine, &watch)?;
    if args.verbose >= Verbosity::Message {
        show(args.json.as_deref(), &report.to_json(), &report)?;
    } else {
        for (reason, count) in report.record.reasons() {
            eprintln!("fsq-bench: {count} x {reason}");
        }
        show(args.json.as_deref(), &report.to_json(), &report.measurement())?;
    }
    Ok(report.is_good())
}

fn compare_two(args: &CompareArgs) -> Result<bool, Error> {
    let comparison = compare(args, &stop_on_signal()?, |line| eprintln!("{line}"))?;
    show(args.json.as_deref(), &comparison.to_json(), &comparison)?;
    Ok(true)
}

fn sweep_all(mut args: SweepArgs) -> Result<bool, Error> {
    fs::create_dir_all(&args.out).map_err(Error::io(format!("creating {}", args.out.display())))?;
    if args.load.files.is_none() {
        args.load.duration.get_or_insert(SWEEP_DURATION);
    }
    let sweep = sweep(&args, &stop_on_signal()?, |line| eprintln!("{line}"))?;
    sweep.write(&args.out)?;
    println!("{} runs in {}", sweep.rows.len(), args.out.display());
    Ok(true)
}

fn limit(args: &LimitArgs) -> Result<bool, Error> {
    let found = args.limits()?.probe()?;
    show(args.json.as_deref(), &found.to_json(), &found)?;
    Ok(true)
}

fn serve(args: &ReferenceArgs) -> Result<bool, Error> {
    let listener = TcpListener::bind(&args.listen)
        .map_err(Error::io(format!("listening on {}", args.listen)))?;
    reference::serve(&listener, &args.dir)
        .map_err(Error::io(format!("accepting on {}", args.listen)))?;
    Ok(true)
}

/// The flag that the first SIGINT or SIGTERM sets; the second one ends the process.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Error> {
    let is_stopped = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag not set yet.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&is_stopped))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&is_stopped)))
            .map_err(Error::io("installing the handler of signals"))?;
    }
    Ok(is_stopped)
}

/// Writes the JSON where it is wanted, and prints the text unless the JSON is printed.
fn show(
    file: Option<&Path>,
    json: &serde_json::Value,
    text: &dyn std::fmt::Display,
) -> Result<(), Error> {
    match file {
        Some(file) if file == Path::new("-") => println!("{json:#}"),
        Some(file) => {
            fs::write(file, format!("{json:#}\n"))
                .map_err(Error::io(format!("writing {}", file.display())))?;
            println!("{text}");
        }
        None => println!("{text}"),
    }
    Ok(())
}
