//! The thread "sightline-track": the only one that touches the tracker.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sightline_core::{
    Degrade, FrameResult, FrameStamp, ObjectId, ObjectResult, Prompt, Rle, SkipReason, StageTimes, TrackState,
};
use sightline_engine_api::PictureSource;
use sightline_engine_registry::Turn;
use sightline_tracker::{Applied, At, Encoded, Pace, TrackerError};
use sightline_vision::Course;

use super::{
    ahead::{Belt, Ready},
    draft::Request,
    gap::Gap,
    hub::{COMMANDS, Camera, Command, Hub, Job, Work},
    notice::{Notice, Notify, Seldom},
    priority,
    relay::Relay,
    talk::{Heard, Talk},
};
use crate::{live_record::LiveRecord, meta::Published, record::FrameRecord};

/// How the worker goes about it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// A failure that is not of one frame only ends the stream; late prompts are done before the next frame.
    pub(crate) strict: bool,
    /// Late prompts are live again so soon.
    pub(crate) within: Duration,
    /// What they get at least of the worker's time where there is none to spare, in `[0, 1)`.
    pub(crate) share: f64,
    /// Late prompts are put on the newest frame as they are: for comparisons.
    pub(crate) naive: bool,
    /// Masks ride on later buffers where their objects are expected by then.
    pub(crate) forecast: bool,
    /// A frame's masks are wanted so soon after it came.
    pub(crate) due: Duration,
    /// Objects count as coasted for so long after the camera went silent.
    pub(crate) lost_after: Duration,
    /// The last object id given out.
    pub(crate) last_id: Arc<Mutex<u32>>,
}

/// A late prompt on its way.
#[derive(Debug, Clone, Copy)]
struct Journey {
    from: FrameStamp,
    degraded: bool,
    began: Instant,
    looked_at: u32,
}

/// Time spent since the first of the late prompts under way came.
#[derive(Debug, Clone, Copy)]
struct Shares {
    since: Instant,
    late: Duration,
    live: Duration,
}

/// As good as for ever.
const LONG: Duration = Duration::from_secs(3600);

/// Where memory writes are given up, one frame in so many is still remembered: the rest would be tracked by ever older ones.
const REMEMBER_EVERY: u32 = 4;

struct Worker {
    hub: Arc<Hub>,
    relay: Relay,
    talk: Talk,
    notify: Notify,
    options: Options,
    /// Where frames come from that were encoded ahead.
    belt: Option<Belt>,
    /// Our hand on engines that are shared.
    turn: Option<Turn>,
    /// Prompts that wait for their frame, or for the first one; at most [`COMMANDS`].
    held: Vec<Request>,
    journeys: BTreeMap<ObjectId, Journey>,
    shares: Option<Shares>,
    size_px: Option<(u32, u32)>,
    newest: Option<FrameResult>,
    gap: Option<Gap>,
    /// Frames looked at since one was remembered.
    unremembered: u32,
    warned: Seldom,
}

/// Starts the worker.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn spawn(
    hub: Arc<Hub>,
    relay: Relay,
    talk: Talk,
    notify: Notify,
    options: Options,
    belt: Option<Belt>,
    turn: Option<Turn>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sightline-track".into()).spawn(move || {
        if !options.strict {
            priority::give_way();
        }
        let mut worker = Worker {
            hub: Arc::clone(&hub),
            relay,
            talk,
            notify: Arc::clone(&notify),
            options,
            belt,
            turn,
            held: Vec::new(),
            journeys: BTreeMap::new(),
            shares: None,
            size_px: None,
            newest: None,
            gap: None,
            unremembered: 0,
            warned: Seldom::default(),
        };
        // Panics are our bugs. They end the tracking and say so; the video goes on.
        let panic = catch_unwind(AssertUnwindSafe(|| while worker.step() {})).err();
        let records = hub.worker_gone();
        records.into_iter().for_each(|record| notify(Notice::Frame(record)));
        if let Some(panic) = panic {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            notify(Notice::Fatal(format!("the worker panicked, please report it: {text}")));
        }
    })
}

impl Worker {
    /// Does what there is to do; `false` once closed.
    fn step(&mut self) -> bool {
        let encoded = self.belt.as_ref().is_some_and(|belt| belt.has_work());
        let limit = if encoded || self.is_behind() { Duration::ZERO } else { self.patience() };
        let Some(Work { flushed, camera, commands, frame }) = self.hub.next(limit) else { return false };
        if flushed {
            // Running times start anew. Objects stay: coordinates and memories outlive a seek.
            self.relay.forget_frames();
            self.talk.forget_frames();
            self.newest = None;
        }
        camera.into_iter().for_each(|camera| self.camera(camera));
        self.lose();
        let drops = self.hub.given().up(Degrade::DropQueries);
        self.talk.pause(drops);
        commands.into_iter().for_each(|command| self.carry_out(command));
        self.hear();
        let idle = frame.is_none() && self.belt.as_ref().is_none_or(|belt| !belt.has_work());
        if self.options.strict {
            while self.is_behind() {
                self.work_beside();
            }
        }
        while let Some((stamp, job, ready)) = self.belt.as_mut().and_then(Belt::superseded) {
            let record = self.hub.skip(stamp, job.copy, SkipReason::Superseded);
            self.tell(record);
            if let Some(belt) = &mut self.belt {
                belt.untracked(ready);
            }
            self.hub.wake_encoder();
        }
        if let Some((stamp, job)) = frame {
            self.look_at(stamp, job, None);
        } else if let Some((stamp, job, ready)) = self.belt.as_mut().and_then(Belt::take) {
            // Of before a flush: its outcome is told.
            let mut encoded = if self.hub.flies(stamp.index) {
                self.look_at(stamp, job, Some(ready))
            } else {
                self.hub.skip(stamp, job.copy, SkipReason::Flushed);
                ready.ok()
            };
            self.belt.iter_mut().for_each(|belt| belt.give_back(encoded.take()));
            self.hub.wake_encoder();
        }
        // Time to spare goes to late prompts; where there is none they get their share.
        if self.is_behind() && (idle || self.owes()) {
            self.work_beside();
        }
        let nothing = self.relay.is_idle() && self.held.is_empty() && !self.talk.wants_frames();
        self.hub.set_idle(nothing);
        true
    }

    /// Whether there is work that live frames do not wait for, and it may be done.
    fn is_behind(&self) -> bool {
        !self.talk.is_paused() && (self.talk.has_work() || self.relay.looking().tracker().behind().0 > 0)
    }

    /// How long there may be nothing to do.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        self.gap.as_ref().and_then(|gap| gap.patience(now, self.options.lost_after)).unwrap_or(LONG)
    }

    /// The camera went silent or is back. Objects stay: their memories outlive a gap.
    fn camera(&mut self, camera: Camera) {
        let now = Instant::now();
        match (camera, &mut self.gap) {
            (Camera::Back, Some(gap)) => gap.ends(now),
            (Camera::Back, None) => {}
            (Camera::Lost, Some(gap)) if gap.lasts() => {}
            (Camera::Lost, gap) => {
                let still = gap.take().filter(|gap| !gap.is_over(now));
                *gap = Some(Gap::new(now, self.newest.as_ref(), still.as_ref()));
                self.carry_over(TrackState::Coasted);
            }
        }
    }

    /// Objects that have been coasted for long enough are lost.
    fn lose(&mut self) {
        let (now, lost_after) = (Instant::now(), self.options.lost_after);
        if self.gap.as_mut().is_some_and(|gap| gap.loses(now, lost_after)) {
            self.carry_over(TrackState::Lost);
        }
    }

    /// Says what has become of the objects while no frame comes.
    fn carry_over(&mut self, state: TrackState) {
        let Some(gap) = self.gap.as_ref().filter(|gap| !gap.missing().is_empty()) else { return };
        let (ids, gap) = (gap.missing().to_vec(), gap.length(Instant::now()));
        self.republish(|objects| {
            for object in objects.iter_mut().filter(|object| object.state != TrackState::Lost) {
                object.state = state;
                if state == TrackState::Lost {
                    object.bounds = None;
                    object.mask = Arc::new(Rle::empty(object.mask.width_px(), object.mask.height_px()));
                }
            }
        });
        (self.notify)(Notice::Live(LiveRecord::Tracks { state, ids, gap }));
    }

    /// Says which objects are seen again after a gap.
    fn reacquire(&mut self, result: &FrameResult) {
        let now = Instant::now();
        let Some(gap) = &mut self.gap else { return };
        for id in gap.reacquired(result) {
            let gap = gap.length(now);
            (self.notify)(Notice::Live(LiveRecord::Reacquired { id, frame: result.frame, gap }));
        }
        if gap.is_over(now) {
            self.gap = None;
        }
    }

    /// A unit of it.
    fn work_beside(&mut self) {
        let begun = Instant::now();
        // Live frames of any feed come first.
        self.due(begun + self.options.within);
        if self.talk.has_work() {
            self.talk.step(self.relay.session());
            self.hear();
        } else {
            self.catch_up(begun);
        }
        let none = Shares { since: begun, late: Duration::ZERO, live: Duration::ZERO };
        let shares = self.shares.unwrap_or(none);
        self.shares = self.is_behind().then(|| Shares { late: shares.late + begun.elapsed(), ..shares });
    }

    /// Whether late prompts have had less than their share.
    fn owes(&self) -> bool {
        self.shares.is_some_and(|shares| {
            shares.late.as_secs_f64() < self.options.share * (shares.late + shares.live).as_secs_f64()
        })
    }

    /// One unit of work for late prompts.
    fn catch_up(&mut self, begun: Instant) {
        let since = self.shares.map_or(begun, |shares| shares.since);
        let within = (!self.options.strict).then_some(self.options.within);
        let pace = Pace { now: since.elapsed(), within };
        match self.relay.session().catch_up(pace, self.size_px.unwrap_or_default()) {
            Err(error) => self.warn(error.to_string(), error.is_transient()),
            Ok((late, progress)) => {
                for (frame, object) in late {
                    if let Some(journey) = self.journeys.get_mut(&object.id) {
                        journey.looked_at += 1;
                    }
                    (self.notify)(Notice::Late { frame, object });
                }
                for given_up in progress.given_up {
                    self.journeys.remove(&given_up.object);
                    if !self.relay.has(given_up.object) {
                        self.talk.forget(given_up.object);
                    }
                    self.hub.count_prompt(false);
                    let (id, reason) = (Some(given_up.object), given_up.error.to_string());
                    (self.notify)(Notice::Refused { id, at: None, reason });
                }
                if !progress.live.is_empty() {
                    self.refresh();
                }
                for id in progress.live {
                    self.arrived(id);
                }
            }
        }
    }

    /// A late prompt's object is live.
    fn arrived(&mut self, id: ObjectId) {
        let (Some(journey), Some(newest)) = (self.journeys.remove(&id), &self.newest) else { return };
        (self.notify)(Notice::CaughtUp {
            id,
            from: journey.from,
            to: newest.frame,
            took: journey.began.elapsed(),
            looked_at: journey.looked_at,
            degraded: journey.degraded,
        });
    }

    /// What came through the hatch.
    fn hear(&mut self) {
        while let Some(heard) = self.talk.hear(self.newest.as_ref().map(|newest| newest.frame)) {
            match heard {
                Heard::Record(record) => (self.notify)(Notice::Query(record)),
                Heard::Release(frame) => self.relay.release(frame),
                Heard::Found { mut record, frame, boxes, object } => {
                    for (at, within) in boxes {
                        let known = object.filter(|id| self.relay.has(*id));
                        let id = known.unwrap_or_else(|| self.new_id());
                        if let Some(object) = record.objects.get_mut(at) {
                            object.id = Some(id);
                        }
                        if self.prompt(id, At::Frame(frame.index), Prompt::Box(within)) {
                            self.talk.is_found(id, &record);
                        }
                    }
                    (self.notify)(Notice::Query(record));
                }
            }
        }
    }

    fn new_id(&self) -> ObjectId {
        let mut last = self.options.last_id.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        ObjectId(*last)
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Prompt(request) => self.admit(request),
            Command::Remove(id) => {
                let held = self.held.len();
                self.held.retain(|request| request.id != id);
                self.journeys.remove(&id);
                self.talk.forget(id);
                if !self.relay.remove(id) && held == self.held.len() {
                    let reason = format!("object to remove: expected one that is tracked, got {id}");
                    (self.notify)(Notice::Refused { id: Some(id), at: None, reason });
                }
                self.republish(|objects| objects.retain(|object| object.id != id));
            }
            Command::Clear => {
                self.held.clear();
                self.journeys.clear();
                self.talk.clear();
                self.relay.clear();
                self.republish(Vec::clear);
            }
            Command::Question(question) => self.talk.put(question),
            Command::Withdraw(id) => self.talk.withdraw(id),
        }
    }

    /// Takes a prompt, for now or for later.
    fn admit(&mut self, request: Request) {
        let known = |id| self.relay.has(id) || self.held.iter().any(|held| held.id == id);
        if request.correction && !known(request.id) {
            let expected = "correction: expected an object that is tracked";
            return self.refuse(request.id, request.at, format!("{expected}, got {}", request.id));
        }
        let newest = self.newest.as_ref().and_then(|newest| newest.frame.running_time);
        match request.at {
            Some(at) if newest.is_some_and(|newest| newest >= at) => self.apply(request, At::RunningTime(at)),
            None if self.size_px.is_some() || !request.draft.needs_size() => self.apply(request, At::Next),
            _ if self.held.len() < COMMANDS => self.held.push(request),
            at => {
                let reason = format!("waiting prompts: expected at most {COMMANDS}, got one more");
                self.refuse(request.id, at, reason);
            }
        }
    }

    fn apply(&mut self, request: Request, at: At) {
        match request.draft.resolve(self.size_px.unwrap_or_default()) {
            Ok(prompt) => {
                self.prompt(request.id, at, prompt);
            }
            Err(error) => self.refuse(request.id, request.at, error.to_string()),
        }
    }

    /// Gives a prompt; whether it was taken.
    fn prompt(&mut self, id: ObjectId, at: At, prompt: Prompt) -> bool {
        let at = if self.options.naive { At::Next } else { at };
        let applied = match at {
            At::Next => self.relay.session().prompt(id, at, prompt),
            _ => self.relay.session().prompt_late(id, at, prompt),
        };
        let (frame, degraded) = match applied {
            Err(error) => {
                let at = if let At::RunningTime(at) = at { Some(at) } else { None };
                self.refuse(id, at, error.to_string());
                return false;
            }
            Ok(Applied::CatchingUp { from, degraded }) => {
                let journey = Journey { from, degraded, began: Instant::now(), looked_at: 0 };
                self.journeys.insert(id, journey);
                (Some(from), degraded)
            }
            Ok(Applied::Now(frame)) => (Some(frame), false),
            Ok(Applied::Pending) => (None, false),
        };
        self.hub.count_prompt(true);
        (self.notify)(Notice::Applied { id, frame, degraded });
        true
    }

    fn refuse(&self, id: ObjectId, at: Option<Duration>, reason: String) {
        self.hub.count_prompt(false);
        (self.notify)(Notice::Refused { id: Some(id), at, reason });
    }

    /// Prompts whose frame this is.
    fn apply_due(&mut self, stamp: FrameStamp) {
        let due = |request: &mut Request| match (request.at, stamp.running_time) {
            (None, _) => true,
            (Some(at), Some(now)) => at <= now,
            (Some(_), None) => false,
        };
        let due: Vec<Request> = self.held.extract_if(.., due).collect();
        due.into_iter().for_each(|request| self.apply(request, At::Next));
    }

    /// Looks at a frame; gives back the buffers it was encoded into.
    fn look_at(&mut self, stamp: FrameStamp, job: Job, ready: Option<Ready>) -> Option<Encoded> {
        let Job { arrival, copy } = job;
        let (queue, begun) = (arrival.elapsed(), Instant::now());
        self.size_px = Some(copy.size_px());
        self.apply_due(stamp);
        self.talk.frame_comes();
        if self.relay.is_idle() && !self.talk.wants_frames() {
            let record = self.hub.skip(stamp, copy, SkipReason::NoPrompt);
            self.tell(record);
            return ready.and_then(Result::ok);
        }
        self.due(arrival + self.options.due);
        if let Some(turn) = &self.turn {
            // What was waited for beside the frames.
            turn.waited();
        }
        // Where pictures are kept a late object is shown what it needs of them later.
        let all = self.talk.wants_all() && !self.relay.looking().tracker().sees_again();
        self.relay.session().show_all(all);
        let given = self.hub.given();
        self.remember(given.up(Degrade::SkipMemory));
        let mut encoded = None;
        let failed = |error: TrackerError| (error.to_string(), error.is_transient());
        let result = match ready {
            Some(Ok(ready)) => {
                let ready = encoded.insert(ready);
                self.relay.session().process_encoded(stamp, copy.size_px(), ready).map_err(failed)
            }
            Some(Err(reason)) => Err(reason),
            None => self.relay.process(stamp, &copy).map_err(failed),
        };
        match result {
            Ok(mut result) => {
                // What was encoded ahead has waited, but not while it was encoded.
                result.stages.queue = match &encoded {
                    Some(_) => queue.saturating_sub(result.stages.preprocess + result.stages.image_encoder),
                    None => queue,
                };
                self.without_waits(&mut result.stages);
                result.latency = arrival.elapsed();
                let older = self.newest.replace(result.clone());
                let published = Arc::new(Published::new(result, Vec::new(), given.at));
                let mine = self.hub.finish(Arc::clone(&published));
                if mine {
                    let record = FrameRecord::from(published.result());
                    (self.notify)(Notice::Frame(FrameRecord { degrade: given.at, ..record }));
                }
                self.forecast(older, published.result(), given.at);
                self.reacquire(published.result());
                // What is late, or asked about kept frames, belongs to the model that saw them.
                let behind = self.talk.has_work() || self.relay.looking().tracker().behind().0 > 0;
                if !behind
                    && let Err(error) =
                        self.relay.hand_over(given.up(Degrade::Smaller), published.result(), &copy)
                {
                    self.warn(format!("handing over to the other model: {error}"), true);
                }
                // Once its masks are out.
                self.talk.frame_went(published.result(), &copy, self.relay.session());
                let unfetched = copy.untold_failure().map(|failure| failure.text.clone());
                self.hub.give_back(copy);
                if mine {
                    // Not before: the buffer goes on, and its pool takes no memory back that is still looked at.
                    self.hub.reported();
                }
                if let Some(reason) = unfetched.filter(|_| self.warned.may()) {
                    (self.notify)(Notice::Unfetched(reason));
                }
                // A file has time: the frames to come wait for what is looked for on this one.
                while self.options.strict && self.talk.is_finding() && self.hub.wait_for_news() {
                    self.hear();
                }
            }
            Err((mut reason, mut transient)) => {
                let mut told = false;
                if let Some(failure) = copy.failure() {
                    // Of the buffer, not of the engines: it is told once where it lasts.
                    (reason, transient, told) = (failure.text.clone(), true, failure.lasts);
                }
                if copy.must_tell() {
                    (self.notify)(Notice::Fatal(reason.clone()));
                }
                let record = self.hub.skip(stamp, copy, SkipReason::Error);
                if record.is_some() && !told {
                    self.warn(reason.clone(), transient);
                }
                self.tell(record.map(|record| FrameRecord { error: Some(reason), ..record }));
            }
        }
        if let Some(shares) = &mut self.shares {
            shares.live += begun.elapsed();
        }
        encoded
    }

    /// Time spent waiting for shared engines is no time of theirs.
    fn without_waits(&self, stages: &mut StageTimes) {
        let Some((encoder, others)) = self.turn.as_ref().map(Turn::split) else { return };
        let waits = [encoder.waited(), others.waited()];
        self.hub.joined(encoder.joined_runs() + others.joined_runs());
        stages.queue += waits[0] + waits[1];
        stages.image_encoder = stages.image_encoder.saturating_sub(waits[0]);
        let mut left = waits[1];
        for stage in [&mut stages.memory_attention, &mut stages.decoder, &mut stages.memory_encoder] {
            let taken = left.min(*stage);
            (*stage, left) = (*stage - taken, left - taken);
        }
    }

    /// What is asked of shared engines from now on is wanted by then.
    fn due(&self, deadline: Instant) {
        if let Some(turn) = &self.turn {
            turn.due(deadline);
        }
    }

    /// Publishes the masks anew, to ride on the next buffer where their objects are expected by then.
    fn forecast(&self, older: Option<FrameResult>, newer: &FrameResult, degrade: Degrade) {
        // Over a gap nobody knows how things moved.
        let Some(older) = older.filter(|_| self.options.forecast && self.gap.is_none()) else { return };
        let frames = u32::try_from(newer.frame.index - older.frame.index).unwrap_or(u32::MAX);
        let span = |now: Option<Duration>, then: Option<Duration>| now?.checked_sub(then?);
        let apart = span(newer.frame.running_time, older.frame.running_time)
            .or_else(|| span(newer.frame.pts, older.frame.pts));
        let Some(apart) = apart else { return };
        let expected = |object: &ObjectResult| {
            let before = older.objects.iter().find(|before| before.id == object.id)?;
            let course = Course::of(&before.mask, &object.mask, apart)?;
            let mask = course.ahead(&object.mask, apart / frames);
            Some(ObjectResult { bounds: mask.bounds(), mask: Arc::new(mask), ..object.clone() })
        };
        let objects: Vec<Option<ObjectResult>> = newer.objects.iter().map(expected).collect();
        if objects.iter().any(Option::is_some) {
            let stay = newer.objects.iter().cloned();
            let objects = objects.into_iter().zip(stay).map(|(moved, stays)| moved.unwrap_or(stays));
            self.hub.republish(Published::new(newer.clone(), objects.collect(), degrade), false);
        }
    }

    /// Whether the frame about to be looked at is remembered.
    fn remember(&mut self, skips: bool) {
        let remembers = !skips || self.unremembered + 1 >= REMEMBER_EVERY;
        self.unremembered = if remembers { 0 } else { self.unremembered + 1 };
        self.relay.session().set_remembering(remembers);
    }

    fn tell(&self, record: Option<FrameRecord>) {
        if let Some(record) = record {
            (self.notify)(Notice::Frame(record));
            self.hub.reported();
        }
    }

    fn warn(&mut self, reason: String, transient: bool) {
        if self.options.strict && !transient {
            (self.notify)(Notice::Fatal(reason));
        } else if self.warned.may() {
            (self.notify)(Notice::Warning(reason));
        }
    }

    /// Publishes the newest frame's objects as they stand now.
    fn refresh(&mut self) {
        if let Some(size_px) = self.size_px
            && let Ok(objects) = self.relay.session().results(size_px.0, size_px.1)
        {
            self.republish(|newest| *newest = objects);
        }
    }

    /// Changes the newest masks without a new frame: an object went, or was corrected.
    fn republish(&mut self, change: impl FnOnce(&mut Vec<ObjectResult>)) {
        if let Some(newest) = &mut self.newest {
            change(&mut newest.objects);
            self.hub.republish(Published::new(newest.clone(), Vec::new(), self.hub.given().at), true);
        }
    }
}
