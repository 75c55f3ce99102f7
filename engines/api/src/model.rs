use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use sightline_core::ImageSpec;

use crate::{DeviceOps, Dim, Engine, GraphIo};

/// The feature levels of the image encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSpec {
    /// The level the memory is read into.
    pub top: String,
}

/// The low-resolution mask logits, `[1,1,height,width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskSpec {
    /// Rows.
    pub height_px: usize,
    /// Columns.
    pub width_px: usize,
}

/// The memory bank of one object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemorySpec {
    /// Tokens of one slot.
    pub tokens: usize,
    /// Channels of one token.
    pub channels: usize,
    /// Slots for tracked frames.
    pub recent: usize,
    /// Slots for conditioning frames.
    pub max_cond: usize,
    /// Frames between the recent slots from the second on.
    pub stride: usize,
    /// Whether stored memories are rounded to bfloat16.
    pub round_to_bf16: bool,
    /// A tracked frame is remembered only above this object score; `None` remembers every frame.
    pub min_object_score: Option<f32>,
}

impl MemorySpec {
    /// All slots.
    pub fn slots(&self) -> usize {
        self.max_cond + self.recent
    }
    /// Elements of one slot.
    pub fn slot_elements(&self) -> usize {
        self.tokens * self.channels
    }
}

/// The object pointers of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointerSpec {
    /// Channels of one pointer.
    pub channels: usize,
    /// Slots for tracked frames; conditioning frames have [`MemorySpec::max_cond`] more.
    pub recent: usize,
}

/// Which prompts a model takes, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSpec {
    /// Clicks.
    pub points: bool,
    /// Boxes.
    pub boxes: bool,
    /// Masks.
    pub masks: bool,
    /// Mask prompts run through `decoder_prompt` for their pointer.
    pub mask_decoder: bool,
    /// One padding point is appended to every prompt.
    pub pad_point: bool,
    /// `multimask` is on up to this many points.
    pub multimask_max_points: usize,
}

/// How the part of the picture that the model is shown follows the objects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ViewSpec {
    /// The part's side, in sides of the box around all objects; at least 1.
    pub margin: f32,
    /// The least side, in pictures; above 0, at most 1.
    pub min_side: f32,
}

/// The graphs of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum GraphName {
    ImageEncoder,
    MemoryAttention,
    DecoderTrack,
    DecoderPrompt,
    MemoryEncoder,
    MaskDownsample,
}

impl GraphName {
    /// Every graph, those each model must have first.
    pub const ALL: [Self; 6] = [
        Self::ImageEncoder,
        Self::MemoryAttention,
        Self::DecoderTrack,
        Self::DecoderPrompt,
        Self::MemoryEncoder,
        Self::MaskDownsample,
    ];

    /// The name in `model.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageEncoder => "image_encoder",
            Self::MemoryAttention => "memory_attention",
            Self::DecoderTrack => "decoder_track",
            Self::DecoderPrompt => "decoder_prompt",
            Self::MemoryEncoder => "memory_encoder",
            Self::MaskDownsample => "mask_downsample",
        }
    }
}

impl fmt::Display for GraphName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One graph of a model as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphSpec {
    /// File beside the manifest.
    pub file: PathBuf,
    /// SHA-256 of that file, lower-case hex.
    pub sha256: String,
    /// What it must take and give.
    pub io: GraphIo,
}

/// Everything the tracker needs to know of a model: `model.toml`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name.
    pub name: String,
    /// `sam2.0`, `sam2.1`, `edgetam`, `nano`.
    pub family: String,
    /// Licence of the weights, SPDX.
    pub licence: String,
    /// Input picture.
    pub image: ImageSpec,
    /// Feature levels.
    pub features: FeatureSpec,
    /// Low-resolution masks.
    pub masks: MaskSpec,
    /// Memory bank.
    pub memory: MemorySpec,
    /// Object pointers, if the model has them.
    pub pointers: Option<PointerSpec>,
    /// Prompts.
    pub prompts: PromptSpec,
    /// Where the model looks; `None` always looks at the whole picture.
    pub view: Option<ViewSpec>,
    /// Added to the top level on a conditioning frame, one value a channel; empty if the model has none.
    pub no_mem_embed: Vec<f32>,
    /// The pointer of an absent object; empty if the model has none.
    pub no_obj_ptr: Vec<f32>,
    /// The graphs.
    pub graphs: BTreeMap<GraphName, GraphSpec>,
}

impl ModelSpec {
    /// Whether memory attention, the track decoder and the memory encoder take several objects at once: their
    /// leading size is open (`engines/GRAPHS.md`, *Batch*).
    pub fn batches_objects(&self) -> bool {
        self.mem_dim(0) == Some(Dim::Dynamic)
    }

    /// Whether memory attention takes any number of memory slots up to [`MemorySpec::slots`].
    pub fn has_open_slots(&self) -> bool {
        self.mem_dim(1) == Some(Dim::Dynamic)
    }

    fn mem_dim(&self, axis: usize) -> Option<Dim> {
        let attention = self.graphs.get(&GraphName::MemoryAttention)?;
        attention.io.inputs.iter().find(|port| port.name == "mem")?.dims.get(axis).copied()
    }
}

/// A loaded model: its manifest and its engines.
pub struct Model {
    /// The manifest.
    pub spec: ModelSpec,
    /// Once a frame.
    pub image_encoder: Box<dyn Engine>,
    /// Once an object and frame.
    pub memory_attention: Box<dyn Engine>,
    /// Once an object and unprompted frame.
    pub decoder_track: Box<dyn Engine>,
    /// Once an object and prompted frame.
    pub decoder_prompt: Box<dyn Engine>,
    /// Once an object and frame.
    pub memory_encoder: Box<dyn Engine>,
    /// Once a mask prompt, where the family needs it.
    pub mask_downsample: Option<Box<dyn Engine>>,
    /// The device all of these engines run on, and whose tensors they take; `None`: they take host tensors. An engine
    /// is run on one stream only: the image encoder on [`Stream::ENCODE`](crate::Stream::ENCODE), the others on
    /// [`Stream::TRACK`](crate::Stream::TRACK).
    pub device: Option<Arc<dyn DeviceOps>>,
}

impl Model {
    /// The same graphs on `device`, each in what `wrap` makes of its engine.
    #[must_use]
    pub fn wrapped(
        self,
        device: Option<Arc<dyn DeviceOps>>,
        mut wrap: impl FnMut(Box<dyn Engine>) -> Box<dyn Engine>,
    ) -> Self {
        Self {
            image_encoder: wrap(self.image_encoder),
            memory_attention: wrap(self.memory_attention),
            decoder_track: wrap(self.decoder_track),
            decoder_prompt: wrap(self.decoder_prompt),
            memory_encoder: wrap(self.memory_encoder),
            mask_downsample: self.mask_downsample.map(wrap),
            device,
            spec: self.spec,
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.spec.name)
            .field("provider", &self.image_encoder.provider())
            .finish_non_exhaustive()
    }
}
