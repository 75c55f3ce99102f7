use std::fmt;

use sightline_engine_api::{EngineError, Kind};

/// What is wrong with a plan, for callers that branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PlanFault {
    /// There is no such plan.
    Missing,
    /// The plan has no JSON file beside it: nobody can say what it was built for.
    NoSidecar,
    /// The JSON file is not one of ours.
    Unreadable,
    /// Built for another version of TensorRT, another GPU, or from another graph.
    Foreign,
    /// The plan's bytes are not those that were written.
    Corrupt,
    /// A file could not be written.
    Write,
}

/// Why a plan cannot be used: the subject, what was expected, what came.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{subject}: expected {expected}, got {got}")]
pub struct PlanError {
    fault: PlanFault,
    subject: String,
    expected: String,
    got: String,
}

impl PlanError {
    pub(crate) fn new(
        fault: PlanFault,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self { fault, subject: subject.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// The category.
    pub fn kind(&self) -> PlanFault {
        self.fault
    }
}

impl From<PlanError> for EngineError {
    /// A plan is a file of its model: always [`Kind::Model`].
    fn from(error: PlanError) -> Self {
        Self::new(Kind::Model, error.subject, error.expected, error.got)
    }
}
