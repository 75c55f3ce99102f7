#![allow(unsafe_code)]
#[cfg(feature = "gst")]
pub mod gstreamer;
#[cfg(feature = "nvmm")]
pub mod nvmm;
