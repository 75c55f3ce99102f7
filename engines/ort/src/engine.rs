use std::{fmt::Write as _, num::NonZeroUsize, path::Path};

use ort::{
    session::{
        RunOptions, Session, SessionInputValue,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{
        DynValue, Outlet, PrimitiveTensorElementType, Shape as OrtShape, TensorElementType,
        TensorRef as OrtTensorRef, ValueType,
    },
};
use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, Dim, Engine, EngineError, Event, GraphIo, Kind, Port, Stream, TensorMut, TensorRef,
    check_bindings,
};

use crate::{GpuOptions, OrtProvider, OrtRuntime, provider};

/// How long an idle worker looks for more work before it sleeps, where spinning is off: from one operator to the
/// next, never from one frame to the next. README.md has the measurement.
const SPIN_US: &str = "10";
/// From this version on it can be limited.
const SPIN_LIMIT_SINCE: (u32, u32) = (1, 27);

/// How a graph is loaded.
#[derive(Debug, Clone)]
pub struct OrtOptions {
    /// What runs it.
    pub provider: OrtProvider,
    /// Threads that share one operator's work, the calling one among them.
    pub threads: NonZeroUsize,
    /// Whether idle worker threads burn their core for a while in the hope of more work. Off by default: the other
    /// elements of the pipeline need those cores, and 10 µs are enough (README.md has the measurements).
    pub spinning: bool,
    /// What a GPU's providers look at.
    pub gpu: GpuOptions,
}

impl Default for OrtOptions {
    fn default() -> Self {
        let provider = OrtProvider::Cpu;
        Self { provider, threads: NonZeroUsize::MIN, spinning: false, gpu: GpuOptions::default() }
    }
}

/// A graph in ONNX Runtime. Takes and gives host tensors, which ONNX Runtime copies to a GPU and back; with the feature
/// `cuda` also tensors that all lie where it runs, which it reads and writes in place.
pub struct OrtEngine {
    name: String,
    provider: String,
    device: Device,
    /// In the session's order: tensors are given to it as they come.
    io: GraphIo,
    session: Session,
    /// For runs on host tensors of a session that captures: replayed, they would not see what is given to them.
    uncaptured: Option<RunOptions>,
    // Dropped after the session, whose stream its orders keep.
    #[cfg(feature = "cuda")]
    bindings: crate::bound::Bindings,
}

impl std::fmt::Debug for OrtEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, provider, io, .. } = self;
        f.debug_struct("OrtEngine")
            .field("name", name)
            .field("provider", provider)
            .field("io", io)
            .finish_non_exhaustive()
    }
}

impl OrtEngine {
    /// Loads a graph from a file. With `declared`, the graph must have exactly those ports, and sizes that it
    /// leaves open are those declared.
    ///
    /// # Errors
    /// `Kind::Unavailable` for a provider that is not there, `Kind::Model` when the file cannot be loaded,
    /// `Kind::Interface` when its ports are not those declared or not host tensors.
    pub fn from_file(
        runtime: &OrtRuntime,
        name: &str,
        path: &Path,
        declared: Option<&GraphIo>,
        options: &OrtOptions,
    ) -> Result<Self, EngineError> {
        let session = builder(runtime, name, declared, options)?.commit_from_file(path).map_err(|error| {
            EngineError::new(
                Kind::Model,
                format_args!("{name} file {:?}", path.display().to_string()),
                "an ONNX graph this runtime can load",
                error,
            )
        })?;
        Self::new(runtime, name, session, declared, options)
    }

    /// Loads a graph from memory; the bytes are not needed afterwards.
    ///
    /// # Errors
    /// As [`OrtEngine::from_file`].
    pub fn from_bytes(
        runtime: &OrtRuntime,
        name: &str,
        bytes: &[u8],
        declared: Option<&GraphIo>,
        options: &OrtOptions,
    ) -> Result<Self, EngineError> {
        let session =
            builder(runtime, name, declared, options)?.commit_from_memory(bytes).map_err(|error| {
                EngineError::new(Kind::Model, name, "an ONNX graph this runtime can load", error)
            })?;
        Self::new(runtime, name, session, declared, options)
    }

    fn new(
        runtime: &OrtRuntime,
        name: &str,
        session: Session,
        declared: Option<&GraphIo>,
        options: &OrtOptions,
    ) -> Result<Self, EngineError> {
        let found = GraphIo {
            inputs: ports(name, "input", session.inputs())?,
            outputs: ports(name, "output", session.outputs())?,
        };
        let io = match declared {
            None => found,
            Some(declared) => {
                declared.expect_same(name, &found)?;
                GraphIo {
                    inputs: in_order_of(&found.inputs, &declared.inputs),
                    outputs: in_order_of(&found.outputs, &declared.outputs),
                }
            }
        };
        let provider = format!("onnxruntime {}/{}", runtime.version(), options.provider);
        tracing::debug!(graph = name, provider, "graph loaded");
        let captures = provider::captures(options, has_open_sizes(declared));
        Ok(Self {
            name: name.to_owned(),
            provider,
            device: options.provider.device(),
            io,
            session,
            uncaptured: captures.then(never_captured).transpose().map_err(|error| {
                EngineError::new(Kind::Unavailable, format_args!("{name} run options"), "to be taken", error)
            })?,
            #[cfg(feature = "cuda")]
            bindings: crate::bound::Bindings::new(captures, options.gpu.orders.clone()),
        })
    }
}

impl Engine for OrtEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn io(&self) -> &GraphIo {
        &self.io
    }

    fn device(&self) -> Device {
        self.device
    }

    fn provider(&self) -> &str {
        &self.provider
    }

    /// On host tensors the run is over when this returns. There is one context, and a session's work is on one stream,
    /// put in order with the one that is named.
    fn enqueue(
        &mut self,
        context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        if context != 0 {
            return Err(EngineError::new(
                Kind::Interface,
                format_args!("{} context", self.name),
                "0, the only one",
                context,
            ));
        }
        check_bindings(&self.name, &self.io, inputs, outputs)?;
        #[cfg(feature = "cuda")]
        if inputs.iter().any(|input| matches!(input, TensorRef::Device(_)))
            || outputs.iter().any(|output| matches!(output, TensorMut::Device(_)))
        {
            let graph = (self.name.as_str(), &self.io, self.device);
            return self.bindings.run(graph, &mut self.session, stream, inputs, outputs);
        }
        #[cfg(not(feature = "cuda"))]
        let _ = stream;
        self.run_on_host(inputs, outputs)
    }
}

impl OrtEngine {
    fn run_on_host(
        &mut self,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        let Self { name, io, session, uncaptured, .. } = self;
        // Before the run: a run whose result has nowhere to go is not worth its time.
        for (port, output) in io.outputs.iter().zip(outputs.iter()) {
            if matches!(output, TensorMut::Device(_)) {
                return Err(not_on_host(name, "output", port));
            }
        }
        // Borrowed tensors and a plain run, never IoBinding: binding a borrowed tensor deadlocks in ort rc.15,
        // and on the CPU it gains nothing.
        let given: Vec<SessionInputValue<'_>> = io
            .inputs
            .iter()
            .zip(inputs)
            .map(|(port, input)| match input {
                TensorRef::Host(TensorView::F32(shape, data)) => borrow(name, port, *shape, data),
                TensorRef::Host(TensorView::I64(shape, data)) => borrow(name, port, *shape, data),
                TensorRef::Device(_) => Err(not_on_host(name, "input", port)),
            })
            .collect::<Result<_, _>>()?;
        let results = match uncaptured {
            Some(options) => session.run_with_options(given.as_slice(), options),
            None => session.run(given.as_slice()),
        };
        let results =
            results.map_err(|error| EngineError::new(Kind::Run, &*name, "a run without an error", error))?;
        for ((port, output), (_, result)) in io.outputs.iter().zip(outputs).zip(results.iter()) {
            match output {
                TensorMut::Host(TensorViewMut::F32(shape, data)) => copy(name, port, &result, *shape, data)?,
                TensorMut::Host(TensorViewMut::I64(shape, data)) => copy(name, port, &result, *shape, data)?,
                TensorMut::Device(_) => return Err(not_on_host(name, "output", port)),
            }
        }
        Ok(Event::done())
    }
}

fn builder(
    runtime: &OrtRuntime,
    name: &str,
    declared: Option<&GraphIo>,
    options: &OrtOptions,
) -> Result<SessionBuilder, EngineError> {
    let builder = configure(runtime, name, options).map_err(|error| {
        EngineError::new(Kind::Unavailable, format_args!("{name} session options"), "to be taken", error)
    })?;
    provider::register(runtime, name, builder, options, has_open_sizes(declared))
}

fn never_captured() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("gpu_graph_id", "-1")?;
    Ok(options)
}

/// Whether sizes of the graph may differ from run to run; what was not declared may.
fn has_open_sizes(declared: Option<&GraphIo>) -> bool {
    declared.is_none_or(|io| io.inputs.iter().chain(&io.outputs).any(|port| port.fixed_shape().is_none()))
}

fn configure(runtime: &OrtRuntime, name: &str, options: &OrtOptions) -> ort::Result<SessionBuilder> {
    // `session.set_denormal_as_zero` stays off: README.md says why.
    let builder = Session::builder(runtime.environment())?;
    // What does not know the second entry would take the first to mean spinning without an end.
    let builder = if !options.spinning && runtime.is_at_least(SPIN_LIMIT_SINCE) {
        builder
            .with_intra_op_spinning(true)?
            .with_config_entry("session.intra_op.spin_duration_us", SPIN_US)?
    } else {
        builder.with_intra_op_spinning(options.spinning)?
    };
    Ok(builder
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(options.threads.get())?
        .with_inter_threads(1)?
        .with_inter_op_spinning(false)?
        .with_log_id(name)?
        .with_log_level(ort::logging::LogLevel::Warning)?)
}

fn ports(graph: &str, side: &str, outlets: &[Outlet]) -> Result<Vec<Port>, EngineError> {
    outlets.iter().map(|outlet| port(graph, side, outlet)).collect()
}

fn port(graph: &str, side: &str, outlet: &Outlet) -> Result<Port, EngineError> {
    let refuse = |got: &dyn std::fmt::Display| {
        let subject = format!("{graph} {side} {:?}", outlet.name());
        EngineError::new(Kind::Interface, subject, "an f32 or i64 tensor", got)
    };
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(refuse(outlet.dtype()));
    };
    let dtype = match ty {
        TensorElementType::Float32 => DType::F32,
        TensorElementType::Int64 => DType::I64,
        other => return Err(refuse(other)),
    };
    let dims = shape.iter().map(|size| usize::try_from(*size).map_or(Dim::Dynamic, Dim::Fixed)).collect();
    Ok(Port { name: outlet.name().to_owned(), dtype, dims })
}

/// The declared ports in the session's order.
fn in_order_of(found: &[Port], declared: &[Port]) -> Vec<Port> {
    found
        .iter()
        .map(|port| declared.iter().find(|other| other.name == port.name).unwrap_or(port).clone())
        .collect()
}

fn not_on_host(graph: &str, side: &str, port: &Port) -> EngineError {
    let subject = format!("{graph} {side} {:?}", port.name);
    EngineError::new(Kind::Interface, subject, "a host tensor", "a device tensor")
}

fn borrow<'a, T: PrimitiveTensorElementType + Clone + std::fmt::Debug + 'static>(
    graph: &str,
    port: &Port,
    shape: Shape,
    data: &'a [T],
) -> Result<SessionInputValue<'a>, EngineError> {
    let dims: OrtShape = shape.dims().iter().map(|size| *size as i64).collect();
    match OrtTensorRef::from_array_view((dims, data)) {
        Ok(tensor) => Ok(tensor.into()),
        Err(error) => {
            Err(EngineError::new(Kind::Interface, format_args!("{graph} input {:?}", port.name), port, error))
        }
    }
}

fn copy<T: PrimitiveTensorElementType + Copy>(
    graph: &str,
    port: &Port,
    result: &DynValue,
    shape: Shape,
    target: &mut [T],
) -> Result<(), EngineError> {
    let subject = || format!("{graph} output {:?}", port.name);
    let (found, data) = result
        .try_extract_tensor::<T>()
        .map_err(|error| EngineError::new(Kind::Interface, subject(), port, error))?;
    let same = found.len() == shape.dims().len()
        && found.iter().zip(shape.dims()).all(|(a, b)| usize::try_from(*a) == Ok(*b));
    if !same || data.len() != target.len() {
        let mut got = String::from("[");
        for (index, size) in found.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(got, "{comma}{size}");
        }
        got.push(']');
        return Err(EngineError::new(Kind::Interface, subject(), shape, got));
    }
    target.copy_from_slice(data);
    Ok(())
}
