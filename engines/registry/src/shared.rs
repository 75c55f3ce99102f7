//! One set of engines for many sessions: loaded once, run by whoever's deadline comes first.

mod gate;
mod turn;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use sightline_engine_api::{
    Device, DeviceOps, Engine, EngineError, Event, GraphIo, GraphName, Kind, Model, ModelSpec, Stream,
    TensorMut, TensorRef,
};

use self::gate::Gate;
pub use self::turn::Turn;
use crate::{GpuLoad, LoadOptions, load};

/// The groups there are. A group ends with the last handle on its engines.
static GROUPS: Mutex<BTreeMap<String, Weak<Pool>>> = Mutex::new(BTreeMap::new());

/// As [`load`], but the first call for a group loads the engines, and later ones give handles on the same: models of
/// their own to their sessions, at no further memory. They are freed with the last of these models.
///
/// Each graph is run by one session at a time; of those that wait, the one whose [`Turn`] has the earliest deadline
/// goes next. Different graphs run at the same time, so one session's image encoder overlaps another's tracking.
/// Waits while another group is being loaded.
///
/// # Errors
/// As [`load`]; `Kind::Model` when the group runs another model or was loaded with other options, naming both.
pub fn shared(group: &str, name_or_dir: &str, options: &LoadOptions) -> Result<(Model, Turn), EngineError> {
    let asked = Asked { model: name_or_dir.to_owned(), options: options.clone() };
    join(group, asked, || load(name_or_dir, options))
}

/// What a group was loaded as.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    model: String,
    options: LoadOptions,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LoadOptions { provider, threads, spinning, onnxruntime, gpu } = &self.options;
        write!(f, "model {:?} with provider {provider}, ", self.model)?;
        match threads {
            Some(threads) => write!(f, "threads {threads}")?,
            None => f.write_str("threads as they are best")?,
        }
        write!(f, ", spinning {spinning}")?;
        if let Some(path) = onnxruntime {
            write!(f, ", ONNX Runtime {}", path.display())?;
        }
        if *gpu == GpuLoad::default() { Ok(()) } else { write!(f, ", {gpu:?}") }
    }
}

fn join(
    group: &str,
    asked: Asked,
    load: impl FnOnce() -> Result<Model, EngineError>,
) -> Result<(Model, Turn), EngineError> {
    // A load that panicked has added nothing.
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.retain(|_, pool| pool.strong_count() > 0);
    let pool = match groups.get(group).and_then(Weak::upgrade) {
        Some(pool) if pool.asked == asked => pool,
        Some(pool) => {
            let subject = format!("group {group:?}");
            return Err(EngineError::new(Kind::Model, subject, &pool.asked, asked));
        }
        None => {
            let pool = Arc::new(Pool::new(asked, load()?));
            groups.insert(group.to_owned(), Arc::downgrade(&pool));
            pool
        }
    };
    drop(groups);
    Ok(pool.handles())
}

/// A group's engines.
struct Pool {
    asked: Asked,
    spec: ModelSpec,
    engines: Vec<Shared>,
    ops: Option<Arc<dyn DeviceOps>>,
}

/// An engine, and what is known of it without waiting for it.
struct Shared {
    graph: GraphName,
    name: String,
    io: GraphIo,
    device: Device,
    provider: String,
    contexts: usize,
    gate: Gate<Box<dyn Engine>>,
}

impl Shared {
    fn new((graph, engine): (GraphName, Box<dyn Engine>)) -> Self {
        Self {
            graph,
            name: engine.name().to_owned(),
            io: engine.io().clone(),
            device: engine.device(),
            provider: engine.provider().to_owned(),
            contexts: engine.contexts(),
            gate: Gate::new(engine),
        }
    }
}

/// Every graph but `mask_downsample`, which a model may lack, in the order in which a pool keeps them.
const ALWAYS: [GraphName; 5] = [
    GraphName::ImageEncoder,
    GraphName::MemoryAttention,
    GraphName::DecoderTrack,
    GraphName::DecoderPrompt,
    GraphName::MemoryEncoder,
];

impl Pool {
    fn new(asked: Asked, model: Model) -> Self {
        let always = [
            model.image_encoder,
            model.memory_attention,
            model.decoder_track,
            model.decoder_prompt,
            model.memory_encoder,
        ];
        let engines = ALWAYS
            .into_iter()
            .zip(always)
            .chain(model.mask_downsample.map(|engine| (GraphName::MaskDownsample, engine)));
        Self { asked, spec: model.spec, engines: engines.map(Shared::new).collect(), ops: model.device }
    }

    fn handles(self: &Arc<Self>) -> (Model, Turn) {
        let turn = Turn::new();
        let handle = |at: usize| -> Box<dyn Engine> {
            Box::new(Handle { pool: Arc::clone(self), at, turn: turn.clone() })
        };
        let model = Model {
            spec: self.spec.clone(),
            image_encoder: handle(0),
            memory_attention: handle(1),
            decoder_track: handle(2),
            decoder_prompt: handle(3),
            memory_encoder: handle(4),
            mask_downsample: (self.engines.len() > ALWAYS.len()).then(|| handle(5)),
            device: self.ops.clone(),
        };
        (model, turn)
    }
}

/// One session's hand on a shared engine.
struct Handle {
    pool: Arc<Pool>,
    at: usize,
    turn: Turn,
}

impl Handle {
    fn shared(&self) -> &Shared {
        &self.pool.engines[self.at]
    }
}

impl Engine for Handle {
    fn name(&self) -> &str {
        &self.shared().name
    }

    fn io(&self) -> &GraphIo {
        &self.shared().io
    }

    fn device(&self) -> Device {
        self.shared().device
    }

    fn provider(&self) -> &str {
        &self.shared().provider
    }

    fn contexts(&self) -> usize {
        self.shared().contexts
    }

    /// Waits for its turn first. On a device it is the order in which runs are given to it that is kept.
    fn enqueue(
        &mut self,
        context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        let shared = self.shared();
        let (mut engine, waited) = shared.gate.enter(self.turn.deadline(shared.graph));
        self.turn.add(shared.graph, waited);
        engine.enqueue(context, stream, inputs, outputs)
    }
}
