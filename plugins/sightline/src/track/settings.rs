//! `sightlinetrack`'s properties.

use std::sync::LazyLock;

use gst::{glib, prelude::*};
use sightline_tracker::Options;

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

/// The values of the properties that are written.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) model: String,
    pub(crate) provider: String,
    pub(crate) mode: Mode,
    pub(crate) threads: u32,
    pub(crate) history: u32,
    pub(crate) max_objects: u32,
    pub(crate) prompts: String,
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
            prompts: String::new(),
            messages: true,
        }
    }
}

impl Settings {
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
            "prompts" => self.prompts = text(value),
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
            "prompts" => self.prompts.to_value(),
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
                    "Frames kept for prompts that come late, the newest included. A prompt about a frame older than \
                     these is refused. Memory and the time a late prompt takes grow with it",
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
