use std::time::Duration;

use crate::{GroundingError, Kind, protocol::Protocol};

/// Instants cannot be far away for ever.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A chat-completions server and how to treat it. Checked by [`Client::new`](crate::llm::Client::new).
#[derive(Debug, Clone, PartialEq)]
pub struct LlmSettings {
    /// Base address up to and with the version, as OpenAI's `base_url`: `http://127.0.0.1:8000/v1`.
    pub url: String,
    /// The model's name on that server.
    pub model: String,
    /// Environment variable that holds the key, sent as `Authorization: Bearer`. `None` sends none.
    pub key_variable: Option<String>,
    /// How the model writes its answers down.
    pub protocol: Protocol,
    /// Longest side of a picture sent, in 32..=8192 pixels.
    pub image_longest_px: u32,
    /// JPEG quality, 1..=100.
    pub image_quality: u8,
    /// Pictures in a request, 1..=64; one with more is refused.
    pub max_images: usize,
    /// Sampling temperature, 0..=2.
    pub temperature: f32,
    /// Tokens of an answer, at least 1.
    pub max_tokens: u32,
    /// Bytes of an answer, at least 1; a longer one is given up.
    pub max_answer_bytes: usize,
    /// Whether to ask for structured output (with [`Protocol::Json`] only). A server that answers 400 is asked without.
    pub structured: bool,
    /// Time for the connection; this and the two that follow: more than nothing, at most a day.
    pub connect_timeout: Duration,
    /// Time from sending to the first token, for each try.
    pub first_token_timeout: Duration,
    /// Time for everything, retries included.
    pub total_timeout: Duration,
    /// Tries after the first, at most 10.
    pub retries: u32,
    /// The first pause between tries; it doubles.
    pub retry_base: Duration,
    /// The longest pause, at most a day. A server that asks for more in `Retry-After` is given up.
    pub retry_cap: Duration,
    /// Failures in a row after which the server is left alone.
    pub breaker_failures: u32,
    /// For how long.
    pub breaker_pause: Duration,
    /// Requests a minute (tries count); `None` for any number.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, both ways; `None` for any number.
    pub tokens_per_minute: Option<u32>,
    /// Tokens in all, both ways, before nothing more is asked; `None` for any number.
    pub tokens_in_all: Option<u64>,
}

impl Default for LlmSettings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8000/v1".into(),
            model: String::new(),
            key_variable: None,
            protocol: Protocol::Json,
            image_longest_px: 1024,
            image_quality: 85,
            max_images: 8,
            temperature: 0.0,
            max_tokens: 512,
            max_answer_bytes: 64 * 1024,
            structured: true,
            connect_timeout: Duration::from_secs(3),
            first_token_timeout: Duration::from_secs(20),
            total_timeout: Duration::from_secs(60),
            retries: 2,
            retry_base: Duration::from_millis(250),
            retry_cap: Duration::from_secs(5),
            breaker_failures: 5,
            breaker_pause: Duration::from_secs(10),
            requests_per_minute: None,
            tokens_per_minute: None,
            tokens_in_all: None,
        }
    }
}

impl LlmSettings {
    /// Looks at every value.
    ///
    /// # Errors
    /// `Kind::Settings`, naming the first that is out of range.
    pub fn check(&self) -> Result<(), GroundingError> {
        let refuse = |subject: &str, expected: &str, got: String| {
            Err(GroundingError::new(Kind::Settings, format_args!("llm.{subject}"), expected, got))
        };
        if !(self.url.starts_with("http://") || self.url.starts_with("https://")) {
            return refuse("url", "http:// or https://", format!("{:?}", self.url));
        }
        if !(32..=8192).contains(&self.image_longest_px) {
            return refuse("image_longest_px", "32..=8192", self.image_longest_px.to_string());
        }
        if !(1..=100).contains(&self.image_quality) {
            return refuse("image_quality", "1..=100", self.image_quality.to_string());
        }
        if !(1..=64).contains(&self.max_images) {
            return refuse("max_images", "1..=64", self.max_images.to_string());
        }
        if !(0.0..=2.0).contains(&self.temperature) {
            return refuse("temperature", "0..=2", self.temperature.to_string());
        }
        if self.retries > 10 {
            return refuse("retries", "at most 10", self.retries.to_string());
        }
        for (name, value) in [
            ("max_tokens", u64::from(self.max_tokens)),
            ("max_answer_bytes", self.max_answer_bytes as u64),
            ("breaker_failures", u64::from(self.breaker_failures)),
            ("requests_per_minute", self.requests_per_minute.map_or(1, u64::from)),
            ("tokens_per_minute", self.tokens_per_minute.map_or(1, u64::from)),
        ] {
            if value == 0 {
                return refuse(name, "at least 1", "0".into());
            }
        }
        for (name, value) in [
            ("connect_timeout", self.connect_timeout),
            ("first_token_timeout", self.first_token_timeout),
            ("total_timeout", self.total_timeout),
            ("retry_cap", self.retry_cap),
        ] {
            if value.is_zero() || value > LONGEST {
                return refuse(
                    name,
                    "more than nothing, at most a day",
                    format!("{} s", value.as_secs_f64()),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        assert!(LlmSettings::default().check().is_ok());
        let check = |change: fn(&mut LlmSettings)| {
            let mut settings = LlmSettings::default();
            change(&mut settings);
            settings.check().expect_err("out of range").to_string()
        };
        for (message, change) in [
            (
                "llm.url: expected http:// or https://, got \"ftp://x\"",
                (|s| s.url = "ftp://x".into()) as fn(&mut LlmSettings),
            ),
            ("llm.image_quality: expected 1..=100, got 0", |s| s.image_quality = 0),
            ("llm.temperature: expected 0..=2, got NaN", |s| s.temperature = f32::NAN),
            ("llm.max_tokens: expected at least 1, got 0", |s| s.max_tokens = 0),
            ("llm.requests_per_minute: expected at least 1, got 0", |s| s.requests_per_minute = Some(0)),
            ("llm.total_timeout: expected more than nothing, at most a day, got 0 s", |s| {
                s.total_timeout = Duration::ZERO;
            }),
            ("llm.retry_cap: expected more than nothing, at most a day, got 86401 s", |s| {
                s.retry_cap = LONGEST + Duration::from_secs(1);
            }),
        ] {
            assert_eq!(check(change), message);
        }
    }
}
