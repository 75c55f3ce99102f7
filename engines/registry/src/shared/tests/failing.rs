//! What fails or panics together is that of one session only.

use sightline_core::{DType, ImageSpec};
use sightline_engine_api::{DeviceBuffer, DeviceMark, DeviceTensor, PictureRef, Port};
use sightline_engine_fake::{FakeDevice, Schedule};

use super::{together::meanwhile, *};

/// A graph that doubles, and refuses what is not a number, and more than `most` in its own way.
fn doubling(runs: Arc<Mutex<Vec<usize>>>, most: usize, refusal: Kind) -> Arc<Pool> {
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
            return Err(EngineError::new(refusal, "doubling", format!("at most {most}"), y.len() / 3));
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

#[test]
fn runs_that_fail_together_are_done_one_by_one() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 4, Kind::Interface);
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
    let pool = doubling(Arc::clone(&runs), 1, Kind::Interface);
    for _ in 0..2 {
        assert!(meanwhile(&pool, &[1.0, 2.0]).iter().all(Result::is_ok));
    }
    assert_eq!(*runs.lock().unwrap(), [2, 1, 1, 1, 1]);
}

#[test]
fn a_size_that_an_engine_refuses_leaves_the_smaller_ones() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 2, Kind::Interface);
    for _ in 0..2 {
        assert!(meanwhile(&pool, &[1.0, 2.0, 3.0, 4.0]).iter().all(Result::is_ok));
    }
    assert_eq!(*runs.lock().unwrap(), [4, 1, 1, 1, 1, 2, 2]);
}

#[test]
fn what_fails_again_and_again_is_made_smaller_and_then_given_up() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 1, Kind::Run);
    let sizes = || {
        assert!(meanwhile(&pool, &[1.0, 2.0, 3.0]).iter().all(Result::is_ok));
        runs.lock().unwrap().drain(..).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert_eq!(sizes(), [4, 1, 1, 1]);
    }
    // Who failed in company stays alone, so the third has none.
    for _ in 0..3 {
        assert_eq!(sizes(), [2, 1, 1, 1]);
    }
    assert_eq!(sizes(), [1, 1, 1], "not asked any more");
}

#[test]
fn failures_between_good_runs_are_forgotten() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 4, Kind::Run);
    for _ in 0..2 {
        for values in [[1.0, f32::NAN, 3.0], [1.0, f32::NAN, 3.0], [1.0, 2.0, 3.0]] {
            meanwhile(&pool, &values);
            assert_eq!(runs.lock().unwrap().drain(..).next(), Some(4));
        }
    }
}

#[test]
fn a_panic_together_is_that_of_who_is_to_blame() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let pool = doubling(Arc::clone(&runs), 4, Kind::Run);
    let ended = meanwhile(&pool, &[1.0, 1e9, 3.0]);
    let ends: Vec<_> = ended.iter().map(Result::is_ok).collect();
    assert_eq!(ends, [true, false, true]);
    assert_eq!(*runs.lock().unwrap(), [4, 1, 1, 1], "once together, then each alone");
    assert!(meanwhile(&pool, &[1.0, 2.0]).iter().all(Result::is_ok));
    assert_eq!(runs.lock().unwrap().last(), Some(&2));
}

#[test]
fn who_failed_in_company_invites_nobody() {
    let gate = Gate::<(), u32>::new((), None);
    let now = Instant::now();
    thread::scope(|scope| {
        let (mut inside, _) = enter(&gate, None);
        let gate = &gate;
        let waits = |ms, offer| {
            scope.spawn(move || match gate.enter(0, Some(now + Duration::from_millis(ms)), || Some(offer)) {
                (Entered::Inside(mut inside, back), _) => {
                    assert_eq!(back, Some(offer), "it comes back");
                    inside.invite(|_| true)
                }
                (Entered::Done(_), _) => panic!("nobody did it"),
            })
        };
        let failed = waits(1, 1);
        until("it waits", || gate.offered() == 1);
        assert_eq!(inside.invite(|_| true), 1);
        let newcomer = waits(2, 2);
        until("it waits, too", || gate.offered() == 1);
        drop(inside);
        assert_eq!(failed.join().unwrap(), 0, "the newcomer would have fitted");
        assert_eq!(newcomer.join().unwrap(), 0);
    });
}

#[test]
fn a_panic_in_an_offer_holds_nobody_up() {
    let gate = Gate::<(), ()>::new((), None);
    let (inside, _) = enter(&gate, None);
    let offering = || drop(gate.enter(0, Some(Instant::now()), || panic!("our bug")));
    catch_unwind(AssertUnwindSafe(offering)).expect_err("it panics");
    assert_eq!(gate.waiting(), 0, "its place is given up");
    thread::scope(|scope| {
        let next = scope.spawn(|| drop(enter(&gate, None)));
        until("it waits", || gate.waiting() == 1 || next.is_finished());
        drop(inside);
        until("it was inside", || next.is_finished());
    });
}

/// A device on which there is room for small things only.
#[derive(Debug)]
struct Small(FakeDevice);

impl DeviceOps for Small {
    fn device(&self) -> Device {
        self.0.device()
    }
    fn alloc(&self, bytes: usize) -> Result<Arc<dyn DeviceBuffer>, EngineError> {
        Err(EngineError::new(Kind::Unavailable, "small device", format!("{bytes} bytes"), "0 bytes left"))
    }
    fn owns(&self, buffer: &dyn DeviceBuffer) -> bool {
        self.0.owns(buffer)
    }
    fn mark(&self) -> Result<Arc<dyn DeviceMark>, EngineError> {
        self.0.mark()
    }
    fn record(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError> {
        self.0.record(stream, mark)
    }
    fn wait(&self, stream: Stream, mark: &dyn DeviceMark) -> Result<(), EngineError> {
        self.0.wait(stream, mark)
    }
    fn is_past(&self, mark: &dyn DeviceMark) -> Result<bool, EngineError> {
        self.0.is_past(mark)
    }
    fn order(&self, before: Stream, after: Stream) -> Result<(), EngineError> {
        self.0.order(before, after)
    }
    fn upload(&self, stream: Stream, from: TensorView<'_>, to: &DeviceTensor) -> Result<(), EngineError> {
        self.0.upload(stream, from, to)
    }
    fn copy(&self, stream: Stream, from: &DeviceTensor, to: &DeviceTensor) -> Result<(), EngineError> {
        self.0.copy(stream, from, to)
    }
    fn fill(&self, stream: Stream, value: f32, to: &DeviceTensor) -> Result<(), EngineError> {
        self.0.fill(stream, value, to)
    }
    fn clamp(
        &self,
        on: Stream,
        from: &DeviceTensor,
        limit: f32,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        self.0.clamp(on, from, limit, to)
    }
    fn round_to_bf16(&self, stream: Stream, tensor: &DeviceTensor) -> Result<(), EngineError> {
        self.0.round_to_bf16(stream, tensor)
    }
    fn add_channels(
        &self,
        stream: Stream,
        from: &DeviceTensor,
        values: &DeviceTensor,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        self.0.add_channels(stream, from, values, to)
    }
    fn preprocess(
        &self,
        stream: Stream,
        picture: &PictureRef<'_>,
        spec: &ImageSpec,
        to: &DeviceTensor,
    ) -> Result<(), EngineError> {
        self.0.preprocess(stream, picture, spec, to)
    }
    fn download(
        &self,
        stream: Stream,
        parts: &mut [(DeviceTensor, TensorViewMut<'_>)],
    ) -> Result<(), EngineError> {
        self.0.download(stream, parts)
    }
}

#[test]
fn a_device_without_room_for_batches_runs_one_by_one() {
    let device = FakeDevice::new(Schedule::First(vec![Stream::TRACK]), |_, _, _| Ok(()));
    let options = FakeOptions { batches: true, ..FakeOptions::default() };
    let mut model = device.model(sightline_engine_fake::model(options));
    model.device = Some(Arc::new(Small(device.clone())));
    let shared = SharedModel::new(model, None).expect("it goes without");
    let (mut handles, _) = shared.handles();
    super::together::give(&mut *handles.memory_encoder, &device, Stream::TRACK);
    assert_eq!(device.counts().runs, 1);
}
