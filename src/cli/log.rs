//! Logs on standard error.

use std::io::{self, IsTerminal};

use clap::error::ErrorKind;
use clap::{CommandFactory, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

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
    filter(text).map(|_| text.to_owned())
}

/// What `text` lets through.
fn filter(text: &str) -> Result<EnvFilter, String> {
    for directive in text.split(',') {
        // A word alone would be the name of a part, of which everything is logged, and nothing of the others.
        if directive.parse::<LevelFilter>().is_err() && !directive.contains(['=', '[']) {
            return Err(format!(
                "expected error, warn, info, debug, trace or off, or such a level for a part, as in \
                 pdmgate::dataplane=debug; found `{directive}`"
            ));
        }
    }
    text.parse::<EnvFilter>().map_err(|error| error.to_string())
}

/// Starts logging; ends the process as for a bad command line if `PDMGATE_LOG` makes no sense.
pub fn start(args: &LogArgs) {
    let given = |text: &String| !text.is_empty();
    let text = args.log.clone().filter(given);
    let text = text
        .or_else(|| std::env::var(VARIABLE).ok().filter(given))
        .unwrap_or_else(|| DEFAULT.to_owned());
    let filter = filter(&text).unwrap_or_else(|error| {
        let message = format!("{VARIABLE}={text}: {error}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in [
            "",
            "warn",
            "INFO",
            "off",
            "info,pdmgate::dataplane=debug",
            "[tick]=trace",
        ] {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in [
            "warning",
            "verbose",
            "info,pdmgate",
            "a=b=c",
            "pdmgate=loud",
        ] {
            assert!(filter(text).is_err(), "{text}");
        }
        let error = filter("info,verbose").expect_err("no level");
        assert!(error.contains("found `verbose`"), "{error}");
    }
}
