use std::{ffi::CString, fmt, sync::Arc};

use sightline_core::Shape;
use sightline_engine_api::{Dim, EngineError, GraphIo, Kind, Port, Stream};

use crate::{
    Runtime,
    checked::{EnginePtr, RawPort},
};

/// Sizes that a profile covers of an input, outermost first.
#[derive(Debug)]
struct Covered {
    least: Vec<i64>,
    most: Vec<i64>,
}

/// An input or output of a plan.
#[derive(Debug)]
pub(crate) struct PlanPort {
    pub(crate) name: CString,
    pub(crate) port: Port,
    /// One a profile, for an input with open sizes.
    covered: Vec<Covered>,
}

impl PlanPort {
    fn accepts(&self, profile: usize, shape: Shape) -> bool {
        if !self.port.accepts(self.port.dtype, shape) {
            return false;
        }
        let Some(covered) = self.covered.get(profile) else { return self.covered.is_empty() };
        shape.dims().iter().zip(covered.least.iter().zip(&covered.most)).all(|(size, (least, most))| {
            i64::try_from(*size).is_ok_and(|size| (*least..=*most).contains(&size))
        })
    }

    /// Elements at the most; 0 where nothing is open.
    fn most(&self) -> i128 {
        let of = |covered: &Covered| covered.most.iter().map(|size| i128::from(*size)).product();
        self.covered.iter().map(of).max().unwrap_or(0)
    }
}

/// A plan in TensorRT's hands: a graph for one version, one kind of GPU and one or several ranges of sizes.
pub struct Plan {
    pub(crate) engine: Arc<EnginePtr>,
    pub(crate) runtime: Runtime,
    name: String,
    /// In binding order.
    pub(crate) inputs: Vec<PlanPort>,
    /// In binding order.
    pub(crate) outputs: Vec<PlanPort>,
    io: GraphIo,
    profiles: usize,
    scratch_bytes: usize,
}

impl Plan {
    pub(crate) fn new(
        runtime: &Runtime,
        name: &str,
        bytes: &[u8],
        declared: Option<&GraphIo>,
    ) -> Result<Self, EngineError> {
        runtime.access.enter(Stream::TRACK)?;
        let refuse = |expected: &str, got: String| EngineError::new(Kind::Model, name, expected, got);
        let engine = EnginePtr::new(&runtime.pointer, bytes)
            .map_err(|got| refuse(&format!("a plan that TensorRT {} can load", runtime.version()), got))?;
        let profiles = engine.profiles();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for raw in engine.ports().map_err(|got| refuse("ports with a name, a type and a shape", got))? {
            let to = if raw.is_input { &mut inputs } else { &mut outputs };
            to.push(port(&engine, name, profiles, raw)?);
        }
        let scratch_bytes = engine.scratch_bytes().map_err(|got| refuse("a size of scratch memory", got))?;
        let found = GraphIo {
            inputs: inputs.iter().map(|port| port.port.clone()).collect(),
            outputs: outputs.iter().map(|port| port.port.clone()).collect(),
        };
        let io = match declared {
            None => found,
            Some(declared) => {
                bucketed(declared, &found).expect_same(name, &found)?;
                in_order_of(&mut inputs, &declared.inputs);
                in_order_of(&mut outputs, &declared.outputs);
                declared.clone()
            }
        };
        Ok(Self {
            engine: Arc::new(engine),
            runtime: runtime.clone(),
            name: name.to_owned(),
            inputs,
            outputs,
            io,
            profiles: usize::try_from(profiles).unwrap_or(0).max(1),
            scratch_bytes,
        })
    }

    /// The graph's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its inputs and outputs, in binding order.
    pub fn io(&self) -> &GraphIo {
        &self.io
    }

    /// Memory that each of its contexts needs to work in.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// The profile that covers these sizes of its inputs, if there is one.
    pub(crate) fn profile_for(&self, shape: impl Fn(usize) -> Shape) -> Option<usize> {
        (0..self.profiles).find(|profile| {
            self.inputs.iter().enumerate().all(|(index, port)| port.accepts(*profile, shape(index)))
        })
    }

    /// What grows with the largest sizes it covers: of two plans for a run, the smaller one is the faster.
    pub(crate) fn largest(&self) -> i128 {
        self.inputs.iter().map(PlanPort::most).sum()
    }

    /// The sizes it covers, for an error: `mem [1,1,64]..[4,7,64]`.
    pub(crate) fn coverage(&self) -> String {
        let of = |port: &PlanPort| {
            let name = &port.port.name;
            let ranges: Vec<_> = port
                .covered
                .iter()
                .map(|range| format!("{name} {:?}..{:?}", range.least, range.most))
                .collect();
            ranges.join(" or ")
        };
        let open: Vec<_> = self.inputs.iter().filter(|port| !port.covered.is_empty()).map(of).collect();
        if open.is_empty() { "its fixed sizes".to_owned() } else { open.join(", ") }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("name", &self.name)
            .field("io", &self.io)
            .field("scratch_bytes", &self.scratch_bytes)
            .finish_non_exhaustive()
    }
}

fn port(engine: &EnginePtr, graph: &str, profiles: i32, raw: RawPort) -> Result<PlanPort, EngineError> {
    let side = if raw.is_input { "input" } else { "output" };
    let text = raw.name.to_string_lossy().into_owned();
    let subject = format!("{graph} {side} {text:?}");
    let refuse = |expected: &str, got: &str| Err(EngineError::new(Kind::Interface, &subject, expected, got));
    let Some(dtype) = raw.dtype else {
        return refuse("an f32, f16, bf16 or i64 tensor", "one of another type");
    };
    if !raw.on_device {
        return refuse("a device tensor", "one that TensorRT wants on the host (its values decide shapes)");
    }
    if raw.dims.len() > Shape::MAX_RANK {
        return refuse(&format!("at most {} dimensions", Shape::MAX_RANK), &raw.dims.len().to_string());
    }
    let mut covered = Vec::new();
    if raw.is_input && raw.dims.iter().any(|size| *size < 0) {
        for profile in 0..profiles {
            let [least, most] = engine
                .profile_range(&raw.name, profile)
                .map_err(|got| EngineError::new(Kind::Model, &subject, "sizes that a profile covers", got))?;
            covered.push(Covered { least, most });
        }
    }
    let dims = raw.dims.iter().map(|size| usize::try_from(*size).map_or(Dim::Dynamic, Dim::Fixed));
    Ok(PlanPort { port: Port { name: text, dtype, dims: dims.collect() }, name: raw.name, covered })
}

/// The declared ports with those open sizes fixed that the plan has fixed: it was built for one of them.
fn bucketed(declared: &GraphIo, found: &GraphIo) -> GraphIo {
    let narrow = |declared: &[Port], found: &[Port]| {
        let narrowed = declared.iter().map(|port| {
            let mut port = port.clone();
            if let Some(found) = found.iter().find(|other| other.name == port.name) {
                for (dim, other) in port.dims.iter_mut().zip(&found.dims) {
                    if *dim == Dim::Dynamic {
                        *dim = *other;
                    }
                }
            }
            port
        });
        narrowed.collect()
    };
    GraphIo {
        inputs: narrow(&declared.inputs, &found.inputs),
        outputs: narrow(&declared.outputs, &found.outputs),
    }
}

/// Sorts ports as they were declared; both have the same names.
fn in_order_of(ports: &mut [PlanPort], declared: &[Port]) {
    ports.sort_by_key(|port| declared.iter().position(|other| other.name == port.port.name));
}
