//! Secondaries of registered pairings: data planes that take what a small Primary gives, and a witness that holds its PRKs.

use super::super::Shared;
use super::lab::{Gate, boot_with};
use super::tuple;
use crate::config::Config;
use crate::crypto::{Aead, Kernel, OpenJob, SessionInfo, SharedSecret};
use crate::snapshot::tests::primary::{Primary, prefix};
use crate::snapshot::{Grant, Role, Snapshot, Source, State};
use crate::wire::FiveTuple;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

pub const CLIENT: &str = "2001:db8:1::/64";
pub const WEB: &str = "2001:db8:2::/64";

/// A configuration without pairings of its own.
pub fn bare(policy: &str) -> Config {
    let text = format!(
        "ports: {{ inside: {{ device: net_null0 }}, outside: {{ device: net_null1 }} }}\n\
         policy: {policy}\nrotation: {{ packets: 300 }}\nflows: {{ capacity: 1024, idle_timeout: 1s }}\n"
    );
    Config::parse(&text, Path::new("lab.yaml")).unwrap()
}

/// One Secondary, from its start until it forgets everything.
pub struct Secondary {
    pub gate: Gate<'static>,
    pub role: Role,
    pub own: Vec<(&'static str, u32)>,
    config: Config,
    state: State,
    grants: Vec<Arc<Grant>>,
}

impl Secondary {
    /// Starts with a grant in force.
    pub fn new(primary: &Primary, role: Role, own: &[(&'static str, u32)]) -> Self {
        Self::with_policy(primary, role, own, "{}")
    }

    pub fn with_policy(
        primary: &Primary,
        role: Role,
        own: &[(&'static str, u32)],
        policy: &str,
    ) -> Self {
        let (config, mut state) = (bare(policy), State::in_memory());
        let grants = vec![primary.grant(role, own)];
        let shared: &'static Shared = Box::leak(Box::new(boot_with(&config, &grants, &mut state)));
        Self {
            gate: Gate::new(shared),
            role,
            own: own.to_vec(),
            config,
            state,
            grants,
        }
    }

    pub fn client(primary: &Primary) -> Self {
        Self::new(primary, Role::Client, &[(CLIENT, 1)])
    }

    pub fn server(primary: &Primary) -> Self {
        Self::new(primary, Role::Server, &[(WEB, 1)])
    }

    /// Takes what the Primary gives it now.
    pub fn update(&mut self, primary: &Primary) {
        let grant = primary.grant(self.role, &self.own);
        self.set(vec![grant]);
    }

    pub fn set(&mut self, grants: Vec<Arc<Grant>>) {
        self.grants = grants;
        self.publish(false);
    }

    fn publish(&mut self, new_era: bool) {
        self.gate
            .publish(&self.config, &self.grants, &mut self.state, new_era);
    }

    /// What the core does when floors climb; false while it has to wait.
    pub fn begin_era(&mut self, now: u64) -> bool {
        self.gate.workers.iter_mut().for_each(|w| w.quiesce());
        if !self.gate.collect(now) || self.gate.snapshot().has_stragglers() {
            return false;
        }
        let next = self.gate.snapshot().era + 1;
        self.gate.shared.table.floors.prepare(next);
        self.gate
            .publish(&self.config, &self.grants, &mut self.state, true);
        true
    }

    /// Sees to the secrets that workers lack, as the core does; whether there were any.
    pub fn fetch(&mut self, primary: &mut Primary) -> bool {
        let mut any = false;
        while let Some(awaited) = self.gate.shared.awaited.pop() {
            let snapshot = self.gate.snapshot();
            let Some((_, pair, source)) = snapshot.wanted(&awaited) else {
                continue;
            };
            any = true;
            match source {
                Source::Primary => {
                    let pair = (pair.own.prefix, pair.peer.prefix);
                    primary.pairs.retain(|known| *known != pair);
                    primary.pairs.push(pair);
                }
                Source::Computed => {
                    let secret = snapshot.compute(&pair).unwrap().unwrap();
                    self.state.keep_pair(pair, secret);
                }
            }
        }
        if any {
            self.update(primary);
        }
        any
    }

    /// The same for one whom no Primary gives anything more.
    pub fn fetch_own(&mut self) {
        while let Some(awaited) = self.gate.shared.awaited.pop() {
            let snapshot = self.gate.snapshot();
            if let Some((_, pair, Source::Computed)) = snapshot.wanted(&awaited) {
                let secret = snapshot.compute(&pair).unwrap().unwrap();
                self.state.keep_pair(pair, secret);
            }
        }
        self.publish(false);
    }

    /// Has the secrets ready that a new PairMasterSecret needs, as the core does before it tells that it holds it.
    pub fn catch_up(&mut self, primary: &mut Primary) {
        for awaited in self.gate.snapshot().behind() {
            let _ = self.gate.shared.awaited.push(awaited);
        }
        self.fetch(primary);
    }

    pub fn snapshot(&self) -> &Snapshot {
        self.gate.snapshot()
    }
}

/// A PRK, counted from the first, and the client's entry.
type SecretName = (usize, &'static str);

/// Opens what was on the wire with the Primary's PRKs, apart from any snapshot, and remembers every (key, nonce).
pub struct Witness {
    used: HashSet<([u8; 32], u16)>,
    /// By PRK, counted from the first, and client's entry.
    secrets: HashMap<SecretName, SharedSecret>,
    /// Per direction of a flow: the PRK, counted from the first, with the client's entry; both generations, Kri.
    last: HashMap<FiveTuple, (SecretName, u32, u32, u32)>,
    pub sealed: u64,
    /// What the client's entry may be.
    pub clients: Vec<&'static str>,
}

impl Witness {
    pub fn new() -> Self {
        Self {
            used: HashSet::new(),
            secrets: HashMap::new(),
            last: HashMap::new(),
            sealed: 0,
            clients: vec![CLIENT],
        }
    }

    /// Looks at packets of the lab's flows, generations being at most `newest`.
    pub fn watch(&mut self, primary: &Primary, log: &[Vec<u8>], newest: u32) {
        let kernel = Kernel::detect();
        for packet in log {
            let Ok(crate::wire::Parsed::Packet(p)) = crate::wire::parse(packet, 0x0f) else {
                panic!("the appliance sent something malformed");
            };
            let Some(option) = p.option else { continue };
            let sealed: &[u8; 36] = packet[usize::from(option.at)..].first_chunk().unwrap();
            let prseq = u16::from_be_bytes([sealed[4], sealed[5]]) >> 1;
            let key = self
                .find(primary, &kernel, &p.tuple, sealed, newest)
                .expect("no key of the schedule opens what the appliance sealed");
            self.sealed += 1;
            assert!(
                self.used.insert((key, prseq)),
                "a (key, nonce) pair came twice: {:?} {prseq}",
                self.last.get(&p.tuple)
            );
        }
    }

    fn find(
        &mut self,
        primary: &Primary,
        kernel: &Kernel,
        tuple: &FiveTuple,
        sealed: &[u8; 36],
        newest: u32,
    ) -> Option<[u8; 32]> {
        let all = primary.prks.len();
        for (prk, secret) in primary.prks.iter().rev().enumerate() {
            for client in &self.clients {
                let shared = || primary.shared_secret(secret, &prefix(client), &prefix(WEB));
                self.secrets.entry((prk, client)).or_insert_with(shared);
            }
        }
        let attempt = |secret: (usize, &'static str), src_generation, dst_generation, kri| {
            let secret = self.secrets.get(&secret)?;
            let info = SessionInfo {
                tuple,
                src_generation,
                dst_generation,
                kri,
            };
            let key = secret.session_key(&primary.suite, &info);
            let mut jobs = [OpenJob::new(&key, sealed)];
            kernel.open(Aead::Aes128Gcm, &mut jobs);
            jobs[0].opened.metrics().map(|_| *key.key())
        };
        let f = u32::from(sealed[5] & 1);
        let last = self.last.get(tuple).copied();
        if let Some((prk, src, dst, kri)) = last {
            for kri in (kri..kri + 4).filter(|kri| kri & 1 == f) {
                if let Some(key) = attempt(prk, src, dst, kri) {
                    self.last.insert(*tuple, (prk, src, dst, kri));
                    return Some(key);
                }
            }
        }
        let from = last.map_or(0, |last| last.0.0);
        let secrets = (from..all.min(from + 8))
            .flat_map(|prk| self.clients.iter().map(move |client| (prk, *client)));
        for prk in secrets {
            for dst in (1..=newest).rev() {
                for src in (1..=newest).rev() {
                    for kri in (0..24).filter(|kri| kri & 1 == f) {
                        if let Some(key) = attempt(prk, src, dst, kri) {
                            self.last.insert(*tuple, (prk, src, dst, kri));
                            return Some(key);
                        }
                    }
                }
            }
        }
        None
    }
}

/// The lab's flow, for those who only need one.
pub fn flow() -> FiveTuple {
    tuple(0)
}
