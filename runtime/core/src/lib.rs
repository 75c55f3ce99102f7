//! The nouns of Sightline: pictures, tensors, masks, prompts and what became of a frame.
//!
//! This crate knows no GStreamer, no engine, no clock and no file. Everything here is plain data with checked
//! constructors; every other room speaks in these words.
#![forbid(unsafe_code)]

mod degrade;
mod error;
mod geometry;
mod image;
mod mask;
mod outcome;
mod owned_picture;
mod picture;
mod prompt;
mod tensor;

pub use degrade::Degrade;
pub use error::{Kind, ValueError};
pub use geometry::{NormBox, NormPoint};
pub use image::{Filter, ImageSpec};
pub use mask::{Mask, Rle};
pub use outcome::{
    FrameResult, FrameStamp, ObjectId, ObjectResult, Outcome, SkipReason, StageTimes, TrackState,
};
pub use owned_picture::OwnedPicture;
pub use picture::{ColorMatrix, ColorRange, Picture, PixelFormat, Plane};
pub use prompt::{Point, PointLabel, Prompt};
pub use tensor::{DType, Shape, TensorView, TensorViewMut};
