//! Runs of several sessions as one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    DeviceOps, DeviceTensor, Dim, Engine, EngineError, GraphIo, Kind, Port, TensorMut, TensorRef,
};

use super::{
    gate::Ticket,
    parcel::{Held, Parcel, mixed},
};

/// More ports than any graph of the contract has.
const MAX_PORTS: usize = 16;
/// Batches that fail one after the other before they are made smaller.
const FAILURES: u32 = 3;

/// Room for the inputs and outputs of a graph's largest run, made once.
#[derive(Debug)]
pub(super) struct Batch {
    ops: Option<Arc<dyn DeviceOps>>,
    inputs: Vec<Held>,
    outputs: Vec<Held>,
    /// Objects at most; less than two if none are put together any more.
    most: usize,
    /// Batches that have failed since one did not.
    failed: u32,
}

impl Batch {
    /// For graphs whose runs can be put together; `slots` is the most of what else is open. `None` for others.
    ///
    /// # Errors
    /// `Kind::Unavailable` when the device has no room.
    pub(super) fn new(
        io: &GraphIo,
        most: usize,
        slots: usize,
        ops: Option<&Arc<dyn DeviceOps>>,
    ) -> Result<Option<Self>, EngineError> {
        if !io.batches_pictures() || most < 2 || io.inputs.len().max(io.outputs.len()) > MAX_PORTS {
            return Ok(None);
        }
        let room = |ports: &[Port]| {
            let room = ports.iter().map(|port| {
                let sizes = port.dims.iter().skip(1).map(|dim| match dim {
                    Dim::Fixed(size) => *size,
                    Dim::Dynamic => slots,
                });
                // As many as the largest run has: see `run`.
                let elements = most.next_power_of_two() * sizes.product::<usize>();
                let shape = Shape::new(&[elements])?;
                Ok(match (ops, port.dtype) {
                    (Some(ops), dtype) => {
                        let buffer = ops.alloc(elements.max(1) * dtype.size_bytes())?;
                        Held::Device(DeviceTensor { buffer, offset_bytes: 0, dtype, shape })
                    }
                    (None, DType::I64) => Held::I64(shape, vec![0; elements]),
                    (None, _) => Held::F32(shape, vec![0.0; elements]),
                })
            });
            room.collect::<Result<Vec<_>, EngineError>>()
        };
        let (inputs, outputs) = (room(&io.inputs)?, room(&io.outputs)?);
        Ok(Some(Self { ops: ops.cloned(), inputs, outputs, most, failed: 0 }))
    }

    /// Objects of a run at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// [Does](Self::run) several runs as one and says whether they are done. If not they are to be done alone, so that
    /// only who is to blame has an error, or a panic; and what the engine refuses or often fails at is not tried again.
    pub(super) fn attempt(
        &mut self,
        engine: &mut dyn Engine,
        first: &mut Parcel,
        others: &mut [(Ticket, Parcel)],
    ) -> bool {
        let lanes = first.lanes + others.iter().map(|(_, parcel)| parcel.lanes).sum::<usize>();
        let graph = engine.name().to_owned();
        // What a panic leaves in the room is overwritten by the next run; the engine is as one that panicked alone.
        let tried = catch_unwind(AssertUnwindSafe(|| self.run(engine, first, others)));
        match tried {
            Ok(Ok(())) => {
                self.failed = 0;
                return true;
            }
            // Each run fits by itself: it is the engine that takes no more, as without a plan for it.
            Ok(Err(error)) if error.kind() == Kind::Interface => {
                self.most = self.most.min(lanes.next_power_of_two() / 2);
                self.failed = 0;
                tracing::warn!(%error, graph, most = self.most, "feeds' runs of a size that the engine refuses");
                return false;
            }
            Ok(Err(error)) if self.failed == 0 => {
                tracing::warn!(%error, graph, "feeds' runs failed together and go alone");
            }
            Ok(Err(error)) => tracing::debug!(%error, graph, "feeds' runs failed together and go alone"),
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().copied();
                let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                let said = said.unwrap_or("no words");
                tracing::error!(said, graph, "feeds' runs panicked together and go alone");
            }
        }
        self.failed += 1;
        if self.failed == FAILURES {
            self.most = self.most.next_power_of_two() / 2;
            self.failed = 0;
            tracing::warn!(graph, most = self.most, "fewer of the feeds' runs are put together");
        }
        false
    }

    /// Does several runs as one, of the next size that is a power of two: what is beyond them are objects that nobody
    /// looks at. On a device all of it is given to
    /// their stream, and what the runs wanted is there when that comes to it.
    ///
    /// # Errors
    /// As the engine and the device: none of the runs is done then.
    fn run(
        &mut self,
        engine: &mut dyn Engine,
        first: &mut Parcel,
        others: &mut [(Ticket, Parcel)],
    ) -> Result<(), EngineError> {
        let (name, stream) = (engine.name().to_owned(), first.stream);
        let Self { ops, inputs, outputs, .. } = self;
        let copy = |from: &DeviceTensor, to: &DeviceTensor| {
            ops.as_ref().map_or_else(|| Err(mixed(&name)), |ops| ops.copy(stream, from, to))
        };
        let mut lanes = 0;
        for parcel in std::iter::once(&*first).chain(others.iter().map(|(_, parcel)| parcel)) {
            for (given, to) in parcel.inputs.iter().zip(&mut *inputs) {
                let leading = given.shape().dims().first().copied().unwrap_or(1);
                let size = given.shape().elements() / leading.max(1);
                // One picture for all of its objects is given to each.
                let each = if leading == parcel.lanes { 1 } else { parcel.lanes };
                for lane in 0..each {
                    match (given, &mut *to) {
                        (Held::Device(from), Held::Device(to)) => {
                            let count = leading * size;
                            copy(&from.part(0, count), &to.part((lanes + lane) * size, count))?;
                        }
                        (Held::F32(_, from), Held::F32(_, to)) => put(from, to, (lanes + lane) * size),
                        (Held::I64(_, from), Held::I64(_, to)) => put(from, to, (lanes + lane) * size),
                        _ => return Err(mixed(&name)),
                    }
                }
            }
            lanes += parcel.lanes;
        }
        let bucket = lanes.next_power_of_two();
        let (views, mut places) = (views(inputs, first, bucket)?, places(outputs, first, bucket)?);
        engine.enqueue(0, stream, &views[..inputs.len()], &mut places[..first.outputs.len()])?;
        drop(places);
        let mut lane = 0;
        for parcel in std::iter::once(first).chain(others.iter_mut().map(|(_, parcel)| parcel)) {
            for (from, wanted) in outputs.iter().zip(&mut parcel.outputs) {
                let size = wanted.shape().elements() / parcel.lanes.max(1);
                match (from, wanted) {
                    (Held::Device(from), Held::Device(to)) => {
                        let count = parcel.lanes * size;
                        copy(&from.part(lane * size, count), &to.part(0, count))?;
                    }
                    (Held::F32(_, from), Held::F32(_, to)) => take(from, to, lane * size),
                    (Held::I64(_, from), Held::I64(_, to)) => take(from, to, lane * size),
                    _ => return Err(mixed(&name)),
                }
            }
            lane += parcel.lanes;
        }
        Ok(())
    }
}

fn put<T: Copy>(from: &[T], to: &mut [T], at: usize) {
    to[at..at + from.len()].copy_from_slice(from);
}

fn take<T: Copy>(from: &[T], to: &mut [T], at: usize) {
    to.copy_from_slice(&from[at..at + to.len()]);
}

/// The first of the room for `bucket` objects, in the shapes of a run.
fn views<'a>(
    room: &'a [Held],
    of: &Parcel,
    bucket: usize,
) -> Result<[TensorRef<'a>; MAX_PORTS], EngineError> {
    let nothing = TensorView::f32(&[0], &[])?;
    let mut views: [TensorRef<'_>; MAX_PORTS] = std::array::from_fn(|_| nothing.into());
    for (view, (held, like)) in views.iter_mut().zip(room.iter().zip(&of.inputs)) {
        let shape = like.shape().with(0, bucket);
        let count = shape.elements();
        *view = match held {
            Held::Device(tensor) => TensorRef::Device(DeviceTensor { shape, ..tensor.clone() }),
            Held::F32(_, values) => TensorView::f32(shape.dims(), &values[..count])?.into(),
            Held::I64(_, values) => TensorView::i64(shape.dims(), &values[..count])?.into(),
        };
    }
    Ok(views)
}

fn places<'a>(
    room: &'a mut [Held],
    of: &Parcel,
    bucket: usize,
) -> Result<[TensorMut<'a>; MAX_PORTS], EngineError> {
    let empty = Shape::new(&[0])?;
    let mut places: [TensorMut<'_>; MAX_PORTS] =
        std::array::from_fn(|_| TensorViewMut::F32(empty, &mut []).into());
    for (place, (held, like)) in places.iter_mut().zip(room.iter_mut().zip(&of.outputs)) {
        let shape = like.shape().with(0, bucket);
        let count = shape.elements();
        *place = match held {
            Held::Device(tensor) => TensorMut::Device(DeviceTensor { shape, ..tensor.clone() }),
            Held::F32(_, values) => TensorViewMut::F32(shape, &mut values[..count]).into(),
            Held::I64(_, values) => TensorViewMut::I64(shape, &mut values[..count]).into(),
        };
    }
    Ok(places)
}
