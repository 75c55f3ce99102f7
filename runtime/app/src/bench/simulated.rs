//! The corridor without a clock: what `sightlinetrack` does in live mode, as arithmetic.
//!
//! A picture passes at once with the newest masks that were ready by then, and is left for the worker: one frame in
//! flight, the newest waiting, the one whose place it takes superseded. A step takes what it is said to cost. At the end
//! the worker has as long as the element gives it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sightline_core::{FrameResult, FrameStamp, Outcome, SkipReason};
use sightline_tracker::{At, Session};

use super::{
    score::Shown,
    wall::{Played, Said},
};
use crate::{
    cli::PromptKind,
    eval::davis::{Sequence, prompt},
    pictures,
};

/// As long as the element waits for outcomes at the end of a stream.
const ENDING: Duration = Duration::from_secs(2);

/// What the simulation says of a stream.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Course {
    /// For every picture the frame whose masks it carries.
    pub(super) carried: Vec<Option<usize>>,
    /// Frames looked at, in order, with the cost of each.
    pub(super) looked_at: Vec<(usize, Duration)>,
    pub(super) superseded: Vec<usize>,
    pub(super) flushed: Vec<usize>,
}

/// Where a picture stands that comes at `instant`.
pub(super) fn arrival(instant: usize, fps: f64) -> Duration {
    Duration::from_secs_f64(instant as f64 / fps)
}

/// Plays `pictures` pictures at `fps`; the `n`th step takes `cost(n)`, more than nothing.
pub(super) fn simulate(pictures: usize, fps: f64, cost: impl Fn(usize) -> Duration) -> Course {
    let mut course = Course::default();
    let (mut waiting, mut newest): (Option<usize>, Option<usize>) = (None, None);
    let mut flight: Option<(usize, Duration)> = None;
    let start = |course: &mut Course, frame: usize, now: Duration| {
        let takes = cost(course.looked_at.len());
        course.looked_at.push((frame, takes));
        (frame, now + takes)
    };
    for picture in 0..pictures {
        let now = arrival(picture, fps);
        while let Some((frame, ready)) = flight.filter(|(_, ready)| *ready <= now) {
            newest = Some(frame);
            flight = waiting.take().map(|next| start(&mut course, next, ready));
        }
        course.carried.push(newest);
        match flight {
            None => flight = Some(start(&mut course, picture, now)),
            Some(_) => course.superseded.extend(waiting.replace(picture)),
        }
    }
    let end = arrival(pictures.saturating_sub(1), fps) + ENDING;
    while let Some((frame, ready)) = flight {
        if ready > end {
            course.flushed.extend([Some(frame), waiting].into_iter().flatten());
            course.looked_at.pop();
            break;
        }
        flight = waiting.take().map(|next| start(&mut course, next, ready));
    }
    course
}

/// Plays a sequence through `session`. `costs_ms` is used over and over.
pub(super) fn play(
    mut session: Session,
    sequence: &Sequence,
    order: &[usize],
    kind: PromptKind,
    fps: f64,
    costs_ms: &[f64],
) -> Result<Played> {
    if costs_ms.is_empty() || costs_ms.iter().any(|cost| !(*cost > 0.0 && cost.is_finite())) {
        bail!("costs: expected times above 0 ms, got {costs_ms:?}");
    }
    let course =
        simulate(order.len(), fps, |step| Duration::from_secs_f64(costs_ms[step % costs_ms.len()] / 1e3));
    for (id, object) in (1_u32..).zip(&sequence.objects) {
        session.prompt(sightline_core::ObjectId(id), At::Next, prompt(kind, &object.first)?)?;
    }
    let mut results: Vec<Option<FrameResult>> = vec![None; order.len()];
    let mut said = Said::default();
    for (frame, cost) in &course.looked_at {
        let rgb = pictures::read_rgb(&sequence.pictures[order[*frame]])?;
        let at = Some(arrival(*frame, fps));
        let stamp = FrameStamp { index: *frame as u64, pts: at, running_time: at };
        let result = session.process(stamp, &rgb.view()?).with_context(|| format!("frame {frame}"))?;
        said.count(result.outcome);
        said.steps.push((*frame as u64, super::figures::ms(*cost)));
        results[*frame] = Some(result);
    }
    let skipped = [(&course.superseded, SkipReason::Superseded), (&course.flushed, SkipReason::Flushed)];
    for (frames, reason) in skipped {
        frames.iter().for_each(|_| said.count(Outcome::Skipped(reason)));
    }
    let shown = course.carried.iter().enumerate().map(|(instant, carried)| {
        let Some((frame, result)) =
            carried.and_then(|frame| results[frame].as_ref().map(|result| (frame, result)))
        else {
            return Shown::default();
        };
        Shown {
            objects: result.objects.iter().map(|object| (object.id, object.mask.clone())).collect(),
            age: Some(arrival(instant, fps).saturating_sub(arrival(frame, fps))),
        }
    });
    let shown = shown.collect();
    let told: u64 = said.outcomes.values().sum();
    Ok(Played { shown, frames_in: order.len() as u64, accounted: told == order.len() as u64, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(pictures: usize, fps: f64, costs_ms: &[u64]) -> Course {
        simulate(pictures, fps, |step| Duration::from_millis(costs_ms[step % costs_ms.len()]))
    }

    fn frames(course: &Course) -> Vec<usize> {
        course.looked_at.iter().map(|(frame, _)| *frame).collect()
    }

    /// Pictures at 0, 100, 200, ... ms.
    #[test]
    fn a_slow_step_skips_what_it_must() {
        for (name, costs, looked_at, superseded, carried) in [
            (
                "faster than the camera: one frame behind",
                &[40][..],
                &[0, 1, 2, 3, 4, 5][..],
                &[][..],
                [None, Some(0), Some(1), Some(2), Some(3), Some(4)],
            ),
            (
                "exactly as fast: ready as the next one comes",
                &[100],
                &[0, 1, 2, 3, 4, 5],
                &[],
                [None, Some(0), Some(1), Some(2), Some(3), Some(4)],
            ),
            (
                // 0 runs 0..250, then 2 (1 was superseded) 250..500, then 5, which came as it was taken.
                "two and a half pictures",
                &[250],
                &[0, 2, 4, 5],
                &[1, 3],
                [None, None, None, Some(0), Some(0), Some(2)],
            ),
            (
                // 0..50, 1: 100..450, 4: 450..500, 5: 500..
                "one step that takes long",
                &[50, 350, 50, 50],
                &[0, 1, 4, 5],
                &[2, 3],
                [None, Some(0), Some(0), Some(0), Some(0), Some(4)],
            ),
        ] {
            let course = course(6, 10.0, costs);
            assert_eq!(frames(&course), looked_at, "{name}");
            assert_eq!(course.superseded, superseded, "{name}");
            assert_eq!(course.carried, carried, "{name}");
            assert!(course.flushed.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_takes_too_long_at_the_end_is_flushed() {
        let course = course(3, 10.0, &[5000]);
        assert_eq!((frames(&course), course.flushed, course.superseded), (vec![], vec![0, 2], vec![1]));
    }

    #[test]
    fn every_frame_has_one_outcome_whatever_the_costs() {
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        for _ in 0..300 {
            let costs: Vec<u64> = (0..5).map(|_| 1 + next() % 400).collect();
            let pictures = (next() % 40) as usize;
            let course = course(pictures, 24.0, &costs);
            let mut all = [frames(&course), course.superseded.clone(), course.flushed.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..pictures).collect::<Vec<_>>(), "{costs:?}");
            assert!(
                course.carried.windows(2).all(|pair| pair[0] <= pair[1]),
                "masks never go back: {costs:?}"
            );
        }
    }
}
