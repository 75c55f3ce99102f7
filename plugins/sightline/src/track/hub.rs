//! What the streaming thread and the worker share: the mailbox, the command queue, the newest masks, the counts.
//!
//! One short lock. Nothing is copied, posted, pushed or computed while it is held.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sightline_core::{Degrade, FrameStamp, ObjectId, Outcome, SkipReason};

use super::{
    admission::Admission,
    draft::Request,
    ladder::{Ages, Given, Ladder, Step},
    mailbox::Mailbox,
    talk::Question,
};
use crate::{frame::FramePicture, histogram::Histogram, meta::Published, record::FrameRecord};

/// Depth of the command queue. Its full-policy is `DropNewest`: the newest command is refused, and its sender told.
pub(crate) const COMMANDS: usize = 64;
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
    pub(crate) copy: FramePicture,
}

/// What is known of the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Camera {
    Lost,
    Back,
}

/// What the worker is to do next.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) flushed: bool,
    /// In the order in which it happened.
    pub(crate) camera: Vec<Camera>,
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
    pub(crate) over_budget: u64,
    pub(crate) degraded: u64,
    pub(crate) error: u64,
    pub(crate) flushed: u64,
    pub(crate) pending: u64,
    pub(crate) fresh_buffers: u64,
    pub(crate) coasted_buffers: u64,
    pub(crate) prompts_applied: u64,
    pub(crate) prompts_refused: u64,
    pub(crate) steps_down: u64,
    pub(crate) steps_up: u64,
    /// Pictures in device memory whose pixels were fetched.
    pub(crate) fetched: u64,
    pub(crate) joined_runs: u64,
}

impl Counts {
    pub(crate) fn processed(&self) -> u64 {
        self.masks + self.no_object
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.superseded + self.no_prompt + self.over_budget + self.degraded + self.error + self.flushed
    }

    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Masks => &mut self.masks,
            Outcome::NoObject => &mut self.no_object,
            Outcome::Skipped(SkipReason::Superseded) => &mut self.superseded,
            Outcome::Skipped(SkipReason::NoPrompt) => &mut self.no_prompt,
            Outcome::Skipped(SkipReason::OverBudget) => &mut self.over_budget,
            Outcome::Skipped(SkipReason::Degraded) => &mut self.degraded,
            Outcome::Skipped(SkipReason::Flushed) => &mut self.flushed,
            // Error, and whatever reason is added without telling us.
            Outcome::Skipped(_) => &mut self.error,
        } += 1;
    }
}

#[derive(Debug)]
struct Inner {
    mailbox: Mailbox<Job>,
    /// Of the frames without an outcome.
    arrivals: Vec<(u64, Instant)>,
    commands: VecDeque<Command>,
    spare: Vec<FramePicture>,
    /// In flight, waiting, and being filled.
    slots: usize,
    /// The encoder takes frames out of the mailbox.
    ahead: bool,
    admission: Admission,
    ladder: Ladder,
    /// Of the buffer that passed last.
    ages: Ages,
    /// What buffers carry.
    newest: Option<Arc<Published>>,
    /// The newest frame the engines looked at.
    looked: Option<Arc<Published>>,
    camera: Vec<Camera>,
    counts: Counts,
    latency: Histogram,
    cost: Histogram,
    /// The worker has settled a frame and is still telling of it, or has its picture.
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
#[derive(Debug)]
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    to_worker: Condvar,
    to_stream: Condvar,
    to_encoder: Condvar,
}

impl Inner {
    fn new(ahead: Option<usize>, max_fps: Option<f64>, ladder: Ladder) -> Self {
        let flights = ahead.unwrap_or(1);
        let slots = flights + 2;
        Self {
            ahead: ahead.is_some(),
            mailbox: Mailbox::new(flights),
            arrivals: Vec::with_capacity(slots),
            commands: VecDeque::with_capacity(COMMANDS),
            spare: Vec::with_capacity(slots),
            slots,
            admission: Admission::new(max_fps),
            ladder,
            ages: Ages::default(),
            newest: None,
            looked: None,
            camera: Vec::new(),
            counts: Counts::default(),
            latency: Histogram::default(),
            cost: Histogram::default(),
            reporting: false,
            flushed: false,
            flushing: false,
            woken: false,
            idle: false,
            closed: false,
            dead: false,
        }
    }

    /// What a buffer carries as it passes; `None` while there is nothing to carry though there should be.
    fn ages(&self, of: FrameStamp) -> Option<Ages> {
        if self.idle {
            return Some(Ages::default());
        }
        let (newest, looked) = (self.newest.as_ref()?.result().frame, self.looked.as_ref()?.result().frame);
        let age = |then: FrameStamp| {
            let clocks = of.running_time.zip(then.running_time).or(of.pts.zip(then.pts));
            clocks.map(|(now, then)| now.saturating_sub(then)).filter(|_| then.index + 1 < of.index)
        };
        Some(Ages { shown: age(newest).unwrap_or_default(), looked: age(looked).unwrap_or_default() })
    }

    /// Counts a frame that is skipped, and says so.
    fn settle(&mut self, stamp: FrameStamp, reason: SkipReason) -> FrameRecord {
        let latency = self.forget_arrival(stamp).map_or(Duration::ZERO, |arrival| arrival.elapsed());
        self.counts.add(Outcome::Skipped(reason));
        FrameRecord { degrade: self.ladder.given().at, ..FrameRecord::skipped(stamp, reason, latency) }
    }

    fn forget_arrival(&mut self, stamp: FrameStamp) -> Option<Instant> {
        let mine = self.arrivals.iter().position(|(index, _)| *index == stamp.index)?;
        Some(self.arrivals.swap_remove(mine).1)
    }

    fn keep(&mut self, copy: FramePicture) {
        if self.spare.len() < self.slots {
            self.spare.push(copy);
        }
    }

    /// Also gives the picture that was waiting.
    fn cancel(&mut self, reason: SkipReason) -> (Vec<FrameRecord>, Option<FramePicture>) {
        let (flying, waiting) = self.mailbox.cancel();
        let mut records = Vec::new();
        records.extend(flying.into_iter().map(|stamp| self.settle(stamp, reason)));
        let left = waiting.map(|(stamp, job)| {
            records.push(self.settle(stamp, reason));
            job.copy
        });
        (records, left)
    }
}

impl Hub {
    /// `ahead`: the image encoder runs ahead of the tracker, with so many frames in flight. At most `max_fps` frames a second enter.
    pub(crate) fn new(ahead: Option<usize>, max_fps: Option<f64>, ladder: Ladder) -> Self {
        Self {
            inner: Mutex::new(Inner::new(ahead, max_fps, ladder)),
            to_worker: Condvar::new(),
            to_stream: Condvar::new(),
            to_encoder: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock was held is our bug; the counts are still worth having.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames held at once: those in flight, and the one that waits.
    pub(crate) fn held(&self) -> u32 {
        // The last slot is the one that is filled.
        u32::try_from(self.lock().slots - 1).unwrap_or(u32::MAX)
    }

    // The streaming thread.

    /// A frame came in: counts it, gives it its index. `Err` when its outcome is known already.
    pub(crate) fn enter(
        &self,
        pts: Option<Duration>,
        running_time: Option<Duration>,
    ) -> (FrameStamp, Result<FramePicture, FrameRecord>) {
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
            let rests = inner.ladder.given().up(Degrade::Fewer);
            let busy = inner.mailbox.len() > 0;
            inner.admission.refuse(Instant::now(), rests.then_some(busy))
        };
        match known {
            Some(reason) => (stamp, Err(inner.settle(stamp, reason))),
            None => {
                inner.admission.entered();
                (stamp, Ok(inner.spare.pop().unwrap_or_default()))
            }
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
            let record = inner.settle(stamp, reason);
            drop(inner);
            self.give_back(job.copy);
            return Offered::Done(record);
        }
        let arrival = job.arrival;
        let replaced = inner.mailbox.offer(stamp, job);
        let record = replaced.as_ref().map(|(old, _)| inner.settle(*old, SkipReason::Superseded));
        inner.arrivals.push((stamp.index, arrival));
        drop(inner);
        self.to_worker.notify_one();
        self.to_encoder.notify_one();
        replaced.into_iter().for_each(|(_, job)| self.give_back(job.copy));
        Offered::Waits(record)
    }

    /// A frame that could not be copied.
    pub(crate) fn fail(&self, stamp: FrameStamp, copy: FramePicture, error: String) -> FrameRecord {
        self.give_back(copy);
        FrameRecord { error: Some(error), ..self.lock().settle(stamp, SkipReason::Error) }
    }

    /// So many more runs of shared engines were done together with those of other elements.
    pub(crate) fn joined(&self, runs: u64) {
        if runs > 0 {
            self.lock().counts.joined_runs += runs;
        }
    }

    /// Waits until a frame has its outcome, and nobody its picture. A flush gives it one, and so does the worker's end.
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
        let (records, left) = inner.cancel(SkipReason::Flushed);
        drop(inner);
        left.into_iter().for_each(|copy| self.give_back(copy));
        records
    }

    pub(crate) fn newest(&self) -> Option<Arc<Published>> {
        self.lock().newest.clone()
    }

    /// The newest frame the engines looked at, while masks are to be carried on from it.
    pub(crate) fn to_carry(&self) -> Option<Arc<Published>> {
        let inner = self.lock();
        inner.looked.clone().filter(|_| inner.ladder.given().up(Degrade::Coast))
    }

    /// Whether masks are, or soon may be, carried on by motion.
    pub(crate) fn may_coast(&self) -> bool {
        let inner = self.lock();
        // Before the first masks nobody knows how long they take.
        let coasts = inner.looked.is_none() && inner.ladder.coasts() || inner.ladder.may_coast(inner.ages);
        coasts && !inner.idle
    }

    /// Masks were carried on.
    pub(crate) fn carried(&self, published: Published) {
        let mut inner = self.lock();
        let index = published.result().frame.index;
        // What was removed, or looked at before a flush, meanwhile.
        let there = inner.looked.as_ref().is_some_and(|looked| {
            let known = |id| looked.result().objects.iter().any(|object| object.id == id);
            published.looked().index <= looked.looked().index
                && published.result().objects.iter().all(|object| known(object.id))
        });
        let newer = inner.newest.as_ref().is_none_or(|newest| newest.result().frame.index < index);
        if there && newer && !inner.flushing {
            inner.newest = Some(Arc::new(published));
        }
    }

    /// Whether a frame that is in flight was not cancelled.
    pub(crate) fn flies(&self, index: u64) -> bool {
        self.lock().mailbox.holds(index)
    }

    /// A frame more may fly.
    pub(crate) fn wake_encoder(&self) {
        self.to_encoder.notify_one();
    }

    /// What is given up at the moment.
    pub(crate) fn given(&self) -> Given {
        self.lock().ladder.given()
    }

    /// The end of a buffer's way through the element; the step it made the ladder take.
    pub(crate) fn passed(&self, of: FrameStamp, fresh: Option<bool>, cost: Duration) -> Option<Step> {
        let mut inner = self.lock();
        match fresh {
            Some(true) => inner.counts.fresh_buffers += 1,
            Some(false) => inner.counts.coasted_buffers += 1,
            None => {}
        }
        inner.cost.record(cost);
        // What a budget keeps from being looked at is no sign of a slow machine either.
        let Ages { shown, looked } = inner.ages(of)?;
        let budget = inner.admission.interval();
        let ages = Ages { shown: shown.saturating_sub(budget), looked: looked.saturating_sub(budget) };
        inner.ages = ages;
        let step = inner.ladder.observe(Instant::now(), ages)?;
        if step.to > step.from {
            inner.counts.steps_down += 1;
        } else {
            inner.counts.steps_up += 1;
        }
        Some(step)
    }

    /// The camera went silent, or is back.
    pub(crate) fn camera(&self, camera: Camera) {
        let mut inner = self.lock();
        if camera == Camera::Back {
            // A gap is no sign of a slow machine.
            inner.looked = None;
        }
        // A camera that flickers while the worker is busy: the last word counts.
        if inner.camera.len() >= 2 {
            inner.camera.remove(0);
        }
        inner.camera.push(camera);
        drop(inner);
        self.to_worker.notify_one();
    }

    // Whoever controls the stream.

    /// FLUSH_START, or on the way down: nothing enters, nothing is waited for.
    pub(crate) fn flush_start(&self) -> Vec<FrameRecord> {
        let mut inner = self.lock();
        (inner.flushing, inner.flushed) = (true, true);
        (inner.newest, inner.looked) = (None, None);
        let (records, left) = inner.cancel(SkipReason::Flushed);
        drop(inner);
        left.into_iter().for_each(|copy| self.give_back(copy));
        self.to_worker.notify_one();
        self.to_stream.notify_all();
        self.to_encoder.notify_one();
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
        let (records, left) = inner.cancel(SkipReason::Flushed);
        drop(inner);
        left.into_iter().for_each(|copy| self.give_back(copy));
        self.to_worker.notify_all();
        self.to_stream.notify_all();
        self.to_encoder.notify_all();
        records
    }

    /// Counts, and latency and streaming-thread cost as `[p50, p95, p99, max]`.
    pub(crate) fn stats(&self) -> (Counts, [Duration; 4], [Duration; 4]) {
        let inner = self.lock();
        let four = |h: &Histogram| [h.percentile(0.5), h.percentile(0.95), h.percentile(0.99), h.max()];
        let counts = Counts { pending: inner.mailbox.len(), ..inner.counts };
        (counts, four(&inner.latency), four(&inner.cost))
    }

    // The encoder, where it runs ahead of the tracker.

    /// Waits for a frame, and then until `begin_at`, to take the one that is the newest by then; `None` once closed.
    pub(crate) fn next_to_encode(&self, begin_at: impl Fn() -> Option<Instant>) -> Option<(FrameStamp, Job)> {
        let mut inner = self.lock();
        loop {
            if inner.closed || inner.dead {
                return None;
            }
            let wait = if inner.mailbox.has_work() {
                let early = begin_at().map(|at| at.saturating_duration_since(Instant::now()));
                match early.filter(|early| !early.is_zero()) {
                    Some(early) => early,
                    None => return inner.mailbox.take(),
                }
            } else {
                Duration::from_secs(3600)
            };
            (inner, _) = self.to_encoder.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // The worker.

    /// Waits at most so long for work; `None` once closed. Where the encoder runs ahead frames come by its belt.
    pub(crate) fn next(&self, limit: Duration) -> Option<Work> {
        let nothing = |inner: &mut Inner| {
            !inner.closed
                && !inner.flushed
                && !inner.woken
                && inner.commands.is_empty()
                && inner.camera.is_empty()
                && (inner.ahead || !inner.mailbox.has_work())
        };
        let (mut inner, _) = self
            .to_worker
            .wait_timeout_while(self.lock(), limit, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        if inner.closed {
            return None;
        }
        inner.woken = false;
        Some(Work {
            flushed: std::mem::take(&mut inner.flushed),
            camera: std::mem::take(&mut inner.camera),
            commands: std::mem::take(&mut inner.commands),
            frame: if inner.ahead { None } else { inner.mailbox.take() },
        })
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
    /// outcome is told already. After `true`, tell of it, give its picture back and call [`Hub::reported`].
    pub(crate) fn finish(&self, published: Arc<Published>) -> bool {
        let mut inner = self.lock();
        let result = published.result();
        let mine = inner.mailbox.finish(result.frame.index);
        if mine {
            inner.forget_arrival(result.frame);
            inner.counts.add(result.outcome);
            inner.latency.record(result.latency);
            inner.admission.worked(Instant::now(), result.latency.saturating_sub(result.stages.queue));
            let shown = inner.newest.as_ref().map(|newest| newest.result().frame.index);
            if shown.is_none_or(|shown| shown <= result.frame.index) {
                inner.newest = Some(Arc::clone(&published));
            }
            inner.looked = Some(Arc::clone(&published));
            inner.reporting = true;
        }
        mine
    }

    /// Nobody needs a frame's picture any more.
    pub(crate) fn give_back(&self, mut copy: FramePicture) {
        let fetched = copy.clear();
        let mut inner = self.lock();
        inner.counts.fetched += u64::from(fetched);
        inner.keep(copy);
    }

    /// A picture was fetched beside the corridor.
    pub(crate) fn count_fetched(&self) {
        self.lock().counts.fetched += 1;
    }

    /// The worker did not look at a frame. `None` when it was cancelled meanwhile; otherwise as [`Hub::finish`].
    pub(crate) fn skip(
        &self,
        stamp: FrameStamp,
        copy: FramePicture,
        reason: SkipReason,
    ) -> Option<FrameRecord> {
        self.give_back(copy);
        let mut inner = self.lock();
        let record = inner.mailbox.finish(stamp.index).then(|| inner.settle(stamp, reason));
        inner.reporting = record.is_some();
        record
    }

    /// The outcome that was settled last has been told, its picture given back: whoever waits for the frame may go on.
    pub(crate) fn reported(&self) {
        self.lock().reporting = false;
        self.to_stream.notify_all();
    }

    /// Replaces the masks of the frame that was looked at last. With a `change` of what there is, those that were carried
    /// on from an earlier look as well: they are carried anew with the next frame.
    pub(crate) fn republish(&self, published: Published, change: bool) {
        let mut inner = self.lock();
        let published = Arc::new(published);
        let index = published.result().frame.index;
        let same = |other: &Option<Arc<Published>>, earlier: bool| {
            let looked = other.as_ref().map(|other| other.looked().index);
            looked.is_some_and(|looked| looked == index || (earlier && looked < index))
        };
        if same(&inner.newest, change) {
            inner.newest = Some(Arc::clone(&published));
        }
        if same(&inner.looked, false) {
            inner.looked = Some(published);
        }
    }

    /// Tells whether there is anything to track; commands that came meanwhile say there may be.
    pub(crate) fn set_idle(&self, idle: bool) {
        let mut inner = self.lock();
        inner.idle = idle && inner.commands.is_empty();
        if inner.idle {
            // What was looked at before is not what is late when there is something to track again.
            inner.looked = None;
        }
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
        let (records, left) = inner.cancel(reason);
        drop(inner);
        left.into_iter().for_each(|copy| self.give_back(copy));
        self.to_stream.notify_all();
        self.to_encoder.notify_all();
        records
    }

    /// Whether the worker ended although nobody asked it to.
    pub(crate) fn is_broken(&self) -> bool {
        let inner = self.lock();
        inner.dead && !inner.closed
    }
}
