//! A source that is tried again when it fails. A stand-in: no watchdog, no mending of stamps.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use gst::prelude::*;

use crate::run::input::Input;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Transport {
    #[default]
    Auto,
    Tcp,
    Udp,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) struct SourceOptions {
    pub(crate) connect_timeout: Duration,
    pub(crate) silence: Duration,
    pub(crate) retry_base: Duration,
    pub(crate) retry_cap: Duration,
    pub(crate) rtsp_latency: Duration,
    pub(crate) transport: Transport,
    pub(crate) loop_file: bool,
    pub(crate) pace: Option<f64>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(2),
            retry_base: Duration::from_millis(100),
            retry_cap: Duration::from_millis(1500),
            rtsp_latency: Duration::from_millis(200),
            transport: Transport::Auto,
            loop_file: false,
            pace: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum LossCause {
    Eos,
    Error,
    Silence,
    NeverCame,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) enum Mend {
    Jump,
    Missing,
    Negative,
    Duplicate,
    Drift,
    Corrupt,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) enum SourceEvent {
    Connected { after: Duration, caps: String },
    Lost { cause: LossCause, detail: String },
    Retrying { attempt: u64, pause: Duration },
    Mended { what: Mend },
    Ended,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct SourceCounts {
    pub(crate) frames: u64,
    pub(crate) door_drops: u64,
    pub(crate) since_last_frame: Option<Duration>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<(u64, Option<Instant>)>,
}

pub(crate) struct Supervised {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Supervised {
    pub(crate) fn start(
        name: &str,
        input: &Input,
        options: SourceOptions,
        into: &gst_app::AppSrc,
        told: impl Fn(SourceEvent) + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (input, into, of) = (input.clone(), into.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name(format!("source-{name}"))
            .spawn(move || {
                let mut attempt = 0;
                while !of.stop.load(Ordering::Acquire) {
                    match play(&input, &options, &into, &of, &told) {
                        Ok(()) if !options.loop_file => {
                            told(SourceEvent::Ended);
                            return;
                        }
                        Ok(()) => {}
                        Err(error) => {
                            told(SourceEvent::Lost { cause: LossCause::Error, detail: error.to_string() });
                            attempt += 1;
                            told(SourceEvent::Retrying { attempt, pause: options.retry_cap });
                            std::thread::sleep(options.retry_cap);
                        }
                    }
                }
            })
            .context("cannot start the source's thread")?;
        Ok(Self { shared, thread })
    }

    pub(crate) fn counts(&self) -> SourceCounts {
        let (frames, last) = *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        SourceCounts { frames, door_drops: 0, since_last_frame: last.map(|at| at.elapsed()) }
    }

    pub(crate) fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            tracing::error!("the source's thread panicked");
        }
    }
}

fn play(
    input: &Input,
    options: &SourceOptions,
    into: &gst_app::AppSrc,
    shared: &Shared,
    told: &impl Fn(SourceEvent),
) -> Result<()> {
    let rest = "videoconvert ! video/x-raw,format=I420 ! appsink name=out max-buffers=2 sync=true";
    let (front, live) = match input {
        Input::Test => {
            let rate = options.pace.unwrap_or(30.0).round().max(1.0) as i32;
            (
                format!(
                    "videotestsrc pattern=ball is-live=true ! video/x-raw,width=640,height=360,framerate={rate}/1"
                ),
                true,
            )
        }
        Input::Camera(path) => (format!("v4l2src device={path:?} ! decodebin"), true),
        Input::File(uri) => (format!("uridecodebin uri={uri:?}"), false),
        Input::Stream(uri) | Input::NetworkCamera(uri) => (format!("uridecodebin uri={uri:?}"), true),
    };
    let pipeline = gst::parse::launch(&format!("{front} ! {rest}"))?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().ok().context("a pipeline")?;
    let sink = pipeline.by_name("out").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
    let (sink, bus) = (sink.context("an appsink")?, pipeline.bus().context("a bus")?);
    let result = (|| {
        let begun = Instant::now();
        pipeline.set_state(gst::State::Playing)?;
        let mut first = true;
        while !shared.stop.load(Ordering::Acquire) {
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error])
                && let gst::MessageView::Error(error) = message.view()
            {
                anyhow::bail!("{}", error.error());
            }
            let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(50)) else {
                if sink.is_eos() {
                    anyhow::ensure!(!live, "the stream ended");
                    return Ok(());
                }
                continue;
            };
            let caps = sample.caps_owned();
            if std::mem::take(&mut first) {
                told(SourceEvent::Connected {
                    after: begun.elapsed(),
                    caps: caps.as_ref().map(ToString::to_string).unwrap_or_default(),
                });
            }
            if into.caps() != caps {
                into.set_caps(caps.as_ref());
            }
            let Some(mut buffer) = sample.buffer_owned() else { continue };
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(into.current_running_time());
            }
            if into.push_buffer(buffer).is_err() {
                return Ok(());
            }
            let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = (seen.0 + 1, Some(Instant::now()));
        }
        Ok(())
    })();
    let _ = pipeline.set_state(gst::State::Null);
    result
}
