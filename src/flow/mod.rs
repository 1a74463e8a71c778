//! Flow table and per-flow state.
