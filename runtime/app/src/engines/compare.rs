//! A plan, run by `trtexec`, against its graph, run by ONNX Runtime on the processor: the same numbers into both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{Dim, Engine, GraphName, Model, Port, TensorMut, TensorRef};
use sightline_engine_registry::{LoadOptions, Provider, load, plan::Sidecar};

use super::{
    Subject,
    process::{Interrupt, run as run_tool},
    trtexec::{Seen, Trtexec},
};

/// The output that differs most.
#[derive(Debug)]
pub(super) struct Far {
    pub(super) output: String,
    /// Root mean square of the difference, over that of the output or over 1 for what is near zero.
    pub(super) share: f64,
}

/// What comparing the plans of a model needs; the model is loaded when the first is compared.
pub(super) struct Comparison<'a> {
    name_or_dir: &'a str,
    subject: &'a Subject,
    tool: &'a Trtexec,
    scratch: &'a Path,
    model: Option<Model>,
}

/// An output as `trtexec --exportOutput` writes it.
#[derive(Deserialize)]
struct Exported {
    name: String,
    values: Vec<f32>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        name_or_dir: &'a str,
        subject: &'a Subject,
        tool: &'a Trtexec,
        scratch: &'a Path,
    ) -> Self {
        Self { name_or_dir, subject, tool, scratch, model: None }
    }

    /// Runs both at the sizes that the plan is fastest for.
    pub(super) fn run(&mut self, plan: &Path, sidecar: &Sidecar, interrupt: &Interrupt) -> Result<Far> {
        let component = &sidecar.key.component;
        let graph = GraphName::ALL.into_iter().find(|graph| graph.as_str() == component);
        let spec = graph.and_then(|graph| self.subject.spec.graphs.get(&graph));
        let (Some(graph), Some(spec)) = (graph, spec) else {
            bail!("graph: expected one of the model's, got {component:?}");
        };
        let inputs: Vec<Given> =
            spec.io.inputs.iter().map(|port| Given::new(port, sidecar)).collect::<Result<_>>()?;
        // Of pictures there are as many, or one.
        let leading = sidecar.key.profiles.first().into_iter().flat_map(|profile| profile.values());
        let objects = leading.filter_map(|range| range.opt.first().copied()).max().unwrap_or(1);
        let mut outputs: Vec<Wanted> =
            spec.io.outputs.iter().map(|port| Wanted::new(port, objects)).collect();
        self.by_plan(plan, &inputs, interrupt).and_then(|exported| {
            let engine = engine(self.model()?, graph)?;
            by_graph(engine, &inputs, &mut outputs)?;
            farthest(&outputs, &exported)
        })
    }

    fn model(&mut self) -> Result<&mut Model> {
        if self.model.is_none() {
            let options = LoadOptions { provider: Provider::OnnxRuntimeCpu, ..LoadOptions::default() };
            self.model = Some(load(self.name_or_dir, &options)?);
        }
        self.model.as_mut().context("the model was loaded")
    }

    fn by_plan(&self, plan: &Path, inputs: &[Given], interrupt: &Interrupt) -> Result<Vec<Exported>> {
        let mut files = Vec::new();
        for input in inputs {
            let path = self.scratch.join(format!("{}.bin", input.name));
            fs::write(&path, input.bytes()).with_context(|| format!("cannot write {path:?}"))?;
            files.push((input.name.as_str(), input.is_open.then_some(&input.dims[..]), path));
        }
        let output: PathBuf = self.scratch.join("outputs.json");
        let _ = fs::remove_file(&output);
        let mut seen = Seen::default();
        let command = self.tool.run_once(plan, &files, &output);
        let status = run_tool(command, interrupt, |line| seen.read(line))?;
        if !status.success() {
            bail!("expected trtexec to run it, got {status}: {}", seen.reason());
        }
        let text = fs::read(&output).with_context(|| format!("trtexec's outputs {output:?}"))?;
        // Also for numbers that are none, which JSON has no word for.
        serde_json::from_slice(&text).context("outputs: expected trtexec's list of numbers")
    }
}

fn engine(model: &mut Model, graph: GraphName) -> Result<&mut dyn Engine> {
    Ok(match graph {
        GraphName::ImageEncoder => model.image_encoder.as_mut(),
        GraphName::MemoryAttention => model.memory_attention.as_mut(),
        GraphName::DecoderTrack => model.decoder_track.as_mut(),
        GraphName::DecoderPrompt => model.decoder_prompt.as_mut(),
        GraphName::MemoryEncoder => model.memory_encoder.as_mut(),
        GraphName::MaskDownsample => {
            model.mask_downsample.as_mut().context("the model has no such graph")?.as_mut()
        }
    })
}

fn by_graph(engine: &mut dyn Engine, inputs: &[Given], outputs: &mut [Wanted]) -> Result<()> {
    let given: Vec<TensorRef<'_>> = inputs.iter().map(Given::view).collect::<Result<_>>()?;
    let mut made: Vec<TensorMut<'_>> = outputs.iter_mut().map(Wanted::view).collect::<Result<_>>()?;
    Ok(engine.run(&given, &mut made)?)
}

fn farthest(wanted: &[Wanted], got: &[Exported]) -> Result<Far> {
    let mut worst = Far { output: String::new(), share: -1.0 };
    for output in wanted {
        let Some(found) = got.iter().find(|found| found.name == output.name) else {
            bail!("output {:?}: expected it, got none", output.name);
        };
        if found.values.len() != output.values.len() {
            bail!(
                "output {:?}: expected {} numbers, got {}",
                output.name,
                output.values.len(),
                found.values.len()
            );
        }
        let share = share(&output.values, &found.values);
        // A NaN is as far as can be.
        if !share.is_finite() {
            bail!("output {:?}: expected finite numbers, got others", output.name);
        }
        if share > worst.share {
            worst = Far { output: output.name.clone(), share };
        }
    }
    Ok(worst)
}

fn share(wanted: &[f32], got: &[f32]) -> f64 {
    let mean = |sum: f64| (sum / wanted.len().max(1) as f64).sqrt();
    let size = mean(wanted.iter().map(|value| f64::from(*value).powi(2)).sum());
    let off = mean(wanted.iter().zip(got).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum());
    off / size.max(1.0)
}

/// An input, filled.
struct Given {
    name: String,
    dims: Vec<usize>,
    is_open: bool,
    values: Numbers,
}

enum Numbers {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl Given {
    /// Features are noise of unit variance; what is said in numbers is such as the tracker says.
    fn new(port: &Port, sidecar: &Sidecar) -> Result<Self> {
        let range = sidecar.key.profiles.first().and_then(|profile| profile.get(&port.name));
        let dims = match range {
            Some(range) => range.opt.clone(),
            None => port.fixed_shape().with_context(|| {
                format!("input {:?}: expected its sizes in the plan's profile, got none", port.name)
            })?,
        };
        let count: usize = dims.iter().product();
        let last = dims.get(1).copied().unwrap_or(1).saturating_sub(1);
        let mut noise = Noise::new(&port.name);
        let values = match (port.dtype, port.name.as_str()) {
            (DType::I64, "tpos_idx") => Numbers::I64((0..count as i64).map(|slot| slot % 7).collect()),
            (DType::I64, _) => Numbers::I64(vec![1; count]),
            (DType::F32, name) => Numbers::F32(match name {
                "mem_mask" | "ptr_mask" | "has_mask_input" | "binarize" => vec![1.0; count],
                "ptr_tdiff" => (0..count).map(|slot| 1.0 + slot as f32).collect(),
                "object_score" => vec![3.0; count],
                "point_coords" => (0..count).map(|_| 64.0 * (noise.next() + 1.8)).collect(),
                "point_labels" => {
                    (0..count).map(|at| if at == last { -1.0 } else { 2.0 + at as f32 % 2.0 }).collect()
                }
                "mask" => (0..count).map(|_| f32::from(u8::from(noise.next() > 0.0))).collect(),
                _ => (0..count).map(|_| noise.next()).collect(),
            }),
            (other, _) => bail!("input {:?}: expected f32 or i64, got {other}", port.name),
        };
        Ok(Self { name: port.name.clone(), dims, is_open: range.is_some(), values })
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.values {
            Numbers::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Numbers::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    fn view(&self) -> Result<TensorRef<'_>> {
        Ok(match &self.values {
            Numbers::F32(values) => TensorView::f32(&self.dims, values)?.into(),
            Numbers::I64(values) => TensorView::i64(&self.dims, values)?.into(),
        })
    }
}

/// An output, to be filled.
struct Wanted {
    name: String,
    dims: Vec<usize>,
    values: Vec<f32>,
}

impl Wanted {
    /// All outputs of the contract are f32, and what they leave open is the number of objects.
    fn new(port: &Port, objects: usize) -> Self {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic => objects,
        };
        let dims: Vec<usize> = port.dims.iter().map(size).collect();
        Self { name: port.name.clone(), values: vec![0.0; dims.iter().product()], dims }
    }

    fn view(&mut self) -> Result<TensorMut<'_>> {
        Ok(TensorMut::Host(TensorViewMut::F32(Shape::new(&self.dims)?, &mut self.values)))
    }
}

/// Uniform numbers of variance 1, the same for one name every time (xorshift64*).
struct Noise(u64);

impl Noise {
    fn new(name: &str) -> Self {
        // FNV-1a; never 0, which would stay 0.
        Self(
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }) | 1,
        )
    }

    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let unit = (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1u32 << 24) as f32;
        (unit - 0.5) * 12.0_f32.sqrt()
    }
}
