use std::{fmt, path::PathBuf};

use ort::session::builder::SessionBuilder;
use sightline_engine_api::{Device, EngineError, Kind};

use crate::{OrtOptions, OrtRuntime};

/// What of ONNX Runtime runs the graphs. All but the processor are taken at their word: what is not there is an error,
/// never the processor in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OrtProvider {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by ONNX Runtime's own kernels, cuDNN and cuBLAS. Needs the feature `cuda`.
    Cuda {
        /// The driver's number for it.
        ordinal: u32,
    },
    /// An NVIDIA GPU, by TensorRT where it takes a part of the graph, else as [`OrtProvider::Cuda`]. Needs the feature
    /// `cuda`.
    TensorRt {
        /// The driver's number for it.
        ordinal: u32,
    },
}

impl fmt::Display for OrtProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { ordinal } => write!(f, "cuda:{ordinal}"),
            Self::TensorRt { ordinal } => write!(f, "tensorrt:{ordinal}"),
        }
    }
}

impl OrtProvider {
    /// Where it runs and where device tensors must lie.
    pub fn device(self) -> Device {
        match self {
            Self::Cpu => Device::Cpu,
            Self::Cuda { ordinal } | Self::TensorRt { ordinal } => Device::Cuda { ordinal },
        }
    }
}

/// What only a GPU's providers look at.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Matrix products and convolutions round their inputs to TensorFloat-32: faster, and 10 bits instead of 23. Off by
    /// default, as everywhere else where `f32` is written.
    pub tf32: bool,
    /// Runs whose tensors lie where they lay before are captured once and replayed as CUDA graphs. Only for graphs
    /// without open sizes; the others are run as ever.
    pub cuda_graphs: bool,
    /// Where TensorRT keeps the engines it has built; `None` builds them anew in every process, for minutes.
    pub engine_cache: Option<PathBuf>,
    /// Options of the provider by ONNX Runtime's own names, taken as they are.
    pub extra: Vec<(String, String)>,
    /// The order of work of the device that the graph's own is part of; `None` lets ONNX Runtime make one, and wait for
    /// it after every run.
    #[cfg(feature = "cuda")]
    pub orders: Option<sightline_engine_cuda::onnxruntime::Orders>,
}

/// Refuses a provider that this build or the library does not have; what it needs may still be missing.
///
/// # Errors
/// `Kind::Unavailable`, saying what has it.
pub(crate) fn require(runtime: &OrtRuntime, provider: OrtProvider) -> Result<(), EngineError> {
    let wanted = match provider {
        OrtProvider::Cpu => return Ok(()),
        OrtProvider::Cuda { .. } => "cuda",
        OrtProvider::TensorRt { .. } => "tensorrt",
    };
    let subject = format!("provider onnxruntime/{provider}");
    if !cfg!(feature = "cuda") {
        let (expected, got) = ("a build with the feature `cuda`", "one without (it has onnxruntime/cpu)");
        return Err(EngineError::new(Kind::Unavailable, subject, expected, got));
    }
    let built_in = runtime.providers();
    if built_in.contains(&wanted) {
        return Ok(());
    }
    Err(EngineError::new(
        Kind::Unavailable,
        subject,
        "a library that was built with it (`pip download --no-deps onnxruntime-gpu`, unzip, and point \
         SIGHTLINE_ONNXRUNTIME at onnxruntime/capi/libonnxruntime.so.*, the providers beside it)",
        format_args!("{:?}, which has {}", runtime.path().display().to_string(), built_in.join(", ")),
    ))
}

/// Puts the provider before the processor, or says why it cannot be had.
pub(crate) fn register(
    runtime: &OrtRuntime,
    name: &str,
    builder: SessionBuilder,
    options: &OrtOptions,
    open_sizes: bool,
) -> Result<SessionBuilder, EngineError> {
    require(runtime, options.provider).map_err(|error| error.within(name))?;
    #[cfg(feature = "cuda")]
    if options.provider != OrtProvider::Cpu {
        return gpu::register(builder, options, open_sizes).map_err(|error| {
            let subject = format!("{name}: provider onnxruntime/{}", options.provider);
            let expected = "its libraries, a driver and a device";
            EngineError::new(Kind::Unavailable, subject, expected, error)
        });
    }
    let _ = open_sizes;
    Ok(builder)
}

#[cfg(feature = "cuda")]
pub(crate) mod gpu {
    use ort::ep::{self, ExecutionProvider as _};

    use super::*;

    /// The providers that a library was built with; what they need may still be missing.
    pub(crate) fn built_in() -> Vec<&'static str> {
        let mut found = vec!["cpu"];
        let has = |found: ort::Result<bool>| found.unwrap_or(false);
        found.extend(has(ep::CUDA::is_available()).then_some("cuda"));
        found.extend(has(ep::TensorRT::is_available()).then_some("tensorrt"));
        found
    }

    pub(super) fn register(
        builder: SessionBuilder,
        options: &OrtOptions,
        open_sizes: bool,
    ) -> ort::Result<SessionBuilder> {
        let mut providers = Vec::new();
        if matches!(options.provider, OrtProvider::TensorRt { .. }) {
            providers.push(tensorrt(options).build().error_on_failure());
        }
        providers.push(cuda(options, open_sizes).build().error_on_failure());
        Ok(builder.with_execution_providers(providers)?)
    }

    fn ordinal(options: &OrtOptions) -> i32 {
        match options.provider.device() {
            Device::Cuda { ordinal } => i32::try_from(ordinal).unwrap_or(i32::MAX),
            Device::Cpu => 0,
        }
    }

    fn cuda(options: &OrtOptions, open_sizes: bool) -> ep::CUDA {
        let gpu = &options.gpu;
        let mut provider = ep::CUDA::default()
            .with_device_id(ordinal(options))
            .with_tf32(gpu.tf32)
            .with_cuda_graph(captures(options, open_sizes));
        if matches!(options.provider, OrtProvider::Cuda { .. }) {
            provider = extra(provider, gpu);
        }
        match &gpu.orders {
            Some(orders) => orders.on_cuda(provider),
            None => provider,
        }
    }

    fn tensorrt(options: &OrtOptions) -> ep::TensorRT {
        let gpu = &options.gpu;
        let mut provider = ep::TensorRT::default().with_device_id(ordinal(options));
        if let Some(folder) = &gpu.engine_cache {
            let folder = folder.display().to_string();
            provider = provider
                .with_engine_cache(true)
                .with_engine_cache_path(&folder)
                .with_timing_cache(true)
                .with_timing_cache_path(&folder);
        }
        let provider = extra(provider, gpu);
        match &gpu.orders {
            Some(orders) => orders.on_tensorrt(provider),
            None => provider,
        }
    }

    fn extra<P: ep::ArbitrarilyConfigurableExecutionProvider>(provider: P, gpu: &GpuOptions) -> P {
        gpu.extra.iter().fold(provider, |provider, (name, value)| provider.with_arbitrary_config(name, value))
    }

    /// Whether runs are captured: TensorRT's parts are left to TensorRT.
    pub(crate) fn captures(options: &OrtOptions, open_sizes: bool) -> bool {
        options.gpu.cuda_graphs && !open_sizes && matches!(options.provider, OrtProvider::Cuda { .. })
    }
}
