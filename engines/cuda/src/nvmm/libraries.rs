//! Layer two: the libraries, opened; their calls with checked results.

use std::{
    ffi::{CStr, c_int},
    ptr,
    sync::{Mutex, PoisonError},
};

use libloading::Library;

use super::{
    Kind, NvmmError,
    raw::{self, Copy2d, CuResult, EglFrame, Handle, Surface},
};
use crate::probe::told;

/// What each library may be called, the likeliest first.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) surface: Vec<String>,
    pub(crate) driver: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            surface: owned(&["libnvbufsurface.so", "libnvbufsurface.so.1.0.0"]),
            driver: owned(&["libcuda.so.1", "libcuda.so"]),
        }
    }
}

/// Opens the first library there is.
pub(crate) fn open_one(names: &[String]) -> Result<Library, NvmmError> {
    let mut tried = Vec::new();
    for name in names {
        // SAFETY: the initialisers of the system's own libraries are trusted, as those of a linked library would be.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            Err(error) => tried.push(told(&error)),
        }
    }
    let first = names.first().map_or("a library", String::as_str);
    Err(NvmmError::new(Kind::Unavailable, format!("{first}: expected to find it, got {}", tried.join("; "))))
}

macro_rules! symbol {
    ($library:expr, $name:literal, $kind:ty) => {
        // SAFETY: the type is the one NVIDIA's header gives this name (raw.rs), and the library is kept open as long
        // as the pointer is (it lies in the same struct).
        unsafe { $library.get::<$kind>(concat!($name, "\0").as_bytes()) }.map(|symbol| *symbol).map_err(|error| {
            let text = format!("symbol {}: expected to find it, got {}", $name, told(&error));
            NvmmError::new(Kind::Unavailable, text)
        })
    };
}

/// What only Tegra's driver has.
#[derive(Debug, Clone, Copy)]
struct Egl {
    register: raw::EglRegisterImage,
    frame: raw::MappedEglFrame,
    unregister: raw::Unregister,
}

/// Both libraries with what is used of them, and the device's primary context once it was needed.
#[derive(Debug)]
pub(crate) struct Libraries {
    map_egl_image: raw::MapEglImage,
    unmap_egl_image: raw::MapEglImage,
    init: raw::Init,
    device_get: raw::DeviceGet,
    retain: raw::PrimaryCtxRetain,
    release: raw::PrimaryCtxRelease,
    push: raw::CtxPush,
    pop: raw::CtxPop,
    error_name: raw::ErrorName,
    memcpy_2d: raw::Memcpy2d,
    egl: Result<Egl, NvmmError>,
    contexts: Mutex<Vec<Context>>,
    // Last: closed after everything above was dropped.
    _surface: Library,
    _driver: Library,
}

/// A device's primary context, kept while this is.
#[derive(Debug, Clone, Copy)]
struct Context {
    ordinal: c_int,
    device: c_int,
    handle: Handle,
}

// SAFETY: everything in it is a function of libraries that allow calls from any thread, a lock, and context handles,
// which the driver allows any thread to make current.
unsafe impl Send for Libraries {}
// SAFETY: as above; the one thing that changes is behind a lock.
unsafe impl Sync for Libraries {}

impl Libraries {
    /// Opens both and looks up what is needed. No device is touched.
    pub(crate) fn open(names: &Names) -> Result<Self, NvmmError> {
        let surface = open_one(&names.surface)?;
        let driver = open_one(&names.driver)?;
        let egl = || {
            Ok(Egl {
                register: symbol!(driver, "cuGraphicsEGLRegisterImage", raw::EglRegisterImage)?,
                frame: symbol!(driver, "cuGraphicsResourceGetMappedEglFrame", raw::MappedEglFrame)?,
                unregister: symbol!(driver, "cuGraphicsUnregisterResource", raw::Unregister)?,
            })
        };
        Ok(Self {
            map_egl_image: symbol!(surface, "NvBufSurfaceMapEglImage", raw::MapEglImage)?,
            unmap_egl_image: symbol!(surface, "NvBufSurfaceUnMapEglImage", raw::MapEglImage)?,
            init: symbol!(driver, "cuInit", raw::Init)?,
            device_get: symbol!(driver, "cuDeviceGet", raw::DeviceGet)?,
            retain: symbol!(driver, "cuDevicePrimaryCtxRetain", raw::PrimaryCtxRetain)?,
            release: symbol!(driver, "cuDevicePrimaryCtxRelease_v2", raw::PrimaryCtxRelease)?,
            push: symbol!(driver, "cuCtxPushCurrent_v2", raw::CtxPush)?,
            pop: symbol!(driver, "cuCtxPopCurrent_v2", raw::CtxPop)?,
            error_name: symbol!(driver, "cuGetErrorName", raw::ErrorName)?,
            memcpy_2d: symbol!(driver, "cuMemcpy2D_v2", raw::Memcpy2d)?,
            egl: egl(),
            contexts: Mutex::new(Vec::new()),
            _surface: surface,
            _driver: driver,
        })
    }

    fn check(&self, call: &str, result: CuResult) -> Result<(), NvmmError> {
        if result == 0 {
            return Ok(());
        }
        let mut name = ptr::null();
        // SAFETY: writes one pointer to a string that lives as long as the driver, or null.
        let known = unsafe { (self.error_name)(result, &mut name) } == 0 && !name.is_null();
        let name = if known {
            // SAFETY: not null, and a C string by the call's contract.
            unsafe { CStr::from_ptr(name) }.to_string_lossy()
        } else {
            "an unknown code".into()
        };
        Err(NvmmError::new(Kind::Driver, format!("{call}: expected success, got {name} ({result})")))
    }

    fn context(&self, ordinal: c_int) -> Result<Handle, NvmmError> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = contexts.iter().find(|context| context.ordinal == ordinal) {
            return Ok(known.handle);
        }
        let (mut device, mut handle) = (0, ptr::null_mut());
        // SAFETY: no preconditions; may be called again.
        self.check("cuInit", unsafe { (self.init)(0) })?;
        // SAFETY: writes one number.
        self.check("cuDeviceGet", unsafe { (self.device_get)(&mut device, ordinal) })?;
        // SAFETY: writes one handle, which is released when this is dropped.
        self.check("cuDevicePrimaryCtxRetain", unsafe { (self.retain)(&mut handle, device) })?;
        contexts.push(Context { ordinal, device, handle });
        Ok(handle)
    }

    /// Runs `work` with a device's primary context current on this thread.
    pub(super) fn within<T>(
        &self,
        ordinal: c_int,
        work: impl FnOnce() -> Result<T, NvmmError>,
    ) -> Result<T, NvmmError> {
        let handle = self.context(ordinal)?;
        // SAFETY: the context is retained by `self`.
        self.check("cuCtxPushCurrent", unsafe { (self.push)(handle) })?;
        let result = work();
        let mut popped = ptr::null_mut();
        // SAFETY: pops what was pushed above; writes one handle. A failure leaves nothing that could be put right here.
        let _ = unsafe { (self.pop)(&mut popped) };
        result
    }

    /// Makes an EGLImage of the surface's first picture; it is written into the surface.
    ///
    /// # Safety
    /// `surface` points to a live `NvBufSurface` of memory type surface array that nobody else maps at the same time.
    pub(super) unsafe fn map_egl_image(&self, surface: *mut Surface) -> Result<(), NvmmError> {
        // SAFETY: the caller's.
        let code = unsafe { (self.map_egl_image)(surface, 0) };
        let text = || format!("NvBufSurfaceMapEglImage: expected 0, got {code}");
        if code == 0 { Ok(()) } else { Err(NvmmError::new(Kind::Driver, text())) }
    }

    /// Undoes `map_egl_image`.
    ///
    /// # Safety
    /// `surface` points to the live `NvBufSurface` that was mapped.
    pub(super) unsafe fn unmap_egl_image(&self, surface: *mut Surface) {
        // SAFETY: the caller's. A failure leaves an image that goes with the surface.
        let _ = unsafe { (self.unmap_egl_image)(surface, 0) };
    }

    fn egl(&self) -> Result<Egl, NvmmError> {
        self.egl.clone()
    }

    /// Makes an EGLImage known to the driver.
    ///
    /// # Safety
    /// `image` is a live EGLImage, and a context is current.
    pub(super) unsafe fn register(&self, image: *mut std::ffi::c_void) -> Result<Handle, NvmmError> {
        let (egl, mut resource) = (self.egl()?, ptr::null_mut());
        // SAFETY: the caller's; writes one handle. No flags: nothing is promised about how it is used.
        let result = unsafe { (egl.register)(&mut resource, image, 0) };
        self.check("cuGraphicsEGLRegisterImage", result).map(|()| resource)
    }

    /// Where the planes of a registered image lie.
    ///
    /// # Safety
    /// `resource` came from `register` and was not unregistered; its context is current.
    pub(super) unsafe fn frame(&self, resource: Handle) -> Result<EglFrame, NvmmError> {
        let egl = self.egl()?;
        let mut frame = EglFrame {
            planes: [ptr::null_mut(); 3],
            width: 0,
            height: 0,
            depth: 0,
            pitch: 0,
            plane_count: 0,
            num_channels: 0,
            frame_type: 0,
            egl_color_format: 0,
            cu_format: 0,
        };
        // SAFETY: the caller's; fills one `CUeglFrame`, which `EglFrame` is.
        let result = unsafe { (egl.frame)(&mut frame, resource, 0, 0) };
        self.check("cuGraphicsResourceGetMappedEglFrame", result).map(|()| frame)
    }

    /// Undoes `register`.
    ///
    /// # Safety
    /// `resource` came from `register`, once, and its planes are read no more; its context is current.
    pub(super) unsafe fn unregister(&self, resource: Handle) -> Result<(), NvmmError> {
        let egl = self.egl()?;
        // SAFETY: the caller's.
        self.check("cuGraphicsUnregisterResource", unsafe { (egl.unregister)(resource) })
    }

    /// Copies rows, and returns when they are there.
    ///
    /// # Safety
    /// Source and destination hold what `copy` says; a context that owns the source is current.
    pub(super) unsafe fn copy(&self, copy: &Copy2d) -> Result<(), NvmmError> {
        // SAFETY: the caller's; the structure is only read.
        self.check("cuMemcpy2D", unsafe { (self.memcpy_2d)(copy) })
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        let contexts = std::mem::take(self.contexts.get_mut().unwrap_or_else(PoisonError::into_inner));
        for context in contexts {
            // SAFETY: retained once, above. Registrations hold an `Arc` of `self`, so none is left.
            let _ = unsafe { (self.release)(context.device) };
        }
    }
}
