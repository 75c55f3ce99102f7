use std::fmt;

/// What sort of setting was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The file cannot be read.
    File,
    /// Not TOML, an unknown key, or a value of another type.
    Syntax,
    /// A value outside its range.
    Value,
}

/// A setting that was refused: where it stands, what was expected, what came.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{subject}: expected {expected}, got {got}")]
pub struct ConfigError {
    kind: Kind,
    subject: String,
    expected: String,
    got: String,
}

impl ConfigError {
    pub(crate) fn new(
        kind: Kind,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self { kind, subject: subject.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    /// The category.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}
