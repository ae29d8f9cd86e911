//! The daemon's entry point; everything it does is in the library.

use std::io::Write;
use std::process::ExitCode;

use fsqd_uring::config::{Config, ConfigError, Invocation};
use fsqd_uring::{daemon, log};

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
    if log::start(config.log_format, config.verbose).is_err() {
        let error = ConfigError::Unusable("the log is taken".to_owned());
        return refuse(&error, error.exit_status());
    }
    let outcome = if config.check_config {
        daemon::check(&config).map(|()| ExitCode::SUCCESS)
    } else {
        daemon::run(&config)
    };
    outcome.unwrap_or_else(|error| {
        let status = match &error {
            daemon::StartError::Config(error) => error.exit_status(),
            _ => 1,
        };
        refuse(&error, status)
    })
}

fn refuse(error: &dyn std::error::Error, status: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "fsqd: {error}");
    ExitCode::from(status)
}
