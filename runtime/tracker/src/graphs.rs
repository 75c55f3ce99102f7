//! A model's graphs with the buffers that lie between them, one call a graph.

use std::time::{Duration, Instant};

use sightline_core::{NormBox, Shape, StageTimes};
use sightline_engine_api::{EngineError, GraphName, Kind, Model, ModelSpec};

use crate::{
    bank::{BankSizes, Window},
    binder::{Bound, BoundModel, Given},
    object::Decoded,
    prompt, view,
};

/// Logits fed back to a graph are clamped to this, as the published predictor does.
const LOGIT_LIMIT: f32 = 32.0;

/// Objects that run together at most: the attention's scores grow with each. (On a CPU thread four of nano's together
/// took as long as one by one, or a little longer.)
pub(crate) const MAX_BATCH: usize = 4;

/// A model's graphs. Results lie here until the next call overwrites them: those of object `lane` of the objects
/// that run together at `lane` times the size of one.
pub(crate) struct Graphs {
    pub(crate) spec: ModelSpec,
    bound: BoundModel,
    /// Position of `features.top` among the levels.
    top: usize,
    /// Objects that may run together.
    lanes: usize,
    /// Elements of one object's `[1,1,h,w]` logits.
    mask_elements: usize,
    /// `pix_feat`, from memory attention or made for a conditioning frame.
    pix_feat: Vec<f32>,
    /// `[B,1,h,w]` logits.
    low_res: Vec<f32>,
    iou: Vec<f32>,
    object_score: Vec<f32>,
    /// `[B,P]`, empty if the model has no pointers.
    pointer: Vec<f32>,
    /// `[B,T,C]`
    memory: Vec<f32>,
    prev_mask: Vec<f32>,
    mask_input: Vec<f32>,
    /// What several objects attend to, side by side.
    windows: Option<Window>,
    padding: (Vec<f32>, Vec<f32>),
    serial: u64,
    /// Time spent since it was last taken.
    pub(crate) times: StageTimes,
}

impl Graphs {
    pub(crate) fn new(model: Model, max_objects: usize) -> Result<Self, EngineError> {
        let (spec, bound) = BoundModel::new(model)?;
        check(&spec)?;
        let mask_elements = spec.masks.height_px * spec.masks.width_px;
        let lanes = if bound.batches { MAX_BATCH.min(max_objects) } else { 1 };
        let lane = |elements: usize| vec![0.0; lanes * elements];
        Ok(Self {
            top: bound.features.iter().position(|(name, _)| *name == spec.features.top).unwrap_or(0),
            lanes,
            mask_elements,
            pix_feat: lane(bound.pix_feat.elements()),
            low_res: lane(mask_elements),
            iou: lane(1),
            object_score: lane(1),
            pointer: lane(spec.pointers.map_or(0, |pointers| pointers.channels)),
            memory: lane(spec.memory.slot_elements()),
            prev_mask: lane(mask_elements),
            mask_input: vec![0.0; mask_elements],
            windows: (lanes > 1).then(|| Window::side_by_side(BankSizes::new(&spec, 1), lanes)),
            padding: prompt::padding(&spec, bound.decoder_prompt.fixed_points()),
            serial: 0,
            times: StageTimes::default(),
            spec,
            bound,
        })
    }

    /// Objects that may run together.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// What the last decoder run said of the object in `lane`.
    pub(crate) fn decoded(&self, lane: usize) -> Decoded<'_> {
        let pointer = self.pointer.len() / self.lanes;
        Decoded {
            low_res: &self.low_res[lane * self.mask_elements..][..self.mask_elements],
            score: self.object_score[lane],
            iou: self.iou[lane],
            pointer: &self.pointer[lane * pointer..][..pointer],
        }
    }

    /// The last memory made of the object in `lane`, `[1,T,C]`.
    pub(crate) fn memory(&self, lane: usize) -> &[f32] {
        let size = self.memory.len() / self.lanes;
        &self.memory[lane * size..][..size]
    }

    /// Names and shapes of the feature levels.
    pub(crate) fn levels(&self) -> &[(String, Shape)] {
        &self.bound.features
    }

    /// The number of points `decoder_prompt` takes, if it is fixed.
    pub(crate) fn fixed_points(&self) -> Option<usize> {
        self.bound.decoder_prompt.fixed_points()
    }

    /// Whether `decoder_prompt` reads `pix_feat`.
    pub(crate) fn prompts_take_pix_feat(&self) -> bool {
        self.bound.decoder_prompt.takes_pix_feat()
    }

    /// A number no other memory has.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// `image_encoder`
    pub(crate) fn encode(&mut self, image: &[f32], features: &mut [Vec<f32>]) -> Result<(), EngineError> {
        let Some(encoder) = &mut self.bound.image_encoder else {
            return Err(EngineError::new(Kind::Run, GraphName::ImageEncoder, "it to be here", "split off"));
        };
        timed(&mut self.times.image_encoder, || encoder.encode(image, features))
    }

    /// Takes `image_encoder` out, to be run elsewhere.
    pub(crate) fn take_image_encoder(&mut self) -> Option<Bound> {
        self.bound.image_encoder.take()
    }

    /// Buffers for a frame's features.
    pub(crate) fn feature_buffers(&self) -> Vec<Vec<f32>> {
        feature_buffers(self.levels())
    }

    /// Sets `prev_low_res_mask` for a frame that shows `view` from logits that cover their own part of the
    /// picture; with no mask before, it is 0, which says nothing either way.
    pub(crate) fn set_prev_mask(&mut self, lane: usize, logits: Option<(&[f32], NormBox)>, view: NormBox) {
        let bound = &self.bound;
        let taken = [&bound.memory_attention, &bound.decoder_track, &bound.decoder_prompt];
        if taken.iter().any(|graph| graph.takes_prev_mask()) {
            let prev_mask = &mut self.prev_mask[lane * self.mask_elements..][..self.mask_elements];
            match logits {
                Some((logits, from)) if from != view => {
                    let (width, height) = (self.spec.masks.width_px, self.spec.masks.height_px);
                    view::resample(logits, from, prev_mask, view, width, height);
                    prev_mask.iter_mut().for_each(|v| *v = v.clamp(-LOGIT_LIMIT, LOGIT_LIMIT));
                }
                other => fill_clamped(prev_mask, other.map(|(logits, _)| logits)),
            }
        }
    }

    /// Sets `mask_input` to the logits of an earlier run on the same frame.
    pub(crate) fn set_mask_input(&mut self, logits: &[f32]) {
        fill_clamped(&mut self.mask_input, Some(logits));
    }

    /// `memory_attention` for the objects whose windows these are, in lanes from 0.
    pub(crate) fn attend<'a>(
        &mut self,
        features: &[Vec<f32>],
        mut windows: impl ExactSizeIterator<Item = &'a Window> + Clone,
    ) -> Result<(), EngineError> {
        let count = windows.len();
        let slots = |window: &Window| if self.bound.open_slots { window.used() } else { window.slots() };
        let (window, slots) = match (&mut self.windows, count) {
            (Some(lanes), 2..) => {
                let slots = windows.clone().map(slots).max().unwrap_or(1);
                windows.enumerate().for_each(|(lane, window)| lanes.set_lane(lane, window, slots));
                (&*lanes, slots)
            }
            _ => match windows.next() {
                Some(window) => (window, slots(window)),
                None => return Ok(()),
            },
        };
        let given = Given {
            features,
            slots,
            mem: window.first(&window.mem, count * slots),
            tpos_idx: window.first(&window.tpos_idx, count * slots),
            mem_mask: window.first(&window.mem_mask, count * slots),
            obj_ptrs: window.share(&window.obj_ptrs, count),
            ptr_tdiff: window.share(&window.ptr_tdiff, count),
            ptr_mask: window.share(&window.ptr_mask, count),
            prev_low_res_mask: &self.prev_mask[..count * self.mask_elements],
            ..Given::default()
        };
        let size = self.pix_feat.len() / self.lanes;
        let outputs = &mut [Some(&mut self.pix_feat[..count * size])];
        let time = &mut self.times.memory_attention;
        timed(time, || self.bound.memory_attention.run(count, &given, outputs))
    }

    /// Makes `pix_feat` without memory: the top level, plus `no_mem_embed` unless the prompt is a mask.
    pub(crate) fn ignore_memory(&mut self, features: &[Vec<f32>], embed: bool) {
        if !self.prompts_take_pix_feat() {
            return;
        }
        let pix_feat = &mut self.pix_feat[..features[self.top].len()];
        pix_feat.copy_from_slice(&features[self.top]);
        let channels = self.spec.no_mem_embed.len();
        if embed && channels > 0 {
            let plane = pix_feat.len() / channels;
            for (plane, value) in pix_feat.chunks_exact_mut(plane).zip(&self.spec.no_mem_embed) {
                plane.iter_mut().for_each(|feature| *feature += value);
            }
        }
    }

    /// `decoder_track` for the objects in lanes up to `count`.
    pub(crate) fn decode_track(&mut self, features: &[Vec<f32>], count: usize) -> Result<(), EngineError> {
        let (lanes, mask) = (self.lanes, count * self.mask_elements);
        let given = Given {
            features,
            pix_feat: &self.pix_feat[..count * (self.pix_feat.len() / lanes)],
            prev_low_res_mask: &self.prev_mask[..mask],
            ..Given::default()
        };
        let pointer = count * (self.pointer.len() / lanes);
        let mut outputs = [
            Some(&mut self.low_res[..mask]),
            Some(&mut self.iou[..count]),
            Some(&mut self.object_score[..count]),
            Some(&mut self.pointer[..pointer]),
        ];
        timed(&mut self.times.decoder, || self.bound.decoder_track.run(count, &given, &mut outputs))?;
        self.check_numbers("decoder_track", count)
    }

    /// `decoder_prompt` with clicks or a box, and if `refine` the logits of [`Graphs::set_mask_input`].
    pub(crate) fn decode_points(
        &mut self,
        features: &[Vec<f32>],
        coords: &[f32],
        labels: &[f32],
        multimask: bool,
        refine: bool,
    ) -> Result<(), EngineError> {
        if !refine {
            self.mask_input.fill(0.0);
        }
        self.decode_prompt(features, Some((coords, labels)), multimask, refine)
    }

    /// A mask as it was given: its own logits, and where the model has it a pointer from `decoder_prompt`.
    pub(crate) fn decode_mask(
        &mut self,
        features: &[Vec<f32>],
        full: &[f32],
        low_res: &[f32],
    ) -> Result<(), EngineError> {
        let pointer = self.pointer.len() / self.lanes;
        self.pointer[..pointer].fill(0.0);
        if let Some(downsample) =
            self.bound.mask_downsample.as_mut().filter(|_| self.spec.prompts.mask_decoder)
        {
            let given = Given { mask: full, ..Given::default() };
            let outputs = &mut [Some(self.mask_input.as_mut_slice())];
            timed(&mut self.times.decoder, || downsample.run(1, &given, outputs))?;
            self.ignore_memory(features, false);
            self.decode_prompt(features, None, false, true)?;
        }
        let present = full.iter().any(|inside| *inside > 0.0);
        if !present && !self.spec.no_obj_ptr.is_empty() {
            self.pointer[..pointer].copy_from_slice(&self.spec.no_obj_ptr);
        }
        self.low_res[..low_res.len()].copy_from_slice(low_res);
        self.iou[0] = 1.0;
        self.object_score[0] = if present { 10.0 } else { -10.0 };
        Ok(())
    }

    /// `points` are coordinates and labels; none means padding only.
    fn decode_prompt(
        &mut self,
        features: &[Vec<f32>],
        points: Option<(&[f32], &[f32])>,
        multimask: bool,
        has_mask: bool,
    ) -> Result<(), EngineError> {
        let (point_coords, point_labels) = points.unwrap_or((&self.padding.0, &self.padding.1));
        let mask = self.mask_elements;
        let given = Given {
            features,
            pix_feat: &self.pix_feat[..self.pix_feat.len() / self.lanes],
            prev_low_res_mask: &self.prev_mask[..mask],
            point_coords,
            point_labels,
            mask_input: &self.mask_input,
            has_mask_input: if has_mask { &[1.0] } else { &[0.0] },
            multimask: if multimask { &[1] } else { &[0] },
            ..Given::default()
        };
        let pointer = self.pointer.len() / self.lanes;
        let mut outputs = [
            Some(&mut self.low_res[..mask]),
            Some(&mut self.iou[..1]),
            Some(&mut self.object_score[..1]),
            Some(&mut self.pointer[..pointer]),
        ];
        timed(&mut self.times.decoder, || self.bound.decoder_prompt.run(1, &given, &mut outputs))?;
        self.check_numbers("decoder_prompt", 1)
    }

    /// `memory_encoder` on the last decoder's results in lanes up to `count`.
    pub(crate) fn encode_memory(
        &mut self,
        features: &[Vec<f32>],
        count: usize,
        prompted: bool,
    ) -> Result<(), EngineError> {
        let binarize = [if prompted { 1.0 } else { 0.0 }; MAX_BATCH];
        let given = Given {
            features,
            low_res_mask: &self.low_res[..count * self.mask_elements],
            object_score: &self.object_score[..count],
            binarize: &binarize[..count],
            ..Given::default()
        };
        let memory = count * (self.memory.len() / self.lanes);
        let outputs = &mut [Some(&mut self.memory[..memory])];
        timed(&mut self.times.memory_encoder, || self.bound.memory_encoder.run(count, &given, outputs))
    }

    /// A number that is none must not reach the memory, where it would stay.
    fn check_numbers(&self, graph: &str, count: usize) -> Result<(), EngineError> {
        let numbers =
            [&self.object_score[..count], &self.iou[..count], &self.low_res[..count * self.mask_elements]];
        if numbers.into_iter().flatten().all(|number| number.is_finite()) {
            return Ok(());
        }
        let (scores, ious) = (&self.object_score[..count], &self.iou[..count]);
        let got = format!("object_score {scores:?}, iou {ious:?} and maybe others");
        Err(EngineError::new(Kind::Run, format_args!("{graph} outputs"), "finite numbers", got))
    }
}

/// Buffers for feature levels. Zeroed memory is only taken from the system when it is written to.
pub(crate) fn feature_buffers(levels: &[(String, Shape)]) -> Vec<Vec<f32>> {
    levels.iter().map(|(_, shape)| vec![0.0; shape.elements()]).collect()
}

fn fill_clamped(to: &mut [f32], logits: Option<&[f32]>) {
    let Some(logits) = logits else { return to.fill(0.0) };
    for (to, logit) in to.iter_mut().zip(logits) {
        *to = logit.clamp(-LOGIT_LIMIT, LOGIT_LIMIT);
    }
}

pub(crate) fn timed<T>(total: &mut Duration, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    *total += start.elapsed();
    result
}

/// Numbers of the manifest without which the tracker makes no sense.
fn check(spec: &ModelSpec) -> Result<(), EngineError> {
    let pointers = spec.pointers.map_or(1, |pointers| pointers.channels);
    for (name, value) in [
        ("memory.max_cond", spec.memory.max_cond),
        ("memory.stride", spec.memory.stride),
        ("memory tokens x channels", spec.memory.slot_elements()),
        ("pointers.channels", pointers),
    ] {
        if value == 0 {
            let subject = format!("model {:?} {name}", spec.name);
            return Err(EngineError::new(Kind::Model, subject, "at least 1", value));
        }
    }
    if !spec.no_obj_ptr.is_empty() && spec.no_obj_ptr.len() != pointers {
        let subject = format!("model {:?} no_obj_ptr", spec.name);
        let got = spec.no_obj_ptr.len();
        return Err(EngineError::new(Kind::Model, subject, format_args!("{pointers} values"), got));
    }
    Ok(())
}
