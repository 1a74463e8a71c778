//! What the DPDK tests share. Each of them is a process of its own, as EAL starts once in a process.
#![allow(dead_code, missing_docs, reason = "every test uses a part of it")]

use pdmgate::dpdk::{
    Cores, Eal, EalConfig, Hugepages, OpenPort, Pool, PoolConfig, Port, PortConfig, PortError, Rss,
};

pub fn eal(workers: usize, pool: PoolConfig) -> Eal {
    tracing_subscriber::fmt().with_test_writer().init();
    Eal::init(&EalConfig {
        cores: Cores::choose(workers, None, None),
        hugepages: Hugepages::Off,
        pool,
        devices: Vec::new(),
        extra_args: Vec::new(),
    })
    .unwrap()
}

pub fn pool_config(mbufs: u32) -> PoolConfig {
    PoolConfig {
        mbufs,
        size: 2048,
        socket: None,
    }
}

/// EAL with one pool, as an appliance has it.
pub fn start(workers: usize, mbufs: u32) -> (Eal, Pool) {
    let config = pool_config(mbufs);
    let eal = eal(workers, config);
    let pool = Pool::create(&eal, &config).unwrap();
    (eal, pool)
}

pub fn port_config(device: &str, queues: u16) -> PortConfig {
    PortConfig {
        device: device.parse().unwrap(),
        queues,
        rx_descriptors: 512,
        tx_descriptors: 512,
        mtu: 1500,
        promiscuous: true,
        rss: Rss::Addresses,
    }
}

pub fn try_open(eal: &Eal, pool: &Pool, device: &str) -> Result<OpenPort, PortError> {
    Port::open(eal, &port_config(device, 1), pool)
}

pub fn open(eal: &Eal, pool: &Pool, device: &str) -> OpenPort {
    try_open(eal, pool, device).unwrap()
}
