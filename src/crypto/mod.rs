//! Key schedule and sealing (protocol sections 2 and 3).
//!
//! [`schedule`] leads from a PairMasterSecret to the key of one 5-tuple, epoch and Kri; [`seal`] puts that key to work on
//! batches of options. Nothing in here allocates once a worker runs.

mod kernel;
pub mod schedule;
pub mod seal;
pub mod secret;
pub mod suite;

pub use schedule::{EntryId, PrefixTooLong, SessionInfo, SessionKey};
pub use seal::{Kernel, OpenJob, SealJob};
pub use secret::{
    IbcClientKey, IbcServerKey, PairClientSecret, PairDeviceKey, PairMasterSecret,
    PairServerSecret, PairingPrk, SharedSecret,
};
pub use suite::{Aead, Kem, Suite, UnknownAead, UnknownKem};
