//! What became of a question, and masks made for late answers, in Rust and as the `GstStructure` of their messages.
//!
//! The field tables are in this room's README.

use std::time::Duration;

use gst::prelude::*;
use sightline_core::{FrameStamp, NormBox, ObjectId, ObjectResult, ValueError};
pub use sightline_grounding::{Binding, CaptionSpan};

use crate::record::{get, ns, objects_of, objects_to_array, refuse, set_stamp, stamp_of};

/// Name of the element message about a question.
pub const QUERY_MESSAGE: &str = "sightline-query";
/// Name of the element message with a mask of a frame that has gone by.
pub const LATE_MESSAGE: &str = "sightline-late";

/// An object that an answer names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NamedObject {
    /// The tracked object, where it became or was one.
    pub id: Option<ObjectId>,
    /// What the answer calls it; may be empty.
    pub label: String,
    /// Where the answer says it is, on the frame asked about.
    pub bounds: Option<NormBox>,
}

/// One step in a question's life.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct QueryRecord {
    /// The question.
    pub id: u64,
    /// `find`, `describe`, `ask` or `watch`.
    pub kind: String,
    /// The user's words; empty where there were none.
    pub words: String,
    /// `waiting`, `asked`, `streaming`, `answered`, `failed`, `cancelled`, `superseded`, `refused`, or `alert` when a
    /// watched condition came true.
    pub state: String,
    /// Why, where it failed or was refused; `on-time`, `late` or `too-late` where it was answered.
    pub reason: String,
    /// The frame it is about, once it was asked.
    pub about: Option<FrameStamp>,
    /// The newest frame when this was said.
    pub newest: Option<FrameStamp>,
    /// The words so far, or all of them.
    pub text: String,
    /// What it names.
    pub objects: Vec<NamedObject>,
    /// Parts of `text`, in characters, that speak of tracked objects.
    pub spans: Vec<CaptionSpan>,
    /// Tracked objects that the answer speaks of, and the first and last frame it speaks of them on.
    pub bound: Vec<Binding>,
    /// What could not be used of the answer.
    pub problems: Vec<String>,
    /// Since it was asked.
    pub delay: Duration,
}

/// A mask of a frame that has gone by.
#[derive(Debug, Clone, PartialEq)]
pub struct LateRecord {
    /// The frame.
    pub frame: FrameStamp,
    /// The object on it.
    pub object: ObjectResult,
}

fn stamp_field(structure: &gst::StructureRef, field: &str) -> Result<Option<FrameStamp>, ValueError> {
    match structure.value(field) {
        Err(_) => Ok(None),
        Ok(value) => {
            let stamp = value.get::<gst::Structure>().map_err(|error| refuse(field, "a structure", error))?;
            stamp_of(&stamp).map(Some)
        }
    }
}

impl QueryRecord {
    /// The structure that travels in the message.
    pub fn to_structure(&self) -> gst::Structure {
        let mut structure = gst::Structure::builder(QUERY_MESSAGE)
            .field("id", self.id)
            .field("kind", &self.kind)
            .field("words", &self.words)
            .field("state", &self.state)
            .field("reason", &self.reason)
            .field("text", &self.text)
            .field("delay", ns(self.delay))
            .build();
        for (field, stamp) in [("about", self.about), ("newest", self.newest)] {
            if let Some(stamp) = stamp {
                let mut inner = gst::Structure::new_empty("frame");
                set_stamp(&mut inner, stamp);
                structure.set(field, inner);
            }
        }
        let objects = self.objects.iter().map(|object| {
            let mut inner = gst::Structure::builder("object").field("label", &object.label).build();
            inner.set_if_some("id", object.id.map(|id| id.0));
            if let Some(bounds) = object.bounds {
                let corners = [bounds.x0, bounds.y0, bounds.x1, bounds.y1].map(f64::from);
                inner.set("box", gst::Array::new(corners));
            }
            inner.to_send_value()
        });
        structure.set("objects", gst::Array::new(objects));
        let spans = self.spans.iter().map(|span| {
            let inner = gst::Structure::builder("span")
                .field("start", span.start as u64)
                .field("end", span.end as u64)
                .field("object", span.object.0);
            inner.build().to_send_value()
        });
        structure.set("spans", gst::Array::new(spans));
        let bound = self.bound.iter().map(|bound| {
            let frame = |stamp| {
                let mut inner = gst::Structure::new_empty("frame");
                set_stamp(&mut inner, stamp);
                inner
            };
            let inner = gst::Structure::builder("bound")
                .field("object", bound.object.0)
                .field("first", frame(bound.frames[0]))
                .field("last", frame(bound.frames[1]));
            inner.build().to_send_value()
        });
        structure.set("bound", gst::Array::new(bound));
        structure.set("problems", gst::Array::new(self.problems.iter().map(String::as_str)));
        structure
    }

    /// Reads the structure of a `sightline-query` message.
    ///
    /// # Errors
    /// `Kind::Encoding`, naming the field that is missing or does not decode.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Self, ValueError> {
        if structure.name() != QUERY_MESSAGE {
            return Err(refuse("structure", QUERY_MESSAGE, structure.name()));
        }
        let text = |field| get::<String>(structure, field);
        let items = |field: &'static str| get::<gst::Array>(structure, field);
        let inner = |field, value: &gst::glib::SendValue| {
            value.get::<gst::Structure>().map_err(|error| refuse(field, "an array of structures", error))
        };
        let (objects_in, spans_in, problems_in) = (items("objects")?, items("spans")?, items("problems")?);
        let bound_in = items("bound")?;
        let bound = bound_in.iter().map(|value| {
            let bound = inner("bound", value)?;
            let frame = |field| stamp_field(&bound, field)?.ok_or_else(|| refuse(field, "a frame", "none"));
            Ok(Binding {
                object: ObjectId(get(&bound, "object")?),
                frames: [frame("first")?, frame("last")?],
            })
        });
        let objects = objects_in.iter().map(|value| {
            let object = inner("objects", value)?;
            let bounds = object.get::<gst::Array>("box").ok().map(|corners| {
                let mut corners = corners.iter().filter_map(|value| value.get::<f64>().ok());
                let mut next = || corners.next().unwrap_or_default() as f32;
                NormBox { x0: next(), y0: next(), x1: next(), y1: next() }
            });
            let id = object.get::<u32>("id").ok().map(ObjectId);
            Ok(NamedObject { id, label: get(&object, "label")?, bounds })
        });
        let spans = spans_in.iter().map(|value| {
            let span = inner("spans", value)?;
            let at = |field| get::<u64>(&span, field).map(|at| at as usize);
            Ok(CaptionSpan { start: at("start")?, end: at("end")?, object: ObjectId(get(&span, "object")?) })
        });
        let problems = problems_in.iter().filter_map(|value| value.get::<String>().ok());
        Ok(Self {
            id: get(structure, "id")?,
            kind: text("kind")?,
            words: text("words")?,
            state: text("state")?,
            reason: text("reason")?,
            about: stamp_field(structure, "about")?,
            newest: stamp_field(structure, "newest")?,
            text: text("text")?,
            objects: objects.collect::<Result<_, ValueError>>()?,
            spans: spans.collect::<Result<_, ValueError>>()?,
            bound: bound.collect::<Result<_, ValueError>>()?,
            problems: problems.collect(),
            delay: Duration::from_nanos(get(structure, "delay")?),
        })
    }
}

impl LateRecord {
    /// The structure that travels in the message.
    pub fn to_structure(&self) -> gst::Structure {
        let mut structure = gst::Structure::new_empty(LATE_MESSAGE);
        set_stamp(&mut structure, self.frame);
        structure.set("objects", objects_to_array(std::slice::from_ref(&self.object), false));
        structure
    }

    /// Reads the structure of a `sightline-late` message.
    ///
    /// # Errors
    /// `Kind::Encoding`, naming the field that is missing or does not decode.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Self, ValueError> {
        let object = objects_of(structure)?.pop().ok_or_else(|| refuse("objects", "one object", "none"))?;
        Ok(Self { frame: stamp_of(structure)?, object })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_bus() {
        gst::init().unwrap();
        let stamp = FrameStamp { index: 7, pts: Some(Duration::from_millis(280)), running_time: None };
        let bounds = NormBox { x0: 0.25, y0: 0.5, x1: 0.75, y1: 1.0 };
        let full = QueryRecord {
            id: 3,
            kind: "find".into(),
            words: "the \"red\" car, left; 50 %".into(),
            state: "answered".into(),
            reason: "late".into(),
            about: Some(stamp),
            newest: Some(FrameStamp { index: 60, ..stamp }),
            text: "Ein Bär {}".into(),
            objects: vec![
                NamedObject { id: Some(ObjectId(4)), label: "car".into(), bounds: Some(bounds) },
                NamedObject::default(),
            ],
            spans: vec![CaptionSpan { start: 4, end: 7, object: ObjectId(4) }],
            bound: vec![Binding { object: ObjectId(4), frames: [FrameStamp { index: 3, ..stamp }, stamp] }],
            problems: vec!["outside: [0, 2]".into()],
            delay: Duration::from_millis(2010),
        };
        for record in [full, QueryRecord::default()] {
            let structure = record.to_structure();
            assert_eq!(QueryRecord::from_structure(&structure).unwrap(), record);
        }
        let error = QueryRecord::from_structure(&gst::Structure::new_empty(QUERY_MESSAGE)).unwrap_err();
        assert!(error.to_string().starts_with("objects"), "{error}");
    }
}
