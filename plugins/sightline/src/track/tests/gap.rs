//! A camera that goes and comes back.

use sightline_core::TrackState;

use super::*;

fn says(rig: &mut Rig, what: &str) {
    let event =
        gst::event::CustomDownstream::new(gst::Structure::new_empty(format!("sightline/camera-{what}")));
    assert!(rig.harness.push_event(event));
}

#[test]
fn objects_coast_are_lost_and_are_acquired_again() {
    let mut rig =
        Rig::with(Mode::Live, FakeOptions::default(), |element| element.set_property("lost-after", 50_u32));
    let id = rig.add_square();
    for _ in 0..3 {
        rig.push();
        rig.settle();
    }
    says(&mut rig, "lost");
    let begun = Instant::now();
    while rig.of("sightline-tracks").len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{:?}", rig.of("sightline-tracks"));
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = rig.of("sightline-tracks");
    let states: Vec<&str> = told.iter().map(|tracks| tracks.get("state").unwrap()).collect();
    assert_eq!(states, ["coasted", "lost"]);
    let ids = told[1].get::<gst::Array>("ids").unwrap();
    assert_eq!(ids.iter().map(|id| id.get::<u32>().unwrap()).collect::<Vec<_>>(), [id]);
    assert!(told[1].get::<u64>("gap").unwrap() >= 50_000_000);

    // What rides on the first buffer after the gap is no old mask as if it were new.
    says(&mut rig, "back");
    rig.hold();
    let meta = meta_of(&rig.push()).unwrap();
    assert_eq!((meta.objects[0].state, meta.objects[0].bounds), (TrackState::Lost, None));
    rig.handle.release(GraphName::ImageEncoder);
    let again = rig.await_one("sightline-reacquired");
    assert_eq!((again.get::<u32>("id").unwrap(), again.get::<u64>("index").unwrap()), (id, 3));
    assert!(again.get::<u64>("gap").unwrap() >= 50_000_000);
    rig.push();
    rig.assert_sums();
    assert_eq!(rig.records().last().unwrap().objects[0].state, TrackState::Tracking);
    assert_eq!(rig.of("sightline-reacquired").len(), 1, "once");
}

#[test]
fn a_frame_from_before_the_gap_finds_nothing_again() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    let id = rig.add_square();
    rig.push();
    rig.settle();
    rig.hold();
    rig.push();
    rig.in_flight(2);
    rig.push();
    says(&mut rig, "lost");
    rig.handle.release(GraphName::ImageEncoder);
    rig.await_one("sightline-tracks");
    rig.assert_sums();
    assert!(rig.of("sightline-reacquired").is_empty(), "there is no camera");
    says(&mut rig, "back");
    rig.push();
    assert_eq!(rig.await_one("sightline-reacquired").get::<u32>("id").unwrap(), id);
}

#[test]
fn a_short_gap_is_bridged_and_an_empty_one_says_nothing() {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    says(&mut rig, "lost");
    says(&mut rig, "back");
    rig.add_square();
    rig.push();
    rig.assert_sums();
    assert!(rig.of("sightline-tracks").is_empty() && rig.of("sightline-reacquired").is_empty());
    says(&mut rig, "lost");
    assert_eq!(rig.await_one("sightline-tracks").get::<&str>("state").unwrap(), "coasted");
    says(&mut rig, "back");
    rig.push();
    rig.await_one("sightline-reacquired");
    rig.assert_sums();
    assert_eq!(rig.of("sightline-tracks").len(), 1, "it was never lost");
}
