//! Finding by words without a server: the built-in vocabulary over proposals, a decoder run at a time.
//!
//! Questions are about the frame they were first seen on. A second picture, an eighth of a second later, tells what moves;
//! then the frame's features are searched for things, between live frames, and the fitting ones are handed on with their
//! boxes. They catch up like any late answer.

use std::{collections::VecDeque, time::Duration};

use sightline_core::{FrameStamp, NormBox, OwnedPicture};
use sightline_engine_api::PictureSource;
use sightline_grounding::vocabulary;
use sightline_tracker::{At, ProposalOptions, Proposer, Session};

use super::{
    builtin::{BuiltIn, Sight},
    hub::COMMANDS,
    talk::{Heard, Question, What, record},
};
use crate::query_record::{NamedObject, QueryRecord};

/// Between the two pictures that tell what moves.
const APART: Duration = Duration::from_millis(125);
/// Frames between them where the stream has no times.
const FRAMES_APART: u64 = 3;

/// Questions about one frame.
struct Open {
    questions: Vec<Question>,
    asked: FrameStamp,
    /// The features are pinned.
    pinned: bool,
    /// Our own: the frame's buffer may be wanted back.
    picture: OwnedPicture,
    /// Why there is none.
    unseen: Option<String>,
    /// Under way once the second picture has come.
    proposer: Option<Proposer>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Guesser {
    built_in: BuiltIn,
    waiting: VecDeque<Question>,
    open: Option<Open>,
}

/// Frames without times are taken to come 25 a second.
fn time(frame: FrameStamp) -> Duration {
    frame.running_time.or(frame.pts).unwrap_or(Duration::from_millis(40 * frame.index))
}

impl Guesser {
    /// Takes a question if its words are understood.
    ///
    /// # Errors
    /// What is not, and what would be.
    pub(crate) fn put(&mut self, question: Question) -> Result<(), (Question, String)> {
        let What::Find { phrase } = &question.what else {
            let kind = question.what.kind();
            let reason = format!("{kind}: expected a language model's server (llm), got none");
            return Err((question, reason));
        };
        if let Err(error) = vocabulary::parse(phrase) {
            return Err((question, format!("{error}; for other words attach a language model (llm)")));
        }
        if self.waiting.len() >= COMMANDS {
            return Err((question, format!("waiting questions: expected at most {COMMANDS}, got one more")));
        }
        self.waiting.push_back(question);
        Ok(())
    }

    pub(crate) fn withdraw(&mut self, keep: impl Fn(&Question) -> bool) {
        self.waiting.retain(&keep);
        if let Some(open) = &mut self.open {
            open.questions.retain(&keep);
        }
    }

    /// Running times start anew: what was seen before is of no use.
    pub(crate) fn forget_frames(&mut self) {
        if let Some(open) = self.open.take() {
            self.waiting.extend(open.questions);
        }
    }

    pub(crate) fn wants_frames(&self) -> bool {
        !self.waiting.is_empty() || self.open.is_some()
    }

    /// Whether [`Guesser::step`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.proposer.is_some())
    }

    /// A frame was looked at: the first of two pictures, or the second.
    pub(crate) fn frame_went(
        &mut self,
        frame: FrameStamp,
        source: &dyn PictureSource,
        session: &mut Session,
    ) -> Vec<Heard> {
        let Some(open) = &mut self.open else {
            if !self.waiting.is_empty() {
                let questions: Vec<Question> = self.waiting.drain(..).collect();
                let told = questions.iter().map(|question| {
                    let record = QueryRecord { about: Some(frame), ..record(question, "asked", "") };
                    Heard::Record(Box::new(record))
                });
                let told = told.collect();
                let pinned = session.pin_newest().is_some();
                let mut picture = OwnedPicture::default();
                // One that cannot be had is told of when it is looked at.
                let seen = source.on_host().map(|asked| picture.copy_from(&asked));
                let unseen = seen.err().map(|error| error.to_string());
                self.open = Some(Open { questions, asked: frame, pinned, picture, unseen, proposer: None });
                return told;
            }
            return Vec::new();
        };
        let timed = frame.running_time.or(frame.pts).is_some();
        let apart = if timed {
            time(frame).saturating_sub(time(open.asked)) >= APART
        } else {
            frame.index >= open.asked.index + FRAMES_APART
        };
        if open.proposer.is_some() || !apart {
            return Vec::new();
        }
        let looked = open.picture.picture().ok().zip(source.on_host().ok()).map(|(asked, other)| {
            let sight = |picture, stamp| Sight { picture, time: time(stamp) };
            // Pictures that cannot be compared tell nothing of motion; the other words still do.
            self.built_in.look(sight(&asked, open.asked), Some(sight(&other, frame))).unwrap_or_default()
        });
        let hints = looked.unwrap_or_default();
        match session.propose(At::Frame(open.asked.index), ProposalOptions::default(), &hints) {
            Ok(proposer) => {
                open.proposer = Some(proposer);
                Vec::new()
            }
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    /// One decoder run; what to tell once there is nothing left to try.
    pub(crate) fn step(&mut self, session: &mut Session) -> Vec<Heard> {
        let Some(proposer) = self.open.as_mut().and_then(|open| open.proposer.as_mut()) else {
            return Vec::new();
        };
        match session.propose_step(proposer) {
            Ok(false) => Vec::new(),
            Err(error) => self.give_up(&error.to_string()),
            Ok(true) => {
                let Some(mut open) = self.open.take() else { return Vec::new() };
                let proposals = open.proposer.take().map(Proposer::finish).unwrap_or_default();
                let picture = std::mem::take(&mut open.picture);
                let unseen = open.unseen.take();
                open.answer(|phrase| {
                    if let Some(reason) = &unseen {
                        return Err(reason.clone());
                    }
                    let asked = picture.picture().map_err(|error| error.to_string())?;
                    let chosen = self.built_in.choose(phrase, &asked, &proposals);
                    let chosen = chosen.map_err(|error| error.to_string())?;
                    Ok(chosen.into_iter().map(|at| proposals[at].bounds).collect())
                })
            }
        }
    }

    /// Gives the open questions up.
    fn give_up(&mut self, reason: &str) -> Vec<Heard> {
        self.open.take().map(|open| open.answer(|_| Err(reason.to_owned()))).unwrap_or_default()
    }
}

impl Open {
    /// Answers every question with what its words mean.
    fn answer(self, mut meant: impl FnMut(&str) -> Result<Vec<NormBox>, String>) -> Vec<Heard> {
        let mut told: Vec<Heard> = self
            .questions
            .iter()
            .map(|question| {
                let words = question.what.words();
                let mut record = QueryRecord { about: Some(self.asked), ..record(question, "answered", "") };
                match meant(&words) {
                    Err(reason) => {
                        (record.state, record.reason) = ("failed".into(), reason);
                        Heard::Record(Box::new(record))
                    }
                    Ok(found) => {
                        let named =
                            |bounds| NamedObject { bounds: Some(bounds), label: words.clone(), id: None };
                        record.objects = found.iter().copied().map(named).collect();
                        let boxes = found.into_iter().enumerate().collect();
                        Heard::Found {
                            record: Box::new(record),
                            frame: self.asked,
                            boxes,
                            object: question.object,
                        }
                    }
                }
            })
            .collect();
        if self.pinned {
            told.push(Heard::Release(self.asked));
        }
        told
    }
}
