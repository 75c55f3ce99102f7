mod failing;
mod together;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use sightline_core::{TensorView, TensorViewMut};
use sightline_engine_api::Dim;
use sightline_engine_fake::{FakeHandle, FakeOptions, Fault, FnEngine, SIDE_PX};

use super::*;

fn asked(model: &str) -> Asked {
    Asked { model: model.into(), options: LoadOptions::default() }
}

fn fake(options: FakeOptions) -> Arc<Pool> {
    Arc::new(Pool::new(asked("fake"), sightline_engine_fake::model(options)).unwrap())
}

/// Waits for its turn.
fn enter<T, P>(gate: &Gate<T, P>, deadline: Option<Instant>) -> (Inside<'_, T, P>, Duration) {
    match gate.enter(0, deadline, || None) {
        (Entered::Inside(inside, _), waited) => (inside, waited),
        (Entered::Done(_), _) => panic!("nothing was offered"),
    }
}

/// Runs a graph on these values, one for all elements of an input, and gives every bit of its outputs.
fn run(engine: &mut dyn Engine, value: f32) -> Result<Vec<u32>, EngineError> {
    let io = engine.io().clone();
    let shape = |dims: &[Dim]| -> Vec<usize> {
        dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 1 }).collect()
    };
    let sized = |ports: &[sightline_engine_api::Port]| -> Vec<(Vec<usize>, Vec<f32>)> {
        let shapes = ports.iter().map(|port| shape(&port.dims));
        shapes.map(|dims| (dims.clone(), vec![value; dims.iter().product()])).collect()
    };
    let (given, mut results) = (sized(&io.inputs), sized(&io.outputs));
    let inputs: Vec<TensorRef<'_>> =
        given.iter().map(|(dims, data)| TensorView::f32(dims, data).unwrap().into()).collect();
    let mut outputs: Vec<TensorMut<'_>> =
        results.iter_mut().map(|(dims, data)| TensorViewMut::f32(dims, data).unwrap().into()).collect();
    engine.run(&inputs, &mut outputs)?;
    drop(outputs);
    Ok(results.into_iter().flat_map(|(_, data)| data).map(f32::to_bits).collect())
}

/// Waits for what another thread is about to do.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn the_earliest_deadline_goes_next_and_of_equal_ones_who_came_first() {
    let gate = Gate::<(), ()>::new((), None);
    let now = Instant::now();
    let ms = |ms| Some(now + Duration::from_millis(ms));
    // By arrival: a name and a deadline.
    let arrivals = [
        ("c", ms(300)),
        ("none", None),
        ("a", ms(100)),
        ("never", ms(9_000_000)),
        ("b1", ms(200)),
        ("b2", ms(200)),
    ];
    let (said, order) = mpsc::channel();
    thread::scope(|scope| {
        let (inside, waited) = enter(&gate, None);
        assert!(waited < Duration::from_millis(500), "nobody was there");
        for (count, (name, deadline)) in arrivals.into_iter().enumerate() {
            let (gate, said) = (&gate, said.clone());
            scope.spawn(move || {
                let (_inside, waited) = enter(gate, deadline);
                said.send((name, waited)).unwrap();
            });
            until("it waits", || gate.waiting() == count + 1);
        }
        drop(inside);
    });
    drop(said);
    let order: Vec<_> = order.iter().collect();
    assert!(order.iter().all(|(_, waited)| *waited > Duration::ZERO));
    let names: Vec<_> = order.into_iter().map(|(name, _)| name).collect();
    // Without a deadline, or with one that is very late, it is a second after the arrival.
    assert_eq!(names, ["a", "b1", "b2", "c", "none", "never"]);
}

#[test]
fn who_has_no_deadline_is_overtaken_for_a_second_only() {
    let gate = Gate::<(), ()>::new((), None);
    let (overtaken, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let began = Instant::now();
    thread::scope(|scope| {
        let (inside, _) = enter(&gate, None);
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Always due at once, and always another one waiting.
                    let (_inside, _) = enter(&gate, Some(Instant::now()));
                    overtaken.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        until("both wait", || gate.waiting() == 2);
        scope.spawn(|| {
            let _inside = enter(&gate, None);
            stop.store(true, Ordering::Relaxed);
        });
        until("it waits", || gate.waiting() == 3);
        drop(inside);
    });
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(overtaken.load(Ordering::Relaxed) > 20, "{overtaken:?}: deadlines count");
}

/// Sessions whose frames are due one after another, all behind: none may run ahead.
#[test]
fn sessions_that_are_all_behind_share_evenly() {
    let handle = FakeHandle::new();
    handle.delay(GraphName::MemoryEncoder, Duration::from_millis(1));
    let options = FakeOptions { handle, ..FakeOptions::default() };
    share_evenly(fake(options.clone()), Duration::from_millis(30));
    // Two together at most, so that somebody is always left to wait.
    share_evenly(together::batching(options, 2), Duration::ZERO);
}

fn share_evenly(pool: Arc<Pool>, waits: Duration) {
    const SESSIONS: usize = 4;
    const FRAMES: u32 = 60;
    let (begin, done) = (Barrier::new(SESSIONS), [const { AtomicUsize::new(0) }; SESSIONS]);
    let (waited, least) = (Mutex::new(Vec::new()), Mutex::new(usize::MAX));
    let start = Instant::now();
    thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (pool, begin, done, waited, least) = (&pool, &begin, &done, &waited, &least);
            scope.spawn(move || {
                let (mut model, turn) = pool.handles();
                begin.wait();
                for frame in 0..FRAMES {
                    turn.due(start + frame * Duration::from_millis(1));
                    run(&mut *model.memory_encoder, 0.5).unwrap();
                    done[session].fetch_add(1, Ordering::Relaxed);
                }
                let behind = done.iter().map(|done| done.load(Ordering::Relaxed)).min().unwrap();
                let mut least = least.lock().unwrap();
                *least = behind.min(*least);
                waited.lock().unwrap().push((turn.waited(), turn.waited()));
            });
        }
    });
    // The first to be done found the others nearly so.
    let least = least.into_inner().unwrap();
    assert!(least * 10 >= FRAMES as usize * 8, "one had {least} frames when another had all {FRAMES}");
    for (first, again) in waited.into_inner().unwrap() {
        assert!(first > waits, "others ran in between: {first:?}");
        assert_eq!(again, Duration::ZERO, "taken is taken");
    }
}

#[test]
fn graphs_run_at_the_same_time_and_halves_have_deadlines_of_their_own() {
    let handle = FakeHandle::new();
    let pool = fake(FakeOptions { handle: handle.clone(), ..FakeOptions::default() });
    let (mut one, turn) = pool.handles();
    let (mut other, _) = pool.handles();
    handle.hold(GraphName::ImageEncoder);
    thread::scope(|scope| {
        scope.spawn(move || run(&mut *one.image_encoder, 0.5).unwrap());
        until("it is inside", || handle.runs(GraphName::ImageEncoder) == 1);
        run(&mut *other.memory_encoder, 0.5).expect("another graph does not wait for the encoder");
        handle.release(GraphName::ImageEncoder);
    });
    let (encoder, tracker) = turn.split();
    let (soon, late) = (Instant::now(), Instant::now() + Duration::from_millis(10));
    turn.due(soon);
    encoder.due(late);
    assert_eq!(turn.deadline(GraphName::ImageEncoder), Some(late));
    assert_eq!(turn.deadline(GraphName::DecoderTrack), Some(soon));
    turn.waited();
    turn.add(GraphName::MemoryAttention, Duration::from_millis(3));
    assert_eq!((encoder.waited(), tracker.waited()), (Duration::ZERO, Duration::from_millis(3)));
}

#[test]
fn shared_engines_give_what_unshared_ones_do() {
    let pool = fake(FakeOptions::default());
    let mut alone = sightline_engine_fake::model(FakeOptions::default());
    let values = [0.0, 0.25, -0.5, 1.0];
    let mut wanted = |value| run(&mut *alone.image_encoder, value).unwrap();
    let wanted = values.map(&mut wanted);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (pool, wanted) = (&pool, &wanted);
            scope.spawn(move || {
                let (mut model, _) = pool.handles();
                for round in 0..40 {
                    let at = round % values.len();
                    assert_eq!(run(&mut *model.image_encoder, values[at]).unwrap(), wanted[at]);
                }
            });
        }
    });
    let (model, _) = pool.handles();
    assert_eq!(model.spec, alone.spec);
    for (mine, theirs) in
        [(&model.decoder_prompt, &alone.decoder_prompt), (&model.memory_encoder, &alone.memory_encoder)]
    {
        assert_eq!(
            (mine.name(), mine.io(), mine.provider()),
            (theirs.name(), theirs.io(), theirs.provider())
        );
    }
    assert_eq!(model.mask_downsample.is_some(), alone.mask_downsample.is_some());
}

#[test]
fn a_failing_or_panicking_run_lets_the_next_one_in() {
    let faults = vec![Fault { graph: GraphName::ImageEncoder, run: 1 }];
    let pool = fake(FakeOptions { faults, ..FakeOptions::default() });
    let (mut model, _) = pool.handles();
    assert_eq!(run(&mut *model.image_encoder, 0.0).unwrap_err().kind(), Kind::Run);
    run(&mut *model.image_encoder, 0.0).expect("the next run is another one");

    let mut panicking = sightline_engine_fake::model(FakeOptions::default());
    let io = panicking.image_encoder.io().clone();
    let mut runs = 0;
    panicking.image_encoder = Box::new(FnEngine::new("image_encoder", io, move |_, _| {
        runs += 1;
        assert!(runs > 1, "the first run panics");
        Ok(())
    }));
    let pool = Arc::new(Pool::new(asked("fake"), panicking).unwrap());
    let ((mut one, _), (mut other, _)) = (pool.handles(), pool.handles());
    catch_unwind(AssertUnwindSafe(|| run(&mut *one.image_encoder, 0.0))).expect_err("it panics");
    run(&mut *other.image_encoder, 0.0).expect("others go on");
    run(&mut *one.image_encoder, 0.0).expect("and so does it");
}

#[test]
fn a_group_is_loaded_once_and_freed_with_its_last_model() {
    let loads = AtomicUsize::new(0);
    let load = || {
        loads.fetch_add(1, Ordering::Relaxed);
        Ok(sightline_engine_fake::model(FakeOptions::default()))
    };
    let loaded = || loads.load(Ordering::Relaxed);
    let (first, _) = join("once", asked("fake"), load).unwrap();
    let (second, turn) = join("once", asked("fake"), load).unwrap();
    let (elsewhere, _) = join("another", asked("fake"), load).unwrap();
    assert_eq!(loaded(), 2, "one a group");
    let other = Asked { options: LoadOptions { spinning: true, ..LoadOptions::default() }, ..asked("nano") };
    let error = join("once", other, load).unwrap_err();
    let message = "group \"once\": expected model \"fake\" with provider auto, threads as they are best, spinning \
                   false, got model \"nano\" with provider auto, threads as they are best, spinning true";
    assert_eq!((error.kind(), &*error.to_string()), (Kind::Model, message));
    drop(first);
    let group = || GROUPS.lock().unwrap().get("once").is_some_and(|pool| pool.strong_count() > 0);
    assert!(group(), "one handle holds it");
    drop(second);
    assert!(!group(), "a turn alone does not");
    drop((turn, elsewhere));
    let failed = join("once", asked("fake"), || Err(EngineError::new(Kind::Model, "a", "b", "c")));
    assert_eq!(failed.unwrap_err().to_string(), "a: expected b, got c");
    join("once", asked("nano"), load).expect("what failed has left nothing behind");
    assert_eq!(loaded(), 3);
}

#[test]
fn a_name_is_shared_as_it_is_loaded() {
    let options = LoadOptions::default();
    let (first, _) = shared("by-name", "fake", &options).unwrap();
    let (second, _) = shared("by-name", "fake", &options).unwrap();
    assert_eq!(first.spec, second.spec);
    assert_eq!(first.spec.image.width_px, SIDE_PX);
    let error = shared("by-name-2", "no-such-model", &options).unwrap_err();
    assert!(error.to_string().contains("no-such-model"), "{error}");
}
