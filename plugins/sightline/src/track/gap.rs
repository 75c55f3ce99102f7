//! What becomes of objects while the camera is gone, and when it is back.

use std::time::{Duration, Instant};

use sightline_core::{FrameResult, ObjectId, TrackState};

/// After so long an object that is seen again was found anew, not re-acquired over the gap.
const REACQUIRE_WITHIN: Duration = Duration::from_secs(10);

/// No frames come, or the first ones come again.
#[derive(Debug, Clone)]
pub(crate) struct Gap {
    since: Instant,
    /// Its objects count as lost by now.
    lost: bool,
    /// Since when frames come again.
    back: Option<Instant>,
    /// Objects that were seen before it and have not been seen after it.
    missing: Vec<ObjectId>,
}

impl Gap {
    /// The camera went silent after this frame, before all was seen again that an earlier gap had taken.
    pub(crate) fn new(now: Instant, newest: Option<&FrameResult>, earlier: Option<&Self>) -> Self {
        let objects = newest.map(|newest| newest.objects.as_slice()).unwrap_or_default();
        let seen = objects.iter().filter(|object| object.state == TrackState::Tracking);
        let mut missing: Vec<ObjectId> = seen.map(|object| object.id).collect();
        missing.extend(earlier.iter().flat_map(|earlier| &earlier.missing));
        missing.sort_unstable();
        missing.dedup();
        Self { since: now, lost: false, back: None, missing }
    }

    /// Whether no frames have come since.
    pub(crate) fn lasts(&self) -> bool {
        self.back.is_none()
    }

    /// Frames come again.
    pub(crate) fn ends(&mut self, now: Instant) {
        self.back.get_or_insert(now);
    }

    pub(crate) fn missing(&self) -> &[ObjectId] {
        &self.missing
    }

    /// How long it has lasted, or did.
    pub(crate) fn length(&self, now: Instant) -> Duration {
        self.back.unwrap_or(now) - self.since
    }

    /// How long its objects may still count as coasted; `None` once they do not.
    pub(crate) fn patience(&self, now: Instant, lost_after: Duration) -> Option<Duration> {
        (!self.lost && self.back.is_none()).then(|| lost_after.saturating_sub(now - self.since))
    }

    /// Whether its objects count as lost from now on.
    pub(crate) fn loses(&mut self, now: Instant, lost_after: Duration) -> bool {
        let loses = self.patience(now, lost_after).is_some_and(|left| left.is_zero());
        self.lost |= loses;
        loses
    }

    /// A frame was looked at: the objects seen again. One that was under way when the camera went is none of after it.
    pub(crate) fn reacquired(&mut self, result: &FrameResult) -> Vec<ObjectId> {
        if self.lasts() {
            return Vec::new();
        }
        let seen = |id: &ObjectId| {
            result.objects.iter().any(|object| object.id == *id && object.state == TrackState::Tracking)
        };
        self.missing.extract_if(.., |id| seen(id)).collect()
    }

    /// Whether there is nothing more to say of it.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.back.is_some_and(|back| self.missing.is_empty() || now - back > REACQUIRE_WITHIN)
    }
}
