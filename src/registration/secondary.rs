//! The Secondary's agent: registers with its Primary, hands what it is given to the management core, and asks for what that lacks.
//!
//! Secrets are in memory only. A process names itself by a random *instance*, so that a broken connection that is resumed keeps its
//! generations, and a restart gets new ones (protocol section 4). While the Primary is away, traffic goes on with the keys at hand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{interval, sleep},
};

use super::{
    backoff::Backoff,
    certificate::Certificate,
    frame::{FrameError, Reader, Writer},
    link::{AgentEnd, Want},
    message::{Ack, Message, NewGenerations, Ping, Poll, PollKey, Pong, Reason, Register, VERSION},
    primary::Primary,
    pulse::{Pulse, Silent},
};
use crate::{
    config::Prefix,
    crypto::PairDeviceKey,
    snapshot::{
        Fingerprint,
        grant::{Grant, GrantedMaster, Material},
    },
};

const TICK: Duration = Duration::from_millis(250);
/// How long somebody who was revoked waits before asking again.
const REVOKED: Duration = Duration::from_secs(60);
/// Bytes between an embedded Primary and its Secondary.
const PIPE: usize = 64 << 10;

/// The way to the Primary.
pub enum Via {
    /// In the same process.
    Embedded {
        /// The Primary.
        primary: Arc<Primary>,
        /// The name under which it knows this Secondary.
        name: String,
    },
    /// Over TLS.
    Remote {
        /// `host:port`, tried in turn.
        addresses: Vec<String>,
        /// The name in the Primary's certificate.
        name: String,
        /// Our certificate.
        certificate: Box<Certificate>,
    },
}

/// Why a session ended.
enum End {
    Gone(String),
    Refused(Reason),
    /// Nobody wants grants any more.
    CoreGone,
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::Gone(error.to_string())
    }
}

impl From<Silent> for End {
    fn from(silent: Silent) -> Self {
        Self::Gone(silent.to_string())
    }
}

/// What a key of AsymmetricPoll belongs to.
type Pair = (String, Fingerprint, Prefix, Prefix);

/// The agent.
pub struct Agent {
    entries: Vec<Prefix>,
    instance: [u8; 16],
    link: AgentEnd,
    applied: watch::Receiver<u64>,
    /// The newest set that was handed on.
    serial: u64,
    grants: Vec<Arc<Grant>>,
    /// Keys that were asked for.
    keys: BTreeMap<Pair, PairDeviceKey>,
}

impl Agent {
    /// An agent for these entries. Fails if the system has no random numbers.
    ///
    /// # Errors
    /// [`getrandom::Error`].
    pub fn new(entries: Vec<Prefix>, link: AgentEnd) -> Result<Self, getrandom::Error> {
        let mut instance = [0; 16];
        getrandom::fill(&mut instance)?;
        Ok(Self {
            entries,
            instance,
            applied: link.applied(),
            link,
            serial: 0,
            grants: Vec::new(),
            keys: BTreeMap::new(),
        })
    }

    /// Registers, and again whenever the connection breaks, until the core is gone.
    pub async fn run(mut self, via: Via) {
        let mut backoff = Backoff::new(match &via {
            Via::Embedded { .. } => 1,
            Via::Remote { addresses, .. } => addresses.len(),
        });
        let mut turn = 0;
        loop {
            let began = Instant::now();
            let end = match &via {
                Via::Embedded { primary, name } => {
                    let (ours, theirs) = tokio::io::duplex(PIPE);
                    primary.embed(name.clone(), theirs);
                    self.session(ours).await
                }
                Via::Remote {
                    addresses,
                    name,
                    certificate,
                } => {
                    let address = addresses.get(turn % addresses.len().max(1));
                    turn += 1;
                    match address {
                        Some(address) => self.remote(address, name, certificate).await,
                        None => return,
                    }
                }
            };
            let why = match end {
                End::CoreGone => return,
                End::Refused(Reason::Revoked) => {
                    tracing::error!(
                        "the Primary revoked this Secondary: nothing is marked any more"
                    );
                    self.hand_on(Vec::new());
                    sleep(REVOKED).await;
                    continue;
                }
                End::Refused(reason) => format!("it refused: {}", reason.word()),
                End::Gone(why) => why,
            };
            let wait = backoff.next(began.elapsed());
            tracing::warn!(
                grants = self.grants.len(),
                "no connection to the Primary, again in {:.1} s: {why}",
                wait.as_secs_f32()
            );
            sleep(wait).await;
        }
    }

    async fn remote(&mut self, address: &str, name: &str, certificate: &Certificate) -> End {
        for warning in certificate.current().warnings(SystemTime::now()) {
            tracing::warn!("{warning}");
        }
        let (stream, expires) = match certificate.connect(address, name).await {
            Ok(connected) => connected,
            Err(why) => return End::Gone(format!("{address}: {why}")),
        };
        tokio::select! {
            end = self.session(stream) => end,
            () = super::primary::until(expires) => End::Gone("the Primary's certificate ended".to_owned()),
        }
    }

    async fn session<S: AsyncRead + AsyncWrite>(&mut self, stream: S) -> End {
        let (reader, writer) = tokio::io::split(stream);
        let Err(end) = self.serve(Reader::new(reader), Writer::new(writer)).await;
        end
    }

    async fn serve<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        mut reader: Reader<R>,
        mut writer: Writer<W>,
    ) -> Result<std::convert::Infallible, End> {
        let register = Register {
            version: VERSION,
            instance: self.instance,
            entries: self.entries.clone(),
        };
        writer.send(&Message::Register(register)).await?;
        // Sets that workers do not see yet, with the shares that they came from.
        let mut unseen = VecDeque::<(u64, u64)>::new();
        let mut pulse = Pulse::new();
        let mut is_served = false;
        let mut tick = interval(TICK);
        loop {
            let applied = *self.applied.borrow_and_update();
            while let Some((_, share)) = unseen.pop_front_if(|(serial, _)| *serial <= applied) {
                writer.send(&Message::Ack(Ack { serial: share })).await?;
            }
            // Nothing is asked before the first share.
            if pulse.asks(reader.is_within_frame())? && is_served {
                writer.send(&Message::Ping(Ping { number: 0 })).await?;
            }
            tokio::select! {
                received = reader.next() => {
                    let received = received?;
                    pulse.heard();
                    match received.message {
                        Message::Share(share) => {
                            is_served = true;
                            let serial = self.hand_on(share.grants);
                            unseen.push_back((serial, share.serial));
                        }
                        Message::PollKey(key) => self.take_key(key),
                        Message::Ping(Ping { number }) => {
                            writer.send(&Message::Pong(Pong { number })).await?;
                        }
                        Message::Pong(_) if pulse.answered() => {}
                        Message::Refused(refused) => return Err(End::Refused(refused.reason)),
                        other => return Err(End::Gone(format!("a {} has no place here", other.kind()))),
                    }
                }
                want = self.link.wanted() => {
                    let message = match want {
                        None => return Err(End::CoreGone),
                        Some(Want::NewGenerations) => Message::NewGenerations(NewGenerations),
                        Some(Want::PairKey { pairing, master, own, peer }) => {
                            Message::Poll(Poll { pairing, master, own, peer })
                        }
                    };
                    writer.send(&message).await?;
                }
                changed = self.applied.changed() => if changed.is_err() {
                    return Err(End::CoreGone);
                },
                _ = tick.tick() => {}
            }
        }
    }

    /// Hands a whole set on, with the keys that were asked for; its serial.
    fn hand_on(&mut self, grants: Vec<Grant>) -> u64 {
        self.grants = grants.into_iter().map(Arc::new).collect();
        // Keys of secrets that are gone are of no use.
        let grants = &self.grants;
        self.keys.retain(|(pairing, master, ..), _| {
            let mut of_pairing = grants.iter().filter(|grant| grant.pairing == *pairing);
            of_pairing.any(|grant| grant.masters.iter().any(|known| known.id == *master))
        });
        self.publish()
    }

    fn take_key(&mut self, key: PollKey) {
        let Poll {
            pairing,
            master,
            own,
            peer,
        } = key.poll;
        self.keys.insert((pairing, master, own, peer), key.key);
        self.publish();
    }

    fn publish(&mut self) -> u64 {
        self.serial += 1;
        let grants = self.grants.iter();
        let grants = grants.map(|grant| {
            self.with_keys(grant)
                .map_or_else(|| Arc::clone(grant), Arc::new)
        });
        self.link.publish(self.serial, grants.collect());
        self.serial
    }

    /// A grant with the keys that were asked for; `None` if none were.
    fn with_keys(&self, grant: &Grant) -> Option<Grant> {
        self.keys
            .keys()
            .find(|(pairing, ..)| *pairing == grant.pairing)?;
        let masters = grant.masters.iter().map(|master| {
            let material = master
                .material
                .iter()
                .zip(&grant.own)
                .map(|(material, own)| {
                    let Material::PairKeys(given) = material else {
                        return None;
                    };
                    let given = given.iter().map(|(peer, key)| (*peer, copy(key)));
                    let polled = self.keys.iter().filter(|((pairing, id, entry, _), _)| {
                        *pairing == grant.pairing && *id == master.id && *entry == own.prefix
                    });
                    let polled = polled.map(|((.., peer), key)| (*peer, copy(key)));
                    Some(Material::PairKeys(given.chain(polled).collect()))
                });
            Some(GrantedMaster {
                id: master.id,
                sealing: master.sealing,
                material: material.collect::<Option<Vec<_>>>()?,
            })
        });
        Some(Grant {
            pairing: grant.pairing.clone(),
            mode: grant.mode,
            protection: grant.protection,
            suite: grant.suite,
            role: grant.role,
            clients: grant.clients.clone(),
            servers: grant.servers.clone(),
            own: grant.own.clone(),
            masters: masters.collect::<Option<Vec<_>>>()?,
        })
    }
}

fn copy(key: &PairDeviceKey) -> PairDeviceKey {
    PairDeviceKey::from_bytes(*key.expose())
}
