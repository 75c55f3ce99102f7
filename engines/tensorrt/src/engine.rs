use std::{path::PathBuf, sync::Arc};

use sightline_engine_api::{
    Device, DeviceOps, Engine, EngineError, Event, GraphIo, GraphName, GraphSpec, Kind, Stream, TensorMut,
    TensorRef, check_bindings,
};

use crate::{
    Context, Plan, Runtime,
    plan::{Gpu, fitting},
};

/// A graph in TensorRT: one plan, or several for different sizes, of which each run takes the smallest that covers
/// its shapes. Takes and gives device tensors only.
#[derive(Debug)]
pub struct TensorRtEngine {
    name: String,
    provider: String,
    device: Device,
    io: GraphIo,
    ops: Arc<dyn DeviceOps>,
    /// Smallest first.
    plans: Vec<Arc<Plan>>,
    /// One a run in flight.
    slots: Vec<Slot>,
}

/// A run's place: a context of each plan, which share their memory, and the stream of the last run.
#[derive(Debug)]
struct Slot {
    contexts: Vec<Context>,
    stream: Option<Stream>,
}

impl TensorRtEngine {
    /// Readies plans of one graph for `contexts` runs in flight. Everything is allocated here, nothing later.
    ///
    /// # Errors
    /// `Kind::Interface` without a plan or a context, or when the plans are not of one graph on one device;
    /// `Kind::Unavailable` when there is no memory.
    pub fn new(plans: Vec<Plan>, contexts: usize) -> Result<Self, EngineError> {
        let mut plans: Vec<_> = plans.into_iter().map(Arc::new).collect();
        plans.sort_by_key(|plan| plan.largest());
        let Some(first) = plans.first().filter(|_| contexts > 0) else {
            return Err(EngineError::new(
                Kind::Interface,
                "tensorrt engine",
                "at least one plan and one context",
                format_args!("{} and {contexts}", plans.len()),
            ));
        };
        let (name, io) = (first.name().to_owned(), first.io().clone());
        let (ops, version) = (Arc::clone(&first.runtime.access.ops), first.runtime.version());
        for plan in &plans {
            if plan.runtime.access.ops.device() != ops.device() {
                let device = plan.runtime.access.ops.device();
                return Err(EngineError::new(
                    Kind::Interface,
                    &name,
                    format_args!("plans on {}", ops.device()),
                    device,
                ));
            }
            // Of what was declared, every plan has been checked; without that they must agree.
            io.expect_same(&name, plan.io())?;
        }
        let bytes = plans.iter().map(|plan| plan.scratch_bytes()).max().unwrap_or(0);
        let slots = (0..contexts)
            .map(|_| {
                // A run uses one plan: its plans can share the largest one's memory. Never nothing, so that it has an
                // address.
                let scratch = ops.alloc(bytes.max(1))?;
                let each = plans.iter().map(|plan| Context::new(plan, Arc::clone(&scratch)));
                Ok(Slot { contexts: each.collect::<Result<_, _>>()?, stream: None })
            })
            .collect::<Result<_, EngineError>>()?;
        let provider = format!("tensorrt {}.{}.{}", version.major, version.minor, version.patch);
        tracing::debug!(graph = name, provider, plans = plans.len(), scratch_bytes = bytes, "graph loaded");
        Ok(Self { name, provider, device: ops.device(), io, ops, plans, slots })
    }
}

impl TensorRtEngine {
    /// Finds the plans of a model's graph in `folders`, checks them against this machine, and readies all that fit.
    ///
    /// # Errors
    /// `Kind::Model` when there is none (what to type), none that fits (what differs), or one that TensorRT cannot
    /// load; else as [`Runtime::load`] and [`TensorRtEngine::new`].
    pub fn find(
        runtime: &Runtime,
        gpu: &Gpu,
        folders: &[PathBuf],
        graph: GraphName,
        spec: &GraphSpec,
        contexts: usize,
    ) -> Result<Self, EngineError> {
        let name = graph.as_str();
        let paths = fitting(folders, name, &spec.sha256, &runtime.machine(gpu.clone()))?;
        let plans = paths.iter().map(|path| runtime.load(name, path, gpu, Some(&spec.io)));
        Self::new(plans.collect::<Result<_, _>>()?, contexts)
    }
}

impl Engine for TensorRtEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn io(&self) -> &GraphIo {
        &self.io
    }

    fn device(&self) -> Device {
        self.device
    }

    fn provider(&self) -> &str {
        &self.provider
    }

    fn contexts(&self) -> usize {
        self.slots.len()
    }

    /// Starts the run and returns. Runs in one context share its memory, so they belong on one stream; if they change
    /// streams, the later one waits for the earlier.
    fn enqueue(
        &mut self,
        context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        check_bindings(&self.name, &self.io, inputs, outputs)?;
        let count = self.slots.len();
        let Some(slot) = self.slots.get_mut(context) else {
            let subject = format!("{} context", self.name);
            return Err(EngineError::new(Kind::Interface, subject, format_args!("below {count}"), context));
        };
        let fits = |plan: &Arc<Plan>| plan.profile_for(|index| inputs[index].shape()).is_some();
        let chosen = self.plans.iter().position(fits).and_then(|index| slot.contexts.get_mut(index));
        let Some(chosen) = chosen else {
            let covered: Vec<_> = self.plans.iter().map(|plan| plan.coverage()).collect();
            let given: Vec<_> = inputs.iter().map(|tensor| tensor.shape().to_string()).collect();
            return Err(EngineError::new(
                Kind::Interface,
                format_args!("{} inputs", self.name),
                format_args!("what a plan covers: {}", covered.join("; ")),
                given.join(", "),
            ));
        };
        if let Some(before) = slot.stream.replace(stream).filter(|before| *before != stream) {
            self.ops.order(before, stream)?;
        }
        chosen.enqueue(stream, inputs, outputs)?;
        Ok(Event::on_stream(Arc::clone(&self.ops), stream))
    }
}
