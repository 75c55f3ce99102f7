use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    ConfigError, DEFAULTS, Kind, Layer,
    check::{given, within},
    live::LiveSettings,
    llm::LlmSettings,
    query::{CatchupSettings, QuerySettings},
    serve::{self, FeedSettings, ServeSettings},
};

/// Whether frames may be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrackMode {
    /// Every-frame for files, live for cameras.
    Auto,
    /// The newest frame is looked at.
    Live,
    /// Every frame is looked at; the input waits.
    EveryFrame,
}

/// x264's speed-preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum EncoderPreset {
    Ultrafast,
    Superfast,
    Veryfast,
    Faster,
    Fast,
    Medium,
}

impl EncoderPreset {
    /// The name x264 gives it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ultrafast => "ultrafast",
            Self::Superfast => "superfast",
            Self::Veryfast => "veryfast",
            Self::Faster => "faster",
            Self::Fast => "fast",
            Self::Medium => "medium",
        }
    }
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// A model's name or folder.
    pub name: String,
    /// Threads on the processor, 0 for one each core.
    pub threads: usize,
}

/// The most that `fill_hole_area` and `sprinkle_area` may be: a low-res mask of the largest models.
const MAX_AREA_PX: usize = 65536;

/// `[track]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackSettings {
    /// Whether frames may be passed over.
    pub mode: TrackMode,
    /// Frames kept for late prompts.
    pub history: usize,
    /// Objects tracked at once.
    pub max_objects: usize,
    /// Holes of at most so many pixels of the low-res mask are filled; 0 for none.
    pub fill_hole_area: usize,
    /// Specks of at most so many pixels of the low-res mask are removed; 0 for none.
    pub sprinkle_area: usize,
}

/// `[output]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSettings {
    /// x264's speed-preset.
    pub encoder_preset: EncoderPreset,
    /// H.264 quantizer, 0 to 50.
    pub encoder_quantizer: u32,
    /// Pictures on a contact sheet.
    pub contact_sheet_frames: usize,
    /// Width of one of them.
    pub contact_sheet_width_px: u32,
}

/// All settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[model]`
    pub model: ModelSettings,
    /// `[track]`
    pub track: TrackSettings,
    /// `[live]`
    pub live: LiveSettings,
    /// `[llm]`
    pub llm: LlmSettings,
    /// `[query]`
    pub query: QuerySettings,
    /// `[catchup]`
    pub catchup: CatchupSettings,
    /// `[output]`
    pub output: OutputSettings,
    /// `[serve]`
    pub serve: ServeSettings,
    /// `[feeds.NAME]`
    pub feeds: BTreeMap<String, FeedSettings>,
}

impl Settings {
    /// Lays the layers over the defaults, the last one on top, and checks every value.
    ///
    /// # Errors
    /// `Kind::Value` naming the key, its range and what came.
    pub fn resolve(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let defaults = Layer::from_toml("configs/default.toml", DEFAULTS)?;
        let Layer { model, track, live, llm, query, catchup, output, serve, feeds } =
            layers.into_iter().fold(defaults, Layer::overlaid);
        let name = given("model.name", model.name)?;
        if name.trim().is_empty() {
            return Err(ConfigError::new(Kind::Value, "setting model.name", "a name or a folder", "\"\""));
        }
        let query = query.check()?;
        Ok(Self {
            feeds: serve::check(feeds, query.caption_every.is_some())?,
            serve: serve.check()?,
            model: ModelSettings { name, threads: within("model.threads", model.threads, 0..=256)? },
            track: TrackSettings {
                mode: given("track.mode", track.mode)?,
                history: within("track.history", track.history, 1..=64)?,
                max_objects: within("track.max_objects", track.max_objects, 1..=64)?,
                fill_hole_area: within("track.fill_hole_area", track.fill_hole_area, 0..=MAX_AREA_PX)?,
                sprinkle_area: within("track.sprinkle_area", track.sprinkle_area, 0..=MAX_AREA_PX)?,
            },
            live: live.check()?,
            llm: llm.check()?,
            query,
            catchup: catchup.check()?,
            output: OutputSettings {
                encoder_preset: given("output.encoder_preset", output.encoder_preset)?,
                encoder_quantizer: within("output.encoder_quantizer", output.encoder_quantizer, 0..=50)?,
                contact_sheet_frames: within(
                    "output.contact_sheet_frames",
                    output.contact_sheet_frames,
                    1..=64,
                )?,
                contact_sheet_width_px: within(
                    "output.contact_sheet_width_px",
                    output.contact_sheet_width_px,
                    64..=1920,
                )?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_wins_key_by_key() {
        let file = Layer::from_toml("f", "[model]\nname = \"a\"\nthreads = 2\n[track]\nhistory = 3").unwrap();
        let flags = Layer::from_toml("g", "[model]\nname = \"b\"").unwrap();
        let settings = Settings::resolve([file, flags]).unwrap();
        assert_eq!(settings.model, ModelSettings { name: "b".into(), threads: 2 });
        assert_eq!((settings.track.history, settings.track.max_objects), (3, 16));
        assert_eq!(
            (settings.track.fill_hole_area, settings.track.sprinkle_area),
            (0, 0),
            "off unless asked for"
        );
    }

    #[test]
    fn values_out_of_range_are_refused_by_key() {
        for (case, text, message) in [
            ("history", "[track]\nhistory = 65", "setting track.history: expected 1 to 64, got 65"),
            ("objects", "[track]\nmax_objects = 0", "setting track.max_objects: expected 1 to 64, got 0"),
            (
                "holes",
                "[track]\nfill_hole_area = 65537",
                "setting track.fill_hole_area: expected 0 to 65536, got 65537",
            ),
            ("name", "[model]\nname = \" \"", "setting model.name: expected a name or a folder, got \"\""),
        ] {
            let layer = Layer::from_toml("f", text).unwrap();
            let error = Settings::resolve([layer]).expect_err(case);
            assert_eq!(error.kind(), Kind::Value, "{case}");
            assert_eq!(error.to_string(), message, "{case}");
        }
    }
}
