//! The streaming SAM2-style tracker: one step a frame, memory that never grows.
//!
//! [`Tracker`] drives a model's graphs as `engines/GRAPHS.md` lays down and the published predictor does, one
//! object at a time; [`Session`] puts preprocessing before it and mask upscaling behind it. Neither starts a
//! thread, opens a file or knows a backend. See this room's README for how a late prompt catches up.
#![forbid(unsafe_code)]

mod bank;
mod binder;
mod catchup;
mod clean;
mod encoder;
mod error;
mod found;
mod frames;
mod graphs;
mod late;
mod object;
mod prompt;
mod propose;
mod run;
mod said;
mod session;
mod slab;
mod slots;
mod tracker;
mod view;
mod window;

use std::{sync::Arc, time::Duration};

use sightline_core::{FrameStamp, NormBox, ObjectId, Rle, TrackState};

pub use catchup::{Caught, GivenUp, Pace, Progress};
pub use clean::CleanUp;
pub use encoder::{Encoded, Encoder, Encoding};
pub use error::{Kind, TrackerError};
pub use found::MaskCounts;
pub use propose::{Proposal, ProposalOptions, Proposer};
pub use session::{Output, Session};
pub use tracker::Tracker;

/// What a tracker keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Frames whose features are kept for late prompts and corrections, the newest included; at least 1.
    pub history: usize,
    /// Bytes kept of older frames, thinned with age, for late prompts: of their features, or of the pictures themselves
    /// where the model is shown parts of them; 0 for none.
    pub memory_bytes: usize,
    /// Objects tracked at once; at least 1.
    pub max_objects: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 8, memory_bytes: 0, max_objects: 16 }
    }
}

/// Which frame a prompt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The next one to come.
    Next,
    /// The first one whose [`FrameStamp::index`] is at least this.
    Frame(u64),
    /// The first one whose running time is at least this.
    RunningTime(Duration),
}

/// What became of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was applied to this frame and the object followed to the newest one.
    Now(FrameStamp),
    /// It waits for its frame.
    Pending,
    /// The object is to be prompted on this frame and to catch up from there, by [`Tracker::catch_up`].
    CatchingUp {
        /// The frame.
        from: FrameStamp,
        /// The frame asked for is gone, or did not show the place: this is the next one that is kept.
        degraded: bool,
    },
}

/// An object on the newest frame.
#[derive(Debug, Clone, Copy)]
pub struct ObjectView<'a> {
    /// The client's id.
    pub id: ObjectId,
    /// Logit that the object is in the picture; above 0 it is.
    pub object_score: f32,
    /// The model's own estimate in `[0, 1]` of the mask's IoU.
    pub iou: f32,
    /// `[height, width]` f32 logits of `ModelSpec::masks`' size, positive on the object; empty where they stay on a
    /// device ([`Output::low_res`]).
    pub low_res: &'a [f32],
    /// The mask at the picture's size, where it was made on a device.
    pub mask: Option<&'a Arc<Rle>>,
    /// What they cover of the picture.
    pub view: NormBox,
    /// `Tracking` if it is in the picture and any logit is positive, else `Lost`.
    pub state: TrackState,
    /// Every prompt so far was clicks alone, which do not say how far the object reaches.
    pub clicked: bool,
}
