//! Whatever a model writes: no panic, no box outside what was sent, no end of memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use sightline_core::{NormBox, ObjectId};
use sightline_grounding::protocol::{
    MAX_LABEL_BYTES, MAX_OBJECTS, MAX_PROBLEMS, MAX_SPANS, MAX_TEXT_BYTES, Protocol, Sent, Target,
};

/// Pieces of every protocol, well and badly formed, and anything between.
fn piece() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        (-50_i32..1100).prop_map(|v| v.to_string()),
        (-0.1_f64..1.2).prop_map(|v| format!("{v:.3}")),
        Just("1e400".to_owned()),
        Just("NaN".to_owned()),
        Just("inf".to_owned()),
        Just("-1e-320".to_owned()),
    ];
    let four = proptest::collection::vec(number, 3..6).prop_map(|v| v.join(","));
    prop_oneof![
        four.clone().prop_map(|v| format!("{{\"bbox_2d\":[{v}],\"label\":\"é\"}}")),
        four.clone().prop_map(|v| format!("{{\"text\":\"a é b\",\"objects\":[{{\"label\":\"x\",\"box\":[{v}],\"images\":[0,1]}}],\"spans\":[{{\"phrase\":\"é\",\"object\":0}}]}}")),
        four.clone().prop_map(|v| format!("<ref>ö</ref><box>({v})</box>")),
        four.clone().prop_map(|v| format!("dög: ({v} | 0,1)")),
        four.prop_map(|v| format!("<region>({v})</region>")),
        "(<p>|</p>|\\[SEG\\]|<ref>|</box>|<box>|</ref>|<module>|</module>|[A-G]|object #?[0-9]{1,22}|\n|```json| )",
        "[\\[\\]{}\",:<>()|é日]{0,6}",
        any::<String>(),
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    (1_u32..5000, 1_u32..5000, 1_u32..2000, 1_u32..2000)
        .prop_flat_map(|(w, h, sw, sh)| (Just((w, h, sw, sh)), 0..w, 0..h))
        .prop_flat_map(|(size, x0, y0)| (Just((size, x0, y0)), x0 + 1..=size.0, y0 + 1..=size.1))
        .prop_map(|(((w, h, sw, sh), x0, y0), x1, y1)| {
            let sent = Sent::new([w, h], [x0, y0, x1, y1], [sw, sh]).unwrap();
            sent.with_images(2).with_marks(vec![ObjectId(1), ObjectId(7)])
        })
}

fn check(protocol: Protocol, text: &str, sent: &Sent) {
    let reading = protocol.parse(text, sent);
    let crop = sent.crop_in_picture();
    for object in &reading.objects {
        if let Some(bounds) = object.bounds {
            assert!(bounds.x0 < bounds.x1 && bounds.y0 < bounds.y1, "{bounds:?}");
            assert!(NormBox::WHOLE.holds(bounds), "{bounds:?}");
            assert!(crop.holds(bounds), "{bounds:?} of {crop:?}");
        }
        assert!(object.label.len() <= MAX_LABEL_BYTES);
        assert!(object.images.is_none_or(|[first, last]| first <= last && last < sent.images()));
        assert!(object.mark.is_none_or(|mark| sent.marks().contains(&mark)));
    }
    for span in &reading.spans {
        let words = reading.text.get(span.start..span.end).expect("character boundaries inside the text");
        assert!(!words.is_empty());
        match span.target {
            Target::Found(index) => assert!(index < reading.objects.len()),
            Target::Known(id) => assert!(sent.marks().contains(&id)),
        }
    }
    assert!(reading.text.len() <= MAX_TEXT_BYTES);
    assert!(reading.objects.len() <= MAX_OBJECTS);
    assert!(reading.spans.len() <= MAX_SPANS);
    assert!(reading.problems.len() <= MAX_PROBLEMS);
    assert!(reading.problems.iter().all(|problem| problem.what.len() <= 2 * MAX_LABEL_BYTES));
    assert!(reading.problems_left_out == 0 || reading.problems.len() == MAX_PROBLEMS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pieces_of_protocols(pieces in proptest::collection::vec(piece(), 0..24), sent in sent()) {
        let text = pieces.concat();
        for protocol in Protocol::ALL {
            check(protocol, &text, &sent);
        }
    }

    /// A whole box is found again where it was drawn, to a pixel of what was sent.
    #[test]
    fn boxes_come_back_where_they_were(sent in sent(), a in 0.0..0.9_f64, b in 0.0..0.9_f64, w in 0.02..0.1_f64, h in 0.02..0.1_f64) {
        let [sw, sh] = sent.sent_px().map(f64::from);
        let px = [a * sw, b * sh, (a + w) * sw, (b + h) * sh];
        let text = format!("{{\"bbox_2d\":[{},{},{},{}]}}", px[0], px[1], px[2], px[3]);
        let reading = Protocol::Qwen.parse(&text, &sent);
        let bounds = reading.objects.first().and_then(|object| object.bounds).expect("a box");
        let crop = sent.crop_in_picture();
        let share = |v: f32, from: f32, to: f32| f64::from((v - from) / (to - from));
        prop_assert!((share(bounds.x0, crop.x0, crop.x1) - a).abs() < 1e-2);
        prop_assert!((share(bounds.y1, crop.y0, crop.y1) - (b + h)).abs() < 1e-2);
    }
}

/// Long repetitions, which is how a model goes wrong, are read in a moment.
#[test]
fn repetition_is_bounded_in_time_and_output() {
    let sent = Sent::whole([640, 480], [640, 480]).unwrap().with_marks(vec![ObjectId(1)]).with_images(2);
    let start = std::time::Instant::now();
    for piece in [
        "[",
        "{\"",
        "[1,",
        "<",
        "<a>",
        "<module>",
        "<module>\n",
        "<ref>",
        "<ref></ref>",
        "<box></box>",
        "<p>",
        "<p>a</p>",
        "[SEG]",
        "(",
        "()",
        "(0,0,1,1)",
        "a: (0,0,1,1 | 0,1) ",
        "object 1 ",
        "object 2 ",
        "{\"bbox_2d\":[0,0,9,9]}",
        "'",
        "é",
        "</module>",
        "{\"a\":[",
        "<region>(",
        "<instruction>a</instruction>",
    ] {
        let text = piece.repeat(100_000 / piece.len());
        for protocol in Protocol::ALL {
            check(protocol, &text, &sent);
        }
    }
    let took = start.elapsed();
    assert!(took.as_secs() < 60, "{took:?}");
}
