use std::{sync::Arc, time::Instant};

use sightline_core::{
    FrameResult, FrameStamp, ImageSpec, NormBox, ObjectId, ObjectResult, Outcome, Prompt, Rle, StageTimes,
    TrackState, ValueError,
};
use sightline_engine_api::{Model, PictureRef, PictureSource};
use sightline_vision::{MaskUpscaler, Preprocessor};

use crate::{
    Applied, At, CleanUp, Encoded, Encoder, Kind, ObjectView, Options, Pace, Progress, ProposalOptions,
    Proposer, Tracker, TrackerError,
    clean::Cleaner,
    slab::Intake,
    view::{self, Sights, Viewer},
};

/// What a session is to hand out. Both keep the host at work where engines are on a device: low-res logits then come
/// from there with every frame, and masks are made of them on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Output {
    /// Tidies the masks that are handed out, and only those: memories, corrections and the view see what the model gave.
    pub clean_up: CleanUp,
    /// [`ObjectView::low_res`] is looked at. (Without this it may be there all the same.)
    pub low_res: bool,
}

/// A tracker with preprocessing before it and mask upscaling behind it: pictures in, results out.
pub struct Session {
    tracker: Tracker,
    /// None once the session is split.
    eyes: Option<Eyes>,
    viewer: Viewer,
    finish: Finish,
    /// The whole picture is to be seen.
    all: bool,
    /// An object has caught up since the last frame: the view may not show it yet.
    joined: bool,
}

/// From a picture to the tensor of the part that is shown.
pub(crate) struct Eyes {
    spec: ImageSpec,
    /// Where the engines take host tensors.
    preprocessor: Preprocessor,
}

impl Eyes {
    fn new(spec: &ImageSpec) -> Self {
        Self { spec: spec.clone(), preprocessor: Preprocessor::new(spec) }
    }

    /// The pictures they make.
    pub(crate) fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// Fills the intake, normalised as the model wants it; gives the part of the picture that is shown.
    pub(crate) fn look(
        &mut self,
        picture: &dyn PictureSource,
        sights: Sights,
        viewer: &mut Viewer,
        intake: &mut Intake,
    ) -> Result<NormBox, TrackerError> {
        let (width, height) = picture.size_px();
        let part @ [x, y, w, h] = viewer.choose(sights, width, height);
        let view = in_picture(part, width, height);
        // Where it can be read on the device the host never sees it.
        if let Some(there) = intake.device().and_then(|device| picture.on_device(device)) {
            intake.see(&PictureRef::Device(there.crop(x, y, w, h)?), &self.spec)?;
            return Ok(view);
        }
        let shown = picture.on_host()?.crop(x, y, w, h).map_err(TrackerError::picture)?;
        match intake.on_host() {
            Some(image) => self.preprocessor.run(&shown, image).map_err(TrackerError::picture)?,
            None => intake.see(&shown.into(), &self.spec)?,
        }
        Ok(view)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}

impl Session {
    /// Takes a model. Where its engines are on a device, masks are made there too if they can be.
    ///
    /// # Errors
    /// As [`Tracker::new`].
    pub fn new(model: Model, options: Options) -> Result<Self, TrackerError> {
        Self::with(model, options, Output::default())
    }

    /// As [`Session::new`], with more to be had of it.
    ///
    /// # Errors
    /// As [`Tracker::new`].
    pub fn with(model: Model, options: Options, output: Output) -> Result<Self, TrackerError> {
        let masks = &model.spec.masks;
        let cleaner = Cleaner::new(output.clean_up, masks.width_px, masks.height_px);
        let tracker = Tracker::with(model, options, !output.low_res && cleaner.is_none())?;
        let spec = tracker.spec();
        Ok(Self {
            eyes: Some(Eyes::new(&spec.image)),
            viewer: Viewer::new(spec.view, &spec.image),
            finish: Finish {
                upscaler: MaskUpscaler::new(spec.masks.width_px, spec.masks.height_px),
                cleaner,
            },
            all: false,
            joined: false,
            tracker,
        })
    }

    /// Tracks every object on a picture; one that lies on the model's device is read there. `latency` is the time this
    /// call took: add what came before it.
    ///
    /// # Errors
    /// As [`Tracker::step`], `Kind::Picture` when the picture cannot be read, and `Kind::Options` when the session is
    /// split.
    pub fn process(
        &mut self,
        frame: FrameStamp,
        picture: &dyn PictureSource,
    ) -> Result<FrameResult, TrackerError> {
        let start = Instant::now();
        let sights = self.sights(frame);
        let Some(eyes) = &mut self.eyes else {
            let (expected, got) = ("a session with its encoder", "one whose encoder was split off");
            return Err(TrackerError::new(Kind::Options, "process", expected, got));
        };
        let view = eyes.look(picture, sights, &mut self.viewer, &mut self.tracker.graphs.intake)?;
        let preprocess = start.elapsed();
        self.want(picture.size_px());
        let mut stages = self.tracker.step_seen(frame, view)?;
        stages.preprocess = preprocess;
        self.conclude(start, frame, stages, picture.size_px(), Some(picture))
    }

    /// Takes preprocessing and the image encoder out, to be run on another thread: frame t+1 is encoded while frame t
    /// is tracked. `None`, and nothing changes, for a model that is shown views, because what it is shown of a frame
    /// depends on the frame before; and for a session that has been split already.
    ///
    /// From then on frames come by [`Session::process_encoded`]; everything else stays as it was.
    pub fn split(&mut self) -> Option<Encoder> {
        let graphs = &mut self.tracker.graphs;
        if graphs.spec.view.is_some() {
            return None;
        }
        let graph = graphs.take_image_encoder()?;
        Some(Encoder::new(self.eyes.take()?, graph, graphs))
    }

    /// As [`Session::process`], for a picture of `size_px` that the [`Encoder`] has encoded. The features are swapped
    /// with those of a frame that is kept no longer, not copied: `encoded` is ready to be filled again, whatever
    /// comes of the frame. Its stages are in the result, but `latency` is the time this call alone took.
    ///
    /// # Errors
    /// As [`Session::process`], and `Kind::Picture` for what was not filled, or by another model's encoder.
    pub fn process_encoded(
        &mut self,
        frame: FrameStamp,
        size_px: (u32, u32),
        encoded: &mut Encoded,
    ) -> Result<FrameResult, TrackerError> {
        let start = Instant::now();
        self.want(size_px);
        let mut stages = self.tracker.step_encoded(frame, encoded)?;
        (stages.preprocess, stages.image_encoder) = (encoded.preprocess(), encoded.image_encoder());
        self.conclude(start, frame, stages, size_px, None)
    }

    /// As [`Tracker::set_remembering`].
    pub fn set_remembering(&mut self, on: bool) {
        self.tracker.set_remembering(on);
    }

    /// Masks of this size are made with the next frame, where a device makes them.
    fn want(&mut self, (width_px, height_px): (u32, u32)) {
        let pixels = width_px.checked_mul(height_px).filter(|pixels| *pixels > 0);
        self.tracker.graphs.want(pixels.map(|_| (width_px, height_px)));
    }

    /// From the tracked objects to the result.
    fn conclude(
        &mut self,
        start: Instant,
        frame: FrameStamp,
        mut stages: StageTimes,
        (width_px, height_px): (u32, u32),
        picture: Option<&dyn PictureSource>,
    ) -> Result<FrameResult, TrackerError> {
        self.joined = false;
        let upscaling = Instant::now();
        let objects = self.results(width_px, height_px)?;
        stages.postprocess += upscaling.elapsed();
        if let Some(picture) = picture {
            self.tracker.keep_picture(picture);
        }
        let found = objects.iter().any(|object| object.state == TrackState::Tracking);
        let outcome = if found { Outcome::Masks } else { Outcome::NoObject };
        Ok(FrameResult { frame, outcome, latency: start.elapsed(), stages, objects })
    }

    /// What a frame has to show.
    fn sights(&self, frame: FrameStamp) -> Sights {
        let mut sights = Sights::default();
        if self.tracker.spec().view.is_none() {
            return sights;
        }
        let mut add = |extent: NormBox| {
            sights.around = Some(sights.around.map_or(extent, |around| around.union(extent)));
        };
        let width = self.tracker.spec().masks.width_px;
        let (mut lost, mut clicked) = (false, false);
        for object in self.tracker.objects() {
            clicked |= object.clicked;
            match view::bounds(object.low_res, width, object.view)
                .filter(|_| object.state == TrackState::Tracking)
            {
                Some(seen) => add(seen),
                None => lost = true,
            }
        }
        let (mut prompted, mut anywhere) = (self.joined, self.all);
        for extent in self.tracker.due(frame) {
            prompted = true;
            match extent {
                Some(extent) => add(extent),
                None => anywhere = true,
            }
        }
        Sights { clicked, lost, prompted, anywhere, ..sights }
    }

    /// The objects on the newest frame at `width_px` x `height_px`, as after a prompt that changed them.
    ///
    /// # Errors
    /// `Kind::Picture` when there is no such size.
    pub fn results(&mut self, width_px: u32, height_px: u32) -> Result<Vec<ObjectResult>, TrackerError> {
        let Self { tracker, finish, .. } = self;
        tracker.fetch_masks((width_px, height_px))?;
        tracker.objects().map(|object| finish.run(&object, (width_px, height_px))).collect()
    }

    /// As [`Tracker::prompt_late`].
    ///
    /// # Errors
    /// As [`Tracker::prompt_late`].
    pub fn prompt_late(&mut self, object: ObjectId, at: At, prompt: Prompt) -> Result<Applied, TrackerError> {
        self.tracker.prompt_late(object, at, prompt)
    }

    /// As [`Tracker::catch_up`], with the masks made on the way, of `width_px` x `height_px`.
    ///
    /// # Errors
    /// `Kind::Picture` when there is no such size.
    pub fn catch_up(
        &mut self,
        pace: Pace,
        (width_px, height_px): (u32, u32),
    ) -> Result<(Vec<(FrameStamp, ObjectResult)>, Progress), TrackerError> {
        self.want((width_px, height_px));
        let Self { tracker, finish, eyes, joined, .. } = self;
        let (mut late, mut failed) = (Vec::new(), None);
        let progress = tracker.catch_up_with(pace, eyes.as_mut(), |caught| {
            match finish.run(&caught.object, (width_px, height_px)) {
                Ok(result) => late.push((caught.frame, result)),
                Err(error) => failed = Some(error),
            }
        });
        *joined |= !progress.live.is_empty();
        failed.map_or(Ok((late, progress)), Err)
    }

    /// While `all` is set the model is shown the whole picture, whatever its objects need: somebody asks about it.
    pub fn show_all(&mut self, all: bool) {
        self.all = all;
    }

    /// As [`Tracker::pin_newest`].
    pub fn pin_newest(&mut self) -> Option<FrameStamp> {
        self.tracker.pin_newest()
    }

    /// As [`Tracker::release`].
    pub fn release(&mut self, frame: FrameStamp) {
        self.tracker.release(frame);
    }

    /// As [`Tracker::prompt`].
    ///
    /// # Errors
    /// As [`Tracker::prompt`].
    pub fn prompt(&mut self, object: ObjectId, at: At, prompt: Prompt) -> Result<Applied, TrackerError> {
        self.tracker.prompt(object, at, prompt)
    }

    /// Looks on a kept frame for things that may be meant; [`Session::propose_step`] does the work. The whole picture is
    /// looked at where it is kept, else what the frame showed. `hints` are boxes in the whole picture where something
    /// may be.
    ///
    /// # Errors
    /// `Kind::Gone` when the frame is kept no longer or still to come, `Kind::Engine` when the image encoder fails.
    pub fn propose(
        &mut self,
        at: At,
        options: ProposalOptions,
        hints: &[NormBox],
    ) -> Result<Proposer, TrackerError> {
        self.tracker.propose(at, options, hints, self.eyes.as_mut())
    }

    /// As [`Tracker::propose_step`].
    ///
    /// # Errors
    /// As [`Tracker::propose_step`].
    pub fn propose_step(&mut self, proposer: &mut Proposer) -> Result<bool, TrackerError> {
        self.tracker.propose_step(proposer)
    }

    /// As [`Tracker::remove`].
    pub fn remove(&mut self, object: ObjectId) -> bool {
        self.tracker.remove(object)
    }

    /// As [`Tracker::clear`].
    pub fn clear(&mut self) {
        self.tracker.clear();
    }

    /// As [`Tracker::forget_frames`].
    pub fn forget_frames(&mut self) {
        self.tracker.forget_frames();
    }

    /// Forgets frames, memories, objects and prompts, as after a flush or a seek.
    pub fn reset(&mut self) {
        self.tracker.reset();
        self.viewer.reset();
        self.all = false;
    }

    /// The tracker.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}

/// From an object's logits to what the client is given.
struct Finish {
    upscaler: MaskUpscaler,
    cleaner: Option<Cleaner>,
}

impl Finish {
    fn run(
        &mut self,
        object: &ObjectView<'_>,
        (width_px, height_px): (u32, u32),
    ) -> Result<ObjectResult, TrackerError> {
        let mask = match object.mask {
            _ if object.state != TrackState::Tracking => Arc::new(Rle::empty(width_px, height_px)),
            Some(mask) => Arc::clone(mask),
            None => Arc::new(self.upscale(object, (width_px, height_px)).map_err(TrackerError::picture)?),
        };
        let bounds = mask.bounds();
        Ok(ObjectResult {
            id: object.id,
            state: if bounds.is_some() { TrackState::Tracking } else { TrackState::Lost },
            score: 1.0 / (1.0 + (-object.object_score).exp()),
            iou: object.iou,
            bounds,
            mask,
        })
    }

    /// The mask in the whole picture.
    fn upscale(
        &mut self,
        object: &ObjectView<'_>,
        (width_px, height_px): (u32, u32),
    ) -> Result<Rle, ValueError> {
        let [x0, y0, x1, y1] = object.view.to_pixels(width_px, height_px).map(|v| v.round() as u32);
        let low_res = match &mut self.cleaner {
            Some(cleaner) => cleaner.run(object.low_res)?,
            None => object.low_res,
        };
        self.upscaler.run(low_res, x1 - x0, y1 - y0)?.placed(x0, y0, width_px, height_px)
    }
}

/// A part `[x, y, width, height]` of a picture in normalised coordinates.
fn in_picture([x, y, part_width, part_height]: [u32; 4], width_px: u32, height_px: u32) -> NormBox {
    let (w, h) = (width_px as f32, height_px as f32);
    NormBox {
        x0: x as f32 / w,
        y0: y as f32 / h,
        x1: (x + part_width) as f32 / w,
        y1: (y + part_height) as f32 / h,
    }
}
