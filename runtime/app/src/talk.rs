//! From the settings to `sightlinetrack`'s properties about questions and late answers.

use anyhow::{Context as _, Result};
use gst::prelude::*;
use sightline_config::{CatchupSettings, LlmSettings, QuerySettings, Settings};

use crate::cli::{LateArg, QueryFlags};

/// Sets what questions and late answers need on `track`.
pub(crate) fn configure(track: &gst::Element, settings: &Settings, late: LateArg, asks: bool) -> Result<()> {
    let CatchupSettings { memory_bytes, share, within, .. } = &settings.catchup;
    // Where nothing is asked nothing comes late.
    let memory_mib = if asks { memory_bytes >> 20 } else { 0 };
    track.set_property("catch-up-memory", u32::try_from(memory_mib).context("setting catchup.memory")?);
    track.set_property("catch-up-share", f64::from(*share));
    let within_ms = u32::try_from(within.as_millis()).context("setting catchup.within_s")?;
    track.set_property("catch-up-within", within_ms.clamp(10, 600_000));
    track.set_property_from_str("late", if late == LateArg::Naive { "naive" } else { "catch-up" });
    if let Some(llm) = structure(&settings.llm, &settings.query) {
        track.set_property("llm", llm);
    }
    Ok(())
}

/// Whether anything is asked.
pub(crate) fn asks(flags: &QueryFlags, settings: &Settings) -> bool {
    let QueryFlags { query, ask, watch, caption_every } = flags;
    let caption = caption_every.is_some() || settings.query.caption_every.is_some();
    caption || [query, ask, watch].iter().any(|words| !words.is_empty())
}

/// Puts the questions, before the start or after it.
pub(crate) fn put(track: &gst::Element, flags: &QueryFlags, settings: &Settings) {
    let put = |kind: &str, words: &str, every: f64| {
        // A refusal is a message, which ends the run.
        let _: u64 = track.emit_by_name("query", &[&kind, &words, &every]);
    };
    flags.query.iter().for_each(|words| put("find", words, 0.0));
    flags.ask.iter().for_each(|words| put("ask", words, 0.0));
    flags.watch.iter().for_each(|words| put("watch", words, 0.0));
    let caption = flags.caption_every.or(settings.query.caption_every.map(|every| every.as_secs_f64()));
    if let Some(every) = caption.filter(|every| *every > 0.0) {
        put("describe", "", every);
    }
}

fn structure(llm: &LlmSettings, query: &QuerySettings) -> Option<gst::Structure> {
    let whole = |number: usize| number as u64;
    let limit = |number: Option<u32>| u64::from(number.unwrap_or(0));
    let mut fields = gst::Structure::new_empty("llm");
    fields.set("url", llm.url.as_deref()?);
    fields.set("model", &llm.model);
    fields.set("key-variable", llm.key_variable.as_deref().unwrap_or_default());
    fields.set("protocol", llm.protocol.as_str());
    fields.set("structured", llm.structured);
    fields.set("temperature", f64::from(llm.temperature));
    for (name, number) in [
        ("image-longest-px", u64::from(llm.image_longest_px)),
        ("image-quality", u64::from(llm.image_quality)),
        ("max-images", whole(llm.max_images)),
        ("max-tokens", u64::from(llm.max_tokens)),
        ("max-answer-bytes", whole(llm.max_answer_bytes)),
        ("retries", u64::from(llm.retries)),
        ("breaker-failures", u64::from(llm.breaker_failures)),
        ("requests-per-minute", limit(llm.requests_per_minute)),
        ("tokens-per-minute", limit(llm.tokens_per_minute)),
        ("tokens-in-all", llm.tokens_in_all.unwrap_or(0)),
        ("depth", whole(query.depth)),
        ("at-once", whole(query.at_once)),
        ("watch-to-fire", u64::from(query.watch_to_fire)),
        ("watch-to-rearm", u64::from(query.watch_to_rearm)),
        ("history-turns", whole(query.history_turns)),
        ("history-bytes", whole(query.history_bytes)),
        ("crops", whole(query.crops)),
        ("crop-longest-px", u64::from(query.crop_longest_px)),
    ] {
        fields.set(name, number);
    }
    for (name, time) in [
        ("connect-timeout-s", llm.connect_timeout),
        ("first-token-timeout-s", llm.first_token_timeout),
        ("total-timeout-s", llm.total_timeout),
        ("retry-base-s", llm.retry_base),
        ("retry-cap-s", llm.retry_cap),
        ("breaker-pause-s", llm.breaker_pause),
        ("patience-s", query.patience),
        ("grace-s", query.grace),
        ("watch-every-s", query.watch_every),
        ("watch-at-least-s", query.watch_at_least),
        ("find-again-after-s", query.find_again_after.unwrap_or_default()),
        ("crop-every-s", query.crop_every),
    ] {
        fields.set(name, time.as_secs_f64());
    }
    fields.set("watch-scene-change", f64::from(query.watch_scene_change.unwrap_or(0.0)));
    fields.set("watch-on-lost", query.watch_on_lost);
    Some(fields)
}
