//! The hatch between the corridor of frames and the server.
//!
//! Every query that is let in holds one of [`HatchSettings::depth`] slots until its end has been collected with
//! [`Hatch::poll`]. That makes both ways bounded with one number: a query that finds no slot free is refused
//! (`DropNewest`), and the end of one that was let in always has its place, so that neither side ever waits for the other.
//! Words that arrive in between are kept as the newest text so far, one a slot.

mod desk;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::Notify,
    task::{AbortHandle, Id, JoinSet},
};

pub use desk::{Ask, HatchCounts, HatchSettings, News, Notice, Refusal};
use desk::{Desk, Slot};

use crate::{
    GroundingError, Kind, Query, QueryId, Timeliness,
    llm::{Client, LlmSettings, Progress, prompt},
    query::{State, Step},
};

/// Called on the hatch's thread after there is news; must not block.
type OnNews = Box<dyn Fn() + Send + Sync>;

struct Shared {
    desk: Mutex<Desk>,
    work: Notify,
    epoch: Instant,
    on_news: Option<OnNews>,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn step(&self, id: QueryId, step: Step, news: Option<News>) {
        let tell = news.is_some();
        let taken = self.desk().step(id, step, news, self.now());
        if taken
            && tell
            && let Some(on_news) = &self.on_news
        {
            on_news();
        }
    }
}

/// The mailbox of one server. Nothing in it waits for the corridor or makes it wait: [`Hatch::ask`], [`Hatch::cancel`]
/// and [`Hatch::poll`] hold a lock for a few moves of pointers. Dropping it ends what is under way.
pub struct Hatch {
    settings: HatchSettings,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Hatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hatch").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Hatch {
    /// Starts the thread `sightline-llm`. `on_news` is called there when [`Hatch::poll`] has
    /// something new, save for what [`Hatch::ask`] and [`Hatch::cancel`] themselves ended.
    ///
    /// # Errors
    /// `Kind::Settings` as [`Client::new`] and for a depth out of range, `Kind::Thread` when there is no thread to be had.
    pub fn open(
        llm: LlmSettings,
        settings: HatchSettings,
        on_news: Option<OnNews>,
    ) -> Result<Self, GroundingError> {
        if !(1..=1024).contains(&settings.depth) || !(1..=settings.depth).contains(&settings.at_once) {
            return Err(GroundingError::new(
                Kind::Settings,
                "hatch",
                "1 <= at_once <= depth <= 1024",
                format_args!("at_once {}, depth {}", settings.at_once, settings.depth),
            ));
        }
        let client = Arc::new(Client::new(llm)?);
        let no_thread =
            |error| GroundingError::new(Kind::Thread, "thread sightline-llm", "one that starts", error);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .thread_name("sightline-llm-dns")
            .build()
            .map_err(no_thread)?;
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk::default()),
            work: Notify::new(),
            epoch: Instant::now(),
            on_news,
        });
        let thread = std::thread::Builder::new()
            .name("sightline-llm".into())
            .spawn({
                let shared = shared.clone();
                move || {
                    runtime.block_on(serve(&shared, &client, settings.at_once));
                    // A name look-up that hangs must not keep anyone.
                    runtime.shutdown_background();
                }
            })
            .map_err(no_thread)?;
        Ok(Self { settings, shared, thread: Some(thread) })
    }

    /// The time queries are put at and judged by.
    pub fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Leaves a query. Never waits.
    ///
    /// # Errors
    /// Why it was not let in, which has been counted. There will be no news of it.
    pub fn ask(&self, ask: Ask) -> Result<(), Refusal> {
        let now = self.now();
        let mut desk = self.shared.desk();
        if let Some(refusal) = self.refusal(&desk, &ask.query) {
            // Giving way frees no slot (its end has to be collected), so a full hatch refuses all the same.
            *desk.counts.refused.entry(refusal.as_str()).or_default() += 1;
            return Err(refusal);
        }
        let id = ask.query.id;
        if ask.group.is_some()
            && let Some(at) = desk.waiting.iter().position(|other| other.group == ask.group)
            && let Some(other) = desk.waiting.remove(at)
        {
            desk.step(other.query.id, Step::Supersede(id), Some(News::Superseded), now);
        }
        desk.counts.accepted += 1;
        desk.slots.insert(id, Slot { query: ask.query.clone(), news: None });
        desk.waiting.push_back(ask);
        drop(desk);
        self.shared.work.notify_one();
        Ok(())
    }

    fn refusal(&self, desk: &Desk, query: &Query) -> Option<Refusal> {
        if desk.closed {
            return Some(Refusal::Closed);
        }
        if desk.slots.contains_key(&query.id) {
            return Some(Refusal::Duplicate);
        }
        if query.state() != State::Queued {
            return Some(Refusal::NotQueued);
        }
        if desk.slots.len() < self.settings.depth {
            return None;
        }
        let ended = desk.slots.values().any(|slot| slot.query.state().is_final());
        Some(if ended { Refusal::Uncollected } else { Refusal::Full })
    }

    /// Takes a query back; whether it was inside and had not ended. The connection is closed at once.
    pub fn cancel(&self, id: QueryId) -> bool {
        let now = self.now();
        let mut desk = self.shared.desk();
        let taken = desk.step(id, Step::Cancel, Some(News::Cancelled), now);
        if taken {
            desk.waiting.retain(|ask| ask.query.id != id);
            desk.to_abort.push(id);
            drop(desk);
            self.shared.work.notify_one();
        }
        taken
    }

    /// Collects news, oldest first. Never waits.
    pub fn poll(&self) -> Option<Notice> {
        let mut desk = self.shared.desk();
        let id = desk.ready.pop_front()?;
        let slot = desk.slots.get_mut(&id)?;
        let notice = Notice { query: slot.query.clone(), news: slot.news.take()? };
        if notice.query.state().is_final() {
            desk.slots.remove(&id);
        }
        Some(notice)
    }

    /// How queries ended so far.
    pub fn counts(&self) -> HatchCounts {
        self.shared.desk().counts.clone()
    }

    /// Ends what is under way and waits until the thread is gone: at shutdown, not in the corridor.
    pub fn close(mut self) {
        self.signal();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say; if it panicked, that has been printed.
            _ = thread.join();
        }
    }

    fn signal(&self) {
        let mut desk = self.shared.desk();
        desk.closed = true;
        desk.waiting.clear();
        drop(desk);
        self.shared.work.notify_one();
    }
}

impl Drop for Hatch {
    fn drop(&mut self) {
        self.signal();
    }
}

/// The thread: keeps `at_once` queries under way. What is dropped at its end closes its connection.
async fn serve(shared: &Arc<Shared>, client: &Arc<Client>, at_once: usize) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut under_way: HashMap<Id, (QueryId, AbortHandle)> = HashMap::new();
    loop {
        let mut asks = Vec::new();
        {
            let mut desk = shared.desk();
            if desk.closed {
                return;
            }
            for id in std::mem::take(&mut desk.to_abort) {
                under_way.values().filter(|(other, _)| *other == id).for_each(|(_, task)| task.abort());
            }
            while under_way.len() + asks.len() < at_once
                && let Some(ask) = desk.waiting.pop_front()
            {
                asks.push(ask);
            }
        }
        for ask in asks {
            let id = ask.query.id;
            let task = tasks.spawn(answer(shared.clone(), client.clone(), ask));
            under_way.insert(task.id(), (id, task));
        }
        let ended = tokio::select! {
            () = shared.work.notified() => continue,
            Some(ended) = tasks.join_next_with_id() => ended,
        };
        let (task, fault) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let Some((id, _)) = under_way.remove(&task) else { continue };
        // After a cancellation this changes nothing; after a panic the query still has its end.
        if let Some(fault) = fault {
            let error =
                GroundingError::new(Kind::Thread, format_args!("query {id}"), "a task that ends", fault);
            shared.step(id, Step::Fail(Kind::Thread), Some(News::Failed(error)));
        }
    }
}

async fn answer(shared: Arc<Shared>, client: Arc<Client>, ask: Ask) {
    let Ask { query, images, sent, turns, .. } = ask;
    let id = query.id;
    let fail = |error: GroundingError| {
        shared.step(id, Step::Fail(error.kind()), Some(News::Failed(error)));
    };
    if query.timeliness(shared.now()) == Timeliness::TooLate {
        let waited = shared.now().saturating_sub(query.put_at);
        let subject = format!("query {id}");
        let got = format!("{} ms in the queue", waited.as_millis());
        return fail(GroundingError::new(Kind::Expired, subject, "its turn before its expiry", got));
    }
    let scene = images.get(sent.crops().len()..).unwrap_or_default();
    if images.len() != sent.images() as usize
        || scene.is_empty()
        || scene.iter().any(|image| image.size_px() != sent.sent_px())
    {
        let [width, height] = sent.sent_px();
        let subject = format!("pictures of query {id}");
        let got = format!("{images:?}");
        return fail(GroundingError::new(
            Kind::Request,
            subject,
            format_args!("{} of {width}x{height}", sent.images()),
            got,
        ));
    }
    let protocol = client.settings().protocol;
    let mut request = prompt(&query.kind, protocol, &sent);
    (request.images, request.turns) = (images, turns);
    let mut report = |progress: Progress<'_>| match progress {
        Progress::Asked { .. } => shared.step(id, Step::Ask, None),
        Progress::Text(text) => shared.step(id, Step::Stream, Some(News::Text(text.to_owned()))),
        Progress::Retrying { .. } => shared.desk().counts.retries += 1,
    };
    match client.ask(&request, &mut report).await {
        Ok(answer) => {
            let reading = Box::new(protocol.parse(&answer.text, &sent));
            let news = News::Answered { reading, answer: Box::new(answer) };
            shared.step(id, Step::Answer, Some(news));
        }
        Err(error) => fail(error),
    }
}
