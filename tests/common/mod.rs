//! The lab: two hosts in network namespaces, an appliance in front of each, and a wire or a bridge between the appliances.
//!
//! ```text
//!   host A        gate A                 wire                 gate B        host B
//!  ┌──────┐   ┌────────────┐        ┌─────────────┐        ┌────────────┐   ┌──────┐
//!  │ eth0 ├───┤ in0   out0 ├────────┤ a0       b0 ├────────┤ out0   in0 ├───┤ eth0 │
//!  └──────┘   └────────────┘        └─────────────┘        └────────────┘   └──────┘
//!   2001:db8:1::17                                                      2001:db8:2::23
//! ```
//!
//! Each box is a namespace, each line a veth pair, so both hosts stand on one link, as an appliance that is a bump in the wire
//! wants it. Namespaces are named after the test's process; a lab whose process is gone is cleared away by the next one. Labs
//! take turns, over all test processes, because their traffic is timed and the machine may be small.
#![allow(dead_code, reason = "each test uses a part of the lab")]

pub mod authority;
pub mod capture;
pub mod gate;
pub mod lab;
pub mod netns;
pub mod oracle;
pub mod packets;
pub mod process;
pub mod site;
pub mod witness;
