use std::sync::Arc;

use crate::{Mask, NormBox, NormPoint};

/// Whether a click says "this" or "not this".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PointLabel {
    /// The point lies on the object (SAM2 label 1).
    Positive,
    /// The point lies on something else (SAM2 label 0).
    Negative,
}

/// A click.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Where, in normalised picture coordinates.
    pub at: NormPoint,
    /// On the object or off it.
    pub label: PointLabel,
}

/// What tells the tracker which object is meant, on one frame.
///
/// A `query` (a user's words) is something else: it becomes a prompt once it has been answered.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Prompt {
    /// Clicks, and a box they may refine.
    Points {
        /// At least one, unless `within` is given.
        points: Vec<Point>,
        /// A box given together with the clicks.
        within: Option<NormBox>,
    },
    /// A box around the object.
    Box(NormBox),
    /// The object's pixels, at any size; the mask covers the whole picture.
    Mask(Arc<Mask>),
    /// An embedding that stands for the object, as a language model's `[SEG]` token does: `[channels]` f32.
    /// No model that is shipped today takes one.
    Embedding(Arc<[f32]>),
}

impl Prompt {
    /// The kind's name as the field and our errors write it.
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Points { .. } => "points",
            Self::Box(_) => "box",
            Self::Mask(_) => "mask",
            Self::Embedding(_) => "embedding",
        }
    }
}
