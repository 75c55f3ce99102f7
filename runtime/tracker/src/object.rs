//! One object: what the last frames said of it, its memories, and the prompts that may have to be given again.

use sightline_core::{ObjectId, TrackState};
use sightline_engine_api::ModelSpec;

use crate::{
    ObjectView,
    bank::{Bank, BankSizes, Window},
    prompt::Ask,
};

/// Corrections that can be replayed: those on the kept frames. More are refused.
pub(crate) const MAX_CORRECTIONS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Seen {
    tick: u64,
    score: f32,
    iou: f32,
}

/// What a frame said of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoded<'a> {
    pub(crate) low_res: &'a [f32],
    pub(crate) score: f32,
    pub(crate) iou: f32,
    pub(crate) pointer: &'a [f32],
}

/// One object's state. All of it is allocated here and none of it grows.
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) bank: Bank,
    pub(crate) window: Window,
    /// Only ever clicked on: nobody said how far it reaches, and the model may have taken a part for the whole.
    pub(crate) clicked: bool,
    masks: Vec<f32>,
    mask_elements: usize,
    seen: Vec<Option<Seen>>,
    corrections: Vec<(u64, Ask)>,
}

impl Object {
    pub(crate) fn new(id: ObjectId, spec: &ModelSpec, history: usize) -> Self {
        let sizes = BankSizes::new(spec, history);
        let mask_elements = spec.masks.height_px * spec.masks.width_px;
        // The kept frames, the one before them for `prev_low_res_mask`, and the one under way.
        let masks = history + 2;
        Self {
            id,
            bank: Bank::new(sizes),
            window: Window::new(sizes),
            clicked: true,
            masks: vec![0.0; masks * mask_elements],
            mask_elements,
            seen: vec![None; masks],
            corrections: Vec::new(),
        }
    }

    /// Becomes a new object; keeps the buffers.
    pub(crate) fn reset(&mut self, id: ObjectId) {
        (self.id, self.clicked) = (id, true);
        self.bank.reset();
        self.seen.fill(None);
        self.corrections.clear();
    }

    /// Becomes a copy of `other`. The window is left alone: it knows what it holds.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        (self.id, self.clicked) = (other.id, other.clicked);
        self.bank.copy_from(&other.bank);
        self.masks.copy_from_slice(&other.masks);
        self.seen.copy_from_slice(&other.seen);
        self.corrections.clone_from(&other.corrections);
    }

    /// Bytes held, but for the prompts in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.bank.bytes()
            + self.window.bytes()
            + 4 * self.masks.capacity()
            + size_of::<Option<Seen>>() * self.seen.capacity()
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.seen.len() as u64) as usize
    }

    fn seen(&self, tick: u64) -> Option<Seen> {
        self.seen[self.slot(tick)].filter(|seen| seen.tick == tick)
    }

    /// Whether the object was tracked or prompted on this frame.
    pub(crate) fn knows(&self, tick: u64) -> bool {
        self.seen(tick).is_some()
    }

    /// The mask logits on a frame.
    pub(crate) fn mask(&self, tick: u64) -> Option<&[f32]> {
        self.seen(tick).map(|_| &self.masks[self.slot(tick) * self.mask_elements..][..self.mask_elements])
    }

    /// Stores what a frame said, in place of what it said before.
    pub(crate) fn put(&mut self, tick: u64, cond: bool, decoded: Decoded<'_>, memory: Option<(&[f32], u64)>) {
        let slot = self.slot(tick);
        self.masks[slot * self.mask_elements..][..self.mask_elements].copy_from_slice(decoded.low_res);
        self.seen[slot] = Some(Seen { tick, score: decoded.score, iou: decoded.iou });
        self.bank.put(tick, cond, memory, decoded.pointer);
    }

    /// Undoes what a frame that failed under way has left.
    pub(crate) fn forget(&mut self, tick: u64) {
        let slot = self.slot(tick);
        if self.knows(tick) {
            self.seen[slot] = None;
        }
        self.bank.forget(tick);
        self.corrections.retain(|(at, _)| *at != tick);
    }

    /// Remembers a correction for as long as its frame is kept, to give it again when an earlier frame is prompted.
    pub(crate) fn log(&mut self, tick: u64, ask: Ask) {
        self.corrections.push((tick, ask));
    }

    /// Whether the log is full.
    pub(crate) fn log_is_full(&self) -> bool {
        self.corrections.len() >= MAX_CORRECTIONS
    }

    /// Drops corrections of frames before `oldest`.
    pub(crate) fn prune(&mut self, oldest: u64) {
        self.corrections.retain(|(tick, _)| *tick >= oldest);
    }

    /// Takes the corrections of a frame out, first one first.
    pub(crate) fn take_corrections(&mut self, tick: u64) -> Vec<Ask> {
        let (of_frame, others) =
            std::mem::take(&mut self.corrections).into_iter().partition(|(at, _)| *at == tick);
        self.corrections = others;
        let of_frame: Vec<(u64, Ask)> = of_frame;
        of_frame.into_iter().map(|(_, ask)| ask).collect()
    }

    /// The object as a frame shows it.
    pub(crate) fn view(&self, tick: u64) -> Option<ObjectView<'_>> {
        let seen = self.seen(tick)?;
        let low_res = self.mask(tick)?;
        let present = seen.score > 0.0 && low_res.iter().any(|logit| *logit > 0.0);
        let state = if present { TrackState::Tracking } else { TrackState::Lost };
        Some(ObjectView {
            id: self.id,
            object_score: seen.score,
            iou: seen.iou,
            low_res,
            state,
            clicked: self.clicked,
        })
    }
}
