//! Key schedule and sealing.
