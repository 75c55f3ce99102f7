//! Broken copies of the exported SAM2 model through the registry, where its own tests with a toy model do not go:
//! every graph of a real model, sound hashes over unsound graphs, shapes that differ only in the graph, cut manifests.
//! (Missing files, wrong hashes and wrong manifests one by one: `engines/registry/tests`.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sightline_engine_api::{EngineError, Kind};
use sightline_engine_registry::{LoadOptions, load, locate_onnxruntime};
use sightline_tests::not_run;

const GRAPHS: [&str; 6] = [
    "image_encoder",
    "memory_attention",
    "decoder_prompt",
    "decoder_track",
    "memory_encoder",
    "mask_downsample",
];

fn sound() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/sam2-tiny/model")
}

/// A copy that may be broken.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(sound()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.file("model.toml")).unwrap()
    }

    fn set_manifest(&self, text: &str) {
        fs::write(self.file("model.toml"), text).unwrap();
    }

    /// Puts other bytes in a graph's place and their hash in the manifest.
    fn replace(&self, graph: &str, bytes: &[u8]) {
        let path = self.file(&format!("{graph}.onnx"));
        let old = sha256(&path);
        fs::write(&path, bytes).unwrap();
        let text = self.manifest();
        assert!(text.contains(&old), "{graph}: {old} is in the manifest");
        self.set_manifest(&text.replace(&old, &sha256(&path)));
    }

    fn error(&self) -> EngineError {
        match load(self.0.path().to_str().unwrap(), &LoadOptions::default()) {
            Ok(_) => panic!("expected a model that does not load"),
            Err(error) => error,
        }
    }
}

fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum");
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn have_runtime() -> bool {
    locate_onnxruntime().map_err(not_run).is_ok()
}

#[test]
fn every_graph_that_is_missing_or_changed_is_named() {
    if !have_runtime() {
        return;
    }
    for graph in GRAPHS {
        let name = format!("{graph}.onnx");
        let missing = Copy::new();
        fs::remove_file(missing.file(&name)).unwrap();
        let changed = Copy::new();
        let mut bytes = fs::read(changed.file(&name)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(changed.file(&name), bytes).unwrap();
        for (copy, says) in [(missing, "no such file"), (changed, "expected SHA-256 ")] {
            let error = copy.error();
            assert_eq!(error.kind(), Kind::Model, "{error}");
            let text = error.to_string();
            assert!(text.contains(&name) && text.contains(says), "{text}");
        }
    }
}

/// The hash says what was shipped, not that it is a graph: the runtime's own parser must not take us down with it.
#[test]
fn unsound_graphs_with_sound_hashes_are_refused() {
    if !have_runtime() {
        return;
    }
    for graph in GRAPHS {
        let bytes = fs::read(sound().join(format!("{graph}.onnx"))).unwrap();
        for (case, bytes) in [
            ("empty", Vec::new()),
            ("first third", bytes[..bytes.len() / 3].to_vec()),
            ("all but the last byte", bytes[..bytes.len() - 1].to_vec()),
            ("text", b"<!DOCTYPE html><title>404</title>".to_vec()),
        ] {
            let copy = Copy::new();
            copy.replace(graph, &bytes);
            let error = copy.error();
            assert!(matches!(error.kind(), Kind::Model | Kind::Interface), "{graph}, {case}: {error}");
            let text = error.to_string();
            assert!(
                text.contains("model \"sam2-tiny\"") && text.contains(graph) && text.contains("expected"),
                "{graph}, {case}: {text}"
            );
        }
    }
}

/// A manifest that is sound in itself, and graphs that are not as it says.
#[test]
fn a_shape_that_differs_only_in_the_graph_is_named_with_both() {
    if !have_runtime() {
        return;
    }
    for (case, from, to, says) in [
        (
            "a feature level",
            "2, 32, 32]",
            "2, 16, 16]",
            "image_encoder output \"feat_s0\": expected f32 [1,2,16,16], got f32 [1,2,32,32]",
        ),
        (
            "the picture",
            "[1, 3, 128, 128]",
            "[1, 3, 64, 64]",
            // The manifest contradicts itself here, and that shows first.
            "image_encoder input \"image\": expected f32 [1,3,128,128], got f32 [1,3,64,64]",
        ),
    ] {
        let copy = Copy::new();
        let text = copy.manifest();
        assert!(text.contains(from), "{case}: {from} is in the manifest");
        copy.set_manifest(&text.replace(from, to));
        let error = copy.error();
        assert!(error.to_string().contains(says), "{case}: {error}");
    }
}

/// A download that broke off: wherever the manifest ends, it is an error with the file's name, and never a panic.
#[test]
fn a_manifest_that_breaks_off_anywhere_is_refused() {
    let copy = Copy::new();
    let text = copy.manifest();
    assert!(text.is_ascii());
    // Behind the last line that says something there is nothing left to lose.
    let end = text.trim_end().len();
    for cut in (0..end).step_by(53) {
        copy.set_manifest(&text[..cut]);
        let error = copy.error();
        assert_eq!(error.kind(), Kind::Model, "cut at {cut}: {error}");
        assert!(error.to_string().contains("model.toml"), "cut at {cut}: {error}");
    }
}
