use std::{marker::PhantomData, mem::MaybeUninit};

use gst::ffi;
use libloading::os::unix::Library;

use crate::probe::told;

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

/// A buffer in CUDA memory, mapped for reading on the device.
///
/// The address belongs to the context of the `GstCudaContext` that allocated it. Planes lie in it as the buffer's
/// `GstVideoMeta` says.
#[derive(Debug)]
pub struct CudaMap<'a> {
    info: ffi::GstMapInfo,
    _buffer: PhantomData<&'a gst::BufferRef>,
}

impl<'a> CudaMap<'a> {
    /// Maps a buffer's one block of CUDA memory. What was queued for it on a stream is waited for.
    ///
    /// # Errors
    /// What came instead of CUDA memory, or that mapping failed.
    pub fn of(buffer: &'a gst::BufferRef) -> Result<Self, String> {
        let wrong = |got: String| format!("buffer: expected one block of {CUDA_MEMORY}, got {got}");
        if buffer.n_memory() != 1 {
            return Err(wrong(format!("{} blocks", buffer.n_memory())));
        }
        let memory = buffer.peek_memory(0);
        if !memory.is_type(CUDA_MEMORY) {
            return Err(wrong(
                memory.allocator().map_or("none", |allocator| allocator.memory_type()).to_string(),
            ));
        }
        sync(memory);
        let mut info = MaybeUninit::zeroed();
        // SAFETY: the memory lives as long as the borrowed buffer; mapping locks it through a pointer that C takes as
        // mutable and changes atomically, as `MemoryRef::map_readable` does too.
        let mapped = unsafe {
            ffi::gst_memory_map(memory.as_ptr().cast_mut(), info.as_mut_ptr(), ffi::GST_MAP_READ | MAP_CUDA)
        };
        if mapped == gst::glib::ffi::GFALSE {
            return Err(wrong("a refusal to map it on the device".to_owned()));
        }
        // SAFETY: filled by the call that succeeded, and any bytes are a valid value.
        Ok(Self { info: unsafe { info.assume_init() }, _buffer: PhantomData })
    }

    /// Address of the first byte on the device.
    pub fn address(&self) -> u64 {
        self.info.data.expose_provenance() as u64
    }

    /// Bytes from there on.
    pub fn len_bytes(&self) -> usize {
        self.info.size
    }
}

impl Drop for CudaMap<'_> {
    fn drop(&mut self) {
        // SAFETY: mapped once in `of`, of a memory that the borrowed buffer still holds.
        unsafe { ffi::gst_memory_unmap(self.info.memory, &mut self.info) };
    }
}

/// From 1.24 on the producer may still be writing when a buffer arrives, and `GST_MAP_CUDA` does not wait for it.
fn sync(memory: &gst::MemoryRef) {
    type Sync = unsafe extern "C" fn(*mut ffi::GstMemory);
    // SAFETY: whoever made CUDA memory has this library open, so nothing is loaded; the flags are the loader's own.
    let library = unsafe { Library::open(Some("libgstcuda-1.0.so.0"), libloading::os::unix::RTLD_LAZY) };
    let Ok(library) = library else { return };
    // SAFETY: the type is the one of gstcudamemory.h, whose `GstCudaMemory` begins with its `GstMemory`. Before 1.24 there is
    // no such function, and copies are complete when a buffer arrives.
    if let Ok(sync) = unsafe { library.get::<Sync>(b"gst_cuda_memory_sync\0") } {
        // SAFETY: of the allocator's type, as the caller has seen.
        unsafe { sync(memory.as_ptr().cast_mut()) };
    }
}
