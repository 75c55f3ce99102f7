//! GStreamer's device memory: whether it can be there, where a buffer of it lies, and the context that makes it readable.
//!
//! Not run by us on a GPU: with GStreamer's own CUDA library on a driver of ours that keeps "device memory" in the
//! process, and with NVMM surfaces made by hand.

mod context;
mod cuda;
mod library;
#[cfg(feature = "nvmm")]
mod surface;
#[cfg(test)]
mod tests;

pub use context::{CUDA_CONTEXT, SharedContext};
pub use cuda::{CUDA_MEMORY, driver_found, lend_memory};
#[cfg(feature = "nvmm")]
pub use surface::{SurfaceFrame, lend_surface, nvmm_found};
