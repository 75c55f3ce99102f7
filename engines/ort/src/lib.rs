//! ONNX Runtime, loaded at run time: one shared library, one environment a process, one [`OrtEngine`] a graph.
//!
//! [`locate`] finds the library, [`OrtRuntime::load`] opens it, [`OrtEngine::from_bytes`] loads a graph.
#![forbid(unsafe_code)]

mod engine;
mod locate;
mod runtime;

pub use engine::{OrtEngine, OrtOptions, OrtProvider};
pub use locate::locate;
pub use runtime::OrtRuntime;
