use std::fmt;

/// What went wrong, for callers that branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The backend, its library or its device is not there.
    Unavailable,
    /// A model's files are missing, truncated, or not those its manifest names.
    Model,
    /// A graph or a tensor does not have the name, type or shape it should.
    Interface,
    /// The backend failed while running a graph.
    Run,
}

/// An engine's failure: the subject, what was expected, what came.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{subject}: expected {expected}, got {got}")]
pub struct EngineError {
    kind: Kind,
    subject: String,
    expected: String,
    got: String,
}

impl EngineError {
    /// Builds an error from its three parts.
    pub fn new(
        kind: Kind,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self { kind, subject: subject.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// The same error, its subject led by the place it is in: `model "nano": image.height: expected ...`.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.subject = format!("{place}: {}", self.subject);
        self
    }

    /// The category.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the next frame may still succeed. Only a failed run can be a matter of one frame.
    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Run
    }
}

impl From<sightline_core::ValueError> for EngineError {
    fn from(error: sightline_core::ValueError) -> Self {
        Self::new(Kind::Interface, "tensor", "a valid view", error)
    }
}
