//! What `flows` and `stats` have in common: the socket, JSON or a table, once or again and again.

use std::path::PathBuf;
use std::time::Duration;

use humantime_serde::re::humantime::parse_duration;
use serde::Serialize;

use super::Failure;
use super::output::Output;
use crate::telemetry::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Local socket of the running appliance (telemetry.socket of its configuration)
    #[arg(long, value_name = "PATH", default_value = "/run/pdmgate/pdmgate.sock")]
    socket: PathBuf,
    /// Print one line of JSON instead of a table; delays in nanoseconds
    #[arg(long)]
    json: bool,
    /// Print again after each such time, until interrupted: 500ms, 1s, 1m [default without a time: 1s]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "1s",
        value_parser = parse_interval
    )]
    watch: Option<Duration>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("at least 100ms".to_owned());
    }
    Ok(interval)
}

/// Asks, prints, and does so again if that is wanted.
pub fn watch<T: Serialize>(
    args: &WatchArgs,
    ask: impl Fn(&Client) -> Result<T, ClientError>,
    table: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    let client = Client::new(&args.socket)?;
    let mut output = Output::new();
    let mut first = true;
    loop {
        let answer = ask(&client)?;
        if args.json {
            output.json(&answer)?;
        } else {
            if args.watch.is_some() && !first {
                output.fresh_page()?;
            }
            output.text(&table(&answer))?;
        }
        output.flush()?;
        first = false;
        let Some(interval) = args.watch else {
            return Ok(());
        };
        std::thread::sleep(interval);
    }
}
