use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, thread};

#[cfg(feature = "cuda")]
use sightline_engine_api::{Device, Stream};
use sightline_engine_api::{DeviceOps, Engine, EngineError, GraphName, GraphSpec, Kind, Model, ModelSpec};

use crate::{
    Provider,
    files::{self, ModelSource},
    tensorrt::Plans,
    tune::tuned_source,
};

/// How a model is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// What runs the graphs. Anything but [`Provider::Auto`] is taken at its word: an error if it is not there.
    pub provider: Provider,
    /// Threads that share one operator's work; `None`: as [`default_threads`] says.
    pub threads: Option<NonZeroUsize>,
    /// Whether idle worker threads burn their core for a while (see `engines/ort/README.md`).
    pub spinning: bool,
    /// The ONNX Runtime library; `None`: looked for in the usual places.
    pub onnxruntime: Option<PathBuf>,
    /// What only a GPU's providers look at.
    pub gpu: GpuLoad,
    /// Objects of different sessions that one run of [`shared`](crate::shared) engines takes at most, where a graph lets
    /// them; 1 for never. `None`: 4 on a device, and 1 on the processor, which takes as long for two as for one twice.
    pub batch: Option<NonZeroUsize>,
}

/// How a model is loaded on a GPU (`engines/ort/README.md`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuLoad {
    /// Matrix products and convolutions in TensorFloat-32.
    pub tf32: bool,
    /// Graphs without open sizes are captured as CUDA graphs and replayed.
    pub cuda_graphs: bool,
    /// Where TensorRT keeps the engines it has built; `None`: `$XDG_DATA_HOME/sightline/tensorrt`.
    pub engine_cache: Option<PathBuf>,
    /// Options of the provider by the backend's own names.
    pub extra: Vec<(String, String)>,
}

impl LoadOptions {
    /// The same with a number of threads.
    fn settled(&self, source: &ModelSource) -> Self {
        Self { threads: Some(self.threads.unwrap_or_else(|| best_threads(source))), ..self.clone() }
    }

    #[cfg(feature = "ort")]
    fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or(NonZeroUsize::MIN)
    }
}

/// Threads that a model's engines take unless told otherwise: as many as were measured to be best
/// ([`tuned`](crate::tuned)), else as many as this process may use. Opens files.
///
/// # Errors
/// `Kind::Model` when there is no such model.
pub fn default_threads(name_or_dir: &str) -> Result<NonZeroUsize, EngineError> {
    Ok(best_threads(&files::find(name_or_dir, &files::shelves())?))
}

fn best_threads(source: &ModelSource) -> NonZeroUsize {
    let tuned = tuned_source(source).map(|tuned| tuned.threads);
    tuned.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// Loads a model: `nano` (inside this binary), `fake` (for tests), the path of a model folder, or the name of a
/// folder in `$SIGHTLINE_MODELS` or `$XDG_DATA_HOME/sightline/models`.
///
/// Every file must hash to what `model.toml` says before any of it is parsed, and every graph must have exactly the
/// inputs and outputs it declares there. Opens files: not for a streaming thread.
///
/// # Errors
/// `Kind::Model` for a model that is unknown or whose files are not those its manifest names, `Kind::Interface` for
/// a graph that is not as declared, `Kind::Unavailable` for a backend, provider or library that is not there.
pub fn load(name_or_dir: &str, options: &LoadOptions) -> Result<Model, EngineError> {
    let source = files::find(name_or_dir, &files::shelves())?;
    let options = &options.settled(&source);
    let model = match source {
        ModelSource::Fake => fake(options)?,
        source => from_source(&source, options)?,
    };
    tracing::info!(
        model = model.spec.name,
        family = model.spec.family,
        provider = model.image_encoder.provider(),
        threads = options.threads,
        "model loaded"
    );
    Ok(model)
}

fn fake(options: &LoadOptions) -> Result<Model, EngineError> {
    match options.provider {
        Provider::Auto | Provider::OnnxRuntimeCpu => {
            Ok(sightline_engine_fake::model(sightline_engine_fake::FakeOptions::default()))
        }
        // As everywhere: asked for a GPU, never the CPU in its place.
        other => Err(EngineError::new(
            Kind::Unavailable,
            "model \"fake\" provider",
            "auto or onnxruntime-cpu",
            other,
        )),
    }
}

fn from_source(source: &ModelSource, options: &LoadOptions) -> Result<Model, EngineError> {
    let spec = source.spec()?;
    let place = format!("model {:?}", spec.name);
    if let Provider::TensorRt { ordinal } = options.provider {
        let plans = Plans::open(source, ordinal).map_err(|error| error.within(&place))?;
        return assemble(spec, Some(plans.device()), |name, graph| {
            plans.engine(name, graph).map_err(|error| error.within(&place))
        });
    }
    let backend = Backend::new(options).map_err(|error| error.within(&place))?;
    assemble(spec, backend.device(), |name, graph| {
        let bytes = source.graph(graph)?;
        backend.engine(name, &bytes, graph).map_err(|error| error.within(&place))
    })
}

/// A model of the engines that `load` makes.
fn assemble(
    spec: ModelSpec,
    device: Option<Arc<dyn DeviceOps>>,
    load: impl Fn(GraphName, &GraphSpec) -> Result<Box<dyn Engine>, EngineError>,
) -> Result<Model, EngineError> {
    let need = |name: GraphName| match spec.graphs.get(&name) {
        Some(graph) => load(name, graph),
        None => Err(EngineError::new(Kind::Interface, "graphs", name, "no such graph")
            .within(format_args!("model {:?}", spec.name))),
    };
    Ok(Model {
        image_encoder: need(GraphName::ImageEncoder)?,
        memory_attention: need(GraphName::MemoryAttention)?,
        decoder_track: need(GraphName::DecoderTrack)?,
        decoder_prompt: need(GraphName::DecoderPrompt)?,
        memory_encoder: need(GraphName::MemoryEncoder)?,
        mask_downsample: spec
            .graphs
            .get(&GraphName::MaskDownsample)
            .map(|graph| load(GraphName::MaskDownsample, graph))
            .transpose()?,
        device,
        spec,
    })
}

#[cfg(feature = "ort")]
struct Backend {
    runtime: &'static sightline_engine_ort::OrtRuntime,
    options: sightline_engine_ort::OrtOptions,
    #[cfg(feature = "cuda")]
    device: Option<Arc<sightline_engine_cuda::CudaDevice>>,
}

#[cfg(feature = "ort")]
impl Backend {
    fn new(options: &LoadOptions) -> Result<Self, EngineError> {
        use sightline_engine_ort::{OrtOptions, OrtProvider, OrtRuntime, locate_for};
        let provider = match options.provider {
            Provider::Auto | Provider::OnnxRuntimeCpu => OrtProvider::Cpu,
            Provider::OnnxRuntimeCuda { ordinal } => OrtProvider::Cuda { ordinal },
            Provider::OnnxRuntimeTensorRt { ordinal } => OrtProvider::TensorRt { ordinal },
            // `from_source` has turned to TensorRT before it came here.
            other @ Provider::TensorRt { .. } => {
                return Err(EngineError::new(
                    Kind::Unavailable,
                    "ONNX Runtime",
                    "a provider of its own",
                    other,
                ));
            }
        };
        let path = match &options.onnxruntime {
            Some(path) => path.clone(),
            None => locate_for(provider)?,
        };
        let (threads, spinning) = (options.threads(), options.spinning);
        let runtime = OrtRuntime::load(&path)?;
        runtime.require(provider)?;
        Ok(Self {
            runtime,
            options: OrtOptions { provider, threads, spinning, gpu: gpu_options(&options.gpu) },
            #[cfg(feature = "cuda")]
            device: match provider.device() {
                Device::Cuda { ordinal } => Some(crate::gpu::device(ordinal)?),
                Device::Cpu => None,
            },
        })
    }

    /// Whose memory the engines share.
    fn device(&self) -> Option<Arc<dyn DeviceOps>> {
        #[cfg(feature = "cuda")]
        return self.device.clone().map(|device| device as Arc<dyn DeviceOps>);
        #[cfg(not(feature = "cuda"))]
        None
    }

    fn options(&self, name: GraphName) -> Result<sightline_engine_ort::OrtOptions, EngineError> {
        let options = self.options.clone();
        #[cfg(feature = "cuda")]
        if let Some(device) = &self.device {
            let stream = if name == GraphName::ImageEncoder { Stream::ENCODE } else { Stream::TRACK };
            let orders = sightline_engine_cuda::onnxruntime::Orders::new(device.clone(), stream)?;
            let gpu = sightline_engine_ort::GpuOptions { orders: Some(orders), ..options.gpu };
            return Ok(sightline_engine_ort::OrtOptions { gpu, ..options });
        }
        let _ = name;
        Ok(options)
    }

    fn engine(
        &self,
        name: GraphName,
        bytes: &[u8],
        graph: &GraphSpec,
    ) -> Result<Box<dyn Engine>, EngineError> {
        let engine = sightline_engine_ort::OrtEngine::from_bytes(
            self.runtime,
            name.as_str(),
            bytes,
            Some(&graph.io),
            &self.options(name)?,
        )?;
        Ok(Box::new(engine))
    }
}

#[cfg(feature = "ort")]
fn gpu_options(load: &GpuLoad) -> sightline_engine_ort::GpuOptions {
    let GpuLoad { tf32, cuda_graphs, engine_cache, extra } = load.clone();
    let mut options = sightline_engine_ort::GpuOptions::default();
    (options.tf32, options.cuda_graphs) = (tf32, cuda_graphs);
    options.engine_cache = engine_cache.or_else(|| Some(files::data_home()?.join("sightline/tensorrt")));
    options.extra = extra;
    options
}

#[cfg(not(feature = "ort"))]
struct Backend;

#[cfg(not(feature = "ort"))]
impl Backend {
    fn new(options: &LoadOptions) -> Result<Self, EngineError> {
        Err(EngineError::new(
            Kind::Unavailable,
            format_args!("provider {}", options.provider),
            "a build with the feature `ort`",
            "one without",
        ))
    }

    fn device(&self) -> Option<Arc<dyn DeviceOps>> {
        None
    }

    fn engine(
        &self,
        name: GraphName,
        _bytes: &[u8],
        _graph: &GraphSpec,
    ) -> Result<Box<dyn Engine>, EngineError> {
        Err(EngineError::new(Kind::Unavailable, name, "a backend", "none built in"))
    }
}
