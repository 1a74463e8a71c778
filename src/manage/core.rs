//! The management core: everything that is not a packet, a few milliseconds at a time.

use super::links::Watched;
use super::poll::now;
use super::registered::Registered;
use crate::config::Config;
use crate::dataplane::{Shared, View};
use crate::flow::{Ageing, Publisher, Reader};
use crate::registration::link::CoreEnd;
use crate::snapshot::{BuildError, Fingerprint, Grant, Inputs, Lesson, Pairing, Snapshot, State};
use crate::telemetry::pairing::TooManyPairings;
use crate::telemetry::{Gauges, PairingCounter};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use thiserror::Error;

const TICK: Duration = Duration::from_millis(2);
/// Entries that ageing looks at in a tick: a table of a million in a second.
const AGEING_BATCH: usize = 2_048;
const PORTS_EVERY: Duration = Duration::from_millis(200);
const LESSONS_EVERY: Duration = Duration::from_millis(50);
const FAILURES_EVERY: Duration = Duration::from_secs(5);
/// Least time between two eras that too high floors ask for, and two that peers ask for who cannot be opened
/// (`resync_interval`, protocol section 4).
const ERA_EVERY: Duration = Duration::from_secs(60);
const HEAL_EVERY: Duration = Duration::from_secs(30);
/// Least time between two eras where flows begin near the end of the peers' windows already.
const ERA_IN_NEED: Duration = Duration::from_secs(5);
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// Time after which a snapshot that could not be made is tried again.
const AGAIN_EVERY: Duration = Duration::from_secs(5);
/// Options of a pairing that have to fail in a second for half of them failing to ask for healing.
const HEALTH_SAMPLE: u64 = 100;

/// Signals that have come.
pub(super) struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    pub fn catch() -> io::Result<Self> {
        let signals = Self {
            stop: Arc::default(),
            reload: Arc::default(),
        };
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&signals.stop))?;
        }
        signal_hook::flag::register(SIGHUP, Arc::clone(&signals.reload))?;
        Ok(signals)
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a reload was asked for since the last look.
    pub fn is_reload_wanted(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}

/// Does something at most once in a while.
struct Every {
    period: Duration,
    last: Instant,
}

impl Every {
    fn new(period: Duration) -> Self {
        Self {
            period,
            last: Instant::now(),
        }
    }

    /// Is due at once.
    fn long_ago(period: Duration) -> Self {
        let now = Instant::now();
        Self {
            period,
            last: now.checked_sub(period).unwrap_or(now),
        }
    }

    fn is_due(&mut self) -> bool {
        self.is_due_after(self.period)
    }

    fn is_due_after(&mut self, period: Duration) -> bool {
        let due = self.last.elapsed() >= period;
        if due {
            self.last = Instant::now();
        }
        due
    }
}

/// Why there is no new view.
#[derive(Debug, Error)]
enum NoView {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Pairings(#[from] TooManyPairings),
}

/// Which pairings' peers cannot be opened.
#[derive(Clone, Copy, Default)]
struct Ill {
    fixed: bool,
    registered: bool,
}

/// The management core's own things.
pub(super) struct Core<'s> {
    shared: &'s Shared,
    publisher: Publisher<'s, View>,
    reader: Option<Reader<'s>>,
    ageing: Ageing<'s>,
    config: Config,
    /// The MTU that the ports were opened with.
    port_mtu: u16,
    path: PathBuf,
    state: State,
    registered: Registered,
    /// Whether there is news of registered pairings that no snapshot has.
    stale: bool,
    ports: [Watched; 2],
    gauges: Arc<Mutex<Gauges>>,
    started: Instant,
    /// Failures of each pairing that were logged already, by name.
    logged: Vec<(String, u64, u64)>,
    /// Opened, failed and stuck of each pairing a second ago, by name.
    health: BTreeMap<String, [u64; 3]>,
    /// What was sealed for static pairings before their generations were last raised.
    sealed_before: u64,
}

impl<'s> Core<'s> {
    pub fn new(
        shared: &'s Shared,
        config: Config,
        path: &Path,
        state: State,
        registered: Option<CoreEnd>,
        ports: [Watched; 2],
        gauges: Arc<Mutex<Gauges>>,
    ) -> Self {
        Self {
            shared,
            publisher: Publisher::new(&shared.view),
            reader: shared.quiescence.reader(shared.management_reader()),
            ageing: Ageing::new(&shared.table),
            port_mtu: config.port_mtu(),
            config,
            path: path.to_owned(),
            state,
            registered: Registered::new(registered),
            stale: false,
            ports,
            gauges,
            started: Instant::now(),
            logged: Vec::new(),
            health: BTreeMap::new(),
            sealed_before: 0,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Looks after the appliance until it is told to stop.
    pub fn run(&mut self, signals: &Signals) {
        self.keep_time();
        let mut ports = Every::new(PORTS_EVERY);
        let mut lessons = Every::new(LESSONS_EVERY);
        let mut failures = Every::new(FAILURES_EVERY);
        let mut era = Every::long_ago(ERA_EVERY);
        let mut health = Every::new(HEALTH_EVERY);
        let mut ill = Ill::default();
        let mut heal = Every::long_ago(HEAL_EVERY);
        let mut heal_registered = Every::long_ago(HEAL_EVERY);
        let mut again = Every::long_ago(AGAIN_EVERY);
        while !signals.is_stopped() {
            self.keep_time();
            self.age();
            self.look_after_registered(&mut again);
            if signals.is_reload_wanted() {
                self.reload();
            }
            if lessons.is_due() {
                self.learn();
            }
            if ports.is_due() {
                self.look_at_ports();
            }
            if failures.is_due() {
                self.log_failures();
            }
            if let Some(pause) = self.floors_climb()
                && era.is_due_after(pause)
            {
                if self.begin_era() {
                    tracing::info!(
                        "many flows began: all move to a new generation of this appliance"
                    );
                }
                if heal_registered.is_due() {
                    self.ask_for_generations();
                }
            }
            if health.is_due() {
                ill = self.ill(ill);
                // A peer that was told nothing under this generation need not look for another.
                if ill.fixed && self.has_sealed() && heal.is_due() {
                    tracing::warn!(
                        "a peer's options do not open: this appliance begins a new generation"
                    );
                    ill.fixed = !self.begin_era();
                }
                let is_needed = self.publisher.current().snapshot.needs_generations();
                if (ill.registered || is_needed) && heal_registered.is_due() {
                    ill.registered = false;
                    tracing::warn!(
                        "a registered peer's options do not open, or none may be sealed: the Primary is asked for new generations"
                    );
                    self.ask_for_generations();
                }
            }
            std::thread::sleep(TICK);
        }
    }

    /// Puts what was granted or computed in force, and tells when it is.
    fn look_after_registered(&mut self, again: &mut Every) {
        self.stale |= self.registered.take();
        let snapshot = &self.publisher.current().snapshot;
        self.registered.notes(snapshot, &self.shared.awaited);
        self.stale |= self.registered.compute(snapshot, &mut self.state);
        if self.stale && again.is_due() {
            self.republish(false);
        }
        if !self.stale {
            *again = Every::long_ago(AGAIN_EVERY);
        }
        if self.publisher.collect(&self.shared.quiescence) && !self.stale {
            self.registered.seen(&self.publisher.current().snapshot);
        }
    }

    pub fn keep_time(&self) {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() as u32);
        self.shared.unix_time.store(unix, Ordering::Relaxed);
    }

    fn age(&mut self) {
        let idle = self.publisher.current().snapshot.policy.idle_cycles;
        if let Some(reader) = &mut self.reader {
            let pin = reader.pin();
            self.ageing.step(&pin, now(), idle, AGEING_BATCH);
        }
        if let Some(reader) = &mut self.reader {
            reader.rest();
        }
    }

    pub fn look_at_ports(&mut self) {
        let ports = self.ports.each_mut().map(Watched::look).into();
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.ports = ports;
        gauges.uptime_s = self.started.elapsed().as_secs_f64();
    }

    /// Writes down what workers heard of peers' generations, and has it used.
    fn learn(&mut self) {
        let lessons: Vec<Lesson> = self.publisher.current().snapshot.lessons().collect();
        match self.state.learn(&lessons) {
            Ok(false) => {}
            Ok(true) => {
                tracing::debug!("something new was heard of a peer's generations");
                self.republish(false);
            }
            Err(error) => tracing::error!("cannot keep what was heard of peers: {error}"),
        }
    }

    /// Whether the options of a pairing keep failing to open: a flow for long, or half of them in the last second. Then a
    /// sender is somewhere where this receiver does not look, and a new generation lets both start over. `before` is what was so a
    /// second ago and could not be healed yet.
    fn ill(&mut self, before: Ill) -> Ill {
        let snapshot = &self.publisher.current().snapshot;
        let mut ill = Ill::default();
        for stats in self.shared.telemetry.pairings.all() {
            let now = [
                PairingCounter::Opened,
                PairingCounter::Failed,
                PairingCounter::Stuck,
            ]
            .map(|counter| stats.get(counter));
            let last = self
                .health
                .insert(stats.name().to_owned(), now)
                .unwrap_or(now);
            let since = std::array::from_fn(|n| now[n].wrapping_sub(last[n]));
            let named = |pairing: &&Pairing| pairing.name == stats.name();
            match snapshot.pairings.iter().find(named) {
                Some(pairing) if pairing.is_registered() => {
                    ill.registered |= is_ill(before.registered, since);
                }
                Some(_) => ill.fixed |= is_ill(before.fixed, since),
                None => {}
            }
        }
        ill
    }

    /// How long after an era the next one may begin, if one is to, since flows that begin have to begin too high: a peer looks for them up to
    /// its window, which is as wide as ours for all that is known.
    fn floors_climb(&self) -> Option<Duration> {
        let snapshot = &self.publisher.current().snapshot;
        let window = snapshot.policy.kri_window;
        let eras = snapshot.pairings.iter().map(|pairing| pairing.era);
        let level = eras.map(|era| self.shared.table.floors.level(era)).max()?;
        if level > window - window / 4 {
            Some(ERA_IN_NEED)
        } else {
            (level > window / 2).then_some(ERA_EVERY)
        }
    }

    /// Starts the flows of static pairings over at Kri 0 under a new generation, since flows that begin have to begin too high. Whether that
    /// could be. Those of registered pairings follow when the Primary has given new generations.
    fn begin_era(&mut self) -> bool {
        // The cells of the next era are those of the one before this, which nobody may see or count in any more.
        let gone = self.publisher.collect(&self.shared.quiescence);
        let may_begin = gone && !self.publisher.current().snapshot.has_stragglers();
        let began = may_begin && self.republish(true);
        if began {
            self.sealed_before = self.sealed();
        }
        began
    }

    fn ask_for_generations(&mut self) {
        let snapshot = &self.publisher.current().snapshot;
        self.registered.ask_for_generations(snapshot);
    }

    /// Whether anything was sealed for static pairings since their generations were raised by the last era.
    fn has_sealed(&self) -> bool {
        self.sealed() != self.sealed_before
    }

    /// Options that were given to packets of static pairings.
    fn sealed(&self) -> u64 {
        let view = self.publisher.current();
        let pairings = view.snapshot.pairings.iter().zip(&view.stats);
        pairings
            .filter(|(pairing, _)| !pairing.is_registered())
            .map(|(_, stats)| stats.get(PairingCounter::Marked))
            .sum()
    }

    /// Reads lists and policy again.
    fn reload(&mut self) {
        let mut config = match Config::load(&self.path) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("the configuration cannot be used and changes nothing:\n{error}");
                return;
            }
        };
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        if fixed(&config) != fixed(&self.config) {
            tracing::warn!(
                "ports, workers, management, eal, flows.capacity, state, telemetry, primary and secondary change with a restart only"
            );
        }
        if let Some(wanted) = config.policy.cap_mtu(self.port_mtu) {
            tracing::warn!(
                "policy.mtu is {} until a restart: the ports were opened with it and take no packet of {wanted} bytes",
                self.port_mtu
            );
        }
        let before = std::mem::replace(&mut self.config, config);
        if self.republish(false) {
            tracing::info!(
                pairings = self.config.pairings.len(),
                "the configuration was read again"
            );
        } else {
            self.config = before;
        }
    }

    /// Puts a snapshot of configuration, state and grants in force; false, with the reason logged, if there cannot be one.
    fn republish(&mut self, new_era: bool) -> bool {
        let view = match self.view(self.registered.grants().to_vec(), new_era) {
            Err(NoView::Pairings(_)) if !self.registered.grants().is_empty() => {
                // Pairings that go still hold places that others come for. What was revoked goes first; the rest follows.
                let current = &self.publisher.current().snapshot;
                let known =
                    |grant: &Arc<Grant>| current.pairings.iter().any(|p| p.name == grant.pairing);
                let mut grants = self.registered.grants().to_vec();
                grants.retain(known);
                self.stale = true;
                self.view(grants, new_era).map(|view| (view, false))
            }
            view => view.map(|view| (view, true)),
        };
        let (view, complete) = match view {
            Ok(view) => view,
            Err(error) => {
                tracing::error!("lists and secrets stay as they were: {error}");
                return false;
            }
        };
        if new_era {
            self.shared.table.floors.prepare(view.snapshot.era);
        }
        self.publisher
            .publish(Box::new(view), &self.shared.quiescence);
        if complete {
            self.stale = false;
            self.registered.in_force(&self.publisher.current().snapshot);
        }
        true
    }

    fn view(&mut self, grants: Vec<Arc<Grant>>, new_era: bool) -> Result<View, NoView> {
        let current = &self.publisher.current().snapshot;
        let inputs = Inputs {
            previous: Some(current),
            serial: current.serial.wrapping_add(1).max(1),
            tsc_hz: self.shared.clock.hz(),
            new_era,
        };
        let snapshot = Snapshot::build(&self.config, &grants, &mut self.state, inputs)?;
        Ok(View::new(snapshot, &self.shared.telemetry)?)
    }

    /// Tells of options that did not open, a line a pairing and period.
    fn log_failures(&mut self) {
        if !self.publisher.current().snapshot.policy.log_failures {
            return;
        }
        for stats in self.shared.telemetry.pairings.all() {
            let failed = stats.get(PairingCounter::Failed);
            let replayed = stats.get(PairingCounter::Replayed);
            let at = self.logged.iter().position(|l| l.0 == stats.name());
            let before = at
                .and_then(|at| self.logged.get(at))
                .map_or((0, 0), |l| (l.1, l.2));
            if (failed, replayed) == before {
                continue;
            }
            tracing::warn!(
                pairing = stats.name(),
                failed = failed.wrapping_sub(before.0),
                replayed = replayed.wrapping_sub(before.1),
                "options did not open in the last {} s",
                FAILURES_EVERY.as_secs()
            );
            let now = (stats.name().to_owned(), failed, replayed);
            match at.and_then(|at| self.logged.get_mut(at)) {
                Some(line) => *line = now,
                None => self.logged.push(now),
            }
        }
    }

    /// After the last worker stopped: gives back generations under which nothing was sealed and nothing opened, which could be replayed
    /// otherwise, and keeps what was heard.
    pub fn finish(&mut self) {
        self.log_failures();
        let view = self.publisher.current();
        let unused: Vec<Fingerprint> = view
            .snapshot
            .pairings
            .iter()
            .zip(&view.stats)
            .filter(|(_, stats)| {
                let used = [PairingCounter::Marked, PairingCounter::Opened];
                used.iter().all(|counter| stats.get(*counter) == 0)
            })
            .filter_map(|(pairing, _)| pairing.fingerprint())
            .collect();
        let lessons: Vec<Lesson> = view.snapshot.lessons().collect();
        let kept = self
            .state
            .learn(&lessons)
            .and_then(|_| self.state.mark_unused(&unused));
        if let Err(error) = kept {
            tracing::warn!("the state file keeps what it had before the end: {error}");
        }
    }
}

/// Whether a pairing is to be healed that in a second had so many options opened, failed, and flows stuck. One that was ill and not healed
/// is so until nothing fails: a flow that is stuck says so but once in a thousand options.
fn is_ill(was: bool, [opened, failed, stuck]: [u64; 3]) -> bool {
    stuck > 0 || (failed >= HEALTH_SAMPLE && failed >= opened) || (was && failed > 0)
}

/// What only a restart changes, as text to compare. None of it is secret.
fn fixed(config: &Config) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        config.ports,
        config.workers,
        config.management,
        config.eal,
        config.flows.capacity,
        config.state,
        config.telemetry,
        config.primary,
        config.secondary
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ill_and_not_healed_is_ill_until_nothing_fails() {
        for (was, since, is) in [
            (false, [0, 99, 0], false),
            (false, [0, 100, 0], true),
            (false, [100, 100, 0], true),
            (false, [101, 100, 0], false),
            (false, [9_999, 1, 1], true),
            (true, [9_999, 1, 0], true),
            (true, [9_999, 0, 0], false),
        ] {
            assert_eq!(is_ill(was, since), is, "{was} {since:?}");
        }
    }

    const PORTS: &str =
        "ports: { inside: { device: net_null0 }, outside: { device: net_null1 }, queues: 2 }\n";

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("gate.yaml")).expect("a valid configuration")
    }

    #[test]
    fn lines_that_move_change_nothing_fixed() {
        let text = format!("{PORTS}workers: {{ cores: [1, 2] }}\n");
        let moved = config(&format!("# A comment.\n{text}"));
        assert_eq!(fixed(&moved), fixed(&config(&text)));
        assert_ne!(fixed(&moved), fixed(&config(PORTS)));
    }

    #[test]
    fn a_reload_lowers_the_mtu_and_raises_it_no_further_than_the_ports() {
        let of = |mtu: u16| config(&format!("{PORTS}policy: {{ mtu: {mtu} }}\n"));
        let opened = of(1400).port_mtu();
        for (wanted, used, refused) in [
            (1300, 1300, None),
            (1500, 1500, None),
            (9000, 1500, Some(9000)),
        ] {
            let mut policy = of(wanted).policy;
            let more = policy.cap_mtu(opened);
            assert_eq!((policy.mtu.get(), more), (used, refused));
        }
    }
}
