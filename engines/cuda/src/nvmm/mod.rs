//! NVMM: the picture memory of NVIDIA's multimedia stack, `NvBufSurface`, as CUDA sees it.
//!
//! A decoder, a camera or `nvvidconv` hands out surfaces from a pool. On a Jetson a surface is made an EGLImage and that
//! is registered with CUDA, which gives its planes as pitched memory or, block-linear, as arrays; on a discrete GPU the
//! planes lie in CUDA memory already. [`Nvmm::register`] does either, once for a surface of the pool; [`Registered`]
//! undoes it.
//!
//! **Not run by us on a Jetson, nor on DeepStream.** What is tested is our side: the layout against the header, the
//! order of calls and every failure on a library of our own that records them. Source: `nvbufsurface.h` of
//! github.com/NVIDIA/DeepStream (v9.1.0, Apache-2.0), `cudaEGL.h` and `cuda.h` of CUDA 13.0.

mod error;
pub(crate) mod libraries;
pub(crate) mod raw;
pub(crate) mod registered;
#[cfg(test)]
pub(crate) mod tests;

use std::{ffi::c_void, ptr::NonNull, sync::Arc};

pub use error::{Kind, NvmmError};
pub use registered::{Registered, SurfacePicture, SurfacePlane};

use libraries::{Libraries, Names};

/// Bytes a buffer must have to hold what is read of an `NvBufSurface`.
pub(crate) const SURFACE_BYTES: usize = size_of::<raw::Surface>();

/// NVIDIA's surface library and driver, opened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Nvmm {
    libraries: Arc<Libraries>,
}

impl Nvmm {
    /// Opens `libnvbufsurface.so` and `libcuda.so.1` and looks up what is called. No device is touched.
    ///
    /// # Errors
    /// `Kind::Unavailable` with what was tried.
    pub fn open() -> Result<Self, NvmmError> {
        Self::open_at(&Names::default())
    }

    pub(crate) fn open_at(names: &Names) -> Result<Self, NvmmError> {
        Ok(Self { libraries: Arc::new(Libraries::open(names)?) })
    }

    /// Makes a surface's picture readable by CUDA.
    ///
    /// # Errors
    /// `Kind::Surface` when it holds something else than one picture in a format and memory we know, `Kind::Driver` when a
    /// call fails. Nothing stays mapped then.
    ///
    /// # Safety
    /// `surface` points to an `NvBufSurface` that lives until the `Registered` is dropped, is laid out as the header says
    /// and is changed by nobody during this call.
    pub unsafe fn register(&self, surface: NonNull<c_void>) -> Result<Registered, NvmmError> {
        // SAFETY: the caller's.
        unsafe { Registered::new(Arc::clone(&self.libraries), surface.cast()) }
    }
}
