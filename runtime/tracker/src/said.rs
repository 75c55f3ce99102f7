//! Where graphs leave what they make: what a decoder run says, and the objects' own places on a device.

use sightline_core::{TensorView, TensorViewMut};
use sightline_engine_api::{DeviceTensor, EngineError, Kind, TensorMut, TensorRef};

use crate::{
    graphs::MAX_BATCH,
    slab::{ALIGN, Ground, Slab, side_by_side},
};

/// Where on a device the objects of a run leave their memories and pointers, lane by lane; empty on the host.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) memories: Vec<DeviceTensor>,
    pub(crate) pointers: Vec<DeviceTensor>,
}

impl Places {
    pub(crate) fn add(&mut self, (memory, pointer): (Option<DeviceTensor>, Option<DeviceTensor>)) {
        self.memories.extend(memory);
        self.pointers.extend(pointer);
    }
}

/// What a decoder run says of up to so many objects: scores, from [`ALIGN`] on IoUs, then the `[B,1,h,w]` logits.
pub(crate) struct Said {
    pub(crate) values: Slab,
    /// Objects it was run for.
    pub(crate) count: usize,
}

pub(crate) const SCORES: usize = 0;
pub(crate) const IOUS: usize = ALIGN;
pub(crate) const LOGITS: usize = 2 * ALIGN;

impl Said {
    /// Places of logits, IoUs and scores of `count` objects.
    pub(crate) fn places(
        &mut self,
        count: usize,
        mask: usize,
    ) -> Result<[Option<TensorMut<'_>>; 3], EngineError> {
        self.count = count;
        let sizes = [(LOGITS, count * mask), (IOUS, count), (SCORES, count)];
        if self.values.is_device() {
            return Ok(sizes.map(|(start, len)| self.values.device(start, len).map(TensorMut::Device)));
        }
        let (scores, rest) = self.values.host_mut().split_at_mut(IOUS);
        let (ious, logits) = rest.split_at_mut(LOGITS - IOUS);
        let view = |data, len| TensorViewMut::f32(&[len], data);
        Ok([
            Some(view(&mut logits[..count * mask], count * mask)?.into()),
            Some(view(&mut ious[..count], count)?.into()),
            Some(view(&mut scores[..count], count)?.into()),
        ])
    }

    /// The logits of one object, on the host.
    pub(crate) fn low_res(&self, lane: usize, mask: usize) -> &[f32] {
        &self.values.host()[LOGITS + lane * mask..][..mask]
    }

    /// The first so many logits, on a device.
    pub(crate) fn logits(&self, len: usize) -> Option<DeviceTensor> {
        self.values.device(LOGITS, len)
    }

    pub(crate) fn score(&self, lane: usize) -> f32 {
        self.values.host()[SCORES + lane]
    }

    pub(crate) fn ious(&self) -> &[f32] {
        &self.values.host()[IOUS..][..self.count]
    }

    /// A number that is none must not reach the memory, where it would stay. Of each object's logits, `mask` are here.
    pub(crate) fn check(&self, graph: &str, mask: usize) -> Result<(), EngineError> {
        let scores = &self.values.host()[SCORES..][..self.count];
        let logits = &self.values.host()[LOGITS..][..self.count * mask];
        if [scores, self.ious(), logits].into_iter().flatten().all(|number| number.is_finite()) {
            return Ok(());
        }
        let got = format!("object_score {scores:?}, iou {:?} and maybe others", self.ious());
        Err(EngineError::new(Kind::Run, format_args!("{graph} outputs"), "finite numbers", got))
    }
}

/// Where a graph writes `len` values: on a device straight to their places if those make one tensor, else here.
pub(crate) fn place<'a>(
    here: &'a mut Slab,
    places: &[DeviceTensor],
    len: usize,
) -> Result<TensorMut<'a>, EngineError> {
    match side_by_side(places) {
        Some(all) => Ok(TensorMut::Device(all)),
        None => here.place(0, len),
    }
}

/// Takes values of `size` each, which could not be written to their places at once, to them.
pub(crate) fn move_to(
    ground: &Ground,
    here: &Slab,
    places: &[DeviceTensor],
    size: usize,
) -> Result<(), EngineError> {
    if side_by_side(places).is_some() {
        return Ok(());
    }
    for (lane, place) in places.iter().enumerate() {
        if let Some(from) = here.device(lane * size, size) {
            ground.copy(&from, place)?;
        }
    }
    Ok(())
}

static ZEROS: [f32; MAX_BATCH] = [0.0; MAX_BATCH];
static ONES: [f32; MAX_BATCH] = [1.0; MAX_BATCH];
static INTS: [[i64; 1]; 2] = [[0], [1]];

/// Numbers that are always the same, where the engines are.
pub(crate) struct Flags {
    /// Zeros and ones; `None` on the host.
    floats: [Option<DeviceTensor>; 2],
    ints: [Option<DeviceTensor>; 2],
}

impl Flags {
    pub(crate) fn new(ground: &Ground) -> Result<Self, EngineError> {
        let floats = |values: &[f32]| ground.constant(TensorView::f32(&[MAX_BATCH], values)?);
        let ints = |values: &[i64]| ground.constant(TensorView::i64(&[1], values)?);
        Ok(Self { floats: [floats(&ZEROS)?, floats(&ONES)?], ints: [ints(&INTS[0])?, ints(&INTS[1])?] })
    }

    /// 0 or 1, `count` times.
    pub(crate) fn floats(&self, on: bool, count: usize) -> Result<TensorRef<'_>, EngineError> {
        let host = if on { &ONES } else { &ZEROS };
        Ok(match &self.floats[usize::from(on)] {
            Some(tensor) => TensorRef::Device(tensor.part(0, count)),
            None => TensorView::f32(&[count], &host[..count])?.into(),
        })
    }

    /// 0 or 1.
    pub(crate) fn int(&self, on: bool) -> Result<TensorRef<'_>, EngineError> {
        Ok(match &self.ints[usize::from(on)] {
            Some(tensor) => TensorRef::Device(tensor.clone()),
            None => TensorView::i64(&[1], &INTS[usize::from(on)])?.into(),
        })
    }
}
