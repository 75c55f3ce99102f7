use std::{fmt, ops::Range};

use sightline_core::{NormBox, ObjectId};

use super::{Sent, vitron::Call};

/// Objects kept of one answer.
pub const MAX_OBJECTS: usize = 64;
/// Spans kept of one answer.
pub const MAX_SPANS: usize = 256;
/// Problems kept of one answer; [`Reading::problems_left_out`] counts the rest.
pub const MAX_PROBLEMS: usize = 32;
/// Bytes kept of a label.
pub const MAX_LABEL_BYTES: usize = 200;
/// Bytes of an answer that are read.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What an answer says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The words meant for people, without tags, boxes and code fences.
    pub text: String,
    /// What was found, in the order it was named.
    pub objects: Vec<Found>,
    /// Parts of `text` that speak of an object.
    pub spans: Vec<Span>,
    /// Yes or no, where the answer begins with it (or says so in our JSON); `None` otherwise.
    pub verdict: Option<bool>,
    /// What VITRON asks to be done.
    pub call: Option<Call>,
    /// What could not be used.
    pub problems: Vec<Problem>,
    /// Problems beyond [`MAX_PROBLEMS`].
    pub problems_left_out: usize,
}

/// An object named in an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What the model calls it; may be empty.
    pub label: String,
    /// Where it is in the *picture* (not in the crop that was sent); `None` where the protocol has no boxes.
    pub bounds: Option<NormBox>,
    /// First and last picture of the request it is seen in, from 0, where the answer says so.
    pub images: Option<[u32; 2]>,
    /// The tracked object it is, where the answer says so by the number drawn on it.
    pub mark: Option<ObjectId>,
}

/// What a span speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// `Reading::objects[index]`.
    Found(usize),
    /// A tracked object whose number was drawn on the pictures.
    Known(ObjectId),
}

/// A part of [`Reading::text`]: byte offsets on character boundaries, `start < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// The object spoken of.
    pub target: Target,
}

/// Why part of an answer could not be used as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A box that hung slightly over the edge, now clipped.
    Clipped,
    /// A box outside what was sent; left out.
    Outside,
    /// A box whose corners are out of order or which has no area; left out.
    Unordered,
    /// A coordinate that is not a finite number; left out.
    NotFinite,
    /// Something that is not written as the protocol says; left out.
    Syntax,
    /// A picture, object or number that the request did not have; left out.
    Unknown,
    /// A phrase that the text does not contain, or one tied to no object; left out.
    Unlinked,
    /// More than is kept; the rest was left out.
    TooMuch,
}

impl ProblemKind {
    /// Lower-case name used in messages and JSONL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clipped => "clipped",
            Self::Outside => "outside",
            Self::Unordered => "unordered",
            Self::NotFinite => "not-finite",
            Self::Syntax => "syntax",
            Self::Unknown => "unknown",
            Self::Unlinked => "unlinked",
            Self::TooMuch => "too-much",
        }
    }
}

/// Part of an answer that could not be used as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub kind: ProblemKind,
    /// What was expected and what came.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.what)
    }
}

impl Reading {
    /// The part of an answer that is read.
    pub(crate) fn cut<'a>(&mut self, text: &'a str) -> &'a str {
        let cut = shortened(text, MAX_TEXT_BYTES);
        if cut.len() < text.len() {
            self.problem(
                ProblemKind::TooMuch,
                format_args!("answer: expected at most {MAX_TEXT_BYTES} bytes, got {}", text.len()),
            );
        }
        cut
    }

    pub(crate) fn problem(&mut self, kind: ProblemKind, what: impl fmt::Display) {
        if self.problems.len() == MAX_PROBLEMS {
            self.problems_left_out += 1;
            return;
        }
        // What came may be quoted in it, and is as long as a model likes.
        let what = shortened(&what.to_string(), 2 * MAX_LABEL_BYTES).to_owned();
        self.problems.push(Problem { kind, what });
    }

    /// Adds an object unless there are too many; its index.
    pub(crate) fn found(&mut self, found: Found) -> Option<usize> {
        if self.objects.len() == MAX_OBJECTS {
            self.problem(
                ProblemKind::TooMuch,
                format_args!("object {:?}: expected at most {MAX_OBJECTS}", found.label),
            );
            return None;
        }
        self.objects.push(found);
        Some(self.objects.len() - 1)
    }

    /// Adds an object by its box, however the mapping of that box went.
    pub(crate) fn boxed(
        &mut self,
        label: &str,
        images: Option<[u32; 2]>,
        mark: Option<ObjectId>,
        written: impl fmt::Debug,
        mapped: Result<(NormBox, bool), ProblemKind>,
    ) -> Option<usize> {
        let label = shortened(label.trim(), MAX_LABEL_BYTES);
        match mapped {
            Err(kind) => {
                self.problem(
                    kind,
                    format_args!(
                        "box of {label:?}: expected x0 < x1 and y0 < y1 inside what was sent, got {written:?}"
                    ),
                );
                None
            }
            Ok((bounds, clipped)) => {
                if clipped {
                    self.problem(
                        ProblemKind::Clipped,
                        format_args!("box of {label:?}: expected one inside what was sent, got {written:?}"),
                    );
                }
                self.found(Found { label: label.to_owned(), bounds: Some(bounds), images, mark })
            }
        }
    }

    pub(crate) fn span(&mut self, range: Range<usize>, target: Target) {
        if range.is_empty() {
            return;
        }
        if self.spans.len() == MAX_SPANS {
            self.problem(ProblemKind::TooMuch, format_args!("span: expected at most {MAX_SPANS}"));
            return;
        }
        self.spans.push(Span { start: range.start, end: range.end, target });
    }

    /// First and last picture, where the request had them.
    pub(crate) fn images(&mut self, first: u64, last: u64, sent: &Sent) -> Option<[u32; 2]> {
        match (u32::try_from(first), u32::try_from(last)) {
            (Ok(from), Ok(to)) if from <= to && to < sent.images() => Some([from, to]),
            _ => {
                self.problem(
                    ProblemKind::Unknown,
                    format_args!("pictures: expected first <= last < {}, got {first}, {last}", sent.images()),
                );
                None
            }
        }
    }
}

/// The longest beginning of at most `max_bytes` bytes that ends on a character boundary.
pub(crate) fn shortened(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
