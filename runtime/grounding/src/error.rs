use std::{fmt, time::Duration};

/// What sort of thing went wrong; branch on this, the wording may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// A setting outside its range, or a key that its environment variable does not hold.
    Settings,
    /// A request that cannot be sent: too many pictures, a picture whose bytes do not match its size.
    Request,
    /// No connection to the server.
    Connect,
    /// No connection, no first token or no end within the time allowed.
    Timeout,
    /// The server is over its own rate (429).
    RateLimited,
    /// The server failed (5xx), or said so in the middle of its answer.
    Server,
    /// The server refused the request (any other 4xx, a redirection).
    Refused,
    /// The connection ended before the answer did.
    Disconnected,
    /// Bytes that are not what a chat-completions server says.
    Malformed,
    /// An answer longer than allowed.
    TooLong,
    /// Not asked: the server failed too often just now.
    CircuitOpen,
    /// Not asked: the rate or token budget is spent.
    Budget,
    /// Not asked: its time was over before its turn came.
    Expired,
    /// The runtime thread could not be started.
    Thread,
}

impl Kind {
    /// Every kind, for counters that must list them all.
    pub const ALL: [Self; 14] = [
        Self::Settings,
        Self::Request,
        Self::Connect,
        Self::Timeout,
        Self::RateLimited,
        Self::Server,
        Self::Refused,
        Self::Disconnected,
        Self::Malformed,
        Self::TooLong,
        Self::CircuitOpen,
        Self::Budget,
        Self::Expired,
        Self::Thread,
    ];

    /// Lower-case name used in messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Request => "request",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate-limited",
            Self::Server => "server",
            Self::Refused => "refused",
            Self::Disconnected => "disconnected",
            Self::Malformed => "malformed",
            Self::TooLong => "too-long",
            Self::CircuitOpen => "circuit-open",
            Self::Budget => "budget",
            Self::Expired => "expired",
            Self::Thread => "thread",
        }
    }

    /// Whether the same request may succeed a moment later.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::Timeout
                | Self::RateLimited
                | Self::Server
                | Self::Disconnected
                | Self::Malformed
        )
    }

    /// Whether it speaks against the server's health, which the circuit breaker counts.
    pub fn is_ill_health(self) -> bool {
        self.is_transient() && self != Self::RateLimited
    }
}

/// Something that could not be done: the subject, what was expected, what came.
///
/// Never a reason to stop: the frame under way and the next query are not concerned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: expected {expected}, got {got}")]
pub struct GroundingError {
    kind: Kind,
    subject: String,
    expected: String,
    got: String,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) status: Option<u16>,
}

impl GroundingError {
    /// Builds an error from its three parts.
    pub fn new(
        kind: Kind,
        subject: impl fmt::Display,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Self {
        Self {
            kind,
            subject: subject.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
            retry_after: None,
            status: None,
        }
    }

    /// The category to branch on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP status the server answered with, where it did.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}
