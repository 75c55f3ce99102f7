//! The element in a harness, with a fake model whose runs the test holds and lets go.

mod ahead;
mod degrade;
mod device_memory;
mod every_frame;
mod gap;
mod live;
#[cfg(feature = "cuda")]
mod on_device;
mod pipeline_citizen;
mod prompting;
mod questions;
mod stream;

use std::time::{Duration, Instant};

use gst::{prelude::*, subclass::prelude::*};
use sightline_core::{Outcome, SkipReason};
use sightline_engine_api::GraphName;
use sightline_engine_fake::{FakeHandle, FakeOptions};
use sightline_tracker::Session;

use super::{Mode, SightlineTrack};
use crate::{
    meta::SightlineMeta,
    record::{FRAME_MESSAGE, FrameRecord},
};

const WIDTH: u32 = 128;
const HEIGHT: u32 = 96;
const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(40);
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    harness: gst_check::Harness,
    element: SightlineTrack,
    handle: FakeHandle,
    bus: gst::Bus,
    log: Vec<gst::Message>,
    pushed: u64,
}

fn caps(width: u32, height: u32) -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width(width as i32)
        .height(height as i32)
        .framerate(gst::Fraction::new(25, 1))
        .build()
}

/// Grey, with a red square of a quarter of the height at `x`,`y` of the unit square.
fn picture(width: u32, height: u32, x: f32, y: f32) -> gst::Buffer {
    let stride = (width as usize * 3).next_multiple_of(4);
    let mut bytes = vec![90_u8; stride * height as usize];
    let side = height / 4;
    let (x0, y0) = ((x * width as f32) as u32, (y * height as f32) as u32);
    for y in y0..(y0 + side).min(height) {
        for x in x0..(x0 + side).min(width) {
            bytes[y as usize * stride + x as usize * 3..][..3].copy_from_slice(&[230, 20, 20]);
        }
    }
    gst::Buffer::from_mut_slice(bytes)
}

impl Rig {
    fn new(mode: Mode, options: FakeOptions) -> Self {
        Self::with(mode, options, |_| {})
    }

    fn with(mode: Mode, options: FakeOptions, set: impl FnOnce(&SightlineTrack)) -> Self {
        let handle = options.handle.clone();
        Self::with_model(mode, handle, sightline_engine_fake::model(options), set)
    }

    fn with_model(
        mode: Mode,
        handle: FakeHandle,
        model: sightline_engine_api::Model,
        set: impl FnOnce(&SightlineTrack),
    ) -> Self {
        gst::init().unwrap();
        crate::plugin_register_static().unwrap();
        let element =
            gst::ElementFactory::make("sightlinetrack").property("mode", mode).property("history", 4_u32);
        let element = element.build().unwrap().downcast::<SightlineTrack>().unwrap();
        // The clip's time is not the clock's: only tests of the degrade ladder have one.
        element.set_property("max-age", 0_u32);
        set(&element);
        let options_of = sightline_tracker::Options {
            history: element.property::<u32>("history") as usize,
            memory_bytes: (element.property::<u32>("catch-up-memory") as usize) << 20,
            max_objects: 3,
        };
        let session = Session::new(model, options_of).unwrap();
        element.imp().state().next_session = Some(session);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let mut harness = gst_check::Harness::with_element(&element, Some("sink"), Some("src"));
        harness.set_src_caps(caps(WIDTH, HEIGHT));
        harness.play();
        Self { harness, element, handle, bus, log: Vec::new(), pushed: 0 }
    }

    /// Pushes the next picture of the clip; its square moves right. Gives the buffer that came out.
    fn push(&mut self) -> gst::Buffer {
        let x = 0.1 + (self.pushed % 40) as f32 * 0.01;
        let mut buffer = picture(WIDTH, HEIGHT, x, 0.25);
        {
            let buffer = buffer.get_mut().unwrap();
            buffer.set_pts(FRAME * self.pushed);
            buffer.set_duration(FRAME);
        }
        self.pushed += 1;
        self.harness.push_and_pull(buffer).unwrap()
    }

    fn add(&self, text: &str) -> u32 {
        self.element.emit_by_name::<u32>("add-object", &[&text.parse::<gst::Structure>().unwrap()])
    }

    /// Prompts the square where it is on the first frame.
    fn add_square(&self) -> u32 {
        self.add("p, box=<0.1, 0.25, 0.29, 0.5>")
    }

    /// Waits until every frame has its outcome and it was told.
    fn settle(&mut self) {
        let begun = Instant::now();
        loop {
            self.collect();
            let pending = self.stat("pending");
            if pending == 0 && self.records().len() as u64 == self.stat("frames-in") {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{} frames without outcome", pending);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn collect(&mut self) {
        self.log.extend(std::iter::from_fn(|| self.bus.pop()));
    }

    fn records(&mut self) -> Vec<FrameRecord> {
        self.collect();
        let structures = self.log.iter().filter_map(|message| message.structure());
        structures
            .filter(|s| s.name() == FRAME_MESSAGE)
            .map(|s| FrameRecord::from_structure(s).unwrap())
            .collect()
    }

    fn outcomes(&mut self) -> Vec<(u64, Outcome)> {
        let mut all: Vec<_> =
            self.records().iter().map(|record| (record.frame.index, record.outcome)).collect();
        all.sort_by_key(|(index, _)| *index);
        all
    }

    fn of(&mut self, name: &str) -> Vec<gst::Structure> {
        self.collect();
        let all = self.log.iter().filter_map(|message| message.structure());
        all.filter(|s| s.name() == name).map(|s| s.to_owned()).collect()
    }

    /// Waits for a message of that name.
    fn await_one(&mut self, name: &str) -> gst::Structure {
        let begun = Instant::now();
        loop {
            if let Some(structure) = self.of(name).pop() {
                return structure;
            }
            assert!(begun.elapsed() < PATIENCE, "no {name}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn warnings(&mut self) -> Vec<String> {
        self.collect();
        let all = self.log.iter().filter_map(|message| match message.view() {
            gst::MessageView::Warning(warning) => Some(warning.error().to_string()),
            _ => None,
        });
        all.collect()
    }

    fn stat(&self, field: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(field).unwrap()
    }

    /// What must hold whenever the corridor is empty.
    fn assert_sums(&mut self) {
        self.settle();
        let [frames, masks, none, skipped] =
            ["frames-in", "masks", "no-object", "skipped"].map(|field| self.stat(field));
        assert_eq!(frames, masks + none + skipped);
        assert_eq!(self.stat("processed"), masks + none);
        let reasons: u64 =
            SkipReason::ALL.iter().map(|reason| self.stat(&format!("skipped-{}", reason.as_str()))).sum();
        assert_eq!(skipped, reasons);
        let outcomes = self.outcomes();
        let indices: Vec<u64> = outcomes.iter().map(|(index, _)| *index).collect();
        assert_eq!(indices, (0..frames).collect::<Vec<_>>(), "one message for each frame");
        let told = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Masks).count() as u64;
        assert_eq!(told, masks);
    }

    fn hold(&self) {
        self.handle.hold(GraphName::ImageEncoder);
    }

    fn in_flight(&self, run: u64) {
        assert!(self.handle.wait_for_runs(GraphName::ImageEncoder, run, PATIENCE), "run {run}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.release(GraphName::ImageEncoder);
        let _ = self.element.set_state(gst::State::Null);
    }
}

fn meta_of(buffer: &gst::Buffer) -> Option<SightlineMeta> {
    SightlineMeta::from_buffer(buffer).unwrap()
}
