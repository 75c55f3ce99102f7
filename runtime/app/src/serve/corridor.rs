//! A feed's pipeline: `appsrc ! videoconvert ! sightlinetrack ! fakesink`.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use sightline_config::{FeedSettings, Settings};
use sightline_telemetry::FeedMetrics;

use super::measure;
use crate::{cli::LateArg, elements::make, run::track_element, talk};

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
    let entry = gst_app::AppSrc::builder()
        .name("entry")
        .format(gst::Format::Time)
        .is_live(true)
        .max_buffers(DOOR)
        .leaky_type(gst_app::AppLeakyType::Downstream)
        .build();
    entry.set_max_bytes(0);
    let track = track_element(settings, true)?;
    if let Some(model) = &feed.model {
        track.set_property("model", model);
    }
    let queries = queries(feed, settings);
    track.set_property("prompts", &feed.prompts);
    track.set_property("queries", &queries);
    talk::configure(&track, settings, LateArg::CatchUp, !queries.is_empty())?;
    if let Some(engines) = &settings.serve.engines {
        set_if_there(&track, "engines", engines)?;
    }
    if let Some(max_fps) = feed.max_fps {
        set_if_there(&track, "max-fps", &max_fps.to_string())?;
    }
    if let Some(max_age) = feed.max_age {
        set_if_there(&track, "max-age", &max_age.as_millis().to_string())?;
    }
    let sink = make("fakesink", "the feed")?;
    sink.set_property("sync", false);
    sink.set_property("enable-last-sample", false);
    let chain = [entry.clone().upcast(), make("videoconvert", "the feed")?, track.clone(), sink];
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

/// Sets a property that this build of the element may not have yet; a setting without effect is told once.
fn set_if_there(track: &gst::Element, property: &str, value: &str) -> Result<()> {
    let Some(spec) = track.find_property(property) else {
        tracing::debug!(property, value, "sightlinetrack has no such property");
        return Ok(());
    };
    match gst::glib::Value::deserialize_with_pspec(value, &spec) {
        Ok(value) => track.set_property_from_value(property, &value),
        Err(_) => {
            bail!("property {property:?} of sightlinetrack: expected {}, got {value:?}", spec.value_type())
        }
    }
    Ok(())
}
