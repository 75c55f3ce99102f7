//! What is tidied in the masks that are handed out, and what never is.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use sightline_core::{FrameResult, Mask, ObjectId, Picture, PixelFormat, Plane};
use sightline_engine_fake::{FakeOptions, SIDE_PX, model};
use sightline_tracker::{At, CleanUp, Options, Output, Session};
use support::{corners, stamp};

/// A low-res pixel of the fake model, in pixels.
const CELL: usize = 4;

/// Grey, a red square of 6x6 cells with a hole of one cell that moves with it, and far away a red speck of one cell.
fn picture(shift: usize) -> Vec<u8> {
    let mut rgb = vec![96; SIDE_PX * SIDE_PX * 3];
    let mut paint = |column: usize, row: usize, side: usize, colour: [u8; 3]| {
        for y in row * CELL..(row + side) * CELL {
            for x in column * CELL..(column + side) * CELL {
                rgb[(y * SIDE_PX + x) * 3..][..3].copy_from_slice(&colour);
            }
        }
    };
    paint(1 + shift, 1, 6, [255, 0, 0]);
    paint(4 + shift, 3, 1, [96; 3]);
    paint(13, 13, 1, [255, 0, 0]);
    rgb
}

/// Tracks the square over four frames: results, and every low-res logit the tracker kept.
fn track(clean_up: CleanUp) -> (Vec<FrameResult>, Vec<Vec<f32>>) {
    let mut session = Session::with(
        model(FakeOptions::default()),
        Options::default(),
        Output { clean_up, ..Output::default() },
    )
    .unwrap();
    // The middle of the box says which colour, and it is not to be the hole's.
    session.prompt(ObjectId(1), At::Next, corners(0.0, 0.0, 0.375, 0.45)).unwrap();
    let (mut results, mut kept) = (Vec::new(), Vec::new());
    for shift in 0..4 {
        let rgb = picture(shift);
        let plane = Plane { data: &rgb, stride_bytes: SIDE_PX * 3 };
        let side = SIDE_PX as u32;
        let picture = Picture::new(PixelFormat::Rgb, side, side, &[plane]).unwrap();
        results.push(session.process(stamp(shift as u64), &picture).unwrap());
        kept.push(session.tracker().objects().next().unwrap().low_res.to_vec());
    }
    (results, kept)
}

/// Whether the middle of a cell is in a mask.
fn there(mask: &Mask, column: usize, row: usize) -> bool {
    let middle = |cell: usize| cell * CELL + CELL / 2;
    mask.data()[middle(row) * SIDE_PX + middle(column)] != 0
}

#[test]
fn masks_are_tidied_and_memories_are_not() {
    let untouched = track(CleanUp::default());
    for (case, clean_up, hole_stays, speck_stays) in [
        ("nothing", CleanUp::default(), true, true),
        ("holes", CleanUp { fill_hole_area_px: 1, sprinkle_area_px: 0 }, false, true),
        ("sprinkles", CleanUp { fill_hole_area_px: 0, sprinkle_area_px: 1 }, true, false),
        ("both", CleanUp { fill_hole_area_px: 8, sprinkle_area_px: 8 }, false, false),
    ] {
        let (results, kept) = track(clean_up);
        assert_eq!(kept, untouched.1, "{case}: what is remembered must be what the model gave");
        // On the prompted frame the speck is outside the box.
        for (shift, result) in results.iter().enumerate().skip(1) {
            let mask = result.objects[0].mask.decode();
            assert!(there(&mask, 1 + shift, 1), "{case}, frame {shift}: the square");
            assert_eq!(!there(&mask, 4 + shift, 3), hole_stays, "{case}, frame {shift}: the hole");
            assert_eq!(there(&mask, 13, 13), speck_stays, "{case}, frame {shift}: the speck");
        }
    }
}

#[test]
fn a_prompt_that_changes_the_newest_frame_gives_tidied_masks_too() {
    let clean_up = CleanUp { fill_hole_area_px: 1, sprinkle_area_px: 0 };
    let mut session = Session::with(
        model(FakeOptions::default()),
        Options::default(),
        Output { clean_up, ..Output::default() },
    )
    .unwrap();
    let rgb = picture(0);
    let plane = Plane { data: &rgb, stride_bytes: SIDE_PX * 3 };
    let side = SIDE_PX as u32;
    let picture = Picture::new(PixelFormat::Rgb, side, side, &[plane]).unwrap();
    session.process(stamp(0), &picture).unwrap();
    session.prompt(ObjectId(1), At::Frame(0), corners(0.0, 0.0, 0.375, 0.45)).unwrap();
    let results = session.results(side, side).unwrap();
    assert!(there(&results[0].mask.decode(), 4, 3));
}
