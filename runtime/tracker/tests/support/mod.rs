//! What the tracker's tests share.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod drawn;
pub mod hashing;
pub mod npz;
pub mod reference;

use std::{sync::Arc, time::Duration};

use sightline_core::{FrameStamp, Mask, NormBox, NormPoint, Point, PointLabel, Prompt};

pub fn stamp(index: u64) -> FrameStamp {
    let time = Some(Duration::from_millis(index * 40));
    FrameStamp { index, pts: time, running_time: time }
}

pub fn click(x: f32, y: f32) -> Prompt {
    let point = Point { at: NormPoint { x, y }, label: PointLabel::Positive };
    Prompt::Points { points: vec![point], within: None }
}

pub fn corners(x0: f32, y0: f32, x1: f32, y1: f32) -> Prompt {
    Prompt::Box(NormBox { x0, y0, x1, y1 })
}

/// A mask of the pixels for which `inside(x, y)`.
pub fn mask(width: u32, height: u32, inside: impl Fn(u32, u32) -> bool) -> Prompt {
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let bytes = pixels.map(|(x, y)| u8::from(inside(x, y))).collect();
    Prompt::Mask(Arc::new(Mask::from_bytes(width, height, bytes).unwrap()))
}
