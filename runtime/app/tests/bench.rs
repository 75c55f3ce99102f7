//! `sightline bench` on tiny pictures, with the fake model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use common::{davis::davis, failed_with, sightline, stdout, succeeded};
use serde_json::Value;

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn streaming(folder: &Path, json: &Path, rest: &[&str]) -> std::process::Output {
    let (data, json) = (folder.to_str().unwrap(), json.to_str().unwrap());
    let common = ["bench", "streaming", "--data", data, "--model", "fake", "--json", json];
    sightline(&[&common, rest].concat())
}

/// Six pictures at 0, 100, ... ms and steps of 250 ms: frames 0, 2, 4 and 5 are looked at, and pictures 3 and 4 carry
/// the masks of 0, picture 5 those of 2.
#[test]
fn the_virtual_clock_skips_what_a_slow_step_must() {
    let folder = tempfile::tempdir().unwrap();
    davis(folder.path());
    let run = |name: &str, rest: &[&str]| {
        let json = folder.path().join(name);
        let output =
            streaming(folder.path(), &json, &[&["--clock", "virtual", "--fps", "10"], rest].concat());
        succeeded(&output);
        assert!(stdout(&output).contains("mean"), "{}", stdout(&output));
        std::fs::read_to_string(&json).unwrap()
    };
    let slow = run("slow.json", &["--cost-ms", "250"]);
    assert_eq!(slow, run("again.json", &["--cost-ms", "250"]), "the same input gives the same bytes");
    let report: Value = serde_json::from_str(&slow).unwrap();
    assert_eq!(report["frames"]["in"], 12);
    assert_eq!(report["frames"]["accounted"], true);
    for sequence in report["sequences"].as_array().unwrap() {
        let frames = &sequence["frames"];
        assert_eq!(frames["outcomes"], serde_json::json!({"masks": 4, "superseded": 2}), "{sequence}");
        assert_eq!(sequence["ages_ms"], serde_json::json!([300.0, 400.0, 300.0]));
        assert_eq!(sequence["first_mask_s"], 0.3);
        let j = |at: usize| sequence["j_at"][at].as_f64().unwrap();
        assert_eq!((j(0), j(1), j(2)), (0.0, 0.0, 0.0), "before the first mask there is none");
        let (streaming, offline) =
            (sequence["j"].as_f64().unwrap(), sequence["offline"]["j"].as_f64().unwrap());
        assert!((streaming - (j(1) + j(2) + j(3) + j(4)) / 4.0).abs() < 0.01, "first and last left out");
        assert!(streaming < offline, "{streaming} {offline}");
    }
    // Where no step takes longer than a picture, every frame is looked at; nothing but its age is lost.
    let fast: Value = serde_json::from_str(&run("fast.json", &["--cost-ms", "20"])).unwrap();
    assert_eq!(fast["frames"]["outcomes"], serde_json::json!({"masks": 12}));
    assert_eq!(fast["age_ms"]["p99"], 100.0);
    // Costs of a run are those of its steps, sequence by sequence, over and over.
    let recorded = run("recorded.json", &["--costs", folder.path().join("slow.json").to_str().unwrap()]);
    assert_eq!(recorded, slow);
}

#[test]
fn a_camera_s_pace_is_kept_and_every_frame_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    davis(folder.path());
    let json = folder.path().join("wall.json");
    for prompt in ["mask", "box", "point"] {
        let begun = std::time::Instant::now();
        let rest = ["--sequences", "palette", "--fps", "25", "--prompt", prompt, "--set", "history=2"];
        succeeded(&streaming(folder.path(), &json, &rest));
        assert!(begun.elapsed().as_secs_f64() > 5.0 / 25.0);
        let report = read(&json);
        let frames = &report["frames"];
        let told: u64 = frames["outcomes"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!((&frames["in"], told, &frames["accounted"]), (&6.into(), 6, &true.into()), "{prompt}");
        assert_eq!(report["set"]["history"], "2");
        // The mask of the picture before lies on most of a square that moves by a third.
        assert!(report["mean"]["streaming"]["j"].as_f64().unwrap() > 20.0, "{prompt}: {report}");
        assert!(report["mean"]["ratio"]["j"].as_f64().unwrap() > 0.3, "{prompt}: {report}");
        assert!(!report["sequences"][0]["steps_ms"].as_array().unwrap().is_empty());
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    davis(folder.path());
    let json = folder.path().join("x.json");
    for (rest, part) in [
        (&["--clock", "virtual"][..], "expected --costs FILE or --cost-ms MS"),
        (&["--cost-ms", "3"], "expected --clock virtual"),
        (&["--clock", "virtual", "--cost-ms", "3", "--set", "history=2"], "expected --clock wall"),
        (&["--set", "hystory=2"], "expected a property of sightlinetrack, got \"hystory\""),
        (&["--prompt", "text"], "expected --expressions FILE"),
    ] {
        failed_with(&streaming(folder.path(), &json, rest), part);
    }
}

#[test]
fn latency_is_split_and_every_frame_of_every_feed_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("latency.json");
    let run = |rest: &[&str]| {
        let json = json.to_str().unwrap();
        let common = ["bench", "latency", "--input", "test", "--model", "fake", "--json", json];
        sightline(&[&common, rest].concat())
    };
    let output = run(&["--objects", "2", "--feeds", "2", "--seconds", "1", "--warmup", "0.3", "--fps", "20"]);
    succeeded(&output);
    let report = read(&json);
    assert_eq!(report["accounted"], true, "{report}");
    let frames: u64 = report["frames_in"].as_u64().unwrap();
    assert!((38..=42).contains(&frames), "two feeds for a second: {frames}");
    let told: u64 = report["outcomes"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(told, frames);
    let number =
        |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(number("/frame_to_mask_ms/samples"), report["processed"].as_f64().unwrap());
    assert!(number("/frame_to_mask_ms/p50") <= number("/frame_to_mask_ms/p99"));
    assert!(number("/stages_ms/preprocess/p50") < number("/frame_to_mask_ms/max"));
    let parts: f64 = ["queue", "preprocess", "postprocess", "rest"]
        .map(|of| number(&format!("/overhead/{of}")))
        .iter()
        .sum();
    assert!((parts - number("/overhead/of_sum")).abs() < 3e-3, "{report}");
    assert!(number("/peak_memory_mib") > number("/clip_mib"));
    assert!(report["frame_to_mask_ms"].get("p999").is_none(), "too few samples for it");
    assert!(stdout(&output).contains("overhead:"));
    failed_with(&run(&["--objects", "3", "--box", "0,0,9,9"]), "--box: expected one for each of 3 objects");
    failed_with(&run(&["--set", "threads=x"]), "--set threads: expected a guint");
}
