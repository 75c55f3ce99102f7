//! The tracker against one that keeps everything: over random schedules of frames, prompts in time and late ones,
//! removals and failing engines, with graphs that hash every bit they are given, both must agree exactly.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use sightline_core::{NormBox, NormPoint, ObjectId, Point, PointLabel, Prompt};
use sightline_engine_api::{Model, Stream};
use sightline_engine_fake::{FakeDevice, Schedule};
use sightline_tracker::{Applied, At, Kind, Options, Pace, Tracker};
use support::{
    hashing::{Countdown, Family, LOW, SIDE, device},
    mask,
    reference::Reference,
    stamp,
};

#[derive(Debug, Clone)]
enum Op {
    /// A frame, `gap` frames after the last; the `fail`-th engine run fails (0 for none).
    Step {
        gap: u64,
        fail: i64,
    },
    /// A prompt for the next frame.
    Next {
        object: u32,
        prompt: Prompt,
    },
    /// A prompt for the frame `back` frames before the newest.
    Back {
        object: u32,
        back: usize,
        by_time: bool,
        fail: i64,
        prompt: Prompt,
    },
    /// The same, to catch up while frames go on coming.
    Late {
        object: u32,
        back: usize,
        prompt: Prompt,
    },
    /// So many units of work for what is catching up; the `fail`-th engine run fails.
    Units {
        count: usize,
        fail: i64,
    },
    Remove {
        object: u32,
    },
    Clear,
}

fn prompt() -> impl Strategy<Value = Prompt> {
    let unit = || 0_u8..=100;
    let point = (unit(), unit(), any::<bool>()).prop_map(|(x, y, positive)| Point {
        at: NormPoint { x: f32::from(x) / 100.0, y: f32::from(y) / 100.0 },
        label: if positive { PointLabel::Positive } else { PointLabel::Negative },
    });
    let corners = (0_u8..50, 0_u8..50).prop_map(|(x, y)| {
        let (x0, y0) = (f32::from(x) / 100.0, f32::from(y) / 100.0);
        NormBox { x0, y0, x1: x0 + 0.5, y1: y0 + 0.25 }
    });
    prop_oneof![
        prop::collection::vec(point.clone(), 1..=2)
            .prop_map(|points| Prompt::Points { points, within: None }),
        (point, corners.clone()).prop_map(|(p, c)| Prompt::Points { points: vec![p], within: Some(c) }),
        corners.prop_map(Prompt::Box),
        (0_u32..12).prop_map(|at| mask(SIDE as u32, SIDE as u32, |x, y| at > 0 && x >= at && y > 3)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let fail = || prop_oneof![6 => Just(0), 1 => 1_i64..12];
    let object = || 0_u32..OBJECTS as u32;
    prop_oneof![
        10 => (1_u64..4, fail()).prop_map(|(gap, fail)| Op::Step { gap, fail }),
        2 => (object(), prompt()).prop_map(|(object, prompt)| Op::Next { object, prompt }),
        3 => (object(), 0_usize..7, any::<bool>(), fail(), prompt()).prop_map(
            |(object, back, by_time, fail, prompt)| Op::Back { object, back, by_time, fail, prompt }
        ),
        3 => (object(), 0_usize..20, prompt()).prop_map(|(object, back, prompt)| Op::Late { object, back, prompt }),
        6 => (1_usize..6, fail()).prop_map(|(count, fail)| Op::Units { count, fail }),
        1 => object().prop_map(|object| Op::Remove { object }),
        1 => prop::option::weighted(0.1, Just(())).prop_map(|clear| match clear {
            Some(()) => Op::Clear,
            None => Op::Step { gap: 1, fail: 0 },
        }),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    let sizes = (0_usize..7, 1_usize..4, 1_usize..4, prop::option::of(0_usize..16));
    let switches = (any::<[bool; 6]>(), any::<bool>(), any::<bool>());
    prop_oneof![
        Just(Family::SAM2),
        Just(Family::NANO),
        (sizes, switches).prop_map(|((recent, max_cond, stride, pointers), (flags, gate, fixed))| Family {
            recent,
            max_cond,
            stride,
            pointers,
            prev_mask: flags[0],
            prompt_pix_feat: flags[1],
            mask_decoder: flags[2],
            round_to_bf16: flags[3],
            min_object_score: gate.then_some(0.25),
            fixed_points: fixed.then_some(6),
            batch: flags[4],
            open_slots: flags[5],
            low: LOW,
        }),
    ]
}

/// More than a frame's features take.
const FEATURE_BYTES: usize = 1024;
/// More than run together.
const OBJECTS: usize = 7;

/// Drives both and compares them after every call.
struct Pair {
    tracker: Tracker,
    reference: Reference,
    fail: Countdown,
    history: usize,
    index: u64,
    indices: Vec<u64>,
    /// Prompts for the next frame, and how often their frame failed.
    waiting: Vec<(u32, Prompt, u32)>,
    /// Objects that catch up with a prompt on a tick.
    late: BTreeMap<u32, (usize, Prompt)>,
}

impl Pair {
    fn new(family: Family, history: usize) -> Self {
        let fail = Countdown::default();
        Self::with(family, history, family.model(&fail), fail)
    }

    fn on(device: &FakeDevice, family: Family, history: usize) -> Self {
        let fail = Countdown::default();
        Self::with(family, history, family.model_on(device, &fail), fail)
    }

    fn with(family: Family, history: usize, model: Model, fail: Countdown) -> Self {
        // More than any schedule has frames: nothing is thinned.
        let options = Options { history, max_objects: OBJECTS, memory_bytes: 100 * FEATURE_BYTES };
        let tracker = Tracker::new(model, options).unwrap();
        let (reference, indices, waiting) = (Reference::new(family), vec![], vec![]);
        Self { tracker, reference, fail, history, index: 0, indices, waiting, late: BTreeMap::new() }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Step { gap, fail } => self.step(gap, fail),
            Op::Next { object, prompt } => {
                let result = self.tracker.prompt(ObjectId(object), At::Next, prompt.clone());
                match result {
                    Ok(applied) => {
                        assert_eq!(applied, Applied::Pending);
                        self.waiting.push((object, prompt, 0));
                    }
                    Err(error) => assert_eq!(error.kind(), Kind::Prompt, "{error}"),
                }
            }
            Op::Back { object, back, by_time, fail, prompt } => {
                self.back(object, back, by_time, fail, prompt)
            }
            Op::Late { object, back, prompt } => self.late(object, back, prompt),
            Op::Units { count, fail } => (0..count).for_each(|_| self.unit(fail)),
            Op::Remove { object } => {
                let late = self.late.remove(&object).is_some();
                let known = self.reference.objects.remove(&object).is_some();
                let waited = self.waiting.iter().any(|(waiting, ..)| *waiting == object);
                self.waiting.retain(|(waiting, ..)| *waiting != object);
                assert_eq!(self.tracker.remove(ObjectId(object)), known || waited || late);
            }
            Op::Clear => {
                self.tracker.clear();
                self.reference.objects.clear();
                self.waiting.clear();
                self.late.clear();
                assert!(self.tracker.is_idle());
            }
        }
        self.compare();
    }

    fn step(&mut self, gap: u64, fail: i64) {
        let index = self.index + gap;
        let image: Vec<f32> = (0..3 * SIDE * SIDE).map(|at| (index * 31 + at as u64 % 17) as f32).collect();
        self.fail.set(fail);
        match self.tracker.step(stamp(index), &image) {
            Ok(_) => {
                self.index = index;
                self.indices.push(index);
                self.reference.frame(&image);
                for (object, prompt, _) in self.waiting.drain(..) {
                    self.late.remove(&object);
                    self.reference.prompt_in_time(object, prompt);
                }
            }
            Err(error) => {
                assert!(error.kind() == Kind::Engine && error.is_transient(), "{error}");
                if !error.to_string().starts_with("image_encoder") {
                    self.waiting.iter_mut().for_each(|(.., failures)| *failures += 1);
                    self.waiting.retain(|(.., failures)| *failures < 3);
                }
            }
        }
        self.fail.set(0);
    }

    /// A new object on any frame, one that is tracked on a frame of the history.
    fn late(&mut self, object: u32, back: usize, prompt: Prompt) {
        let Some(tick) = self.indices.len().checked_sub(back + 1) else { return };
        let known = self.reference.objects.contains_key(&object);
        if known && back >= self.history || self.late.contains_key(&object) {
            return;
        }
        let index = self.indices[tick];
        match self.tracker.prompt_late(ObjectId(object), At::Frame(index), prompt.clone()) {
            Ok(applied) => {
                assert_eq!(applied, Applied::CatchingUp { from: stamp(index), degraded: false });
                self.late.insert(object, (tick, prompt));
            }
            Err(error) => assert_eq!(error.kind(), Kind::Prompt, "{error}"),
        }
    }

    fn unit(&mut self, fail: i64) {
        let (objects, behind) = self.tracker.behind();
        assert_eq!(objects, self.late.len());
        assert_eq!(behind > 0, objects > 0);
        self.fail.set(fail);
        let mut worked = Vec::new();
        let pace = Pace { now: Duration::ZERO, within: None };
        let progress =
            self.tracker.catch_up(pace, |caught| worked.push((caught.object.id, caught.frame.index)));
        self.fail.set(0);
        assert_eq!(objects > 0, !worked.is_empty() || !progress.given_up.is_empty());
        for given_up in progress.given_up {
            assert!(fail > 0 && given_up.error.kind() == Kind::Engine, "{}", given_up.error);
            self.late.remove(&given_up.object.0);
        }
        for live in progress.live {
            let (tick, prompt) = self.late.remove(&live.0).unwrap();
            self.reference.prompt(live.0, tick, prompt);
        }
    }

    fn back(&mut self, object: u32, back: usize, by_time: bool, fail: i64, prompt: Prompt) {
        let Some(tick) = self.indices.len().checked_sub(back + 1) else { return };
        let index = self.indices[tick];
        let at = if by_time { At::RunningTime(Duration::from_millis(index * 40)) } else { At::Frame(index) };
        self.fail.set(fail);
        match self.tracker.prompt(ObjectId(object), at, prompt.clone()) {
            Ok(applied) => {
                let known = self.reference.objects.contains_key(&object);
                assert!(back < self.history || !known);
                self.late.remove(&object);
                assert_eq!(applied, Applied::Now(stamp(index)));
                self.reference.prompt(object, tick, prompt);
            }
            Err(error) => match error.kind() {
                Kind::Gone => assert!(back >= self.history, "{error}"),
                Kind::Engine => assert!(fail > 0, "{error}"),
                kind => assert_eq!(kind, Kind::Prompt, "{error}"),
            },
        }
        self.fail.set(0);
    }

    fn compare(&self) {
        let ids: Vec<u32> = self.tracker.objects().map(|object| object.id.0).collect();
        assert_eq!(ids, self.reference.objects.keys().copied().collect::<Vec<_>>());
        for object in self.tracker.objects() {
            let wanted = self.reference.result(object.id.0);
            assert_eq!(object.low_res, wanted.low_res, "object {} at {}", object.id, self.indices.len() - 1);
            assert_eq!((object.object_score, object.iou), (wanted.score, wanted.iou));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_tracker_is_one_that_keeps_everything(
        family in family(),
        history in 1_usize..6,
        ops in prop::collection::vec(op(), 1..50),
    ) {
        let mut pair = Pair::new(family, history);
        for op in ops {
            pair.apply(op);
        }
    }
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let streams = [Stream::COPY, Stream::ENCODE, Stream::TRACK];
    prop_oneof![
        Just(streams.to_vec()).prop_shuffle().prop_map(Schedule::First),
        any::<u64>().prop_map(Schedule::Random),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn on_a_device_it_is_too(
        family in family(),
        history in 1_usize..6,
        schedule in schedule(),
        ops in prop::collection::vec(op(), 1..50),
    ) {
        let device = device(schedule);
        let mut pair = Pair::on(&device, family, history);
        let start = device.counts();
        for op in ops {
            pair.apply(op);
        }
        let end = device.counts();
        prop_assert_eq!((end.allocations, end.marks), (start.allocations, start.marks));
        prop_assert_eq!(end.waits, 0);
    }
}

/// Long enough for every ring to turn over more than once, with conditioning frames throughout.
#[test]
fn long_runs_agree_too() {
    for (name, family) in [
        ("sam2", Family::SAM2),
        ("nano", Family::NANO),
        ("three conditioning slots", Family { max_cond: 3, stride: 3, ..Family::SAM2 }),
    ] {
        let mut pair = Pair::new(family, 4);
        for tick in 0..90 {
            if tick % 23 == 2 {
                pair.apply(Op::Next { object: 1, prompt: support::click(0.5, 0.25) });
            }
            pair.apply(Op::Step { gap: 1, fail: 0 });
            if tick % 31 == 5 {
                let prompt = support::corners(0.0, 0.0, 0.5, 0.5);
                pair.apply(Op::Back { object: 1, back: 3, by_time: false, fail: 0, prompt });
            }
        }
        assert_eq!(pair.tracker.objects().count(), 1, "{name}");
    }
}

/// Whichever engine run fails, everything a late prompt may need is still there, and the next frame finds no trace.
#[test]
fn a_failed_frame_leaves_no_trace() {
    for (name, family) in [
        ("sam2", Family::SAM2),
        ("nano", Family::NANO),
        ("sam2 with the previous mask", Family { prev_mask: true, ..Family::SAM2 }),
        ("few pointers", Family { pointers: Some(2), ..Family::SAM2 }),
    ] {
        for fail in 1..10 {
            for back in 0..3 {
                let mut pair = Pair::new(family, 3);
                let click = |object| Op::Next { object, prompt: support::click(0.5, 0.25) };
                let late = |object| {
                    let prompt = support::corners(0.0, 0.0, 0.5, 0.5);
                    Op::Back { object, back, by_time: false, fail: 0, prompt }
                };
                pair.apply(click(0));
                pair.apply(click(1));
                (0..25).for_each(|_| pair.apply(Op::Step { gap: 1, fail: 0 }));
                let frames = pair.reference.frames();
                pair.apply(Op::Step { gap: 1, fail });
                let runs = if family.batch { 3 } else { 5 };
                assert!(pair.reference.frames() == frames || fail > runs, "{name}, run {fail}");
                pair.apply(late(0));
                pair.apply(late(1));
                pair.apply(Op::Step { gap: 1, fail });
                // A prompt that was given on a failed frame three times is dropped.
                pair.apply(click(0));
                (0..3).for_each(|_| pair.apply(Op::Step { gap: 1, fail }));
                (0..2).for_each(|_| pair.apply(Op::Step { gap: 1, fail: 0 }));
            }
        }
    }
}

/// A late prompt that fails half way changes nothing.
#[test]
fn a_failed_replay_leaves_no_trace() {
    for fail in 1..12 {
        let mut pair = Pair::new(Family::SAM2, 5);
        pair.apply(Op::Next { object: 0, prompt: support::click(0.5, 0.25) });
        (0..12).for_each(|_| pair.apply(Op::Step { gap: 1, fail: 0 }));
        let late = |back, fail| {
            let prompt = support::click(0.25, 0.75);
            Op::Back { object: 0, back, by_time: true, fail, prompt }
        };
        pair.apply(late(1, 0));
        pair.apply(late(4, fail));
        assert_eq!(pair.reference.objects[&0].len(), 2, "run {fail} failed");
        pair.apply(late(2, 0));
        pair.apply(Op::Step { gap: 1, fail: 0 });
    }
}
