//! The thread "sightline-track": the only one that touches the tracker.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use sightline_core::{FrameResult, FrameStamp, ObjectId, ObjectResult, Picture, Prompt, SkipReason};

use super::{
    draft::Request,
    hub::{COMMANDS, Command, Hub, Job, Work},
    notice::{Notice, Notify},
    priority,
};
use crate::{meta::Published, record::FrameRecord};

/// A tracker's failure, as far as the worker cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// The next frame may succeed.
    pub(crate) transient: bool,
}

/// What the worker drives: `sightline_tracker::Session`, or a script in tests.
pub(crate) trait Track: Send {
    fn process(&mut self, frame: FrameStamp, picture: &Picture<'_>) -> Result<FrameResult, Failure>;
    /// `frame` is the index of a frame that was processed, `None` the next one. Gives the frame it was applied to.
    fn prompt(
        &mut self,
        id: ObjectId,
        frame: Option<u64>,
        prompt: Prompt,
    ) -> Result<Option<FrameStamp>, Failure>;
    /// The objects on the newest frame.
    fn results(&mut self, size_px: (u32, u32)) -> Result<Vec<ObjectResult>, Failure>;
    fn has(&self, id: ObjectId) -> bool;
    fn is_idle(&self) -> bool;
    fn remove(&mut self, id: ObjectId) -> bool;
    fn clear(&mut self);
}

/// How the worker goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Frames whose features the tracker keeps.
    pub(crate) history: usize,
    /// A failure that is not of one frame only ends the stream.
    pub(crate) strict: bool,
}

/// At most one warning in this time; what went unsaid is in the frames' own messages.
const WARNING_PAUSE: Duration = Duration::from_secs(1);

struct Worker {
    hub: Arc<Hub>,
    track: Box<dyn Track>,
    notify: Notify,
    options: Options,
    /// Prompts that wait for their frame, or for the first one; at most [`COMMANDS`].
    held: Vec<Request>,
    /// Index and running time of the frames the tracker still knows, oldest first.
    kept: VecDeque<(u64, Option<Duration>)>,
    /// Running time of the newest frame it knows no longer.
    gone: Option<Duration>,
    size_px: Option<(u32, u32)>,
    newest: Option<FrameResult>,
    warned: Option<Instant>,
}

/// Starts the worker.
///
/// # Errors
/// When the system has no thread to give.
pub(crate) fn spawn(
    hub: Arc<Hub>,
    track: Box<dyn Track>,
    notify: Notify,
    options: Options,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sightline-track".into()).spawn(move || {
        if !options.strict {
            priority::give_way();
        }
        let mut worker = Worker {
            hub: Arc::clone(&hub),
            track,
            notify: Arc::clone(&notify),
            options,
            held: Vec::new(),
            kept: VecDeque::with_capacity(options.history + 1),
            gone: None,
            size_px: None,
            newest: None,
            warned: None,
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
        let Some(Work { flushed, commands, frame }) = self.hub.next() else { return false };
        if flushed {
            // Running times start anew. Objects stay: coordinates and memories outlive a seek.
            self.kept.clear();
            (self.gone, self.newest) = (None, None);
        }
        commands.into_iter().for_each(|command| self.carry_out(command));
        if let Some((stamp, job)) = frame {
            self.look_at(stamp, job);
        }
        self.hub.set_idle(self.track.is_idle() && self.held.is_empty());
        true
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Prompt(request) => self.admit(request),
            Command::Remove(id) => {
                let held = self.held.len();
                self.held.retain(|request| request.id != id);
                if !self.track.remove(id) && held == self.held.len() {
                    let reason = format!("object to remove: expected one that is tracked, got {id}");
                    (self.notify)(Notice::Refused { id: Some(id), at: None, reason });
                }
                self.republish(|objects| objects.retain(|object| object.id != id));
            }
            Command::Clear => {
                self.held.clear();
                self.track.clear();
                self.republish(Vec::clear);
            }
        }
    }

    /// Takes a prompt, for now or for later.
    fn admit(&mut self, request: Request) {
        if request.correction && !self.track.has(request.id) && self.held.iter().all(|h| h.id != request.id) {
            let expected = "correction: expected an object that is tracked";
            return self.refuse(&request, format!("{expected}, got {}", request.id));
        }
        // The first frame at or after the time asked for.
        let found = request.at.map(|at| {
            self.kept.iter().find(|(_, time)| time.is_some_and(|time| time >= at)).map(|(index, _)| *index)
        });
        match (found, request.at.zip(self.gone)) {
            (_, Some((at, gone))) if at <= gone => {
                let oldest = self.kept.iter().find_map(|(_, time)| *time).unwrap_or(gone);
                let reason = format!(
                    "prompt's running-time: expected at least {:.3} s, the oldest frame kept (history={}), got {:.3} s",
                    oldest.as_secs_f64(),
                    self.options.history,
                    at.as_secs_f64()
                );
                self.refuse(&request, reason);
            }
            (Some(Some(index)), _) => self.apply(request, Some(index)),
            (None, _) if self.size_px.is_some() || !request.draft.needs_size() => self.apply(request, None),
            _ if self.held.len() < COMMANDS => self.held.push(request),
            _ => self.refuse(&request, format!("waiting prompts: expected at most {COMMANDS}, got one more")),
        }
    }

    fn apply(&mut self, request: Request, frame: Option<u64>) {
        let prompt =
            request.draft.resolve(self.size_px.unwrap_or_default()).map_err(|error| error.to_string());
        let applied = prompt.and_then(|prompt| {
            self.track.prompt(request.id, frame, prompt).map_err(|failure| failure.reason)
        });
        match applied {
            Err(reason) => self.refuse(&request, reason),
            Ok(frame) => {
                self.hub.count_prompt(true);
                (self.notify)(Notice::Applied { id: request.id, frame });
                if let (Some(_), Some(size_px)) = (frame, self.size_px)
                    && let Ok(objects) = self.track.results(size_px)
                {
                    self.republish(|newest| *newest = objects);
                }
            }
        }
    }

    fn refuse(&self, request: &Request, reason: String) {
        self.hub.count_prompt(false);
        (self.notify)(Notice::Refused { id: Some(request.id), at: request.at, reason });
    }

    /// Prompts whose frame this is.
    fn apply_due(&mut self, stamp: FrameStamp) {
        let due = |request: &mut Request| match (request.at, stamp.running_time) {
            (None, _) => true,
            (Some(at), Some(now)) => at <= now,
            (Some(_), None) => false,
        };
        let due: Vec<Request> = self.held.extract_if(.., due).collect();
        due.into_iter().for_each(|request| self.apply(request, None));
    }

    fn look_at(&mut self, stamp: FrameStamp, job: Job) {
        let Job { arrival, copy } = job;
        let queue = arrival.elapsed();
        self.size_px = Some(copy.size_px());
        self.apply_due(stamp);
        if self.track.is_idle() {
            let record = self.hub.skip(stamp, copy, SkipReason::NoPrompt);
            return self.tell(record);
        }
        let result = match copy.picture() {
            Ok(picture) => self.track.process(stamp, &picture),
            Err(error) => Err(Failure { reason: error.to_string(), transient: true }),
        };
        match result {
            Ok(mut result) => {
                result.stages.queue = queue;
                result.latency = arrival.elapsed();
                self.remember(stamp);
                self.newest = Some(result.clone());
                let published = Arc::new(Published::new(result));
                if self.hub.finish(Arc::clone(&published), copy) {
                    self.tell(Some(FrameRecord::from(published.result())));
                }
            }
            Err(failure) => {
                let record = self.hub.skip(stamp, copy, SkipReason::Error);
                if record.is_some() {
                    self.warn(&failure);
                }
                self.tell(record.map(|record| FrameRecord { error: Some(failure.reason), ..record }));
            }
        }
    }

    fn remember(&mut self, stamp: FrameStamp) {
        self.kept.push_back((stamp.index, stamp.running_time));
        while self.kept.len() > self.options.history {
            let time = self.kept.pop_front().and_then(|(_, time)| time);
            self.gone = time.or(self.gone);
        }
    }

    fn tell(&self, record: Option<FrameRecord>) {
        if let Some(record) = record {
            (self.notify)(Notice::Frame(record));
            self.hub.reported();
        }
    }

    fn warn(&mut self, failure: &Failure) {
        if self.options.strict && !failure.transient {
            (self.notify)(Notice::Fatal(failure.reason.clone()));
        } else if self.warned.is_none_or(|at| at.elapsed() >= WARNING_PAUSE) {
            self.warned = Some(Instant::now());
            (self.notify)(Notice::Warning(failure.reason.clone()));
        }
    }

    /// Changes the newest masks without a new frame: an object went, or was corrected.
    fn republish(&mut self, change: impl FnOnce(&mut Vec<ObjectResult>)) {
        if let Some(newest) = &mut self.newest {
            change(&mut newest.objects);
            self.hub.republish(Published::new(newest.clone()));
        }
    }
}
