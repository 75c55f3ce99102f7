//! Stage benchmarks: `cargo bench -p sightline-benches`, on one core of the CPU, setup outside the timer. The corridor end
//! to end: the binary `corridor`. Results that are published lie in `results/`, a folder each.
#![forbid(unsafe_code)]
