//! Our side of the border, on a library of our own that records what it is asked (tests/mock/nvidia.c).

use std::{
    ffi::{CStr, c_char, c_void},
    mem::offset_of,
    path::{Path, PathBuf},
    process::Command,
    ptr::NonNull,
    sync::OnceLock,
};

use libloading::Library;
use sightline_core::PixelFormat;

use super::{
    Kind, Nvmm, NvmmError, Registered, SurfacePlane,
    libraries::Names,
    raw::{Copy2d, EglFrame, Params, Planes, Surface},
};

/// A copy of the recording library, so that what it remembers is one test's. `None`, said aloud, without a compiler.
pub(crate) struct Mock {
    path: PathBuf,
    library: Library,
    _folder: tempfile::TempDir,
}

impl Mock {
    pub(crate) fn new() -> Option<Self> {
        static BUILT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
        let bytes = BUILT.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let into = folder.path().join("mock.so");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock/nvidia.c");
            match Command::new("cc")
                .args(["-shared", "-fPIC", "-pthread", "-o"])
                .arg(&into)
                .arg(source)
                .status()
            {
                Ok(status) => assert!(status.success(), "{status}"),
                Err(error) => {
                    eprintln!("SKIPPED: cc: {error}");
                    return None;
                }
            }
            Some(std::fs::read(into).unwrap())
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mock.so");
        std::fs::write(&path, bytes.as_ref()?).unwrap();
        // SAFETY: a library of ours without initialisers.
        let library = unsafe { Library::new(&path) }.unwrap();
        Some(Self { path, library, _folder: folder })
    }

    pub(crate) fn names(&self) -> Names {
        let path = vec![self.path.to_str().unwrap().to_owned()];
        Names { surface: path.clone(), driver: path }
    }

    fn nvmm(&self) -> Nvmm {
        Nvmm::open_at(&self.names()).unwrap()
    }

    /// What was called since the last time.
    pub(crate) fn calls(&self) -> String {
        let mut text = [0 as c_char; 1 << 14];
        // SAFETY: the signature in nvidia.c.
        let calls = unsafe { self.library.get::<unsafe extern "C" fn(*mut c_char, usize)>(b"mock_calls\0") };
        // SAFETY: it writes a C string of at most that length.
        unsafe { calls.unwrap()(text.as_mut_ptr(), text.len()) };
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_owned()
    }

    pub(crate) fn fail(&self, call: &CStr) {
        // SAFETY: the signature in nvidia.c.
        let fail = unsafe { self.library.get::<unsafe extern "C" fn(*const c_char)>(b"mock_fail\0") };
        // SAFETY: a C string that outlives the call.
        unsafe { fail.unwrap()(call.as_ptr()) };
    }
}

/// A surface with its picture and pixels, as a pool would hold it.
pub(crate) struct Pool {
    pub(crate) surface: Box<Surface>,
    params: Box<Params>,
    pixels: Box<[u8]>,
}

const PITCH: usize = 16;

impl Pool {
    /// NV12 of 6x4 whose bytes count up, in rows of 16.
    pub(crate) fn nv12(mem_type: u32, layout: u32) -> Self {
        let mut pixels: Box<[u8]> = (0..PITCH * 6).map(|byte| byte as u8).collect();
        let planes = Planes {
            num_planes: 2,
            width: [6, 3, 0, 0],
            height: [4, 2, 0, 0],
            pitch: [PITCH as u32, PITCH as u32, 0, 0],
            offset: [0, 4 * PITCH as u32, 0, 0],
            psize: [0; 4],
            bytes_per_pix: [1, 2, 0, 0],
            reserved: [std::ptr::null_mut(); 16],
        };
        let mut params = Box::new(Params {
            width: 6,
            height: 4,
            pitch: PITCH as u32,
            color_format: 6,
            layout,
            buffer_desc: 7,
            data_size: pixels.len() as u32,
            data_ptr: pixels.as_mut_ptr().cast(),
            planes,
            mapped_addr: [std::ptr::null_mut(); 4],
            egl_image: std::ptr::null_mut(),
        });
        let surface = Box::new(Surface {
            gpu_id: 0,
            batch_size: 1,
            num_filled: 1,
            is_contiguous: 1,
            mem_type,
            surface_list: &raw mut *params,
        });
        Self { surface, params, pixels }
    }

    /// Where its picture's DMABUF number is.
    pub(crate) fn descriptor(&mut self) -> *mut u64 {
        &raw mut self.params.buffer_desc
    }

    fn register(&mut self, nvmm: &Nvmm) -> Result<Registered, NvmmError> {
        let surface = NonNull::new((&raw mut *self.surface).cast::<c_void>()).unwrap();
        // SAFETY: a surface laid out as the header says, which the tests drop last.
        unsafe { nvmm.register(surface) }
    }
}

/// Both planes' picture bytes without padding.
fn planes() -> [Vec<u8>; 2] {
    let rows = |rows: std::ops::Range<usize>| {
        rows.flat_map(|row| (row * PITCH..row * PITCH + 6).map(|b| b as u8)).collect()
    };
    [rows(0..4), rows(4..6)]
}

fn download(registered: &Registered) -> [Vec<u8>; 2] {
    let mut planes = [vec![0; 24], vec![0; 12]];
    for (index, plane) in planes.iter_mut().enumerate() {
        registered.download(index, 6, plane).unwrap();
    }
    planes
}

/// Numbers printed by a C program that included the headers (64 bit): `nvbufsurface.h` of github.com/NVIDIA/DeepStream at
/// v9.1.0, `cuda.h` and `cudaEGL.h` of CUDA 13.0.
#[test]
fn the_layout_is_the_headers() {
    if cfg!(not(target_pointer_width = "64")) {
        return eprintln!("SKIPPED: the numbers are those of a 64 bit machine");
    }
    for (what, ours, theirs) in [
        ("NvBufSurface.gpuId", offset_of!(Surface, gpu_id), 0),
        ("NvBufSurface.batchSize", offset_of!(Surface, batch_size), 4),
        ("NvBufSurface.numFilled", offset_of!(Surface, num_filled), 8),
        ("NvBufSurface.isContiguous", offset_of!(Surface, is_contiguous), 12),
        ("NvBufSurface.memType", offset_of!(Surface, mem_type), 16),
        ("NvBufSurface.surfaceList", offset_of!(Surface, surface_list), 24),
        ("the head of NvBufSurface, up to isImportedBuf", size_of::<Surface>(), 32),
        ("NvBufSurfaceParams.width", offset_of!(Params, width), 0),
        ("NvBufSurfaceParams.height", offset_of!(Params, height), 4),
        ("NvBufSurfaceParams.pitch", offset_of!(Params, pitch), 8),
        ("NvBufSurfaceParams.colorFormat", offset_of!(Params, color_format), 12),
        ("NvBufSurfaceParams.layout", offset_of!(Params, layout), 16),
        ("NvBufSurfaceParams.bufferDesc", offset_of!(Params, buffer_desc), 24),
        ("NvBufSurfaceParams.dataSize", offset_of!(Params, data_size), 32),
        ("NvBufSurfaceParams.dataPtr", offset_of!(Params, data_ptr), 40),
        ("NvBufSurfaceParams.planeParams", offset_of!(Params, planes), 48),
        ("NvBufSurfaceParams.mappedAddr", offset_of!(Params, mapped_addr), 280),
        ("NvBufSurfaceParams.mappedAddr.eglImage", offset_of!(Params, egl_image), 312),
        ("NvBufSurfacePlaneParams", size_of::<Planes>(), 232),
        ("NvBufSurfacePlaneParams.width", offset_of!(Planes, width), 4),
        ("NvBufSurfacePlaneParams.height", offset_of!(Planes, height), 20),
        ("NvBufSurfacePlaneParams.pitch", offset_of!(Planes, pitch), 36),
        ("NvBufSurfacePlaneParams.offset", offset_of!(Planes, offset), 52),
        ("NvBufSurfacePlaneParams.psize", offset_of!(Planes, psize), 68),
        ("NvBufSurfacePlaneParams.bytesPerPix", offset_of!(Planes, bytes_per_pix), 84),
        ("CUeglFrame", size_of::<EglFrame>(), 64),
        ("CUeglFrame.pitch", offset_of!(EglFrame, pitch), 36),
        ("CUeglFrame.planeCount", offset_of!(EglFrame, plane_count), 40),
        ("CUeglFrame.frameType", offset_of!(EglFrame, frame_type), 48),
        ("CUDA_MEMCPY2D", size_of::<Copy2d>(), 128),
        ("CUDA_MEMCPY2D.srcDevice", offset_of!(Copy2d, src_device), 32),
        ("CUDA_MEMCPY2D.srcArray", offset_of!(Copy2d, src_array), 40),
        ("CUDA_MEMCPY2D.srcPitch", offset_of!(Copy2d, src_pitch), 48),
        ("CUDA_MEMCPY2D.dstHost", offset_of!(Copy2d, dst_host), 80),
        ("CUDA_MEMCPY2D.dstPitch", offset_of!(Copy2d, dst_pitch), 104),
        ("CUDA_MEMCPY2D.WidthInBytes", offset_of!(Copy2d, width_bytes), 112),
        ("CUDA_MEMCPY2D.Height", offset_of!(Copy2d, height), 120),
    ] {
        assert_eq!(ours, theirs, "{what}");
    }
}

const REGISTERS: &str = "cuInit cuDevicePrimaryCtxRetain NvBufSurfaceMapEglImage cuGraphicsEGLRegisterImage \
                         cuGraphicsResourceGetMappedEglFrame";

#[test]
fn a_surface_array_is_registered_read_and_let_go() {
    for (case, layout) in [("pitched", 0), ("block-linear", 1)] {
        let Some(mock) = Mock::new() else { return };
        let (nvmm, mut pool) = (mock.nvmm(), Pool::nv12(4, layout));
        assert_eq!(mock.calls(), "", "opening touches no device");
        let registered = pool.register(&nvmm).unwrap();
        assert_eq!(mock.calls(), REGISTERS, "{case}");
        let picture = *registered.picture();
        assert_eq!((picture.format, picture.width_px, picture.height_px), (PixelFormat::Nv12, 6, 4));
        for (plane, offset) in picture.planes().iter().zip([0, 4 * PITCH]) {
            let address = pool.pixels.as_ptr() as u64 + offset as u64;
            match plane {
                SurfacePlane::Pitched { .. } if layout == 0 => {
                    assert_eq!(*plane, SurfacePlane::Pitched { address, stride_bytes: PITCH });
                }
                SurfacePlane::Array { handle } if layout == 1 => assert_ne!(*handle, 0),
                other => panic!("{case}: {other:?}"),
            }
        }
        assert_eq!(download(&registered), planes(), "{case}");
        assert_eq!(mock.calls(), "cuMemcpy2D cuMemcpy2D");
        drop(registered);
        assert_eq!(mock.calls(), "cuGraphicsUnregisterResource NvBufSurfaceUnMapEglImage");
        drop(nvmm);
        assert_eq!(mock.calls(), "cuDevicePrimaryCtxRelease");
    }
}

#[test]
fn cuda_memory_is_read_where_it_lies() {
    for (case, mem_type) in [("pinned", 1), ("device", 2), ("unified", 3)] {
        let Some(mock) = Mock::new() else { return };
        let mut pool = Pool::nv12(mem_type, 0);
        let registered = pool.register(&mock.nvmm()).unwrap();
        assert_eq!(mock.calls(), "", "{case}: nothing to register");
        let address = pool.pixels.as_ptr() as u64;
        assert_eq!(registered.picture().planes()[0], SurfacePlane::Pitched { address, stride_bytes: PITCH });
        assert_eq!(download(&registered), planes(), "{case}");
    }
}

#[test]
fn an_image_that_somebody_else_mapped_stays() {
    let Some(mock) = Mock::new() else { return };
    let (nvmm, mut pool) = (mock.nvmm(), Pool::nv12(4, 0));
    pool.params.egl_image = (&raw mut *pool.params).cast();
    drop(pool.register(&nvmm).unwrap());
    assert!(!mock.calls().contains("MapEglImage"));
    assert!(!pool.params.egl_image.is_null());
}

#[test]
fn what_fails_is_named_and_undone() {
    for (call, rest) in [
        (c"cuInit", ""),
        (c"cuDevicePrimaryCtxRetain", ""),
        (c"NvBufSurfaceMapEglImage", ""),
        (c"cuGraphicsEGLRegisterImage", "NvBufSurfaceUnMapEglImage"),
        (c"cuGraphicsResourceGetMappedEglFrame", "cuGraphicsUnregisterResource NvBufSurfaceUnMapEglImage"),
    ] {
        let Some(mock) = Mock::new() else { return };
        let (nvmm, mut pool) = (mock.nvmm(), Pool::nv12(4, 0));
        mock.fail(call);
        let error = pool.register(&nvmm).unwrap_err();
        let name = call.to_str().unwrap();
        assert_eq!((error.kind(), error.can_continue()), (Kind::Driver, true), "{name}");
        assert!(error.to_string().starts_with(name), "{error}");
        let calls = mock.calls();
        assert!(calls.ends_with(format!("{name} {rest}").trim()), "{name}: {calls}");
        assert!(pool.params.egl_image.is_null(), "{name}");
        mock.fail(c"");
        // The next picture may do.
        drop(pool.register(&nvmm).unwrap());
    }
    let Some(mock) = Mock::new() else { return };
    let mut pool = Pool::nv12(4, 0);
    let registered = pool.register(&mock.nvmm()).unwrap();
    mock.fail(c"cuMemcpy2D");
    let error = registered.download(0, 6, &mut [0; 24]).unwrap_err().to_string();
    assert_eq!(error, "cuMemcpy2D: expected success, got CUDA_ERROR_UNKNOWN (999)");
}

#[test]
fn what_is_no_picture_of_ours_is_refused() {
    type Change = fn(&mut Pool);
    let Some(mock) = Mock::new() else { return };
    let nvmm = mock.nvmm();
    for (mem_type, change, says) in [
        (2, (|pool| pool.surface.batch_size = 4) as Change, "batch: expected one picture"),
        (2, |pool| pool.surface.surface_list = std::ptr::null_mut(), "list of pictures: expected an address"),
        (2, |pool| pool.params.color_format = 29, "colour format: expected NV12"),
        (2, |pool| pool.params.planes.num_planes = 3, "planes: expected 2, got 3"),
        (2, |pool| pool.params.data_ptr = std::ptr::null_mut(), "data: expected an address"),
        (2, |pool| pool.params.layout = 1, "layout in CUDA memory: expected pitch"),
        (2, |pool| pool.params.planes.pitch[1] = 4, "plane 1: expected 2 rows of 6 bytes"),
        (2, |pool| pool.params.planes.offset[1] = 90, "plane 1: expected 2 rows of 6 bytes"),
        (4, |pool| pool.params.planes.pitch[1] = 4, "pitch of plane 1: expected at least 6 bytes"),
        (4, |pool| pool.params.pitch = 4, "pitch of plane 0: expected at least 6 bytes"),
        (6, |_| {}, "memory type: expected CUDA memory"),
    ] {
        let mut pool = Pool::nv12(mem_type, 0);
        change(&mut pool);
        let error = pool.register(&nvmm).unwrap_err();
        assert_eq!(error.kind(), Kind::Surface, "{says}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let mut pool = Pool::nv12(2, 0);
    let registered = pool.register(&nvmm).unwrap();
    for (plane, row_bytes, bytes) in [(2, 6, 6), (0, 7, 7), (0, 6, 30), (0, 6, 10)] {
        assert!(
            registered.download(plane, row_bytes, &mut vec![0; bytes]).is_err(),
            "{plane} {row_bytes} {bytes}"
        );
    }
}

#[test]
fn what_is_not_there_is_named() {
    let none = Names { surface: vec!["libno-such-thing.so".to_owned()], ..Names::default() };
    let error = Nvmm::open_at(&none).unwrap_err();
    assert_eq!((error.kind(), error.can_continue()), (Kind::Unavailable, false));
    assert!(
        error.to_string().starts_with("libno-such-thing.so: expected to find it, got libno-such"),
        "{error}"
    );
    // A library that is something else.
    let other = vec!["libc.so.6".to_owned()];
    let error = Nvmm::open_at(&Names { surface: other.clone(), driver: other }).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().starts_with("symbol NvBufSurfaceMapEglImage: expected to find it"), "{error}");
    assert!(error.to_string().contains("undefined symbol"), "{error}");
}
