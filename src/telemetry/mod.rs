//! Counters, histograms and records.
