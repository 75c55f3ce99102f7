//! Objects that come, go, are corrected, lost and found; prompts that cannot be; engines that fail.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{sync::Arc, time::Duration};

use sightline_core::{
    NormPoint, ObjectId, Outcome, Picture, PixelFormat, Plane, Point, PointLabel, Prompt, TrackState,
};
use sightline_engine_api::GraphName;
use sightline_engine_fake::{FakeOptions, Fault, SIDE_PX, model};
use sightline_tracker::{Applied, At, Kind, Options, Session, Tracker};
use support::{
    click, corners,
    hashing::{Countdown, Family},
    mask, stamp,
};

const RED: [u8; 3] = [255, 0, 0];
const BLUE: [u8; 3] = [0, 0, 255];

/// A grey picture with 16x16 squares at `(x, y)`.
fn picture(squares: &[(usize, usize, [u8; 3])]) -> Vec<u8> {
    let mut rgb = vec![96; SIDE_PX * SIDE_PX * 3];
    for (x0, y0, colour) in squares {
        for y in *y0..*y0 + 16 {
            for x in *x0..*x0 + 16 {
                rgb[(y * SIDE_PX + x) * 3..][..3].copy_from_slice(colour);
            }
        }
    }
    rgb
}

fn image(squares: &[(usize, usize, [u8; 3])]) -> Vec<f32> {
    let rgb = picture(squares);
    let channel =
        |channel: usize| rgb.iter().skip(channel).step_by(3).map(|v| (f32::from(*v) / 255.0 - 0.5) / 0.5);
    (0..3).flat_map(channel).collect()
}

fn tracker(options: FakeOptions) -> Tracker {
    Tracker::new(model(options), Options { history: 4, max_objects: 2, ..Options::default() }).unwrap()
}

fn at(x: usize, y: usize) -> Prompt {
    click((x + 8) as f32 / SIDE_PX as f32, (y + 8) as f32 / SIDE_PX as f32)
}

#[test]
fn objects_come_and_go_at_any_time() {
    let mut session = Session::new(model(FakeOptions::default()), Options::default()).unwrap();
    assert!(session.tracker().is_idle());
    let (red, blue) = (ObjectId(9), ObjectId(2));
    let show = |session: &mut Session, index: u64, squares: &[(usize, usize, [u8; 3])]| {
        let rgb = picture(squares);
        let plane = Plane { data: &rgb, stride_bytes: SIDE_PX * 3 };
        let side = SIDE_PX as u32;
        let picture = Picture::new(PixelFormat::Rgb, side, side, &[plane]).unwrap();
        session.process(stamp(index), &picture).unwrap()
    };
    let seen = |result: &sightline_core::FrameResult| -> Vec<(u32, TrackState, Option<[i32; 2]>)> {
        let corner = |bounds: sightline_core::NormBox| {
            [bounds.x0, bounds.y0].map(|v| (v * SIDE_PX as f32).round() as i32)
        };
        result.objects.iter().map(|o| (o.id.0, o.state, o.bounds.map(corner))).collect()
    };
    let both = [(0, 0, RED), (32, 32, BLUE)];
    let result = show(&mut session, 0, &both);
    assert_eq!((result.outcome, result.objects.len()), (Outcome::NoObject, 0));

    assert_eq!(session.prompt(red, At::Next, at(0, 0)).unwrap(), Applied::Pending);
    assert!(!session.tracker().is_idle());
    let result = show(&mut session, 1, &both);
    assert_eq!(result.outcome, Outcome::Masks);
    assert_eq!(seen(&result), [(9, TrackState::Tracking, Some([0, 0]))]);
    assert!(
        result
            .stages
            .named()
            .iter()
            .all(|(name, time)| *name == "queue" || *name == "memory_attention" || *time > Duration::ZERO)
    );

    // A late one, for the frame before; it is there at once, and the results are in the order of the ids.
    assert_eq!(session.prompt(blue, At::Frame(0), at(32, 32)).unwrap(), Applied::Now(stamp(0)));
    assert_eq!(session.results(64, 64).unwrap().len(), 2);
    let result = show(&mut session, 2, &[(8, 0, RED), (32, 40, BLUE)]);
    let wanted = [(2, TrackState::Tracking, Some([32, 40])), (9, TrackState::Tracking, Some([8, 0]))];
    assert_eq!(seen(&result), wanted);

    // Out of sight and back.
    let result = show(&mut session, 3, &[(32, 40, BLUE)]);
    assert_eq!(result.objects[1].state, TrackState::Lost);
    assert!(result.objects[1].score < 0.5 && result.objects[1].mask.area_px() == 0);
    assert_eq!(result.outcome, Outcome::Masks, "blue is there");
    let result = show(&mut session, 4, &[(40, 0, RED)]);
    assert_eq!(seen(&result)[1], (9, TrackState::Tracking, Some([40, 0])));

    // Corrected to another object.
    assert_eq!(
        session.prompt(blue, At::RunningTime(Duration::from_millis(160)), at(40, 0)).unwrap(),
        Applied::Now(stamp(4))
    );
    assert_eq!(session.results(64, 64).unwrap()[0].state, TrackState::Tracking);

    assert!(session.remove(red) && !session.remove(red));
    assert_eq!(show(&mut session, 5, &both).objects.len(), 1);
    session.clear();
    assert!(session.tracker().is_idle());
    session.reset();
    assert_eq!(
        session.prompt(red, At::Frame(5), at(0, 0)).unwrap(),
        Applied::Pending,
        "frame 5 is forgotten"
    );
    assert_eq!(show(&mut session, 5, &both).objects.len(), 1, "and may come again after a flush");
}

#[test]
fn a_late_prompt_is_one_in_time() {
    for (name, prompt) in [
        ("click", at(0, 0)),
        ("box", corners(0.0, 0.0, 0.3, 0.3)),
        ("mask", mask(64, 64, |x, y| x < 16 && y < 16)),
    ] {
        let family = Family::SAM2;
        let run = |late: bool| {
            let mut tracker = Tracker::new(family.model(&Countdown::default()), Options::default()).unwrap();
            let mut masks = Vec::new();
            for index in 0..20_u64 {
                if !late && index == 3 {
                    tracker.prompt(ObjectId(1), At::Next, prompt.clone()).unwrap();
                }
                let image: Vec<f32> = (0..3 * 16 * 16).map(|at| (index * 7 + at) as f32).collect();
                tracker.step(stamp(index), &image).unwrap();
                if !late && index == 8 || late && index == 11 {
                    tracker.prompt(ObjectId(1), At::Frame(8), click(0.5, 0.5)).unwrap();
                }
                if late && index == 10 {
                    // The correction of frame 8 comes after this, as it did in time.
                    tracker.prompt(ObjectId(1), At::Frame(3), prompt.clone()).unwrap();
                }
                masks.push(tracker.objects().next().map(|object| object.low_res.to_vec()));
            }
            masks
        };
        let (in_time, late) = (run(false), run(true));
        assert!(in_time[12] != in_time[13] && in_time[12].is_some(), "{name}");
        assert_eq!(in_time[11..], late[11..], "{name}");
    }
}

#[test]
fn prompts_that_cannot_be() {
    let mut tracker = tracker(FakeOptions::default());
    let points = |x: f32, y: f32| {
        let point = Point { at: NormPoint { x, y }, label: PointLabel::Negative };
        Prompt::Points { points: vec![point], within: None }
    };
    for (name, prompt, message) in [
        ("no points", Prompt::Points { points: vec![], within: None }, "expected 1 to 255, got 0"),
        ("left of the picture", points(-0.1, 0.5), "point: expected x and y in 0..=1"),
        ("not a number", points(0.5, f32::NAN), "got (0.5, NaN)"),
        ("inside out", corners(0.5, 0.5, 0.4, 0.6), "box: expected x0 < x1 and y0 < y1"),
        ("outside", corners(0.5, 0.5, 1.4, 0.6), "all in 0..=1"),
        ("embedding", Prompt::Embedding(Arc::from([0.0])), "expected points, box, mask, got embedding"),
    ] {
        let error = tracker.prompt(ObjectId(1), At::Next, prompt).unwrap_err();
        assert_eq!(error.kind(), Kind::Prompt, "{name}");
        assert!(error.is_transient() && error.to_string().contains(message), "{name}: {error}");
    }
    assert!(tracker.is_idle());

    let mut boxes = model(FakeOptions::default());
    (boxes.spec.prompts.points, boxes.spec.prompts.masks) = (false, false);
    let mut boxes = Tracker::new(boxes, Options::default()).unwrap();
    for prompt in [at(0, 0), mask(2, 2, |_, _| true)] {
        let error = boxes.prompt(ObjectId(1), At::Next, prompt).unwrap_err().to_string();
        assert!(error.contains("prompt for fake: expected box, got"), "{error}");
    }

    // Two objects at most, waiting ones counted.
    tracker.step(stamp(0), &image(&[])).unwrap();
    tracker.prompt(ObjectId(1), At::Next, at(0, 0)).unwrap();
    tracker.prompt(ObjectId(2), At::Frame(0), at(0, 0)).unwrap();
    let error = tracker.prompt(ObjectId(3), At::Next, at(0, 0)).unwrap_err();
    assert_eq!(error.to_string(), "prompt for object 3: expected at most 2 objects, got one more");
    for _ in 0..7 {
        tracker.prompt(ObjectId(1), At::Frame(50), at(0, 0)).unwrap();
    }
    assert_eq!(
        tracker.prompt(ObjectId(1), At::Next, at(0, 0)).unwrap_err().kind(),
        Kind::Prompt,
        "all bounded"
    );
}

#[test]
fn an_object_counts_as_clicked_until_a_prompt_says_how_far_it_reaches() {
    let mut tracker = tracker(FakeOptions::default());
    let id = ObjectId(1);
    let shown = image(&[(0, 0, RED)]);
    let clicked = |tracker: &Tracker| tracker.objects().next().unwrap().clicked;
    tracker.prompt(id, At::Next, at(0, 0)).unwrap();
    tracker.step(stamp(0), &shown).unwrap();
    assert!(clicked(&tracker));
    tracker.prompt(id, At::Frame(0), corners(0.0, 0.0, 0.25, 0.25)).unwrap();
    assert!(!clicked(&tracker));
    tracker.prompt(id, At::Next, at(0, 0)).unwrap();
    tracker.step(stamp(1), &shown).unwrap();
    assert!(!clicked(&tracker), "a correcting click does not take it back");
}

#[test]
fn gone_frames_say_what_is_kept() {
    let mut tracker = tracker(FakeOptions::default());
    for index in 0..10 {
        tracker.step(stamp(index), &image(&[])).unwrap();
    }
    let error = tracker.prompt(ObjectId(1), At::Frame(5), at(0, 0)).unwrap_err();
    assert_eq!(error.kind(), Kind::Gone);
    assert_eq!(error.to_string(), "prompt for frame: expected one of the kept, 6 to 9, or later, got 5");
    assert!(tracker.is_idle());
    assert_eq!(tracker.prompt(ObjectId(1), At::Frame(6), at(0, 0)).unwrap(), Applied::Now(stamp(6)));
    assert_eq!(tracker.prompt(ObjectId(2), At::Frame(12), at(0, 0)).unwrap(), Applied::Pending);
    for (index, objects) in [(11, 1), (13, 2)] {
        tracker.step(stamp(index), &image(&[])).unwrap();
        assert_eq!(tracker.objects().count(), objects, "at {index}");
    }
    let frame = tracker.step(stamp(13), &image(&[])).unwrap_err();
    assert_eq!((frame.kind(), frame.is_transient()), (Kind::Picture, true), "frames do not come twice");
    assert_eq!(tracker.step(stamp(14), &[0.0; 7]).unwrap_err().kind(), Kind::Picture);
}

#[test]
fn a_failing_engine_costs_its_frame_only() {
    for graph in GraphName::ALL {
        let options = FakeOptions::default();
        let handle = options.handle.clone();
        let mut tracker = tracker(options);
        let whole = mask(64, 64, |x, y| x < 16 && y < 16);
        tracker.prompt(ObjectId(1), At::Next, whole.clone()).unwrap();
        let mut index = 0;
        let mut step = |tracker: &mut Tracker| {
            index += 1;
            tracker.step(stamp(index), &image(&[(0, 0, RED), (32, 32, BLUE)]))
        };
        for _ in 0..3 {
            step(&mut tracker).unwrap();
        }
        let before: Vec<f32> = tracker.objects().flat_map(|object| object.low_res.to_vec()).collect();
        tracker.prompt(ObjectId(2), At::Next, whole.clone()).unwrap();
        handle.fail(Fault { graph, run: handle.runs(graph) + 1 });
        let error = step(&mut tracker).unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (Kind::Engine, true), "{graph}");
        let after: Vec<f32> = tracker.objects().flat_map(|object| object.low_res.to_vec()).collect();
        assert_eq!(before, after, "{graph}");
        step(&mut tracker).unwrap();
        assert_eq!(tracker.objects().count(), 2, "{graph}: the prompt was not lost");
    }
}

#[test]
fn a_prompt_that_always_fails_does_not_block_the_stream() {
    let options = FakeOptions::default();
    let handle = options.handle.clone();
    let mut tracker = tracker(options);
    (1..=9).for_each(|run| handle.fail(Fault { graph: GraphName::DecoderPrompt, run }));
    tracker.prompt(ObjectId(1), At::Next, at(0, 0)).unwrap();
    let results: Vec<bool> = (0..5).map(|index| tracker.step(stamp(index), &image(&[])).is_ok()).collect();
    assert_eq!(results, [false, false, false, true, true]);
    assert!(tracker.is_idle());
}

#[test]
fn a_model_off_the_contract_is_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut sightline_engine_api::Model)| {
        let mut model = model(FakeOptions::default());
        change(&mut model);
        let error = Tracker::new(model, Options::default()).unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (Kind::Engine, false));
        error.to_string()
    };
    let swapped = refuse(&|model| std::mem::swap(&mut model.decoder_track, &mut model.memory_encoder));
    assert!(swapped.contains("decoder_track input"), "{swapped}");
    let slots = refuse(&|model| model.spec.memory.recent = 5);
    assert_eq!(slots, "memory_attention input \"mem\": expected f32 [1,6,256,4], got f32 [1,7,256,4]");
    let embed = refuse(&|model| model.spec.no_mem_embed = vec![1.0]);
    assert_eq!(embed, "model \"fake\" no_mem_embed: expected 4 values, got 1");
    let mask = refuse(&|model| model.mask_downsample = None);
    assert!(mask.contains("a graph mask_downsample"), "{mask}");
    let history = Tracker::new(
        model(FakeOptions::default()),
        Options { history: 0, max_objects: 1, ..Options::default() },
    );
    assert_eq!(history.unwrap_err().to_string(), "option history: expected at least 1, got 0");
}

#[test]
fn two_thousand_frames_with_objects_coming_and_going_hold_no_more_than_a_hundred() {
    let family = Family { round_to_bf16: true, ..Family::NANO };
    let mut tracker = Tracker::new(
        family.model(&Countdown::default()),
        Options { history: 5, max_objects: 4, ..Options::default() },
    )
    .unwrap();
    let mut bytes = 0;
    for index in 0..2000_u64 {
        let id = ObjectId((index / 7 % 4) as u32);
        match index % 7 {
            0 => {
                tracker.prompt(id, At::Next, click(0.5, 0.5)).unwrap();
            }
            3 => {
                tracker.prompt(id, At::Frame(index.saturating_sub(3)), click(0.2, 0.2)).unwrap();
            }
            5 if index % 3 == 0 => {
                tracker.remove(id);
            }
            _ => {}
        }
        if index % 311 == 310 {
            tracker.clear();
        }
        let image = vec![index as f32; 3 * 16 * 16];
        tracker.step(stamp(index), &image).unwrap();
        if index == 100 {
            bytes = tracker.object_bytes();
        }
    }
    assert!(bytes > 0);
    assert_eq!(tracker.object_bytes(), bytes);
}
