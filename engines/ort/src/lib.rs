//! ONNX Runtime, loaded at run time: one shared library, one environment a process, one [`OrtEngine`] a graph.
//!
//! [`locate`] finds the library, [`OrtRuntime::load`] opens it, [`OrtEngine::from_bytes`] loads a graph.
#![forbid(unsafe_code)]

#[cfg(feature = "cuda")]
mod bound;
mod engine;
#[cfg(feature = "cuda")]
mod kept;
mod locate;
mod provider;
mod runtime;

pub use engine::{OrtEngine, OrtOptions};
pub use locate::{locate, locate_for};
pub use provider::{GpuOptions, OrtProvider};
pub use runtime::OrtRuntime;
