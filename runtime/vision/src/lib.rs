//! Pure pixel work: preprocessing, mask upscaling, drawing, the DAVIS measures.
//!
//! No file, no clock, no thread and no engine. What is needed on every frame is a struct that owns its scratch
//! ([`Preprocessor`], [`MaskUpscaler`], [`ComponentFilter`], [`draw::Painter`]); the rest are functions.
#![forbid(unsafe_code)]

mod coast;
mod colour;
mod components;
pub mod davis;
pub mod draw;
mod motion;
mod preprocess;
mod region;
mod resample;
mod rgb;
mod sample;
mod upscale;

pub use coast::{Carried, Coaster, Course, Ride, forecast};
pub use colour::dominant_colour;
pub use components::ComponentFilter;
pub use motion::{Motion, OwnMotion};
pub use preprocess::Preprocessor;
pub use region::Region;
pub use resample::{downscale, resize_mask};
pub use rgb::{part_around, rgb};
pub use upscale::MaskUpscaler;
