//! Live mode: buffers pass at once, frames are skipped and counted.

use sightline_core::{Outcome::*, SkipReason::*, TrackState};
use sightline_engine_fake::Fault;

use super::*;

#[test]
fn a_slow_engine_costs_frames_and_every_one_is_counted() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    assert_eq!(rig.add_square(), 1);
    rig.hold();
    rig.push();
    rig.in_flight(1);
    for _ in 1..=5 {
        assert!(meta_of(&rig.push()).is_none(), "passes at once, with nothing yet to carry");
    }
    assert_eq!((rig.stat("pending"), rig.stat("skipped-superseded")), (2, 4));
    rig.handle.release(GraphName::ImageEncoder);
    rig.assert_sums();
    let outcomes: Vec<_> = rig.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    let gone = Skipped(Superseded);
    assert_eq!(outcomes, [Masks, gone, gone, gone, gone, Masks]);
}

#[test]
fn the_newest_masks_ride_on_later_buffers() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    let id = rig.add_square();
    rig.hold();
    rig.push();
    rig.in_flight(1);
    rig.handle.release(GraphName::ImageEncoder);
    rig.settle();
    rig.hold();
    let buffer = rig.push();
    let meta = meta_of(&buffer).unwrap();
    assert_eq!((meta.computed.index, meta.outcome), (0, Masks));
    assert_eq!(meta.age, Some(Duration::from_millis(40)));
    assert_eq!(meta.objects.len(), 1);
    let object = &meta.objects[0];
    assert_eq!((object.id.0, object.state), (id, TrackState::Coasted));
    assert_eq!((object.mask.width_px(), object.mask.height_px()), (WIDTH, HEIGHT));
    let bounds = object.bounds.unwrap();
    assert!((bounds.x0 - 0.1).abs() < 0.07 && (bounds.y1 - 0.5).abs() < 0.07, "{bounds:?}");

    let rois: Vec<_> = buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>().collect();
    assert_eq!(rois.len(), 1);
    assert_eq!((rois[0].roi_type(), rois[0].id()), (crate::meta::ROI_TYPE, id as i32));
    let (x, _, w, _) = rois[0].rect();
    assert_eq!(x, (bounds.x0 * WIDTH as f32).floor() as u32);
    assert_eq!(x + w, (bounds.x1 * WIDTH as f32).ceil() as u32);
    let param = rois[0].param(crate::meta::ROI_TYPE).unwrap();
    assert_eq!(param.get::<&str>("state").unwrap(), "coasted");
    assert!(param.get::<f64>("score").unwrap() > 0.5);

    // The frames' own messages say what was seen, not what was carried over.
    let record = rig.records().remove(0);
    assert_eq!(record.objects[0].state, TrackState::Tracking);
    assert!(record.latency > Duration::ZERO && record.stages.image_encoder > Duration::ZERO);
    assert_eq!((rig.stat("coasted-buffers"), rig.stat("fresh-buffers")), (1, 0));
}

#[test]
fn without_a_prompt_frames_are_not_looked_at() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    for _ in 0..5 {
        assert!(meta_of(&rig.push()).is_none());
        rig.settle();
    }
    rig.assert_sums();
    assert_eq!((rig.stat("skipped-no-prompt"), rig.handle.runs(GraphName::ImageEncoder)), (5, 0));
    // Waking up takes no more than a prompt.
    rig.add_square();
    rig.push();
    rig.assert_sums();
    assert_eq!(rig.stat("masks"), 1);
    rig.element.emit_by_name::<bool>("clear", &[]);
    rig.push();
    rig.assert_sums();
    assert_eq!(rig.stat("skipped-no-prompt"), 6);
}

#[test]
fn a_frame_without_the_object_is_an_outcome_of_its_own() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    let mut empty = gst::Buffer::from_mut_slice(vec![90_u8; WIDTH as usize * 3 * HEIGHT as usize]);
    empty.get_mut().unwrap().set_pts(FRAME);
    rig.harness.push_and_pull(empty).unwrap();
    rig.assert_sums();
    assert_eq!(rig.outcomes(), [(0, Masks), (1, NoObject)]);
    let lost = &rig.records()[1].objects[0];
    assert_eq!((lost.state, lost.bounds), (TrackState::Lost, None));
    rig.hold();
    let buffer = rig.push();
    assert_eq!(meta_of(&buffer).unwrap().objects[0].state, TrackState::Lost);
    assert_eq!(buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>().count(), 0);
}

#[test]
fn an_engine_that_fails_costs_one_frame_and_a_warning() {
    let faults = vec![Fault { graph: GraphName::ImageEncoder, run: 2 }];
    let mut rig = Rig::new(Mode::Live, FakeOptions { faults, ..FakeOptions::default() });
    rig.add_square();
    for _ in 0..3 {
        rig.push();
        rig.settle();
    }
    rig.assert_sums();
    assert_eq!(rig.outcomes(), [(0, Masks), (1, Skipped(Error)), (2, Masks)]);
    let record = rig.records().into_iter().find(|record| record.frame.index == 1).unwrap();
    let reason = record.error.unwrap();
    assert!(reason.contains("image_encoder"), "{reason}");
    let warnings = rig.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains(&reason), "{warnings:?}");
}

#[test]
fn a_picture_that_is_too_small_is_an_error_of_that_frame() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    rig.harness.push_and_pull(gst::Buffer::from_mut_slice(vec![0_u8; 10])).unwrap();
    rig.push();
    rig.assert_sums();
    assert_eq!(rig.outcomes(), [(0, Masks), (1, Skipped(Error)), (2, Masks)]);
}

#[test]
fn eos_comes_after_the_last_outcome() {
    let delay = Duration::from_millis(20);
    let mut rig = Rig::new(Mode::Live, FakeOptions { delay, ..FakeOptions::default() });
    rig.add_square();
    for _ in 0..3 {
        rig.push();
    }
    assert!(rig.harness.push_event(gst::event::Eos::new()));
    assert_eq!((rig.stat("pending"), rig.records().len()), (0, 3));
    rig.assert_sums();
    assert_eq!(rig.outcomes()[2], (2, Masks));
}

#[test]
fn eos_does_not_wait_for_ever() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.hold();
    rig.push();
    rig.in_flight(1);
    rig.push();
    assert!(rig.harness.push_event(gst::event::Eos::new()));
    assert_eq!(rig.outcomes(), [(0, Skipped(Flushed)), (1, Skipped(Flushed))]);
    rig.handle.release(GraphName::ImageEncoder);
    rig.assert_sums();
}

#[test]
fn latency_is_none_and_stats_are_measured() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    for _ in 0..20 {
        rig.push();
        rig.settle();
    }
    rig.harness.set_upstream_latency(gst::ClockTime::from_mseconds(7));
    assert_eq!(rig.harness.query_latency(), Some(gst::ClockTime::from_mseconds(7)));
    assert_eq!(rig.element.property::<u64>("latency"), 0);
    for name in ["latency", "streaming"] {
        let [p50, p95, p99, max] =
            ["p50", "p95", "p99", "max"].map(|part| rig.stat(&format!("{name}-{part}")));
        assert!(0 < p50 && p50 <= p95 && p95 <= p99 && p99 <= max, "{name}");
    }
}

#[test]
fn messages_can_be_turned_off() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.element.set_property("messages", false);
    rig.push();
    assert!(rig.records().is_empty());
}
