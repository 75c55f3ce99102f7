//! Layer three: one surface of a pool, registered for as long as the value lives.

use std::{
    ffi::c_void,
    ptr::{self, NonNull},
    sync::Arc,
};

use sightline_core::PixelFormat;

use super::{
    Kind, NvmmError,
    libraries::Libraries,
    raw::{self, Copy2d, EglFrame, Handle, Params, Surface, memory_type},
};

/// Where one plane of a picture lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SurfacePlane {
    /// Rows one after the other.
    Pitched {
        /// Device address of the first row.
        address: u64,
        /// From one row to the next.
        stride_bytes: usize,
    },
    /// Block-linear: a `CUarray`, which only texture reads and copies understand.
    Array {
        /// The array.
        handle: u64,
    },
}

/// A picture in memory that CUDA can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SurfacePicture {
    /// Its format; matrix and range are not read from the surface, the stream's caps have them.
    pub format: PixelFormat,
    /// Width.
    pub width_px: u32,
    /// Height.
    pub height_px: u32,
    /// The driver's number for the GPU.
    pub ordinal: u32,
    planes: [SurfacePlane; 3],
}

impl SurfacePicture {
    /// Its planes, as many as the format has.
    pub fn planes(&self) -> &[SurfacePlane] {
        &self.planes[..self.format.planes()]
    }
}

/// `NvBufSurfaceColorFormat` to ours; ranges and matrices of YUV are variants of one format there.
fn format(color_format: u32) -> Option<PixelFormat> {
    match color_format {
        2 | 4 | 31 | 32 | 35 => Some(PixelFormat::I420),
        6 | 7 | 33 | 34 | 36 => Some(PixelFormat::Nv12),
        19 => Some(PixelFormat::Rgba),
        20 => Some(PixelFormat::Bgra),
        23 => Some(PixelFormat::Rgbx),
        24 => Some(PixelFormat::Bgrx),
        _ => None,
    }
}

fn wrong(what: &str, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> NvmmError {
    NvmmError::new(Kind::Surface, format!("nvmm surface, {what}: expected {expected}, got {got}"))
}

/// What tells one picture of a pool from another that took its place at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    list: *mut Params,
    descriptor: u64,
    data: *mut c_void,
}

impl Identity {
    /// Reads it from a surface.
    ///
    /// # Safety
    /// As for `Nvmm::register`.
    pub(crate) unsafe fn read(surface: *const Surface) -> Option<Self> {
        // SAFETY: the caller's; `Surface` is a head of what lies there.
        let list = unsafe { (*surface).surface_list };
        if list.is_null() || !list.is_aligned() {
            return None;
        }
        // SAFETY: the list has at least one entry by the header's contract.
        let params = unsafe { list.read() };
        Some(Self { list, descriptor: params.buffer_desc, data: params.data_ptr })
    }
}

/// A surface whose picture CUDA can read. Dropping it undoes what was done for that; the memory is the pool's.
#[derive(Debug)]
pub struct Registered {
    libraries: Arc<Libraries>,
    surface: NonNull<Surface>,
    identity: Identity,
    picture: SurfacePicture,
    /// How pitched planes are named in a copy.
    memory_type: u32,
    egl: Option<EglRegistration>,
}

/// What has to be undone, in this order.
#[derive(Debug)]
struct EglRegistration {
    resource: Handle,
    /// Whether the EGLImage is ours; one that somebody else mapped is left alone.
    mapped_here: bool,
}

// SAFETY: the surface is touched by `new` and `drop` only, which have it to themselves by `Nvmm::register`'s contract;
// the driver takes resources, addresses and arrays from any thread whose context is the one they belong to.
unsafe impl Send for Registered {}
// SAFETY: as above; shared references only read `picture` and copy from device memory.
unsafe impl Sync for Registered {}

impl Registered {
    /// # Safety
    /// As for `Nvmm::register`.
    pub(super) unsafe fn new(
        libraries: Arc<Libraries>,
        surface: NonNull<Surface>,
    ) -> Result<Self, NvmmError> {
        if !surface.is_aligned() {
            return Err(wrong("address", "an aligned one", format_args!("{surface:p}")));
        }
        // SAFETY: the caller's; aligned as was just seen.
        let head = unsafe { surface.read() };
        // SAFETY: the caller's.
        let identity = unsafe { Identity::read(surface.as_ptr()) }.ok_or_else(|| {
            wrong("list of pictures", "an address", format_args!("{:p}", head.surface_list))
        })?;
        if head.batch_size != 1 || head.num_filled > 1 {
            let got = format_args!("a batch of {}, {} filled", head.batch_size, head.num_filled);
            return Err(wrong("batch", "one picture, as before nvstreammux", got));
        }
        // SAFETY: not null and aligned (`Identity::read`); one entry is there, as the batch's size is 1.
        let params = unsafe { head.surface_list.read() };
        let format = format(params.color_format).ok_or_else(|| {
            wrong("colour format", "NV12, I420, RGBA, BGRA, RGBx or BGRx", params.color_format)
        })?;
        if params.planes.num_planes as usize != format.planes() {
            return Err(wrong("planes", format.planes(), params.planes.num_planes));
        }
        let ordinal =
            i32::try_from(head.gpu_id).map_err(|_| wrong("gpu id", "a small number", head.gpu_id))?;
        let picture = SurfacePicture {
            format,
            width_px: params.width,
            height_px: params.height,
            ordinal: head.gpu_id,
            planes: [SurfacePlane::Pitched { address: 0, stride_bytes: 0 }; 3],
        };
        let mut this =
            Self { libraries, surface, identity, picture, memory_type: memory_type::DEVICE, egl: None };
        match head.mem_type {
            raw::mem::CUDA_DEVICE => this.picture.planes = linear(&params, format)?,
            raw::mem::CUDA_PINNED | raw::mem::CUDA_UNIFIED => {
                this.picture.planes = linear(&params, format)?;
                this.memory_type = memory_type::UNIFIED;
            }
            raw::mem::SURFACE_ARRAY => {
                let libraries = Arc::clone(&this.libraries);
                // SAFETY: the caller's; the context is made current for it.
                libraries.within(ordinal, || unsafe { this.register_image(&params) })?;
            }
            other => return Err(wrong("memory type", "CUDA memory (1, 2, 3) or a surface array (4)", other)),
        }
        Ok(this)
    }

    /// # Safety
    /// As for `Nvmm::register`, with the device's context current; `params` was read from the surface.
    unsafe fn register_image(&mut self, params: &Params) -> Result<(), NvmmError> {
        let mapped_here = params.egl_image.is_null();
        if mapped_here {
            // SAFETY: the caller's; nobody has mapped it.
            unsafe { self.libraries.map_egl_image(self.surface.as_ptr()) }?;
        }
        // SAFETY: the list is the one that was read in `new`; the call above may have written the image into it.
        let image = unsafe { (*self.identity.list).egl_image };
        let registered = if image.is_null() {
            Err(wrong("EGLImage", "an address", "none"))
        } else {
            // SAFETY: the library just said that this is an EGLImage; a context is current.
            unsafe { self.libraries.register(image) }
        };
        let resource = match registered {
            Ok(resource) => resource,
            Err(error) => {
                if mapped_here {
                    // SAFETY: mapped above, and nothing refers to the image.
                    unsafe { self.libraries.unmap_egl_image(self.surface.as_ptr()) };
                }
                return Err(error);
            }
        };
        // From here on `drop` undoes both.
        self.egl = Some(EglRegistration { resource, mapped_here });
        // SAFETY: registered above; the context is current.
        let frame = unsafe { self.libraries.frame(resource) }?;
        self.picture.planes = egl_planes(&frame, params, self.picture.format)?;
        Ok(())
    }

    /// The picture, valid as long as this.
    pub fn picture(&self) -> &SurfacePicture {
        &self.picture
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Copies the top left `rows` rows of `row_bytes` of a plane to system memory, packed, and returns when they are there.
    ///
    /// # Errors
    /// `Kind::Surface` when the plane has less, or `into` another size; `Kind::Driver`.
    pub fn download(&self, plane: usize, row_bytes: usize, into: &mut [u8]) -> Result<(), NvmmError> {
        let picture = &self.picture;
        let from = picture.planes().get(plane).ok_or_else(|| wrong("plane", "one it has", plane))?;
        let (has_bytes, has_rows) = picture.format.plane_extent(plane, picture.width_px, picture.height_px);
        let rows = into.len() / row_bytes.max(1);
        if row_bytes > has_bytes || rows > has_rows || rows * row_bytes != into.len() {
            let expected = format_args!("at most {has_rows} rows of {has_bytes} bytes").to_string();
            let got = format_args!("{} bytes for rows of {row_bytes}", into.len()).to_string();
            return Err(wrong(&format!("plane {plane}"), expected, got));
        }
        let mut copy = Copy2d {
            src_x_bytes: 0,
            src_y: 0,
            src_memory_type: self.memory_type,
            src_host: ptr::null(),
            src_device: 0,
            src_array: ptr::null_mut(),
            src_pitch: 0,
            dst_x_bytes: 0,
            dst_y: 0,
            dst_memory_type: memory_type::HOST,
            dst_host: into.as_mut_ptr().cast(),
            dst_device: 0,
            dst_array: ptr::null_mut(),
            dst_pitch: row_bytes,
            width_bytes: row_bytes,
            height: rows,
        };
        match *from {
            SurfacePlane::Pitched { address, stride_bytes } => {
                (copy.src_device, copy.src_pitch) = (address, stride_bytes);
            }
            SurfacePlane::Array { handle } => {
                copy.src_memory_type = memory_type::ARRAY;
                copy.src_array = ptr::with_exposed_provenance_mut(handle as usize);
            }
        }
        // SAFETY: the source is a plane of at least that size while `self` lives, the destination was checked above and is
        // borrowed until the call, which waits for the copy, returns.
        self.libraries.within(self.ordinal(), || unsafe { self.libraries.copy(&copy) })
    }

    fn ordinal(&self) -> i32 {
        // Checked in `new`.
        self.picture.ordinal.cast_signed()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let Some(egl) = self.egl.take() else { return };
        let undone = self.libraries.within(self.ordinal(), || {
            // SAFETY: registered in `new` and only undone here; nobody can hold its planes any more.
            let undone = unsafe { self.libraries.unregister(egl.resource) };
            if egl.mapped_here {
                // SAFETY: mapped in `new`; the surface lives by `Nvmm::register`'s contract.
                unsafe { self.libraries.unmap_egl_image(self.surface.as_ptr()) };
            }
            undone
        });
        if let Err(error) = undone {
            tracing::warn!(%error, "an nvmm surface was not unregistered");
        }
    }
}

/// Planes in CUDA memory: one block, as the surface's own numbers divide it.
fn linear(params: &Params, format: PixelFormat) -> Result<[SurfacePlane; 3], NvmmError> {
    if params.data_ptr.is_null() {
        return Err(wrong("data", "an address", "none"));
    }
    if params.layout != 0 {
        return Err(wrong("layout in CUDA memory", "pitch (0)", params.layout));
    }
    let mut planes = [SurfacePlane::Pitched { address: 0, stride_bytes: 0 }; 3];
    for (index, plane) in planes.iter_mut().enumerate().take(format.planes()) {
        let (row, rows) = format.plane_extent(index, params.width, params.height);
        let (offset, stride_bytes) =
            (params.planes.offset[index] as usize, params.planes.pitch[index] as usize);
        let end = offset + stride_bytes * rows.saturating_sub(1) + row;
        if stride_bytes < row || end > params.data_size as usize {
            let got = format!("rows of {stride_bytes} bytes from {offset} in {} bytes", params.data_size);
            return Err(wrong(&format!("plane {index}"), format!("{rows} rows of {row} bytes"), got));
        }
        *plane = SurfacePlane::Pitched {
            address: params.data_ptr.expose_provenance() as u64 + offset as u64,
            stride_bytes,
        };
    }
    Ok(planes)
}

/// Planes of a registered EGLImage.
fn egl_planes(
    frame: &EglFrame,
    params: &Params,
    format: PixelFormat,
) -> Result<[SurfacePlane; 3], NvmmError> {
    if frame.plane_count as usize != format.planes() {
        return Err(wrong("planes of the EGLImage", format.planes(), frame.plane_count));
    }
    let mut planes = [SurfacePlane::Pitched { address: 0, stride_bytes: 0 }; 3];
    for (index, plane) in planes.iter_mut().enumerate().take(format.planes()) {
        let (row, _) = format.plane_extent(index, params.width, params.height);
        let place = frame.planes[index].expose_provenance() as u64;
        if place == 0 {
            return Err(wrong(&format!("plane {index} of the EGLImage"), "an address", "none"));
        }
        // The frame has the first plane's pitch only.
        let pitch = if index == 0 { frame.pitch } else { params.planes.pitch[index] };
        *plane = match frame.frame_type {
            raw::FRAME_TYPE_ARRAY => SurfacePlane::Array { handle: place },
            raw::FRAME_TYPE_PITCH if pitch as usize >= row => {
                SurfacePlane::Pitched { address: place, stride_bytes: pitch as usize }
            }
            raw::FRAME_TYPE_PITCH => {
                return Err(wrong(
                    &format!("pitch of plane {index}"),
                    format!("at least {row} bytes"),
                    pitch,
                ));
            }
            other => return Err(wrong("kind of EGL frame", "array (0) or pitch (1)", other)),
        };
    }
    Ok(planes)
}
