use std::sync::{Arc, Mutex, PoisonError};

use sightline_core::DType;
use sightline_engine_api::{
    Device, DeviceOps, DeviceTensor, Engine, EngineError, Event, GraphIo, Model, Pending, Stream, TensorMut,
    TensorRef, check_bindings,
};

use crate::{
    FakeDevice,
    anywhere::{Values, on_one},
    device::Memory,
};

/// A host engine made to run on a [`FakeDevice`]: when its stream comes to it, on what then lies in the device's memory.
struct DeviceEngine {
    inner: Arc<Mutex<Box<dyn Engine>>>,
    device: FakeDevice,
    name: String,
    io: GraphIo,
    given: Box<Given>,
}

/// Told of every run as it is given, with the places of its outputs; may refuse it.
type Given = dyn FnMut(&[TensorMut<'_>]) -> Result<(), EngineError> + Send;

impl FakeDevice {
    /// The engine, on this device. `given` is told of every run when it is given, with the places of its outputs, and
    /// may refuse it; where the engine itself fails, the next download says so, as on a real device.
    pub fn engine(
        &self,
        inner: Box<dyn Engine>,
        given: impl FnMut(&[TensorMut<'_>]) -> Result<(), EngineError> + Send + 'static,
    ) -> Box<dyn Engine> {
        let (name, io) = (inner.name().to_owned(), inner.io().clone());
        let inner = Arc::new(Mutex::new(inner));
        Box::new(DeviceEngine { inner, device: self.clone(), name, io, given: Box::new(given) })
    }

    /// The model, on this device.
    pub fn model(&self, model: Model) -> Model {
        model.wrapped(Some(Arc::new(self.clone())), |inner| self.engine(inner, |_| Ok(())))
    }
}

/// Counts those who wait for a run.
#[derive(Debug)]
struct Run(FakeDevice, Stream);

impl Pending for Run {
    fn wait(self: Box<Self>) -> Result<(), EngineError> {
        self.0.counted(|counts| counts.waits += 1);
        self.0.download(self.1, &mut [])
    }

    fn is_done(&self) -> bool {
        false
    }
}

impl Engine for DeviceEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn io(&self) -> &GraphIo {
        &self.io
    }

    fn device(&self) -> Device {
        DeviceOps::device(&self.device)
    }

    fn provider(&self) -> &str {
        "fake/device"
    }

    fn enqueue(
        &mut self,
        _context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        check_bindings(&self.name, &self.io, inputs, outputs)?;
        (self.given)(outputs)?;
        let [inputs, outputs] = on_one(&self.name, inputs, outputs)?;
        self.device.counted(|counts| counts.runs += 1);
        let inner = Arc::clone(&self.inner);
        let tensors: Vec<DeviceTensor> = inputs.iter().chain(&outputs).cloned().collect();
        self.device.give(stream, &tensors.iter().collect::<Vec<_>>(), move |memory| {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            run(&mut **inner, memory, &inputs, &outputs)
        })?;
        Ok(Event::pending(Box::new(Run(self.device.clone(), stream))))
    }
}

fn run(
    engine: &mut dyn Engine,
    memory: &mut Memory,
    inputs: &[DeviceTensor],
    outputs: &[DeviceTensor],
) -> Result<(), EngineError> {
    let read = |tensor: &DeviceTensor| match tensor.dtype {
        DType::I64 => memory.i64(tensor).map(Values::I64),
        _ => memory.f32(tensor).map(Values::F32),
    };
    let given = inputs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let views = given.iter().zip(inputs).map(|(values, tensor)| Ok(values.view(tensor)?.into()));
    let views = views.collect::<Result<Vec<TensorRef<'_>>, EngineError>>()?;
    let mut results: Vec<Values> = outputs.iter().map(Values::zeros).collect();
    let places = results.iter_mut().zip(outputs);
    let mut places: Vec<TensorMut<'_>> =
        places.map(|(values, tensor)| values.view_mut(tensor).into()).collect();
    engine.run(&views, &mut places)?;
    drop(places);
    for (values, tensor) in results.iter().zip(outputs) {
        if let Values::F32(values) = values {
            memory.put_f32(tensor, values)?;
        }
    }
    Ok(())
}
