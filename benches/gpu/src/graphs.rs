//! Each graph of a model on the same noise: by the provider on host tensors, on the device's own where there is one, and
//! by ONNX Runtime on the processor, whose results the others are held against.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;
use sightline_core::Shape;
use sightline_engine_api::{DeviceOps, DeviceTensor, Dim, Engine, Model, Port, Stream, TensorMut, TensorRef};
use sightline_engine_registry::{
    Provider, load,
    trial::{Difference, Values},
};

use crate::{load::ModelArgs, spread::Spread};

/// Stands for the number of points, or another size that a prompt chooses.
const POINTS: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct GraphsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Objects, where a graph takes several
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    objects: u16,
    /// Runs of each that are timed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
}

#[derive(Debug, Serialize)]
pub(crate) struct Graphs {
    provider: String,
    objects: u16,
    graphs: Vec<Compared>,
}

#[derive(Debug, Serialize)]
struct Compared {
    graph: &'static str,
    outputs: Vec<Output>,
    /// Largest difference between results left on the device and those given to the host, which come of the same
    /// kernels; none where the provider has no device.
    device_max_abs: Option<f64>,
    /// On host tensors, copies included.
    host_ms: Option<Spread>,
    /// On the device's own, until it is done.
    device_ms: Option<Spread>,
}

#[derive(Debug, Serialize)]
struct Output {
    output: String,
    max_abs: f64,
    /// Of what the processor gave.
    largest: f64,
    /// Root mean square of the difference, over that of what the processor gave or over 1.
    share: f64,
    finite: bool,
}

pub(crate) fn run(args: &GraphsArgs) -> Result<Graphs> {
    let mut model = args.model.load()?;
    let mut judge = load(&args.model.model, &args.model.options(Provider::OnnxRuntimeCpu))?;
    let (device, provider) = (model.device.clone(), model.image_encoder.provider().to_owned());
    let slots = model.spec.memory.slots();
    let mut graphs = Vec::new();
    for (graph, engine, judge) in pairs(&mut model, &mut judge) {
        let sizes = Sizes { objects: usize::from(args.objects), slots };
        let done = compare(graph, engine, judge, device.as_ref(), sizes, args.runs);
        graphs.push(done.with_context(|| format!("graph {graph}"))?);
    }
    Ok(Graphs { provider, objects: args.objects, graphs })
}

type Pair<'a> = (&'static str, &'a mut dyn Engine, &'a mut dyn Engine);

fn pairs<'a>(ours: &'a mut Model, judge: &'a mut Model) -> Vec<Pair<'a>> {
    let mut pairs: Vec<Pair<'a>> = vec![
        ("image_encoder", &mut *ours.image_encoder, &mut *judge.image_encoder),
        ("memory_attention", &mut *ours.memory_attention, &mut *judge.memory_attention),
        ("decoder_track", &mut *ours.decoder_track, &mut *judge.decoder_track),
        ("decoder_prompt", &mut *ours.decoder_prompt, &mut *judge.decoder_prompt),
        ("memory_encoder", &mut *ours.memory_encoder, &mut *judge.memory_encoder),
    ];
    if let (Some(ours), Some(judge)) = (&mut ours.mask_downsample, &mut judge.mask_downsample) {
        pairs.push(("mask_downsample", &mut **ours, &mut **judge));
    }
    pairs
}

/// What open sizes are here.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    objects: usize,
    slots: usize,
}

impl Sizes {
    fn of(self, port: &Port) -> Result<Shape> {
        let slotted = ["mem", "tpos_idx", "mem_mask"].contains(&port.name.as_str());
        let pointed = ["point_coords", "point_labels"].contains(&port.name.as_str());
        let open = |axis: usize| match axis {
            0 if !(slotted && port.dims.len() == 1) => self.objects,
            _ if slotted => self.slots,
            _ if pointed => POINTS,
            _ => self.objects,
        };
        let dims: Vec<usize> = port
            .dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Dim::Fixed(size) => *size,
                Dim::Dynamic => open(axis),
            })
            .collect();
        Ok(Shape::new(&dims)?)
    }
}

fn compare(
    graph: &'static str,
    engine: &mut dyn Engine,
    judge: &mut dyn Engine,
    device: Option<&Arc<dyn DeviceOps>>,
    sizes: Sizes,
    runs: u16,
) -> Result<Compared> {
    let io = engine.io().clone();
    let given = |port: &Port| Ok(Values::given(port, sizes.of(port)?)?);
    let inputs: Vec<Values> = io.inputs.iter().map(given).collect::<Result<_>>()?;
    let output = |port: &Port| Ok(Values::unwritten(sizes.of(port)?));
    let outputs = || io.outputs.iter().map(output).collect::<Result<Vec<Values>>>();
    let (mut got, mut expected) = (outputs()?, outputs()?);
    ensure!(judge.io() == &io, "expected the same ports of both");
    on_host(judge, &inputs, &mut expected)?;
    let mut times = Vec::new();
    for _ in 0..=runs {
        let start = Instant::now();
        on_host(engine, &inputs, &mut got)?;
        times.push(start.elapsed());
    }
    let differences = io.outputs.iter().zip(&got).zip(&expected).map(|((port, got), expected)| {
        let Difference { max_abs, largest, share, finite } =
            Difference::between(expected.floats(), got.floats());
        Output { output: port.name.clone(), max_abs, largest, share, finite }
    });
    let outputs_judged = differences.collect();
    let on_device = device.map(|device| on_device(engine, &**device, &inputs, &got, runs)).transpose()?;
    let (device_max_abs, device_ms) =
        on_device.map_or((None, None), |(most, times)| (Some(most), Spread::new(times)));
    // The first run chose kernels.
    let host_ms = Spread::new(times.into_iter().skip(1));
    Ok(Compared { graph, outputs: outputs_judged, device_max_abs, host_ms, device_ms })
}

fn on_host(engine: &mut dyn Engine, inputs: &[Values], outputs: &mut [Values]) -> Result<()> {
    let given: Vec<TensorRef<'_>> = inputs.iter().map(|values| values.view().into()).collect();
    let mut taken: Vec<TensorMut<'_>> = outputs.iter_mut().map(|values| values.view_mut().into()).collect();
    Ok(engine.run(&given, &mut taken)?)
}

/// The largest difference from `host`, and the time of each run but the first.
fn on_device(
    engine: &mut dyn Engine,
    device: &dyn DeviceOps,
    inputs: &[Values],
    host: &[Values],
    runs: u16,
) -> Result<(f64, Vec<Duration>)> {
    let place = |values: &Values| -> Result<DeviceTensor> {
        let (dtype, shape) = (values.dtype(), values.shape());
        let buffer = device.alloc(dtype.size_bytes() * shape.elements())?;
        Ok(DeviceTensor { buffer, offset_bytes: 0, dtype, shape })
    };
    let given: Vec<DeviceTensor> = inputs.iter().map(place).collect::<Result<_>>()?;
    let taken: Vec<DeviceTensor> = host.iter().map(place).collect::<Result<_>>()?;
    for (values, tensor) in inputs.iter().zip(&given) {
        device.upload(Stream::TRACK, values.view(), tensor)?;
    }
    let given: Vec<TensorRef<'_>> = given.into_iter().map(TensorRef::Device).collect();
    let mut times = Vec::new();
    for _ in 0..=runs {
        let mut outputs: Vec<TensorMut<'_>> = taken.iter().cloned().map(TensorMut::Device).collect();
        let start = Instant::now();
        engine.enqueue(0, Stream::TRACK, &given, &mut outputs)?.wait()?;
        times.push(start.elapsed());
    }
    let mut got: Vec<Values> = host.iter().map(|values| Values::unwritten(values.shape())).collect();
    let mut parts: Vec<_> = taken.iter().cloned().zip(got.iter_mut().map(Values::view_mut)).collect();
    device.download(Stream::TRACK, &mut parts)?;
    drop(parts);
    let differences =
        got.iter().zip(host).map(|(got, host)| Difference::between(host.floats(), got.floats()));
    let most = differences
        .map(|difference| if difference.finite { difference.max_abs } else { f64::INFINITY })
        .fold(0.0, f64::max);
    times.remove(0);
    Ok((most, times))
}
