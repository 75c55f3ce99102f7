//! Who may import whom (ARCHITECTURE.md, "The import law"). Reads `cargo metadata`; development dependencies are free.
#![allow(clippy::expect_used)] // a test file: its helpers may stop the test

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Room, the rooms it may import, and the outside crates it must never see.
const LAW: &[(&str, &[&str], &[&str])] = &[
    ("sightline-core", &[], &["gstreamer", "tokio", "serde", "ort", "tracing"]),
    ("sightline-vision", &["sightline-core"], &["gstreamer", "tokio", "ort"]),
    (
        "sightline-tracker",
        &["sightline-core", "sightline-vision", "sightline-engine-api"],
        &["gstreamer", "tokio", "ort", "crossbeam-channel"],
    ),
    ("sightline-grounding", &["sightline-core"], &["gstreamer", "ort", "tracing"]),
    ("sightline-config", &["sightline-core"], &["gstreamer", "tokio", "ort"]),
    ("sightline-telemetry", &["sightline-core"], &["gstreamer", "tokio", "hyper", "ort"]),
    ("sightline-engine-api", &["sightline-core"], &["gstreamer", "tokio", "serde", "ort"]),
    ("sightline-engine-fake", &["sightline-core", "sightline-engine-api"], &["gstreamer", "tokio", "ort"]),
    ("sightline-engine-cuda", &["sightline-core", "sightline-engine-api"], &["gstreamer", "tokio", "ort"]),
    ("sightline-engine-ort", &["sightline-core", "sightline-engine-api"], &["gstreamer", "tokio"]),
    (
        "sightline-engine-registry",
        &[
            "sightline-core",
            "sightline-engine-api",
            "sightline-engine-cuda",
            "sightline-engine-ort",
            "sightline-engine-fake",
        ],
        &["gstreamer", "tokio"],
    ),
    (
        "gst-plugin-sightline",
        &[
            "sightline-core",
            "sightline-vision",
            "sightline-tracker",
            "sightline-grounding",
            "sightline-config",
            "sightline-engine-api",
            "sightline-engine-registry",
        ],
        &["ort", "reqwest", "hyper"],
    ),
    (
        "sightline",
        &[
            "sightline-core",
            "sightline-vision",
            "sightline-tracker",
            "sightline-grounding",
            "sightline-config",
            "sightline-telemetry",
            "sightline-engine-api",
            "sightline-engine-registry",
            "gst-plugin-sightline",
        ],
        &["ort"],
    ),
];

/// These two import anything and are imported by nobody.
const FREE: &[&str] = &["sightline-tests", "sightline-benches"];

fn imports() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let edges = package["dependencies"]
                .as_array()
                .expect("dependencies")
                .iter()
                .filter(|edge| edge["kind"].as_str() != Some("dev"))
                .map(|edge| text(&edge["name"]))
                .collect();
            (text(&package["name"]), edges)
        })
        .collect()
}

#[test]
fn every_edge_is_in_the_table() {
    let imports = imports();
    let mut broken = Vec::new();
    for (room, edges) in &imports {
        if FREE.contains(&room.as_str()) {
            continue;
        }
        let Some((_, allowed, forbidden)) = LAW.iter().find(|(name, ..)| name == room) else {
            broken.push(format!("{room}: a room that the table does not know"));
            continue;
        };
        for edge in edges {
            let ours = imports.contains_key(edge);
            if ours && !allowed.contains(&edge.as_str()) {
                broken.push(format!("{room} imports {edge}"));
            }
            if forbidden.iter().any(|name| edge == name || edge.starts_with(&format!("{name}-"))) {
                broken.push(format!("{room} imports {edge}, which that room must never see"));
            }
        }
    }
    assert!(broken.is_empty(), "the import law is broken:\n  {}", broken.join("\n  "));
}

#[test]
fn every_row_of_the_table_is_a_room() {
    let imports = imports();
    for (room, allowed, _) in LAW {
        assert!(imports.contains_key(*room), "{room} is in the table and not in the workspace");
        for name in *allowed {
            assert!(imports.contains_key(*name), "{name}, allowed to {room}, is not in the workspace");
        }
    }
}
