//! What goes in, what comes out, and the books in between.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use crate::{
    GroundingError, Query, QueryId, Turn,
    llm::{Answer, Image},
    protocol::{Reading, Sent},
    query::{State, Step},
};

/// How much the hatch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HatchSettings {
    /// Queries waiting, under way, or ended and not collected; in 1..=1024.
    pub depth: usize,
    /// Of these, queries the server is asked at the same time; in 1..=depth.
    pub at_once: usize,
}

impl Default for HatchSettings {
    fn default() -> Self {
        Self { depth: 16, at_once: 2 }
    }
}

/// A query and what goes along with it.
#[derive(Debug)]
pub struct Ask {
    /// The query; its times are those of [`Hatch::now`](crate::Hatch::now).
    pub query: Query,
    /// Cropped and scaled as `sent` says: close-ups, then the scene, oldest first.
    pub images: Vec<Image>,
    /// What the pictures show of the frames.
    pub sent: Sent,
    /// Earlier turns of the conversation.
    pub turns: Vec<Turn>,
    /// A waiting query of the same group gives way to this one: of captions every few seconds, the newest counts.
    pub group: Option<u64>,
}

/// Why a query was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Every slot is waiting or under way.
    #[error("hatch: expected a free slot, got none, all waiting or under way")]
    Full,
    /// No slot is free because ends have not been collected.
    #[error("hatch: expected a free slot, got none, ends not collected")]
    Uncollected,
    /// A query of this name is inside.
    #[error("hatch: expected a new query id, got one that is inside")]
    Duplicate,
    /// The query has been asked or has ended elsewhere.
    #[error("hatch: expected a queued query, got one further on")]
    NotQueued,
    /// The hatch has been closed.
    #[error("hatch: expected an open one, got a closed one")]
    Closed,
}

impl Refusal {
    /// Lower-case name used in messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Uncollected => "uncollected",
            Self::Duplicate => "duplicate",
            Self::NotQueued => "not-queued",
            Self::Closed => "closed",
        }
    }
}

/// What became known of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// The query as it stands now.
    pub query: Query,
    /// What is new.
    pub news: News,
}

/// What is new.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum News {
    /// The words so far. They may begin anew after a retry.
    Text(String),
    /// The end: an answer. Whether it came in time stands in the query's state.
    Answered {
        /// What it says.
        reading: Box<Reading>,
        /// How it came.
        answer: Box<Answer>,
    },
    /// The end: no answer.
    Failed(GroundingError),
    /// The end: it was taken back.
    Cancelled,
    /// The end: a newer one of its group took its place.
    Superseded,
}

/// How queries ended, and why some were not let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HatchCounts {
    /// Let in. Each is in exactly one of the ends below, or still inside.
    pub accepted: u64,
    /// Not let in, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Answered, by [`Timeliness::as_str`](crate::Timeliness::as_str).
    pub answered: BTreeMap<&'static str, u64>,
    /// Failed, by [`Kind::as_str`](crate::Kind::as_str).
    pub failed: BTreeMap<&'static str, u64>,
    /// Taken back.
    pub cancelled: u64,
    /// Given way to a newer one.
    pub superseded: u64,
    /// Tries after the first.
    pub retries: u64,
}

impl HatchCounts {
    /// Queries that have ended.
    pub fn ended(&self) -> u64 {
        let sum = |map: &BTreeMap<_, u64>| map.values().sum::<u64>();
        sum(&self.answered) + sum(&self.failed) + self.cancelled + self.superseded
    }
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) query: Query,
    pub(super) news: Option<News>,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) slots: HashMap<QueryId, Slot>,
    pub(super) waiting: VecDeque<Ask>,
    /// Queries with news, in the order they came.
    pub(super) ready: VecDeque<QueryId>,
    /// Under way and taken back; the thread ends them.
    pub(super) to_abort: Vec<QueryId>,
    pub(super) counts: HatchCounts,
    pub(super) closed: bool,
}

impl Desk {
    /// Takes a query a step further, tells of it, and counts ends. Steps that come after the end change nothing.
    pub(super) fn step(&mut self, id: QueryId, step: Step, news: Option<News>, now: Duration) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else { return false };
        let Ok(state) = slot.query.step(step, now) else { return false };
        let counts = &mut self.counts;
        match state {
            State::Answered(timeliness) => *counts.answered.entry(timeliness.as_str()).or_default() += 1,
            State::Failed(kind) => *counts.failed.entry(kind.as_str()).or_default() += 1,
            State::Cancelled => counts.cancelled += 1,
            State::Superseded(_) => counts.superseded += 1,
            State::Queued | State::Asked | State::Streaming => {}
        }
        if news.is_some() {
            if slot.news.is_none() {
                self.ready.push_back(id);
            }
            slot.news = news;
        }
        true
    }
}
