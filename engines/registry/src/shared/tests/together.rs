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

/// A graph that doubles, and refuses what is not a number.
fn doubling(runs: Arc<Mutex<Vec<usize>>>, most: usize) -> Arc<Pool> {
    let port =
        |name: &str| Port { name: name.into(), dtype: DType::F32, dims: vec![Dim::Dynamic, Dim::Fixed(3)] };
    let io = GraphIo { inputs: vec![port("feat_x")], outputs: vec![port("y")] };
    let double = move |inputs: &[TensorRef<'_>], outputs: &mut [TensorMut<'_>]| {
        let (TensorRef::Host(TensorView::F32(_, x)), TensorMut::Host(TensorViewMut::F32(_, y))) =
            (&inputs[0], &mut outputs[0])
        else {
            panic!("f32 on the host");
        };
        runs.lock().unwrap().push(y.len() / 3);
        thread::sleep(Duration::from_millis(1));
        if y.len() / 3 > most {
            return Err(EngineError::new(
                Kind::Interface,
                "doubling",
                format!("at most {most}"),
                y.len() / 3,
            ));
        }
        if x.iter().any(|x| x.is_nan()) {
            return Err(EngineError::new(Kind::Run, "doubling", "numbers", "NaN"));
        }
        assert!(x.iter().all(|x| *x < 1e6), "our bug");
        x.iter().zip(y.iter_mut()).for_each(|(x, y)| *y = 2.0 * x);
        Ok(())
    };
    let mut model = sightline_engine_fake::model(FakeOptions::default());
    model.memory_encoder = Box::new(FnEngine::new("doubling", io, double));
    let asked = Asked {
        options: LoadOptions { batch: NonZeroUsize::new(4), ..LoadOptions::default() },
        ..asked("doubling")
    };
    Arc::new(Pool::new(asked, model).unwrap())
}

/// The gate of the graph that is held in these tests.
fn gate(pool: &Pool) -> &Gate<Vec<Member>, Parcel> {
    let (line, _) = pool.engines[4].at;
    &pool.lines[line]
}

/// One run of each value while another is inside, in the order of their deadlines; and what came of them.
fn meanwhile(pool: &Arc<Pool>, values: &[f32]) -> Vec<Result<Vec<u32>, EngineError>> {
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
                until("it waits and tells for what", || gate(pool).offered() == at + 1);
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
fn runs_that_fail_together_are_done_one_by_one() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 4);
    let ended = meanwhile(&pool, &[1.0, f32::NAN, 3.0, 4.0]);
    let kinds: Vec<_> =
        ended.iter().map(|end| end.as_ref().map_err(EngineError::kind).map(|y| y[0])).collect();
    assert_eq!(
        kinds,
        [Ok(2.0_f32.to_bits()), Err(Kind::Run), Ok(6.0_f32.to_bits()), Ok(8.0_f32.to_bits())],
        "who is bad harms nobody else"
    );
    assert_eq!(*runs.lock().unwrap(), [4, 1, 1, 1, 1], "once together, then each alone");
    assert!(meanwhile(&pool, &[1.0, 2.0]).iter().all(Result::is_ok));
    assert_eq!(runs.lock().unwrap().last(), Some(&2), "and together again the next time");
}

#[test]
fn an_engine_that_takes_no_more_than_one_is_not_asked_again() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 1);
    for _ in 0..2 {
        assert!(meanwhile(&pool, &[1.0, 2.0]).iter().all(Result::is_ok));
    }
    assert_eq!(*runs.lock().unwrap(), [2, 1, 1, 1, 1]);
}

#[test]
fn a_panic_together_is_the_first_ones_and_the_others_go_on() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 4);
    let ended = meanwhile(&pool, &[1.0, 1e9, 3.0]);
    let ends: Vec<_> = ended.iter().map(Result::is_ok).collect();
    // The first one's thread is the one that panicked; the one to blame panics alone.
    assert_eq!(ends, [false, false, true]);
    assert_eq!(*runs.lock().unwrap(), [4, 1, 1]);
    assert!(meanwhile(&pool, &[1.0, 2.0]).iter().all(Result::is_ok));
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
                match gate.enter(deadline, || Some(offer)) {
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

/// Gives a run on zeros to a device.
fn give(engine: &mut dyn Engine, device: &FakeDevice, stream: Stream) {
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
