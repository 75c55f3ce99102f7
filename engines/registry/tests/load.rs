//! Whole model folders, sound and broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::explicit_write)]

use std::{
    fs,
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use sightline_core::{TensorView, TensorViewMut};
use sightline_engine_api::{EngineError, GraphName, Kind};
use sightline_engine_registry::{LoadOptions, ModelSource, Provider, installed, load, manifest};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny")
}

/// A copy of the tiny model that a test may break.
struct Broken(tempfile::TempDir);

impl Broken {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(tiny()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn edit(self, from: &str, to: &str) -> Self {
        let text = fs::read_to_string(self.file("model.toml")).unwrap();
        assert!(text.contains(from), "{from:?} is in the manifest");
        fs::write(self.file("model.toml"), text.replacen(from, to, 1)).unwrap();
        self
    }

    fn load(&self) -> Result<(), EngineError> {
        load(self.0.path().to_str().unwrap(), &LoadOptions::default()).map(|_| ())
    }
}

fn have_library() -> bool {
    match sightline_engine_registry::locate_onnxruntime() {
        Ok(_) => true,
        Err(error) => {
            // Past the capture of the test harness, which would keep it to itself.
            writeln!(std::io::stderr(), "SKIPPED: {error}").unwrap();
            false
        }
    }
}

#[test]
fn a_folder_becomes_a_model_that_runs() {
    if !have_library() {
        return;
    }
    let options = LoadOptions { threads: NonZeroUsize::new(1), ..LoadOptions::default() };
    let mut model = load(tiny().to_str().unwrap(), &options).expect("the tiny model");
    assert_eq!(model.spec, manifest::parse(&fs::read_to_string(tiny().join("model.toml")).unwrap()).unwrap());
    assert!(model.mask_downsample.is_some());
    assert!(model.image_encoder.provider().starts_with("onnxruntime "), "{}", model.image_encoder.provider());
    let image = vec![0.25; 3 * 16 * 16];
    let mut top = vec![0.0; 3 * 4 * 4];
    model
        .image_encoder
        .run(
            &[TensorView::f32(&[1, 3, 16, 16], &image).unwrap().into()],
            &mut [TensorViewMut::f32(&[1, 3, 4, 4], &mut top).unwrap().into()],
        )
        .expect("a run");
    assert!(top.iter().all(|value| (value - 0.25).abs() < 1e-6), "{top:?}");
}

#[test]
fn broken_files_name_themselves() {
    if !have_library() {
        return;
    }
    let encoder = "image_encoder.onnx";
    let size = fs::metadata(tiny().join(encoder)).unwrap().len();
    let sha = |text: &str| text.contains("expected SHA-256 ");

    let broken = Broken::new();
    fs::remove_file(broken.file(encoder)).unwrap();
    let missing = broken.load().expect_err("missing");
    assert!(missing.to_string().ends_with("expected a readable file, got no such file"), "{missing}");

    let broken = Broken::new();
    let bytes = fs::read(broken.file(encoder)).unwrap();
    fs::write(broken.file(encoder), &bytes[..bytes.len() / 2]).unwrap();
    let truncated = broken.load().expect_err("truncated");
    assert!(sha(&truncated.to_string()), "{truncated}");
    assert!(truncated.to_string().contains(&format!("({} bytes)", size / 2)), "{truncated}");

    let broken = Broken::new();
    let mut other = bytes.clone();
    other[20] ^= 1;
    fs::write(broken.file(encoder), other).unwrap();
    let changed = broken.load().expect_err("changed");
    assert!(sha(&changed.to_string()), "{changed}");

    for error in [missing, truncated, changed] {
        assert_eq!(error.kind(), Kind::Model);
        assert!(error.to_string().contains(encoder), "{error}");
    }
}

#[test]
fn a_graph_that_is_not_as_declared_is_refused() {
    if !have_library() {
        return;
    }
    // A sound manifest whose encoder is another graph: the declared one is mask_downsample's.
    let text = fs::read_to_string(tiny().join("model.toml")).unwrap();
    let spec = manifest::parse(&text).unwrap();
    let sha = |name| spec.graphs[&name].sha256.as_str();
    let broken = Broken::new()
        .edit("file = \"image_encoder.onnx\"", "file = \"mask_downsample.onnx\"")
        .edit(sha(GraphName::ImageEncoder), sha(GraphName::MaskDownsample));
    let error = broken.load().expect_err("another graph");
    assert_eq!(error.kind(), Kind::Interface);
    assert_eq!(
        error.to_string(),
        "model \"tiny\": image_encoder input \"image\": expected f32 [1,3,16,16], got none"
    );
}

#[test]
fn what_is_wrong_in_a_manifest_is_named_with_its_file() {
    let broken = Broken::new().edit("tokens = 16", "tokens = 0");
    let error = broken.load().expect_err("no tokens");
    assert_eq!(error.kind(), Kind::Model);
    let text = error.to_string();
    assert!(
        text.contains("model.toml") && text.contains("memory.tokens: expected 1 to 65536, got 0"),
        "{text}"
    );
    fs::write(broken.file("model.toml"), [0xff, 0xfe]).unwrap();
    let text = broken.load().expect_err("not text").to_string();
    assert!(text.contains("expected UTF-8 text"), "{text}");
}

#[test]
fn a_gpu_that_was_asked_for_is_never_the_cpu() {
    if !have_library() {
        return;
    }
    let provider = "onnxruntime-cuda".parse::<Provider>().unwrap();
    for name in [tiny().to_str().unwrap(), "fake"] {
        let error = load(name, &LoadOptions { provider, ..LoadOptions::default() }).expect_err("no GPU");
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}

#[test]
fn a_library_that_is_not_there_is_named() {
    if !have_library() {
        return;
    }
    let options =
        LoadOptions { onnxruntime: Some("/nonexistent/libonnxruntime.so".into()), ..LoadOptions::default() };
    let error = load(tiny().to_str().unwrap(), &options).expect_err("no library");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("/nonexistent/libonnxruntime.so"), "{error}");
}

#[test]
fn the_fake_needs_nothing() {
    let model = load("fake", &LoadOptions::default()).expect("no files, no library");
    assert_eq!(model.spec.family, "fake");
    let entries = installed();
    let fake = entries.iter().find(|entry| entry.name == "fake").expect("always there");
    assert_eq!((fake.family(), &fake.source), ("fake", &ModelSource::Fake));
}

/// When the model is built in it must be sound; when it is not, the error says so.
#[test]
fn the_embedded_model_loads_or_says_that_it_is_not_built_in() {
    if !have_library() {
        return;
    }
    let built_in = installed().iter().any(|entry| entry.source == ModelSource::Embedded);
    match load("nano", &LoadOptions::default()) {
        Ok(model) => assert_eq!((built_in, model.spec.family.as_str()), (true, "nano")),
        Err(error) => {
            assert!(!built_in, "{error}");
            assert!(error.to_string().starts_with("model \"nano\": expected it to be built in"), "{error}");
        }
    }
}
