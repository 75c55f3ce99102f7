//! Against the real library. Where there is none, each test says that it was skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::explicit_write)]

use std::{
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceTensor, Dim, Engine, GraphIo, Kind, Port, Stream, TensorMut, TensorRef,
};
use sightline_engine_ort::{OrtEngine, OrtOptions, OrtProvider, OrtRuntime, locate};

fn runtime() -> Option<&'static OrtRuntime> {
    match locate() {
        Ok(path) => Some(OrtRuntime::load(&path).expect("the library that was found loads")),
        Err(error) => {
            // Past the capture of the test harness, which would keep it to itself.
            writeln!(std::io::stderr(), "SKIPPED: {error}").expect("stderr");
            None
        }
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn load(runtime: &OrtRuntime, name: &str, options: &OrtOptions) -> OrtEngine {
    OrtEngine::from_file(runtime, name, &data(&format!("{name}.onnx")), None, options)
        .expect("a graph of ours")
}

fn port(name: &str, dtype: DType, dims: &[Dim]) -> Port {
    Port { name: name.into(), dtype, dims: dims.to_vec() }
}

const ONE: Dim = Dim::Fixed(1);

/// Runs `work` apart and gives up on it: ort rc.15 deadlocks when a borrowed tensor meets an IoBinding, and a test
/// that hangs tells nobody why.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    result.recv_timeout(limit).expect("the run returned in time")
}

#[test]
fn a_run_with_borrowed_tensors_returns() {
    let Some(runtime) = runtime() else { return };
    let (sum, twice) = within(Duration::from_secs(30), || {
        let mut engine = load(runtime, "ports", &OrtOptions::default());
        assert_eq!(engine.provider(), format!("onnxruntime {}/cpu", runtime.version()));
        assert_eq!((engine.name(), engine.device(), engine.contexts()), ("ports", Device::Cpu, 1));
        let (mut sum, mut twice) = ([0.0; 3], [0; 2]);
        for _ in 0..3 {
            engine
                .run(
                    &[
                        TensorView::f32(&[1, 3], &[1.0, 2.0, 3.0]).unwrap().into(),
                        TensorView::f32(&[1, 3], &[0.5; 3]).unwrap().into(),
                        TensorView::i64(&[2], &[20, -3]).unwrap().into(),
                    ],
                    &mut [
                        TensorViewMut::f32(&[1, 3], &mut sum).unwrap().into(),
                        TensorMut::Host(TensorViewMut::I64(Shape::new(&[2]).unwrap(), &mut twice)),
                    ],
                )
                .expect("a run");
        }
        (sum, twice)
    });
    assert_eq!(sum, [1.5, 2.5, 3.5]);
    assert_eq!(twice, [40, -6]);
}

#[test]
fn the_library_is_opened_once() {
    let Some(first) = runtime() else { return };
    let again = OrtRuntime::load(first.path()).expect("the same path");
    assert!(std::ptr::eq(first, again));
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("libonnxruntime.so");
    std::os::unix::fs::symlink(first.path(), &link).unwrap();
    assert!(std::ptr::eq(first, OrtRuntime::load(&link).expect("the same file by another name")));
    let other = folder.path().join("libonnxruntime.so.1.99.0");
    std::fs::write(&other, "").unwrap();
    let error = OrtRuntime::load(&other).expect_err("another library");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("as there is one a process"), "{error}");
}

#[test]
fn ports_are_those_of_the_file_or_those_declared() {
    let Some(runtime) = runtime() else { return };
    let engine = load(runtime, "ports", &OrtOptions::default());
    assert_eq!(engine.io().inputs[0], port("x", DType::F32, &[ONE, Dim::Dynamic]));

    // Declared in another order, and with the open size fixed.
    let row = [ONE, Dim::Fixed(3)];
    let pair = [Dim::Fixed(2)];
    let mut declared = GraphIo {
        inputs: vec![port("k", DType::I64, &pair), port("y", DType::F32, &row), port("x", DType::F32, &row)],
        outputs: vec![port("twice", DType::I64, &pair), port("sum", DType::F32, &row)],
    };
    let bytes = std::fs::read(data("ports.onnx")).unwrap();
    let options = OrtOptions::default();
    let engine =
        OrtEngine::from_bytes(runtime, "ports", &bytes, Some(&declared), &options).expect("as declared");
    assert_eq!(engine.io().input("x"), Some(0), "the file's order");
    assert_eq!(engine.io().inputs[0].dims, row, "the declared sizes");

    declared.inputs[2].dims = vec![Dim::Fixed(2), Dim::Dynamic];
    let error =
        OrtEngine::from_bytes(runtime, "ports", &bytes, Some(&declared), &options).expect_err("2 is not 1");
    assert_eq!(error.kind(), Kind::Interface);
    assert_eq!(error.to_string(), "ports input \"x\": expected f32 [2,?], got f32 [1,?]");
}

#[test]
fn what_cannot_be_loaded_says_why() {
    let Some(runtime) = runtime() else { return };
    let options = OrtOptions::default();
    let file = |name: &str| OrtEngine::from_file(runtime, "encoder", &data(name), None, &options);
    let ports = std::fs::read(data("ports.onnx")).unwrap();
    let bytes = |bytes: &[u8]| OrtEngine::from_bytes(runtime, "encoder", bytes, None, &options);
    for (case, result, kind, part) in [
        ("no file", file("none.onnx"), Kind::Model, "none.onnx"),
        ("no graph", file("make.py"), Kind::Model, "an ONNX graph"),
        ("truncated", bytes(&ports[..ports.len() / 2]), Kind::Model, "encoder"),
        ("empty", bytes(&[]), Kind::Model, "encoder"),
        (
            "half precision",
            file("half.onnx"),
            Kind::Interface,
            "encoder input \"x\": expected an f32 or i64 tensor",
        ),
    ] {
        let error = result.expect_err(case);
        assert_eq!(error.kind(), kind, "{case}: {error}");
        assert!(error.to_string().contains(part), "{case}: {error}");
        assert!(!error.is_transient(), "{case}");
    }
}

#[test]
fn a_gpu_that_was_asked_for_is_never_the_cpu() {
    let Some(runtime) = runtime() else { return };
    let options = OrtOptions { provider: OrtProvider::Cuda { ordinal: 99 }, ..OrtOptions::default() };
    let error =
        OrtEngine::from_file(runtime, "ports", &data("ports.onnx"), None, &options).expect_err("no GPU");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("onnxruntime/cuda:99"), "{error}");
}

#[derive(Debug)]
struct Elsewhere;

impl DeviceBuffer for Elsewhere {
    fn device(&self) -> Device {
        Device::Cuda { ordinal: 0 }
    }
    fn address(&self) -> u64 {
        0
    }
    fn len_bytes(&self) -> usize {
        16
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_and_the_next_run_succeeds() {
    let Some(runtime) = runtime() else { return };
    let mut engine = load(runtime, "product", &OrtOptions::default());
    let four = [1.0, 2.0, 3.0, 4.0];
    let view = || TensorView::f32(&[4], &four).unwrap();
    let away = || DeviceTensor {
        buffer: std::sync::Arc::new(Elsewhere),
        offset_bytes: 0,
        dtype: DType::F32,
        shape: Shape::new(&[4]).unwrap(),
    };
    let mut out = [0.0; 4];
    let mut run = |inputs: &[TensorRef<'_>], context| {
        let output = TensorViewMut::f32(&[4], &mut out).unwrap();
        engine.enqueue(context, Stream::default(), inputs, &mut [output.into()]).map(|event| event.is_done())
    };
    let short = TensorView::f32(&[2], &four[..2]).unwrap();
    let integers = TensorView::i64(&[4], &[1, 2, 3, 4]).unwrap();
    for (case, inputs, context, part) in [
        ("one missing", vec![view().into()], 0, "expected 2 inputs and 1 outputs, got 1 and 1"),
        ("shape", vec![view().into(), short.into()], 0, "input \"y\": expected f32 [4], got f32 [2]"),
        ("dtype", vec![view().into(), integers.into()], 0, "got i64 [4]"),
        ("device", vec![view().into(), TensorRef::Device(away())], 0, "expected a host tensor"),
        ("context", vec![view().into(), view().into()], 1, "expected 0, the only one, got 1"),
    ] {
        let error = run(&inputs, context).expect_err(case);
        assert_eq!(error.kind(), Kind::Interface, "{case}");
        assert!(error.to_string().contains(part), "{case}: {error}");
    }
    assert!(run(&[view().into(), view().into()], 0).expect("fits"));
    let error = engine
        .run(&[view().into(), view().into()], &mut [TensorMut::Device(away())])
        .expect_err("an output on a device");
    assert!(error.to_string().contains("output \"z\": expected a host tensor"), "{error}");
    assert_eq!(out, [1.0, 4.0, 9.0, 16.0]);
}

#[test]
fn a_result_of_another_size_is_refused() {
    let Some(runtime) = runtime() else { return };
    let mut engine = load(runtime, "join", &OrtOptions::default());
    let inputs = [
        TensorView::f32(&[1, 2], &[1.0, 2.0]).unwrap().into(),
        TensorView::f32(&[1, 1], &[3.0]).unwrap().into(),
    ];
    let mut out = [0.0; 4];
    let error = engine
        .run(&inputs, &mut [TensorViewMut::f32(&[1, 4], &mut out).unwrap().into()])
        .expect_err("three values");
    assert_eq!(error.to_string(), "join output \"z\": expected [1,4], got [1,3]");
    engine.run(&inputs, &mut [TensorViewMut::f32(&[1, 3], &mut out[..3]).unwrap().into()]).expect("fits");
    assert_eq!(out[..3], [1.0, 2.0, 3.0]);
}

#[test]
fn a_failed_run_is_a_matter_of_one_frame() {
    let Some(runtime) = runtime() else { return };
    let mut engine = load(runtime, "pick", &OrtOptions::default());
    let mut out = [0.0];
    let mut pick = |at: i64| {
        engine.run(
            &[
                TensorView::f32(&[4], &[10.0, 11.0, 12.0, 13.0]).unwrap().into(),
                TensorView::i64(&[1], &[at]).unwrap().into(),
            ],
            &mut [TensorViewMut::f32(&[1], &mut out).unwrap().into()],
        )
    };
    let error = pick(9).expect_err("out of range");
    assert_eq!(error.kind(), Kind::Run);
    assert!(error.is_transient());
    assert!(error.to_string().starts_with("pick: expected a run without an error, got "), "{error}");
    pick(2).expect("the next one");
    assert_eq!(out, [12.0]);
}

/// `session.set_denormal_as_zero` would make this fail: ONNX Runtime sets it on the thread that loads, every thread
/// started from there inherits it, and the thread that runs is left as it was. Rust takes IEEE arithmetic for granted.
#[test]
fn the_callers_arithmetic_is_left_alone() {
    let Some(runtime) = runtime() else { return };
    let product = || std::hint::black_box(1.0e-30_f32) * std::hint::black_box(1.0e-10_f32);
    assert!(product().is_subnormal(), "before");
    for threads in [1, 2] {
        let threads = NonZeroUsize::new(threads).unwrap();
        let mut engine = load(runtime, "product", &OrtOptions { threads, ..OrtOptions::default() });
        assert!(product().is_subnormal(), "after loading with {threads} threads");
        let mut out = [1.0; 4];
        let x = TensorView::f32(&[4], &[1.0e-30; 4]).unwrap();
        let y = TensorView::f32(&[4], &[1.0e-10; 4]).unwrap();
        engine
            .run(&[x.into(), y.into()], &mut [TensorViewMut::f32(&[4], &mut out).unwrap().into()])
            .expect("a run");
        assert!(product().is_subnormal(), "after a run with {threads} threads");
    }
}
