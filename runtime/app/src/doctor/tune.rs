//! `sightline doctor --tune`: how many threads, and whether in one go or a frame ahead, by measurement.

use std::{fmt::Write as _, num::NonZeroUsize, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;
use sightline_engine_registry::{LoadOptions, TuneKey, Tuned, keep_tuned, load};
use sightline_tracker::{Options, Session};

use super::pace::{self, Clip, Figures, Pace, Shown};
use crate::cli::TuneFlags;

/// Cameras that what is chosen is to serve.
const CAMERAS_FPS: [f64; 2] = [30.0, 24.0];
/// What takes more threads, or a frame ahead, must be better by this to be chosen: less is noise.
const BETTER: f64 = 0.97;

/// One way to run the model.
#[derive(Debug, Serialize)]
struct Setting {
    #[serde(flatten)]
    tuned: Tuned,
    cameras: Vec<Figures>,
}

impl Setting {
    /// 95th percentile of the newest mask's age, mean of the cameras.
    fn age_ms(&self) -> f64 {
        let ages = self.cameras.iter().map(|camera| camera.mask_age_p95_ms);
        ages.sum::<f64>() / self.cameras.len().max(1) as f64
    }
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    key: TuneKey,
    /// One-minute load average before measuring; above a part of a core, others were at work.
    load: Option<f64>,
    settings: Vec<Setting>,
    chosen: Tuned,
    written: PathBuf,
}

/// Measures, writes down what is best, and says so.
pub(super) fn run(flags: &TuneFlags, json: bool) -> Result<()> {
    let key = TuneKey::here(&flags.model)?;
    let load = load_average();
    let settings = measure(&flags.model, key.cores, flags.seconds)?;
    let chosen = choose(&settings).context("tuning: expected a setting, got none")?.tuned;
    let written = keep_tuned(key.clone(), chosen)?;
    let report = Report { key, load, settings, chosen, written };
    crate::print_stdout(&if json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) })
}

fn measure(model: &str, cores: usize, seconds: f64) -> Result<Vec<Setting>> {
    let clip = Clip::draw();
    let counts = thread_counts(cores);
    let mut settings = Vec::new();
    for threads in counts.iter().copied().filter_map(NonZeroUsize::new) {
        let options = LoadOptions { threads: Some(threads), ..LoadOptions::default() };
        let mut session = Session::new(load(model, &options)?, Options::default())?;
        let modes = if session.tracker().spec().view.is_none() { 2 } else { 1 };
        let seconds = seconds / (counts.len() * modes * CAMERAS_FPS.len()) as f64;
        let sequential = cameras(seconds, |pace| pace::sequential(&mut session, &clip, pace))?;
        settings.push(Setting { tuned: Tuned { threads, pipelined: false }, cameras: sequential });
        if let Some(mut encoder) = session.split() {
            let ahead = cameras(seconds, |pace| pace::pipelined(&mut session, &mut encoder, &clip, pace))?;
            settings.push(Setting { tuned: Tuned { threads, pipelined: true }, cameras: ahead });
        }
    }
    Ok(settings)
}

/// Shows every camera's pictures.
fn cameras(seconds: f64, mut run: impl FnMut(Pace) -> Result<Vec<Shown>>) -> Result<Vec<Figures>> {
    CAMERAS_FPS.into_iter().map(|fps| Ok(Figures::of(fps, &run(Pace { fps, seconds })?))).collect()
}

/// Every number up to 4, then doubled, and all.
fn thread_counts(cores: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(8), |count| Some(2 * count)).take_while(|count| *count < cores);
    let mut counts: Vec<usize> = (1..=cores.min(4)).chain(doubled).collect();
    counts.extend((cores > 4).then_some(cores));
    counts
}

/// The one with the freshest masks; the plainer of two that are as good.
fn choose(settings: &[Setting]) -> Option<&Setting> {
    settings.iter().reduce(|best, other| if other.age_ms() < BETTER * best.age_ms() { other } else { best })
}

fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// `2 threads, a frame ahead`
pub(super) fn words(tuned: Tuned) -> String {
    let plural = if tuned.threads.get() == 1 { "" } else { "s" };
    let ahead = if tuned.pipelined { ", encoding a frame ahead" } else { "" };
    format!("{} thread{plural}{ahead}", tuned.threads)
}

fn table(report: &Report) -> String {
    let Report { key, load, settings, chosen, written } = report;
    let mut text = format!("{} on {} cores of {}\n", key.model, key.cores, key.processor);
    if let Some(load) = load.filter(|load| *load > 0.3) {
        let _ = writeln!(text, "others are at work here (load {load}): measure again when they are not");
    }
    let _ =
        writeln!(text, "\nthreads  mode       camera  frame to mask ms  masks/s  age of the newest mask ms");
    let _ = writeln!(text, "                      fps       p50       p95              mean       p95");
    for Setting { tuned, cameras } in settings {
        let mode = if tuned.pipelined { "ahead" } else { "in one go" };
        for camera in cameras {
            let _ = writeln!(
                text,
                "{:7}  {mode:9}  {:6}  {:8.1}  {:8.1}  {:7.1}  {:8.1}  {:8.1}",
                tuned.threads,
                camera.fps,
                camera.frame_to_mask_p50_ms,
                camera.frame_to_mask_p95_ms,
                camera.masks_per_s,
                camera.mask_age_mean_ms,
                camera.mask_age_p95_ms,
            );
        }
    }
    let _ = writeln!(text, "\nbest     {}: what is used wherever threads = 0", words(*chosen));
    let _ = writeln!(text, "written  {}", written.display());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(threads: usize, pipelined: bool, ages_ms: [f64; 2]) -> Setting {
        let figures = |mask_age_p95_ms| Figures { mask_age_p95_ms, ..Figures::default() };
        let threads = NonZeroUsize::new(threads).unwrap();
        Setting { tuned: Tuned { threads, pipelined }, cameras: ages_ms.map(figures).into() }
    }

    #[test]
    fn the_freshest_is_chosen_and_the_plainer_of_two_as_good() {
        let one = || setting(1, false, [100.0, 90.0]);
        for (case, others, wanted) in [
            ("alone", vec![], (1, false)),
            ("noise", vec![setting(2, false, [98.0, 88.0])], (1, false)),
            (
                "more threads",
                vec![setting(1, true, [95.0, 90.0]), setting(2, false, [80.0, 79.0])],
                (2, false),
            ),
            ("both cameras count", vec![setting(1, true, [60.0, 130.0])], (1, false)),
            ("ahead", vec![setting(1, true, [70.0, 60.0]), setting(2, true, [69.0, 60.0])], (1, true)),
        ] {
            let settings: Vec<_> = std::iter::once(one()).chain(others).collect();
            let chosen = choose(&settings).unwrap().tuned;
            assert_eq!((chosen.threads.get(), chosen.pipelined), wanted, "{case}");
        }
        assert!(choose(&[]).is_none());
    }

    #[test]
    fn every_core_is_tried_while_there_are_few() {
        for (cores, counts) in [
            (1, vec![1]),
            (2, vec![1, 2]),
            (4, vec![1, 2, 3, 4]),
            (6, vec![1, 2, 3, 4, 6]),
            (8, vec![1, 2, 3, 4, 8]),
            (20, vec![1, 2, 3, 4, 8, 16, 20]),
        ] {
            assert_eq!(thread_counts(cores), counts);
        }
    }
}
