//! One set of engines for many sessions: loaded once, run by whoever's deadline comes first.

mod batch;
mod flight;
mod gate;
mod parcel;
mod turn;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use sightline_engine_api::{
    Device, DeviceOps, Engine, EngineError, Event, GraphIo, GraphName, Kind, Model, ModelSpec, Stream,
    TensorMut, TensorRef,
};

pub use self::turn::Turn;
use self::{
    batch::Batch,
    flight::Flight,
    gate::{Entered, Gate, Inside},
    parcel::Parcel,
};
use crate::{GpuLoad, LoadOptions, load};

/// The groups there are. A group ends with the last handle on its engines.
static GROUPS: Mutex<BTreeMap<String, Weak<Pool>>> = Mutex::new(BTreeMap::new());

/// As [`load`], but the first call for a group loads the engines, and later ones give handles on the same: models of
/// their own to their sessions, at no further memory. They are freed with the last of these models.
///
/// On the processor each graph is run by one session at a time, and different graphs at the same time. A device is given
/// image encoders in one line and all other graphs in another, each not more than two runs before one of them is over.
/// Of those who wait in a line, the one whose [`Turn`] has the earliest deadline goes next.
///
/// Whose turn it is takes those along who are next after it with runs of the same graph and sizes, if the graph lets
/// objects bring a picture each (`engines/GRAPHS.md`, *Batch*) and they are [`LoadOptions::batch`] at most. Nobody ever
/// waits for company. Runs that fail or panic together are done over one by one, so that each session has its own errors.
///
/// Waits while another group is being loaded.
///
/// # Errors
/// As [`load`]; `Kind::Model` when the group runs another model or was loaded with other options, naming both.
pub fn shared(group: &str, name_or_dir: &str, options: &LoadOptions) -> Result<(Model, Turn), EngineError> {
    let asked = Asked { model: name_or_dir.to_owned(), options: options.clone() };
    join(group, asked, || load(name_or_dir, options))
}

/// One set of engines that was loaded elsewhere, for sessions as [`shared`] has them.
#[derive(Clone)]
pub struct SharedModel(Arc<Pool>);

impl std::fmt::Debug for SharedModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedModel").field("name", &self.0.spec.name).finish_non_exhaustive()
    }
}

impl SharedModel {
    /// `batch` is [`LoadOptions::batch`].
    ///
    /// # Errors
    /// As the device reports. One without memory to put runs together in does them one by one.
    pub fn new(model: Model, batch: Option<NonZeroUsize>) -> Result<Self, EngineError> {
        let asked = Asked {
            model: model.spec.name.clone(),
            options: LoadOptions { batch, ..LoadOptions::default() },
        };
        Ok(Self(Arc::new(Pool::new(asked, model)?)))
    }

    /// Engines for another session, and its place among those who share them.
    pub fn handles(&self) -> (Model, Turn) {
        self.0.handles()
    }
}

/// What a group was loaded as.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    model: String,
    options: LoadOptions,
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LoadOptions { provider, threads, spinning, onnxruntime, gpu, batch } = &self.options;
        write!(f, "model {:?} with provider {provider}, ", self.model)?;
        match threads {
            Some(threads) => write!(f, "threads {threads}")?,
            None => f.write_str("threads as they are best")?,
        }
        write!(f, ", spinning {spinning}")?;
        if let Some(path) = onnxruntime {
            write!(f, ", ONNX Runtime {}", path.display())?;
        }
        if let Some(batch) = batch {
            write!(f, ", {batch} together")?;
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
            let pool = Arc::new(Pool::new(asked, load()?)?);
            groups.insert(group.to_owned(), Arc::downgrade(&pool));
            pool
        }
    };
    drop(groups);
    Ok(pool.handles())
}

/// Objects that run together on a device unless told otherwise, as many as a session's own do at most.
const TOGETHER: usize = 4;

/// A group's engines.
struct Pool {
    asked: Asked,
    spec: ModelSpec,
    engines: Vec<Shared>,
    lines: Vec<Gate<Vec<Member>, Parcel>>,
    ops: Option<Arc<dyn DeviceOps>>,
}

/// What is known of an engine without waiting for it, and where it is.
struct Shared {
    graph: GraphName,
    name: String,
    io: GraphIo,
    device: Device,
    provider: String,
    contexts: usize,
    /// Its line, and its place among those of the line.
    at: (usize, usize),
    /// Objects of different sessions that it runs together at most; less than 2 for none.
    together: AtomicUsize,
}

/// An engine of a line.
struct Member {
    engine: Box<dyn Engine>,
    batch: Option<Batch>,
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
    /// # Errors
    /// As the device reports.
    fn new(asked: Asked, model: Model) -> Result<Self, EngineError> {
        let always = [
            model.image_encoder,
            model.memory_attention,
            model.decoder_track,
            model.decoder_prompt,
            model.memory_encoder,
        ];
        let named = ALWAYS
            .into_iter()
            .zip(always)
            .chain(model.mask_downsample.map(|engine| (GraphName::MaskDownsample, engine)));
        let ops = model.device;
        let most = match asked.options.batch {
            Some(most) => most.get(),
            None => ops.as_ref().map_or(1, |_| TOGETHER),
        };
        let (mut engines, mut members) = (Vec::new(), Vec::<Vec<Member>>::new());
        for (graph, engine) in named {
            let batch = match Batch::new(engine.io(), most, model.spec.memory.slots(), ops.as_ref()) {
                Ok(batch) => batch,
                Err(error) if error.kind() == Kind::Unavailable => {
                    tracing::warn!(%error, %graph, "no room to put feeds' runs together");
                    None
                }
                Err(error) => return Err(error),
            };
            // A device's streams: the image encoder's, and all others'.
            let line = if ops.is_some() { members.len().min(1) } else { members.len() };
            if line == members.len() {
                members.push(Vec::new());
            }
            engines.push(Shared {
                graph,
                name: engine.name().to_owned(),
                io: engine.io().clone(),
                device: engine.device(),
                provider: engine.provider().to_owned(),
                contexts: engine.contexts(),
                at: (line, members[line].len()),
                together: AtomicUsize::new(batch.as_ref().map_or(1, Batch::most)),
            });
            members[line].push(Member { engine, batch });
        }
        let line = |members| Ok(Gate::new(members, ops.clone().map(Flight::new).transpose()?));
        let lines = members.into_iter().map(line).collect::<Result<_, EngineError>>()?;
        Ok(Self { asked, spec: model.spec, engines, lines, ops })
    }

    fn handles(self: &Arc<Self>) -> (Model, Turn) {
        let turn = Turn::new();
        let handle = |at: usize| -> Box<dyn Engine> {
            Box::new(Handle { pool: Arc::clone(self), at, turn: turn.clone(), spare: None })
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
    /// What the last run was told in.
    spare: Option<Parcel>,
}

impl Handle {
    fn shared(&self) -> &Shared {
        &self.pool.engines[self.at]
    }
}

impl Shared {
    /// Does one's own run and those that were taken along as one; false if each is to be done alone.
    fn together(&self, inside: &mut Inside<'_, Vec<Member>, Parcel>, own: &mut Parcel) -> bool {
        let (members, others) = inside.with_company();
        let Member { engine, batch } = &mut members[own.graph];
        let Some(room) = batch else { return false };
        let done = room.attempt(&mut **engine, own, others);
        let most = room.most();
        self.together.store(most, Ordering::Relaxed);
        if most < 2 {
            *batch = None;
        }
        done
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

    /// Waits for its turn first, or for another session to do it along with its own. On a device it is the order in which
    /// runs are given to it that is kept.
    fn enqueue(
        &mut self,
        context: usize,
        stream: Stream,
        inputs: &[TensorRef<'_>],
        outputs: &mut [TensorMut<'_>],
    ) -> Result<Event, EngineError> {
        let Self { pool, at, turn, spare } = self;
        let shared = &pool.engines[*at];
        let (line, place) = shared.at;
        let limit = shared.together.load(Ordering::Relaxed);
        let lanes = match limit {
            0 | 1 => None,
            _ => parcel::lanes(&shared.name, &shared.io, pool.ops.as_deref(), inputs, outputs),
        };
        let lanes = lanes.filter(|lanes| *lanes < limit);
        let mut tell = || Some(Parcel::of(spare.take(), (place, stream, lanes?), inputs, outputs));
        let (entered, waited) = pool.lines[line].enter(turn.who(), turn.deadline(shared.graph), &mut tell);
        turn.add(shared.graph, waited);
        let (mut inside, mut told) = match entered {
            Entered::Done(parcel) => {
                parcel.deliver(outputs);
                *spare = Some(parcel);
                turn.joined(shared.graph);
                return Ok(pool.end_of(stream));
            }
            Entered::Inside(inside, told) => (inside, told),
        };
        if let Some(mut all) = lanes {
            // Who is inside alone changes it.
            let most = shared.together.load(Ordering::Relaxed);
            let joins = inside.invite(|other: &Parcel| {
                let fits = (other.graph, other.stream) == (place, stream)
                    && all + other.lanes <= most
                    && other.is_like(inputs, outputs);
                all += if fits { other.lanes } else { 0 };
                fits
            });
            if joins > 0 && told.is_none() {
                told = tell();
            }
            if let Some(own) = told.as_mut().filter(|_| joins > 0)
                && shared.together(&mut inside, own)
            {
                inside.begun(stream);
                inside.done();
                own.deliver(outputs);
                turn.joined(shared.graph);
                *spare = told;
                return Ok(pool.end_of(stream));
            }
        }
        *spare = told;
        let event = inside[place].engine.enqueue(context, stream, inputs, outputs)?;
        inside.begun(stream);
        Ok(event)
    }
}

impl Pool {
    /// The end of what a stream was given.
    fn end_of(&self, stream: Stream) -> Event {
        match &self.ops {
            Some(ops) => Event::on_stream(Arc::clone(ops), stream),
            None => Event::done(),
        }
    }
}
