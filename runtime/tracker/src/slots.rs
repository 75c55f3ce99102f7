//! Slots of one size, on the host or side by side with those of others on a device.

use half::{bf16, slice::HalfFloatSliceExt};
use sightline_core::DType;
use sightline_engine_api::{DeviceTensor, EngineError};

use crate::slab::{Ground, Slab};

/// Values of one size, slot by slot; on the host memories are stored as `memory.dtype` says.
pub(crate) enum Slots {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    /// Those of all banks: slot `i` of all lies together, so that what objects that run together leave on one frame is
    /// one tensor. The first value of this bank's first slot, and values from a slot to the next.
    Device {
        all: DeviceTensor,
        first: usize,
        step: usize,
    },
}

impl Slots {
    pub(crate) fn new(elements: usize, round_to_bf16: bool) -> Self {
        if round_to_bf16 { Self::Bf16(vec![bf16::ZERO; elements]) } else { Self::F32(vec![0.0; elements]) }
    }

    /// A slot on the device.
    pub(crate) fn device(&self, slot: usize, elements: usize) -> Option<DeviceTensor> {
        match self {
            Self::Device { all, first, step } => Some(all.part(first + slot * step, elements)),
            _ => None,
        }
    }

    /// Those of `count` objects, so many slots each, side by side on a device; none on the host.
    pub(crate) fn on_device(
        ground: &Ground,
        slots: usize,
        elements: usize,
        count: usize,
    ) -> Result<Vec<Self>, EngineError> {
        let all = ground.tensor(DType::F32, slots * elements * count)?;
        let of = |all: &DeviceTensor, index: usize| Self::Device {
            all: all.clone(),
            first: index * elements,
            step: count * elements,
        };
        Ok(all.iter().flat_map(|all| (0..count).map(|index| of(all, index))).collect())
    }

    /// A slot on the host that is not rounded.
    pub(crate) fn host(&self, slot: usize, elements: usize) -> Option<&[f32]> {
        match self {
            Self::F32(data) => data.get(slot * elements..(slot + 1) * elements),
            _ => None,
        }
    }

    /// Copies a slot to another one.
    pub(crate) fn shift(
        &mut self,
        ground: &Ground,
        from: usize,
        to: usize,
        elements: usize,
    ) -> Result<(), EngineError> {
        if let (Some(from), Some(to)) = (self.device(from, elements), self.device(to, elements)) {
            return ground.copy(&from, &to);
        }
        let range = from * elements..(from + 1) * elements;
        match self {
            Self::F32(data) => data.copy_within(range, to * elements),
            Self::Bf16(data) => data.copy_within(range, to * elements),
            Self::Device { .. } => {} // done
        }
        Ok(())
    }

    /// On a device it is there already.
    pub(crate) fn write(&mut self, slot: usize, values: &[f32]) {
        let at = slot * values.len()..(slot + 1) * values.len();
        match self {
            Self::F32(data) => data[at].copy_from_slice(values),
            Self::Bf16(data) => data[at].convert_from_f32_slice(values),
            Self::Device { .. } => {}
        }
    }

    pub(crate) fn read(
        &self,
        ground: &Ground,
        slot: usize,
        to: &mut Slab,
        start: usize,
        elements: usize,
    ) -> Result<(), EngineError> {
        if let (Some(from), Some(to)) = (self.device(slot, elements), to.device(start, elements)) {
            return ground.copy(&from, &to);
        }
        let (at, to) = (slot * elements..(slot + 1) * elements, to.host_mut());
        match self {
            Self::F32(data) => to[start..start + elements].copy_from_slice(&data[at]),
            Self::Bf16(data) => data[at].convert_to_f32_slice(&mut to[start..start + elements]),
            Self::Device { .. } => {} // one model is on one ground
        }
        Ok(())
    }

    pub(crate) fn copy(
        &mut self,
        ground: &Ground,
        to: usize,
        other: &Self,
        from: usize,
        elements: usize,
    ) -> Result<(), EngineError> {
        if let (Some(from), Some(to)) = (other.device(from, elements), self.device(to, elements)) {
            return ground.copy(&from, &to);
        }
        let (to, from) = (to * elements, from * elements);
        match (self, other) {
            (Self::F32(a), Self::F32(b)) => a[to..to + elements].copy_from_slice(&b[from..from + elements]),
            (Self::Bf16(a), Self::Bf16(b)) => a[to..to + elements].copy_from_slice(&b[from..from + elements]),
            _ => {} // one model has one type
        }
        Ok(())
    }

    /// Copies the slots that are in use; on the host, all.
    pub(crate) fn copy_used<T>(
        &mut self,
        ground: &Ground,
        other: &Self,
        used: &[Option<T>],
        elements: usize,
    ) -> Result<(), EngineError> {
        match (&mut *self, other) {
            (Self::F32(a), Self::F32(b)) => a.copy_from_slice(b),
            (Self::Bf16(a), Self::Bf16(b)) => a.copy_from_slice(b),
            _ => {
                for (slot, _) in used.iter().enumerate().filter(|(_, used)| used.is_some()) {
                    self.copy(ground, slot, other, slot, elements)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(data) => data.capacity() * 4,
            Self::Bf16(data) => data.capacity() * 2,
            Self::Device { .. } => 0,
        }
    }
}
