//! `[{"bbox_2d":[x1,y1,x2,y2],"label":".."}]`, the answer of Qwen2.5-VL (pixels of what was sent, cookbook
//! `spatial_understanding`), Qwen3-VL (thousandths) and, with `box_2d` in the order y1,x1,y2,x2, of Gemini.

use serde_json::Value;

use super::{ProblemKind, Reading, Sent, plain, scan};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Pixels,
    Thousandths,
}

pub(super) fn read(text: &str, sent: &Sent, unit: Unit, reading: &mut Reading) {
    let values = scan::values(text);
    if values.unfinished {
        reading.problem(ProblemKind::Syntax, "JSON: expected a whole list, got one that does not end");
    }
    for (_, value) in &values.found {
        match value {
            Value::Array(items) => items.iter().for_each(|item| object(item, sent, unit, reading)),
            item => object(item, sent, unit, reading),
        }
    }
    reading.text = scan::prose(text, values.found.iter().map(|(range, _)| range));
    plain::read_words(sent, reading);
}

fn object(item: &Value, sent: &Sent, unit: Unit, reading: &mut Reading) {
    let corners = match unit {
        Unit::Pixels => item.get("bbox_2d").and_then(scan::four),
        Unit::Thousandths => item
            .get("bbox_2d")
            .and_then(scan::four)
            .or_else(|| item.get("box_2d").and_then(scan::four).map(|[y0, x0, y1, x1]| [x0, y0, x1, y1])),
    };
    let Some(corners) = corners else {
        let expected = match unit {
            Unit::Pixels => "\"bbox_2d\" with four numbers",
            Unit::Thousandths => "\"bbox_2d\" or \"box_2d\" with four numbers",
        };
        reading.problem(ProblemKind::Syntax, format_args!("object: expected {expected}, got {item}"));
        return;
    };
    let label = item.get("label").and_then(Value::as_str).unwrap_or_default();
    let mapped = match unit {
        Unit::Pixels => sent.box_from_pixels(corners),
        Unit::Thousandths => sent.box_from_shares(corners.map(|v| v / 1000.0)),
    };
    reading.boxed(label, None, None, corners, mapped);
}
