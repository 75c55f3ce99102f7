use std::sync::Arc;

use sightline_core::{DType, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceOps, DeviceTensor, Engine, EngineError, Event, GraphIo, Kind, Model, Stream, TensorMut,
    TensorRef, check_bindings,
};

/// The model on any device, a real one too: each run brings its inputs to the host, runs there, and takes the results
/// back. It waits for the device, which no other engine does; it is there to try the device, not to be fast.
pub fn on_device(model: Model, ops: &Arc<dyn DeviceOps>) -> Model {
    model.wrapped(Some(Arc::clone(ops)), |inner| {
        Box::new(Anywhere { ops: Arc::clone(ops), io: inner.io().clone(), inner })
    })
}

struct Anywhere {
    ops: Arc<dyn DeviceOps>,
    io: GraphIo,
    inner: Box<dyn Engine>,
}

/// A tensor's values on the host.
pub(crate) enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

impl Values {
    pub(crate) fn zeros(tensor: &DeviceTensor) -> Self {
        let elements = tensor.shape.elements();
        match tensor.dtype {
            DType::I64 => Self::I64(vec![0; elements]),
            _ => Self::F32(vec![0.0; elements]),
        }
    }

    pub(crate) fn view(&self, tensor: &DeviceTensor) -> Result<TensorView<'_>, EngineError> {
        Ok(match self {
            Self::F32(values) => TensorView::f32(tensor.shape.dims(), values)?,
            Self::I64(values) => TensorView::i64(tensor.shape.dims(), values)?,
        })
    }

    pub(crate) fn view_mut(&mut self, tensor: &DeviceTensor) -> TensorViewMut<'_> {
        match self {
            Self::F32(values) => TensorViewMut::F32(tensor.shape, values),
            Self::I64(values) => TensorViewMut::I64(tensor.shape, values),
        }
    }
}

/// The tensors of a run, none of which may lie on the host.
pub(crate) fn on_one(
    name: &str,
    inputs: &[TensorRef<'_>],
    outputs: &[TensorMut<'_>],
) -> Result<[Vec<DeviceTensor>; 2], EngineError> {
    let host = || EngineError::new(Kind::Interface, name, "device tensors", "a host tensor");
    let inputs = inputs.iter().map(|tensor| match tensor {
        TensorRef::Device(tensor) => Ok(tensor.clone()),
        TensorRef::Host(_) => Err(host()),
    });
    let outputs = outputs.iter().map(|tensor| match tensor {
        TensorMut::Device(tensor) => Ok(tensor.clone()),
        TensorMut::Host(_) => Err(host()),
    });
    Ok([inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?])
}

impl Engine for Anywhere {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn io(&self) -> &GraphIo {
        &self.io
    }

    fn device(&self) -> Device {
        self.ops.device()
    }

    fn provider(&self) -> &str {
        "fake/anywhere"
    }

    fn enqueue(
        &mut self,
        _context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        check_bindings(self.inner.name(), &self.io, inputs, outputs)?;
        let [inputs, outputs] = on_one(self.inner.name(), inputs, outputs)?;
        let mut given: Vec<Values> = inputs.iter().map(Values::zeros).collect();
        let parts = inputs.iter().zip(&mut given);
        let mut parts: Vec<_> =
            parts.map(|(tensor, values)| (tensor.clone(), values.view_mut(tensor))).collect();
        self.ops.download(stream, &mut parts)?;
        drop(parts);
        let views = given.iter().zip(&inputs).map(|(values, tensor)| Ok(values.view(tensor)?.into()));
        let views = views.collect::<Result<Vec<TensorRef<'_>>, EngineError>>()?;
        let mut results: Vec<Values> = outputs.iter().map(Values::zeros).collect();
        let places = results.iter_mut().zip(&outputs);
        let mut places: Vec<TensorMut<'_>> =
            places.map(|(values, tensor)| values.view_mut(tensor).into()).collect();
        self.inner.run(&views, &mut places)?;
        drop(places);
        for (values, tensor) in results.iter().zip(&outputs) {
            self.ops.upload(stream, values.view(tensor)?, tensor)?;
        }
        Ok(Event::done())
    }
}
