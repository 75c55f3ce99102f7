//! Which GStreamer elements are needed for what, and the Debian package each comes in.

use anyhow::{Context as _, Result, anyhow};

/// An element and where it comes from.
pub(crate) struct Source {
    pub(crate) element: &'static str,
    pub(crate) package: &'static str,
}

/// H.264 encoders in the order in which they are tried.
pub(crate) const H264_ENCODERS: [Source; 5] = [
    Source { element: "x264enc", package: "gstreamer1.0-plugins-ugly" },
    Source { element: "openh264enc", package: "gstreamer1.0-plugins-bad" },
    Source { element: "vah264enc", package: "gstreamer1.0-plugins-bad" },
    Source { element: "nvh264enc", package: "gstreamer1.0-plugins-bad" },
    Source { element: "v4l2h264enc", package: "gstreamer1.0-plugins-good" },
];

/// H.264 decoders, any of which will do.
pub(crate) const H264_DECODERS: [Source; 5] = [
    Source { element: "avdec_h264", package: "gstreamer1.0-libav" },
    Source { element: "openh264dec", package: "gstreamer1.0-plugins-bad" },
    Source { element: "vah264dec", package: "gstreamer1.0-plugins-bad" },
    Source { element: "nvh264dec", package: "gstreamer1.0-plugins-bad" },
    Source { element: "v4l2h264dec", package: "gstreamer1.0-plugins-good" },
];

/// The package an element comes in, as Debian and Ubuntu cut them.
pub(crate) fn package(element: &str) -> &'static str {
    match element {
        "queue" | "tee" | "fakesink" | "filesink" | "capsfilter" | "clocksync" => "libgstreamer1.0-0",
        "uridecodebin" | "videoconvert" | "videoscale" | "videotestsrc" => "gstreamer1.0-plugins-base",
        "h264parse" | "openh264enc" | "openh264dec" | "fakevideosink" => "gstreamer1.0-plugins-bad",
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "avdec_h264" => "gstreamer1.0-libav",
        _ => "gstreamer1.0-plugins-good",
    }
}

/// Whether an element can be made.
pub(crate) fn exists(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Makes an element, or says which package has it.
pub(crate) fn make(element: &str, wanted_for: &str) -> Result<gst::Element> {
    match gst::ElementFactory::find(element) {
        Some(factory) => factory.create().build().with_context(|| format!("cannot make element {element:?}")),
        None => Err(missing(element, wanted_for)),
    }
}

fn missing(element: &str, wanted_for: &str) -> anyhow::Error {
    anyhow!(
        "element {element:?}: expected it for {wanted_for}, got none; type: sudo apt install {}",
        package(element)
    )
}

/// The first encoder that is installed.
pub(crate) fn h264_encoder() -> Result<&'static str> {
    H264_ENCODERS.iter().map(|source| source.element).find(|element| exists(element)).ok_or_else(|| {
        let tried: Vec<_> = H264_ENCODERS.iter().map(|source| source.element).collect();
        anyhow!(
            "H.264 encoder: expected one of {} for --output, got none; type: sudo apt install {}",
            tried.join(", "),
            H264_ENCODERS[0].package
        )
    })
}
