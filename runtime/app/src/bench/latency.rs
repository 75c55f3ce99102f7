//! `sightline bench latency`: from a frame to its masks, stage by stage, and what it costs.
//!
//! Frame-to-mask is from a buffer's arrival in the element to its masks being ready; of it, what the engines did not use is
//! the runtime's own overhead: the wait for the worker, preprocessing, postprocessing, and the rest (the tracker
//! between the engines, wake-ups). Frames that were skipped have no masks and are counted, not timed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use gstsightline::record::FrameRecord;
use serde::Serialize;
use sightline_config::{Layer, ModelLayer, Settings};

use super::{
    clip::Clip,
    feeds::{Fed, Feed},
    figures::{Percentiles, mean, ms, rounded},
    process, write_json,
};
use crate::cli::LatencyArgs;

/// Between two looks at what the feeds said.
const LOOK: Duration = Duration::from_millis(50);
/// Before the first picture, so that every feed's thread is there.
const LEAD: Duration = Duration::from_millis(100);

/// Shares of frame-to-mask.
#[derive(Debug, Serialize)]
struct Overhead {
    /// Of each frame, the middle one.
    p50: f64,
    /// Of all frames' time together; the parts below add up to it.
    of_sum: f64,
    queue: f64,
    preprocess: f64,
    postprocess: f64,
    rest: f64,
}

#[derive(Debug, Serialize)]
struct FeedReport {
    /// After the warm-up.
    frames_in: usize,
    processed: usize,
    outcomes: BTreeMap<String, usize>,
    /// Over the whole run.
    accounted: bool,
    frame_to_mask_ms: Option<Percentiles>,
    mask_age_ms: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct Interval {
    #[serde(flatten)]
    percentiles: Percentiles,
    stddev: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    bench: &'static str,
    model: String,
    /// The file's name.
    input: String,
    picture: String,
    pictures: usize,
    objects: usize,
    feeds: usize,
    fps: f64,
    seconds: f64,
    /// Thrown away.
    warmup_s: f64,
    threads: usize,
    set: BTreeMap<&'a str, &'a str>,
    frames_in: usize,
    processed: usize,
    outcomes: BTreeMap<String, usize>,
    accounted: bool,
    /// Frames processed: the feed with the fewest over the one with the most.
    fairness: f64,
    frame_to_mask_ms: Option<Percentiles>,
    /// p99 less p50 of frame-to-mask.
    jitter_ms: Option<f64>,
    /// Between a feed's masks.
    interval_ms: Option<Interval>,
    mask_age_ms: Option<Percentiles>,
    stages_ms: BTreeMap<&'static str, Percentiles>,
    overhead: Option<Overhead>,
    /// What a buffer's thread pays, from sink pad to source pad.
    streaming_ms: Option<Percentiles>,
    /// Seconds of processor over seconds of wall: of this process, feeding included.
    cpu: Option<f64>,
    /// The clip is in it.
    peak_memory_mib: Option<f64>,
    clip_mib: f64,
    per_feed: Vec<FeedReport>,
}

/// Plays, measures, prints the table, writes the JSON.
pub(super) fn run(args: &LatencyArgs) -> Result<()> {
    crate::gstreamer::init()?;
    let settings = settings(args)?;
    let clip = Clip::read(&args.input)?;
    let objects = args.objects.unwrap_or(args.box_px.len().max(1));
    let boxes = if args.box_px.is_empty() { clip.spread(objects) } else { args.box_px.clone() };
    if boxes.len() != objects {
        bail!("--box: expected one for each of {objects} objects or none, got {}", boxes.len());
    }
    let fps = args.fps.unwrap_or(clip.fps);
    let mut feeds = (0..args.feeds)
        .map(|_| Feed::new(&clip, &settings, &args.set, &boxes, crate::cli::LateArg::CatchUp))
        .collect::<Result<Vec<_>>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now() + LEAD;
    for (number, feed) in feeds.iter_mut().enumerate() {
        let phase = Duration::from_secs_f64(number as f64 / (args.feeds as f64 * fps));
        feed.play(&clip, fps, start + phase, &stop)?;
    }
    let from = start + Duration::from_secs_f64(args.warmup);
    let to = from + Duration::from_secs_f64(args.seconds);
    let played = play(&mut feeds, from, to);
    stop.store(true, Ordering::Relaxed);
    let cpu = played?.map(|used| rounded(used.as_secs_f64() / args.seconds));
    let fed = feeds.into_iter().map(Feed::finish).collect::<Result<Vec<_>>>()?;
    let report = report(args, &clip, objects, fps, cpu, (from, to), &fed);
    crate::print_stdout(&table(&report))?;
    args.json.as_deref().map(|path| write_json(path, &report)).transpose()?;
    if !report.accounted {
        bail!("frames: expected one outcome for each, got {:?}", report.per_feed);
    }
    Ok(())
}

fn settings(args: &LatencyArgs) -> Result<Settings> {
    let file = args.config.as_deref().map(Layer::from_file).transpose()?.unwrap_or_default();
    let model = ModelLayer { name: Some(args.model.clone()), threads: Some(args.threads) };
    let flags = Layer { model, ..Layer::default() };
    Ok(Settings::resolve([file, Layer::from_env(std::env::vars())?, flags])?)
}

/// Listens until it is over; the processor time used between `from` and `to`.
fn play(feeds: &mut [Feed], from: Instant, to: Instant) -> Result<Option<Duration>> {
    let mut before = None;
    while Instant::now() < to {
        if before.is_none() && Instant::now() >= from {
            before = Some(process::cpu_time());
        }
        std::thread::sleep(LOOK.min(to.saturating_duration_since(Instant::now())));
        feeds.iter_mut().try_for_each(Feed::listen)?;
    }
    let after = process::cpu_time();
    Ok(before.flatten().zip(after).map(|(before, after)| after.saturating_sub(before)))
}

/// The frames that entered between two moments, with the moment.
fn counted(fed: &Fed, (from, to): (Instant, Instant)) -> impl Iterator<Item = (Instant, &FrameRecord)> {
    fed.records.iter().filter_map(move |record| {
        let entered = fed.passages.get(usize::try_from(record.frame.index).ok()?)?.entered;
        (from..to).contains(&entered).then_some((entered, record))
    })
}

fn engines(record: &FrameRecord) -> Duration {
    let of = &record.stages;
    of.image_encoder + of.memory_attention + of.decoder + of.memory_encoder
}

fn looked_at(record: &FrameRecord) -> bool {
    record.outcome.skip_reason().is_none()
}

fn outcomes<'a>(records: impl Iterator<Item = &'a FrameRecord>) -> BTreeMap<String, usize> {
    let mut outcomes = BTreeMap::new();
    for outcome in records.map(|record| record.outcome) {
        let name = outcome.skip_reason().map_or(outcome.as_str(), |reason| reason.as_str());
        *outcomes.entry(name.to_owned()).or_default() += 1;
    }
    outcomes
}

fn report<'a>(
    args: &'a LatencyArgs,
    clip: &Clip,
    objects: usize,
    fps: f64,
    cpu: Option<f64>,
    window: (Instant, Instant),
    fed: &[Fed],
) -> Report<'a> {
    let all: Vec<&FrameRecord> =
        fed.iter().flat_map(|fed| counted(fed, window)).map(|(_, record)| record).collect();
    let seen: Vec<&FrameRecord> = all.iter().copied().filter(|record| looked_at(record)).collect();
    let per_feed: Vec<FeedReport> = fed.iter().map(|fed| feed_report(fed, window)).collect();
    let passages: Vec<_> = fed
        .iter()
        .flat_map(|fed| &fed.passages)
        .filter(|passage| (window.0..window.1).contains(&passage.entered))
        .collect();
    let frame_to_mask_ms = Percentiles::new(seen.iter().map(|record| ms(record.latency)));
    let processed = || per_feed.iter().map(|feed| feed.processed);
    let most = processed().max().unwrap_or(0).max(1);
    Report {
        bench: "latency",
        model: super::base_name(&args.model),
        input: super::base_name(&args.input),
        picture: format!("{}x{} {}", clip.width_px, clip.height_px, clip.format),
        pictures: clip.buffers.len(),
        objects,
        feeds: args.feeds,
        fps,
        seconds: args.seconds,
        warmup_s: args.warmup,
        threads: args.threads,
        set: super::as_map(&args.set),
        frames_in: all.len(),
        processed: seen.len(),
        outcomes: outcomes(all.iter().copied()),
        accounted: per_feed.iter().all(|feed| feed.accounted),
        fairness: rounded(processed().min().unwrap_or(0) as f64 / most as f64),
        jitter_ms: frame_to_mask_ms.map(|of| rounded(of.p99 - of.p50)),
        frame_to_mask_ms,
        interval_ms: interval(fed, window),
        mask_age_ms: Percentiles::new(passages.iter().filter_map(|passage| passage.mask_age.map(ms))),
        stages_ms: stages(&seen),
        overhead: overhead(&seen),
        streaming_ms: Percentiles::new(passages.iter().map(|passage| ms(passage.streaming))),
        cpu,
        peak_memory_mib: process::memory_mib("VmHWM"),
        clip_mib: rounded(clip.bytes as f64 / f64::from(1 << 20)),
        per_feed,
    }
}

fn feed_report(fed: &Fed, window: (Instant, Instant)) -> FeedReport {
    let frames: Vec<&FrameRecord> = counted(fed, window).map(|(_, record)| record).collect();
    let seen = || frames.iter().copied().filter(|record| looked_at(record));
    let within = fed.passages.iter().filter(|passage| (window.0..window.1).contains(&passage.entered));
    FeedReport {
        frames_in: frames.len(),
        processed: seen().count(),
        outcomes: outcomes(frames.iter().copied()),
        accounted: super::accounted(&fed.stats)
            && fed.stats.get("frames-in").copied() == Some(fed.records.len() as u64),
        frame_to_mask_ms: Percentiles::new(seen().map(|record| ms(record.latency))),
        mask_age_ms: Percentiles::new(within.filter_map(|passage| passage.mask_age.map(ms))),
    }
}

/// Time between the moments at which a feed's masks were ready, all feeds together.
fn interval(fed: &[Fed], window: (Instant, Instant)) -> Option<Interval> {
    let gaps: Vec<f64> = fed
        .iter()
        .flat_map(|fed| {
            let ready: Vec<Instant> = counted(fed, window)
                .filter(|(_, record)| looked_at(record))
                .map(|(entered, record)| entered + record.latency)
                .collect();
            ready.windows(2).map(|pair| ms(pair[1] - pair[0])).collect::<Vec<_>>()
        })
        .collect();
    let average = mean(&gaps);
    let spread: Vec<f64> = gaps.iter().map(|gap| (gap - average).powi(2)).collect();
    let stddev = rounded(mean(&spread).sqrt());
    Percentiles::new(gaps).map(|percentiles| Interval { percentiles, stddev })
}

/// The element's stages, and what lies between them.
fn stages(seen: &[&FrameRecord]) -> BTreeMap<&'static str, Percentiles> {
    let mut times: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for record in seen {
        let stages = record.stages.named();
        stages.iter().for_each(|(name, time)| times.entry(name).or_default().push(ms(*time)));
        times.entry("rest").or_default().push(ms(record.latency.saturating_sub(record.stages.total())));
        times.entry("engines").or_default().push(ms(engines(record)));
    }
    times.into_iter().filter_map(|(name, of)| Some((name, Percentiles::new(of)?))).collect()
}

fn overhead(seen: &[&FrameRecord]) -> Option<Overhead> {
    let share = |part: Duration, whole: Duration| part.as_secs_f64() / whole.as_secs_f64().max(1e-9);
    let own = |record: &FrameRecord| record.latency.saturating_sub(engines(record));
    let p50 = Percentiles::new(seen.iter().map(|record| share(own(record), record.latency)))?.p50;
    let sum = |of: fn(&FrameRecord) -> Duration| seen.iter().map(|record| of(record)).sum::<Duration>();
    let whole = sum(|record| record.latency);
    let of = |part: Duration| rounded(share(part, whole));
    Some(Overhead {
        p50,
        of_sum: of(seen.iter().map(|record| own(record)).sum()),
        queue: of(sum(|record| record.stages.queue)),
        preprocess: of(sum(|record| record.stages.preprocess)),
        postprocess: of(sum(|record| record.stages.postprocess)),
        rest: of(sum(|record| record.latency.saturating_sub(record.stages.total()))),
    })
}

fn table(report: &Report<'_>) -> String {
    let mut text = format!(
        "{} {} at {:.4} fps, {} feed(s) of {} object(s), {} s after {} s of warm-up\n\n",
        report.model,
        report.picture,
        report.fps,
        report.feeds,
        report.objects,
        report.seconds,
        report.warmup_s
    );
    let _ = writeln!(
        text,
        "{:18} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "ms", "samples", "p50", "p95", "p99", "p99.9", "max"
    );
    let mut row = |name: &str, of: Option<Percentiles>| {
        if let Some(of) = of {
            let p999 = of.p999.map_or("-".into(), |p999| format!("{p999:.2}"));
            let _ = writeln!(
                text,
                "{name:18} {:>8} {:>8.2} {:>8.2} {:>8.2} {p999:>8} {:>8.2}",
                of.samples, of.p50, of.p95, of.p99, of.max
            );
        }
    };
    row("frame to mask", report.frame_to_mask_ms);
    report.stages_ms.iter().for_each(|(name, of)| row(&format!("  {name}"), Some(*of)));
    row("mask age shown", report.mask_age_ms);
    row("between masks", report.interval_ms.as_ref().map(|interval| interval.percentiles));
    row("streaming thread", report.streaming_ms);
    if let Some(of) = &report.overhead {
        let _ = writeln!(
            text,
            "\noverhead: {:.1} % of frame to mask in the middle, {:.1} % over all: queue {:.1}, preprocess {:.1}, postprocess {:.1}, rest {:.1}",
            100.0 * of.p50,
            100.0 * of.of_sum,
            100.0 * of.queue,
            100.0 * of.preprocess,
            100.0 * of.postprocess,
            100.0 * of.rest
        );
    }
    let _ = writeln!(
        text,
        "frames: {} in, {:?}, fairness {:.3}; processor {:.2} of one, peak memory {:.0} MiB ({:.0} of them the clip)",
        report.frames_in,
        report.outcomes,
        report.fairness,
        report.cpu.unwrap_or(0.0),
        report.peak_memory_mib.unwrap_or(0.0),
        report.clip_mib
    );
    text
}

#[cfg(test)]
mod tests {
    use sightline_core::{FrameStamp, Outcome, SkipReason, StageTimes};

    use super::*;

    fn record(latency_ms: u64, queue_ms: u64, engines_ms: u64) -> FrameRecord {
        let stages = StageTimes {
            queue: Duration::from_millis(queue_ms),
            preprocess: Duration::from_millis(1),
            image_encoder: Duration::from_millis(engines_ms),
            ..StageTimes::default()
        };
        let frame = FrameStamp { index: 0, pts: None, running_time: None };
        let skipped = FrameRecord::skipped(frame, SkipReason::Superseded, Duration::from_millis(latency_ms));
        FrameRecord { outcome: Outcome::Masks, stages, ..skipped }
    }

    #[test]
    fn overhead_is_what_the_engines_did_not_use() {
        let (a, b, c) = (record(20, 1, 15), record(20, 0, 18), record(60, 40, 15));
        let found = overhead(&[&a, &b, &c]).unwrap();
        assert_eq!(found.p50, 0.25);
        assert_eq!((found.of_sum, found.queue, found.preprocess), (0.52, 0.41, 0.03));
        assert!(
            (found.queue + found.preprocess + found.postprocess + found.rest - found.of_sum).abs() < 2e-3
        );
        assert!(overhead(&[]).is_none());
    }
}
