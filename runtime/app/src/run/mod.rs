//! `sightline run`: the corridor from a source to files and a window.

mod camera;
mod contact_sheet;
mod failure;
mod gate;
pub(crate) mod input;
pub(crate) mod jsonl;
mod pipeline;
mod prompts;
mod status;
mod watch;

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use sightline_config::{Layer, LiveSettings, LlmLayer, ModelLayer, Settings, TrackLayer, TrackMode};

use self::{
    contact_sheet::ContactSheet,
    jsonl::JsonlWriter,
    pipeline::{Corridor, Plan},
    prompts::Given,
    watch::{Ended, Watch},
};
pub(crate) use self::{failure::missing_plugin, input::Input};
use crate::{
    cli::{Mode, RunArgs},
    elements,
    feed::SourceCounts,
    talk,
};

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    let settings = settings(args)?;
    crate::gstreamer::init()?;
    let input = Input::parse(&args.input)?;
    refuse_bad_targets(args)?;
    let prompts = prompts::read(&args.prompts)?;
    if prompts.len() > settings.track.max_objects {
        bail!(
            "prompts: expected at most {} objects (track.max_objects), got {}",
            settings.track.max_objects,
            prompts.len()
        );
    }
    let live = match settings.track.mode {
        TrackMode::Auto => input.is_camera(),
        TrackMode::Live => true,
        TrackMode::EveryFrame => false,
    };
    let track = track_element(&settings, live)?;
    talk::configure(&track, &settings, args.llm.late, talk::asks(&args.queries, &settings))?;
    give_prompts(&track, &prompts, args.at)?;
    talk::put(&track, &args.queries, &settings);
    prompts::check_when_size_is_known(&track, prompts);
    let plan = Plan {
        input: &input,
        live,
        output: args.output.as_deref(),
        display: args.display,
        settings: &settings.output,
        until: args.max_seconds.map(clock_time),
    };
    let corridor = pipeline::build(&plan, &track)?;
    let jsonl = args.jsonl.as_deref().map(JsonlWriter::create).transpose()?;
    let sheet = args
        .contact_sheet
        .as_deref()
        .map(|path| contact_sheet(&corridor, path, &settings, live))
        .transpose()?;
    let watch = Watch::new(&corridor, args, &input, jsonl)?;
    finish(args, &corridor, &track, watch.run(), sheet)
}

/// Everything after the stream: states down, files closed, the summary, and the first thing that went wrong.
fn finish(
    args: &RunArgs,
    corridor: &Corridor,
    track: &gst::Element,
    ended: Ended<'_>,
    sheet: Option<ContactSheet>,
) -> Result<()> {
    let Ended { mut watch, mut failure, complete } = ended;
    let camera = watch.stop_camera();
    // A pipeline that never started cannot stop cleanly either; what matters is already known.
    if corridor.pipeline.set_state(gst::State::Ready).is_err() {
        tracing::debug!("the pipeline did not stop cleanly");
    }
    // Outcomes of frames that were under way when the pipeline stopped.
    watch.drain(&mut failure);
    if corridor.pipeline.set_state(gst::State::Null).is_err() {
        tracing::debug!("the pipeline did not shut down cleanly");
    }
    let status = watch.finish(&mut failure);
    let stats = track.property::<Option<gst::Structure>>("stats");
    let any = status.counts.total() > 0;
    let entered = stats.as_ref().and_then(|stats| stats.get::<u64>("frames-in").ok());
    if let Some(entered) = entered.filter(|entered| *entered != status.counts.total()) {
        // Must not happen: every frame's outcome is a message.
        tracing::warn!(entered, told = status.counts.total(), "frames without a told outcome");
    }
    if let Some(sheet) = sheet {
        let finished = sheet.finish();
        if any && complete {
            keep_first(&mut failure, finished);
        }
    }
    if any && complete {
        crate::print_stdout(&summary(args, &status, stats.as_ref(), corridor, camera.as_ref()))?;
    } else {
        args.output.as_deref().map(remove_unfinished);
        failure.get_or_insert_with(|| anyhow::anyhow!("input {:?}: expected frames, got none", args.input));
    }
    failure.map_or(Ok(()), Err)
}

/// The first failure is the one to report.
fn keep_first(failure: &mut Option<anyhow::Error>, result: Result<()>) {
    if let Err(error) = result {
        failure.get_or_insert(error);
    }
}

/// A video without its end cannot be played: it is not left lying about.
fn remove_unfinished(path: &Path) {
    if path.is_file()
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(?path, %error, "the unfinished video stays");
    }
}

fn settings(args: &RunArgs) -> Result<Settings> {
    let file = args.config.as_deref().map(Layer::from_file).transpose()?.unwrap_or_default();
    let environment = Layer::from_env(std::env::vars())?;
    let flags = Layer {
        model: ModelLayer { name: args.model.clone(), threads: args.threads },
        track: TrackLayer {
            mode: args.mode.map(|mode| match mode {
                Mode::Live => TrackMode::Live,
                Mode::EveryFrame => TrackMode::EveryFrame,
            }),
            fill_hole_area: args.clean_up.fill_hole_area,
            sprinkle_area: args.clean_up.sprinkle_area,
            ..TrackLayer::default()
        },
        llm: LlmLayer { url: args.llm.llm.clone(), model: args.llm.llm_model.clone(), ..LlmLayer::default() },
        ..Layer::default()
    };
    Ok(Settings::resolve([file, environment, flags])?)
}

/// Finds out now what would otherwise show after an hour of work.
fn refuse_bad_targets(args: &RunArgs) -> Result<()> {
    let targets =
        [("--output", &args.output), ("--jsonl", &args.jsonl), ("--contact-sheet", &args.contact_sheet)];
    let input = std::fs::canonicalize(&args.input).ok();
    for (flag, path) in targets.iter().filter_map(|(flag, path)| path.as_deref().map(|path| (flag, path))) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            bail!("{flag} {path:?}: expected a folder {folder:?} to write into, got none");
        }
        if path.is_dir() {
            bail!("{flag} {path:?}: expected a file to write, got a folder");
        }
        if input.is_some() && input == std::fs::canonicalize(path).ok() {
            bail!("{flag} {path:?}: expected another file than the input, got the same");
        }
    }
    Ok(())
}

fn clock_time(seconds: f64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds((seconds * 1e9) as u64)
}

/// `sightlinetrack` as the settings have it.
pub(crate) fn track_element(settings: &Settings, live: bool) -> Result<gst::Element> {
    let track = elements::make("sightlinetrack", "the run")?;
    track.set_property("name", "track");
    track.set_property("model", &settings.model.name);
    track.set_property_from_str("mode", if live { "live" } else { "every-frame" });
    track.set_property("threads", u32::try_from(settings.model.threads).context("setting model.threads")?);
    track.set_property("history", u32::try_from(settings.track.history).context("setting track.history")?);
    track.set_property(
        "max-objects",
        u32::try_from(settings.track.max_objects).context("setting track.max_objects")?,
    );
    let area = |value| u32::try_from(value).context("setting track.fill_hole_area or sprinkle_area");
    track.set_property("fill-hole-area", area(settings.track.fill_hole_area)?);
    track.set_property("sprinkle-area", area(settings.track.sprinkle_area)?);
    track.set_property("messages", true);
    live_properties(&track, &settings.live);
    Ok(track)
}

/// What is set for live pictures; in every-frame mode nothing of it matters.
fn live_properties(track: &gst::Element, live: &LiveSettings) {
    let ms = |time: Duration| time.as_millis().min(600_000) as u32;
    track.set_property("max-age", live.max_age.map_or(0, ms));
    track
        .set_property("degrade", live.degrade.iter().map(|step| step.as_str()).collect::<Vec<_>>().join(","));
    track.set_property("smaller-model", live.smaller_model.as_deref().unwrap_or_default());
    track.set_property("max-fps", live.max_fps.unwrap_or(0.0));
    track.set_property("forecast", live.forecast);
    track.set_property_from_str("encode-ahead", live.encode_ahead.as_str());
    track.set_property("frames-in-flight", live.frames_in_flight);
    track.set_property("feeds-together", live.feeds_together);
    track.set_property("lost-after", ms(live.lost_after));
}

fn give_prompts(track: &gst::Element, prompts: &[Given], at_seconds: f64) -> Result<()> {
    let at = (at_seconds > 0.0).then(|| clock_time(at_seconds));
    for (id, prompt) in (1_u32..).zip(prompts) {
        let given: u32 = track.emit_by_name("add-object", &[&prompt.structure(id, at)]);
        if given != id {
            bail!("prompt {id}: expected sightlinetrack to take it, got a refusal: {prompt:?}");
        }
    }
    Ok(())
}

fn contact_sheet(corridor: &Corridor, path: &Path, settings: &Settings, live: bool) -> Result<ContactSheet> {
    let pad = corridor.overlay.static_pad("src").context("sightlineoverlay has no source pad")?;
    let output = &settings.output;
    ContactSheet::tap(pad, path, output.contact_sheet_frames, output.contact_sheet_width_px, live)
}

fn summary(
    args: &RunArgs,
    status: &status::Status,
    stats: Option<&gst::Structure>,
    corridor: &Corridor,
    camera: Option<&SourceCounts>,
) -> String {
    let counts = &status.counts;
    let mut text = String::new();
    let seconds = status.elapsed().as_secs_f64();
    let _ =
        writeln!(text, "frames   {} in {seconds:.1} s, {:.1} a second", counts.total(), status.mean_fps());
    let _ = write!(
        text,
        "outcome  masks {}, no object {}, skipped {}",
        counts.masks,
        counts.no_object,
        counts.skipped_total()
    );
    let reasons: Vec<_> =
        counts.skipped.iter().map(|(reason, count)| format!("{} {count}", reason.as_str())).collect();
    let _ = if reasons.is_empty() { writeln!(text) } else { writeln!(text, " ({})", reasons.join(", ")) };
    let percentile =
        |name: &str| stats.and_then(|stats| stats.get::<u64>(name).ok()).map(|ns| ns as f64 / 1e6);
    if let (Some(p50), Some(p95), Some(p99)) =
        (percentile("latency-p50"), percentile("latency-p95"), percentile("latency-p99"))
    {
        let _ = writeln!(text, "latency  p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms");
    }
    if let Some(text_of) = camera.map(camera::summary).filter(|text| !text.is_empty()) {
        let _ = writeln!(text, "camera   {text_of}");
    }
    for (what, leak) in &corridor.leaks {
        if leak.dropped() > 0 {
            let _ = writeln!(text, "lost     {} frames {what}", leak.dropped());
        }
    }
    for path in [&args.output, &args.jsonl, &args.contact_sheet].into_iter().flatten() {
        let _ = writeln!(text, "wrote    {}", path.display());
    }
    text
}
