use std::sync::Arc;

use sightline_core::{FrameStamp, NormBox, ObjectId, Prompt, StageTimes};
use sightline_engine_api::{Model, ModelSpec, PictureSource};

use crate::{
    Applied, At, Encoded, MaskCounts, ObjectView, Options, TrackerError,
    bank::{Bank, BankSizes},
    catchup::{CatchUp, Pace},
    error::Kind,
    frames::{Found, Frames, reaches},
    graphs::Graphs,
    late::{LateLook, advance_late},
    object::Object,
    prompt::Ask,
    run,
    slab::Slab,
    slots::Slots,
};

/// Failed frames after which a waiting prompt is dropped: it may be what makes them fail.
const MAX_ATTEMPTS: u32 = 3;

/// Prompts that may wait for their frame, per object there may be.
const MAX_WAITING: usize = 4;

struct Waiting {
    object: ObjectId,
    at: At,
    ask: Ask,
    attempts: u32,
}

/// The streaming tracker: give it every frame once, in order; read the objects after each.
///
/// All buffers are made when it starts and when an object is added. An error leaves every object as it was.
pub struct Tracker {
    pub(crate) options: Options,
    pub(crate) graphs: Graphs,
    pub(crate) frames: Frames,
    pub(crate) late_look: LateLook,
    /// Ascending by id.
    pub(crate) objects: Vec<Object>,
    /// Prompted for the first time on the frame under way.
    joining: Vec<Object>,
    /// In order of arrival.
    waiting: Vec<Waiting>,
    /// Copies that are on their way, one an object, in order of arrival.
    pub(crate) catching: Vec<CatchUp>,
    /// Buffers of objects that are gone, for those to come.
    pub(crate) spare: Vec<Object>,
    /// On a device: room for a frame's features, for proposals, and who uses it.
    pub(crate) aside: Option<(Vec<Slab>, Arc<()>)>,
    /// Tracked frames are written to memory.
    remembering: bool,
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracker")
            .field("model", &self.graphs.spec.name)
            .field("objects", &self.objects.len())
            .field("waiting", &self.waiting.len())
            .field("catching", &self.catching.len())
            .finish_non_exhaustive()
    }
}

impl Tracker {
    /// Binds the model's graphs and allocates the features' history; on a device ([`Model::device`]) everything there will
    /// ever be.
    ///
    /// # Errors
    /// `Kind::Options` for an option of 0, `Kind::Engine` when a graph has a port the contract does not know, lacks
    /// one it needs, or has one of another type or shape; on a device also when an engine is elsewhere or memory is short.
    pub fn new(model: Model, options: Options) -> Result<Self, TrackerError> {
        Self::with(model, options, false)
    }

    /// With `masks`, and where nothing needs logits on the host, only masks come from a device.
    pub(crate) fn with(model: Model, options: Options, masks: bool) -> Result<Self, TrackerError> {
        for (name, value) in [("history", options.history), ("max_objects", options.max_objects)] {
            if value == 0 {
                return Err(TrackerError::new(
                    Kind::Options,
                    format_args!("option {name}"),
                    "at least 1",
                    value,
                ));
            }
        }
        let graphs = Graphs::new(model, options.max_objects, masks)?;
        let Options { history, memory_bytes, max_objects } = options;
        let parts = graphs.spec.view.is_some();
        // On a device all there will ever be is made now: the objects, a copy of each that catches up, and one that is
        // corrected at once.
        let sizes = BankSizes::new(&graphs.spec, history);
        let count = 2 * max_objects + 1;
        let banks = Bank::on_device(&graphs.ground, sizes, count)?;
        let mut rings = match graphs.finds_masks() {
            true => {
                let elements = graphs.spec.masks.height_px * graphs.spec.masks.width_px;
                Slots::on_device(&graphs.ground, Object::mask_slots(history), elements, count)?
            }
            false => Vec::new(),
        };
        let object = |bank| Object::with(ObjectId(0), bank, rings.pop(), &graphs.spec, history);
        let mut spare: Vec<Object> = banks.into_iter().rev().map(object).collect();
        spare.reserve(max_objects + 1);
        Ok(Self {
            frames: Frames::new(history, memory_bytes, parts, || graphs.feature_buffers())?,
            late_look: LateLook::new(&graphs)?,
            aside: match graphs.ground.is_device() {
                true => Some((graphs.feature_buffers()?, Arc::default())),
                false => None,
            },
            graphs,
            objects: Vec::with_capacity(options.max_objects),
            joining: Vec::with_capacity(options.max_objects),
            waiting: Vec::with_capacity(MAX_WAITING * options.max_objects),
            catching: Vec::with_capacity(options.max_objects),
            spare,
            remembering: true,
            options,
        })
    }

    /// The model's manifest.
    pub fn spec(&self) -> &ModelSpec {
        &self.graphs.spec
    }

    /// What it was made with.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Encodes a picture and tracks every object on it. `image` is `[3,H,W]` f32 as `ModelSpec::image` says.
    ///
    /// # Errors
    /// `Kind::Picture` for an image of another size or a frame that is not newer than the last; `Kind::Engine`
    /// when a graph fails. Every object is then as it was before the frame, which counts as not seen; prompts
    /// that were due wait for the next frame, but are dropped after three failures.
    pub fn step(&mut self, frame: FrameStamp, image: &[f32]) -> Result<StageTimes, TrackerError> {
        self.step_in(frame, image, NormBox::WHOLE)
    }

    /// As [`Tracker::step`], for an image that shows only the part `view` of the picture, stretched to the
    /// model's size. Masks cover that part; prompts stay in coordinates of the whole picture.
    ///
    /// # Errors
    /// As [`Tracker::step`].
    pub fn step_in(
        &mut self,
        frame: FrameStamp,
        image: &[f32],
        view: NormBox,
    ) -> Result<StageTimes, TrackerError> {
        let spec = &self.graphs.spec.image;
        let expected = 3 * spec.height_px * spec.width_px;
        if image.len() != expected {
            let expected = format!("{expected} values, [3,{},{}]", spec.height_px, spec.width_px);
            return Err(TrackerError::new(Kind::Picture, "image tensor", expected, image.len()));
        }
        self.look_and_follow(frame, Some(image), view)
    }

    /// As [`Tracker::step_in`], for what the graphs' intake holds.
    pub(crate) fn step_seen(&mut self, frame: FrameStamp, view: NormBox) -> Result<StageTimes, TrackerError> {
        self.look_and_follow(frame, None, view)
    }

    fn look_and_follow(
        &mut self,
        frame: FrameStamp,
        image: Option<&[f32]>,
        view: NormBox,
    ) -> Result<StageTimes, TrackerError> {
        self.check_newer(frame)?;
        self.graphs.times = StageTimes::default();
        self.graphs.begin();
        self.graphs.encode(image, self.frames.under_way(view))?;
        self.follow(frame)
    }

    /// As [`Tracker::step`], for the features of a whole picture; they are swapped for a frame's that is kept no longer.
    pub(crate) fn step_encoded(
        &mut self,
        frame: FrameStamp,
        encoded: &mut Encoded,
    ) -> Result<StageTimes, TrackerError> {
        let room = encoded.take(self.graphs.levels(), &self.graphs.ground)?;
        self.check_newer(frame)?;
        self.graphs.times = StageTimes::default();
        room.intake.track_after()?;
        self.frames.under_way(NormBox::WHOLE).swap_with_slice(&mut room.features);
        self.graphs.begin();
        self.follow(frame)
    }

    fn check_newer(&self, frame: FrameStamp) -> Result<(), TrackerError> {
        match self.frames.newest().filter(|newest| newest.index >= frame.index) {
            None => Ok(()),
            Some(newest) => {
                let expected = format!("an index above {}", newest.index);
                Err(TrackerError::new(Kind::Picture, "frame", expected, frame.index))
            }
        }
    }

    /// Tracks every object on the frame under way, whose features are there, and makes it the newest.
    fn follow(&mut self, frame: FrameStamp) -> Result<StageTimes, TrackerError> {
        let tick = self.frames.next_tick();
        if let Err(error) = self.advance(frame, tick) {
            self.objects.iter_mut().for_each(|object| object.forget(tick));
            self.spare.append(&mut self.joining);
            for waiting in self.waiting.iter_mut().filter(|waiting| reaches(frame, waiting.at)) {
                waiting.attempts += 1;
            }
            self.waiting.retain(|waiting| waiting.attempts < MAX_ATTEMPTS);
            return Err(error);
        }
        self.frames.commit(frame);
        self.objects.append(&mut self.joining);
        self.objects.sort_unstable_by_key(|object| object.id);
        // The newest word counts: what was prompted on this frame does not wait for an older prompt.
        let due = self.waiting.iter().filter(|waiting| reaches(frame, waiting.at));
        let due: Vec<ObjectId> = due.map(|waiting| waiting.object).collect();
        self.drop_late(|late| due.contains(&late.object.id));
        self.catching.iter_mut().for_each(|late| late.arrived += 1);
        self.waiting.retain(|waiting| !reaches(frame, waiting.at));
        let oldest = self.frames.history_tick();
        self.objects.iter_mut().for_each(|object| object.prune(oldest));
        Ok(self.graphs.times)
    }

    /// Tracks or prompts every object on the frame under way.
    fn advance(&mut self, frame: FrameStamp, tick: u64) -> Result<(), TrackerError> {
        let Self { graphs, frames, objects, joining, waiting, spare, options, remembering, .. } = self;
        let due = || waiting.iter().filter(|waiting| reaches(frame, waiting.at));
        let prompted = |object: &Object| due().any(|waiting| waiting.object == object.id);
        let mut followed = objects.iter_mut().filter(|object| !prompted(object)).peekable();
        let mut windows = 0..;
        while followed.peek().is_some() {
            let mut together: Vec<&mut Object> = followed.by_ref().take(graphs.lanes()).collect();
            // In sizes that are powers of two: a graph is prepared once for each.
            let mut rest = together.as_mut_slice();
            while !rest.is_empty() {
                let (batch, others) = rest.split_at_mut(1 << rest.len().ilog2());
                let window = windows.next().unwrap_or(0);
                run::track(graphs, frames.look(tick), batch, tick, *remembering, window)?;
                rest = others;
            }
        }
        for object in objects.iter_mut() {
            let id = object.id;
            for waiting in due().filter(|waiting| waiting.object == id) {
                run::prompt(graphs, frames.look(tick), object, tick, &waiting.ask)?;
            }
        }
        for waiting in due() {
            let id = waiting.object;
            if objects.iter().any(|object| object.id == id) {
                continue;
            }
            let at = match joining.iter().position(|object| object.id == id) {
                Some(at) => at,
                None => {
                    joining.push(fresh(spare, graphs, options.history, id)?);
                    joining.len() - 1
                }
            };
            run::prompt(graphs, frames.look(tick), &mut joining[at], tick, &waiting.ask)?;
        }
        Ok(run::conclude(graphs, objects.iter_mut().chain(joining))?)
    }

    /// Gives a prompt for an object, a new one or one that is tracked.
    ///
    /// For a frame whose features are kept it is applied now, and the object is followed from there to the newest
    /// frame; otherwise it waits for its frame. A frame the object was not tracked on becomes a conditioning frame;
    /// a frame it was tracked on is corrected. If the frame asked for is kept but showed another part of the
    /// picture, the prompt waits for the next one.
    ///
    /// # Errors
    /// `Kind::Prompt` when the model takes no such prompt, it lies outside the picture, or there is no room for
    /// another object or prompt; `Kind::Gone` when a frame at or after the one asked for was seen and is kept no
    /// longer, naming what is kept; `Kind::Engine` when a graph fails while it is applied.
    pub fn prompt(&mut self, object: ObjectId, at: At, prompt: Prompt) -> Result<Applied, TrackerError> {
        let ask = self.admit(object, &prompt)?;
        let (tick, degraded) = match self.frames.find(at) {
            Found::Kept { tick, degraded } => (tick, degraded),
            Found::Future => return self.wait(object, at, ask),
        };
        let exact = self.frames.has_features(tick);
        if degraded || !exact || self.known(object).is_some_and(|known| !self.is_exact(known, tick)) {
            return Err(self.frames.gone_error(at));
        }
        // What a kept frame did not show cannot be found in its features: the next frame will show it.
        if !self.shows(tick, &ask) {
            return self.wait(object, At::Next, ask);
        }
        let mut late = self.late(object, tick, ask)?;
        // Nobody sees those made on the way.
        self.graphs.want(None);
        let pace = Pace { now: Default::default(), within: None };
        let done = loop {
            let look = self.frames.look(late.tick);
            self.graphs.begin();
            match advance_late(&mut self.graphs, look, &mut [&mut late]) {
                Err(error) => break Err(error),
                Ok(()) if !late.go_on(&self.frames, pace) => break Ok(()),
                Ok(()) => {}
            }
        };
        if let Err(error) = done {
            self.spare.push(late.object);
            return Err(error.into());
        }
        self.drop_late(|late| late.object.id == object);
        self.join(late);
        let stamp = self.frames.stamp(tick).or(self.frames.newest());
        Ok(stamp.map_or(Applied::Pending, Applied::Now))
    }

    /// Checks a prompt and that there is room for its object.
    pub(crate) fn admit(&self, object: ObjectId, prompt: &Prompt) -> Result<Ask, TrackerError> {
        let ask = Ask::new(prompt, &self.graphs.spec, self.graphs.fixed_points())?;
        self.check_room(object)?;
        Ok(ask)
    }

    pub(crate) fn wait(&mut self, object: ObjectId, at: At, ask: Ask) -> Result<Applied, TrackerError> {
        if self.waiting.len() >= MAX_WAITING * self.options.max_objects {
            let expected = format!("at most {} that wait for their frame", self.waiting.len());
            return Err(TrackerError::prompt("prompts", expected, "one more"));
        }
        self.waiting.push(Waiting { object, at, ask, attempts: 0 });
        Ok(Applied::Pending)
    }

    pub(crate) fn shows(&self, tick: u64, ask: &Ask) -> bool {
        ask.extent().is_none_or(|extent| self.frames.view(tick).holds(extent))
    }

    fn known(&self, id: ObjectId) -> Option<&Object> {
        self.objects.iter().find(|known| known.id == id)
    }

    /// Whether an object still has all it needs to do this frame over.
    pub(crate) fn is_exact(&self, known: &Object, tick: u64) -> bool {
        tick >= self.frames.history_tick() && known.remembers(tick)
    }

    /// Keeps the newest frame's picture for late prompts, where the model is shown parts of pictures.
    pub(crate) fn keep_picture(&mut self, picture: &dyn PictureSource) {
        self.frames.keep_picture(picture);
    }

    /// From now on tracked frames are, or are not, written to memory, which saves the memory encoder. Prompted frames
    /// always are, and objects that catch up go on remembering. Until it is called, all are.
    ///
    /// To an object's memory a frame that is not remembered has not been: what it remembers does not age. Such a frame
    /// can be corrected while it is the newest; once another has come, those up to it no longer can.
    pub fn set_remembering(&mut self, on: bool) {
        self.remembering = on;
    }

    /// Whether late prompts are shown a part of the picture of their own.
    pub fn sees_again(&self) -> bool {
        self.frames.keeps_pictures()
    }

    /// Refuses a new object where there is no room for it.
    fn check_room(&self, id: ObjectId) -> Result<(), TrackerError> {
        let tracked = |id: ObjectId| {
            let late = self.catching.iter().map(|late| &late.object);
            self.objects.iter().chain(late).any(|object| object.id == id)
        };
        if tracked(id) || self.waiting.iter().any(|waiting| waiting.object == id) {
            return Ok(());
        }
        let firsts = self.waiting.iter().enumerate().filter(|(index, waiting)| {
            !tracked(waiting.object)
                && self.waiting[..*index].iter().all(|earlier| earlier.object != waiting.object)
        });
        let new = self.catching.iter().filter(|late| self.known(late.object.id).is_none());
        if self.objects.len() + new.count() + firsts.count() < self.options.max_objects {
            return Ok(());
        }
        let subject = format!("prompt for object {id}");
        Err(TrackerError::prompt(
            subject,
            format_args!("at most {} objects", self.options.max_objects),
            "one more",
        ))
    }

    /// Forgets an object and the prompts that wait for it. False if there was neither.
    pub fn remove(&mut self, object: ObjectId) -> bool {
        let waiting = self.waiting.len();
        self.waiting.retain(|waiting| waiting.object != object);
        let catching = self.catching.len();
        self.drop_late(|late| late.object.id == object);
        let known = self.objects.iter().position(|known| known.id == object);
        if let Some(known) = known {
            let gone = self.objects.remove(known);
            self.spare.push(gone);
        }
        known.is_some() || self.waiting.len() < waiting || self.catching.len() < catching
    }

    /// Forgets every object and every waiting prompt. The frames stay, for prompts to come.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.drop_late(|_| true);
        self.spare.append(&mut self.objects);
    }

    /// Forgets the kept frames, as after a flush: running times start anew. Objects stay; what catches up is given
    /// up at its next unit.
    pub fn forget_frames(&mut self) {
        self.frames.reset();
    }

    /// Whether there is such an object, or a prompt for one.
    pub fn has(&self, object: ObjectId) -> bool {
        self.known(object).is_some()
            || self.waiting.iter().any(|waiting| waiting.object == object)
            || self.catching.iter().any(|late| late.object.id == object)
    }

    /// Forgets everything: objects, prompts and frames. Frames may start again from any index.
    pub fn reset(&mut self) {
        self.clear();
        self.frames.reset();
    }

    /// The objects on the newest frame, ascending by id.
    pub fn objects(&self) -> impl Iterator<Item = ObjectView<'_>> {
        let newest = self.frames.newest_tick();
        self.objects.iter().filter_map(move |object| object.view(newest?))
    }

    /// Makes the masks on the newest frame that are to be had of a device and were not made with the frame.
    pub(crate) fn fetch_masks(&mut self, (width_px, height_px): (u32, u32)) -> Result<(), TrackerError> {
        let Some(tick) = self.frames.newest_tick().filter(|_| self.graphs.finds_masks()) else {
            return Ok(());
        };
        let pixels = width_px.checked_mul(height_px).filter(|pixels| *pixels > 0);
        if pixels.is_none() {
            let expected = format!("1 to {} pixels", u32::MAX);
            let got = format!("{width_px}x{height_px}");
            return Err(TrackerError::new(Kind::Picture, "upscaled mask", expected, got));
        }
        let objects = self.objects.iter_mut().map(|object| (tick, object));
        Ok(run::fetch(&mut self.graphs, objects, (width_px, height_px))?)
    }

    /// Where masks were made of what a device said; both 0 where logits come to the host with every frame.
    pub fn mask_counts(&self) -> MaskCounts {
        self.graphs.mask_counts()
    }

    /// The part of the picture the newest frame showed, which the objects' logits cover.
    pub fn view(&self) -> NormBox {
        self.frames.newest_tick().map_or(NormBox::WHOLE, |tick| self.frames.view(tick))
    }

    /// Where in the picture the prompts lie that wait for this frame; `None` for one whose object may reach
    /// anywhere.
    pub(crate) fn due(&self, frame: FrameStamp) -> impl Iterator<Item = Option<NormBox>> + '_ {
        let due = self.waiting.iter().filter(move |waiting| reaches(frame, waiting.at));
        due.map(|waiting| waiting.ask.object_extent())
    }

    /// The newest frame tracked.
    pub fn newest(&self) -> Option<FrameStamp> {
        self.frames.newest()
    }

    /// Whether there is neither an object nor a prompt that waits or catches up: a caller may skip the frame.
    /// Frames skipped cannot be prompted afterwards.
    pub fn is_idle(&self) -> bool {
        self.objects.is_empty() && self.waiting.is_empty() && self.catching.is_empty()
    }

    /// Bytes of state held for objects on the host, those of removed ones included; it rises only to the most objects there
    /// ever were at once, plus one for corrections.
    pub fn object_bytes(&self) -> usize {
        let late = self.catching.iter().map(|late| &late.object);
        self.objects.iter().chain(late).chain(&self.spare).map(Object::bytes).sum()
    }
}

/// An object on buffers that are to spare, or on the host on new ones.
///
/// # Errors
/// `Kind::Prompt` where a device has none left, which [`Tracker::new`] has made enough of.
pub(crate) fn fresh(
    spare: &mut Vec<Object>,
    graphs: &Graphs,
    history: usize,
    id: ObjectId,
) -> Result<Object, TrackerError> {
    match spare.pop() {
        Some(mut object) => {
            object.reset(id);
            Ok(object)
        }
        None if graphs.ground.is_device() => {
            let subject = format!("object {id}");
            Err(TrackerError::prompt(subject, "room on the device", "none"))
        }
        None => Ok(Object::new(id, &graphs.spec, history)),
    }
}
