//! GStreamer's own questions: LATENCY and QoS.

use super::*;

/// What upstream answers, as seen from behind the element.
fn latency_behind(rig: &Rig) -> (bool, gst::ClockTime, Option<gst::ClockTime>) {
    let mut query = gst::query::Latency::new();
    assert!(rig.element.static_pad("src").unwrap().query(&mut query));
    query.result()
}

#[test]
fn a_live_element_adds_nothing_to_the_latency_however_slow_its_model() {
    let delay = Duration::from_millis(60);
    let mut rig = Rig::new(Mode::Live, FakeOptions { delay, ..FakeOptions::default() });
    rig.add_square();
    let upstream = gst::ClockTime::from_mseconds(33);
    rig.harness.set_upstream_latency(upstream);
    let before = latency_behind(&rig);
    assert_eq!(before, (true, upstream, None));
    for _ in 0..3 {
        rig.push();
        rig.settle();
    }
    assert!(rig.stat("latency-max") > 50_000_000, "the model was slow");
    assert_eq!(latency_behind(&rig), before);
    let told = rig.log.iter().any(|message| message.type_() == gst::MessageType::Latency);
    assert!(!told, "nothing to work out anew");
}

#[test]
fn qos_events_pass_upstream_unchanged_and_drop_nothing() {
    for mode in [Mode::Live, Mode::EveryFrame] {
        let mut rig = Rig::new(mode, FakeOptions::default());
        rig.add_square();
        rig.push();
        // Reconfigure and its like, from the start.
        while rig.harness.try_pull_upstream_event().is_some() {}
        let late = 700_000_000_i64;
        for (kind, proportion) in [(gst::QOSType::Underflow, 3.5), (gst::QOSType::Throttle, 0.25)] {
            let event = gst::event::Qos::new(kind, proportion, late, FRAME * 2_u64);
            assert!(rig.harness.push_upstream_event(event), "{mode:?}");
            let passed = rig.harness.pull_upstream_event().unwrap();
            let gst::EventView::Qos(passed) = passed.view() else { panic!("{mode:?}: {passed:?}") };
            assert_eq!(passed.get(), (kind, proportion, late, Some(FRAME * 2_u64)), "{mode:?}");
            assert!(rig.harness.try_pull_upstream_event().is_none(), "once");
        }
        // A base class that heeded them would drop what is late.
        for _ in 0..5 {
            rig.push();
        }
        rig.assert_sums();
        assert_eq!(rig.stat("frames-in"), 6, "{mode:?}");
    }
}
