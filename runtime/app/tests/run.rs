//! `sightline run` as a user starts it, with the fake model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{path::Path, process::Stdio, time::Duration};

use common::{ball_clip, command, decoded, failed_with, play, sightline, stderr, stdout, succeeded};
use sightline_core::Rle;

/// The ball on the first frame of a 160x120 clip.
const BALL: &str = "60,40,100,80";

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_file_becomes_video_lines_and_a_sheet() {
    let folder = tempfile::tempdir().unwrap();
    let clip = ball_clip(folder.path(), 60);
    let at = |name: &str| folder.path().join(name);
    let (video, jsonl, sheet) = (at("out.mp4"), at("out.jsonl"), at("sheet.png"));
    let output = sightline(&[
        "run",
        "--input",
        text(&clip),
        "--model",
        "fake",
        "--box",
        BALL,
        "--point",
        "5,5",
        "--output",
        text(&video),
        "--jsonl",
        text(&jsonl),
        "--contact-sheet",
        text(&sheet),
    ]);
    succeeded(&output);
    let said = stdout(&output);
    for part in ["frames   60", "masks 60, no object 0, skipped 0", "latency  p50", "wrote    ", "out.mp4"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    assert_eq!(decoded(&video), (60, (160, 120)));
    let lines = lines(&jsonl);
    assert_eq!(lines.len(), 60);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["frame"], index as u64);
        assert_eq!(line["outcome"], "masks");
        assert_eq!(line["age_ms"], 0.0);
        assert!((line["pts"].as_f64().unwrap() - index as f64 / 30.0).abs() < 0.02, "{line}");
        let ids: Vec<_> =
            line["objects"].as_array().unwrap().iter().map(|object| object["id"].as_u64()).collect();
        assert_eq!(ids, [Some(1), Some(2)]);
        let ball = &line["objects"][0];
        assert_eq!(ball["mask"]["size"], serde_json::json!([120, 160]));
        let mask = Rle::from_coco_string(160, 120, ball["mask"]["counts"].as_str().unwrap()).unwrap();
        assert!((100..4_000).contains(&mask.area_px()), "frame {index}: {}", mask.area_px());
        let corners: Vec<u64> = ball["box"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        let bounds = mask.decode().bounds_px().unwrap().map(u64::from);
        assert_eq!(corners, bounds, "frame {index}");
    }
    // It moves a few pixels a frame, and the mask with it.
    let corner = |line: &serde_json::Value| line["objects"][0]["box"][0].as_u64().unwrap();
    assert!(corner(&lines[40]) > corner(&lines[0]) + 20, "{} {}", lines[0], lines[40]);
    let info =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&sheet).unwrap())).read_info().unwrap();
    assert_eq!(info.info().size(), (4 * 326 + 6, 3 * 246 + 6));
}

#[test]
fn live_mode_passes_over_frames_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let jsonl = folder.path().join("out.jsonl");
    let output = sightline(&[
        "run",
        "--input",
        "test",
        "--mode",
        "live",
        "--max-seconds",
        "2",
        "--model",
        "fake",
        "--point",
        "320,180",
        "--jsonl",
        text(&jsonl),
    ]);
    succeeded(&output);
    let lines = lines(&jsonl);
    assert!((55..=61).contains(&lines.len()), "{} frames in 2 s", lines.len());
    let mut frames: Vec<_> = lines.iter().map(|line| line["frame"].as_u64().unwrap()).collect();
    frames.sort();
    assert_eq!(frames, (0..lines.len() as u64).collect::<Vec<_>>(), "each frame once");
    for line in &lines {
        match line["outcome"].as_str().unwrap() {
            "skipped" => assert!(line["reason"].is_string(), "{line}"),
            _ => assert!(line["latency_ms"].as_f64().unwrap() > 0.0, "{line}"),
        }
    }
}

#[test]
fn prompts_wait_for_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let clip = ball_clip(folder.path(), 45);
    let jsonl = folder.path().join("out.jsonl");
    let output = sightline(&[
        "run",
        "--input",
        text(&clip),
        "--model",
        "fake",
        "--point",
        "5,5",
        "--at",
        "1",
        "--jsonl",
        text(&jsonl),
    ]);
    succeeded(&output);
    let lines = lines(&jsonl);
    assert_eq!(lines.len(), 45);
    assert!(lines[..30].iter().all(|line| line["reason"] == "no-prompt"), "{}", lines[29]);
    assert!(lines[30..].iter().all(|line| line["outcome"] == "masks"), "{}", lines[30]);
    assert!(lines[0].get("age_ms").unwrap().is_null());
}

#[test]
fn a_run_can_stop_early_and_ctrl_c_finishes_the_video() {
    let folder = tempfile::tempdir().unwrap();
    let clip = ball_clip(folder.path(), 60);
    let video = folder.path().join("short.mp4");
    let prompt = ["--model", "fake", "--box", BALL];
    let base = ["run", "--input", text(&clip), "--max-seconds", "1", "--output", text(&video)];
    succeeded(&sightline(&[&base[..], &prompt].concat()));
    assert_eq!(decoded(&video).0, 30);

    let video = folder.path().join("live.mp4");
    let base = ["run", "--input", "test", "--mode", "live", "--output", text(&video)];
    let child = command(&[&base[..], &prompt].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    succeeded(&output);
    assert!(stdout(&output).contains("wrote    "), "{}", stdout(&output));
    let (frames, size) = decoded(&video);
    assert!((20..=120).contains(&frames) && size == (640, 360), "{frames} {size:?}");
}

/// Marks an .mp4 as filmed with the camera on its side, as telephones do: the track header's matrix turns the
/// picture by 90 degrees. GStreamer's own muxer cannot write that.
fn turn(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let header = bytes.windows(4).position(|four| four == b"tkhd").unwrap();
    let version = bytes[header + 4];
    let matrix = header + if version == 0 { 44 } else { 56 };
    let turned: [i32; 9] = [0, 0x1_0000, 0, -0x1_0000, 0, 0, 0, 0, 0x4000_0000];
    assert_eq!(bytes[matrix..matrix + 4], [0, 1, 0, 0], "the identity stood here");
    for (at, value) in turned.into_iter().enumerate() {
        bytes[matrix + 4 * at..matrix + 4 * at + 4].copy_from_slice(&value.to_be_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn videos_of_every_shape() {
    let folder = tempfile::tempdir().unwrap();
    let ball = "videotestsrc pattern=ball num-buffers=10 ! video/x-raw,framerate=30/1";
    let x264 = "x264enc speed-preset=ultrafast";
    for (case, description, name, size) in [
        ("odd sides", format!("{ball},width=321,height=241 ! jpegenc ! avimux"), "odd.avi", (320, 240)),
        ("turned", format!("{ball},width=320,height=240 ! {x264} ! mp4mux"), "turned.mp4", (240, 320)),
        (
            "with sound",
            format!(
                "{ball},width=320,height=240 ! {x264} ! mux. audiotestsrc num-buffers=20 ! opusenc ! mux. matroskamux name=mux"
            ),
            "sound.mkv",
            (320, 240),
        ),
        (
            "ten bits",
            format!("{ball},width=320,height=240,format=I420_10LE ! {x264} ! matroskamux"),
            "ten.mkv",
            (320, 240),
        ),
    ] {
        let clip = folder.path().join(name);
        play(&format!("{description} ! filesink location={clip:?}"));
        if case == "turned" {
            turn(&clip);
        }
        let video = folder.path().join("out.mp4");
        let output = sightline(&[
            "run",
            "--input",
            text(&clip),
            "--model",
            "fake",
            "--point",
            "5,5",
            "--output",
            text(&video),
        ]);
        assert!(output.status.success(), "{case}: {}", stderr(&output));
        let (frames, found) = decoded(&video);
        assert_eq!(frames, 10, "{case}");
        assert!((found.0 - size.0).abs() <= 2 && (found.1 - size.1).abs() <= 2, "{case}: {found:?}");
    }
}

#[test]
fn what_cannot_be_run_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let clip = ball_clip(folder.path(), 30);
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("empty.mp4"), "").unwrap();
    std::fs::write(at("text.mp4"), "This is not a video. ".repeat(500)).unwrap();
    let whole = std::fs::read(&clip).unwrap();
    std::fs::write(at("truncated.mp4"), &whole[..whole.len() / 2]).unwrap();
    play(&format!("audiotestsrc num-buffers=20 ! wavenc ! filesink location={:?}", at("sound.wav")));
    common::write_grey(&at("small.png"), (16, 16), |_, _| 255);
    common::write_grey(&at("black.png"), (160, 120), |_, _| 0);
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let clip = text(&clip);
    let fake = ["--model", "fake", "--point", "5,5"];
    // A camera is asked for ever, unless there is an end to it.
    let for_a_second = ["--model", "fake", "--point", "5,5", "--max-seconds", "1"];
    for (case, input, rest, part) in [
        ("missing", path("no.mp4"), &fake[..], "expected a video file, got: No such file"),
        ("empty", path("empty.mp4"), &fake, "an empty one (0 bytes)"),
        (
            "text",
            path("text.mp4"),
            &fake,
            "expected a video that can be decoded, got: This appears to be a text file",
        ),
        ("truncated", path("truncated.mp4"), &fake, "truncated.mp4\": expected"),
        (
            "sound only",
            path("sound.wav"),
            &fake,
            "sound.wav\": expected a video, got a file without a picture in it",
        ),
        ("folder", text(folder.path()).to_owned(), &fake, "got a folder"),
        ("no camera", "rtsp://127.0.0.1:9/none".into(), &for_a_second, "rtsp://127.0.0.1:9/none\": expected"),
        ("no model", clip.into(), &["--model", "no-such", "--point", "5,5"], "no-such"),
        ("no model folder", clip.into(), &["--model", "/no/such", "--point", "5,5"], "/no/such"),
        (
            "box outside",
            clip.into(),
            &["--model", "fake", "--box", "900,10,950,60"],
            "--box 900,10,950,60: box: expected a box that meets the 160x120 picture",
        ),
        (
            "point outside",
            clip.into(),
            &["--model", "fake", "--point", "10,900"],
            "--point 10,900: point: expected",
        ),
        (
            "mask size",
            clip.into(),
            &["--model", "fake", "--mask", &path("small.png")],
            "expected 160x120 pixels",
        ),
        ("empty mask", clip.into(), &["--model", "fake", "--mask", &path("black.png")], "at least one pixel"),
        ("no mask", clip.into(), &["--model", "fake", "--mask", "/no/mask.png"], "cannot read mask"),
        (
            "video name",
            clip.into(),
            &["--point", "5,5", "--output", &path("out.webm")],
            "ends in .mp4 or .mkv",
        ),
        ("no target folder", clip.into(), &["--point", "5,5", "--jsonl", "/no/such/x.jsonl"], "--jsonl"),
        (
            "onto itself",
            clip.into(),
            &["--point", "5,5", "--output", clip],
            "expected another file than the input",
        ),
        ("settings", clip.into(), &["--point", "5,5", "--config", "/no/such.toml"], "settings file"),
    ] {
        let video = path("never.mp4");
        let mut arguments = vec!["run", "--input", &input];
        arguments.extend(rest);
        if !rest.contains(&"--output") {
            arguments.extend(["--output", &video]);
        }
        let output = sightline(&arguments);
        println!("{case}: {}", stderr(&output).trim());
        failed_with(&output, part);
        assert!(!Path::new(&video).exists(), "{case}: an empty video was left behind");
    }
    let usage = sightline(&["run", "--input", clip]);
    assert_eq!(usage.status.code(), Some(2), "no prompt is a usage error");
}

#[test]
fn small_holes_are_filled_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let clip = ball_clip(folder.path(), 2);
    let (mask, jsonl) = (folder.path().join("mask.png"), folder.path().join("out.jsonl"));
    // The fake model's low-res mask has 16x16 pixels, so one of them is 10 wide and 7.5 high: a hole of two of them.
    let within =
        |x: usize, y: usize, [x0, y0, x1, y1]: [usize; 4]| (x0..x1).contains(&x) && (y0..y1).contains(&y);
    let set = |x, y| within(x, y, [30, 15, 110, 105]) && !within(x, y, [50, 45, 60, 60]);
    let pixels: Vec<u8> = (0..160 * 120).map(|at| u8::from(set(at % 160, at / 160)) * 255).collect();
    let mut encoder = png::Encoder::new(std::fs::File::create(&mask).unwrap(), 160, 120);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    // Whether the middle of the hole is in the first frame's mask.
    let filled = |flags: &[&str], variables: &[(&str, &str)]| {
        let line = [
            "run",
            "--input",
            text(&clip),
            "--model",
            "fake",
            "--mask",
            text(&mask),
            "--jsonl",
            text(&jsonl),
        ];
        let output = command(&[&line, flags].concat()).envs(variables.iter().copied()).output().unwrap();
        succeeded(&output);
        let mask = &lines(&jsonl)[0]["objects"][0]["mask"]["counts"];
        Rle::from_coco_string(160, 120, mask.as_str().unwrap()).unwrap().decode().data()[52 * 160 + 55] != 0
    };
    assert!(!filled(&[], &[]));
    assert!(!filled(&["--fill-hole-area", "1"], &[]), "the hole is larger");
    assert!(filled(&["--fill-hole-area", "2"], &[]));
    assert!(filled(&[], &[("SIGHTLINE_TRACK_FILL_HOLE_AREA", "2")]));
    let refused = sightline(&["run", "--input", "test", "--point", "1,1", "--fill-hole-area", "65537"]);
    failed_with(&refused, "setting track.fill_hole_area: expected 0 to 65536, got 65537");
}
