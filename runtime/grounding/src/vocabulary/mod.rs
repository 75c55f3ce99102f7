//! Finding without a server, in a stated vocabulary: colours, sizes, places, motion, ordinals, superlatives.
//!
//! [`parse`] turns words into a [`Description`] or says which words it does not know; [`choose`] picks among candidates.
//! Both are pure. A phrase with one unknown word is refused as a whole: the man in the red jacket is not the red thing.

mod choose;
mod colour;
mod parse;

use std::fmt;

use sightline_core::NormBox;

pub use choose::choose;
pub use colour::{Colour, Tone};
pub use parse::parse;

/// The words there are, for people.
pub const VOCABULARY: &str = "colours (red, orange, yellow, green, cyan, blue, purple, pink, brown, black, white, grey, \
dark, bright), sizes (large, small), places (left, right, top, bottom, middle), motion (moving, still, fast, slow, \
moving left/right/up/down), superlatives (largest, smallest, fastest, slowest, leftmost, rightmost, topmost, \
bottommost), ordinals (second from the right, third largest), numbers (two, 3), all, every, everything, thing, object";

/// A part of the picture, or a way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

/// Where along one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the half on that side.
    At(Side),
    /// Within a quarter of the picture of its middle.
    Middle,
}

/// Compared with the median of the candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Size {
    Large,
    Small,
}

/// How it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Motion {
    /// At all.
    Moving,
    /// Not at all.
    Still,
    /// More than a fifth of the picture a second.
    Fast,
    /// Less than that, but moving.
    Slow,
    /// Mostly that way.
    Towards(Side),
}

/// What candidates are put in order by, the one meant first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum By {
    Largest,
    Smallest,
    Fastest,
    Slowest,
    Outermost(Side),
}

/// How many are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Count {
    /// The one that fits best.
    #[default]
    One,
    /// So many, the best first.
    Exactly(usize),
    /// All that fit.
    All,
}

/// What a phrase means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Description {
    /// How many.
    pub count: Count,
    /// Of which colour.
    pub colour: Option<Colour>,
    /// How bright.
    pub tone: Option<Tone>,
    /// How large.
    pub size: Option<Size>,
    /// Where across.
    pub across: Option<Place>,
    /// Where down.
    pub down: Option<Place>,
    /// How it moves.
    pub motion: Option<Motion>,
    /// In which order, and which in that order, from 1.
    pub rank: Option<(By, usize)>,
}

/// Something in the picture that may be meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The caller's name for it, unique among the candidates.
    pub id: u32,
    /// Where it is.
    pub bounds: NormBox,
    /// The mean of its pixels, RGB.
    pub colour: [u8; 3],
    /// Its pixels, in shares of the picture.
    pub area: f32,
    /// Its way in a second, in widths and heights of the picture; right and down are positive.
    pub motion: [f32; 2],
    /// How likely it is to be a whole thing and what such a phrase speaks of, above 0; only shares of the greatest count.
    pub weight: f32,
}

/// A phrase that the vocabulary does not cover.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "query {phrase:?}: expected {expected}, got {got}; for free text attach a language model ([llm] url)"
)]
pub struct NotUnderstood {
    phrase: String,
    expected: String,
    got: String,
    unknown: Vec<String>,
}

impl NotUnderstood {
    fn words(phrase: &str, unknown: Vec<String>) -> Self {
        let got = unknown.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        Self::new(phrase, format_args!("words of the built-in vocabulary: {VOCABULARY}"), got, unknown)
    }

    fn sense(phrase: &str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self::new(phrase, expected, got, Vec::new())
    }

    fn new(phrase: &str, expected: impl fmt::Display, got: impl fmt::Display, unknown: Vec<String>) -> Self {
        let phrase = phrase[..phrase.floor_char_boundary(200)].to_owned();
        Self { phrase, expected: expected.to_string(), got: got.to_string(), unknown }
    }

    /// The words it does not know; none when it knows them and cannot make sense of them.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}
