//! The `pdmgate` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    pdmgate::cli::main()
}
