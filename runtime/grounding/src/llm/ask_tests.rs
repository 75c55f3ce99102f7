//! Timers and tries on a stopped clock: the transport is a script, the rest is real. Sockets: `tests/server.rs`.

use std::{collections::VecDeque, sync::Arc};

use super::*;

const S: Duration = Duration::from_secs(1);
const HELLO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// After so many milliseconds, the head; then bytes, each after so many more.
#[derive(Clone)]
struct Script(u64, Result<(u16, Option<Duration>), Kind>, Vec<(u64, &'static str)>);

struct Transcript {
    scripts: Mutex<VecDeque<Script>>,
    bodies: Mutex<Vec<String>>,
}

struct Bytes(VecDeque<(u64, &'static str)>);

impl Body for Bytes {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, GroundingError> {
        let Some((after_ms, bytes)) = self.0.pop_front() else { return Ok(None) };
        sleep(Duration::from_millis(after_ms)).await;
        Ok(Some(bytes.as_bytes().to_vec()))
    }
}

impl Transport for Transcript {
    type Body = Bytes;

    async fn post(&self, body: String) -> Result<Reply<Bytes>, GroundingError> {
        lock(&self.bodies).push(body);
        let Script(after_ms, head, bytes) = lock(&self.scripts).pop_front().expect("one more script");
        sleep(Duration::from_millis(after_ms)).await;
        let (status, retry_after) = head.map_err(|kind| GroundingError::new(kind, "a", "b", "c"))?;
        Ok(Reply { status, retry_after, is_json: false, body: Bytes(bytes.into()) })
    }
}

fn settings() -> LlmSettings {
    LlmSettings {
        first_token_timeout: 2 * S,
        total_timeout: 20 * S,
        retries: 2,
        retry_base: S,
        retry_cap: 4 * S,
        breaker_failures: 3,
        breaker_pause: 30 * S,
        ..LlmSettings::default()
    }
}

fn good() -> Script {
    Script(10, Ok((200, None)), vec![(10, HELLO), (10, DONE)])
}

fn asker(settings: LlmSettings, scripts: Vec<Script>) -> Asker<Transcript> {
    Asker::new(settings, Transcript { scripts: Mutex::new(scripts.into()), bodies: Mutex::default() })
}

async fn ask(asker: &Asker<Transcript>) -> (Result<Answer, GroundingError>, Vec<String>) {
    let mut seen = Vec::new();
    let request = Request { text: "?".into(), ..Request::default() };
    let result = asker
        .ask(&request, &mut |progress| {
            seen.push(match progress {
                Progress::Asked { attempt } => format!("asked {attempt}"),
                Progress::Text(text) => text.to_owned(),
                Progress::Retrying { error, .. } => error.kind().as_str().to_owned(),
            });
        })
        .await;
    (result, seen)
}

#[tokio::test(start_paused = true)]
async fn slow_starts_and_slow_ends() {
    for (name, script, kind, after_ms) in [
        ("no head", Script(5_000, Ok((200, None)), vec![]), Kind::Timeout, 2_000),
        (
            "no first token",
            Script(500, Ok((200, None)), vec![(100, ": still here\n\n"), (9_000, HELLO)]),
            Kind::Timeout,
            2_000,
        ),
        ("no end", Script(10, Ok((200, None)), vec![(10, HELLO), (60_000, DONE)]), Kind::Timeout, 20_000),
        ("cut", Script(10, Ok((200, None)), vec![(10, HELLO)]), Kind::Disconnected, 20),
        ("a slow refusal", Script(10, Ok((403, None)), vec![(60_000, "no")]), Kind::Refused, 2_000),
    ] {
        let asker = asker(LlmSettings { retries: 0, ..settings() }, vec![script]);
        let began = Instant::now();
        let error = ask(&asker).await.0.expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert_eq!(began.elapsed().as_millis(), after_ms, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn tries_again_and_tells_of_it() {
    let cut = Script(0, Ok((200, None)), vec![(0, HELLO)]);
    let busy = Script(0, Ok((429, Some(3 * S))), vec![(0, "later")]);
    let asker = asker(settings(), vec![cut, busy, good()]);
    let began = Instant::now();
    let (answer, seen) = ask(&asker).await;
    let answer = answer.unwrap();
    assert_eq!((answer.text.as_str(), answer.attempts), ("hello", 3));
    assert_eq!(seen, ["asked 1", "hello", "disconnected", "asked 2", "rate-limited", "asked 3", "hello"]);
    // 0.5..1 s of our own, 3 s of the server's.
    let took = began.elapsed();
    assert!((3 * S + S / 2..=4 * S + S / 10).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn gives_up() {
    let down = || Script(0, Ok((503, None)), vec![]);
    for (name, scripts, tries, kind) in [
        ("after the last try", vec![down(), down(), down()], 3, Kind::Server),
        ("at once when refused", vec![Script(0, Ok((401, None)), vec![])], 1, Kind::Refused),
        (
            "when the server wants too long a pause",
            vec![Script(0, Ok((429, Some(5 * S))), vec![])],
            1,
            Kind::RateLimited,
        ),
        (
            "when the time would be over",
            vec![Script(0, Ok((200, None)), vec![(1, HELLO), (19_700, "data: {\n\n")])],
            1,
            Kind::Malformed,
        ),
    ] {
        let asker = asker(LlmSettings { breaker_failures: 9, ..settings() }, scripts);
        let (result, _) = ask(&asker).await;
        assert_eq!(result.expect_err(name).kind(), kind, "{name}");
        assert_eq!(lock(&asker.transport.bodies).len(), tries, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_structured_output_is_asked_without() {
    let refuse = || Script(0, Ok((400, None)), vec![(0, "unknown field response_format")]);
    let asker = asker(settings(), vec![refuse(), good(), good(), refuse()]);
    for expected in [2, 1] {
        assert_eq!(ask(&asker).await.0.unwrap().attempts, expected, "the second query knows");
    }
    assert_eq!(ask(&asker).await.0.unwrap_err().kind(), Kind::Refused);
    let with = |body: &String| body.contains("response_format");
    assert_eq!(
        lock(&asker.transport.bodies).iter().map(with).collect::<Vec<_>>(),
        [true, false, false, false]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_is_left_alone_for_a_while() {
    let dead = || Script(0, Err(Kind::Connect), vec![]);
    let asker = asker(settings(), vec![dead(), dead(), dead(), good()]);
    assert_eq!(ask(&asker).await.0.unwrap_err().kind(), Kind::Connect);
    let began = Instant::now();
    assert_eq!(ask(&asker).await.0.unwrap_err().kind(), Kind::CircuitOpen);
    assert!(began.elapsed().is_zero(), "fails fast");
    sleep(30 * S).await;
    assert!(ask(&asker).await.0.is_ok());
    assert!(!asker.is_open(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_try_does_not_keep_the_breaker_waiting() {
    let hang = Script(1_000_000, Ok((200, None)), vec![]);
    let dead = Script(0, Err(Kind::Connect), vec![]);
    let settings = LlmSettings { retries: 0, breaker_failures: 1, ..settings() };
    let asker = Arc::new(asker(settings, vec![dead, hang, good()]));
    ask(&asker).await.0.unwrap_err();
    sleep(30 * S).await;
    let trying = tokio::spawn({
        let asker = asker.clone();
        async move { ask(&asker).await.0 }
    });
    sleep(S).await;
    assert_eq!(ask(&asker).await.0.unwrap_err().kind(), Kind::CircuitOpen, "one at a time");
    trying.abort();
    _ = trying.await;
    assert!(ask(&asker).await.0.is_ok(), "the next may try at once");
}

#[tokio::test(start_paused = true)]
async fn budgets_refuse_and_recover() {
    let asker = asker(LlmSettings { requests_per_minute: Some(1), ..settings() }, vec![good(), good()]);
    assert!(ask(&asker).await.0.is_ok());
    let error = ask(&asker).await.0.unwrap_err();
    assert_eq!(error.kind(), Kind::Budget, "{error}");
    sleep(60 * S).await;
    assert!(ask(&asker).await.0.is_ok());
}
