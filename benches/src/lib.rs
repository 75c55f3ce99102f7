//! Stage benchmarks.
