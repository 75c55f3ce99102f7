//! GStreamer's CUDA library, opened when it is first needed and never linked: contexts, and what a memory says of itself.
//!
//! Layouts and calls are those of `gst/cuda` from 1.22 to 1.28: `gstcudamemory.h`, `gstcudacontext.h`, `gstcudastream.h`.

use std::{ffi::c_void, sync::OnceLock};

use cudarc::driver::result;
use gst::{ffi, glib, glib::translate::from_glib_none, prelude::ObjectExt as _};
use libloading::os::unix::{Library, RTLD_LAZY, Symbol};

use crate::{error::During, probe::told};

/// Name of the library: its ABI has been one since 1.22.
const NAME: &str = "libgstcuda-1.0.so.0";

type Object = *mut glib::gobject_ffi::GObject;

/// The head of `GstCudaMemory`: its context follows the memory itself.
#[repr(C)]
struct Head {
    memory: ffi::GstMemory,
    context: Object,
}

/// The calls, as long as the process lives.
pub(super) struct GstCuda {
    context_handle: Symbol<unsafe extern "C" fn(Object) -> *mut c_void>,
    wrap: Symbol<unsafe extern "C" fn(*mut c_void, i32) -> Object>,
    announce: Symbol<unsafe extern "C" fn(Object) -> *mut ffi::GstContext>,
    /// From 1.24 on.
    streams: Option<Streams>,
}

struct Streams {
    of_memory: Symbol<unsafe extern "C" fn(*mut ffi::GstMemory) -> *mut c_void>,
    handle: Symbol<unsafe extern "C" fn(*mut c_void) -> *mut c_void>,
}

/// The library, looked for once in a process.
///
/// # Errors
/// What the loader or the library says.
pub(super) fn library() -> Result<&'static GstCuda, String> {
    static FOUND: OnceLock<Result<GstCuda, String>> = OnceLock::new();
    FOUND.get_or_init(GstCuda::open).as_ref().map_err(Clone::clone)
}

impl GstCuda {
    fn open() -> Result<Self, String> {
        // SAFETY: GStreamer's initialisers are trusted, as those of a linked library would be.
        let library = unsafe { Library::open(Some(NAME), RTLD_LAZY) };
        let library =
            library.map_err(|error| format!("{NAME}: expected to find it, got {}", told(&error)))?;
        // SAFETY: the signature of gstcudaloader.h.
        let load = unsafe { symbol::<unsafe extern "C" fn() -> i32>(&library, "gst_cuda_load_library")? };
        // SAFETY: loads the driver, once, under a lock of its own.
        if unsafe { load() } == glib::ffi::GFALSE {
            return Err(format!("{NAME}: expected it to take this driver, got a refusal"));
        }
        // SAFETY: the signatures of the headers that the module names.
        let found = unsafe {
            let streams = symbol(&library, "gst_cuda_memory_get_stream").ok();
            let handle = symbol(&library, "gst_cuda_stream_get_handle").ok();
            Self {
                context_handle: symbol(&library, "gst_cuda_context_get_handle")?,
                wrap: symbol(&library, "gst_cuda_context_new_wrapped")?,
                announce: symbol(&library, "gst_context_new_cuda_context")?,
                streams: streams.zip(handle).map(|(of_memory, handle)| Streams { of_memory, handle }),
            }
        };
        // GObject types cannot be unloaded.
        std::mem::forget(library);
        Ok(found)
    }

    /// A CUDA memory's context (`CUcontext`) and the number of its device. The caller has seen that it is one.
    pub(super) fn context_of(&self, memory: &gst::MemoryRef) -> Result<(u64, u32), String> {
        // SAFETY: memories of the allocator's type begin with this head, and keep their context.
        let context = unsafe { (*memory.as_ptr().cast::<Head>()).context };
        if context.is_null() {
            return Err("buffer in CUDA memory: expected its context, got none".to_owned());
        }
        // SAFETY: a living object, of which a reference is taken.
        Ok(self.context(&unsafe { from_glib_none::<_, glib::Object>(context) }))
    }

    /// The handle and device of a `GstCudaContext`.
    pub(super) fn context(&self, context: &glib::Object) -> (u64, u32) {
        use glib::translate::ToGlibPtr as _;
        let object: Object = context.to_glib_none().0;
        // SAFETY: the caller's object is a `GstCudaContext`: it came out of a CUDA memory, or under that name and type out of a
        // `GstContext`.
        let handle = unsafe { (self.context_handle)(object) };
        (handle.expose_provenance() as u64, context.property::<u32>("cuda-device-id"))
    }

    /// The stream (`CUstream`) that a CUDA memory is written on, 0 for the default one; `None` before 1.24, where what is
    /// written is there when a buffer arrives.
    pub(super) fn stream_of(&self, memory: &gst::MemoryRef) -> Option<u64> {
        let Streams { of_memory, handle } = self.streams.as_ref()?;
        // SAFETY: a CUDA memory, which keeps its stream.
        let stream = unsafe { of_memory(memory.as_ptr().cast_mut()) };
        // SAFETY: the stream just found, if there is one.
        Some(if stream.is_null() { 0 } else { unsafe { handle(stream) }.expose_provenance() as u64 })
    }

    /// A `GstContext` of a `GstCudaContext` over the driver's `context`, and the latter.
    ///
    /// # Safety
    /// `context` is a living `CUcontext` of that device, and stays one as long as the `GstCudaContext`.
    pub(super) unsafe fn wrapped(
        &self,
        context: u64,
        device: i32,
    ) -> Result<(gst::Context, glib::Object), String> {
        let context: *mut c_void = std::ptr::with_exposed_provenance_mut(context as usize);
        // SAFETY: the caller's. It returns a reference of ours, or none.
        let object = unsafe { (self.wrap)(context, device) };
        if object.is_null() {
            return Err(format!("{NAME}: expected it to wrap the context of device {device}, got a refusal"));
        }
        // SAFETY: as was just said; `gst_cuda_context_new_wrapped` has sunk the reference it returns, so it is ours alone.
        let object: glib::Object = unsafe { glib::translate::from_glib_full(object) };
        // SAFETY: a `GstCudaContext`; the context it returns is ours.
        let announced = unsafe {
            use glib::translate::ToGlibPtr as _;
            (self.announce)(object.to_glib_none().0)
        };
        // SAFETY: the reference just given.
        Ok((unsafe { glib::translate::from_glib_full(announced) }, object))
    }
}

/// # Safety
/// `T` is the symbol's type.
unsafe fn symbol<T>(library: &Library, name: &str) -> Result<Symbol<T>, String> {
    // SAFETY: the caller's.
    unsafe { library.get::<T>(name) }
        .map_err(|error| format!("{NAME}: expected {name}, got {}", told(&error)))
}

/// Whether that is the primary context of a device, the one in which models run: memory of another cannot be read there.
///
/// # Errors
/// Which it is not.
pub(super) fn expect_primary(context: u64, ordinal: u32) -> Result<(), String> {
    let primary = Primary::retain(ordinal)?;
    if primary.handle() == context {
        return Ok(());
    }
    Err(format!(
        "expected the context that models on cuda:{ordinal} run in ({:#x}), got another ({context:#x})",
        primary.handle()
    ))
}

/// The primary context of a device, kept as long as this.
#[derive(Debug)]
pub(super) struct Primary {
    device: i32,
    context: u64,
}

impl Primary {
    pub(super) fn retain(ordinal: u32) -> Result<Self, String> {
        let retained = (|| {
            let device = result::device::get(ordinal as i32).during("cuDeviceGet")?;
            // SAFETY: a device the driver just named.
            let context =
                unsafe { result::primary_ctx::retain(device) }.during("cuDevicePrimaryCtxRetain")?;
            Ok::<_, crate::CudaError>(Self { device, context: context.expose_provenance() as u64 })
        })();
        retained.map_err(|error| error.to_string())
    }

    pub(super) fn handle(&self) -> u64 {
        self.context
    }

    pub(super) fn device(&self) -> i32 {
        self.device
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: retained once in `retain`.
        if let Err(error) = unsafe { result::primary_ctx::release(self.device) } {
            tracing::warn!(%error, "a primary context was not released");
        }
    }
}
