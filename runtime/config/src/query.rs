//! `[query]`, the life of a user's words, and `[catchup]`, what a late answer may cost.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    ConfigError,
    check::{bytes, given, refuse, seconds, within},
};

/// `[query]`, as one place says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is the key of the same name in configs/default.toml, checked into `QuerySettings`
pub struct QueryLayer {
    pub patience_s: Option<f64>,
    pub grace_s: Option<f64>,
    pub depth: Option<usize>,
    pub at_once: Option<usize>,
    pub caption_every_s: Option<f64>,
    pub watch_every_s: Option<f64>,
    pub watch_at_least_s: Option<f64>,
    pub watch_scene_change: Option<f32>,
    pub watch_on_lost: Option<bool>,
    pub watch_to_fire: Option<u32>,
    pub watch_to_rearm: Option<u32>,
    pub find_again_after_s: Option<f64>,
    pub history_turns: Option<usize>,
    pub history: Option<String>,
    pub crops: Option<usize>,
    pub crop_every_s: Option<f64>,
    pub crop_longest_px: Option<u32>,
}

/// `[query]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct QuerySettings {
    /// An answer within this time is on time.
    pub patience: Duration,
    /// For so much longer it is late and still of use.
    pub grace: Duration,
    /// Queries waiting, under way, or ended and not collected, 1..=1024.
    pub depth: usize,
    /// Of these, queries the server is asked at the same time, 1..=depth.
    pub at_once: usize,
    /// A caption of the scene every so often; `None` for none.
    pub caption_every: Option<Duration>,
    /// A watched condition is looked at after this long without another reason.
    pub watch_every: Duration,
    /// And never sooner than this after the last look; at most `watch_every`.
    pub watch_at_least: Duration,
    /// Or when the picture has changed by this much, in `(0, 1]`; `None` for never.
    pub watch_scene_change: Option<f32>,
    /// Or when a tracked object is lost.
    pub watch_on_lost: bool,
    /// "Yes" so many times in a row before the alert fires, at least 1.
    pub watch_to_fire: u32,
    /// "No" so many times in a row before it may fire again, at least 1.
    pub watch_to_rearm: u32,
    /// An object that was found by words and has been lost for so long is asked for again; `None` for never.
    pub find_again_after: Option<Duration>,
    /// Earlier turns that go along with a question, at most 64.
    pub history_turns: usize,
    /// And bytes of them, at most 1 MiB.
    pub history_bytes: usize,
    /// Crops kept of each object, at most 16; 0 for none.
    pub crops: usize,
    /// Time between two of them.
    pub crop_every: Duration,
    /// Longest side of one, 32..=1024.
    pub crop_longest_px: u32,
}

impl QueryLayer {
    pub(crate) fn check(self) -> Result<QuerySettings, ConfigError> {
        let depth = within("query.depth", self.depth, 1..=1024)?;
        let watch_every = seconds("query.watch_every_s", self.watch_every_s, 0.001)?;
        let watch_at_least = seconds("query.watch_at_least_s", self.watch_at_least_s, 0.0)?;
        if watch_at_least > watch_every {
            let (least, every) = (watch_at_least.as_secs_f64(), watch_every.as_secs_f64());
            return Err(refuse(
                "query.watch_at_least_s",
                format_args!("at most query.watch_every_s, {every}"),
                least,
            ));
        }
        let scene_change = within("query.watch_scene_change", self.watch_scene_change, 0.0..=1.0)?;
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        Ok(QuerySettings {
            patience: seconds("query.patience_s", self.patience_s, 0.0)?,
            grace: seconds("query.grace_s", self.grace_s, 0.0)?,
            depth,
            at_once: within("query.at_once", self.at_once, 1..=depth)?,
            caption_every: some(seconds("query.caption_every_s", self.caption_every_s, 0.0)?),
            watch_every,
            watch_at_least,
            watch_scene_change: (scene_change > 0.0).then_some(scene_change),
            watch_on_lost: given("query.watch_on_lost", self.watch_on_lost)?,
            watch_to_fire: within("query.watch_to_fire", self.watch_to_fire, 1..=100)?,
            watch_to_rearm: within("query.watch_to_rearm", self.watch_to_rearm, 1..=100)?,
            find_again_after: some(seconds("query.find_again_after_s", self.find_again_after_s, 0.0)?),
            history_turns: within("query.history_turns", self.history_turns, 0..=64)?,
            history_bytes: bytes("query.history", self.history, 0..=1 << 20)?,
            crops: within("query.crops", self.crops, 0..=16)?,
            crop_every: seconds("query.crop_every_s", self.crop_every_s, 0.0)?,
            crop_longest_px: within("query.crop_longest_px", self.crop_longest_px, 32..=1024)?,
        })
    }
}

/// `[catchup]`, as one place says it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // each is the key of the same name in configs/default.toml, checked into `CatchupSettings`
pub struct CatchupLayer {
    pub memory: Option<String>,
    pub share: Option<f32>,
    pub within_s: Option<f64>,
}

/// `[catchup]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct CatchupSettings {
    /// What the features of past frames may take, at most 1 TiB.
    pub memory_bytes: usize,
    /// Least part of the worker's time that a catch-up gets when none is idle, in 0.01..=0.9.
    pub share: f32,
    /// The time after an answer's arrival in which its object aims to be live, more than nothing.
    pub within: Duration,
}

impl CatchupLayer {
    pub(crate) fn check(self) -> Result<CatchupSettings, ConfigError> {
        // A 32 bit machine addresses less than that; the saturated bound is then its own.
        let most = usize::try_from(1_u64 << 40).unwrap_or(usize::MAX);
        Ok(CatchupSettings {
            memory_bytes: bytes("catchup.memory", self.memory, 0..=most)?,
            share: within("catchup.share", self.share, 0.01..=0.9)?,
            within: seconds("catchup.within_s", self.within_s, 0.01)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Layer, Settings};

    fn resolve(text: &str) -> Result<Settings, ConfigError> {
        Settings::resolve([Layer::from_toml("f", text).unwrap()])
    }

    #[test]
    fn nothing_that_costs_is_on_by_default() {
        let query = resolve("").unwrap().query;
        assert_eq!(query.caption_every, None);
        let off = resolve("[query]\nwatch_scene_change = 0\nfind_again_after_s = 0").unwrap().query;
        assert_eq!((off.watch_scene_change, off.find_again_after), (None, None));
        let on = resolve("[query]\ncaption_every_s = 2.5").unwrap().query;
        assert_eq!(on.caption_every, Some(Duration::from_millis(2500)));
    }

    #[test]
    fn a_catch_up_is_bounded() {
        let catchup = resolve("").unwrap().catchup;
        assert_eq!(catchup.memory_bytes, 512 << 20);
        assert_eq!((catchup.share, catchup.within), (0.2, Duration::from_secs(1)));
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        for (text, message) in [
            ("[query]\ndepth = 4\nat_once = 5", "query.at_once: expected 1 to 4, got 5"),
            ("[query]\npatience_s = -1", "query.patience_s: expected 0 to 86400 seconds, got -1"),
            (
                "[query]\nwatch_at_least_s = 9",
                "query.watch_at_least_s: expected at most query.watch_every_s, 5, got 9",
            ),
            ("[query]\nwatch_scene_change = 1.5", "query.watch_scene_change: expected 0 to 1, got 1.5"),
            ("[query]\nwatch_to_fire = 0", "query.watch_to_fire: expected 1 to 100, got 0"),
            (
                "[catchup]\nmemory = \"512\"",
                "catchup.memory: expected 0B to 1024GiB, such as \"512MiB\", got \"512\"",
            ),
            ("[catchup]\nshare = 0", "catchup.share: expected 0.01 to 0.9, got 0"),
            ("[catchup]\nwithin_s = 0", "catchup.within_s: expected 0.01 to 86400 seconds, got 0"),
        ] {
            let error = resolve(text).expect_err(text);
            assert_eq!(error.kind(), Kind::Value, "{text}");
            assert_eq!(error.to_string(), format!("setting {message}"), "{text}");
        }
        for text in
            ["[catchup]\nmemory = 512", "[catchup]\nmemroy = \"1MiB\"", "[query]\ncaption_every = \"5s\""]
        {
            assert_eq!(Layer::from_toml("f", text).expect_err(text).kind(), Kind::Syntax, "{text}");
        }
    }
}
