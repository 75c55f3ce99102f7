use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sightline_engine_api::GraphName;

/// The image encoder, and all other graphs.
const HALVES: usize = 2;

/// A session, as far as it is told from others.
pub(super) type Who = usize;

/// A session's place among those that share its engines: until when its runs are wanted, and how long they waited.
/// Clones are the same place.
#[derive(Debug, Clone)]
pub struct Turn {
    halves: Arc<[Half; HALVES]>,
    /// The halves it speaks for.
    speaks_for: Range<usize>,
}

#[derive(Debug, Default)]
struct Half {
    /// None until it is said.
    deadline: Mutex<Option<Instant>>,
    waited_ns: AtomicU64,
    joined: AtomicU64,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self { halves: Arc::default(), speaks_for: 0..HALVES }
    }

    /// The part that speaks for the image encoder alone, and the part that speaks for all other graphs: for a session
    /// that is split in two, whose halves are on different frames.
    pub fn split(&self) -> (Self, Self) {
        let part = |speaks_for| Self { halves: Arc::clone(&self.halves), speaks_for };
        (part(0..1), part(1..HALVES))
    }

    /// Sets when the frame that is next, or under way, should be done; runs that wait already keep their place.
    /// A deadline further than a second away counts as one in a second, as does none at all: nobody waits for ever.
    pub fn due(&self, deadline: Instant) {
        for half in &self.halves[self.speaks_for.clone()] {
            *half.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        }
    }

    /// The time that runs have waited for other sessions since this was last asked, a few microseconds of
    /// bookkeeping a run included. Where a device has no room before a run of one's own is over, that is no waiting for
    /// others; what ran together counts as the run of whose turn it was.
    pub fn waited(&self) -> Duration {
        let taken = self.halves[self.speaks_for.clone()].iter();
        Duration::from_nanos(taken.map(|half| half.waited_ns.swap(0, Ordering::Relaxed)).sum())
    }

    /// How many runs were done together with other sessions' since this was last asked.
    pub fn joined_runs(&self) -> u64 {
        let taken = self.halves[self.speaks_for.clone()].iter();
        taken.map(|half| half.joined.swap(0, Ordering::Relaxed)).sum()
    }

    /// The same for all that are the same place.
    pub(super) fn who(&self) -> Who {
        Arc::as_ptr(&self.halves).addr()
    }

    fn half(&self, graph: GraphName) -> &Half {
        &self.halves[usize::from(graph != GraphName::ImageEncoder)]
    }

    pub(super) fn deadline(&self, graph: GraphName) -> Option<Instant> {
        *self.half(graph).deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, graph: GraphName, waited: Duration) {
        let ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
        self.half(graph).waited_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(super) fn joined(&self, graph: GraphName) {
        self.half(graph).joined.fetch_add(1, Ordering::Relaxed);
    }
}
