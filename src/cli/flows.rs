//! `pdmgate flows`.

use super::{Failure, watch};
use crate::telemetry::FlowQuery;
use crate::telemetry::records::FlowSort;
use crate::telemetry::text;

/// Show the flows of a running appliance.
///
/// One line a flow: packets marked (OUT) and read (IN), the smoothed, smallest and largest network round-trip time, the
/// remote host's own delay (SERVER), packets lost and reordered on the way in, options that failed to open or were
/// replays (FAILED), and how long the flow has lasted. A dash says that nothing was measured yet.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate flows --sort rtt --limit 10     the slowest ten
  pdmgate flows --sort loss --watch 1s    where packets get lost, every second
  pdmgate flows --json --limit 0          all flows, for a script")]
pub struct Args {
    #[command(flatten)]
    watch: watch::WatchArgs,
    /// Which flows come first, the largest number on top
    #[arg(long, value_enum, value_name = "BY", default_value_t)]
    sort: FlowSort,
    /// How many flows at most; 0 for all of them
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Only flows of this pairing
    #[arg(long, value_name = "NAME")]
    pairing: Option<String>,
}

/// Prints the flows.
pub fn flows(args: &Args) -> Result<(), Failure> {
    let query = FlowQuery {
        limit: args.limit,
        sort: args.sort,
        pairing: args.pairing.clone(),
    };
    watch::watch(
        &args.watch,
        |client| client.flows(&query),
        |flows| text::flows(flows),
    )
}
