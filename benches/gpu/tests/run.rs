//! `make gpu-bench` on a machine without a GPU: every step is run, the processor's are measured, the GPU's say why not.
#![allow(clippy::expect_used, clippy::explicit_write)] // a test file

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use sightline_engine_registry::locate_onnxruntime;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn run(more: &[&str], out: &Path) -> Output {
    let mut command = Command::new("python3");
    command.arg(script("run.py")).args(["--no-torch", "--bin", env!("CARGO_BIN_EXE_gpu-bench")]);
    command.args(more).arg("--work").arg(out.join("work")).arg("--out").arg(out);
    command.output().expect("python3 runs")
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

#[test]
fn without_a_gpu_the_bench_runs_and_says_what_it_could_not_measure() {
    if let Err(error) = locate_onnxruntime() {
        writeln!(std::io::stderr(), "SKIPPED: {error}").expect("stderr");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(&["--device", "cpu", "--tiny-matrix"], folder.path());
    assert!(output.status.success(), "{}", said(&output));
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    for name in ["machine.txt", "commit.txt", "command.txt"] {
        assert!(!read(name).is_empty(), "{name}");
    }
    let summary = read("summary.md");
    for part in [
        "| golden@128 | Sightline | fp32 | 2 | 1 | ",
        "| golden@128 | Sightline | fp32 | 1 | 2 | ",
        "| golden@128 | Sightline, each feed's runs by themselves | fp32 | 1 | 2 | ",
        "| golden@128 | fp32 | memory_attention | 0.0e+00 | yes | ",
        "at least 1 times `torch.compile` | not measured | not measured |",
    ] {
        assert!(summary.contains(part), "{part:?} in\n{summary}");
    }
    for step in ["latency-fp32-1", "latency-fp32-2", "late", "graphs-fp32", "feeds-2", "feeds-2-apart"] {
        let kept = read(&format!("raw/golden-128-{step}.json"));
        assert!(kept.contains("\"not_measured\": null"), "{step}: {kept}");
    }
    // What is there is not done again: a run that was cut short goes on.
    let again = run(&["--device", "cpu", "--tiny-matrix"], folder.path());
    assert!(!said(&again).contains("golden-128-graphs"), "{}", said(&again));

    // What was not measured is no number, and the reason is told.
    let about = read("raw/about.json");
    if about.contains("\"gpu\": false") {
        assert!(summary.contains("**No GPU here"), "{summary}");
        assert!(summary.contains("Not measured: NVIDIA driver: expected libcuda.so"), "{summary}");
    }
}

#[test]
fn a_provider_that_is_not_there_is_no_figure() {
    if locate_onnxruntime().is_err() {
        return; // The other test says so.
    }
    let output = Command::new(env!("CARGO_BIN_EXE_gpu-bench"))
        .args([
            "latency",
            "--model",
            "../../tests/golden/sam2-tiny/model",
            "--provider",
            "onnxruntime-cuda:63",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("gpu-bench runs");
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "{}", said(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("gpu-bench: model \"sam2-tiny\": "), "{error}");
}

#[test]
fn every_figure_of_the_matrix_is_planned() {
    let output = run(&["--dry-run"], Path::new("/nonexistent"));
    let plan = said(&output);
    assert!(output.status.success(), "{plan}");
    for model in ["tiny", "edgetam", "large"] {
        for step in [
            "draw",
            "latency-fp16-1",
            "latency-fp16-16",
            "latency-fp32-4",
            "late",
            "graphs-fp16",
            "graphs-fp32",
            "feeds-8",
            "feeds-8-apart",
            "closed-plain",
            "closed-graphs",
        ] {
            assert!(plan.contains(&format!("{model}-1024-{step}: ")), "{model} {step} in\n{plan}");
        }
    }
}
