//! A plan, run by `trtexec`, against its graph, run by ONNX Runtime on the processor: the same numbers into both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use sightline_core::Shape;
use sightline_engine_api::{Dim, Engine, GraphName, Model, Port, TensorMut, TensorRef};
use sightline_engine_registry::{
    LoadOptions, Provider, load,
    plan::Sidecar,
    trial::{Difference, Values},
};

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
            spec.io.outputs.iter().map(|port| Wanted::new(port, objects)).collect::<Result<_>>()?;
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
            fs::write(&path, input.values.bytes()).with_context(|| format!("cannot write {path:?}"))?;
            files.push((input.name.as_str(), input.is_open.then_some(input.values.dims()), path));
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
    let given: Vec<TensorRef<'_>> = inputs.iter().map(|input| input.values.view().into()).collect();
    let mut made: Vec<TensorMut<'_>> =
        outputs.iter_mut().map(|output| output.values.view_mut().into()).collect();
    Ok(engine.run(&given, &mut made)?)
}

fn farthest(wanted: &[Wanted], got: &[Exported]) -> Result<Far> {
    let mut worst = Far { output: String::new(), share: -1.0 };
    for output in wanted {
        let Some(found) = got.iter().find(|found| found.name == output.name) else {
            bail!("output {:?}: expected it, got none", output.name);
        };
        let expected = output.values.floats();
        if found.values.len() != expected.len() {
            let got = found.values.len();
            bail!("output {:?}: expected {} numbers, got {got}", output.name, expected.len());
        }
        let Difference { share, finite, .. } = Difference::between(expected, &found.values);
        if !finite {
            bail!("output {:?}: expected finite numbers, got others", output.name);
        }
        if share > worst.share {
            worst = Far { output: output.name.clone(), share };
        }
    }
    Ok(worst)
}

/// An input, filled.
struct Given {
    name: String,
    is_open: bool,
    values: Values,
}

impl Given {
    fn new(port: &Port, sidecar: &Sidecar) -> Result<Self> {
        let range = sidecar.key.profiles.first().and_then(|profile| profile.get(&port.name));
        let dims = match range {
            Some(range) => range.opt.clone(),
            None => port.fixed_shape().with_context(|| {
                format!("input {:?}: expected its sizes in the plan's profile, got none", port.name)
            })?,
        };
        let values = Values::given(port, Shape::new(&dims)?)?;
        Ok(Self { name: port.name.clone(), is_open: range.is_some(), values })
    }
}

/// An output, to be filled.
struct Wanted {
    name: String,
    values: Values,
}

impl Wanted {
    /// All outputs of the contract are f32, and what they leave open is the number of objects.
    fn new(port: &Port, objects: usize) -> Result<Self> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic => objects,
        };
        let dims: Vec<usize> = port.dims.iter().map(size).collect();
        Ok(Self { name: port.name.clone(), values: Values::unwritten(Shape::new(&dims)?) })
    }
}
