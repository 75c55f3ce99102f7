//! A model's graphs with the buffers that lie between them, one call a graph.

mod collected;
mod prompted;

use std::time::{Duration, Instant};

use sightline_core::{DType, NormBox, Shape, StageTimes, TensorView};
use sightline_engine_api::{DeviceTensor, EngineError, GraphName, Kind, Model, ModelSpec};

use crate::{
    bank::{Bank, BankSizes, Left},
    binder::{Bound, BoundModel, Given, Source},
    found::Finder,
    object::{Decoded, Logits},
    prompt,
    said::{Flags, LOGITS, Places, SCORES, Said, move_to, place},
    slab::{Ground, Intake, Slab},
    view,
    window::Window,
};

pub(crate) use self::prompted::Points;

/// Logits fed back to a graph are clamped to this, as the published predictor does.
const LOGIT_LIMIT: f32 = 32.0;

/// Objects that run together at most: the attention's scores grow with each. (On a CPU thread four of nano's together
/// took as long as one by one, or a little longer.)
pub(crate) const MAX_BATCH: usize = 4;

/// A model's graphs. On the host results lie here until the next call overwrites them; on a device those of a frame lie
/// here, a seat a decoder run, until the next frame begins. Those of object `lane` of the objects that run together lie
/// at `lane` times the size of one.
pub(crate) struct Graphs {
    pub(crate) spec: ModelSpec,
    pub(crate) ground: Ground,
    /// The picture to be encoded next.
    pub(crate) intake: Intake,
    bound: BoundModel,
    /// Position of `features.top` among the levels.
    top: usize,
    /// Objects that may run together.
    lanes: usize,
    /// Elements of one object's `[1,1,h,w]` logits.
    mask_elements: usize,
    /// `pix_feat`, from memory attention or made for a conditioning frame.
    pix_feat: Slab,
    /// On the host one, on a device as many as a frame needs.
    said: Vec<Said>,
    /// Seats taken since the frame began.
    taken: usize,
    /// Their logits are on the host.
    logits_here: bool,
    /// Where masks are made on the device; the logits then stay there.
    finder: Option<Finder>,
    /// `[B,P]`, empty if the model has no pointers. On a device only what cannot be written to its place at once.
    pointer: Slab,
    /// `[B,T,C]`, likewise.
    memory: Slab,
    prev_mask: Slab,
    mask_input: Slab,
    /// A mask prompt, point coordinates and labels, on a device.
    mask_prompt: Option<DeviceTensor>,
    points: [Option<DeviceTensor>; 2],
    flags: Flags,
    no_mem_embed: Option<DeviceTensor>,
    /// What those who run together attend to, a window each batch of a frame. The last is for those aside from the
    /// frame: corrected, catching up.
    windows: Vec<Window>,
    padding: (Vec<f32>, Vec<f32>),
    serial: u64,
    /// Time spent since it was last taken. On a device a graph's is that of telling it what to do, and the decoder's
    /// holds the wait for all of them.
    pub(crate) times: StageTimes,
}

impl Graphs {
    /// With `masks` they are made on the device, if it can and the host needs no logits otherwise.
    pub(crate) fn new(model: Model, max_objects: usize, masks: bool) -> Result<Self, EngineError> {
        let (spec, bound) = BoundModel::new(model)?;
        check(&spec)?;
        let ground = bound.ground.clone();
        let mask_elements = spec.masks.height_px * spec.masks.width_px;
        let lanes = if bound.batches { MAX_BATCH.min(max_objects) } else { 1 };
        let lane = |elements: usize| ground.slab(lanes * elements);
        let mirrored = |elements: usize| ground.mirrored(lanes * elements);
        let sizes = BankSizes::new(&spec, 1);
        // A frame has at most that many batches of sizes that are powers of two; one window is aside.
        let windows = 0..max_objects.div_ceil(lanes) + 2;
        let seats = if ground.is_device() { max_objects.max(1 + lanes) } else { 1 };
        let said = |_| Ok(Said { values: ground.mirrored(LOGITS + lanes * mask_elements)?, count: 0 });
        let fixed_points = bound.decoder_prompt.fixed_points();
        let points = fixed_points.unwrap_or(prompt::MAX_POINTS + 1);
        let embed = TensorView::f32(&[spec.no_mem_embed.len()], &spec.no_mem_embed)?;
        let image = spec.image.height_px * spec.image.width_px;
        let tracked = [&bound.memory_attention, &bound.decoder_track, &bound.decoder_prompt];
        // A frame tracks each object once; of those who catch up, a batch may be tracked and then prompted.
        let finder =
            match masks && spec.view.is_none() && !tracked.iter().any(|graph| graph.takes_prev_mask()) {
                true => Finder::new(&ground, &spec, lanes, max_objects.max(2 * lanes))?,
                false => None,
            };
        Ok(Self {
            finder,
            top: bound.features.iter().position(|(name, _)| *name == spec.features.top).unwrap_or(0),
            lanes,
            mask_elements,
            intake: Intake::new(&ground, &spec.image)?,
            pix_feat: lane(bound.pix_feat.elements())?,
            said: (0..seats).map(said).collect::<Result<_, EngineError>>()?,
            taken: 0,
            logits_here: true,
            pointer: lane(spec.pointers.map_or(0, |pointers| pointers.channels))?,
            memory: lane(spec.memory.slot_elements())?,
            prev_mask: mirrored(mask_elements)?,
            mask_input: ground.mirrored(mask_elements)?,
            mask_prompt: ground.tensor(DType::F32, image)?,
            points: [ground.tensor(DType::F32, 2 * points)?, ground.tensor(DType::F32, points)?],
            flags: Flags::new(&ground)?,
            no_mem_embed: ground.constant(embed)?,
            windows: windows.map(|_| Window::new(&ground, sizes, lanes)).collect::<Result<_, _>>()?,
            padding: prompt::padding(&spec, fixed_points),
            serial: 0,
            times: StageTimes::default(),
            ground,
            spec,
            bound,
        })
    }

    /// Objects that may run together.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes
    }

    /// Begins a frame, or whatever is concluded as a whole. What one that failed has left behind may still be read and
    /// written by what it began; nobody looks at it.
    pub(crate) fn begin(&mut self) {
        self.taken = 0;
    }

    /// A place for what a decoder run says of `count` objects.
    pub(crate) fn take_seat(&mut self, count: usize) -> usize {
        // One run after the other where each is over when it returns.
        let seat = if self.ground.is_device() { self.taken.min(self.said.len() - 1) } else { 0 };
        self.taken = seat + 1;
        self.said[seat].count = count;
        seat
    }

    /// What a decoder run said of the object in `lane`.
    pub(crate) fn decoded(&self, seat: usize, lane: usize) -> Decoded<'_> {
        let (said, pointer) = (&self.said[seat], self.pointer.len() / self.lanes);
        Decoded {
            low_res: match said.values.device(LOGITS + lane * self.mask_elements, self.mask_elements) {
                Some(logits) if self.finder.is_some() => Logits::Device(logits),
                _ => Logits::Host(self.low_res(seat, lane)),
            },
            score: said.score(lane),
            iou: said.ious()[lane],
            pointer: self.left(&self.pointer, lane * pointer, pointer),
        }
    }

    /// The logits that a decoder run gave the object in `lane`, which are on the host.
    pub(crate) fn low_res(&self, seat: usize, lane: usize) -> &[f32] {
        self.said[seat].low_res(lane, self.mask_elements)
    }

    /// Whether the model wants to remember a tracked frame of which that was said.
    pub(crate) fn is_worth(&self, seat: usize, lane: usize) -> bool {
        let score = self.said[seat].score(lane);
        self.spec.memory.min_object_score.is_none_or(|least| score > least)
    }

    /// The last memory made of the object in `lane`, `[1,T,C]`.
    pub(crate) fn memory(&self, lane: usize) -> Left<'_> {
        let size = self.memory.len() / self.lanes;
        self.left(&self.memory, lane * size, size)
    }

    fn left<'a>(&self, values: &'a Slab, start: usize, len: usize) -> Left<'a> {
        if self.ground.is_device() { Left::InPlace } else { Left::Values(&values.host()[start..start + len]) }
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

    /// `image_encoder` on `image`, or on what the intake holds.
    pub(crate) fn encode(&mut self, image: Option<&[f32]>, features: &mut [Slab]) -> Result<(), EngineError> {
        let Some(encoder) = &mut self.bound.image_encoder else {
            return Err(EngineError::new(Kind::Run, GraphName::ImageEncoder, "it to be here", "split off"));
        };
        timed(&mut self.times.image_encoder, || encoder.encode(&self.intake, image, features))?;
        self.intake.track_after()
    }

    /// Takes `image_encoder` out, to be run elsewhere.
    pub(crate) fn take_image_encoder(&mut self) -> Option<Bound> {
        self.bound.image_encoder.take()
    }

    /// Buffers for a frame's features.
    pub(crate) fn feature_buffers(&self) -> Result<Vec<Slab>, EngineError> {
        feature_buffers(&self.ground, self.levels())
    }

    /// Sets `prev_low_res_mask` for a frame that shows `view` from logits that cover their own part of the
    /// picture; with no mask before, it is 0, which says nothing either way.
    pub(crate) fn set_prev_mask(
        &mut self,
        lane: usize,
        logits: Option<(&[f32], NormBox)>,
        view: NormBox,
    ) -> Result<(), EngineError> {
        let bound = &self.bound;
        let taken = [&bound.memory_attention, &bound.decoder_track, &bound.decoder_prompt];
        if !taken.iter().any(|graph| graph.takes_prev_mask()) {
            return Ok(());
        }
        let start = lane * self.mask_elements;
        let prev_mask = &mut self.prev_mask.host_mut()[start..][..self.mask_elements];
        match logits {
            Some((logits, from)) if from != view => {
                let (width, height) = (self.spec.masks.width_px, self.spec.masks.height_px);
                view::resample(logits, from, prev_mask, view, width, height);
                prev_mask.iter_mut().for_each(|v| *v = v.clamp(-LOGIT_LIMIT, LOGIT_LIMIT));
            }
            other => fill_clamped(prev_mask, other.map(|(logits, _)| logits)),
        }
        self.prev_mask.tell(&self.ground, start, self.mask_elements)
    }

    /// The window for what is no part of the frame under way.
    pub(crate) fn window_aside(&self) -> usize {
        self.windows.len() - 1
    }

    /// Puts what an object attends to on frame `tick` of its own clock in a window's lane.
    pub(crate) fn gather(
        &mut self,
        window: usize,
        lane: usize,
        bank: &Bank,
        tick: u64,
    ) -> Result<(), EngineError> {
        self.windows[window].gather(&self.ground, lane, bank, tick)
    }

    /// `memory_attention` for the objects that were gathered in a window, in lanes from 0.
    pub(crate) fn attend<'a>(
        &mut self,
        features: &[Slab],
        window: usize,
        banks: impl ExactSizeIterator<Item = &'a Bank>,
    ) -> Result<(), EngineError> {
        let (count, window) = (banks.len(), &mut self.windows[window]);
        let slots = window.lay_out(&self.ground, banks, self.bound.open_slots)?;
        let [mem, tpos_idx, mem_mask, obj_ptrs, ptr_tdiff, ptr_mask] =
            window.tensors(&self.ground, count, slots)?;
        let prev_mask = (Source::PrevMask, self.prev_mask.given(0, count * self.mask_elements)?);
        let tensors = [mem, tpos_idx, mem_mask, obj_ptrs, ptr_tdiff, ptr_mask, prev_mask];
        let given = Given { features, slots, tensors: &tensors };
        let size = self.pix_feat.len() / self.lanes;
        let outputs = &mut [Some(self.pix_feat.place(0, count * size)?)];
        let time = &mut self.times.memory_attention;
        timed(time, || self.bound.memory_attention.run(count, &given, outputs))
    }

    /// `decoder_track` for the objects in lanes up to `count`; gives the seat of what it says.
    pub(crate) fn decode_track(
        &mut self,
        features: &[Slab],
        count: usize,
        places: &Places,
    ) -> Result<usize, EngineError> {
        let seat = self.take_seat(count);
        let (mask, pix_feat) = (count * self.mask_elements, count * (self.pix_feat.len() / self.lanes));
        let tensors = [
            (Source::PixFeat, self.pix_feat.given(0, pix_feat)?),
            (Source::PrevMask, self.prev_mask.given(0, mask)?),
        ];
        let given = Given { features, tensors: &tensors, ..Given::default() };
        let size = self.pointer.len() / self.lanes;
        let [low_res, iou, score] = self.said[seat].places(count, self.mask_elements)?;
        let pointer = place(&mut self.pointer, &places.pointers, count * size)?;
        let outputs = &mut [low_res, iou, score, Some(pointer)];
        timed(&mut self.times.decoder, || self.bound.decoder_track.run(count, &given, outputs))?;
        move_to(&self.ground, &self.pointer, &places.pointers, size)?;
        self.check_numbers("decoder_track", seat)?;
        Ok(seat)
    }

    /// `memory_encoder` on what the decoder said of the objects in lanes up to `count`.
    pub(crate) fn encode_memory(
        &mut self,
        features: &[Slab],
        seat: usize,
        count: usize,
        prompted: bool,
        places: &Places,
    ) -> Result<(), EngineError> {
        let said = &self.said[seat].values;
        let tensors = [
            (Source::LowResMask, said.given(LOGITS, count * self.mask_elements)?),
            (Source::ObjectScore, said.given(SCORES, count)?),
            (Source::Binarize, self.flags.floats(prompted, count)?),
        ];
        let given = Given { features, tensors: &tensors, ..Given::default() };
        let size = self.memory.len() / self.lanes;
        let outputs = &mut [Some(place(&mut self.memory, &places.memories, count * size)?)];
        timed(&mut self.times.memory_encoder, || self.bound.memory_encoder.run(count, &given, outputs))?;
        move_to(&self.ground, &self.memory, &places.memories, size)?;
        if self.spec.memory.round_to_bf16 {
            places.memories.iter().try_for_each(|memory| self.ground.round_to_bf16(memory))?;
        }
        Ok(())
    }

    /// On the host, at once; on a device [`Graphs::collect`] does it for all.
    fn check_numbers(&self, graph: &str, seat: usize) -> Result<(), EngineError> {
        if self.ground.is_device() {
            return Ok(());
        }
        self.said[seat].check(graph, self.mask_elements)
    }
}

/// Buffers for feature levels.
pub(crate) fn feature_buffers(ground: &Ground, levels: &[(String, Shape)]) -> Result<Vec<Slab>, EngineError> {
    levels.iter().map(|(_, shape)| ground.slab(shape.elements())).collect()
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
