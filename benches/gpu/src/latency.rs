//! Frames one after the other, or at a camera's pace; one session a feed, all on the same engines.

use std::{
    collections::BTreeMap,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use serde::Serialize;
use sightline_core::FrameResult;
use sightline_engine_registry::Turn;
use sightline_tracker::{Options, Session};

use crate::{
    load::{ModelArgs, size},
    scene::{Scene, prompt_all, stamp},
    spread::{Spread, ms},
};

#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Objects of every feed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    objects: u32,
    /// Feeds, a thread each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    feeds: u32,
    /// Frames of every feed that count
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    frames: u64,
    /// Frames before them: memories fill up, kernels are chosen
    #[arg(long, default_value_t = 24)]
    warmup: u64,
    /// Pictures a second of every feed, the newest of which is taken; 0: each at once after the last
    #[arg(long, default_value_t = 0.0)]
    fps: f64,
    #[arg(long, default_value = "1280x720", value_name = "WxH", value_parser = size)]
    picture: (u32, u32),
}

#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    provider: String,
    objects: u32,
    feeds: u32,
    fps: f64,
    picture: String,
    load_ms: f64,
    /// Of all feeds together, counted frames over the time they took.
    frames_per_s: f64,
    /// Runs of graphs that were done together with other feeds', each of them counted, a counted frame.
    joined_runs_a_frame: f64,
    /// Pictures for which a newer one was there before their turn came.
    skipped: u64,
    frame_to_mask_ms: Option<Spread>,
    stages_ms: BTreeMap<&'static str, Spread>,
    /// Objects that were seen on the last frame, of all feeds: with drawn weights it says nothing.
    tracked: usize,
}

struct Fed {
    results: Vec<FrameResult>,
    /// From a picture's arrival to its masks.
    waits: Vec<Duration>,
    skipped: u64,
    joined_runs: u64,
    span: (Instant, Instant),
}

pub(crate) fn run(args: &LatencyArgs) -> Result<Latency> {
    let scene = Scene::new(args.picture);
    let start = Instant::now();
    let mut sessions = (0..args.feeds).map(|_| session(args)).collect::<Result<Vec<_>>>()?;
    let (loaded, provider) = (start.elapsed(), sessions[0].2.clone());
    let together = Barrier::new(sessions.len());
    let fed = thread::scope(|scope| {
        let play = |(session, turn, _): &mut (Session, Option<Turn>, String)| {
            feed(args, &scene, session, turn.as_ref(), &together)
        };
        let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(move || play(session))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a feed's thread panicked"))?)
            .collect::<Result<Vec<Fed>>>()
    })?;
    let begin = fed.iter().map(|fed| fed.span.0).min().context("at least one feed")?;
    let end = fed.iter().map(|fed| fed.span.1).max().context("at least one feed")?;
    let results = || fed.iter().flat_map(|fed| &fed.results);
    let mut stages: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for (name, time) in results().flat_map(|result| result.stages.named()) {
        stages.entry(name).or_default().push(time);
    }
    Ok(Latency {
        provider,
        objects: args.objects,
        feeds: args.feeds,
        fps: args.fps,
        picture: format!("{}x{}", args.picture.0, args.picture.1),
        load_ms: ms(loaded),
        frames_per_s: results().count() as f64 / (end - begin).as_secs_f64(),
        joined_runs_a_frame: fed.iter().map(|fed| fed.joined_runs).sum::<u64>() as f64
            / results().count().max(1) as f64,
        skipped: fed.iter().map(|fed| fed.skipped).sum(),
        frame_to_mask_ms: Spread::new(fed.iter().flat_map(|fed| fed.waits.iter().copied())),
        stages_ms: stages.into_iter().filter_map(|(name, times)| Some((name, Spread::new(times)?))).collect(),
        tracked: fed
            .iter()
            .filter_map(|fed| fed.results.last())
            .flat_map(|result| &result.objects)
            .filter(|object| object.bounds.is_some())
            .count(),
    })
}

fn session(args: &LatencyArgs) -> Result<(Session, Option<Turn>, String)> {
    let (model, turn) = if args.feeds == 1 {
        (args.model.load()?, None)
    } else {
        let (model, turn) = args.model.share()?;
        (model, Some(turn))
    };
    let provider = model.image_encoder.provider().to_owned();
    let options = Options { max_objects: args.objects as usize, ..Options::default() };
    let mut session = Session::new(model, options)?;
    prompt_all(&mut session, args.objects)?;
    Ok((session, turn, provider))
}

fn feed(
    args: &LatencyArgs,
    scene: &Scene,
    session: &mut Session,
    turn: Option<&Turn>,
    together: &Barrier,
) -> Result<Fed> {
    let mut frame = 0;
    let mut process = |frame: u64, came: Instant| -> Result<FrameResult> {
        if let Some(turn) = turn {
            turn.due(came + Duration::from_millis(33));
        }
        Ok(session.process(stamp(frame), &scene.picture(frame)?)?)
    };
    let warm = (0..args.warmup).try_for_each(|_| {
        process(frame, Instant::now())?;
        frame += 1;
        Ok::<_, anyhow::Error>(())
    });
    // Whoever failed is waited for too.
    together.wait();
    warm?;
    let joined = || turn.map_or(0, Turn::joined_runs);
    joined();
    let begin = Instant::now();
    let (mut results, mut waits, mut skipped, mut picture) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..args.frames {
        let came = if args.fps > 0.0 {
            let newest = (begin.elapsed().as_secs_f64() * args.fps) as u64;
            skipped += newest.saturating_sub(picture);
            picture = picture.max(newest);
            let came = begin + Duration::from_secs_f64(picture as f64 / args.fps);
            thread::sleep(came.saturating_duration_since(Instant::now()));
            picture += 1;
            came
        } else {
            Instant::now()
        };
        results.push(process(frame, came)?);
        waits.push(came.elapsed());
        frame += 1;
    }
    Ok(Fed { results, waits, skipped, joined_runs: joined(), span: (begin, Instant::now()) })
}
