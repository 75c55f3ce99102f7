//! Masks carried over time without an engine: to where they are expected, or to where the picture says they went.

mod forecast;
mod warp;

pub use forecast::{Course, forecast};
