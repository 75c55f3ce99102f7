//! `sightline bench streaming`: what a viewer has at every instant is scored against that instant.
//!
//! The mask scored at an instant is the newest there is when its picture passes, however old (streaming accuracy, after
//! Li et al., "Towards Streaming Perception", ECCV 2020). An instant before the first mask counts as one without mask.
//! Beside it stands what the same model makes of the same pictures when it may look at every one of them.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sightline_config::{Layer, LlmLayer, ModelLayer, Settings};
use sightline_core::ObjectId;

use super::{
    figures::{Percentiles, mean, ms, rounded},
    score::score,
    simulated,
    wall::{self, CaughtUp, Played},
    write_json,
};
use crate::{
    cli::{Clock, PromptKind, StreamingArgs},
    eval::{
        SequenceScore,
        davis::{Sequence, evaluate, sequence_names},
    },
    models,
};

/// Words for each object of a sequence, in the order of their ids.
type Expressions = BTreeMap<String, Vec<String>>;

/// In percent, or a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Accuracy {
    j: f64,
    f: f64,
    jf: f64,
}

impl Accuracy {
    fn of(j: f64, f: f64) -> Self {
        Self { j: rounded(j), f: rounded(f), jf: rounded((j + f) / 2.0) }
    }

    /// Every sequence counts the same, as in DAVIS-2016.
    fn mean(all: impl Iterator<Item = Self>) -> Self {
        let (js, fs): (Vec<_>, Vec<_>) = all.map(|one| (one.j, one.f)).unzip();
        Self::of(mean(&js), mean(&fs))
    }

    fn over(self, other: Self) -> Self {
        let ratio = |a: f64, b: f64| rounded(if b > 0.0 { a / b } else { 0.0 });
        Self { j: ratio(self.j, other.j), f: ratio(self.f, other.f), jf: ratio(self.jf, other.jf) }
    }
}

#[derive(Debug, Serialize)]
struct Frames {
    #[serde(rename = "in")]
    entered: u64,
    /// Every one that entered has one outcome, and it was told.
    accounted: bool,
    outcomes: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Streamed {
    name: String,
    /// Pictures played.
    instants: usize,
    /// Over all instants but the first and the last, in percent.
    #[serde(flatten)]
    streaming: Accuracy,
    /// The same instants, every frame looked at and scored with its own masks.
    offline: Option<Accuracy>,
    /// From the first picture to the first mask, in seconds; null where there never was one.
    first_mask_s: Option<f64>,
    caught_up: Vec<CaughtUp>,
    /// Age of the masks at the last instant.
    final_lag_ms: Option<f64>,
    /// Of the masks that were shown.
    age_ms: Option<Percentiles>,
    /// From the worker's hand to the masks; all frames, those while a late prompt was catching up, and the others.
    step_ms: Option<Percentiles>,
    step_catching_ms: Option<Percentiles>,
    step_others_ms: Option<Percentiles>,
    frames: Frames,
    /// Queries by how they ended.
    queries: BTreeMap<String, u64>,
    /// J at every instant, mean over objects, in percent.
    j_at: Vec<f64>,
    ages_ms: Vec<f64>,
    /// In the order of their frames: what `--costs` takes.
    steps_ms: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Mean {
    streaming: Accuracy,
    offline: Option<Accuracy>,
    ratio: Option<Accuracy>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    bench: &'static str,
    model: String,
    prompt: String,
    fps: f64,
    clock: String,
    threads: usize,
    pingpong: usize,
    late: String,
    set: BTreeMap<&'a str, &'a str>,
    mean: Mean,
    age_ms: Option<Percentiles>,
    step_ms: Option<Percentiles>,
    /// Instants that passed without any mask yet.
    without_masks: usize,
    frames: Frames,
    sequences: Vec<Streamed>,
}

/// Plays, scores, prints the table, writes the JSON.
pub(super) fn run(args: &StreamingArgs) -> Result<()> {
    crate::gstreamer::init()?;
    let settings = settings(args)?;
    let expressions = expressions(args)?;
    let costs = Costs::read(args)?;
    let mut sequences = Vec::new();
    for name in sequence_names(&args.data, &args.sequences)? {
        if args.prompt == PromptKind::Text && !expressions.contains_key(&name) {
            tracing::warn!(sequence = name, "no expression for it, left out");
            continue;
        }
        let sequence = Sequence::open(&args.data, &name)?;
        let words = expressions.get(&name).map(Vec::as_slice).unwrap_or_default();
        let streamed = stream(args, &settings, &sequence, words, &costs)
            .with_context(|| format!("sequence {name:?}"))?;
        let offline = streamed.offline.map(|offline| offline.j);
        tracing::info!(sequence = name, j = streamed.streaming.j, ?offline, "sequence done");
        sequences.push(streamed);
    }
    if sequences.is_empty() {
        bail!("expected a sequence with an expression, got none");
    }
    let report = report(args, sequences);
    crate::print_stdout(&table(&report))?;
    args.json.as_deref().map(|path| write_json(path, &report)).transpose()?;
    if !report.frames.accounted {
        bail!("frames: expected one outcome for each of {}, got {:?}", report.frames.entered, report.frames);
    }
    Ok(())
}

fn report(args: &StreamingArgs, sequences: Vec<Streamed>) -> Report<'_> {
    let streaming = Accuracy::mean(sequences.iter().map(|s| s.streaming));
    let all: Option<Vec<Accuracy>> = sequences.iter().map(|s| s.offline).collect();
    let offline = all.map(|all| Accuracy::mean(all.into_iter()));
    let mut outcomes = BTreeMap::new();
    for (outcome, count) in sequences.iter().flat_map(|s| &s.frames.outcomes) {
        *outcomes.entry(outcome.clone()).or_default() += count;
    }
    Report {
        bench: "streaming",
        model: super::base_name(&args.model),
        prompt: format!("{:?}", args.prompt).to_lowercase(),
        fps: args.fps,
        clock: format!("{:?}", args.clock).to_lowercase(),
        threads: args.threads,
        pingpong: args.pingpong,
        late: format!("{:?}", args.llm.late),
        set: super::as_map(&args.set),
        mean: Mean { streaming, offline, ratio: offline.map(|offline| streaming.over(offline)) },
        age_ms: Percentiles::new(sequences.iter().flat_map(|s| s.ages_ms.iter().copied())),
        step_ms: Percentiles::new(sequences.iter().flat_map(|s| s.steps_ms.iter().copied())),
        without_masks: sequences.iter().map(|s| s.instants - s.ages_ms.len()).sum(),
        frames: Frames {
            entered: sequences.iter().map(|s| s.frames.entered).sum(),
            accounted: sequences.iter().all(|s| s.frames.accounted),
            outcomes,
        },
        sequences,
    }
}

fn table(report: &Report<'_>) -> String {
    let wide = report.sequences.iter().map(|s| s.name.len()).max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:wide$} {:>6} {:>6} {:>6} {:>6} {:>9} {:>6} {:>8} {:>8} {:>8} {:>8}\n",
        "sequence",
        "frames",
        "J",
        "F",
        "J&F",
        "offline J",
        "ratio",
        "skipped",
        "first s",
        "live ms",
        "age p99"
    );
    let offline = |of: Option<Accuracy>| of.map_or("-".into(), |of| format!("{:.1}", of.j));
    let ratio = |of: Option<Accuracy>| of.map_or("-".into(), |ratio| format!("{:.3}", ratio.j));
    let skipped = |frames: &Frames| {
        let seen = |name: &str| frames.outcomes.get(name).copied().unwrap_or(0);
        frames.entered.saturating_sub(seen("masks") + seen("no-object"))
    };
    for s in &report.sequences {
        let first = s.first_mask_s.map_or("never".into(), |first| format!("{first:.2}"));
        let live = s.caught_up.iter().map(|late| late.took_ms).fold(0.0, f64::max);
        let of = s.streaming;
        let _ = writeln!(
            text,
            "{:wide$} {:>6} {:>6.1} {:>6.1} {:>6.1} {:>9} {:>6} {:>8} {first:>8} {live:>8.0} {:>8.0}",
            s.name,
            s.instants,
            of.j,
            of.f,
            of.jf,
            offline(s.offline),
            ratio(s.offline.map(|offline| of.over(offline))),
            skipped(&s.frames),
            s.age_ms.map_or(0.0, |age| age.p99),
        );
    }
    let (mean, age) = (&report.mean, report.age_ms);
    let of = mean.streaming;
    let _ = writeln!(
        text,
        "{:wide$} {:>6} {:>6.1} {:>6.1} {:>6.1} {:>9} {:>6} {:>8} {:>8} {:>8} {:>8.0}",
        "mean",
        report.frames.entered,
        of.j,
        of.f,
        of.jf,
        offline(mean.offline),
        ratio(mean.ratio),
        skipped(&report.frames),
        "",
        "",
        age.map_or(0.0, |age| age.p99),
    );
    text
}

fn settings(args: &StreamingArgs) -> Result<Settings> {
    let file = args.config.as_deref().map(Layer::from_file).transpose()?.unwrap_or_default();
    let flags = Layer {
        model: ModelLayer { name: Some(args.model.clone()), threads: Some(args.threads) },
        llm: LlmLayer { url: args.llm.llm.clone(), model: args.llm.llm_model.clone(), ..LlmLayer::default() },
        ..Layer::default()
    };
    Ok(Settings::resolve([file, Layer::from_env(std::env::vars())?, flags])?)
}

fn expressions(args: &StreamingArgs) -> Result<Expressions> {
    match (&args.expressions, args.prompt, args.clock) {
        (_, PromptKind::Text, Clock::Virtual) => {
            bail!("--clock virtual: expected --prompt mask, box or point, got text")
        }
        (Some(path), PromptKind::Text, _) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path:?}"))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{path:?}: expected {{\"sequence\": [\"words\", ..]}}"))
        }
        (None, PromptKind::Text, _) => bail!("--prompt text: expected --expressions FILE, got none"),
        _ => Ok(Expressions::new()),
    }
}

/// What steps cost where no clock says so.
enum Costs {
    None,
    Every(f64),
    /// By sequence, and all of them for one that is not among them.
    Recorded(BTreeMap<String, Vec<f64>>, Vec<f64>),
}

impl Costs {
    fn read(args: &StreamingArgs) -> Result<Self> {
        if args.clock == Clock::Wall {
            if args.costs.is_some() || args.cost_ms.is_some() {
                bail!("--costs, --cost-ms: expected --clock virtual with them, got wall");
            }
            return Ok(Self::None);
        }
        if !args.set.is_empty() {
            bail!("--set: expected --clock wall, which has the element in it, got virtual");
        }
        match (&args.costs, args.cost_ms) {
            (Some(path), _) => recorded(path),
            (None, Some(cost)) => Ok(Self::Every(cost)),
            (None, None) => bail!("--clock virtual: expected --costs FILE or --cost-ms MS, got neither"),
        }
    }

    fn of(&self, sequence: &str) -> &[f64] {
        match self {
            Self::None => &[],
            Self::Every(cost) => std::slice::from_ref(cost),
            Self::Recorded(by_name, all) => by_name.get(sequence).filter(|of| !of.is_empty()).unwrap_or(all),
        }
    }
}

fn recorded(path: &Path) -> Result<Costs> {
    #[derive(serde::Deserialize)]
    struct Sequence {
        name: String,
        steps_ms: Vec<f64>,
    }
    #[derive(serde::Deserialize)]
    struct Run {
        sequences: Vec<Sequence>,
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path:?}"))?;
    let run: Run = serde_json::from_str(&text)
        .with_context(|| format!("{path:?}: expected what `bench streaming --json` wrote"))?;
    let all: Vec<f64> = run.sequences.iter().flat_map(|s| s.steps_ms.iter().copied()).collect();
    if all.is_empty() {
        bail!("{path:?}: expected steps of a wall run, got none");
    }
    Ok(Costs::Recorded(run.sequences.into_iter().map(|s| (s.name, s.steps_ms)).collect(), all))
}

/// Every picture once, or forward and back `times` over, no picture twice in a row.
fn order(pictures: usize, times: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pictures).collect();
    for pass in 1..2 * times {
        let forth = |at: usize| if pass % 2 == 1 { pictures - 1 - at } else { at };
        order.extend((1..pictures).map(forth));
    }
    order
}

fn stream(
    args: &StreamingArgs,
    settings: &Settings,
    sequence: &Sequence,
    words: &[String],
    costs: &Costs,
) -> Result<Streamed> {
    let order = order(sequence.pictures.len(), args.pingpong);
    let session = |history| models::session(&args.model, args.threads, history, sequence.objects.len());
    let played = match args.clock {
        Clock::Wall => wall::play(args, settings, sequence, &order, words)?,
        Clock::Virtual => {
            let session = session(settings.track.history)?;
            simulated::play(session, sequence, &order, args.prompt, args.fps, costs.of(&sequence.name))?
        }
    };
    // Offline knows neither words nor the way back.
    let comparable = !args.no_offline && args.pingpong == 0 && args.prompt != PromptKind::Text;
    let offline = comparable.then(|| evaluate(session(1)?, sequence, args.prompt)).transpose()?;
    streamed(args, sequence, &order, played, offline)
}

fn streamed(
    args: &StreamingArgs,
    sequence: &Sequence,
    order: &[usize],
    played: Played,
    offline: Option<SequenceScore>,
) -> Result<Streamed> {
    let Played { shown, frames_in, accounted, said } = played;
    // Prompted objects have the ids 1, 2, ..; those found by words the id that the answer to their question names.
    let ids: Vec<Option<ObjectId>> = (1..=sequence.objects.len() as u64)
        .map(|number| match args.prompt {
            PromptKind::Text => said.found.get(&number).copied(),
            _ => Some(ObjectId(number as u32)),
        })
        .collect();
    let scored = score(sequence, order, &ids, &shown)?;
    let ages_ms: Vec<f64> = shown.iter().filter_map(|shown| shown.age.map(ms).map(rounded)).collect();
    let catching = |index: u64| said.caught_up.iter().any(|late| (late.began..=late.live).contains(&index));
    let (during, others): (Vec<_>, Vec<_>) = said.steps.iter().partition(|(index, _)| catching(*index));
    let steps = |steps: &[(u64, f64)]| steps.iter().map(|(_, step)| rounded(*step)).collect::<Vec<_>>();
    Ok(Streamed {
        name: sequence.name.clone(),
        instants: order.len(),
        streaming: Accuracy::of(scored.j, scored.f),
        offline: offline.map(|offline| Accuracy::of(offline.j, offline.f)),
        first_mask_s: scored.first_mask.map(|instant| rounded(instant as f64 / args.fps)),
        final_lag_ms: shown.last().and_then(|shown| shown.age.map(ms).map(rounded)),
        age_ms: Percentiles::new(ages_ms.iter().copied()),
        step_ms: Percentiles::new(steps(&said.steps)),
        step_catching_ms: Percentiles::new(steps(&during)),
        step_others_ms: Percentiles::new(steps(&others)),
        steps_ms: steps(&said.steps),
        caught_up: said.caught_up,
        frames: Frames { entered: frames_in, accounted, outcomes: said.outcomes },
        queries: said.queries,
        j_at: scored.j_at.into_iter().map(rounded).collect(),
        ages_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_go_forward_and_back() {
        assert_eq!(order(3, 0), [0, 1, 2]);
        assert_eq!(order(3, 1), [0, 1, 2, 1, 0]);
        assert_eq!(order(3, 2), [0, 1, 2, 1, 0, 1, 2, 1, 0]);
    }

    #[test]
    fn ratios_are_of_means() {
        let mean = Accuracy::mean([Accuracy::of(40.0, 20.0), Accuracy::of(60.0, 20.0)].into_iter());
        assert_eq!(mean, Accuracy { j: 50.0, f: 20.0, jf: 35.0 });
        assert_eq!(mean.over(Accuracy::of(100.0, 0.0)), Accuracy { j: 0.5, f: 0.0, jf: 0.7 });
    }
}
