//! Late prompts: an object is seeded on the frame it was asked about and follows the kept frames until it is live.
//!
//! The work is done on a copy, a unit at a time, whenever the caller has time for it, so the live objects never wait
//! for more than one unit. Objects that are on the same frame are tracked together. What has to be back in time may
//! leave frames out ([`CatchUp::stride`]); its memory then spans them as if they had not been.

use std::time::Duration;

use sightline_core::{FrameStamp, NormBox, ObjectId};
use sightline_engine_api::EngineError;

use crate::{
    ObjectView, TrackerError,
    frames::Frames,
    graphs::Graphs,
    object::{MAX_CORRECTIONS, Object},
    prompt::Ask,
    run::{self, Look},
    slab::Ground,
    view::{self, Sights},
};

/// At most this many frames are taken in one stride.
const MAX_STRIDE: usize = 8;
/// Units done before a rate is believed.
const TRIAL: u32 = 3;

/// How soon late prompts are to be live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The caller's clock.
    pub now: Duration,
    /// Time from the first unit of work to live that is aimed at; frames are left out to keep to it. `None` leaves
    /// none out, however long it takes.
    pub within: Option<Duration>,
}

/// What a unit of work did for one object.
#[derive(Debug)]
pub struct Caught<'a> {
    /// The frame it was tracked or prompted on.
    pub frame: FrameStamp,
    /// The object on it.
    pub object: ObjectView<'a>,
}

/// What a unit of work led to.
#[derive(Debug, Default)]
pub struct Progress {
    /// Objects that have caught up: they are among [`Tracker::objects`](crate::Tracker::objects) now.
    pub live: Vec<ObjectId>,
    /// Late prompts given up, because a graph failed or their frame was let go before it was looked at.
    pub given_up: Vec<GivenUp>,
}

/// A late prompt that was given up; the object is as it was before it.
#[derive(Debug)]
pub struct GivenUp {
    /// The object.
    pub object: ObjectId,
    /// Why.
    pub error: TrackerError,
}

/// A copy of an object on its way.
pub(crate) struct CatchUp {
    pub(crate) object: Object,
    /// What it is still to be given, on this frame or on later ones.
    prompts: Vec<(u64, Ask)>,
    /// The next frame to look at.
    pub(crate) tick: u64,
    /// It has been prompted: it follows the frames now.
    seeded: bool,
    /// The object knew its first frame: everything is done over as it was, and nothing may be left out.
    pub(crate) exact: bool,
    began: Option<Duration>,
    units: u32,
    /// Frames that came meanwhile.
    pub(crate) arrived: u32,
}

impl CatchUp {
    pub(crate) fn new(object: Object, ask: Ask, tick: u64, exact: bool) -> Self {
        let prompts = vec![(tick, ask)];
        Self { object, prompts, tick, seeded: false, exact, began: None, units: 0, arrived: 0 }
    }

    /// Whether it is to be prompted, not tracked.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.seeded
    }

    /// Takes another prompt along, if its frame is still before it and there is room; gives it back otherwise.
    pub(crate) fn take_along(&mut self, tick: u64, ask: Ask) -> Result<(), Ask> {
        let ahead = tick > self.tick || tick == self.tick && self.is_fresh();
        if !ahead || self.prompts.len() >= MAX_CORRECTIONS {
            return Err(ask);
        }
        self.prompts.push((tick, ask));
        Ok(())
    }

    /// What there is to look at on its frame.
    pub(crate) fn sights(&self, width: usize) -> Sights {
        let clicked = self.object.clicked && !self.is_fresh();
        if self.is_fresh() {
            let extents: Option<Vec<NormBox>> =
                self.prompts.iter().map(|(_, ask)| ask.object_extent()).collect();
            let around = extents.as_deref().and_then(|all| all.iter().copied().reduce(NormBox::union));
            return Sights { around, prompted: true, anywhere: around.is_none(), clicked, lost: false };
        }
        let seen = self.object.previous(self.tick);
        let around = seen.and_then(|(logits, view)| view::bounds(logits, width, view));
        Sights { around, lost: around.is_none(), clicked, ..Sights::default() }
    }

    /// Goes to the next kept frame if its own was let go meanwhile; false where that cannot be done.
    pub(crate) fn hold_on(&mut self, frames: &Frames, ground: &Ground) -> bool {
        if frames.stamp(self.tick).is_some() {
            return true;
        }
        let Some(next) = frames.later(self.tick, 1) else { return false };
        if self.is_fresh() && self.exact {
            return false;
        } else if self.is_fresh() {
            if self.object.start_again(ground, next).is_err() {
                return false;
            }
        } else {
            self.exact = false;
            self.object.drop_corrections();
            self.object.leave_out(self.tick - 1, next);
        }
        self.tick = next;
        true
    }

    /// Gives the prompts of the frame it is on: those a correction has to repeat, then the new ones.
    pub(crate) fn give(&mut self, graphs: &mut Graphs, look: Look<'_>) -> Result<(), EngineError> {
        let tick = self.tick;
        let repeated = if self.seeded { self.object.take_corrections(tick) } else { Vec::new() };
        let new = self.prompts.extract_if(.., |(at, _)| *at <= tick).map(|(_, ask)| ask);
        for ask in repeated.into_iter().chain(new) {
            run::prompt(graphs, look, &mut self.object, tick, &ask)?;
            if !self.object.is_cond(tick) {
                self.object.log(tick, ask);
            }
        }
        self.seeded = true;
        Ok(())
    }

    /// Goes to the next frame to look at; false if there is none: it is live.
    pub(crate) fn go_on(&mut self, frames: &Frames, pace: Pace) -> bool {
        self.units += 1;
        loop {
            let Some(next) = frames.later(self.tick, self.stride(frames, pace)) else { return false };
            let prompted = self.prompts.iter().map(|(tick, _)| *tick).min();
            let next =
                prompted.filter(|tick| frames.stamp(*tick).is_some()).map_or(next, |tick| tick.min(next));
            if !self.exact {
                self.object.leave_out(self.tick, next);
            }
            self.tick = next;
            // A conditioning frame owes nothing to the frames before it.
            if !(self.exact && self.object.is_cond(next)) {
                return true;
            }
        }
    }

    /// Kept frames a stride, 1 to [`MAX_STRIDE`]: so many that, at the rate units have been done so far, those that
    /// are behind and those that will come are done in time.
    fn stride(&mut self, frames: &Frames, pace: Pace) -> usize {
        let began = *self.began.get_or_insert(pace.now);
        let Some(within) = pace.within.filter(|_| !self.exact && self.units >= TRIAL) else { return 1 };
        let spent = pace.now.saturating_sub(began).as_secs_f64().max(1e-3);
        // Late already: what is left is done in strides as if a tenth of the time were left.
        let left = (within.as_secs_f64() - spent).max(0.1 * within.as_secs_f64());
        let to_come = f64::from(self.arrived) / spent * left;
        let units = f64::from(self.units) / spent * left;
        let behind = frames.after(self.tick) as f64;
        (((behind + to_come) / units.max(1.0)).ceil() as usize).clamp(1, MAX_STRIDE)
    }
}
