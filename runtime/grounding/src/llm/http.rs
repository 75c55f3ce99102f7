//! The only file that knows the HTTP client.

use std::{error::Error, time::Duration};

use reqwest::{
    Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect,
};

use super::{
    LlmSettings,
    ask::{Body, Reply, Transport},
};
use crate::{GroundingError, Kind};

#[derive(Debug)]
pub(crate) struct Http {
    client: reqwest::Client,
    endpoint: String,
    key: Option<HeaderValue>,
}

impl Http {
    pub(crate) fn new(settings: &LlmSettings) -> Result<Self, GroundingError> {
        let key = match &settings.key_variable {
            None => None,
            Some(name) => {
                let subject = format!("environment variable {name}");
                // The value itself must not appear in any message.
                let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty());
                let value = value.ok_or_else(|| {
                    GroundingError::new(Kind::Settings, &subject, "the server's key", "nothing")
                })?;
                let mut header =
                    HeaderValue::from_str(&format!("Bearer {}", value.trim())).map_err(|_| {
                        GroundingError::new(Kind::Settings, &subject, "a key in ASCII", "other characters")
                    })?;
                header.set_sensitive(true);
                Some(header)
            }
        };
        // One provider a process; whoever came first may have chosen another.
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            // A key must not follow wherever a server points to.
            .redirect(redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| {
                GroundingError::new(
                    Kind::Settings,
                    "HTTP client",
                    "readable root certificates",
                    chain(&error),
                )
            })?;
        let endpoint = format!("{}/chat/completions", settings.url.trim_end_matches('/'));
        reqwest::Url::parse(&endpoint)
            .map_err(|error| GroundingError::new(Kind::Settings, "llm.url", "an address", error))?;
        Ok(Self { client, endpoint, key })
    }
}

impl Transport for Http {
    type Body = Response;

    async fn post(&self, body: String) -> Result<Reply<Response>, GroundingError> {
        let mut request =
            self.client.post(&self.endpoint).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        let response = request.send().await.map_err(|error| told(error, "connection"))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(Reply {
            status: response.status().as_u16(),
            // Its other form, a date, needs clocks that agree; without it our own pause is taken.
            retry_after: header(RETRY_AFTER)
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
            is_json: header(CONTENT_TYPE).is_some_and(|value| value.starts_with("application/json")),
            body: response,
        })
    }
}

impl Body for Response {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, GroundingError> {
        match self.chunk().await {
            Ok(chunk) => Ok(chunk.map(|bytes| bytes.to_vec())),
            Err(error) => Err(told(error, "answer stream")),
        }
    }
}

fn told(error: reqwest::Error, subject: &str) -> GroundingError {
    let (kind, expected) = if error.is_timeout() {
        (Kind::Timeout, "a server within llm.connect_timeout")
    } else if error.is_connect() {
        (Kind::Connect, "a server at llm.url")
    } else if error.is_builder() {
        (Kind::Settings, "a request that can be sent")
    } else {
        (Kind::Disconnected, "an answer to its end")
    };
    // Addresses may carry a password.
    GroundingError::new(kind, subject, expected, chain(&error.without_url()))
}

/// An error and what caused it: the outermost alone says "error sending request".
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}
