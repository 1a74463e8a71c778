//! What the workers read: pairings, lists and policy, immutable.
