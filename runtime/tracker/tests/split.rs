//! A session split in two, pipelined over two threads, is the session it was: every bit of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use sightline_core::{ObjectId, Picture, PixelFormat, Plane, TrackState};
use sightline_engine_api::{DeviceOps, Engine, EngineError, Kind as EngineKind, Model, Stream, ViewSpec};
use sightline_engine_fake::{FakeDevice, FnEngine, Schedule};
use sightline_tracker::{At, Encoded, Encoder, Kind, Options, Output, Pace, Session, TrackerError};
use support::{
    click, corners,
    hashing::{Countdown, Family, SIDE, device},
    stamp,
};

const A: ObjectId = ObjectId(1);
const B: ObjectId = ObjectId(2);
const FRAMES: u64 = 60;

/// An error on these runs, counted from 0.
fn faults(name: &str, at: &'static [u64]) -> impl FnMut() -> Result<(), EngineError> + Send + 'static {
    let (name, mut runs) = (name.to_owned(), 0);
    move || {
        runs += 1;
        match at.contains(&(runs - 1)) {
            true => Err(EngineError::new(EngineKind::Run, &name, "no fault", "a fault")),
            false => Ok(()),
        }
    }
}

/// The engine, but for these runs of it, which fail; on the device if there is one.
fn faulty(mut engine: Box<dyn Engine>, at: &'static [u64], device: Option<&FakeDevice>) -> Box<dyn Engine> {
    let (name, io) = (engine.name().to_owned(), engine.io().clone());
    let mut fault = faults(&name, at);
    if let Some(device) = device {
        return device.engine(engine, move |_| fault());
    }
    Box::new(FnEngine::new(name, io, move |inputs, outputs| {
        engine.run(inputs, outputs)?;
        fault()
    }))
}

/// Encoding fails on frames 7 and 30 (of a prompt, too), tracking once in between.
fn model(family: Family, view: Option<ViewSpec>, device: Option<&FakeDevice>) -> Model {
    let mut model = family.model(&Countdown::default());
    model.spec.view = view;
    let ports = (model.image_encoder, model.decoder_track);
    Model {
        image_encoder: faulty(ports.0, &[7, 30], device),
        decoder_track: faulty(ports.1, &[9, 20], device),
        memory_attention: faulty(model.memory_attention, &[], device),
        decoder_prompt: faulty(model.decoder_prompt, &[], device),
        memory_encoder: faulty(model.memory_encoder, &[], device),
        mask_downsample: model.mask_downsample.map(|engine| faulty(engine, &[], device)),
        device: device.map(|device| Arc::new(device.clone()) as Arc<dyn DeviceOps>),
        spec: model.spec,
    }
}

fn options() -> Options {
    Options { history: 4, memory_bytes: 20 * 4 * 13, max_objects: 4 }
}

fn rgb(index: u64) -> Vec<u8> {
    (0..3 * SIDE * SIDE).map(|at| (index as usize * 37 + at * (at % 23)) as u8).collect()
}

fn with_picture<T>(index: u64, see: impl FnOnce(&Picture<'_>) -> T) -> T {
    let rgb = rgb(index);
    let plane = Plane { data: &rgb, stride_bytes: SIDE * 3 };
    see(&Picture::new(PixelFormat::Rgb, SIDE as u32, SIDE as u32, &[plane]).unwrap())
}

/// What is done before a frame.
fn act(session: &mut Session, index: u64) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |what: String| said.push(what);
    match index {
        2 => say(format!("{:?}", session.prompt(A, At::Next, corners(0.1, 0.1, 0.6, 0.7)))),
        // The frame it waits for is lost; it is given on the next.
        7 => say(format!("{:?}", session.prompt(B, At::Next, click(0.5, 0.5)))),
        12 => say(format!("{:?}", session.prompt(A, At::Frame(10), click(0.4, 0.4)))),
        18 => session.set_remembering(false),
        22 => session.set_remembering(true),
        25 => {
            say(format!("{:?}", session.prompt_late(ObjectId(3), At::Frame(14), corners(0.0, 0.0, 0.5, 0.5))))
        }
        35 => say(format!("{:?}", session.remove(B))),
        36 => say(format!("{:?}", session.prompt(B, At::Frame(34), click(0.3, 0.8)))),
        45 => session.forget_frames(),
        50 => session.reset(),
        52 => say(format!("{:?}", session.prompt(A, At::Next, click(0.2, 0.3)))),
        _ => {}
    }
    let pace = Pace { now: Duration::ZERO, within: None };
    // Two units a frame, or it would never catch up.
    for _ in 0..2 {
        if session.tracker().behind().0 == 0 {
            break;
        }
        let (late, progress) = session.catch_up(pace, (SIDE as u32, SIDE as u32)).unwrap();
        say(format!("{late:?} {progress:?}"));
    }
    said
}

/// All there is to know after a frame, but for times.
fn state(
    session: &Session,
    result: Result<sightline_core::FrameResult, TrackerError>,
    low_res: bool,
) -> String {
    let result = result.map(|result| (result.frame, result.outcome, result.objects));
    let bits = |object: sightline_tracker::ObjectView<'_>| -> (u32, TrackState, Vec<u32>) {
        let logits = object.low_res.iter().filter(|_| low_res);
        (object.id.0, object.state, logits.map(|logit| logit.to_bits()).collect())
    };
    format!("{result:?} {:?}", session.tracker().objects().map(bits).collect::<Vec<_>>())
}

fn session(model: Model, low_res: bool) -> Session {
    Session::with(model, options(), Output { low_res, ..Output::default() }).unwrap()
}

fn alone(model: Model, low_res: bool) -> Vec<String> {
    let mut session = session(model, low_res);
    let mut states = Vec::new();
    for index in 0..FRAMES {
        states.extend(act(&mut session, index));
        let result = with_picture(index, |picture| session.process(stamp(index), picture));
        states.push(state(&session, result, low_res));
    }
    states
}

fn pipelined(model: Model, low_res: bool) -> Vec<String> {
    let mut session = session(model, low_res);
    let mut encoder = session.split().expect("it is not shown views");
    let (full, fulls) = mpsc::sync_channel::<(u64, Result<(), TrackerError>, Encoded)>(1);
    let (empty, empties) = mpsc::sync_channel(2);
    (0..2).for_each(|_| empty.send(encoder.slot()).unwrap());
    let ahead = thread::spawn(move || {
        for index in 0..FRAMES {
            let mut slot = empties.recv().unwrap();
            let encoded = with_picture(index, |picture| encoder.run(picture, &mut slot));
            full.send((index, encoded, slot)).unwrap();
        }
    });
    let mut states = Vec::new();
    for (index, encoded, mut slot) in fulls {
        states.extend(act(&mut session, index));
        let size_px = (SIDE as u32, SIDE as u32);
        let result = encoded.and_then(|()| session.process_encoded(stamp(index), size_px, &mut slot));
        states.push(state(&session, result, low_res));
        // The last slots find nobody.
        let _ = empty.send(slot);
    }
    ahead.join().unwrap();
    states
}

#[test]
fn split_and_pipelined_it_is_the_same_bit_for_bit() {
    for family in [Family::SAM2, Family::NANO] {
        let model = || model(family, None, None);
        let (alone, pipelined) = (alone(model(), true), pipelined(model(), true));
        for (one, other) in alone.iter().zip(&pipelined) {
            assert_eq!(one, other);
        }
        assert_eq!(alone.len(), pipelined.len());
        let failed = alone.iter().filter(|state| state.contains("a fault")).count();
        assert_eq!(failed, 4, "two frames of the encoder and two of the decoder");
        assert!(alone.iter().any(|state| state.contains("live: [ObjectId(3)]")), "the late one joins");
    }
}

/// The streams that go first where more than one may, and by lot.
fn schedules() -> impl Iterator<Item = Schedule> {
    let (copy, encode, track) = (Stream::COPY, Stream::ENCODE, Stream::TRACK);
    let orders = [[copy, encode, track], [track, encode, copy], [encode, track, copy], [track, copy, encode]];
    orders.map(|order| Schedule::First(order.to_vec())).into_iter().chain((0..4).map(Schedule::Random))
}

#[test]
fn on_a_device_it_is_the_same_bit_for_bit() {
    for (family, view) in [
        (Family::SAM2, None),
        (Family { batch: true, open_slots: true, ..Family::SAM2 }, None),
        // Noise of so many rows: masks of more runs than a device has room for, wherever they are made.
        (Family { batch: true, low: 16, ..Family::SAM2 }, None),
        (Family::NANO, None),
        (Family::NANO, Some(ViewSpec { margin: 2.0, min_side: 0.1 })),
    ] {
        let on_host = [false, true].map(|low_res| alone(model(family, view, None), low_res));
        for (at, schedule) in schedules().enumerate() {
            let devices = [device(schedule.clone()), device(schedule)];
            // Logits come to the host, or masks alone.
            let low_res = at % 2 == 1;
            let on_host = &on_host[usize::from(low_res)];
            let on_device = alone(model(family, view, Some(&devices[0])), low_res);
            for (one, other) in on_host.iter().zip(&on_device) {
                assert_eq!(one, other);
            }
            if view.is_none() {
                let pipelined = pipelined(model(family, None, Some(&devices[1])), low_res);
                for (one, other) in on_host.iter().zip(&pipelined) {
                    assert_eq!(one, other);
                }
            }
            assert!(devices.iter().all(|device| device.counts().waits == 0));
        }
    }
}

fn encode(encoder: &mut Encoder, slot: &mut Encoded, index: u64) -> Result<(), TrackerError> {
    with_picture(index, |picture| encoder.run(picture, slot))
}

#[test]
fn what_cannot_be_split_or_was_not_encoded_is_refused() {
    let view = Some(ViewSpec { margin: 2.0, min_side: 0.1 });
    let mut viewed = Family::NANO.model(&Countdown::default());
    viewed.spec.view = view;
    let mut session = Session::new(viewed, options()).unwrap();
    assert!(session.split().is_none(), "what is shown depends on the frame before");
    with_picture(0, |picture| session.process(stamp(0), picture)).expect("and nothing has changed");

    let mut session = Session::new(Family::SAM2.model(&Countdown::default()), options()).unwrap();
    let mut encoder = session.split().unwrap();
    assert!(session.split().is_none(), "once");
    let error = with_picture(0, |picture| session.process(stamp(0), picture)).unwrap_err();
    assert_eq!(error.kind(), Kind::Options);
    assert!(error.to_string().contains("split off"), "{error}");

    let (mut slot, size_px) = (encoder.slot(), (SIDE as u32, SIDE as u32));
    let error = session.process_encoded(stamp(0), size_px, &mut slot).unwrap_err();
    let empty = "encoded frame: expected one that the encoder has filled, got an empty one";
    assert_eq!((error.kind(), &*error.to_string()), (Kind::Picture, empty));
    encode(&mut encoder, &mut slot, 0).unwrap();
    let result = session.process_encoded(stamp(0), size_px, &mut slot).unwrap();
    assert!(
        result.stages.image_encoder > Duration::ZERO && result.stages.image_encoder == slot.image_encoder()
    );
    let error = session.process_encoded(stamp(1), size_px, &mut slot).unwrap_err();
    assert_eq!(error.to_string(), empty, "a slot holds one frame once");

    // Another model's buffers, on either side.
    let mut other = Session::new(sightline_engine_fake::model(Default::default()), options()).unwrap();
    let mut foreign = other.split().unwrap().slot();
    let error = encode(&mut encoder, &mut foreign, 1).unwrap_err();
    assert!(error.to_string().starts_with("encoded frame: expected levels of ["), "{error}");
    encode(&mut encoder, &mut slot, 1).unwrap();
    assert_eq!(other.process_encoded(stamp(1), size_px, &mut slot).unwrap_err().kind(), Kind::Picture);
}
