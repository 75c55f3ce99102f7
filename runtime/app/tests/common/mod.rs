//! What the tests of the binary share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

pub(crate) mod davis;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use gst::prelude::*;

/// Runs `sightline` without anything of the caller's settings.
pub(crate) fn sightline(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sightline"));
    command.args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIGHTLINE_")) {
        if name != "SIGHTLINE_ONNXRUNTIME" {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Fails the test with everything the program said unless it succeeded.
pub(crate) fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}\n{}{}", output.status, stdout(output), stderr(output));
}

/// The program must have failed with code 1 and one `error:` line that has `part` in it, and never have panicked.
pub(crate) fn failed_with(output: &Output, part: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let error = text
        .lines()
        .find(|line| line.starts_with("error: "))
        .unwrap_or_else(|| panic!("no error line: {text}"));
    assert!(error.contains(part), "expected {part:?} in {error:?}");
    assert!(!text.contains("panicked"), "{text}");
}

/// Plays a pipeline description to its end.
pub(crate) fn play(description: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &types);
    pipeline.set_state(gst::State::Null).unwrap();
    match message.unwrap().view() {
        gst::MessageView::Eos(_) => {}
        other => panic!("{description}: {other:?}"),
    }
}

/// A clip of a bouncing white ball, 160x120, 30 a second.
pub(crate) fn ball_clip(folder: &Path, frames: u32) -> PathBuf {
    let path = folder.join("ball.mp4");
    play(&format!(
        "videotestsrc pattern=ball num-buffers={frames} ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 \
         ! x264enc speed-preset=ultrafast key-int-max=30 ! mp4mux ! filesink location={path:?}"
    ));
    path
}

/// How many frames a video has, and how large they are.
pub(crate) fn decoded(path: &Path) -> (u64, (i32, i32)) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={path:?} ! decodebin ! videoconvert ! fakesink name=sink sync=false"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let pad = pipeline.by_name("sink").unwrap().static_pad("sink").unwrap();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = count.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message =
        pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(60), &types).unwrap();
    assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
    let caps = pad.current_caps().unwrap();
    let size = caps.structure(0).unwrap();
    let size = (size.get("width").unwrap(), size.get("height").unwrap());
    pipeline.set_state(gst::State::Null).unwrap();
    (count.load(std::sync::atomic::Ordering::Relaxed), size)
}

/// Writes an 8 bit grey PNG.
pub(crate) fn write_grey(path: &Path, (width, height): (u32, u32), pixel: impl Fn(u32, u32) -> u8) {
    let data: Vec<u8> =
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
    write_png(path, (width, height), png::ColorType::Grayscale, None, &data);
}

pub(crate) fn write_png(
    path: &Path,
    (width, height): (u32, u32),
    color: png::ColorType,
    palette: Option<Vec<u8>>,
    data: &[u8],
) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(palette) = palette {
        encoder.set_palette(palette);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
}
