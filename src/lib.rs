//! pdmgate: an inline PDMv2 appliance on DPDK.

pub mod cli;
pub mod config;
pub mod crypto;
pub mod dataplane;
pub mod decode;
pub mod dpdk;
pub mod flow;
pub mod manage;
mod prefetch;
pub mod registration;
pub mod snapshot;
pub mod telemetry;
pub mod wire;
