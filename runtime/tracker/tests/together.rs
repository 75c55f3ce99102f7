//! Feeds whose runs are put together see what each would see alone: on a device that does everything as late and in as
//! bad an order as it may, and by ONNX Runtime.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    io::Write as _,
    num::NonZeroUsize,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use sightline_core::{ObjectId, Picture, PixelFormat, Plane, TrackState};
use sightline_engine_api::{Model, Stream};
use sightline_engine_fake::{FakeOptions, Schedule, model as fake};
use sightline_engine_registry::{LoadOptions, Provider, SharedModel, Turn, load, locate_onnxruntime};
use sightline_tracker::{At, Options, Output, Session};
use support::{corners, hashing::device, stamp};

const FRAMES: u64 = 24;

fn options() -> Options {
    Options { history: 4, memory_bytes: 0, max_objects: 3 }
}

/// Squares on grey that move; every feed's have their own colours and pace. What lies around them differs, too.
fn picture(feed: u64, index: u64, side: u64) -> Vec<u8> {
    let unit = side / 16;
    let shift = index * (1 + feed % 2) / 3 * (unit / 4).max(1);
    let colour = [40 * feed as u8 + 60, 220 - 50 * feed as u8, 30];
    let inside = |x: u64, y: u64, x0: u64, y0: u64| {
        (x0 + shift..x0 + shift + 4 * unit).contains(&x) && (y0..y0 + 4 * unit).contains(&y)
    };
    let pixel = |at: u64| {
        let (x, y) = (at % side, at / side);
        match (inside(x, y, unit, 2 * unit), inside(x, y, 2 * unit, 10 * unit)) {
            (true, _) => colour,
            (_, true) => [30, 60, 230],
            _ => [128 + (feed * 5) as u8, 128 - ((x + y + index) % 5) as u8, 130],
        }
    };
    (0..side * side).flat_map(pixel).collect()
}

/// What a feed has seen.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// A frame's results, in words.
    results: Vec<String>,
    /// Low-res logits of every frame, object by object, if they were asked for.
    logits: Vec<Vec<f32>>,
}

fn follow(model: Model, output: Output, turn: Option<&Turn>, feed: u64, together: &Barrier) -> Seen {
    let side = model.spec.image.width_px as u64;
    let mut session = Session::with(model, options(), output).unwrap();
    // Some feeds have one object, some two: their runs bring one picture for both.
    session.prompt(ObjectId(1), At::Next, corners(0.07, 0.13, 0.31, 0.37)).unwrap();
    if feed % 2 == 1 {
        session.prompt(ObjectId(2), At::Next, corners(0.13, 0.63, 0.37, 0.87)).unwrap();
    }
    together.wait();
    let mut seen = Seen::default();
    for index in 0..FRAMES {
        if let Some(turn) = turn {
            turn.due(Instant::now() + Duration::from_millis(33));
        }
        let data = picture(feed, index, side);
        let plane = Plane { data: &data, stride_bytes: 3 * side as usize };
        let picture = Picture::new(PixelFormat::Rgb, side as u32, side as u32, &[plane]).unwrap();
        let result = session.process(stamp(index), &picture).unwrap();
        assert_eq!(result.objects.len() as u64, 1 + feed % 2);
        let tracked = result.objects.iter().filter(|object| object.state == TrackState::Tracking);
        assert!(tracked.count() > 0 || side > 64, "feed {feed} frame {index}");
        seen.results.push(format!("{:?}", result.objects));
        if output.low_res {
            seen.logits.extend(session.tracker().objects().map(|object| object.low_res.to_vec()));
        }
    }
    seen
}

fn alone(model: Model, output: Output, feed: u64) -> Seen {
    follow(model, output, None, feed, &Barrier::new(1))
}

/// What each feed saw, and how many runs were put together.
fn all(shared: &SharedModel, output: Output, feeds: u64) -> (Vec<Seen>, u64) {
    let together = Barrier::new(feeds as usize);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..feeds)
            .map(|feed| {
                let ((model, turn), together) = (shared.handles(), &together);
                scope.spawn(move || (follow(model, output, Some(&turn), feed, together), turn.joined_runs()))
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let joined = ended.iter().map(|(_, joined)| joined).sum();
        (ended.into_iter().map(|(seen, _)| seen).collect(), joined)
    })
}

#[test]
fn on_a_device_they_see_the_same_to_the_bit() {
    let (encode, track, copy) = (Stream::ENCODE, Stream::TRACK, Stream::COPY);
    let model = || fake(FakeOptions { batches: true, ..FakeOptions::default() });
    let wanted = |output: Output| {
        (0..4).map(|feed| alone(fake(FakeOptions::default()), output, feed)).collect::<Vec<_>>()
    };
    let (masks, logits) = (Output::default(), Output { low_res: true, ..Output::default() });
    let (wanted_masks, wanted_logits) = (wanted(masks), wanted(logits));
    let mut joined = 0;
    for (feeds, output, wanted, schedule) in [
        (2, masks, &wanted_masks, Schedule::First(vec![track, encode, copy])),
        (4, logits, &wanted_logits, Schedule::First(vec![track, encode, copy])),
        (4, masks, &wanted_masks, Schedule::First(vec![copy, encode, track])),
        (4, logits, &wanted_logits, Schedule::Random(7)),
    ] {
        let device = device(schedule.clone());
        let shared = SharedModel::new(device.model(model()), None).unwrap();
        // Whoever comes first makes what all share.
        let (first, _) = shared.handles();
        drop(Session::with(first, options(), output).unwrap());
        let before = device.counts();
        let (seen, runs) = all(&shared, output, feeds);
        assert!(seen == wanted[..feeds as usize], "{feeds} feeds, {schedule:?}");
        let after = device.counts();
        assert_eq!(after.downloads - before.downloads, feeds * FRAMES, "one wait a frame: {schedule:?}");
        assert_eq!(after.waits, before.waits, "{schedule:?}");
        joined += runs;
    }
    assert!(joined > 10, "only {joined} runs were put together");
}

#[test]
fn nothing_is_made_on_the_device_once_they_have_begun() {
    let device = device(Schedule::Random(3));
    let model = device.model(fake(FakeOptions { batches: true, ..FakeOptions::default() }));
    let shared = SharedModel::new(model, None).unwrap();
    let start = Barrier::new(3);
    let before = thread::scope(|scope| {
        for feed in 0..2 {
            let ((model, turn), start) = (shared.handles(), &start);
            scope.spawn(move || follow(model, Output::default(), Some(&turn), feed, start));
        }
        // All sessions are there, and none has begun.
        let before = loop {
            let counts = device.counts();
            thread::sleep(Duration::from_millis(50));
            if device.counts() == counts {
                break counts;
            }
        };
        start.wait();
        before
    });
    let after = device.counts();
    assert_eq!((after.allocations, after.marks), (before.allocations, before.marks));
    assert_eq!(after.downloads - before.downloads, 2 * FRAMES);
}

#[test]
fn by_onnx_runtime_they_see_the_same() {
    if let Err(error) = locate_onnxruntime() {
        // Past the capture of the test harness, which would keep it to itself.
        writeln!(std::io::stderr(), "SKIPPED: {error}").unwrap();
        return;
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sam2-tiny/model");
    let options = LoadOptions {
        provider: Provider::OnnxRuntimeCpu,
        threads: Some(NonZeroUsize::MIN),
        ..LoadOptions::default()
    };
    let model = || load(golden.to_str().unwrap(), &options).unwrap();
    let shared = SharedModel::new(model(), NonZeroUsize::new(4)).unwrap();
    let output = Output { low_res: true, ..Output::default() };
    let (seen, joined) = all(&shared, output, 4);
    assert!(joined > 0, "some meet");
    let mut farthest = 0.0_f32;
    for (feed, seen) in seen.iter().enumerate() {
        let wanted = alone(model(), output, feed as u64);
        assert!(!seen.logits.is_empty() && seen.logits.len() == wanted.logits.len());
        let pairs = seen.logits.iter().flatten().zip(wanted.logits.iter().flatten());
        farthest = pairs.map(|(a, b)| (a - b).abs()).fold(farthest, f32::max);
    }
    // Products of more rows may be summed in another order, and memories are rounded to bf16 on the way: what 1e-6 of
    // noise in the pictures moves (`tests/golden/sam2-tiny/golden.json`), and ten times what was seen.
    assert!(farthest <= 3e-4, "{farthest:e}");
}
