//! Mutual exclusion by deadline.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Nobody's deadline counts as further away than this: who has none, or a very late one, is overtaken only by those
/// who come within this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Deadline and number of arrival.
type Ticket = (Instant, u64);

/// Holds something that one at a time may use, and lets in first whose deadline comes first; of equal ones, who came
/// first. Whoever is inside is not interrupted.
pub(super) struct Gate<T> {
    queue: Mutex<Queue>,
    left: Condvar,
    /// Only locked by whose turn it is.
    kept: Mutex<T>,
}

struct Queue {
    busy: bool,
    waiting: Vec<Ticket>,
    arrivals: u64,
}

impl<T> Gate<T> {
    pub(super) fn new(kept: T) -> Self {
        let queue = Queue { busy: false, waiting: Vec::with_capacity(64), arrivals: 0 };
        Self { queue: Mutex::new(queue), left: Condvar::new(), kept: Mutex::new(kept) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic half way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn. Gives what is kept, until that is dropped, and the time it took.
    pub(super) fn enter(&self, deadline: Option<Instant>) -> (Inside<'_, T>, Duration) {
        let came = Instant::now();
        let latest = came + PATIENCE;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        let mut queue = self.queue();
        queue.arrivals += 1;
        let ticket = (deadline, queue.arrivals);
        queue.waiting.push(ticket);
        while queue.busy || queue.waiting.iter().min() != Some(&ticket) {
            queue = self.left.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.busy = true;
        queue.waiting.retain(|other| *other != ticket);
        drop(queue);
        // Who was here before may have panicked: that is between it and the engine.
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (Inside { gate: self, kept }, came.elapsed())
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.queue().waiting.len()
    }
}

/// The right to use what the gate keeps. Dropped, be it by a panic, it lets the next one in.
pub(super) struct Inside<'a, T> {
    gate: &'a Gate<T>,
    kept: MutexGuard<'a, T>,
}

impl<T> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        self.gate.queue().busy = false;
        self.gate.left.notify_all();
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.kept
    }
}

impl<T> DerefMut for Inside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.kept
    }
}
