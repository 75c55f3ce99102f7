//! The tracker on a device: what it waits for, where graphs write, and what is left when the device fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use sightline_core::{FrameResult, ObjectId, Picture, PixelFormat, Plane, TensorViewMut, TrackState};
use sightline_engine_api::{
    Device, DeviceOps, DevicePicture, DevicePlane, DeviceTensor, Engine, EngineError, GraphName,
    Kind as EngineKind, Model, PictureSource, Stream, TensorMut, ViewSpec,
};
use sightline_engine_fake::{
    DeviceCounts, FakeDevice, FakeHandle, FakeOptions, Fault, FnEngine, SIDE_PX, Schedule, model as fake,
    on_device,
};
use sightline_tracker::{Applied, At, Kind, Options, Pace, ProposalOptions, Session, Tracker};
use support::{
    click, corners,
    hashing::{Countdown, Family, SIDE, device},
    stamp,
};

const A: ObjectId = ObjectId(1);
const B: ObjectId = ObjectId(2);

fn lazy() -> FakeDevice {
    device(Schedule::First(vec![Stream::TRACK, Stream::ENCODE, Stream::COPY]))
}

fn options() -> Options {
    Options { history: 4, memory_bytes: 0, max_objects: 6 }
}

/// A red and a green square on grey, which move.
fn squares(index: u64) -> Vec<u8> {
    let side = SIDE_PX as u64;
    (0..side * side)
        .flat_map(|at| {
            let (x, y, shift) = (at % side, at / side, index / 2);
            let inside =
                |x0: u64, y0: u64| (x0 + shift..x0 + shift + 16).contains(&x) && (y0..y0 + 16).contains(&y);
            match (inside(4, 8), inside(8, 40)) {
                (true, _) => [220, 30, 30],
                (_, true) => [30, 220, 30],
                _ => [90, 90, 90],
            }
        })
        .collect()
}

fn seen<T>(rgb: &[u8], look: impl FnOnce(&Picture<'_>) -> T) -> T {
    let plane = Plane { data: rgb, stride_bytes: 3 * SIDE_PX };
    look(&Picture::new(PixelFormat::Rgb, SIDE_PX as u32, SIDE_PX as u32, &[plane]).unwrap())
}

fn square(session: &mut Session, index: u64) -> FrameResult {
    seen(&squares(index), |picture| session.process(stamp(index), picture)).unwrap()
}

/// The stream that passes for a decoder's.
const DECODER: Stream = Stream(9);

/// A frame in a decoder's memory, which may be fetched.
struct Decoded {
    there: DevicePicture,
    host: Vec<u8>,
    fetched: Cell<u32>,
}

impl Decoded {
    /// Still to be written when it is handed on.
    fn new(device: &FakeDevice, index: u64) -> Self {
        let host = squares(index);
        let buffer = device.lend(DECODER, host.clone());
        let side = SIDE_PX as u32;
        let rows = DevicePlane::Rows { offset_bytes: 0, stride_bytes: 3 * SIDE_PX };
        let there = DevicePicture::new(buffer, PixelFormat::Rgb, (side, side), &[rows]).unwrap();
        Self { there, host, fetched: Cell::new(0) }
    }
}

impl PictureSource for Decoded {
    fn size_px(&self) -> (u32, u32) {
        self.there.size_px()
    }
    fn on_device(&self, device: Device) -> Option<DevicePicture> {
        Some(self.there.clone()).filter(|there| there.device() == device)
    }
    fn on_host(&self) -> Result<Picture<'_>, EngineError> {
        self.fetched.set(self.fetched.get() + 1);
        let plane = Plane { data: &self.host, stride_bytes: 3 * SIDE_PX };
        Ok(Picture::new(PixelFormat::Rgb, SIDE_PX as u32, SIDE_PX as u32, &[plane])?)
    }
}

#[test]
fn a_picture_on_the_device_is_read_there() {
    // Whole, by parts, and encoded ahead; a model with a view keeps pictures, which are the host's.
    for (view, split) in [(false, false), (false, true), (true, false)] {
        let script = |device: Option<&FakeDevice>, lent: bool| {
            let mut model = match device {
                Some(device) => device.model(fake(FakeOptions::default())),
                None => fake(FakeOptions::default()),
            };
            if view {
                model.spec.view = Some(ViewSpec { margin: 1.5, min_side: 0.2 });
            }
            let mut session = Session::new(model, Options { memory_bytes: 1 << 20, ..options() }).unwrap();
            session.prompt(A, At::Next, corners(0.05, 0.1, 0.3, 0.4)).unwrap();
            let mut encoder = split.then(|| session.split().unwrap());
            let (mut said, mut fetched) = (Vec::new(), 0);
            for index in 0..12 {
                if index == 8 {
                    session.prompt_late(B, At::Frame(4), corners(0.1, 0.6, 0.5, 0.95)).unwrap();
                }
                let mut look = |picture: &dyn PictureSource| match &mut encoder {
                    Some(encoder) => {
                        let mut slot = encoder.slot();
                        encoder.run(picture, &mut slot).unwrap();
                        session.process_encoded(stamp(index), picture.size_px(), &mut slot).unwrap()
                    }
                    None => session.process(stamp(index), picture).unwrap(),
                };
                let result = match device.filter(|_| lent) {
                    Some(device) => {
                        let frame = Decoded::new(device, index);
                        let result = look(&frame);
                        fetched += frame.fetched.get();
                        result
                    }
                    None => seen(&squares(index), |picture| look(picture)),
                };
                assert!(index == 0 || result.objects[0].state == TrackState::Tracking);
                said.push(format!("{:?}", result.objects));
                let pace = Pace { now: Default::default(), within: None };
                said.push(format!("{:?}", session.catch_up(pace, (64, 64)).unwrap().0));
            }
            (said, fetched)
        };
        let (on_host, _) = script(None, false);
        for device in [lazy(), device(Schedule::Random(5))] {
            let (there, fetched) = script(Some(&device), true);
            assert_eq!(there, on_host, "view {view}, split {split}");
            assert_eq!(fetched, if view { 12 } else { 0 }, "view {view}: only what is kept");
            assert_eq!(device.counts().device_pictures, 12);
        }
        assert_eq!(script(Some(&lazy()), false), (on_host, 0));
    }
}

#[test]
fn a_picture_of_another_device_is_one_lost_frame() {
    let (ours, theirs) = (lazy(), lazy());
    let mut session = Session::new(ours.model(fake(FakeOptions::default())), options()).unwrap();
    session.prompt(A, At::Next, corners(0.05, 0.1, 0.3, 0.4)).unwrap();
    square(&mut session, 0);
    // It says that it is the same device, and is not.
    (0..64).for_each(|_| drop(theirs.alloc(1 << 20)));
    let error = session.process(stamp(1), &Decoded::new(&theirs, 1)).unwrap_err();
    assert_eq!(error.engine_error().map(|error| error.kind()), Some(EngineKind::Interface));
    assert!(error.to_string().contains("picture: expected memory of this device"), "{error}");
    assert_eq!(square(&mut session, 2).objects[0].state, TrackState::Tracking);
}

fn step(tracker: &mut Tracker, index: u64) -> Result<(), sightline_tracker::TrackerError> {
    let image: Vec<f32> = (0..3 * SIDE * SIDE).map(|at| (index * 31 + at as u64 % 17) as f32).collect();
    tracker.step(stamp(index), &image).map(drop)
}

#[test]
fn the_fake_model_gives_the_same_masks() {
    let script = |model: Model| {
        let mut session = Session::new(model, options()).unwrap();
        let mut said = Vec::new();
        for index in 0..40 {
            match index {
                1 => said.push(format!("{:?}", session.prompt(A, At::Next, corners(0.05, 0.1, 0.3, 0.4)))),
                3 => said.push(format!("{:?}", session.prompt(B, At::Next, click(0.3, 0.75)))),
                9 => said.push(format!("{:?}", session.prompt(A, At::Frame(6), click(0.2, 0.2)))),
                15 => {
                    let late = session.prompt_late(ObjectId(3), At::Frame(12), corners(0.1, 0.6, 0.5, 0.95));
                    said.push(format!("{late:?}"));
                }
                30 => said.push(format!("{:?}", session.remove(B))),
                _ => {}
            }
            let result = square(&mut session, index);
            let tracked = result.objects.iter().filter(|object| object.state == TrackState::Tracking).count();
            assert!(index < 3 || tracked >= 1, "frame {index}");
            said.push(format!("{:?} {:?}", result.outcome, result.objects));
            let pace = Pace { now: Default::default(), within: None };
            if session.tracker().behind().0 > 0 {
                let (late, _) = session.catch_up(pace, (64, 64)).unwrap();
                said.push(format!("{late:?}"));
            }
        }
        said
    };
    let on_host = script(fake(FakeOptions::default()));
    assert!(on_host.iter().any(|said| said.contains("Tracking")));
    let device = lazy();
    assert_eq!(script(device.model(fake(FakeOptions::default()))), on_host);
    // Whichever device it is.
    let ops: Arc<dyn DeviceOps> = Arc::new(lazy());
    assert_eq!(script(on_device(fake(FakeOptions::default()), &ops)), on_host);
}

#[test]
fn a_frame_is_waited_for_once_and_nothing_is_allocated() {
    for family in [Family::SAM2, Family { batch: true, ..Family::SAM2 }, Family::NANO] {
        let device = lazy();
        let model = family.model_on(&device, &Countdown::default());
        let mut tracker = Tracker::new(model, options()).unwrap();
        let start = device.counts();
        assert_eq!(start.downloads, 0, "nothing is waited for while it starts");
        let done = |tracker: &mut Tracker, index: u64| -> DeviceCounts {
            let before = device.counts();
            step(tracker, index).unwrap();
            let after = device.counts();
            assert_eq!(after.downloads - before.downloads, 1, "frame {index}");
            DeviceCounts { copies: after.copies - before.copies, ..after }
        };
        // New objects, a second prompt on the same frame, several objects, on one frame.
        for id in 0..5 {
            tracker.prompt(ObjectId(id), At::Next, corners(0.1, 0.1, 0.5, 0.5)).unwrap();
        }
        tracker.prompt(ObjectId(2), At::Next, click(0.3, 0.3)).unwrap();
        tracker.prompt(ObjectId(2), At::Next, click(0.4, 0.3)).unwrap();
        for index in 0..20 {
            done(&mut tracker, index);
        }
        assert_eq!(tracker.objects().count(), 5);
        // A frame moves one memory and one pointer an object, and what objects that ran together left to where it
        // belongs if that is not side by side.
        let copies = done(&mut tracker, 20).copies;
        let each = 1 + u64::from(family.pointers.is_some());
        assert!(copies <= 2 * each * 5, "{copies} copies");
        (1..5).for_each(|id| assert!(tracker.remove(ObjectId(id))));
        for index in 21..31 {
            let copies = done(&mut tracker, index).copies;
            // A memory that the gate keeps out, or that no frame looks back to yet, is not moved.
            let all = family.stride == 1 && index > 21;
            assert!(copies == each || !all && copies <= each, "of one object only what is new, {copies}");
        }
        // A correction waits once a frame it does over.
        let before = device.counts().downloads;
        let at = tracker.prompt(ObjectId(0), At::Frame(28), click(0.2, 0.2)).unwrap();
        assert_eq!(at, Applied::Now(stamp(28)));
        assert_eq!(device.counts().downloads - before, 3);
        let end = device.counts();
        assert_eq!((end.allocations, end.marks, end.waits), (start.allocations, start.marks, 0));
    }
}

type Written = Arc<Mutex<Vec<(DeviceTensor, &'static str)>>>;

/// The model, whose memory encoder and track decoder tell where they write.
fn watched(device: &FakeDevice, family: Family, written: &Written) -> Model {
    let host = family.model(&Countdown::default());
    let model = device.model(family.model(&Countdown::default()));
    let watch = |inner: Box<dyn Engine>, port: &'static str| {
        let (at, written) = (inner.io().output(port).unwrap(), Arc::clone(written));
        device.engine(inner, move |outputs| {
            if let TensorMut::Device(tensor) = &outputs[at] {
                written.lock().unwrap().push((tensor.clone(), port));
            }
            Ok(())
        })
    };
    Model {
        memory_encoder: watch(host.memory_encoder, "mem"),
        decoder_track: watch(host.decoder_track, "obj_ptr"),
        ..model
    }
}

#[test]
fn graphs_write_where_an_object_keeps_it() {
    let family = Family { batch: true, open_slots: true, ..Family::SAM2 };
    for objects in [1_u32, 2, 4] {
        let (device, written) = (lazy(), Written::default());
        let mut tracker = Tracker::new(watched(&device, family, &written), options()).unwrap();
        for id in 0..objects {
            tracker.prompt(ObjectId(id), At::Next, corners(0.1, 0.1, 0.5, 0.5)).unwrap();
        }
        step(&mut tracker, 0).unwrap();
        written.lock().unwrap().clear();
        (1..60).for_each(|index| step(&mut tracker, index).unwrap());
        let written = written.lock().unwrap();
        // `recent` memories, the history and the frame under way; pointers reach further back.
        for (port, size, slots) in [("mem", 6, 6 + 4 + 1), ("obj_ptr", 2, 15 + 4 + 1)] {
            let of_port = written.iter().filter(|(_, other)| *other == port).map(|(tensor, _)| tensor);
            let all: Vec<&DeviceTensor> = of_port.collect();
            assert_eq!(all.len(), 59, "one run a frame");
            let buffers: BTreeSet<u64> = all.iter().map(|tensor| tensor.buffer.address()).collect();
            let places: BTreeSet<usize> = all.iter().map(|tensor| tensor.offset_bytes).collect();
            assert_eq!((buffers.len(), places.len()), (1, slots), "{objects} objects, {port}");
            // Room for each object, its copy that catches up, and one more.
            let banks = 2 * options().max_objects + 1;
            assert_eq!(all[0].buffer.len_bytes(), 4 * size * slots * banks, "the bank itself");
            assert!(all.iter().all(|tensor| tensor.shape.elements() == size * objects as usize));
        }
    }
}

#[test]
fn what_fails_on_the_device_is_one_lost_frame() {
    for graph in [GraphName::MemoryAttention, GraphName::DecoderTrack, GraphName::MemoryEncoder] {
        let handle = FakeHandle::new();
        let host = FakeOptions { handle: handle.clone(), ..FakeOptions::default() };
        let device = lazy();
        let mut session = Session::new(device.model(fake(host)), options()).unwrap();
        session.prompt(A, At::Next, corners(0.05, 0.1, 0.3, 0.4)).unwrap();
        (0..8).for_each(|index| drop(square(&mut session, index)));
        handle.fail(Fault { graph, run: handle.runs(graph) + 1 });
        let plane = vec![90; 3 * SIDE_PX * SIDE_PX];
        let plane = Plane { data: &plane, stride_bytes: 3 * SIDE_PX };
        let picture = Picture::new(PixelFormat::Rgb, SIDE_PX as u32, SIDE_PX as u32, &[plane]).unwrap();
        // The picture is empty, too: nothing of it may stay.
        let error = session.process(stamp(8), &picture).unwrap_err();
        assert!(error.kind() == Kind::Engine && error.is_transient(), "{error}");
        assert!(error.to_string().starts_with(graph.as_str()), "{error}");
        let result = square(&mut session, 9);
        let host = Session::new(fake(FakeOptions::default()), options());
        let mut other = host.unwrap();
        other.prompt(A, At::Next, corners(0.05, 0.1, 0.3, 0.4)).unwrap();
        (0..8).for_each(|index| drop(square(&mut other, index)));
        assert_eq!(
            format!("{:?}", result.objects),
            format!("{:?}", square(&mut other, 9).objects),
            "{graph}"
        );
    }
}

#[test]
fn proposals_are_the_same() {
    let find = |model: Model| {
        let mut session = Session::new(model, options()).unwrap();
        (0..3).for_each(|index| drop(square(&mut session, index)));
        let mut proposer = session.propose(At::Frame(1), ProposalOptions::default(), &[]).unwrap();
        let second = session.propose(At::Frame(2), ProposalOptions::default(), &[]).map(drop);
        while !session.propose_step(&mut proposer).unwrap() {}
        (proposer.finish(), second)
    };
    let (on_host, second) = find(fake(FakeOptions::default()));
    assert!(second.is_ok() && !on_host.is_empty());
    let (on_device, second) = find(lazy().model(fake(FakeOptions::default())));
    assert_eq!(on_device, on_host);
    let said =
        "proposals: expected those of one frame at a time, as the model is on a device, got a second frame's";
    assert_eq!(second.unwrap_err().to_string(), said);
}

#[test]
fn a_frame_that_comes_while_one_is_looked_at_again_disturbs_nothing() {
    let find = |mut model: Model| {
        model.spec.view = Some(ViewSpec { margin: 1.5, min_side: 0.2 });
        let mut session = Session::new(model, Options { memory_bytes: 1 << 20, ..options() }).unwrap();
        session.prompt(A, At::Next, corners(0.05, 0.1, 0.3, 0.4)).unwrap();
        (0..3).for_each(|index| drop(square(&mut session, index)));
        // The whole picture is encoded again, and before anybody waits for that, the next one arrives.
        let mut proposer = session.propose(At::Frame(1), ProposalOptions::default(), &[]).unwrap();
        let result = square(&mut session, 7);
        while !session.propose_step(&mut proposer).unwrap() {}
        (proposer.finish(), format!("{:?}", result.objects))
    };
    let on_host = find(fake(FakeOptions::default()));
    let eager = device(Schedule::First(vec![Stream::COPY, Stream::TRACK, Stream::ENCODE]));
    assert_eq!(find(eager.model(fake(FakeOptions::default()))), on_host);
}

#[test]
fn a_number_that_is_none_reaches_no_memory() {
    let device = lazy();
    let mut host = Family::SAM2.model(&Countdown::default());
    let (io, mut inner) = (host.decoder_track.io().clone(), host.decoder_track);
    let (at, mut run) = (io.output("iou").unwrap(), 0);
    host.decoder_track = Box::new(FnEngine::new("decoder_track", io, move |inputs, outputs| {
        run += 1;
        inner.run(inputs, outputs)?;
        if let (5, TensorMut::Host(TensorViewMut::F32(_, iou))) = (run, &mut outputs[at]) {
            iou[0] = f32::NAN;
        }
        Ok(())
    }));
    let mut tracker = Tracker::new(device.model(host), options()).unwrap();
    tracker.prompt(A, At::Next, corners(0.1, 0.1, 0.5, 0.5)).unwrap();
    (0..5).for_each(|index| step(&mut tracker, index).unwrap());
    let error = step(&mut tracker, 5).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("finite numbers"), "{error}");
    assert_eq!(tracker.newest(), Some(stamp(4)));
    step(&mut tracker, 6).unwrap();
}

#[test]
fn an_engine_that_is_elsewhere_is_refused() {
    let device = lazy();
    let model = device.model(fake(FakeOptions::default()));
    let host = fake(FakeOptions::default());
    let mixed = Model { decoder_track: host.decoder_track, ..model };
    let error = Tracker::new(mixed, options()).unwrap_err();
    assert_eq!(error.engine_error().map(|error| error.kind()), Some(EngineKind::Interface));
    assert_eq!(error.to_string(), format!("decoder_track device: expected cuda:0, got {}", Device::Cpu));
}

#[test]
fn an_encoding_is_over_when_the_device_is_through_with_it() {
    let device = lazy();
    let mut session = Session::new(device.model(fake(FakeOptions::default())), options()).unwrap();
    let mut encoder = session.split().unwrap();
    let mut slot = encoder.slot();
    assert!(slot.encoding().is_over(), "nothing was begun");
    let grey = [90; 3 * SIDE_PX * SIDE_PX];
    let plane = Plane { data: &grey, stride_bytes: 3 * SIDE_PX };
    let picture = Picture::new(PixelFormat::Rgb, SIDE_PX as u32, SIDE_PX as u32, &[plane]).unwrap();
    encoder.run(&picture, &mut slot).unwrap();
    let encoding = slot.encoding();
    let looks = (0..50).take_while(|_| !encoding.is_over()).count();
    assert!((1..50).contains(&looks), "{looks}: not at once, and then it is");
    assert_eq!(device.counts().downloads, 0, "nobody waited");
    let mut on_host = Session::new(fake(FakeOptions::default()), options()).unwrap();
    let mut encoder = on_host.split().unwrap();
    encoder.run(&picture, &mut slot).expect_err("buffers of another place");
    let mut slot = encoder.slot();
    encoder.run(&picture, &mut slot).unwrap();
    assert!(slot.encoding().is_over());
}
