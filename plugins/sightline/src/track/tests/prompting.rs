//! Signals, events and refusals.

use super::*;

fn event(name: &str, fields: &str) -> gst::Event {
    let mut structure: gst::Structure = format!("p{fields}").parse().unwrap();
    structure.set_name(name);
    gst::event::CustomUpstream::new(structure)
}

#[test]
fn objects_come_are_corrected_and_go_by_signal() {
    let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
    assert_eq!(rig.add_square(), 1);
    assert_eq!(rig.add("p, points=<0.15, 0.3>, id=(uint)5"), 5);
    assert_eq!(rig.add("p, box-px=<12, 24, 36, 48>"), 6, "above every id that was taken");
    assert_eq!(meta_of(&rig.push()).unwrap().objects.len(), 3);
    let correction: gst::Structure = "p, points=<0.2, 0.3>, labels=<1>".parse().unwrap();
    assert!(rig.element.emit_by_name::<bool>("correct-object", &[&5_u32, &correction]));
    rig.push();
    assert!(rig.element.emit_by_name::<bool>("remove-object", &[&5_u32]));
    let ids: Vec<u32> = meta_of(&rig.push()).unwrap().objects.iter().map(|object| object.id.0).collect();
    assert_eq!(ids, [1, 6]);
    assert!(rig.element.emit_by_name::<bool>("clear", &[]));
    assert!(meta_of(&rig.push()).is_none_or(|meta| meta.objects.is_empty()));
    assert_eq!((rig.stat("prompts-applied"), rig.stat("prompts-refused")), (4, 0));
    rig.assert_sums();
}

#[test]
fn the_same_by_upstream_event() {
    let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
    assert!(
        rig.harness.push_upstream_event(event("sightline/add-object", ", id=3, box=<0.1, 0.25, 0.29, 0.5>"))
    );
    assert_eq!(meta_of(&rig.push()).unwrap().objects[0].id.0, 3);
    assert!(rig.harness.push_upstream_event(event("sightline/correct-object", ", id=3, points=<0.2, 0.3>")));
    rig.push();
    assert!(rig.harness.push_upstream_event(event("sightline/add-object", ", points=<0.2, 0.3>")));
    assert_eq!(meta_of(&rig.push()).unwrap().objects[1].id.0, 4);
    assert!(rig.harness.push_upstream_event(event("sightline/remove-object", ", id=3")));
    assert_eq!(meta_of(&rig.push()).unwrap().objects.len(), 1);
    assert!(rig.harness.push_upstream_event(event("sightline/clear", "")));
    assert!(meta_of(&rig.push()).is_none_or(|meta| meta.objects.is_empty()));
    assert_eq!(rig.stat("prompts-applied"), 3);
    assert!(rig.warnings().is_empty());
    // Ours never reach upstream, others do.
    let upstream = rig.harness.upstream_events_received();
    rig.harness.push_upstream_event(event("another/event", ""));
    assert_eq!(rig.harness.upstream_events_received(), upstream + 1);
}

#[test]
fn what_cannot_be_used_is_refused_aloud_and_the_stream_goes_on() {
    for (case, prompt, id, says) in [
        ("nothing", "p", 0, "prompt: expected a box, points or a mask"),
        ("outside at the door", "p, points=<1.5, 0.5>", 0, "point: expected normalised"),
        ("outside this picture", "p, box-px=<500, 500, 600, 600>", 2, "128x96 picture"),
        ("no such file", "p, mask=\"/nowhere/mask.png\"", 2, "mask /nowhere/mask.png: expected"),
        ("empty mask", "p, mask=\"<\", mask-width=4, mask-height=3", 2, "mask"),
    ] {
        let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
        rig.add_square();
        (0..8).for_each(|_| drop(rig.push()));
        assert_eq!(rig.add(prompt), id, "{case}");
        let refused = rig.await_one("sightline-prompt-refused");
        let reason: String = refused.get("reason").unwrap();
        assert!(reason.contains(says), "{case}: {reason}");
        assert_eq!(refused.get::<u32>("id").unwrap_or(0), id, "{case}");
        assert_eq!(rig.stat("prompts-refused"), 1, "{case}");
        let warnings = rig.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(&reason), "{case}: {warnings:?}");
        assert_eq!(meta_of(&rig.push()).unwrap().objects.len(), 1, "{case}");
        rig.assert_sums();
    }
}

#[test]
fn corrections_and_removals_need_an_object() {
    let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
    let prompt: gst::Structure = "p, points=<0.2, 0.3>".parse().unwrap();
    assert!(rig.element.emit_by_name::<bool>("correct-object", &[&7_u32, &prompt]), "found out later");
    assert!(!rig.element.emit_by_name::<bool>("correct-object", &[&0_u32, &prompt]));
    assert!(rig.element.emit_by_name::<bool>("remove-object", &[&7_u32]));
    rig.push();
    assert_eq!(rig.of("sightline-prompt-refused").len(), 3);
}

#[test]
fn a_prompt_about_a_kept_frame_is_replayed() {
    let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
    rig.add_square();
    (0..6).for_each(|_| drop(rig.push()));
    // The square of frame 3, asked for while frame 5 is the newest.
    assert_eq!(rig.add("p, box=<0.12, 0.25, 0.33, 0.5>, running-time=(guint64)120000000"), 2);
    let objects = meta_of(&rig.push()).unwrap().objects;
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0].mask, objects[1].mask, "it has caught up");
    let applied = rig.of("sightline-prompt-applied").pop().unwrap();
    assert_eq!((applied.get::<u32>("id"), applied.get::<u64>("index")), (Ok(2), Ok(3)));
}

#[test]
fn a_prompt_about_a_frame_that_is_gone_goes_to_the_oldest_kept() {
    let mut rig = Rig::with(Mode::EveryFrame, FakeOptions::default(), |element| {
        element.set_property("catch-up-memory", 0_u32);
    });
    rig.add_square();
    (0..8).for_each(|_| drop(rig.push()));
    assert_eq!(rig.add("p, box=<0.1, 0.2, 0.3, 0.5>, running-time=(guint64)0"), 2);
    rig.push();
    let applied = rig.of("sightline-prompt-applied").pop().unwrap();
    assert_eq!((applied.get::<u64>("index"), applied.get::<bool>("degraded")), (Ok(4), Ok(true)));
    let late: Vec<u64> = rig.of("sightline-late").iter().map(|late| late.get("index").unwrap()).collect();
    assert_eq!(late, [4, 5, 6, 7]);
    let live = rig.of("sightline-caught-up").pop().unwrap();
    assert_eq!((live.get::<u64>("from-index"), live.get::<u64>("index")), (Ok(4), Ok(7)));
    assert_eq!((live.get::<u32>("id"), live.get::<u32>("looked-at")), (Ok(2), Ok(4)));
}

#[test]
fn the_command_queue_is_bounded() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.add_square();
    rig.hold();
    rig.push();
    rig.in_flight(1);
    let sent = (0..100_u32).filter(|id| rig.element.emit_by_name::<bool>("remove-object", &[id])).count();
    assert_eq!(sent, super::super::hub::COMMANDS);
    assert_eq!(rig.of("sightline-prompt-refused").len(), 100 - sent);
    assert_eq!(rig.add("p, points=<0.2, 0.3>"), 0);
}

#[test]
fn prompts_given_before_the_start_are_kept() {
    let mut rig = Rig::with(Mode::EveryFrame, FakeOptions::default(), |element| {
        let prompt: gst::Structure = "p, box=<0.1, 0.25, 0.29, 0.5>".parse().unwrap();
        assert_eq!(element.emit_by_name::<u32>("add-object", &[&prompt]), 1);
        element.set_property("prompts", "point=20,30");
    });
    let ids: Vec<u32> = meta_of(&rig.push()).unwrap().objects.iter().map(|object| object.id.0).collect();
    assert_eq!(ids, [1, 2]);
}
