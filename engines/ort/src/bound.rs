//! Runs on device tensors: bound once for each set of addresses and shapes, and run again as they are.

use ort::session::Session;
use sightline_engine_api::{
    Device, DeviceOps as _, DeviceTensor, EngineError, Event, GraphIo, Kind, Port, Stream, TensorMut,
    TensorRef,
};
use sightline_engine_cuda::onnxruntime::{Bound, Orders, Replay};

use crate::kept::{Form, Kept, Limits};

/// Bindings kept. What a frame of 16 objects reads and writes goes round: its features, a place in the memory bank for
/// each object and slot. That makes some 165 sets of addresses a batch size, and there are four of those. A binding takes
/// some kilobytes.
const LIMITS: Limits = Limits { of_forms: 512, total: 2048 };
/// CUDA graphs captured in a session: each keeps its launches for as long as the session lives.
const MOST_CAPTURED: u32 = 64;

/// The bindings of a session.
#[derive(Debug)]
pub(crate) struct Bindings {
    kept: Kept<Bound>,
    /// Of the run at hand: inputs', then outputs'.
    addresses: Vec<u64>,
    captures: bool,
    captured: u32,
    orders: Option<Orders>,
}

impl Bindings {
    pub(crate) fn new(captures: bool, orders: Option<Orders>) -> Self {
        Self { kept: Kept::new(LIMITS), addresses: Vec::new(), captures, captured: 0, orders }
    }

    /// Runs on tensors that all lie on `device`; on a GPU the event may be still to come.
    pub(crate) fn run(
        &mut self,
        graph: (&str, &GraphIo, Device),
        session: &mut Session,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &[TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        let (name, io, device) = graph;
        let given: Vec<_> = inputs
            .iter()
            .map(|tensor| match tensor {
                TensorRef::Device(tensor) => Some(tensor),
                TensorRef::Host(_) => None,
            })
            .collect();
        let taken: Vec<_> = outputs
            .iter()
            .map(|tensor| match tensor {
                TensorMut::Device(tensor) => Some(tensor),
                TensorMut::Host(_) => None,
            })
            .collect();
        let (inputs, outputs) = on_device(name, device, (io, &given, &taken))?;
        let tensors = || inputs.iter().chain(&outputs).copied();
        let forms = || tensors().map(|tensor| -> Form { (tensor.dtype, tensor.shape) });
        self.addresses.clear();
        // One that is past all addresses is in no buffer, and refused when it is bound.
        let address =
            |tensor: &DeviceTensor| tensor.buffer.address().wrapping_add(tensor.offset_bytes as u64);
        self.addresses.extend(tensors().map(address));
        let buffers = || tensors().map(|tensor| &tensor.buffer);
        let known = self.kept.get(forms(), &self.addresses).is_some_and(|bound| bound.is_of(buffers()));
        if !known {
            let (bound, captured) = self.bind(name, io, session, &inputs, &outputs)?;
            self.kept.make_room(forms(), Bound::is_dead);
            self.kept.put(forms(), &self.addresses, bound, captured);
        }
        let own = self.orders.as_ref().filter(|orders| orders.stream() != stream);
        if let Some(orders) = own {
            orders.device().order(stream, orders.stream())?;
        }
        let Some(bound) = self.kept.get(forms(), &self.addresses) else {
            return Err(EngineError::new(Kind::Run, name, "the binding just made", "none"));
        };
        bound
            .run(session)
            .map_err(|error| EngineError::new(Kind::Run, name, "a run without an error", error))?;
        if let Some(orders) = own {
            orders.device().order(orders.stream(), stream)?;
        }
        Ok(match &self.orders {
            Some(orders) => orders.device().end_of(orders.stream())?,
            None => Event::done(),
        })
    }

    /// Binds tensors; also gives whether the binding is captured, and stays: its number is spent in the session.
    fn bind(
        &mut self,
        name: &str,
        io: &GraphIo,
        session: &Session,
        inputs: &[&DeviceTensor],
        outputs: &[&DeviceTensor],
    ) -> Result<(Bound, bool), EngineError> {
        let replay = match self.captures {
            false => Replay::Off,
            true if self.captured < MOST_CAPTURED => Replay::Captured(self.captured + 1),
            true => Replay::Never,
        };
        let given: Vec<DeviceTensor> = inputs.iter().map(|tensor| (*tensor).clone()).collect();
        let taken: Vec<(&str, DeviceTensor)> = io
            .outputs
            .iter()
            .map(|port| port.name.as_str())
            .zip(outputs.iter().map(|tensor| (*tensor).clone()))
            .collect();
        let bound = Bound::new(session, &given, &taken, replay)
            .map_err(|error| EngineError::new(Kind::Interface, name, "tensors that can be bound", error))?;
        let captured = matches!(replay, Replay::Captured(_));
        self.captured += u32::from(captured);
        Ok((bound, captured))
    }
}

type Tensors<'t> = Vec<&'t DeviceTensor>;

/// The tensors of a run, if each of them lies on the device.
fn on_device<'t>(
    graph: &str,
    device: Device,
    (io, inputs, outputs): (&GraphIo, &[Option<&'t DeviceTensor>], &[Option<&'t DeviceTensor>]),
) -> Result<(Tensors<'t>, Tensors<'t>), EngineError> {
    let refuse = |side: &str, port: &Port, got: String| {
        let subject = format!("{graph} {side} {:?}", port.name);
        let expected = format!("a host tensor, or all of the run's on {device}");
        EngineError::new(Kind::Interface, subject, expected, got)
    };
    let sides = [("input", &io.inputs, inputs), ("output", &io.outputs, outputs)];
    for (side, ports, tensors) in sides {
        for (port, tensor) in ports.iter().zip(tensors) {
            if let Some(tensor) = tensor.filter(|tensor| tensor.buffer.device() != device) {
                return Err(refuse(side, port, format!("one on {}", tensor.buffer.device())));
            }
        }
    }
    let [given, taken] = sides.map(|(side, ports, tensors)| {
        let host = |port| refuse(side, port, format!("a host tensor beside others on {device}"));
        ports
            .iter()
            .zip(tensors)
            .map(|(port, tensor)| tensor.ok_or_else(|| host(port)))
            .collect::<Result<Tensors<'t>, _>>()
    });
    Ok((given?, taken?))
}
