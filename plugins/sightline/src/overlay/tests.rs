//! The overlay in a harness, fed with metas made here.

use std::{sync::Arc, time::Duration};

use gst::prelude::*;
use sightline_core::{
    FrameResult, FrameStamp, Mask, ObjectId, ObjectResult, Outcome, Rle, StageTimes, TrackState,
};

use crate::{meta::Published, pixels::FORMATS};

const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

/// Even edges, so that subsampled chroma ends where the mask does.
fn inside(x: u32, y: u32) -> bool {
    (20..40).contains(&x) && (10..30).contains(&y)
}

fn result() -> FrameResult {
    let bytes = (0..WIDTH * HEIGHT).map(|i| u8::from(inside(i % WIDTH, i / WIDTH))).collect();
    let mask = Rle::encode(&Mask::from_bytes(WIDTH, HEIGHT, bytes).unwrap());
    let object = ObjectResult {
        id: ObjectId(3),
        state: TrackState::Tracking,
        score: 0.8,
        iou: 0.7,
        bounds: mask.bounds(),
        mask: Arc::new(mask),
    };
    FrameResult {
        frame: FrameStamp { index: 0, pts: None, running_time: None },
        outcome: Outcome::Masks,
        latency: Duration::from_millis(3),
        stages: StageTimes::default(),
        objects: vec![object],
    }
}

fn caps(format: gst_video::VideoFormat) -> gst::Caps {
    let builder = gst_video::VideoCapsBuilder::new().format(format).width(WIDTH as i32);
    builder.height(HEIGHT as i32).framerate(gst::Fraction::new(25, 1)).build()
}

/// A grey picture through the overlay, before and after.
fn through(
    format: gst_video::VideoFormat,
    with_meta: bool,
    set: impl FnOnce(&gst::Element),
) -> (gst_video::VideoInfo, Vec<u8>, Vec<u8>) {
    gst::init().unwrap();
    crate::plugin_register_static().unwrap();
    let element = gst::ElementFactory::make("sightlineoverlay").build().unwrap();
    set(&element);
    let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_src_caps(caps(format));
    let info = gst_video::VideoInfo::from_caps(&caps(format)).unwrap();
    let before = vec![100_u8; info.size()];
    let mut buffer = gst::Buffer::from_mut_slice(before.clone());
    if with_meta {
        let stamp = FrameStamp { index: 5, pts: None, running_time: None };
        Published::new(result(), Vec::new(), sightline_core::Degrade::Full)
            .attach(buffer.get_mut().unwrap(), stamp, (WIDTH, HEIGHT))
            .unwrap();
    }
    let after = harness.push_and_pull(buffer).unwrap().map_readable().unwrap().to_vec();
    (info, before, after)
}

fn only_fill(element: &gst::Element) {
    element.set_property("alpha", 1.0_f64);
    ["contour", "labels", "age"].into_iter().for_each(|name| element.set_property(name, false));
}

#[test]
fn only_pixels_of_the_mask_change() {
    let (info, before, after) = through(gst_video::VideoFormat::Rgb, true, only_fill);
    for (x, y) in (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y))) {
        let at = y as usize * info.stride()[0] as usize + x as usize * 3;
        assert_eq!(before[at..at + 3] != after[at..at + 3], inside(x, y), "({x}, {y})");
    }
}

#[test]
fn every_format_is_drawn_on() {
    for format in FORMATS {
        let (_, before, after) = through(format, true, only_fill);
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(changed >= 300 && changed < before.len() / 2, "{format}: {changed}");
    }
}

#[test]
fn contours_labels_and_age_draw_more() {
    let count = |name: Option<&str>| {
        let (_, before, after) = through(gst_video::VideoFormat::I420, true, |element| {
            only_fill(element);
            element.set_property("alpha", 0.0_f64);
            name.into_iter().for_each(|name| element.set_property(name, true));
        });
        before.iter().zip(&after).filter(|(a, b)| a != b).count()
    };
    assert_eq!(count(None), 0);
    for name in ["contour", "labels", "age"] {
        assert!(count(Some(name)) > 20, "{name}");
    }
}

#[test]
fn without_a_meta_nothing_is_touched() {
    let (_, before, after) = through(gst_video::VideoFormat::Nv12, false, |_| {});
    assert_eq!(before, after);
}
