//! `sightlinetrack`'s properties.

use std::sync::LazyLock;

use gst::{glib, prelude::*};
use sightline_core::{Degrade, ValueError};
use sightline_tracker::Options;

use super::ladder::Ladder;

/// When masks and buffers meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSightlineTrackMode")]
#[repr(u32)]
pub enum Mode {
    /// Buffers pass at once and carry the newest masks there are; frames that come too fast are skipped.
    #[default]
    #[enum_value(name = "Live: buffers pass at once with the newest masks there are", nick = "live")]
    Live = 0,
    /// Every buffer waits for its own masks; the result depends on the pictures alone.
    #[enum_value(name = "Every frame: every buffer waits for its own masks (files)", nick = "every-frame")]
    EveryFrame = 1,
}

/// Where a late prompt goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSightlineTrackLate")]
#[repr(u32)]
pub enum Late {
    /// To the frame it is about; its object then catches up.
    #[default]
    #[enum_value(
        name = "Catch up: to the frame it is about, then frame by frame to the newest",
        nick = "catch-up"
    )]
    CatchUp = 0,
    /// To the newest frame, wherever its object is by then. For comparisons.
    #[enum_value(name = "Naive: to the newest frame as it is, for comparisons", nick = "naive")]
    Naive = 1,
}

/// Whether the image encoder runs a frame ahead of the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSightlineTrackAhead")]
#[repr(u32)]
pub enum Ahead {
    /// Where `sightline doctor --tune` found it to be better.
    #[default]
    #[enum_value(name = "Auto: where it was measured to be better", nick = "auto")]
    Auto = 0,
    /// Always, in live mode.
    #[enum_value(name = "On: on a thread of its own", nick = "on")]
    On = 1,
    /// Never.
    #[enum_value(name = "Off: one after the other", nick = "off")]
    Off = 2,
}

/// The values of the properties that are written.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) mode: Mode,
    pub(crate) threads: u32,
    pub(crate) history: u32,
    pub(crate) max_objects: u32,
    pub(crate) fill_hole_area: u32,
    pub(crate) sprinkle_area: u32,
    pub(crate) prompts: String,
    pub(crate) queries: String,
    pub(crate) llm: Option<gst::Structure>,
    pub(crate) late: Late,
    /// MiB.
    pub(crate) catch_up_memory: u32,
    /// ms.
    pub(crate) catch_up_within: u32,
    pub(crate) catch_up_share: f64,
    /// ms; 0 for none.
    pub(crate) max_age: u32,
    pub(crate) degrade: String,
    pub(crate) degrade_floor: String,
    pub(crate) smaller_model: String,
    /// 0 for any number.
    pub(crate) max_fps: f64,
    pub(crate) engines: String,
    pub(crate) encode_ahead: Ahead,
    pub(crate) frames_in_flight: u32,
    /// 0 for what is best where the engines run.
    pub(crate) feeds_together: u32,
    pub(crate) forecast: bool,
    /// ms.
    pub(crate) lost_after: u32,
    pub(crate) messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let options = Options::default();
        Self {
            model: "nano".into(),
            provider: "auto".into(),
            mode: Mode::default(),
            threads: 0,
            history: options.history as u32,
            max_objects: options.max_objects as u32,
            fill_hole_area: 0,
            sprinkle_area: 0,
            prompts: String::new(),
            queries: String::new(),
            llm: None,
            late: Late::default(),
            catch_up_memory: 64,
            catch_up_within: 1000,
            catch_up_share: 0.2,
            max_age: 200,
            degrade: Degrade::ALL[1..].iter().map(|step| step.as_str()).collect::<Vec<_>>().join(","),
            degrade_floor: Degrade::Full.as_str().into(),
            smaller_model: String::new(),
            max_fps: 0.0,
            engines: String::new(),
            encode_ahead: Ahead::default(),
            frames_in_flight: 2,
            feeds_together: 0,
            forecast: true,
            lost_after: 2000,
            messages: true,
        }
    }
}

impl Settings {
    /// The degrade ladder; in every-frame mode nothing is given up, the stream waits.
    ///
    /// # Errors
    /// `Kind::Encoding` for a step that is none.
    pub(crate) fn ladder(&self) -> Result<Ladder, ValueError> {
        let wanted = self.degrade.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut wanted = wanted.map(str::parse).collect::<Result<Vec<Degrade>, _>>()?;
        if self.smaller_model.is_empty() {
            wanted.retain(|step| *step != Degrade::Smaller);
        }
        let floor = self.degrade_floor.trim().parse()?;
        let max_age = std::time::Duration::from_millis(self.max_age.into());
        let acts = self.mode == Mode::Live && !max_age.is_zero();
        Ok(Ladder::new(acts.then_some(max_age), &wanted, floor))
    }

    /// Sets a property that [`properties`] lists as writable.
    pub(crate) fn set(&mut self, name: &str, value: &glib::Value) {
        let text = |value: &glib::Value| {
            value.get::<Option<String>>().map(Option::unwrap_or_default).unwrap_or_default()
        };
        let number = |value: &glib::Value| value.get::<u32>().unwrap_or_default();
        match name {
            "model" => self.model = text(value),
            "provider" => self.provider = text(value),
            "mode" => self.mode = value.get().unwrap_or_default(),
            "threads" => self.threads = number(value),
            "history" => self.history = number(value),
            "max-objects" => self.max_objects = number(value),
            "fill-hole-area" => self.fill_hole_area = number(value),
            "sprinkle-area" => self.sprinkle_area = number(value),
            "prompts" => self.prompts = text(value),
            "queries" => self.queries = text(value),
            "llm" => self.llm = value.get().unwrap_or_default(),
            "late" => self.late = value.get().unwrap_or_default(),
            "catch-up-memory" => self.catch_up_memory = number(value),
            "catch-up-within" => self.catch_up_within = number(value),
            "catch-up-share" => self.catch_up_share = value.get().unwrap_or_default(),
            "max-age" => self.max_age = number(value),
            "degrade" => self.degrade = text(value),
            "degrade-floor" => self.degrade_floor = text(value),
            "smaller-model" => self.smaller_model = text(value),
            "max-fps" => self.max_fps = value.get().unwrap_or_default(),
            "engines" => self.engines = text(value),
            "encode-ahead" => self.encode_ahead = value.get().unwrap_or_default(),
            "frames-in-flight" => self.frames_in_flight = number(value),
            "feeds-together" => self.feeds_together = number(value),
            "forecast" => self.forecast = value.get().unwrap_or_default(),
            "lost-after" => self.lost_after = number(value),
            "messages" => self.messages = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    /// The value of a property that is not computed.
    pub(crate) fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "model" => self.model.to_value(),
            "provider" => self.provider.to_value(),
            "mode" => self.mode.to_value(),
            "threads" => self.threads.to_value(),
            "history" => self.history.to_value(),
            "max-objects" => self.max_objects.to_value(),
            "fill-hole-area" => self.fill_hole_area.to_value(),
            "sprinkle-area" => self.sprinkle_area.to_value(),
            "prompts" => self.prompts.to_value(),
            "queries" => self.queries.to_value(),
            "llm" => self.llm.to_value(),
            "late" => self.late.to_value(),
            "catch-up-memory" => self.catch_up_memory.to_value(),
            "catch-up-within" => self.catch_up_within.to_value(),
            "catch-up-share" => self.catch_up_share.to_value(),
            "max-age" => self.max_age.to_value(),
            "degrade" => self.degrade.to_value(),
            "degrade-floor" => self.degrade_floor.to_value(),
            "smaller-model" => self.smaller_model.to_value(),
            "max-fps" => self.max_fps.to_value(),
            "engines" => self.engines.to_value(),
            "encode-ahead" => self.encode_ahead.to_value(),
            "frames-in-flight" => self.frames_in_flight.to_value(),
            "feeds-together" => self.feeds_together.to_value(),
            "forecast" => self.forecast.to_value(),
            "lost-after" => self.lost_after.to_value(),
            "messages" => self.messages.to_value(),
            _ => return None,
        })
    }
}

/// Every property.
pub(crate) fn properties() -> &'static [glib::ParamSpec] {
    static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
        let defaults = Settings::default();
        vec![
            glib::ParamSpecString::builder("model")
                .nick("Model")
                .blurb(
                    "What tracks: \"nano\" (built in), the path of a model folder, or the name of one in \
                     $SIGHTLINE_MODELS. Loaded in READY to PAUSED, which takes as long as it takes",
                )
                .default_value(Some(defaults.model.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("provider")
                .nick("Provider")
                .blurb(
                    "What runs the model: auto, onnxruntime-cpu, onnxruntime-cuda[:N]. Anything but auto is taken \
                     at its word: an error where it is not there",
                )
                .default_value(Some(defaults.provider.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("mode", defaults.mode)
                .nick("Mode")
                .blurb(
                    "live: buffers pass at once with the newest masks, frames the model has no time for are \
                     skipped and counted. every-frame: each buffer waits for its own masks; for files",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("threads")
                .nick("Threads")
                .blurb("Threads the model may use at once; 0: as many as this process may")
                .maximum(256)
                .default_value(defaults.threads)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("history")
                .nick("History")
                .blurb(
                    "Newest frames an object can be corrected on with everything it remembered then. What an object \
                     takes of memory grows with it",
                )
                .minimum(1)
                .maximum(256)
                .default_value(defaults.history)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("max-objects")
                .nick("Most objects")
                .blurb("Objects tracked at once; a prompt for one more is refused. The time per frame grows with each")
                .minimum(1)
                .maximum(256)
                .default_value(defaults.max_objects)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("fill-hole-area")
                .nick("Hole area")
                .blurb(
                    "Holes in a mask of at most so many pixels of the model's low-res mask are filled; 0: none. The \
                     published SAM 2 predictor has 8. What is remembered stays as the model gave it",
                )
                .maximum(65536)
                .default_value(defaults.fill_hole_area)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("sprinkle-area")
                .nick("Sprinkle area")
                .blurb(
                    "Specks of a mask of at most so many pixels of the model's low-res mask, and at most half the \
                     object's, are removed; 0: none",
                )
                .maximum(65536)
                .default_value(defaults.sprinkle_area)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("prompts")
                .nick("Prompts")
                .blurb(
                    "Prompts given at the start, separated by |, the fields of one by ; -- \
                     box=x0,y0,x1,y1; point=x,y[,neg]; mask=FILE.png; at=SECONDS; id=N -- in pixels of the incoming \
                     picture, at in running time. Example: box=300,180,420,360|point=700,420;at=2.5;id=7",
                )
                .default_value(Some(""))
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("queries")
                .nick("Queries")
                .blurb(
                    "Questions put at the start, separated by | -- find=WORDS; describe[=OBJECT][;every=SECONDS]; \
                     ask=WORDS; watch=WORDS[;every=SECONDS]. Example: find=the red car|watch=someone enters;every=5",
                )
                .default_value(Some(""))
                .mutable_ready()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("llm")
                .nick("Language model")
                .blurb(
                    "The chat-completions server that questions go to, with the fields of [llm] and [query] of the \
                     configuration: llm, url=\"http://127.0.0.1:8000/v1\", model=NAME. The key is read from the \
                     environment variable named by key-variable",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("late", defaults.late)
                .nick("Late prompts")
                .blurb("Where a prompt about a frame that has gone by is put")
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("catch-up-memory")
                .nick("Catch-up memory")
                .blurb(
                    "MiB of features kept for late prompts beyond the history; the older, the fewer. Taken from the \
                     system as it fills",
                )
                .maximum(1 << 20)
                .default_value(defaults.catch_up_memory)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("catch-up-within")
                .nick("Catch-up time")
                .blurb("ms in which a late prompt is to be live; frames are left out to keep to it")
                .minimum(10)
                .maximum(600_000)
                .default_value(defaults.catch_up_within)
                .mutable_ready()
                .build(),
            glib::ParamSpecDouble::builder("catch-up-share")
                .nick("Catch-up share")
                .blurb(
                    "What late prompts get at least of the worker's time where live frames leave none to spare; the \
                     frames this costs are skipped and counted",
                )
                .minimum(0.0)
                .maximum(0.9)
                .default_value(defaults.catch_up_share)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("max-age")
                .nick("Greatest age")
                .blurb(
                    "ms that the newest masks may be old in live mode before something is given up for their sake \
                     (degrade); 0: nothing is",
                )
                .maximum(600_000)
                .default_value(defaults.max_age)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("degrade")
                .nick("Degrade ladder")
                .blurb(
                    "What may be given up, separated by commas, taken in this order: skip-memory (most tracked frames \
                     are not remembered), coast (masks are carried on by optical flow between frames that are looked \
                     at), smaller (smaller-model looks), fewer (the engines rest after each frame), drop-queries",
                )
                .default_value(Some(defaults.degrade.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("degrade-floor")
                .nick("Degrade floor")
                .blurb("A step that is given up always, with those of `degrade` before it: for measurements")
                .default_value(Some(defaults.degrade_floor.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("smaller-model")
                .nick("Smaller model")
                .blurb("What looks at the step `smaller`, named as in `model`; without it there is no such step")
                .default_value(Some(""))
                .mutable_ready()
                .build(),
            glib::ParamSpecDouble::builder("max-fps")
                .nick("Budget")
                .blurb("Frames a second that may be looked at, others are skipped (over-budget); 0: any number")
                .minimum(0.0)
                .maximum(10_000.0)
                .default_value(defaults.max_fps)
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("engines")
                .nick("Engines")
                .blurb(
                    "Elements of one process that name the same share one set of engines, which then works on the \
                     frame with the earliest deadline; empty: engines of its own",
                )
                .default_value(Some(""))
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("encode-ahead", defaults.encode_ahead)
                .nick("Encode ahead")
                .blurb(
                    "Whether the image encoder of one frame runs while the one before is tracked, in live mode: more \
                     frames a second, each of them older. Not with a model that is shown parts of the picture, nor \
                     with a smaller-model",
                )
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("frames-in-flight")
                .nick("Frames in flight")
                .blurb(
                    "Frames that have buffers of their own on the way through image encoder and tracker, where one \
                     runs ahead of the other: 2 keep both at work, more make up for times that vary",
                )
                .minimum(2)
                .maximum(8)
                .default_value(defaults.frames_in_flight)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("feeds-together")
                .nick("Feeds together")
                .blurb(
                    "Objects of different elements that one run of shared engines takes at most, of models that can; \
                     1: each element's runs are its own; 0: 4 on a GPU, 1 on the processor",
                )
                .maximum(16)
                .default_value(defaults.feeds_together)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder("forecast")
                .nick("Forecast")
                .blurb(
                    "In live mode masks are moved to where their objects are expected when the next buffer passes, at \
                     the pace of the last two frames",
                )
                .default_value(defaults.forecast)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("lost-after")
                .nick("Lost after")
                .blurb("ms after sightline/camera-lost in which objects count as coasted; then they are lost")
                .maximum(600_000)
                .default_value(defaults.lost_after)
                .mutable_ready()
                .build(),
            glib::ParamSpecBoolean::builder("messages")
                .nick("Messages")
                .blurb(
                    "Post an element message \"sightline-frame\" for every frame's outcome. Turn off where nobody \
                     reads the bus",
                )
                .default_value(defaults.messages)
                .mutable_playing()
                .build(),
            glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                .nick("Statistics")
                .blurb(
                    "Frames by outcome (they add up to frames-in), buffers by the age of their masks, prompts, and \
                     percentiles in ns of the masks' latency and of the streaming thread's time per buffer",
                )
                .read_only()
                .build(),
            glib::ParamSpecUInt64::builder("latency")
                .nick("Latency")
                .blurb(
                    "What this element adds to the pipeline's latency, in ns: 0 in live mode, the slowest frame so \
                     far in every-frame mode",
                )
                .read_only()
                .build(),
        ]
    });
    PROPERTIES.as_ref()
}

#[cfg(test)]
mod tests {
    /// What `gst-inspect-1.0` prints.
    #[test]
    fn blurbs_are_one_line_of_single_spaces() {
        for property in super::properties() {
            let blurb = property.blurb().unwrap();
            assert!(!blurb.contains("  ") && !blurb.contains('\n'), "{}: {blurb:?}", property.name());
        }
    }
}
