//! `sightline eval`: a model against annotated video.

pub(crate) mod davis;
mod deepest;
mod grounder;
mod report;

use anyhow::Result;

use crate::cli::{Dataset, EvalArgs};

pub(crate) use self::{davis::stamp, report::SequenceScore};

/// Runs the command.
pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    match &args.dataset {
        Dataset::Davis(davis) => davis::run(davis),
        Dataset::Grounder(grounder) => grounder::run(grounder),
    }
}
