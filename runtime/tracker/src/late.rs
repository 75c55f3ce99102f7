//! The tracker's part in late prompts: who catches up, in what order, and who takes whose place.

use sightline_core::{FrameStamp, NormBox, ObjectId, OwnedPicture, Prompt};
use sightline_engine_api::EngineError;

use crate::{
    Applied, At, Tracker, TrackerError,
    catchup::{CatchUp, Caught, GivenUp, Pace, Progress},
    frames::Found,
    graphs::Graphs,
    object::{MAX_CORRECTIONS, Object},
    prompt::Ask,
    run::{self, Look},
    session::Eyes,
    slab::Slab,
    tracker::fresh,
    view::{Sights, Viewer},
};

impl Tracker {
    /// As [`Tracker::prompt`], but nothing is computed yet: [`Tracker::catch_up`] does it, a unit at a time, while
    /// frames go on coming. If the frame asked for is gone, or did not show the place, the next one that is kept
    /// and did stands in for it, `degraded`. An object already tracked is seeded anew where the frame is too old for
    /// a correction, and keeps its older conditioning frames.
    ///
    /// While it catches up, a prompt for a frame that is still before it is given when it gets there; one for a frame
    /// behind it makes it start there.
    ///
    /// # Errors
    /// As [`Tracker::prompt`], but never `Kind::Gone`; `Kind::Prompt` also when the object was prompted on a frame
    /// after the one asked for, which is the newer word.
    pub fn prompt_late(&mut self, object: ObjectId, at: At, prompt: Prompt) -> Result<Applied, TrackerError> {
        let ask = self.admit(object, &prompt)?;
        let Found::Kept { mut tick, mut degraded } = self.frames.find(at) else {
            return self.wait(object, at, ask);
        };
        while self.frames.picture(tick).is_none()
            && !(self.frames.has_features(tick) && self.shows(tick, &ask))
        {
            degraded = true;
            match self.frames.later(tick, 1) {
                Some(later) => tick = later,
                None => return self.wait(object, At::Next, ask),
            }
        }
        let under_way = self.catching.iter_mut().find(|late| late.object.id == object);
        let left = match under_way {
            Some(late) => late.take_along(tick, ask).err(),
            None => Some(ask),
        };
        if let Some(ask) = left {
            let late = self.late(object, tick, ask)?;
            self.drop_late(|late| late.object.id == object);
            // Until it is looked at.
            self.frames.pin(tick);
            self.catching.push(late);
        }
        let from = self.frames.stamp(tick).or(self.frames.newest());
        Ok(from.map_or(Applied::Pending, |from| Applied::CatchingUp { from, degraded }))
    }

    /// Objects that are catching up, and the kept frames the one furthest behind still has before it.
    pub fn behind(&self) -> (usize, usize) {
        let behind = self.catching.iter().map(|late| self.frames.after(late.tick) + 1);
        (self.catching.len(), behind.max().unwrap_or(0))
    }

    /// Does one unit of work for late prompts: the objects furthest behind are tracked or prompted on one frame.
    /// `each` is told of every object it was done for.
    pub fn catch_up(&mut self, pace: Pace, each: impl FnMut(Caught<'_>)) -> Progress {
        self.catch_up_with(pace, None, each)
    }

    /// The same with eyes that can look at kept pictures.
    pub(crate) fn catch_up_with(
        &mut self,
        pace: Pace,
        eyes: Option<&mut Eyes>,
        mut each: impl FnMut(Caught<'_>),
    ) -> Progress {
        let Self { graphs, frames, catching, spare, late_look, .. } = self;
        let mut progress = Progress::default();
        for late in catching.extract_if(.., |late| !late.hold_on(frames, &graphs.ground)) {
            let at = At::Frame(late.tick);
            progress.given_up.push(GivenUp { object: late.object.id, error: frames.gone_error(at) });
            spare.push(late.object);
        }
        let Some(first) = catching.iter().min_by_key(|late| (late.tick, !late.is_fresh())) else {
            return progress;
        };
        graphs.begin();
        let (tick, fresh, exact) = (first.tick, first.is_fresh(), first.exact);
        // Where pictures are kept they are looked at again, around those who catch up.
        let again = !exact && eyes.is_some() && frames.picture(tick).is_some();
        let together = |late: &&mut CatchUp| (late.tick, late.is_fresh(), late.exact) == (tick, fresh, exact);
        let lanes = if fresh { 1 } else { graphs.lanes() };
        // Objects of one answer will share a view when they are live, so they share one on the way.
        let width = graphs.spec.masks.width_px;
        let together_seen = catching.iter().filter(|late| !late.exact).map(|late| late.sights(width));
        let sights = together_seen.reduce(Sights::with).unwrap_or_default();
        let mut group: Vec<&mut CatchUp> = catching.iter_mut().filter(together).take(lanes).collect();
        group.truncate(1 << group.len().ilog2());
        let ids: Vec<ObjectId> = group.iter().map(|late| late.object.id).collect();
        let picture = frames.picture(tick).filter(|_| again);
        let looked = match (picture, eyes) {
            (Some(picture), Some(eyes)) => late_look.see(graphs, picture, tick, sights, eyes),
            _ if frames.has_features(tick) => Ok(frames.look(tick)),
            _ => Err(frames.gone_error(At::Frame(tick))),
        };
        let done = looked.and_then(|look| Ok(advance_late(graphs, look, &mut group)?));
        if let Err(error) = done {
            self.drop_late(|late| ids.contains(&late.object.id));
            let given_up = |object| GivenUp { object, error: error.clone() };
            progress.given_up.extend(ids.into_iter().map(given_up));
            return progress;
        }
        if fresh {
            frames.release(tick);
        }
        let stamp = frames.stamp(tick);
        for late in group {
            if let (Some(frame), Some(object)) = (stamp, late.object.view(tick)) {
                each(Caught { frame, object });
            }
            if !late.go_on(frames, pace) {
                progress.live.push(late.object.id);
            }
        }
        let live = |late: &mut CatchUp| progress.live.contains(&late.object.id);
        let joining: Vec<CatchUp> = catching.extract_if(.., live).collect();
        joining.into_iter().for_each(|late| self.join(late));
        progress
    }

    /// Keeps the newest frame's features until [`Tracker::release`], however late the answer to what is asked about
    /// it. `None` where there is no frame, or half of what is kept is pinned.
    pub fn pin_newest(&mut self) -> Option<FrameStamp> {
        self.frames.pin_newest()
    }

    /// Lets go of a frame that was pinned, once for each time it was.
    pub fn release(&mut self, frame: FrameStamp) {
        self.frames.release_index(frame.index);
    }

    /// A copy of the object to be prompted on a kept frame.
    pub(crate) fn late(&mut self, id: ObjectId, tick: u64, ask: Ask) -> Result<CatchUp, TrackerError> {
        let known = self.objects.iter().position(|known| known.id == id);
        let exact = known.is_some_and(|known| self.is_exact(&self.objects[known], tick));
        if let Some(known) = known.map(|known| &self.objects[known]) {
            if exact && known.log_is_full() {
                let expected = format!("at most {MAX_CORRECTIONS} on the kept frames");
                let subject = format!("corrections of object {id}");
                return Err(TrackerError::prompt(subject, expected, "one more"));
            }
            if !exact && known.has_cond_after(tick) {
                let subject = format!("prompt for object {id}");
                let expected = "a frame after the one it was prompted on last";
                let stamp = self.frames.stamp(tick).map_or(tick, |stamp| stamp.index);
                return Err(TrackerError::prompt(subject, expected, format_args!("frame {stamp}")));
            }
        }
        let mut copy = fresh(&mut self.spare, &self.graphs, self.options.history, id)?;
        if let Some(known) = known {
            let ground = &self.graphs.ground;
            let mut copied = copy.copy_from(ground, &self.objects[known]);
            if !exact {
                copied = copied.and_then(|()| copy.start_again(ground, tick));
            }
            if let Err(error) = copied {
                self.spare.push(copy);
                return Err(error.into());
            }
        }
        Ok(CatchUp::new(copy, ask, tick, exact))
    }

    pub(crate) fn drop_late(&mut self, which: impl Fn(&CatchUp) -> bool) {
        for late in self.catching.extract_if(.., |late| which(late)) {
            if late.is_fresh() {
                self.frames.release(late.tick);
            }
            self.spare.push(late.object);
        }
    }

    /// A copy that has caught up takes its object's place.
    pub(crate) fn join(&mut self, late: CatchUp) {
        match self.objects.iter().position(|known| known.id == late.object.id) {
            Some(known) => self.spare.push(std::mem::replace(&mut self.objects[known], late.object)),
            None => {
                self.objects.push(late.object);
                self.objects.sort_unstable_by_key(|object| object.id);
            }
        }
    }
}

/// Prompts or tracks copies that are all on the same frame.
pub(crate) fn advance_late(
    graphs: &mut Graphs,
    look: Look<'_>,
    group: &mut [&mut CatchUp],
) -> Result<(), EngineError> {
    let Some(tick) = group.first().map(|late| late.tick) else { return Ok(()) };
    if group.iter().all(|late| !late.is_fresh()) {
        let mut objects: Vec<&mut Object> = group.iter_mut().map(|late| &mut late.object).collect();
        let aside = graphs.window_aside();
        run::track(graphs, look, &mut objects, tick, true, aside)?;
    }
    group.iter_mut().try_for_each(|late| late.give(graphs, look))?;
    run::conclude(graphs, group.iter_mut().map(|late| &mut late.object))
}

/// What those who catch up are shown of kept pictures.
pub(crate) struct LateLook {
    features: Vec<Slab>,
    viewer: Viewer,
    /// The frame whose features these are, and the part of the picture they show.
    seen: Option<(u64, NormBox)>,
}

impl LateLook {
    pub(crate) fn new(graphs: &Graphs) -> Result<Self, EngineError> {
        let (spec, viewer) = (&graphs.spec, Viewer::new(graphs.spec.view, &graphs.spec.image));
        // Without views there are no pictures to look at.
        let features = if spec.view.is_some() { graphs.feature_buffers()? } else { Vec::new() };
        Ok(Self { features, viewer, seen: None })
    }

    /// Encodes the part of a kept picture that they are in, unless that has just been done.
    fn see(
        &mut self,
        graphs: &mut Graphs,
        picture: &OwnedPicture,
        tick: u64,
        sights: Sights,
        eyes: &mut Eyes,
    ) -> Result<Look<'_>, TrackerError> {
        let held = |view: NormBox| sights.around.is_none_or(|around| view.holds(around));
        let known = self.seen.filter(|(seen, view)| *seen == tick && held(*view));
        let view = match known {
            Some((_, view)) => view,
            None => {
                self.seen = None;
                let picture = picture.picture().map_err(TrackerError::picture)?;
                let view = eyes.look(&picture, sights, &mut self.viewer, &mut graphs.intake)?;
                graphs.encode(None, &mut self.features)?;
                self.seen = Some((tick, view));
                view
            }
        };
        Ok(Look { features: &self.features, view })
    }
}
