//! Which model looks: the one that was asked for, or a smaller one in its place.

use std::sync::Arc;

use sightline_core::{FrameResult, FrameStamp, ObjectId, ObjectResult, Picture, Prompt, Rle, TrackState};
use sightline_tracker::{At, Encoder, Session, TrackerError};

/// Two sessions, of which one looks. Objects are handed over by their masks.
pub(crate) struct Relay {
    main: Session,
    small: Option<Session>,
    small_looks: bool,
    /// Objects that were lost when the smaller model took over: it cannot know them.
    unknown: Vec<ObjectId>,
}

impl Relay {
    pub(crate) fn new(main: Session, small: Option<Session>) -> Self {
        Self { main, small, small_looks: false, unknown: Vec::new() }
    }

    /// The session that looks.
    pub(crate) fn session(&mut self) -> &mut Session {
        match &mut self.small {
            Some(small) if self.small_looks => small,
            _ => &mut self.main,
        }
    }

    /// The same, to be read.
    pub(crate) fn looking(&self) -> &Session {
        match &self.small {
            Some(small) if self.small_looks => small,
            _ => &self.main,
        }
    }

    /// The image encoder, to run ahead on another thread. Not where another model may take over: what that sees is
    /// another matter.
    pub(crate) fn split(&mut self) -> Option<Encoder> {
        if self.small.is_some() { None } else { self.main.split() }
    }

    /// As [`Session::process`].
    pub(crate) fn process(
        &mut self,
        frame: FrameStamp,
        picture: &Picture<'_>,
    ) -> Result<FrameResult, TrackerError> {
        let mut result = self.session().process(frame, picture)?;
        if self.small_looks {
            let lost = |id: &ObjectId| ObjectResult {
                id: *id,
                state: TrackState::Lost,
                score: 0.0,
                iou: 0.0,
                bounds: None,
                mask: Arc::new(Rle::empty(picture.width_px(), picture.height_px())),
            };
            self.unknown.retain(|id| result.objects.iter().all(|object| object.id != *id));
            result.objects.extend(self.unknown.iter().map(lost));
            result.objects.sort_by_key(|object| object.id);
        }
        Ok(result)
    }

    /// Lets the other model look from the next frame on, if it is to: it is shown this one, with what was found on it.
    ///
    /// # Errors
    /// As [`Session::process`]; nothing is handed over then.
    pub(crate) fn hand_over(
        &mut self,
        to_small: bool,
        result: &FrameResult,
        picture: &Picture<'_>,
    ) -> Result<(), TrackerError> {
        let Self { main, small: Some(small), small_looks, unknown } = self else { return Ok(()) };
        if *small_looks == to_small {
            return Ok(());
        }
        let to = if to_small { small } else { main };
        let known: Vec<ObjectId> = to.tracker().objects().map(|object| object.id).collect();
        let gone = known.iter().filter(|id| result.objects.iter().all(|object| object.id != **id));
        gone.for_each(|id| {
            to.remove(*id);
        });
        for object in result.objects.iter().filter(|object| object.bounds.is_some()) {
            to.prompt(object.id, At::Next, Prompt::Mask(Arc::new(object.mask.decode())))?;
        }
        to.process(result.frame, picture)?;
        *unknown =
            result.objects.iter().map(|object| object.id).filter(|id| !to.tracker().has(*id)).collect();
        *small_looks = to_small;
        Ok(())
    }

    /// As [`Session::remove`].
    pub(crate) fn remove(&mut self, id: ObjectId) -> bool {
        let unknown = self.unknown.len();
        self.unknown.retain(|other| *other != id);
        let small = self.small.as_mut().is_some_and(|small| small.remove(id));
        self.main.remove(id) || small || self.unknown.len() < unknown
    }

    /// As [`Session::clear`].
    pub(crate) fn clear(&mut self) {
        self.unknown.clear();
        self.main.clear();
        if let Some(small) = &mut self.small {
            small.clear();
        }
    }

    /// As [`Session::forget_frames`].
    pub(crate) fn forget_frames(&mut self) {
        self.main.forget_frames();
        if let Some(small) = &mut self.small {
            small.forget_frames();
        }
    }
}
