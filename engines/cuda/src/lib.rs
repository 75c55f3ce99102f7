//! One NVIDIA GPU: its memory, its orders of work and the kernels between graphs, over a driver loaded at run time.
//!
//! [`probe`] says what is there, [`CudaDevice`] is it; nothing here panics or crashes where there is no driver, no
//! device or another version. The raw symbols and their checked results are those of `cudarc` (and of [`Nvrtc`]); the
//! safe types are ours, because memory here is sized at start and given out by offset.
#![deny(unsafe_op_in_unsafe_fn)]

mod arena;
mod device;
mod error;
mod graph;
#[cfg(feature = "gst")]
pub mod gstreamer;
mod guests;
mod kernels;
mod lent;
mod mark;
mod memory;
#[cfg(feature = "nvmm")]
pub mod nvmm;
mod nvrtc;
#[cfg(feature = "onnxruntime")]
pub mod onnxruntime;
mod ops;
mod picture;
mod probe;
pub mod reference;
mod staging;

pub use arena::Arena;
pub use device::CudaDevice;
pub use error::{CudaError, Kind};
pub use graph::Graph;
pub use kernels::{Ink, MaskFinder, SOURCE, Taps, compile, kernel_cache};
pub use lent::Lent;
pub use nvrtc::{Image, Nvrtc};
pub use probe::{DeviceInfo, NEEDED, Probe, Version, probe};
pub use reference::FoundMask;
