//! The tracker with the embedded model against `engines/nano/golden`: the logits that the reference loop of
//! `engines/nano/train` (numpy and ONNX Runtime, no Rust) gave on twelve drawn frames.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use sightline_core::{FrameStamp, Mask, NormBox, NormPoint, ObjectId, Point, PointLabel, Prompt};
use sightline_engine_api::{Kind, ModelSpec};
use sightline_engine_registry::{LoadOptions, load};
use sightline_tests::not_run;
use sightline_tracker::{At, Options, Tracker};

/// The model computes in 8 bits: where one processor's float order rounds to another step than the next one's, logits
/// move. The same clip, its inputs disturbed by 1e-6 of themselves, moved the mean logit by at most 0.11 and the
/// sign of at most 0.0006 of the logits. (On the processor that made the golden, nothing moves.)
const MEAN: f32 = 0.3;
const SIGNS: f32 = 0.005;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines/nano/golden")
}

/// Pixels of a PNG, how many bytes each has, width and height.
fn png(path: &Path) -> (Vec<u8>, usize, [usize; 2]) {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (pixels, info.color_type.samples(), [info.width as usize, info.height as usize])
}

/// `[3,H,W]` at the model's size, which the frames have.
fn image(path: &Path, spec: &ModelSpec) -> Vec<f32> {
    let (pixels, samples, size_px) = png(path);
    let spec = &spec.image;
    assert_eq!((samples, size_px), (3, [spec.width_px, spec.height_px]), "{path:?}");
    let normalised = |channel: usize| {
        let levels = pixels.iter().skip(channel).step_by(3);
        levels.map(move |level| (f32::from(*level) / 255.0 - spec.mean[channel]) / spec.std[channel])
    };
    (0..3).flat_map(normalised).collect()
}

/// Arrays `[h,w]` of an `.npz` by name, flat, row by row; f32, little-endian.
fn npz(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().trim_end_matches(".npy").to_owned();
        let mut file = Vec::new();
        entry.read_to_end(&mut file).unwrap();
        assert_eq!(&file[..6], b"\x93NUMPY", "{name}");
        let header = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        let text = std::str::from_utf8(&file[10..header]).unwrap();
        assert!(text.contains("'<f4'"), "{name}: {text}");
        let shape = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
        let shape: Vec<usize> = shape.split(',').filter_map(|side| side.trim().parse().ok()).collect();
        let [rows, columns] = shape[..] else { panic!("{name}: expected [h,w], got {shape:?}") };
        let values = file[header..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        let values: Vec<f32> = values.collect();
        assert_eq!(values.len(), rows * columns, "{name}");
        // numpy writes an array as it lies in memory, column by column too.
        let by_columns = text.contains("'fortran_order': True");
        let at = |index: usize| if by_columns { index % columns * rows + index / columns } else { index };
        arrays.insert(name, (0..values.len()).map(|index| values[at(index)]).collect());
    }
    arrays
}

/// Frame, object, prompt.
fn prompts(size_px: [usize; 2]) -> Vec<(usize, ObjectId, Prompt)> {
    let [width, height] = size_px.map(|side| side as u32);
    let text = fs::read_to_string(folder().join("prompts.json")).unwrap();
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let numbers = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let prompt = |entry: &Value| {
        if let Some(corners) = entry.get("box") {
            let corners = numbers(corners).try_into().unwrap();
            return Prompt::Box(NormBox::from_pixels(corners, width, height).unwrap());
        }
        if let Some(name) = entry.get("mask") {
            let (pixels, samples, [width, height]) = png(&folder().join(name.as_str().unwrap()));
            let inside = pixels.chunks_exact(samples).map(|pixel| u8::from(pixel[0] > 127)).collect();
            return Prompt::Mask(Arc::new(Mask::from_bytes(width as u32, height as u32, inside).unwrap()));
        }
        let points = entry["points"].as_array().unwrap().iter().map(numbers).zip(numbers(&entry["labels"]));
        let points = points.map(|(at, label)| Point {
            at: NormPoint::from_pixels(at[0], at[1], width, height).unwrap(),
            label: if label > 0.5 { PointLabel::Positive } else { PointLabel::Negative },
        });
        Prompt::Points { points: points.collect(), within: None }
    };
    list.iter()
        .map(|entry| {
            let number = |key: &str| entry[key].as_u64().unwrap();
            (number("frame") as usize, ObjectId(number("object") as u32), prompt(entry))
        })
        .collect()
}

#[test]
fn the_embedded_model_gives_what_its_reference_gives() {
    let logits = folder().join("logits.npz");
    if !logits.is_file() {
        return not_run(format_args!("golden of the embedded model: expected {logits:?}, got no such file"));
    }
    // The folder, not what is built in: they may be of different days while a new model is being made.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines/nano/model");
    let model = match load(model.to_str().unwrap(), &LoadOptions::default()) {
        Ok(model) => model,
        Err(error) if error.kind() == Kind::Unavailable => return not_run(error),
        Err(error) => panic!("{error}"),
    };
    let mut tracker = Tracker::new(model, Options::default()).unwrap();
    let golden = npz(&logits);
    let frame = |index: usize| folder().join(format!("frames/{index:05}.png"));
    let (_, _, size_px) = png(&frame(0));
    let prompts = prompts(size_px);
    let (mut compared, mut worst) = (0, BTreeMap::<(u32, bool), (f32, f32)>::new());
    for index in (0..).take_while(|index| frame(*index).is_file()) {
        for (_, object, prompt) in prompts.iter().filter(|(at, ..)| *at == index) {
            tracker.prompt(*object, At::Next, prompt.clone()).unwrap();
        }
        let time = Some(Duration::from_millis(index as u64 * 40));
        let stamp = FrameStamp { index: index as u64, pts: time, running_time: time };
        tracker.step(stamp, &image(&frame(index), tracker.spec())).unwrap();
        for object in tracker.objects() {
            let wanted = &golden[&format!("logits_{index}_{}", object.id)];
            assert_eq!(object.low_res.len(), wanted.len());
            let pairs = || object.low_res.iter().zip(wanted);
            let count = wanted.len() as f32;
            let mean = pairs().map(|(a, b)| (a - b).abs()).sum::<f32>() / count;
            let signs = pairs().filter(|(a, b)| (**a > 0.0) != (**b > 0.0)).count() as f32 / count;
            let worst = worst.entry((object.id.0, index == 0)).or_default();
            *worst = (worst.0.max(mean), worst.1.max(signs));
            compared += 1;
        }
    }
    for ((object, first), (mean, signs)) in &worst {
        let frames = if *first { "first frame" } else { "later" };
        println!("object {object}, {frames}: mean {mean:.1e}, other sign {signs:.1e}");
    }
    assert_eq!(compared, golden.len(), "arrays compared, of those there are");
    assert!(worst.values().all(|(mean, signs)| *mean < MEAN && *signs < SIGNS), "{worst:?}");
}
