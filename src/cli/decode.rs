//! `pdmgate decode`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Failure;
use super::output::Output;
use crate::config::Config;
use crate::decode::capture::{Capture, CaptureError};
use crate::decode::records::Line;
use crate::decode::{Decoder, Registered, Windows};
use crate::registration::analyze::{self, Question};
use crate::registration::primary::keylog;
use crate::registration::tls::TlsFiles;
use crate::wire::pdmv2::DEFAULT_OPTION_TYPE;

/// Open a capture: with a configuration's secrets, a Primary's keylog, or what a Primary tells.
///
/// Reads pcap or pcapng and prints one line of JSON a packet: number, time, 5-tuple, pairing and direction, and of its
/// option the kind, PRSEQ, F, whether it opened or why not, the key's generations and Kri, and the metrics. Delays are
/// in nanoseconds. No appliance needs to run, and the state file is not touched.
///
/// CONFIG opens static pairings. Registered ones are opened by a keylog, which a Primary writes if its configuration
/// says so (primary.keylog), or by a Primary itself (--primary): it tells the secrets that it has now, to those whose
/// certificate's name is among the pairing's `analyzers`, and logs that it did. A capture of before a renewal needs a
/// keylog.
///
/// The capture may begin anywhere: keys are looked for over a wide window. If nothing opens although the secrets are
/// right, the appliances may have restarted more often than --generation-window allows for.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pdmgate decode [OPTIONS] <CONFIG> <CAPTURE>
       pdmgate decode [OPTIONS] --keylog <FILE> <CAPTURE>
       pdmgate decode [OPTIONS] --primary <HOST:PORT> --primary-name <NAME> --pairing <NAME>
                      --certificate <FILE> --key <FILE> --authorities <FILE> <CAPTURE>",
    after_long_help = "\
Examples:
  pdmgate decode pdmgate.yaml outside.pcap
  pdmgate decode pdmgate.yaml outside.pcapng --summary | jq 'select(.type == \"flow\")'
  tcpdump -i out0 -U -w - ip6 | pdmgate decode pdmgate.yaml -
  pdmgate decode --keylog /var/lib/pdmgate/keylog outside.pcap
  pdmgate decode --primary hq.example:8250 --primary-name hq.example --pairing branch \\
      --certificate analyst.pem --key analyst.key --authorities ca.pem outside.pcap

With --summary each flow follows as a line of its own, \"type\":\"flow\": packets, options, losses and reorderings of \
both directions, the median of each sender's own delay (server_delay_ns), of the round trip between the place of the \
capture and each sender (rtt_ns within forward and reverse), and of the whole round trip (rtt_ns)."
)]
pub struct Args {
    /// CONFIG, the configuration file of either appliance, unless --keylog or --primary is given, and CAPTURE, the
    /// capture to read, - for standard input
    #[arg(value_name = "FILES", num_args = 1..=2, required = true)]
    files: Vec<PathBuf>,
    /// Print a line for each flow behind the packets
    #[arg(long)]
    summary: bool,
    /// How many Kri to try, from the last known one on
    #[arg(long, value_name = "N", default_value_t = Windows::default().kri)]
    kri_window: u32,
    /// How many generations to try for each end: from the configured one on, or back from the registered ones
    #[arg(long, value_name = "N", default_value_t = Windows::default().generations, value_parser = clap::value_parser!(u32).range(..=1024))]
    generation_window: u32,
    /// Open registered pairings with what this keylog of a Primary holds
    #[arg(long, value_name = "FILE", conflicts_with = "primary")]
    keylog: Option<PathBuf>,
    /// Option type to look for, 2 to 31, where no configuration names it (0x0f without)
    #[arg(long, value_name = "N", value_parser = option_type)]
    option_type: Option<u8>,
    #[command(flatten)]
    primary: AskPrimary,
}

/// Whom to ask for a registered pairing's secrets, and as whom.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Asking a Primary")]
struct AskPrimary {
    /// Open a registered pairing with what its Primary at this address tells
    #[arg(long, value_name = "HOST:PORT", requires_all = ["primary_name", "pairing", "certificate", "key", "authorities"])]
    primary: Option<String>,
    /// The name in the Primary's certificate
    #[arg(long, value_name = "NAME", requires = "primary")]
    primary_name: Option<String>,
    /// The pairing, as that Primary calls it
    #[arg(long, value_name = "NAME", requires = "primary", value_parser = pairing_name)]
    pairing: Option<String>,
    /// Your certificate and its chain (PEM); its name must be among the pairing's `analyzers`
    #[arg(long, value_name = "FILE", requires = "primary")]
    certificate: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "primary")]
    key: Option<PathBuf>,
    /// The authorities that sign the Primary's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "primary")]
    authorities: Option<PathBuf>,
    /// What these have revoked (PEM)
    #[arg(long, value_name = "FILE", requires = "primary")]
    revocations: Option<PathBuf>,
}

fn option_type(text: &str) -> Result<u8, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let number = number.ok().filter(|number| (2..=31).contains(number));
    number.ok_or_else(|| "expected a number from 2 to 31".to_owned())
}

fn pairing_name(text: &str) -> Result<String, String> {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 64 letters, digits, dots, dashes and underscores".to_owned())
    }
}

impl AskPrimary {
    /// Asks the Primary; `None` if there is none to ask.
    fn ask(&self) -> Result<Option<Registered>, Failure> {
        let Self {
            primary: Some(address),
            primary_name: Some(name),
            pairing: Some(pairing),
            certificate: Some(certificate),
            key: Some(key),
            authorities: Some(authorities),
            revocations,
        } = self
        else {
            return Ok(None);
        };
        let files = TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: authorities.clone(),
            revocations: revocations.clone(),
        };
        let analysis = analyze::ask(&Question {
            address,
            name,
            pairing,
            files: &files,
        })?;
        if analysis.masters.is_empty() {
            tracing::warn!("the Primary {name} has no secret of the pairing `{pairing}` now");
        }
        let mut registered = Registered::default();
        registered.add(analysis, 0, 0);
        Ok(Some(registered))
    }
}

/// What a keylog holds.
fn keylog(path: &Path) -> Result<Registered, Failure> {
    let mut lines = keylog::read(path)?;
    lines.sort_by_key(|line| line.time);
    let mut registered = Registered::default();
    for line in lines {
        let (since, time) = (line.since, line.time);
        let (kem, aead) = (line.kem, line.aead);
        match line.into_analysis() {
            Some(analysis) => registered.add(analysis, since, time),
            None => tracing::warn!(
                "the keylog {} has a secret of a suite that is not known here (kem {kem}, aead {aead})",
                path.display()
            ),
        }
    }
    Ok(registered)
}

fn decoder(args: &Args, config: Option<&Path>) -> Result<Decoder, Failure> {
    let windows = Windows {
        kri: args.kri_window,
        generations: args.generation_window,
    };
    if let Some(config) = config {
        return Ok(Decoder::new(&Config::load(config)?, windows)?);
    }
    let registered = match &args.keylog {
        Some(path) => Some(keylog(path)?),
        None => args.primary.ask()?,
    };
    let option_type = args.option_type.unwrap_or(DEFAULT_OPTION_TYPE);
    let registered = registered.unwrap_or_default();
    Ok(Decoder::registered(registered, option_type, windows))
}

/// Prints the packets of a capture.
pub fn decode(args: &Args) -> Result<(), Failure> {
    let is_registered = args.keylog.is_some() || args.primary.primary.is_some();
    let (config, path) = match args.files.as_slice() {
        [capture] if is_registered => (None, capture),
        [config, capture] if !is_registered => (Some(config.as_path()), capture),
        [_] => {
            return Err(Failure::Usage(
                "expected CONFIG and CAPTURE, or CAPTURE with --keylog or --primary; found one file",
            ));
        }
        _ => {
            return Err(Failure::Usage(
                "expected one CAPTURE with --keylog or --primary, found two files",
            ));
        }
    };
    if config.is_some() && args.option_type.is_some() {
        return Err(Failure::Usage(
            "--option-type goes with --keylog and --primary: a configuration has policy.option_type",
        ));
    }
    let mut decoder = decoder(args, config)?;
    let mut capture = open(path).map_err(|source| Failure::Capture {
        path: path.clone(),
        source,
    })?;
    // Who pipes a capture in wants to see each packet when it comes.
    let live = is_stdin(path);
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
            tracing::warn!("{}: {error}", path.display());
            Ok(())
        }
        Some(source) => Err(Failure::Capture {
            path: path.clone(),
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
