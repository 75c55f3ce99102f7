//! A model that hashes: every output is a pseudo-random function of every bit of every input, so that two runs
//! agree only if every graph was given exactly the same. It does not mind the order of slots, as the contract says.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use sightline_core::{DType, Filter, ImageSpec, TensorView, TensorViewMut};
use sightline_engine_api::{
    Dim, Engine, EngineError, FeatureSpec, GraphIo, GraphName, Kind, MaskSpec, MemorySpec, Model, ModelSpec,
    PointerSpec, Port, PromptSpec, TensorMut, TensorRef,
};
use sightline_engine_fake::{FakeDevice, FnEngine, Schedule};
use sightline_vision::Preprocessor;

/// Values of a graph's inputs or outputs by name; integers as floats.
pub type Values = BTreeMap<String, Vec<f32>>;

pub const SIDE: usize = 16;
pub const LOW: usize = 4;
/// One value a slot.
const SLOT_PORTS: [&str; 4] = ["tpos_idx", "mem_mask", "ptr_tdiff", "ptr_mask"];
const TOP: [usize; 4] = [1, 2, 2, 2];
const SIDE_LEVEL: [usize; 2] = [1, 5];

/// What may differ between families.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    pub recent: usize,
    pub max_cond: usize,
    pub stride: usize,
    pub pointers: Option<usize>,
    pub prev_mask: bool,
    pub prompt_pix_feat: bool,
    pub mask_decoder: bool,
    pub round_to_bf16: bool,
    pub min_object_score: Option<f32>,
    pub fixed_points: Option<usize>,
    /// The graphs that run once an object take several at once.
    pub batch: bool,
    /// Memory attention takes as many slots as are used.
    pub open_slots: bool,
    /// The side of the masks.
    pub low: usize,
}

impl Family {
    pub const SAM2: Self = Self {
        recent: 6,
        max_cond: 1,
        stride: 1,
        pointers: Some(15),
        prev_mask: false,
        prompt_pix_feat: true,
        mask_decoder: true,
        round_to_bf16: true,
        min_object_score: None,
        fixed_points: None,
        batch: false,
        open_slots: false,
        low: LOW,
    };
    pub const NANO: Self = Self {
        recent: 3,
        max_cond: 2,
        stride: 2,
        pointers: None,
        prev_mask: true,
        prompt_pix_feat: false,
        mask_decoder: false,
        round_to_bf16: false,
        min_object_score: Some(0.0),
        fixed_points: Some(5),
        batch: true,
        open_slots: true,
        low: LOW,
    };

    pub fn spec(&self) -> ModelSpec {
        ModelSpec {
            name: "hashing".into(),
            family: "none".into(),
            licence: "MIT".into(),
            image: ImageSpec {
                height_px: SIDE,
                width_px: SIDE,
                mean: [0.0; 3],
                std: [1.0; 3],
                filter: Filter::Bilinear,
            },
            features: FeatureSpec { top: "feat_top".into() },
            masks: MaskSpec { height_px: self.low, width_px: self.low },
            memory: MemorySpec {
                tokens: 2,
                channels: 3,
                recent: self.recent,
                max_cond: self.max_cond,
                stride: self.stride,
                round_to_bf16: self.round_to_bf16,
                min_object_score: self.min_object_score,
            },
            pointers: self.pointers.map(|recent| PointerSpec { channels: 2, recent }),
            prompts: PromptSpec {
                points: true,
                boxes: true,
                masks: true,
                mask_decoder: self.mask_decoder,
                pad_point: true,
                multimask_max_points: 1,
            },
            view: None,
            no_mem_embed: if self.prompt_pix_feat { vec![0.5, -0.25] } else { vec![] },
            no_obj_ptr: if self.pointers.is_some() { vec![0.125, 7.0] } else { vec![] },
            graphs: BTreeMap::new(),
        }
    }

    /// A graph's ports: for one object, or as the batched graph has them.
    fn io(&self, graph: GraphName) -> GraphIo {
        let mut io = self.io_of_one(graph);
        for port in io.inputs.iter_mut().filter(|_| self.open_slots) {
            match port.name.as_str() {
                "mem" => port.dims[1] = Dim::Dynamic,
                "tpos_idx" | "mem_mask" => port.dims[0] = Dim::Dynamic,
                _ => {}
            }
        }
        if self.batches(graph) {
            let ports = io.inputs.iter_mut().chain(&mut io.outputs);
            for port in ports.filter(|port| !port.name.starts_with("feat_")) {
                if SLOT_PORTS.contains(&&*port.name) {
                    port.dims.insert(0, Dim::Dynamic);
                }
                port.dims[0] = Dim::Dynamic;
            }
        }
        io
    }

    fn batches(&self, graph: GraphName) -> bool {
        use GraphName::{DecoderTrack, MemoryAttention, MemoryEncoder};
        self.batch && matches!(graph, MemoryAttention | DecoderTrack | MemoryEncoder)
    }

    fn io_of_one(&self, graph: GraphName) -> GraphIo {
        let (slots, pointer_slots) =
            (self.max_cond + self.recent, self.max_cond + self.pointers.unwrap_or(0));
        let low = |name| port(name, &[1, 1, self.low, self.low]);
        let pix_feat = || port("pix_feat", &TOP);
        let (top, side) = (|| port("feat_top", &TOP), || port("feat_side", &SIDE_LEVEL));
        let mut decoded = vec![port("object_score", &[1, 1]), low("low_res_mask"), port("iou", &[1, 1])];
        decoded.extend(self.pointers.map(|_| port("obj_ptr", &[1, 2])));
        let prev = self.prev_mask.then(|| low("prev_low_res_mask"));
        let (inputs, outputs) = match graph {
            GraphName::ImageEncoder => (vec![port("image", &[1, 3, SIDE, SIDE])], vec![side(), top()]),
            GraphName::MemoryAttention => {
                let mut inputs = vec![
                    port("mem_mask", &[slots]),
                    port("mem", &[1, slots, 2, 3]),
                    Port { dtype: DType::I64, ..port("tpos_idx", &[slots]) },
                    top(),
                ];
                if self.pointers.is_some() {
                    inputs.push(port("obj_ptrs", &[1, pointer_slots, 2]));
                    inputs.push(port("ptr_tdiff", &[pointer_slots]));
                    inputs.push(port("ptr_mask", &[pointer_slots]));
                }
                inputs.extend(prev);
                (inputs, vec![pix_feat()])
            }
            GraphName::DecoderTrack => {
                let mut inputs = vec![pix_feat(), side()];
                inputs.extend(prev);
                (inputs, decoded)
            }
            GraphName::DecoderPrompt => {
                let count = self.fixed_points.map_or(Dim::Dynamic, Dim::Fixed);
                let mut coords = port("point_coords", &[1, 1, 2]);
                let mut labels = port("point_labels", &[1, 1]);
                (coords.dims[1], labels.dims[1]) = (count, count);
                let feature = if self.prompt_pix_feat { pix_feat() } else { top() };
                let mask = [low("mask_input"), port("has_mask_input", &[1])];
                let multimask = Port { dtype: DType::I64, ..port("multimask", &[1]) };
                let mut inputs = vec![feature, side(), coords, labels, multimask];
                inputs.extend(mask);
                (inputs, decoded)
            }
            GraphName::MemoryEncoder => {
                let inputs =
                    vec![top(), low("low_res_mask"), port("object_score", &[1, 1]), port("binarize", &[1])];
                (inputs, vec![port("mem", &[1, 2, 3])])
            }
            GraphName::MaskDownsample => (vec![port("mask", &[1, 1, SIDE, SIDE])], vec![low("mask_prompt")]),
        };
        GraphIo { inputs, outputs }
    }

    /// The model; the run that `fail` counts down to fails.
    pub fn model(&self, fail: &Countdown) -> Model {
        let engine = |graph| -> Box<dyn Engine> {
            let (io, family, fail) = (self.io(graph), *self, fail.clone());
            let ports = io.clone();
            Box::new(FnEngine::new(graph.as_str(), io, move |inputs, outputs| {
                let objects = outputs.first().map_or(1, |output| output.shape().dims()[0]);
                let objects = if family.batches(graph) { objects } else { 1 };
                for object in 0..objects {
                    let values = ports.inputs.iter().zip(inputs).map(|(port, tensor)| {
                        let values = values_of(tensor);
                        let share = if port.name.starts_with("feat_") {
                            values.len()
                        } else {
                            values.len() / objects
                        };
                        let own =
                            if share == values.len() { &values } else { &values[object * share..][..share] };
                        (port.name.clone(), own.to_vec())
                    });
                    let results = family.evaluate(graph, &values.collect());
                    for (port, output) in ports.outputs.iter().zip(outputs.iter_mut()) {
                        if let TensorMut::Host(TensorViewMut::F32(_, data)) = output {
                            let result = &results[&port.name];
                            let whole =
                                if family.batches(graph) { objects * result.len() } else { data.len() };
                            assert_eq!(data.len(), whole, "{graph} {}", port.name);
                            data[object * result.len()..][..result.len()].copy_from_slice(result);
                        }
                    }
                }
                fail.count(graph)
            }))
        };
        Model {
            spec: self.spec(),
            image_encoder: engine(GraphName::ImageEncoder),
            memory_attention: engine(GraphName::MemoryAttention),
            decoder_track: engine(GraphName::DecoderTrack),
            decoder_prompt: engine(GraphName::DecoderPrompt),
            memory_encoder: engine(GraphName::MemoryEncoder),
            mask_downsample: self.mask_decoder.then(|| engine(GraphName::MaskDownsample)),
            device: None,
        }
    }

    /// The model on a device; the run that `fail` counts down to fails when it is given to it.
    pub fn model_on(&self, device: &FakeDevice, fail: &Countdown) -> Model {
        let model = self.model(&Countdown::default());
        let engine = |graph: GraphName, inner| {
            let fail = fail.clone();
            device.engine(inner, move |_| fail.count(graph))
        };
        Model {
            image_encoder: engine(GraphName::ImageEncoder, model.image_encoder),
            memory_attention: engine(GraphName::MemoryAttention, model.memory_attention),
            decoder_track: engine(GraphName::DecoderTrack, model.decoder_track),
            decoder_prompt: engine(GraphName::DecoderPrompt, model.decoder_prompt),
            memory_encoder: engine(GraphName::MemoryEncoder, model.memory_encoder),
            mask_downsample: model.mask_downsample.map(|inner| engine(GraphName::MaskDownsample, inner)),
            device: Some(Arc::new(device.clone())),
            spec: model.spec,
        }
    }

    /// A graph as a function. It takes more inputs than the graph has; the others are not looked at.
    pub fn evaluate(&self, graph: GraphName, given: &Values) -> Values {
        let io = self.io_of_one(graph);
        let mut hash = graph as u64 + 1;
        for port in &io.inputs {
            let values = &given[&port.name];
            if !["mem", "obj_ptrs"].contains(&&*port.name) && !SLOT_PORTS.contains(&&*port.name) {
                hash = mix(hash, values);
            }
        }
        if graph == GraphName::MemoryAttention {
            hash = hash.wrapping_add(slots(given, "mem", "tpos_idx", "mem_mask").wrapping_mul(3));
            if self.pointers.is_some() {
                hash = hash.wrapping_add(slots(given, "obj_ptrs", "ptr_tdiff", "ptr_mask").wrapping_mul(5));
            }
        }
        let output = |port: &Port| {
            let len = port.fixed_shape().unwrap().iter().product();
            let mut seed = port.name.bytes().fold(hash, |hash, byte| step(hash ^ u64::from(byte)));
            let scale = if port.name == "low_res_mask" { 80.0 } else { 4.0 };
            let values = (0..len).map(|_| {
                seed = step(seed);
                ((seed >> 40) as f32 / (1_u64 << 24) as f32 - 0.4) * scale
            });
            (port.name.clone(), values.collect())
        };
        io.outputs.iter().map(output).collect()
    }
}

/// The used slots' hash, whatever their order. Slots that are not used must be zero.
fn slots(given: &Values, data: &str, place: &str, mask: &str) -> u64 {
    let (data, place, mask) = (&given[data], &given[place], &given[mask]);
    let size = data.len() / mask.len();
    let mut sum = 0_u64;
    for (slot, used) in mask.iter().enumerate() {
        let values = &data[slot * size..][..size];
        if *used == 1.0 {
            sum = sum.wrapping_add(mix(mix(7, values), &[place[slot]]));
        } else {
            assert!(*used == 0.0 && place[slot] == 0.0 && values.iter().all(|v| *v == 0.0), "slot {slot}");
        }
    }
    sum
}

fn step(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn mix(hash: u64, values: &[f32]) -> u64 {
    values.iter().fold(step(hash), |hash, value| step(hash ^ u64::from(value.to_bits())))
}

fn values_of(tensor: &TensorRef<'_>) -> Vec<f32> {
    match tensor {
        TensorRef::Host(TensorView::F32(_, data)) => data.to_vec(),
        TensorRef::Host(TensorView::I64(_, data)) => data.iter().map(|value| *value as f32).collect(),
        TensorRef::Device(_) => panic!("host tensors only"),
    }
}

fn port(name: &str, dims: &[usize]) -> Port {
    Port { name: name.into(), dtype: DType::F32, dims: dims.iter().map(|dim| Dim::Fixed(*dim)).collect() }
}

/// A device that preprocesses as the host does.
pub fn device(schedule: Schedule) -> FakeDevice {
    FakeDevice::new(schedule, |picture, spec, image| Ok(Preprocessor::new(spec).run(picture, image)?))
}

/// Lets the n-th run from now fail.
#[derive(Debug, Clone, Default)]
pub struct Countdown(Arc<AtomicI64>);

impl Countdown {
    /// The `runs`-th run from now fails; 0 for none.
    pub fn set(&self, runs: i64) {
        self.0.store(runs, Ordering::SeqCst);
    }

    fn count(&self, graph: GraphName) -> Result<(), EngineError> {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(EngineError::new(Kind::Run, graph, "no fault", "a fault"));
        }
        Ok(())
    }
}
