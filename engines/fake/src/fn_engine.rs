use std::fmt;

use sightline_engine_api::{
    Device, Engine, EngineError, Event, GraphIo, Stream, TensorMut, TensorRef, check_bindings,
};

type Run = dyn FnMut(&[TensorRef<'_>], &mut [TensorMut<'_>]) -> Result<(), EngineError> + Send;

/// A graph made of a closure. Bindings are checked before the closure sees them, as every backend does.
pub struct FnEngine {
    name: String,
    io: GraphIo,
    run: Box<Run>,
}

impl FnEngine {
    /// A graph with these ports, whose runs are calls of `run` with tensors in the order of `io`.
    pub fn new(
        name: impl Into<String>,
        io: GraphIo,
        run: impl FnMut(&[TensorRef<'_>], &mut [TensorMut<'_>]) -> Result<(), EngineError> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), io, run: Box::new(run) }
    }
}

impl fmt::Debug for FnEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnEngine").field("name", &self.name).field("io", &self.io).finish_non_exhaustive()
    }
}

impl Engine for FnEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn io(&self) -> &GraphIo {
        &self.io
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn provider(&self) -> &str {
        "fake/cpu"
    }

    fn enqueue(
        &mut self,
        _context: usize,
        _stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        check_bindings(&self.name, &self.io, inputs, outputs)?;
        (self.run)(inputs, outputs)?;
        Ok(Event::done())
    }
}

#[cfg(test)]
mod tests {
    use sightline_core::{DType, TensorView, TensorViewMut};
    use sightline_engine_api::{Dim, Kind, Port};

    use super::*;

    #[test]
    fn a_closure_is_an_engine() {
        let port = |name: &str| Port {
            name: name.into(),
            dtype: DType::F32,
            dims: vec![Dim::Fixed(2), Dim::Dynamic],
        };
        let io = GraphIo { inputs: vec![port("x")], outputs: vec![port("y")] };
        let mut engine = FnEngine::new("double", io, |inputs, outputs| {
            if let (TensorRef::Host(TensorView::F32(_, x)), TensorMut::Host(TensorViewMut::F32(_, y))) =
                (&inputs[0], &mut outputs[0])
            {
                x.iter().zip(y.iter_mut()).for_each(|(x, y)| *y = x * 2.0);
            }
            Ok(())
        });
        let mut y = [0.0; 4];
        let x = TensorView::f32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        engine.run(&[x.into()], &mut [TensorViewMut::f32(&[2, 2], &mut y).unwrap().into()]).unwrap();
        assert_eq!(y, [2.0, 4.0, 6.0, 8.0]);

        let wrong = TensorView::f32(&[1, 4], &[0.0; 4]).unwrap();
        let error = engine
            .run(&[wrong.into()], &mut [TensorViewMut::f32(&[2, 2], &mut y).unwrap().into()])
            .expect_err("shape");
        assert_eq!(error.kind(), Kind::Interface);
        assert_eq!(error.to_string(), "double input \"x\": expected f32 [2,?], got f32 [1,4]");
    }
}
