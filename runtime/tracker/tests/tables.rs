//! Exactly which slots a frame is given, as tables.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use sightline_core::ObjectId;
use sightline_engine_api::GraphName;
use sightline_engine_fake::{FakeOptions, Recorded, SIDE_PX, model};
use sightline_tracker::{At, Options, Tracker};
use support::{click, corners, stamp};

static IMAGE: [f32; 3 * SIDE_PX * SIDE_PX] = [0.0; 3 * SIDE_PX * SIDE_PX];

/// `(tpos_idx, used)` of the memory slots and `(age, used)` of the pointer slots that are used, each sorted.
fn used(run: &Recorded, place: &str, mask: &str) -> Vec<i64> {
    assert!(run[mask].iter().all(|used| *used == 0.0 || *used == 1.0));
    let slots = run[place].iter().zip(&run[mask]);
    assert!(slots.clone().all(|(place, used)| *used == 1.0 || *place == 0.0), "unused slots are zero");
    let mut used: Vec<i64> =
        slots.filter(|(_, used)| **used == 1.0).map(|(place, _)| *place as i64).collect();
    used.sort_unstable();
    used
}

fn slots(run: &Recorded) -> (Vec<i64>, Vec<i64>) {
    (used(run, "tpos_idx", "mem_mask"), used(run, "ptr_tdiff", "ptr_mask"))
}

/// Tracks `frames` frames, with a prompt for the next frame before each of `prompted`.
fn recorded(options: FakeOptions, frames: u64, prompted: &[u64]) -> Vec<Recorded> {
    let handle = options.handle.clone();
    let mut tracker = Tracker::new(model(options), Options::default()).unwrap();
    handle.record();
    for index in 0..frames {
        if prompted.contains(&index) {
            tracker.prompt(ObjectId(7), At::Next, click(0.5, 0.5)).unwrap();
        }
        tracker.step(stamp(index), &IMAGE).unwrap();
    }
    handle.recorded(GraphName::MemoryAttention)
}

fn range(from: i64, to: i64) -> Vec<i64> {
    (from..=to).collect()
}

#[test]
fn frames_1_to_25_of_one_prompt() {
    let runs = recorded(FakeOptions::default(), 26, &[0]);
    assert_eq!(runs.len(), 25, "frame 0 reads no memory");
    // Frame; temporal rows (6 is the conditioning frame's); pointer ages.
    let table: [(i64, Vec<i64>, Vec<i64>); 9] = [
        (1, vec![6], vec![1]),
        (2, vec![0, 6], vec![1, 2]),
        (3, vec![0, 1, 6], vec![1, 2, 3]),
        (6, vec![0, 1, 2, 3, 4, 6], range(1, 6)),
        (7, range(0, 6), range(1, 7)),
        (15, range(0, 6), range(1, 15)),
        (16, range(0, 6), range(1, 16)),
        (17, range(0, 6), [range(1, 15), vec![17]].concat()),
        (25, range(0, 6), [range(1, 15), vec![25]].concat()),
    ];
    for (frame, tpos, ages) in &table {
        assert_eq!(slots(&runs[*frame as usize - 1]), (tpos.clone(), ages.clone()), "frame {frame}");
    }
    for frame in 1..26_i64 {
        let (tpos, ages) = slots(&runs[frame as usize - 1]);
        assert_eq!(tpos, [range(0, (frame - 2).min(5)), vec![6]].concat(), "frame {frame}");
        assert_eq!(ages, [range(1, (frame - 1).min(15)), vec![frame]].concat(), "frame {frame}");
    }
}

#[test]
fn conditioning_frames_above_the_cap() {
    // One slot: the newest conditioning frame has it; the older counts as recent while it is.
    let runs = recorded(FakeOptions::default(), 14, &[0, 5]);
    // Runs are of frames 1 to 4, then 6 on.
    let of = |frame: usize| slots(&runs[frame - if frame < 5 { 1 } else { 2 }]);
    assert_eq!(of(6), (vec![1, 2, 3, 4, 5, 6], vec![1, 2, 3, 4, 5, 6]), "5 conditions; 0 is six back");
    assert_eq!(of(7), (vec![0, 2, 3, 4, 5, 6], range(1, 7)), "0 is seven back: pointer only");
    assert_eq!(of(12), (range(0, 6), range(1, 12)));

    // Two: the first and the newest.
    let runs = recorded(FakeOptions { max_cond: 2, ..FakeOptions::default() }, 40, &[0, 3, 30]);
    let of = |frame: usize| slots(&runs[frame - [3, 30].iter().filter(|p| **p < frame).count() - 1]);
    assert_eq!(of(4).0, vec![1, 2, 6, 6], "both; 3 is not also one back");
    assert_eq!(of(20), ([range(0, 6), vec![6]].concat(), [range(1, 15), vec![17, 20]].concat()));
    assert_eq!(of(35), ([vec![0, 1, 2, 3, 5, 6, 6]].concat(), [range(1, 15), vec![35]].concat()), "0 and 30");
}

#[test]
fn every_third_frame() {
    let runs = recorded(FakeOptions { stride: 3, recent: 4, ..FakeOptions::default() }, 26, &[0]);
    let handle = FakeOptions { stride: 3, recent: 4, pointers: false, ..FakeOptions::default() };
    // Slot 1 is the previous frame, slots 2.. are the multiples of 3 up to two back.
    for (frame, tpos) in [
        (1, vec![4]),
        (2, vec![0, 4]),
        (4, vec![0, 4]),
        (5, vec![0, 1, 4]),
        (7, vec![0, 1, 4]),
        (8, vec![0, 1, 2, 4]),
        (11, range(0, 4)),
        (25, range(0, 4)),
    ] {
        assert_eq!(slots(&runs[frame - 1]).0, tpos, "frame {frame}");
    }
    let runs = recorded(handle, 9, &[0]);
    assert!(!runs[3].contains_key("obj_ptrs"), "a model without pointers is given none");
}

#[test]
fn what_the_decoder_is_given() {
    let options = FakeOptions::default();
    let handle = options.handle.clone();
    let mut tracker = Tracker::new(model(options), Options::default()).unwrap();
    handle.record();
    let id = ObjectId(1);
    tracker.prompt(id, At::Next, corners(0.25, 0.25, 0.5, 0.75)).unwrap();
    tracker.step(stamp(0), &IMAGE).unwrap();
    tracker.step(stamp(1), &IMAGE).unwrap();
    tracker.prompt(id, At::Frame(1), click(0.5, 0.25)).unwrap();
    tracker.prompt(id, At::Frame(0), click(0.5, 0.5)).unwrap();
    let whole = support::mask(64, 64, |x, _| x < 32);
    tracker.prompt(ObjectId(2), At::Frame(1), whole).unwrap();

    let prompts = handle.recorded(GraphName::DecoderPrompt);
    let row = |run: &Recorded| {
        let one = |name: &str| run[name][0];
        (run["point_coords"].clone(), run["point_labels"].clone(), one("multimask"), one("has_mask_input"))
    };
    let fourth = |run: &Recorded| run["pix_feat"][3 * 256];
    assert_eq!(row(&prompts[0]), (vec![16.0, 16.0, 32.0, 48.0, 0.0, 0.0], vec![2.0, 3.0, -1.0], 0.0, 0.0));
    assert_eq!(fourth(&prompts[0]), -1.0, "no_mem_embed is added");
    let clicked = |x, y| (vec![x, y, 0.0, 0.0], vec![1.0, -1.0], 1.0, 1.0);
    assert_eq!(row(&prompts[1]), clicked(32.0, 16.0), "a correction refines");
    assert_eq!(fourth(&prompts[1]), 10.0, "with its memory in sight");
    assert!(prompts[1]["mask_input"].iter().all(|logit| logit.abs() <= 32.0));
    assert_eq!(row(&prompts[2]), clicked(32.0, 32.0), "so does a second prompt on a conditioning frame");
    assert_eq!(fourth(&prompts[2]), -1.0, "which stays one");
    assert_eq!(row(&prompts[3]), clicked(32.0, 16.0), "and the later correction is given again");
    assert_eq!(row(&prompts[4]), (vec![0.0; 4], vec![-1.0; 2], 0.0, 1.0), "a mask: padding only");
    assert_eq!(fourth(&prompts[4]), 0.0, "and no no_mem_embed");
    assert_eq!(prompts.len(), 5);

    let binarize: Vec<f32> =
        handle.recorded(GraphName::MemoryEncoder).iter().map(|run| run["binarize"][0]).collect();
    // box, tracked 1, corrected 1, refined 0, tracked 1 again, corrected 1 again, mask.
    assert_eq!(binarize, [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
}
