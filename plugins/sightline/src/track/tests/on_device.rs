//! Frames in CUDA memory and a model on the same GPU: GStreamer's own CUDA library and elements on the driver of an imaginary
//! one, which runs our kernels. Not run by us on a GPU.

#[path = "../../../../../engines/cuda/tests/mock/mod.rs"]
mod mock;

use std::sync::Arc;

use gst::glib;
use gst_video::prelude::*;
use sightline_engine_api::DeviceOps;
use sightline_engine_cuda::{CudaDevice, gstreamer::SharedContext};

use super::*;

const PLUGINS: [&str; 4] = ["coreelements", "app", "videoconvertscale", "nvcodec"];
const DEVICE: &str = "memory:CUDAMemory";
const FRAMES: u64 = 5;
/// Where the imaginary driver has the model.
const PROVIDER: &str = "onnxruntime-cuda:0";

/// Runs `body` on the imaginary GPU, if GStreamer's plugin takes it.
fn imagined(test: &str, body: impl FnOnce(Arc<CudaDevice>)) {
    mock::imagined(&format!("track::tests::on_device::{test}"), &PLUGINS, || {
        if gst::ElementFactory::find("cudaupload").is_none() {
            return mock::skipped("cudaupload: expected GStreamer's nvcodec plugin, got no element");
        }
        crate::plugin_register_static().unwrap();
        body(CudaDevice::open(0, None).unwrap());
    });
}

/// Planes that GStreamer copied to the host.
fn planes_fetched() -> u64 {
    let path = std::env::var_os("SIGHTLINE_IMAGINARY_FETCHED").unwrap();
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn rgba_caps(feature: &str, width: u32) -> gst::Caps {
    gst_video::VideoCapsBuilder::new()
        .features([feature])
        .format(gst_video::VideoFormat::Rgba)
        .width(width as i32)
        .height(HEIGHT as i32)
        .framerate(gst::Fraction::new(25, 1))
        .build()
}

/// The clip in system memory.
fn clip(frames: u64) -> Vec<gst::Buffer> {
    (0..frames)
        .map(|index| {
            let rgb = picture(WIDTH, HEIGHT, 0.1 + index as f32 * 0.01, 0.25);
            let rgb = rgb.map_readable().unwrap();
            let rgba =
                rgb.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*r, *g, *b, 255]).collect::<Vec<u8>>();
            let mut buffer = gst::Buffer::from_mut_slice(rgba);
            {
                let buffer = buffer.get_mut().unwrap();
                buffer.set_pts(FRAME * index);
                buffer.set_duration(FRAME);
            }
            buffer
        })
        .collect()
}

/// The clip in CUDA memory of that context, or of one that the uploader makes for itself.
fn uploaded(frames: u64, context: Option<&gst::Context>) -> Vec<gst::Buffer> {
    let caps = rgba_caps("memory:SystemMemory", WIDTH);
    let text = "appsrc name=in format=time ! cudaupload ! video/x-raw(memory:CUDAMemory) ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    if let Some(context) = context {
        pipeline.set_context(context);
    }
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    source.set_caps(Some(&caps));
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    clip(frames).into_iter().for_each(|buffer| _ = source.push_buffer(buffer).unwrap());
    source.end_of_stream().unwrap();
    let samples = std::iter::from_fn(|| sink.try_pull_sample(gst::ClockTime::from_seconds(20)));
    let buffers: Vec<gst::Buffer> = samples.map(|sample| sample.buffer_owned().unwrap()).collect();
    assert_eq!(buffers.len() as u64, frames);
    pipeline.set_state(gst::State::Null).unwrap();
    buffers
}

/// An element whose model is on the GPU, and the context it shares.
fn rig(device: &Arc<CudaDevice>, mode: Mode, set: impl FnOnce(&SightlineTrack)) -> (Rig, gst::Context) {
    let options = FakeOptions::default();
    let handle = options.handle.clone();
    let ops: Arc<dyn DeviceOps> = device.clone();
    let model = sightline_engine_fake::on_device(sightline_engine_fake::model(options), &ops);
    let mut rig = Rig::with_model(mode, handle, model, |element| {
        element.set_property("provider", PROVIDER);
        set(element);
    });
    let context = ask(&rig.element).expect("it shares its context");
    rig.add_square();
    rig.harness.set_src_caps(rgba_caps(DEVICE, WIDTH));
    (rig, context)
}

fn ask(element: &SightlineTrack) -> Option<gst::Context> {
    let mut query = gst::query::Context::new("gst.cuda.context");
    let answered = element.static_pad("sink").unwrap().query(query.query_mut());
    answered.then(|| query.context_owned()).flatten()
}

/// Each frame's masks; the element is waited for after each.
fn masks(rig: &mut Rig, buffers: Vec<gst::Buffer>) -> Vec<String> {
    buffers
        .into_iter()
        .map(|buffer| {
            let out = rig.harness.push_and_pull(buffer).unwrap();
            rig.settle();
            assert!(out.n_memory() == 1, "it passes as it came");
            let newest = rig.element.imp().hub().and_then(|hub| hub.newest()).unwrap();
            assert_eq!(newest.result().outcome, Outcome::Masks);
            format!("{:?}", newest.result().objects)
        })
        .collect()
}

fn released(rig: &mut Rig) {
    rig.settle();
    rig.assert_sums();
}

#[test]
fn masks_are_those_of_system_memory_and_no_pixel_is_fetched() {
    imagined("masks_are_those_of_system_memory_and_no_pixel_is_fetched", |device| {
        for (mode, ahead) in [(Mode::Live, "off"), (Mode::Live, "on"), (Mode::EveryFrame, "off")] {
            let case = format!("{mode:?}, ahead {ahead}");
            let set = |element: &SightlineTrack| element.set_property_from_str("encode-ahead", ahead);
            let (mut on_device, context) = rig(&device, mode, set);
            let buffers = uploaded(FRAMES, Some(&context));
            let before = planes_fetched();
            let there = masks(&mut on_device, buffers);
            assert_eq!(planes_fetched(), before, "{case}");
            assert_eq!(on_device.stat("fetched-pictures"), 0, "{case}");

            let (mut in_system, _) = rig(&device, mode, set);
            in_system.harness.set_src_caps(rgba_caps("memory:SystemMemory", WIDTH));
            assert_eq!(there, masks(&mut in_system, clip(FRAMES)), "{case}");

            // A context of somebody else's: pictures are fetched, one copy each, and masks are the same.
            let (mut foreign, _) = rig(&device, mode, set);
            let buffers = uploaded(FRAMES, None);
            let before = planes_fetched();
            assert_eq!(there, masks(&mut foreign, buffers), "{case}");
            // In live mode a picture is given back, and counted, after its outcome is told.
            until("the last one is counted", || foreign.stat("fetched-pictures") == FRAMES);
            assert_eq!(planes_fetched() - before, FRAMES, "{case}");
            for rig in [&mut on_device, &mut in_system, &mut foreign] {
                released(rig);
            }
        }
    });
}

/// Buffers whose memory somebody beside the test has.
fn held(buffers: &[gst::Buffer]) -> usize {
    buffers.iter().filter(|buffer| !buffer.is_all_memory_writable()).count()
}

/// Waits until something is so.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_pool_is_left_its_buffers() {
    imagined("a_pool_is_left_its_buffers", |device| {
        for (ahead, flights) in [("off", 1), ("on", 2)] {
            let (mut rig, context) =
                rig(&device, Mode::Live, |element| element.set_property_from_str("encode-ahead", ahead));
            let buffers = uploaded(24, Some(&context));
            assert_eq!(held(&buffers), 0);
            // The engines stand still, and the stream goes on.
            rig.hold();
            let mut most = 0;
            for buffer in &buffers {
                drop(rig.harness.push_and_pull(buffer.clone()).unwrap());
                most = most.max(held(&buffers));
            }
            assert!((1..=flights + 1).contains(&most), "ahead {ahead}: {most} held");
            rig.handle.release(GraphName::ImageEncoder);
            released(&mut rig);
            // Those of the last frame go when its masks are there.
            until("all are given back", || held(&buffers) == 0);
            assert_eq!(rig.stat("fetched-pictures"), 0);

            let mut query = gst::query::Allocation::new(Some(&rgba_caps(DEVICE, WIDTH)), true);
            assert!(rig.element.static_pad("sink").unwrap().query(query.query_mut()));
            let least = query.allocation_pools().next().map(|(_, _, least, _)| least);
            assert!(least.is_some_and(|least| least as usize > flights + 1), "{least:?} asked for");
        }
    });
}

/// A picture goes back before its buffer goes on: the pool it came from keeps its memory.
#[test]
fn in_every_frame_mode_a_buffer_that_went_on_is_nobody_elses() {
    imagined("in_every_frame_mode_a_buffer_that_went_on_is_nobody_elses", |device| {
        let (mut rig, context) = rig(&device, Mode::EveryFrame, |_| {});
        for (index, buffer) in uploaded(24, Some(&context)).into_iter().enumerate() {
            let out = rig.harness.push_and_pull(buffer).unwrap();
            assert!(out.is_all_memory_writable(), "frame {index} is still looked at");
        }
        assert_eq!(rig.stat("masks"), 24);
    });
}

/// The same buffers with a description by which GStreamer does not fetch them; in place they are read by their strides.
fn unfetchable(buffers: Vec<gst::Buffer>) -> Vec<gst::Buffer> {
    let spoil = |buffer: gst::Buffer| {
        let meta = buffer.meta::<gst_video::VideoMeta>().unwrap();
        // Its own cannot be taken off: it is the pool's.
        let mut spoilt = gst::Buffer::new();
        let writable = spoilt.get_mut().unwrap();
        writable.append_memory(buffer.memory(0).unwrap());
        writable.set_pts(buffer.pts());
        let (flags, format) = (gst_video::VideoFrameFlags::empty(), gst_video::VideoFormat::Rgba);
        let (offset, stride) = (meta.offset(), meta.stride());
        gst_video::VideoMeta::add_full(writable, flags, format, WIDTH, HEIGHT / 2, offset, stride).unwrap();
        spoilt
    };
    buffers.into_iter().map(spoil).collect()
}

#[test]
fn a_question_whose_pictures_cannot_be_fetched_is_refused_and_said() {
    imagined("a_question_whose_pictures_cannot_be_fetched_is_refused_and_said", |device| {
        let desk = super::questions::Desk::new(|_, _| super::questions::after(0, "{}".into()));
        let (mut rig, context) = rig(&device, Mode::Live, |element| element.set_property("llm", desk.llm()));
        let mut good = uploaded(3, Some(&context));
        masks(&mut rig, good.split_off(1));
        let id = rig.query("ask", "what is this?", 0.0);
        masks(&mut rig, unfetchable(uploaded(4, Some(&context))));
        until("it is refused", || {
            rig.queries().iter().any(|query| query.id == id && query.state == "refused")
        });
        let refused = rig.queries().into_iter().find(|query| query.state == "refused").unwrap();
        assert!(
            refused.reason.starts_with("picture: expected pixels on the host, got "),
            "{}",
            refused.reason
        );
        let warnings = rig.warnings();
        assert!((1..=2).contains(&warnings.len()), "one a second: {warnings:?}");
        assert!(warnings[0].starts_with("picture not fetched: "), "{warnings:?}");
        assert_eq!(rig.stat("skipped-error"), 0);
        // With the next picture that can be had all is well.
        let id = rig.query("ask", "and now?", 0.0);
        masks(&mut rig, good);
        until("it is asked", || rig.queries().iter().any(|query| query.id == id && query.state == "asked"));
    });
}

#[test]
fn a_find_whose_picture_cannot_be_fetched_fails_with_the_reason() {
    imagined("a_find_whose_picture_cannot_be_fetched_fails_with_the_reason", |device| {
        let (mut rig, context) = rig(&device, Mode::Live, |_| {});
        let id = rig.query("find", "the red thing", 0.0);
        masks(&mut rig, unfetchable(uploaded(6, Some(&context))));
        let failed = |query: &crate::query_record::QueryRecord| query.id == id && query.state == "failed";
        until("it fails", || rig.queries().iter().any(failed));
        let failed = rig.queries().into_iter().find(failed).unwrap();
        assert!(failed.reason.starts_with("picture: expected pixels on the host, got "), "{}", failed.reason);
        assert!(rig.warnings()[0].starts_with("picture not fetched: "));
    });
}

#[test]
fn carrying_masks_on_says_what_it_cannot_fetch() {
    imagined("carrying_masks_on_says_what_it_cannot_fetch", |device| {
        let set = |element: &SightlineTrack| element.set_property("degrade-floor", "coast");
        let (mut rig, context) = rig(&device, Mode::Live, set);
        masks(&mut rig, unfetchable(uploaded(3, Some(&context))));
        until("it is said", || !rig.warnings().is_empty());
        let warnings = rig.warnings();
        assert!(warnings[0].starts_with("picture not fetched: "), "{warnings:?}");
        assert_eq!((rig.stat("fetched-pictures"), rig.stat("skipped-error")), (0, 0));
    });
}

#[test]
fn a_picture_is_lent_to_the_device_that_asks() {
    imagined("a_picture_is_lent_to_the_device_that_asks", |_| {
        use crate::{frame::FramePicture, pixels::Layout};
        use sightline_engine_api::{Device, PictureSource};
        let shared = SharedContext::new(0).unwrap();
        let buffer = uploaded(1, Some(shared.context())).remove(0);
        let layout = Arc::new(Layout::from_caps(&rgba_caps(DEVICE, WIDTH)).unwrap());
        let mut picture = FramePicture::default();
        picture.hold(&layout, buffer).unwrap();
        for (ordinal, lent) in [(1, false), (0, true), (0, true), (1, false)] {
            assert_eq!(picture.on_device(Device::Cuda { ordinal }).is_some(), lent, "cuda:{ordinal}");
        }
    });
}

#[test]
fn a_question_fetches_the_pictures_it_needs() {
    imagined("a_question_fetches_the_pictures_it_needs", |device| {
        let (mut rig, context) = rig(&device, Mode::Live, |_| {});
        let mut buffers = uploaded(9, Some(&context));
        let later = buffers.split_off(2);
        masks(&mut rig, buffers);
        assert_eq!(rig.stat("fetched-pictures"), 0);
        let asked: u64 = rig.element.emit_by_name("query", &[&"find", &"the red thing", &0.0]);
        assert_eq!(asked, 1);
        // The frame that is asked about, and one an eighth of a second later.
        let before = planes_fetched();
        masks(&mut rig, later);
        until("two are counted", || rig.stat("fetched-pictures") == 2);
        assert_eq!(planes_fetched() - before, 2);
    });
}

#[test]
fn what_cannot_be_read_is_one_outcome_and_the_stream_goes_on() {
    imagined("what_cannot_be_read_is_one_outcome_and_the_stream_goes_on", |device| {
        let (mut rig, context) = rig(&device, Mode::Live, |_| {});
        let mut buffers = uploaded(6, Some(&context)).into_iter();
        let mut push = |rig: &mut Rig| {
            rig.harness.push_and_pull(buffers.next().unwrap()).unwrap();
            rig.settle();
        };
        push(&mut rig);
        assert_eq!(rig.stat("masks"), 1);
        // Caps that promise more than the memory holds: neither the device nor the host can read it.
        rig.harness.set_src_caps(rgba_caps(DEVICE, 4 * WIDTH));
        for wrong in 1..=3 {
            push(&mut rig);
            assert_eq!((rig.stat("masks"), rig.stat("skipped-error")), (1, wrong));
        }
        rig.harness.set_src_caps(rgba_caps(DEVICE, WIDTH));
        push(&mut rig);
        push(&mut rig);
        assert_eq!((rig.stat("masks"), rig.stat("skipped-error")), (3, 3));
        rig.assert_sums();
    });
}

fn object(context: &gst::Context) -> glib::Object {
    context.structure().get::<glib::Object>("gst.cuda.context").unwrap()
}

#[test]
fn decoder_and_model_share_a_context() {
    imagined("decoder_and_model_share_a_context", |device| {
        let make = || gst::ElementFactory::make("sightlinetrack").property("provider", PROVIDER);
        // In a pipeline the element upstream is given ours.
        let text = format!(
            "appsrc ! cudaupload name=up ! video/x-raw(memory:CUDAMemory) ! sightlinetrack name=track \
             provider={PROVIDER} ! fakesink"
        );
        let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let track = pipeline.by_name("track").unwrap().downcast::<SightlineTrack>().unwrap();
        let ops: Arc<dyn DeviceOps> = device.clone();
        let model =
            sightline_engine_fake::on_device(sightline_engine_fake::model(FakeOptions::default()), &ops);
        let options = sightline_tracker::Options { history: 4, memory_bytes: 0, max_objects: 3 };
        track.imp().state().next_session = Some(Session::new(model, options).unwrap());
        pipeline.set_state(gst::State::Paused).unwrap();
        let ours = ask(&track).unwrap();
        let mut query = gst::query::Context::new("gst.cuda.context");
        let up = pipeline.by_name("up").unwrap();
        assert!(up.static_pad("sink").unwrap().query(query.query_mut()));
        assert_eq!(object(&query.context_owned().unwrap()), object(&ours));
        let told = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::HaveContext]);
        assert!(told.is_some(), "it says that it made one");
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(ask(&track).is_none(), "in NULL there is none");

        // One that is offered is taken if models can run in it.
        let shared = SharedContext::new(0).unwrap();
        let element = make().build().unwrap().downcast::<SightlineTrack>().unwrap();
        element.set_context(shared.context());
        element.set_state(gst::State::Ready).unwrap();
        assert_eq!(object(&ask(&element).unwrap()), object(shared.context()));
        element.set_state(gst::State::Null).unwrap();
        let up = gst::ElementFactory::make("cudaupload").build().unwrap();
        up.set_state(gst::State::Paused).unwrap();
        let mut query = gst::query::Context::new("gst.cuda.context");
        assert!(up.static_pad("src").unwrap().query(query.query_mut()));
        let theirs = query.context_owned().unwrap();
        let element = make().build().unwrap().downcast::<SightlineTrack>().unwrap();
        element.set_context(&theirs);
        element.set_state(gst::State::Ready).unwrap();
        assert_ne!(object(&ask(&element).unwrap()), object(&theirs), "its own in its place");
        let error = SharedContext::adopt(0, &theirs).unwrap_err();
        assert!(error.contains("expected the context that models on cuda:0 run in"), "{error}");
        element.set_state(gst::State::Null).unwrap();
        up.set_state(gst::State::Null).unwrap();

        // The provider may change in READY: the context is that of the one the model is loaded with.
        for (before, after, shares) in
            [(PROVIDER, "onnxruntime-cpu", false), ("onnxruntime-cpu", PROVIDER, true)]
        {
            let element = gst::ElementFactory::make("sightlinetrack").property("provider", before);
            let element = element.build().unwrap().downcast::<SightlineTrack>().unwrap();
            let model = sightline_engine_fake::model(FakeOptions::default());
            let options = sightline_tracker::Options { history: 4, memory_bytes: 0, max_objects: 3 };
            element.imp().state().next_session = Some(Session::new(model, options).unwrap());
            element.set_state(gst::State::Ready).unwrap();
            assert_eq!(ask(&element).is_some(), !shares, "{before}");
            element.set_property("provider", after);
            element.set_state(gst::State::Paused).unwrap();
            assert_eq!(ask(&element).is_some(), shares, "{before}, then {after}");
            element.set_state(gst::State::Null).unwrap();
        }

        // A model on the processor shares nothing.
        let element = gst::ElementFactory::make("sightlinetrack").build().unwrap();
        let element = element.downcast::<SightlineTrack>().unwrap();
        element.set_state(gst::State::Ready).unwrap();
        assert!(ask(&element).is_none());
        element.set_state(gst::State::Null).unwrap();
    });
}
