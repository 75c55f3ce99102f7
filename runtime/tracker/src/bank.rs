//! One object's memories and pointers, and the part of them that a frame attends to.
//!
//! [`Bank`] is a ring of the last frames' memories, long enough that every frame whose features are kept can be
//! tracked again from exactly what it saw the first time: `(recent - 1) * stride + 1` frames back, plus the
//! history. One slot more is there for the frame under way, so that a failing engine loses nothing. Conditioning
//! frames that leave the ring are copied into `max_cond` pins. Nothing grows.
//!
//! [`Window`] is the `[1,NM,T,C]` tensor the graph takes. It remembers which memory each position holds, and the
//! graph does not care about the order within a group, so a frame copies the one memory that is new, not all of
//! them. Ages are counted in frames tracked, not in frames that entered: dropped frames leave no holes.

use half::{bf16, slice::HalfFloatSliceExt};
use sightline_engine_api::ModelSpec;

/// Memories of one size, stored as `memory.dtype` says.
enum Slots {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Slots {
    fn new(elements: usize, round_to_bf16: bool) -> Self {
        if round_to_bf16 { Self::Bf16(vec![bf16::ZERO; elements]) } else { Self::F32(vec![0.0; elements]) }
    }

    fn write(&mut self, slot: usize, memory: &[f32]) {
        let at = slot * memory.len()..(slot + 1) * memory.len();
        match self {
            Self::F32(data) => data[at].copy_from_slice(memory),
            Self::Bf16(data) => data[at].convert_from_f32_slice(memory),
        }
    }

    fn read(&self, slot: usize, memory: &mut [f32]) {
        let at = slot * memory.len()..(slot + 1) * memory.len();
        match self {
            Self::F32(data) => memory.copy_from_slice(&data[at]),
            Self::Bf16(data) => data[at].convert_to_f32_slice(memory),
        }
    }

    fn copy(&mut self, to: usize, other: &Self, from: usize, elements: usize) {
        let (to, from) = (to * elements, from * elements);
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a[to..to + elements].copy_from_slice(&b[from..from + elements]),
            (Self::Bf16(a), Self::Bf16(b)) => a[to..to + elements].copy_from_slice(&b[from..from + elements]),
            _ => {} // one model has one type
        }
    }

    fn copy_all(&mut self, other: &Self) {
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a.copy_from_slice(b),
            (Self::Bf16(a), Self::Bf16(b)) => a.copy_from_slice(b),
            _ => {}
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::F32(data) => data.capacity() * 4,
            Self::Bf16(data) => data.capacity() * 2,
        }
    }
}

/// A stored memory: whose frame it is, and a number no other memory of the tracker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    tick: u64,
    serial: u64,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Ring(usize),
    Pin(usize),
}

/// The sizes a bank is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BankSizes {
    max_cond: usize,
    recent: usize,
    stride: u64,
    /// Elements of a memory.
    memory: usize,
    round_to_bf16: bool,
    /// Pointer slots for tracked frames, and channels; zeros if the model has none.
    pointer_recent: usize,
    pointer: usize,
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
    pin_pointers: Vec<f32>,
    pointers: Vec<f32>,
    pointer_ticks: Vec<Option<u64>>,
    /// Conditioning frames still kept, ascending.
    conds: Vec<u64>,
}

impl Bank {
    pub(crate) fn new(sizes: BankSizes) -> Self {
        Self {
            ring: Slots::new(sizes.ring * sizes.memory, sizes.round_to_bf16),
            ring_tags: vec![None; sizes.ring],
            pins: Slots::new(sizes.max_cond * sizes.memory, sizes.round_to_bf16),
            pin_tags: vec![None; sizes.max_cond],
            pin_pointers: vec![0.0; sizes.max_cond * sizes.pointer],
            pointers: vec![0.0; sizes.pointer_ring * sizes.pointer],
            pointer_ticks: vec![None; sizes.pointer_ring],
            conds: Vec::with_capacity(sizes.max_cond + sizes.ring + 1),
            sizes,
        }
    }

    /// Forgets everything; keeps the buffers.
    pub(crate) fn reset(&mut self) {
        self.ring_tags.fill(None);
        self.pin_tags.fill(None);
        self.pointer_ticks.fill(None);
        self.conds.clear();
    }

    /// Becomes a copy of `other`.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.ring.copy_all(&other.ring);
        self.ring_tags.copy_from_slice(&other.ring_tags);
        self.pins.copy_all(&other.pins);
        self.pin_tags.copy_from_slice(&other.pin_tags);
        self.pin_pointers.copy_from_slice(&other.pin_pointers);
        self.pointers.copy_from_slice(&other.pointers);
        self.pointer_ticks.copy_from_slice(&other.pointer_ticks);
        self.conds.clone_from(&other.conds);
    }

    /// Bytes held; the same for ever.
    pub(crate) fn bytes(&self) -> usize {
        self.ring.bytes()
            + self.pins.bytes()
            + 4 * (self.pin_pointers.capacity() + self.pointers.capacity())
            + size_of::<Option<Stored>>() * (self.ring_tags.capacity() + self.pin_tags.capacity())
            + size_of::<Option<u64>>() * self.pointer_ticks.capacity()
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
    pub(crate) fn keep_conds(&mut self) -> Option<u64> {
        for cond in self.conds.clone() {
            let slot = self.ring_slot(cond);
            if let Some(stored) = self.ring_tags[slot].filter(|stored| stored.tick == cond) {
                self.pin(stored, slot);
            }
        }
        self.ring_tags.fill(None);
        self.pointer_ticks.fill(None);
        self.newest_cond()
    }

    /// Stores what frame `tick` left behind, in place of what it left before. `memory` is `None` where the model's
    /// gate kept it out.
    pub(crate) fn put(&mut self, tick: u64, cond: bool, memory: Option<(&[f32], u64)>, pointer: &[f32]) {
        let slot = self.ring_slot(tick);
        if let Some(leaving) = self.ring_tags[slot]
            && leaving.tick != tick
            && self.is_cond(leaving.tick)
        {
            self.pin(leaving, slot);
        }
        self.ring_tags[slot] = None;
        if let Some((memory, serial)) = memory {
            self.ring.write(slot, memory);
            self.ring_tags[slot] = Some(Stored { tick, serial });
        }
        if self.sizes.pointer > 0 {
            let slot = self.pointer_slot(tick);
            self.pointers[slot * self.sizes.pointer..][..self.sizes.pointer].copy_from_slice(pointer);
            self.pointer_ticks[slot] = Some(tick);
        }
        match self.conds.binary_search(&tick) {
            Err(at) if cond => self.conds.insert(at, tick),
            Ok(at) if !cond => {
                self.conds.remove(at);
            }
            _ => {}
        }
    }

    /// Undoes the `put` of the newest frame.
    pub(crate) fn forget(&mut self, tick: u64) {
        let (slot, pointer_slot) = (self.ring_slot(tick), self.pointer_slot(tick));
        if self.ring_tags[slot].is_some_and(|stored| stored.tick == tick) {
            self.ring_tags[slot] = None;
        }
        if self.pointer_ticks[pointer_slot] == Some(tick) {
            self.pointer_ticks[pointer_slot] = None;
        }
        self.conds.retain(|cond| *cond != tick);
    }

    /// Keeps a conditioning frame's memory beyond the ring: the first and the newest ones are kept, so the frame
    /// that gives way is the oldest but the first (with one slot, the oldest).
    fn pin(&mut self, leaving: Stored, ring_slot: usize) {
        let tick = |pin: &usize| self.pin_tags[*pin].map(|stored| stored.tick);
        let oldest = (0..self.pin_tags.len()).min_by_key(tick).unwrap_or(0);
        let second = (0..self.pin_tags.len()).filter(|pin| *pin != oldest).min_by_key(tick);
        // An empty pin sorts before all others.
        let pin = if self.pin_tags[oldest].is_none() { oldest } else { second.unwrap_or(oldest) };
        if let Some(dropped) = self.pin_tags[pin] {
            self.conds.retain(|cond| *cond != dropped.tick);
        }
        self.pins.copy(pin, &self.ring, ring_slot, self.sizes.memory);
        self.pin_tags[pin] = Some(leaving);
        let (width, from) = (self.sizes.pointer, self.pointer_slot(leaving.tick));
        self.pin_pointers[pin * width..][..width].copy_from_slice(&self.pointers[from * width..][..width]);
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
        let pinned = self.pin_tags.iter().position(|tag| tag.is_some_and(|stored| stored.tick == tick));
        let ring = self.ring_slot(tick);
        match (pinned, self.ring_tags[ring]) {
            (Some(pin), _) => self.pin_tags[pin].map(|stored| (Place::Pin(pin), stored.serial)),
            (None, Some(stored)) if stored.tick == tick => Some((Place::Ring(ring), stored.serial)),
            _ => None,
        }
    }

    fn cond_pointer(&self, tick: u64) -> Option<&[f32]> {
        let width = self.sizes.pointer;
        let slot = self.pointer_slot(tick);
        if self.pointer_ticks[slot] == Some(tick) {
            return Some(&self.pointers[slot * width..][..width]);
        }
        let pin = self.pin_tags.iter().position(|tag| tag.is_some_and(|stored| stored.tick == tick))?;
        Some(&self.pin_pointers[pin * width..][..width])
    }
}

struct Wanted {
    place: Place,
    serial: u64,
    tpos: i64,
    placed: bool,
}

/// What a frame attends to, as the graph takes it: for one object, or for several side by side, each `[NM]` then
/// being `[B,NM]`.
pub(crate) struct Window {
    lanes: usize,
    /// `[1,NM,T,C]`
    pub(crate) mem: Vec<f32>,
    /// `[NM]`
    pub(crate) tpos_idx: Vec<i64>,
    /// `[NM]`
    pub(crate) mem_mask: Vec<f32>,
    /// `[1,NP,P]`
    pub(crate) obj_ptrs: Vec<f32>,
    /// `[NP]`, in frames
    pub(crate) ptr_tdiff: Vec<f32>,
    /// `[NP]`
    pub(crate) ptr_mask: Vec<f32>,
    /// Serial of the memory in each position; `None` where it is all zero.
    held: Vec<Option<u64>>,
    wanted: Vec<Wanted>,
}

impl Window {
    pub(crate) fn new(sizes: BankSizes) -> Self {
        Self::side_by_side(sizes, 1)
    }

    /// Room for the windows of `lanes` objects; filled by [`Window::set_lane`].
    pub(crate) fn side_by_side(sizes: BankSizes, lanes: usize) -> Self {
        let slots = sizes.max_cond + sizes.recent;
        let pointers = if sizes.pointer > 0 { sizes.max_cond + sizes.pointer_recent } else { 0 };
        Self {
            lanes,
            mem: vec![0.0; lanes * slots * sizes.memory],
            tpos_idx: vec![0; lanes * slots],
            mem_mask: vec![0.0; lanes * slots],
            obj_ptrs: vec![0.0; lanes * pointers * sizes.pointer],
            ptr_tdiff: vec![0.0; lanes * pointers],
            ptr_mask: vec![0.0; lanes * pointers],
            held: vec![None; slots],
            wanted: Vec::with_capacity(slots),
        }
    }

    /// Puts the first `slots` memories of one object's window among those of several, and its pointers.
    pub(crate) fn set_lane(&mut self, lane: usize, window: &Self, slots: usize) {
        fn put<T: Copy>(lane: usize, all: &mut [T], one: &[T]) {
            all[lane * one.len()..][..one.len()].copy_from_slice(one);
        }
        put(lane, &mut self.mem, window.first(&window.mem, slots));
        put(lane, &mut self.tpos_idx, window.first(&window.tpos_idx, slots));
        put(lane, &mut self.mem_mask, window.first(&window.mem_mask, slots));
        put(lane, &mut self.obj_ptrs, &window.obj_ptrs);
        put(lane, &mut self.ptr_tdiff, &window.ptr_tdiff);
        put(lane, &mut self.ptr_mask, &window.ptr_mask);
    }

    /// Memory slots there are.
    pub(crate) fn slots(&self) -> usize {
        self.held.len()
    }

    /// The memories in use lie in the first of them, with few holes; at least one.
    pub(crate) fn used(&self) -> usize {
        self.mem_mask.iter().rposition(|used| *used > 0.0).map_or(1, |last| last + 1)
    }

    /// The share of `count` times a slot in a tensor that has a value, or a row of them, a slot.
    pub(crate) fn first<'a, T>(&self, tensor: &'a [T], count: usize) -> &'a [T] {
        &tensor[..tensor.len() / (self.lanes * self.slots()) * count]
    }

    /// The first `count` objects' share of a tensor.
    pub(crate) fn share<'a, T>(&self, tensor: &'a [T], count: usize) -> &'a [T] {
        &tensor[..tensor.len() / self.lanes * count]
    }

    /// Bytes held; the same for ever.
    pub(crate) fn bytes(&self) -> usize {
        let floats = self.mem.capacity()
            + self.mem_mask.capacity()
            + self.obj_ptrs.capacity()
            + self.ptr_tdiff.capacity()
            + self.ptr_mask.capacity();
        4 * floats
            + 8 * self.tpos_idx.capacity()
            + size_of::<Option<u64>>() * self.held.capacity()
            + size_of::<Wanted>() * self.wanted.capacity()
    }

    /// Fills itself with what frame `tick` attends to.
    pub(crate) fn gather(&mut self, bank: &Bank, tick: u64) {
        let sizes = bank.sizes;
        self.wanted.clear();
        for cond in bank.selected(tick) {
            if let Some((place, serial)) = bank.cond_place(cond) {
                self.wanted.push(Wanted { place, serial, tpos: sizes.recent as i64, placed: false });
            }
        }
        for k in 1..=sizes.recent as u64 {
            let Some(frame) = sizes.recent_tick(tick, k) else { break };
            let slot = bank.ring_slot(frame);
            let stored = bank.ring_tags[slot].filter(|stored| stored.tick == frame);
            // A conditioning frame the cap left out still counts as a recent one.
            if let Some(Stored { serial, .. }) = stored
                && !bank.selected(tick).any(|cond| cond == frame)
            {
                self.wanted.push(Wanted {
                    place: Place::Ring(slot),
                    serial,
                    tpos: k as i64 - 1,
                    placed: false,
                });
            }
        }
        self.arrange(bank);
        if sizes.pointer > 0 {
            self.gather_pointers(bank, tick);
        }
    }

    /// Makes the positions hold exactly the wanted memories, moving as few as it can.
    fn arrange(&mut self, bank: &Bank) {
        let size = bank.sizes.memory;
        for (position, held) in self.held.iter().enumerate() {
            let wanted = self.wanted.iter_mut().find(|wanted| Some(wanted.serial) == *held);
            (self.tpos_idx[position], self.mem_mask[position]) = (0, 0.0);
            if let Some(wanted) = wanted {
                wanted.placed = true;
                (self.tpos_idx[position], self.mem_mask[position]) = (wanted.tpos, 1.0);
            }
        }
        let mut missing = self.wanted.iter().filter(|wanted| !wanted.placed);
        for (position, held) in self.held.iter_mut().enumerate() {
            if self.mem_mask[position] > 0.0 {
                continue;
            }
            let memory = &mut self.mem[position * size..][..size];
            let Some(wanted) = missing.next() else {
                if held.take().is_some() {
                    memory.fill(0.0);
                }
                continue;
            };
            match wanted.place {
                Place::Ring(slot) => bank.ring.read(slot, memory),
                Place::Pin(pin) => bank.pins.read(pin, memory),
            }
            *held = Some(wanted.serial);
            (self.tpos_idx[position], self.mem_mask[position]) = (wanted.tpos, 1.0);
        }
    }

    fn gather_pointers(&mut self, bank: &Bank, tick: u64) {
        let sizes = bank.sizes;
        let width = sizes.pointer;
        self.obj_ptrs.fill(0.0);
        self.ptr_tdiff.fill(0.0);
        self.ptr_mask.fill(0.0);
        let mut put = |position: usize, pointer: &[f32], age: u64| {
            self.obj_ptrs[position * width..][..width].copy_from_slice(pointer);
            self.ptr_tdiff[position] = age as f32;
            self.ptr_mask[position] = 1.0;
        };
        for (position, cond) in bank.selected(tick).enumerate() {
            if let Some(pointer) = bank.cond_pointer(cond) {
                put(position, pointer, tick - cond);
            }
        }
        for age in 1..=(sizes.pointer_recent as u64).min(tick) {
            let frame = tick - age;
            let slot = bank.pointer_slot(frame);
            if bank.pointer_ticks[slot] == Some(frame) && !bank.selected(tick).any(|cond| cond == frame) {
                let position = sizes.max_cond + age as usize - 1;
                put(position, &bank.pointers[slot * width..][..width], age);
            }
        }
    }
}
