use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use sightline_core::{DType, Filter, ImageSpec, TensorView, TensorViewMut};
use sightline_engine_api::{
    Dim, Engine, EngineError, FeatureSpec, GraphIo, GraphName, GraphSpec, Kind, MaskSpec, MemorySpec, Model,
    ModelSpec, PointerSpec, Port, PromptSpec, TensorMut, TensorRef,
};

use crate::{
    FakeHandle, Fault, FnEngine,
    arithmetic::{self, CELL_PX, CELLS, FEATURES, LOW, MEMORY, NO_OBJ_PTR, POINTER, Remembered},
};

/// Rows and columns of the picture that the fake model takes.
pub const SIDE_PX: usize = LOW * CELL_PX;

/// Which family the fake model resembles, and how it misbehaves. The default resembles SAM2: pointers, a mask
/// decoder, `pix_feat` on conditioning frames, six recent slots and one conditioning slot.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// Object pointers, with 15 recent slots.
    pub pointers: bool,
    /// `decoder_track` takes `prev_low_res_mask` and looks near it only.
    pub prev_mask: bool,
    /// `decoder_prompt` takes `pix_feat`; otherwise the top level.
    pub prompt_pix_feat: bool,
    /// Mask prompts run through `mask_downsample` and `decoder_prompt`.
    pub mask_decoder: bool,
    /// Memory slots for tracked frames, at least 1.
    pub recent: usize,
    /// Memory slots for conditioning frames, at least 1.
    pub max_cond: usize,
    /// Frames between recent slots, at least 1.
    pub stride: usize,
    /// The gate on what is remembered.
    pub min_object_score: Option<f32>,
    /// Whether stored memories are rounded to bfloat16.
    pub round_to_bf16: bool,
    /// Memory attention, track decoder and memory encoder take several objects at once, on one picture or each on its
    /// own.
    pub batches: bool,
    /// Added to every run of every graph, by sleeping.
    pub delay: Duration,
    /// Runs that fail.
    pub faults: Vec<Fault>,
    /// A hand on the engines; keep a clone.
    pub handle: FakeHandle,
}

impl Default for FakeOptions {
    fn default() -> Self {
        Self {
            pointers: true,
            prev_mask: false,
            prompt_pix_feat: true,
            mask_decoder: true,
            recent: 6,
            max_cond: 1,
            stride: 1,
            min_object_score: None,
            round_to_bf16: false,
            batches: false,
            delay: Duration::ZERO,
            faults: Vec::new(),
            handle: FakeHandle::new(),
        }
    }
}

/// A model that follows a colour: a 64x64 picture, 16x16 masks. What is prompted is the region of one colour in the
/// box or around the click; what is remembered is its mean colour; what is found again is every cell of that
/// colour, and nothing is present when there is none.
///
/// # Panics
/// When `recent`, `max_cond` or `stride` is 0.
pub fn model(options: FakeOptions) -> Model {
    assert!(
        options.recent > 0 && options.max_cond > 0 && options.stride > 0,
        "fake model: expected recent, max_cond and stride of at least 1, got {options:?}"
    );
    if !options.delay.is_zero() {
        GraphName::ALL.into_iter().for_each(|graph| options.handle.delay(graph, options.delay));
    }
    options.faults.iter().for_each(|fault| options.handle.fail(*fault));
    let spec = spec(&options);
    let engine = |graph| engine(graph, &spec, &options.handle);
    Model {
        image_encoder: engine(GraphName::ImageEncoder),
        memory_attention: engine(GraphName::MemoryAttention),
        decoder_track: engine(GraphName::DecoderTrack),
        decoder_prompt: engine(GraphName::DecoderPrompt),
        memory_encoder: engine(GraphName::MemoryEncoder),
        mask_downsample: options.mask_decoder.then(|| engine(GraphName::MaskDownsample)),
        device: None,
        spec,
    }
}

fn f32(name: &str, dims: &[usize]) -> Port {
    Port { name: name.to_owned(), dtype: DType::F32, dims: dims.iter().copied().map(Dim::Fixed).collect() }
}

fn i64(name: &str, len: usize) -> Port {
    Port { name: name.to_owned(), dtype: DType::I64, dims: vec![Dim::Fixed(len)] }
}

fn spec(options: &FakeOptions) -> ModelSpec {
    let slots = options.max_cond + options.recent;
    let pointers = options.pointers.then_some(PointerSpec { channels: POINTER, recent: 15 });
    let pointer_slots = options.max_cond + 15;
    let low_res = |name: &str| f32(name, &[1, 1, LOW, LOW]);
    let top = || f32("feat_top", &[1, FEATURES, LOW, LOW]);
    let pix_feat = || f32("pix_feat", &[1, FEATURES, LOW, LOW]);
    let decoded = || {
        let mut ports = vec![low_res("low_res_mask"), f32("iou", &[1, 1]), f32("object_score", &[1, 1])];
        ports.extend(options.pointers.then(|| f32("obj_ptr", &[1, POINTER])));
        ports
    };
    let points = |name: &str, last: &[Dim]| Port {
        name: name.to_owned(),
        dtype: DType::F32,
        dims: [&[Dim::Fixed(1), Dim::Dynamic], last].concat(),
    };

    let mut attention = vec![
        top(),
        f32("mem", &[1, slots, CELLS, MEMORY]),
        i64("tpos_idx", slots),
        f32("mem_mask", &[slots]),
    ];
    if options.pointers {
        attention.extend([
            f32("obj_ptrs", &[1, pointer_slots, POINTER]),
            f32("ptr_tdiff", &[pointer_slots]),
            f32("ptr_mask", &[pointer_slots]),
        ]);
    }
    let mut track = vec![pix_feat()];
    track.extend(options.prev_mask.then(|| low_res("prev_low_res_mask")));
    let prompt = vec![
        if options.prompt_pix_feat { pix_feat() } else { top() },
        points("point_coords", &[Dim::Fixed(2)]),
        points("point_labels", &[]),
        low_res("mask_input"),
        f32("has_mask_input", &[1]),
        i64("multimask", 1),
    ];
    let remember = vec![top(), low_res("low_res_mask"), f32("object_score", &[1, 1]), f32("binarize", &[1])];

    let mut graphs = BTreeMap::new();
    let mut add = |name: GraphName, inputs: Vec<Port>, outputs: Vec<Port>| {
        let mut io = GraphIo { inputs, outputs };
        if options.batches && BATCHED.contains(&name) {
            io.inputs.iter_mut().chain(&mut io.outputs).for_each(open);
        }
        graphs.insert(name, GraphSpec { file: PathBuf::new(), sha256: String::new(), io });
    };
    add(GraphName::ImageEncoder, vec![f32("image", &[1, 3, SIDE_PX, SIDE_PX])], vec![top()]);
    add(GraphName::MemoryAttention, attention, vec![pix_feat()]);
    add(GraphName::DecoderTrack, track, decoded());
    add(GraphName::DecoderPrompt, prompt, decoded());
    add(GraphName::MemoryEncoder, remember, vec![f32("mem", &[1, CELLS, MEMORY])]);
    if options.mask_decoder {
        let mask = f32("mask", &[1, 1, SIDE_PX, SIDE_PX]);
        add(GraphName::MaskDownsample, vec![mask], vec![low_res("mask_prompt")]);
    }

    ModelSpec {
        name: "fake".to_owned(),
        family: "fake".to_owned(),
        licence: "MIT OR Apache-2.0".to_owned(),
        image: ImageSpec {
            height_px: SIDE_PX,
            width_px: SIDE_PX,
            mean: [0.5; 3],
            std: [0.5; 3],
            filter: Filter::Bilinear,
        },
        features: FeatureSpec { top: "feat_top".to_owned() },
        masks: MaskSpec { height_px: LOW, width_px: LOW },
        memory: MemorySpec {
            tokens: CELLS,
            channels: MEMORY,
            recent: options.recent,
            max_cond: options.max_cond,
            stride: options.stride,
            round_to_bf16: options.round_to_bf16,
            min_object_score: options.min_object_score,
        },
        pointers,
        prompts: PromptSpec {
            points: true,
            boxes: true,
            masks: true,
            mask_decoder: options.mask_decoder,
            pad_point: true,
            multimask_max_points: 1,
        },
        view: None,
        no_mem_embed: if options.prompt_pix_feat { vec![0.0, 0.0, 0.0, -1.0] } else { Vec::new() },
        no_obj_ptr: if options.pointers { NO_OBJ_PTR.to_vec() } else { Vec::new() },
        graphs,
    }
}

/// The graphs that may take several objects at once.
const BATCHED: [GraphName; 3] =
    [GraphName::MemoryAttention, GraphName::DecoderTrack, GraphName::MemoryEncoder];

/// Opens a port's leading size, which what is said of slots has only then.
fn open(port: &mut Port) {
    if matches!(port.name.as_str(), "tpos_idx" | "mem_mask" | "ptr_tdiff" | "ptr_mask") {
        port.dims.insert(0, Dim::Fixed(1));
    }
    port.dims[0] = Dim::Dynamic;
}

fn engine(graph: GraphName, spec: &ModelSpec, handle: &FakeHandle) -> Box<dyn Engine> {
    let io = spec.graphs.get(&graph).map(|graph| graph.io.clone()).unwrap_or_default();
    let (ports, handle) = (io.clone(), handle.clone());
    let pointers = spec.pointers.is_some();
    Box::new(FnEngine::new(graph.as_str(), io, move |inputs, outputs| {
        let begun = handle.begin(graph, &ports, inputs);
        let result = begun.and_then(|()| {
            one_by_one(&ports, inputs, outputs, |inputs, outputs| run(graph, &inputs, outputs, pointers))
        });
        handle.end(graph);
        result
    }))
}

/// Runs for each object of a batch, on its own picture or on the one there is.
fn one_by_one(
    io: &GraphIo,
    inputs: &[TensorRef<'_>],
    outputs: &mut [TensorMut<'_>],
    mut run: impl FnMut(Inputs<'_>, Outputs<'_, '_>) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    if !io.batches_pictures() {
        return run(Inputs { io, tensors: inputs }, Outputs { io, tensors: outputs });
    }
    let objects = outputs.first().map_or(1, |output| output.shape().dims()[0]);
    for object in 0..objects {
        let inputs: Vec<TensorRef<'_>> = inputs
            .iter()
            .map(|input| match input {
                TensorRef::Host(TensorView::F32(shape, data)) => {
                    let leading = shape.dims()[0];
                    if leading != objects && leading != 1 {
                        let expected = format!("a leading size of 1 or {objects}");
                        return Err(EngineError::new(Kind::Interface, "fake batch", expected, leading));
                    }
                    let size = data.len() / leading;
                    let at = if leading == 1 { 0 } else { object * size };
                    Ok(TensorView::f32(&[size], &data[at..at + size])?.into())
                }
                other => Ok(other.clone()),
            })
            .collect::<Result<_, EngineError>>()?;
        let mut outputs: Vec<TensorMut<'_>> = outputs
            .iter_mut()
            .map(|output| match output {
                TensorMut::Host(TensorViewMut::F32(_, data)) => {
                    let size = data.len() / objects;
                    let part = &mut data[object * size..(object + 1) * size];
                    Ok(TensorViewMut::f32(&[size], part)?.into())
                }
                _ => Err(not_on_host("output")),
            })
            .collect::<Result<_, EngineError>>()?;
        run(Inputs { io, tensors: &inputs }, Outputs { io, tensors: &mut outputs })?;
    }
    Ok(())
}

fn run(
    graph: GraphName,
    inputs: &Inputs<'_>,
    mut outputs: Outputs<'_, '_>,
    pointers: bool,
) -> Result<(), EngineError> {
    match graph {
        GraphName::ImageEncoder => arithmetic::encode(inputs.f32("image")?, outputs.f32("feat_top")?),
        GraphName::MemoryAttention => {
            let mut remembered = Remembered::default();
            let slots = inputs.f32("mem")?.chunks_exact(CELLS * MEMORY).zip(inputs.f32("mem_mask")?);
            slots.filter(|(_, used)| **used > 0.5).for_each(|(slot, _)| remembered.add_memory(slot));
            if pointers {
                let slots = inputs.f32("obj_ptrs")?.chunks_exact(POINTER).zip(inputs.f32("ptr_mask")?);
                slots
                    .filter(|(pointer, used)| **used > 0.5 && pointer[3] > 0.5)
                    .for_each(|(pointer, _)| remembered.add(pointer, 1.0));
            }
            arithmetic::attend(inputs.f32("feat_top")?, &remembered, outputs.f32("pix_feat")?);
        }
        GraphName::DecoderTrack => {
            let features = inputs.f32("pix_feat")?;
            let logits = outputs.f32("low_res_mask")?;
            logits.copy_from_slice(&features[3 * CELLS..]);
            if inputs.has("prev_low_res_mask") {
                arithmetic::stay_near(inputs.f32("prev_low_res_mask")?, logits);
            }
            outputs.conclude(features, pointers)?;
        }
        GraphName::DecoderPrompt => {
            let features = inputs.f32(if inputs.has("pix_feat") { "pix_feat" } else { "feat_top" })?;
            let mask =
                (inputs.f32("has_mask_input")?[0] > 0.5).then(|| inputs.f32("mask_input")).transpose()?;
            let points: Vec<_> = inputs
                .f32("point_coords")?
                .chunks_exact(2)
                .zip(inputs.f32("point_labels")?)
                .map(|(at, label)| (at[0], at[1], label.round() as i32))
                .collect();
            arithmetic::prompted(features, mask, &points, outputs.f32("low_res_mask")?);
            outputs.conclude(features, pointers)?;
        }
        GraphName::MemoryEncoder => arithmetic::remember(
            inputs.f32("feat_top")?,
            inputs.f32("low_res_mask")?,
            inputs.f32("object_score")?[0],
            outputs.f32("mem")?,
        ),
        GraphName::MaskDownsample => arithmetic::downsample(inputs.f32("mask")?, outputs.f32("mask_prompt")?),
    }
    Ok(())
}

struct Inputs<'a> {
    io: &'a GraphIo,
    tensors: &'a [TensorRef<'a>],
}

impl<'a> Inputs<'a> {
    fn has(&self, name: &str) -> bool {
        self.io.input(name).is_some()
    }

    fn f32(&self, name: &str) -> Result<&'a [f32], EngineError> {
        match self.io.input(name).and_then(|at| self.tensors.get(at)) {
            Some(TensorRef::Host(TensorView::F32(_, data))) => Ok(data),
            _ => Err(not_on_host(name)),
        }
    }
}

struct Outputs<'a, 'b> {
    io: &'a GraphIo,
    tensors: &'a mut [TensorMut<'b>],
}

impl Outputs<'_, '_> {
    fn f32(&mut self, name: &str) -> Result<&mut [f32], EngineError> {
        match self.io.output(name).and_then(|at| self.tensors.get_mut(at)) {
            Some(TensorMut::Host(TensorViewMut::F32(_, data))) => Ok(data),
            _ => Err(not_on_host(name)),
        }
    }

    /// The decoder's other outputs, which follow from the mask.
    fn conclude(&mut self, features: &[f32], pointers: bool) -> Result<(), EngineError> {
        let object = arithmetic::colour_under(features, self.f32("low_res_mask")?);
        self.f32("object_score")?[0] = if object.is_some() { 5.0 } else { -5.0 };
        self.f32("iou")?[0] = if object.is_some() { 0.9 } else { 0.1 };
        if pointers {
            let pointer = object.map_or(NO_OBJ_PTR, |[r, g, b]| [r, g, b, 1.0]);
            self.f32("obj_ptr")?.copy_from_slice(&pointer);
        }
        Ok(())
    }
}

fn not_on_host(name: &str) -> EngineError {
    EngineError::new(
        Kind::Interface,
        format_args!("fake tensor {name:?}"),
        "f32 host memory",
        "something else",
    )
}
