//! A buffer's way through the element, on the streaming thread: counted in, left for the worker, let go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gst::subclass::prelude::*;
use gst_base::prelude::*;
use sightline_core::FrameStamp;

use super::{
    CAT, coast,
    hub::{Hub, Job, Offered},
    imp::SightlineTrack,
    ladder::Step,
    notice::Notice,
    settings::Mode,
};
use crate::{
    device::Unreadable, frame::FramePicture, live_record::LiveRecord, pixels::Layout, record::FrameRecord,
};

/// A frame that came in.
pub(super) struct Arrived {
    at: Instant,
    pub(super) hub: Arc<Hub>,
    pub(super) layout: Arc<Layout>,
    pub(super) mode: Mode,
    coast: Option<Arc<coast::Desk>>,
    pub(super) stamp: FrameStamp,
    /// Its place, or its outcome.
    slot: Result<FramePicture, FrameRecord>,
}

/// A frame that is the worker's now.
pub(super) struct Left {
    at: Instant,
    pub(super) hub: Arc<Hub>,
    pub(super) layout: Arc<Layout>,
    mode: Mode,
    pub(super) stamp: FrameStamp,
}

impl Left {
    /// In every-frame mode: for the frame's own masks.
    pub(super) fn wait(&self) {
        if self.mode == Mode::EveryFrame {
            self.hub.wait_for(self.stamp.index);
        }
    }
}

impl SightlineTrack {
    /// Counts a frame in.
    pub(super) fn arrive(&self, buffer: &gst::BufferRef) -> Result<Arrived, gst::FlowError> {
        let at = Instant::now();
        let (hub, layout, mode, coast) = {
            let state = self.state();
            let coast = state.coast.as_ref().map(|(desk, _)| Arc::clone(desk));
            match (&state.hub, &state.layout) {
                (Some(hub), Some(layout)) => (Arc::clone(hub), Arc::clone(layout), state.mode, coast),
                _ => return Err(gst::FlowError::NotNegotiated),
            }
        };
        let time = |time: gst::ClockTime| Duration::from_nanos(time.nseconds());
        let pts = buffer.pts();
        let running_time = self
            .obj()
            .segment()
            .downcast::<gst::ClockTime>()
            .ok()
            .and_then(|segment| segment.to_running_time(pts));
        let (stamp, slot) = hub.enter(pts.map(time), running_time.map(time));
        Ok(Arrived { at, hub, layout, mode, coast, stamp, slot })
    }

    /// Leaves a frame for the worker, and where masks may be carried on, for that. `fill` puts its picture into a slot.
    pub(super) fn leave_to_worker(
        &self,
        arrived: Arrived,
        fill: impl Fn(&mut FramePicture, &Arc<Layout>) -> Result<(), Unreadable>,
    ) -> Left {
        let Arrived { at, hub, layout, mode, coast, stamp, slot } = arrived;
        let told = match slot {
            Err(record) => Some(record),
            Ok(mut copy) => match fill(&mut copy, &layout) {
                Err(Unreadable { text, lasts }) => {
                    gst::warning!(CAT, imp = self, "frame {}: {text}", stamp.index);
                    if lasts && layout.said.unreadable() {
                        self.tell(Notice::Fatal(text.clone()));
                    }
                    Some(hub.fail(stamp, copy, text))
                }
                Ok(()) => match hub.offer(stamp, Job { arrival: at, copy }) {
                    Offered::Waits(superseded) => superseded,
                    Offered::Done(record) => Some(record),
                },
            },
        };
        self.tell_frames(told);
        if let Some(desk) = coast.filter(|_| hub.may_coast()) {
            let mut copy = desk.slot();
            match fill(&mut copy, &layout) {
                Ok(()) => desk.offer(stamp, copy),
                Err(_) => _ = desk.give_back(copy),
            }
        }
        Left { at, hub, layout, mode, stamp }
    }

    /// The end of a buffer's way through the element. `fresh`: whether the masks it carries are its own.
    pub(super) fn depart(
        &self,
        left: &Left,
        fresh: Option<bool>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        if left.mode == Mode::EveryFrame {
            self.report_latency(left.at.elapsed());
        }
        if let Some(Step { from, to, age }) = left.hub.passed(left.stamp, fresh, left.at.elapsed()) {
            self.tell(Notice::Live(LiveRecord::Degrade { from, to, age }));
        }
        // Live video outlives its tracker; a file whose masks are wanted does not.
        let ends = left.hub.is_broken() || left.layout.said.is_unreadable();
        if left.mode == Mode::EveryFrame && ends {
            Err(gst::FlowError::Error)
        } else {
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
