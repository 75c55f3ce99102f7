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
use crate::{
    elements::{self, make},
    feed,
};

/// Name of the element that stands for the input.
const INPUT: &str = "input";
/// Frames of a camera that may wait for the corridor.
const CAMERA_DEPTH: u64 = 4;

/// Whether a message's source is the input or something inside it.
pub(crate) fn is_input(source: &gst::Object) -> bool {
    let mut at = Some(source.clone());
    while let Some(object) = at {
        if object.name() == INPUT {
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
    /// Where a supervised camera's frames go in.
    pub(crate) camera: Option<gst_app::AppSrc>,
    /// Queues that may drop, with what they are called in the summary.
    pub(crate) leaks: Vec<(&'static str, Leak)>,
}

impl Corridor {
    /// Whether an input that is read here gives anything, be it sound.
    pub(crate) fn has_found_something(&self) -> bool {
        self.pipeline.by_name(INPUT).is_none_or(|input| input.num_src_pads() > 0)
    }
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
    let overlay = make("sightlineoverlay", "the run")?;
    // A stream is a camera only to who says so: most addresses are files.
    let supervised = plan.input.is_camera() || (plan.live && matches!(plan.input, Input::Stream(_)));
    let camera = supervised.then(|| feed::corridor_source("camera", CAMERA_DEPTH)).transpose()?;
    let mut chain = match &camera {
        Some(camera) => vec![camera.clone().upcast()],
        None => converters(plan)?,
    };
    let entry = chain[0].clone();
    let last_before_track = chain.last().cloned().unwrap_or_else(|| entry.clone());
    chain.extend([track.clone(), overlay.clone()]);
    add_and_link(&pipeline, &chain)?;
    let pad =
        last_before_track.static_pad("src").context("an element before sightlinetrack has no source pad")?;
    let gate = Gate::install(pad, plan.until);
    let leaks = add_outputs(&pipeline, &overlay, plan)?;
    if camera.is_none() {
        add_source(&pipeline, &entry, plan)?;
    }
    Ok(Corridor { pipeline, overlay, gate, camera, leaks })
}

/// From what a file's decoder gives to what `sightlinetrack` takes.
fn converters(plan: &Plan<'_>) -> Result<Vec<gst::Element>> {
    let turn = make("videoflip", "the input")?;
    turn.set_property_from_str("video-direction", "auto");
    let mut chain = vec![queue("decoded", 4, false)?, make("videoconvert", "the input")?, turn];
    if plan.live && *plan.input != Input::Test {
        // A file in live mode plays at its own pace, as a camera would deliver it.
        chain.push(make("clocksync", "--mode live with a file")?);
    }
    Ok(chain)
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
            let (source, filter) = feed::source::test_picture(30.0, plan.live)?;
            source.set_property("name", INPUT);
            if !plan.live && plan.until.is_none() {
                source.set_property("num-buffers", 300);
            }
            pipeline.add_many([&source, &filter])?;
            gst::Element::link_many([&source, &filter, entry]).context("cannot link the test picture")
        }
        Input::File(uri) | Input::Stream(uri) => {
            let decode = feed::source::uri_decoder(uri)?;
            decode.set_property("name", INPUT);
            pipeline.add(&decode)?;
            feed::source::link_first_video(&decode, entry);
            Ok(())
        }
        Input::NetworkCamera(_) | Input::Camera(_) => bail!("input: expected a file, got a camera"),
    }
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
    if plan.input.is_camera() || matches!(plan.input, Input::Stream(_)) {
        hold_caps(&filter);
    }
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

/// A camera may come back with another picture, and a file has one size: the first one, the others are fitted into it.
fn hold_caps(filter: &gst::Element) {
    let Some(pad) = filter.static_pad("src") else { return };
    let filter = filter.downgrade();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let (Some(gst::EventView::Caps(caps)), Some(filter)) =
            (info.event().map(|event| event.view()), filter.upgrade())
        {
            filter.set_property("caps", caps.caps_owned());
            return gst::PadProbeReturn::Remove;
        }
        gst::PadProbeReturn::Ok
    });
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
