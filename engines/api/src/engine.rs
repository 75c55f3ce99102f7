use std::fmt;

use sightline_core::{DType, Shape};

use crate::{Device, EngineError, Event, Kind, Stream, TensorMut, TensorRef};

/// One size of a tensor that a graph declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dim {
    /// Always this.
    Fixed(usize),
    /// Chosen by the caller.
    Dynamic,
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name; graphs are bound by name, once, at load.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes, outermost first.
    pub dims: Vec<Dim>,
}

impl Port {
    /// Whether a tensor fits.
    pub fn accepts(&self, dtype: DType, shape: Shape) -> bool {
        self.dtype == dtype
            && self.dims.len() == shape.dims().len()
            && self.dims.iter().zip(shape.dims()).all(|(dim, size)| match dim {
                Dim::Fixed(fixed) => fixed == size,
                Dim::Dynamic => true,
            })
    }

    /// The shape, if no size is dynamic.
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        self.dims
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => Some(*size),
                Dim::Dynamic => None,
            })
            .collect()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [", self.dtype)?;
        for (index, dim) in self.dims.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match dim {
                Dim::Fixed(size) => write!(f, "{size}")?,
                Dim::Dynamic => f.write_str("?")?,
            }
        }
        f.write_str("]")
    }
}

/// All inputs and outputs of a graph, in the order in which they are bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GraphIo {
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
}

impl GraphIo {
    /// Position of an input.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|port| port.name == name)
    }
    /// Position of an output.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|port| port.name == name)
    }

    /// Whether the leading size of every port is open, so that runs for different pictures can be one run: what each
    /// brings then lies side by side (`engines/GRAPHS.md`, *Batch*).
    pub fn batches_pictures(&self) -> bool {
        let mut ports = self.inputs.iter().chain(&self.outputs).peekable();
        ports.peek().is_some() && ports.all(|port| port.dims.first() == Some(&Dim::Dynamic))
    }

    /// Refuses an engine that does not have exactly these ports; the order may differ.
    ///
    /// # Errors
    /// `Kind::Interface`, naming the first port that differs.
    pub fn expect_same(&self, subject: &str, got: &Self) -> Result<(), EngineError> {
        for (side, wanted, found) in
            [("input", &self.inputs, &got.inputs), ("output", &self.outputs, &got.outputs)]
        {
            for port in wanted {
                let name = format!("{subject} {side} {:?}", port.name);
                match found.iter().find(|other| other.name == port.name) {
                    None => return Err(EngineError::new(Kind::Interface, name, port, "none")),
                    Some(other) if other.dtype != port.dtype || !compatible(&port.dims, &other.dims) => {
                        return Err(EngineError::new(Kind::Interface, name, port, other));
                    }
                    Some(_) => {}
                }
            }
            if let Some(extra) = found.iter().find(|port| wanted.iter().all(|w| w.name != port.name)) {
                let name = format!("{subject} {side} {:?}", extra.name);
                return Err(EngineError::new(Kind::Interface, name, "no such port", extra));
            }
        }
        Ok(())
    }
}

/// A manifest may fix what a graph file leaves symbolic, not the other way about.
fn compatible(wanted: &[Dim], found: &[Dim]) -> bool {
    wanted.len() == found.len()
        && wanted.iter().zip(found).all(|pair| match pair {
            (Dim::Fixed(a), Dim::Fixed(b)) => a == b,
            (Dim::Fixed(_) | Dim::Dynamic, Dim::Dynamic) => true,
            (Dim::Dynamic, Dim::Fixed(_)) => false,
        })
}

/// A static graph, loaded and ready. One engine belongs to one worker: running takes `&mut self`.
pub trait Engine: Send {
    /// The graph's name, for errors and logs.
    fn name(&self) -> &str;
    /// Its inputs and outputs, in binding order.
    fn io(&self) -> &GraphIo;
    /// Where it runs and where device tensors given to it must lie.
    fn device(&self) -> Device;
    /// The provider that really runs it, as the backend names it: `onnxruntime/cpu`, `tensorrt 10.3`.
    fn provider(&self) -> &str;

    /// How many runs may be in flight at once, each with its own scratch memory.
    fn contexts(&self) -> usize {
        1
    }

    /// Starts a run in `context` on `stream`. Tensors are given in the order of [`Engine::io`].
    ///
    /// Host tensors are borrowed for the call only: an engine that takes them has read its inputs and written its
    /// outputs when the call returns. Device tensors belong to the run until its event is done.
    ///
    /// # Errors
    /// `Kind::Interface` when a tensor does not fit its port, `Kind::Run` when the backend fails.
    fn enqueue(
        &mut self,
        context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError>;

    /// Runs and waits.
    ///
    /// # Errors
    /// As [`Engine::enqueue`].
    fn run(&mut self, inputs: &[TensorRef<'_>], outputs: &mut [TensorMut<'_>]) -> Result<(), EngineError> {
        self.enqueue(0, Stream::default(), inputs, outputs)?.wait()
    }
}

/// The check every backend makes before a run: as many tensors as ports, each fitting its own.
///
/// # Errors
/// `Kind::Interface`: `image_encoder input "image": expected f32 [1,3,256,256], got f32 [1,3,128,128]`.
pub fn check_bindings(
    engine: &str,
    io: &GraphIo,
    inputs: &[TensorRef<'_>],
    outputs: &[TensorMut<'_>],
) -> Result<(), EngineError> {
    let refuse = |side: &str, port: &Port, dtype: DType, shape: Shape| {
        let subject = format!("{engine} {side} {:?}", port.name);
        Err(EngineError::new(Kind::Interface, subject, port, format_args!("{dtype} {shape}")))
    };
    if inputs.len() != io.inputs.len() || outputs.len() != io.outputs.len() {
        return Err(EngineError::new(
            Kind::Interface,
            format_args!("{engine} bindings"),
            format_args!("{} inputs and {} outputs", io.inputs.len(), io.outputs.len()),
            format_args!("{} and {}", inputs.len(), outputs.len()),
        ));
    }
    for (port, tensor) in io.inputs.iter().zip(inputs) {
        if !port.accepts(tensor.dtype(), tensor.shape()) {
            return refuse("input", port, tensor.dtype(), tensor.shape());
        }
    }
    for (port, tensor) in io.outputs.iter().zip(outputs) {
        if !port.accepts(tensor.dtype(), tensor.shape()) {
            return refuse("output", port, tensor.dtype(), tensor.shape());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dims: &[Dim]) -> Port {
        Port { name: name.into(), dtype: DType::F32, dims: dims.to_vec() }
    }

    #[test]
    fn a_graph_that_differs_is_named() {
        use Dim::{Dynamic, Fixed};
        let wanted = GraphIo { inputs: vec![port("image", &[Fixed(1), Fixed(3)])], outputs: vec![] };
        for (case, found, message) in [
            ("same", vec![port("image", &[Fixed(1), Fixed(3)])], None),
            ("symbolic in the file", vec![port("image", &[Dynamic, Fixed(3)])], None),
            ("missing", vec![], Some("expected f32 [1,3], got none")),
            ("shape", vec![port("image", &[Fixed(1), Fixed(4)])], Some("expected f32 [1,3], got f32 [1,4]")),
            (
                "extra",
                vec![port("image", &[Fixed(1), Fixed(3)]), port("mask", &[Fixed(1)])],
                Some("input \"mask\": expected no such port, got f32 [1]"),
            ),
        ] {
            let result = wanted.expect_same("encoder", &GraphIo { inputs: found, outputs: vec![] });
            match message {
                None => assert!(result.is_ok(), "{case}"),
                Some(text) => assert!(result.expect_err(case).to_string().contains(text), "{case}"),
            }
        }
    }
}
