use std::fmt;

use sightline_core::ValueError;
use sightline_engine_api::EngineError;

/// What went wrong, for callers that branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A prompt the model does not take, that names nothing in the picture, or that there is no room for.
    Prompt,
    /// A prompt for a frame whose features are kept no longer.
    Gone,
    /// A graph failed, or the model does not keep the graph contract.
    Engine,
    /// The picture or its stamp does not fit.
    Picture,
    /// An option that makes no sense.
    Options,
}

/// A tracker's failure. Whatever it is, the tracker's objects are as they were before the call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TrackerError {
    kind: Kind,
    transient: bool,
    message: String,
    engine: Option<EngineError>,
}

impl TrackerError {
    pub(crate) fn new(
        kind: Kind,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self {
            kind,
            transient: kind != Kind::Engine && kind != Kind::Options,
            message: format!("{subject}: expected {expected}, got {got}"),
            engine: None,
        }
    }

    pub(crate) fn prompt(
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self::new(Kind::Prompt, subject, expected, got)
    }

    pub(crate) fn picture(error: ValueError) -> Self {
        Self { kind: Kind::Picture, transient: true, message: error.to_string(), engine: None }
    }

    /// The category to branch on; the wording may change.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the caller can carry on with the next frame.
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// The engine's own error, if it was one.
    pub fn engine_error(&self) -> Option<&EngineError> {
        self.engine.as_ref()
    }
}

impl From<EngineError> for TrackerError {
    fn from(error: EngineError) -> Self {
        Self {
            kind: Kind::Engine,
            transient: error.is_transient(),
            message: error.to_string(),
            engine: Some(error),
        }
    }
}
