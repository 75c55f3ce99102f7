//! The tracker on this device: its memory, streams, marks and kernels under what they are there for. The graphs
//! themselves run on the host (`sightline_engine_fake::on_device`).

// Families of models that hash, and masks drawn for the purpose, as the tracker's own tests have them.
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../runtime/tracker/tests/support/drawn.rs"]
mod drawn;
#[allow(dead_code, unreachable_pub)]
#[path = "../../../../runtime/tracker/tests/support/hashing.rs"]
mod hashing;

use std::{sync::Arc, thread};

use sightline_core::{
    FrameStamp, NormBox, NormPoint, ObjectId, Picture, PixelFormat, Plane, Point, PointLabel, Prompt,
};
use sightline_engine_api::{DeviceOps, Model};
use sightline_engine_cuda::CudaDevice;
use sightline_engine_fake::{FakeOptions, SIDE_PX, model, on_device};
use sightline_engine_registry::SharedModel;
use sightline_tracker::{At, MaskCounts, Options, Pace, Session};

use self::{
    drawn::{Pattern, drawn, mixed, striped},
    hashing::{Countdown, Family, SIDE},
};

/// A red and a green square on grey, which move.
fn picture(index: u64) -> Vec<u8> {
    let side = SIDE_PX as u64;
    let colour = |at: u64| {
        let (x, y, shift) = (at % side, at / side, index / 2);
        let inside =
            |x0: u64, y0: u64| (x0 + shift..x0 + shift + 16).contains(&x) && (y0..y0 + 16).contains(&y);
        match (inside(4, 8), inside(8, 40)) {
            (true, _) => [220, 30, 30],
            (_, true) => [30, 220, 30],
            _ => [90, 90, 90],
        }
    };
    (0..side * side).flat_map(colour).collect()
}

fn corners(x0: f32, y0: f32, x1: f32, y1: f32) -> Prompt {
    Prompt::Box(NormBox { x0, y0, x1, y1 })
}

fn click(x: f32, y: f32) -> Prompt {
    let point = Point { at: NormPoint { x, y }, label: PointLabel::Positive };
    Prompt::Points { points: vec![point], within: None }
}

/// Prompts, a correction and a late object, whole or encoded ahead.
fn masks(model: Model, split: bool) -> Vec<String> {
    let options = Options { history: 4, memory_bytes: 0, max_objects: 3 };
    let mut session = Session::new(model, options).unwrap();
    let mut encoder = split.then(|| session.split().unwrap());
    let mut slots: Vec<_> = encoder.iter().flat_map(|encoder| [encoder.slot(), encoder.slot()]).collect();
    let size = SIDE_PX as u32;
    let encode = |encoder: &mut sightline_tracker::Encoder, slot: &mut sightline_tracker::Encoded, index| {
        let rgb = picture(index);
        let plane = Plane { data: &rgb, stride_bytes: 3 * SIDE_PX };
        encoder.run(&Picture::new(PixelFormat::Rgb, size, size, &[plane]).unwrap(), slot).unwrap();
    };
    if let Some(encoder) = &mut encoder {
        encode(encoder, &mut slots[0], 0);
    }
    let mut said = Vec::new();
    for index in 0..24 {
        match index {
            1 => _ = session.prompt(ObjectId(1), At::Next, corners(0.05, 0.1, 0.3, 0.4)).unwrap(),
            3 => _ = session.prompt(ObjectId(2), At::Next, click(0.3, 0.75)).unwrap(),
            9 => _ = session.prompt(ObjectId(1), At::Frame(6), click(0.2, 0.2)).unwrap(),
            15 => _ = session.prompt_late(ObjectId(3), At::Frame(12), corners(0.1, 0.6, 0.5, 0.95)).unwrap(),
            _ => {}
        }
        let stamp = FrameStamp { index, pts: None, running_time: None };
        let result = match &mut encoder {
            Some(encoder) => {
                // The next frame is under way before this one is looked at.
                encode(encoder, &mut slots[(index as usize + 1) % 2], index + 1);
                session.process_encoded(stamp, (size, size), &mut slots[index as usize % 2]).unwrap()
            }
            None => {
                let rgb = picture(index);
                let plane = Plane { data: &rgb, stride_bytes: 3 * SIDE_PX };
                let picture = Picture::new(PixelFormat::Rgb, size, size, &[plane]).unwrap();
                session.process(stamp, &picture).unwrap()
            }
        };
        said.push(format!("{:?}", result.objects));
        if session.tracker().behind().0 > 0 {
            let pace = Pace { now: Default::default(), within: None };
            said.push(format!("{:?}", session.catch_up(pace, (size, size)).unwrap().0));
        }
    }
    said
}

pub(crate) fn same_masks(device: &Arc<CudaDevice>) {
    let ops: Arc<dyn DeviceOps> = device.clone();
    for round_to_bf16 in [false, true] {
        let host = || model(FakeOptions { round_to_bf16, ..FakeOptions::default() });
        let on_host = masks(host(), false);
        assert!(on_host.iter().any(|said| said.contains("Tracking")));
        assert_eq!(masks(on_device(host(), &ops), false), on_host);
        assert_eq!(masks(on_device(host(), &ops), true), on_host);
    }
}

/// Frames of many sizes, batched; also how many masks were made where.
fn sizes(model: Model, objects: u32) -> (Vec<String>, MaskCounts) {
    let options = Options { history: 4, memory_bytes: 0, max_objects: 16 };
    let mut session = Session::new(model, options).unwrap();
    let mut encoder = session.split().unwrap();
    let mut slot = encoder.slot();
    for id in 0..objects {
        session.prompt(ObjectId(id), At::Next, corners(0.1, 0.2, 0.6, 0.7)).unwrap();
    }
    let mut said = Vec::new();
    for index in 0..12 {
        let size = [(61, 33), (16, 16), (7, 5), (1, 65), (200, 31), (33, 120)][index as usize % 6];
        let rgb: Vec<u8> =
            (0..3 * SIDE * SIDE).map(|at| (index as usize * 37 + at * (at % 23)) as u8).collect();
        let plane = Plane { data: &rgb, stride_bytes: 3 * SIDE };
        let picture = Picture::new(PixelFormat::Rgb, SIDE as u32, SIDE as u32, &[plane]).unwrap();
        encoder.run(&picture, &mut slot).unwrap();
        let stamp = FrameStamp { index, pts: None, running_time: None };
        let result = session.process_encoded(stamp, size, &mut slot).unwrap();
        said.push(format!("{:?}", result.objects));
    }
    (said, session.tracker().mask_counts())
}

/// Full, empty and other masks, and such as have more runs than there is room for.
pub(crate) fn masks_of_many_objects(device: &Arc<CudaDevice>) {
    let ops: Arc<dyn DeviceOps> = device.clone();
    for (pattern, room) in [(mixed as Pattern, true), (striped, false)] {
        for objects in [1, 4, 16] {
            let family = Family { batch: true, low: 16, ..Family::SAM2 };
            let host = || drawn(family.model(&Countdown::default()), pattern);
            let (on_host, _) = sizes(host(), objects);
            let (there, counts) = sizes(on_device(host(), &ops), objects);
            assert_eq!(there, on_host, "{objects} objects");
            assert_eq!(counts.on_host == 0, room, "{objects} objects");
            assert_eq!(counts.on_device + counts.on_host, 12 * u64::from(objects));
        }
    }
}

/// Feeds whose runs are put together here.
pub(crate) fn feeds_together(device: &Arc<CudaDevice>) {
    let ops: Arc<dyn DeviceOps> = device.clone();
    let wanted = masks(model(FakeOptions::default()), false);
    let batches = model(FakeOptions { batches: true, ..FakeOptions::default() });
    let shared = SharedModel::new(on_device(batches, &ops), None).unwrap();
    let joined: u64 = thread::scope(|scope| {
        let feeds = [false, true, false].map(|split| {
            let ((model, turn), wanted) = (shared.handles(), &wanted);
            scope.spawn(move || {
                assert!(masks(model, split) == *wanted);
                turn.joined_runs()
            })
        });
        feeds.into_iter().map(|feed| feed.join().unwrap()).sum()
    });
    assert!(joined > 0, "some meet");
}
