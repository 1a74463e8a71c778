//! DPDK in the harness's own process: EAL starts once in one, so each part that needs it is a process of its own.

use crate::bench::{HARNESS_CORE, Result};
use pdmgate::dpdk::{
    Cores, Eal, EalConfig, Hugepages, OpenPort, Pool, PoolConfig, Port, PortConfig, Rss,
};

/// EAL with a pool.
pub struct Rig {
    pub eal: Eal,
    pub pool: Pool,
}

impl Rig {
    /// The calling thread goes on on the harness's core; `workers` are cores of their own.
    pub fn start(workers: &[usize], mbufs: u32) -> Result<Self> {
        let pool = PoolConfig {
            mbufs,
            size: 2048,
            socket: None,
        };
        let eal = Eal::init(&EalConfig {
            cores: Cores {
                management: HARNESS_CORE,
                workers: workers.to_vec(),
            },
            hugepages: Hugepages::Require,
            pool,
            devices: Vec::new(),
            extra_args: Vec::new(),
        })?;
        let pool = Pool::create(&eal, &pool)?;
        Ok(Self { eal, pool })
    }

    /// Opens a virtual device with one queue each way.
    pub fn open(&self, device: &str) -> Result<OpenPort> {
        let config = PortConfig {
            device: device.parse()?,
            queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: false,
            rss: Rss::Addresses,
        };
        Ok(Port::open(&self.eal, &config, &self.pool)?)
    }
}
