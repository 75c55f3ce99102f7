//! A run's camera: what its supervisor tells, as a person and a line of JSON have it.

use std::{sync::mpsc, time::Instant};

use anyhow::Result;

use super::input::Input;
use crate::feed::{News, Presence, SourceCounts, SourceEvent, SourceOptions, Supervised};

/// A supervised camera and its news.
pub(crate) struct Camera {
    source: Supervised,
    events: mpsc::Receiver<SourceEvent>,
    presence: Presence,
    known: bool,
    detail: String,
}

impl Camera {
    /// Begins to connect.
    pub(crate) fn start(input: &Input, into: &gst_app::AppSrc) -> Result<Self> {
        let (tell, events) = mpsc::channel();
        let source = Supervised::start("run", input, SourceOptions::default(), into, move |event| {
            // A run that is over does not listen any more.
            let _ = tell.send(event);
        })?;
        Ok(Self { source, events, presence: Presence::new(), known: false, detail: String::new() })
    }

    /// Since when there have been no frames.
    pub(crate) fn away_since(&self) -> Option<Instant> {
        self.presence.away_since()
    }

    /// What the last try came to.
    pub(crate) fn detail(&self) -> &str {
        if self.detail.is_empty() { "no frame yet" } else { &self.detail }
    }

    /// The next change, if there was one. Only changes are news: tries that fail one after the other are not.
    pub(crate) fn news(&mut self) -> Option<News> {
        while let Ok(event) = self.events.try_recv() {
            let mut still = false;
            match &event {
                SourceEvent::Connected { caps, .. } => {
                    tracing::debug!(caps, "camera connected");
                    self.known = true;
                }
                SourceEvent::Lost { detail, .. } => still = self.detail != *detail,
                SourceEvent::Retrying { attempt, pause } => tracing::debug!(attempt, ?pause, "camera: again"),
                SourceEvent::Mended { what } => tracing::debug!(what = what.as_str(), "camera: frame mended"),
                SourceEvent::Ended => {}
            }
            let news = self.presence.hear(&event, self.source.counts().since_last_frame);
            if let SourceEvent::Lost { detail, .. } = event {
                if still && news.is_none() {
                    tracing::info!("camera still away: {detail}");
                }
                self.detail = detail;
            }
            if news.is_some() {
                return news;
            }
        }
        None
    }

    /// Whether it ever brought a frame.
    pub(crate) fn known(&self) -> bool {
        self.known
    }

    /// Ends it.
    pub(crate) fn stop(self) -> SourceCounts {
        self.source.stop()
    }
}

/// What became of a camera, for the summary; empty if nothing is worth a word.
pub(crate) fn summary(counts: &SourceCounts) -> String {
    let listed = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| -> Vec<String> {
        pairs.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect()
    };
    let mut parts = Vec::new();
    let losses = listed(&mut counts.losses.iter().map(|(cause, count)| (cause.as_str(), *count)));
    if !losses.is_empty() {
        parts.push(format!("{} connections, lost: {}", counts.connects, losses.join(", ")));
    }
    let mended = listed(&mut counts.mended.iter().map(|(what, count)| (what.as_str(), *count)));
    if !mended.is_empty() {
        parts.push(format!("mended: {}", mended.join(", ")));
    }
    if counts.door_drops > 0 {
        parts.push(format!("turned away: {}", counts.door_drops));
    }
    parts.join("; ")
}
