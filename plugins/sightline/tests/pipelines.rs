//! Real pipelines with the fake model, through the public door only.
// A test's helpers may unwrap as its tests do.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use gst::prelude::*;
use gstsightline::{
    meta::SightlineMeta,
    record::{FRAME_MESSAGE, FrameRecord},
};
use sightline_core::{Outcome, TrackState};

const WIDTH: usize = 160;
const HEIGHT: usize = 120;

fn init() {
    gst::init().unwrap();
    gstsightline::plugin_register_static().unwrap();
}

/// Grey with a red square, 40 pixels a side, that moves right by two pixels a frame from x = 20, at y = 40.
fn picture(index: u64) -> gst::Buffer {
    let mut bytes = vec![90_u8; WIDTH * 3 * HEIGHT];
    let x0 = 20 + 2 * index as usize;
    for y in 40..80 {
        bytes[(y * WIDTH + x0) * 3..(y * WIDTH + x0 + 40) * 3]
            .chunks_exact_mut(3)
            .for_each(|pixel| pixel.copy_from_slice(&[230, 20, 20]));
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(index * gst::ClockTime::from_mseconds(40));
    writable.set_duration(gst::ClockTime::from_mseconds(40));
    buffer
}

/// Runs `frames` pictures through a description and gives the metas that came out and the records on the bus.
fn run(middle: &str, frames: u64) -> Result<(Vec<Option<SightlineMeta>>, Vec<FrameRecord>), String> {
    init();
    let description = format!(
        "appsrc name=in format=time caps=video/x-raw,format=RGB,width={WIDTH},height={HEIGHT},framerate=25/1 \
         ! {middle} ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    let bus = pipeline.bus().unwrap();
    let started = pipeline.set_state(gst::State::Playing);
    let mut metas = Vec::new();
    if started.is_ok() {
        for index in 0..frames {
            source.push_buffer(picture(index)).unwrap();
        }
        source.end_of_stream().unwrap();
        while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(20)) {
            metas.push(SightlineMeta::from_buffer(sample.buffer().unwrap()).unwrap());
        }
    }
    let mut records = Vec::new();
    let mut error = None;
    while let Some(message) = bus.pop() {
        match message.view() {
            gst::MessageView::Error(told) => error = Some(told.error().to_string()),
            gst::MessageView::Element(element) => {
                let ours = element.structure().filter(|structure| structure.name() == FRAME_MESSAGE);
                records.extend(ours.map(|structure| FrameRecord::from_structure(structure).unwrap()));
            }
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    error.map_or(Ok((metas, records)), Err)
}

#[test]
fn every_format_is_tracked() {
    for format in ["NV12", "I420", "YUY2", "RGB", "BGR", "RGBx", "BGRx", "RGBA", "BGRA"] {
        let middle = format!(
            "videoconvert ! video/x-raw,format={format} \
             ! sightlinetrack model=fake mode=every-frame prompts=box=20,40,60,80 ! sightlineoverlay"
        );
        let (metas, records) = run(&middle, 10).unwrap();
        assert_eq!((metas.len(), records.len()), (10, 10), "{format}");
        for (index, meta) in metas.iter().enumerate() {
            let meta = meta.as_ref().unwrap();
            assert_eq!((meta.computed.index, meta.outcome), (index as u64, Outcome::Masks), "{format}");
            assert_eq!(meta.objects[0].state, TrackState::Tracking, "{format}");
            let x0 = meta.objects[0].bounds.unwrap().x0 * WIDTH as f32;
            assert!((x0 - (20 + 2 * index) as f32).abs() < 8.0, "{format} frame {index}: {x0}");
        }
    }
}

#[test]
fn the_masks_survive_scaling_and_conversion() {
    let middle = "sightlinetrack model=fake mode=every-frame prompts=box=20,40,60,80 \
                  ! videoconvertscale ! video/x-raw,format=NV12,width=80,height=60 ! sightlineoverlay";
    let (metas, _) = run(middle, 5).unwrap();
    assert!(metas.iter().all(|meta| meta.as_ref().is_some_and(|meta| meta.objects.len() == 1)));
}

#[test]
fn live_mode_accounts_for_every_frame() {
    let (metas, records) =
        run("queue ! sightlinetrack name=t model=fake prompts=box=20,40,60,80", 40).unwrap();
    assert_eq!(metas.len(), 40);
    let mut indices: Vec<u64> = records.iter().map(|record| record.frame.index).collect();
    indices.sort_unstable();
    assert_eq!(indices, (0..40).collect::<Vec<_>>());
    assert!(records.iter().any(|record| record.outcome == Outcome::Masks));
    for meta in metas.into_iter().flatten() {
        assert!(meta.age.unwrap() < Duration::from_secs(2));
    }
}

#[test]
fn what_cannot_start_says_why() {
    for (case, properties, says) in [
        ("no model", "model=no-such-model", "no-such-model"),
        ("no provider", "model=fake provider=abacus", "abacus"),
        ("no gpu", "model=fake provider=onnxruntime-cuda", "onnxruntime-cuda"),
        ("prompts", "model=fake prompts=box=1,2,3", "prompts, number 1"),
    ] {
        let error = run(&format!("sightlinetrack {properties}"), 1).expect_err(case);
        assert!(error.contains(says), "{case}: {error}");
    }
}
