//! The whole of the shim, called on a library made of the same headers: each major that this build has.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
};

use sightline_core::{DType, TensorView};
use sightline_engine_api::{
    Device, DeviceBuffer, DeviceTensor, Dim, Engine, EngineError, GraphIo, GraphName, GraphSpec, Kind, Port,
    Stream, TensorMut, TensorRef,
};
use sightline_engine_tensorrt::{
    Context, Plan, Runtime, TensorRtEngine,
    plan::{Flavor, Gpu, PlanKey, Precision, Sidecar, VERSION_COMPATIBLE},
};
use support::{HostDevice, Memory, Mock, access, tensor};

/// Attention over one to four objects and one to seven slots, in two profiles.
const ATTENTION: &str = "mock-plan\nscratch 4096\nprofiles 2\n\
    in mem f32 -1 -1 8\nin image f32 1 16\nout pix f32 mem.0 8\n\
    cover mem 1,1,8 1,7,8\ncover mem 2,1,8 4,7,8\n";

fn run(engine: &mut TensorRtEngine, tensors: [&DeviceTensor; 3]) -> Result<(), EngineError> {
    let [mem, image, pix] = tensors.map(Clone::clone);
    let inputs = [TensorRef::Device(mem), TensorRef::Device(image)];
    engine.enqueue(0, Stream::TRACK, &inputs, &mut [TensorMut::Device(pix)]).map(drop)
}

fn engine(runtime: &Runtime, plan: &str) -> TensorRtEngine {
    TensorRtEngine::new(vec![runtime.deserialise("attention", plan.as_bytes(), None).unwrap()], 1).unwrap()
}

/// A shim that was built from any minor's headers calls what the lowest minor's library has where it has it.
#[test]
fn what_the_shim_calls_is_where_the_lowest_minor_has_it() {
    for (major, headers) in support::majors() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock");
        let output =
            Command::new("python3").arg(here.join("mock.py")).args([headers, "--slots"]).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        let pinned = fs::read_to_string(here.join(format!("slots-{major}.txt"))).unwrap();
        let pinned: Vec<_> = pinned.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(pinned.len(), 19);
        for line in pinned {
            assert!(found.lines().any(|other| other == line), "{line} in the headers of {major}");
        }
    }
}

#[test]
fn the_whole_sequence_writes_straight_into_a_slot_of_the_bank() {
    for mock in Mock::all() {
        let device = Arc::new(HostDevice::default());
        let runtime = mock.runtime(&device);
        assert_eq!(runtime.version().major, mock.major);
        let plan = runtime.deserialise("attention", ATTENTION.as_bytes(), None).unwrap();
        assert_eq!(plan.scratch_bytes(), 4096);
        let mut engine = TensorRtEngine::new(vec![plan], 2).unwrap();
        assert_eq!((engine.contexts(), engine.device()), (2, support::GPU));
        assert!(engine.provider().starts_with(&format!("tensorrt {}.", mock.major)));
        assert_eq!(
            mock.calls(),
            [
                "runtime 1",
                "deserialize",
                "context user managed",
                "scratch 1",
                "context user managed",
                "scratch 1"
            ]
        );

        let bank = Memory::new(4096, support::GPU);
        let mem = tensor(&bank, 0, &[1, 2, 8]);
        (0..16).for_each(|index| bank.set_float(index, index as f32 + 1.0));
        let image = tensor(&Memory::new(64, support::GPU), 0, &[1, 16]);
        // A slot of the bank that is being read from.
        let slot = tensor(&bank, 1024, &[1, 8]);
        run(&mut engine, [&mem, &image, &slot]).unwrap();
        assert_eq!(
            (256..264).map(|index| bank.float(index) as u32).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7, 8]
        );
        assert_eq!(
            mock.calls(),
            [
                "profile 0",
                "shape mem [1,2,8]",
                "shape image [1,16]",
                "infer 0",
                "enqueue stream 4099 mem[1,2,8] image[1,16] pix[1,8]"
            ]
        );
        // The same shapes again, another slot: nothing is told TensorRT but addresses.
        run(&mut engine, [&mem, &image, &tensor(&bank, 2048, &[1, 8])]).unwrap();
        assert_eq!(mock.calls(), ["enqueue stream 4099 mem[1,2,8] image[1,16] pix[1,8]"]);
        assert_eq!(bank.float(512), 1.0);
        // Sizes of the other profile.
        run(&mut engine, [&tensor(&bank, 0, &[3, 2, 8]), &image, &tensor(&bank, 1024, &[3, 8])]).unwrap();
        assert_eq!(mock.calls()[0], "profile 1");
        assert_eq!(bank.float(256), 1001.0);

        let allocated = device.allocated.load(Ordering::Relaxed);
        assert_eq!(allocated, 2, "scratch memory, once a context");
        drop((engine, runtime));
        assert_eq!(mock.calls(), ["~context", "~context", "~engine", "~runtime"]);
        assert_eq!(device.waits.load(Ordering::Relaxed), 1, "of two contexts, one had a run to wait for");
    }
}

#[test]
fn contexts_are_each_their_own_and_streams_are_ordered_within_one() {
    for mock in Mock::all() {
        let device = Arc::new(HostDevice::default());
        let runtime = mock.runtime(&device);
        let plan = Arc::new(runtime.deserialise("attention", ATTENTION.as_bytes(), None).unwrap());
        let mut engine = TensorRtEngine::new(
            vec![runtime.deserialise("attention", ATTENTION.as_bytes(), None).unwrap()],
            2,
        )
        .unwrap();
        let memory = Memory::new(4096, support::GPU);
        let inputs = [
            TensorRef::Device(tensor(&memory, 0, &[1, 1, 8])),
            TensorRef::Device(tensor(&memory, 512, &[1, 16])),
        ];
        let mut output = [TensorMut::Device(tensor(&memory, 1024, &[1, 8]))];
        mock.calls();
        for (context, stream) in [(0, Stream(5)), (1, Stream(6)), (0, Stream(5))] {
            let event = engine.enqueue(context, stream, &inputs, &mut output).unwrap();
            assert!(!event.is_done());
            event.wait().unwrap();
        }
        let calls = mock.calls();
        let runs: Vec<_> = calls.iter().filter(|call| call.starts_with("enqueue")).collect();
        assert_eq!(runs.len(), 3);
        assert!(runs[1].starts_with("enqueue stream 4102"), "{calls:?}");
        assert_eq!(calls.iter().filter(|call| *call == "profile 0").count(), 2, "each has its own shapes");
        assert!(device.orders.lock().unwrap().is_empty());
        drop(engine.enqueue(0, Stream(6), &inputs, &mut output).unwrap());
        assert!(device.orders.lock().unwrap().contains(&(Stream(5), Stream(6))), "they share scratch memory");
        let error = engine.enqueue(2, Stream(5), &inputs, &mut output).map(drop).expect_err("there are two");
        assert!(error.to_string().contains("expected below 2, got 2"), "{error}");

        for (bytes, device) in [(256, support::GPU), (4096, Device::Cuda { ordinal: 1 })] {
            let error = Context::new(&plan, Memory::new(bytes, device)).expect_err("scratch memory");
            assert_eq!(error.kind(), Kind::Interface, "{error}");
        }
    }
}

/// Says that it lies where somebody else's memory is.
#[derive(Debug)]
struct Anybodys(u64);

impl DeviceBuffer for Anybodys {
    fn device(&self) -> Device {
        support::GPU
    }
    fn address(&self) -> u64 {
        self.0
    }
    fn len_bytes(&self) -> usize {
        2048
    }
}

#[test]
fn tensors_that_do_not_fit_are_refused_before_tensorrt_sees_them() {
    for mock in Mock::all() {
        let runtime = mock.runtime(&Arc::new(HostDevice::default()));
        let mut engine = engine(&runtime, ATTENTION);
        let memory = Memory::new(2048, support::GPU);
        let mem = tensor(&memory, 0, &[1, 1, 8]);
        let (image, pix) = (tensor(&memory, 256, &[1, 16]), tensor(&memory, 512, &[1, 8]));
        let elsewhere = tensor(&Memory::new(256, Device::Cuda { ordinal: 1 }), 0, &[1, 8]);
        let anybodys = DeviceTensor { buffer: Arc::new(Anybodys(memory.address())), ..pix.clone() };
        let long = TensorRef::Device(tensor(&memory, 0, &[1, 8, 8]));
        mock.calls();
        for (case, tensors, part) in [
            ("rank", [&image, &image, &pix], "input \"mem\": expected f32 [?,?,8], got f32 [1,16]"),
            (
                "fixed size",
                [&mem, &tensor(&memory, 0, &[1, 17]), &pix],
                "expected f32 [1,16], got f32 [1,17]",
            ),
            (
                "slots",
                [&tensor(&memory, 0, &[1, 8, 8]), &image, &pix],
                "mem [1, 1, 8]..[1, 7, 8] or mem [2, 1, 8]",
            ),
            (
                "output",
                [&mem, &image, &tensor(&memory, 512, &[2, 8])],
                "output \"pix\": expected [1,8], got [2,8]",
            ),
            ("device", [&mem, &image, &elsewhere], "on cuda:1"),
            ("another maker", [&mem, &image, &anybodys], "a tensor of cuda:0's own"),
            ("end", [&mem, &image, &tensor(&memory, 2032, &[1, 8])], "at byte 2032 of 2048"),
            ("alignment", [&mem, &image, &tensor(&memory, 528, &[1, 8])], "a multiple of 256"),
        ] {
            let error = run(&mut engine, tensors).expect_err(case);
            assert_eq!(error.kind(), Kind::Interface, "{case}");
            assert!(error.to_string().contains(part), "{case}: {error}");
        }
        let host = [0.0; 8];
        let given = TensorRef::Host(TensorView::f32(&[1, 1, 8], &host).unwrap());
        let inputs = [given, TensorRef::Device(image.clone())];
        let error = engine.enqueue(0, Stream::TRACK, &inputs, &mut [TensorMut::Device(pix.clone())]);
        let text = error.map(drop).expect_err("a host tensor").to_string();
        assert!(text.ends_with("input \"mem\": expected a device tensor, got a host tensor"), "{text}");
        assert!(engine.enqueue(0, Stream::TRACK, &[long], &mut []).is_err(), "too few");
        assert!(mock.calls().iter().all(|call| !call.starts_with("enqueue")), "none of them ran");
        run(&mut engine, [&mem, &image, &pix]).expect("after all of these");
    }
}

#[test]
fn a_failed_run_and_a_refused_shape_spoil_one_run() {
    for mock in Mock::all() {
        let runtime = mock.runtime(&Arc::new(HostDevice::default()));
        let memory = Memory::new(8192, support::GPU);
        let (image, pix) = (tensor(&memory, 0, &[1, 16]), tensor(&memory, 512, &[1, 8]));
        let mem = tensor(&memory, 256, &[1, 1, 8]);

        let mut failing = engine(&runtime, &format!("{ATTENTION}fail 2\n"));
        run(&mut failing, [&mem, &image, &pix]).unwrap();
        let error = run(&mut failing, [&mem, &image, &pix]).expect_err("the second");
        assert_eq!((error.kind(), error.is_transient()), (Kind::Run, true));
        assert!(error.to_string().contains("enqueueV3: Error Code 1: Cuda Runtime (mock)"), "{error}");
        run(&mut failing, [&mem, &image, &pix]).expect("the third");

        // Within the profile, and TensorRT still says no.
        let wide = ATTENTION.replace("4,7,8", "64,7,8");
        let mut refusing = engine(&runtime, &wide);
        let thirteen = tensor(&memory, 0, &[13, 1, 8]);
        let error =
            run(&mut refusing, [&thirteen, &image, &tensor(&memory, 1024, &[13, 8])]).expect_err("13");
        assert_eq!(error.kind(), Kind::Interface);
        assert!(error.to_string().contains("setInputShape: Error Code 3"), "{error}");
        run(&mut refusing, [&mem, &image, &pix]).expect("the next shape");
        assert_eq!(memory.float(128), memory.float(64));
    }
}

#[test]
fn without_a_gpu_a_pointer_to_nothing_is_an_error_and_no_crash() {
    for mock in Mock::all() {
        let library = mock.open();
        let device = Arc::new(HostDevice::default());
        for (mode, part) in [
            ("no driver", "expected a runtime, got CUDA initialization failure with error: 35 (mock)"),
            ("garbage", "expected a runtime, got none, and no reason in its log"),
            ("complains", "expected a runtime, got something is wrong (mock)"),
        ] {
            mock.mode(mode);
            let error = Runtime::new(&library, access(&device)).expect_err(mode);
            assert_eq!(error.kind(), Kind::Unavailable, "{mode}");
            assert!(error.to_string().contains(part), "{mode}: {error}");
        }
        mock.mode("no context");
        let runtime = Runtime::new(&library, access(&device)).unwrap();
        let plan = runtime.deserialise("attention", ATTENTION.as_bytes(), None).unwrap();
        let error = TensorRtEngine::new(vec![plan], 1).expect_err("no memory");
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.to_string().contains("OutOfMemory (mock)"), "{error}");
    }
}

#[test]
fn plans_that_are_not_the_graph_are_refused() {
    let port = |name: &str, dims: &[Dim]| Port { name: name.into(), dtype: DType::F32, dims: dims.to_vec() };
    let (open, eight) = (Dim::Dynamic, Dim::Fixed(8));
    let declared = GraphIo {
        inputs: vec![port("image", &[Dim::Fixed(1), Dim::Fixed(16)]), port("mem", &[open, open, eight])],
        outputs: vec![port("pix", &[open, eight])],
    };
    let bucket = "mock-plan\nscratch 1\nin mem f32 2 7 8\nin image f32 1 16\nout pix f32 2 8\n";
    for mock in Mock::all() {
        let runtime = mock.runtime(&Arc::new(HostDevice::default()));
        let load = |plan: &str| runtime.deserialise("attention", plan.as_bytes(), Some(&declared));
        for (case, plan, kind, part) in [
            ("no plan", "ftrt", Kind::Model, "got IRuntime::deserializeCudaEngine: Error Code 1"),
            (
                "type",
                &bucket.replace("mem f32", "mem i32"),
                Kind::Interface,
                "an f32, f16, bf16 or i64 tensor",
            ),
            (
                "half",
                &bucket.replace("mem f32", "mem f16"),
                Kind::Interface,
                "expected f32 [2,7,8], got f16 [2,7,8]",
            ),
            ("size", &bucket.replace("1 16", "1 17"), Kind::Interface, "expected f32 [1,16], got f32 [1,17]"),
            ("missing", &bucket.replace("in mem f32 2 7 8\n", ""), Kind::Interface, "\"mem\""),
            ("host", &format!("{bucket}host mem\n"), Kind::Interface, "wants on the host"),
        ] {
            let error = load(plan).expect_err(case);
            assert_eq!(error.kind(), kind, "{case}: {error}");
            assert!(error.to_string().contains(part), "{case}: {error}");
        }
        let plan = load(bucket).expect("fixed where the graph is open: a bucket");
        assert_eq!(plan.io(), &declared, "tensors are given as declared");
        assert!(TensorRtEngine::new(vec![], 1).is_err() && TensorRtEngine::new(vec![plan], 0).is_err());
    }
}

#[test]
fn of_several_plans_the_smallest_that_covers_a_run_takes_it() {
    let bucket = |objects: usize| {
        format!(
            "mock-plan\nscratch {}\nin mem f32 -1 -1 8\nin image f32 1 16\nout pix f32 mem.0 8\n\
             cover mem 1,1,8 {objects},7,8\n",
            objects * 1024
        )
    };
    for mock in Mock::all() {
        let device = Arc::new(HostDevice::default());
        let runtime = mock.runtime(&device);
        let plans: Vec<Plan> = [16, 1, 4]
            .map(|objects| runtime.deserialise("attention", bucket(objects).as_bytes(), None).unwrap())
            .into();
        let mut engine = TensorRtEngine::new(plans, 1).unwrap();
        assert_eq!(device.allocated.load(Ordering::Relaxed), 1, "three plans, one scratch memory");
        let memory = Memory::new(1 << 16, support::GPU);
        let image = tensor(&memory, 0, &[1, 16]);
        let mut told = Vec::new();
        for objects in [1, 2, 4, 5, 16, 1, 3] {
            mock.calls();
            let (mem, pix) = (tensor(&memory, 1024, &[objects, 2, 8]), tensor(&memory, 8192, &[objects, 8]));
            run(&mut engine, [&mem, &image, &pix]).unwrap();
            // A context is told its profile once: the first run of each plan.
            told.push(mock.calls()[0] == "profile 0");
        }
        assert_eq!(told, [true, true, false, true, false, false, false]);
        let error =
            run(&mut engine, [&tensor(&memory, 0, &[17, 2, 8]), &image, &tensor(&memory, 0, &[17, 8])])
                .expect_err("17");
        let text = error.to_string();
        assert!(text.contains("mem [1, 1, 8]..[1, 7, 8]; mem [1, 1, 8]..[4, 7, 8]; mem"), "{text}");
    }
}

#[test]
fn a_foreign_or_corrupt_plan_never_reaches_tensorrt() {
    for mock in Mock::all() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = mock.runtime(&Arc::new(HostDevice::default()));
        let gpu = Gpu { sm: 87, name: "Orin".into(), multiprocessors: 16 };
        let key = PlanKey {
            component: "attention".into(),
            onnx_sha256: "0".repeat(64),
            tensorrt: runtime.version(),
            flavor: Flavor::Full,
            gpu: gpu.clone(),
            dla_core: None,
            precision: Precision::Fp16,
            profiles: vec![],
            builder_flags: vec![],
            optimization_level: 3,
        };
        let put = |key: PlanKey| {
            let path = folder.path().join(key.file_name());
            fs::write(&path, ATTENTION).unwrap();
            Sidecar::new(key, &GraphIo::default(), ATTENTION.as_bytes(), 1.0).write(&path).unwrap();
            path
        };
        mock.calls();
        let foreign = {
            let mut key = key.clone();
            key.tensorrt.build += 1;
            put(key)
        };
        let corrupt = put(key.clone());
        fs::write(&corrupt, ATTENTION.replace("4096", "4097")).unwrap();
        let lone = folder.path().join("lone.plan");
        fs::write(&lone, ATTENTION).unwrap();
        for (path, part) in
            [(&foreign, "one built for TensorRT"), (&corrupt, "sha256"), (&lone, "its sidecar")]
        {
            let error = runtime.load("attention", path, &gpu, None).expect_err(part);
            assert_eq!(error.kind(), Kind::Model);
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(mock.calls().is_empty(), "TensorRT was not asked");

        // The same for the graph of a model, which is looked for by its hash.
        let spec = GraphSpec { file: "x.onnx".into(), sha256: "0".repeat(64), io: GraphIo::default() };
        let folders = [folder.path().to_owned()];
        let find = |graph| TensorRtEngine::find(&runtime, &gpu, &folders, graph, &spec, 1);
        let error = find(GraphName::ImageEncoder).expect_err("no plan of it");
        assert!(error.to_string().contains("engines build"), "{error}");
        let mine = put(PlanKey { component: "mask_downsample".into(), ..key.clone() });
        let plan = "mock-plan\nscratch 0\n";
        fs::write(&mine, plan).unwrap();
        let mine_key = Sidecar::read(&mine).unwrap().key;
        Sidecar::new(mine_key, &GraphIo::default(), plan.as_bytes(), 1.0).write(&mine).unwrap();
        assert_eq!(find(GraphName::MaskDownsample).unwrap().name(), "mask_downsample");
        mock.calls();

        fs::remove_file(&corrupt).unwrap();
        let good = put(key.clone());
        runtime.load("attention", &good, &gpu, None).unwrap();
        assert_eq!(mock.calls(), ["deserialize", "~engine"]);
        let compatible = put(PlanKey { builder_flags: vec![VERSION_COMPATIBLE.into()], ..key });
        runtime.load("attention", &compatible, &gpu, None).unwrap();
        assert_eq!(mock.calls(), ["host code 1", "deserialize", "~engine"]);
    }
}
