use std::mem::MaybeUninit;

use gst::ffi;
use sightline_core::PixelFormat;
use sightline_engine_api::{Device, DevicePicture, DevicePlane};

use super::library::{expect_primary, library};
use crate::{Lent, probe::told};

/// The allocator's name of `GstCudaMemory`.
pub const CUDA_MEMORY: &str = "gst.cuda.memory";

/// `GST_MAP_CUDA` of `gst/cuda/gstcudamemory.h`, the same in 1.22 to 1.28: mapping gives the device's address.
const MAP_CUDA: ffi::GstMapFlags = ffi::GST_MAP_FLAG_LAST << 1;

/// Whether the NVIDIA driver's library is there, which every buffer in CUDA memory comes through. No device is touched.
///
/// # Errors
/// What the loader says.
pub fn driver_found() -> Result<(), String> {
    // SAFETY: the driver's initialisers are trusted, as those of a linked library would be. It stays open: drivers are not
    // made to be closed.
    unsafe { libloading::Library::new("libcuda.so.1") }
        .map(std::mem::forget)
        .map_err(|error| format!("libcuda.so.1: expected to find it, got {}", told(&error)))
}

/// The picture of a buffer in CUDA memory, for `device` to read where it lies. `planes` are as its `GstVideoMeta` says.
/// The buffer is mapped and held as long as the picture or a clone of it, and nothing is waited for: what reads it is
/// ordered behind the stream it was written on.
///
/// # Errors
/// What came instead of CUDA memory of that device's own (primary) context, or that mapping failed.
pub fn lend_memory(
    buffer: gst::Buffer,
    device: Device,
    format: PixelFormat,
    size_px: (u32, u32),
    planes: &[DevicePlane],
) -> Result<DevicePicture, String> {
    let Device::Cuda { ordinal } = device else { return Err(format!("expected a GPU, got {device}")) };
    let written = {
        let (memory, library) = (one_memory(&buffer)?, library()?);
        let (context, of) = library.context_of(memory)?;
        if of != ordinal {
            return Err(format!("buffer in CUDA memory: expected one on {device}, got cuda:{of}"));
        }
        expect_primary(context, ordinal).map_err(|got| format!("buffer in CUDA memory: {got}"))?;
        library.stream_of(memory)
    };
    let mapped = Mapped::new(buffer)?;
    let place = (mapped.info.data.expose_provenance() as u64, mapped.info.size);
    // SAFETY: mapped on the device until `mapped` goes, in its primary context as was just seen; the memory keeps the stream it
    // is written on, which is of the same context.
    let lent = unsafe { Lent::new(ordinal, place, Vec::new(), written, mapped) };
    DevicePicture::new(lent, format, size_px, planes).map_err(|error| error.to_string())
}

/// A buffer's one memory, if it is CUDA's.
fn one_memory(buffer: &gst::BufferRef) -> Result<&gst::MemoryRef, String> {
    let wrong = |got: String| format!("buffer: expected one block of {CUDA_MEMORY}, got {got}");
    if buffer.n_memory() != 1 {
        return Err(wrong(format!("{} blocks", buffer.n_memory())));
    }
    let memory = buffer.peek_memory(0);
    if !memory.is_type(CUDA_MEMORY) {
        let got = memory.allocator().map_or("none", |allocator| allocator.memory_type().as_str());
        return Err(wrong(got.to_owned()));
    }
    Ok(memory)
}

/// A buffer in CUDA memory, mapped for reading on the device.
struct Mapped {
    info: ffi::GstMapInfo,
    /// Keeps the memory.
    _buffer: gst::Buffer,
}

// SAFETY: a mapping belongs to no thread; it is undone once, by whoever drops it last, and `GstMemory` counts its mappings
// atomically.
unsafe impl Send for Mapped {}
// SAFETY: shared references only read numbers.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(buffer: gst::Buffer) -> Result<Self, String> {
        let memory = one_memory(&buffer)?;
        let mut info = MaybeUninit::zeroed();
        // SAFETY: the memory lives as long as the buffer; mapping locks it through a pointer that C takes as mutable and
        // changes atomically, as `MemoryRef::map_readable` does too.
        let mapped = unsafe {
            ffi::gst_memory_map(memory.as_ptr().cast_mut(), info.as_mut_ptr(), ffi::GST_MAP_READ | MAP_CUDA)
        };
        if mapped == gst::glib::ffi::GFALSE {
            return Err(format!("buffer in {CUDA_MEMORY}: expected it to map on the device, got a refusal"));
        }
        // SAFETY: filled by the call that succeeded, and any bytes are a valid value.
        Ok(Self { info: unsafe { info.assume_init() }, _buffer: buffer })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped once in `new`, of a memory that the buffer still holds.
        unsafe { ffi::gst_memory_unmap(self.info.memory, &mut self.info) };
    }
}
