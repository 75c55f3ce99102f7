use std::{sync::Arc, time::Instant};

use sightline_core::{
    FrameResult, FrameStamp, ObjectId, ObjectResult, Outcome, Picture, Prompt, Rle, TrackState,
};
use sightline_engine_api::Model;
use sightline_vision::{MaskUpscaler, Preprocessor};

use crate::{Applied, At, Options, Tracker, TrackerError};

/// A tracker with preprocessing before it and mask upscaling behind it: pictures in, results out.
pub struct Session {
    tracker: Tracker,
    preprocessor: Preprocessor,
    upscaler: MaskUpscaler,
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
        self.preprocessor.run(picture, &mut self.image).map_err(TrackerError::picture)?;
        let preprocess = start.elapsed();
        let mut stages = self.tracker.step(frame, &self.image)?;
        stages.preprocess = preprocess;
        let upscaling = Instant::now();
        let objects = self.results(picture.width_px(), picture.height_px())?;
        stages.postprocess = upscaling.elapsed();
        let found = objects.iter().any(|object| object.state == TrackState::Tracking);
        let outcome = if found { Outcome::Masks } else { Outcome::NoObject };
        Ok(FrameResult { frame, outcome, latency: start.elapsed(), stages, objects })
    }

    /// The objects on the newest frame at `width_px` x `height_px`, as after a prompt that changed them.
    ///
    /// # Errors
    /// `Kind::Picture` when there is no such size.
    pub fn results(&mut self, width_px: u32, height_px: u32) -> Result<Vec<ObjectResult>, TrackerError> {
        let mut results = Vec::with_capacity(self.tracker.options().max_objects);
        for object in self.tracker.objects() {
            let mut mask = Rle::empty(width_px, height_px);
            if object.state == TrackState::Tracking {
                mask =
                    self.upscaler.run(object.low_res, width_px, height_px).map_err(TrackerError::picture)?;
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
    }

    /// The tracker.
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}
