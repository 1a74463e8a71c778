//! Registration: Primaries agree on secrets, and hand Secondaries what their mode gives them (protocol sections 4 to 6).

pub mod keygen;
