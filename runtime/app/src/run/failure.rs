//! From what GStreamer says on the bus to one paragraph that a person understands.

use anyhow::anyhow;
use gst::prelude::*;

use super::pipeline::is_input;

/// What an error message means for the run. `missing` is what a plugin is missing for, if one was asked for.
pub(crate) fn explain(error: &gst::message::Error, input: &str, missing: Option<&str>) -> anyhow::Error {
    let what = error.error();
    if let Some(details) = error.debug() {
        tracing::debug!(%details, "GStreamer's own words");
    }
    let text = what.message().trim().trim_end_matches('.');
    let Some(source) = error.src() else { return anyhow!("the pipeline stopped: {text}") };
    if is_input(source) {
        if let Some(missing) = missing {
            return anyhow!(
                "input {input:?}: expected every decoder to be installed, got none for {missing}; \
                 type: sudo apt install gstreamer1.0-libav gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"
            );
        }
        let expected = if what.is::<gst::ResourceError>() {
            "something that can be opened and read"
        } else {
            "a video that can be decoded"
        };
        return anyhow!("input {input:?}: expected {expected}, got: {text}");
    }
    let element = source.name();
    match (element.as_str(), error.debug()) {
        // Our elements say everything in the message; other elements put the useful half into the debug text.
        ("track", _) => anyhow!("{text}"),
        (_, Some(debug)) => {
            let detail = debug.lines().last().unwrap_or("").trim().trim_end_matches('.').to_owned();
            anyhow!("element {element:?} failed: {text} ({detail})")
        }
        (_, None) => anyhow!("element {element:?} failed: {text}"),
    }
}

/// What a `missing-plugin` message is about, in its own words: "H.265 (Main Profile) decoder".
pub(crate) fn missing_plugin(structure: &gst::StructureRef) -> Option<String> {
    (structure.name() == "missing-plugin").then(|| structure.get::<String>("name").ok()).flatten()
}
