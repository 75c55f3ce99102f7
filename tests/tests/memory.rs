//! Two thousand frames of the embedded model, objects coming and going. Alone in its process, so that what it weighs
//! is its own. (The plugin's own such test uses the fake model, the tracker's one that hashes; this one has the real
//! engines, whose arenas are the ones that could grow.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use sightline_core::{FrameStamp, NormBox, NormPoint, ObjectId, Picture, PixelFormat, Plane, Point};
use sightline_core::{PointLabel, Prompt};
use sightline_engine_api::Kind;
use sightline_engine_registry::{LoadOptions, load};
use sightline_tests::not_run;
use sightline_tracker::{At, Options, Session};

const WIDTH: usize = 160;
const HEIGHT: usize = 96;
const FRAMES: u64 = 2000;
/// By then everything has happened at least twice: points, boxes, corrections, two objects, none.
const WARM_UP: u64 = 400;
const PERIOD: u64 = 160;
/// A leak of the smallest thing that is kept a frame, a low-res mask of 7 KiB, would be four times this.
const MOST_BYTES: f64 = 3.0 * 1024.0 * 1024.0;

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Where the red square and the blue one are, left and top.
fn places(index: u64) -> [(usize, usize); 2] {
    let phase = index as f64 / 40.0;
    let at = |phase: f64, room: usize| ((phase.sin() * 0.5 + 0.5) * room as f64) as usize;
    [(at(phase, WIDTH - 30), at(phase * 0.7, HEIGHT - 30)), (at(phase * 1.3 + 2.0, WIDTH - 30), HEIGHT - 34)]
}

/// Textured ground and two squares of 30 pixels, drawn into `rgb`.
fn draw(index: u64, rgb: &mut [u8]) {
    for (at, byte) in rgb.iter_mut().enumerate() {
        let (x, y) = (at / 3 % WIDTH, at / 3 / WIDTH);
        *byte = (90 + (x * 7 + y * 13) % 40) as u8;
    }
    for ((left, top), color) in places(index).into_iter().zip([[220, 40, 30], [30, 60, 210]]) {
        for y in top..top + 30 {
            let row = &mut rgb[(y * WIDTH + left) * 3..(y * WIDTH + left + 30) * 3];
            row.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&color));
        }
    }
}

fn around((left, top): (usize, usize)) -> Prompt {
    let edges = [left, top, left + 30, top + 30].map(|edge| edge as f32);
    Prompt::Box(NormBox::from_pixels(edges, WIDTH as u32, HEIGHT as u32).unwrap())
}

fn on((left, top): (usize, usize)) -> Prompt {
    let at =
        NormPoint::from_pixels(left as f32 + 15.0, top as f32 + 15.0, WIDTH as u32, HEIGHT as u32).unwrap();
    Prompt::Points { points: vec![Point { at, label: PointLabel::Positive }], within: None }
}

/// Least-squares slope.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let (mean_x, mean_y) =
        (samples.iter().map(|s| s.0).sum::<f64>() / count, samples.iter().map(|s| s.1).sum::<f64>() / count);
    let both: f64 = samples.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    both / samples.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

#[test]
fn two_thousand_frames_of_the_embedded_model_weigh_nothing() {
    if resident_bytes().is_none() {
        return not_run("memory of the embedded model: expected VmRSS in /proc/self/status, got none");
    }
    // One thread: other tests want the other cores, and waiting for a busy one is slow.
    let options = LoadOptions { threads: Some(NonZeroUsize::MIN), ..LoadOptions::default() };
    let model = match load("nano", &options) {
        Ok(model) => model,
        Err(error) if error.kind() == Kind::Unavailable => return not_run(error),
        Err(error) => panic!("{error}"),
    };
    let mut session =
        Session::new(model, Options { history: 8, max_objects: 4, ..Options::default() }).unwrap();
    let mut rgb = vec![0; WIDTH * HEIGHT * 3];
    let (mut samples, mut held, mut looked_at, mut found) = (Vec::new(), None, 0, 0);
    let begun = Instant::now();
    for index in 0..FRAMES {
        draw(index, &mut rgb);
        let [red, blue] = places(index);
        let now = match index % PERIOD {
            0 => Some((1, At::Next, around(red))),
            30 => Some((2, At::Next, on(blue))),
            // Late: about a frame three back, replayed from there.
            35 => Some((1, At::Frame(index - 3), on(places(index - 3)[0]))),
            // A new object on the buffers of an old one.
            60 => Some((3 + index as u32, At::Next, around(blue))),
            _ => None,
        };
        if let Some((id, at, prompt)) = now {
            session.prompt(ObjectId(id), at, prompt).unwrap();
        }
        match index % PERIOD {
            40 => assert!(session.remove(ObjectId(2))),
            50 => assert!(session.remove(ObjectId(1))),
            80 => session.clear(),
            _ => {}
        }
        if session.tracker().is_idle() {
            // Nothing to track: `sightlinetrack` does not look at such frames either.
            continue;
        }
        looked_at += 1;
        let plane = Plane { data: &rgb, stride_bytes: WIDTH * 3 };
        let picture = Picture::new(PixelFormat::Rgb, WIDTH as u32, HEIGHT as u32, &[plane]).unwrap();
        let time = Some(Duration::from_millis(index * 40));
        let result = session.process(FrameStamp { index, pts: time, running_time: time }, &picture).unwrap();
        found += result.objects.iter().filter(|object| object.bounds.is_some()).count();
        if index < WARM_UP {
            held = Some(session.tracker().object_bytes());
            continue;
        }
        assert_eq!(Some(session.tracker().object_bytes()), held, "frame {index}");
        if index % 10 == 0 {
            samples.push((index as f64, resident_bytes().unwrap() as f64));
        }
    }
    let grown = slope(&samples) * (FRAMES - WARM_UP) as f64;
    println!(
        "{FRAMES} frames, {looked_at} looked at, in {:.1} s, {found} masks; resident {:.1} MiB at frame {WARM_UP}, trend {:+.2} MiB to the \
         end; objects {:.2} MiB",
        begun.elapsed().as_secs_f64(),
        samples[0].1 / f64::from(1 << 20),
        grown / f64::from(1 << 20),
        held.unwrap_or(0) as f64 / f64::from(1 << 20),
    );
    assert!(
        found > 300,
        "expected masks on many frames, got {found}: what was measured is not the real work"
    );
    assert!(grown < MOST_BYTES, "grown by {grown:.0} bytes from frame {WARM_UP} to {FRAMES}: {samples:?}");
}
