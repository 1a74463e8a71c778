//! `pdmgate run`.

use std::path::PathBuf;

use super::Failure;
use crate::manage;

/// Carry traffic until SIGTERM.
///
/// Opens both ports, marks and seals what goes out, opens and measures what comes in. SIGTERM and SIGINT finish the
/// packets under way and end with exit code 0. SIGHUP reads the lists and the policy of the configuration again,
/// without losing a packet or a flow; a configuration that cannot be used is logged and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate run /etc/pdmgate/pdmgate.yaml
  pdmgate --log debug run pdmgate.yaml                   tell more
  pdmgate --log-format json run pdmgate.yaml             logs for a collector
  kill -HUP $(pidof pdmgate)                             read lists and policy again")]
pub struct Args {
    /// Configuration file
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
}

/// Runs the appliance.
pub fn run(args: &Args) -> Result<(), Failure> {
    Ok(manage::run(&args.config)?)
}
