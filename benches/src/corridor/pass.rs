//! One pipeline, run once: what entered, what left, what the elements said of it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use gstsightline::{
    meta::META_NAME,
    record::{FRAME_MESSAGE, FrameRecord},
};

/// What is the same for every pipeline.
pub(crate) struct Setup {
    pub(crate) input: PathBuf,
    /// As `sightlinetrack` takes them.
    pub(crate) prompts: String,
    pub(crate) model: String,
    pub(crate) threads: u32,
    pub(crate) until: Option<gst::ClockTime>,
    pub(crate) warmup: usize,
    /// Where the recording goes; overwritten every time.
    pub(crate) encoded: PathBuf,
}

/// A pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// What the file costs without us.
    Decode,
    /// Every frame, as fast as it goes.
    EveryFrame,
    /// The same, drawn and encoded, as `sightline run --output` does it.
    Recorded,
    /// At the file's own pace.
    Live,
}

impl Pass {
    pub(crate) const ALL: [Self; 4] = [Self::Decode, Self::EveryFrame, Self::Recorded, Self::Live];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::EveryFrame => "every-frame",
            Self::Recorded => "every-frame-recorded",
            Self::Live => "live",
        }
    }

    pub(crate) fn tracks(self) -> bool {
        self != Self::Decode
    }

    /// For `gst_parse_launch`; locations and the tracker's settings are set afterwards.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Decode => "filesrc name=from ! decodebin ! fakesink name=end sync=false",
            Self::EveryFrame => {
                "filesrc name=from ! decodebin ! sightlinetrack name=track mode=every-frame \
                 ! fakesink name=end sync=false"
            }
            // runtime/app/src/run/pipeline.rs, with the settings of configs/default.toml.
            Self::Recorded => {
                "filesrc name=from ! decodebin \
                 ! queue name=entry max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! videoconvert \
                 ! videoflip video-direction=auto ! sightlinetrack name=track mode=every-frame \
                 ! sightlineoverlay ! queue max-size-buffers=8 max-size-bytes=0 max-size-time=0 \
                 ! videoconvert ! videoscale ! video/x-raw,format=(string){I420,NV12} \
                 ! x264enc pass=qual quantizer=23 speed-preset=superfast ! h264parse \
                 ! mp4mux faststart=true ! filesink name=to sync=false async=false"
            }
            Self::Live => {
                "filesrc name=from ! decodebin \
                 ! queue name=entry max-size-buffers=4 max-size-bytes=0 max-size-time=0 ! videoconvert \
                 ! clocksync ! sightlinetrack name=track mode=live ! fakesink name=end sync=false"
            }
        }
    }
}

/// A buffer on its way through `sightlinetrack` (where there is none: at the sink).
#[derive(Debug, Clone, Copy)]
pub(crate) struct BufferRow {
    /// Since the pipeline was started.
    pub(crate) entered: Duration,
    /// From the sink pad to the source pad; in every-frame mode that is the wait for its masks.
    pub(crate) streaming: Duration,
    /// Whether the kernel took the processor away from the thread in between; `None` where it does not tell.
    pub(crate) preempted: Option<bool>,
    /// The age of the masks it left with; `None` without masks.
    pub(crate) mask_age: Option<Duration>,
    /// Decoded frames that waited behind it.
    pub(crate) queued: Option<u32>,
}

/// What a run gave.
pub(crate) struct Measured {
    pub(crate) buffers: Vec<BufferRow>,
    /// In the order of their indices.
    pub(crate) frames: Vec<FrameRecord>,
    /// From the entry of the first buffer that counts to the end of the stream.
    pub(crate) counted: Duration,
    /// What `sightlinetrack` counted, warm-up included.
    pub(crate) stats: BTreeMap<String, u64>,
    /// As negotiated at the tracker, or at the sink.
    pub(crate) caps: String,
}

impl Measured {
    /// Frames a second from the warm-up's end to the end of the stream.
    pub(crate) fn rate(&self, warmup: usize) -> f64 {
        self.buffers.len().saturating_sub(warmup) as f64 / self.counted.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Runs a pipeline to its end.
pub(crate) fn run(pass: Pass, setup: &Setup) -> Result<Measured> {
    let pipeline = gst::parse::launch(pass.description())?
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow::anyhow!("expected a pipeline"))?;
    named(&pipeline, "from")?.set_property("location", setup.input.to_string_lossy().as_ref());
    if let Some(file) = pipeline.by_name("to") {
        file.set_property("location", setup.encoded.to_string_lossy().as_ref());
    }
    let track = pipeline.by_name("track");
    if let Some(track) = &track {
        track.set_property("model", &setup.model);
        track.set_property("threads", setup.threads);
        track.set_property("prompts", &setup.prompts);
    }
    let watched = track.clone().map_or_else(|| named(&pipeline, "end"), Ok)?;
    let sink = watched.static_pad("sink").context("no sink pad")?;
    let probes = Arc::new(Mutex::new(Probes::default()));
    watch_entry(&sink, &probes, setup.until, pipeline.by_name("entry"));
    if let Some(pad) = watched.static_pad("src") {
        watch_exit(&pad, &probes);
    }

    // Records are read when all is over: reading them costs as much as writing them did.
    let mut messages = Vec::new();
    let mut caps = String::new();
    let begun = Instant::now();
    let ended = play(&pipeline, |message| {
        if message.structure().is_some_and(|structure| structure.name() == FRAME_MESSAGE) {
            messages.push(message.clone());
        }
        if caps.is_empty() {
            caps = sink.current_caps().map(|caps| caps.to_string()).unwrap_or_default();
        }
    })?;
    let mut frames = messages
        .iter()
        .filter_map(|message| message.structure())
        .map(FrameRecord::from_structure)
        .collect::<Result<Vec<_>, _>>()?;
    frames.sort_by_key(|record| record.frame.index);
    let probes = probes.lock().unwrap_or_else(PoisonError::into_inner);
    let buffers: Vec<BufferRow> = probes.rows(begun);
    let Some(first) = buffers.get(setup.warmup) else {
        bail!("expected more than the {} buffers of the warm-up, got {}", setup.warmup, buffers.len());
    };
    Ok(Measured {
        counted: ended.saturating_duration_since(begun + first.entered),
        stats: track.map(|track| stats(&track)).unwrap_or_default(),
        buffers,
        frames,
        caps,
    })
}

fn stats(track: &gst::Element) -> BTreeMap<String, u64> {
    let Some(stats) = track.property::<Option<gst::Structure>>("stats") else { return BTreeMap::new() };
    let fields = stats.iter().filter_map(|(name, value)| Some((name.to_string(), value.get().ok()?)));
    fields.collect()
}

/// An element of a pipeline.
pub(crate) fn named(pipeline: &gst::Pipeline, name: &str) -> Result<gst::Element> {
    pipeline.by_name(name).with_context(|| format!("no element {name:?}"))
}

/// Plays to the end of the stream and says when that was; every message is shown to `see`.
pub(crate) fn play(pipeline: &gst::Pipeline, mut see: impl FnMut(&gst::Message)) -> Result<Instant> {
    let bus = pipeline.bus().context("a pipeline without a bus")?;
    let mut outcome =
        pipeline.set_state(gst::State::Playing).map(|_| ()).context("the pipeline does not start");
    let mut ended = Instant::now();
    // Errors say more than a failed state change, so they are looked for in either case.
    let wait = if outcome.is_ok() { gst::ClockTime::from_seconds(60) } else { gst::ClockTime::ZERO };
    loop {
        let Some(message) = bus.timed_pop(wait) else {
            if outcome.is_ok() {
                outcome = Err(anyhow::anyhow!("expected the end of the stream, got nothing for 60 s"));
            }
            break;
        };
        match message.view() {
            gst::MessageView::Eos(_) => {
                ended = Instant::now();
                break;
            }
            gst::MessageView::Error(error) => {
                let from = error.src().map(|source| source.name().to_string()).unwrap_or_default();
                outcome = Err(anyhow::anyhow!("{from}: {}", error.error()));
                break;
            }
            _ => see(&message),
        }
    }
    let stopped = pipeline.set_state(gst::State::Null).map(|_| ()).context("the pipeline does not stop");
    // Outcomes that were told on the way down.
    bus.iter().for_each(|message| see(&message));
    outcome.and(stopped).map(|()| ended)
}

#[derive(Debug, Default)]
struct Probes {
    rows: Vec<(Instant, BufferRow)>,
    /// The last row is still inside the element.
    inside: Option<(Instant, Option<u64>)>,
    closed: bool,
}

impl Probes {
    fn rows(&self, begun: Instant) -> Vec<BufferRow> {
        let rows = self.rows.iter();
        rows.map(|(at, row)| BufferRow { entered: at.saturating_duration_since(begun), ..*row }).collect()
    }
}

fn watch_entry(
    pad: &gst::Pad,
    probes: &Arc<Mutex<Probes>>,
    until: Option<gst::ClockTime>,
    queue: Option<gst::Element>,
) {
    let probes = Arc::clone(probes);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let late = until.is_some_and(|until| {
            info.buffer().and_then(|buffer| buffer.pts()).is_some_and(|pts| pts >= until)
        });
        let queued = queue.as_ref().map(|queue| queue.property::<u32>("current-level-buffers"));
        let mut probes = probes.lock().unwrap_or_else(PoisonError::into_inner);
        if late || probes.closed {
            let first = !std::mem::replace(&mut probes.closed, true);
            drop(probes);
            if first {
                pad.send_event(gst::event::Eos::new());
            }
            // Not Drop: GStreamer 1.22 then complains, on a sink pad, of a buffer that is gone already.
            return gst::PadProbeReturn::Handled;
        }
        let row = BufferRow {
            entered: Duration::ZERO,
            streaming: Duration::ZERO,
            preempted: None,
            mask_age: None,
            queued,
        };
        let before = preemptions();
        // Nothing of ours comes between this and the element.
        let now = Instant::now();
        probes.rows.push((now, row));
        probes.inside = Some((now, before));
        gst::PadProbeReturn::Ok
    });
}

fn watch_exit(pad: &gst::Pad, probes: &Arc<Mutex<Probes>>) {
    let probes = Arc::clone(probes);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let now = Instant::now();
        let after = preemptions();
        let age = info.buffer().and_then(|buffer| {
            let meta = gst::meta::CustomMeta::from_buffer(buffer, META_NAME).ok()?;
            meta.structure().get::<u64>("age").ok().map(Duration::from_nanos)
        });
        let mut probes = probes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((entered, before)) = probes.inside.take()
            && let Some((_, row)) = probes.rows.last_mut()
        {
            row.streaming = now - entered;
            row.preempted = before.zip(after).map(|(before, after)| before != after);
            row.mask_age = age;
        }
        gst::PadProbeReturn::Ok
    });
}

/// How often this thread has lost its processor against its will. On a busy machine the wall clock mostly measures
/// the neighbours; buffers without one of these are the element's own.
fn preemptions() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?.trim().parse().ok()
}
