//! DAVIS at a camera's pace: what a viewer has at every instant is scored against that instant.
//!
//! The pictures go through the element itself in live mode, forward and back, so that answers that take seconds fit.
//! The mask scored at an instant is the newest there is when its picture passes, however old (streaming accuracy, after
//! Li et al., "Towards Streaming Perception", ECCV 2020). An instant before the first mask counts as one without mask.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use gst_app::AppSrc;
use gstsightline::{
    meta::SightlineMeta,
    query_record::{QUERY_MESSAGE, QueryRecord},
    record::{FRAME_MESSAGE, FrameRecord},
};
use serde::Serialize;
use sightline_config::{Layer, LlmLayer, ModelLayer, Settings};
use sightline_core::{Mask, ObjectId, Rle};
use sightline_vision::davis::{boundary_f, region_similarity};

use super::davis::{Sequence, sequence_names};
use crate::{
    cli::{DavisArgs, PromptKind, QueryFlags},
    elements,
    pictures::{self, LabelPicture},
    talk,
};

/// Time for the last frame's outcome and for the end of the stream.
const ENDING: gst::ClockTime = gst::ClockTime::from_seconds(20);

/// Words for each object of a sequence, in the order of their ids.
type Expressions = BTreeMap<String, Vec<String>>;

/// What passed with one picture: the objects of the newest masks, and their age.
#[derive(Default)]
struct Shown {
    objects: Vec<(ObjectId, Arc<Rle>)>,
    age: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct CaughtUp {
    object: u32,
    /// The frame it was prompted on, and the one it was live on.
    from: u64,
    live: u64,
    took_ms: f64,
    looked_at: u32,
    degraded: bool,
}

#[derive(Debug, Serialize)]
struct Streamed {
    name: String,
    /// Pictures played.
    instants: usize,
    /// Means over all instants but the first, in percent.
    j: f64,
    f: f64,
    jf: f64,
    /// From the first picture to the first mask, in seconds; null where there never was one.
    first_mask_s: Option<f64>,
    caught_up: Vec<CaughtUp>,
    /// Age of the masks at the last instant.
    final_lag_ms: Option<f64>,
    /// Ages of the masks that were shown: p50, p95, p99.
    age_ms: [f64; 3],
    /// Time a frame took in the tracker (all stages but the queue): p50, p95, p99; all frames, those while a late
    /// prompt was catching up, and the others.
    step_ms: [f64; 3],
    step_catching_ms: Option<[f64; 3]>,
    step_others_ms: Option<[f64; 3]>,
    /// Frames by outcome, and queries by how they ended.
    outcomes: BTreeMap<String, u64>,
    queries: BTreeMap<String, u64>,
    /// J at every instant, mean over objects, in percent.
    j_at: Vec<f32>,
}

#[derive(Debug, Serialize)]
struct StreamingReport {
    model: String,
    fps: f64,
    pingpong: usize,
    late: String,
    mean: [f64; 3],
    sequences: Vec<Streamed>,
}

/// Plays, scores, prints the table, writes the JSON.
pub(super) fn run(args: &DavisArgs) -> Result<()> {
    crate::gstreamer::init()?;
    let settings = settings(args)?;
    let expressions = match (&args.expressions, args.prompt) {
        (Some(path), PromptKind::Text) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path:?}"))?;
            serde_json::from_str::<Expressions>(&text)
                .with_context(|| format!("{path:?}: expected {{\"sequence\": [\"words\", ..]}}"))?
        }
        (None, PromptKind::Text) => bail!("--prompt text: expected --expressions FILE, got none"),
        _ => Expressions::new(),
    };
    let mut sequences = Vec::new();
    for name in sequence_names(&args.data, &args.sequences)? {
        if args.prompt == PromptKind::Text && !expressions.contains_key(&name) {
            tracing::warn!(sequence = name, "no expression for it, left out");
            continue;
        }
        let sequence = Sequence::open(&args.data, &name)?;
        let words = expressions.get(&name).map(Vec::as_slice).unwrap_or_default();
        let streamed =
            stream(args, &settings, &sequence, words).with_context(|| format!("sequence {name:?}"))?;
        tracing::info!(sequence = name, j = streamed.j, first_mask_s = ?streamed.first_mask_s, "sequence done");
        sequences.push(streamed);
    }
    if sequences.is_empty() {
        bail!("expected a sequence with an expression, got none");
    }
    let mean = |of: fn(&Streamed) -> f64| sequences.iter().map(of).sum::<f64>() / sequences.len() as f64;
    let report = StreamingReport {
        model: args.model.clone(),
        fps: args.fps,
        pingpong: args.pingpong,
        late: format!("{:?}", args.llm.late),
        mean: [mean(|s| s.j), mean(|s| s.f), mean(|s| s.jf)],
        sequences,
    };
    crate::print_stdout(&table(&report))?;
    match &args.json {
        Some(path) => write_json(path, &report),
        None => Ok(()),
    }
}

fn write_json(path: &Path, report: &StreamingReport) -> Result<()> {
    std::fs::write(path, serde_json::to_string(report)? + "\n")
        .with_context(|| format!("cannot write {path:?}"))
}

fn table(report: &StreamingReport) -> String {
    let wide = report.sequences.iter().map(|s| s.name.len()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:wide$} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>8}\n",
        "sequence", "frames", "J", "F", "J&F", "first s", "live ms", "age p99"
    );
    for s in &report.sequences {
        let first = s.first_mask_s.map_or("never".into(), |first| format!("{first:.2}"));
        let live = s.caught_up.iter().map(|late| late.took_ms).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "{:wide$} {:>6} {:>6.1} {:>6.1} {:>6.1} {first:>8} {live:>8.0} {:>8.0}",
            s.name, s.instants, s.j, s.f, s.jf, s.age_ms[2]
        );
    }
    let [j, f, jf] = report.mean;
    let _ = writeln!(text, "{:wide$} {:>6} {j:>6.1} {f:>6.1} {jf:>6.1}", "mean", "");
    text
}

fn settings(args: &DavisArgs) -> Result<Settings> {
    let file = args.config.as_deref().map(Layer::from_file).transpose()?.unwrap_or_default();
    let flags = Layer {
        model: ModelLayer { name: Some(args.model.clone()), threads: Some(args.threads) },
        llm: LlmLayer { url: args.llm.llm.clone(), model: args.llm.llm_model.clone(), ..LlmLayer::default() },
        ..Layer::default()
    };
    Ok(Settings::resolve([file, Layer::from_env(std::env::vars())?, flags])?)
}

/// Forward and back, `times` over, no picture twice in a row.
fn ping_pong(pictures: usize, times: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pictures).collect();
    for pass in 1..2 * times {
        let forth = |at: usize| if pass % 2 == 1 { pictures - 1 - at } else { at };
        order.extend((1..pictures).map(forth));
    }
    order
}

fn stream(args: &DavisArgs, settings: &Settings, sequence: &Sequence, words: &[String]) -> Result<Streamed> {
    let pictures: Vec<_> =
        sequence.pictures.iter().map(|path| pictures::read_rgb(path)).collect::<Result<_>>()?;
    let (width, height) = (pictures[0].width_px, pictures[0].height_px);
    let buffers: Vec<gst::Buffer> =
        pictures.into_iter().map(|picture| gst::Buffer::from_slice(picture.padded())).collect();
    let order = ping_pong(buffers.len(), args.pingpong);

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
    let sink = elements::make("fakesink", "the evaluation")?;
    sink.set_property("sync", false);
    pipeline.add_many([source.upcast_ref(), &track, &sink])?;
    gst::Element::link_many([source.upcast_ref(), &track, &sink])?;
    prompt(args.prompt, &track, settings, sequence, words)?;

    let instants = Arc::new(Mutex::new(Vec::<Shown>::new()));
    let pad = track.static_pad("src").context("sightlinetrack has no source pad")?;
    let seen = Arc::clone(&instants);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let meta = info.buffer().and_then(|buffer| SightlineMeta::from_buffer(buffer).ok().flatten());
        let age = meta.as_ref().and_then(|meta| meta.age);
        let objects = meta.map(|meta| meta.objects).unwrap_or_default();
        let objects = objects.into_iter().map(|object| (object.id, object.mask)).collect();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Shown { objects, age });
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).context("the pipeline refused to play")?;
    let played = play(&source, &buffers, &order, args.fps);
    let messages = collect(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    played?;
    let instants = std::mem::take(&mut *instants.lock().unwrap_or_else(PoisonError::into_inner));
    score(args, sequence, &order, instants, messages?)
}

/// Pushes every picture at its time.
fn play(source: &AppSrc, buffers: &[gst::Buffer], order: &[usize], fps: f64) -> Result<()> {
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
fn prompt(
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
        let bounds = object.first.bounds_px().context("expected an object on the first frame, got none")?;
        let prompt = match kind {
            PromptKind::Box => {
                let corners = gst::Array::new(bounds.map(f64::from));
                gst::Structure::builder("prompt").field("box-px", corners).field("id", id).build()
            }
            other => bail!("--streaming: expected --prompt text or box, got {other:?}"),
        };
        let _: u32 = track.emit_by_name("add-object", &[&prompt]);
    }
    Ok(())
}

fn score(
    args: &DavisArgs,
    sequence: &Sequence,
    order: &[usize],
    instants: Vec<Shown>,
    messages: Vec<gst::Structure>,
) -> Result<Streamed> {
    if instants.len() != order.len() {
        bail!("expected {} pictures to come out, got {}", order.len(), instants.len());
    }
    let truths: Vec<Vec<Mask>> = sequence
        .annotations
        .iter()
        .map(|annotation| {
            let labels = LabelPicture::read(annotation)?;
            let masks = sequence.objects.iter().map(|object| labels.mask(|value| value == object.value));
            masks.collect::<Result<_>>()
        })
        .collect::<Result<_>>()?;
    let mut said = Said::read(&messages)?;
    // Prompted objects have the ids 1, 2, ..; those found by words the id that the answer to their question names.
    let ids: Vec<Option<ObjectId>> = (1..=sequence.objects.len() as u64)
        .map(|number| match args.prompt {
            PromptKind::Text => said.found.get(&number).copied(),
            _ => Some(ObjectId(number as u32)),
        })
        .collect();
    let (mut js, mut fs) = (Vec::with_capacity(order.len()), 0.0);
    let mut first_mask = None;
    for (instant, (picture, Shown { objects, .. })) in order.iter().zip(&instants).enumerate() {
        let (mut j, mut f) = (0.0, 0.0);
        for (id, truth) in ids.iter().zip(&truths[*picture]) {
            let found = objects.iter().find(|(found, _)| Some(*found) == *id);
            let mask = match found {
                Some((_, mask)) if mask.area_px() > 0 => {
                    first_mask.get_or_insert(instant);
                    mask.decode()
                }
                _ => Mask::new(truth.width_px(), truth.height_px()),
            };
            j += region_similarity(&mask, truth)?;
            f += boundary_f(&mask, truth)?;
        }
        js.push(j / ids.len() as f64);
        if instant > 0 {
            fs += f / ids.len() as f64;
        }
    }
    let count = (order.len() - 1) as f64;
    let (j, f) = (100.0 * js.iter().skip(1).sum::<f64>() / count, 100.0 * fs / count);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let ages: Vec<f64> = instants.iter().filter_map(|shown| shown.age.map(ms)).collect();
    let catching = |index: u64| said.caught_up.iter().any(|late| (late.began..=late.live).contains(&index));
    let (during, others): (Vec<_>, Vec<_>) = said.steps.iter().partition(|(index, _)| catching(*index));
    let steps = |steps: &[(u64, f64)]| steps.iter().map(|(_, step)| *step).collect::<Vec<_>>();
    let some = |values: Vec<f64>| (!values.is_empty()).then(|| percentiles(values));
    Ok(Streamed {
        name: sequence.name.clone(),
        instants: order.len(),
        j,
        f,
        jf: (j + f) / 2.0,
        first_mask_s: first_mask.map(|instant| instant as f64 / args.fps),
        final_lag_ms: instants.last().and_then(|shown| shown.age.map(ms)),
        age_ms: percentiles(ages),
        step_ms: percentiles(steps(&said.steps)),
        step_catching_ms: some(steps(&during)),
        step_others_ms: some(steps(&others)),
        caught_up: said.caught_up.drain(..).map(|late| late.told).collect(),
        outcomes: said.outcomes,
        queries: said.queries,
        j_at: js.into_iter().map(|j| (100.0 * j) as f32).collect(),
    })
}

/// A late prompt, and the newest frame when it began.
struct Late {
    began: u64,
    live: u64,
    told: CaughtUp,
}

/// What the messages say.
#[derive(Default)]
struct Said {
    /// The first object found by each question.
    found: BTreeMap<u64, ObjectId>,
    caught_up: Vec<Late>,
    /// Index and time in the tracker, in ms.
    steps: Vec<(u64, f64)>,
    outcomes: BTreeMap<String, u64>,
    queries: BTreeMap<String, u64>,
}

impl Said {
    fn read(messages: &[gst::Structure]) -> Result<Self> {
        let mut said = Self::default();
        let mut newest = 0;
        let mut began: BTreeMap<u32, u64> = BTreeMap::new();
        for message in messages {
            match message.name().as_str() {
                FRAME_MESSAGE => {
                    let record = FrameRecord::from_structure(message)?;
                    let outcome =
                        record.outcome.skip_reason().map_or(record.outcome.as_str(), |r| r.as_str());
                    *said.outcomes.entry(outcome.into()).or_default() += 1;
                    if record.outcome.skip_reason().is_none() {
                        newest = record.frame.index;
                        let stages = record.stages.named();
                        let step: Duration =
                            stages.iter().filter(|(name, _)| *name != "queue").map(|(_, time)| *time).sum();
                        said.steps.push((newest, step.as_secs_f64() * 1e3));
                    }
                }
                QUERY_MESSAGE => {
                    let record = QueryRecord::from_structure(message)?;
                    *said.queries.entry(record.state.clone()).or_default() += 1;
                    if let Some(id) = record.objects.iter().find_map(|object| object.id) {
                        said.found.entry(record.id).or_insert(id);
                    }
                }
                "sightline-prompt-applied" => {
                    began.insert(message.get("id")?, newest);
                }
                "sightline-caught-up" => {
                    let object: u32 = message.get("id")?;
                    let live = message.get("index")?;
                    said.caught_up.push(Late {
                        began: began.get(&object).copied().unwrap_or(live),
                        live,
                        told: CaughtUp {
                            object,
                            from: message.get("from-index")?,
                            live,
                            took_ms: message.get::<u64>("took")? as f64 / 1e6,
                            looked_at: message.get("looked-at")?,
                            degraded: message.get("degraded")?,
                        },
                    });
                }
                _ => {}
            }
        }
        Ok(said)
    }
}

/// p50, p95 and p99, nearest rank; zeros of nothing.
fn percentiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let rank = |share: f64| ((share * values.len() as f64).ceil() as usize).max(1) - 1;
    [0.5, 0.95, 0.99].map(|share| values.get(rank(share)).copied().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_go_forward_and_back() {
        assert_eq!(ping_pong(3, 1), [0, 1, 2, 1, 0]);
        assert_eq!(ping_pong(3, 2), [0, 1, 2, 1, 0, 1, 2, 1, 0]);
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        assert_eq!(percentiles((1..=200).map(f64::from).collect()), [100.0, 190.0, 198.0]);
        assert_eq!(percentiles(vec![7.0]), [7.0; 3]);
        assert_eq!(percentiles(vec![]), [0.0; 3]);
    }
}
