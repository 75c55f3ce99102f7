//! How a model writes its answers down, and how they are read.
//!
//! Every reader is a pure function of the text and of [`Sent`], what was shown to the model. A reader never guesses:
//! what it cannot use stands in [`Reading::problems`]. Whatever the text, it does not panic, a box it yields lies
//! inside the crop that was sent, and the lengths of what it yields are bounded by the `MAX_` constants.

mod boxes;
mod glamm;
mod json;
mod plain;
mod qwen;
mod reading;
mod scan;
mod sent;
pub mod vitron;

use std::{fmt, str::FromStr};

pub use json::schema;
pub use reading::{Found, Problem, ProblemKind, Reading, Span, Target};
pub use reading::{MAX_LABEL_BYTES, MAX_OBJECTS, MAX_PROBLEMS, MAX_SPANS, MAX_TEXT_BYTES};
pub use sent::{OVERHANG, Sent};

use crate::{GroundingError, Kind};

/// A way of writing answers down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Protocol {
    /// Our own JSON, see [`schema`]. For servers with structured output and general models.
    #[default]
    Json,
    /// Qwen2.5-VL: `[{"bbox_2d":[x1,y1,x2,y2],"label":".."}]` in absolute pixels of the picture sent.
    Qwen,
    /// The same in thousandths of the picture sent (Qwen3-VL), and `box_2d: [y1,x1,y2,x2]` (Gemini).
    Thousandths,
    /// `<ref>..</ref><box>(x1,y1),(x2,y2)</box>` (Qwen-VL) and `<box>[[x1,y1,x2,y2]]</box>` (InternVL), thousandths.
    RefBox,
    /// VITRON's `<module>/<instruction>/<region>` read leniently, and `object: (x0,y0,x1,y1 | first,last)`.
    Vitron,
    /// VITRON's tags exactly as its published program reads them.
    VitronStrict,
    /// VideoGLaMM's captions, `<p>phrase</p> [SEG]`. Its objects have no box: they are embeddings.
    Videoglamm,
    /// Words only; `object 3` is tied to the object that bore the number 3.
    Plain,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Json,
        Self::Qwen,
        Self::Thousandths,
        Self::RefBox,
        Self::Vitron,
        Self::VitronStrict,
        Self::Videoglamm,
        Self::Plain,
    ];

    /// The name settings use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Qwen => "qwen",
            Self::Thousandths => "thousandths",
            Self::RefBox => "ref-box",
            Self::Vitron => "vitron",
            Self::VitronStrict => "vitron-strict",
            Self::Videoglamm => "videoglamm",
            Self::Plain => "plain",
        }
    }

    /// Reads an answer.
    pub fn parse(self, text: &str, sent: &Sent) -> Reading {
        let mut reading = Reading::default();
        let text = reading.cut(text);
        match self {
            Self::Json => json::read(text, sent, &mut reading),
            Self::Qwen => qwen::read(text, sent, qwen::Unit::Pixels, &mut reading),
            Self::Thousandths => qwen::read(text, sent, qwen::Unit::Thousandths, &mut reading),
            Self::RefBox => boxes::read(text, sent, &mut reading),
            Self::Vitron => vitron::read(text, sent, &mut reading),
            Self::VitronStrict => vitron::read_strict(text, &mut reading),
            Self::Videoglamm => glamm::read(text, &mut reading),
            Self::Plain => plain::read(text, sent, &mut reading),
        }
        reading
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = GroundingError;

    fn from_str(name: &str) -> Result<Self, GroundingError> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            GroundingError::new(Kind::Settings, "protocol", format_args!("one of {names}"), name)
        })
    }
}
