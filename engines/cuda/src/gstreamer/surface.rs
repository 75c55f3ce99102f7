use std::{
    ffi::c_void,
    ptr::NonNull,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

use gst::ffi;
use sightline_core::PixelFormat;
use sightline_engine_api::{Device, DevicePicture, DevicePlane};

use crate::{
    Lent,
    nvmm::{
        Kind, Nvmm, NvmmError, Registered, SURFACE_BYTES, SurfacePicture, SurfacePlane, raw::Surface,
        registered::Identity,
    },
};

/// Where a registration hangs on its memory.
static QUARK: LazyLock<gst::glib::Quark> =
    LazyLock::new(|| gst::glib::Quark::from_str("sightline-nvmm-registration"));

/// Reading a registration and replacing it are one step.
static REGISTRATIONS: Mutex<()> = Mutex::new(());

/// NVIDIA's libraries, looked for once in a process.
fn nvmm() -> Result<&'static Nvmm, NvmmError> {
    static FOUND: OnceLock<Result<Nvmm, NvmmError>> = OnceLock::new();
    FOUND.get_or_init(Nvmm::open).as_ref().map_err(Clone::clone)
}

/// Whether NVMM surfaces can be read here: both libraries are there, with all that is called. No device is touched.
///
/// # Errors
/// `Kind::Unavailable` with what was tried.
pub fn nvmm_found() -> Result<(), NvmmError> {
    nvmm().map(drop)
}

/// The picture of a buffer in NVMM, readable by CUDA as long as the buffer is borrowed.
///
/// A surface is registered when it is first seen. The registration hangs on its `GstMemory` and is undone just before that
/// is freed, so a pool's surfaces are registered once each, and none is held back from its pool.
#[derive(Debug)]
pub struct SurfaceFrame<'a> {
    registered: Arc<Registered>,
    _map: gst::memory::MemoryMap<'a, gst::memory::Readable>,
}

impl<'a> SurfaceFrame<'a> {
    /// Finds the picture of a buffer that came with the caps feature `memory:NVMM`.
    ///
    /// # Errors
    /// `Kind::Unavailable` without NVIDIA's libraries, `Kind::Surface` when the buffer holds no picture we can read,
    /// `Kind::Driver` when a call fails.
    pub fn of(buffer: &'a gst::BufferRef) -> Result<Self, NvmmError> {
        Self::with(nvmm()?, buffer)
    }

    pub(crate) fn with(nvmm: &Nvmm, buffer: &'a gst::BufferRef) -> Result<Self, NvmmError> {
        let wrong = |got: String| {
            NvmmError::new(
                Kind::Surface,
                format!("nvmm buffer: expected one block that is an NvBufSurface, got {got}"),
            )
        };
        if buffer.n_memory() != 1 {
            return Err(wrong(format!("{} blocks", buffer.n_memory())));
        }
        let memory = buffer.peek_memory(0);
        let map = memory.map_readable().map_err(|error| wrong(error.to_string()))?;
        if map.size() < SURFACE_BYTES {
            return Err(wrong(format!("{} bytes", map.size())));
        }
        let surface = NonNull::from(map.as_slice()).cast::<Surface>();
        if !surface.is_aligned() {
            return Err(wrong(format!("address {surface:p}")));
        }
        let _lock = REGISTRATIONS.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: that the bytes are an `NvBufSurface` is what the producer says with `memory:NVMM`, for which a buffer's bytes
        // are the structure itself; they are mapped.
        let now = unsafe { Identity::read(surface.as_ptr()) };
        let known = registration(memory).filter(|known| Some(known.identity()) == now);
        let registered = match known {
            Some(known) => known,
            None => {
                // SAFETY: as above. It lives as long as the memory, on which the registration is hung and with which it
                // goes; who holds a clone of it borrows the buffer, which holds the memory.
                let registered = Arc::new(unsafe { nvmm.register(surface.cast::<c_void>()) }?);
                hang(memory, Arc::clone(&registered));
                registered
            }
        };
        Ok(Self { registered, _map: map })
    }

    /// The picture.
    pub fn picture(&self) -> &SurfacePicture {
        self.registered.picture()
    }

    /// See [`Registered::download`].
    ///
    /// # Errors
    /// Its own.
    pub fn download(&self, plane: usize, row_bytes: usize, into: &mut [u8]) -> Result<(), NvmmError> {
        self.registered.download(plane, row_bytes, into)
    }
}

/// The picture of a buffer in NVMM, for `device` to read where it lies, of the format and size that its caps name: a
/// surface may be larger. The buffer is held as long as the picture or a clone of it. What made the surface (a decoder, a
/// camera, a converter: hardware of its own) is through with it when the buffer arrives. Who draws on NVMM further down must
/// not get this buffer while it is held: put a converter with its own pool between.
///
/// # Errors
/// As [`SurfaceFrame::of`]; `Kind::Surface` for one on another device, in another format, or smaller.
pub fn lend_surface(
    buffer: gst::Buffer,
    device: Device,
    format: PixelFormat,
    size_px: (u32, u32),
) -> Result<DevicePicture, NvmmError> {
    lend_with(nvmm()?, buffer, device, format, size_px)
}

pub(crate) fn lend_with(
    nvmm: &Nvmm,
    buffer: gst::Buffer,
    device: Device,
    format: PixelFormat,
    size_px: (u32, u32),
) -> Result<DevicePicture, NvmmError> {
    let registered = SurfaceFrame::with(nvmm, &buffer)?.registered.clone();
    let picture = *registered.picture();
    let wrong = |expected: String, got: String| {
        NvmmError::new(Kind::Surface, format!("nvmm surface: expected {expected}, got {got}"))
    };
    let of = Device::Cuda { ordinal: picture.ordinal };
    if of != device {
        return Err(wrong(format!("one on {device}"), of.to_string()));
    }
    let (width, height) = size_px;
    if picture.format != format || picture.width_px < width || picture.height_px < height {
        return Err(wrong(
            format!("{format:?} of {width}x{height}, as its caps say"),
            format!("{:?} of {}x{}", picture.format, picture.width_px, picture.height_px),
        ));
    }
    // Planes are anywhere: their offsets count from the lowest.
    let (mut start, mut end) = (u64::MAX, 0);
    for (index, plane) in picture.planes().iter().enumerate() {
        if let SurfacePlane::Pitched { address, stride_bytes } = *plane {
            let (row, rows) = format.plane_extent(index, width, height);
            start = start.min(address);
            end = end.max(address + (stride_bytes * (rows - 1) + row) as u64);
        }
    }
    let start = start.min(end);
    let planes: Vec<DevicePlane> = picture
        .planes()
        .iter()
        .map(|plane| match *plane {
            SurfacePlane::Pitched { address, stride_bytes } => {
                DevicePlane::Rows { offset_bytes: (address - start) as usize, stride_bytes }
            }
            SurfacePlane::Array { handle } => DevicePlane::Tiled { handle },
        })
        .collect();
    let arrays = planes.iter().filter_map(|plane| match plane {
        DevicePlane::Tiled { handle } => Some(*handle),
        DevicePlane::Rows { .. } => None,
    });
    let (place, arrays) = ((start, (end - start) as usize), arrays.collect());
    // SAFETY: a registration's planes and arrays can be read in the primary context, in which it was made, until it goes; it is of
    // memory that the buffer keeps, and goes before it. What made it writes it no more: see above. What comes after us in the
    // pipeline might: elements that draw on NVMM map it for reading and draw through the structure, from which holding the
    // buffer keeps nobody. That is the pipeline's to uphold (a converter with its own pool in front of them); where it does not,
    // pixels are those of either picture, and no address is other than it was.
    let lent = unsafe { Lent::new(picture.ordinal, place, arrays, None, (registered, buffer)) };
    DevicePicture::new(lent, format, size_px, &planes)
        .map_err(|error| NvmmError::new(Kind::Surface, error.to_string()))
}

/// What hangs on a memory. Call with `REGISTRATIONS` locked.
fn registration(memory: &gst::MemoryRef) -> Option<Arc<Registered>> {
    use gst::glib::translate::IntoGlib as _;
    // SAFETY: a `GstMemory` is a `GstMiniObject`; only `hang` puts anything under our quark.
    let data =
        unsafe { ffi::gst_mini_object_get_qdata(memory.as_ptr().cast_mut().cast(), QUARK.into_glib()) };
    // SAFETY: what `hang` put there, kept alive by the memory; nobody replaces it while the lock is held.
    unsafe { data.cast::<Arc<Registered>>().as_ref() }.map(Arc::clone)
}

/// Hangs a registration on a memory; what hung there goes. Call with `REGISTRATIONS` locked.
fn hang(memory: &gst::MemoryRef, registered: Arc<Registered>) {
    use gst::glib::translate::IntoGlib as _;
    unsafe extern "C" fn undo(data: *mut c_void) {
        // SAFETY: the box that is leaked below; GStreamer calls this once for it, before the memory itself is freed.
        drop(unsafe { Box::from_raw(data.cast::<Arc<Registered>>()) });
    }
    let data = Box::into_raw(Box::new(registered));
    // SAFETY: a `GstMemory` is a `GstMiniObject`, and setting data under a quark locks it; `undo` takes what `data` is.
    unsafe {
        ffi::gst_mini_object_set_qdata(
            memory.as_ptr().cast_mut().cast(),
            QUARK.into_glib(),
            data.cast(),
            Some(undo),
        );
    }
}
