use std::path::Path;

use serde::Deserialize;

use crate::{
    ConfigError, EncoderPreset, FeedLayers, Kind, ServeLayer, TrackMode, live::LiveLayer, llm::LlmLayer,
    query::CatchupLayer, query::QueryLayer, serve,
};

/// The text of `configs/default.toml`: complete, and the lowest layer.
pub const DEFAULTS: &str = include_str!("../../../configs/default.toml");

/// What one place (a file, the environment, the command line) says; a missing key says nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Layer {
    /// `[model]`
    pub model: ModelLayer,
    /// `[track]`
    pub track: TrackLayer,
    /// `[live]`
    pub live: LiveLayer,
    /// `[llm]`
    pub llm: LlmLayer,
    /// `[query]`
    pub query: QueryLayer,
    /// `[catchup]`
    pub catchup: CatchupLayer,
    /// `[output]`
    pub output: OutputLayer,
    /// `[serve]`
    pub serve: ServeLayer,
    /// `[feeds.NAME]`; no other place than a file names them.
    pub feeds: FeedLayers,
}

/// `[model]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelLayer {
    /// A model's name or folder.
    pub name: Option<String>,
    /// Threads on the processor, 0 for one each core.
    pub threads: Option<usize>,
}

/// `[track]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackLayer {
    /// Whether frames may be passed over.
    pub mode: Option<TrackMode>,
    /// Frames kept for late prompts.
    pub history: Option<usize>,
    /// Objects tracked at once.
    pub max_objects: Option<usize>,
    /// Largest hole of a mask that is filled.
    pub fill_hole_area: Option<usize>,
    /// Largest speck of a mask that is removed.
    pub sprinkle_area: Option<usize>,
}

/// `[output]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputLayer {
    /// x264's speed-preset.
    pub encoder_preset: Option<EncoderPreset>,
    /// H.264 quantizer.
    pub encoder_quantizer: Option<u32>,
    /// Pictures on a contact sheet.
    pub contact_sheet_frames: Option<usize>,
    /// Width of one of them.
    pub contact_sheet_width_px: Option<u32>,
}

/// Calls `$use!(section, key)` for every key there is, so that none can be forgotten in one of the places below.
macro_rules! each_key {
    ($use:ident) => {
        $use!(model, name);
        $use!(model, threads);
        $use!(track, mode);
        $use!(track, history);
        $use!(track, max_objects);
        $use!(track, fill_hole_area);
        $use!(track, sprinkle_area);
        $use!(live, max_age_ms);
        $use!(live, degrade);
        $use!(live, smaller_model);
        $use!(live, max_fps);
        $use!(live, forecast);
        $use!(live, encode_ahead);
        $use!(live, frames_in_flight);
        $use!(live, feeds_together);
        $use!(live, lost_after_s);
        $use!(llm, url);
        $use!(llm, model);
        $use!(llm, key_variable);
        $use!(llm, protocol);
        $use!(llm, image_longest_px);
        $use!(llm, image_quality);
        $use!(llm, max_images);
        $use!(llm, temperature);
        $use!(llm, max_tokens);
        $use!(llm, max_answer);
        $use!(llm, structured);
        $use!(llm, connect_timeout_s);
        $use!(llm, first_token_timeout_s);
        $use!(llm, total_timeout_s);
        $use!(llm, retries);
        $use!(llm, retry_base_s);
        $use!(llm, retry_cap_s);
        $use!(llm, breaker_failures);
        $use!(llm, breaker_pause_s);
        $use!(llm, requests_per_minute);
        $use!(llm, tokens_per_minute);
        $use!(llm, tokens_in_all);
        $use!(query, patience_s);
        $use!(query, grace_s);
        $use!(query, depth);
        $use!(query, at_once);
        $use!(query, caption_every_s);
        $use!(query, watch_every_s);
        $use!(query, watch_at_least_s);
        $use!(query, watch_scene_change);
        $use!(query, watch_on_lost);
        $use!(query, watch_to_fire);
        $use!(query, watch_to_rearm);
        $use!(query, find_again_after_s);
        $use!(query, history_turns);
        $use!(query, history);
        $use!(query, crops);
        $use!(query, crop_every_s);
        $use!(query, crop_longest_px);
        $use!(catchup, memory);
        $use!(catchup, share);
        $use!(catchup, within_s);
        $use!(output, encoder_preset);
        $use!(output, encoder_quantizer);
        $use!(output, contact_sheet_frames);
        $use!(output, contact_sheet_width_px);
        $use!(serve, listen);
        $use!(serve, engines);
        $use!(serve, status_every_s);
        $use!(serve, connect_timeout_s);
        $use!(serve, silence_s);
        $use!(serve, retry_base_s);
        $use!(serve, retry_cap_s);
        $use!(serve, rtsp_latency_ms);
    };
}

impl Layer {
    /// Reads TOML text; `subject` names it in errors.
    ///
    /// # Errors
    /// `Kind::Syntax` on anything that is not TOML, an unknown key or a value of another type.
    pub fn from_toml(subject: &str, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            ConfigError::new(
                Kind::Syntax,
                subject,
                "the sections and keys of configs/default.toml",
                format_args!("\n{}", error.to_string().trim_end()),
            )
        })
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// `Kind::File` when it cannot be read, else as [`Layer::from_toml`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let subject = format!("settings file {path:?}");
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::new(Kind::File, &subject, "a file that can be read", error))?;
        Self::from_toml(&subject, &text)
    }

    /// Picks the settings out of environment variables: `SIGHTLINE_<SECTION>_<KEY>`. Others are not looked at.
    ///
    /// # Errors
    /// `Kind::Syntax` when a value is not of its key's type.
    pub fn from_env(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (name, value) in variables {
            let Some(key) = name.strip_prefix("SIGHTLINE_").map(str::to_ascii_lowercase) else { continue };
            macro_rules! take {
                ($section:ident, $key:ident) => {
                    if key == concat!(stringify!($section), "_", stringify!($key)) {
                        layer.$section.$key = Some(parse_value(&name, &value)?);
                        continue;
                    }
                };
            }
            each_key!(take);
        }
        Ok(layer)
    }

    /// Lays `upper` over this layer: what it says wins, what it leaves out stays.
    #[must_use]
    pub fn overlaid(mut self, upper: Self) -> Self {
        macro_rules! take {
            ($section:ident, $key:ident) => {
                if upper.$section.$key.is_some() {
                    self.$section.$key = upper.$section.$key;
                }
            };
        }
        each_key!(take);
        self.feeds = serve::overlaid(self.feeds, upper.feeds);
        self
    }
}

/// A value as TOML would write it bare, or a string.
fn parse_value<T: for<'de> Deserialize<'de>>(name: &str, text: &str) -> Result<T, ConfigError> {
    #[derive(Deserialize)]
    struct Holder<T> {
        value: T,
    }
    let quoted = format!("value = {}", toml::Value::String(text.to_owned()));
    let bare = format!("value = {text}");
    // A number that is meant as a name ("7") must stay a name, so the string is tried first.
    toml::from_str::<Holder<T>>(&quoted)
        .or_else(|_| toml::from_str::<Holder<T>>(&bare))
        .map(|holder| holder.value)
        .map_err(|error| {
            ConfigError::new(
                Kind::Syntax,
                format_args!("environment variable {name}"),
                error.message(),
                format_args!("{text:?}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_name_every_key() {
        let layer = Layer::from_toml("configs/default.toml", DEFAULTS).unwrap();
        macro_rules! named {
            ($section:ident, $key:ident) => {
                assert!(layer.$section.$key.is_some(), concat!(stringify!($section), ".", stringify!($key)));
            };
        }
        each_key!(named);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_by_name() {
        for (case, text, part) in [
            ("section", "[modell]\nname = \"nano\"", "modell"),
            ("key", "[model]\nthread = 2", "thread"),
            ("type", "[model]\nthreads = \"two\"", "threads"),
            ("variant", "[track]\nmode = \"lively\"", "lively"),
            ("not TOML", "model: nano", "line 1"),
        ] {
            let error = Layer::from_toml("my.toml", text).expect_err(case);
            assert_eq!(error.kind(), Kind::Syntax, "{case}");
            assert!(error.to_string().contains(part), "{case}: {error}");
        }
    }

    #[test]
    fn environment_variables_are_read_by_type() {
        let vars = |pairs: &[(&str, &str)]| {
            Layer::from_env(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
        };
        let layer = vars(&[
            ("SIGHTLINE_MODEL_NAME", "7"),
            ("SIGHTLINE_MODEL_THREADS", "3"),
            ("SIGHTLINE_TRACK_MODE", "every-frame"),
            ("SIGHTLINE_SOMETHING_ELSE", "x"),
            ("HOME", "/"),
        ])
        .unwrap();
        assert_eq!(layer.model.name.as_deref(), Some("7"));
        assert_eq!(layer.model.threads, Some(3));
        assert_eq!(layer.track.mode, Some(TrackMode::EveryFrame));
        let layer = vars(&[
            ("SIGHTLINE_LLM_URL", "http://h/v1"),
            ("SIGHTLINE_LLM_TEMPERATURE", "1"),
            ("SIGHTLINE_LLM_STRUCTURED", "false"),
            ("SIGHTLINE_QUERY_CAPTION_EVERY_S", "2.5"),
            ("SIGHTLINE_CATCHUP_MEMORY", "64MiB"),
        ])
        .unwrap();
        assert_eq!((layer.llm.url.as_deref(), layer.llm.temperature), (Some("http://h/v1"), Some(1.0)));
        assert_eq!((layer.llm.structured, layer.query.caption_every_s), (Some(false), Some(2.5)));
        assert_eq!(layer.catchup.memory.as_deref(), Some("64MiB"));
        let error = vars(&[("SIGHTLINE_MODEL_THREADS", "many")]).expect_err("not a number");
        assert!(error.to_string().contains("SIGHTLINE_MODEL_THREADS"), "{error}");
        assert!(vars(&[("SIGHTLINE_MODEL_THREADS", "-1")]).is_err());
    }
}
