//! Memories whose libraries are said to be found (`device.rs` says so in these tests) and are not there: what is offered,
//! and that nothing is lost when the buffers come.

use super::*;

fn device_caps(feature: &str) -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .features([feature])
        .format(gst_video::VideoFormat::Nv12)
        .width(WIDTH as i32)
        .height(HEIGHT as i32)
        .framerate(gst::Fraction::new(25, 1))
        .build()
}

fn errors(rig: &mut Rig) -> Vec<String> {
    rig.collect();
    let all = rig.log.iter().filter_map(|message| match message.view() {
        gst::MessageView::Error(error) => Some(error.error().to_string()),
        _ => None,
    });
    all.collect()
}

/// Why no buffer can be read, by what the build has.
const REASONS: [(&str, &str); 2] = [
    ("memory:CUDAMemory", "expected gst.cuda.memory, got RustGlobalAllocatorMemory"),
    (
        "memory:NVMM",
        if cfg!(feature = "nvmm") {
            "libnvbufsurface.so: expected to find it, got"
        } else {
            "the feature nvmm, got none"
        },
    ),
];

#[test]
fn what_is_found_is_offered_nearest_first() {
    let rig = Rig::new(Mode::Live, FakeOptions::default());
    let anything = gst::ElementFactory::make("sightlinetrack").build().unwrap();
    let caps = anything.static_pad("sink").unwrap().query_caps(None);
    for (feature, _) in REASONS {
        assert!(caps.can_intersect(&device_caps(feature)), "{feature}: {caps}");
    }
    for pad in ["sink", "src"] {
        let caps = rig.element.pad_template(pad).unwrap().caps().to_owned();
        let offered: Vec<String> =
            caps.iter_with_features().map(|(_, features)| features.to_string()).collect();
        assert_eq!(offered, ["memory:NVMM", "memory:CUDAMemory", "memory:SystemMemory"], "{pad}");
    }
}

#[test]
fn a_buffer_that_cannot_be_read_passes_and_is_accounted_for() {
    for (feature, reason) in REASONS {
        let mut rig = Rig::new(Mode::Live, FakeOptions::default());
        rig.add_square();
        rig.push();
        rig.settle();
        rig.harness.set_src_caps(device_caps(feature));
        for _ in 0..5 {
            let before = rig.stat("frames-in");
            let out = rig.push();
            assert_eq!(out.size(), picture(WIDTH, HEIGHT, 0.0, 0.0).size(), "{feature}: as it came");
            assert_eq!(rig.stat("frames-in"), before + 1);
        }
        rig.assert_sums();
        assert_eq!(rig.stat("skipped-error"), 5, "{feature}");
        let told = errors(&mut rig);
        assert_eq!(told.len(), 1, "{feature}: {told:?}");
        let skipped: Vec<_> = rig.records().into_iter().filter_map(|record| record.error).collect();
        assert_eq!(skipped.len(), 5);
        assert!(told[0].contains(reason), "{feature}: {told:?}");
        assert!(told[0].contains(&skipped[0]), "{told:?} {skipped:?}");

        // Caps that can be read make it well again.
        rig.harness.set_src_caps(caps(WIDTH, HEIGHT));
        rig.push();
        rig.assert_sums();
        assert_eq!((rig.stat("skipped-error"), errors(&mut rig).len()), (5, 1), "{feature}");
        assert!(rig.outcomes().last().is_some_and(|(_, outcome)| *outcome == Outcome::Masks), "{feature}");
    }
}

#[test]
fn every_frame_mode_ends_on_it() {
    let mut rig = Rig::new(Mode::EveryFrame, FakeOptions::default());
    rig.add_square();
    rig.harness.set_src_caps(device_caps("memory:CUDAMemory"));
    let mut buffer = picture(WIDTH, HEIGHT, 0.1, 0.25);
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::ZERO);
    assert_eq!(rig.harness.push(buffer), Err(gst::FlowError::Error));
    rig.assert_sums();
    assert_eq!((rig.stat("skipped-error"), errors(&mut rig).len()), (1, 1));
}

/// What upstream is told of pools, where downstream does so with the query.
fn pools_told(
    feature: &str,
    downstream: impl Fn(&mut gst::query::Allocation) -> gst::PadProbeReturn + Send + Sync + 'static,
) -> Vec<(Option<gst::BufferPool>, u32, u32, u32)> {
    let mut rig = Rig::new(Mode::Live, FakeOptions::default());
    rig.harness.set_src_caps(device_caps(feature));
    let to = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH;
    rig.element.static_pad("src").unwrap().add_probe(to, move |_, info| match info.query_mut() {
        Some(query) => match query.view_mut() {
            gst::QueryViewMut::Allocation(query) => downstream(query),
            _ => gst::PadProbeReturn::Ok,
        },
        None => gst::PadProbeReturn::Ok,
    });
    let mut query = gst::query::Allocation::new(Some(&device_caps(feature)), true);
    assert!(rig.element.static_pad("sink").unwrap().query(query.query_mut()), "{feature}");
    let metas = query.allocation_metas().count();
    assert_eq!(metas, 0, "{feature}: downstream announced none");
    query.allocation_pools().collect()
}

/// One in flight and one that waits.
const HELD: u32 = 2;

#[test]
fn what_is_held_is_asked_for_though_downstream_says_nothing() {
    let bytes = u32::try_from(gst_video::VideoInfo::from_caps(&device_caps(REASONS[0].0)).unwrap().size());
    // An NVMM buffer's bytes are no picture: their number is not for us to say.
    for (feature, bytes) in [(REASONS[0].0, bytes.unwrap()), (REASONS[1].0, 0)] {
        for answer in [gst::PadProbeReturn::Drop, gst::PadProbeReturn::Handled] {
            assert_eq!(pools_told(feature, move |_| answer), [(None, bytes, HELD + 1, 0)], "{feature}");
        }
    }
}

#[test]
fn what_is_held_is_added_to_the_pools_downstream_offers() {
    gst::init().unwrap();
    for (feature, _) in REASONS {
        let pool = gst::BufferPool::new();
        let offered = pool.clone();
        let told = pools_told(feature, move |query| {
            query.add_allocation_pool(Some(&offered), 64, 4, 0);
            query.add_allocation_pool(None::<&gst::BufferPool>, 77, 2, 5);
            gst::PadProbeReturn::Handled
        });
        assert_eq!(told, [(Some(pool), 64, 4 + HELD, 0), (None, 77, 2 + HELD, 5 + HELD)], "{feature}");
    }
}
