//! What no single room can test: the import law, parity, memory, whole pipelines.
#![forbid(unsafe_code)]

use std::{fmt::Display, io::Write as _};

/// Says that a test could not run, and why. Past the test harness, which would keep it to itself.
pub fn not_run(reason: impl Display) {
    // Where standard error is closed nobody is listening.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {reason}");
}
