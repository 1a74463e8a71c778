//! An analyzer's side: asks a Primary for what opens a pairing's captures.

use std::{
    io,
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

use super::{
    frame::{FrameError, Reader, Writer},
    message::{Analysis, Analyze, Message, Reason, VERSION},
    name::PeerName,
    tls::{Identity, PeerError, TlsError, TlsFiles},
};

/// How long a connection and the answer may take each.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of whom.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Where the Primary listens, `host:port`.
    pub address: &'a str,
    /// The name in the Primary's certificate.
    pub name: &'a str,
    /// The pairing, as that Primary calls it.
    pub pairing: &'a str,
    /// The analyzer's certificate, and the authorities that the Primary's comes from.
    pub files: &'a TlsFiles,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AnalyzeError {
    /// Certificate, key or authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Nobody is there.
    #[error("cannot connect to the Primary at {address}: {source}")]
    Connect {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Whoever is there is not the Primary.
    #[error("no connection with the Primary at {address}: {source}")]
    Peer {
        /// The address.
        address: String,
        /// Why not.
        source: PeerError,
    },
    /// The Primary went away, which it does too if it does not trust the analyzer's certificate.
    #[error("the Primary {name} gives no answer: {source}")]
    NoAnswer {
        /// The Primary's name.
        name: String,
        /// What happened.
        source: FrameError,
    },
    /// The Primary said no.
    #[error("the Primary {name} refuses to tell {} of the pairing `{pairing}`: {}", listed(names), reason.word())]
    Refused {
        /// The Primary's name.
        name: String,
        /// The names in the analyzer's certificate.
        names: Vec<PeerName>,
        /// The pairing.
        pairing: String,
        /// Why.
        reason: Reason,
    },
    /// The Primary said something else.
    #[error("expected an analysis of `{pairing}` from the Primary {name}, found {found}")]
    Other {
        /// The Primary's name.
        name: String,
        /// The pairing.
        pairing: String,
        /// What came.
        found: String,
    },
    /// The runtime does not start.
    #[error("cannot start a runtime: {0}")]
    Runtime(#[source] io::Error),
}

fn listed(names: &[PeerName]) -> String {
    let names: Vec<&str> = names.iter().map(PeerName::as_str).collect();
    names.join(", ")
}

/// Asks, and waits for the answer.
///
/// # Errors
/// [`AnalyzeError`].
pub fn ask(question: &Question<'_>) -> Result<Analysis, AnalyzeError> {
    let identity = Identity::load(question.files)?;
    for warning in identity.warnings(SystemTime::now()) {
        tracing::warn!("{warning}");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AnalyzeError::Runtime)?
        .block_on(ask_with(question, &identity))
}

async fn ask_with(question: &Question<'_>, identity: &Identity) -> Result<Analysis, AnalyzeError> {
    let (address, name) = (question.address.to_owned(), question.name.to_owned());
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let connected = timeout(PATIENCE, TcpStream::connect(&address)).await;
    let stream = match connected.unwrap_or_else(|_| Err(late())) {
        Ok(stream) => stream,
        Err(source) => return Err(AnalyzeError::Connect { address, source }),
    };
    let stream = match identity.connect(stream, question.name).await {
        Ok(stream) => stream,
        Err(source) => return Err(AnalyzeError::Peer { address, source }),
    };
    let (reader, writer) = tokio::io::split(stream);
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    let analyze = Message::Analyze(Analyze {
        version: VERSION,
        pairing: question.pairing.to_owned(),
    });
    let answered = async {
        // A Primary that refuses the certificate may be gone before this is sent; why, its alert says, which comes with the answer.
        let _ = writer.send(&analyze).await;
        reader.next().await
    };
    let answer = timeout(PATIENCE, answered).await;
    let answer = answer.unwrap_or_else(|_| Err(FrameError::Io(late())));
    let pairing = question.pairing.to_owned();
    match answer.map(|received| received.message) {
        Ok(Message::Analysis(analysis)) if analysis.pairing == pairing => Ok(analysis),
        Ok(Message::Refused(refused)) => Err(AnalyzeError::Refused {
            name,
            names: identity.names().to_vec(),
            pairing,
            reason: refused.reason,
        }),
        Ok(other) => Err(AnalyzeError::Other {
            name,
            pairing,
            found: match other {
                Message::Analysis(other) => format!("one of `{}`", other.pairing),
                other => format!("a {}", other.kind()),
            },
        }),
        Err(source) => Err(AnalyzeError::NoAnswer { name, source }),
    }
}
