//! Every-frame mode: each buffer with its own masks.

use sightline_core::{Outcome::*, SkipReason::*, TrackState};
use sightline_engine_fake::Fault;

use super::*;

#[test]
fn every_buffer_carries_its_own_masks() {
    let delay = Duration::from_millis(2);
    let mut rig = Rig::with(Mode::EveryFrame, FakeOptions { delay, ..FakeOptions::default() }, |element| {
        element.set_property("prompts", "box=12,24,37,48;at=0.08|point=20,30;at=0.12;id=9");
    });
    for index in 0..10 {
        let meta = meta_of(&rig.push());
        if index < 2 {
            assert!(meta.is_none(), "nothing is prompted before 0.08 s");
            continue;
        }
        let meta = meta.unwrap();
        assert_eq!((meta.computed.index, meta.age), (index, Some(Duration::ZERO)));
        assert_eq!(meta.objects.len(), if index < 3 { 1 } else { 2 }, "frame {index}");
        assert!(meta.objects.iter().all(|object| object.state == TrackState::Tracking));
    }
    rig.assert_sums();
    let outcomes: Vec<_> = rig.outcomes().into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes[..2], [Skipped(NoPrompt); 2]);
    assert!(outcomes[2..].iter().all(|outcome| *outcome == Masks));
    assert_eq!((rig.stat("fresh-buffers"), rig.stat("coasted-buffers")), (8, 0));
    assert_eq!(rig.records().last().unwrap().objects[1].id.0, 9);

    let latency = rig.element.property::<u64>("latency");
    assert!(latency >= 8_000_000, "four graphs of 2 ms at least: {latency}");
    rig.harness.set_upstream_latency(gst::ClockTime::ZERO);
    assert_eq!(rig.harness.query_latency(), Some(gst::ClockTime::from_nseconds(latency)));
}

#[test]
fn the_same_pictures_give_the_same_masks() {
    let run = || {
        let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
        rig.add_square();
        let metas: Vec<_> = (0..25).map(|_| meta_of(&rig.push()).unwrap().objects).collect();
        rig.assert_sums();
        assert_eq!(rig.stat("masks"), 25);
        metas
    };
    assert_eq!(run(), run());
}

#[test]
fn a_failed_frame_carries_the_masks_before_it() {
    let faults = vec![Fault { graph: GraphName::ImageEncoder, run: 2 }];
    let mut rig = Rig::new(Mode::EveryFrame, FakeOptions { faults, ..FakeOptions::default() });
    rig.add_square();
    assert_eq!(meta_of(&rig.push()).unwrap().objects[0].state, TrackState::Tracking);
    let meta = meta_of(&rig.push()).unwrap();
    assert_eq!((meta.computed.index, meta.objects[0].state), (0, TrackState::Coasted));
    assert_eq!(meta_of(&rig.push()).unwrap().computed.index, 2);
    rig.assert_sums();
    assert_eq!(rig.stat("skipped-error"), 1);
}

#[test]
fn a_waiting_stream_is_freed_by_a_flush_and_by_the_way_down() {
    for down in [false, true] {
        let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
        rig.add_square();
        rig.hold();
        let (element, handle) = (rig.element.clone(), rig.handle.clone());
        let other = std::thread::spawn(move || {
            assert!(handle.wait_for_runs(GraphName::ImageEncoder, 1, PATIENCE));
            if down {
                let later = handle.clone();
                let release = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    later.release(GraphName::ImageEncoder);
                });
                element.set_state(gst::State::Null).unwrap();
                release.join().unwrap();
            } else {
                let sink = element.static_pad("sink").unwrap();
                assert!(sink.send_event(gst::event::FlushStart::new()));
            }
        });
        let mut buffer = picture(WIDTH, HEIGHT, 0.1, 0.25);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
        let _ = rig.harness.push(buffer);
        other.join().unwrap();
        assert_eq!((rig.stat("frames-in"), rig.stat("skipped-flushed")), (1, 1), "down: {down}");
        rig.handle.release(GraphName::ImageEncoder);
    }
}
