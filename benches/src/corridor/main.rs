//! The corridor end to end: real pipelines on a real file, measured where a buffer enters and leaves.
//!
//! `cargo run --release -p sightline-benches --bin corridor -- --input FILE --box x0,y0,x1,y1 --out DIR`
//!
//! Four pipelines, one after the other (`--repeats` times each, what comes before the warm-up's end thrown away):
//! decoding alone, every frame tracked, every frame tracked and drawn and encoded as `sightline run` does it, and
//! live at the file's own pace. `DIR` then holds machine.txt, commit.txt, command.txt, frames.csv, buffers.csv,
//! summary.json and summary.md.
#![forbid(unsafe_code)]

mod machine;
mod pass;
mod report;
mod summary;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use gst::prelude::*;
use sightline_engine_registry::LoadOptions;

use crate::pass::{Measured, Pass, Setup};

/// What `--input ball` is: x264 at 1280x720, 30 a second, a white ball of 40 pixels that starts in the middle.
const BALL: &str = "ball";
const BALL_FRAMES: u32 = 300;
const BALL_BOX: [u32; 4] = [620, 340, 660, 380];

#[derive(Debug, Parser)]
#[command(name = "corridor", about = "Measures the corridor end to end", max_term_width = 100)]
struct Args {
    /// A video file; "ball" makes a clip of its own (1280x720 H.264, 10 s)
    #[arg(long, default_value = BALL)]
    input: String,
    /// What to track, in pixels of the first frame
    #[arg(long = "box", value_name = "X0,Y0,X1,Y1")]
    box_px: Option<String>,
    /// An installed model or a model folder
    #[arg(long, default_value = "nano")]
    model: String,
    /// Threads of the engines; 0: as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// Only so much of the file
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Frames at the start of every run that do not count
    #[arg(long, default_value_t = 30)]
    warmup: usize,
    /// Runs of every pipeline, whose samples are put together
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// The results' folder; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    gst::init().context("cannot start GStreamer")?;
    gstsightline::plugin_register_static().context("cannot register the sightline elements")?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {:?}", args.out))?;
    let scratch = tempfile::tempdir().context("cannot make a folder for what is encoded")?;
    let setup = Setup {
        input: input(&args.input, scratch.path())?,
        prompts: prompts(&args)?,
        model: args.model.clone(),
        threads: args.threads,
        until: args.seconds.map(|seconds| gst::ClockTime::from_nseconds((seconds * 1e9) as u64)),
        warmup: args.warmup,
        encoded: scratch.path().join("encoded.mp4"),
    };
    // Before anything of ours runs, and only so far as the machine can be blamed for it.
    let machine = machine::Machine::before(runtime(&args)?)?;
    let mut all = Vec::new();
    for pass in Pass::ALL {
        let mut runs = Vec::new();
        for repeat in 1..=args.repeats {
            say(&format!("{} ({repeat} of {})", pass.name(), args.repeats));
            runs.push(pass::run(pass, &setup).with_context(|| format!("pipeline {}", pass.name()))?);
        }
        all.push((pass, runs));
    }
    let machine = machine.after();
    refuse_what_tracked_nothing(&all, args.warmup)?;
    let summary = summary::Summary::new(&args.input, &setup, args.repeats, &machine, &all);
    report::write(&args.out, &machine, &summary, &all, args.warmup)?;
    say(&report::markdown(&summary));
    say(&format!("written to {}", args.out.display()));
    Ok(())
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    println!("{text}");
}

/// Numbers of a corridor that had nothing to do would be read as numbers of one that works.
fn refuse_what_tracked_nothing(all: &[(Pass, Vec<Measured>)], warmup: usize) -> Result<()> {
    for (pass, runs) in all.iter().filter(|(pass, _)| pass.tracks()) {
        for run in runs {
            let kept = run.frames.iter().filter(|frame| frame.frame.index >= warmup as u64);
            if !kept.clone().any(|frame| frame.outcome.skip_reason().is_none()) {
                bail!(
                    "pipeline {}: expected frames that were looked at after the first {warmup}, got none of {}",
                    pass.name(),
                    run.buffers.len()
                );
            }
        }
    }
    Ok(())
}

/// The engine and its version, by loading the model once as the element will.
fn runtime(args: &Args) -> Result<String> {
    let threads = std::num::NonZeroUsize::new(args.threads as usize);
    let options = LoadOptions { threads, ..LoadOptions::default() };
    let model = sightline_engine_registry::load(&args.model, &options)
        .with_context(|| format!("cannot load model {:?}", args.model))?;
    Ok(model.image_encoder.provider().to_owned())
}

fn prompts(args: &Args) -> Result<String> {
    let corners = match &args.box_px {
        Some(text) => {
            let corners: Vec<f32> = text.split(',').map_while(|part| part.trim().parse().ok()).collect();
            if corners.len() != 4 {
                bail!("--box: expected x0,y0,x1,y1 in pixels, got {text:?}");
            }
            corners
        }
        None if args.input == BALL => BALL_BOX.map(|edge| edge as f32).to_vec(),
        None => bail!("--box: expected x0,y0,x1,y1 of what is to be tracked in {:?}, got none", args.input),
    };
    let corners: Vec<String> = corners.iter().map(f32::to_string).collect();
    Ok(format!("box={}", corners.join(",")))
}

/// The file to be read.
fn input(named: &str, scratch: &Path) -> Result<PathBuf> {
    if named != BALL {
        return fs::canonicalize(named).with_context(|| format!("cannot read {named:?}"));
    }
    let path = scratch.join("ball.mp4");
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc pattern=ball num-buffers={BALL_FRAMES} \
         ! video/x-raw,format=I420,width=1280,height=720,framerate=30/1 \
         ! x264enc speed-preset=superfast key-int-max=60 ! h264parse ! mp4mux ! filesink name=to"
    ))?
    .downcast::<gst::Pipeline>()
    .map_err(|_| anyhow::anyhow!("expected a pipeline"))?;
    pass::named(&pipeline, "to")?.set_property("location", path.to_string_lossy().as_ref());
    pass::play(&pipeline, |_| {})?;
    Ok(path)
}
