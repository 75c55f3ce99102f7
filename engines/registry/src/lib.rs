//! From a model's name to its engines: finds the folder, reads and checks `model.toml`, verifies the files, picks
//! the backend, loads the graphs.
//!
//! ```no_run
//! use sightline_engine_registry::{LoadOptions, load};
//! let model = load("nano", &LoadOptions::default())?;
//! # Ok::<(), sightline_engine_api::EngineError>(())
//! ```
#![forbid(unsafe_code)]

mod contract;
mod files;
#[cfg(feature = "cuda")]
mod gpu;
mod load;
pub mod manifest;
mod provider;
mod shared;
mod tensorrt;
pub mod trial;
mod tune;

use sightline_engine_api::EngineError;
#[cfg(not(all(feature = "ort", feature = "cuda")))]
use sightline_engine_api::Kind;

pub use files::{ModelEntry, ModelSource, installed, resolve, shelves};
pub use load::{GpuLoad, LoadOptions, default_threads, load};
pub use provider::Provider;
pub use shared::{SharedModel, Turn, shared};
/// Plans of TensorRT as files; there in every build.
pub use sightline_engine_tensorrt::plan;
pub use tensorrt::{examine_plans, probe_tensorrt};
pub use tune::{TuneKey, Tuned, keep_tuned, tuned};

/// Finds the ONNX Runtime library where the registry itself would: for `doctor`.
///
/// # Errors
/// `Kind::Unavailable`, listing each place that was tried and what to type, or in a build without the backend.
pub fn locate_onnxruntime() -> Result<std::path::PathBuf, EngineError> {
    #[cfg(feature = "ort")]
    return sightline_engine_ort::locate();
    #[cfg(not(feature = "ort"))]
    Err(EngineError::new(Kind::Unavailable, "ONNX Runtime", "a build with the feature `ort`", "one without"))
}

/// The driver and the GPUs of this machine in a line, for `doctor`.
///
/// # Errors
/// `Kind::Unavailable`, saying which of them is missing, or in a build without the feature.
pub fn probe_gpu() -> Result<String, EngineError> {
    #[cfg(feature = "cuda")]
    return Ok(sightline_engine_cuda::probe()?.to_string());
    #[cfg(not(feature = "cuda"))]
    Err(EngineError::new(Kind::Unavailable, "NVIDIA GPU", "a build with the feature `cuda`", "one without"))
}

/// The providers of ONNX Runtime that a library was built with: `cpu`, and in a build with the feature `cuda` also
/// `cuda` and `tensorrt`, whatever of what they need is missing. Opens the library, once for this process.
///
/// # Errors
/// `Kind::Unavailable` when it cannot be opened, or in a build without the backend.
pub fn onnxruntime_providers(library: &std::path::Path) -> Result<Vec<&'static str>, EngineError> {
    #[cfg(feature = "ort")]
    return Ok(sightline_engine_ort::OrtRuntime::load(library)?.providers());
    #[cfg(not(feature = "ort"))]
    {
        let _ = library;
        Err(EngineError::new(
            Kind::Unavailable,
            "ONNX Runtime",
            "a build with the feature `ort`",
            "one without",
        ))
    }
}
