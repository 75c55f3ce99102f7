//! TensorRT 10 and 11, loaded at run time through a shim of our own.
//!
//! [`plan`] is there in every build: what a plan was built from and for, beside the plan, so that one that was built
//! for another machine is refused before TensorRT sees it. So is [`probe`]. The rest needs the feature `tensorrt`:
//! [`TensorRt`] finds and opens the library, [`Runtime`] loads [`Plan`]s, [`TensorRtEngine`] runs them.

pub mod plan;
mod probe;

#[cfg(feature = "tensorrt")]
mod checked;
#[cfg(feature = "tensorrt")]
mod context;
#[cfg(feature = "tensorrt")]
mod engine;
#[cfg(feature = "tensorrt")]
mod loaded;
#[cfg(feature = "tensorrt")]
mod locate;
#[cfg(feature = "tensorrt")]
mod log;
#[cfg(feature = "tensorrt")]
mod raw;
#[cfg(feature = "tensorrt")]
mod runtime;

pub use probe::{Found, probe};

#[cfg(feature = "tensorrt")]
pub use {
    context::Context,
    engine::TensorRtEngine,
    loaded::Plan,
    locate::TensorRt,
    runtime::{DeviceAccess, EnterStream, Runtime},
};
