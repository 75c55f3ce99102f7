//! `[llm]` of `configs/default.toml` says what this room does without it, and every protocol of the one is one of the other.
#![allow(clippy::unwrap_used)] // a test file: its helpers may stop the test

use sightline_config::{AnswerProtocol, Settings};
use sightline_grounding::{
    AlbumSettings, History, Hysteresis, ReAsk, hatch::HatchSettings, llm::LlmSettings, protocol::Protocol,
};

fn protocol(protocol: AnswerProtocol) -> Protocol {
    protocol.as_str().parse().unwrap()
}

#[test]
fn the_shipped_settings_are_the_rooms_own() {
    let settings = Settings::resolve([]).unwrap();
    let llm = settings.llm;
    assert_eq!(llm.url, None, "no server unless one is named");
    let own = LlmSettings::default();
    let shipped = LlmSettings {
        url: own.url.clone(),
        model: llm.model,
        key_variable: llm.key_variable,
        protocol: protocol(llm.protocol),
        image_longest_px: llm.image_longest_px,
        image_quality: llm.image_quality,
        max_images: llm.max_images,
        temperature: llm.temperature,
        max_tokens: llm.max_tokens,
        max_answer_bytes: llm.max_answer_bytes,
        structured: llm.structured,
        connect_timeout: llm.connect_timeout,
        first_token_timeout: llm.first_token_timeout,
        total_timeout: llm.total_timeout,
        retries: llm.retries,
        retry_base: llm.retry_base,
        retry_cap: llm.retry_cap,
        breaker_failures: llm.breaker_failures,
        breaker_pause: llm.breaker_pause,
        requests_per_minute: llm.requests_per_minute,
        tokens_per_minute: llm.tokens_per_minute,
        tokens_in_all: llm.tokens_in_all,
    };
    assert_eq!(shipped, own);

    let query = settings.query;
    assert_eq!(HatchSettings { depth: query.depth, at_once: query.at_once }, HatchSettings::default());
    let policy = ReAsk {
        every: query.watch_every,
        at_least: query.watch_at_least,
        scene_change: query.watch_scene_change,
        on_lost: query.watch_on_lost,
    };
    assert_eq!(policy, ReAsk::default());
    let hysteresis = Hysteresis { to_fire: query.watch_to_fire, to_rearm: query.watch_to_rearm };
    assert_eq!(hysteresis, Hysteresis::default());
    let album = AlbumSettings {
        objects: settings.track.max_objects,
        crops: query.crops,
        every: query.crop_every,
        longest_px: query.crop_longest_px,
    };
    assert_eq!(album, AlbumSettings::default());
    assert_eq!(History::new(query.history_turns, query.history_bytes).turns().count(), 0);
}

#[test]
fn both_rooms_know_the_same_protocols() {
    assert_eq!(AnswerProtocol::ALL.map(protocol), Protocol::ALL);
}
