//! A sequence through the element itself in live mode, at a camera's pace.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use gst_app::AppSrc;
use gstsightline::{
    meta::SightlineMeta,
    query_record::{QUERY_MESSAGE, QueryRecord},
    record::{CAUGHT_UP_MESSAGE, FRAME_MESSAGE, FrameRecord, PROMPT_APPLIED_MESSAGE, PROMPT_REFUSED_MESSAGE},
};
use serde::Serialize;
use sightline_config::Settings;
use sightline_core::{ObjectId, Outcome, Prompt, Rle};

use super::{figures::ms, score::Shown};
use crate::{
    cli::{PromptKind, QueryFlags, StreamingArgs},
    elements,
    eval::davis::{self, Sequence},
    pictures, talk,
};

/// Time for the last frame's outcome and for the end of the stream.
const ENDING: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// A sequence that was played.
#[derive(Debug)]
pub(super) struct Played {
    /// Picture by picture.
    pub(super) shown: Vec<Shown>,
    pub(super) frames_in: u64,
    /// Every one of them has one outcome, and it was told.
    pub(super) accounted: bool,
    pub(super) said: Said,
}

/// A late prompt's object that was live again.
#[derive(Debug, Serialize)]
pub(super) struct CaughtUp {
    pub(super) object: u32,
    /// The frame it was prompted on, and the one it was live on.
    pub(super) from: u64,
    pub(super) live: u64,
    pub(super) took_ms: f64,
    pub(super) looked_at: u32,
    pub(super) degraded: bool,
    /// The newest frame when it began.
    #[serde(skip)]
    pub(super) began: u64,
}

/// What the element said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The first object found by each question.
    pub(super) found: BTreeMap<u64, ObjectId>,
    pub(super) caught_up: Vec<CaughtUp>,
    /// Index and time from the worker's hand to the masks, in ms, of frames that were looked at.
    pub(super) steps: Vec<(u64, f64)>,
    pub(super) outcomes: BTreeMap<String, u64>,
    pub(super) queries: BTreeMap<String, u64>,
}

/// Plays the pictures of `order`.
pub(super) fn play(
    args: &StreamingArgs,
    settings: &Settings,
    sequence: &Sequence,
    order: &[usize],
    words: &[String],
) -> Result<Played> {
    let pictures: Vec<_> =
        sequence.pictures.iter().map(|path| pictures::read_rgb(path)).collect::<Result<_>>()?;
    let (width, height) = (pictures[0].width_px, pictures[0].height_px);
    let buffers: Vec<gst::Buffer> =
        pictures.into_iter().map(|picture| gst::Buffer::from_slice(picture.padded())).collect();

    let pipeline = gst::Pipeline::new();
    let caps = gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width(width as i32)
        .height(height as i32)
        .framerate(gst::Fraction::approximate_f64(args.fps).unwrap_or(gst::Fraction::new(24, 1)))
        .build();
    let source = AppSrc::builder().caps(&caps).format(gst::Format::Time).is_live(true).build();
    let track = crate::run::track_element(settings, true)?;
    talk::configure(&track, settings, args.llm.late, args.prompt == PromptKind::Text)?;
    super::set_properties(&track, &args.set)?;
    let sink = elements::make("fakesink", "the bench")?;
    sink.set_property("sync", false);
    pipeline.add_many([source.upcast_ref(), &track, &sink])?;
    gst::Element::link_many([source.upcast_ref(), &track, &sink])?;
    give_prompts(args.prompt, &track, settings, sequence, words)?;

    let shown = Arc::new(Mutex::new(Vec::<Shown>::new()));
    let pad = track.static_pad("src").context("sightlinetrack has no source pad")?;
    let seen = Arc::clone(&shown);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let meta = info.buffer().and_then(|buffer| SightlineMeta::from_buffer(buffer).ok().flatten());
        let age = meta.as_ref().and_then(|meta| meta.age);
        let objects = meta.map(|meta| meta.objects).unwrap_or_default();
        let objects = objects.into_iter().map(|object| (object.id, object.mask)).collect();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Shown { objects, age });
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).context("the pipeline refused to play")?;
    let pushed = push(&source, &buffers, order, args.fps);
    let messages = collect(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    pushed?;
    let said = Said::read(&messages?)?;
    let stats = super::stats(&track);
    let frames_in = stats.get("frames-in").copied().unwrap_or(0);
    let accounted = super::accounted(&stats) && said.outcomes.values().sum::<u64>() == frames_in;
    let shown = std::mem::take(&mut *shown.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Played { shown, frames_in, accounted, said })
}

/// Pushes every picture at its time.
fn push(source: &AppSrc, buffers: &[gst::Buffer], order: &[usize], fps: f64) -> Result<()> {
    let start = Instant::now();
    for (instant, picture) in order.iter().enumerate() {
        let at = Duration::from_secs_f64(instant as f64 / fps);
        std::thread::sleep(at.saturating_sub(start.elapsed()));
        let mut buffer = buffers[*picture].copy();
        let pts = gst::ClockTime::from_nseconds(at.as_nanos() as u64);
        buffer.get_mut().context("a fresh buffer is writable")?.set_pts(pts);
        source.push_buffer(buffer).context("the element took no more pictures")?;
    }
    source.end_of_stream().context("the element did not take the end")?;
    Ok(())
}

/// Everything the element said, in order, until the end.
fn collect(pipeline: &gst::Pipeline) -> Result<Vec<gst::Structure>> {
    let bus = pipeline.bus().context("the pipeline has no bus")?;
    let mut said = Vec::new();
    while let Some(message) = bus.timed_pop(ENDING) {
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(said),
            gst::MessageView::Error(error) => bail!("{}: {:?}", error.error(), error.debug()),
            gst::MessageView::Element(element) => said.extend(element.structure().map(ToOwned::to_owned)),
            _ => {}
        }
    }
    bail!("expected the end of the stream, got nothing for {} s", ENDING.seconds())
}

/// Prompts, or words, for every object.
fn give_prompts(
    kind: PromptKind,
    track: &gst::Element,
    settings: &Settings,
    sequence: &Sequence,
    words: &[String],
) -> Result<()> {
    if kind == PromptKind::Text {
        if words.len() != sequence.objects.len() {
            bail!("expressions: expected {} (one an object), got {}", sequence.objects.len(), words.len());
        }
        talk::put(track, &QueryFlags { query: words.to_vec(), ..QueryFlags::default() }, settings);
        return Ok(());
    }
    for (id, object) in (1_u32..).zip(&sequence.objects) {
        let prompt = structure(id, &davis::prompt(kind, &object.first)?)?;
        let given: u32 = track.emit_by_name("add-object", &[&prompt]);
        if given != id {
            bail!("prompt {id}: expected sightlinetrack to take it, got a refusal");
        }
    }
    Ok(())
}

/// As `add-object` takes it.
fn structure(id: u32, prompt: &Prompt) -> Result<gst::Structure> {
    let structure = gst::Structure::builder("prompt").field("id", id);
    Ok(match prompt {
        Prompt::Mask(mask) => structure
            .field("mask", Rle::encode(mask).to_coco_string())
            .field("mask-width", mask.width_px())
            .field("mask-height", mask.height_px())
            .build(),
        Prompt::Box(within) => {
            let corners = [within.x0, within.y0, within.x1, within.y1].map(f64::from);
            structure.field("box", gst::Array::new(corners)).build()
        }
        Prompt::Points { points, .. } => {
            let numbers = points.iter().flat_map(|point| [point.at.x, point.at.y].map(f64::from));
            structure.field("points", gst::Array::new(numbers)).build()
        }
        other => bail!("prompt: expected a mask, a box or points, got {other:?}"),
    })
}

impl Said {
    pub(super) fn count(&mut self, outcome: Outcome) {
        let name = outcome.skip_reason().map_or(outcome.as_str(), |reason| reason.as_str());
        *self.outcomes.entry(name.into()).or_default() += 1;
    }

    fn read(messages: &[gst::Structure]) -> Result<Self> {
        let mut said = Self::default();
        let mut newest = 0;
        let mut began: BTreeMap<u32, u64> = BTreeMap::new();
        for message in messages {
            match message.name().as_str() {
                FRAME_MESSAGE => {
                    let record = FrameRecord::from_structure(message)?;
                    said.count(record.outcome);
                    if record.outcome.skip_reason().is_none() {
                        newest = record.frame.index;
                        let step = record.latency.saturating_sub(record.stages.queue);
                        said.steps.push((newest, ms(step)));
                    }
                }
                QUERY_MESSAGE => {
                    let record = QueryRecord::from_structure(message)?;
                    *said.queries.entry(record.state.clone()).or_default() += 1;
                    if let Some(id) = record.objects.iter().find_map(|object| object.id) {
                        said.found.entry(record.id).or_insert(id);
                    }
                }
                PROMPT_APPLIED_MESSAGE => {
                    began.insert(message.get("id")?, newest);
                }
                PROMPT_REFUSED_MESSAGE => {
                    bail!("prompt refused: {}", message.get::<String>("reason").unwrap_or_default());
                }
                CAUGHT_UP_MESSAGE => {
                    let object: u32 = message.get("id")?;
                    let live = message.get("index")?;
                    said.caught_up.push(CaughtUp {
                        object,
                        from: message.get("from-index")?,
                        live,
                        took_ms: message.get::<u64>("took")? as f64 / 1e6,
                        looked_at: message.get("looked-at")?,
                        degraded: message.get("degraded")?,
                        began: began.get(&object).copied().unwrap_or(live),
                    });
                }
                _ => {}
            }
        }
        Ok(said)
    }
}
