//! The image encoder a frame ahead of the tracker, and engines that elements share.

use sightline_core::{Outcome::*, SkipReason::*, TrackState};
use sightline_engine_fake::Fault;

use super::*;

fn ahead(options: FakeOptions) -> Rig {
    Rig::with(Mode::Live, options, |element| element.set_property_from_str("encode-ahead", "on"))
}

#[test]
fn one_frame_is_encoded_while_another_is_tracked() {
    let mut rig = ahead(FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    rig.handle.hold(GraphName::MemoryAttention);
    rig.push();
    assert!(rig.handle.wait_for_runs(GraphName::MemoryAttention, 1, PATIENCE), "the second frame is tracked");
    rig.push();
    assert!(
        rig.handle.wait_for_runs(GraphName::ImageEncoder, 3, PATIENCE),
        "and the third encoded meanwhile"
    );
    for _ in 0..3 {
        rig.push();
    }
    assert_eq!((rig.stat("pending"), rig.stat("skipped-superseded")), (3, 2));
    rig.handle.release(GraphName::MemoryAttention);
    rig.assert_sums();
    let outcomes: Vec<_> = rig.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    let gone = Skipped(Superseded);
    assert_eq!(outcomes, [Masks, Masks, Masks, gone, gone, Masks]);
    let order: Vec<u64> =
        rig.records().iter().filter(|r| r.outcome == Masks).map(|record| record.frame.index).collect();
    assert_eq!(order, [0, 1, 2, 5]);
}

#[test]
fn with_more_frames_in_flight_the_newest_that_is_encoded_is_tracked() {
    let mut rig = Rig::with(Mode::Live, FakeOptions::default(), |element| {
        element.set_property_from_str("encode-ahead", "on");
        element.set_property("frames-in-flight", 4_u32);
    });
    rig.add_square();
    rig.push();
    rig.settle();
    rig.handle.hold(GraphName::MemoryAttention);
    rig.push();
    assert!(rig.handle.wait_for_runs(GraphName::MemoryAttention, 1, PATIENCE), "the second frame is tracked");
    for encoded in 3..=5 {
        if encoded == 5 {
            // Once this one is begun, the two before it are there for the tracker.
            rig.handle.hold(GraphName::ImageEncoder);
        }
        rig.push();
        let runs = rig.handle.wait_for_runs(GraphName::ImageEncoder, encoded, PATIENCE);
        assert!(runs, "{encoded}: more are encoded, as the tracker takes longer than it did");
    }
    assert_eq!((rig.stat("pending"), rig.stat("skipped")), (4, 0));
    rig.handle.release(GraphName::MemoryAttention);
    assert!(rig.handle.wait_for_runs(GraphName::MemoryAttention, 2, PATIENCE), "the next frame is tracked");
    rig.handle.release(GraphName::ImageEncoder);
    rig.assert_sums();
    let outcomes: Vec<_> = rig.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, [Masks, Masks, Skipped(Superseded), Masks, Masks]);
}

#[test]
fn it_finds_what_is_found_one_after_the_other() {
    let objects = |mut rig: Rig| {
        rig.add_square();
        for _ in 0..12 {
            rig.push();
            rig.settle();
        }
        rig.assert_sums();
        let mut records = rig.records();
        records.sort_by_key(|record| record.frame.index);
        records.into_iter().map(|record| record.objects).collect::<Vec<_>>()
    };
    let sequential = objects(Rig::new(Mode::Live, FakeOptions::default()));
    assert_eq!(objects(ahead(FakeOptions::default())), sequential);
    assert!(sequential.iter().all(|objects| objects[0].state == TrackState::Tracking));
}

#[test]
fn an_encoder_that_fails_and_a_flush_cost_their_frames_only() {
    let faults = vec![Fault { graph: GraphName::ImageEncoder, run: 2 }];
    let mut rig = ahead(FakeOptions { faults, ..FakeOptions::default() });
    rig.add_square();
    for _ in 0..3 {
        rig.push();
        rig.settle();
    }
    assert_eq!(rig.outcomes(), [(0, Masks), (1, Skipped(Error)), (2, Masks)]);
    rig.handle.hold(GraphName::ImageEncoder);
    rig.push();
    rig.in_flight(4);
    rig.push();
    assert!(rig.harness.push_event(gst::event::FlushStart::new()));
    assert!(rig.harness.push_event(gst::event::FlushStop::new(true)));
    rig.handle.release(GraphName::ImageEncoder);
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(rig.harness.push_event(gst::event::Segment::new(&segment)));
    rig.push();
    rig.assert_sums();
    assert_eq!(rig.outcomes()[3..], [(3, Skipped(Flushed)), (4, Skipped(Flushed)), (5, Masks)]);
}

#[test]
fn flushes_in_a_row_leave_every_frame_its_outcome_and_frames_go_on() {
    let mut rig = ahead(FakeOptions::default());
    rig.add_square();
    rig.push();
    rig.settle();
    rig.handle.hold(GraphName::MemoryAttention);
    for _ in 0..4 {
        for _ in 0..3 {
            rig.push();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(rig.harness.push_event(gst::event::FlushStart::new()));
        assert!(rig.harness.push_event(gst::event::FlushStop::new(true)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(rig.harness.push_event(gst::event::Segment::new(&segment)));
    }
    rig.handle.release(GraphName::MemoryAttention);
    for _ in 0..5 {
        rig.push();
        rig.settle();
    }
    rig.assert_sums();
    let flushed = rig.stat("skipped-flushed") + rig.stat("skipped-superseded");
    assert_eq!((flushed, rig.stat("masks")), (12, 6));
}

#[test]
fn elements_share_engines_and_keep_their_own_objects() {
    gst::init().unwrap();
    crate::plugin_register_static().unwrap();
    let element = |model: &str| {
        let track = gst::ElementFactory::make("sightlinetrack").property("mode", Mode::EveryFrame);
        let track = track.property("model", model).property("engines", "shared-by-this-test");
        track.property("prompts", "box=12,24,40,50").build().unwrap()
    };
    let play = |track: &gst::Element, frames: u64| {
        let mut harness = gst_check::Harness::with_element(track, Some("sink"), Some("src"));
        harness.set_src_caps(caps(WIDTH, HEIGHT));
        harness.play();
        for frame in 0..frames {
            let mut buffer = picture(WIDTH, HEIGHT, 0.1, 0.25);
            buffer.get_mut().unwrap().set_pts(FRAME * frame);
            let meta = meta_of(&harness.push_and_pull(buffer).unwrap()).unwrap();
            assert_eq!((meta.outcome, meta.objects.len(), meta.objects[0].id.0), (Masks, 1, 1));
        }
        harness
    };
    let tracks = [element("fake"), element("fake"), element("fake")];
    std::thread::scope(|scope| {
        let joins: Vec<_> = tracks.iter().map(|track| scope.spawn(|| drop(play(track, 20)))).collect();
        joins.into_iter().for_each(|join| join.join().unwrap());
    });
    tracks.iter().for_each(|track| assert!(track.set_state(gst::State::Null).is_ok()));

    // While one of them lives, the group is what it was loaded as.
    let (first, other) = (element("fake"), element("nano"));
    assert!(first.set_state(gst::State::Paused).is_ok());
    let bus = gst::Bus::new();
    other.set_bus(Some(&bus));
    assert!(other.set_state(gst::State::Paused).is_err());
    let said = bus.pop_filtered(&[gst::MessageType::Error]).expect("an error");
    let gst::MessageView::Error(error) = said.view() else { unreachable!("filtered") };
    let text = error.error().to_string();
    assert!(text.contains("shared-by-this-test") && text.contains("nano") && text.contains("fake"), "{text}");
    let _ = (first.set_state(gst::State::Null), other.set_state(gst::State::Null));
}
