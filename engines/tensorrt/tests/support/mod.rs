//! A device whose memory is the host's, and the mock of TensorRT that runs on it.
#![allow(unsafe_code, dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ffi::{CStr, CString, c_char},
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use sightline_core::{DType, ImageSpec, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceMark, DeviceOps, DeviceTensor, EngineError, Kind, PictureRef, Stream,
};
use sightline_engine_tensorrt::{DeviceAccess, Runtime, TensorRt};

/// Host memory that passes for a device's.
pub(crate) struct Memory {
    pointer: *mut u8,
    layout: Layout,
    device: Device,
}

// SAFETY: plain memory; the tests read and write it while nothing else does.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.layout.size())
    }
}

impl Memory {
    pub(crate) fn new(bytes: usize, device: Device) -> Arc<Self> {
        let layout = Layout::from_size_align(bytes, 256).unwrap();
        // SAFETY: the size is not zero.
        Arc::new(Self { pointer: unsafe { alloc_zeroed(layout) }, layout, device })
    }

    pub(crate) fn float(&self, index: usize) -> f32 {
        assert!((index + 1) * 4 <= self.layout.size());
        // SAFETY: within the memory and aligned; no run is in flight.
        unsafe { self.pointer.cast::<f32>().add(index).read() }
    }

    pub(crate) fn set_float(&self, index: usize, value: f32) {
        assert!((index + 1) * 4 <= self.layout.size());
        // SAFETY: as above.
        unsafe { self.pointer.cast::<f32>().add(index).write(value) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.pointer, self.layout) }
    }
}

impl DeviceBuffer for Memory {
    fn device(&self) -> Device {
        self.device
    }
    fn address(&self) -> u64 {
        self.pointer as u64
    }
    fn len_bytes(&self) -> usize {
        self.layout.size()
    }
}

pub(crate) const GPU: Device = Device::Cuda { ordinal: 0 };

/// Counts what it is asked; has memory and no kernels.
#[derive(Debug, Default)]
pub(crate) struct HostDevice {
    pub(crate) allocated: AtomicUsize,
    pub(crate) waits: AtomicUsize,
    pub(crate) orders: Mutex<Vec<(Stream, Stream)>>,
}

fn unused() -> EngineError {
    EngineError::new(Kind::Run, "the device of a test", "memory and order only", "another call")
}

impl DeviceOps for HostDevice {
    fn device(&self) -> Device {
        GPU
    }
    fn alloc(&self, bytes: usize) -> Result<Arc<dyn DeviceBuffer>, EngineError> {
        self.allocated.fetch_add(1, Ordering::Relaxed);
        Ok(Memory::new(bytes, GPU))
    }
    fn owns(&self, buffer: &dyn DeviceBuffer) -> bool {
        (buffer as &dyn std::any::Any).is::<Memory>() && buffer.device() == GPU
    }
    fn mark(&self) -> Result<Arc<dyn DeviceMark>, EngineError> {
        Err(unused())
    }
    fn record(&self, _: Stream, _: &dyn DeviceMark) -> Result<(), EngineError> {
        Err(unused())
    }
    fn wait(&self, _: Stream, _: &dyn DeviceMark) -> Result<(), EngineError> {
        Err(unused())
    }
    fn is_past(&self, _mark: &dyn DeviceMark) -> Result<bool, EngineError> {
        Ok(true)
    }

    fn order(&self, before: Stream, after: Stream) -> Result<(), EngineError> {
        self.orders.lock().unwrap().push((before, after));
        Ok(())
    }
    fn upload(&self, _: Stream, _: TensorView<'_>, _: &DeviceTensor) -> Result<(), EngineError> {
        Err(unused())
    }
    fn copy(&self, _: Stream, _: &DeviceTensor, _: &DeviceTensor) -> Result<(), EngineError> {
        Err(unused())
    }
    fn fill(&self, _: Stream, _: f32, _: &DeviceTensor) -> Result<(), EngineError> {
        Err(unused())
    }
    fn clamp(&self, _: Stream, _: &DeviceTensor, _: f32, _: &DeviceTensor) -> Result<(), EngineError> {
        Err(unused())
    }
    fn round_to_bf16(&self, _: Stream, _: &DeviceTensor) -> Result<(), EngineError> {
        Err(unused())
    }
    fn add_channels(
        &self,
        _: Stream,
        _: &DeviceTensor,
        _: &DeviceTensor,
        _: &DeviceTensor,
    ) -> Result<(), EngineError> {
        Err(unused())
    }
    fn preprocess(
        &self,
        _: Stream,
        _: &PictureRef<'_>,
        _: &ImageSpec,
        _: &DeviceTensor,
    ) -> Result<(), EngineError> {
        Err(unused())
    }
    fn download(
        &self,
        _: Stream,
        parts: &mut [(DeviceTensor, TensorViewMut<'_>)],
    ) -> Result<(), EngineError> {
        assert!(parts.is_empty(), "only a wait");
        self.waits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The device as TensorRT is lent it; stream `n` has the handle `0x1000 + n`.
pub(crate) fn access(device: &Arc<HostDevice>) -> DeviceAccess {
    DeviceAccess { ops: Arc::clone(device) as _, enter: Arc::new(|stream| Ok(0x1000 + stream.0)) }
}

pub(crate) fn tensor(buffer: &Arc<Memory>, offset_bytes: usize, dims: &[usize]) -> DeviceTensor {
    DeviceTensor {
        buffer: Arc::clone(buffer) as _,
        offset_bytes,
        dtype: DType::F32,
        shape: Shape::new(dims).unwrap(),
    }
}

/// The majors this build has a shim for, and their headers.
pub(crate) fn majors() -> Vec<(u32, &'static str)> {
    let built = [
        (10, option_env!("SIGHTLINE_TENSORRT_HEADERS_10")),
        (11, option_env!("SIGHTLINE_TENSORRT_HEADERS_11")),
    ];
    built.into_iter().filter_map(|(major, folder)| Some((major, folder?))).collect()
}

/// The mock of a major, compiled once a test program.
fn compiled(major: u32, headers: &str) -> &'static Path {
    static BUILT: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    BUILT[(major - 10) as usize].get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mock-{major}"));
        fs::create_dir_all(&out).unwrap();
        let classes = Command::new("python3")
            .arg(here.join("tests/mock/mock.py"))
            .arg(headers)
            .output()
            .expect("python3 runs");
        assert!(classes.status.success(), "{}", String::from_utf8_lossy(&classes.stderr));
        fs::write(out.join("mock_classes.h"), classes.stdout).unwrap();
        let library = out.join(format!("libnvinfer_mock.so.{major}"));
        let part = out.join(format!("part-{}", std::process::id()));
        let status = Command::new("c++")
            .args(["-std=c++17", "-shared", "-fPIC", "-w", "-isystem"])
            .arg(here.join("shim/stub"))
            .args(["-isystem", headers, "-I"])
            .arg(&out)
            .arg(here.join("tests/mock/mock.cpp"))
            .arg("-o")
            .arg(&part)
            .status();
        assert!(status.expect("a C++ compiler").success(), "the mock of {major} compiles");
        fs::rename(&part, &library).unwrap();
        library
    })
}

/// A mock library of its own: what it writes down is this test's.
pub(crate) struct Mock {
    pub(crate) major: u32,
    pub(crate) path: PathBuf,
    library: libloading::Library,
    _folder: tempfile::TempDir,
}

impl Mock {
    pub(crate) fn all() -> Vec<Self> {
        majors()
            .into_iter()
            .map(|(major, headers)| {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join(format!("libnvinfer_mock.so.{major}"));
                fs::copy(compiled(major, headers), &path).unwrap();
                // SAFETY: our own library.
                let library = unsafe { libloading::Library::new(&path) }.unwrap();
                Self { major, path, library, _folder: folder }
            })
            .collect()
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<String> {
        type Take = unsafe extern "C" fn() -> *const c_char;
        // SAFETY: so declared in mock.cpp; the text is copied before the next call.
        let text = unsafe { CStr::from_ptr(self.library.get::<Take>(b"mock_take").unwrap()()) };
        let calls: Vec<_> = text.to_str().unwrap().lines().map(str::to_owned).collect();
        assert!(calls.iter().all(|call| !call.starts_with("unexpected")), "{calls:?}");
        calls
    }

    pub(crate) fn mode(&self, mode: &str) {
        type Mode = unsafe extern "C" fn(*const c_char);
        let mode = CString::new(mode).unwrap();
        // SAFETY: so declared in mock.cpp; it copies the text.
        unsafe { self.library.get::<Mode>(b"mock_mode").unwrap()(mode.as_ptr()) }
    }

    pub(crate) fn open(&self) -> TensorRt {
        TensorRt::open(&self.path).unwrap()
    }

    pub(crate) fn runtime(&self, device: &Arc<HostDevice>) -> Runtime {
        Runtime::new(&self.open(), access(device)).unwrap()
    }
}
