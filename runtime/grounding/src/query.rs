//! A user's words, and what becomes of them.
//!
//! Times are durations since an epoch of the caller's choosing, so nothing here looks at a clock.

use std::{fmt, time::Duration};

use sightline_core::{FrameStamp, ObjectId};

use crate::Kind;

/// A query's name, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

impl fmt::Display for QueryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum QueryKind {
    /// Where is it? One object or many.
    Find {
        /// The user's words.
        phrase: String,
    },
    /// A caption of the scene, or of one object.
    Describe {
        /// The object; `None` for the scene.
        object: Option<ObjectId>,
    },
    /// A question about the scene or about tracked objects.
    Ask {
        /// The user's words.
        question: String,
        /// Objects asked about; their numbers are drawn on the pictures.
        objects: Vec<ObjectId>,
        /// Name of the conversation whose earlier turns go along.
        conversation: Option<u64>,
    },
    /// One look at a standing condition; [`crate::Watch`] says when to look.
    Watch {
        /// The user's words.
        condition: String,
    },
}

impl QueryKind {
    /// Lower-case name used in messages and JSONL.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Find { .. } => "find",
            Self::Describe { .. } => "describe",
            Self::Ask { .. } => "ask",
            Self::Watch { .. } => "watch",
        }
    }
}

/// How an answer stands to its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timeliness {
    /// By the deadline.
    OnTime,
    /// Past it, and still of use: the tracker catches up.
    Late,
    /// Past the grace period as well.
    TooLate,
}

impl Timeliness {
    /// Lower-case name used in messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnTime => "on-time",
            Self::Late => "late",
            Self::TooLate => "too-late",
        }
    }
}

/// Where a query stands. The last five are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Waiting for its turn.
    Queued,
    /// Sent to the server (again, after a retry).
    Asked,
    /// The first words are there.
    Streaming,
    /// Answered.
    Answered(Timeliness),
    /// Given up.
    Failed(Kind),
    /// Taken back.
    Cancelled,
    /// A newer one took its place before it was asked.
    Superseded(QueryId),
}

impl State {
    /// Whether nothing more can happen to it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Asked | Self::Streaming)
    }

    /// Lower-case name used in messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Asked => "asked",
            Self::Streaming => "streaming",
            Self::Answered(_) => "answered",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded(_) => "superseded",
        }
    }
}

/// What happens to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is sent; a retry sends it again.
    Ask,
    /// Words arrive.
    Stream,
    /// The answer is whole.
    Answer,
    /// It is given up.
    Fail(Kind),
    /// It is taken back.
    Cancel,
    /// A newer one takes its place.
    Supersede(QueryId),
}

/// A step that a query in its state cannot take. The query is unchanged: an answer to a cancelled query is one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("query {id}: expected a step that may follow {}, got {step:?}", state.as_str())]
pub struct StepError {
    /// The query.
    pub id: QueryId,
    /// Where it stands.
    pub state: State,
    /// What was tried.
    pub step: Step,
}

/// A user's words, the frames they are about, and when the answer is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Its name.
    pub id: QueryId,
    /// What is wanted.
    pub kind: QueryKind,
    /// The frames it is about, one a picture of the request; a box in its answer belongs to the last, which is the newest.
    pub frames: Vec<FrameStamp>,
    /// When it was put.
    pub put_at: Duration,
    /// When the answer is wanted.
    pub deadline: Duration,
    /// From when on an answer is of no use.
    pub expiry: Duration,
    state: State,
    /// When it came into its state.
    since: Duration,
}

impl Query {
    /// A query put `now`, wanted within `patience`, of use for `grace` longer.
    pub fn new(
        id: QueryId,
        kind: QueryKind,
        frames: Vec<FrameStamp>,
        now: Duration,
        patience: Duration,
        grace: Duration,
    ) -> Self {
        let deadline = now.saturating_add(patience);
        let expiry = deadline.saturating_add(grace);
        Self { id, kind, frames, put_at: now, deadline, expiry, state: State::Queued, since: now }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// The frame that boxes in its answer belong to: the newest it was about.
    pub fn seed_frame(&self) -> Option<FrameStamp> {
        self.frames.last().copied()
    }

    /// The frames from the `first` to the `last` picture of the request, as an answer may name them.
    pub fn frames_of(&self, [first, last]: [u32; 2]) -> Option<[FrameStamp; 2]> {
        Some([*self.frames.get(first as usize)?, *self.frames.get(last as usize)?])
    }

    /// How an answer at `now` stands to the deadline.
    pub fn timeliness(&self, now: Duration) -> Timeliness {
        if now <= self.deadline {
            Timeliness::OnTime
        } else if now <= self.expiry {
            Timeliness::Late
        } else {
            Timeliness::TooLate
        }
    }

    /// Takes a step at `now`; the new state.
    ///
    /// ```text
    /// queued -> asked -> streaming -> answered
    ///             ^----------'  a retry asks again
    /// queued -> superseded;  queued, asked, streaming -> failed, cancelled
    /// ```
    ///
    /// # Errors
    /// When the step may not follow the state; nothing changes.
    pub fn step(&mut self, step: Step, now: Duration) -> Result<State, StepError> {
        use State::{Asked, Cancelled, Failed, Queued, Streaming, Superseded};
        let next = match (self.state, step) {
            (Queued | Asked | Streaming, Step::Ask) => Asked,
            (Asked | Streaming, Step::Stream) => Streaming,
            (Asked | Streaming, Step::Answer) => State::Answered(self.timeliness(now)),
            (Queued | Asked | Streaming, Step::Fail(kind)) => Failed(kind),
            (Queued | Asked | Streaming, Step::Cancel) => Cancelled,
            (Queued, Step::Supersede(by)) => Superseded(by),
            (state, step) => return Err(StepError { id: self.id, state, step }),
        };
        if next != self.state {
            (self.state, self.since) = (next, now);
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn query() -> Query {
        let kind = QueryKind::Find { phrase: "a".into() };
        Query::new(QueryId(1), kind, Vec::new(), 10 * S, 2 * S, 3 * S)
    }

    #[test]
    fn lives() {
        use Step::{Answer, Ask, Cancel, Fail, Stream, Supersede};
        for (name, steps, end) in [
            ("answered", &[Ask, Stream, Stream, Answer][..], State::Answered(Timeliness::OnTime)),
            ("answered at once", &[Ask, Answer], State::Answered(Timeliness::OnTime)),
            ("asked again", &[Ask, Stream, Ask, Stream, Answer], State::Answered(Timeliness::OnTime)),
            ("failed in the queue", &[Fail(Kind::Budget)], State::Failed(Kind::Budget)),
            ("failed", &[Ask, Stream, Fail(Kind::Disconnected)], State::Failed(Kind::Disconnected)),
            ("cancelled", &[Ask, Cancel], State::Cancelled),
            ("superseded", &[Supersede(QueryId(2))], State::Superseded(QueryId(2))),
        ] {
            let mut query = query();
            for step in steps {
                assert!(!query.state().is_final(), "{name}");
                query.step(*step, 11 * S).expect(name);
            }
            assert_eq!(query.state(), end, "{name}");
            // Nothing follows an end.
            for step in [Ask, Stream, Answer, Fail(Kind::Server), Cancel, Supersede(QueryId(3))] {
                let error = query.step(step, 12 * S).expect_err(name);
                assert_eq!((error.state, query.state(), query.since()), (end, end, 11 * S), "{name}");
            }
        }
    }

    #[test]
    fn steps_out_of_turn() {
        assert!(query().step(Step::Answer, 10 * S).is_err());
        assert!(query().step(Step::Stream, 10 * S).is_err());
        let mut asked = query();
        asked.step(Step::Ask, 10 * S).unwrap();
        let error = asked.step(Step::Supersede(QueryId(2)), 10 * S).expect_err("it is under way");
        assert_eq!(
            error.to_string(),
            "query 1: expected a step that may follow asked, got Supersede(QueryId(2))"
        );
    }

    #[test]
    fn pictures_of_the_request_are_frames() {
        let stamp = |index| FrameStamp { index, pts: None, running_time: None };
        let query = Query { frames: vec![stamp(30), stamp(45), stamp(60)], ..query() };
        assert_eq!(query.seed_frame(), Some(stamp(60)));
        assert_eq!(query.frames_of([0, 1]), Some([stamp(30), stamp(45)]));
        assert_eq!(query.frames_of([1, 3]), None);
    }

    #[test]
    fn answers_are_on_time_late_or_too_late() {
        for (at_ms, expected) in [
            (10_000, Timeliness::OnTime),
            (12_000, Timeliness::OnTime),
            (12_001, Timeliness::Late),
            (15_000, Timeliness::Late),
            (15_001, Timeliness::TooLate),
        ] {
            let mut query = query();
            query.step(Step::Ask, 10 * S).unwrap();
            let state = query.step(Step::Answer, Duration::from_millis(at_ms)).unwrap();
            assert_eq!(state, State::Answered(expected), "{at_ms} ms");
        }
    }
}
