//! A camera that may die, hang, change or lie, in front of a corridor that never stops.
//!
//! The corridor's pipeline begins with an `appsrc` ([`corridor_source`]) and lives for ever. Its camera is a pipeline of
//! its own that is torn down and built anew at every loss, by the thread `feed-<name>`; what ties the two is the
//! [`door`]: it gives frames their place in the corridor's running time, counts what it turns away, and marks gaps with
//! the serialized events [`CAMERA_LOST`] and [`CAMERA_BACK`].

mod attempt;
mod backoff;
mod door;
mod news;
pub(crate) mod source;
mod stamps;
mod supervisor;
#[cfg(test)]
mod tests;

use std::{sync::Arc, sync::mpsc, thread::JoinHandle, time::Duration};

use anyhow::{Context as _, Result};
use gst::prelude::*;
use sightline_config::FeedTransport;

pub(crate) use self::{
    backoff::Backoff,
    news::{News, Presence},
    stamps::Mend,
};
use self::{door::Door, supervisor::Supervisor};
use crate::run::input::Input;

/// Serialized downstream event behind the last frame before a gap; `cause` string, as [`LossCause::as_str`].
pub(crate) const CAMERA_LOST: &str = "sightline/camera-lost";
/// Serialized downstream event before the first frame after a gap; `gap` uint64 ns since the last frame before it.
pub(crate) const CAMERA_BACK: &str = "sightline/camera-back";

/// How a source is supervised.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceOptions {
    /// A connection that brings no frame for so long is given up.
    pub(crate) connect_timeout: Duration,
    /// A camera that brought frames and then none for so long is lost. More than the pause between two frames.
    pub(crate) silence: Duration,
    /// The first pause before another try; it doubles.
    pub(crate) retry_base: Duration,
    /// The longest pause for a camera that was up before; one that never was is asked every 10 s at least.
    pub(crate) retry_cap: Duration,
    /// How long packets may wait for those before them.
    pub(crate) rtsp_latency: Duration,
    /// How an RTSP camera sends.
    pub(crate) transport: FeedTransport,
    /// A file begins again at its end.
    pub(crate) loop_file: bool,
    /// Frames a second of a file or the test picture, instead of their own (30 for the test picture).
    pub(crate) pace: Option<f64>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(2),
            retry_base: Duration::from_millis(100),
            retry_cap: Duration::from_secs(1),
            rtsp_latency: Duration::from_millis(200),
            transport: FeedTransport::Auto,
            loop_file: false,
            pace: None,
        }
    }
}

/// Why there are no frames any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LossCause {
    /// The stream of an endless source ended; over TCP a killed camera looks like this.
    Eos,
    /// An element of the source gave up.
    Error,
    /// Nothing was said and nothing came.
    Silence,
    /// A try that brought no frame at all, whatever it said.
    NeverCame,
}

impl LossCause {
    /// All of them, in the order of their counts.
    pub(crate) const ALL: [Self; 4] = [Self::Eos, Self::Error, Self::Silence, Self::NeverCame];

    /// As it stands in events, lines and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Eos => "eos",
            Self::Error => "error",
            Self::Silence => "silence",
            Self::NeverCame => "never-came",
        }
    }
}

/// What the supervisor tells, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SourceEvent {
    /// The first frame of a connection.
    Connected {
        /// Since the connection was begun.
        after: Duration,
        /// Of the frames, decoded.
        caps: String,
    },
    /// A connection is over, or came to nothing.
    Lost {
        /// Why.
        cause: LossCause,
        /// In words.
        detail: String,
    },
    /// There will be another try after a pause.
    Retrying {
        /// Tries since the last frame, from 1.
        attempt: u64,
        /// Until it begins.
        pause: Duration,
    },
    /// Frames were mended; told once a second and kind at most, [`SourceCounts`] has every one.
    Mended {
        /// What was wrong.
        what: Mend,
    },
    /// A file's end, where it does not begin again. The corridor is not told: that is up to whoever listens.
    Ended,
}

/// What became of everything since the start.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceCounts {
    /// Frames that went into the corridor.
    pub(crate) frames: u64,
    /// Frames that came while the corridor had no room, and were turned away.
    pub(crate) door_drops: u64,
    /// Connections that brought a frame.
    pub(crate) connects: u64,
    /// Losses by cause; `NeverCame` counts tries.
    pub(crate) losses: [(LossCause, u64); 4],
    /// Mended frames by kind. A frame may count twice, damaged and with a bad stamp.
    pub(crate) mended: [(Mend, u64); 6],
    /// Sources that would not let go when they were closed, and were left behind.
    pub(crate) left_behind: u64,
    /// Since the newest frame, if there was one.
    pub(crate) since_last_frame: Option<Duration>,
    /// Frames are coming.
    pub(crate) up: bool,
}

/// The `appsrc` a corridor begins with: live, in time, never blocking, room for `depth` frames (full-policy: the newest is
/// turned away at the door, and counted).
///
/// # Errors
/// When the element is not installed.
pub(crate) fn corridor_source(name: &str, depth: u64) -> Result<gst_app::AppSrc> {
    let element = crate::elements::make("appsrc", "a supervised source")?;
    element.set_property("name", name);
    let source = element.downcast::<gst_app::AppSrc>().ok().context("appsrc is of another type")?;
    source.set_is_live(true);
    source.set_format(gst::Format::Time);
    source.set_block(false);
    source.set_max_buffers(depth);
    source.set_max_bytes(0);
    source.set_max_time(gst::ClockTime::ZERO);
    source.set_property("emit-signals", false);
    Ok(source)
}

/// A source that is kept alive. Dropping it lets it end by itself; [`Supervised::stop`] waits for that.
pub(crate) struct Supervised {
    door: Arc<Door>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Supervised {
    /// Begins to connect, for ever, and to push frames into `into` as soon as its pipeline plays.
    ///
    /// `told` is called on the thread `feed-<name>` and should not take long.
    ///
    /// # Errors
    /// When an element that is needed for certain is not installed, or no thread can be had; everything that may pass
    /// (no network, no camera, a wrong address) is an event.
    pub(crate) fn start(
        name: &str,
        input: &Input,
        options: SourceOptions,
        into: &gst_app::AppSrc,
        told: impl Fn(SourceEvent) + Send + 'static,
    ) -> Result<Self> {
        source::check_installed(input)?;
        let door = Arc::new(Door::new(into.clone()));
        let (stop, stopped) = mpsc::channel();
        let supervisor =
            Supervisor::new(name, input.clone(), options, Arc::clone(&door), stopped, Box::new(told));
        let thread = std::thread::Builder::new()
            .name(format!("feed-{name}"))
            .spawn(move || supervisor.run())
            .with_context(|| format!("cannot start the thread of feed {name:?}"))?;
        Ok(Self { door, stop, thread })
    }

    /// The counts as they are now.
    pub(crate) fn counts(&self) -> SourceCounts {
        self.door.counts()
    }

    /// Ends it, within 2 s even if the source hangs; that is then left behind. What was counted, to the end.
    pub(crate) fn stop(self) -> SourceCounts {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the supervisor of a source panicked");
        }
        self.door.counts()
    }
}
