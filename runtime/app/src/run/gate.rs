//! The one place where a run is ended early: after so much video, or when told to stop.
//!
//! Sources differ in how they take an end-of-stream event (a file that is read in pull mode ignores it), so the
//! gate puts it into the stream itself, between two buffers, and lets nothing through after it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gst::prelude::*;

/// Stands on a source pad.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pad: gst::Pad,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    stop: AtomicBool,
    ended: AtomicBool,
    until: Option<gst::ClockTime>,
}

impl Gate {
    /// Puts a gate on `pad` that closes at running time `until`.
    pub(crate) fn install(pad: gst::Pad, until: Option<gst::ClockTime>) -> Self {
        let state = Arc::new(State { stop: AtomicBool::new(false), ended: AtomicBool::new(false), until });
        let seen = Arc::clone(&state);
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if seen.ended.load(Ordering::Acquire) {
                return gst::PadProbeReturn::Drop;
            }
            let late = seen.until.is_some_and(|until| {
                info.buffer().and_then(|buffer| running_time(pad, buffer)).is_some_and(|time| time >= until)
            });
            if !late && !seen.stop.load(Ordering::Acquire) {
                return gst::PadProbeReturn::Ok;
            }
            seen.end(pad);
            gst::PadProbeReturn::Drop
        });
        Self { pad, state }
    }

    /// The running time at which it closes by itself.
    pub(crate) fn until(&self) -> Option<gst::ClockTime> {
        self.state.until
    }

    /// Ends the stream at the next buffer.
    pub(crate) fn close(&self) {
        self.state.stop.store(true, Ordering::Release);
    }

    /// Ends the stream now, for when no buffer comes any more.
    pub(crate) fn close_now(&self) {
        self.close();
        self.state.end(&self.pad);
    }
}

impl State {
    fn end(&self, pad: &gst::Pad) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            pad.push_event(gst::event::Eos::new());
        }
    }
}

/// A buffer's running time at a pad.
pub(crate) fn running_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    event.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts()?)
}
