//! `sightline eval davis` and `sightline trace` on tiny pictures, with the fake model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use common::{
    davis::{SIZE, colour, davis},
    failed_with, sightline, stdout, succeeded, write_grey, write_png,
};

#[test]
fn davis_is_measured_for_every_kind_of_prompt() {
    let folder = tempfile::tempdir().unwrap();
    davis(folder.path());
    let data = folder.path().to_str().unwrap();
    let json = folder.path().join("r.json");
    for kind in ["mask", "box", "point"] {
        let output = sightline(&[
            "eval",
            "davis",
            "--data",
            data,
            "--model",
            "fake",
            "--prompt",
            kind,
            "--json",
            json.to_str().unwrap(),
        ]);
        succeeded(&output);
        let report: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        let sequences = report["sequences"].as_array().unwrap();
        assert_eq!(sequences.len(), 2);
        for (sequence, name) in sequences.iter().zip(["binary", "palette"]) {
            assert_eq!((&sequence["name"], &sequence["frames"]), (&name.into(), &4.into()), "{kind}");
            // Sixteen cells across a picture: coarse, but on the object.
            let j = sequence["j"].as_f64().unwrap();
            assert!((40.0..=100.0).contains(&j), "{kind} {sequence}");
        }
        let mean = |key: &str| report["mean"][key].as_f64().unwrap();
        assert!((mean("jf") - (mean("j") + mean("f")) / 2.0).abs() < 1e-9);
        assert!(stdout(&output).contains("mean"), "{}", stdout(&output));
    }
}

#[test]
fn a_broken_data_set_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap().to_owned();
    let eval =
        |rest: &[&str]| sightline(&[&["eval", "davis", "--data", &data, "--model", "fake"], rest].concat());
    failed_with(&eval(&[]), "Annotations/480p");
    davis(folder.path());
    failed_with(&eval(&["--sequences", "nothing"]), "nothing");
    let picture = folder.path().join("JPEGImages/480p/binary/00002.jpg");
    let bytes = std::fs::read(&picture).unwrap();
    std::fs::write(&picture, "no JPEG").unwrap();
    failed_with(&eval(&["--sequences", "binary"]), "00002.jpg");
    std::fs::write(&picture, bytes).unwrap();
    std::fs::remove_file(folder.path().join("Annotations/480p/binary/00003.png")).unwrap();
    failed_with(&eval(&["--sequences", "binary"]), "expected as many annotations as pictures");
}

fn frames(folder: &Path) -> PathBuf {
    let frames = folder.join("frames");
    std::fs::create_dir(&frames).unwrap();
    for frame in 0..6 {
        let path = frames.join(format!("{frame:03}.png"));
        let data: Vec<u8> = (0..SIZE.1)
            .flat_map(|y| (0..SIZE.0).map(move |x| (x, y)))
            .flat_map(|(x, y)| colour(frame, x, y))
            .collect();
        write_png(&path, SIZE, png::ColorType::Rgb, None, &data);
    }
    frames
}

fn array(path: &Path, name: &str) -> Option<(String, Vec<f32>)> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).ok()?.read_to_end(&mut bytes).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..10 + length].to_vec()).unwrap();
    let values =
        bytes[10 + length..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    Some((header, values))
}

#[test]
fn a_trace_holds_every_frame_and_object() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(folder.path());
    write_grey(&folder.path().join("m.png"), SIZE, |x, y| if x < 16 && y < 16 { 255 } else { 0 });
    let prompts = folder.path().join("p.json");
    std::fs::write(
        &prompts,
        r#"[{"frame":0,"object":1,"box":[16,32,40,56]},
            {"frame":2,"object":2,"mask":"m.png"},
            {"frame":4,"object":1,"points":[[60,44]],"labels":[1]}]"#,
    )
    .unwrap();
    let out = folder.path().join("out.npz");
    let output = sightline(&[
        "trace",
        "--model",
        "fake",
        "--frames",
        frames.to_str().unwrap(),
        "--prompts",
        prompts.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ]);
    succeeded(&output);
    for frame in 0..6 {
        let (header, logits) = array(&out, &format!("logits_{frame}_1")).unwrap();
        assert!(header.contains("'shape': (16, 16)"), "{header}");
        assert_eq!(logits.len(), 256);
        // The square's middle lies on the object, the far corner does not.
        let cell = |x: u32, y: u32| logits[(y * 16 / SIZE.1 * 16 + x * 16 / SIZE.0) as usize];
        assert!(cell(28 + 8 * frame, 44) > 0.0 && cell(120, 90) < 0.0, "frame {frame}");
        for name in ["score", "iou"] {
            assert_eq!(array(&out, &format!("{name}_{frame}_1")).unwrap().1.len(), 1);
        }
        assert_eq!(array(&out, &format!("logits_{frame}_2")).is_some(), frame >= 2, "frame {frame}");
    }
    let script = "import sys\ntry:\n import numpy\nexcept ImportError:\n sys.exit(77)\na = numpy.load(sys.argv[1])\nassert a['logits_5_1'].shape == (16, 16) and a['score_5_2'].dtype == 'float32' and len(a.files) == 30";
    match std::process::Command::new("python3").args(["-c", script, out.to_str().unwrap()]).status() {
        Ok(status) if status.code() == Some(77) => println!("python3 has no numpy: not read with it"),
        Ok(status) => assert!(status.success(), "numpy cannot read it"),
        Err(error) => println!("no python3 ({error}): not read with numpy"),
    }
}

#[test]
fn a_bad_prompts_file_is_named_by_entry() {
    let folder = tempfile::tempdir().unwrap();
    let frames = frames(folder.path());
    let prompts = folder.path().join("p.json");
    for (text, part) in [
        ("{", "p.json"),
        (r#"[{"frame":9,"object":1,"box":[0,0,9,9]}]"#, "entry 0: expected a frame from 0 to 5, got 9"),
        (
            r#"[{"frame":0,"object":1,"box":[500,0,509,9]}]"#,
            "entry 0: box: expected a box that meets the 128x96",
        ),
    ] {
        std::fs::write(&prompts, text).unwrap();
        let output = sightline(&[
            "trace",
            "--model",
            "fake",
            "--frames",
            frames.to_str().unwrap(),
            "--prompts",
            prompts.to_str().unwrap(),
            "--out",
            folder.path().join("o.npz").to_str().unwrap(),
        ]);
        failed_with(&output, part);
    }
}
