//! What is given up on a machine that is too slow.

use sightline_core::{Degrade, Outcome::*, SkipReason::*, TrackState};

use super::*;

fn floor(step: Degrade, options: FakeOptions) -> Rig {
    Rig::with(Mode::Live, options, |element| element.set_property("degrade-floor", step.as_str()))
}

#[test]
fn a_budget_is_kept_before_anything_is_copied() {
    let mut rig =
        Rig::with(Mode::Live, FakeOptions::default(), |element| element.set_property("max-fps", 0.001));
    rig.add_square();
    for _ in 0..6 {
        rig.push();
        rig.settle();
    }
    rig.assert_sums();
    let outcomes: Vec<_> = rig.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    let over = Skipped(OverBudget);
    assert_eq!(outcomes, [Masks, Masks, over, over, over, over]);
}

#[test]
fn every_step_stands_in_metadata_and_messages() {
    let mut rig = floor(Degrade::SkipMemory, FakeOptions::default());
    rig.add_square();
    for _ in 0..2 {
        rig.push();
        rig.settle();
    }
    assert_eq!(meta_of(&rig.push()).unwrap().degrade, Degrade::SkipMemory);
    rig.assert_sums();
    assert!(rig.records().iter().all(|record| record.degrade == Degrade::SkipMemory));
    assert_eq!(rig.stat("degrade-level"), 1);
}

#[test]
fn without_memory_writes_one_frame_in_four_is_remembered() {
    let runs = |mut rig: Rig| {
        rig.add_square();
        for _ in 0..9 {
            rig.push();
            rig.settle();
        }
        rig.assert_sums();
        rig.handle.runs(GraphName::MemoryEncoder)
    };
    assert_eq!(runs(Rig::new(Mode::Live, FakeOptions::default())), 9);
    // The prompted frame, which always is, and the fourth and eighth.
    assert_eq!(runs(floor(Degrade::SkipMemory, FakeOptions::default())), 3);
}

#[test]
fn engines_rest_at_the_step_of_fewer_frames() {
    let delay = Duration::from_millis(20);
    let mut rig = floor(Degrade::Fewer, FakeOptions { delay, ..FakeOptions::default() });
    rig.add_square();
    rig.push();
    rig.push();
    rig.settle();
    rig.push();
    rig.assert_sums();
    let outcomes: Vec<_> = rig.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Masks, Skipped(Degraded), Skipped(Degraded)], "busy, then resting");
}

#[test]
fn a_smaller_model_takes_the_objects_over_where_they_are() {
    let small = FakeOptions::default();
    let small_runs = small.handle.clone();
    let mut rig = Rig::with(Mode::Live, FakeOptions::default(), |element| {
        element.set_property("smaller-model", "fake");
        element.set_property("degrade-floor", "smaller");
        let options = sightline_tracker::Options { history: 4, memory_bytes: 0, max_objects: 3 };
        let session = Session::new(sightline_engine_fake::model(small), options).unwrap();
        element.imp().state().next_small = Some(session);
    });
    let id = rig.add_square();
    for _ in 0..4 {
        rig.push();
        rig.settle();
    }
    rig.assert_sums();
    let encoded = (rig.handle.runs(GraphName::ImageEncoder), small_runs.runs(GraphName::ImageEncoder));
    assert_eq!(encoded, (1, 4), "the first frame is seen by both");
    for record in rig.records() {
        let object = &record.objects[0];
        assert_eq!((object.id.0, object.state), (id, TrackState::Tracking), "frame {}", record.frame.index);
    }
    let last = rig.records().pop().unwrap();
    let x0 = last.objects[0].bounds.unwrap().x0;
    assert!((x0 - 0.13).abs() < 0.07, "it moves on: {x0}");
    assert!(rig.element.emit_by_name::<bool>("remove-object", &[&id]));
    rig.push();
    rig.assert_sums();
    assert_eq!(rig.outcomes().pop().unwrap().1, Skipped(NoPrompt));
}

/// The clip's next picture with something on every surface that can be followed.
fn textured(rig: &mut Rig) -> gst::Buffer {
    let shift = (rig.pushed % 40) as u32;
    let mut buffer = picture(WIDTH, HEIGHT, 0.1 + shift as f32 / WIDTH as f32, 0.25);
    let stride = (WIDTH as usize * 3).next_multiple_of(4);
    {
        let buffer = buffer.get_mut().unwrap();
        let mut bytes = buffer.map_writable().unwrap();
        for y in 0..HEIGHT {
            for x in 0..WIDTH {
                let pixel = &mut bytes[y as usize * stride + x as usize * 3..][..3];
                // What is on the square moves with it.
                let x = if pixel[0] > 200 { 1000 + x - shift } else { x };
                let speck = ((x / 3).wrapping_mul(2_654_435_761) ^ (y / 3).wrapping_mul(40_503)) >> 7;
                pixel.iter_mut().for_each(|channel| *channel += (speck % 24) as u8);
            }
        }
    }
    buffer.get_mut().unwrap().set_pts(FRAME * rig.pushed);
    rig.pushed += 1;
    rig.harness.push_and_pull(buffer).unwrap()
}

#[test]
fn a_slow_engine_makes_the_ladder_coast_and_masks_stay_young() {
    let delay = Duration::from_millis(60);
    let mut rig = Rig::with(Mode::Live, FakeOptions { delay, ..FakeOptions::default() }, |element| {
        element.set_property("max-age", 100_u32);
    });
    rig.add_square();
    // A camera's pace; four graphs of 60 ms are far behind it.
    let mut metas = Vec::new();
    for _ in 0..40 {
        metas.extend(meta_of(&textured(&mut rig)));
        std::thread::sleep(Duration::from_millis(40));
    }
    rig.assert_sums();
    let steps = rig.of("sightline-degrade");
    let to: Vec<&str> = steps.iter().map(|step| step.get("to").unwrap()).collect();
    assert_eq!(to[..2], ["skip-memory", "coast"]);
    let (limit, frame) = (Duration::from_millis(100), Duration::from_millis(40));
    let late = &metas[metas.len() - 12..];
    assert!(late.iter().any(|meta| meta.looked_age.unwrap() > limit), "the engines are too slow");
    // On a machine that is busy with others a thread may come late; how late is measured elsewhere.
    let young = late.iter().filter(|meta| meta.age.unwrap() <= limit + frame).count();
    assert!(2 * young >= late.len(), "{young} of {}", late.len());
    for meta in late {
        assert!(meta.looked <= meta.computed.index && meta.objects[0].state == TrackState::Coasted);
        let x0 = meta.objects[0].bounds.unwrap().x0;
        let truth = 0.1 + (meta.computed.index % 40) as f32 / WIDTH as f32;
        assert!((x0 - truth).abs() < 0.08, "frame {}: {x0} of {truth}", meta.computed.index);
    }
}
