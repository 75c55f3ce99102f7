//! One object: what the last frames said of it, its memories, and the prompts that may have to be given again.

use std::sync::Arc;

use sightline_core::{NormBox, ObjectId, Rle, TrackState};
use sightline_engine_api::{DeviceTensor, EngineError, ModelSpec};

use crate::{
    ObjectView,
    bank::{Bank, BankSizes, Left},
    found::Found,
    prompt::Ask,
    slab::Ground,
    slots::Slots,
};

/// Corrections that can be replayed: those on the kept frames. More are refused.
pub(crate) const MAX_CORRECTIONS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// By the object's clock.
    tick: u64,
    score: f32,
    iou: f32,
    /// What the logits cover of the picture.
    view: NormBox,
    /// Whether one is positive, where the host does not have them.
    positive: Option<bool>,
}

/// Mask logits, `[1,1,h,w]`.
#[derive(Debug, Clone)]
pub(crate) enum Logits<'a> {
    Host(&'a [f32]),
    Device(DeviceTensor),
}

/// What a frame said of an object.
#[derive(Debug, Clone)]
pub(crate) struct Decoded<'a> {
    pub(crate) low_res: Logits<'a>,
    pub(crate) score: f32,
    pub(crate) iou: f32,
    pub(crate) pointer: Left<'a>,
}

/// Whether the memory that a frame leaves is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The frame was prompted.
    Always,
    /// If the object is there, as far as the model asks for it.
    IfWorth,
    /// The frame is passed by.
    Never,
}

/// What graphs have been told to make of a frame, and where they leave it: it is the object's once the frame is known to
/// be good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) tick: u64,
    /// Which of the frame's decoder runs, and the object's lane in it.
    pub(crate) seat: usize,
    pub(crate) lane: usize,
    pub(crate) view: NormBox,
    pub(crate) cond: bool,
    pub(crate) keep: Keep,
}

/// One object's state. All of it is allocated here and none of it grows.
///
/// It keeps time by its own clock, which counts the frames *it* was tracked on: an object that caught up by leaving
/// frames out lags behind the tracker's ticks by their number, and its memory has no holes. Every call takes the
/// tracker's ticks.
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) bank: Bank,
    pending: Option<Pending>,
    /// Ticks its clock lags behind the tracker's.
    lag: u64,
    /// The first tick the lag holds for: of frames before it, the object knows nothing.
    since: u64,
    /// The frame it was tracked or prompted on last.
    last: u64,
    /// That frame was tracked without being remembered: the next one takes its place in time.
    passing: bool,
    /// The newest conditioning frame, and the one before it.
    prompted: [Option<u64>; 2],
    /// Only ever clicked on: nobody said how far it reaches, and the model may have taken a part for the whole.
    pub(crate) clicked: bool,
    /// Logits: the kept frames', those of the one before them, and of the one under way.
    masks: Slots,
    mask_elements: usize,
    /// Its mask at the picture's size, and the frame it is of, where masks are made on a device.
    found: Option<(u64, Arc<Rle>)>,
    seen: Vec<Option<Seen>>,
    corrections: Vec<(u64, Ask)>,
}

impl Object {
    pub(crate) fn new(id: ObjectId, spec: &ModelSpec, history: usize) -> Self {
        Self::with(id, Bank::new(BankSizes::new(spec, history)), None, spec, history)
    }

    /// Frames whose logits are kept: those of the history, the one before them for `prev_low_res_mask`, and the one
    /// under way.
    pub(crate) fn mask_slots(history: usize) -> usize {
        history + 2
    }

    /// Remembers in `bank`, and keeps logits in `masks` or else on the host.
    pub(crate) fn with(
        id: ObjectId,
        bank: Bank,
        masks: Option<Slots>,
        spec: &ModelSpec,
        history: usize,
    ) -> Self {
        let mask_elements = spec.masks.height_px * spec.masks.width_px;
        let slots = Self::mask_slots(history);
        Self {
            id,
            bank,
            pending: None,
            lag: 0,
            since: 0,
            last: 0,
            passing: false,
            prompted: [None; 2],
            clicked: true,
            masks: masks.unwrap_or_else(|| Slots::new(slots * mask_elements, false)),
            mask_elements,
            found: None,
            seen: vec![None; slots],
            corrections: Vec::new(),
        }
    }

    /// Becomes a new object; keeps the buffers.
    pub(crate) fn reset(&mut self, id: ObjectId) {
        (self.id, self.clicked) = (id, true);
        (self.lag, self.since) = (0, 0);
        (self.last, self.passing, self.prompted) = (0, false, [None; 2]);
        self.bank.reset();
        (self.pending, self.found) = (None, None);
        self.seen.fill(None);
        self.corrections.clear();
    }

    /// Becomes a copy of `other`.
    pub(crate) fn copy_from(&mut self, ground: &Ground, other: &Self) -> Result<(), EngineError> {
        (self.id, self.clicked) = (other.id, other.clicked);
        (self.lag, self.since) = (other.lag, other.since);
        (self.last, self.passing, self.prompted) = (other.last, other.passing, other.prompted);
        self.pending = other.pending;
        self.found.clone_from(&other.found);
        self.masks.copy_used(ground, &other.masks, &other.seen, self.mask_elements)?;
        self.seen.copy_from_slice(&other.seen);
        self.corrections.clone_from(&other.corrections);
        self.bank.copy_from(ground, &other.bank)
    }

    /// Bytes held on the host, but for the prompts in the log.
    pub(crate) fn bytes(&self) -> usize {
        self.bank.bytes() + self.masks.bytes() + size_of::<Option<Seen>>() * self.seen.capacity()
    }

    /// Forgets all but the conditioning frames, which must lie before `tick`, to be prompted on that frame next.
    pub(crate) fn start_again(&mut self, ground: &Ground, tick: u64) -> Result<(), EngineError> {
        let last = self.bank.keep_conds(ground)?;
        let local = last.map_or(0, |last| last + 1).max(tick.saturating_sub(self.lag));
        (self.lag, self.since) = (tick - local, tick);
        self.passing = false;
        self.seen.fill(None);
        self.corrections.clear();
        Ok(())
    }

    /// Goes from frame `from` to frame `to` as if none lay between them.
    pub(crate) fn leave_out(&mut self, from: u64, to: u64) {
        if to > from + 1 {
            (self.lag, self.since) = (self.lag + to - from - 1, to);
        }
    }

    /// Frame `tick` is next. If the one before was not to be remembered, its clock stands still: what it remembers
    /// does not age, and of that frame nothing stays but the mask that this one follows.
    pub(crate) fn arrive(&mut self, ground: &Ground, tick: u64) -> Result<(), EngineError> {
        if tick <= self.last || !std::mem::take(&mut self.passing) {
            return Ok(());
        }
        let from = self.local(self.last);
        if let (Some(seen), Some(to)) = (self.seen(from), from.checked_sub(1)) {
            let (slot, place) = (self.slot(from), self.slot(to));
            self.seen[slot] = None;
            self.seen[place] = Some(Seen { tick: to, ..seen });
            (self.lag, self.since) = (self.lag + 1, tick);
            self.masks.shift(ground, slot, place, self.mask_elements)?;
        }
        Ok(())
    }

    /// Whether the object can be prompted on this frame with everything it remembered then.
    pub(crate) fn remembers(&self, tick: u64) -> bool {
        tick >= self.since
    }

    /// Whether it was prompted for the first time on a frame after this one.
    pub(crate) fn has_cond_after(&self, tick: u64) -> bool {
        self.prompted[0].is_some_and(|prompted| prompted > tick)
    }

    /// By the object's own clock.
    pub(crate) fn local(&self, tick: u64) -> u64 {
        tick - self.lag
    }

    fn slot(&self, local: u64) -> usize {
        (local % self.seen.len() as u64) as usize
    }

    fn seen(&self, local: u64) -> Option<Seen> {
        self.seen[self.slot(local)].filter(|seen| seen.tick == local)
    }

    /// What graphs have been told to make of a frame.
    pub(crate) fn pending(&self) -> Option<Pending> {
        self.pending
    }

    /// What graphs have been told to make of this frame.
    pub(crate) fn pending_on(&self, tick: u64) -> Option<Pending> {
        self.pending.filter(|pending| pending.tick == tick)
    }

    /// Graphs have been told to make this of a frame.
    pub(crate) fn expect(&mut self, pending: Pending) {
        self.pending = Some(pending);
    }

    /// What there is to be had of the graphs.
    pub(crate) fn take_pending(&mut self) -> Option<Pending> {
        self.pending.take()
    }

    /// Whether the object was tracked or prompted on this frame.
    pub(crate) fn knows(&self, tick: u64) -> bool {
        self.pending_on(tick).is_some() || self.remembers(tick) && self.seen(self.local(tick)).is_some()
    }

    /// Whether this is a conditioning frame.
    pub(crate) fn is_cond(&self, tick: u64) -> bool {
        match self.pending_on(tick) {
            Some(pending) => pending.cond,
            None => self.remembers(tick) && self.bank.is_cond(self.local(tick)),
        }
    }

    /// Where on the device its memory and its pointer of a frame go, which are then free to be written.
    pub(crate) fn make_places(
        &mut self,
        ground: &Ground,
        tick: u64,
    ) -> Result<(Option<DeviceTensor>, Option<DeviceTensor>), EngineError> {
        let tick = self.local(tick);
        self.bank.make_room(ground, tick)?;
        Ok((self.bank.memory_place(tick), self.bank.pointer_place(tick)))
    }

    /// The mask logits on a frame.
    pub(crate) fn mask(&self, tick: u64) -> Option<Logits<'_>> {
        let local = self.local(tick);
        let (slot, _) = (self.slot(local), self.seen(local)?);
        match self.masks.device(slot, self.mask_elements) {
            Some(tensor) => Some(Logits::Device(tensor)),
            None => self.masks.host(slot, self.mask_elements).map(Logits::Host),
        }
    }

    /// The logits on the frame it was tracked on before this one, and what they cover of the picture; `None` also where
    /// the host does not have them.
    pub(crate) fn previous(&self, tick: u64) -> Option<(&[f32], NormBox)> {
        let local = self.local(tick).checked_sub(1)?;
        let seen = self.seen(local)?;
        Some((self.masks.host(self.slot(local), self.mask_elements)?, seen.view))
    }

    /// Stores what a frame said, in place of what it said before, under a number that no other frame's has.
    pub(crate) fn put(
        &mut self,
        ground: &Ground,
        frame: Pending,
        decoded: Decoded<'_>,
        found: Option<Found>,
        memory: Option<Left<'_>>,
        serial: u64,
    ) -> Result<(), EngineError> {
        let Pending { tick, view, cond, .. } = frame;
        (self.last, self.passing) = (tick, frame.keep == Keep::Never);
        if cond && self.prompted[0] != Some(tick) {
            self.prompted = [Some(tick), self.prompted[0]];
        }
        let tick = self.local(tick);
        let slot = self.slot(tick);
        match (&decoded.low_res, self.masks.device(slot, self.mask_elements)) {
            (Logits::Device(from), Some(to)) => ground.copy(from, &to)?,
            (Logits::Host(from), _) => self.masks.write(slot, from),
            _ => {} // one tracker keeps them on one ground
        }
        let positive = found.as_ref().map(|found| found.positive);
        self.found = found.and_then(|found| Some((tick, found.mask?)));
        self.seen[slot] = Some(Seen { tick, score: decoded.score, iou: decoded.iou, view, positive });
        self.bank.put(ground, tick, cond, serial, memory, decoded.pointer)
    }

    /// Undoes what a frame that failed under way has left.
    pub(crate) fn forget(&mut self, tick: u64) {
        self.pending = None;
        let local = self.local(tick);
        let slot = self.slot(local);
        if self.knows(tick) {
            self.seen[slot] = None;
        }
        self.bank.forget(local);
        if self.prompted[0] == Some(tick) {
            self.prompted = [self.prompted[1], None];
        }
        self.corrections.retain(|(at, _)| *at != local);
    }

    /// Remembers a correction for as long as its frame is kept, to give it again when an earlier frame is prompted.
    pub(crate) fn log(&mut self, tick: u64, ask: Ask) {
        self.corrections.push((self.local(tick), ask));
    }

    /// Forgets the corrections.
    pub(crate) fn drop_corrections(&mut self) {
        self.corrections.clear();
    }

    /// Whether the log is full.
    pub(crate) fn log_is_full(&self) -> bool {
        self.corrections.len() >= MAX_CORRECTIONS
    }

    /// Drops corrections of frames before `oldest`.
    pub(crate) fn prune(&mut self, oldest: u64) {
        let oldest = oldest.saturating_sub(self.lag);
        self.corrections.retain(|(tick, _)| *tick >= oldest);
    }

    /// Takes the corrections of a frame out, first one first.
    pub(crate) fn take_corrections(&mut self, tick: u64) -> Vec<Ask> {
        let local = self.local(tick);
        let (of_frame, others) =
            std::mem::take(&mut self.corrections).into_iter().partition(|(at, _)| *at == local);
        self.corrections = others;
        let of_frame: Vec<(u64, Ask)> = of_frame;
        of_frame.into_iter().map(|(_, ask)| ask).collect()
    }

    /// Its mask on a frame, where masks are made on a device.
    fn found(&self, tick: u64) -> Option<&Arc<Rle>> {
        let local = self.local(tick);
        self.found.as_ref().filter(|(tick, _)| *tick == local).map(|(_, mask)| mask)
    }

    /// Its logits on a frame, if they are on a device and it is there but has no mask of this size yet.
    pub(crate) fn lacks_mask(&self, tick: u64, (width_px, height_px): (u32, u32)) -> Option<DeviceTensor> {
        let seen = self.seen(self.local(tick))?;
        let has =
            self.found(tick).is_some_and(|mask| (mask.width_px(), mask.height_px()) == (width_px, height_px));
        match self.mask(tick)? {
            Logits::Device(logits) if !has && seen.score > 0.0 && seen.positive == Some(true) => Some(logits),
            _ => None,
        }
    }

    /// Takes its mask on a frame.
    pub(crate) fn take_mask(&mut self, tick: u64, mask: Arc<Rle>) {
        self.found = Some((self.local(tick), mask));
    }

    /// The object as a frame shows it.
    pub(crate) fn view(&self, tick: u64) -> Option<ObjectView<'_>> {
        let seen = self.seen(self.local(tick))?;
        let low_res = match self.mask(tick)? {
            Logits::Host(logits) => logits,
            Logits::Device(_) => &[],
        };
        let positive = seen.positive.unwrap_or_else(|| low_res.iter().any(|logit| *logit > 0.0));
        let present = seen.score > 0.0 && positive;
        let state = if present { TrackState::Tracking } else { TrackState::Lost };
        Some(ObjectView {
            id: self.id,
            object_score: seen.score,
            iou: seen.iou,
            low_res,
            mask: self.found(tick),
            view: seen.view,
            state,
            clicked: self.clicked,
        })
    }
}
