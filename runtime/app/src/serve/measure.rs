//! The one place where what a feed says becomes metrics, lines and log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use gst::prelude::*;
use gstsightline::{
    meta::META_NAME,
    query_record::{LATE_MESSAGE, LateRecord, QUERY_MESSAGE, QueryRecord},
    record::{FRAME_MESSAGE, FrameRecord},
};
use serde_json::json;
use sightline_core::Outcome;
use sightline_telemetry::{FeedMetrics, Masks};

use super::lines::Lines;
use crate::{
    feed::{LossCause, Mend, SourceEvent},
    observe::without_secrets,
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
    pub(crate) lost_since: Option<Instant>,
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
            _ => {
                self.small(structure);
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!(feed = self.feed, "a message does not read: {error:#}");
        }
    }

    fn small(&self, structure: &gst::StructureRef) {
        let Self { feed, metrics, .. } = self;
        let text = |field| structure.get::<String>(field).unwrap_or_default();
        let time = |field| Duration::from_nanos(structure.get::<u64>(field).unwrap_or_default());
        match structure.name().as_str() {
            "sightline-prompt-applied" => metrics.prompt(true),
            "sightline-prompt-refused" => {
                metrics.prompt(false);
                tracing::warn!(feed, "prompt refused: {}", text("reason"));
            }
            "sightline-caught-up" => metrics.caught_up(time("took")),
            "sightline-degrade" => {
                let (from, to, age) = (text("from"), text("to"), time("age"));
                let level = structure.get::<u32>("level").unwrap_or_default();
                metrics.degraded(&from, &to, level);
                tracing::info!(feed, from, to, level, ?age, "degrade ladder");
                let age_ms = age.as_secs_f64() * 1e3;
                self.event(&json!({"degrade": to, "from": from, "level": level, "age_ms": age_ms}));
            }
            "sightline-reacquired" => {
                let gap = time("gap");
                metrics.reacquired(gap);
                let id = structure.get::<u32>("id").unwrap_or_default();
                tracing::info!(feed, id, ?gap, "found again");
                self.event(&json!({"reacquired": id, "gap_ms": gap.as_secs_f64() * 1e3}));
            }
            _ => {}
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

    /// What the source says, for the log and the lines; [`count`] has counted it.
    pub(crate) fn source(&mut self, event: &SourceEvent) {
        let feed = &self.feed;
        match event {
            SourceEvent::Connected { after, caps } => {
                let gap_ms = self.lost_since.take().map(|since| since.elapsed().as_secs_f64() * 1e3);
                tracing::info!(feed, ?after, caps, "the source is there");
                if gap_ms.is_some() {
                    self.event(&json!({"camera": "back", "gap_ms": gap_ms}));
                }
            }
            SourceEvent::Lost { cause, detail } => {
                let (cause, detail) = (cause_name(*cause), without_secrets(detail));
                self.lost_since.get_or_insert_with(Instant::now);
                self.tally.lock().losses += 1;
                tracing::warn!(feed = self.feed, cause, "the source is lost: {detail}");
                self.event(&json!({"camera": "lost", "cause": cause}));
            }
            SourceEvent::Retrying { attempt, pause } => {
                tracing::debug!(feed, attempt, ?pause, "the source is tried again");
            }
            SourceEvent::Mended { what } => {
                tracing::debug!(feed, what = mend_name(*what), "a frame was put right")
            }
            SourceEvent::Ended => tracing::info!(feed, "the input is over"),
        }
    }

    fn line(&self, write: impl FnOnce(&mut JsonlWriter<Vec<u8>>) -> Result<()>) -> Result<()> {
        if let Some(lines) = &self.lines {
            let mut jsonl = JsonlWriter::over(Vec::with_capacity(1024));
            write(&mut jsonl)?;
            lines.put(jsonl.into_inner());
        }
        Ok(())
    }

    fn event(&self, value: &serde_json::Value) {
        if let Some(lines) = &self.lines {
            lines.put(format!("{value}\n").into_bytes());
        }
    }
}

/// Counts what the source says, on its own thread: nothing is lost between the two.
pub(crate) fn count(metrics: &FeedMetrics, event: &SourceEvent) {
    match event {
        SourceEvent::Connected { .. } => metrics.connected(),
        SourceEvent::Lost { cause, .. } => metrics.lost(cause_name(*cause)),
        SourceEvent::Retrying { .. } => metrics.retrying(),
        SourceEvent::Mended { what } => metrics.mended(mend_name(*what)),
        SourceEvent::Ended => {}
    }
}

/// Counts the buffers that pass `pad`, by whose masks they carry.
pub(crate) fn count_buffers(pad: &gst::Pad, metrics: &Arc<FeedMetrics>) {
    let metrics = Arc::clone(metrics);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let meta =
            info.buffer().and_then(|buffer| gst::meta::CustomMeta::from_buffer(buffer, META_NAME).ok());
        let age = meta.as_ref().and_then(|meta| meta.structure().get::<u64>("age").ok());
        let masks = match (&meta, age) {
            (None, _) => Masks::None,
            (Some(_), Some(0)) => Masks::Fresh,
            (Some(_), _) => Masks::Coasted,
        };
        metrics.buffer(masks, age.map(Duration::from_nanos));
        gst::PadProbeReturn::Ok
    });
}

fn cause_name(cause: LossCause) -> &'static str {
    match cause {
        LossCause::Eos => "eos",
        LossCause::Error => "error",
        LossCause::Silence => "silence",
        LossCause::NeverCame => "never-came",
    }
}

fn mend_name(what: Mend) -> &'static str {
    match what {
        Mend::Jump => "jump",
        Mend::Missing => "missing",
        Mend::Negative => "negative",
        Mend::Duplicate => "duplicate",
        Mend::Drift => "drift",
        Mend::Corrupt => "corrupt",
    }
}
