//! `[llm]`: the language model's server and how it is treated. Plain types: `runtime/grounding` has its own, and whoever
//! wires the two converts.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    ConfigError, Kind,
    check::{bytes, given, seconds, within},
};

/// How the model writes its answers down; `runtime/grounding/README.md` describes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum AnswerProtocol {
    Json,
    Qwen,
    Thousandths,
    RefBox,
    Vitron,
    VitronStrict,
    Videoglamm,
    Plain,
}

impl AnswerProtocol {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Json,
        Self::Qwen,
        Self::Thousandths,
        Self::RefBox,
        Self::Vitron,
        Self::VitronStrict,
        Self::Videoglamm,
        Self::Plain,
    ];

    /// The name settings use, and the readers of `runtime/grounding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Qwen => "qwen",
            Self::Thousandths => "thousandths",
            Self::RefBox => "ref-box",
            Self::Vitron => "vitron",
            Self::VitronStrict => "vitron-strict",
            Self::Videoglamm => "videoglamm",
            Self::Plain => "plain",
        }
    }
}

/// `[llm]`, as one place says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is the key of the same name in configs/default.toml, checked into `LlmSettings`
pub struct LlmLayer {
    pub url: Option<String>,
    pub model: Option<String>,
    pub key_variable: Option<String>,
    pub protocol: Option<AnswerProtocol>,
    pub image_longest_px: Option<u32>,
    pub image_quality: Option<u8>,
    pub max_images: Option<usize>,
    pub temperature: Option<f32>,
    pub max_tokens: Option<u32>,
    pub max_answer: Option<String>,
    pub structured: Option<bool>,
    pub connect_timeout_s: Option<f64>,
    pub first_token_timeout_s: Option<f64>,
    pub total_timeout_s: Option<f64>,
    pub retries: Option<u32>,
    pub retry_base_s: Option<f64>,
    pub retry_cap_s: Option<f64>,
    pub breaker_failures: Option<u32>,
    pub breaker_pause_s: Option<f64>,
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u32>,
    pub tokens_in_all: Option<u64>,
}

/// `[llm]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct LlmSettings {
    /// Base address up to and with the version, without a slash at its end. `None`: there is no server.
    pub url: Option<String>,
    /// The model's name on that server; not empty where there is a server.
    pub model: String,
    /// Environment variable that holds the key; `None` sends none.
    pub key_variable: Option<String>,
    /// How the model writes its answers down.
    pub protocol: AnswerProtocol,
    /// Longest side of a picture sent, 32..=8192.
    pub image_longest_px: u32,
    /// JPEG quality, 1..=100.
    pub image_quality: u8,
    /// Pictures in a request, 1..=64.
    pub max_images: usize,
    /// Sampling temperature, 0..=2.
    pub temperature: f32,
    /// Tokens of an answer, at least 1.
    pub max_tokens: u32,
    /// Bytes of an answer, 1 KiB to 64 MiB.
    pub max_answer_bytes: usize,
    /// Whether to ask for structured output.
    pub structured: bool,
    /// Time for the connection. This and the two that follow: more than nothing, at most a day.
    pub connect_timeout: Duration,
    /// Time from sending to the first token, for each try.
    pub first_token_timeout: Duration,
    /// Time for everything, retries included.
    pub total_timeout: Duration,
    /// Tries after the first, at most 10.
    pub retries: u32,
    /// The first pause between tries, at most a day; it doubles.
    pub retry_base: Duration,
    /// The longest pause, more than nothing, at most a day.
    pub retry_cap: Duration,
    /// Failures in a row after which the server is left alone, at least 1.
    pub breaker_failures: u32,
    /// For how long, at most a day.
    pub breaker_pause: Duration,
    /// Requests a minute; `None` for any number.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute, both ways; `None` for any number.
    pub tokens_per_minute: Option<u32>,
    /// Tokens in all, both ways; `None` for any number.
    pub tokens_in_all: Option<u64>,
}

impl LlmLayer {
    pub(crate) fn check(self) -> Result<LlmSettings, ConfigError> {
        let url = given("llm.url", self.url)?.trim().trim_end_matches('/').to_owned();
        let refuse = |key: &str, expected: &str, got: &str| {
            Err(ConfigError::new(
                Kind::Value,
                format_args!("setting llm.{key}"),
                expected,
                format_args!("{got:?}"),
            ))
        };
        let scheme = ["http://", "https://"].into_iter().find(|scheme| url.starts_with(scheme));
        if !url.is_empty() && scheme.is_none_or(|scheme| url.len() == scheme.len()) {
            return refuse("url", "http:// or https:// and a server, or \"\" for none", &url);
        }
        if url.contains('@') {
            // What stands in a file is read by many, and shown in messages.
            return refuse("url", "an address without a password; see llm.key_variable", "one with an @");
        }
        let model = given("llm.model", self.model)?;
        if !url.is_empty() && model.trim().is_empty() {
            return refuse("model", "the model's name on the server llm.url", &model);
        }
        let key_variable = given("llm.key_variable", self.key_variable)?;
        if !key_variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            // A key that was put here by mistake must not be repeated in a message.
            return refuse("key_variable", "the name of an environment variable", "other characters");
        }
        let some = |text: String| (!text.is_empty()).then_some(text);
        Ok(LlmSettings {
            url: some(url),
            model,
            key_variable: some(key_variable),
            protocol: given("llm.protocol", self.protocol)?,
            image_longest_px: within("llm.image_longest_px", self.image_longest_px, 32..=8192)?,
            image_quality: within("llm.image_quality", self.image_quality, 1..=100)?,
            max_images: within("llm.max_images", self.max_images, 1..=64)?,
            temperature: within("llm.temperature", self.temperature, 0.0..=2.0)?,
            max_tokens: within("llm.max_tokens", self.max_tokens, 1..=1 << 20)?,
            max_answer_bytes: bytes("llm.max_answer", self.max_answer, 1 << 10..=64 << 20)?,
            structured: given("llm.structured", self.structured)?,
            connect_timeout: seconds("llm.connect_timeout_s", self.connect_timeout_s, 0.001)?,
            first_token_timeout: seconds("llm.first_token_timeout_s", self.first_token_timeout_s, 0.001)?,
            total_timeout: seconds("llm.total_timeout_s", self.total_timeout_s, 0.001)?,
            retries: within("llm.retries", self.retries, 0..=10)?,
            retry_base: seconds("llm.retry_base_s", self.retry_base_s, 0.0)?,
            retry_cap: seconds("llm.retry_cap_s", self.retry_cap_s, 0.001)?,
            breaker_failures: within("llm.breaker_failures", self.breaker_failures, 1..=1000)?,
            breaker_pause: seconds("llm.breaker_pause_s", self.breaker_pause_s, 0.0)?,
            requests_per_minute: limit(given("llm.requests_per_minute", self.requests_per_minute)?),
            tokens_per_minute: limit(given("llm.tokens_per_minute", self.tokens_per_minute)?),
            tokens_in_all: limit(given("llm.tokens_in_all", self.tokens_in_all)?),
        })
    }
}

/// TOML has no word for "none", so 0 is it.
fn limit<T: PartialEq + From<u8>>(value: T) -> Option<T> {
    (value != T::from(0)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Layer, Settings};

    fn resolve(text: &str) -> Result<LlmSettings, ConfigError> {
        Settings::resolve([Layer::from_toml("f", text).unwrap()]).map(|settings| settings.llm)
    }

    #[test]
    fn by_default_there_is_no_server() {
        let llm = resolve("").unwrap();
        assert_eq!((llm.url, llm.key_variable), (None, None));
        assert_eq!((llm.requests_per_minute, llm.tokens_per_minute, llm.tokens_in_all), (None, None, None));
        assert_eq!((llm.max_answer_bytes, llm.retry_base), (64 << 10, Duration::from_millis(250)));
    }

    #[test]
    fn a_server_is_taken_as_it_is_written() {
        let llm = resolve(
            "[llm]\nurl = \"http://h:8000/v1/\"\nmodel = \"m\"\nprotocol = \"vitron-strict\"\ntemperature = 1\n\
             key_variable = \"MY_KEY\"\ntokens_in_all = 5000000000\nretry_base_s = 0",
        )
        .unwrap();
        assert_eq!(llm.url.as_deref(), Some("http://h:8000/v1"));
        assert_eq!(llm.key_variable.as_deref(), Some("MY_KEY"));
        assert_eq!((llm.protocol, llm.temperature), (AnswerProtocol::VitronStrict, 1.0));
        assert_eq!((llm.tokens_in_all, llm.retry_base), (Some(5_000_000_000), Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        let server = "url = \"http://h/v1\"\nmodel = \"m\"";
        for (text, message) in [
            (
                "url = \"h:8000\"",
                "llm.url: expected http:// or https:// and a server, or \"\" for none, got \"h:8000\"",
            ),
            (
                "url = \"https://\"",
                "llm.url: expected http:// or https:// and a server, or \"\" for none, got \"https:\"",
            ),
            (
                "url = \"https://me:pass@h/v1\"",
                "llm.url: expected an address without a password; see llm.key_variable, got \"one with an @\"",
            ),
            ("url = \"http://h/v1\"", "llm.model: expected the model's name on the server llm.url, got \"\""),
            (
                "key_variable = \"sk-secret\"",
                "llm.key_variable: expected the name of an environment variable, got \"other characters\"",
            ),
            ("image_quality = 0", "llm.image_quality: expected 1 to 100, got 0"),
            ("temperature = nan", "llm.temperature: expected 0 to 2, got NaN"),
            ("total_timeout_s = 0", "llm.total_timeout_s: expected 0.001 to 86400 seconds, got 0"),
            ("retry_cap_s = inf", "llm.retry_cap_s: expected 0.001 to 86400 seconds, got inf"),
            (
                "max_answer = \"1GiB\"",
                "llm.max_answer: expected 1KiB to 64MiB, such as \"512MiB\", got \"1GiB\"",
            ),
        ] {
            let text = if text.starts_with("url") { text.to_owned() } else { format!("{server}\n{text}") };
            let error = resolve(&format!("[llm]\n{text}")).expect_err(&text);
            assert_eq!(error.kind(), Kind::Value, "{text}");
            assert_eq!(error.to_string(), format!("setting {message}"), "{text}");
        }
    }

    #[test]
    fn every_protocol_is_read_by_its_name() {
        for protocol in AnswerProtocol::ALL {
            let text = format!("[llm]\nprotocol = {:?}", protocol.as_str());
            assert_eq!(resolve(&text).unwrap().protocol, protocol);
        }
    }
}
