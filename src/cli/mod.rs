//! The `pdmgate` command: one file a subcommand, each with its arguments, its help and what it does.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod decode;
mod failure;
mod flows;
mod keygen;
mod log;
mod operate;
mod output;
mod primary;
pub mod run;
mod stats;
mod watch;

use failure::Failure;

const LONG_ABOUT: &str = "\
An inline PDMv2 appliance.

pdmgate stands between a network that it protects (its inside port) and the rest (its outside port). Out of each IPv6 \
packet of a registered pair it makes one that carries a sealed PDMv2 option; from each that comes in it takes the \
option off, opens it, and measures round-trip time, server delay, loss and reordering. Everything else passes \
untouched.";

const AFTER_HELP: &str = "\
A first hour:
  pdmgate check /etc/pdmgate/pdmgate.yaml          is the configuration right?
  pdmgate run /etc/pdmgate/pdmgate.yaml            carry traffic until SIGTERM
  pdmgate flows --watch 1s                         what is measured, flow by flow
  pdmgate stats                                    what is counted, all in all
  pdmgate decode pdmgate.yaml outside.pcap         what a capture of the outside says
  pdmgate keygen --help                            certificates and secrets, from nothing

Exit codes:
  0   done
  1   failed while running; the reason is on standard error
  2   the command line makes no sense
  78  the configuration, or a certificate or key that it names, cannot be used (EX_CONFIG)

Environment:
  PDMGATE_LOG  what to log, as for --log";

#[derive(Debug, Parser)]
#[command(
    name = "pdmgate",
    version,
    about = "An inline PDMv2 appliance",
    long_about = LONG_ABOUT,
    after_long_help = AFTER_HELP,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    log: log::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Decode(decode::Args),
    Flows(flows::Args),
    Stats(stats::Args),
    Primary(primary::Args),
    Registrations(operate::RegistrationsArgs),
    Renew(operate::RenewArgs),
    Revoke(operate::RevokeArgs),
    Lists(operate::ListsArgs),
    Keygen(keygen::Args),
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start(&cli.log);
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::check(args),
        Command::Decode(args) => decode::decode(args),
        Command::Flows(args) => flows::flows(args),
        Command::Stats(args) => stats::stats(args),
        Command::Primary(args) => primary::primary(args),
        Command::Registrations(args) => operate::registrations(args),
        Command::Renew(args) => operate::renew(args),
        Command::Revoke(args) => operate::revoke(args),
        Command::Lists(args) => operate::lists(args),
        Command::Keygen(args) => keygen::keygen(args),
    };
    outcome.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }
}
