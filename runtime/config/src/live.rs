//! `[live]`: what a live picture may cost, and what is given up for its sake.

use std::time::Duration;

use serde::Deserialize;
use sightline_core::Degrade;

use crate::{
    ConfigError,
    check::{given, refuse, seconds, within},
};

/// Whether the image encoder runs a frame ahead of the tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // explained in configs/default.toml
pub enum EncodeAhead {
    Auto,
    On,
    Off,
}

impl EncodeAhead {
    /// The name it has in files and properties.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// `[live]`, as one place says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is the key of the same name in configs/default.toml, checked into `LiveSettings`
pub struct LiveLayer {
    pub max_age_ms: Option<u32>,
    pub degrade: Option<Vec<String>>,
    pub smaller_model: Option<String>,
    pub max_fps: Option<f64>,
    pub forecast: Option<bool>,
    pub encode_ahead: Option<EncodeAhead>,
    pub frames_in_flight: Option<u32>,
    pub feeds_together: Option<u32>,
    pub lost_after_s: Option<f64>,
}

/// `[live]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveSettings {
    /// The age of the newest masks above which something is given up; `None`: nothing ever is. At most 10 minutes.
    pub max_age: Option<Duration>,
    /// What may be.
    pub degrade: Vec<Degrade>,
    /// What looks in place of the model.
    pub smaller_model: Option<String>,
    /// Frames a second that may be looked at, at most 10,000.
    pub max_fps: Option<f64>,
    /// Masks ride where their objects are expected.
    pub forecast: bool,
    /// Whether the image encoder runs a frame ahead.
    pub encode_ahead: EncodeAhead,
    /// Frames with buffers of their own where it does, 2 to 8.
    pub frames_in_flight: u32,
    /// Objects of different feeds in one run at most, up to 16; 0 for what is best where the engines run.
    pub feeds_together: u32,
    /// A camera is silent for so long and its objects are lost, at most 10 minutes.
    pub lost_after: Duration,
}

impl LiveLayer {
    pub(crate) fn check(self) -> Result<LiveSettings, ConfigError> {
        let max_age_ms = within("live.max_age_ms", self.max_age_ms, 0..=600_000)?;
        let step = |name: &String| {
            let steps = Degrade::ALL.into_iter().filter(|step| *step != Degrade::Full);
            let names = || steps.clone().map(Degrade::as_str).collect::<Vec<_>>().join(", ");
            let found = steps.clone().find(|step| step.as_str() == name);
            found.ok_or_else(|| {
                refuse("live.degrade", format_args!("some of {}", names()), format_args!("{name:?}"))
            })
        };
        let mut degrade =
            given("live.degrade", self.degrade)?.iter().map(step).collect::<Result<Vec<_>, _>>()?;
        let smaller = Some(given("live.smaller_model", self.smaller_model)?).filter(|name| !name.is_empty());
        let listed = degrade.len();
        degrade.sort_unstable();
        degrade.dedup();
        if degrade.len() < listed {
            return Err(refuse(
                "live.degrade",
                "every step once",
                format_args!("{listed} of {}", degrade.len()),
            ));
        }
        let lost_after = seconds("live.lost_after_s", self.lost_after_s, 0.0)?;
        if lost_after > Duration::from_secs(600) {
            return Err(refuse("live.lost_after_s", "0 to 600 seconds", lost_after.as_secs_f64()));
        }
        Ok(LiveSettings {
            max_age: (max_age_ms > 0).then(|| Duration::from_millis(max_age_ms.into())),
            degrade,
            smaller_model: smaller,
            max_fps: Some(within("live.max_fps", self.max_fps, 0.0..=10_000.0)?).filter(|fps| *fps > 0.0),
            forecast: given("live.forecast", self.forecast)?,
            encode_ahead: given("live.encode_ahead", self.encode_ahead)?,
            frames_in_flight: within("live.frames_in_flight", self.frames_in_flight, 2..=8)?,
            feeds_together: within("live.feeds_together", self.feeds_together, 0..=16)?,
            lost_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Layer, Settings};

    fn resolve(text: &str) -> Result<LiveSettings, ConfigError> {
        Settings::resolve([Layer::from_toml("f", text).unwrap()]).map(|settings| settings.live)
    }

    #[test]
    fn zero_is_none_and_steps_are_in_order() {
        let live = resolve("").unwrap();
        assert_eq!((live.max_age, live.max_fps), (Some(Duration::from_millis(200)), None));
        assert_eq!(live.degrade.len(), 5);
        let live =
            resolve("[live]\nmax_age_ms = 0\nmax_fps = 12.5\ndegrade = [\"fewer\", \"coast\"]").unwrap();
        assert_eq!((live.max_age, live.max_fps), (None, Some(12.5)));
        assert_eq!(live.degrade, [Degrade::Coast, Degrade::Fewer]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        for (text, message) in [
            ("[live]\nmax_age_ms = 600001", "live.max_age_ms: expected 0 to 600000, got 600001"),
            ("[live]\nframes_in_flight = 1", "live.frames_in_flight: expected 2 to 8, got 1"),
            ("[live]\nfeeds_together = 17", "live.feeds_together: expected 0 to 16, got 17"),
            ("[live]\nmax_fps = -1", "live.max_fps: expected 0 to 10000, got -1"),
            ("[live]\nlost_after_s = 601", "live.lost_after_s: expected 0 to 600 seconds, got 601"),
            (
                "[live]\ndegrade = [\"coast\", \"coast\"]",
                "live.degrade: expected every step once, got 2 of 1",
            ),
        ] {
            let error = resolve(text).expect_err(text);
            assert_eq!((error.kind(), error.to_string()), (Kind::Value, format!("setting {message}")));
        }
        let error = resolve("[live]\ndegrade = [\"slower\"]").expect_err("no such step");
        assert!(error.to_string().contains("skip-memory"), "{error}");
    }
}
