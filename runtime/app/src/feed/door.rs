//! The one way from a camera's pipeline into the corridor's.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gst::prelude::*;

use super::{CAMERA_BACK, CAMERA_LOST, LossCause, Mend, SourceCounts, stamps::Stamps};

/// Shared by the supervisor and the streaming thread of the connection it holds open.
#[derive(Debug)]
pub(super) struct Door {
    into: gst_app::AppSrc,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The connection whose frames may pass: one that was given up may still be pushing.
    open_for: Option<u64>,
    stamps: Stamps,
    /// As they came, and as they were passed on.
    caps: Option<(gst::Caps, gst::Caps)>,
    /// The first frame of this connection.
    first: Option<Instant>,
    /// The newest frame of all.
    last: Option<Instant>,
    /// The last frame before a loss that the corridor was told of, until it is told of the return.
    gap_since: Option<Instant>,
    counts: SourceCounts,
}

/// What the supervisor looks at.
#[derive(Debug)]
pub(super) struct Seen {
    /// The first frame of this connection.
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    pub(super) mended: [(Mend, u64); 6],
}

impl Door {
    pub(super) fn new(into: gst_app::AppSrc) -> Self {
        let counts = SourceCounts {
            frames: 0,
            door_drops: 0,
            connects: 0,
            losses: LossCause::ALL.map(|cause| (cause, 0)),
            mended: Mend::ALL.map(|mend| (mend, 0)),
            left_behind: 0,
            since_last_frame: None,
            up: false,
        };
        let state = State {
            open_for: None,
            stamps: Stamps::default(),
            caps: None,
            first: None,
            last: None,
            gap_since: None,
            counts,
        };
        Self { into, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection's frames pass.
    pub(super) fn open(&self, connection: u64) {
        let mut state = self.state();
        state.open_for = Some(connection);
        state.first = None;
        state.stamps.reconnected();
    }

    /// Nothing passes any more; the corridor is told if anything had.
    pub(super) fn lost(&self, cause: LossCause) {
        let mut state = self.state();
        state.open_for = None;
        state.counts.losses[cause as usize].1 += 1;
        if state.counts.up {
            state.counts.up = false;
            state.gap_since = state.last;
            self.send(gst::Structure::builder(CAMERA_LOST).field("cause", cause.as_str()).build());
        }
    }

    /// Nothing passes any more, and nobody needs to know.
    pub(super) fn shut(&self) {
        let mut state = self.state();
        state.open_for = None;
        state.counts.up = false;
    }

    /// The source's clock begins anew without a loss: a file that is played again.
    pub(super) fn rewound(&self) {
        self.state().stamps.reconnected();
    }

    pub(super) fn left_behind(&self, sources: u64) {
        self.state().counts.left_behind += sources;
    }

    /// Takes a frame. `pts_ns` is its stamp in the source's own time.
    ///
    /// Never waits: what the corridor has no room for is turned away.
    ///
    /// # Errors
    /// `Eos` for a connection that was given up.
    pub(super) fn pass(
        &self,
        connection: u64,
        sample: gst::Sample,
        pts_ns: Option<i64>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let arrival = self.into.current_running_time();
        let mut guard = self.state();
        let state = &mut *guard;
        if state.open_for != Some(connection) {
            return Err(gst::FlowError::Eos);
        }
        let now = Instant::now();
        if state.first.is_none() {
            state.first = Some(now);
            state.counts.connects += 1;
        }
        state.last = Some(now);
        state.counts.up = true;
        let (Some(mut buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        // With the sample gone the buffer is most likely ours alone, and is changed rather than copied.
        drop(sample);
        if buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
            state.counts.mended[Mend::Corrupt as usize].1 += 1;
        }
        let Some(arrival) = arrival else {
            // The corridor does not play yet, or any more.
            state.counts.door_drops += 1;
            return Ok(gst::FlowSuccess::Ok);
        };
        let (stamp, mend) = state.stamps.stamp(pts_ns, arrival.nseconds());
        if let Some(mend) = mend {
            state.counts.mended[mend as usize].1 += 1;
        }
        let room = self.into.max_buffers();
        if room > 0 && self.into.current_level_buffers() >= room {
            state.counts.door_drops += 1;
            return Ok(gst::FlowSuccess::Ok);
        }
        // What follows only queues in `appsrc`: the lock keeps frames and events in order, and nothing waits under it.
        if state.caps.as_ref().is_none_or(|(came, _)| *came != caps) {
            let passed = without_rate(&caps);
            self.into.set_caps(Some(&passed));
            state.caps = Some((caps, passed));
        }
        let frame = buffer.make_mut();
        frame.set_pts(gst::ClockTime::from_nseconds(stamp));
        frame.set_dts(gst::ClockTime::NONE);
        if let Some(since) = state.gap_since.take() {
            frame.set_flags(gst::BufferFlags::DISCONT);
            let gap = u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX);
            self.send(gst::Structure::builder(CAMERA_BACK).field("gap", gap).build());
        }
        match self.into.push_buffer(buffer) {
            Ok(_) => state.counts.frames += 1,
            // The corridor is going down, which is not for the camera to know.
            Err(_) => state.counts.door_drops += 1,
        }
        Ok(gst::FlowSuccess::Ok)
    }

    /// In order with the frames: `appsrc` queues serialized events between them.
    fn send(&self, structure: gst::Structure) {
        if !self.into.send_event(gst::event::CustomDownstream::new(structure)) {
            tracing::debug!("the corridor did not take an event");
        }
    }

    pub(super) fn seen(&self) -> Seen {
        let state = self.state();
        Seen { first: state.first, last: state.last, mended: state.counts.mended }
    }

    /// Caps of the newest frames, as text.
    pub(super) fn caps(&self) -> String {
        self.state().caps.as_ref().map_or_else(String::new, |(_, passed)| passed.to_string())
    }

    pub(super) fn counts(&self) -> SourceCounts {
        let state = self.state();
        let since_last_frame: Option<Duration> = state.last.map(|last| last.elapsed());
        SourceCounts { since_last_frame, ..state.counts.clone() }
    }
}

/// The rate is what arrives, not what a camera promises, and a promise that changes would restart every encoder behind.
fn without_rate(caps: &gst::Caps) -> gst::Caps {
    let mut caps = caps.clone();
    for structure in caps.make_mut().iter_mut() {
        structure.set("framerate", gst::Fraction::new(0, 1));
        structure.remove_field("max-framerate");
    }
    caps
}
