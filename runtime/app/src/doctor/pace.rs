//! A drawn clip at a camera's pace, and how old the newest mask was all the while.

use std::{
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use sightline_core::{NormBox, ObjectId, Prompt};
use sightline_tracker::{At, Encoded, Encoder, Session};

use crate::{eval, pictures::RgbPicture};

/// A camera's picture as they mostly come.
const SIZE_PX: (u32, u32) = (1280, 720);
/// Pictures of the clip, played forward and back.
const PICTURES: usize = 12;
/// Pixels the square moves by in a frame.
const STEP_PX: usize = 12;
const SIDE_PX: usize = 240;
/// Masks left out at the start: they pay for pages and caches.
const WARM_UP: usize = 5;
/// Masks after which a run that took its time may end, and the time after which it ends at any rate.
const ENOUGH: usize = 12;
const PATIENCE: Duration = Duration::from_secs(30);

/// A square that moves to and fro before stripes.
pub(super) struct Clip(Vec<RgbPicture>);

impl Clip {
    pub(super) fn draw() -> Self {
        Self((0..PICTURES).map(draw).collect())
    }

    fn at(&self, frame: u64) -> &RgbPicture {
        let period = 2 * PICTURES as u64 - 2;
        let phase = (frame % period) as usize;
        &self.0[phase.min(period as usize - phase)]
    }
}

fn square(picture: usize) -> [usize; 4] {
    let (left, top) = (300 + STEP_PX * picture, 200);
    [left, top, left + SIDE_PX, top + SIDE_PX]
}

fn draw(picture: usize) -> RgbPicture {
    let (width, height) = (SIZE_PX.0 as usize, SIZE_PX.1 as usize);
    let [x0, y0, x1, y1] = square(picture);
    let mut data = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let inside = (x0..x1).contains(&x) && (y0..y1).contains(&y);
            let stripes = ((x / 40 + y / 30) % 5 * 20) as u8;
            data.extend(if inside { [220, 60, 40] } else { [60 + stripes, 90, 120 - stripes] });
        }
    }
    RgbPicture { width_px: SIZE_PX.0, height_px: SIZE_PX.1, data }
}

/// A mask: when its picture came from the camera, and when it was there, both from the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) captured: Duration,
    pub(super) done: Duration,
}

/// A camera that shows the newest picture to who asks, as the element's mailbox does.
#[derive(Clone, Copy)]
struct Camera {
    start: Instant,
    interval: Duration,
}

impl Camera {
    /// The newest picture's number and time, once there is one after `last`.
    fn newest(&self, last: Option<u64>) -> (u64, Duration) {
        let first = last.map_or(0, |last| last + 1);
        let at = |frame: u64| self.interval.mul_f64(frame as f64);
        if let Some(early) = at(first).checked_sub(self.start.elapsed()) {
            thread::sleep(early);
        }
        let now = (self.start.elapsed().as_secs_f64() / self.interval.as_secs_f64()) as u64;
        (now.max(first), at(now.max(first)))
    }
}

/// What one run is to be.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) fps: f64,
    pub(super) seconds: f64,
}

impl Pace {
    fn camera(&self) -> Camera {
        Camera { start: Instant::now(), interval: Duration::from_secs_f64(1.0 / self.fps) }
    }

    fn is_over(&self, shown: &[Shown]) -> bool {
        let spent = shown.last().map_or(Duration::ZERO, |shown| shown.done);
        let enough = spent.as_secs_f64() >= self.seconds && shown.len() >= WARM_UP + ENOUGH;
        enough || spent >= PATIENCE && shown.len() > WARM_UP + 1
    }
}

/// Frame by frame.
pub(super) fn sequential(session: &mut Session, clip: &Clip, pace: Pace) -> Result<Vec<Shown>> {
    begin(session)?;
    let (camera, mut last, mut shown) = (pace.camera(), None, Vec::new());
    while !pace.is_over(&shown) {
        let (frame, captured) = camera.newest(last);
        let picture = clip.at(frame);
        session.process(eval::stamp(frame as usize), &picture.view()?).context("tracking")?;
        shown.push(Shown { captured, done: camera.start.elapsed() });
        last = Some(frame);
    }
    Ok(steady(shown))
}

/// The newest picture is encoded while the one before is tracked. Where encoding takes less time than tracking it
/// starts as much later, so that a picture does not grow old between the two.
pub(super) fn pipelined(
    session: &mut Session,
    encoder: &mut Encoder,
    clip: &Clip,
    pace: Pace,
) -> Result<Vec<Shown>> {
    begin(session)?;
    let camera = pace.camera();
    let (empty, empties) = mpsc::sync_channel::<Encoded>(2);
    let (full, fulls) = mpsc::sync_channel(1);
    for _ in 0..2 {
        empty.send(encoder.slot())?;
    }
    let tracking_ns = AtomicU64::new(0);
    thread::scope(|scope| {
        let tracking_ns = &tracking_ns;
        // Whoever ends first hangs up, and the other one ends with it.
        let ahead = move || -> Result<()> {
            let (mut last, mut encoding) = (None, Duration::ZERO);
            while let Ok(mut slot) = empties.recv() {
                let tracking = Duration::from_nanos(tracking_ns.load(Ordering::Relaxed));
                thread::sleep(tracking.saturating_sub(encoding));
                let (frame, captured) = camera.newest(last);
                encoder.run(&clip.at(frame).view()?, &mut slot).context("encoding")?;
                last = Some(frame);
                encoding = slot.preprocess() + slot.image_encoder();
                if full.send((frame, captured, slot)).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let ahead = thread::Builder::new().name("sightline-encode".into()).spawn_scoped(scope, ahead)?;
        let mut shown = Vec::new();
        while !pace.is_over(&shown) {
            let Ok((frame, captured, mut slot)) = fulls.recv() else { break };
            let begun = camera.start.elapsed();
            session.process_encoded(eval::stamp(frame as usize), SIZE_PX, &mut slot).context("tracking")?;
            let done = camera.start.elapsed();
            tracking_ns.store((done - begun).as_nanos() as u64, Ordering::Relaxed);
            shown.push(Shown { captured, done });
            // The other thread may have ended.
            let _ = empty.send(slot);
        }
        drop((empty, fulls));
        ahead.join().map_err(|_| anyhow!("encoding: expected an end, got a panic"))??;
        Ok(steady(shown))
    })
}

fn begin(session: &mut Session) -> Result<()> {
    session.reset();
    let around = NormBox::from_pixels(square(0).map(|v| v as f32), SIZE_PX.0, SIZE_PX.1)?;
    session.prompt(ObjectId(1), At::Next, Prompt::Box(around)).context("prompting")?;
    Ok(())
}

fn steady(mut shown: Vec<Shown>) -> Vec<Shown> {
    shown.drain(..WARM_UP.min(shown.len().saturating_sub(2)));
    shown
}

/// What a run came to. Empty runs are all 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(super) struct Figures {
    /// The camera's.
    pub(super) fps: f64,
    /// From the camera's picture to its mask.
    pub(super) frame_to_mask_p50_ms: f64,
    pub(super) frame_to_mask_p95_ms: f64,
    pub(super) masks_per_s: f64,
    /// Of the newest mask, over time: at any instant, the time since its picture came. When masks come every I and each
    /// L after its picture, it rises from L to L + I, L + I / 2 on average.
    pub(super) mask_age_mean_ms: f64,
    pub(super) mask_age_p95_ms: f64,
    pub(super) masks: usize,
}

impl Figures {
    pub(super) fn of(fps: f64, shown: &[Shown]) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut latencies: Vec<f64> = shown.iter().map(|mask| ms(mask.done - mask.captured)).collect();
        latencies.sort_by(f64::total_cmp);
        let latency = |share: f64| match latencies.len() {
            0 => 0.0,
            count => latencies[((count - 1) as f64 * share).round() as usize],
        };
        // From one mask to the next the age rises with the clock, from .0 to .1.
        let rises: Vec<(f64, f64)> = shown
            .windows(2)
            .map(|pair| (ms(pair[0].done - pair[0].captured), ms(pair[1].done - pair[0].captured)))
            .collect();
        let total: f64 = rises.iter().map(|(from, to)| to - from).sum();
        let area: f64 = rises.iter().map(|(from, to)| (to * to - from * from) / 2.0).sum();
        let over = |value: f64| if total > 0.0 { value / total } else { 0.0 };
        Self {
            fps,
            frame_to_mask_p50_ms: latency(0.5),
            frame_to_mask_p95_ms: latency(0.95),
            masks_per_s: over(1e3 * rises.len() as f64),
            mask_age_mean_ms: over(area),
            mask_age_p95_ms: age_quantile(&rises, 0.95 * total),
            masks: shown.len(),
        }
    }
}

/// The age that is not exceeded for `within_ms` of all the time.
fn age_quantile(rises: &[(f64, f64)], within_ms: f64) -> f64 {
    let below = |age: f64| -> f64 { rises.iter().map(|(from, to)| (age.min(*to) - from).max(0.0)).sum() };
    let (mut low, mut high) = (0.0, rises.iter().map(|(_, to)| *to).fold(0.0, f64::max));
    // A thousandth of a millisecond in an hour.
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if below(middle) < within_ms { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(masks: &[(u64, u64)]) -> Vec<Shown> {
        let ms = Duration::from_millis;
        masks.iter().map(|(captured, done)| Shown { captured: ms(*captured), done: ms(*done) }).collect()
    }

    #[test]
    fn the_age_is_latency_and_half_the_interval() {
        // A mask every 40 ms, each 60 ms after its picture.
        let even: Vec<_> = (0..21).map(|at| (40 * at, 40 * at + 60)).collect();
        let figures = Figures::of(25.0, &shown(&even));
        let close =
            |got: f64, wanted: f64| assert!((got - wanted).abs() < 1e-6, "{got} {wanted}: {figures:?}");
        close(figures.frame_to_mask_p50_ms, 60.0);
        close(figures.mask_age_mean_ms, 80.0);
        close(figures.mask_age_p95_ms, 98.0);
        close(figures.masks_per_s, 25.0);

        // One mask of ten comes 200 ms late: for the last 160 of 800 ms the newest one ages on.
        let late = Figures::of(25.0, &shown(&[(0, 40), (40, 80), (80, 120), (120, 360)]));
        assert!((late.mask_age_p95_ms - (280.0 - 0.05 * 320.0)).abs() < 1e-6, "{late:?}");
        assert_eq!(Figures::of(24.0, &[]), Figures { fps: 24.0, ..Figures::default() });
    }

    #[test]
    fn a_camera_shows_the_newest_and_nothing_twice() {
        let camera = Camera { start: Instant::now(), interval: Duration::from_millis(10) };
        let (first, at) = camera.newest(None);
        assert_eq!(at, Duration::from_millis(10 * first));
        thread::sleep(Duration::from_millis(50));
        let (newest, _) = camera.newest(Some(first));
        assert!(newest >= first + 5, "{first} {newest}: those in between are gone");
        let (next, at) = camera.newest(Some(newest + 3));
        assert!(next > newest + 3 && camera.start.elapsed() >= at, "it waits for {next}");
    }

    #[test]
    fn the_clip_goes_to_and_fro() {
        let clip = Clip::draw();
        let last = PICTURES as u64 - 1;
        assert!(clip.at(0) == clip.at(2 * last) && clip.at(last - 1) == clip.at(last + 1));
        assert!(clip.at(0) != clip.at(1));
    }
}
