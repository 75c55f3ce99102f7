//! The main thread of a run: it reads the bus, writes the lines, shows the state and decides when to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use gst::prelude::*;
use gstsightline::{
    live_record::LiveRecord,
    meta::META_NAME,
    query_record::{LATE_MESSAGE, LateRecord, QUERY_MESSAGE, QueryRecord},
    record::{FRAME_MESSAGE, FrameRecord, PROMPT_REFUSED_MESSAGE},
};

use super::{
    camera::Camera,
    failure,
    input::Input,
    jsonl::JsonlWriter,
    pipeline::Corridor,
    prompts::{MISFIT, MISFIT_TEXT},
    status::Status,
};
use crate::{
    cli::RunArgs,
    feed::{LossCause, News, SourceCounts, source::NO_VIDEO},
};

/// A camera's stamps lie behind the clock by less.
const BEHIND: gst::ClockTime = gst::ClockTime::SECOND;
/// A file's decoder that has found nothing by then will not: on a busy machine one of a truncated file was seen to fall
/// silent without an error.
const START: Duration = Duration::from_secs(30);
/// How long a stopped source may take to deliver the buffer that carries the end.
const LAST_BUFFER: Duration = Duration::from_secs(2);
/// How long the encoder and the muxer may take to finish.
const FINISHING: Duration = Duration::from_secs(30);
const NO_AGE: u64 = u64::MAX;

/// What is watched, and what was seen.
pub(crate) struct Watch<'a> {
    corridor: &'a Corridor,
    bus: gst::Bus,
    input_text: &'a str,
    input: &'a Input,
    camera: Option<Camera>,
    jsonl: Option<JsonlWriter>,
    status: Status,
    /// Running time of the newest frame that was looked at.
    looked_at: Option<Duration>,
    /// Age in ms of the masks on the newest buffer.
    age_ms: Arc<AtomicU64>,
    missing: Option<String>,
    interrupted: Arc<AtomicBool>,
    signals: Vec<gst::glib::SourceId>,
    stopping: Option<Instant>,
    complete: bool,
    /// The model is loaded by then, which may take its time.
    playing_since: Instant,
}

/// A stream that is over.
pub(crate) struct Ended<'a> {
    pub(crate) watch: Watch<'a>,
    pub(crate) failure: Option<anyhow::Error>,
    /// The outputs were told of the end and are complete.
    pub(crate) complete: bool,
}

/// Whether to go on.
enum Next {
    Continue,
    Done,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        corridor: &'a Corridor,
        args: &'a RunArgs,
        input: &'a Input,
        jsonl: Option<JsonlWriter>,
    ) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        // SIGINT and SIGTERM. The handler goes after the first signal, so the second one has its usual effect.
        let signals = [2, 15].map(|signal| {
            let interrupted = Arc::clone(&interrupted);
            glib_unix::unix_signal_add(signal, move || {
                interrupted.store(true, Ordering::Release);
                gst::glib::ControlFlow::Break
            })
        });
        let age_ms = Arc::new(AtomicU64::new(NO_AGE));
        let pad = corridor.overlay.static_pad("src").context("sightlineoverlay has no source pad")?;
        watch_age(&pad, Arc::clone(&age_ms));
        Ok(Self {
            bus: corridor.pipeline.bus().context("the pipeline has no bus")?,
            corridor,
            input_text: &args.input,
            input,
            camera: None,
            jsonl,
            status: Status::new(),
            looked_at: None,
            age_ms,
            missing: None,
            interrupted,
            signals: signals.into(),
            stopping: None,
            complete: false,
            playing_since: Instant::now(),
        })
    }

    /// Plays until the end, an error, or a signal.
    pub(crate) fn run(mut self) -> Ended<'a> {
        let mut failure = None;
        if self.corridor.pipeline.set_state(gst::State::Playing).is_err() {
            // The reason waits on the bus.
            tracing::debug!("the pipeline refused to play");
            failure = self.reason_on_bus().or_else(|| Some(anyhow!("the pipeline refused to play")));
            return Ended { watch: self, failure, complete: false };
        }
        self.playing_since = Instant::now();
        if let Some(into) = &self.corridor.camera {
            match Camera::start(self.input, into) {
                Ok(camera) => self.camera = Some(camera),
                Err(error) => return Ended { watch: self, failure: Some(error), complete: false },
            }
            if let Some(until) = self.corridor.gate.until() {
                self.status.set_duration(until.into());
            }
        }
        let context = gst::glib::MainContext::default();
        let mut signals_seen = false;
        loop {
            while context.iteration(false) {}
            if !signals_seen && self.interrupted.load(Ordering::Acquire) {
                signals_seen = true;
                self.status.clear();
                tracing::info!("stopping; once more to stop at once");
                self.stop();
            }
            if let Some(message) = self.bus.timed_pop(gst::ClockTime::from_mseconds(50)) {
                match self.handle(&message, &mut failure) {
                    Next::Continue => {}
                    Next::Done => break,
                }
            }
            if let Next::Done = self.look_after(&mut failure) {
                break;
            }
            let age = self.age_ms.load(Ordering::Relaxed);
            self.status.show((self.camera.is_some() && age != NO_AGE).then(|| Duration::from_millis(age)));
        }
        self.status.clear();
        let complete = self.complete;
        Ended { watch: self, failure, complete }
    }

    fn stop(&mut self) {
        self.corridor.gate.close();
        self.stopping.get_or_insert_with(Instant::now);
    }

    /// Time-outs, and the length of a file once it is known.
    fn look_after(&mut self, failure: &mut Option<anyhow::Error>) -> Next {
        if let Next::Done = self.look_after_camera(failure) {
            return Next::Done;
        }
        if self.stopping.is_none()
            && self.playing_since.elapsed() > START
            && !self.corridor.has_found_something()
        {
            let (input, seconds) = (self.input_text, START.as_secs());
            failure.get_or_insert_with(|| {
                anyhow!("input {input:?}: expected a video that can be decoded, got nothing in {seconds} s")
            });
            return Next::Done;
        }
        match self.stopping {
            Some(since) if since.elapsed() > LAST_BUFFER + FINISHING => {
                tracing::warn!("the output did not finish in time");
                return Next::Done;
            }
            Some(since) if since.elapsed() > LAST_BUFFER => self.corridor.gate.close_now(),
            _ => {}
        }
        if self.camera.is_none()
            && let Some(duration) = self.corridor.pipeline.query_duration::<gst::ClockTime>()
        {
            self.status.set_duration(
                self.corridor.gate.until().map_or(duration, |until| until.min(duration)).into(),
            );
        }
        Next::Continue
    }

    /// Says what became of the camera, and ends a run whose time is over while there is none.
    fn look_after_camera(&mut self, failure: &mut Option<anyhow::Error>) -> Next {
        while let Some(news) = self.camera.as_mut().and_then(Camera::news) {
            self.status.clear();
            match &news {
                News::Lost { cause, detail } => {
                    if *cause == LossCause::NeverCame {
                        tracing::warn!("camera not reached, trying until it is there: {detail}");
                    } else {
                        tracing::warn!("camera lost ({}), trying until it is back: {detail}", cause.as_str());
                    }
                }
                News::Back { gap } => tracing::info!("camera back after {:.1} s", gap.as_secs_f64()),
                News::Ended => {
                    // In order, behind the frames that still wait.
                    if let Some(Err(error)) = self.corridor.camera.as_ref().map(|into| into.end_of_stream()) {
                        tracing::debug!(%error, "the corridor had ended already");
                    }
                    continue;
                }
            }
            self.write(Ok(news), failure, JsonlWriter::write_camera);
        }
        let Some(camera) = &self.camera else { return Next::Continue };
        let away = camera.away_since();
        self.status.set_away(away);
        if let (None, Some(until), Some(now)) =
            (self.stopping, self.corridor.gate.until(), self.corridor.pipeline.current_running_time())
            && now >= if away.is_some() { until } else { until + BEHIND }
        {
            self.stop();
        }
        let Some(camera) = &self.camera else { return Next::Continue };
        if self.stopping.is_some() && away.is_some() {
            if !camera.known() {
                failure.get_or_insert_with(|| {
                    anyhow!(
                        "input {:?}: expected a camera that can be reached, got: {}",
                        self.input_text,
                        camera.detail()
                    )
                });
                return Next::Done;
            }
            self.corridor.gate.close_now();
        }
        Next::Continue
    }

    /// Ends the camera, if there is one: what became of it.
    pub(crate) fn stop_camera(&mut self) -> Option<SourceCounts> {
        self.camera.take().map(Camera::stop)
    }

    fn handle(&mut self, message: &gst::Message, failure: &mut Option<anyhow::Error>) -> Next {
        match message.view() {
            gst::MessageView::Element(element) => {
                if let Some(structure) = element.structure() {
                    if structure.name() == FRAME_MESSAGE {
                        self.frame(structure, failure);
                    } else if structure.name() == QUERY_MESSAGE {
                        return self.query(structure, failure);
                    } else if structure.name() == LATE_MESSAGE {
                        let late = LateRecord::from_structure(structure).map_err(anyhow::Error::from);
                        self.write(late, failure, |jsonl, late| jsonl.write_late(late));
                    } else if structure.name() == PROMPT_REFUSED_MESSAGE {
                        let reason = structure.get::<String>("reason").unwrap_or_default();
                        failure.get_or_insert_with(|| anyhow!("prompt refused: {reason}"));
                        return Next::Done;
                    } else if let Some(live) = LiveRecord::from_structure(structure).transpose() {
                        if let Ok(LiveRecord::Degrade { from, to, age }) = &live {
                            self.status.clear();
                            tracing::info!("masks were {} ms old: from {from} to {to}", age.as_millis());
                        }
                        self.write(live.map_err(Into::into), failure, JsonlWriter::write_live);
                    } else if let Some(missing) = failure::missing_plugin(structure) {
                        self.missing.get_or_insert(missing);
                    }
                }
            }
            gst::MessageView::Eos(_) => {
                self.complete = true;
                return Next::Done;
            }
            gst::MessageView::Error(error) => {
                let fatal = error.src().is_none_or(|source| !super::pipeline::is_input(source));
                let explained = failure::explain(error, self.input_text, self.missing.as_deref());
                failure.get_or_insert(explained);
                if fatal || self.status.counts.total() == 0 {
                    return Next::Done;
                }
                // What was seen before the source failed is worth keeping: let the muxer finish.
                self.stop();
                self.corridor.gate.close_now();
            }
            gst::MessageView::Application(application) => {
                let Some(structure) = application.structure() else { return Next::Continue };
                let text = match structure.name().as_str() {
                    NO_VIDEO => format!(
                        "input {:?}: expected a video, got a file without a picture in it",
                        self.input_text
                    ),
                    MISFIT => structure.get::<String>(MISFIT_TEXT).unwrap_or_default(),
                    _ => return Next::Continue,
                };
                failure.get_or_insert_with(|| anyhow!(text));
                return Next::Done;
            }
            gst::MessageView::Warning(warning) => {
                let text = warning.error().message().to_owned();
                // A refused prompt ends the run and is reported as its failure.
                if !text.starts_with("prompt refused") {
                    self.status.clear();
                    let element = message.src().map(|source| source.name().to_string()).unwrap_or_default();
                    tracing::warn!(%element, "{text}");
                }
            }
            gst::MessageView::Latency(_) => {
                if let Err(error) = self.corridor.pipeline.recalculate_latency() {
                    tracing::warn!(%error, "cannot work out the latency");
                }
            }
            _ => {}
        }
        Next::Continue
    }

    /// Writes something that came, or keeps why it could not be.
    fn write<T>(
        &mut self,
        record: Result<T>,
        failure: &mut Option<anyhow::Error>,
        write: impl FnOnce(&mut JsonlWriter, &T) -> Result<()>,
    ) {
        let written =
            record.and_then(|record| self.jsonl.as_mut().map_or(Ok(()), |jsonl| write(jsonl, &record)));
        if let Err(error) = written {
            failure.get_or_insert(error);
            self.stop();
        }
    }

    fn query(&mut self, structure: &gst::StructureRef, failure: &mut Option<anyhow::Error>) -> Next {
        let record = match QueryRecord::from_structure(structure) {
            Ok(record) => record,
            Err(error) => {
                failure.get_or_insert(error.into());
                return Next::Done;
            }
        };
        self.status.clear();
        let delay_s = record.delay.as_secs_f64();
        let QueryRecord { id, kind, words, state, reason, text, .. } = &record;
        match state.as_str() {
            "refused" => {
                failure.get_or_insert_with(|| anyhow!("{kind} {words:?} refused: {reason}"));
                return Next::Done;
            }
            "failed" => tracing::warn!(id, kind, words, "no answer: {reason}"),
            "answered" | "alert" => {
                let objects: Vec<u32> =
                    record.objects.iter().filter_map(|object| Some(object.id?.0)).collect();
                tracing::info!(id, kind, words, timeliness = reason, delay_s, ?objects, "{state}: {text}");
            }
            _ => tracing::debug!(id, kind, words, "{state}"),
        }
        self.write(Ok(record), failure, |jsonl, record| jsonl.write_query(record));
        Next::Continue
    }

    fn frame(&mut self, structure: &gst::StructureRef, failure: &mut Option<anyhow::Error>) {
        let record = match FrameRecord::from_structure(structure) {
            Ok(record) => record,
            Err(error) => {
                failure.get_or_insert(anyhow!(error).context("a frame's outcome does not read"));
                return;
            }
        };
        self.status.frame(&record);
        if record.outcome.skip_reason().is_none() {
            self.looked_at = self.looked_at.max(record.frame.running_time);
        }
        let age = record.frame.running_time.zip(self.looked_at).map(|(now, then)| now.saturating_sub(then));
        if let Some(jsonl) = &mut self.jsonl
            && let Err(error) = jsonl.write(&record, age)
        {
            // A full disk: one report, and the run ends.
            self.jsonl = None;
            failure.get_or_insert(error.context("cannot write the JSON lines"));
            self.stop();
        }
    }

    /// The first error on the bus, when the pipeline did not even start.
    fn reason_on_bus(&mut self) -> Option<anyhow::Error> {
        let mut failure = None;
        while let Some(message) = self.bus.timed_pop(gst::ClockTime::from_mseconds(100)) {
            if let Next::Done = self.handle(&message, &mut failure) {
                break;
            }
        }
        failure
    }

    /// Reads what is still on the bus.
    pub(crate) fn drain(&mut self, failure: &mut Option<anyhow::Error>) {
        while let Some(message) = self.bus.pop() {
            if let gst::MessageView::Element(_) = message.view() {
                self.handle(&message, failure);
            }
        }
    }

    /// Closes the lines and hands over the counts.
    pub(crate) fn finish(mut self, failure: &mut Option<anyhow::Error>) -> Status {
        if !self.interrupted.load(Ordering::Acquire) {
            // One that has fired has removed itself.
            self.signals.drain(..).for_each(gst::glib::SourceId::remove);
        }
        if let Some(jsonl) = self.jsonl.take()
            && let Err(error) = jsonl.finish()
        {
            failure.get_or_insert(error.context("cannot write the JSON lines"));
        }
        self.status
    }
}

/// Notes how old the masks are that pass by; the masks themselves are not read.
fn watch_age(pad: &gst::Pad, age_ms: Arc<AtomicU64>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let age = info
            .buffer()
            .and_then(|buffer| gst::meta::CustomMeta::from_buffer(buffer, META_NAME).ok())
            .and_then(|meta| meta.structure().get::<u64>("age").ok());
        age_ms.store(age.map_or(NO_AGE, |ns| ns / 1_000_000), Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
}
