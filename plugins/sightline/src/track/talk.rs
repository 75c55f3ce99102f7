//! Questions about the picture: they wait for a frame, go through the hatch with it, and their answers come back.
//!
//! All of it is done on the worker between frames, and none of it waits for the server.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use sightline_core::{FrameResult, FrameStamp, NormBox, ObjectId, ObjectResult, PixelFormat, TrackState};
use sightline_engine_api::PictureSource;
use sightline_grounding::{
    Album, AlbumSettings, Caption, Composer, GroundingError, Hatch, History, Hysteresis, QueryId, ReAsk,
    Signals, Timeliness, Turn, View, Watch, bindings,
    hatch::{Ask, HatchSettings, News, Notice},
    llm::{Image, LlmSettings},
    protocol::{Reading, Sent},
    query::State,
};
use sightline_tracker::Session;
use sightline_vision::{
    draw::{PictureMut, PlaneMut, set_of_mark},
    part_around, rgb,
};

use super::{guess::Guesser, hub::COMMANDS};
use crate::query_record::{NamedObject, QueryRecord};

/// Standing questions there may be.
const STANDING: usize = 16;
/// Share of an object's longer side that its close-ups show around it.
const AROUND: f32 = 0.25;
/// The picture whose changes count, and how often it is compared.
const THUMB_PX: [u32; 2] = [32, 18];
const COMPARED_EVERY: Duration = Duration::from_millis(200);
/// So many frames are tried whose pixels cannot be fetched before questions about them are refused.
const TRIES: u32 = 3;
/// The longest pause between two tries to find a lost object again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Find { phrase: String },
    Describe { object: Option<ObjectId> },
    Ask { question: String },
    Watch { condition: String },
}

impl What {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Find { .. } => "find",
            Self::Describe { .. } => "describe",
            Self::Ask { .. } => "ask",
            Self::Watch { .. } => "watch",
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Find { phrase: words }
            | Self::Ask { question: words }
            | Self::Watch { condition: words } => words.clone(),
            Self::Describe { object } => object.map(|id| format!("object {id}")).unwrap_or_default(),
        }
    }
}

/// Why questions are refused at the last step of the degrade ladder.
const PAUSED: &str = "questions: expected a machine that keeps up with the camera, got one that does not";

/// A question as it came through the door.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Question {
    pub(crate) id: u64,
    pub(crate) what: What,
    /// It is asked again and again, so far apart.
    pub(crate) every: Option<Duration>,
    /// The object that is to be found again.
    pub(crate) object: Option<ObjectId>,
}

/// How questions are asked.
#[derive(Debug, Clone)]
pub(crate) struct TalkSettings {
    pub(crate) llm: LlmSettings,
    pub(crate) hatch: HatchSettings,
    pub(crate) patience: Duration,
    pub(crate) grace: Duration,
    /// An object found by words that is lost for so long is asked for again.
    pub(crate) reacquire: Option<Duration>,
    pub(crate) re_ask: ReAsk,
    pub(crate) hysteresis: Hysteresis,
    /// Turns of the conversation that go along, and their bytes.
    pub(crate) history: (usize, usize),
    pub(crate) album: AlbumSettings,
}

/// What the worker is to do.
#[derive(Debug)]
pub(crate) enum Heard {
    /// To be told.
    Record(Box<QueryRecord>),
    /// Nothing more is asked about this frame.
    Release(FrameStamp),
    /// Objects were found on a frame: the index in the record's objects and the box. Prompt them, then tell.
    Found {
        record: Box<QueryRecord>,
        frame: FrameStamp,
        boxes: Vec<(usize, NormBox)>,
        object: Option<ObjectId>,
    },
}

/// A query under way.
struct Open {
    question: Question,
    asked: FrameStamp,
    pinned: bool,
    put_at: Duration,
}

/// A question that is asked again.
struct Standing {
    question: Question,
    last: Option<Duration>,
    watch: Option<Watch>,
}

/// An object that was found by words.
struct FoundObject {
    question: u64,
    phrase: String,
    lost_since: Option<Duration>,
    /// When it may be asked for again, and how long to wait after that.
    next: Duration,
    pause: Duration,
}

struct Server {
    hatch: Hatch,
    composer: Composer,
    album: Album,
    /// The conversation so far.
    history: History,
    settings: TalkSettings,
}

/// See the module.
pub(crate) struct Talk {
    server: Option<Server>,
    waiting: VecDeque<Question>,
    open: BTreeMap<QueryId, Open>,
    standing: Vec<Standing>,
    found: BTreeMap<ObjectId, FoundObject>,
    /// Finds without a server.
    guesser: Guesser,
    said: VecDeque<Heard>,
    /// Nothing is asked: the machine is too slow.
    paused: bool,
    thumb: Option<(Duration, Vec<u8>)>,
    /// Frames in a row whose pixels a question could not have.
    unfetched: u32,
}

impl Talk {
    /// With a server, or without; `wake` is called when an answer has come.
    ///
    /// # Errors
    /// As [`Hatch::open`].
    pub(crate) fn new(
        settings: Option<TalkSettings>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, GroundingError> {
        let server = settings.map(|settings| {
            Ok::<_, GroundingError>(Server {
                hatch: Hatch::open(settings.llm.clone(), settings.hatch, Some(Box::new(wake)))?,
                composer: Composer::new(settings.patience, settings.grace, settings.llm.max_images),
                album: Album::new(settings.album)?,
                history: History::new(settings.history.0, settings.history.1),
                settings,
            })
        });
        Ok(Self {
            server: server.transpose()?,
            waiting: VecDeque::new(),
            open: BTreeMap::new(),
            standing: Vec::new(),
            found: BTreeMap::new(),
            guesser: Guesser::default(),
            said: VecDeque::new(),
            paused: false,
            thumb: None,
            unfetched: 0,
        })
    }

    /// Refuses what waits and takes back what is under way, or takes questions again. Standing ones rest meanwhile.
    pub(crate) fn pause(&mut self, paused: bool) {
        if std::mem::replace(&mut self.paused, paused) || !paused {
            return;
        }
        for question in std::mem::take(&mut self.waiting) {
            self.refuse(&question, PAUSED.into());
        }
        // What was found stays found, and is looked for again later.
        let standing = |id: u64| self.standing.iter().any(|other| other.question.id == id);
        let open = self.open.iter().filter(|(_, open)| !standing(open.question.id));
        if let Some(server) = &self.server {
            open.for_each(|(query, _)| {
                // False where its end is already on the way.
                let _ = server.hatch.cancel(*query);
            });
        }
    }

    /// Whether nothing is asked.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes a question: it is asked about the next frame that is looked at, and then maybe again.
    pub(crate) fn put(&mut self, question: Question) {
        if self.paused {
            return self.refuse(&question, PAUSED.into());
        }
        if self.server.is_none() {
            self.say(&question, "waiting", "");
            if let Err((question, reason)) = self.guesser.put(question) {
                self.refuse(&question, reason);
            }
            return;
        }
        let watched = matches!(question.what, What::Watch { .. });
        if watched || question.every.is_some() {
            if self.standing.len() >= STANDING {
                return self.refuse(
                    &question,
                    format!("standing questions: expected at most {STANDING}, got one more"),
                );
            }
            self.say(&question, "waiting", "");
            let watch = watched.then(|| self.new_watch(question.every)).flatten();
            return self.standing.push(Standing { question, last: None, watch });
        }
        self.say(&question, "waiting", "");
        self.enqueue(question);
    }

    fn new_watch(&self, every: Option<Duration>) -> Option<Watch> {
        let settings = &self.server.as_ref()?.settings;
        let every = every.unwrap_or(settings.re_ask.every);
        Some(Watch::new(ReAsk { every, ..settings.re_ask }, settings.hysteresis))
    }

    fn enqueue(&mut self, question: Question) {
        if self.waiting.len() >= COMMANDS {
            return self
                .refuse(&question, format!("waiting questions: expected at most {COMMANDS}, got one more"));
        }
        self.waiting.push_back(question);
    }

    /// Takes a question back, wherever it is.
    pub(crate) fn withdraw(&mut self, id: u64) {
        self.waiting.retain(|question| question.id != id);
        self.guesser.withdraw(|question| question.id != id);
        self.standing.retain(|standing| standing.question.id != id);
        self.found.retain(|_, found| found.question != id);
        let open: Vec<QueryId> =
            self.open.iter().filter(|(_, open)| open.question.id == id).map(|(query, _)| *query).collect();
        if let Some(server) = &self.server {
            for query in open {
                // False where its end is already on the way.
                let _ = server.hatch.cancel(query);
            }
        }
    }

    /// The object is gone: it is not looked for any more.
    pub(crate) fn forget(&mut self, id: ObjectId) {
        self.found.remove(&id);
        self.waiting.retain(|question| question.object != Some(id));
    }

    /// All objects are gone, and all questions are taken back.
    pub(crate) fn clear(&mut self) {
        let ids: Vec<u64> = self.open.values().map(|open| open.question.id).collect();
        ids.into_iter().for_each(|id| self.withdraw(id));
        self.guesser.withdraw(|_| false);
        self.waiting.clear();
        self.standing.clear();
        self.found.clear();
        if let Some(Server { history, settings, .. }) = &mut self.server {
            *history = History::new(settings.history.0, settings.history.1);
        }
    }

    /// Running times start anew: close-ups of before tell nothing.
    pub(crate) fn forget_frames(&mut self) {
        if let Some(server) = &mut self.server {
            server.album.clear();
        }
        self.guesser.forget_frames();
        self.thumb = None;
    }

    /// Whether [`Talk::step`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.guesser.has_work()
    }

    /// A unit of work beside the live frames.
    pub(crate) fn step(&mut self, session: &mut Session) {
        self.said.extend(self.guesser.step(session));
    }

    /// Whether frames are worth encoding though nothing is tracked.
    pub(crate) fn wants_frames(&self) -> bool {
        !self.waiting.is_empty() || !self.standing.is_empty() || self.wants_all()
    }

    /// Whether the model should see the whole picture: something in it is being looked for.
    pub(crate) fn wants_all(&self) -> bool {
        let finds = |question: &Question| matches!(question.what, What::Find { .. });
        let open = self.open.values().any(|open| finds(&open.question));
        open || self.waiting.iter().any(finds) || self.guesser.wants_frames()
    }

    /// Whether objects are being looked for on a frame that was looked at.
    pub(crate) fn is_finding(&self) -> bool {
        self.open.values().any(|open| matches!(open.question.what, What::Find { .. }))
    }

    /// A frame is about to be looked at: standing questions whose time has come join those that wait for it.
    pub(crate) fn frame_comes(&mut self) {
        let Some(now) = self.now().filter(|_| !self.paused) else { return };
        let mut due = Vec::new();
        for standing in &mut self.standing {
            let is_due = match (&mut standing.watch, standing.question.every) {
                (Some(watch), _) => watch.poll(now).is_some(),
                (None, Some(every)) => standing.last.is_none_or(|last| now.saturating_sub(last) >= every),
                (None, None) => false,
            };
            if is_due {
                standing.last = Some(now);
                due.push(standing.question.clone());
            }
        }
        due.into_iter().for_each(|question| self.enqueue(question));
    }

    fn now(&self) -> Option<Duration> {
        self.server.as_ref().map(|server| server.hatch.now())
    }

    /// A frame was looked at: what waits is asked about it, and its features are kept where something is looked for.
    pub(crate) fn frame_went(
        &mut self,
        result: &FrameResult,
        picture: &dyn PictureSource,
        session: &mut Session,
    ) {
        self.said.extend(self.guesser.frame_went(result.frame, picture, session));
        self.watch_over(result, picture);
        // Pixels are fetched for who asks only.
        if self.waiting.is_empty() {
            return;
        }
        if let Err(error) = picture.on_host() {
            // What waits may be asked about one of the next frames.
            self.unfetched += 1;
            if !error.is_transient() || self.unfetched >= TRIES {
                self.unfetched = 0;
                for question in std::mem::take(&mut self.waiting) {
                    self.unanswered(&question);
                    self.refuse(&question, error.to_string());
                }
            }
            return;
        }
        self.unfetched = 0;
        while let Some(question) = self.waiting.pop_front() {
            let pinned = matches!(question.what, What::Find { .. }) && session.pin_newest().is_some();
            match self.compose(&question, result, picture) {
                Ok(ask) => self.send(question, ask, result.frame, pinned),
                Err(reason) => {
                    self.unanswered(&question);
                    self.refuse(&question, reason);
                    if pinned {
                        self.said.push_back(Heard::Release(result.frame));
                    }
                }
            }
        }
    }

    fn send(&mut self, question: Question, ask: Ask, asked: FrameStamp, pinned: bool) {
        let Some(server) = &self.server else { return };
        let (id, put_at) = (ask.query.id, ask.query.put_at);
        match server.hatch.ask(ask) {
            Ok(()) => {
                let open = Open { question, asked, pinned, put_at };
                let record = QueryRecord { about: Some(asked), ..record(&open.question, "asked", "") };
                self.said.push_back(Heard::Record(Box::new(record)));
                self.open.insert(id, open);
            }
            Err(refusal) => {
                self.unanswered(&question);
                self.refuse(&question, refusal.to_string());
                if pinned {
                    self.said.push_back(Heard::Release(asked));
                }
            }
        }
    }

    /// Notes what standing questions and lost objects need to know of a frame.
    fn watch_over(&mut self, result: &FrameResult, picture: &dyn PictureSource) {
        let Some(server) = &mut self.server else { return };
        let now = server.hatch.now();
        let ids: Vec<ObjectId> = result.objects.iter().map(|object| object.id).collect();
        server.album.keep_only(&ids);
        for object in &result.objects {
            if let Some(bounds) = object.bounds.filter(|_| server.album.is_due(object.id, result.frame)) {
                let part_px = part_around(bounds, AROUND, size(picture));
                let size_px = server.album.size_px(part_px);
                if let Ok(image) = image(picture, part_px, size_px) {
                    let crop = sightline_grounding::Crop { stamp: result.frame, part_px, image };
                    // It fits: the album named the size.
                    let _ = server.album.put(object.id, crop);
                }
            }
        }
        let mut lost = false;
        let mut again = Vec::new();
        for object in &result.objects {
            let Some(found) = self.found.get_mut(&object.id) else { continue };
            if object.state == TrackState::Tracking {
                found.lost_since = None;
                continue;
            }
            lost |= found.lost_since.is_none();
            let since = *found.lost_since.get_or_insert(now);
            let Some(after) = server.settings.reacquire else { continue };
            if now.saturating_sub(since) >= after && now >= found.next {
                found.next = now + found.pause;
                found.pause = (2 * found.pause).min(LONGEST_PAUSE);
                again.push(Question {
                    id: found.question,
                    what: What::Find { phrase: found.phrase.clone() },
                    every: None,
                    object: Some(object.id),
                });
            }
        }
        if self.standing.iter().any(|standing| standing.watch.is_some()) {
            let scene_change = self.scene_change(picture, now);
            let signals = Signals { scene_change, lost };
            self.standing.iter_mut().filter_map(|s| s.watch.as_mut()).for_each(|watch| watch.note(signals));
        }
        if !self.paused {
            again.into_iter().for_each(|question| self.enqueue(question));
        }
    }

    /// How much the picture has changed, in `[0, 1]`, since it was last compared; now and then is enough.
    fn scene_change(&mut self, picture: &dyn PictureSource, now: Duration) -> f32 {
        if self.thumb.as_ref().is_some_and(|(at, _)| now.saturating_sub(*at) < COMPARED_EVERY) {
            return 0.0;
        }
        let [width, height] = size(picture);
        let thumb = picture.on_host().ok().and_then(|seen| rgb(&seen, [0, 0, width, height], THUMB_PX).ok());
        let Some(thumb) = thumb else { return 0.0 };
        let change = self.thumb.as_ref().map_or(0, |(_, last)| {
            last.iter().zip(&thumb).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>()
        });
        let most = 255 * thumb.len() as u64;
        self.thumb = Some((now, thumb));
        change as f32 / most as f32
    }

    fn compose(
        &mut self,
        question: &Question,
        result: &FrameResult,
        picture: &dyn PictureSource,
    ) -> Result<Ask, String> {
        let Some(Server { hatch, composer, album, history, settings }) = &mut self.server else {
            return Err("a server: expected one, got none".into());
        };
        let now = hatch.now();
        let marked = if matches!(question.what, What::Find { .. }) { &[][..] } else { &result.objects };
        let view = view(picture, result.frame, marked, settings.llm.image_longest_px)?;
        let crops = |id: ObjectId| -> Vec<_> { album.crops(id).cloned().collect() };
        let ask = match &question.what {
            What::Find { phrase } => composer.find(phrase.clone(), view, now),
            What::Describe { object: None } => composer.describe_scene(vec![view], now),
            What::Describe { object: Some(id) } if view.marks.contains(id) => {
                composer.describe_object(*id, view, crops(*id), now)
            }
            What::Describe { object: Some(id) } => {
                return Err(format!("object to describe: expected one in the picture, got {id}"));
            }
            What::Ask { question } => {
                let known = |id: &ObjectId| view.marks.contains(id);
                let objects =
                    named_in(question).into_iter().filter(known).map(|id| (id, crops(id))).collect();
                let turns = history.turns().cloned().collect();
                composer.ask(question.clone(), objects, Some((0, turns)), vec![view], now)
            }
            What::Watch { condition } => composer.watch(condition.clone(), vec![view], now),
        };
        ask.map_err(|error| error.to_string())
    }

    /// An object was found by a question's words.
    pub(crate) fn is_found(&mut self, id: ObjectId, record: &QueryRecord) {
        let Some(after) = self.server.as_ref().and_then(|server| server.settings.reacquire) else { return };
        let found = FoundObject {
            question: record.id,
            phrase: record.words.clone(),
            lost_since: None,
            next: Duration::ZERO,
            pause: after,
        };
        self.found.entry(id).or_insert(found);
    }

    /// The next thing to do. `newest` is the newest frame.
    pub(crate) fn hear(&mut self, newest: Option<FrameStamp>) -> Option<Heard> {
        if let Some(heard) = self.said.pop_front() {
            return Some(heard);
        }
        let Notice { query, news } = self.server.as_ref()?.hatch.poll()?;
        let open = if query.state().is_final() {
            self.open.remove(&query.id)?
        } else {
            self.open.get(&query.id)?.copy()
        };
        let now = self.now().unwrap_or_default();
        let mut record = QueryRecord {
            about: Some(open.asked),
            newest,
            delay: now.saturating_sub(open.put_at),
            ..record(&open.question, query.state().as_str(), "")
        };
        if query.state().is_final() && open.pinned {
            self.said.push_back(Heard::Release(open.asked));
        }
        match news {
            News::Text(text) => record.text = text,
            News::Failed(error) => record.reason = error.to_string(),
            News::Answered { reading, answer } => {
                let State::Answered(timeliness) = query.state() else { return None };
                record.reason = timeliness.as_str().into();
                let caption = Caption::new(&query, &reading, newest.and_then(|stamp| stamp.pts), |_| None);
                fill(&mut record, &reading, caption);
                record.bound = bindings(&query, &reading, |_| None);
                if let (What::Ask { question }, Some(server)) = (&open.question.what, &mut self.server) {
                    server.history.push(Turn { question: question.clone(), answer: answer.text });
                }
                let verdict = reading.verdict;
                if self.verdict(open.question.id, verdict) {
                    record.state = "alert".into();
                }
                if matches!(open.question.what, What::Find { .. }) && timeliness != Timeliness::TooLate {
                    let object = open.question.object;
                    let boxes: Vec<_> = record
                        .objects
                        .iter()
                        .enumerate()
                        .filter_map(|(at, object)| Some((at, object.bounds?)))
                        .take(if object.is_some() { 1 } else { usize::MAX })
                        .collect();
                    return Some(Heard::Found { record: Box::new(record), frame: open.asked, boxes, object });
                }
                return Some(Heard::Record(Box::new(record)));
            }
            // Cancelled and superseded say it all.
            _ => {}
        }
        if query.state().is_final() {
            self.unanswered(&open.question);
        }
        Some(Heard::Record(Box::new(record)))
    }

    /// A watched condition's answer; whether the alert fires.
    fn verdict(&mut self, id: u64, verdict: Option<bool>) -> bool {
        let watches = self.standing.iter_mut().filter(|standing| standing.question.id == id);
        watches.filter_map(|standing| standing.watch.as_mut()).any(|watch| watch.answered(verdict))
    }

    fn unanswered(&mut self, question: &Question) {
        self.verdict(question.id, None);
    }

    fn refuse(&mut self, question: &Question, reason: String) {
        self.say(question, "refused", &reason);
    }

    fn say(&mut self, question: &Question, state: &str, reason: &str) {
        self.said.push_back(Heard::Record(Box::new(record(question, state, reason))));
    }
}

impl Open {
    fn copy(&self) -> Self {
        Self { question: self.question.clone(), pinned: false, ..*self }
    }
}

pub(super) fn record(question: &Question, state: &str, reason: &str) -> QueryRecord {
    QueryRecord {
        id: question.id,
        kind: question.what.kind().into(),
        words: question.what.words(),
        state: state.into(),
        reason: reason.into(),
        ..QueryRecord::default()
    }
}

fn fill(record: &mut QueryRecord, reading: &Reading, caption: Caption) {
    record.text = caption.text;
    record.spans = caption.spans;
    let named = |found: &sightline_grounding::protocol::Found| NamedObject {
        id: found.mark,
        label: found.label.clone(),
        bounds: found.bounds,
    };
    record.objects = reading.objects.iter().map(named).collect();
    record.problems = reading.problems.iter().map(ToString::to_string).collect();
}

/// Objects that a question names: `object 3`, `#3`.
fn named_in(question: &str) -> Vec<ObjectId> {
    let mut ids = Vec::new();
    let mut after_word = false;
    for word in question.split(|c: char| !c.is_alphanumeric() && c != '#') {
        let number =
            word.strip_prefix('#').or(after_word.then_some(word)).and_then(|number| number.parse().ok());
        ids.extend(number.map(ObjectId));
        after_word = word.eq_ignore_ascii_case("object") || (after_word && word.is_empty());
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn size(picture: &dyn PictureSource) -> [u32; 2] {
    picture.size_px().into()
}

fn image(picture: &dyn PictureSource, part_px: [u32; 4], size_px: [u32; 2]) -> Result<Image, String> {
    let picture = picture.on_host().map_err(|error| error.to_string())?;
    let pixels = rgb(&picture, part_px, size_px).map_err(|error| error.to_string())?;
    Image::new(size_px[0], size_px[1], pixels.into()).map_err(|error| error.to_string())
}

/// The whole picture as it is sent, with the numbers of these objects drawn on it.
fn view(
    picture: &dyn PictureSource,
    stamp: FrameStamp,
    objects: &[ObjectResult],
    longest_px: u32,
) -> Result<View, String> {
    let picture_px = size(picture);
    let part_px = [0, 0, picture_px[0], picture_px[1]];
    let [width, height] = Sent::fit(picture_px, longest_px);
    let seen = picture.on_host().map_err(|error| error.to_string())?;
    let mut pixels = rgb(&seen, part_px, [width, height]).map_err(|error| error.to_string())?;
    let shown: Vec<_> = objects
        .iter()
        .filter(|object| object.state == TrackState::Tracking)
        .map(|object| (object.id, &*object.mask))
        .collect();
    let mut marks = Vec::new();
    if !shown.is_empty() {
        let plane = PlaneMut { data: &mut pixels, stride_bytes: 3 * width as usize };
        let canvas = PictureMut::new(PixelFormat::Rgb, width, height, [plane]);
        let mut canvas = canvas.map_err(|error| error.to_string())?;
        marks = set_of_mark(&mut canvas, &shown);
    }
    let pixels: Arc<[u8]> = pixels.into();
    let image = Image::new(width, height, pixels).map_err(|error| error.to_string())?;
    Ok(View { stamp, picture_px, part_px, image, marks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_name_objects() {
        for (question, ids) in [
            ("What is object 3 doing?", &[3][..]),
            ("is #4 behind Object 12, or object #12?", &[4, 12]),
            ("what are the 3 men doing", &[]),
            ("objects 5", &[]),
        ] {
            assert_eq!(named_in(question).iter().map(|id| id.0).collect::<Vec<_>>(), ids, "{question}");
        }
    }
}
