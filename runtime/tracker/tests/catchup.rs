//! Late prompts that catch up: what is left out, what stands in for what is gone, who wins.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use sightline_core::{FrameStamp, ObjectId};
use sightline_tracker::{Applied, At, Kind, Options, Pace, Tracker};
use support::{
    click, corners,
    hashing::{Countdown, Family, SIDE},
    stamp,
};

const A: ObjectId = ObjectId(1);
const FRAME_BYTES: usize = 4 * 13;

fn tracker(history: usize, frames: usize) -> (Tracker, Countdown) {
    let fail = Countdown::default();
    let options = Options { history, memory_bytes: frames * FRAME_BYTES, max_objects: 4 };
    (Tracker::new(Family::SAM2.model(&fail), options).unwrap(), fail)
}

fn step(tracker: &mut Tracker, index: u64) {
    let image: Vec<f32> = (0..3 * SIDE * SIDE).map(|at| (index * 31 + at as u64 % 17) as f32).collect();
    tracker.step(stamp(index), &image).unwrap();
}

fn pace(now_ms: u64) -> Pace {
    Pace { now: Duration::from_millis(now_ms), within: Some(Duration::from_millis(400)) }
}

/// Runs units until all are live; the frames looked at, and those that became live.
fn finish(tracker: &mut Tracker) -> Vec<FrameStamp> {
    let mut seen = Vec::new();
    while tracker.behind().0 > 0 {
        let pace = Pace { now: Duration::ZERO, within: None };
        let progress = tracker.catch_up(pace, |caught| seen.push(caught.frame));
        assert!(progress.given_up.is_empty());
    }
    seen
}

#[test]
fn what_cannot_be_done_in_time_is_left_out_and_the_end_is_the_newest() {
    let (mut tracker, _) = tracker(4, 200);
    (0..100).for_each(|index| step(&mut tracker, index));
    tracker.prompt_late(A, At::Frame(10), corners(0.0, 0.0, 0.5, 0.5)).unwrap();
    // A unit takes 10 ms and a frame comes every 40: in 400 ms there is time for 40 units and 10 more frames.
    let (mut looked_at, mut next, mut units) = (Vec::new(), 100, 0);
    loop {
        units += 1;
        if units % 4 == 0 {
            step(&mut tracker, next);
            next += 1;
        }
        let progress = tracker.catch_up(pace(units * 10), |caught| looked_at.push(caught.frame.index));
        if progress.live == [A] {
            break;
        }
        assert!(units < 60, "it does not converge: {looked_at:?}");
    }
    assert_eq!(looked_at[0], 10);
    assert_eq!(looked_at.last(), Some(&(next - 1)));
    assert!(looked_at.is_sorted_by(|a, b| a < b && b - a <= 8), "{looked_at:?}");
    assert!((25..=50).contains(&units), "{units} units of 40: {looked_at:?}");
    step(&mut tracker, next);
    assert_eq!(tracker.objects().map(|object| object.id).collect::<Vec<_>>(), [A]);
}

/// The graphs hash every bit of the memories they are given: leaving frames out must be as if they had not been.
#[test]
fn memory_has_no_holes_where_frames_were_left_out() {
    let (mut late, _) = tracker(4, 200);
    let (mut in_time, _) = tracker(4, 200);
    (0..60).for_each(|index| step(&mut late, index));
    late.prompt_late(A, At::Frame(10), corners(0.0, 0.0, 0.5, 0.5)).unwrap();
    let mut looked_at = Vec::new();
    for unit in 1.. {
        let slow = Pace { now: Duration::from_millis(unit * 40), ..pace(0) };
        if !late.catch_up(slow, |caught| looked_at.push(caught.frame.index)).live.is_empty() {
            break;
        }
    }
    assert!(looked_at.len() < 30, "some are left out: {looked_at:?}");
    in_time.prompt(A, At::Frame(10), corners(0.0, 0.0, 0.5, 0.5)).unwrap();
    looked_at.iter().for_each(|index| step(&mut in_time, *index));
    for index in 60..75 {
        step(&mut late, index);
        step(&mut in_time, index);
        let logits = |tracker: &Tracker| tracker.objects().next().unwrap().low_res.to_vec();
        assert_eq!(logits(&late), logits(&in_time), "frame {index}");
    }
}

#[test]
fn a_frame_that_is_gone_is_stood_in_for_by_the_next_one_kept() {
    let (mut tracker, _) = tracker(4, 16);
    (0..200).for_each(|index| step(&mut tracker, index));
    let Ok(Applied::CatchingUp { from, degraded }) = tracker.prompt_late(A, At::Frame(3), click(0.5, 0.5))
    else {
        panic!("it is not kept, and something newer is");
    };
    assert!(degraded && from.index > 3);
    assert_eq!(finish(&mut tracker)[0], from);
}

#[test]
fn a_pinned_frame_waits_for_its_answer() {
    let (mut tracker, _) = tracker(4, 16);
    (0..50).for_each(|index| step(&mut tracker, index));
    let asked = tracker.pin_newest().unwrap();
    (50..400).for_each(|index| step(&mut tracker, index));
    let applied = tracker.prompt_late(A, At::Frame(asked.index), click(0.5, 0.5)).unwrap();
    assert_eq!(applied, Applied::CatchingUp { from: asked, degraded: false });
    tracker.release(asked);
    (400..410).for_each(|index| step(&mut tracker, index));
    assert_eq!(finish(&mut tracker)[0], asked, "kept until it was looked at");
    (410..500).for_each(|index| step(&mut tracker, index));
    let applied = tracker.prompt_late(ObjectId(2), At::Frame(asked.index), click(0.5, 0.5)).unwrap();
    assert!(matches!(applied, Applied::CatchingUp { degraded: true, .. }), "and no longer: {applied:?}");
}

#[test]
fn the_newest_word_counts() {
    let (mut tracker, _) = tracker(4, 100);
    (0..10).for_each(|index| step(&mut tracker, index));
    tracker.prompt(A, At::Next, click(0.5, 0.5)).unwrap();
    (10..40).for_each(|index| step(&mut tracker, index));
    let error = tracker.prompt_late(A, At::Frame(5), click(0.5, 0.5)).unwrap_err();
    assert_eq!(error.kind(), Kind::Prompt);
    let expected = "prompt for object 1: expected a frame after the one it was prompted on last, got frame 5";
    assert_eq!(error.to_string(), expected);
    // On a later frame it is seeded anew, and goes on being tracked as it was meanwhile.
    tracker.prompt_late(A, At::Frame(20), corners(0.0, 0.0, 0.5, 0.5)).unwrap();
    tracker.catch_up(pace(0), |_| {});
    let before = tracker.objects().next().unwrap().low_res.to_vec();
    // Another one while it is under way, for a frame that is still before it, is given on the way.
    tracker.prompt_late(A, At::Frame(30), click(0.25, 0.25)).unwrap();
    assert_eq!(tracker.behind().0, 1);
    let seen: Vec<u64> = finish(&mut tracker).iter().map(|frame| frame.index).collect();
    assert_eq!(seen, (21..40).collect::<Vec<_>>());
    assert_ne!(tracker.objects().next().unwrap().low_res, before);
    // A prompt on the newest frame ends what is under way.
    tracker.prompt_late(A, At::Frame(36), click(0.5, 0.5)).unwrap();
    tracker.prompt(A, At::Next, click(0.75, 0.75)).unwrap();
    step(&mut tracker, 40);
    assert_eq!(tracker.behind(), (0, 0));
}

#[test]
fn a_failing_engine_ends_the_catch_up_and_nothing_else() {
    let (mut tracker, fail) = tracker(4, 100);
    tracker.prompt(A, At::Next, click(0.5, 0.5)).unwrap();
    (0..40).for_each(|index| step(&mut tracker, index));
    tracker.prompt_late(ObjectId(2), At::Frame(20), click(0.5, 0.5)).unwrap();
    tracker.catch_up(pace(0), |_| {});
    fail.set(1);
    let progress = tracker.catch_up(pace(0), |_| {});
    fail.set(0);
    assert_eq!(progress.given_up.len(), 1);
    assert_eq!((progress.given_up[0].object, progress.given_up[0].error.kind()), (ObjectId(2), Kind::Engine));
    step(&mut tracker, 40);
    assert_eq!(tracker.objects().map(|object| object.id).collect::<Vec<_>>(), [A]);
}

#[test]
fn catching_up_for_ever_holds_no_more_than_once() {
    let (mut tracker, _) = tracker(4, 64);
    let mut most = 0;
    for index in 0..1990_u64 {
        step(&mut tracker, index);
        if index % 50 == 49 {
            tracker.remove(A);
            tracker.prompt_late(A, At::Frame(index - 40), click(0.5, 0.5)).unwrap();
            tracker.prompt_late(ObjectId(2), At::Frame(index - 20), click(0.5, 0.5)).unwrap();
        }
        (0..4).for_each(|_| drop(tracker.catch_up(pace(index * 40), |_| {})));
        if index == 100 {
            most = tracker.object_bytes();
        }
    }
    assert_eq!(tracker.object_bytes(), most);
    assert_eq!(tracker.objects().count(), 2);
}
