//! `pdmgate primary`.

use std::path::PathBuf;

use super::Failure;
use crate::manage;

/// Run a Primary alone, without ports.
///
/// Agrees with peer Primaries on secrets, and hands Secondaries what their mode gives them. Needs no DPDK port, no
/// hugepages and no privileges beyond its files and its TCP port. SIGTERM and SIGINT end it with exit code 0; traffic goes on
/// with the keys at hand meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate primary /etc/pdmgate/primary.yaml
  pdmgate registrations                                  who is registered, and for what")]
pub struct Args {
    /// Configuration file with a section `primary`
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
}

/// Runs the Primary.
pub fn primary(args: &Args) -> Result<(), Failure> {
    Ok(manage::run_primary(&args.config)?)
}
