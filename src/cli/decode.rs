//! `pdmgate decode`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Failure;
use super::output::Output;
use crate::config::Config;
use crate::decode::capture::{Capture, CaptureError};
use crate::decode::records::Line;
use crate::decode::{Decoder, Windows};

/// Open a capture with the configuration's secrets.
///
/// Reads pcap or pcapng and prints one line of JSON a packet: number, time, 5-tuple, pairing and direction, and of its
/// option the kind, PRSEQ, F, whether it opened or why not, the key's generations and Kri, and the metrics. Delays are
/// in nanoseconds. No appliance needs to run, and the state file is not touched.
///
/// The capture may begin anywhere: keys are looked for over a wide window. If nothing opens although the secrets are
/// right, the appliances may have restarted more often than --generation-window allows for.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  pdmgate decode pdmgate.yaml outside.pcap
  pdmgate decode pdmgate.yaml outside.pcapng --summary | jq 'select(.type == \"flow\")'
  tcpdump -i out0 -U -w - ip6 | pdmgate decode pdmgate.yaml -

With --summary each flow follows as a line of its own, \"type\":\"flow\": packets, options, losses and reorderings of \
both directions, the median of each sender's own delay (server_delay_ns), of the round trip between the place of the \
capture and each sender (rtt_ns within forward and reverse), and of the whole round trip (rtt_ns).")]
pub struct Args {
    /// Configuration file with the pairings of either appliance
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Capture to read; - for standard input
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// Print a line for each flow behind the packets
    #[arg(long)]
    summary: bool,
    /// How many Kri to try, from the last known one on
    #[arg(long, value_name = "N", default_value_t = Windows::default().kri)]
    kri_window: u32,
    /// How many generations to try for each end, from the configured one on
    #[arg(long, value_name = "N", default_value_t = Windows::default().generations, value_parser = clap::value_parser!(u32).range(..=1024))]
    generation_window: u32,
}

/// Prints the packets of a capture.
pub fn decode(args: &Args) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let windows = Windows {
        kri: args.kri_window,
        generations: args.generation_window,
    };
    let mut decoder = Decoder::new(&config, windows)?;
    let mut capture = open(&args.capture).map_err(|source| Failure::Capture {
        path: args.capture.clone(),
        source,
    })?;
    // Who pipes a capture in wants to see each packet when it comes.
    let live = is_stdin(&args.capture);
    let mut output = Output::new();
    let end = loop {
        match capture.next_packet() {
            Ok(Some(packet)) => {
                let record = decoder.packet(&packet);
                output.json(&Line::Packet(Box::new(record)))?;
                if live {
                    output.flush()?;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if args.summary {
        for flow in decoder.flows() {
            output.json(&Line::Flow(Box::new(flow)))?;
        }
    }
    output.flush()?;
    match end {
        None => Ok(()),
        // What a capture that is still being written, or was interrupted, looks like.
        Some(error @ CaptureError::Truncated { .. }) => {
            tracing::warn!("{}: {error}", args.capture.display());
            Ok(())
        }
        Some(source) => Err(Failure::Capture {
            path: args.capture.clone(),
            source,
        }),
    }
}

fn open(path: &Path) -> Result<Capture<Box<dyn Read>>, CaptureError> {
    if is_stdin(path) {
        Capture::new(Box::new(io::stdin().lock()))
    } else {
        Capture::new(Box::new(File::open(path)?))
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}
