//! What others see of a running process: `/metrics`, `/healthz` and `/readyz`.

mod health;
mod http;

use std::{net::SocketAddr, sync::Arc, time::Instant};

use anyhow::Result;
use serde::Serialize;
use sightline_telemetry::Telemetry;

pub(crate) use self::health::{FeedHealth, Phase, without_secrets};
use self::http::{Limits, Reply, Server};

const INDEX: &str = "\
sightline serve
/metrics   measurements, in Prometheus' text format
/healthz   200 while the process is alive and every feed's loop goes round
/readyz    200 while every feed's model is loaded and frames come; else who does not, and why
";
const JSON: &str = "application/json";

/// A feed that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Complaint {
    feed: String,
    why: String,
}

#[derive(Serialize)]
struct Verdict<'a> {
    ok: bool,
    feeds: usize,
    complaints: &'a [Complaint],
}

/// What is served, and from what.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) telemetry: Telemetry,
    pub(crate) feeds: Vec<Arc<FeedHealth>>,
}

/// Serves until it is dropped.
pub(crate) struct Observe(Server);

impl Observe {
    /// Begins to serve at `listen`.
    pub(crate) fn start(listen: SocketAddr, view: View) -> Result<Self> {
        Server::start(listen, Limits::default(), move |path| view.answer(path)).map(Self)
    }

    /// Where; the port is known even where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

impl View {
    fn answer(&self, path: &str) -> Option<Reply> {
        Some(match path {
            "/" => Reply { status: 200, content_type: "text/plain", body: INDEX.into() },
            "/metrics" => Reply {
                status: 200,
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                body: self.telemetry.render(),
            },
            "/healthz" => self.verdict(FeedHealth::why_not_alive),
            "/readyz" => self.verdict(FeedHealth::why_not_ready),
            _ => return None,
        })
    }

    fn verdict(&self, why: impl Fn(&FeedHealth, Instant) -> Option<String>) -> Reply {
        let now = Instant::now();
        let complaint =
            |feed: &Arc<FeedHealth>| Some(Complaint { feed: feed.name().into(), why: why(feed, now)? });
        let complaints: Vec<Complaint> = self.feeds.iter().filter_map(complaint).collect();
        let verdict = Verdict { ok: complaints.is_empty(), feeds: self.feeds.len(), complaints: &complaints };
        let status = if verdict.ok { 200 } else { 503 };
        let body = serde_json::to_string(&verdict).unwrap_or_default() + "\n";
        Reply { status, content_type: JSON, body }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn body(reply: &Reply) -> serde_json::Value {
        serde_json::from_str(&reply.body).unwrap()
    }

    #[test]
    fn health_and_readiness_name_who_fails_and_why() {
        let silence = Duration::from_secs(3600);
        let feeds = ["gate", "yard"].map(|name| Arc::new(FeedHealth::new(name, silence)));
        let view = View { telemetry: Telemetry::new().unwrap(), feeds: feeds.clone().into() };
        let ready = view.answer("/readyz").unwrap();
        assert_eq!((ready.status, body(&ready)["complaints"].as_array().unwrap().len()), (503, 2));
        assert_eq!(view.answer("/healthz").unwrap().status, 200, "starting is alive");
        for feed in &feeds {
            feed.enter(Phase::Running);
            feed.tick(Some(Duration::ZERO), 0);
        }
        let ready = view.answer("/readyz").unwrap();
        assert_eq!(
            (ready.status, body(&ready)),
            (200, serde_json::json!({"ok": true, "feeds": 2, "complaints": []}))
        );
        feeds[1].trouble("input \"rtsp://admin:secret@cam/1\": connection refused");
        feeds[1].enter(Phase::Waiting);
        let ready = view.answer("/readyz").unwrap();
        assert_eq!(ready.status, 503);
        assert_eq!(body(&ready)["complaints"][0]["feed"], "yard");
        assert!(
            ready.body.contains("connection refused") && !ready.body.contains("secret"),
            "{}",
            ready.body
        );
        assert!(view.answer("/nothing").is_none());
        assert!(view.answer("/metrics").unwrap().body.is_empty(), "nothing measured yet");
    }
}
