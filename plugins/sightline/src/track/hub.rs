//! What the streaming thread and the worker share: the mailbox, the command queue, the newest masks, the counts.
//!
//! One short lock. Nothing is copied, posted, pushed or computed while it is held.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sightline_core::{FrameStamp, ObjectId, Outcome, SkipReason};

use super::{draft::Request, mailbox::Mailbox, talk::Question};
use crate::{histogram::Histogram, meta::Published, pixels::FrameCopy, record::FrameRecord};

/// Depth of the command queue. Its full-policy is `DropNewest`: the newest command is refused, and its sender told.
pub(crate) const COMMANDS: usize = 64;
/// In flight, waiting, and being filled.
const SLOTS: usize = 3;

/// What the client asks for; carried out on the worker, between frames, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Prompt(Request),
    Remove(ObjectId),
    Clear,
    Question(Question),
    /// Takes a question back.
    Withdraw(u64),
}

/// A frame on its way to the worker.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) arrival: Instant,
    pub(crate) copy: FrameCopy,
}

/// What the worker is to do next.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) flushed: bool,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) frame: Option<(FrameStamp, Job)>,
}

/// Whether a frame was left for the worker.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It waits; the frame whose place it took, if any, now has this outcome.
    Waits(Option<FrameRecord>),
    /// It has its outcome already.
    Done(FrameRecord),
}

/// Every frame once, by outcome, and what else is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) frames_in: u64,
    pub(crate) masks: u64,
    pub(crate) no_object: u64,
    pub(crate) superseded: u64,
    pub(crate) no_prompt: u64,
    pub(crate) error: u64,
    pub(crate) flushed: u64,
    pub(crate) pending: u64,
    pub(crate) fresh_buffers: u64,
    pub(crate) coasted_buffers: u64,
    pub(crate) prompts_applied: u64,
    pub(crate) prompts_refused: u64,
}

impl Counts {
    pub(crate) fn processed(&self) -> u64 {
        self.masks + self.no_object
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.superseded + self.no_prompt + self.error + self.flushed
    }

    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Masks => &mut self.masks,
            Outcome::NoObject => &mut self.no_object,
            Outcome::Skipped(SkipReason::Superseded) => &mut self.superseded,
            Outcome::Skipped(SkipReason::NoPrompt) => &mut self.no_prompt,
            Outcome::Skipped(SkipReason::Flushed) => &mut self.flushed,
            // Error, and whatever reason is added without telling us.
            Outcome::Skipped(_) => &mut self.error,
        } += 1;
    }
}

#[derive(Debug, Default)]
struct Inner {
    mailbox: Mailbox<Job>,
    arrivals: [Option<(u64, Instant)>; 2],
    commands: VecDeque<Command>,
    spare: Vec<FrameCopy>,
    newest: Option<Arc<Published>>,
    counts: Counts,
    latency: Histogram,
    cost: Histogram,
    /// The worker has settled a frame and is still telling of it.
    reporting: bool,
    /// A flush passed since the worker last looked.
    flushed: bool,
    /// Between FLUSH_START and FLUSH_STOP, or on the way down.
    flushing: bool,
    /// There is news for the worker.
    woken: bool,
    /// The worker found nothing to track, and no command came since.
    idle: bool,
    closed: bool,
    /// The worker is gone.
    dead: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    to_worker: Condvar,
    to_stream: Condvar,
}

impl Inner {
    /// Counts a frame that is skipped, and says so.
    fn settle(&mut self, stamp: FrameStamp, reason: SkipReason) -> FrameRecord {
        let latency = self.forget_arrival(stamp).map_or(Duration::ZERO, |arrival| arrival.elapsed());
        self.counts.add(Outcome::Skipped(reason));
        FrameRecord::skipped(stamp, reason, latency)
    }

    fn forget_arrival(&mut self, stamp: FrameStamp) -> Option<Instant> {
        let mine = |slot: &&mut Option<(u64, Instant)>| slot.is_some_and(|(index, _)| index == stamp.index);
        self.arrivals.iter_mut().find(mine).and_then(Option::take).map(|(_, arrival)| arrival)
    }

    fn keep(&mut self, copy: FrameCopy) {
        if self.spare.len() < SLOTS {
            self.spare.push(copy);
        }
    }

    fn cancel(&mut self, reason: SkipReason) -> Vec<FrameRecord> {
        let (flying, waiting) = self.mailbox.cancel();
        let mut records = Vec::new();
        records.extend(flying.map(|stamp| self.settle(stamp, reason)));
        if let Some((stamp, job)) = waiting {
            records.push(self.settle(stamp, reason));
            self.keep(job.copy);
        }
        records
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held is our bug; the counts are still worth having.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The streaming thread.

    /// A frame came in: counts it, gives it its index. `Err` when its outcome is known already.
    pub(crate) fn enter(
        &self,
        pts: Option<Duration>,
        running_time: Option<Duration>,
    ) -> (FrameStamp, Result<FrameCopy, FrameRecord>) {
        let mut inner = self.lock();
        let stamp = FrameStamp { index: inner.counts.frames_in, pts, running_time };
        inner.counts.frames_in += 1;
        let known = if inner.flushing {
            Some(SkipReason::Flushed)
        } else if inner.dead {
            Some(SkipReason::Error)
        } else if inner.idle {
            Some(SkipReason::NoPrompt)
        } else {
            None
        };
        match known {
            Some(reason) => (stamp, Err(inner.settle(stamp, reason))),
            None => (stamp, Ok(inner.spare.pop().unwrap_or_default())),
        }
    }

    /// Leaves a frame for the worker.
    pub(crate) fn offer(&self, stamp: FrameStamp, job: Job) -> Offered {
        let mut inner = self.lock();
        let refused = match (inner.flushing, inner.dead) {
            (true, _) => Some(SkipReason::Flushed),
            (_, true) => Some(SkipReason::Error),
            _ => None,
        };
        if let Some(reason) = refused {
            inner.keep(job.copy);
            return Offered::Done(inner.settle(stamp, reason));
        }
        let arrival = job.arrival;
        let replaced = inner.mailbox.offer(stamp, job).map(|(old, job)| {
            inner.keep(job.copy);
            inner.settle(old, SkipReason::Superseded)
        });
        if let Some(slot) = inner.arrivals.iter_mut().find(|slot| slot.is_none()) {
            *slot = Some((stamp.index, arrival));
        }
        drop(inner);
        self.to_worker.notify_one();
        Offered::Waits(replaced)
    }

    /// A frame that could not be copied.
    pub(crate) fn fail(&self, stamp: FrameStamp, copy: FrameCopy, error: String) -> FrameRecord {
        let mut inner = self.lock();
        inner.keep(copy);
        FrameRecord { error: Some(error), ..inner.settle(stamp, SkipReason::Error) }
    }

    /// Waits until a frame has its outcome. A flush gives it one, and so does the worker's end.
    pub(crate) fn wait_for(&self, index: u64) {
        let mut inner = self.lock();
        while (inner.mailbox.holds(index) || inner.reporting) && !inner.dead {
            inner = self.to_stream.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until every frame has its outcome, at most `limit`; what has none then is cancelled.
    pub(crate) fn drain(&self, limit: Duration) -> Vec<FrameRecord> {
        let (mut inner, _) = self
            .to_stream
            .wait_timeout_while(self.lock(), limit, |inner| {
                (inner.mailbox.len() > 0 || inner.reporting) && !inner.dead
            })
            .unwrap_or_else(PoisonError::into_inner);
        inner.cancel(SkipReason::Flushed)
    }

    pub(crate) fn newest(&self) -> Option<Arc<Published>> {
        self.lock().newest.clone()
    }

    /// The end of a buffer's way through the element.
    pub(crate) fn passed(&self, fresh: Option<bool>, cost: Duration) {
        let mut inner = self.lock();
        match fresh {
            Some(true) => inner.counts.fresh_buffers += 1,
            Some(false) => inner.counts.coasted_buffers += 1,
            None => {}
        }
        inner.cost.record(cost);
    }

    // Whoever controls the stream.

    /// FLUSH_START, or on the way down: nothing enters, nothing is waited for.
    pub(crate) fn flush_start(&self) -> Vec<FrameRecord> {
        let mut inner = self.lock();
        (inner.flushing, inner.flushed, inner.newest) = (true, true, None);
        let records = inner.cancel(SkipReason::Flushed);
        drop(inner);
        self.to_worker.notify_one();
        self.to_stream.notify_all();
        records
    }

    /// FLUSH_STOP.
    pub(crate) fn flush_stop(&self) {
        self.lock().flushing = false;
    }

    /// Queues a command; `false` when the queue is full or nobody works it any more.
    pub(crate) fn command(&self, command: Command) -> bool {
        let mut inner = self.lock();
        if inner.commands.len() >= COMMANDS || inner.closed || inner.dead {
            inner.counts.prompts_refused += u64::from(matches!(command, Command::Prompt(_)));
            return false;
        }
        inner.commands.push_back(command);
        inner.idle = false;
        drop(inner);
        self.to_worker.notify_one();
        true
    }

    /// Ends the worker after the run it is in.
    pub(crate) fn close(&self) -> Vec<FrameRecord> {
        let mut inner = self.lock();
        inner.closed = true;
        let records = inner.cancel(SkipReason::Flushed);
        drop(inner);
        self.to_worker.notify_all();
        self.to_stream.notify_all();
        records
    }

    /// Counts, and latency and streaming-thread cost as `[p50, p95, p99, max]`.
    pub(crate) fn stats(&self) -> (Counts, [Duration; 4], [Duration; 4]) {
        let inner = self.lock();
        let four = |h: &Histogram| [h.percentile(0.5), h.percentile(0.95), h.percentile(0.99), h.max()];
        let counts = Counts { pending: inner.mailbox.len(), ..inner.counts };
        (counts, four(&inner.latency), four(&inner.cost))
    }

    // The worker.

    /// Waits for work, or only looks whether there is some; `None` once closed.
    pub(crate) fn next(&self, wait: bool) -> Option<Work> {
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return None;
            }
            let frame = inner.mailbox.take();
            let woken = std::mem::take(&mut inner.woken) || !wait;
            if frame.is_some() || inner.flushed || woken || !inner.commands.is_empty() {
                let flushed = std::mem::take(&mut inner.flushed);
                return Some(Work { flushed, commands: std::mem::take(&mut inner.commands), frame });
            }
            inner = self.to_worker.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for [`Hub::wake`]; `false` once the corridor is closed or flushed.
    pub(crate) fn wait_for_news(&self) -> bool {
        let ended = |inner: &Inner| inner.closed || inner.flushing;
        let waits = |inner: &mut Inner| !inner.woken && !ended(inner);
        let mut inner = self.to_worker.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        inner.woken = false;
        !ended(&inner)
    }

    /// Something came for the worker by another way than through here.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.to_worker.notify_one();
    }

    /// The worker has looked at a frame and found these masks. `false` when the frame was cancelled meanwhile: its
    /// outcome is told already. After `true`, tell of it and call [`Hub::reported`].
    pub(crate) fn finish(&self, published: Arc<Published>) -> bool {
        let mut inner = self.lock();
        let result = published.result();
        let mine = inner.mailbox.finish(result.frame.index);
        if mine {
            inner.forget_arrival(result.frame);
            inner.counts.add(result.outcome);
            inner.latency.record(result.latency);
            inner.newest = Some(Arc::clone(&published));
            inner.reporting = true;
        }
        mine
    }

    /// The worker is through with a frame's picture.
    pub(crate) fn give_back(&self, copy: FrameCopy) {
        self.lock().keep(copy);
    }

    /// The worker did not look at a frame. `None` when it was cancelled meanwhile; otherwise as [`Hub::finish`].
    pub(crate) fn skip(&self, stamp: FrameStamp, copy: FrameCopy, reason: SkipReason) -> Option<FrameRecord> {
        let mut inner = self.lock();
        inner.keep(copy);
        let record = inner.mailbox.finish(stamp.index).then(|| inner.settle(stamp, reason));
        inner.reporting = record.is_some();
        record
    }

    /// The outcome that was settled last has been told: whoever waits for the frame may go on.
    pub(crate) fn reported(&self) {
        self.lock().reporting = false;
        self.to_stream.notify_all();
    }

    /// Replaces the newest masks, if they still are those of frame `index`.
    pub(crate) fn republish(&self, published: Published) {
        let mut inner = self.lock();
        let index = published.result().frame.index;
        if inner.newest.as_ref().is_some_and(|newest| newest.result().frame.index == index) {
            inner.newest = Some(Arc::new(published));
        }
    }

    /// Tells whether there is anything to track; commands that came meanwhile say there may be.
    pub(crate) fn set_idle(&self, idle: bool) {
        let mut inner = self.lock();
        inner.idle = idle && inner.commands.is_empty();
    }

    pub(crate) fn count_prompt(&self, applied: bool) {
        let mut inner = self.lock();
        if applied {
            inner.counts.prompts_applied += 1;
        } else {
            inner.counts.prompts_refused += 1;
        }
    }

    /// The worker has ended, well or not.
    pub(crate) fn worker_gone(&self) -> Vec<FrameRecord> {
        let mut inner = self.lock();
        (inner.dead, inner.reporting) = (true, false);
        let reason = if inner.closed { SkipReason::Flushed } else { SkipReason::Error };
        let records = inner.cancel(reason);
        drop(inner);
        self.to_stream.notify_all();
        records
    }

    /// Whether the worker ended although nobody asked it to.
    pub(crate) fn is_broken(&self) -> bool {
        let inner = self.lock();
        inner.dead && !inner.closed
    }
}
