//! One connection's pipeline, started and closed on a thread of its own: either may hang on a frozen peer or device.

use std::{
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use gst::prelude::*;

/// A pipeline that plays until this is given up.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) pipeline: gst::Pipeline,
    pub(super) bus: gst::Bus,
    close: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Attempt {
    /// Begins to play it.
    pub(super) fn begin(name: &str, pipeline: gst::Pipeline) -> Result<Self> {
        let bus = pipeline.bus().context("the source's pipeline has no bus")?;
        let (close, closed) = mpsc::channel::<()>();
        let held = pipeline.clone();
        let thread = std::thread::Builder::new().name(format!("src-{name}")).spawn(move || {
            if held.set_state(gst::State::Playing).is_err() {
                // Behind whatever the element that refused has said.
                gst::element_error!(held, gst::CoreError::StateChange, ["the source refused to start"]);
            }
            // Nothing is ever sent: the other end goes when it is given up.
            let _ = closed.recv();
            if held.set_state(gst::State::Null).is_err() {
                tracing::debug!("a source did not shut down cleanly");
            }
        })?;
        Ok(Self { pipeline, bus, close, thread })
    }
}

/// Attempts that were given up and may still be closing.
#[derive(Debug, Default)]
pub(super) struct Closing(Vec<JoinHandle<()>>);

impl Closing {
    /// Closes one, without waiting.
    pub(super) fn give_up(&mut self, attempt: Attempt) {
        drop(attempt.close);
        self.0.push(attempt.thread);
    }

    /// How many have not let go yet.
    pub(super) fn outstanding(&mut self) -> usize {
        self.0.retain(|thread| !thread.is_finished());
        self.0.len()
    }

    /// Waits for all of them, `limit` at most; how many are left behind.
    pub(super) fn wait(mut self, limit: Duration) -> usize {
        let begun = Instant::now();
        while self.outstanding() > 0 && begun.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.outstanding()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source whose streaming thread is stuck cannot be stopped; giving it up returns all the same.
    #[test]
    fn a_source_that_hangs_is_left_behind() {
        gst::init().unwrap();
        let pipeline = gst::parse::launch("videotestsrc ! fakesink name=sink signal-handoffs=true")
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let (reached, at_sink) = mpsc::channel();
        pipeline.by_name("sink").unwrap().connect("preroll-handoff", false, move |_| {
            reached.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            None
        });
        let mut closing = Closing::default();
        let attempt = Attempt::begin("stuck", pipeline).unwrap();
        at_sink.recv_timeout(Duration::from_secs(5)).unwrap();
        let begun = Instant::now();
        closing.give_up(attempt);
        assert_eq!(closing.outstanding(), 1);
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(closing.outstanding(), 1, "it hangs");
        drop(hold);
        assert_eq!(closing.wait(Duration::from_secs(5)), 0, "and closes once it can");
    }
}
