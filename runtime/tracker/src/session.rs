use std::{sync::Arc, time::Instant};

use sightline_core::{
    FrameResult, FrameStamp, NormBox, ObjectId, ObjectResult, Outcome, Picture, Prompt, Rle, TrackState,
};
use sightline_engine_api::Model;
use sightline_vision::{MaskUpscaler, Preprocessor};

use crate::{
    Applied, At, Options, Tracker, TrackerError,
    view::{self, Sights, Viewer},
};

/// A tracker with preprocessing before it and mask upscaling behind it: pictures in, results out.
pub struct Session {
    tracker: Tracker,
    preprocessor: Preprocessor,
    upscaler: MaskUpscaler,
    viewer: Viewer,
    /// `[3,H,W]` f32, normalised as the model wants it.
    image: Vec<f32>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("tracker", &self.tracker).finish_non_exhaustive()
    }
}

impl Session {
    /// Takes a model.
    ///
    /// # Errors
    /// As [`Tracker::new`].
    pub fn new(model: Model, options: Options) -> Result<Self, TrackerError> {
        let tracker = Tracker::new(model, options)?;
        let spec = tracker.spec();
        Ok(Self {
            preprocessor: Preprocessor::new(&spec.image),
            upscaler: MaskUpscaler::new(spec.masks.width_px, spec.masks.height_px),
            viewer: Viewer::new(spec.view, &spec.image),
            image: vec![0.0; 3 * spec.image.height_px * spec.image.width_px],
            tracker,
        })
    }

    /// Tracks every object on a picture. `latency` is the time this call took: add what came before it.
    ///
    /// # Errors
    /// As [`Tracker::step`], and `Kind::Picture` when the picture cannot be read.
    pub fn process(&mut self, frame: FrameStamp, picture: &Picture<'_>) -> Result<FrameResult, TrackerError> {
        let start = Instant::now();
        let (width, height) = (picture.width_px(), picture.height_px());
        let part = self.viewer.choose(self.sights(frame), width, height);
        let shown = picture.crop(part[0], part[1], part[2], part[3]).map_err(TrackerError::picture)?;
        self.preprocessor.run(&shown, &mut self.image).map_err(TrackerError::picture)?;
        let preprocess = start.elapsed();
        let mut stages = self.tracker.step_in(frame, &self.image, in_picture(part, width, height))?;
        stages.preprocess = preprocess;
        let upscaling = Instant::now();
        let objects = self.results(width, height)?;
        stages.postprocess = upscaling.elapsed();
        let found = objects.iter().any(|object| object.state == TrackState::Tracking);
        let outcome = if found { Outcome::Masks } else { Outcome::NoObject };
        Ok(FrameResult { frame, outcome, latency: start.elapsed(), stages, objects })
    }

    /// What a frame has to show.
    fn sights(&self, frame: FrameStamp) -> Sights {
        let mut sights = Sights::default();
        let mut add = |extent: NormBox| {
            sights.around = Some(sights.around.map_or(extent, |around| around.union(extent)));
        };
        let (view, width) = (self.tracker.view(), self.tracker.spec().masks.width_px);
        let (mut lost, mut clicked) = (false, false);
        for object in self.tracker.objects() {
            clicked |= object.clicked;
            match view::bounds(object.low_res, width, view).filter(|_| object.state == TrackState::Tracking) {
                Some(seen) => add(seen),
                None => lost = true,
            }
        }
        let (mut prompted, mut anywhere) = (false, false);
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
        let mut results = Vec::with_capacity(self.tracker.options().max_objects);
        let [x0, y0, x1, y1] = self.tracker.view().to_pixels(width_px, height_px).map(|v| v.round() as u32);
        for object in self.tracker.objects() {
            let mut mask = Rle::empty(width_px, height_px);
            if object.state == TrackState::Tracking {
                mask = self
                    .upscaler
                    .run(object.low_res, x1 - x0, y1 - y0)
                    .and_then(|mask| mask.placed(x0, y0, width_px, height_px))
                    .map_err(TrackerError::picture)?;
            }
            let bounds = mask.bounds();
            results.push(ObjectResult {
                id: object.id,
                state: if bounds.is_some() { TrackState::Tracking } else { TrackState::Lost },
                score: 1.0 / (1.0 + (-object.object_score).exp()),
                iou: object.iou,
                bounds,
                mask: Arc::new(mask),
            });
        }
        Ok(results)
    }

    /// As [`Tracker::prompt`].
    ///
    /// # Errors
    /// As [`Tracker::prompt`].
    pub fn prompt(&mut self, object: ObjectId, at: At, prompt: Prompt) -> Result<Applied, TrackerError> {
        self.tracker.prompt(object, at, prompt)
    }

    /// As [`Tracker::remove`].
    pub fn remove(&mut self, object: ObjectId) -> bool {
        self.tracker.remove(object)
    }

    /// As [`Tracker::clear`].
    pub fn clear(&mut self) {
        self.tracker.clear();
    }

    /// Forgets frames, memories, objects and prompts, as after a flush or a seek.
    pub fn reset(&mut self) {
        self.tracker.reset();
        self.viewer.reset();
    }

    /// The tracker.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
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
