use sightline_core::{Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    DeviceOps, DeviceTensor, EngineError, GraphIo, Kind, Stream, TensorMut, TensorRef, check_bindings,
};

/// A tensor that is not borrowed.
#[derive(Debug)]
pub(super) enum Held {
    Device(DeviceTensor),
    F32(Shape, Vec<f32>),
    I64(Shape, Vec<i64>),
}

/// Values in the place of others, which may be as many or fewer, in their memory.
fn refill<T: Copy>(to: &mut Vec<T>, from: &[T]) {
    to.clear();
    to.extend_from_slice(from);
}

impl Held {
    pub(super) fn shape(&self) -> Shape {
        match self {
            Self::Device(tensor) => tensor.shape,
            Self::F32(shape, _) | Self::I64(shape, _) => *shape,
        }
    }

    fn of(from: &TensorRef<'_>) -> Self {
        match from {
            TensorRef::Host(TensorView::F32(shape, from)) => Self::F32(*shape, from.to_vec()),
            TensorRef::Host(TensorView::I64(shape, from)) => Self::I64(*shape, from.to_vec()),
            TensorRef::Device(tensor) => Self::Device(tensor.clone()),
        }
    }

    fn room_for(place: &TensorMut<'_>) -> Self {
        match place {
            TensorMut::Host(TensorViewMut::F32(shape, to)) => Self::F32(*shape, vec![0.0; to.len()]),
            TensorMut::Host(TensorViewMut::I64(shape, to)) => Self::I64(*shape, vec![0; to.len()]),
            TensorMut::Device(tensor) => Self::Device(tensor.clone()),
        }
    }

    fn take(&mut self, from: &TensorRef<'_>) {
        match (&mut *self, from) {
            (Self::F32(shape, values), TensorRef::Host(TensorView::F32(of, from))) => {
                *shape = *of;
                refill(values, from);
            }
            (Self::I64(shape, values), TensorRef::Host(TensorView::I64(of, from))) => {
                *shape = *of;
                refill(values, from);
            }
            _ => *self = Self::of(from),
        }
    }

    /// As much room as a place has.
    fn make_room(&mut self, place: &TensorMut<'_>) {
        match (&mut *self, place) {
            (Self::F32(shape, values), TensorMut::Host(TensorViewMut::F32(of, to))) => {
                *shape = *of;
                values.resize(to.len(), 0.0);
            }
            _ => *self = Self::room_for(place),
        }
    }

    fn deliver(&self, place: &mut TensorMut<'_>) {
        match (self, place) {
            (Self::F32(_, values), TensorMut::Host(TensorViewMut::F32(_, to))) => to.copy_from_slice(values),
            (Self::I64(_, values), TensorMut::Host(TensorViewMut::I64(_, to))) => to.copy_from_slice(values),
            // A device has put it there itself.
            _ => {}
        }
    }
}

/// A run as whoever waits for it tells another who could do it too.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The graph's place among those of its line.
    pub(super) graph: usize,
    pub(super) stream: Stream,
    /// Objects in it.
    pub(super) lanes: usize,
    pub(super) inputs: Vec<Held>,
    pub(super) outputs: Vec<Held>,
}

impl Parcel {
    /// Tells of a run, in the memory of an earlier one.
    pub(super) fn of(
        spare: Option<Self>,
        (graph, stream, lanes): (usize, Stream, usize),
        inputs: &[TensorRef<'_>],
        outputs: &[TensorMut<'_>],
    ) -> Self {
        let (mut given, mut taken) =
            spare.map_or((Vec::new(), Vec::new()), |spare| (spare.inputs, spare.outputs));
        for (at, input) in inputs.iter().enumerate() {
            match given.get_mut(at) {
                Some(held) => held.take(input),
                None => given.push(Held::of(input)),
            }
        }
        for (at, output) in outputs.iter().enumerate() {
            match taken.get_mut(at) {
                Some(held) => held.make_room(output),
                None => taken.push(Held::room_for(output)),
            }
        }
        Self { graph, stream, lanes, inputs: given, outputs: taken }
    }

    /// What was made of it, to where it was wanted.
    pub(super) fn deliver(&self, outputs: &mut [TensorMut<'_>]) {
        self.outputs.iter().zip(outputs).for_each(|(held, place)| held.deliver(place));
    }

    /// Whether it differs in nothing but its leading sizes. (They lie in the same place: see [`lanes`].)
    pub(super) fn is_like(&self, inputs: &[TensorRef<'_>], outputs: &[TensorMut<'_>]) -> bool {
        let same = |(held, shape): (&Held, Shape)| held.shape().dims().get(1..) == shape.dims().get(1..);
        self.inputs.iter().zip(inputs.iter().map(TensorRef::shape)).all(same)
            && self.outputs.iter().zip(outputs.iter().map(TensorMut::shape)).all(same)
    }
}

/// The objects of a run that may have company: all its tensors say as many, but those of one picture for all, and all
/// lie where batches do: on this device, or without one on the host.
pub(super) fn lanes(
    name: &str,
    io: &GraphIo,
    ops: Option<&dyn DeviceOps>,
    inputs: &[TensorRef<'_>],
    outputs: &[TensorMut<'_>],
) -> Option<usize> {
    // What does not fit its port gets its own answer.
    check_bindings(name, io, inputs, outputs).ok()?;
    let here = |tensor: Option<&DeviceTensor>| match (ops, tensor) {
        (Some(ops), Some(tensor)) => ops.owns(&*tensor.buffer),
        (None, None) => true,
        _ => false,
    };
    let given = inputs.iter().map(|input| match input {
        TensorRef::Device(tensor) => Some(tensor),
        TensorRef::Host(_) => None,
    });
    let wanted = outputs.iter().map(|output| match output {
        TensorMut::Device(tensor) => Some(tensor),
        TensorMut::Host(_) => None,
    });
    if !given.chain(wanted).all(here) {
        return None;
    }
    let leading = |shape: Shape| shape.dims().first().copied();
    let lanes = leading(outputs.first()?.shape()).filter(|lanes| *lanes > 0)?;
    let fits = |(port, input): (&sightline_engine_api::Port, &TensorRef<'_>)| match leading(input.shape()) {
        Some(1) => lanes == 1 || port.name.starts_with("feat_"),
        other => other == Some(lanes),
    };
    let all = io.inputs.iter().zip(inputs).all(fits)
        && outputs.iter().all(|output| leading(output.shape()) == Some(lanes));
    all.then_some(lanes)
}

/// `Kind::Interface` for tensors that lie in different places.
pub(super) fn mixed(name: &str) -> EngineError {
    let expected = "tensors that all lie on the host or all on its device";
    EngineError::new(Kind::Interface, name, expected, "both")
}
