//! What of the GPU's providers can be told without a GPU: refusals, and tensors bound by address, on host memory that is
//! given by its address as a device's is.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::explicit_write)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceTensor, Dim, Engine, GraphIo, Kind, Port, Stream, TensorMut, TensorRef,
};
use sightline_engine_cuda::onnxruntime::HostMemory;
use sightline_engine_ort::{GpuOptions, OrtEngine, OrtOptions, OrtProvider, OrtRuntime, locate};

fn runtime() -> Option<&'static OrtRuntime> {
    match locate() {
        Ok(path) => Some(OrtRuntime::load(&path).expect("the library that was found loads")),
        Err(error) => {
            writeln!(std::io::stderr(), "SKIPPED: {error}").expect("stderr");
            None
        }
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn tensor(of: &Arc<HostMemory>, first: usize, dims: &[usize]) -> DeviceTensor {
    let buffer = Arc::clone(of) as Arc<dyn DeviceBuffer>;
    DeviceTensor { buffer, offset_bytes: 4 * first, dtype: DType::F32, shape: Shape::new(dims).unwrap() }
}

fn product(runtime: &OrtRuntime) -> OrtEngine {
    let four = |name: &str| Port { name: name.into(), dtype: DType::F32, dims: vec![Dim::Fixed(4)] };
    let io = GraphIo { inputs: vec![four("x"), four("y")], outputs: vec![four("z")] };
    let bytes = std::fs::read(data("product.onnx")).unwrap();
    OrtEngine::from_bytes(runtime, "product", &bytes, Some(&io), &OrtOptions::default()).unwrap()
}

#[test]
fn results_are_written_at_the_address_that_was_given() {
    let Some(runtime) = runtime() else { return };
    let mut engine = product(runtime);
    let given = HostMemory::new(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]);
    // A memory bank of three slots.
    let bank = HostMemory::new(&[-1.0; 12]);
    let mut run = |x: usize, slot: usize| {
        let inputs = [x, 4].map(|first| TensorRef::Device(tensor(&given, first, &[4])));
        let mut outputs = [TensorMut::Device(tensor(&bank, 4 * slot, &[4]))];
        engine.enqueue(0, Stream::TRACK, &inputs, &mut outputs).expect("a run").wait().expect("its end");
        bank.values()
    };
    assert_eq!(run(0, 1)[..], [-1., -1., -1., -1., 10., 40., 90., 160., -1., -1., -1., -1.]);
    assert_eq!(run(4, 2)[8..], [100., 400., 900., 1600.]);
    // A binding that is there already reads what lies at its addresses now.
    given.set(0, 7.0);
    assert_eq!(run(0, 1)[4..8], [70., 40., 90., 160.]);
    assert_eq!(run(0, 1)[..4], [-1.0; 4], "what is not its own is left alone");
}

#[test]
fn host_tensors_and_bound_ones_take_turns() {
    let Some(runtime) = runtime() else { return };
    let mut engine = product(runtime);
    let place = HostMemory::new(&[1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    let (four, mut out) = ([5.0; 4], [0.0; 4]);
    for _ in 0..300 {
        let view = || TensorRef::Host(TensorView::f32(&[4], &four).unwrap());
        engine.run(&[view(), view()], &mut [TensorViewMut::f32(&[4], &mut out).unwrap().into()]).unwrap();
        let at = || TensorRef::Device(tensor(&place, 0, &[4]));
        engine.run(&[at(), at()], &mut [TensorMut::Device(tensor(&place, 4, &[4]))]).unwrap();
    }
    assert_eq!(out, [25.0; 4]);
    assert_eq!(place.values()[4..], [1.0, 4.0, 9.0, 16.0]);
}

#[test]
fn more_addresses_than_bindings_are_kept_for() {
    let Some(runtime) = runtime() else { return };
    let mut engine = product(runtime);
    let place = HostMemory::new(&[2.0; 2800]);
    for round in 0..2 {
        for slot in 1..700 {
            let at = || TensorRef::Device(tensor(&place, 0, &[4]));
            engine.run(&[at(), at()], &mut [TensorMut::Device(tensor(&place, 4 * slot, &[4]))]).unwrap();
        }
        assert!(place.values()[4..2800].iter().all(|value| *value == 4.0), "round {round}");
    }
}

#[test]
fn a_binding_keeps_no_memory_and_is_not_taken_for_another_at_its_place() {
    let Some(runtime) = runtime() else { return };
    let mut engine = product(runtime);
    for round in 0..50 {
        // Often where the one before has just been.
        let place = HostMemory::new(&[round as f32; 8]);
        let at = || TensorRef::Device(tensor(&place, 0, &[4]));
        engine.run(&[at(), at()], &mut [TensorMut::Device(tensor(&place, 4, &[4]))]).unwrap();
        assert_eq!(place.values()[4..], [(round * round) as f32; 4]);
        let left = Arc::downgrade(&place);
        drop(place);
        assert!(left.upgrade().is_none(), "round {round}");
    }
}

#[test]
fn tensors_that_cannot_be_bound_are_refused() {
    let Some(runtime) = runtime() else { return };
    let mut engine = product(runtime);
    /// Says that it lies where somebody else's memory is.
    #[derive(Debug)]
    struct Anybodys(u64);
    impl DeviceBuffer for Anybodys {
        fn device(&self) -> Device {
            Device::Cpu
        }
        fn address(&self) -> u64 {
            self.0
        }
        fn len_bytes(&self) -> usize {
            32
        }
    }
    let place = HostMemory::new(&[3.0; 8]);
    let anybodys = DeviceTensor { buffer: Arc::new(Anybodys(place.address())), ..tensor(&place, 0, &[4]) };
    let at = |first| TensorRef::Device(tensor(&place, first, &[4]));
    let four = [1.0; 4];
    let host = || TensorRef::Host(TensorView::f32(&[4], &four).unwrap());
    for (case, inputs, part) in [
        (
            "mixed",
            [at(0), host()],
            "input \"y\": expected a host tensor, or all of the run's on cpu, got a host tensor beside",
        ),
        ("past its buffer", [at(0), at(5)], "a tensor of 16 bytes at 20 in a buffer of 32"),
        ("anybody's", [TensorRef::Device(anybodys), at(0)], "memory of another maker: Anybodys"),
        ("where no address can be", [at(usize::MAX / 8), at(0)], "in a buffer of 32"),
    ] {
        let error = engine.run(&inputs, &mut [TensorMut::Device(tensor(&place, 4, &[4]))]).expect_err(case);
        assert_eq!(error.kind(), Kind::Interface, "{case}");
        assert!(error.to_string().contains(part), "{case}: {error}");
    }
    engine.run(&[at(0), at(0)], &mut [TensorMut::Device(tensor(&place, 4, &[4]))]).expect("the next run");
    assert_eq!(place.values()[4..], [9.0; 4]);
}

#[test]
fn a_provider_that_cannot_be_had_is_an_error_and_says_what_is_missing() {
    let Some(runtime) = runtime() else { return };
    let providers = runtime.providers();
    assert_eq!(providers[0], "cpu");
    let gpu = GpuOptions { cuda_graphs: true, engine_cache: Some("/tmp".into()), ..GpuOptions::default() };
    for (provider, word) in
        [(OrtProvider::Cuda { ordinal: 5 }, "cuda"), (OrtProvider::TensorRt { ordinal: 5 }, "tensorrt")]
    {
        let options = OrtOptions { provider, gpu: gpu.clone(), ..OrtOptions::default() };
        // Nobody has six GPUs and runs this.
        let error = OrtEngine::from_file(runtime, "product", &data("product.onnx"), None, &options)
            .expect_err("no such device");
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("product: provider onnxruntime/{word}:5: expected ")), "{text}");
        if !providers.contains(&word) {
            assert!(text.contains("onnxruntime-gpu") && text.contains("which has cpu"), "{text}");
        }
    }
}
