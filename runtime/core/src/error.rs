use std::fmt;

/// What sort of value was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A coordinate lies outside the picture, is not finite, or is out of order.
    Geometry,
    /// A buffer is smaller than its declared shape, stride or size.
    Size,
    /// A textual or binary encoding does not decode.
    Encoding,
}

/// A value that a constructor of this crate refused: the subject, what was expected, what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: expected {expected}, got {got}")]
pub struct ValueError {
    kind: Kind,
    subject: String,
    expected: String,
    got: String,
}

impl ValueError {
    /// Builds an error from its three parts.
    pub fn new(
        kind: Kind,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self { kind, subject: subject.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// The category to branch on; the wording may change.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}
