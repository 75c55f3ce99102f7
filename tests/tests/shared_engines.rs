//! Feeds that share one set of engines see what each would see with engines of its own, bit for bit.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::Write as _,
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use sightline_core::{FrameStamp, NormBox, ObjectId, Picture, PixelFormat, Plane, Prompt};
use sightline_engine_api::Model;
use sightline_engine_registry::{LoadOptions, Turn, load, locate_onnxruntime, shared};
use sightline_tracker::{At, Options, Output, Session};

const FEEDS: u64 = 3;
const FRAMES: u64 = 8;
const SIDE: usize = 192;

fn options() -> LoadOptions {
    LoadOptions { threads: Some(NonZeroUsize::MIN), ..LoadOptions::default() }
}

/// A bright square that moves over noise; every feed has its own.
fn picture(feed: u64, frame: u64) -> Vec<u8> {
    let left = (30 + 10 * feed + 3 * frame) as usize;
    let square = left..left + 50;
    let mut noise = feed * 7919 + 1;
    let mut data = Vec::with_capacity(3 * SIDE * SIDE);
    for at in 0..SIDE * SIDE {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let inside = square.contains(&(at % SIDE)) && (60..110).contains(&(at / SIDE));
        data.extend(if inside { [230, 60, 30] } else { [(noise >> 57) as u8; 3] });
    }
    data
}

/// The bits of every mask of a feed.
fn follow(model: Model, turn: Option<Turn>, feed: u64) -> Vec<u32> {
    let output = Output { low_res: true, ..Output::default() };
    let mut session = Session::with(model, Options::default(), output).unwrap();
    let left = (30 + 10 * feed) as f32;
    let around = NormBox::from_pixels([left, 60.0, left + 50.0, 110.0], SIDE as u32, SIDE as u32).unwrap();
    session.prompt(ObjectId(1), At::Next, Prompt::Box(around)).unwrap();
    let mut bits = Vec::new();
    for frame in 0..FRAMES {
        if let Some(turn) = &turn {
            turn.due(Instant::now() + Duration::from_millis(40));
        }
        let data = picture(feed, frame);
        let plane = Plane { data: &data, stride_bytes: 3 * SIDE };
        let picture = Picture::new(PixelFormat::Rgb, SIDE as u32, SIDE as u32, &[plane]).unwrap();
        session.process(FrameStamp { index: frame, pts: None, running_time: None }, &picture).unwrap();
        let objects = session.tracker().objects();
        bits.extend(objects.flat_map(|object| object.low_res.iter().map(|logit| logit.to_bits())));
    }
    bits
}

fn compare(name: &str) {
    let alone: Vec<Vec<u32>> =
        (0..FEEDS).map(|feed| follow(load(name, &options()).unwrap(), None, feed)).collect();
    assert!(alone[0] != alone[1] && !alone[0].is_empty(), "the feeds differ");
    thread::scope(|scope| {
        let feeds: Vec<_> = (0..FEEDS)
            .map(|feed| {
                let (model, turn) = shared(&format!("feeds of {name}"), name, &options()).unwrap();
                scope.spawn(move || follow(model, Some(turn), feed))
            })
            .collect();
        for (feed, alone) in feeds.into_iter().zip(&alone) {
            assert!(feed.join().unwrap() == *alone, "{name}");
        }
    });
}

#[test]
fn feeds_that_share_engines_do_not_see_each_other() {
    compare("fake");
    match locate_onnxruntime() {
        Ok(_) => compare("nano"),
        // Past the capture of the test harness, which would keep it to itself.
        Err(error) => writeln!(std::io::stderr(), "SKIPPED: {error}").unwrap(),
    }
}
