//! One object's memories and pointers: what frames may attend to.
//!
//! [`Bank`] is a ring of the last frames' memories, long enough that every frame whose features are kept can be
//! tracked again from exactly what it saw the first time: `(recent - 1) * stride + 1` frames back, plus the
//! history. One slot more is there for the frame under way, so that a failing engine loses nothing. Conditioning
//! frames that leave the ring are copied into `max_cond` pins. Nothing grows.
//!
//! On a device the memory encoder and the decoder write their slots themselves ([`Bank::memory_place`]); what they
//! wrote counts once the frame is known to be good and [`Bank::put`] says so.

use sightline_core::DType;
use sightline_engine_api::{DeviceTensor, EngineError, ModelSpec};

use crate::{
    slab::{Ground, Slab},
    slots::Slots,
};

/// What a frame leaves behind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Left<'a> {
    /// These values, to be stored.
    Values(&'a [f32]),
    /// What a graph has written to its place on the device.
    InPlace,
}

/// A stored memory: whose frame it is, and a number no other memory of the tracker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    tick: u64,
    serial: u64,
}

fn of_tick(tags: &[Option<Stored>], tick: u64) -> Option<usize> {
    tags.iter().position(|tag| tag.is_some_and(|stored| stored.tick == tick))
}

/// Where a memory or a pointer is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Ring(usize),
    Pin(usize),
}

impl Place {
    fn among<'a>(self, ring: &'a Slots, pins: &'a Slots) -> (&'a Slots, usize) {
        match self {
            Self::Ring(slot) => (ring, slot),
            Self::Pin(pin) => (pins, pin),
        }
    }
}

/// A memory or pointer that a frame attends to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attended {
    pub(crate) place: Place,
    pub(crate) serial: u64,
    /// `tpos_idx` of a memory; the age in frames of a pointer.
    pub(crate) label: u64,
    /// Its slot where slots go by age.
    pub(crate) slot: usize,
}

/// The sizes a bank is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BankSizes {
    pub(crate) max_cond: usize,
    pub(crate) recent: usize,
    stride: u64,
    /// Elements of a memory.
    pub(crate) memory: usize,
    round_to_bf16: bool,
    /// Pointer slots for tracked frames, and channels; zeros if the model has none.
    pub(crate) pointer_recent: usize,
    pub(crate) pointer: usize,
    /// Slots of the memory ring.
    ring: usize,
    /// Slots of the pointer ring.
    pointer_ring: usize,
}

impl BankSizes {
    pub(crate) fn new(spec: &ModelSpec, history: usize) -> Self {
        let memory = spec.memory;
        let (pointer_recent, pointer) = spec.pointers.map_or((0, 0), |p| (p.recent, p.channels));
        let reach = memory.recent.saturating_sub(1) * memory.stride + 1;
        let ring = reach + history + 1;
        Self {
            max_cond: memory.max_cond,
            recent: memory.recent,
            stride: memory.stride as u64,
            memory: memory.slot_elements(),
            round_to_bf16: memory.round_to_bf16,
            pointer_recent,
            pointer,
            ring,
            pointer_ring: ring.max(history + pointer_recent + 1),
        }
    }

    /// The frame that recent slot `k` (from 1) of frame `tick` holds, as `memory_temporal_stride_for_eval` has it.
    fn recent_tick(&self, tick: u64, k: u64) -> Option<u64> {
        if k == 1 {
            return tick.checked_sub(1);
        }
        let nearest = tick.checked_sub(2)? / self.stride * self.stride;
        nearest.checked_sub((k - 2) * self.stride)
    }
}

/// One object's memories and pointers.
pub(crate) struct Bank {
    sizes: BankSizes,
    ring: Slots,
    ring_tags: Vec<Option<Stored>>,
    pins: Slots,
    pin_tags: Vec<Option<Stored>>,
    pin_pointers: Slots,
    pointers: Slots,
    pointer_tags: Vec<Option<Stored>>,
    /// Conditioning frames still kept, ascending.
    conds: Vec<u64>,
}

impl Bank {
    pub(crate) fn new(sizes: BankSizes) -> Self {
        Self::on(sizes, |slots, elements, round| Slots::new(slots * elements, round))
    }

    /// As many banks as `count` on a device, side by side; none on the host.
    pub(crate) fn on_device(
        ground: &Ground,
        sizes: BankSizes,
        count: usize,
    ) -> Result<Vec<Self>, EngineError> {
        let all = |slots: usize, elements: usize| ground.tensor(DType::F32, slots * elements * count);
        let tensors = [
            all(sizes.ring, sizes.memory)?,
            all(sizes.max_cond, sizes.memory)?,
            all(sizes.max_cond, sizes.pointer)?,
            all(sizes.pointer_ring, sizes.pointer)?,
        ];
        let [Some(ring), Some(pins), Some(pin_pointers), Some(pointers)] = tensors else {
            return Ok(Vec::new());
        };
        let bank = |index: usize| {
            let mut all = [&ring, &pins, &pin_pointers, &pointers].into_iter();
            Self::on(sizes, |_, elements, _| match all.next() {
                Some(all) => {
                    Slots::Device { all: all.clone(), first: index * elements, step: count * elements }
                }
                None => Slots::new(0, false),
            })
        };
        Ok((0..count).map(bank).collect())
    }

    /// `slots` makes so many slots of so many values, rounded or not: ring, pins, their pointers, pointers.
    fn on(sizes: BankSizes, mut slots: impl FnMut(usize, usize, bool) -> Slots) -> Self {
        Self {
            ring: slots(sizes.ring, sizes.memory, sizes.round_to_bf16),
            ring_tags: vec![None; sizes.ring],
            pins: slots(sizes.max_cond, sizes.memory, sizes.round_to_bf16),
            pin_tags: vec![None; sizes.max_cond],
            pin_pointers: slots(sizes.max_cond, sizes.pointer, false),
            pointers: slots(sizes.pointer_ring, sizes.pointer, false),
            pointer_tags: vec![None; sizes.pointer_ring],
            conds: Vec::with_capacity(sizes.max_cond + sizes.ring + 1),
            sizes,
        }
    }

    /// Forgets everything; keeps the buffers.
    pub(crate) fn reset(&mut self) {
        self.ring_tags.fill(None);
        self.pin_tags.fill(None);
        self.pointer_tags.fill(None);
        self.conds.clear();
    }

    /// Becomes a copy of `other`.
    pub(crate) fn copy_from(&mut self, ground: &Ground, other: &Self) -> Result<(), EngineError> {
        let BankSizes { memory, pointer, .. } = self.sizes;
        self.ring.copy_used(ground, &other.ring, &other.ring_tags, memory)?;
        self.ring_tags.copy_from_slice(&other.ring_tags);
        self.pins.copy_used(ground, &other.pins, &other.pin_tags, memory)?;
        if pointer > 0 {
            self.pin_pointers.copy_used(ground, &other.pin_pointers, &other.pin_tags, pointer)?;
            self.pointers.copy_used(ground, &other.pointers, &other.pointer_tags, pointer)?;
        }
        self.pin_tags.copy_from_slice(&other.pin_tags);
        self.pointer_tags.copy_from_slice(&other.pointer_tags);
        self.conds.clone_from(&other.conds);
        Ok(())
    }

    /// Bytes held on the host; the same for ever.
    pub(crate) fn bytes(&self) -> usize {
        let tags = [&self.ring_tags, &self.pin_tags, &self.pointer_tags];
        let slots = [&self.ring, &self.pins, &self.pin_pointers, &self.pointers];
        slots.into_iter().map(Slots::bytes).sum::<usize>()
            + size_of::<Option<Stored>>() * tags.into_iter().map(Vec::capacity).sum::<usize>()
            + size_of::<u64>() * self.conds.capacity()
    }

    fn ring_slot(&self, tick: u64) -> usize {
        (tick % self.sizes.ring as u64) as usize
    }

    fn pointer_slot(&self, tick: u64) -> usize {
        (tick % self.sizes.pointer_ring as u64) as usize
    }

    /// Whether `tick` is a conditioning frame.
    pub(crate) fn is_cond(&self, tick: u64) -> bool {
        self.conds.binary_search(&tick).is_ok()
    }

    /// The newest conditioning frame.
    pub(crate) fn newest_cond(&self) -> Option<u64> {
        self.conds.last().copied()
    }

    /// Forgets all but the conditioning frames, as many as there are pins; gives the newest.
    pub(crate) fn keep_conds(&mut self, ground: &Ground) -> Result<Option<u64>, EngineError> {
        for cond in self.conds.clone() {
            let slot = self.ring_slot(cond);
            if let Some(stored) = self.ring_tags[slot].filter(|stored| stored.tick == cond) {
                self.pin(ground, stored, slot)?;
            }
        }
        self.ring_tags.fill(None);
        self.pointer_tags.fill(None);
        Ok(self.newest_cond())
    }

    /// Makes the slots of frame `tick` free to be written. Nothing that a frame of the history attends to is lost by
    /// it, so that it may be done for a frame that then fails: what leaves is older than all they look back to, and a
    /// conditioning frame is pinned.
    pub(crate) fn make_room(&mut self, ground: &Ground, tick: u64) -> Result<(), EngineError> {
        let slot = self.ring_slot(tick);
        if let Some(leaving) = self.ring_tags[slot].filter(|leaving| leaving.tick != tick) {
            if self.is_cond(leaving.tick) {
                self.pin(ground, leaving, slot)?;
            }
            self.ring_tags[slot] = None;
        }
        let slot = self.pointer_slot(tick);
        if self.pointer_tags[slot].is_some_and(|leaving| leaving.tick != tick) {
            self.pointer_tags[slot] = None;
        }
        Ok(())
    }

    /// Where on the device the memory of frame `tick` goes.
    pub(crate) fn memory_place(&self, tick: u64) -> Option<DeviceTensor> {
        self.ring.device(self.ring_slot(tick), self.sizes.memory)
    }

    /// Where on the device the pointer of frame `tick` goes; `None` if the model has none.
    pub(crate) fn pointer_place(&self, tick: u64) -> Option<DeviceTensor> {
        let width = self.sizes.pointer;
        (width > 0).then(|| self.pointers.device(self.pointer_slot(tick), width)).flatten()
    }

    /// Stores what frame `tick` left behind, in place of what it left before, under a number that no other frame's has.
    /// `memory` is `None` where the model's gate kept it out.
    pub(crate) fn put(
        &mut self,
        ground: &Ground,
        tick: u64,
        cond: bool,
        serial: u64,
        memory: Option<Left<'_>>,
        pointer: Left<'_>,
    ) -> Result<(), EngineError> {
        self.make_room(ground, tick)?;
        let stored = Some(Stored { tick, serial });
        let slot = self.ring_slot(tick);
        if let Some(Left::Values(memory)) = memory {
            self.ring.write(slot, memory);
        }
        self.ring_tags[slot] = memory.and(stored);
        if self.sizes.pointer > 0 {
            let slot = self.pointer_slot(tick);
            if let Left::Values(pointer) = pointer {
                self.pointers.write(slot, pointer);
            }
            self.pointer_tags[slot] = stored;
        }
        match self.conds.binary_search(&tick) {
            Err(at) if cond => self.conds.insert(at, tick),
            Ok(at) if !cond => {
                self.conds.remove(at);
            }
            _ => {}
        }
        Ok(())
    }

    /// Undoes the `put` of the newest frame.
    pub(crate) fn forget(&mut self, tick: u64) {
        let (slot, pointer_slot) = (self.ring_slot(tick), self.pointer_slot(tick));
        if self.ring_tags[slot].is_some_and(|stored| stored.tick == tick) {
            self.ring_tags[slot] = None;
        }
        if self.pointer_tags[pointer_slot].is_some_and(|stored| stored.tick == tick) {
            self.pointer_tags[pointer_slot] = None;
        }
        self.conds.retain(|cond| *cond != tick);
    }

    /// Keeps a conditioning frame's memory beyond the ring: the first and the newest ones are kept, so the frame
    /// that gives way is the oldest but the first (with one slot, the oldest).
    fn pin(&mut self, ground: &Ground, leaving: Stored, ring_slot: usize) -> Result<(), EngineError> {
        let tick = |pin: &usize| self.pin_tags[*pin].map(|stored| stored.tick);
        let oldest = (0..self.pin_tags.len()).min_by_key(tick).unwrap_or(0);
        let second = (0..self.pin_tags.len()).filter(|pin| *pin != oldest).min_by_key(tick);
        // An empty pin sorts before all others.
        let pin = if self.pin_tags[oldest].is_none() { oldest } else { second.unwrap_or(oldest) };
        if let Some(dropped) = self.pin_tags[pin] {
            self.conds.retain(|cond| *cond != dropped.tick);
        }
        self.pins.copy(ground, pin, &self.ring, ring_slot, self.sizes.memory)?;
        self.pin_tags[pin] = Some(leaving);
        let (width, from) = (self.sizes.pointer, self.pointer_slot(leaving.tick));
        if width > 0 {
            self.pin_pointers.copy(ground, pin, &self.pointers, from, width)?;
        }
        Ok(())
    }

    /// The conditioning frames that frame `tick` attends to: those up to now; if there are too many, the first
    /// and the newest, with one slot the newest. The first shows the object as the user chose it, the newest is
    /// the user's last word.
    fn selected(&self, tick: u64) -> impl Iterator<Item = u64> + Clone + '_ {
        let known = &self.conds[..self.conds.partition_point(|cond| *cond <= tick)];
        let room = self.sizes.max_cond;
        let first = if known.len() > room && room > 1 { 1 } else { 0 };
        let newest = known.len().saturating_sub(room - first).max(first);
        known[..first].iter().chain(&known[newest..]).copied()
    }

    fn cond_place(&self, tick: u64) -> Option<(Place, u64)> {
        let ring = self.ring_slot(tick);
        match (of_tick(&self.pin_tags, tick), self.ring_tags[ring]) {
            (Some(pin), _) => self.pin_tags[pin].map(|stored| (Place::Pin(pin), stored.serial)),
            (None, Some(stored)) if stored.tick == tick => Some((Place::Ring(ring), stored.serial)),
            _ => None,
        }
    }

    fn cond_pointer(&self, tick: u64) -> Option<(Place, u64)> {
        let slot = self.pointer_slot(tick);
        if let Some(stored) = self.pointer_tags[slot].filter(|stored| stored.tick == tick) {
            return Some((Place::Ring(slot), stored.serial));
        }
        let pin = of_tick(&self.pin_tags, tick)?;
        self.pin_tags[pin].map(|stored| (Place::Pin(pin), stored.serial))
    }

    /// The memories that frame `tick` attends to.
    pub(crate) fn attended(&self, tick: u64, wanted: &mut Vec<Attended>) {
        wanted.clear();
        let sizes = self.sizes;
        for (slot, cond) in self.selected(tick).enumerate() {
            if let Some((place, serial)) = self.cond_place(cond) {
                wanted.push(Attended { place, serial, label: sizes.recent as u64, slot });
            }
        }
        for k in 1..=sizes.recent as u64 {
            let Some(frame) = sizes.recent_tick(tick, k) else { break };
            let ring = self.ring_slot(frame);
            let stored = self.ring_tags[ring].filter(|stored| stored.tick == frame);
            // A conditioning frame the cap left out still counts as a recent one.
            if let Some(Stored { serial, .. }) = stored
                && !self.selected(tick).any(|cond| cond == frame)
            {
                let (place, slot) = (Place::Ring(ring), sizes.max_cond + k as usize - 1);
                wanted.push(Attended { place, serial, label: k - 1, slot });
            }
        }
    }

    /// The pointers that frame `tick` attends to.
    pub(crate) fn attended_pointers(&self, tick: u64, wanted: &mut Vec<Attended>) {
        wanted.clear();
        let sizes = self.sizes;
        for (slot, cond) in self.selected(tick).enumerate() {
            if let Some((place, serial)) = self.cond_pointer(cond) {
                wanted.push(Attended { place, serial, label: tick - cond, slot });
            }
        }
        for age in 1..=(sizes.pointer_recent as u64).min(tick) {
            let (frame, slot) = (tick - age, sizes.max_cond + age as usize - 1);
            let ring = self.pointer_slot(frame);
            if let Some(stored) = self.pointer_tags[ring].filter(|stored| stored.tick == frame)
                && !self.selected(tick).any(|cond| cond == frame)
            {
                wanted.push(Attended { place: Place::Ring(ring), serial: stored.serial, label: age, slot });
            }
        }
    }

    /// Reads a memory into `to`, from value `start` on.
    pub(crate) fn read(
        &self,
        ground: &Ground,
        place: Place,
        to: &mut Slab,
        start: usize,
    ) -> Result<(), EngineError> {
        let (slots, slot) = place.among(&self.ring, &self.pins);
        slots.read(ground, slot, to, start, self.sizes.memory)
    }

    /// The same of a pointer.
    pub(crate) fn read_pointer(
        &self,
        ground: &Ground,
        place: Place,
        to: &mut Slab,
        start: usize,
    ) -> Result<(), EngineError> {
        let (slots, slot) = place.among(&self.pointers, &self.pin_pointers);
        slots.read(ground, slot, to, start, self.sizes.pointer)
    }
}
