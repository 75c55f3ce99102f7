//! Prompts from outside: the `prompts` property's text and the structures of signals and events.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sightline_core::{Kind, ObjectId, PointLabel, Rle, ValueError};

use super::draft::{Draft, MaskSource, Request, Space};

fn refuse(subject: &str, expected: &str, got: impl std::fmt::Display) -> ValueError {
    ValueError::new(Kind::Encoding, subject, expected, got)
}

/// A prompt whose id may still have to be given out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parsed {
    pub(crate) id: Option<ObjectId>,
    pub(crate) draft: Draft,
    pub(crate) at: Option<Duration>,
}

impl Parsed {
    pub(crate) fn into_request(self, id: ObjectId, correction: bool) -> Request {
        Request { id, draft: self.draft, at: self.at, correction }
    }
}

fn numbers(subject: &str, expected: &str, text: &str) -> Result<Vec<f32>, ValueError> {
    text.split(',')
        .map(|number| number.trim().parse().map_err(|_| refuse(subject, expected, format_args!("{text:?}"))))
        .collect()
}

fn corners(subject: &str, expected: &str, numbers: &[f32]) -> Result<[f32; 4], ValueError> {
    numbers.try_into().map_err(|_| refuse(subject, expected, format_args!("{} numbers", numbers.len())))
}

/// Reads the `prompts` property: prompts separated by `|`, fields of a prompt by `;`.
///
/// ```text
/// box=x0,y0,x1,y1 ; point=x,y[,neg] ; mask=FILE ; at=SECONDS ; id=N
/// ```
///
/// Coordinates are pixels of the incoming picture. `point` may stand more than once, and beside `box`.
///
/// # Errors
/// Naming the prompt (from 1), the field, what was expected and what came.
pub(crate) fn parse_text(text: &str) -> Result<Vec<Parsed>, ValueError> {
    text.split('|')
        .enumerate()
        .filter(|(_, prompt)| !prompt.trim().is_empty())
        .map(|(index, prompt)| {
            parse_one(prompt).map_err(|error| {
                let subject = format_args!("prompts, number {}", index + 1).to_string();
                refuse(&subject, "box=, point= or mask=, then at= and id=, separated by ;", error)
            })
        })
        .collect()
}

fn parse_one(text: &str) -> Result<Parsed, ValueError> {
    const BOX: &str = "four pixel numbers x0,y0,x1,y1";
    const POINT: &str = "x,y in pixels, or x,y,neg";
    let mut parsed = Parsed { id: None, draft: Draft::default(), at: None };
    for field in text.split(';').map(str::trim).filter(|field| !field.is_empty()) {
        let (name, value) =
            field.split_once('=').ok_or_else(|| refuse("field", "name=value", format_args!("{field:?}")))?;
        let value = value.trim();
        match name.trim() {
            "box" => {
                let corners = corners("box", BOX, &numbers("box", BOX, value)?)?;
                parsed.draft.within = Some((corners, Space::Pixels));
            }
            "point" => {
                let (at, label) = match value.rsplit_once(',') {
                    Some((at, label)) if label.trim() == "neg" => (at, PointLabel::Negative),
                    Some((at, label)) if label.trim() == "pos" => (at, PointLabel::Positive),
                    _ => (value, PointLabel::Positive),
                };
                let [x, y] = numbers("point", POINT, at)?[..] else {
                    return Err(refuse("point", POINT, format_args!("{value:?}")));
                };
                parsed.draft.points.push(([x, y], label, Space::Pixels));
            }
            "mask" => parsed.draft.mask = Some(MaskSource::File(PathBuf::from(value))),
            "at" => {
                let seconds = value.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
                parsed.at =
                    Some(seconds.ok_or_else(|| refuse("at", "seconds of running time, 0 or more", value))?);
            }
            "id" => parsed.id = Some(object_id(value.parse().unwrap_or(0), value)?),
            other => return Err(refuse("field", "box, point, mask, at or id", other)),
        }
    }
    parsed.draft.check()?;
    Ok(parsed)
}

fn object_id(id: u32, got: &str) -> Result<ObjectId, ValueError> {
    // The regions of interest carry the id as a signed 32 bit number.
    if id == 0 || i32::try_from(id).is_err() {
        return Err(refuse("id", "a number in 1..=2147483647", got));
    }
    Ok(ObjectId(id))
}

/// Reads the structure of a signal or of an upstream event; the field table is in this room's README.
///
/// # Errors
/// Naming the field, what was expected and what came.
pub(crate) fn parse_structure(structure: &gst::StructureRef) -> Result<Parsed, ValueError> {
    const KNOWN: [&str; 10] = [
        "id",
        "box",
        "box-px",
        "points",
        "points-px",
        "labels",
        "mask",
        "mask-width",
        "mask-height",
        "running-time",
    ];
    if let Some(other) = structure.fields().find(|field| !KNOWN.contains(&field.as_str())) {
        return Err(refuse("field", "one of the documented fields", other));
    }
    let mut draft = Draft::default();
    for (field, space) in [("box", Space::Norm), ("box-px", Space::Pixels)] {
        if let Some(numbers) = number_list(structure, field)? {
            draft.within = Some((corners(field, "four numbers x0,y0,x1,y1", &numbers)?, space));
        }
    }
    for (field, space) in [("points", Space::Norm), ("points-px", Space::Pixels)] {
        let Some(numbers) = number_list(structure, field)? else { continue };
        let labels = number_list(structure, "labels")?.unwrap_or_else(|| vec![1.0; numbers.len() / 2]);
        if numbers.len() % 2 != 0 || labels.len() * 2 != numbers.len() {
            let got = format_args!("{} numbers, {} labels", numbers.len(), labels.len()).to_string();
            return Err(refuse(field, "x and y for every label", got));
        }
        for (at, label) in numbers.chunks_exact(2).zip(labels) {
            let label = match label {
                1.0 => PointLabel::Positive,
                0.0 => PointLabel::Negative,
                other => return Err(refuse("labels", "1 (on the object) or 0 (off it)", other)),
            };
            draft.points.push(([at[0], at[1]], label, space));
        }
    }
    if let Ok(value) = structure.value("mask") {
        let text = value.get::<&str>().map_err(|_| refuse("mask", "a string", value.type_()))?;
        draft.mask = Some(match (whole(structure, "mask-width")?, whole(structure, "mask-height")?) {
            (None, None) => MaskSource::File(PathBuf::from(text)),
            (Some(width), Some(height)) => MaskSource::Ready(Arc::new(run_lengths(width, height, text)?)),
            _ => return Err(refuse("mask", "both mask-width and mask-height, or neither", "one of them")),
        });
    }
    draft.check()?;
    let id = match whole(structure, "id")? {
        None | Some(0) => None,
        Some(id) => Some(object_id(u32::try_from(id).unwrap_or(0), &id.to_string())?),
    };
    Ok(Parsed { id, draft, at: whole(structure, "running-time")?.map(Duration::from_nanos) })
}

/// The id in a structure that names an object and nothing else.
///
/// # Errors
/// When there is none.
pub(crate) fn parse_id(structure: &gst::StructureRef) -> Result<ObjectId, ValueError> {
    let id = whole(structure, "id")?.unwrap_or(0);
    object_id(u32::try_from(id).unwrap_or(0), &id.to_string())
}

fn run_lengths(width: u64, height: u64, text: &str) -> Result<sightline_core::Mask, ValueError> {
    let side = |side: u64| u32::try_from(side).ok().filter(|side| (1..=16384).contains(side));
    let (Some(width), Some(height)) = (side(width), side(height)) else {
        return Err(refuse("mask size", "1 to 16384 pixels a side", format_args!("{width}x{height}")));
    };
    Ok(Rle::from_coco_string(width, height, text)?.decode())
}

/// Whole numbers of any of GLib's types, as languages disagree about them.
fn whole(structure: &gst::StructureRef, field: &str) -> Result<Option<u64>, ValueError> {
    let Ok(value) = structure.value(field) else { return Ok(None) };
    let number = value
        .get::<u64>()
        .ok()
        .or_else(|| value.get::<u32>().ok().map(u64::from))
        .or_else(|| value.get::<i32>().ok().and_then(|n| u64::try_from(n).ok()))
        .or_else(|| value.get::<i64>().ok().and_then(|n| u64::try_from(n).ok()))
        .or_else(|| value.get::<gst::ClockTime>().ok().map(gst::ClockTime::nseconds));
    number.map(Some).ok_or_else(|| refuse(field, "a whole number of at least 0", format_args!("{value:?}")))
}

fn number(value: &gst::glib::Value) -> Option<f32> {
    let wide = value.get::<f64>().map(|n| n as f32);
    wide.or_else(|_| value.get::<f32>())
        .or_else(|_| value.get::<i32>().map(|n| n as f32))
        .or_else(|_| value.get::<u32>().map(|n| n as f32))
        .or_else(|_| value.get::<i64>().map(|n| n as f32))
        .ok()
}

/// An array, a list, or text with commas.
fn number_list(structure: &gst::StructureRef, field: &str) -> Result<Option<Vec<f32>>, ValueError> {
    const EXPECTED: &str = "numbers: a GstValueArray, or text with commas";
    let Ok(value) = structure.value(field) else { return Ok(None) };
    if let Ok(text) = value.get::<&str>() {
        return numbers(field, EXPECTED, text).map(Some);
    }
    let parts = match (value.get::<gst::ArrayRef<'_>>(), value.get::<gst::ListRef<'_>>()) {
        (Ok(array), _) => array.as_slice().iter().map(|v| number(v)).collect::<Option<Vec<_>>>(),
        (_, Ok(list)) => list.as_slice().iter().map(|v| number(v)).collect(),
        _ => None,
    };
    parts.map(Some).ok_or_else(|| refuse(field, EXPECTED, format_args!("{value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_property_grammar() {
        let all = parse_text(
            " box=10,20,30.5,40 ; at=1.5 ;id=7| point=5,6;point=7,8,neg|mask=/tmp/a b.png;at=0||box=0,0,9,9;point=1,1",
        )
        .unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].draft.within, Some(([10.0, 20.0, 30.5, 40.0], Space::Pixels)));
        assert_eq!((all[0].id, all[0].at), (Some(ObjectId(7)), Some(Duration::from_millis(1500))));
        assert_eq!(all[1].draft.points.len(), 2);
        assert_eq!(all[1].draft.points[1], ([7.0, 8.0], PointLabel::Negative, Space::Pixels));
        assert_eq!(all[2].draft.mask, Some(MaskSource::File("/tmp/a b.png".into())));
        assert!(all[3].draft.within.is_some() && all[3].draft.points.len() == 1);
        assert_eq!(parse_text("").unwrap(), vec![]);
    }

    #[test]
    fn text_that_is_no_prompt_is_refused_with_its_place() {
        for (text, says) in [
            ("box=1,2,3", "four pixel numbers x0,y0,x1,y1, got 3 numbers"),
            ("box=1,2,3,x", "got \"1,2,3,x\""),
            ("point=1", "point: expected x,y"),
            ("point=1,2,3", "point: expected x,y"),
            ("box=1,2,3,4;at=-1", "at: expected seconds"),
            ("box=1,2,3,4;at=soon", "at: expected seconds"),
            ("box=1,2,3,4;id=0", "id: expected a number"),
            ("box=1,2,3,4;id=4000000000", "id: expected a number"),
            ("at=1", "prompt: expected a box, points or a mask"),
            ("box", "field: expected name=value"),
            ("bax=1", "field: expected box, point, mask, at or id"),
            ("box=3,2,1,4", "box: expected x0 < x1"),
            ("box=1,2,3,4;mask=a.png", "a mask, or a box and points"),
            ("box=nan,2,3,4", "finite"),
        ] {
            let error = parse_text(&format!("point=1,1|{text}")).expect_err(text).to_string();
            assert!(error.starts_with("prompts, number 2"), "{error}");
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn structures_in_the_types_that_languages_have() {
        gst::init().unwrap();
        let wanted = Some(([0.25_f32, 0.5, 0.75, 1.0], Space::Norm));
        for text in [
            "p, box=(double)<0.25, 0.5, 0.75, 1.0>, id=(uint)3, running-time=(guint64)5",
            "p, box=(float){0.25, 0.5, 0.75, 1.0}, id=(int)3, running-time=(gint64)5",
            "p, box=(string)\"0.25,0.5, 0.75,1\", id=(gint64)3, running-time=5",
        ] {
            let structure: gst::Structure = text.parse().unwrap();
            let parsed = parse_structure(&structure).expect(text);
            assert_eq!(parsed.draft.within, wanted, "{text}");
            assert_eq!((parsed.id, parsed.at), (Some(ObjectId(3)), Some(Duration::from_nanos(5))), "{text}");
        }
        let points: gst::Structure = "p, points-px=<10, 20, 30, 40>, labels=<1, 0>".parse().unwrap();
        let draft = parse_structure(&points).unwrap().draft;
        assert_eq!(draft.points[1], ([30.0, 40.0], PointLabel::Negative, Space::Pixels));
        let mask: gst::Structure = "p, mask=\"01;\", mask-width=4, mask-height=3".parse().unwrap();
        let draft = parse_structure(&mask).unwrap().draft;
        assert!(matches!(draft.mask, Some(MaskSource::Ready(mask)) if mask.area_px() == 1));
    }

    #[test]
    fn structures_that_are_no_prompts() {
        gst::init().unwrap();
        for (text, says) in [
            ("p", "prompt: expected a box"),
            ("p, box=<0.1, 0.2, 0.3>", "box: expected four numbers"),
            ("p, box=<a, b, c, d>", "box: expected numbers"),
            ("p, box=<0.1, 0.2, 0.3, 0.4>, id=-1", "id: expected"),
            ("p, points=<0.1, 0.2, 0.3>", "points: expected x and y"),
            ("p, points=<0.1, 0.2>, labels=<2>", "labels: expected 1"),
            ("p, points=<0.1, 0.2>, labels=<1, 1>", "points: expected x and y"),
            ("p, points=<1.5, 0.2>", "point: expected normalised"),
            ("p, mask=\"01;\", mask-width=4", "mask: expected both"),
            ("p, mask=\"01;\", mask-width=4, mask-height=400000", "mask size: expected"),
            ("p, mask=\"01;\", mask-width=4, mask-height=4", "run lengths"),
            ("p, mask=3", "mask: expected a string"),
            ("p, bix=3", "field: expected one of"),
        ] {
            let structure: gst::Structure = text.parse().unwrap();
            let error = parse_structure(&structure).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(parse_id(&"p".parse::<gst::Structure>().unwrap()).is_err());
    }
}
