//! Opens captures with a configuration's secrets, away from any appliance.

pub mod capture;
