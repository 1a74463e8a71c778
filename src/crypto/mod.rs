//! Key schedule and sealing (protocol sections 2 and 3).
//!
//! [`schedule`] leads from a PairMasterSecret to the [`session`] key of one 5-tuple, epoch and Kri; [`seal`] puts that key to
//! work on batches of options. [`hpke`] is how two Primaries agree on the PairMasterSecret, [`ibc`] the identity-based mode
//! (sections 5 and 6). Workers call [`schedule`] and [`seal`] only, and nothing in those allocates.

mod expand;
pub mod hpke;
pub mod ibc;
mod kernel;
pub mod schedule;
pub mod seal;
pub mod secret;
pub mod session;
pub mod suite;

pub use hpke::{HpkeError, KemPrivateKey, Psk, UnfitPsk};
pub use ibc::{BadPoint, IbcMaster};
pub use schedule::{EntryId, PrefixTooLong, SessionInfo};
pub use seal::{Kernel, OpenJob, Opened, SealJob};
pub use secret::{
    IbcClientKey, IbcServerKey, PairClientSecret, PairDeviceKey, PairMasterSecret,
    PairServerSecret, PairingPrk, SharedSecret,
};
pub use session::SessionKey;
pub use suite::{Aead, Kem, Suite, UnknownAead, UnknownKem};
