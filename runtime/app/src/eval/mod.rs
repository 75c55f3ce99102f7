//! `sightline eval`: a model against annotated video.

mod davis;
mod deepest;
mod grounder;
mod report;
mod streaming;

use anyhow::Result;

use crate::cli::{Dataset, EvalArgs};

pub(crate) use self::davis::stamp;

/// Runs the command.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.dataset {
        Dataset::Davis(davis) if davis.streaming => streaming::run(davis),
        Dataset::Davis(davis) => davis::run(davis),
        Dataset::Grounder(grounder) => grounder::run(grounder),
    }
}
