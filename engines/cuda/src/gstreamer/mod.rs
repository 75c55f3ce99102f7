//! GStreamer's device memory: whether it can be there, and where a buffer of it lies.
//!
//! Not run by us on a GPU: with GStreamer's own CUDA library on a driver of ours that keeps "device memory" in the
//! process, and with NVMM surfaces made by hand.

mod cuda;
#[cfg(feature = "nvmm")]
mod surface;
#[cfg(test)]
mod tests;

pub use cuda::{CUDA_MEMORY, CudaMap, driver_found};
#[cfg(feature = "nvmm")]
pub use surface::{SurfaceFrame, nvmm_found};
