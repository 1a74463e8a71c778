//! Logs on standard error.

use std::io::{self, IsTerminal};

use clap::error::ErrorKind;
use clap::{CommandFactory, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::Cli;

const VARIABLE: &str = "PDMGATE_LOG";
const DEFAULT: &str = "info";

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug or trace, or such a level for a part, as in
    /// info,pdmgate::dataplane=debug [default: PDMGATE_LOG, else info]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = parse_filter, help_heading = "Logging")]
    log: Option<String>,
    /// How to log, on standard error
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Logging"
    )]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One line an event, for people
    Text,
    /// One JSON object an event, for machines
    Json,
}

fn parse_filter(text: &str) -> Result<String, String> {
    match text.parse::<EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Starts logging; ends the process as for a bad command line if `PDMGATE_LOG` makes no sense.
pub fn start(args: &LogArgs) {
    let filter = args
        .log
        .clone()
        .or_else(|| std::env::var(VARIABLE).ok())
        .unwrap_or_else(|| DEFAULT.to_owned());
    let filter = filter.parse::<EnvFilter>().unwrap_or_else(|error| {
        let message = format!("{VARIABLE}={filter}: {error}");
        Cli::command()
            .error(ErrorKind::ValueValidation, message)
            .exit()
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        Format::Text => builder.init(),
        Format::Json => builder.json().init(),
    }
}
