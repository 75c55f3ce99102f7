//! One feed: a corridor of its own on a thread of its own, built anew when it fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use gst::prelude::*;
use sightline_config::{FeedSettings, Settings};
use sightline_telemetry::FeedMetrics;

use super::{
    corridor::{self, Corridor},
    lines::Lines,
    measure::{Measure, SharedTally},
};
use crate::{
    feed::{Backoff, Presence, SourceCounts, SourceEvent, SourceOptions, Supervised},
    observe::{FeedHealth, Phase},
    run::Input,
};

/// The loop goes round at least so often.
const ROUND: Duration = Duration::from_millis(100);
/// Counts are taken from the source and the element so often.
const COUNTS: Duration = Duration::from_secs(1);
/// What the source says on its way to the log. Full: `DropNewest`; it counts by itself.
const EVENTS: usize = 256;
/// Pauses before a corridor that failed is built anew: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];
/// A corridor that played for so long was sound.
const SOUND: Duration = Duration::from_secs(60);
/// How long the last frames have once the input is over.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// What a feed's thread works with.
pub(crate) struct Feed {
    pub(crate) name: String,
    pub(crate) feed: FeedSettings,
    pub(crate) settings: Arc<Settings>,
    pub(crate) metrics: Arc<FeedMetrics>,
    pub(crate) health: Arc<FeedHealth>,
    pub(crate) tally: SharedTally,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Why a corridor is no more, when nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stopped,
    Over,
}

impl Feed {
    /// Plays until the stop, or until its input is over.
    pub(crate) fn run(self) {
        let lines = self.feed.jsonl.as_deref().map(|path| Lines::start(&self.name, path, &self.metrics));
        let lines = lines.transpose().unwrap_or_else(|error| {
            tracing::error!(feed = self.name, "no lines will be written: {error:#}");
            None
        });
        let mut measure = Measure {
            feed: self.name.clone(),
            metrics: Arc::clone(&self.metrics),
            tally: self.tally.clone(),
            lines,
            server: self.settings.llm.url.is_some(),
            looked_at: None,
            presence: Presence::new(),
        };
        let mut pauses = Backoff::jittered(PAUSES[0]);
        let end = loop {
            if self.stopped() {
                break End::Stopped;
            }
            let begun = Instant::now();
            match self.play(&mut measure) {
                Ok(end) => break end,
                Err(error) => {
                    if begun.elapsed() > SOUND {
                        pauses.reset();
                    }
                    let pause = pauses.next(PAUSES[1]);
                    let reason = format!("{error:#}");
                    self.health.trouble(&reason);
                    self.health.enter(Phase::Waiting);
                    tracing::error!(feed = self.name, ?pause, "failed, and is built anew: {reason}");
                    measure.restarted(&reason);
                    self.wait(pause);
                    self.metrics.restarted();
                    self.tally.lock().restarts += 1;
                }
            }
        };
        self.metrics.up(false);
        self.metrics.camera_rate(0.0);
        if let Some(lines) = measure.lines.take() {
            lines.finish();
        }
        self.health.enter(if end == End::Over { Phase::Ended } else { Phase::Stopping });
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn wait(&self, pause: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < pause && !self.stopped() {
            self.health.tick(None, 0);
            std::thread::sleep(ROUND.min(pause));
        }
    }

    /// One corridor, from being built to its end.
    fn play(&self, measure: &mut Measure) -> Result<End> {
        self.health.enter(Phase::Loading);
        let input = Input::parse(&self.feed.input)?;
        let corridor = corridor::build(&self.name, &self.feed, &self.settings, &self.metrics)?;
        // Running times begin anew.
        measure.looked_at = None;
        self.metrics.began();
        let result = self.play_in(&corridor, &input, measure);
        self.metrics.up(false);
        // First to READY: the outcomes of the last frames are told before the bus is emptied.
        for state in [gst::State::Ready, gst::State::Null] {
            if corridor.pipeline.set_state(state).is_err() {
                tracing::debug!(feed = self.name, ?state, "the corridor did not stop cleanly");
            }
            while let Some(message) = corridor.bus.pop() {
                if let Some(structure) = element_structure(&message) {
                    measure.message(structure);
                }
            }
        }
        result
    }

    fn play_in(&self, corridor: &Corridor, input: &Input, measure: &mut Measure) -> Result<End> {
        if corridor.pipeline.set_state(gst::State::Playing).is_err() {
            return Err(reason_on_bus(&corridor.bus));
        }
        let stats = corridor.track.property::<gst::Structure>("stats");
        self.metrics.model(self.model(), stats.get::<&str>("engine")?);
        let (sender, events) = sync_channel(EVENTS);
        let metrics = Arc::clone(&self.metrics);
        let told = move |event: SourceEvent| {
            if matches!(event, SourceEvent::Retrying { .. }) {
                metrics.retrying();
            }
            let _ = sender.try_send(event);
        };
        let source = Supervised::start(&self.name, input, self.options(), &corridor.entry, told)?;
        self.health.enter(Phase::Running);
        let mut counted = Counted { at: Instant::now(), counts: None, joined_runs: 0 };
        let end = self.watch(corridor, &source, &events, measure, &mut counted);
        counted.bring_up_to_date(&source.stop(), joined_runs(&corridor.track), measure);
        end
    }

    fn watch(
        &self,
        corridor: &Corridor,
        source: &Supervised,
        events: &Receiver<SourceEvent>,
        measure: &mut Measure,
        counted: &mut Counted,
    ) -> Result<End> {
        let mut over: Option<Instant> = None;
        loop {
            if self.stopped() {
                return Ok(End::Stopped);
            }
            let round = gst::ClockTime::try_from(ROUND).unwrap_or(gst::ClockTime::SECOND);
            // One round's worth at most, so that a flood of messages cannot keep the rest waiting.
            let begun = Instant::now();
            let mut next = corridor.bus.timed_pop(round);
            while let Some(message) = next {
                if let Some(end) = self.message(&message, corridor, measure)? {
                    return Ok(end);
                }
                next = if begun.elapsed() < ROUND * 2 { corridor.bus.pop() } else { None };
            }
            let counts = source.counts();
            for event in events.try_iter().take(EVENTS) {
                measure.source(&event, counts.since_last_frame);
                match &event {
                    SourceEvent::Connected { .. } => self.health.trouble(""),
                    SourceEvent::Lost { detail, .. } => self.health.trouble(detail),
                    SourceEvent::Ended => {
                        over.get_or_insert_with(Instant::now);
                        // Refused where the corridor is on its way down already.
                        let _ = corridor.entry.end_of_stream();
                    }
                    _ => {}
                }
            }
            if over.is_some_and(|since| since.elapsed() > LAST_FRAMES) {
                return Ok(End::Over);
            }
            self.health.tick(counts.since_last_frame, self.tally.lock().answered());
            self.metrics.up(counts.up);
            if counted.at.elapsed() >= COUNTS {
                counted.bring_up_to_date(&counts, joined_runs(&corridor.track), measure);
                self.tally.lock().latency = latency(&corridor.track);
            }
        }
    }

    fn message(
        &self,
        message: &gst::Message,
        corridor: &Corridor,
        measure: &mut Measure,
    ) -> Result<Option<End>> {
        match message.view() {
            gst::MessageView::Element(_) => {
                if let Some(structure) = element_structure(message) {
                    measure.message(structure);
                }
            }
            gst::MessageView::Eos(_) => return Ok(Some(End::Over)),
            gst::MessageView::Error(error) => return Err(explained(error)),
            gst::MessageView::Warning(warning) => {
                let text = warning.error().message().to_owned();
                // Refused prompts are told by their own message.
                if !text.starts_with("prompt refused") {
                    tracing::warn!(feed = self.name, "{text}");
                }
            }
            gst::MessageView::Latency(_) => {
                if let Err(error) = corridor.pipeline.recalculate_latency() {
                    tracing::debug!(feed = self.name, %error, "cannot work out the latency");
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn model(&self) -> &str {
        self.feed.model.as_deref().unwrap_or(&self.settings.model.name)
    }

    fn options(&self) -> SourceOptions {
        let serve = &self.settings.serve;
        SourceOptions {
            connect_timeout: serve.connect_timeout,
            silence: serve.silence,
            retry_base: serve.retry_base,
            retry_cap: serve.retry_cap,
            rtsp_latency: serve.rtsp_latency,
            transport: self.feed.transport,
            loop_file: self.feed.repeat,
            pace: None,
        }
    }
}

/// What of the source was added to the counters so far.
struct Counted {
    at: Instant,
    counts: Option<SourceCounts>,
    joined_runs: u64,
}

impl Counted {
    fn bring_up_to_date(&mut self, now: &SourceCounts, joined_runs: u64, measure: &Measure) {
        measure.counts(self.counts.as_ref(), now, self.at.elapsed().as_secs_f64());
        measure.metrics.joined_runs(joined_runs.saturating_sub(self.joined_runs));
        *self = Self { at: Instant::now(), counts: Some(now.clone()), joined_runs };
    }
}

/// Runs of shared engines that were done together with other feeds', since the pipeline was built.
fn joined_runs(track: &gst::Element) -> u64 {
    let stats = track.property::<Option<gst::Structure>>("stats");
    stats.and_then(|stats| stats.get::<u64>("joined-runs").ok()).unwrap_or(0)
}

/// p50 and p99 of frame to mask.
fn latency(track: &gst::Element) -> Option<[Duration; 2]> {
    let stats = track.property::<Option<gst::Structure>>("stats")?;
    let part = |name| stats.get::<u64>(name).ok().map(Duration::from_nanos);
    Some([part("latency-p50")?, part("latency-p99")?])
}

fn element_structure(message: &gst::Message) -> Option<&gst::StructureRef> {
    (message.type_() == gst::MessageType::Element).then(|| message.structure()).flatten()
}

fn explained(error: &gst::message::Error) -> anyhow::Error {
    let (what, element) = (error.error(), error.src().map(|source| source.name().to_string()));
    let text = what.message().trim().trim_end_matches('.').to_owned();
    match element.as_deref() {
        // Our element says everything in the message.
        Some("track") | None => anyhow!(text),
        Some(element) => anyhow!("element {element:?} failed: {text}"),
    }
}

/// The first error on the bus, when the pipeline did not even start.
fn reason_on_bus(bus: &gst::Bus) -> anyhow::Error {
    let patience = gst::ClockTime::from_mseconds(100);
    let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Error]);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => explained(error),
        _ => anyhow!("the corridor refused to play"),
    }
}

/// Starts the thread.
pub(crate) fn spawn(feed: Feed) -> Result<std::thread::JoinHandle<()>> {
    let name = format!("serve-{}", feed.name);
    std::thread::Builder::new().name(name).spawn(move || feed.run()).context("cannot start a feed's thread")
}
