//! `sightline doctor` and the help.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::{command, sightline, stdout};

#[test]
fn doctor_names_what_is_missing_and_fails() {
    let output = command(&["doctor", "--json"])
        .env("SIGHTLINE_ONNXRUNTIME", "/no/such/libonnxruntime.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["ok"], false);
    let checks = report["checks"].as_array().unwrap();
    let runtime = checks.iter().find(|check| check["name"] == "ONNX Runtime").unwrap();
    assert!(runtime["found"].is_null(), "{runtime}");
    assert!(runtime["fix"].as_str().unwrap().contains("/no/such/libonnxruntime.so"), "{runtime}");
    let track = checks.iter().find(|check| check["name"] == "tracking").unwrap();
    assert_eq!(track["found"], "sightlinetrack");
    assert!(report["models"].as_array().unwrap().iter().any(|model| model["name"] == "fake"));
    assert!(report["cores"].as_u64().unwrap() > 0);
}

#[test]
fn tuning_measures_writes_and_is_remembered() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        command(arguments).env("XDG_DATA_HOME", home.path()).env_remove("SIGHTLINE_MODELS").output().unwrap()
    };
    let output = run(&["doctor", "--tune", "--model", "fake", "--seconds", "1", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let settings = report["settings"].as_array().unwrap();
    for mode in [false, true] {
        assert!(settings.iter().any(|setting| setting["pipelined"] == mode), "it is shown the whole picture");
    }
    for camera in settings.iter().flat_map(|setting| setting["cameras"].as_array().unwrap()) {
        let number = |name: &str| camera[name].as_f64().unwrap();
        let (latency, age) = (number("frame_to_mask_p50_ms"), number("mask_age_mean_ms"));
        assert!(0.0 < latency && latency < age && age < number("mask_age_p95_ms"), "{camera}");
        assert!(number("masks_per_s") < 2.0 * number("fps"), "no more masks than pictures: {camera}");
    }
    let file = home.path().join("sightline/tune.toml");
    assert_eq!(report["written"].as_str(), file.to_str());
    assert!(std::fs::read_to_string(file).unwrap().contains("model = \"fake\""));
    let report: serde_json::Value = serde_json::from_str(&stdout(&run(&["doctor", "--json"]))).unwrap();
    let models = report["models"].as_array().unwrap();
    let fake = models.iter().find(|model| model["name"] == "fake").unwrap();
    assert!(fake["tuned"]["threads"].as_u64().unwrap() > 0, "{fake}");
}

#[test]
fn help_teaches_by_example() {
    for (arguments, part) in [
        (&["--help"][..], "sightline doctor"),
        (&["run", "--help"], "sightline run --input clip.mp4 --box"),
        (&["eval", "davis", "--help"], "sightline eval davis --data"),
        (&["trace", "--help"], "\"points\""),
    ] {
        let output = sightline(arguments);
        assert!(output.status.success());
        assert!(stdout(&output).contains(part), "{arguments:?}: {}", stdout(&output));
    }
    assert_eq!(sightline(&["run", "--nonsense"]).status.code(), Some(2));
}
