//! What the corridor has to say, and how it is put on the bus.

use std::time::{Duration, Instant};

use gst::prelude::*;
use sightline_core::{FrameStamp, ObjectId, ObjectResult};

use crate::{
    live_record::LiveRecord,
    query_record::{LateRecord, QueryRecord},
    record::{CAUGHT_UP_MESSAGE, FrameRecord, PROMPT_APPLIED_MESSAGE, PROMPT_REFUSED_MESSAGE, ns},
};

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A frame has its outcome.
    Frame(FrameRecord),
    /// A prompt was applied to a frame that was kept, or is bound to the next one (`None`).
    Applied { id: ObjectId, frame: Option<FrameStamp>, degraded: bool },
    /// A mask of a frame that has gone by, made for a late prompt.
    Late { frame: FrameStamp, object: ObjectResult },
    /// A late prompt's object is live again.
    CaughtUp {
        id: ObjectId,
        from: FrameStamp,
        to: FrameStamp,
        took: Duration,
        looked_at: u32,
        degraded: bool,
    },
    /// Something changed for all frames.
    Live(LiveRecord),
    /// What became of a question.
    Query(Box<QueryRecord>),
    /// A prompt was not used.
    Refused { id: Option<ObjectId>, at: Option<Duration>, reason: String },
    /// A frame failed; the next one may not.
    Warning(String),
    /// A picture in device memory could not be fetched for who wanted to see it.
    Unfetched(String),
    /// Nothing more will come.
    Fatal(String),
}

/// Where notices go. Called without any lock held.
pub(crate) type Notify = std::sync::Arc<dyn Fn(Notice) + Send + Sync>;

/// At most one warning in this time; what went unsaid is in the frames' own messages.
const WARNING_PAUSE: Duration = Duration::from_secs(1);

/// Who warns now and then.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is time to.
    pub(crate) fn may(&mut self) -> bool {
        let may = self.0.is_none_or(|at| at.elapsed() >= WARNING_PAUSE);
        if may {
            self.0 = Some(Instant::now());
        }
        may
    }
}

/// Posts a notice as a message of `element`; `frames` says whether frames are wanted.
pub(crate) fn post(element: &super::SightlineTrack, notice: Notice, frames: bool) {
    let message = |structure: gst::Structure| {
        let message = gst::message::Element::builder(structure).src(element).build();
        // Refused when the element is in no pipeline: nobody listens.
        let _ = element.post_message(message);
    };
    match notice {
        Notice::Frame(record) => {
            gst::trace!(
                super::CAT,
                obj = element,
                "frame {}: {:?} after {:?}",
                record.frame.index,
                record.outcome,
                record.latency
            );
            if frames {
                message(record.to_structure());
            }
        }
        Notice::Late { frame, object } => {
            if frames {
                message(LateRecord { frame, object }.to_structure());
            }
        }
        Notice::CaughtUp { id, from, to, took, looked_at, degraded } => {
            let mut structure = gst::Structure::builder(CAUGHT_UP_MESSAGE)
                .field("id", id.0)
                .field("from-index", from.index)
                .field("looked-at", looked_at)
                .field("took", ns(took))
                .field("degraded", degraded)
                .build();
            crate::record::set_stamp(&mut structure, to);
            message(structure);
        }
        Notice::Live(record) => message(record.to_structure()),
        Notice::Query(record) => message(record.to_structure()),
        Notice::Applied { id, frame, degraded } => {
            let mut structure = gst::Structure::builder(PROMPT_APPLIED_MESSAGE)
                .field("id", id.0)
                .field("degraded", degraded)
                .build();
            if let Some(frame) = frame {
                crate::record::set_stamp(&mut structure, frame);
            }
            message(structure);
        }
        Notice::Refused { id, at, reason } => {
            let mut structure =
                gst::Structure::builder(PROMPT_REFUSED_MESSAGE).field("reason", &reason).build();
            structure.set_if_some("id", id.map(|id| id.0));
            structure.set_if_some("running-time", at.map(ns));
            message(structure);
            gst::element_warning!(element, gst::ResourceError::Settings, ("prompt refused: {reason}"));
        }
        Notice::Warning(reason) => {
            gst::element_warning!(element, gst::StreamError::Failed, ("frame skipped: {reason}"));
        }
        Notice::Unfetched(reason) => {
            gst::element_warning!(element, gst::StreamError::Failed, ("picture not fetched: {reason}"));
        }
        Notice::Fatal(reason) => {
            gst::element_error!(element, gst::StreamError::Failed, ("tracking ended: {reason}"));
        }
    }
}
