//! Median time of each graph of a model on random inputs:
//! `cargo run --release -p sightline-engine-registry --example graph_times -- MODEL [--threads N] [--runs N] [--spinning]`.
//! MODEL is a name or a folder.
#![allow(clippy::print_stdout)]

use std::{error::Error, num::NonZeroUsize, time::Instant};

use sightline_core::{DType, Shape, TensorView, TensorViewMut};
use sightline_engine_api::{Dim, Engine, GraphName, Port, TensorMut};
use sightline_engine_registry::{LoadOptions, load};

/// What a size that the caller chooses is here: two points and their padding.
const DYNAMIC: usize = 3;

enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut model, mut runs, mut options) = (None, 50_usize, LoadOptions::default());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().ok_or_else(|| format!("{arg}: expected a number, got nothing"));
        match arg.as_str() {
            "--threads" => options.threads = Some(number()?.parse::<NonZeroUsize>()?),
            "--runs" => runs = number()?.parse::<NonZeroUsize>()?.get(),
            "--spinning" => options.spinning = true,
            _ => model = Some(arg),
        }
    }
    let name =
        model.ok_or("arguments: expected MODEL [--threads N] [--runs N] [--spinning], got no model")?;
    let start = Instant::now();
    let mut model = load(&name, &options)?;
    println!(
        "{} by {}, loaded in {:.0} ms",
        model.spec.name,
        model.image_encoder.provider(),
        start.elapsed().as_secs_f64() * 1e3
    );
    println!("{:<18} {:>9} {:>9} {:>9}", "graph", "p50 ms", "p95 ms", "max ms");
    time(GraphName::ImageEncoder, model.image_encoder.as_mut(), runs)?;
    time(GraphName::MemoryAttention, model.memory_attention.as_mut(), runs)?;
    time(GraphName::DecoderTrack, model.decoder_track.as_mut(), runs)?;
    time(GraphName::DecoderPrompt, model.decoder_prompt.as_mut(), runs)?;
    time(GraphName::MemoryEncoder, model.memory_encoder.as_mut(), runs)?;
    if let Some(engine) = &mut model.mask_downsample {
        time(GraphName::MaskDownsample, engine.as_mut(), runs)?;
    }
    Ok(())
}

fn time(name: GraphName, engine: &mut dyn Engine, runs: usize) -> Result<(), Box<dyn Error>> {
    let io = engine.io().clone();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut inputs: Vec<_> = io.inputs.iter().map(|port| values(port, &mut random)).collect();
    let mut outputs: Vec<_> = io.outputs.iter().map(|port| values(port, &mut || 0.0)).collect();
    let mut times = Vec::with_capacity(runs);
    // The first runs plan memory and wake threads.
    for run in 0..runs + 5 {
        let given: Vec<_> = inputs
            .iter_mut()
            .map(|(shape, values)| match values {
                Values::F32(data) => TensorView::F32(*shape, data).into(),
                Values::I64(data) => TensorView::I64(*shape, data).into(),
            })
            .collect();
        let mut taken: Vec<_> = outputs
            .iter_mut()
            .map(|(shape, values)| match values {
                Values::F32(data) => TensorMut::Host(TensorViewMut::F32(*shape, data)),
                Values::I64(data) => TensorMut::Host(TensorViewMut::I64(*shape, data)),
            })
            .collect();
        let start = Instant::now();
        engine.run(&given, &mut taken)?;
        if run >= 5 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{:<18} {:>9.3} {:>9.3} {:>9.3}", name.as_str(), at(50), at(95), at(100));
    Ok(())
}

/// Floats are noise, as are normalised pictures and features; masks of slots say "used"; integers are 0, a valid
/// index everywhere.
fn values(port: &Port, random: &mut dyn FnMut() -> f32) -> (Shape, Values) {
    let dims: Vec<usize> = port
        .dims
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Dynamic => DYNAMIC,
        })
        .collect();
    let elements = dims.iter().product();
    let values = match (port.dtype, port.name.as_str()) {
        (DType::I64, _) => Values::I64(vec![0; elements]),
        (_, "mem_mask" | "ptr_mask" | "point_labels") => Values::F32(vec![1.0; elements]),
        _ => Values::F32((0..elements).map(|_| random()).collect()),
    };
    // A port of a loaded engine has at most `Shape::MAX_RANK` sizes.
    (Shape::new(&dims).unwrap_or_else(|_| unreachable!("{dims:?}")), values)
}
