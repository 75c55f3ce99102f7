//! Masks that are made on a device are the host's, bit for bit, and little else comes from there.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use sightline_core::{ObjectId, ObjectResult, Picture, PixelFormat, Plane, TensorViewMut};
use sightline_engine_api::{Model, Stream, TensorMut};
use sightline_engine_fake::{FakeDevice, FnEngine, Schedule};
use sightline_tracker::{At, Encoded, Encoder, MaskCounts, Options, Output, Session, TrackerError};
use support::{
    click, corners,
    drawn::{Pattern, disc, drawn, mixed, striped},
    hashing::{Countdown, Family, SIDE, device},
    stamp,
};

/// Odd ones, one smaller than the logits, one of a single column, a wide and a high one.
const SIZES: [(u32, u32); 6] = [(61, 33), (16, 16), (7, 5), (1, 65), (200, 31), (33, 120)];

fn family(low: usize) -> Family {
    Family { batch: true, low, ..Family::SAM2 }
}

fn lazy() -> FakeDevice {
    device(Schedule::First(vec![Stream::TRACK, Stream::ENCODE, Stream::COPY]))
}

/// Frames of whatever size somebody says they have.
struct Run {
    session: Session,
    encoder: Encoder,
    slot: Encoded,
    next: u64,
}

impl Run {
    fn new(model: Model, objects: u32, output: Output) -> Self {
        let options = Options { history: 4, memory_bytes: 0, max_objects: 16 };
        let mut session = Session::with(model, options, output).unwrap();
        for id in 0..objects {
            let prompt = if id % 2 == 0 { corners(0.1, 0.2, 0.6, 0.7) } else { click(0.4, 0.5) };
            session.prompt(ObjectId(id), At::Next, prompt).unwrap();
        }
        let encoder = session.split().unwrap();
        let slot = encoder.slot();
        Self { session, encoder, slot, next: 0 }
    }

    fn frame(&mut self, size_px: (u32, u32)) -> Result<Vec<ObjectResult>, TrackerError> {
        let index = self.next;
        self.next += 1;
        let rgb: Vec<u8> =
            (0..3 * SIDE * SIDE).map(|at| (index as usize * 37 + at * (at % 23)) as u8).collect();
        let plane = Plane { data: &rgb, stride_bytes: SIDE * 3 };
        let picture = Picture::new(PixelFormat::Rgb, SIDE as u32, SIDE as u32, &[plane]).unwrap();
        self.encoder.run(&picture, &mut self.slot)?;
        let result = self.session.process_encoded(stamp(index), size_px, &mut self.slot)?;
        Ok(result.objects)
    }

    fn counts(&self) -> MaskCounts {
        self.session.tracker().mask_counts()
    }
}

fn host(pattern: Pattern, objects: u32) -> Run {
    Run::new(drawn(family(16).model(&Countdown::default()), pattern), objects, Output::default())
}

#[test]
fn they_are_the_hosts() {
    for objects in [1, 4, 16] {
        let device = lazy();
        let model = drawn(family(16).model(&Countdown::default()), mixed);
        let mut there = Run::new(device.model(model), objects, Output::default());
        let mut here = host(mixed, objects);
        let mut kinds = [0; 3];
        for index in 0..2 * SIZES.len() as u64 {
            let (size, before) = (SIZES[index as usize % SIZES.len()], device.counts());
            let (expected, got) = (here.frame(size).unwrap(), there.frame(size).unwrap());
            assert_eq!(got, expected, "{objects} objects, frame {index}");
            assert_eq!(device.counts().downloads - before.downloads, 1, "frame {index}");
            for object in &got {
                let (area, all) = (object.mask.area_px(), u64::from(size.0) * u64::from(size.1));
                kinds[if area == 0 {
                    0
                } else if area == all {
                    1
                } else {
                    2
                }] += 1;
            }
        }
        assert!(kinds.iter().all(|kind| *kind > 0), "empty, full and others: {kinds:?}");
        assert_eq!(there.counts(), MaskCounts { on_device: 12 * u64::from(objects), on_host: 0 });
        assert_eq!(here.counts(), MaskCounts::default());
    }
}

#[test]
fn one_with_more_runs_than_there_is_room_for_is_made_here() {
    let device = lazy();
    let model = drawn(family(16).model(&Countdown::default()), striped);
    let mut there = Run::new(device.model(model), 4, Output::default());
    let mut here = host(striped, 4);
    let mut waits = Vec::new();
    for index in 0..13 {
        let before = device.counts();
        let (expected, got) = (here.frame((61, 33)).unwrap(), there.frame((61, 33)).unwrap());
        assert_eq!(got, expected, "frame {index}");
        let most = got.iter().map(|object| object.mask.counts().len()).max().unwrap();
        assert_eq!(most > 4 * 61 + 1, (8..11).contains(&index), "frame {index}: {most} runs");
        let counts = device.counts();
        assert_eq!(counts.allocations, before.allocations, "frame {index}");
        waits.push(counts.downloads - before.downloads);
    }
    // The first of them is waited for a second time; while there are some, logits come along.
    assert_eq!(waits, [1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]);
    assert_eq!(there.counts(), MaskCounts { on_device: 4 * 13 - 3, on_host: 3 });
}

#[test]
fn pictures_of_too_many_pixels_have_theirs_made_here() {
    let device = lazy();
    let model = drawn(family(16).model(&Countdown::default()), disc);
    let (mut there, mut here) = (Run::new(device.model(model), 1, Output::default()), host(disc, 1));
    for size in [(64, 36), (4096, 2305), (64, 36)] {
        assert_eq!(there.frame(size).unwrap(), here.frame(size).unwrap());
    }
    assert_eq!(device.counts().downloads, 3);
    assert_eq!(there.counts(), MaskCounts { on_device: 2, on_host: 1 });
}

#[test]
fn few_bytes_come_from_the_device() {
    let frame = |low_res: bool| {
        let device = lazy();
        let model = drawn(family(256).model(&Countdown::default()), disc);
        let mut run = Run::new(device.model(model), 16, Output { low_res, ..Output::default() });
        run.frame((16, 16)).unwrap();
        let before = device.counts();
        let objects = run.frame((1280, 720)).unwrap();
        let after = device.counts();
        assert_eq!(after.downloads - before.downloads, 1);
        assert_eq!(after.allocations, before.allocations);
        (objects, after.downloaded_bytes - before.downloaded_bytes)
    };
    let ((masks, small), (same, large)) = (frame(false), frame(true));
    assert_eq!(masks, same);
    assert!(masks.iter().all(|object| object.mask.area_px() > 50_000));
    // Scores and IoUs of four runs; then 8 words of head and 5121 of runs, made even, or 65536 logits an object.
    assert_eq!(small, 4 * 512 + 16 * 4 * 5130);
    assert_eq!(large, 4 * 512 + 16 * 4 * 65_536);
}

#[test]
fn they_are_made_later_too() {
    let device = lazy();
    let model = || drawn(family(16).model(&Countdown::default()), disc);
    let (mut there, mut here) = (Run::new(device.model(model()), 4, Output::default()), host(disc, 4));
    for _ in 0..5 {
        assert_eq!(there.frame((61, 33)).unwrap(), here.frame((61, 33)).unwrap());
    }
    let results = |run: &mut Run, size: (u32, u32)| run.session.results(size.0, size.1);
    // As they are, at another size, and after a correction that changes one of them.
    for (size, made, waits) in [((61, 33), 0, 0), ((20, 90), 4, 1), ((20, 90), 0, 0)] {
        let (counts, before) = (there.counts(), device.counts());
        assert_eq!(results(&mut there, size).unwrap(), results(&mut here, size).unwrap());
        assert_eq!(there.counts().on_host - counts.on_host, made, "{size:?}");
        assert_eq!(device.counts().downloads - before.downloads, waits, "{size:?}");
    }
    for run in [&mut there, &mut here] {
        run.session.prompt(ObjectId(2), At::Frame(3), click(0.3, 0.3)).unwrap();
    }
    let counts = there.counts();
    assert_eq!(results(&mut there, (20, 90)).unwrap(), results(&mut here, (20, 90)).unwrap());
    assert_eq!(there.counts().on_host - counts.on_host, 1);
    let errors = [results(&mut there, (0, 5)), results(&mut here, (0, 5))].map(Result::unwrap_err);
    assert_eq!(errors[0].kind(), errors[1].kind());
    assert_eq!(errors[0].to_string(), errors[1].to_string());
}

#[test]
fn a_logit_that_is_no_number_is_one_lost_frame() {
    let device = lazy();
    let mut host = drawn(family(16).model(&Countdown::default()), disc);
    let (io, mut inner) = (host.decoder_track.io().clone(), host.decoder_track);
    let (at, mut run) = (io.output("low_res_mask").unwrap(), 0);
    host.decoder_track = Box::new(FnEngine::new("decoder_track", io, move |inputs, outputs| {
        run += 1;
        inner.run(inputs, outputs)?;
        if let (3 | 5, TensorMut::Host(TensorViewMut::F32(_, logits))) = (run, &mut outputs[at]) {
            logits[16 * 16 + 77] = if run == 3 { f32::NAN } else { f32::NEG_INFINITY };
        }
        Ok(())
    }));
    let mut there = Run::new(device.model(host), 2, Output::default());
    for index in 0..8 {
        // The first frame is the prompt decoder's.
        let lost = matches!(index, 3 | 5);
        match there.frame((61, 33)) {
            Ok(_) => assert!(!lost, "frame {index}"),
            Err(error) => {
                assert!(lost && error.is_transient(), "frame {index}: {error}");
                let said = "decoder outputs: expected finite numbers, got a mask logit that is none";
                assert_eq!(error.to_string(), said);
            }
        }
    }
}
