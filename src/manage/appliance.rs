//! Starts the appliance in the order in which failures cost least, and stops it again.
//!
//! Nothing of the state file is used up before devices are open; and no worker runs before its generations are on the disk.

use super::core::{Core, Signals};
use super::links::Watched;
use super::poll::{self, Side};
use super::source::Appliance;
use crate::config::{self, Config, ConfigError};
use crate::crypto::Kernel;
use crate::dataplane::{Clock, Shared, View, Worker};
use crate::dpdk::{
    Cores, Device, DeviceError, Eal, EalConfig, EalError, Hugepages, LaunchError, OpenPort, Pool,
    PoolConfig, PoolError, Port, PortConfig, PortError, Rss,
};
use crate::flow::FlowTable;
use crate::flow::table::TableError;
use crate::registration::link::{self, CoreEnd};
use crate::registration::service::{Service, ServiceError};
use crate::snapshot::{BuildError, Inputs, Snapshot, State, StateError};
use crate::telemetry::pairing::TooManyPairings;
use crate::telemetry::server::{Listen, Server, StartError};
use crate::telemetry::{Telemetry, records};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use thiserror::Error;

/// Why the appliance does not run, or not any more.
#[derive(Debug, Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A device is named in a way that DPDK does not know.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// DPDK does not start.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// No packet buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A port does not open.
    #[error("{side} port: {source}")]
    Port {
        /// `inside` or `outside`.
        side: &'static str,
        /// Why not.
        source: PortError,
    },
    /// No flow table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// No snapshot.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// More pairings than can be counted.
    #[error(transparent)]
    Pairings(#[from] TooManyPairings),
    /// A worker does not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Nobody could ask the appliance.
    #[error(transparent)]
    Telemetry(#[from] StartError),
    /// The system has no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// Registration does not start.
    #[error(transparent)]
    Registration(#[from] ServiceError),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs the appliance that the file at `path` describes, until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`], always from the start; once it runs it ends well.
pub fn run(path: &Path) -> Result<(), RunError> {
    let config = Config::load(path)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let signals = Signals::catch().map_err(RunError::Signals)?;
    if !config.state.exists() && config.pairings.iter().any(config::Pairing::is_sealed) {
        tracing::warn!(
            "{} is made anew: if this appliance ran before with these secrets, stop and give both ends a new salt",
            config.state.display()
        );
    }
    let mut state = State::open(&config.state)?;

    let cores = cores(&config);
    let devices = [&config.ports.inside, &config.ports.outside]
        .map(|port| port.device.as_str().parse::<Device>());
    let [inside, outside] = devices;
    let (inside, outside) = (inside?, outside?);
    let pool_config = PoolConfig {
        mbufs: config.mbufs(),
        size: config.mbuf_size(),
        socket: outside.socket(),
    };
    let eal = Eal::init(&EalConfig {
        cores: cores.clone(),
        hugepages: match config.eal.hugepages {
            config::Hugepages::Auto => Hugepages::Auto,
            config::Hugepages::Require => Hugepages::Require,
            config::Hugepages::Off => Hugepages::Off,
        },
        pool: pool_config,
        devices: vec![inside.clone(), outside.clone()],
        extra_args: config.eal.extra_args.clone(),
    })?;
    let pool = Pool::create(&eal, &pool_config)?;
    let inside = open(&eal, &config, "inside", inside, &pool)?;
    let outside = open(&eal, &config, "outside", outside, &pool)?;

    let tsc_hz = eal.tsc_hz();
    let snapshot = Snapshot::build(
        &config,
        &[],
        &mut state,
        Inputs {
            previous: None,
            serial: 1,
            tsc_hz,
            new_era: false,
        },
    )?;
    let telemetry = Telemetry::new(cores.workers.len());
    let view = View::new(snapshot, &telemetry)?;
    let table = FlowTable::new(
        config.flows.capacity.get() as usize,
        [random()?, random()?],
        eal.has_hugepages(),
    )?;
    let kernel = Kernel::detect();
    tracing::info!(
        kernel = kernel.name(),
        hugepages = eal.has_hugepages(),
        flows = table.capacity(),
        tsc_hz,
        "ready to start"
    );
    let shared = Arc::new(Shared::new(
        telemetry,
        table,
        view,
        kernel,
        Clock::new(tsc_hz),
    ));

    let gauges = Arc::new(Mutex::new(records::Gauges {
        worker_cores: cores.workers.clone(),
        ..records::Gauges::default()
    }));
    let ports = [
        watched("inside", inside.port),
        watched("outside", outside.port),
    ];
    let (service, granted) = register(&config)?;
    let mut core = Core::new(
        &shared,
        config,
        path,
        state,
        granted,
        ports,
        Arc::clone(&gauges),
    );
    core.look_at_ports();
    core.keep_time();

    let stop = Arc::new(AtomicBool::new(false));
    let stop_all = Arc::clone(&stop);
    let mut workers = Vec::new();
    let queues = inside.rx.into_iter().zip(inside.tx);
    let queues = queues.zip(outside.rx.into_iter().zip(outside.tx));
    for (index, ((in_rx, in_tx), (out_rx, out_tx))) in queues.enumerate() {
        let (shared, stop, seed) = (Arc::clone(&shared), Arc::clone(&stop), random()?);
        let idle = core.idle();
        let launched = eal.launch(index, move || {
            let mut inside = Side {
                rx: in_rx,
                tx: in_tx,
            };
            let mut outside = Side {
                rx: out_rx,
                tx: out_tx,
            };
            if let Some(worker) = Worker::new(&shared, index, seed, poll::now()) {
                poll::poll(worker, &mut inside, &mut outside, idle, &stop, tsc_hz);
            }
        });
        match launched {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                stop_all.store(true, Ordering::Relaxed);
                return Err(error.into());
            }
        }
    }
    let server = Server::start(
        &core.listen(),
        Arc::new(Appliance {
            shared: Arc::clone(&shared),
            gauges,
            primary: service.as_ref().and_then(Service::primary),
            turn: Mutex::new(()),
        }),
    );
    let served = match server {
        Ok(server) => {
            tracing::info!(workers = workers.len(), "running");
            core.run(&signals);
            tracing::info!("stopping: the packets under way go on first");
            Ok(server)
        }
        Err(error) => Err(error),
    };
    stop.store(true, Ordering::Relaxed);
    for worker in &workers {
        worker.wait();
    }
    core.finish();
    drop(service);
    served?.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Starts what registers, if the configuration has such: a Primary, a Secondary's agent, or both; and the end from which the
/// management core takes what is granted.
fn register(config: &Config) -> Result<(Option<Service>, Option<CoreEnd>), RunError> {
    let (agent, granted) = match &config.secondary {
        Some(secondary) => {
            let (agent, granted) = link::link();
            (Some((secondary, agent)), Some(granted))
        }
        None => (None, None),
    };
    if config.primary.is_none() && agent.is_none() {
        return Ok((None, None));
    }
    let service = Service::start(config.primary.as_ref(), None, agent)?;
    Ok((Some(service), granted))
}

fn random() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

fn cores(config: &Config) -> Cores {
    let working = config.workers.cores.as_ref();
    let cores = Cores::choose(
        config.ports.queues.get().into(),
        config
            .management
            .core
            .as_ref()
            .map(|core| core.get().into()),
        working.map(|cores| cores.iter().map(|core| core.get().into()).collect()),
    );
    if cores.is_shared() && config.workers.idle == config::Idle::Poll {
        tracing::warn!(
            "no core is left for management, which shares core {} with a worker that leaves nothing of it: allow the process one more, or set workers.idle to pause or sleep",
            cores.management
        );
    }
    cores
}

fn open(
    eal: &Eal,
    config: &Config,
    side: &'static str,
    device: Device,
    pool: &Pool,
) -> Result<OpenPort, RunError> {
    let ports = &config.ports;
    let opened = Port::open(
        eal,
        &PortConfig {
            device,
            queues: ports.queues.get(),
            rx_descriptors: ports.rx_descriptors.get(),
            tx_descriptors: ports.tx_descriptors.get(),
            mtu: config.port_mtu(),
            promiscuous: ports.promiscuous,
            rss: match ports.rss {
                config::Rss::Addresses => Rss::Addresses,
                config::Rss::AddressesAndPorts => Rss::AddressesAndPorts,
            },
        },
        pool,
    );
    opened.map_err(|source| RunError::Port { side, source })
}

fn watched(side: &'static str, port: Port) -> Watched {
    tracing::info!(port = side, device = %port.device(), driver = port.driver(), "port is open");
    Watched::new(side, port)
}

impl Core<'_> {
    fn listen(&self) -> Listen {
        let telemetry = &self.config().telemetry;
        Listen {
            prometheus: telemetry.prometheus.map(|address| address.get()),
            socket: telemetry.socket.clone(),
        }
    }

    fn idle(&self) -> config::Idle {
        self.config().workers.idle
    }
}
