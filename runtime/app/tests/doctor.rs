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
