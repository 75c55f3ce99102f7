//! Stage benchmarks: `cargo bench -p sightline-benches`. All on one core of the CPU, setup outside the timer.
#![forbid(unsafe_code)]
