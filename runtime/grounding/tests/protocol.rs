//! What each answer protocol reads, and what it reports.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use sightline_core::{NormBox, ObjectId};
use sightline_grounding::protocol::{
    ProblemKind, Protocol, Reading, Sent, Target, schema,
    vitron::{self, Module},
};

/// A 1920x1080 picture sent whole at a third.
fn sent() -> Sent {
    Sent::whole([1920, 1080], [640, 360]).unwrap()
}

/// Label and box in pixels of the 1920x1080 picture.
fn found(reading: &Reading) -> Vec<(&str, [i32; 4])> {
    let px = |bounds: NormBox| bounds.to_pixels(1920, 1080).map(|v| v.round() as i32);
    reading.objects.iter().map(|object| (object.label.as_str(), px(object.bounds.unwrap()))).collect()
}

fn kinds(reading: &Reading) -> Vec<ProblemKind> {
    reading.problems.iter().map(|problem| problem.kind).collect()
}

fn phrases(reading: &Reading) -> Vec<(&str, Target)> {
    reading.spans.iter().map(|span| (&reading.text[span.start..span.end], span.target)).collect()
}

#[test]
fn qwen_boxes_are_pixels_of_what_was_sent() {
    let sent = sent();
    for (name, text, expected, problems) in [
        ("bare", r#"[{"bbox_2d":[10,20,110,220],"label":"man"}]"#, vec![("man", [30, 60, 330, 660])], vec![]),
        (
            "in a fence",
            "Here:\n```json\n[\n{\"bbox_2d\": [10, 20, 110.0, 220], \"label\": \"a\"},\n{\"bbox_2d\": [0,0,640,360]}\n]\n```",
            vec![("a", [30, 60, 330, 660]), ("", [0, 0, 1920, 1080])],
            vec![],
        ),
        ("one object", r#"{"bbox_2d":[0,0,1,1],"label":"x"}"#, vec![("x", [0, 0, 3, 3])], vec![]),
        (
            "cut off",
            r#"[{"bbox_2d":[0,0,10,10],"label":"whole"},{"bbox_2d":[0,0,1"#,
            vec![("whole", [0, 0, 30, 30])],
            vec![ProblemKind::Syntax],
        ),
        (
            "overhang",
            r#"[{"bbox_2d":[-5,0,10,10],"label":"o"}]"#,
            vec![("o", [0, 0, 30, 30])],
            vec![ProblemKind::Clipped],
        ),
        ("thousandths by mistake", r#"[{"bbox_2d":[100,100,900,900]}]"#, vec![], vec![ProblemKind::Outside]),
        ("turned", r#"[{"bbox_2d":[100,10,10,20]}]"#, vec![], vec![ProblemKind::Unordered]),
        ("three numbers", r#"[{"bbox_2d":[100,10,10]}]"#, vec![], vec![ProblemKind::Syntax]),
        ("bare numbers", "[10,20,110,220]", vec![], vec![ProblemKind::Syntax; 4]),
        ("words", "I see no such thing.", vec![], vec![]),
    ] {
        let reading = Protocol::Qwen.parse(text, &sent);
        assert_eq!(found(&reading), expected, "{name}");
        assert_eq!(kinds(&reading), problems, "{name}: {:?}", reading.problems);
    }
    assert_eq!(Protocol::Qwen.parse("Here:\n```json\n[]\n```\nDone.", &sent).text, "Here:\n\nDone.");
}

#[test]
fn thousandths_in_both_orders() {
    let text = r#"[{"bbox_2d":[0,0,500,1000],"label":"a"},{"box_2d":[0,500,1000,1000],"label":"b"}]"#;
    let reading = Protocol::Thousandths.parse(text, &sent());
    assert_eq!(found(&reading), [("a", [0, 0, 960, 1080]), ("b", [960, 0, 1920, 1080])]);
}

#[test]
fn references_are_tied_to_their_boxes() {
    let text = "The <ref>red car</ref><box>(0,0),(500,500)</box><box>(500,500),(1000,1000)</box> passes \
                <Ref> a dog </Ref><box>[[100,100,200,200]]</box>.";
    let reading = Protocol::RefBox.parse(text, &sent());
    assert_eq!(reading.text, "The red car passes a dog.");
    assert_eq!(
        found(&reading),
        [("red car", [0, 0, 960, 540]), ("red car", [960, 540, 1920, 1080]), ("a dog", [192, 108, 384, 216])]
    );
    assert_eq!(
        phrases(&reading),
        [("red car", Target::Found(0)), ("red car", Target::Found(1)), ("a dog", Target::Found(2))]
    );
    for (name, text, kind) in [
        ("empty", "<box></box>", ProblemKind::Syntax),
        ("half", "<box>(1,2)</box>", ProblemKind::Syntax),
        ("words", "<box>(a,b),(c,d)</box>", ProblemKind::Syntax),
        ("outside", "<box>(0,0),(2000,10)</box>", ProblemKind::Outside),
        ("not finite", "<box>(0,0),(nan,10)</box>", ProblemKind::NotFinite),
    ] {
        let reading = Protocol::RefBox.parse(text, &sent());
        assert!(reading.objects.is_empty(), "{name}");
        assert_eq!(kinds(&reading), [kind], "{name}");
    }
}

#[test]
fn our_json_with_spans_marks_and_pictures() {
    let sent = sent().with_marks(vec![ObjectId(4)]).with_images(3);
    let text = r#"{"text":"Un chien é a dog meets a dog and 4","verdict":null,
        "objects":[{"label":"left","box":[0,0,1,2]},{"label":"bad","box":[9,0,1,2]},
                   {"label":"right","box":[500,0,1000,1000],"mark":4,"images":[0,2]}],
        "spans":[{"phrase":"a dog","object":0},{"phrase":"a dog","object":2},{"phrase":"4","mark":4},
                 {"phrase":"a dog","object":1},{"phrase":"a cat","object":0},{"phrase":"a dog","object":9},
                 {"phrase":"a dog"},{"phrase":"a dog","mark":5}]}"#;
    let reading = Protocol::Json.parse(text, &sent);
    assert_eq!(found(&reading).len(), 2);
    assert_eq!((reading.objects[1].mark, reading.objects[1].images), (Some(ObjectId(4)), Some([0, 2])));
    assert_eq!(
        phrases(&reading),
        [("a dog", Target::Found(0)), ("a dog", Target::Found(1)), ("4", Target::Known(ObjectId(4)))]
    );
    assert_ne!(reading.spans[0].start, reading.spans[1].start);
    let expected = [
        ProblemKind::Unordered,
        ProblemKind::Unlinked,
        ProblemKind::Unlinked,
        ProblemKind::Unlinked,
        ProblemKind::Unknown,
    ];
    assert_eq!(kinds(&reading), expected, "{:?}", reading.problems);
}

#[test]
fn json_verdicts_cut_answers_and_words() {
    for (text, verdict) in [
        (r#"{"text":"","verdict":true}"#, Some(true)),
        (r#"{"text":"","verdict":"no"}"#, Some(false)),
        (r#"{"text":"Yes, indeed"}"#, Some(true)),
        (r#"{"text":"perhaps","verdict":null}"#, None),
        ("No, nobody.", Some(false)),
    ] {
        assert_eq!(Protocol::Json.parse(text, &sent()).verdict, verdict, "{text}");
    }
    let cut = r#"{"text":"t","objects":[{"label":"a","box":[0,0,500,500]},{"label":"b","box":[0,"#;
    let reading = Protocol::Json.parse(cut, &sent());
    assert_eq!(found(&reading), [("a", [0, 0, 960, 540])]);
    assert_eq!(kinds(&reading), [ProblemKind::Syntax]);
    let outside = Protocol::Json
        .parse(r#"{"text":"","objects":[{"label":"a","box":[0,0,1,1],"images":[0,1]}]}"#, &sent());
    assert!(outside.objects.is_empty());
    assert_eq!(kinds(&outside), [ProblemKind::Unknown]);
}

/// Strict structured output wants every key required and nothing besides.
#[test]
fn the_schema_is_closed_at_every_level() {
    fn check(value: &Value, path: &str) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            let mut required: Vec<_> =
                value["required"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
            let mut keys: Vec<_> = properties.keys().map(String::as_str).collect();
            required.sort_unstable();
            keys.sort_unstable();
            assert_eq!(required, keys, "{path}");
            assert_eq!(value["additionalProperties"], false, "{path}");
            for (key, inner) in properties {
                check(inner, &format!("{path}.{key}"));
            }
        }
        if let Some(items) = value.get("items") {
            check(items, &format!("{path}[]"));
        }
    }
    let schema = schema();
    assert_eq!(schema["properties"].as_object().unwrap().len(), 4);
    check(&schema, "answer");
}

#[test]
fn vitron_strict_is_the_published_program() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/vitron_parse.json")).unwrap();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let input = case["input"].as_str().unwrap();
        let strict = vitron::strict(input);
        assert_eq!(strict.text, case["text"].as_str().unwrap(), "{input}");
        assert_eq!(strict.module.as_deref(), case["module"].as_str(), "{input}");
        assert_eq!(strict.region.as_deref(), case["region"].as_str(), "{input}");
        assert_eq!(strict.dispatch, case["dispatch"].as_bool().unwrap(), "{input}");
        let expected: Option<Vec<String>> = serde_json::from_value(case["instruction"].clone()).unwrap();
        assert_eq!(strict.instructions, expected, "{input}");

        let reading = Protocol::VitronStrict.parse(input, &sent());
        assert_eq!(reading.call.is_some(), strict.dispatch, "{input}");
        // The lenient reader takes at least what the strict one takes, to the same module.
        let lenient = Protocol::Vitron.parse(input, &sent()).call.map(|call| call.module);
        if let Some(call) = reading.call {
            assert_eq!(lenient, Some(call.module), "{input}");
        }
    }
}

#[test]
fn vitron_leniently() {
    let read = |text: &str| Protocol::Vitron.parse(text, &sent().with_images(8));
    let reading = read(
        "Sure. <Module> Video Segmentation </Module> <Instruction> segmentation: clock </Instruction> \
         <Region> (0.25, 0.5, 0.5, 1.0 | 2,5) </Region></s>",
    );
    let call = reading.call.clone().unwrap();
    assert_eq!(
        (call.module, call.instructions.as_slice()),
        (Module::VideoSegmentation, &["clock".to_owned()][..])
    );
    assert_eq!(reading.text, "Sure.");
    assert_eq!(found(&reading), [("clock", [480, 540, 960, 1080])]);
    assert_eq!(reading.objects[0].images, Some([2, 5]));

    for (name, text, module) in [
        ("letter in space", "<module> b </module>", Some(Module::ImageSegmentation)),
        ("hyphens", "<module>Image-to-Video</module>", Some(Module::ImageToVideo)),
        ("over lines", "<module>C</module><instruction>edit: a\nb</instruction>", Some(Module::ImageEditing)),
        ("unknown", "<module>Z</module>", None),
    ] {
        assert_eq!(read(text).call.map(|call| call.module), module, "{name}");
    }
    assert_eq!(kinds(&read("<module>Z</module>")), [ProblemKind::Unknown]);
    let kept = read("<module>B</module><instruction>at 10:30: clock</instruction>").call.unwrap();
    assert_eq!(kept.instructions, ["at 10:30: clock"], "a head is words");
    // The paper's own example is no box.
    let reading = read(
        "<module>E</module><instruction>x: clock</instruction><region>(0.23, 0.35, 0.11, 0.26)</region>",
    );
    assert!(reading.objects.is_empty() && reading.call.is_some());
    assert_eq!(kinds(&reading), [ProblemKind::Unordered]);
}

#[test]
fn vitron_groundings_in_prose() {
    let sent = sent().with_images(10);
    let text =
        "I see (at last) a red car: (0,0,0.5,0.5), and dog: (0.5,0.5,1,1 | 3,9); cat: (0,0,1,1 | 3,10).";
    let reading = Protocol::Vitron.parse(text, &sent);
    assert_eq!(
        found(&reading),
        [("I see (at last) a red car", [0, 0, 960, 540]), ("and dog", [960, 540, 1920, 1080])]
    );
    assert_eq!(reading.objects[1].images, Some([3, 9]));
    assert_eq!(kinds(&reading), [ProblemKind::Unknown], "picture 10 of 10");
}

#[test]
fn videoglamm_captions_are_cleaned_and_linked() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("data/gcg_clean.json")).unwrap();
    for case in &cases {
        let raw = case["raw"].as_str().unwrap();
        let reading = Protocol::Videoglamm.parse(raw, &sent());
        assert_eq!(reading.text, case["clean"].as_str().unwrap());
        let expected: Vec<String> = serde_json::from_value(case["phrases"].clone()).unwrap();
        let phrases = phrases(&reading);
        assert_eq!(phrases.iter().map(|(words, _)| *words).collect::<Vec<_>>(), expected, "{raw}");
        for (k, (_, target)) in phrases.iter().enumerate() {
            assert_eq!(*target, Target::Found(k));
        }
        assert!(reading.objects.iter().all(|object| object.bounds.is_none()));
    }
    for (name, text, objects, spans) in [
        ("phrase without [SEG]", "<p>a</p> [SEG] and <p>b</p>", 1, 1),
        ("[SEG] without phrase", "It is [SEG], <p>a</p> [SEG]", 2, 1),
        ("phrase that does not end", "<p>a [SEG]", 1, 0),
        ("apostrophes", "'<p>'a'</p> [SEG]'", 1, 1),
    ] {
        let reading = Protocol::Videoglamm.parse(text, &sent());
        assert_eq!((reading.objects.len(), reading.spans.len()), (objects, spans), "{name}: {reading:?}");
        if name != "apostrophes" {
            assert_eq!(kinds(&reading), [ProblemKind::Unlinked], "{name}");
        }
    }
}

#[test]
fn protocols_are_known_by_name() {
    for protocol in Protocol::ALL {
        assert_eq!(protocol.as_str().parse::<Protocol>().unwrap(), protocol);
    }
    let error = "yolo".parse::<Protocol>().unwrap_err();
    assert!(error.to_string().contains("json, qwen"), "{error}");
}
