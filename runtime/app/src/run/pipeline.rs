//! The pipeline of a run: source, corridor, overlay, and what was asked for behind it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use sightline_config::OutputSettings;

use super::{gate::Gate, input::Input};
use crate::elements::{self, make};

/// Names of the elements that stand for the input.
const INPUT: &str = "input";
const DECODER: &str = "input-decoder";

/// Whether a message's source is the input or something inside it.
pub(crate) fn is_input(source: &gst::Object) -> bool {
    let mut at = Some(source.clone());
    while let Some(object) = at {
        if [INPUT, DECODER].contains(&object.name().as_str()) {
            return true;
        }
        at = object.parent();
    }
    false
}

/// What is to be built.
pub(crate) struct Plan<'a> {
    pub(crate) input: &'a Input,
    /// Frames may be passed over.
    pub(crate) live: bool,
    pub(crate) output: Option<&'a Path>,
    pub(crate) display: bool,
    pub(crate) settings: &'a OutputSettings,
    pub(crate) until: Option<gst::ClockTime>,
}

/// What was built.
pub(crate) struct Corridor {
    pub(crate) pipeline: gst::Pipeline,
    pub(crate) overlay: gst::Element,
    pub(crate) gate: Gate,
    /// Queues that may drop, with what they are called in the summary.
    pub(crate) leaks: Vec<(&'static str, Leak)>,
}

/// Counts what a queue took and what it gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leak {
    taken: Arc<AtomicU64>,
    given: Arc<AtomicU64>,
}

impl Leak {
    fn watch(queue: &gst::Element) -> Self {
        let leak = Self::default();
        for (name, count) in [("sink", &leak.taken), ("src", &leak.given)] {
            if let Some(pad) = queue.static_pad(name) {
                let count = Arc::clone(count);
                pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                    count.fetch_add(1, Ordering::Relaxed);
                    gst::PadProbeReturn::Ok
                });
            }
        }
        leak
    }

    /// Buffers that were dropped, once the stream has ended.
    pub(crate) fn dropped(&self) -> u64 {
        self.taken.load(Ordering::Relaxed).saturating_sub(self.given.load(Ordering::Relaxed))
    }
}

/// Builds it. `track` is `sightlinetrack`, its properties set.
pub(crate) fn build(plan: &Plan<'_>, track: &gst::Element) -> Result<Corridor> {
    let pipeline = gst::Pipeline::with_name("sightline");
    let entry = queue("decoded", 4, false)?;
    let convert = make("videoconvert", "the input")?;
    let turn = make("videoflip", "the input")?;
    turn.set_property_from_str("video-direction", "auto");
    let overlay = make("sightlineoverlay", "the run")?;
    let mut chain = vec![entry.clone(), convert, turn];
    if plan.live && !plan.input.is_camera() && *plan.input != Input::Test {
        // A file in live mode plays at its own pace, as a camera would deliver it.
        chain.push(make("clocksync", "--mode live with a file")?);
    }
    let last_before_track = chain.last().cloned().unwrap_or_else(|| entry.clone());
    chain.extend([track.clone(), overlay.clone()]);
    add_and_link(&pipeline, &chain)?;
    let pad =
        last_before_track.static_pad("src").context("an element before sightlinetrack has no source pad")?;
    let gate = Gate::install(pad, plan.until);
    let leaks = add_outputs(&pipeline, &overlay, plan)?;
    add_source(&pipeline, &entry, plan)?;
    Ok(Corridor { pipeline, overlay, gate, leaks })
}

fn add_and_link(pipeline: &gst::Pipeline, chain: &[gst::Element]) -> Result<()> {
    pipeline.add_many(chain)?;
    let names: Vec<_> = chain.iter().map(|element| element.name().to_string()).collect();
    gst::Element::link_many(chain).with_context(|| format!("cannot link {}", names.join(" ! ")))
}

/// Bounded by buffers alone. When full it blocks, or drops the oldest.
fn queue(name: &str, depth: u32, drop_oldest: bool) -> Result<gst::Element> {
    let queue = make("queue", "the run")?;
    queue.set_property("name", name);
    queue.set_property("max-size-buffers", depth);
    queue.set_property("max-size-bytes", 0_u32);
    queue.set_property("max-size-time", 0_u64);
    if drop_oldest {
        queue.set_property_from_str("leaky", "downstream");
    }
    Ok(queue)
}

fn add_source(pipeline: &gst::Pipeline, entry: &gst::Element, plan: &Plan<'_>) -> Result<()> {
    match plan.input {
        Input::Test => {
            let source = make("videotestsrc", "--input test")?;
            source.set_property("name", INPUT);
            source.set_property_from_str("pattern", "ball");
            source.set_property("is-live", plan.live);
            if !plan.live && plan.until.is_none() {
                source.set_property("num-buffers", 300);
            }
            let filter = make("capsfilter", "--input test")?;
            let caps = gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", 640)
                .field("height", 360)
                .field("framerate", gst::Fraction::new(30, 1))
                .build();
            filter.set_property("caps", caps);
            pipeline.add_many([&source, &filter])?;
            gst::Element::link_many([&source, &filter, entry]).context("cannot link the test picture")
        }
        Input::Camera(path) => {
            let source = make("v4l2src", "a camera on this machine")?;
            source.set_property("name", INPUT);
            source.set_property("device", path.to_string_lossy().as_ref());
            let decode = make("decodebin", "the input")?;
            decode.set_property("name", DECODER);
            pipeline.add_many([&source, &decode])?;
            source.link(&decode).context("cannot link the camera")?;
            link_first_video(&decode, entry);
            Ok(())
        }
        Input::File(uri) | Input::Stream(uri) | Input::NetworkCamera(uri) => {
            if plan.input.is_camera() {
                make("rtspsrc", "a network camera")?;
            }
            let decode = make("uridecodebin", "the input")?;
            decode.set_property("name", INPUT);
            decode.set_property("uri", uri);
            // Sound is handed out as it is, and taken by nobody: nothing is spent on decoding it.
            decode.connect("autoplug-continue", false, |values| {
                let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
                let is_sound = caps.is_some_and(|caps| {
                    caps.structure(0).is_some_and(|structure| structure.name().starts_with("audio/"))
                });
                Some((!is_sound).to_value())
            });
            decode.connect("source-setup", false, |values| {
                let source = values.get(1)?.get::<gst::Element>().ok()?;
                if source.factory().is_some_and(|factory| factory.name() == "rtspsrc") {
                    // Enough to put packets back in order; 2 s, the default, is a long time to look away.
                    source.set_property("latency", 200_u32);
                    source.set_property("drop-on-latency", true);
                }
                None
            });
            pipeline.add(&decode)?;
            link_first_video(&decode, entry);
            Ok(())
        }
    }
}

/// Name of the application message that says the input has no video in it.
pub(crate) const NO_VIDEO: &str = "sightline-no-video";

fn link_first_video(decode: &gst::Element, entry: &gst::Element) {
    let sink = entry.static_pad("sink");
    let weak = entry.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let Some(sink) = weak.upgrade().and_then(|entry| entry.static_pad("sink")) else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let is_video = caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/"));
        if is_video && !sink.is_linked() {
            // A refusal shows as a not-negotiated error on the bus.
            let _ = pad.link(&sink);
        }
    });
    decode.connect_no_more_pads(move |decode| {
        if sink.as_ref().is_some_and(|sink| !sink.is_linked()) {
            let message = gst::message::Application::new(gst::Structure::new_empty(NO_VIDEO));
            // Without a bus nobody is listening.
            let _ = decode.post_message(message);
        }
    });
}

fn add_outputs(
    pipeline: &gst::Pipeline,
    overlay: &gst::Element,
    plan: &Plan<'_>,
) -> Result<Vec<(&'static str, Leak)>> {
    let mut leaks = Vec::new();
    let mut branches: Vec<Vec<gst::Element>> = Vec::new();
    if let Some(path) = plan.output {
        let mut branch = recording(path, plan)?;
        let depth = if plan.live { 30 } else { 8 };
        let queue = queue("to-record", depth, plan.live)?;
        leaks.push(("not recorded, encoder too slow", Leak::watch(&queue)));
        branch.insert(0, queue);
        branches.push(branch);
    }
    if plan.display {
        let queue = queue("to-show", 3, plan.live)?;
        leaks.push(("not shown, display too slow", Leak::watch(&queue)));
        let sink = make("autovideosink", "--display")?;
        sink.set_property("sync", plan.live);
        branches.push(vec![queue, make("videoconvert", "--display")?, sink]);
    }
    match branches.len() {
        0 => {
            let sink = make("fakesink", "the run")?;
            sink.set_property("sync", false);
            branches.push(vec![sink]);
            add_branch(pipeline, overlay, &branches[0])?;
        }
        1 => add_branch(pipeline, overlay, &branches[0])?,
        _ => {
            let tee = make("tee", "--output with --display")?;
            pipeline.add(&tee)?;
            overlay.link(&tee).context("cannot link the outputs")?;
            for branch in &branches {
                add_branch(pipeline, &tee, branch)?;
            }
        }
    }
    Ok(leaks)
}

fn add_branch(pipeline: &gst::Pipeline, from: &gst::Element, branch: &[gst::Element]) -> Result<()> {
    add_and_link(pipeline, branch)?;
    from.link(&branch[0]).context("cannot link the outputs")
}

/// Converter, encoder, muxer and file.
fn recording(path: &Path, plan: &Plan<'_>) -> Result<Vec<gst::Element>> {
    let extension = path.extension().and_then(|found| found.to_str()).unwrap_or("").to_ascii_lowercase();
    let muxer = match extension.as_str() {
        "mp4" | "m4v" | "mov" => {
            let muxer = make("mp4mux", "--output")?;
            muxer.set_property("faststart", true);
            muxer
        }
        "mkv" => make("matroskamux", "--output")?,
        _ => bail!("output {path:?}: expected a name that ends in .mp4 or .mkv, got {extension:?}"),
    };
    let encoder_name = elements::h264_encoder()?;
    let encoder = encoder(encoder_name, plan)?;
    // 4:2:0 with even sides is what every player takes; scaling only ever happens by one row or column.
    let filter = make("capsfilter", "--output")?;
    let even = gst::IntRange::with_step(2, 16384, 2);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", gst::List::new(["I420", "NV12"]))
        .field("width", even)
        .field("height", even)
        .build();
    filter.set_property("caps", caps);
    let mut chain = vec![make("videoconvert", "--output")?, make("videoscale", "--output")?, filter, encoder];
    if elements::exists("h264parse") {
        chain.push(make("h264parse", "--output")?);
    } else if encoder_name != "x264enc" {
        make("h264parse", "--output")?;
    }
    let sink = make("filesink", "--output")?;
    sink.set_property("location", path.to_string_lossy().as_ref());
    sink.set_property("sync", false);
    // A fast-start muxer writes nothing until the end: waiting for its first buffer would stop the display.
    sink.set_property("async", false);
    chain.extend([muxer, sink]);
    Ok(chain)
}

fn encoder(name: &str, plan: &Plan<'_>) -> Result<gst::Element> {
    let encoder = make(name, "--output")?;
    let quantizer = plan.settings.encoder_quantizer;
    match name {
        "x264enc" => {
            encoder.set_property_from_str("pass", "qual");
            encoder.set_property("quantizer", quantizer);
            encoder.set_property_from_str("speed-preset", plan.settings.encoder_preset.as_str());
            if plan.live {
                // Without it the encoder holds back half a second, and the display waits with it.
                encoder.set_property_from_str("tune", "zerolatency");
            }
        }
        "openh264enc" => {
            encoder.set_property_from_str("rate-control", "off");
            encoder.set_property_from_str("complexity", "low");
            encoder.set_property("qp-min", quantizer);
            encoder.set_property("qp-max", quantizer);
        }
        _ => tracing::info!(encoder = name, "encoder used with its own defaults"),
    }
    Ok(encoder)
}
