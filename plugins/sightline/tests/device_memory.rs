//! Buffers in CUDA memory and NVMM, without a GPU: GStreamer's own CUDA library and elements on a driver of ours that keeps
//! "device memory" in the process (engines/cuda/tests/mock), surfaces made by hand. Not run by us on a GPU or a Jetson.
//!
//! What is found decides what the pads offer when the plugin is loaded, so each case is a process of its own.
#![allow(clippy::unwrap_used)]

#[path = "../../../engines/cuda/tests/mock/mod.rs"]
mod mock;

use std::{fs, path::PathBuf, process::Command};

use gst::prelude::*;
use gst_video::prelude::*;
use gstsightline::meta::SightlineMeta;
use mock::skipped;
use sightline_core::{Outcome, TrackState};

const WIDTH: usize = 160;
const HEIGHT: usize = 120;
const FRAMES: u64 = 8;
/// Runs `body` with the elements registered, in a process of its own in which `libraries` are the stand-ins.
fn mocked(test: &str, libraries: &[&str], body: impl FnOnce()) {
    mock::mocked(test, libraries, &["coreelements", "app", "videoconvertscale", "nvcodec"], || {
        gstsightline::plugin_register_static().unwrap();
        body();
    });
}

fn offered(factory: &str) -> String {
    let factory = gst::ElementFactory::find(factory).unwrap();
    let caps: Vec<String> =
        factory.static_pad_templates().iter().map(|template| template.caps().to_string()).collect();
    assert_eq!(caps[0], caps[1], "both pads");
    caps[0].clone()
}

#[test]
fn a_driver_alone_brings_cuda_memory() {
    mocked("a_driver_alone_brings_cuda_memory", &["libcuda.so.1"], || {
        assert!(offered("sightlinetrack").starts_with("video/x-raw(memory:CUDAMemory), "));
        assert!(!offered("sightlinetrack").contains("NVMM"));
    });
}

#[test]
fn both_libraries_bring_nvmm() {
    mocked("both_libraries_bring_nvmm", &["libcuda.so.1", "libnvbufsurface.so"], || {
        let track = offered("sightlinetrack");
        assert!(track.starts_with("video/x-raw(memory:NVMM), format=(string){ NV12, I420, "), "{track}");
        assert!(track.contains("; video/x-raw(memory:CUDAMemory), "), "{track}");
        assert!(track.contains("; video/x-raw, "), "{track}");
        let overlay = offered("sightlineoverlay");
        assert!(overlay.contains("CUDAMemory") && !overlay.contains("NVMM"), "{overlay}");
    });
}

/// RGBA, grey with a red square, 40 pixels a side, that moves right by two pixels a frame from x = 20, at y = 40.
fn rgba(index: u64) -> Vec<u8> {
    let pixel =
        |x: usize, y: usize| if in_square(index, x, y) { [230, 20, 20, 255] } else { [90, 90, 90, 255] };
    (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(x, y))).collect()
}

fn in_square(index: u64, x: usize, y: usize) -> bool {
    let x0 = 20 + 2 * index as usize;
    (40..80).contains(&y) && (x0..x0 + 40).contains(&x)
}

fn stamped(mut buffer: gst::Buffer, index: u64) -> gst::Buffer {
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(index * gst::ClockTime::from_mseconds(40));
    writable.set_duration(gst::ClockTime::from_mseconds(40));
    buffer
}

/// Runs buffers through a description.
fn run(caps: &str, middle: &str, buffers: impl Iterator<Item = gst::Buffer>) -> Vec<gst::Sample> {
    let size = format!("width={WIDTH},height={HEIGHT},framerate=25/1");
    let description =
        format!("appsrc name=in format=time caps=\"{caps},{size}\" ! {middle} ! appsink name=out sync=false");
    let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    buffers.enumerate().for_each(|(index, buffer)| {
        source.push_buffer(stamped(buffer, index as u64)).unwrap();
    });
    source.end_of_stream().unwrap();
    let samples = std::iter::from_fn(|| sink.try_pull_sample(gst::ClockTime::from_seconds(20))).collect();
    let told: Vec<_> = std::iter::from_fn(|| pipeline.bus().unwrap().pop())
        .filter(|message| matches!(message.type_(), gst::MessageType::Error | gst::MessageType::Warning))
        .collect();
    assert!(told.is_empty(), "{told:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    samples
}

fn assert_tracked(case: &str, samples: &[gst::Sample]) {
    assert_eq!(samples.len() as u64, FRAMES, "{case}");
    for (index, sample) in samples.iter().enumerate() {
        let meta = SightlineMeta::from_buffer(sample.buffer().unwrap()).unwrap().unwrap();
        assert_eq!((meta.computed.index, meta.outcome), (index as u64, Outcome::Masks), "{case}");
        assert_eq!(meta.objects[0].state, TrackState::Tracking, "{case}");
        let x0 = meta.objects[0].bounds.unwrap().x0 * WIDTH as f32;
        assert!((x0 - (20 + 2 * index) as f32).abs() < 8.0, "{case}, frame {index}: {x0}");
    }
}

/// The picture's rows without their padding.
fn pixels(sample: &gst::Sample) -> Vec<u8> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let stride = frame.plane_stride()[0] as usize;
    frame.plane_data(0).unwrap().chunks(stride).flat_map(|row| row[..WIDTH * 4].to_vec()).collect()
}

const TRACK: &str = "sightlinetrack model=fake mode=every-frame prompts=box=20,40,60,80";

#[test]
fn cuda_memory_is_tracked_and_drawn_on() {
    let libraries = ["libcuda.so.1", "libnvcuvid.so.1"];
    mocked("cuda_memory_is_tracked_and_drawn_on", &libraries, || {
        if gst::ElementFactory::find("cudaupload").is_none() {
            return skipped(
                "cudaupload: expected GStreamer's nvcodec plugin to take the mock driver, got no element",
            );
        }
        let buffers = || (0..FRAMES).map(|index| gst::Buffer::from_slice(rgba(index)));
        let caps = "video/x-raw,format=RGBA";
        let device = "video/x-raw(memory:CUDAMemory)";
        let middle = format!(
            "cudaupload ! {device} ! {TRACK} ! {device} ! sightlineoverlay ! {device} ! cudadownload"
        );
        let on_device = run(caps, &middle, buffers());
        assert_tracked("cuda", &on_device);
        let in_system = run(caps, &format!("{TRACK} ! sightlineoverlay"), buffers());
        for (index, (ours, theirs)) in on_device.iter().zip(&in_system).enumerate() {
            assert!(pixels(ours) == pixels(theirs), "frame {index} is drawn alike");
            assert!(pixels(ours) != rgba(index as u64), "frame {index} is drawn on");
        }
    });
}

/// NV12 of the same scene (BT.601, limited range), packed.
fn nv12(index: u64) -> Vec<u8> {
    let luma =
        (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| if in_square(index, x, y) { 87 } else { 93 }));
    let chroma = (0..HEIGHT / 2).flat_map(|y| {
        (0..WIDTH / 2).flat_map(move |x| if in_square(index, 2 * x, 2 * y) { [97, 220] } else { [128, 128] })
    });
    luma.chain(chroma).collect()
}

fn put(into: &mut [u8], offset: usize, bytes: &[u8]) {
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A buffer as an NVMM pool hands it out: the bytes of an `NvBufSurface`. Picture and pixels are leaked, as a pool's outlive
/// its buffers. The offsets are those of `nvbufsurface.h` (engines/cuda/src/nvmm/tests.rs).
fn surface(memory_type: u32, layout: u32, pixels: Vec<u8>) -> gst::Buffer {
    let (width, height) = (WIDTH as u32, HEIGHT as u32);
    let data: &'static mut [u8] = Box::leak(pixels.into_boxed_slice());
    let params: &'static mut [u8] = Box::leak(vec![0; 416].into_boxed_slice());
    // width, height, pitch, colour format NV12, layout
    for (index, value) in [width, height, width, 6, layout].into_iter().enumerate() {
        put(params, 4 * index, &value.to_ne_bytes());
    }
    put(params, 24, &5_u64.to_ne_bytes());
    put(params, 32, &(data.len() as u32).to_ne_bytes());
    put(params, 40, &data.as_ptr().expose_provenance().to_ne_bytes());
    put(params, 48, &2_u32.to_ne_bytes());
    // pitches and offsets of two planes
    for (offset, values) in [(48 + 36, [width, width]), (48 + 52, [0, width * height])] {
        values.into_iter().enumerate().for_each(|(plane, value)| {
            put(params, offset + 4 * plane, &value.to_ne_bytes());
        });
    }
    let mut buffer = gst::Buffer::with_size(72).unwrap();
    {
        let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
        map.fill(0);
        // a batch of one, filled
        put(&mut map, 4, &1_u32.to_ne_bytes());
        put(&mut map, 8, &1_u32.to_ne_bytes());
        put(&mut map, 16, &memory_type.to_ne_bytes());
        put(&mut map, 24, &params.as_ptr().expose_provenance().to_ne_bytes());
    }
    buffer
}

#[test]
fn nvmm_is_tracked() {
    mocked("nvmm_is_tracked", &["libcuda.so.1", "libnvbufsurface.so"], || {
        for (case, memory_type, layout) in
            [("CUDA memory", 2, 0), ("surface array, pitched", 4, 0), ("surface array, block-linear", 4, 1)]
        {
            let buffers = (0..FRAMES).map(|index| surface(memory_type, layout, nv12(index)));
            let samples = run("video/x-raw(memory:NVMM),format=NV12", TRACK, buffers);
            assert_tracked(case, &samples);
            for sample in &samples {
                assert_eq!(sample.buffer().unwrap().size(), 72, "{case}: it passes as it came");
            }
        }
    });
}

fn library() -> Option<PathBuf> {
    let here = std::env::current_exe().unwrap();
    let deps = here.parent().unwrap();
    let found = [deps.parent().unwrap(), deps].map(|folder| folder.join("libgstsightline.so"));
    found.into_iter().find(|path| path.is_file())
}

/// This machine as it is: with these features built in and no driver, nothing differs from a build without them.
#[test]
fn without_a_driver_nothing_differs() {
    gst::init().unwrap();
    if let Err(reason) = sightline_engine_cuda::gstreamer::driver_found() {
        assert!(reason.starts_with("libcuda.so.1: expected to find it, got"), "{reason}");
    } else {
        return skipped("this machine has a driver");
    }
    gstsightline::plugin_register_static().unwrap();
    let expected = "video/x-raw, format=(string){ NV12, I420, YUY2, RGB, BGR, RGBx, BGRx, RGBA, BGRA }, \
                    width=(int)[ 1, 2147483647 ], height=(int)[ 1, 2147483647 ], \
                    framerate=(fraction)[ 0/1, 2147483647/1 ]";
    assert_eq!((offered("sightlinetrack"), offered("sightlineoverlay")), (expected.into(), expected.into()));

    let Some(library) = library() else {
        return skipped("libgstsightline.so: expected it beside the tests, got none");
    };
    let folder = tempfile::tempdir().unwrap();
    fs::copy(library, folder.path().join("libgstsightline.so")).unwrap();
    for element in ["sightlinetrack", "sightlineoverlay"] {
        let told = Command::new("gst-inspect-1.0")
            .arg(element)
            .env("GST_PLUGIN_PATH_1_0", folder.path())
            .env("GST_REGISTRY_1_0", folder.path().join("registry.bin"))
            .env("GST_PLUGIN_SYSTEM_PATH_1_0", folder.path())
            .output();
        let Ok(told) = told else { return skipped("gst-inspect-1.0: expected it on PATH, got none") };
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(told.status.success() && text.contains("Pad Templates"), "{text}");
        assert!(!text.contains("memory:"), "{text}");
    }
}
