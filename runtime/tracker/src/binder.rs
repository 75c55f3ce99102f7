//! Which of our buffers each graph's inputs and outputs are, settled once at load.

use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    DeviceTensor, Dim, Engine, EngineError, GraphIo, GraphName, Kind, Model, ModelSpec, Port, Stream,
    TensorMut, TensorRef,
};

use crate::slab::{Ground, Intake, Slab, shaped};

/// More ports than any graph of the contract has; bounds the arrays a run builds on its stack.
const MAX_PORTS: usize = 16;

/// An input of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Image,
    Feature(usize),
    Mem,
    TposIdx,
    MemMask,
    ObjPtrs,
    PtrTdiff,
    PtrMask,
    PrevMask,
    PixFeat,
    PointCoords,
    PointLabels,
    MaskInput,
    HasMaskInput,
    Multimask,
    LowResMask,
    ObjectScore,
    Binarize,
    Mask,
}

/// What may be given to a graph; a graph takes what it has ports for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Given<'a> {
    pub(crate) features: &'a [Slab],
    /// Memory slots given, for a graph that leaves their number open.
    pub(crate) slots: usize,
    pub(crate) tensors: &'a [(Source, TensorRef<'a>)],
}

impl<'a> Given<'a> {
    fn tensor(&self, source: Source, shape: Shape) -> Result<TensorRef<'a>, EngineError> {
        if let Source::Feature(level) = source {
            return reshaped(&self.features[level].given(0, shape.elements())?, shape);
        }
        match self.tensors.iter().find(|(given, _)| *given == source) {
            // Their number is the prompt's.
            Some((Source::PointCoords | Source::PointLabels, tensor)) => Ok(tensor.clone()),
            Some((_, tensor)) => reshaped(tensor, shape),
            None => Ok(TensorView::f32(shape.dims(), &[])?.into()),
        }
    }
}

/// The same values in another shape.
fn reshaped<'a>(tensor: &TensorRef<'a>, shape: Shape) -> Result<TensorRef<'a>, EngineError> {
    match tensor {
        TensorRef::Host(TensorView::F32(_, data)) => Ok(TensorView::f32(shape.dims(), data)?.into()),
        TensorRef::Host(TensorView::I64(_, data)) => Ok(TensorView::i64(shape.dims(), data)?.into()),
        TensorRef::Device(tensor) => {
            check_elements(tensor, shape)?;
            Ok(TensorRef::Device(shaped(tensor, shape)))
        }
    }
}

fn check_elements(tensor: &DeviceTensor, shape: Shape) -> Result<(), EngineError> {
    if tensor.shape.elements() == shape.elements() {
        return Ok(());
    }
    let got = tensor.shape.elements();
    let expected = format!("{} elements for shape {shape}", shape.elements());
    Err(EngineError::new(Kind::Interface, "tensor data", expected, got))
}

/// A tensor's shape for one object, whether its leading size counts objects, and where the number of memory slots
/// stands that the graph leaves open.
#[derive(Debug, Clone, Copy)]
struct PerObject {
    shape: Shape,
    open: bool,
    slots: Option<usize>,
}

impl PerObject {
    fn given(self, objects: usize, slots: usize) -> Shape {
        let shape = if self.open { self.shape.with(0, objects) } else { self.shape };
        self.slots.map_or(shape, |axis| shape.with(axis, slots))
    }
}

/// An engine whose ports are known.
pub(crate) struct Bound {
    engine: Box<dyn Engine>,
    /// On a device: the stream its runs are given to. `None` on the host, where a run is over when it returns.
    stream: Option<Stream>,
    inputs: Vec<(Source, PerObject)>,
    /// Which of the caller's outputs each port is, in the caller's order.
    outputs: Vec<(usize, PerObject)>,
    /// The number of points, where the graph fixes it.
    fixed_points: Option<usize>,
}

impl Bound {
    /// Runs the graph for `objects` objects. On the host it waits; on a device the run is given to its stream. `outputs`
    /// come in the order in which the binder was told of them.
    pub(crate) fn run(
        &mut self,
        objects: usize,
        given: &Given<'_>,
        outputs: &mut [Option<TensorMut<'_>>],
    ) -> Result<(), EngineError> {
        let nothing = TensorView::f32(&[0], &[])?;
        let mut views: [TensorRef<'_>; MAX_PORTS] = std::array::from_fn(|_| nothing.into());
        for (view, (source, sized)) in views.iter_mut().zip(&self.inputs) {
            *view = given.tensor(*source, sized.given(objects, given.slots))?;
        }
        let empty = Shape::new(&[0])?;
        let mut places: [TensorMut<'_>; MAX_PORTS] =
            std::array::from_fn(|_| TensorViewMut::F32(empty, &mut []).into());
        for (place, (index, sized)) in places.iter_mut().zip(&self.outputs) {
            let shape = sized.given(objects, 0);
            *place = match outputs.get_mut(*index).and_then(Option::take) {
                Some(TensorMut::Host(TensorViewMut::F32(_, data))) => {
                    TensorViewMut::f32(shape.dims(), data)?.into()
                }
                Some(TensorMut::Device(tensor)) => {
                    check_elements(&tensor, shape)?;
                    TensorMut::Device(shaped(&tensor, shape))
                }
                _ => TensorViewMut::f32(shape.dims(), &mut [])?.into(),
            };
        }
        let (inputs, outputs) = (&views[..self.inputs.len()], &mut places[..self.outputs.len()]);
        match self.stream {
            None => self.engine.run(inputs, outputs),
            Some(stream) => self.engine.enqueue(0, stream, inputs, outputs).map(drop),
        }
    }

    /// Runs `image_encoder` on what the intake holds, or on the host on `image`.
    pub(crate) fn encode(
        &mut self,
        intake: &Intake,
        image: Option<&[f32]>,
        features: &mut [Slab],
    ) -> Result<(), EngineError> {
        let mut outputs: [Option<TensorMut<'_>>; MAX_PORTS] = Default::default();
        for (output, level) in outputs.iter_mut().zip(features) {
            let elements = level.len();
            *output = Some(level.place(0, elements)?);
        }
        let image = match image {
            Some(image) if self.stream.is_none() => TensorView::f32(&[image.len()], image)?.into(),
            Some(image) => intake.take(image).and_then(|()| intake.given())?,
            None => intake.given()?,
        };
        let given = Given { tensors: &[(Source::Image, image)], ..Given::default() };
        self.run(1, &given, &mut outputs)?;
        intake.encoded()
    }

    /// Whether the graph takes the memory-conditioned features.
    pub(crate) fn takes_pix_feat(&self) -> bool {
        self.inputs.iter().any(|(source, _)| *source == Source::PixFeat)
    }

    /// Whether the graph takes the previous frame's mask.
    pub(crate) fn takes_prev_mask(&self) -> bool {
        self.inputs.iter().any(|(source, _)| *source == Source::PrevMask)
    }

    /// Whether every tensor that belongs to an object has an open leading size.
    fn is_open(&self) -> bool {
        let mut own = self.inputs.iter().filter(|(source, _)| !matches!(source, Source::Feature(_)));
        own.all(|(_, sized)| sized.open) && self.outputs.iter().all(|(_, sized)| sized.open)
    }

    /// Whether every tensor that has a row a memory slot may have any number of them.
    fn has_open_slots(&self) -> bool {
        let of_slots = |source: &Source| matches!(source, Source::Mem | Source::TposIdx | Source::MemMask);
        let mut slots = self.inputs.iter().filter(|(source, _)| of_slots(source)).peekable();
        slots.peek().is_some() && slots.all(|(_, sized)| sized.slots.is_some())
    }

    /// The number of points the graph takes, if it is fixed.
    pub(crate) fn fixed_points(&self) -> Option<usize> {
        self.fixed_points
    }
}

/// What the graphs' ports must be, from the model's manifest and the shapes of earlier graphs' outputs.
pub(crate) struct Binder<'a> {
    spec: &'a ModelSpec,
    /// Names and shapes of the feature levels, in the encoder's order.
    features: Vec<(String, Shape)>,
    pix_feat: Shape,
    ground: Ground,
}

/// All graphs of a model, bound.
pub(crate) struct BoundModel {
    /// None once it was taken out, to be run elsewhere.
    pub(crate) image_encoder: Option<Bound>,
    pub(crate) memory_attention: Bound,
    pub(crate) decoder_track: Bound,
    pub(crate) decoder_prompt: Bound,
    pub(crate) memory_encoder: Bound,
    pub(crate) mask_downsample: Option<Bound>,
    pub(crate) features: Vec<(String, Shape)>,
    pub(crate) pix_feat: Shape,
    /// Memory attention, track decoder and memory encoder take several objects at once.
    pub(crate) batches: bool,
    /// Memory attention takes any number of memory slots.
    pub(crate) open_slots: bool,
    /// Where its engines take tensors.
    pub(crate) ground: Ground,
}

impl BoundModel {
    /// Resolves every name and checks every shape of `model`.
    pub(crate) fn new(model: Model) -> Result<(ModelSpec, Self), EngineError> {
        let Model {
            spec,
            image_encoder,
            memory_attention,
            decoder_track,
            decoder_prompt,
            memory_encoder,
            mask_downsample,
            device,
        } = model;
        let ground = Ground::new(device);
        let mut features = Vec::new();
        for port in &image_encoder.io().outputs {
            let shape = fixed_shape(&spec, GraphName::ImageEncoder, port)?;
            features.push((port.name.clone(), shape));
        }
        let pix = memory_attention.io().outputs.iter().find(|port| port.name == "pix_feat");
        let pix_feat = match pix {
            Some(port) => fixed_shape(&spec, GraphName::MemoryAttention, port)?,
            None => return Err(missing(GraphName::MemoryAttention, "output", "pix_feat")),
        };
        let binder = Binder { spec: &spec, features, pix_feat, ground: ground.clone() };
        let level_names: Vec<&str> = binder.features.iter().map(|(name, _)| name.as_str()).collect();
        let mut decoded = vec!["low_res_mask", "iou", "object_score"];
        decoded.extend(spec.pointers.map(|_| "obj_ptr"));
        let mask_downsample = mask_downsample
            .map(|engine| binder.bind(GraphName::MaskDownsample, engine, &["mask_prompt"]))
            .transpose()?;
        if spec.prompts.masks && spec.prompts.mask_decoder && mask_downsample.is_none() {
            return Err(EngineError::new(
                Kind::Interface,
                format_args!("model {:?}", spec.name),
                "a graph mask_downsample, as prompts.mask_decoder is set",
                "none",
            ));
        }
        let mut bound = Self {
            image_encoder: Some(binder.bind(GraphName::ImageEncoder, image_encoder, &level_names)?),
            memory_attention: binder.bind(GraphName::MemoryAttention, memory_attention, &["pix_feat"])?,
            decoder_track: binder.bind(GraphName::DecoderTrack, decoder_track, &decoded)?,
            decoder_prompt: binder.bind(GraphName::DecoderPrompt, decoder_prompt, &decoded)?,
            memory_encoder: binder.bind(GraphName::MemoryEncoder, memory_encoder, &["mem"])?,
            mask_downsample,
            features: binder.features.clone(),
            pix_feat: binder.pix_feat,
            batches: false,
            open_slots: false,
            ground,
        };
        bound.open_slots = bound.memory_attention.has_open_slots();
        bound.batches = [&bound.memory_attention, &bound.decoder_track, &bound.memory_encoder]
            .into_iter()
            .all(Bound::is_open);
        bound.check_no_mem_embed(&spec)?;
        Ok((spec, bound))
    }

    /// `decoder_prompt` is given `feat_top + no_mem_embed` for `pix_feat`: their shapes must agree.
    fn check_no_mem_embed(&self, spec: &ModelSpec) -> Result<(), EngineError> {
        let top = self.features.iter().find(|(name, _)| *name == spec.features.top);
        let Some((_, top)) = top else {
            return Err(missing(GraphName::ImageEncoder, "output", &spec.features.top));
        };
        if !self.decoder_prompt.takes_pix_feat() {
            return Ok(());
        }
        let refuse = |expected: String, got: String| {
            let subject = format!("model {:?} no_mem_embed", spec.name);
            Err(EngineError::new(Kind::Interface, subject, expected, got))
        };
        if *top != self.pix_feat {
            return refuse(
                format!("{:?} of pix_feat's shape {}", spec.features.top, self.pix_feat),
                top.to_string(),
            );
        }
        let channels = top.dims().get(1).copied().unwrap_or(0);
        if !spec.no_mem_embed.is_empty() && spec.no_mem_embed.len() != channels {
            return refuse(format!("{channels} values"), spec.no_mem_embed.len().to_string());
        }
        Ok(())
    }
}

/// Whether the port's leading size counts objects.
fn is_open(graph: GraphName, port: &Port) -> bool {
    let batched =
        matches!(graph, GraphName::MemoryAttention | GraphName::DecoderTrack | GraphName::MemoryEncoder);
    batched && port.dims.first() == Some(&Dim::Dynamic)
}

fn missing(graph: GraphName, side: &str, name: &str) -> EngineError {
    EngineError::new(Kind::Interface, format_args!("{graph} {side} {name:?}"), "one", "none")
}

/// The port's shape for one object, or where the graph leaves it open the manifest's.
fn fixed_shape(spec: &ModelSpec, graph: GraphName, port: &Port) -> Result<Shape, EngineError> {
    let one = |port: &Port| {
        let mut port = port.clone();
        if graph == GraphName::MemoryAttention
            && let Some(first @ Dim::Dynamic) = port.dims.first_mut()
        {
            *first = Dim::Fixed(1);
        }
        port.fixed_shape()
    };
    let declared = spec
        .graphs
        .get(&graph)
        .and_then(|graph| graph.io.outputs.iter().find(|other| other.name == port.name).and_then(one));
    match one(port).or(declared) {
        Some(dims) => Ok(Shape::new(&dims)?),
        None => Err(EngineError::new(
            Kind::Interface,
            format_args!("{graph} output {:?}", port.name),
            "a fixed shape in the graph or the manifest",
            port,
        )),
    }
}

impl Binder<'_> {
    fn bind(
        &self,
        graph: GraphName,
        engine: Box<dyn Engine>,
        outputs: &[&str],
    ) -> Result<Bound, EngineError> {
        let io: &GraphIo = engine.io();
        if io.inputs.len() > MAX_PORTS || io.outputs.len() > MAX_PORTS {
            return Err(EngineError::new(
                Kind::Interface,
                graph,
                format_args!("at most {MAX_PORTS} inputs and outputs"),
                format_args!("{} and {}", io.inputs.len(), io.outputs.len()),
            ));
        }
        let mut fixed_points = None;
        let mut inputs = Vec::with_capacity(io.inputs.len());
        for port in &io.inputs {
            let Some((source, dtype, mut dims)) = self.source(graph, &port.name) else {
                return Err(EngineError::new(
                    Kind::Interface,
                    format_args!("{graph} input {:?}", port.name),
                    "an input of the graph contract (engines/GRAPHS.md)",
                    port,
                ));
            };
            if matches!(source, Source::PointCoords | Source::PointLabels)
                && let Some(Dim::Fixed(points)) = port.dims.get(1)
            {
                dims[1] = *points;
                fixed_points = Some(*points);
            }
            if matches!(source, Source::TposIdx | Source::MemMask | Source::PtrTdiff | Source::PtrMask)
                && port.dims.len() > dims.len()
            {
                // Said of each object's slots where there may be several objects.
                dims.insert(0, 1);
            }
            let shape = self.check(graph, "input", port, dtype, &dims)?;
            let axis = match source {
                Source::Mem => Some(1),
                Source::TposIdx | Source::MemMask => Some(port.dims.len().saturating_sub(1)),
                _ => None,
            };
            let slots = axis.filter(|axis| port.dims.get(*axis) == Some(&Dim::Dynamic));
            // The levels are those of one picture, also where a graph would take one an object.
            let open = is_open(graph, port) && !matches!(source, Source::Feature(_));
            inputs.push((source, PerObject { shape, open, slots }));
        }
        let mut bound_outputs = Vec::with_capacity(io.outputs.len());
        for port in &io.outputs {
            let Some(index) = outputs.iter().position(|name| *name == port.name) else {
                return Err(EngineError::new(
                    Kind::Interface,
                    format_args!("{graph} output {:?}", port.name),
                    format_args!("one of {outputs:?}"),
                    port,
                ));
            };
            let dims = self.output_dims(graph, index);
            let shape = self.check(graph, "output", port, DType::F32, &dims)?;
            bound_outputs.push((index, PerObject { shape, open: is_open(graph, port), slots: None }));
        }
        if let Some(name) = outputs.iter().find(|name| io.output(name).is_none()) {
            return Err(missing(graph, "output", name));
        }
        let stream = match graph {
            GraphName::ImageEncoder => self.ground.stream(Stream::ENCODE),
            _ => self.ground.stream(Stream::TRACK),
        };
        if let Some(device) = self.ground.device().filter(|device| *device != engine.device()) {
            let subject = format!("{graph} device");
            return Err(EngineError::new(Kind::Interface, subject, device, engine.device()));
        }
        Ok(Bound { engine, stream, inputs, outputs: bound_outputs, fixed_points })
    }

    fn check(
        &self,
        graph: GraphName,
        side: &str,
        port: &Port,
        dtype: DType,
        dims: &[usize],
    ) -> Result<Shape, EngineError> {
        let shape = Shape::new(dims)?;
        if port.accepts(dtype, shape) {
            return Ok(shape);
        }
        let subject = format!("{graph} {side} {:?}", port.name);
        Err(EngineError::new(Kind::Interface, subject, format_args!("{dtype} {shape}"), port))
    }

    /// What an input name of a graph means; `None` for names the contract does not have.
    fn source(&self, graph: GraphName, name: &str) -> Option<(Source, DType, Vec<usize>)> {
        use GraphName as G;
        let spec = self.spec;
        let (slots, memory) = (spec.memory.slots(), spec.memory);
        let low_res = vec![1, 1, spec.masks.height_px, spec.masks.width_px];
        let (height, width) = (spec.image.height_px, spec.image.width_px);
        let pointers = spec.pointers.map(|pointers| (memory.max_cond + pointers.recent, pointers.channels));
        let f32 = |source, dims| Some((source, DType::F32, dims));
        let decoder = matches!(graph, G::DecoderTrack | G::DecoderPrompt);
        if !matches!(graph, G::ImageEncoder | G::MaskDownsample)
            && let Some(level) = self.features.iter().position(|(level, _)| level == name)
        {
            return f32(Source::Feature(level), self.features[level].1.dims().to_vec());
        }
        match (graph, name) {
            (G::ImageEncoder, "image") => f32(Source::Image, vec![1, 3, height, width]),
            (G::MemoryAttention, "mem") => f32(Source::Mem, vec![1, slots, memory.tokens, memory.channels]),
            (G::MemoryAttention, "tpos_idx") => Some((Source::TposIdx, DType::I64, vec![slots])),
            (G::MemoryAttention, "mem_mask") => f32(Source::MemMask, vec![slots]),
            (G::MemoryAttention, "obj_ptrs") => {
                pointers.and_then(|(count, channels)| f32(Source::ObjPtrs, vec![1, count, channels]))
            }
            (G::MemoryAttention, "ptr_tdiff") => pointers.and_then(|(n, _)| f32(Source::PtrTdiff, vec![n])),
            (G::MemoryAttention, "ptr_mask") => pointers.and_then(|(n, _)| f32(Source::PtrMask, vec![n])),
            (G::MemoryAttention, "prev_low_res_mask") => f32(Source::PrevMask, low_res),
            (_, "prev_low_res_mask") if decoder => f32(Source::PrevMask, low_res),
            (_, "pix_feat") if decoder => f32(Source::PixFeat, self.pix_feat.dims().to_vec()),
            (G::DecoderPrompt, "point_coords") => f32(Source::PointCoords, vec![1, 1, 2]),
            (G::DecoderPrompt, "point_labels") => f32(Source::PointLabels, vec![1, 1]),
            (G::DecoderPrompt, "mask_input") => f32(Source::MaskInput, low_res),
            (G::DecoderPrompt, "has_mask_input") => f32(Source::HasMaskInput, vec![1]),
            (G::DecoderPrompt, "multimask") => Some((Source::Multimask, DType::I64, vec![1])),
            (G::MemoryEncoder, "low_res_mask") => f32(Source::LowResMask, low_res),
            (G::MemoryEncoder, "object_score") => f32(Source::ObjectScore, vec![1, 1]),
            (G::MemoryEncoder, "binarize") => f32(Source::Binarize, vec![1]),
            (G::MaskDownsample, "mask") => f32(Source::Mask, vec![1, 1, height, width]),
            _ => None,
        }
    }

    /// The shape of a graph's output, by its place among the names given to [`Binder::bind`].
    fn output_dims(&self, graph: GraphName, index: usize) -> Vec<usize> {
        let spec = self.spec;
        let low_res = vec![1, 1, spec.masks.height_px, spec.masks.width_px];
        match graph {
            GraphName::ImageEncoder => self.features[index].1.dims().to_vec(),
            GraphName::MemoryAttention => self.pix_feat.dims().to_vec(),
            GraphName::DecoderTrack | GraphName::DecoderPrompt => match index {
                0 => low_res,
                3 => vec![1, spec.pointers.map_or(0, |pointers| pointers.channels)],
                _ => vec![1, 1],
            },
            GraphName::MemoryEncoder => vec![1, spec.memory.tokens, spec.memory.channels],
            GraphName::MaskDownsample => low_res,
        }
    }
}
