use std::{fmt, sync::Arc, time::Duration};

use crate::{NormBox, Rle};

/// The client's name for an object. The order in which a model runs objects is its own affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId(pub u32);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which frame is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameStamp {
    /// Position among the frames that entered, from 0. Never reused, never goes back.
    pub index: u64,
    /// Presentation timestamp as the source gave it.
    pub pts: Option<Duration>,
    /// Running time in the pipeline, the time prompts refer to.
    pub running_time: Option<Duration>,
}

/// What is known of an object on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackState {
    /// Seen: the mask was computed from the frame it names and the object is present in it.
    Tracking,
    /// Looked for and not found.
    Lost,
    /// Not looked for in this frame: the mask is carried over from an earlier one.
    Coasted,
}

impl TrackState {
    /// Lower-case name used in metadata, messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tracking => "tracking",
            Self::Lost => "lost",
            Self::Coasted => "coasted",
        }
    }
}

/// Why a frame was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// A newer frame took its place while the engines were busy.
    Superseded,
    /// There was nothing to track.
    NoPrompt,
    /// The feed has more frames than it may have looked at.
    OverBudget,
    /// The machine is too slow: every frame was one too many ([`crate::Degrade::Fewer`]).
    Degraded,
    /// The picture could not be read or an engine failed on it.
    Error,
    /// A flush, a seek or the end of the stream came first.
    Flushed,
}

impl SkipReason {
    /// Every reason, for counters that must list them all.
    pub const ALL: [Self; 6] =
        [Self::Superseded, Self::NoPrompt, Self::OverBudget, Self::Degraded, Self::Error, Self::Flushed];

    /// Lower-case name used in metadata, messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::NoPrompt => "no-prompt",
            Self::OverBudget => "over-budget",
            Self::Degraded => "degraded",
            Self::Error => "error",
            Self::Flushed => "flushed",
        }
    }
}

/// The one thing that happened to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// At least one object was found in it.
    Masks,
    /// It was looked at and no object was found.
    NoObject,
    /// It was not looked at.
    Skipped(SkipReason),
}

impl Outcome {
    /// Lower-case name used in metadata, messages and JSONL: `masks`, `no-object` or `skipped`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Masks => "masks",
            Self::NoObject => "no-object",
            Self::Skipped(_) => "skipped",
        }
    }

    /// The reason of a skip.
    pub fn skip_reason(self) -> Option<SkipReason> {
        match self {
            Self::Skipped(reason) => Some(reason),
            Self::Masks | Self::NoObject => None,
        }
    }
}

/// Time spent per stage on one frame, summed over objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Waiting for the worker.
    pub queue: Duration,
    /// Camera format to normalised tensor.
    pub preprocess: Duration,
    /// `image_encoder`.
    pub image_encoder: Duration,
    /// `memory_attention`.
    pub memory_attention: Duration,
    /// `decoder_track` and `decoder_prompt`.
    pub decoder: Duration,
    /// `memory_encoder`.
    pub memory_encoder: Duration,
    /// Logits to masks, boxes and run lengths.
    pub postprocess: Duration,
}

impl StageTimes {
    /// Stage names and times, in the order a frame meets them.
    pub fn named(&self) -> [(&'static str, Duration); 7] {
        [
            ("queue", self.queue),
            ("preprocess", self.preprocess),
            ("image_encoder", self.image_encoder),
            ("memory_attention", self.memory_attention),
            ("decoder", self.decoder),
            ("memory_encoder", self.memory_encoder),
            ("postprocess", self.postprocess),
        ]
    }

    /// All stages together.
    pub fn total(&self) -> Duration {
        self.named().iter().map(|(_, time)| *time).sum()
    }
}

/// One object on one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectResult {
    /// The client's id.
    pub id: ObjectId,
    /// Seen, not found, or carried over.
    pub state: TrackState,
    /// Probability in `[0, 1]` that the object is in the picture (sigmoid of the model's object score).
    pub score: f32,
    /// The model's own estimate in `[0, 1]` of the mask's IoU.
    pub iou: f32,
    /// Tight box around the mask; `None` when the mask is empty.
    pub bounds: Option<NormBox>,
    /// The mask at picture size; empty when the object is lost.
    pub mask: Arc<Rle>,
}

/// The newest masks, and the frame they were computed from.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameResult {
    /// The frame the engines looked at.
    pub frame: FrameStamp,
    /// `Masks` or `NoObject`.
    pub outcome: Outcome,
    /// From the frame's arrival to its masks being ready.
    pub latency: Duration,
    /// Where that time went.
    pub stages: StageTimes,
    /// One entry for every object being tracked, in the order of their ids.
    pub objects: Vec<ObjectResult>,
}
