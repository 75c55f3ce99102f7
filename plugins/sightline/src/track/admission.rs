//! Which frames may enter at all.

use std::time::{Duration, Instant};

use sightline_core::SkipReason;

/// Frames that may come early: a camera's clock is not even.
const BURST: f64 = 2.0;

/// Engines rest as long as they have worked, but no longer: masks are carried on meanwhile, and not for ever.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// A feed's budget, and its rests while the machine is too slow.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    max_fps: Option<f64>,
    tokens: f64,
    refilled: Option<Instant>,
    rest_until: Option<Instant>,
}

impl Admission {
    /// `max_fps` frames a second may be looked at.
    pub(crate) fn new(max_fps: Option<f64>) -> Self {
        Self { max_fps, tokens: BURST, refilled: None, rest_until: None }
    }

    /// Why a frame may not enter, if it may not. `rests` is given while the engines are to rest as long as they
    /// work, and says whether they work now.
    pub(crate) fn refuse(&mut self, now: Instant, rests: Option<bool>) -> Option<SkipReason> {
        if let Some(max_fps) = self.max_fps {
            let since = self.refilled.replace(now).map_or(Duration::ZERO, |then| now - then);
            self.tokens = (self.tokens + since.as_secs_f64() * max_fps).min(BURST);
            if self.tokens < 1.0 {
                return Some(SkipReason::OverBudget);
            }
        }
        let working = rests?;
        if working || self.rest_until.is_some_and(|until| now < until) {
            return Some(SkipReason::Degraded);
        }
        None
    }

    /// Time between two frames of the budget; none where any number may enter.
    pub(crate) fn interval(&self) -> Duration {
        self.max_fps.map_or(Duration::ZERO, |fps| Duration::from_secs_f64(1.0 / fps.max(1e-3)))
    }

    /// A frame has entered.
    pub(crate) fn entered(&mut self) {
        if self.max_fps.is_some() {
            self.tokens -= 1.0;
        }
    }

    /// The engines have looked at a frame for so long.
    pub(crate) fn worked(&mut self, now: Instant, time: Duration) {
        self.rest_until = Some(now + time.min(LONGEST_REST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames that enter in ten seconds of a camera with so many a second.
    fn entering(max_fps: Option<f64>, camera_fps: u32) -> usize {
        let (start, mut admission) = (Instant::now(), Admission::new(max_fps));
        let frames = 0..10 * camera_fps;
        let enter = |frame: &u32| {
            let entered =
                admission.refuse(start + Duration::from_secs(1) * *frame / camera_fps, None).is_none();
            if entered {
                admission.entered();
            }
            entered
        };
        frames.filter(enter).count()
    }

    #[test]
    fn a_flood_gets_its_budget_and_a_camera_that_keeps_to_it_all_it_asks() {
        for (max_fps, camera_fps, expected) in [
            (None, 200, 2000..=2000),
            (Some(10.0), 10, 100..=100),
            (Some(10.0), 1000, 100..=102),
            (Some(30.0), 25, 250..=250),
        ] {
            let got = entering(max_fps, camera_fps);
            assert!(expected.contains(&got), "{max_fps:?} of {camera_fps}: {got}");
        }
    }

    #[test]
    fn engines_rest_as_long_as_they_worked() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut admission = Admission::new(None);
        assert_eq!(admission.refuse(at(0), Some(false)), None);
        assert_eq!(admission.refuse(at(40), Some(true)), Some(SkipReason::Degraded));
        admission.worked(at(80), Duration::from_millis(80));
        assert_eq!(admission.refuse(at(120), Some(false)), Some(SkipReason::Degraded));
        assert_eq!(admission.refuse(at(120), None), None, "the step was taken back");
        assert_eq!(admission.refuse(at(160), Some(false)), None);
    }
}
