//! `pdmgate stats`.

use super::{Failure, watch};
use crate::telemetry::text;

/// Show the counters of a running appliance.
///
/// Ports and workers, then each pairing with the distribution of its round-trip times and server delays, then every
/// counter that is not 0. The same numbers, zeros included, are in the JSON and at the Prometheus endpoint.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate stats --watch 1s                               look on
  pdmgate stats --json | jq .counters.passed.out         why packets leave unmarked
  curl -s http://127.0.0.1:9464/metrics                  the same for Prometheus")]
pub struct Args {
    #[command(flatten)]
    watch: watch::WatchArgs,
}

/// Prints the numbers.
pub fn stats(args: &Args) -> Result<(), Failure> {
    watch::watch(&args.watch, |client| client.stats(), text::stats)
}
