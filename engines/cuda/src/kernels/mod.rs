//! Our kernels: CUDA C source, compiled for the device that runs them, and what launches them.

mod cache;
mod mask;
mod overlay;
mod taps;
mod tensor;

use std::{ffi::CString, ffi::c_void, sync::Arc};

use cudarc::driver::{CudaContext, CudaStream, result, sys};

use crate::{CudaError, DeviceInfo, Image, Kind, Nvrtc, Version, error::During};

pub use cache::kernel_cache;
pub use mask::MaskFinder;
pub use overlay::Ink;
pub use taps::Taps;

/// All of them, one source.
pub const SOURCE: &str = concat!(
    include_str!("../../kernels/common.cuh"),
    include_str!("../../kernels/picture.cu"),
    include_str!("../../kernels/mask.cu"),
    include_str!("../../kernels/overlay.cu"),
    include_str!("../../kernels/tensor.cu"),
);

/// Without contraction a kernel's floats are its reference's, bit for bit.
const OPTIONS: [&str; 2] = ["--fmad=false", "--std=c++17"];

/// Compiles them for `sm_<architecture>`; needs no GPU.
///
/// # Errors
/// `Kind::Kernel` with the compiler's log.
pub fn compile(nvrtc: &Nvrtc, architecture: u32) -> Result<Image, CudaError> {
    nvrtc.compile(SOURCE, &OPTIONS, architecture)
}

macro_rules! kernels {
    ($($kernel:ident = $name:literal,)*) => {
        /// One of them.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Kernel { $($kernel),* }

        impl Kernel {
            const NAMES: &[&str] = &[$($name),*];
        }
    };
}

kernels! {
    PictureNarrow = "picture_narrow",
    PictureShortenF32 = "picture_shorten_f32",
    PictureShortenF16 = "picture_shorten_f16",
    MaskBits = "mask_bits",
    MaskRunsPlace = "mask_runs_place",
    MaskRunsMeasure = "mask_runs_measure",
    MaskLook = "mask_look",
    OverlayFill = "overlay_fill",
    TensorFill = "tensor_fill",
    TensorClamp = "tensor_clamp",
    TensorRoundToBf16 = "tensor_round_to_bf16",
    TensorAddChannels = "tensor_add_channels",
}

/// Pointers to a kernel's arguments, in its order; each must be a place that holds exactly the parameter's type.
macro_rules! arguments {
    ($($place:expr),* $(,)?) => { &mut [$((&raw const $place).cast_mut().cast::<std::ffi::c_void>()),*] };
}
pub(crate) use arguments;

/// The loaded module and its functions.
pub(crate) struct Kernels {
    module: sys::CUmodule,
    functions: Vec<sys::CUfunction>,
    context: Arc<CudaContext>,
}

// SAFETY: handles of the driver's, which takes calls from any thread; they go with the module, once, in `drop`.
unsafe impl Send for Kernels {}
// SAFETY: as above; nothing is changed after `load`.
unsafe impl Sync for Kernels {}

impl Kernels {
    pub(crate) fn load(
        context: &Arc<CudaContext>,
        info: &DeviceInfo,
        driver: Version,
    ) -> Result<Self, CudaError> {
        let entry = cache::Entry::new(SOURCE, &OPTIONS, info);
        if let Some(image) = entry.read() {
            match Self::from_image(context, &image) {
                Ok(kernels) => return Ok(kernels),
                // Of another driver, or a disk's error.
                Err(error) => tracing::warn!(%error, "cached kernels do not load, compiling them anew"),
            }
        }
        let nvrtc = Nvrtc::locate(driver)?;
        let started = std::time::Instant::now();
        let image = compile(&nvrtc, info.capability.0 * 10 + info.capability.1)?;
        tracing::info!(nvrtc = %nvrtc.version(), seconds = started.elapsed().as_secs_f64(), "compiled kernels");
        let kernels = Self::from_image(context, image.bytes())?;
        if let Err(error) = entry.write(image.bytes()) {
            tracing::warn!(%error, "compiled kernels were not kept");
        }
        Ok(kernels)
    }

    fn from_image(context: &Arc<CudaContext>, image: &[u8]) -> Result<Self, CudaError> {
        context.bind_to_thread().during("cuCtxSetCurrent")?;
        // SAFETY: a whole ELF or, ending in a 0, PTX; the driver copies it. What is cached was checked by its hash.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) }.map_err(|error| {
            let expected = "an image that the driver loads";
            CudaError::new(Kind::Kernel, "CUDA kernels", expected, format_args!("{:?}", error.0))
        })?;
        // From here on `drop` unloads it.
        let mut kernels = Self { module, functions: Vec::new(), context: context.clone() };
        for name in Kernel::NAMES {
            let text = CString::new(*name)
                .map_err(|error| CudaError::new(Kind::Kernel, "kernel name", "text without a 0", error))?;
            // SAFETY: `module` is loaded.
            let function = unsafe { result::module::get_function(module, text) };
            kernels.functions.push(function.during("cuModuleGetFunction")?);
        }
        Ok(kernels)
    }

    /// Launches `grid` blocks of `block` threads.
    ///
    /// # Safety
    /// `arguments` point to values of the kernel's parameter types, in its order. Addresses among them are of device
    /// memory as large as the kernel reads and writes, which is not freed before the device has come this far.
    pub(crate) unsafe fn launch(
        &self,
        kernel: Kernel,
        stream: &CudaStream,
        grid: [u32; 2],
        block: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        if grid.contains(&0) {
            return Ok(());
        }
        self.context.bind_to_thread().during("cuCtxSetCurrent")?;
        let function = self.functions[kernel as usize];
        // SAFETY: the function is of the module, which lives as long as `self`; the rest is the caller's promise.
        unsafe {
            result::launch_kernel(
                function,
                (grid[0], grid[1], 1),
                (block, 1, 1),
                0,
                stream.cu_stream(),
                arguments,
            )
        }
        .during(Kernel::NAMES[kernel as usize])
    }
}

impl Drop for Kernels {
    fn drop(&mut self) {
        self.context.record_err(self.context.synchronize());
        // SAFETY: loaded in `from_image`, unloaded once, and no launch is under way.
        self.context.record_err(unsafe { result::module::unload(self.module) });
    }
}
