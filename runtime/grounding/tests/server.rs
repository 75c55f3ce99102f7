//! The client and the hatch against a scripted server over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/scripted.rs"]
mod scripted;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use scripted::{End, Server, Step};
use sightline_grounding::{
    GroundingError, Hatch, Kind, Query, QueryId, QueryKind, Timeliness, Turn,
    hatch::{Ask, HatchSettings, News, Notice, Refusal},
    llm::{Answer, Client, Image, LlmSettings, Request},
    protocol::{ProblemKind, Sent},
    query::{State, Step as Next},
};

const MS: Duration = Duration::from_millis(1);
const BOX: &str = r#"{"text":"a red car","objects":[{"label":"car","box":[250,500,500,1000]}],"spans":[{"phrase":"red car","object":0}]}"#;

fn settings(server: &Server) -> LlmSettings {
    LlmSettings {
        url: server.url(),
        model: "m".into(),
        connect_timeout: 1000 * MS,
        first_token_timeout: 400 * MS,
        total_timeout: 1500 * MS,
        retries: 1,
        retry_base: 10 * MS,
        ..LlmSettings::default()
    }
}

fn request() -> Request {
    let image = Image::new(64, 32, vec![90; 64 * 32 * 3].into()).unwrap();
    Request { system: "s".into(), text: "find the car".into(), images: vec![image], ..Request::default() }
}

async fn ask(settings: LlmSettings) -> Result<Answer, GroundingError> {
    Client::new(settings).unwrap().ask(&request(), &mut |_| ()).await
}

/// Waits for something another thread or task does.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(5 * MS).await;
    }
    panic!("{what}: not within 5 s");
}

#[tokio::test]
async fn an_answer_streams_in() {
    let text = "één rode auto, 日本, en meer";
    let step = Step::Answer { text: text.into(), delay: 50 * MS, chunks: 5, pause: 5 * MS };
    let server = Server::steps(vec![step]).await;
    let mut texts = Vec::new();
    let client = Client::new(settings(&server)).unwrap();
    let answer = client
        .ask(&request(), &mut |progress| {
            if let sightline_grounding::llm::Progress::Text(text) = progress {
                texts.push(text.to_owned());
            }
        })
        .await
        .unwrap();
    assert_eq!((answer.text.as_str(), answer.attempts, answer.cut_off), (text, 1, false));
    assert_eq!(answer.usage.map(|usage| usage.prompt), Some(100));
    assert!(answer.first_token >= 50 * MS && answer.total >= answer.first_token + 20 * MS, "{answer:?}");
    assert!(texts.len() >= 3 && texts.windows(2).all(|pair| pair[1].starts_with(&pair[0])), "{texts:?}");
    assert_eq!(texts.last().map(String::as_str), Some(text));

    let seen = &server.seen()[0];
    assert_eq!((seen.path.as_str(), seen.text().as_str()), ("/v1/chat/completions", "find the car"));
    assert!(seen.images()[0].starts_with("data:image/jpeg;base64,/9j/"));
    assert_eq!((&seen.body["model"], &seen.body["stream"]), (&"m".into(), &true.into()));
    assert_eq!(seen.authorization, None);
}

#[tokio::test]
async fn every_fault_has_its_kind() {
    let text = || "half of this".to_owned();
    let status = |code| Step::Status { code, retry_after: None, body: "because".into() };
    for (name, step, kind, requests) in [
        ("429", status(429), Kind::RateLimited, 2),
        ("500", status(500), Kind::Server, 2),
        ("401", status(401), Kind::Refused, 1),
        ("307", status(307), Kind::Refused, 1),
        ("hang", Step::Hang, Kind::Timeout, 2),
        ("hang after the head", Step::HangAfterHead, Kind::Timeout, 2),
        ("hang in the middle", Step::HangMidStream { text: text() }, Kind::Timeout, 1),
        ("hang up in the middle", Step::HangUp { text: text() }, Kind::Disconnected, 2),
        ("end early", Step::EndEarly { text: text() }, Kind::Disconnected, 2),
        ("garbage", Step::Garbage, Kind::Malformed, 2),
        ("hang up at once", Step::Refuse, Kind::Disconnected, 2),
    ] {
        let server = Server::steps(vec![step]).await;
        let began = Instant::now();
        let error = ask(settings(&server)).await.expect_err(name);
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert_eq!(server.seen().len(), requests, "{name}");
        assert!(began.elapsed() < 6000 * MS, "{name}: {:?}", began.elapsed());
    }
    // TLS to one that speaks none: the handshake fails, and there is a provider to try it with.
    let server = Server::steps(vec![Step::Hang]).await;
    let tls = LlmSettings { url: server.url().replace("http:", "https:"), retries: 0, ..settings(&server) };
    let error = ask(tls).await.expect_err("no TLS");
    assert!(matches!(error.kind(), Kind::Connect | Kind::Timeout), "{error}");
    // A port nobody listens on.
    let server = Server::steps(vec![Step::Hang]).await;
    let dead = settings(&server);
    drop(server);
    tokio::time::sleep(20 * MS).await;
    assert_eq!(ask(dead).await.expect_err("nobody there").kind(), Kind::Connect);
}

#[tokio::test]
async fn faults_that_pass() {
    let busy = Step::Status { code: 429, retry_after: Some(1), body: "later".into() };
    let server = Server::steps(vec![busy, Step::answer("ok")]).await;
    let began = Instant::now();
    let answer = ask(LlmSettings { total_timeout: 9000 * MS, ..settings(&server) }).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.attempts), ("ok", 2));
    assert!(began.elapsed() >= 1000 * MS, "Retry-After was kept to");

    let server = Server::steps(vec![Step::Unstructured { text: BOX.into() }]).await;
    assert_eq!(ask(settings(&server)).await.unwrap().text, BOX);
    let seen = server.seen();
    assert!(seen[0].body["response_format"]["json_schema"]["schema"]["properties"]["objects"].is_object());
    assert!(seen[1].body.get("response_format").is_none());

    let server = Server::steps(vec![Step::Whole { text: "all".into(), delay: Duration::ZERO }]).await;
    assert_eq!(ask(settings(&server)).await.unwrap().text, "all", "a server that does not stream");

    let server = Server::steps(vec![Step::answer("x".repeat(1000))]).await;
    let error = ask(LlmSettings { max_answer_bytes: 100, ..settings(&server) }).await.expect_err("too long");
    assert_eq!(error.kind(), Kind::TooLong);
}

#[tokio::test]
async fn the_key_comes_from_the_environment_and_shows_nowhere() {
    let server = Server::steps(vec![Step::Status { code: 401, retry_after: None, body: "no".into() }]).await;
    // PATH is set wherever a test runs, and holds nothing secret.
    let with_key = |name: &str| LlmSettings { key_variable: Some(name.into()), ..settings(&server) };
    let client = Client::new(with_key("PATH")).unwrap();
    let error = client.ask(&request(), &mut |_| ()).await.unwrap_err();
    let path = std::env::var("PATH").unwrap();
    assert_eq!(server.seen()[0].authorization, Some(format!("Bearer {}", path.trim())));
    assert!(!format!("{client:?} {error:?}").contains(path.trim()), "{client:?}");
    let missing = Client::new(with_key("SIGHTLINE_NO_SUCH_KEY")).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "environment variable SIGHTLINE_NO_SUCH_KEY: expected the server's key, got nothing"
    );
}

#[tokio::test]
async fn dropping_the_question_hangs_up() {
    for (name, step) in [
        ("before the head", Step::Hang),
        ("after it", Step::HangAfterHead),
        ("in the middle", Step::HangMidStream { text: "abcd".into() }),
    ] {
        let server = Server::steps(vec![step]).await;
        let client = Client::new(LlmSettings {
            first_token_timeout: 60_000 * MS,
            total_timeout: 60_000 * MS,
            ..settings(&server)
        })
        .unwrap();
        let asked = tokio::time::timeout(200 * MS, client.ask(&request(), &mut |_| ())).await;
        assert!(asked.is_err(), "{name}: it should still be waiting");
        eventually(name, || server.seen()[0].end == End::ClientGone).await;
    }
}

fn query(hatch: &Hatch, id: u64, phrase: &str) -> Ask {
    let kind = QueryKind::Find { phrase: phrase.into() };
    let image = Image::new(64, 32, vec![90; 64 * 32 * 3].into()).unwrap();
    Ask {
        query: Query::new(QueryId(id), kind, Vec::new(), hatch.now(), 2000 * MS, 8000 * MS),
        images: vec![image],
        sent: Sent::whole([640, 320], [64, 32]).unwrap(),
        turns: vec![Turn { question: "q".into(), answer: "a".into() }],
        group: None,
    }
}

/// Collects until `ends` queries have ended.
async fn collect(hatch: &Hatch, ends: usize) -> Vec<Notice> {
    let mut notices = Vec::new();
    eventually("ends", || {
        notices.extend(std::iter::from_fn(|| hatch.poll()));
        notices.iter().filter(|notice| notice.query.state().is_final()).count() >= ends
    })
    .await;
    notices
}

#[tokio::test]
async fn through_the_hatch_and_back() {
    let slow = Step::Answer { text: BOX.into(), delay: 2300 * MS, chunks: 2, pause: Duration::ZERO };
    let wrong = r#"{"text":"t","objects":[{"label":"x","box":[900,0,100,10]}]}"#;
    let server = Server::start("127.0.0.1:0", move |seen, _| {
        if seen.text().contains("slow") {
            slow.clone()
        } else if seen.text().contains("wrong") {
            Step::answer(wrong)
        } else {
            Step::answer(BOX)
        }
    })
    .await
    .unwrap();
    let news = Arc::new(AtomicUsize::new(0));
    let counter = news.clone();
    let hatch = Hatch::open(
        LlmSettings { first_token_timeout: 8000 * MS, total_timeout: 9000 * MS, ..settings(&server) },
        HatchSettings::default(),
        Some(Box::new(move || _ = counter.fetch_add(1, Ordering::SeqCst))),
    )
    .unwrap();
    for (id, phrase) in [(1, "the car"), (2, "something slow"), (3, "something wrong")] {
        hatch.ask(query(&hatch, id, phrase)).unwrap();
    }
    let notices = collect(&hatch, 3).await;
    let end =
        |id: u64| notices.iter().find(|n| n.query.id == QueryId(id) && n.query.state().is_final()).unwrap();
    let reading = |id: u64| match &end(id).news {
        News::Answered { reading, .. } => reading.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(end(1).query.state(), State::Answered(Timeliness::OnTime));
    assert_eq!(end(2).query.state(), State::Answered(Timeliness::Late), "2300 ms, wanted within 2000");
    let bounds = reading(1).objects[0].bounds.unwrap();
    assert_eq!(bounds.to_pixels(640, 320), [160.0, 160.0, 320.0, 320.0]);
    assert_eq!(reading(1).spans.len(), 1);
    assert!(reading(3).objects.is_empty());
    assert_eq!(reading(3).problems[0].kind, ProblemKind::Unordered);
    assert!(news.load(Ordering::SeqCst) >= 3);
    assert_eq!(
        server.seen()[0].body["messages"].as_array().unwrap().len(),
        4,
        "system, a turn, the question"
    );

    let counts = hatch.counts();
    assert_eq!((counts.accepted, counts.ended()), (3, 3));
    assert_eq!((counts.answered["on-time"], counts.answered["late"]), (2, 1));
    hatch.close();
}

#[tokio::test]
async fn a_hung_server_holds_up_nobody() {
    let server = Server::steps(vec![Step::Hang]).await;
    let patient =
        LlmSettings { first_token_timeout: 60_000 * MS, total_timeout: 60_000 * MS, ..settings(&server) };
    let hatch = Hatch::open(patient, HatchSettings { depth: 4, at_once: 1 }, None).unwrap();
    let began = Instant::now();
    for id in 0..4 {
        hatch.ask(query(&hatch, id, "x")).unwrap();
    }
    for id in 4..1000 {
        assert_eq!(hatch.ask(query(&hatch, id, "x")), Err(Refusal::Full));
    }
    assert!(began.elapsed() < 3000 * MS, "{:?}", began.elapsed());
    assert_eq!(hatch.counts().refused["full"], 996);

    eventually("the first is asked", || server.seen().len() == 1).await;
    assert!(hatch.cancel(QueryId(0)));
    assert!(!hatch.cancel(QueryId(0)), "only once");
    eventually("the server knows", || server.seen()[0].end == End::ClientGone).await;
    assert_eq!(
        hatch.ask(query(&hatch, 5000, "x")),
        Err(Refusal::Uncollected),
        "its end waits to be collected"
    );
    assert_eq!(collect(&hatch, 1).await[0].news, News::Cancelled);
    assert!(hatch.ask(query(&hatch, 5000, "x")).is_ok());
    assert_eq!(hatch.ask(query(&hatch, 5000, "x")), Err(Refusal::Duplicate));
    assert_eq!(hatch.ask(query(&hatch, 5001, "x")), Err(Refusal::Full));
    let mut ended = query(&hatch, 5002, "x");
    ended.query.step(Next::Cancel, hatch.now()).unwrap();
    assert_eq!(hatch.ask(ended), Err(Refusal::NotQueued));

    eventually("the next is asked", || server.seen().len() == 2).await;
    let began = Instant::now();
    drop(hatch);
    assert!(began.elapsed() < 500 * MS, "dropping does not wait: {:?}", began.elapsed());
    eventually("what was under way is hung up", || server.seen()[1].end == End::ClientGone).await;
}

#[tokio::test]
async fn the_newest_of_a_group_counts() {
    let slow = Step::Answer { text: "{}".into(), delay: 200 * MS, chunks: 1, pause: Duration::ZERO };
    let server = Server::steps(vec![slow]).await;
    let hatch = Hatch::open(settings(&server), HatchSettings { depth: 8, at_once: 1 }, None).unwrap();
    for id in 0..4 {
        hatch.ask(Ask { group: Some(7), ..query(&hatch, id, &format!("caption {id}")) }).unwrap();
        if id == 0 {
            eventually("the first is under way", || server.seen().len() == 1).await;
        }
    }
    let notices = collect(&hatch, 4).await;
    let state = |id: u64| {
        notices
            .iter()
            .find(|n| n.query.id == QueryId(id) && n.query.state().is_final())
            .unwrap()
            .query
            .state()
    };
    assert!(matches!((state(0), state(3)), (State::Answered(_), State::Answered(_))));
    assert_eq!((state(1), state(2)), (State::Superseded(QueryId(2)), State::Superseded(QueryId(3))));
    assert_eq!(server.seen().len(), 2);
}

/// Whatever the server does, every query that was let in ends once, and the books agree.
#[tokio::test]
async fn every_query_ends_once() {
    let server = Server::start("127.0.0.1:0", |_, n| match n % 7 {
        0 => Step::answer(BOX),
        1 => Step::Status { code: 500, retry_after: None, body: String::new() },
        2 => Step::Hang,
        3 => Step::HangUp { text: "abcdef".into() },
        4 => Step::Garbage,
        5 => Step::answer("no JSON at all"),
        _ => Step::Refuse,
    })
    .await
    .unwrap();
    let quick = LlmSettings {
        first_token_timeout: 50 * MS,
        total_timeout: 200 * MS,
        breaker_failures: 4,
        breaker_pause: 30 * MS,
        ..settings(&server)
    };
    let hatch = Hatch::open(quick, HatchSettings { depth: 6, at_once: 3 }, None).unwrap();
    let (mut accepted, mut refused, mut ends) = (0, 0, std::collections::BTreeMap::new());
    for id in 0..120_u64 {
        match hatch.ask(Ask { group: (id % 5 == 0).then_some(1), ..query(&hatch, id, "x") }) {
            Ok(()) => accepted += 1,
            Err(_) => refused += 1,
        }
        if id % 11 == 3 {
            hatch.cancel(QueryId(id));
        }
        tokio::time::sleep(8 * MS).await;
        for notice in std::iter::from_fn(|| hatch.poll()) {
            if notice.query.state().is_final() {
                *ends.entry(notice.query.id).or_insert(0) += 1;
            }
        }
    }
    eventually("all ends", || {
        for notice in std::iter::from_fn(|| hatch.poll()).filter(|notice| notice.query.state().is_final()) {
            *ends.entry(notice.query.id).or_insert(0) += 1;
        }
        ends.len() == accepted
    })
    .await;
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
    let counts = hatch.counts();
    assert_eq!(counts.accepted as usize, accepted);
    assert_eq!(counts.ended() as usize, accepted);
    assert_eq!(counts.refused.values().sum::<u64>(), refused);
    assert!(counts.failed.len() >= 2 && !counts.answered.is_empty(), "{counts:?}");
}

#[tokio::test]
async fn what_waited_too_long_is_not_asked() {
    let slow = Step::Answer { text: "{}".into(), delay: 200 * MS, chunks: 1, pause: Duration::ZERO };
    let server = Server::steps(vec![slow]).await;
    let hatch = Hatch::open(settings(&server), HatchSettings { depth: 4, at_once: 1 }, None).unwrap();
    hatch.ask(query(&hatch, 1, "x")).unwrap();
    let mut hurried = query(&hatch, 2, "y");
    hurried.query.expiry = hatch.now() + 50 * MS;
    hurried.query.deadline = hurried.query.expiry;
    hatch.ask(hurried).unwrap();
    let mut other = query(&hatch, 3, "z");
    other.sent = Sent::whole([640, 320], [32, 32]).unwrap();
    hatch.ask(other).unwrap();
    let notices = collect(&hatch, 3).await;
    let unlike = notices.iter().find(|notice| notice.query.id == QueryId(3)).unwrap();
    let News::Failed(error) = &unlike.news else { panic!("{unlike:?}") };
    assert_eq!(error.to_string(), "pictures of query 3: expected 1 of 32x32, got [Image(64x32)]");
    let expired = notices.iter().find(|notice| notice.query.id == QueryId(2)).unwrap();
    assert_eq!(expired.query.state(), State::Failed(Kind::Expired));
    assert_eq!(server.seen().len(), 1);
}
