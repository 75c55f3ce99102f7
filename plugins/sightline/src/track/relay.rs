//! Which model looks: the one that was asked for, or a smaller one in its place.

use std::sync::Arc;

use sightline_core::{FrameResult, FrameStamp, ObjectId, ObjectResult, Prompt, Rle, TrackState};
use sightline_engine_api::PictureSource;
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

    /// Whether there is nothing to track, nor anything that the other model may find again.
    pub(crate) fn is_idle(&self) -> bool {
        self.unknown.is_empty() && self.looking().tracker().is_idle()
    }

    /// Whether there is such an object.
    pub(crate) fn has(&self, id: ObjectId) -> bool {
        self.unknown.contains(&id) || self.looking().tracker().has(id)
    }

    /// As [`Session::release`], of whichever model was asked about the frame.
    pub(crate) fn release(&mut self, frame: FrameStamp) {
        self.main.release(frame);
        if let Some(small) = &mut self.small {
            small.release(frame);
        }
    }

    /// As [`Session::process`].
    pub(crate) fn process(
        &mut self,
        frame: FrameStamp,
        picture: &dyn PictureSource,
    ) -> Result<FrameResult, TrackerError> {
        let mut result = self.session().process(frame, picture)?;
        let (width_px, height_px) = picture.size_px();
        if self.small_looks {
            let lost = |id: &ObjectId| ObjectResult {
                id: *id,
                state: TrackState::Lost,
                score: 0.0,
                iou: 0.0,
                bounds: None,
                mask: Arc::new(Rle::empty(width_px, height_px)),
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
        picture: &dyn PictureSource,
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
        // Running times of before name no frame of this one's.
        to.forget_frames();
        let mut shown = || {
            for object in result.objects.iter().filter(|object| object.bounds.is_some()) {
                to.prompt(object.id, At::Next, Prompt::Mask(Arc::new(object.mask.decode())))?;
            }
            to.process(result.frame, picture)
        };
        if let Err(error) = shown() {
            // Half of a hand-over is none.
            to.clear();
            return Err(error);
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sightline_core::{NormBox, Picture, PixelFormat, Plane};
    use sightline_engine_fake::{FakeOptions, model};
    use sightline_tracker::Options;

    use super::*;

    const SIDE: usize = 64;

    /// Grey, with a red square at `x`, or without.
    fn pixels(x: Option<usize>) -> Vec<u8> {
        let mut bytes = vec![90; SIDE * SIDE * 3];
        for (y, x) in (16..32).flat_map(|y| x.into_iter().flat_map(move |x| (x..x + 16).map(move |x| (y, x))))
        {
            bytes[(y * SIDE + x) * 3..][..3].copy_from_slice(&[230, 20, 20]);
        }
        bytes
    }

    fn look<T>(bytes: &[u8], then: impl FnOnce(&Picture<'_>) -> T) -> T {
        let planes = [Plane { data: bytes, stride_bytes: SIDE * 3 }];
        then(&Picture::new(PixelFormat::Rgb, SIDE as u32, SIDE as u32, &planes).unwrap())
    }

    fn stamp(index: u64) -> FrameStamp {
        FrameStamp { index, pts: None, running_time: Some(Duration::from_millis(40 * index)) }
    }

    #[test]
    fn what_was_lost_at_the_hand_over_is_told_and_found_after_it() {
        let session = || {
            let options = Options { history: 4, memory_bytes: 0, max_objects: 3 };
            Session::new(model(FakeOptions::default()), options).unwrap()
        };
        let mut relay = Relay::new(session(), Some(session()));
        let id = ObjectId(7);
        let within = NormBox { x0: 0.25, y0: 0.25, x1: 0.5, y1: 0.5 };
        relay.session().prompt(id, At::Next, Prompt::Box(within)).unwrap();
        let state = |result: &FrameResult| result.objects.iter().map(|o| (o.id, o.state)).collect::<Vec<_>>();
        let seen = look(&pixels(Some(16)), |picture| relay.process(stamp(0), picture)).unwrap();
        assert_eq!(state(&seen), [(id, TrackState::Tracking)]);
        let hidden = pixels(None);
        let lost = look(&hidden, |picture| relay.process(stamp(1), picture)).unwrap();
        assert_eq!(state(&lost), [(id, TrackState::Lost)]);
        look(&hidden, |picture| relay.hand_over(true, &lost, picture)).unwrap();
        assert!(!relay.is_idle() && relay.has(id), "it may come back");
        let still = look(&hidden, |picture| relay.process(stamp(2), picture)).unwrap();
        assert_eq!(state(&still), [(id, TrackState::Lost)]);
        look(&hidden, |picture| relay.hand_over(false, &still, picture)).unwrap();
        let again = look(&pixels(Some(24)), |picture| relay.process(stamp(3), picture)).unwrap();
        assert_eq!(state(&again), [(id, TrackState::Tracking)]);
        assert!(relay.remove(id) && relay.is_idle() && !relay.has(id));
    }
}
