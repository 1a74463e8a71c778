//! `pdmgate-lab`: the tools of the lab. A wire that loses, repeats, reorders, spoils and delays packets and says exactly what it
//! did, and traffic whose every byte is checked. Nothing here shares code with the appliance, so that neither can hide the
//! other's mistakes.

mod faults;
mod frame;
mod link;
mod random;
mod samples;
mod traffic;
mod wire;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Parser)]
#[command(
    name = "pdmgate-lab",
    about = "A wire with faults and traffic that checks itself, for pdmgate's tests and demo"
)]
struct Command {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Joins two interfaces by a link with faults; SIGTERM ends it and prints what it did as JSON
    Wire(wire::Options),
    /// Receives byte streams from tcp-send and checks each byte
    TcpServe(traffic::TcpServe),
    /// Sends a byte stream to tcp-serve and prints whether it arrived intact
    TcpSend(traffic::TcpSend),
    /// Receives numbered datagrams and prints what became of them
    UdpSink(traffic::UdpSink),
    /// Sends numbered datagrams at a steady pace
    UdpSend(traffic::UdpSend),
    /// Writes a capture of one host's half of a UDP and a TCP conversation, to be replayed where there is no kernel to talk to
    Samples(samples::Options),
}

fn main() -> ExitCode {
    let outcome = match Command::parse().tool {
        Tool::Wire(options) => wire::run(&options),
        Tool::TcpServe(options) => traffic::tcp_serve(&options),
        Tool::TcpSend(options) => traffic::tcp_send(&options),
        Tool::UdpSink(options) => traffic::udp_sink(&options),
        Tool::UdpSend(options) => traffic::udp_send(&options),
        Tool::Samples(options) => samples::write(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pdmgate-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads `10ms`, `250us` or `2s`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("expected a duration such as 10ms, found {text:?}"))?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(format!(
            "expected a duration in us, ms or s, found {text:?}"
        )),
    }
}
