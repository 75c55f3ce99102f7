//! Answers as they leave: words tied to tracked objects, and objects to the time that was asked about.

use std::time::Duration;

use serde_json::{Value, json};
use sightline_core::{FrameStamp, ObjectId};

use crate::{
    Query,
    protocol::{Found, Reading, Target},
};

/// A part of a caption that speaks of an object. Offsets count characters (Unicode scalar values), as Python and jq do,
/// not bytes; `start < end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptionSpan {
    /// First character.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// The tracked object.
    pub object: ObjectId,
}

/// Words about a picture, tied to the objects in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// The words.
    pub text: String,
    /// Their parts that speak of tracked objects, in the order of the answer.
    pub spans: Vec<CaptionSpan>,
    /// When the picture was taken that it is about, in the source's time.
    pub query_pts: Option<Duration>,
    /// The newest picture when the answer came.
    pub answer_pts: Option<Duration>,
}

impl Caption {
    /// From an answer. `object_of` says which tracked object `reading.objects[index]` became, where it did; a span that
    /// speaks of no tracked object is left out.
    pub fn new(
        query: &Query,
        reading: &Reading,
        answer_pts: Option<Duration>,
        object_of: impl Fn(usize) -> Option<ObjectId>,
    ) -> Self {
        // Spans need not be in order, and a text is walked once: the place of every character's first byte.
        let starts: Vec<usize> = reading.text.char_indices().map(|(at, _)| at).collect();
        let characters = |byte: usize| starts.partition_point(|start| *start < byte);
        let spans = reading.spans.iter().filter_map(|span| {
            let object = match span.target {
                Target::Known(id) => id,
                Target::Found(index) => marked(reading, index).or_else(|| object_of(index))?,
            };
            Some(CaptionSpan { start: characters(span.start), end: characters(span.end), object })
        });
        Self {
            spans: spans.collect(),
            text: reading.text.clone(),
            query_pts: query.seed_frame().and_then(|stamp| stamp.pts),
            answer_pts,
        }
    }

    /// `{"text", "spans": [{"start", "end", "object"}], "query_pts", "answer_pts"}`, times in seconds or null.
    pub fn to_json(&self) -> Value {
        let span =
            |span: &CaptionSpan| json!({"start": span.start, "end": span.end, "object": span.object.0});
        json!({
            "text": self.text,
            "spans": self.spans.iter().map(span).collect::<Vec<_>>(),
            "query_pts": self.query_pts.map(|time| time.as_secs_f64()),
            "answer_pts": self.answer_pts.map(|time| time.as_secs_f64()),
        })
    }
}

fn marked(reading: &Reading, index: usize) -> Option<ObjectId> {
    reading.objects.get(index).and_then(|found| found.mark)
}

/// A tracked object that an answer speaks of, and the frames it is spoken of on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Binding {
    /// The object.
    pub object: ObjectId,
    /// The first and the last frame; those of all pictures sent where the answer names none.
    pub frames: [FrameStamp; 2],
}

/// What an answer is about: each tracked object it names by number or by span, once, in the order of their ids. Empty
/// where the query had no frames.
pub fn bindings(
    query: &Query,
    reading: &Reading,
    object_of: impl Fn(usize) -> Option<ObjectId>,
) -> Vec<Binding> {
    let named = |(index, found): (usize, &Found)| {
        let object = found.mark.or_else(|| object_of(index))?;
        Some(Binding { object, frames: interval(query, found.images)? })
    };
    let spoken = reading.spans.iter().filter_map(|span| match span.target {
        Target::Known(object) => Some(Binding { object, frames: interval(query, None)? }),
        Target::Found(_) => None,
    });
    let mut all: Vec<Binding> = reading.objects.iter().enumerate().filter_map(named).chain(spoken).collect();
    // What says when comes before what only says that; sorting is stable.
    all.sort_by_key(|binding| binding.object);
    all.dedup_by_key(|binding| binding.object);
    all
}

/// The first and last frame of pictures `images` of the request. Close-ups of one object after the other are not in
/// the order of time.
fn interval(query: &Query, images: Option<[u32; 2]>) -> Option<[FrameStamp; 2]> {
    let frames = match images {
        Some([first, last]) => query.frames.get(first as usize..=last as usize)?,
        None => &query.frames,
    };
    let first = frames.iter().min_by_key(|stamp| stamp.index)?;
    let last = frames.iter().max_by_key(|stamp| stamp.index)?;
    Some([*first, *last])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        QueryId, QueryKind,
        protocol::{Protocol, Sent},
    };

    fn stamp(index: u64) -> FrameStamp {
        FrameStamp { index, pts: Some(Duration::from_millis(250 * index)), running_time: None }
    }

    fn query(frames: &[u64]) -> Query {
        let frames = frames.iter().map(|index| stamp(*index)).collect();
        let kind = QueryKind::Describe { object: None };
        Query::new(QueryId(1), kind, frames, Duration::ZERO, Duration::ZERO, Duration::ZERO)
    }

    fn read(text: &str, images: u32) -> Reading {
        let sent = Sent::whole([100, 100], [100, 100]).unwrap();
        let sent = sent.with_images(images).with_marks(vec![ObjectId(3), ObjectId(8)]);
        Protocol::Json.parse(text, &sent)
    }

    #[test]
    fn captions_tie_words_to_objects() {
        let reading = read(
            r#"{"text": "Ein Bär jagt den Hund, müde", "verdict": null, "objects": [
                {"label": "Bär", "box": [0, 0, 500, 500], "mark": 3, "images": null},
                {"label": "Hund", "box": [500, 500, 900, 900], "mark": null, "images": null},
                {"label": "Ball", "box": [100, 100, 200, 200], "mark": null, "images": null}],
              "spans": [{"phrase": "den Hund", "object": 1, "mark": null},
                {"phrase": "Bär", "object": 0, "mark": null},
                {"phrase": "müde", "object": null, "mark": 8},
                {"phrase": "Ein", "object": 2, "mark": null}]}"#,
            1,
        );
        assert!(reading.problems.is_empty(), "{:?}", reading.problems);
        let tracked = |index| (index == 1).then_some(ObjectId(11));
        let caption = Caption::new(&query(&[4]), &reading, Some(Duration::from_millis(2500)), tracked);
        let text: Vec<char> = caption.text.chars().collect();
        let words: Vec<_> = caption
            .spans
            .iter()
            .map(|span| (text[span.start..span.end].iter().collect::<String>(), span.object.0))
            .collect();
        let expected = [("den Hund", 11), ("Bär", 3), ("müde", 8)];
        assert_eq!(words, expected.map(|(word, id)| (word.to_owned(), id)), "the ball became no object");
        assert_eq!(
            caption.to_json(),
            json!({
                "text": "Ein Bär jagt den Hund, müde",
                "spans": [{"start": 13, "end": 21, "object": 11}, {"start": 4, "end": 7, "object": 3},
                    {"start": 23, "end": 27, "object": 8}],
                "query_pts": 1.0,
                "answer_pts": 2.5,
            })
        );
        let untimed = Caption::new(&query(&[]), &reading, None, |_| None).to_json();
        assert_eq!((&untimed["query_pts"], &untimed["answer_pts"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn answers_are_bound_to_objects_and_time() {
        let reading = read(
            r#"{"text": "it turns", "objects": [
                {"label": "dog", "box": [0, 0, 500, 500], "mark": 8, "images": [1, 2]},
                {"label": "cat", "box": [0, 0, 500, 500], "mark": null, "images": null}],
              "spans": [{"phrase": "it", "mark": 3}, {"phrase": "turns", "mark": 8}]}"#,
            4,
        );
        // Two close-ups of one object, one of another, and the scene.
        let query = query(&[2, 6, 4, 9]);
        let bound = bindings(&query, &reading, |_| None);
        let told: Vec<_> = bound.iter().map(|b| (b.object.0, b.frames.map(|stamp| stamp.index))).collect();
        assert_eq!(told, [(3, [2, 9]), (8, [4, 6])]);
        let bound = bindings(&query, &reading, |_| Some(ObjectId(1)));
        assert_eq!(bound.len(), 3);
        assert!(bindings(&self::query(&[]), &reading, |_| None).is_empty());
    }
}
