//! From samples to percentiles, and the lines that issue 2 promises.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use sightline_core::StageTimes;

use crate::{
    machine::Machine,
    pass::{Measured, Pass, Setup},
};

/// In milliseconds, nearest rank: every one of them was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) samples: usize,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    pub(crate) fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (values.len() as f64 * share).ceil() as usize;
            values.get(rank.max(1) - 1).copied()
        };
        Some(Self {
            samples: values.len(),
            p50: rank(0.5)?,
            p95: rank(0.95)?,
            p99: rank(0.99)?,
            max: rank(1.0)?,
        })
    }

    fn of(times: impl Iterator<Item = Duration>) -> Option<Self> {
        Self::new(times.map(ms))
    }
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The tracker's step: all stages but the wait for it.
pub(crate) fn step(stages: &StageTimes) -> Duration {
    stages.total() - stages.queue
}

/// One pipeline, its runs put together.
#[derive(Debug, Serialize)]
pub(crate) struct PassSummary {
    pub(crate) name: &'static str,
    pub(crate) pipeline: String,
    /// After the warm-up.
    pub(crate) buffers: usize,
    /// Of every run, from the warm-up's end to the end of the stream.
    pub(crate) frames_per_second: Vec<f64>,
    /// Frames by what became of them.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Of frames that were looked at.
    pub(crate) stages_ms: Vec<(&'static str, Percentiles)>,
    pub(crate) step_ms: Option<Percentiles>,
    /// From a buffer's arrival to its outcome.
    pub(crate) latency_ms: Option<Percentiles>,
    /// From sink pad to source pad.
    pub(crate) streaming_ms: Option<Percentiles>,
    /// The same, of buffers whose thread kept its processor.
    pub(crate) streaming_undisturbed_ms: Option<Percentiles>,
    pub(crate) mask_age_ms: Option<Percentiles>,
    pub(crate) buffers_without_masks: usize,
    /// Decoded frames waiting, of the 4 there may be.
    pub(crate) queued: Option<Percentiles>,
    /// What `sightlinetrack` itself counted, run by run, warm-up included; times in ns.
    stats: Vec<BTreeMap<String, u64>>,
}

impl PassSummary {
    fn new(pass: Pass, runs: &[Measured], warmup: usize) -> Self {
        let buffers = || runs.iter().flat_map(|run| run.buffers.iter().skip(warmup));
        let frames =
            || runs.iter().flat_map(|run| &run.frames).filter(|record| record.frame.index >= warmup as u64);
        let looked_at = || frames().filter(|record| record.outcome.skip_reason().is_none());
        let mut outcomes = BTreeMap::new();
        for record in frames() {
            let name = match record.outcome.skip_reason() {
                Some(reason) => format!("skipped-{}", reason.as_str()),
                None => record.outcome.as_str().to_owned(),
            };
            *outcomes.entry(name).or_default() += 1;
        }
        let names = StageTimes::default().named().map(|(name, _)| name);
        let stages_ms = names.into_iter().enumerate().filter_map(|(at, name)| {
            Some((name, Percentiles::of(looked_at().map(|record| record.stages.named()[at].1))?))
        });
        let tracked = pass.tracks();
        let through = || buffers().filter(|_| tracked);
        Self {
            name: pass.name(),
            pipeline: pass.description().split_whitespace().collect::<Vec<_>>().join(" "),
            buffers: buffers().count(),
            frames_per_second: runs.iter().map(|run| run.rate(warmup)).collect(),
            outcomes,
            stages_ms: stages_ms.collect(),
            step_ms: Percentiles::of(looked_at().map(|record| step(&record.stages))),
            latency_ms: Percentiles::of(looked_at().map(|record| record.latency)),
            streaming_ms: Percentiles::of(through().map(|row| row.streaming)),
            streaming_undisturbed_ms: Percentiles::of(
                through().filter(|row| row.preempted == Some(false)).map(|row| row.streaming),
            ),
            mask_age_ms: Percentiles::of(through().filter_map(|row| row.mask_age)),
            buffers_without_masks: through().filter(|row| row.mask_age.is_none()).count(),
            queued: Percentiles::new(through().filter_map(|row| row.queued).map(f64::from)),
            stats: runs.iter().filter(|_| tracked).map(|run| run.stats.clone()).collect(),
        }
    }

    fn stage(&self, name: &str) -> Option<Percentiles> {
        self.stages_ms.iter().find(|(stage, _)| *stage == name).map(|(_, times)| *times)
    }

    /// The slowest run's.
    pub(crate) fn slowest(&self) -> f64 {
        self.frames_per_second.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// A promise and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) wanted: &'static str,
    pub(crate) measured: String,
    pub(crate) holds: bool,
}

/// summary.json.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) input: String,
    pub(crate) caps: String,
    pub(crate) model: String,
    pub(crate) threads: u32,
    pub(crate) prompts: String,
    pub(crate) repeats: u32,
    pub(crate) warmup_frames: usize,
    pub(crate) busy_machine: bool,
    pub(crate) machine: Machine,
    pub(crate) lines: Vec<Line>,
    pub(crate) passes: Vec<PassSummary>,
}

impl Summary {
    pub(crate) fn new(
        input: &str,
        setup: &Setup,
        repeats: u32,
        machine: &Machine,
        all: &[(Pass, Vec<Measured>)],
    ) -> Self {
        let passes: Vec<_> =
            all.iter().map(|(pass, runs)| PassSummary::new(*pass, runs, setup.warmup)).collect();
        let caps =
            all.iter().flat_map(|(_, runs)| runs).map(|run| run.caps.clone()).find(|caps| !caps.is_empty());
        Self {
            input: input.to_owned(),
            caps: caps.unwrap_or_default(),
            model: setup.model.clone(),
            threads: setup.threads,
            prompts: setup.prompts.clone(),
            repeats,
            warmup_frames: setup.warmup,
            busy_machine: machine.is_busy(),
            machine: machine.clone(),
            lines: lines(&passes),
            passes,
        }
    }
}

/// The speed lines of issue 2.
fn lines(passes: &[PassSummary]) -> Vec<Line> {
    let named = |name: &str| passes.iter().find(|pass| pass.name == name);
    let mut lines = Vec::new();
    let mut at_most = |what, wanted, limit: f64, measured: Option<f64>| {
        lines.extend(measured.map(|measured| Line {
            what,
            wanted,
            measured: format!("{measured:.2} ms"),
            holds: measured <= limit,
        }));
    };
    if let Some(pass) = named("every-frame") {
        at_most("tracker step, p50", "at most 20 ms", 20.0, pass.step_ms.map(|times| times.p50));
        at_most("tracker step, p99", "at most 40 ms", 40.0, pass.step_ms.map(|times| times.p99));
        let preprocess = pass.stage("preprocess");
        at_most("preprocessing, p50", "at most 1.5 ms", 1.5, preprocess.map(|times| times.p50));
    }
    if let Some(pass) = named("live") {
        at_most(
            "streaming thread's own cost a buffer, live, p99",
            "at most 1 ms",
            1.0,
            pass.streaming_ms.map(|times| times.p99),
        );
    }
    for (name, what) in [
        ("every-frame", "frames a second, every-frame, slowest run"),
        ("every-frame-recorded", "the same, drawn and encoded"),
    ] {
        lines.extend(named(name).map(|pass| Line {
            what,
            wanted: "at least 30",
            measured: format!("{:.1}", pass.slowest()),
            holds: pass.slowest() >= 30.0,
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_of_the_nearest_rank() {
        for (case, count, expected) in [
            ("one", 1, [1.0; 4]),
            ("two", 2, [1.0, 2.0, 2.0, 2.0]),
            ("hundred", 100, [50.0, 95.0, 99.0, 100.0]),
        ] {
            let found = Percentiles::new((1..=count).rev().map(f64::from)).unwrap();
            assert_eq!([found.p50, found.p95, found.p99, found.max], expected, "{case}");
        }
        assert_eq!(Percentiles::new(std::iter::empty()), None);
    }
}
