//! A late answer: an object that was asked about on a frame of a second ago, followed from there while frames go on
//! coming at a camera's pace.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::Args;
use serde::Serialize;
use sightline_core::ObjectId;
use sightline_tracker::{At, Options, Pace, Session};

use crate::{
    load::{ModelArgs, size},
    scene::{FPS, Scene, prompt, prompt_all, stamp},
    spread::Spread,
};

/// Nothing takes longer: then it is no catching up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct LateArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Objects that are live meanwhile
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=32))]
    objects: u32,
    /// How old the answer is, in frames of 30 a second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    behind: u64,
    /// Time to live that is aimed at by leaving frames out; 0: none is left out
    #[arg(long, default_value_t = 250)]
    within_ms: u64,
    /// Answers, one after the other
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    answers: u32,
    #[arg(long, default_value = "1280x720", value_name = "WxH", value_parser = size)]
    picture: (u32, u32),
}

#[derive(Debug, Serialize)]
pub(crate) struct Late {
    provider: String,
    objects: u32,
    behind_ms: f64,
    within_ms: u64,
    /// From the answer to its object live.
    live_again_ms: Option<Spread>,
    /// Frames of the past looked at, a mean over the answers.
    looked_at: f64,
    /// Of the live objects meanwhile, from a picture's arrival to its masks.
    live_frame_to_mask_ms: Option<Spread>,
}

pub(crate) fn run(args: &LateArgs) -> Result<Late> {
    let scene = Scene::new(args.picture);
    let model = args.model.load()?;
    let provider = model.image_encoder.provider().to_owned();
    let options = Options {
        history: args.behind as usize + 8,
        max_objects: args.objects as usize + 1,
        ..Options::default()
    };
    let mut session = Session::new(model, options)?;
    prompt_all(&mut session, args.objects)?;
    let (mut frame, mut took, mut waits, mut looked_at) = (0, Vec::new(), Vec::new(), 0);
    for answer in 0..=args.answers {
        for _ in 0..args.behind + 2 {
            session.process(stamp(frame), &scene.picture(frame)?)?;
            frame += 1;
        }
        let late = ObjectId(1000 + answer);
        let (took_one, looked, live) = one(args, &scene, &mut session, &mut frame, late)?;
        session.remove(late);
        // The first one chose kernels and sized buffers.
        if answer > 0 {
            took.push(took_one);
            waits.extend(live);
            looked_at += looked;
        }
    }
    Ok(Late {
        provider,
        objects: args.objects,
        behind_ms: 1e3 * args.behind as f64 / FPS,
        within_ms: args.within_ms,
        live_again_ms: Spread::new(took),
        looked_at: looked_at as f64 / f64::from(args.answers),
        live_frame_to_mask_ms: Spread::new(waits),
    })
}

/// The time it took, frames of the past looked at, and what the live ones took meanwhile.
fn one(
    args: &LateArgs,
    scene: &Scene,
    session: &mut Session,
    frame: &mut u64,
    late: ObjectId,
) -> Result<(Duration, usize, Vec<Duration>)> {
    let start = Instant::now();
    session.prompt_late(late, At::Frame(*frame - 1 - args.behind), prompt(args.objects + 3))?;
    let within = (args.within_ms > 0).then(|| Duration::from_millis(args.within_ms));
    let (mut arrived, mut looked, mut waits) = (0, 0, Vec::new());
    loop {
        let came = start + Duration::from_secs_f64(f64::from(arrived + 1) / FPS);
        while Instant::now() < came {
            let pace = Pace { now: start.elapsed(), within };
            let (seen, progress) = session.catch_up(pace, scene.size_px())?;
            if let Some(given_up) = progress.given_up.first() {
                bail!("late answer: expected it to be followed, got: {}", given_up.error);
            }
            looked += seen.len();
            if progress.live.contains(&late) {
                return Ok((start.elapsed(), looked, waits));
            }
            ensure!(start.elapsed() < PATIENCE, "late answer: expected it live in a minute");
            if seen.is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        session.process(stamp(*frame), &scene.picture(*frame)?)?;
        waits.push(came.elapsed());
        *frame += 1;
        arrived += 1;
    }
}
