//! A feed's pipeline: `appsrc ! sightlinetrack ! fakesink`.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use gst::prelude::*;
use sightline_config::{FeedSettings, Settings};
use sightline_telemetry::FeedMetrics;

use super::measure;
use crate::{cli::LateArg, elements::make, feed::corridor_source, run::track_element, talk};

/// Frames between the source and the corridor, which takes each as it comes.
const DOOR: u64 = 2;

/// What was built.
pub(crate) struct Corridor {
    pub(crate) pipeline: gst::Pipeline,
    pub(crate) bus: gst::Bus,
    pub(crate) entry: gst_app::AppSrc,
    pub(crate) track: gst::Element,
}

/// Builds it; nothing plays yet.
pub(crate) fn build(
    name: &str,
    feed: &FeedSettings,
    settings: &Settings,
    metrics: &Arc<FeedMetrics>,
) -> Result<Corridor> {
    let pipeline = gst::Pipeline::with_name(name);
    let entry = corridor_source("entry", DOOR)?;
    let track = track_element(settings, true)?;
    if let Some(model) = &feed.model {
        track.set_property("model", model);
    }
    let queries = queries(feed, settings);
    track.set_property("prompts", &feed.prompts);
    track.set_property("queries", &queries);
    talk::configure(&track, settings, LateArg::CatchUp, !queries.is_empty())?;
    // Engines are shared by feeds of one model: a group has one.
    let model = feed.model.as_deref().unwrap_or(&settings.model.name);
    let group = settings.serve.engines.as_ref().map(|group| format!("{group}/{model}"));
    track.set_property("engines", group.unwrap_or_default());
    if let Some(max_fps) = feed.max_fps {
        track.set_property("max-fps", max_fps);
    }
    if let Some(max_age) = feed.max_age {
        track.set_property("max-age", u32::try_from(max_age.as_millis()).context("setting max_age_ms")?);
    }
    let sink = make("fakesink", "the feed")?;
    sink.set_property("sync", false);
    sink.set_property("enable-last-sample", false);
    let chain = [entry.clone().upcast(), track.clone(), sink];
    pipeline.add_many(&chain)?;
    gst::Element::link_many(&chain).context("cannot link the corridor")?;
    let out = track.static_pad("src").context("sightlinetrack has no source pad")?;
    measure::count_buffers(&out, metrics);
    let bus = pipeline.bus().context("the corridor has no bus")?;
    Ok(Corridor { pipeline, bus, entry, track })
}

/// The feed's questions, and the captions that `[query]` asks for.
fn queries(feed: &FeedSettings, settings: &Settings) -> String {
    let caption = settings.query.caption_every.map(|every| format!("describe;every={}", every.as_secs_f64()));
    let asked = Some(feed.queries.trim()).filter(|text| !text.is_empty()).map(str::to_owned);
    asked.into_iter().chain(caption).collect::<Vec<_>>().join("|")
}
