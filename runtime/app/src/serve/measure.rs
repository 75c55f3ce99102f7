//! The one place where what a feed says becomes metrics, lines and log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use gst::prelude::*;
use gstsightline::{
    live_record::LiveRecord,
    meta::META_NAME,
    query_record::{LATE_MESSAGE, LateRecord, QUERY_MESSAGE, QueryRecord},
    record::{CAUGHT_UP_MESSAGE, FRAME_MESSAGE, FrameRecord, PROMPT_APPLIED_MESSAGE, PROMPT_REFUSED_MESSAGE},
};
use sightline_core::{Outcome, SkipReason};
use sightline_telemetry::{FeedMetrics, Masks};

use super::lines::Lines;
use crate::{
    feed::{LossCause, News, Presence, SourceCounts, SourceEvent},
    run::jsonl::JsonlWriter,
};

/// What tables show of a feed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) camera_frames: u64,
    pub(crate) camera_rate: f64,
    pub(crate) masks: u64,
    pub(crate) no_object: u64,
    pub(crate) skipped: BTreeMap<&'static str, u64>,
    pub(crate) losses: u64,
    pub(crate) restarts: u64,
    /// p50 and p99 of frame to mask, since the pipeline was built.
    pub(crate) latency: Option<[Duration; 2]>,
}

impl Tally {
    /// Frames that came to more than being superseded.
    pub(crate) fn answered(&self) -> u64 {
        let superseded = SkipReason::Superseded.as_str();
        let skipped = self.skipped.iter().filter(|(reason, _)| **reason != superseded);
        self.masks + self.no_object + skipped.map(|(_, count)| count).sum::<u64>()
    }
}

/// A feed's tally, shared with who shows it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedTally(Arc<Mutex<Tally>>);

impl SharedTally {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what a feed's pipeline says.
pub(crate) struct Measure {
    pub(crate) feed: String,
    pub(crate) metrics: Arc<FeedMetrics>,
    pub(crate) tally: SharedTally,
    pub(crate) lines: Option<Lines>,
    /// Whether questions go to a language model.
    pub(crate) server: bool,
    /// Running time of the newest frame that was looked at.
    pub(crate) looked_at: Option<Duration>,
    pub(crate) presence: Presence,
}

impl Measure {
    /// An element message of the pipeline. Those of others are not looked at.
    pub(crate) fn message(&mut self, structure: &gst::StructureRef) {
        let result = match structure.name().as_str() {
            FRAME_MESSAGE => self.frame(structure),
            QUERY_MESSAGE => self.query(structure),
            LATE_MESSAGE => LateRecord::from_structure(structure)
                .map_err(Into::into)
                .and_then(|record| self.line(|jsonl| jsonl.write_late(&record))),
            _ => self.small(structure),
        };
        if let Err(error) = result {
            tracing::warn!(feed = self.feed, "a message does not read: {error:#}");
        }
    }

    fn small(&self, structure: &gst::StructureRef) -> Result<()> {
        let Self { feed, metrics, .. } = self;
        match structure.name().as_str() {
            PROMPT_APPLIED_MESSAGE => metrics.prompt(true),
            PROMPT_REFUSED_MESSAGE => {
                metrics.prompt(false);
                let reason = structure.get::<String>("reason").unwrap_or_default();
                tracing::warn!(feed, "prompt refused: {reason}");
            }
            CAUGHT_UP_MESSAGE => metrics.caught_up(Duration::from_nanos(structure.get("took")?)),
            _ => {
                if let Some(record) = LiveRecord::from_structure(structure)? {
                    self.live(&record);
                    self.line(|jsonl| jsonl.write_live(&record))?;
                }
            }
        }
        Ok(())
    }

    fn live(&self, record: &LiveRecord) {
        let Self { feed, metrics, .. } = self;
        match record {
            LiveRecord::Degrade { from, to, age } => {
                metrics.degraded(*from, *to);
                tracing::info!(feed, %from, %to, ?age, "degrade ladder");
            }
            LiveRecord::Tracks { state, ids, gap } => {
                metrics.objects_now(*state, ids.len());
                tracing::info!(feed, objects = ids.len(), ?gap, "no frames: objects are {}", state.as_str());
            }
            LiveRecord::Reacquired { id, gap, .. } => {
                metrics.reacquired(*gap);
                tracing::info!(feed, id = id.0, ?gap, "found again");
            }
        }
    }

    fn frame(&mut self, structure: &gst::StructureRef) -> Result<()> {
        let record = FrameRecord::from_structure(structure)?;
        self.metrics.frame(record.outcome, record.latency, &record.stages);
        {
            let mut tally = self.tally.lock();
            match record.outcome {
                Outcome::Masks => tally.masks += 1,
                Outcome::NoObject => tally.no_object += 1,
                Outcome::Skipped(reason) => *tally.skipped.entry(reason.as_str()).or_default() += 1,
            }
        }
        if record.outcome.skip_reason().is_none() {
            self.metrics.objects(record.objects.iter().map(|object| object.state));
            self.looked_at = self.looked_at.max(record.frame.running_time);
        }
        let age = record.frame.running_time.zip(self.looked_at).map(|(now, then)| now.saturating_sub(then));
        self.line(|jsonl| jsonl.write(&record, age))
    }

    fn query(&self, structure: &gst::StructureRef) -> Result<()> {
        let record = QueryRecord::from_structure(structure)?;
        self.metrics.query(&record.state, record.delay, self.server);
        let (feed, delay_s) = (&self.feed, record.delay.as_secs_f64());
        let QueryRecord { id, kind, words, state, reason, text, .. } = &record;
        match state.as_str() {
            "refused" | "failed" => tracing::warn!(feed, id, kind, words, "{state}: {reason}"),
            "answered" | "alert" => tracing::info!(feed, id, kind, words, delay_s, "{state}: {text}"),
            _ => tracing::debug!(feed, id, kind, words, "{state}"),
        }
        self.line(|jsonl| jsonl.write_query(&record))
    }

    /// What the source says; `silent` is how long ago its newest frame came. Tries that fail one after the other are one
    /// loss, to whoever reads.
    pub(crate) fn source(&mut self, event: &SourceEvent, silent: Option<Duration>) {
        let feed = self.feed.clone();
        match event {
            SourceEvent::Connected { after, caps } => {
                tracing::info!(feed, ?after, caps, "the source is there");
            }
            SourceEvent::Lost { cause, detail } => {
                tracing::debug!(feed, cause = cause.as_str(), "a try came to an end: {detail}");
            }
            SourceEvent::Retrying { attempt, pause } => {
                tracing::debug!(feed, attempt, ?pause, "the source is tried again");
            }
            SourceEvent::Mended { what } => {
                tracing::debug!(feed, what = what.as_str(), "frames were put right");
            }
            SourceEvent::Ended => tracing::info!(feed, "the input is over"),
        }
        let Some(news) = self.presence.hear(event, silent) else { return };
        if let News::Lost { cause, detail } = &news {
            tracing::warn!(feed, cause = cause.as_str(), "the source is lost: {detail}");
        }
        self.say(|jsonl| jsonl.write_camera(&news));
    }

    /// The corridor failed and is built anew.
    pub(crate) fn restarted(&self, reason: &str) {
        self.say(|jsonl| jsonl.write_restart(reason));
    }

    fn say(&self, write: impl FnOnce(&mut JsonlWriter<Vec<u8>>) -> Result<()>) {
        if let Err(error) = self.line(write) {
            tracing::warn!(feed = self.feed, "cannot write a line: {error:#}");
        }
    }

    /// What has come of the source since it was asked last, over `seconds`.
    pub(crate) fn counts(&self, before: Option<&SourceCounts>, now: &SourceCounts, seconds: f64) {
        let since = |of: fn(&SourceCounts) -> u64| of(now).saturating_sub(before.map_or(0, of));
        let frames = since(|counts| counts.frames);
        self.metrics.camera_frames(frames, since(|counts| counts.door_drops));
        self.metrics.camera_connects(since(|counts| counts.connects), since(|counts| counts.left_behind));
        // A moment is too short to say.
        let rate = (seconds > 0.5).then(|| frames as f64 / seconds);
        if let Some(rate) = rate {
            self.metrics.camera_rate(rate);
        }
        let mut losses = 0;
        for (at, (cause, times)) in now.losses.iter().enumerate() {
            let times = times.saturating_sub(before.map_or(0, |before| before.losses[at].1));
            self.metrics.lost(cause.as_str(), times);
            // A try that brings nothing loses nothing.
            losses += if *cause == LossCause::NeverCame { 0 } else { times };
        }
        for (at, (what, times)) in now.mended.iter().enumerate() {
            let times = times.saturating_sub(before.map_or(0, |before| before.mended[at].1));
            self.metrics.mended(what.as_str(), times);
        }
        let mut tally = self.tally.lock();
        tally.camera_frames += frames;
        tally.camera_rate = rate.unwrap_or(tally.camera_rate);
        tally.losses += losses;
    }

    fn line(&self, write: impl FnOnce(&mut JsonlWriter<Vec<u8>>) -> Result<()>) -> Result<()> {
        if let Some(lines) = &self.lines {
            let mut jsonl = JsonlWriter::over(Vec::with_capacity(1024));
            write(&mut jsonl)?;
            lines.put(jsonl.into_inner());
        }
        Ok(())
    }
}

/// Counts the buffers that pass `pad`, by whose masks they carry.
pub(crate) fn count_buffers(pad: &gst::Pad, metrics: &Arc<FeedMetrics>) {
    let metrics = Arc::clone(metrics);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let meta =
            info.buffer().and_then(|buffer| gst::meta::CustomMeta::from_buffer(buffer, META_NAME).ok());
        let age = |field| {
            let ns = meta.as_ref().and_then(|meta| meta.structure().get::<u64>(field).ok());
            ns.map(Duration::from_nanos)
        };
        let looked_age = age("looked-age");
        let masks = match (&meta, looked_age) {
            (None, _) => Masks::None,
            (Some(_), Some(Duration::ZERO)) => Masks::Fresh,
            (Some(_), _) => Masks::Coasted,
        };
        metrics.buffer(masks, age("age"), looked_age);
        gst::PadProbeReturn::Ok
    });
}
