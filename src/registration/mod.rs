//! Registration: Primaries agree on secrets, and hand Secondaries what their mode gives them (protocol sections 4 to 6).
//!
//! ```text
//! message, frame   what goes over a connection, strictly read        tls, name, certificate   who is at its ends
//! primary          agrees, keeps, shares                             store       where a Primary keeps what must outlive it
//! secondary        registers, and hands on what it is given          link        between it and the management core
//! service          runs both in a thread                             keygen      authorities, certificates and secrets for a lab
//! analyze          asks a Primary what opens captures
//! ```
//!
//! `docs/registration.md` describes the messages for whoever writes a peer.

pub mod analyze;
mod backoff;
mod certificate;
pub mod frame;
pub mod keygen;
pub mod link;
pub mod message;
pub mod name;
pub mod primary;
mod pulse;
pub mod secondary;
pub mod service;
pub mod store;
pub mod tls;
