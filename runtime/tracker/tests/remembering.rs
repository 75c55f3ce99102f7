//! Frames that are tracked without being remembered: to the memory they have not been.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use sightline_core::ObjectId;
use sightline_engine_api::GraphName;
use sightline_engine_fake::{FakeHandle, FakeOptions, SIDE_PX};
use sightline_tracker::{Applied, At, Kind, Options, Tracker};
use support::{
    click, corners,
    hashing::{Countdown, Family, SIDE},
    stamp,
};

const A: ObjectId = ObjectId(1);

fn tracker(family: Family) -> (Tracker, Countdown) {
    let fail = Countdown::default();
    let options = Options { history: 4, memory_bytes: 0, max_objects: 2 };
    (Tracker::new(family.model(&fail), options).unwrap(), fail)
}

fn image(index: u64, side: usize) -> Vec<f32> {
    (0..3 * side * side).map(|at| ((index * 31 + at as u64 % 17) % 256) as f32 / 256.0).collect()
}

fn step(tracker: &mut Tracker, index: u64) {
    tracker.step(stamp(index), &image(index, SIDE)).unwrap();
}

fn logits(tracker: &Tracker) -> Vec<u32> {
    tracker.objects().flat_map(|object| object.low_res.iter().map(|logit| logit.to_bits())).collect()
}

/// The graphs hash every bit of what they are given; SAM 2's are not given the mask before.
#[test]
fn what_is_not_remembered_has_not_been() {
    for (case, off, failing) in
        [("one", 12..13, None), ("many", 12..40, None), ("a failure among them", 12..20, Some(15))]
    {
        let ((mut all, fail), (mut some, _)) = (tracker(Family::SAM2), tracker(Family::SAM2));
        for tracker in [&mut all, &mut some] {
            tracker.prompt(A, At::Next, corners(0.1, 0.1, 0.6, 0.7)).unwrap();
        }
        for index in 0..60 {
            all.set_remembering(!off.contains(&index));
            if failing == Some(index) {
                // The image encoder, then the attention, then the decoder.
                fail.set(3);
                all.step(stamp(index), &image(index, SIDE)).unwrap_err();
                fail.set(0);
                assert!(!logits(&all).is_empty(), "{case}: the masks before are still there");
                continue;
            }
            step(&mut all, index);
            if off.contains(&index) {
                assert!(logits(&all) != logits(&some), "{case}: it is tracked");
                continue;
            }
            step(&mut some, index);
            assert!(logits(&all) == logits(&some), "{case}: frame {index}");
        }
    }
}

/// A red square on grey, a cell further right in each frame.
fn square(index: u64) -> Vec<f32> {
    let left = 4 * index as usize;
    let inside =
        |at: usize| (left..left + 16).contains(&(at % SIDE_PX)) && (16..32).contains(&(at / SIDE_PX));
    let channel = |bright: f32| (0..SIDE_PX * SIDE_PX).map(move |at| if inside(at) { bright } else { -0.25 });
    channel(1.0).chain(channel(-1.0)).chain(channel(-1.0)).collect()
}

#[test]
fn the_mask_before_is_that_of_the_frame_before() {
    let handle = FakeHandle::new();
    handle.record();
    let fake = FakeOptions { prev_mask: true, handle: handle.clone(), ..FakeOptions::default() };
    let options = Options { history: 2, ..Options::default() };
    let mut tracker = Tracker::new(sightline_engine_fake::model(fake), options).unwrap();
    tracker.prompt(A, At::Next, corners(0.0, 0.25, 0.25, 0.5)).unwrap();
    let mut before: Vec<f32> = Vec::new();
    for index in 0..12 {
        tracker.set_remembering(!(3..8).contains(&index));
        tracker.step(stamp(index), &square(index)).unwrap();
        if let Some(run) = handle.recorded(GraphName::DecoderTrack).last() {
            let clamped: Vec<f32> = before.iter().map(|logit| logit.clamp(-32.0, 32.0)).collect();
            assert_eq!(run["prev_low_res_mask"], clamped, "frame {index}");
        }
        let now = tracker.objects().next().unwrap().low_res.to_vec();
        assert!(now != before, "it moves");
        before = now;
    }
}

#[test]
fn it_saves_the_memory_encoder_but_for_prompts() {
    let handle = FakeHandle::new();
    let fake = FakeOptions { handle: handle.clone(), ..FakeOptions::default() };
    let mut tracker = Tracker::new(sightline_engine_fake::model(fake), Options::default()).unwrap();
    let mut next = 0;
    let mut show = |tracker: &mut Tracker, frames: u64| {
        (next..next + frames).for_each(|index| {
            tracker.step(stamp(index), &image(index, SIDE_PX)).unwrap();
        });
        next += frames;
        handle.runs(GraphName::MemoryEncoder)
    };
    tracker.prompt(A, At::Next, corners(0.1, 0.1, 0.6, 0.7)).unwrap();
    assert_eq!(show(&mut tracker, 3), 3);
    tracker.set_remembering(false);
    assert_eq!(show(&mut tracker, 5), 3);
    tracker.prompt(A, At::Next, corners(0.1, 0.1, 0.6, 0.7)).unwrap();
    assert_eq!(show(&mut tracker, 2), 4, "a prompted frame always is");
    tracker.set_remembering(true);
    assert_eq!(show(&mut tracker, 2), 6);
}

#[test]
fn prompts_find_their_frames_all_the_same() {
    let (mut tracker, _) = tracker(Family::SAM2);
    tracker.prompt(A, At::Next, corners(0.1, 0.1, 0.6, 0.7)).unwrap();
    (0..5).for_each(|index| step(&mut tracker, index));
    tracker.set_remembering(false);
    (5..9).for_each(|index| step(&mut tracker, index));
    // The newest frame is corrected with all that it saw.
    let applied = tracker.prompt(A, At::Frame(8), click(0.5, 0.5)).unwrap();
    assert_eq!(applied, Applied::Now(stamp(8)));
    // Older ones are not kept in memory, but the object can be seeded there anew, after its conditioning frame.
    assert_eq!(tracker.prompt(A, At::Frame(6), click(0.5, 0.5)).unwrap_err().kind(), Kind::Gone);
    let applied = tracker.prompt_late(A, At::Frame(6), click(0.5, 0.5)).unwrap();
    assert_eq!(applied, Applied::CatchingUp { from: stamp(6), degraded: false });
    let mut units = 0;
    while tracker.behind().0 > 0 {
        let pace = sightline_tracker::Pace { now: Default::default(), within: None };
        assert!(tracker.catch_up(pace, |_| {}).given_up.is_empty());
        units += 1;
    }
    assert_eq!(units, 3, "frames 6 to 8");
    (9..30).for_each(|index| step(&mut tracker, index));
    assert_eq!(tracker.objects().count(), 1);
}
