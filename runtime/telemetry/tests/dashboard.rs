//! The shipped dashboard asks for metrics and labels that there are, and leaves none out.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use sightline_telemetry::{Metric, MetricKind};

fn expressions(panels: &Value) -> Vec<String> {
    let panels = panels.as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Every `sightline_...` word of a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("sightline_"))
}

fn metric(series: &str) -> Option<Metric> {
    Metric::ALL.iter().copied().find(|metric| match metric.kind() {
        MetricKind::Histogram(_) => {
            ["_bucket", "_sum", "_count"].iter().any(|part| series.strip_suffix(part) == Some(metric.name()))
        }
        _ => series == metric.name(),
    })
}

#[test]
fn every_metric_of_the_dashboard_is_one_of_ours_and_every_one_is_shown() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let text = std::fs::read_to_string(configs.join("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut shown = BTreeSet::new();
    for expression in expressions(&dashboard["panels"]) {
        for name in names(&expression) {
            let metric = metric(name).unwrap_or_else(|| panic!("{name} in {expression}"));
            shown.insert(metric.name());
            for label in ["feed", "reason", "stage", "outcome"] {
                let used =
                    expression.contains(&format!("{{{label}=")) || expression.contains(&format!(",{label}="));
                assert!(!used || metric.labels().contains(&label), "{label} of {name}");
            }
        }
    }
    let all: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let left_out: Vec<_> = all.difference(&shown).collect();
    assert_eq!(left_out, [&"sightline_camera_frames_total", &"sightline_caught_up_total"], "shown otherwise");
    // The page about fleets names metrics too.
    let page = std::fs::read_to_string(configs.join("fleet.md")).unwrap();
    for name in names(&page) {
        assert!(metric(name).is_some() || all.contains(name), "{name} in fleet.md");
    }
}
