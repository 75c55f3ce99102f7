//! Our own answers:
//!
//! ```json
//! {"text": "a dog chases a ball", "verdict": null,
//!  "objects": [{"label": "dog", "box": [120, 340, 480, 900], "mark": null, "images": null}],
//!  "spans": [{"phrase": "a dog", "object": 0, "mark": null}]}
//! ```
//!
//! Boxes are in thousandths of the picture sent: x0, y0, x1, y1 from its top left corner. `mark` is the number drawn on
//! a tracked object, `images` the first and last picture of the request it is seen in. A span gives its phrase as it
//! stands in `text` (models do not count bytes), and either an index into `objects` or a mark. Only what a question
//! needs has to be there; servers with structured output are given [`schema`], which has every key.

use serde_json::{Value, json};

use super::{ProblemKind, Reading, Sent, Target, plain, scan};

/// The JSON schema of an answer, for `response_format` (`"strict": true` wants every key required).
pub fn schema() -> Value {
    let maybe = |kind: &str| json!({"type": [kind, "null"]});
    let object = |properties: Value| {
        let required: Vec<&String> =
            properties.as_object().map(|map| map.keys().collect()).unwrap_or_default();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    };
    object(json!({
        "text": {"type": "string"},
        "verdict": maybe("boolean"),
        "objects": {"type": "array", "items": object(json!({
            "label": {"type": "string"},
            "box": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
            "mark": maybe("integer"),
            "images": {"type": ["array", "null"], "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        }))},
        "spans": {"type": "array", "items": object(json!({
            "phrase": {"type": "string"},
            "object": maybe("integer"),
            "mark": maybe("integer"),
        }))},
    }))
}

pub(super) fn read(text: &str, sent: &Sent, reading: &mut Reading) {
    let values = scan::values(text);
    let Some((_, answer)) = values.found.iter().find(|(_, value)| is_answer(value)) else {
        // Words instead of JSON are still words.
        reading.problem(ProblemKind::Syntax, "answer: expected a JSON object with \"text\", got none");
        reading.text = scan::prose(text, values.found.iter().map(|(range, _)| range));
        plain::read_words(sent, reading);
        // An answer that was cut off has whole objects inside.
        let mut whole =
            values.found.iter().map(|(_, value)| value).filter(|value| value.get("box").is_some());
        whole.by_ref().for_each(|value| _ = object(value, sent, reading));
        return;
    };
    reading.text = answer.get("text").and_then(Value::as_str).unwrap_or_default().to_owned();
    reading.verdict = match answer.get("verdict") {
        Some(Value::Bool(verdict)) => Some(*verdict),
        Some(Value::String(words)) => plain::verdict(words),
        _ => plain::verdict(&reading.text),
    };
    // Spans name objects by their place in the list, so those left out keep theirs.
    let indices: Vec<Option<usize>> =
        list(answer, "objects", reading).iter().map(|value| object(value, sent, reading)).collect();
    let mut from = 0;
    for value in list(answer, "spans", reading) {
        from = span(value, from, &indices, sent, reading);
    }
}

fn is_answer(value: &Value) -> bool {
    ["text", "objects", "verdict"].iter().any(|key| value.get(key).is_some())
}

fn list<'a>(answer: &'a Value, key: &str, reading: &mut Reading) -> &'a [Value] {
    match answer.get(key) {
        Some(Value::Array(items)) => items,
        None | Some(Value::Null) => &[],
        Some(other) => {
            reading.problem(ProblemKind::Syntax, format_args!("{key:?}: expected a list, got {other}"));
            &[]
        }
    }
}

fn object(value: &Value, sent: &Sent, reading: &mut Reading) -> Option<usize> {
    let label = value.get("label").and_then(Value::as_str).unwrap_or_default();
    let Some(corners) = value.get("box").and_then(scan::four) else {
        reading.problem(
            ProblemKind::Syntax,
            format_args!("object {label:?}: expected \"box\" with four numbers, got {value}"),
        );
        return None;
    };
    let mark = match value.get("mark").filter(|mark| !mark.is_null()) {
        None => None,
        Some(mark) => Some(known(mark, sent, reading)?),
    };
    let images = match value.get("images").filter(|images| !images.is_null()) {
        None => None,
        Some(images) => {
            let pair = images.as_array().map(|pair| pair.iter().map(Value::as_u64).collect::<Vec<_>>());
            let Some([Some(first), Some(last)]) = pair.as_deref() else {
                reading.problem(
                    ProblemKind::Syntax,
                    format_args!("object {label:?}: expected \"images\" with two numbers, got {images}"),
                );
                return None;
            };
            Some(reading.images(*first, *last, sent)?)
        }
    };
    reading.boxed(label, images, mark, corners, sent.box_from_shares(corners.map(|v| v / 1000.0)))
}

/// Adds one span; where the next one is looked for first, so that "a dog .. a dog" are two.
fn span(value: &Value, from: usize, indices: &[Option<usize>], sent: &Sent, reading: &mut Reading) -> usize {
    let phrase = value.get("phrase").and_then(Value::as_str).unwrap_or_default();
    let start = (!phrase.is_empty())
        .then(|| {
            let later = reading.text.get(from..).and_then(|rest| rest.find(phrase)).map(|at| from + at);
            later.or_else(|| reading.text.find(phrase))
        })
        .flatten();
    let Some(start) = start else {
        reading.problem(
            ProblemKind::Unlinked,
            format_args!("span: expected a phrase of the text, got {phrase:?}"),
        );
        return from;
    };
    let present = |key| value.get(key).filter(|value| !Value::is_null(value));
    let target = match (present("object"), present("mark")) {
        (Some(index), _) => {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            let Some(kept) = index.and_then(|index| indices.get(index).copied()) else {
                reading.problem(
                    ProblemKind::Unlinked,
                    format_args!("span {phrase:?}: expected an object below {}, got {value}", indices.len()),
                );
                return from;
            };
            kept.map(Target::Found)
        }
        (None, Some(mark)) => known(mark, sent, reading).map(Target::Known),
        (None, None) => {
            reading.problem(
                ProblemKind::Unlinked,
                format_args!("span {phrase:?}: expected \"object\" or \"mark\", got neither"),
            );
            return from;
        }
    };
    // The object it speaks of may have been left out, which has been told.
    if let Some(target) = target {
        reading.span(start..start + phrase.len(), target);
    }
    start + phrase.len()
}

fn known(mark: &Value, sent: &Sent, reading: &mut Reading) -> Option<sightline_core::ObjectId> {
    let number = mark.as_u64();
    let id = number.and_then(|number| sent.mark(number));
    match (id, number) {
        (Some(id), _) => return Some(id),
        (None, Some(number)) => plain::unknown(number, sent, reading),
        (None, None) => {
            reading.problem(ProblemKind::Syntax, format_args!("\"mark\": expected a number, got {mark}"));
        }
    }
    None
}
