//! The client of any OpenAI-compatible chat-completions server.
//!
//! Dropping the future of [`Client::ask`] closes the connection, which is how a server learns that nobody waits.

mod ask;
mod http;
mod limits;
mod prompt;
mod request;
mod settings;
mod sse;

use tokio::time::Instant;

pub use ask::{Answer, Progress};
pub use limits::{Backoff, Breaker, Budget};
pub use prompt::prompt;
pub use request::{Image, Request};
pub use settings::LlmSettings;
pub use sse::Usage;

use crate::GroundingError;

/// A server, and what is known of its health.
#[derive(Debug)]
pub struct Client {
    asker: ask::Asker<http::Http>,
}

impl Client {
    /// Checks the settings, reads the key and prepares connections; nothing is sent.
    ///
    /// # Errors
    /// `Kind::Settings` when a setting is out of range, the key's environment variable is empty or missing, or the
    /// machine's root certificates cannot be read.
    pub fn new(settings: LlmSettings) -> Result<Self, GroundingError> {
        settings.check()?;
        let http = http::Http::new(&settings)?;
        Ok(Self { asker: ask::Asker::new(settings, http) })
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &LlmSettings {
        self.asker.settings()
    }

    /// Asks, and tells of what happens meanwhile. Pictures are encoded on the calling task.
    ///
    /// # Errors
    /// The last try's error, or why there was none: `Request`, `CircuitOpen`, `Budget`.
    pub async fn ask(
        &self,
        request: &Request,
        report: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Answer, GroundingError> {
        self.asker.ask(request, report).await
    }

    /// Whether the server is being left alone after too many failures in a row.
    pub fn is_circuit_open(&self) -> bool {
        self.asker.is_open(Instant::now())
    }
}
