use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sightline_core::TensorView;
use sightline_engine_api::{EngineError, GraphIo, GraphName, Kind, TensorRef};

/// A run that shall fail with `Kind::Run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Of which graph.
    pub graph: GraphName,
    /// The how-manieth of its runs, counted from 1.
    pub run: u64,
}

/// The inputs of one run by name; integers are written as floats.
pub type Recorded = BTreeMap<String, Vec<f32>>;

/// How many recorded runs of a graph are kept: the latest.
const KEPT_RUNS: usize = 256;

#[derive(Debug, Default)]
struct State {
    started: BTreeMap<GraphName, u64>,
    ended: BTreeMap<GraphName, u64>,
    faults: Vec<Fault>,
    delays: BTreeMap<GraphName, Duration>,
    /// Runs that may still begin; graphs that are not here are not held.
    permits: BTreeMap<GraphName, u64>,
    recorded: BTreeMap<GraphName, VecDeque<Recorded>>,
    record: bool,
}

/// A hand on the engines of a fake model while somebody else runs them. Clones are the same hand.
#[derive(Debug, Clone, Default)]
pub struct FakeHandle(Arc<(Mutex<State>, Condvar)>);

impl FakeHandle {
    /// A new one, for one model.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.0.1.notify_all();
    }

    /// Waits until `when` holds, at most `timeout`; says whether it does.
    fn wait(&self, timeout: Duration, mut when: impl FnMut(&State) -> bool) -> bool {
        let (state, result) = self
            .0
            .1
            .wait_timeout_while(self.state(), timeout, |state| !when(state))
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        !result.timed_out()
    }

    /// How many runs of a graph have begun, those that failed among them.
    pub fn runs(&self, graph: GraphName) -> u64 {
        self.state().started.get(&graph).copied().unwrap_or(0)
    }

    /// Waits until that many runs of a graph have begun; `false` if that has not happened in time.
    pub fn wait_for_runs(&self, graph: GraphName, runs: u64, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.started.get(&graph).copied().unwrap_or(0) >= runs)
    }

    /// Waits until that many runs of a graph are over; `false` if that has not happened in time.
    pub fn wait_for_ends(&self, graph: GraphName, runs: u64, timeout: Duration) -> bool {
        self.wait(timeout, |state| state.ended.get(&graph).copied().unwrap_or(0) >= runs)
    }

    /// Lets a coming run fail.
    pub fn fail(&self, fault: Fault) {
        self.change(|state| state.faults.push(fault));
    }

    /// Lets every run of a graph take that much longer.
    pub fn delay(&self, graph: GraphName, delay: Duration) {
        self.change(|state| {
            state.delays.insert(graph, delay);
        });
    }

    /// From now on a run of that graph waits, once begun, until it is let go.
    pub fn hold(&self, graph: GraphName) {
        self.change(|state| {
            state.permits.insert(graph, 0);
        });
    }

    /// Lets that many runs of a held graph go.
    pub fn let_go(&self, graph: GraphName, runs: u64) {
        self.change(|state| {
            if let Some(permits) = state.permits.get_mut(&graph) {
                *permits += runs;
            }
        });
    }

    /// Holds that graph no longer.
    pub fn release(&self, graph: GraphName) {
        self.change(|state| {
            state.permits.remove(&graph);
        });
    }

    /// Starts keeping a copy of every run's inputs.
    pub fn record(&self) {
        self.change(|state| state.record = true);
    }

    /// The inputs of the latest recorded runs of a graph, oldest first.
    pub fn recorded(&self, graph: GraphName) -> Vec<Recorded> {
        self.state().recorded.get(&graph).map(|runs| runs.iter().cloned().collect()).unwrap_or_default()
    }

    /// What every engine does before its arithmetic.
    pub(crate) fn begin(
        &self,
        graph: GraphName,
        io: &GraphIo,
        inputs: &[TensorRef<'_>],
    ) -> Result<(), EngineError> {
        let mut state = self.state();
        let run = state.started.entry(graph).or_default();
        *run += 1;
        let run = *run;
        if state.record {
            let kept = state.recorded.entry(graph).or_default();
            if kept.len() == KEPT_RUNS {
                kept.pop_front();
            }
            kept.push_back(copy(io, inputs));
        }
        self.0.1.notify_all();
        while state.permits.get(&graph) == Some(&0) {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(permits) = state.permits.get_mut(&graph) {
            *permits -= 1;
        }
        let delay = state.delays.get(&graph).copied().unwrap_or_default();
        let fails = state.faults.contains(&Fault { graph, run });
        drop(state);
        let until = Instant::now() + delay;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left);
        }
        if fails {
            return Err(EngineError::new(
                Kind::Run,
                graph,
                "a run without an error",
                format_args!("the scripted fault of run {run}"),
            ));
        }
        Ok(())
    }

    pub(crate) fn end(&self, graph: GraphName) {
        self.change(|state| *state.ended.entry(graph).or_default() += 1);
    }
}

fn copy(io: &GraphIo, inputs: &[TensorRef<'_>]) -> Recorded {
    io.inputs
        .iter()
        .zip(inputs)
        .map(|(port, input)| {
            let values = match input {
                TensorRef::Host(TensorView::F32(_, data)) => data.to_vec(),
                TensorRef::Host(TensorView::I64(_, data)) => data.iter().map(|value| *value as f32).collect(),
                TensorRef::Device(_) => Vec::new(),
            };
            (port.name.clone(), values)
        })
        .collect()
}
