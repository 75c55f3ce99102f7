//! What frames attend to, as memory attention takes it.
//!
//! A window has a lane for each object that may run with others. It remembers which memory each position holds, and the
//! graph does not care about the order within a group, so a frame copies the one memory that is new, not all of them;
//! on a device that is the only copy there is, and positions, masks and ages are all that the host sends. A lane belongs
//! to nobody: an object that comes to another one finds what it needs there or copies it.
//!
//! Ages are counted in frames tracked, not in frames that entered: dropped frames leave no holes.

use sightline_core::{DType, TensorView};
use sightline_engine_api::{DeviceTensor, EngineError, TensorRef};

use crate::{
    bank::{Attended, Bank, BankSizes, Place},
    binder::Source,
    slab::{ALIGN, Ground, Slab},
};

/// Not zero, and nobody's memory: serials begin at 1.
const STALE: Option<u64> = Some(0);

/// Entries of one size in lanes of `stride` entries.
struct Shelf {
    /// Values of an entry.
    size: usize,
    /// Entries a lane has room for.
    room: usize,
    values: Slab,
    /// Serial of what each entry of each lane holds, `room` a lane; `None` where it is all zero.
    held: Vec<Option<u64>>,
}

impl Shelf {
    fn new(ground: &Ground, lanes: usize, room: usize, size: usize) -> Result<Self, EngineError> {
        let values = ground.slab(lanes * room * size)?;
        Ok(Self { size, room, values, held: vec![None; lanes * room] })
    }

    /// Makes `lane`, of `stride` entries, hold exactly what is wanted, moving as little as it can: `put` copies
    /// something to the values from an index on. `labels` and `mask` are the lane's. If `by_age`, everything goes to its
    /// own slot.
    fn arrange(
        &mut self,
        ground: &Ground,
        (lane, stride): (usize, usize),
        wanted: &[Attended],
        by_age: bool,
        (labels, mask): (&mut [u64], &mut [f32]),
        mut put: impl FnMut(Place, &mut Slab, usize) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let held = &mut self.held[lane * self.room..][..self.room];
        labels.fill(0);
        mask.fill(0.0);
        let suits = |position: usize, wanted: &Attended, held: Option<u64>| {
            Some(wanted.serial) == held && (!by_age || wanted.slot == position)
        };
        for position in 0..stride {
            if let Some(wanted) = wanted.iter().find(|wanted| suits(position, wanted, held[position])) {
                (labels[position], mask[position]) = (wanted.label, 1.0);
            }
        }
        let placed = |wanted: &Attended, held: &[Option<u64>]| {
            (0..stride).any(|position| suits(position, wanted, held[position]))
        };
        for wanted in wanted {
            if placed(wanted, held) {
                continue;
            }
            let free = mask.iter().position(|used| *used == 0.0);
            let Some(position) = (if by_age { Some(wanted.slot) } else { free }) else { break };
            held[position] = STALE;
            put(wanted.place, &mut self.values, (lane * stride + position) * self.size)?;
            held[position] = Some(wanted.serial);
            (labels[position], mask[position]) = (wanted.label, 1.0);
        }
        for position in (0..stride).filter(|position| mask[*position] == 0.0) {
            if held[position].take().is_some() {
                self.values.clear(ground, (lane * stride + position) * self.size, self.size)?;
            }
        }
        Ok(())
    }
}

/// What up to so many objects attend to.
pub(crate) struct Window {
    sizes: BankSizes,
    /// Pointer slots of a lane.
    pointer_slots: usize,
    memories: Shelf,
    pointers: Shelf,
    /// Memory slots of a lane as they lie now.
    stride: usize,
    tpos_idx: Vec<i64>,
    on_device: Option<DeviceTensor>,
    /// `mem_mask`, `ptr_tdiff` and `ptr_mask`, one after the other, each for all lanes.
    notes: Slab,
    /// Values from one of them to the next.
    note: usize,
    labels: Vec<u64>,
    /// Of each lane.
    wanted: Vec<Vec<Attended>>,
    wanted_pointers: Vec<Attended>,
}

impl Window {
    pub(crate) fn new(ground: &Ground, sizes: BankSizes, lanes: usize) -> Result<Self, EngineError> {
        let slots = sizes.max_cond + sizes.recent;
        let pointer_slots = if sizes.pointer > 0 { sizes.max_cond + sizes.pointer_recent } else { 0 };
        let most = slots.max(pointer_slots);
        let note = (lanes * most).next_multiple_of(ALIGN);
        Ok(Self {
            sizes,
            pointer_slots,
            memories: Shelf::new(ground, lanes, slots, sizes.memory)?,
            pointers: Shelf::new(ground, lanes, pointer_slots, sizes.pointer)?,
            stride: slots,
            tpos_idx: vec![0; lanes * slots],
            on_device: ground.tensor(DType::I64, lanes * slots)?,
            notes: ground.mirrored(3 * note)?,
            note,
            labels: vec![0; most],
            wanted: (0..lanes).map(|_| Vec::with_capacity(slots)).collect(),
            wanted_pointers: Vec::with_capacity(pointer_slots),
        })
    }

    /// Memory slots of a lane.
    fn slots(&self) -> usize {
        self.memories.room
    }

    /// Fills a lane with what frame `tick` attends to, but for its memories, which [`Window::lay_out`] moves.
    pub(crate) fn gather(
        &mut self,
        ground: &Ground,
        lane: usize,
        bank: &Bank,
        tick: u64,
    ) -> Result<(), EngineError> {
        bank.attended(tick, &mut self.wanted[lane]);
        if self.pointer_slots == 0 {
            return Ok(());
        }
        bank.attended_pointers(tick, &mut self.wanted_pointers);
        let slots = self.pointer_slots;
        let (ages, mask) = self.notes.host_mut()[self.note..].split_at_mut(self.note);
        let labels = &mut self.labels[..slots];
        let at = lane * slots..(lane + 1) * slots;
        let mask = &mut mask[at.clone()];
        // On the host, by age, as they have always lain; on a device a slot by age would be a copy each a frame.
        let by_age = !ground.is_device();
        self.pointers.arrange(
            ground,
            (lane, slots),
            &self.wanted_pointers,
            by_age,
            (&mut *labels, mask),
            |place, to, start| bank.read_pointer(ground, place, to, start),
        )?;
        ages[at].iter_mut().zip(labels).for_each(|(age, label)| *age = *label as f32);
        Ok(())
    }

    /// Lays out the memories of the objects whose banks these are, in lanes from 0. With `open` there are only as many
    /// slots as the one that attends to most needs; gives their number.
    pub(crate) fn lay_out<'a>(
        &mut self,
        ground: &Ground,
        banks: impl ExactSizeIterator<Item = &'a Bank>,
        open: bool,
    ) -> Result<usize, EngineError> {
        let count = banks.len();
        let needed = self.wanted[..count].iter().map(Vec::len).max().unwrap_or(0).max(1);
        let stride = if open && count > 1 { needed } else { self.slots() };
        if std::mem::replace(&mut self.stride, stride) != stride {
            // Only the first lane begins where it began.
            self.memories.held[stride..].fill(STALE);
        }
        for (lane, bank) in banks.enumerate() {
            let mask = &mut self.notes.host_mut()[lane * stride..(lane + 1) * stride];
            let labels = &mut self.labels[..stride];
            self.memories.arrange(
                ground,
                (lane, stride),
                &self.wanted[lane],
                false,
                (&mut *labels, mask),
                |place, to, start| bank.read(ground, place, to, start),
            )?;
            let places = &mut self.tpos_idx[lane * stride..(lane + 1) * stride];
            places.iter_mut().zip(labels).for_each(|(place, label)| *place = *label as i64);
        }
        if !open || count > 1 {
            return Ok(stride);
        }
        // The memories in use lie in the first slots, with few holes.
        let used = self.notes.host()[..stride].iter().rposition(|used| *used > 0.0);
        Ok(used.map_or(1, |last| last + 1))
    }

    /// The tensors for `count` objects of `slots` memory slots each.
    pub(crate) fn tensors(
        &self,
        ground: &Ground,
        count: usize,
        slots: usize,
    ) -> Result<[(Source, TensorRef<'_>); 6], EngineError> {
        let (memories, pointers) = (count * slots, count * self.pointer_slots);
        self.notes.tell(ground, 0, self.notes.len())?;
        let places = TensorView::i64(&[memories], &self.tpos_idx[..memories])?;
        Ok([
            (Source::Mem, self.memories.values.given(0, memories * self.sizes.memory)?),
            (Source::TposIdx, ground.give(places, &self.on_device)?),
            (Source::MemMask, self.notes.given(0, memories)?),
            (Source::ObjPtrs, self.pointers.values.given(0, pointers * self.sizes.pointer)?),
            (Source::PtrTdiff, self.notes.given(self.note, pointers)?),
            (Source::PtrMask, self.notes.given(2 * self.note, pointers)?),
        ])
    }
}
