//! `pdmgate check`.

use std::path::PathBuf;

use super::Failure;
use super::output::Output;
use crate::config::ConfigFile;

/// Check a configuration without touching a device.
///
/// Takes the file of an appliance (`pdmgate run`), or of a Primary alone (`pdmgate primary`): one with a section
/// `primary` and without `ports`. Prints the configuration as it would be used, defaults included and secrets left out, and what is worth a warning.
/// What is wrong goes to standard error with file, line, column, what was found and what is allowed, and the exit code
/// is 78.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate check pdmgate.yaml
  pdmgate check pdmgate.yaml && kill -HUP $(pidof pdmgate)    reload only what is right")]
pub struct Args {
    /// Configuration file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
}

/// Checks and prints the configuration.
pub fn check(args: &Args) -> Result<(), Failure> {
    let config = ConfigFile::load(&args.config)?;
    let mut output = Output::new();
    output.text(&config.summary())?;
    output.flush()
}
