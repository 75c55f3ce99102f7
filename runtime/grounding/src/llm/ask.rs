//! Tries, timers and what is learnt from how they end, over whatever carries the bytes.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Backoff, Breaker, Budget, LlmSettings, Request, Usage, request::body, sse::Incoming};
use crate::{GroundingError, Kind};

/// Bytes read of a refusal, enough for what the server says about it.
const MAX_REFUSAL_BYTES: usize = 2048;

/// What carries a request to a server.
pub(crate) trait Transport: Send + Sync {
    /// The answer's bytes.
    type Body: Body;
    /// Sends a body; the answer's head.
    fn post(&self, body: String) -> impl Future<Output = Result<Reply<Self::Body>, GroundingError>> + Send;
}

/// An answer's bytes as they come; dropping it closes the connection.
pub(crate) trait Body: Send {
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, GroundingError>> + Send;
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Reply<B> {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) is_json: bool,
    pub(crate) body: B,
}

/// What happens while an answer is awaited.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A try begins, the first being 1. What was said in an earlier one no longer counts.
    Asked {
        /// Which.
        attempt: u32,
    },
    /// The answer so far.
    Text(&'a str),
    /// A try failed and another will follow.
    Retrying {
        /// Why.
        error: &'a GroundingError,
        /// After this long.
        pause: Duration,
    },
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The model's words.
    pub text: String,
    /// Whether it ended because `max_tokens` were used up.
    pub cut_off: bool,
    /// Tokens, where the server counts them.
    pub usage: Option<Usage>,
    /// From the first try's beginning to the first token of the last.
    pub first_token: Duration,
    /// From the first try's beginning to the end.
    pub total: Duration,
    /// Tries it took.
    pub attempts: u32,
}

#[derive(Debug)]
pub(crate) struct Asker<T> {
    settings: LlmSettings,
    transport: T,
    epoch: Instant,
    breaker: Mutex<Breaker>,
    budget: Mutex<Budget>,
    /// The server refused the extras once and answered without them.
    bare: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A try the breaker let through. When it is dropped without a word (the query was cancelled) the next may try.
struct Admitted<'a> {
    breaker: &'a Mutex<Breaker>,
    epoch: Instant,
    healthy: Option<bool>,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        lock(self.breaker).record(self.healthy, self.epoch.elapsed());
    }
}

impl<T: Transport> Asker<T> {
    pub(crate) fn new(settings: LlmSettings, transport: T) -> Self {
        let breaker = Breaker::new(settings.breaker_failures, settings.breaker_pause);
        let budget =
            Budget::new(settings.requests_per_minute, settings.tokens_per_minute, settings.tokens_in_all);
        Self {
            settings,
            transport,
            epoch: Instant::now(),
            breaker: Mutex::new(breaker),
            budget: Mutex::new(budget),
            bare: AtomicBool::new(false),
        }
    }

    pub(crate) fn settings(&self) -> &LlmSettings {
        &self.settings
    }

    pub(crate) fn is_open(&self, now: Instant) -> bool {
        lock(&self.breaker).is_open(now.duration_since(self.epoch))
    }

    pub(crate) async fn ask(
        &self,
        request: &Request,
        report: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Answer, GroundingError> {
        let settings = &self.settings;
        let began = Instant::now();
        let ends = began + settings.total_timeout;
        let backoff =
            Backoff { base: settings.retry_base, cap: settings.retry_cap, retries: settings.retries };
        let messages = request.messages(settings)?;
        let tokens = request.tokens(settings);
        let mut extras = !self.bare.load(Ordering::Relaxed);
        let (mut attempts, mut failed) = (0, 0);
        let mut last: Option<GroundingError> = None;
        loop {
            let mut admitted = match self.admit(tokens) {
                Ok(admitted) => admitted,
                // Why it was asked again says more than why it was not.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            attempts += 1;
            report(Progress::Asked { attempt: attempts });
            let attempt = self.attempt(body(&messages, settings, extras), began, report);
            let result = timeout_at(ends, attempt)
                .await
                .unwrap_or_else(|_| Err(timed_out("answer", "total_timeout", settings.total_timeout)));
            admitted.healthy = match &result {
                Ok(_) => Some(true),
                Err(error) => error.kind().is_ill_health().then_some(false),
            };
            drop(admitted);
            let error = match result {
                Ok(mut answer) => {
                    answer.attempts = attempts;
                    self.bare.store(!extras, Ordering::Relaxed);
                    if let Some(usage) = answer.usage {
                        lock(&self.budget).settle(tokens, usage.prompt.saturating_add(usage.completion));
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            // What was turned away at the door has cost no tokens.
            if error.status().is_some() || error.kind() == Kind::Connect {
                lock(&self.budget).settle(tokens, 0);
            }
            if extras && matches!(error.status(), Some(400 | 422)) {
                extras = false;
                last = Some(error);
                continue;
            }
            failed += 1;
            let chance = (RandomState::new().hash_one(attempts) >> 11) as f64 / (1_u64 << 53) as f64;
            let pause = error
                .kind()
                .is_transient()
                .then(|| backoff.pause(failed, chance, error.retry_after))
                .flatten();
            let Some(pause) = pause.filter(|pause| Instant::now() + *pause < ends) else { return Err(error) };
            report(Progress::Retrying { error: &error, pause });
            last = Some(error);
            sleep(pause).await;
        }
    }

    fn admit(&self, tokens: u64) -> Result<Admitted<'_>, GroundingError> {
        let now = self.epoch.elapsed();
        let wait_ms = |wait: Duration| match wait {
            Duration::MAX => "none left".to_owned(),
            wait => format!("{} ms to wait", wait.as_millis()),
        };
        lock(&self.breaker).admit(now).map_err(|wait| {
            GroundingError::new(Kind::CircuitOpen, "server", "one that did not just fail", wait_ms(wait))
        })?;
        // From here on a way out makes room for the next to try.
        let admitted = Admitted { breaker: &self.breaker, epoch: self.epoch, healthy: None };
        lock(&self.budget).take(tokens, now).map_err(|wait| {
            let expected = format!("a request and about {tokens} tokens");
            GroundingError::new(Kind::Budget, "budget", expected, wait_ms(wait))
        })?;
        Ok(admitted)
    }

    async fn attempt(
        &self,
        body: String,
        began: Instant,
        report: &mut (dyn FnMut(Progress<'_>) + Send),
    ) -> Result<Answer, GroundingError> {
        let limit = self.settings.first_token_timeout;
        let first_by = Instant::now() + limit;
        let late = |_| timed_out("first token", "first_token_timeout", limit);
        let mut reply = timeout_at(first_by, self.transport.post(body)).await.map_err(late)??;
        if reply.status != 200 {
            let said = timeout_at(first_by, read(&mut reply.body, MAX_REFUSAL_BYTES)).await;
            return Err(refusal(
                reply.status,
                reply.retry_after,
                &said.ok().and_then(Result::ok).unwrap_or_default(),
            ));
        }
        let mut incoming = Incoming::new(self.settings.max_answer_bytes);
        let mut first_token = None;
        if reply.is_json {
            // A server that does not stream: all tokens are the first.
            let max_bytes = self.settings.max_answer_bytes.saturating_mul(6).saturating_add(64 * 1024);
            let whole = timeout_at(first_by, read(&mut reply.body, max_bytes)).await.map_err(late)??;
            incoming.take_whole(&whole)?;
        }
        while !reply.is_json && !incoming.is_done() {
            let chunk = match first_token {
                Some(_) => reply.body.next().await?,
                None => timeout_at(first_by, reply.body.next()).await.map_err(late)??,
            };
            let Some(chunk) = chunk else {
                incoming.close()?;
                break;
            };
            let before = incoming.text.len();
            incoming.feed(&chunk)?;
            if incoming.begun {
                first_token.get_or_insert_with(|| began.elapsed());
            }
            if incoming.text.len() > before {
                report(Progress::Text(&incoming.text));
            }
        }
        let total = began.elapsed();
        Ok(Answer {
            text: incoming.text,
            cut_off: incoming.cut_off,
            usage: incoming.usage,
            first_token: first_token.unwrap_or(total),
            total,
            attempts: 0,
        })
    }
}

/// The beginning of a body.
async fn read<B: Body>(body: &mut B, max_bytes: usize) -> Result<Vec<u8>, GroundingError> {
    let mut all = Vec::new();
    while all.len() < max_bytes
        && let Some(chunk) = body.next().await?
    {
        all.extend_from_slice(&chunk[..chunk.len().min(max_bytes - all.len())]);
    }
    Ok(all)
}

fn timed_out(subject: &str, setting: &str, limit: Duration) -> GroundingError {
    let expected = format!("within llm.{setting}, {} ms", limit.as_millis());
    GroundingError::new(Kind::Timeout, subject, expected, "nothing")
}

fn refusal(status: u16, retry_after: Option<Duration>, said: &[u8]) -> GroundingError {
    let kind = match status {
        429 => Kind::RateLimited,
        408 | 500.. => Kind::Server,
        _ => Kind::Refused,
    };
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    let got = format!("{status} {:?}", &said[..said.floor_char_boundary(300)]);
    let mut error = GroundingError::new(kind, "server", "200", got);
    (error.retry_after, error.status) = (retry_after, Some(status));
    error
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
