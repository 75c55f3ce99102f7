//! Flushes, caps, time stamps and states.

use sightline_core::{Outcome::*, SkipReason::*};

use super::*;

fn flush(rig: &mut Rig) {
    assert!(rig.harness.push_event(gst::event::FlushStart::new()));
    assert!(rig.harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(rig.harness.push_event(gst::event::Segment::new(&segment)));
}

#[test]
fn a_flush_takes_frames_and_leaves_objects() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    rig.hold();
    rig.push();
    rig.in_flight(2);
    rig.push();
    flush(&mut rig);
    assert_eq!(rig.outcomes()[1..], [(1, Skipped(Flushed)), (2, Skipped(Flushed))]);
    // Time starts anew; masks from before the jump are not shown.
    rig.pushed = 0;
    assert!(meta_of(&rig.push()).is_none());
    rig.handle.release(GraphName::ImageEncoder);
    rig.assert_sums();
    assert_eq!(rig.outcomes()[3], (3, Masks));
    assert_eq!(rig.records().last().unwrap().frame.running_time, Some(Duration::ZERO));
}

#[test]
fn a_late_prompt_never_lands_before_the_flush() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    for _ in 0..3 {
        rig.push();
        rig.settle();
    }
    flush(&mut rig);
    rig.pushed = 0;
    rig.push();
    rig.settle();
    // 40 ms is a frame from before the flush, and one still to come.
    rig.add("p, box=<0.1, 0.25, 0.3, 0.5>, running-time=(guint64)40000000");
    rig.push();
    rig.settle();
    let applied = rig.of("sightline-prompt-applied");
    assert_eq!(applied.len(), 2, "{applied:?}");
    assert!(!applied[1].has_field("index"), "for a frame to come: {:?}", applied[1]);
    assert_eq!(rig.records().last().unwrap().objects.len(), 2);
}

#[test]
fn a_new_size_keeps_the_tracks() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    rig.hold();
    rig.harness.set_src_caps(caps(2 * WIDTH, 2 * HEIGHT));
    let mut large = picture(2 * WIDTH, 2 * HEIGHT, 0.1, 0.25);
    large.get_mut().unwrap().set_pts(FRAME);
    let buffer = rig.harness.push_and_pull(large).unwrap();
    // The masks of the small picture, the region in pixels of the large one.
    assert_eq!(meta_of(&buffer).unwrap().objects[0].mask.width_px(), WIDTH);
    let (x, ..) = buffer.meta::<gst_video::VideoRegionOfInterestMeta>().unwrap().rect();
    assert!(x > WIDTH / 6, "{x}");
    rig.handle.release(GraphName::ImageEncoder);
    rig.assert_sums();
    let records = rig.records();
    assert_eq!(records[1].outcome, Masks);
    assert_eq!(records[1].objects[0].mask.width_px(), 2 * WIDTH);
    let [before, after] = [0, 1].map(|index: usize| records[index].objects[0].bounds.unwrap());
    assert!((before.x0 - after.x0).abs() < 0.07 && (before.y1 - after.y1).abs() < 0.07);
}

#[test]
fn buffers_without_time_and_gaps_pass() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    let out = rig.harness.push_and_pull(picture(WIDTH, HEIGHT, 0.1, 0.25)).unwrap();
    assert_eq!(out.pts(), None);
    rig.settle();
    assert!(rig.harness.push_event(gst::event::Gap::builder(FRAME).duration(FRAME).build()));
    let out = rig.harness.push_and_pull(picture(WIDTH, HEIGHT, 0.1, 0.25)).unwrap();
    let meta = meta_of(&out).unwrap();
    assert_eq!((meta.computed.pts, meta.age), (None, None));
    rig.assert_sums();
    assert_eq!(rig.stat("masks"), 2);
}

#[test]
fn stopping_accounts_for_what_is_in_flight() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.hold();
    rig.push();
    rig.in_flight(1);
    rig.push();
    let handle = rig.handle.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        handle.release(GraphName::ImageEncoder);
    });
    rig.element.set_state(gst::State::Null).unwrap();
    later.join().unwrap();
    // Outcomes were posted on the way down; the bus flushed none of them as it is not a pipeline's.
    assert_eq!(rig.stat("skipped-flushed"), 2);
    assert_eq!((rig.stat("frames-in"), rig.stat("pending")), (2, 0));
}

#[test]
fn shared_buffers_are_not_copied() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    let mut buffer = picture(WIDTH, HEIGHT, 0.1, 0.25);
    buffer.get_mut().unwrap().set_pts(FRAME);
    let other_branch = buffer.clone();
    let out = rig.harness.push_and_pull(buffer).unwrap();
    assert!(meta_of(&out).is_some() && meta_of(&other_branch).is_none());
    assert_eq!(out.peek_memory(0).as_ptr(), other_branch.peek_memory(0).as_ptr());
}
