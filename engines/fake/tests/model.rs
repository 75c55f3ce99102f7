//! The fake model driven by hand, as the tracker drives it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, thread, time::Duration};

use sightline_core::{Shape, TensorView, TensorViewMut};
use sightline_engine_api::{Dim, Engine, EngineError, GraphName, Kind, Model, TensorMut, TensorRef};
use sightline_engine_fake::{FakeHandle, FakeOptions, Fault, SIDE_PX, model};

const LOW: usize = SIDE_PX / 4;
const SOON: Duration = Duration::from_secs(20);

type Tensors = BTreeMap<&'static str, Vec<f32>>;

/// Runs an engine on tensors by name; what is not given is zero. Dynamic sizes are 3.
fn run(engine: &mut dyn Engine, given: &Tensors) -> Result<BTreeMap<String, Vec<f32>>, EngineError> {
    let io = engine.io().clone();
    let dims = |port: &sightline_engine_api::Port| -> Vec<usize> {
        port.dims.iter().map(|dim| if let Dim::Fixed(size) = dim { *size } else { 3 }).collect()
    };
    let values: Vec<(Shape, Vec<f32>, Vec<i64>)> = io
        .inputs
        .iter()
        .map(|port| {
            let shape = Shape::new(&dims(port)).unwrap();
            let data = given.get(port.name.as_str()).cloned().unwrap_or(vec![0.0; shape.elements()]);
            let integers = data.iter().map(|value| *value as i64).collect();
            (shape, data, integers)
        })
        .collect();
    let inputs: Vec<TensorRef<'_>> = io
        .inputs
        .iter()
        .zip(&values)
        .map(|(port, (shape, data, integers))| match port.dtype {
            sightline_core::DType::I64 => TensorView::i64(shape.dims(), integers).unwrap().into(),
            _ => TensorView::f32(shape.dims(), data).unwrap().into(),
        })
        .collect();
    let mut results: Vec<(String, Vec<usize>, Vec<f32>)> = io
        .outputs
        .iter()
        .map(|port| (port.name.clone(), dims(port), vec![f32::NAN; dims(port).iter().product()]))
        .collect();
    let mut outputs: Vec<TensorMut<'_>> =
        results.iter_mut().map(|(_, dims, data)| TensorViewMut::f32(dims, data).unwrap().into()).collect();
    engine.run(&inputs, &mut outputs)?;
    Ok(results.into_iter().map(|(name, _, data)| (name, data)).collect())
}

/// A blue picture with red squares of 16 pixels, normalised.
fn picture(squares: &[(usize, usize)]) -> Vec<f32> {
    let mut image =
        [vec![-1.0; SIDE_PX * SIDE_PX], vec![-1.0; SIDE_PX * SIDE_PX], vec![1.0; SIDE_PX * SIDE_PX]].concat();
    for &(x, y) in squares {
        for at in (0..16 * 16).map(|i| (y + i / 16) * SIDE_PX + x + i % 16) {
            image[at] = 0.8;
            image[2 * SIDE_PX * SIDE_PX + at] = -0.9;
        }
    }
    image
}

/// The cells of a mask: first column, first row, how many.
fn cells(logits: &[f32]) -> (usize, usize, usize) {
    let inside: Vec<_> = (0..LOW * LOW).filter(|cell| logits[*cell] > 0.0).collect();
    let least = |of: fn(usize) -> usize| inside.iter().map(|cell| of(*cell)).min().unwrap_or(99);
    (least(|cell| cell % LOW), least(|cell| cell / LOW), inside.len())
}

struct Track {
    model: Model,
    memory: Vec<f32>,
    mask: Vec<f32>,
}

impl Track {
    /// Prompts with a box around the square at (8, 8).
    fn start(options: FakeOptions) -> Self {
        let mut model = model(options);
        let top = run(model.image_encoder.as_mut(), &[("image", picture(&[(8, 8)]))].into()).unwrap();
        let mut features = top["feat_top"].clone();
        for (channel, value) in model.spec.no_mem_embed.iter().enumerate() {
            features[channel * LOW * LOW..][..LOW * LOW].iter_mut().for_each(|feature| *feature += value);
        }
        let prompt = [
            ("pix_feat", features.clone()),
            ("feat_top", top["feat_top"].clone()),
            ("point_coords", vec![4.0, 4.0, 28.0, 28.0, 0.0, 0.0]),
            ("point_labels", vec![2.0, 3.0, -1.0]),
        ];
        let decoded = run(model.decoder_prompt.as_mut(), &prompt.into()).unwrap();
        let mut track = Self { model, memory: vec![], mask: decoded["low_res_mask"].clone() };
        track.memory = track.remember(&top["feat_top"], decoded["object_score"][0]);
        track
    }

    fn remember(&mut self, top: &[f32], score: f32) -> Vec<f32> {
        let given =
            [("feat_top", top.to_vec()), ("low_res_mask", self.mask.clone()), ("object_score", vec![score])];
        run(self.model.memory_encoder.as_mut(), &given.into()).unwrap()["mem"].clone()
    }

    /// One frame; gives the object score.
    fn step(&mut self, squares: &[(usize, usize)]) -> Result<f32, EngineError> {
        let top = run(self.model.image_encoder.as_mut(), &[("image", picture(squares))].into())?;
        let slots = self.model.spec.memory.slots();
        let mut mem = self.memory.clone();
        mem.resize(slots * self.memory.len(), 0.0);
        let mut used = vec![0.0; slots];
        used[0] = 1.0;
        let given = [("feat_top", top["feat_top"].clone()), ("mem", mem), ("mem_mask", used)];
        let read = run(self.model.memory_attention.as_mut(), &given.into())?;
        let given = [("pix_feat", read["pix_feat"].clone()), ("prev_low_res_mask", self.mask.clone())];
        let decoded = run(self.model.decoder_track.as_mut(), &given.into())?;
        self.mask = decoded["low_res_mask"].clone();
        Ok(decoded["object_score"][0])
    }
}

#[test]
fn a_coloured_square_is_followed_lost_and_found() {
    for (case, options) in [
        ("like sam2", FakeOptions::default()),
        (
            "like nano",
            FakeOptions {
                pointers: false,
                prev_mask: true,
                prompt_pix_feat: false,
                mask_decoder: false,
                recent: 1,
                ..FakeOptions::default()
            },
        ),
    ] {
        let mut track = Track::start(options);
        assert_eq!(cells(&track.mask), (2, 2, 16), "{case}: prompted");
        assert!(track.step(&[(20, 16)]).unwrap() > 0.0, "{case}");
        assert_eq!(cells(&track.mask), (5, 4, 16), "{case}: moved");
        assert!(track.step(&[]).unwrap() < 0.0, "{case}: gone");
        assert_eq!(cells(&track.mask).2, 0, "{case}");
        assert!(track.step(&[(44, 44)]).unwrap() > 0.0, "{case}: back, somewhere else");
        assert_eq!(cells(&track.mask), (11, 11, 16), "{case}");
    }
}

#[test]
fn the_previous_mask_tells_two_alike_apart() {
    for (prev_mask, expected) in [(false, 32), (true, 16)] {
        let mut track = Track::start(FakeOptions { prev_mask, ..FakeOptions::default() });
        track.step(&[(12, 8), (48, 48)]).unwrap();
        assert_eq!(cells(&track.mask).2, expected, "prev_mask {prev_mask}");
    }
}

#[test]
fn clicks_add_and_take_away() {
    let mut model = model(FakeOptions::default());
    let top = run(model.image_encoder.as_mut(), &[("image", picture(&[(0, 0), (40, 40)]))].into()).unwrap();
    let mut prompt = |points: [f32; 6], labels: [f32; 3], mask: Option<Vec<f32>>| {
        let given = [
            ("pix_feat", top["feat_top"].clone()),
            ("point_coords", points.to_vec()),
            ("point_labels", labels.to_vec()),
            ("has_mask_input", vec![f32::from(u8::from(mask.is_some()))]),
            ("mask_input", mask.unwrap_or(vec![0.0; LOW * LOW])),
        ];
        run(model.decoder_prompt.as_mut(), &given.into()).unwrap()
    };
    let first = prompt([5.0, 5.0, 0.0, 0.0, 0.0, 0.0], [1.0, -1.0, -1.0], None);
    assert_eq!(cells(&first["low_res_mask"]), (0, 0, 16));
    assert!((first["obj_ptr"][0] - 0.8).abs() < 1e-5 && first["obj_ptr"][3] == 1.0, "{:?}", first["obj_ptr"]);
    let mask = first["low_res_mask"].clone();
    let both = prompt([50.0, 50.0, 0.0, 0.0, 0.0, 0.0], [1.0, -1.0, -1.0], Some(mask));
    assert_eq!(cells(&both["low_res_mask"]), (0, 0, 32));
    let mask = both["low_res_mask"].clone();
    let second = prompt([5.0, 5.0, 0.0, 0.0, 0.0, 0.0], [0.0, -1.0, -1.0], Some(mask));
    assert_eq!(cells(&second["low_res_mask"]), (10, 10, 16));
    let none = prompt([0.0; 6], [-1.0; 3], None);
    assert_eq!((cells(&none["low_res_mask"]).2, none["object_score"][0]), (0, -5.0));
    assert_eq!(none["obj_ptr"], model.spec.no_obj_ptr);
}

#[test]
fn a_mask_prompt_is_reduced() {
    let mut model = model(FakeOptions::default());
    let mut mask = vec![0.0; SIDE_PX * SIDE_PX];
    (0..8 * 8).for_each(|i| mask[(16 + i / 8) * SIDE_PX + 24 + i % 8] = 1.0);
    let engine = model.mask_downsample.as_mut().unwrap();
    let reduced = run(engine.as_mut(), &[("mask", mask)].into()).unwrap();
    assert_eq!(cells(&reduced["mask_prompt"]), (6, 4, 4));
}

#[test]
fn runs_are_counted_recorded_and_failed() {
    let handle = FakeHandle::new();
    handle.record();
    let options = FakeOptions {
        faults: vec![Fault { graph: GraphName::DecoderTrack, run: 2 }],
        handle: handle.clone(),
        ..FakeOptions::default()
    };
    let mut track = Track::start(options);
    track.step(&[(8, 8)]).unwrap();
    let error = track.step(&[(8, 8)]).expect_err("the scripted fault");
    assert_eq!((error.kind(), error.is_transient()), (Kind::Run, true));
    assert_eq!(
        error.to_string(),
        "decoder_track: expected a run without an error, got the scripted fault of run 2"
    );
    track.step(&[(8, 8)]).expect("the next frame");
    let runs = GraphName::ALL.map(|graph| handle.runs(graph));
    assert_eq!(runs, [4, 3, 3, 1, 1, 0]);
    let recorded = handle.recorded(GraphName::MemoryAttention);
    assert_eq!(recorded.len(), 3);
    assert_eq!(recorded[0]["mem_mask"], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(recorded[0]["tpos_idx"].len(), 7);
}

#[test]
fn a_held_run_waits_until_it_is_let_go() {
    let handle = FakeHandle::new();
    let graph = GraphName::ImageEncoder;
    let mut model = model(FakeOptions { handle: handle.clone(), ..FakeOptions::default() });
    handle.hold(graph);
    let worker = thread::spawn(move || {
        for _ in 0..3 {
            run(model.image_encoder.as_mut(), &Tensors::new()).unwrap();
        }
    });
    assert!(handle.wait_for_runs(graph, 1, SOON));
    assert!(!handle.wait_for_ends(graph, 1, Duration::from_millis(20)), "held");
    handle.let_go(graph, 1);
    assert!(handle.wait_for_runs(graph, 2, SOON) && handle.wait_for_ends(graph, 1, SOON));
    assert_eq!(handle.runs(graph), 2, "the third has not begun");
    handle.release(graph);
    assert!(handle.wait_for_ends(graph, 3, SOON));
    worker.join().unwrap();
}

#[test]
fn a_delay_is_taken() {
    let delay = Duration::from_millis(30);
    let mut model = model(FakeOptions { delay, ..FakeOptions::default() });
    let start = std::time::Instant::now();
    run(model.image_encoder.as_mut(), &Tensors::new()).unwrap();
    assert!(start.elapsed() >= delay);
}
