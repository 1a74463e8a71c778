//! `pdmgate run`: from a configuration to an appliance that carries traffic, and the management core that looks after it.
//!
//! ```text
//! appliance   opens devices, starts workers and servers, stops them again
//! poll        what a worker core does all day
//! core        what the management core does all day: signals, ageing, generations, snapshots, links, warnings
//! registered  what the core does for registered pairings: grants, secrets of pairs on demand, telling when it is done
//! source      answers for `pdmgate flows`, `pdmgate stats` and Prometheus
//! ```

mod appliance;
mod core;
mod links;
pub mod poll;
mod primary;
mod registered;
mod source;

pub use appliance::{RunError, run};
pub use primary::{PrimaryRunError, run_primary};
