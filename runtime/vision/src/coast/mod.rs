//! Masks carried over time without an engine: to where they are expected, or to where the picture says they went.

mod fit;
mod forecast;
mod ride;
mod warp;

pub use forecast::{Course, forecast};
pub use ride::{Carried, Coaster, Ride};
