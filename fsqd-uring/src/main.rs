//! The daemon's entry point; everything it does is in the library.

use std::io::Write;
use std::process::ExitCode;

use fsqd_uring::config::{Config, Invocation, Verbosity};
use fsqd_uring::{check, daemon, log};

fn main() -> ExitCode {
    let config = match Config::parse(std::env::args_os()) {
        Ok(Invocation::Run(config)) => config,
        Ok(Invocation::Print(text)) => {
            // A closed standard output is the reader's decision.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&error, error.exit_status()),
    };
    // The findings are what a check is for.
    let least = if config.check_config { Verbosity::Message } else { Verbosity::Error };
    let log = match log::start(config.log_format, config.verbose.max(least)) {
        Ok(log) => log,
        Err(error) => return refuse(&error, 1),
    };
    end_with_a_panic();
    let outcome = if config.check_config { Ok(check::run(&config)) } else { daemon::run(&config) };
    log.flush();
    outcome.unwrap_or_else(|error| {
        let status = match &error {
            daemon::StartError::Config(error) => error.exit_status(),
            _ => 1,
        };
        refuse(&error, status)
    })
}

/// Makes a panic of any thread the end of the process: a thread that is missing would hold up
/// sessions or files for ever, and what was acknowledged is taken up at the next start.
fn end_with_a_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn refuse(error: &dyn std::error::Error, status: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "fsqd: {error}");
    ExitCode::from(status)
}
