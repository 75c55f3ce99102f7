//! `sightline bench`: how right the picture is now, and where the time goes.

mod clip;
mod feeds;
mod figures;
mod latency;
mod process;
mod score;
mod simulated;
mod streaming;
mod wall;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail};
use gst::prelude::*;
use serde::Serialize;

use crate::cli::{Bench, BenchArgs};

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.what {
        Bench::Streaming(streaming) => streaming::run(streaming),
        Bench::Latency(latency) => latency::run(latency),
    }
}

fn write_json(path: &Path, report: &impl Serialize) -> Result<()> {
    std::fs::write(path, serde_json::to_string(report)? + "\n")
        .with_context(|| format!("cannot write {path:?}"))
}

/// Sets properties from text, as `gst-launch` does.
fn set_properties(element: &gst::Element, given: &[(String, String)]) -> Result<()> {
    for (name, text) in given {
        let Some(spec) = element.find_property(name) else {
            bail!("--set: expected a property of sightlinetrack, got {name:?}");
        };
        let flags = spec.flags();
        if !flags.contains(gst::glib::ParamFlags::WRITABLE)
            || flags.contains(gst::glib::ParamFlags::CONSTRUCT_ONLY)
        {
            bail!("--set: expected a property that can be set, got {name:?}");
        }
        let Ok(value) = gst::glib::Value::deserialize_with_pspec(text, &spec) else {
            bail!("--set {name}: expected a {}, got {text:?}", spec.value_type());
        };
        if !in_range(&value, &spec) {
            bail!("--set {name}: expected a value in its range, got {text:?}");
        }
        element.set_property_from_value(name, &value);
    }
    Ok(())
}

/// Whether a number is one its property takes: setting it would panic.
fn in_range(value: &gst::glib::Value, spec: &gst::glib::ParamSpec) -> bool {
    macro_rules! check {
        ($($kind:ident $number:ty),*) => {
            $(if let Some(spec) = spec.downcast_ref::<gst::glib::$kind>() {
                let value = value.get::<$number>();
                return value.is_ok_and(|value| (spec.minimum()..=spec.maximum()).contains(&value));
            })*
        };
    }
    check!(
        ParamSpecUInt u32,
        ParamSpecInt i32,
        ParamSpecUInt64 u64,
        ParamSpecInt64 i64,
        ParamSpecDouble f64,
        ParamSpecFloat f32
    );
    true
}

/// For the report: a file or folder without the way to it.
fn base_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// For the report: what was set.
fn as_map(given: &[(String, String)]) -> BTreeMap<&str, &str> {
    given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What `sightlinetrack` counted; all its whole numbers.
fn stats(track: &gst::Element) -> BTreeMap<String, u64> {
    let Some(stats) = track.property::<Option<gst::Structure>>("stats") else { return BTreeMap::new() };
    stats.iter().filter_map(|(name, value)| Some((name.to_string(), value.get().ok()?))).collect()
}

/// Whether every frame that entered has its outcome.
fn accounted(stats: &BTreeMap<String, u64>) -> bool {
    let of = |name: &str| stats.get(name).copied().unwrap_or(0);
    of("frames-in") == of("processed") + of("skipped") && of("pending") == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_checked_before_they_are_set() {
        crate::gstreamer::init().unwrap();
        let track = crate::elements::make("sightlinetrack", "a test").unwrap();
        let set = |name: &str, value: &str| set_properties(&track, &[(name.into(), value.into())]);
        set("history", "4").unwrap();
        set("mode", "every-frame").unwrap();
        assert_eq!(track.property::<u32>("history"), 4);
        for (name, value, part) in [
            ("hystory", "4", "expected a property of sightlinetrack"),
            ("latency", "4", "that can be set"),
            ("history", "many", "expected a guint"),
            ("history", "999999", "in its range"),
            ("mode", "fast", "--set mode"),
        ] {
            let error = set(name, value).expect_err(name).to_string();
            assert!(error.contains(part), "{name}={value}: {error}");
        }
    }

    #[test]
    fn an_uncounted_frame_is_seen() {
        let stats = |skipped| {
            let of = [("frames-in", 10_u64), ("processed", 6), ("skipped", skipped), ("pending", 0)];
            of.map(|(name, count)| (name.to_owned(), count)).into()
        };
        assert!(accounted(&stats(4)));
        assert!(!accounted(&stats(3)));
    }
}
