//! The tracker on exported graphs against the published predictor: `tests/golden/sam2-tiny` holds the graphs, the
//! frames, the prompts and the logits that `SAM2VideoPredictor` gave (see its README for how they were made).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{fs, io::Write, num::NonZeroUsize, path::PathBuf, sync::Arc};

use serde_json::Value;
use sightline_core::{Mask, NormBox, NormPoint, ObjectId, Point, PointLabel, Prompt};
use sightline_engine_api::{Kind, Model};
use sightline_engine_registry::{LoadOptions, load};
use sightline_tracker::{At, Options, Tracker};
use support::{npz, stamp};

const TOLERANCE: f32 = 1e-3;
const SCENARIOS: [&str; 7] = ["box", "point", "mask", "absent", "second-box", "correction", "two-objects"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sam2-tiny")
}

/// A model, or `None` where there is no ONNX Runtime, which is said aloud.
fn model(name: &str) -> Option<Model> {
    let options = LoadOptions { threads: Some(NonZeroUsize::MIN), ..LoadOptions::default() };
    match load(name, &options) {
        Ok(model) => Some(model),
        Err(error) if error.kind() == Kind::Unavailable => {
            // Not a print macro: those are captured, and this must be seen.
            let _ = writeln!(std::io::stderr(), "NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Pixels of a PNG and how many bytes each has.
fn png(path: PathBuf) -> (Vec<u8>, usize, [u32; 2]) {
    let file = std::io::BufReader::new(fs::File::open(&path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (pixels, info.color_type.samples(), [info.width, info.height])
}

/// `[3,H,W]`, by the order of operations of the published loader.
fn image(index: usize, model: &Tracker) -> Vec<f32> {
    let (pixels, samples, [width, height]) = png(folder().join(format!("frames/{index:05}.png")));
    let spec = &model.spec().image;
    assert_eq!((width as usize, height as usize, samples), (spec.width_px, spec.height_px, 3));
    let mut image = Vec::with_capacity(pixels.len());
    for channel in 0..3 {
        let values = pixels.iter().skip(channel).step_by(3);
        image.extend(
            values.map(|v| ((f64::from(*v) / 255.0) as f32 - spec.mean[channel]) / spec.std[channel]),
        );
    }
    image
}

struct Given {
    frame: usize,
    object: u32,
    prompt: Prompt,
    correction: bool,
}

/// A scenario's prompts. Clicks on an object that has been prompted before correct it.
fn prompts(scenario: &str) -> Vec<Given> {
    let text = fs::read_to_string(folder().join(format!("prompts/{scenario}.json"))).unwrap();
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut seen = Vec::new();
    let numbers = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let given = list.iter().map(|entry| {
        let corners = entry.get("box").map(|corners| {
            let corners = numbers(corners);
            NormBox::from_pixels([corners[0], corners[1], corners[2], corners[3]], 128, 128).unwrap()
        });
        let points = entry.get("points").map(|points| {
            let labels = numbers(&entry["labels"]);
            let at = points.as_array().unwrap().iter().map(numbers);
            at.zip(labels).map(|(at, label)| Point {
                at: NormPoint::from_pixels(at[0], at[1], 128, 128).unwrap(),
                label: if label > 0.5 { PointLabel::Positive } else { PointLabel::Negative },
            })
        });
        let object = entry["object"].as_u64().unwrap() as u32;
        let correction = points.is_some() && corners.is_none() && seen.contains(&object);
        seen.push(object);
        let prompt = match (entry.get("mask"), points, corners) {
            (Some(name), ..) => {
                let (pixels, samples, [width, height]) =
                    png(folder().join("prompts").join(name.as_str().unwrap()));
                let inside = pixels.chunks_exact(samples).map(|pixel| u8::from(pixel[0] > 127)).collect();
                Prompt::Mask(Arc::new(Mask::from_bytes(width, height, inside).unwrap()))
            }
            (None, Some(points), within) => Prompt::Points { points: points.collect(), within },
            (None, None, corners) => Prompt::Box(corners.unwrap()),
        };
        Given { frame: entry["frame"].as_u64().unwrap() as usize, object, prompt, correction }
    });
    given.collect()
}

/// Runs a scenario, its prompts `late` frames late where it is a correction or `all` are. Returns the largest
/// difference to the predictor's logits and scores on the frames after which no prompt was owing.
fn run(scenario: &str, late: usize, all: bool) -> Option<(f32, f32)> {
    let mut tracker =
        Tracker::new(model(&folder().join("model").display().to_string())?, Options::default()).unwrap();
    let golden = npz::read(&folder().join(format!("logits/{scenario}.npz")));
    let given = prompts(scenario);
    let frames = fs::read_dir(folder().join("frames")).unwrap().count();
    let (mut logits, mut scores, mut compared) = (0.0_f32, 0.0_f32, 0);
    for frame in 0..frames {
        for now in given.iter().filter(|given| given.frame == frame && !given.correction && !all) {
            tracker.prompt(ObjectId(now.object), At::Next, now.prompt.clone()).unwrap();
        }
        tracker.step(stamp(frame as u64), &image(frame, &tracker)).unwrap();
        for now in given.iter().filter(|given| given.frame + late == frame && (given.correction || all)) {
            tracker.prompt(ObjectId(now.object), At::Frame(now.frame as u64), now.prompt.clone()).unwrap();
        }
        let owing =
            |given: &Given| given.frame <= frame && frame < given.frame + late && (given.correction || all);
        if given.iter().any(owing) {
            continue;
        }
        for object in tracker.objects() {
            let name = format!("{frame}_{}", object.id);
            let wanted = &golden[&format!("logits_{name}")];
            assert_eq!(object.low_res.len(), wanted.len());
            let diffs = object.low_res.iter().zip(wanted).map(|(a, b)| (a - b).abs());
            logits = diffs.fold(logits, f32::max);
            scores = scores.max((object.object_score - golden[&format!("score_{name}")][0]).abs());
            compared += 1;
        }
    }
    assert!(
        late > 0 || compared * 2 == golden.len(),
        "{scenario}: compared {compared} of {}",
        golden.len() / 2
    );
    Some((logits, scores))
}

#[test]
fn every_scenario_matches_the_published_predictor() {
    for (name, late, all) in
        [("in time", 0, false), ("corrections 3 late", 3, false), ("all 5 late", 5, true)]
    {
        // A second box that comes late is a correction: another thing than the predictor was asked for.
        for scenario in SCENARIOS.into_iter().filter(|scenario| !all || *scenario != "second-box") {
            let Some((logits, scores)) = run(scenario, late, all) else { return };
            println!("{scenario}, {name}: logits {logits:.1e}, scores {scores:.1e}");
            assert!(logits < TOLERANCE && scores < TOLERANCE, "{scenario}, {name}: {logits:e}, {scores:e}");
        }
    }
}

/// No numbers here, only that the embedded model's graphs bind and take every prompt it says it takes.
#[test]
fn the_embedded_model_keeps_the_contract() {
    let Some(nano) = model("nano") else { return };
    let mut tracker = Tracker::new(nano, Options::default()).unwrap();
    let (takes, spec) = (tracker.spec().prompts, tracker.spec().image.clone());
    let image = vec![0.25; 3 * spec.height_px * spec.width_px];
    let given = [
        (takes.points, support::click(0.5, 0.5)),
        (takes.boxes, support::corners(0.25, 0.25, 0.5, 0.5)),
        (takes.masks, support::mask(40, 30, |x, _| x < 9)),
    ];
    for (id, (_, prompt)) in given.iter().enumerate().filter(|(_, (taken, _))| *taken) {
        tracker.prompt(ObjectId(id as u32), At::Next, prompt.clone()).unwrap();
    }
    let objects = given.iter().filter(|(taken, _)| *taken).count();
    for index in 0..4 {
        tracker.step(stamp(index), &image).unwrap();
        assert_eq!(tracker.objects().count(), objects);
    }
    if takes.points {
        tracker.prompt(ObjectId(0), At::Frame(2), support::click(0.25, 0.5)).unwrap();
    }
}
