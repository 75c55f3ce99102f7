//! Runs of several sessions as one.

use sightline_core::{DType, Shape};
use sightline_engine_api::{DeviceTensor, Port};
use sightline_engine_fake::{FakeDevice, Schedule};

use super::*;

pub(super) fn batching(options: FakeOptions, most: usize) -> Arc<Pool> {
    let options = FakeOptions { batches: true, ..options };
    let asked = Asked {
        options: LoadOptions { batch: NonZeroUsize::new(most), ..LoadOptions::default() },
        ..asked("fake")
    };
    Arc::new(Pool::new(asked, sightline_engine_fake::model(options)).unwrap())
}

/// The gate of the graph that is held in these tests.
fn gate(pool: &Pool) -> &Gate<Vec<Member>, Parcel> {
    let (line, _) = pool.engines[4].at;
    &pool.lines[line]
}

/// One run of each value while another is inside, in the order of their deadlines; and what came of them.
pub(super) fn meanwhile(pool: &Arc<Pool>, values: &[f32]) -> Vec<Result<Vec<u32>, EngineError>> {
    let (inside, _) = enter(gate(pool), None);
    let now = Instant::now();
    thread::scope(|scope| {
        let runs: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(at, value)| {
                let (mut model, turn) = pool.handles();
                turn.due(now + Duration::from_millis(at as u64));
                let run = scope.spawn(move || {
                    catch_unwind(AssertUnwindSafe(|| run(&mut *model.memory_encoder, *value)))
                        .unwrap_or_else(|_| Err(EngineError::new(Kind::Run, "run", "an end", "a panic")))
                });
                let offers = pool.engines[4].together.load(Ordering::Relaxed) > 1;
                until("it waits and tells for what", || {
                    gate(pool).waiting() == at + 1 && (!offers || gate(pool).offered() == at + 1)
                });
                run
            })
            .collect();
        drop(inside);
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

#[test]
fn runs_that_wait_together_are_one_and_give_what_they_give_alone() {
    let handle = FakeHandle::new();
    let pool = batching(FakeOptions { handle: handle.clone(), ..FakeOptions::default() }, 4);
    let mut alone = sightline_engine_fake::model(FakeOptions { batches: true, ..FakeOptions::default() });
    for values in [&[0.5, -0.25][..], &[0.5, 0.25, 1.0], &[0.1, 0.2, 0.3, 0.4], &[0.1, 0.2, 0.3, 0.4, 0.6]] {
        let before = handle.runs(GraphName::MemoryEncoder);
        let together = meanwhile(&pool, values);
        let runs = handle.runs(GraphName::MemoryEncoder) - before;
        assert_eq!(runs, values.len().div_ceil(4) as u64, "at most four at once: {values:?}");
        for (value, together) in values.iter().zip(together) {
            assert_eq!(together.unwrap(), run(&mut *alone.memory_encoder, *value).unwrap(), "{value}");
        }
    }
}

/// A batch's size is a power of two, and its room as large, whatever the most is.
#[test]
fn any_number_may_be_the_most() {
    for most in [3, 5, 6, 7] {
        let handle = FakeHandle::new();
        let pool = batching(FakeOptions { handle: handle.clone(), ..FakeOptions::default() }, most);
        let mut alone = sightline_engine_fake::model(FakeOptions { batches: true, ..FakeOptions::default() });
        let values: Vec<f32> = (0..=most).map(|at| 0.1 * at as f32).collect();
        let together = meanwhile(&pool, &values);
        assert_eq!(handle.runs(GraphName::MemoryEncoder), 2, "one more than {most}");
        for (value, together) in values.iter().zip(together) {
            assert_eq!(together.unwrap(), run(&mut *alone.memory_encoder, *value).unwrap(), "{value}");
        }
    }
}

#[test]
fn nothing_is_put_together_unless_asked_for_on_the_processor() {
    let handle = FakeHandle::new();
    let options = FakeOptions { batches: true, handle: handle.clone(), ..FakeOptions::default() };
    let pool = fake(options);
    let (inside, _) = enter(gate(&pool), None);
    thread::scope(|scope| {
        for count in 1..=2 {
            let (mut model, _) = pool.handles();
            scope.spawn(move || run(&mut *model.memory_encoder, 0.5).unwrap());
            until("it waits", || gate(&pool).waiting() == count);
        }
        drop(inside);
    });
    assert_eq!(handle.runs(GraphName::MemoryEncoder), 2);
}

#[test]
fn company_is_who_would_be_next_and_nobody_is_overtaken() {
    let gate = Gate::<(), u32>::new((), None);
    let now = Instant::now();
    thread::scope(|scope| {
        let (mut inside, _) = enter(&gate, None);
        // By deadline: two that fit, one that does not, and one more that would.
        for (ms, offer) in [(300, 12), (400, 13), (100, 10), (200, 11), (350, 99)] {
            let gate = &gate;
            scope.spawn(move || {
                let deadline = Some(now + Duration::from_millis(ms));
                match gate.enter(0, deadline, || Some(offer)) {
                    (Entered::Done(done), _) => assert!((10..13).contains(&done), "{done}"),
                    (Entered::Inside(..), _) => assert!(offer > 12, "{offer}"),
                }
            });
            until("it waits", || gate.waiting() == gate.offered() && gate.waiting() > 0);
        }
        until("all wait", || gate.offered() == 5);
        assert_eq!(inside.invite(|offer| *offer < 20), 3);
        let (_, company) = inside.with_company();
        assert_eq!(company.iter().map(|(_, offer)| *offer).collect::<Vec<_>>(), [10, 11, 12]);
        inside.done();
        drop(inside);
    });
}

#[test]
fn what_differs_in_more_than_its_objects_goes_alone() {
    let (two, three) = ([0.0; 2 * 3], [0.0; 3 * 4]);
    let parcel = |dims: [usize; 2], data: &[f32]| {
        let input = TensorRef::from(TensorView::f32(&dims, data).unwrap());
        Parcel::of(None, (0, Stream::default(), dims[0]), &[input], &[])
    };
    let like = |parcel: &Parcel, dims: [usize; 2], data: &[f32]| {
        parcel.is_like(&[TensorView::f32(&dims, data).unwrap().into()], &[])
    };
    let told = parcel([2, 3], &two);
    assert!(like(&told, [1, 3], &two[..3]) && like(&told, [2, 3], &two));
    assert!(!like(&told, [3, 4], &three) && !like(&told, [3, 2], &two));
}

#[test]
fn what_lies_elsewhere_goes_alone() {
    let device = FakeDevice::new(Schedule::First(Vec::new()), |_, _, _| Ok(()));
    let port = |name: &str| Port { name: name.into(), dtype: DType::F32, dims: vec![Dim::Dynamic] };
    let io = GraphIo { inputs: vec![port("a"), port("b")], outputs: vec![port("y")] };
    let tensor = |device: &FakeDevice| {
        let (buffer, shape) = (device.alloc(4).unwrap(), Shape::new(&[1]).unwrap());
        DeviceTensor { buffer, offset_bytes: 0, dtype: DType::F32, shape }
    };
    let there = || TensorRef::Device(tensor(&device));
    let host = || TensorRef::from(TensorView::f32(&[1], &[0.0]).unwrap());
    let lanes = |ops, inputs: [TensorRef<'_>; 2], on_device: bool| {
        let mut zero = [0.0];
        let output = match on_device {
            true => TensorMut::Device(tensor(&device)),
            false => TensorViewMut::f32(&[1], &mut zero).unwrap().into(),
        };
        parcel::lanes("graph", &io, ops, &inputs, &[output])
    };
    let ops: Option<&dyn DeviceOps> = Some(&device);
    assert_eq!(lanes(ops, [there(), there()], true), Some(1));
    assert_eq!(lanes(None, [host(), host()], false), Some(1));
    for (case, ops, inputs, on_device) in [
        ("an input on the host", ops, [there(), host()], true),
        ("an output on the host", ops, [there(), there()], false),
        ("all on the host", ops, [host(), host()], false),
        ("an input on a device", None, [host(), there()], false),
    ] {
        assert_eq!(lanes(ops, inputs, on_device), None, "{case}");
    }
}

/// Gives a run on zeros to a device.
pub(super) fn give(engine: &mut dyn Engine, device: &FakeDevice, stream: Stream) {
    let io = engine.io().clone();
    let zeros = |port: &Port| {
        let dims: Vec<usize> =
            port.dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).collect();
        let shape = Shape::new(&dims).unwrap();
        let buffer = device.alloc(shape.elements() * port.dtype.size_bytes()).unwrap();
        DeviceTensor { buffer, offset_bytes: 0, dtype: port.dtype, shape }
    };
    let inputs: Vec<_> = io.inputs.iter().map(|port| TensorRef::Device(zeros(port))).collect();
    let mut outputs: Vec<_> = io.outputs.iter().map(|port| TensorMut::Device(zeros(port))).collect();
    drop(engine.enqueue(0, stream, &inputs, &mut outputs).unwrap());
}

#[test]
fn a_device_is_given_two_runs_of_a_line_before_one_is_over() {
    let handle = FakeHandle::new();
    let options = FakeOptions { batches: true, handle: handle.clone(), ..FakeOptions::default() };
    let device = FakeDevice::new(Schedule::First(vec![Stream::ENCODE, Stream::TRACK]), |_, _, _| Ok(()));
    let model = device.model(sightline_engine_fake::model(options));
    let shared = SharedModel::new(model, None).unwrap();
    let ((mut one, _), (mut other, _)) = (shared.handles(), shared.handles());
    let over = || handle.runs(GraphName::DecoderTrack) + handle.runs(GraphName::MemoryEncoder);
    for given in 1..=6 {
        // Whichever session and graph: they are one stream's.
        let model = if given % 2 == 0 { &mut one } else { &mut other };
        let engine = if given % 3 == 0 { &mut model.memory_encoder } else { &mut model.decoder_track };
        give(&mut **engine, &device, Stream::TRACK);
        assert_eq!(device.counts().runs, given);
        assert_eq!(over(), given.saturating_sub(2), "this device does nothing that nobody looks for");
    }
    give(&mut *one.image_encoder, &device, Stream::ENCODE);
    assert_eq!((over(), handle.runs(GraphName::ImageEncoder)), (4, 0), "the image encoder has its own");
    let counts = device.counts();
    assert_eq!((counts.waits, counts.downloads), (0, 0));
}

/// A device that is still at a session's own runs is none that it waits for others at.
#[test]
fn waiting_for_ones_own_runs_is_not_waiting_for_others() {
    const RUN: Duration = Duration::from_millis(20);
    let handle = FakeHandle::new();
    handle.delay(GraphName::MemoryEncoder, RUN);
    let options = FakeOptions { batches: true, handle: handle.clone(), ..FakeOptions::default() };
    let device = FakeDevice::new(Schedule::First(vec![Stream::TRACK]), |_, _, _| Ok(()));
    let shared = SharedModel::new(device.model(sightline_engine_fake::model(options)), None).unwrap();
    let ((mut one, its), (mut other, others)) = (shared.handles(), shared.handles());
    let began = Instant::now();
    for _ in 0..6 {
        give(&mut *one.memory_encoder, &device, Stream::TRACK);
    }
    // The fake device works when it is looked at.
    assert!(handle.runs(GraphName::MemoryEncoder) >= 4 && began.elapsed() >= 4 * RUN);
    assert!(its.waited() < RUN / 2, "alone, and waited for others");
    give(&mut *other.memory_encoder, &device, Stream::TRACK);
    assert!(others.waited() >= RUN / 2, "the other's run was in the way");
}
