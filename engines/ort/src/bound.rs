//! Runs on device tensors: bound once for each set of addresses and shapes, and run again as they are.

use ort::session::Session;
use sightline_core::{DType, Shape};
use sightline_engine_api::{
    Device, DeviceOps as _, DeviceTensor, EngineError, Event, GraphIo, Kind, Port, Stream, TensorMut,
    TensorRef,
};
use sightline_engine_cuda::onnxruntime::{Bound, Orders, Replay};

/// Bindings kept. A frame of 16 objects has a place in the memory bank for each object and slot, and a batch for each
/// size of it; this holds them all, and looking through it takes microseconds.
const MOST: usize = 256;
/// CUDA graphs captured in a session: each keeps its launches for as long as the session lives.
const MOST_CAPTURED: u32 = 64;

/// Where a tensor lies, and of what size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(u64, DType, Shape);

impl Place {
    fn of(tensor: &DeviceTensor) -> Self {
        Self(tensor.buffer.address() + tensor.offset_bytes as u64, tensor.dtype, tensor.shape)
    }
}

#[derive(Debug)]
struct Kept {
    /// Inputs, then outputs.
    places: Vec<Place>,
    bound: Bound,
    captured: bool,
    used: u64,
}

/// The bindings of a session.
#[derive(Debug)]
pub(crate) struct Bindings {
    kept: Vec<Kept>,
    captures: bool,
    captured: u32,
    runs: u64,
    orders: Option<Orders>,
}

impl Bindings {
    pub(crate) fn new(captures: bool, orders: Option<Orders>) -> Self {
        Self { kept: Vec::new(), captures, captured: 0, runs: 0, orders }
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
        let at = match self.find(&inputs, &outputs) {
            Some(at) => at,
            None => self.bind(name, io, session, &inputs, &outputs)?,
        };
        self.runs += 1;
        self.kept[at].used = self.runs;
        let own = self.orders.as_ref().filter(|orders| orders.stream() != stream);
        if let Some(orders) = own {
            orders.device().order(stream, orders.stream())?;
        }
        self.kept[at]
            .bound
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

    fn find(&self, inputs: &[&DeviceTensor], outputs: &[&DeviceTensor]) -> Option<usize> {
        let places = || inputs.iter().chain(outputs).map(|tensor| Place::of(tensor));
        self.kept.iter().position(|kept| kept.places.iter().copied().eq(places()))
    }

    fn bind(
        &mut self,
        name: &str,
        io: &GraphIo,
        session: &Session,
        inputs: &[&DeviceTensor],
        outputs: &[&DeviceTensor],
    ) -> Result<usize, EngineError> {
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
        let places = inputs.iter().chain(outputs).map(|tensor| Place::of(tensor)).collect();
        let new = Kept { places, bound, captured, used: 0 };
        if self.kept.len() < MOST {
            self.kept.push(new);
            return Ok(self.kept.len() - 1);
        }
        // What was captured stays: its number is spent in the session.
        let oldest = self.kept.iter().enumerate().filter(|(_, kept)| !kept.captured);
        let at = oldest.min_by_key(|(_, kept)| kept.used).map_or(0, |(at, _)| at);
        self.kept[at] = new;
        Ok(at)
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
