/// What kind of failure an [`NvmmError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A library, or a function of it, is not there. It will not be there for the next picture either.
    Unavailable,
    /// What the buffer holds is not a picture we can read; the stream's next one will be no different.
    Surface,
    /// A call into a library failed; the next picture may succeed.
    Driver,
}

/// Why a surface's picture cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct NvmmError {
    kind: Kind,
    text: String,
}

impl NvmmError {
    pub(crate) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the next picture may succeed.
    pub fn can_continue(&self) -> bool {
        self.kind == Kind::Driver
    }
}
