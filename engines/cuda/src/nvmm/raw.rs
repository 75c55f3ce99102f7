//! Layer one: the part of NVIDIA's structures that is read here, and the functions that are looked up.
//!
//! `NvBufSurface` and its parts: `includes/nvbufsurface.h` of github.com/NVIDIA/DeepStream, tag v9.1.0, Copyright NVIDIA
//! Corporation, Apache-2.0. Only the head of each structure is mirrored, up to the last field that is read: in the header
//! of Jetson's 2023 releases the heads are the same and what follows is not (its `NvBufSurface` has 64 bytes, the newer
//! one 72). So nothing here relies on a size, and only the first entry of a surface list is ever read.
//!
//! `CUeglFrame` and `CUDA_MEMCPY2D`: `cudaEGL.h` and `cuda.h` of CUDA 13.0.

use std::ffi::{c_char, c_int, c_uint, c_void};

/// Planes a surface has room for.
pub(super) const MAX_PLANES: usize = 4;

/// The head of `NvBufSurface`: a batch of pictures.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surface {
    pub(super) gpu_id: u32,
    pub(super) batch_size: u32,
    pub(super) num_filled: u32,
    /// A C `bool`; as a byte, for which every value is valid.
    pub(super) is_contiguous: u8,
    pub(super) mem_type: u32,
    pub(super) surface_list: *mut Params,
}

/// The head of `NvBufSurfaceParams`: one picture.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pitch: u32,
    pub(super) color_format: u32,
    pub(super) layout: u32,
    pub(super) buffer_desc: u64,
    pub(super) data_size: u32,
    pub(super) data_ptr: *mut c_void,
    pub(super) planes: Planes,
    pub(super) mapped_addr: [*mut c_void; MAX_PLANES],
    pub(super) egl_image: *mut c_void,
}

/// `NvBufSurfacePlaneParams`, whole: it lies inside the picture's.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes {
    pub(super) num_planes: u32,
    pub(super) width: [u32; MAX_PLANES],
    pub(super) height: [u32; MAX_PLANES],
    pub(super) pitch: [u32; MAX_PLANES],
    pub(super) offset: [u32; MAX_PLANES],
    pub(super) psize: [u32; MAX_PLANES],
    pub(super) bytes_per_pix: [u32; MAX_PLANES],
    pub(super) reserved: [*mut c_void; 4 * MAX_PLANES],
}

/// `NvBufSurfaceMemType`.
pub(super) mod mem {
    pub(in super::super) const CUDA_PINNED: u32 = 1;
    pub(in super::super) const CUDA_DEVICE: u32 = 2;
    pub(in super::super) const CUDA_UNIFIED: u32 = 3;
    pub(in super::super) const SURFACE_ARRAY: u32 = 4;
}

/// `CUeglFrame`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct EglFrame {
    /// `CUarray` or device pointers, as `frame_type` says.
    pub(super) planes: [*mut c_void; 3],
    pub(super) width: c_uint,
    pub(super) height: c_uint,
    pub(super) depth: c_uint,
    /// Of the first plane.
    pub(super) pitch: c_uint,
    pub(super) plane_count: c_uint,
    pub(super) num_channels: c_uint,
    pub(super) frame_type: c_uint,
    pub(super) egl_color_format: c_uint,
    pub(super) cu_format: c_uint,
}

/// `CUeglFrameType`.
pub(super) const FRAME_TYPE_ARRAY: c_uint = 0;
pub(super) const FRAME_TYPE_PITCH: c_uint = 1;

/// `CUDA_MEMCPY2D_v2`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy2d {
    pub(super) src_x_bytes: usize,
    pub(super) src_y: usize,
    pub(super) src_memory_type: c_uint,
    pub(super) src_host: *const c_void,
    pub(super) src_device: u64,
    pub(super) src_array: *mut c_void,
    pub(super) src_pitch: usize,
    pub(super) dst_x_bytes: usize,
    pub(super) dst_y: usize,
    pub(super) dst_memory_type: c_uint,
    pub(super) dst_host: *mut c_void,
    pub(super) dst_device: u64,
    pub(super) dst_array: *mut c_void,
    pub(super) dst_pitch: usize,
    pub(super) width_bytes: usize,
    pub(super) height: usize,
}

/// `CUmemorytype`.
pub(super) mod memory_type {
    use std::ffi::c_uint;
    pub(in super::super) const HOST: c_uint = 1;
    pub(in super::super) const DEVICE: c_uint = 2;
    pub(in super::super) const ARRAY: c_uint = 3;
    pub(in super::super) const UNIFIED: c_uint = 4;
}

/// The driver's result; 0 is success.
pub(super) type CuResult = c_uint;
/// An opaque handle of the driver.
pub(super) type Handle = *mut c_void;

pub(super) type MapEglImage = unsafe extern "C" fn(*mut Surface, c_int) -> c_int;
pub(super) type Init = unsafe extern "C" fn(c_uint) -> CuResult;
pub(super) type DeviceGet = unsafe extern "C" fn(*mut c_int, c_int) -> CuResult;
pub(super) type PrimaryCtxRetain = unsafe extern "C" fn(*mut Handle, c_int) -> CuResult;
pub(super) type PrimaryCtxRelease = unsafe extern "C" fn(c_int) -> CuResult;
pub(super) type CtxPush = unsafe extern "C" fn(Handle) -> CuResult;
pub(super) type CtxPop = unsafe extern "C" fn(*mut Handle) -> CuResult;
pub(super) type ErrorName = unsafe extern "C" fn(CuResult, *mut *const c_char) -> CuResult;
pub(super) type Memcpy2d = unsafe extern "C" fn(*const Copy2d) -> CuResult;
pub(super) type EglRegisterImage = unsafe extern "C" fn(*mut Handle, *mut c_void, c_uint) -> CuResult;
pub(super) type MappedEglFrame = unsafe extern "C" fn(*mut EglFrame, Handle, c_uint, c_uint) -> CuResult;
pub(super) type Unregister = unsafe extern "C" fn(Handle) -> CuResult;
