//! The pipeline of one connection: source ! decoder ! videoconvert ! videoflip ! queue ! appsink.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use gst::prelude::*;
use sightline_config::FeedTransport;

use super::SourceOptions;
use crate::{elements::make, run::input::Input};

/// Name of the application message that says the input has no video in it.
pub(crate) const NO_VIDEO: &str = "sightline-no-video";
/// What `sightlinetrack` takes.
const FORMATS: [&str; 9] = ["NV12", "I420", "YUY2", "RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA"];
const TEST_FPS: f64 = 30.0;

/// A pipeline that is not playing yet.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) pipeline: gst::Pipeline,
    /// It has a length: a file, here or on a server. Found out while it starts.
    pub(super) finite: Arc<AtomicBool>,
}

/// Whether what is needed for certain is there; decoders are found out about later.
///
/// # Errors
/// Names the first element that is missing, and its package.
pub(super) fn check_installed(input: &Input) -> Result<()> {
    let (element, purpose) = match input {
        Input::NetworkCamera(_) => ("rtspsrc", "a network camera"),
        Input::Stream(uri) if uri.starts_with("http") => ("souphttpsrc", "an http:// address"),
        Input::Camera(_) => ("v4l2src", "a camera on this machine"),
        Input::Stream(_) | Input::File(_) => ("uridecodebin", "the input"),
        Input::Test => ("videotestsrc", "--input test"),
    };
    make(element, purpose).map(drop)
}

/// Builds it. `pass` gets every frame with its stamp in the source's running time in ns, on a streaming thread.
///
/// # Errors
/// When an element is not installed.
pub(super) fn build(
    input: &Input,
    options: &SourceOptions,
    transport: FeedTransport,
    pass: impl Fn(gst::Sample, Option<i64>) -> Result<gst::FlowSuccess, gst::FlowError> + Send + 'static,
) -> Result<Source> {
    let pipeline = gst::Pipeline::new();
    // A clock of one camera's connection would go with it.
    pipeline.use_clock(Some(&gst::SystemClock::obtain()));
    let convert = make("videoconvert", "the input")?;
    let turn = make("videoflip", "the input")?;
    turn.set_property_from_str("video-direction", "auto");
    let queue = make("queue", "the input")?;
    queue.set_property("max-size-buffers", 2_u32);
    queue.set_property("max-size-bytes", 0_u32);
    queue.set_property("max-size-time", 0_u64);
    let sink = sink(input, options, pass)?;
    let chain = [convert.clone(), turn, queue, sink.clone().upcast()];
    pipeline.add_many(&chain)?;
    gst::Element::link_many(&chain).context("cannot link the input's converters")?;
    set_up_inner(&pipeline);
    let finite = Arc::new(AtomicBool::new(matches!(input, Input::File(_))));
    match input {
        Input::Test => {
            let (source, filter) = test_picture(options.pace.unwrap_or(TEST_FPS), true)?;
            pipeline.add_many([&source, &filter])?;
            gst::Element::link_many([&source, &filter, &convert]).context("cannot link the test picture")?;
        }
        Input::Camera(path) => {
            let source = make("v4l2src", "a camera on this machine")?;
            source.set_property("device", path.to_string_lossy().as_ref());
            let decode = make("decodebin", "the input")?;
            pipeline.add_many([&source, &decode])?;
            source.link(&decode).context("cannot link the camera")?;
            link_first_video(&decode, &convert);
        }
        Input::File(uri) | Input::Stream(uri) | Input::NetworkCamera(uri) => {
            let decode = uri_decoder(uri)?;
            let options = options.clone();
            decode.connect("source-setup", false, move |values| {
                let source = values.get(1)?.get::<gst::Element>().ok()?;
                set_up(&source, &options, transport);
                None
            });
            if matches!(input, Input::Stream(_)) {
                // Only what has a length is played at its own pace; anything else comes when it comes.
                let finite = Arc::clone(&finite);
                decode.connect_pad_added(move |decode, _| {
                    if decode.query_duration::<gst::ClockTime>().is_some_and(|length| !length.is_zero()) {
                        finite.store(true, Ordering::Release);
                        sink.set_sync(true);
                    }
                });
            }
            pipeline.add(&decode)?;
            link_first_video(&decode, &convert);
        }
    }
    Ok(Source { pipeline, finite })
}

fn sink(
    input: &Input,
    options: &SourceOptions,
    pass: impl Fn(gst::Sample, Option<i64>) -> Result<gst::FlowSuccess, gst::FlowError> + Send + 'static,
) -> Result<gst_app::AppSink> {
    let sink = make("appsink", "a supervised source")?.downcast::<gst_app::AppSink>();
    let sink = sink.ok().context("appsink is of another type")?;
    sink.set_caps(Some(&gst::Caps::builder("video/x-raw").field("format", gst::List::new(FORMATS)).build()));
    let is_file = matches!(input, Input::File(_));
    sink.set_sync(is_file && options.pace.is_none());
    sink.set_property("enable-last-sample", false);
    let mut pacer = options.pace.filter(|_| is_file).map(Pacer::new);
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let pts_ns = match &mut pacer {
            Some(pacer) => Some(pacer.wait()),
            None => running_time_ns(&sample),
        };
        pass(sample, pts_ns)
    });
    sink.set_callbacks(callbacks.build());
    Ok(sink)
}

/// A frame's stamp on the source's own time line; below zero for one before its segment.
fn running_time_ns(sample: &gst::Sample) -> Option<i64> {
    let pts = sample.buffer()?.pts()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let time = segment.to_running_time_full(pts)?;
    let ns = i64::try_from(time.abs().nseconds()).ok()?;
    Some(if time.is_negative() { -ns } else { ns })
}

/// Holds frames back so that so many pass a second.
#[derive(Debug)]
struct Pacer {
    spacing: Duration,
    begun: Option<Instant>,
    frames: u32,
}

impl Pacer {
    fn new(fps: f64) -> Self {
        Self { spacing: Duration::from_secs_f64(1.0 / fps.clamp(0.01, 10_000.0)), begun: None, frames: 0 }
    }

    /// Waits until the next frame is due, and gives its stamp in ns. One that is late is not made up for.
    fn wait(&mut self) -> i64 {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let at = self.spacing.saturating_mul(self.frames);
        self.frames = self.frames.saturating_add(1);
        std::thread::sleep(at.saturating_sub(begun.elapsed()));
        i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// A bouncing ball at 640x360: the source and its caps.
///
/// # Errors
/// When an element is not installed.
pub(crate) fn test_picture(fps: f64, live: bool) -> Result<(gst::Element, gst::Element)> {
    let source = make("videotestsrc", "--input test")?;
    source.set_property_from_str("pattern", "ball");
    source.set_property("is-live", live);
    let filter = make("capsfilter", "--input test")?;
    let rate = gst::Fraction::approximate_f64(fps).unwrap_or_else(|| gst::Fraction::new(30, 1));
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", 640)
        .field("height", 360)
        .field("framerate", rate)
        .build();
    filter.set_property("caps", caps);
    Ok((source, filter))
}

/// `uridecodebin` for pictures only.
///
/// # Errors
/// When it is not installed.
pub(crate) fn uri_decoder(uri: &str) -> Result<gst::Element> {
    let decode = make("uridecodebin", "the input")?;
    decode.set_property("uri", uri);
    // Sound is handed out as it is, and taken by nobody: nothing is spent on decoding it.
    decode.connect("autoplug-continue", false, |values| {
        let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
        let is_sound = caps.is_some_and(|caps| {
            caps.structure(0).is_some_and(|structure| structure.name().starts_with("audio/"))
        });
        Some((!is_sound).to_value())
    });
    Ok(decode)
}

fn set_up(source: &gst::Element, options: &SourceOptions, transport: FeedTransport) {
    let Some(factory) = source.factory() else { return };
    let timeout = options.connect_timeout;
    match factory.name().as_str() {
        "rtspsrc" => {
            // Enough to put packets back in order; 2 s, the default, is a long time to look away.
            source
                .set_property("latency", u32::try_from(options.rtsp_latency.as_millis()).unwrap_or(u32::MAX));
            source.set_property("drop-on-latency", true);
            let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
            source.set_property("tcp-timeout", timeout_us);
            match transport {
                FeedTransport::Auto => {}
                FeedTransport::Tcp => source.set_property_from_str("protocols", "tcp"),
                FeedTransport::Udp => {
                    source.set_property_from_str("protocols", "udp+udp-mcast");
                    // The supervisor watches for silence; by itself the element would go on to TCP.
                    source.set_property("timeout", 0_u64);
                }
            }
        }
        "souphttpsrc" => {
            let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1);
            source.set_property("timeout", seconds);
            source.set_property("retries", 0_i32);
        }
        _ => {}
    }
}

/// What elements need to be told that others put in.
fn set_up_inner(pipeline: &gst::Pipeline) {
    pipeline.connect_deep_element_added(|_, _, element| {
        // Decoders report damage as an error after a while; a camera's next key frame mends it.
        if element.find_property("max-errors").is_some_and(|found| found.value_type() == i32::static_type()) {
            element.set_property("max-errors", -1_i32);
        }
        // Of an MJPEG camera. It would else wait for other streams until two seconds or two megabytes have come.
        if element.factory().is_some_and(|factory| factory.name() == "multipartdemux") {
            element.set_property("single-stream", true);
        }
    });
}

/// Links the first video that `decode` finds to `entry`, and posts [`NO_VIDEO`] when there is none.
pub(crate) fn link_first_video(decode: &gst::Element, entry: &gst::Element) {
    let sink = entry.static_pad("sink");
    let weak = entry.downgrade();
    decode.connect_pad_added(move |_, pad| {
        let Some(sink) = weak.upgrade().and_then(|entry| entry.static_pad("sink")) else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let is_video = caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/"));
        if is_video && !sink.is_linked() {
            // A refusal shows as a not-negotiated error on the bus.
            let _ = pad.link(&sink);
        }
    });
    decode.connect_no_more_pads(move |decode| {
        if sink.as_ref().is_some_and(|sink| !sink.is_linked()) {
            let message = gst::message::Application::new(gst::Structure::new_empty(NO_VIDEO));
            // Without a bus nobody is listening.
            let _ = decode.post_message(message);
        }
    });
}
