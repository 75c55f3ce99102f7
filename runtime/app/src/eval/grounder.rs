//! The built-in grounder on annotated pictures: are the objects among the proposals, and does a phrase find its own?

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use gstsightline::builtin::{BuiltIn, Sight};
use serde::{Deserialize, Serialize};
use sightline_core::Mask;
use sightline_tracker::{At, Proposal, ProposalOptions, Session};
use sightline_vision::davis::region_similarity;

use super::davis::{Sequence, sequence_names, stamp};
use crate::{
    cli::GrounderArgs,
    models,
    pictures::{self, LabelPicture, RgbPicture},
};

/// A mask this much like the truth found the object.
const FOUND_IOU: f64 = 0.5;
/// A tracker may still grow the object from this.
const TOUCHED_IOU: f64 = 0.3;

/// One phrase for one object, as `--expressions` holds them by sequence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    expression: String,
    /// Its value in a palette annotation, 1 in a grey one.
    object: u32,
    #[serde(default)]
    frame: usize,
}

#[derive(Debug, Clone, Serialize)]
struct PhraseScore {
    sequence: String,
    frame: usize,
    expression: String,
    /// IoU of the first mask chosen; 0 when refused.
    iou: f64,
    /// IoU of the best proposal there was.
    best: f64,
    /// Proposals chosen.
    chosen: usize,
    refusal: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct RecallScore {
    sequence: String,
    frame: usize,
    object: u32,
    /// IoU of the best proposal, and its place, from 0.
    best: f64,
    place: Option<usize>,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    phrases: Vec<PhraseScore>,
    recall: Vec<RecallScore>,
    /// Milliseconds a frame, of this process on the threads it was given.
    motion_ms: Vec<f64>,
    proposals_ms: Vec<f64>,
    decoder_runs: Vec<usize>,
    choice_ms: Vec<f64>,
}

/// Evaluates, prints the table, writes the JSON.
pub(super) fn run(args: &GrounderArgs) -> Result<()> {
    let expressions = read(&args.expressions)?;
    let mut session = models::session(&args.model, args.threads, 1, 1)?;
    let mut report = Report::default();
    for name in sequence_names(&args.data, &args.sequences)? {
        let sequence = Sequence::open(&args.data, &name)?;
        let phrases = expressions.get(&name).map_or(&[][..], Vec::as_slice);
        let last = sequence.pictures.len() - 1;
        let mut frames: BTreeSet<usize> = phrases.iter().map(|phrase| phrase.frame).collect();
        frames.extend((0..=last).step_by(args.every));
        for frame in frames {
            if frame > last {
                bail!("expressions of {name:?}: expected frames up to {last}, got {frame}");
            }
            look(&mut session, &sequence, frame, phrases, args.apart, &mut report)
                .with_context(|| format!("sequence {name:?}, frame {frame}"))?;
        }
    }
    crate::print_stdout(&report.table())?;
    match &args.json {
        Some(path) => {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text).with_context(|| format!("cannot write {path:?}"))
        }
        None => Ok(()),
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, Vec<Expression>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read expressions {path:?}"))?;
    serde_json::from_str(&text).with_context(|| format!("expressions {path:?}"))
}

fn look(
    session: &mut Session,
    sequence: &Sequence,
    frame: usize,
    phrases: &[Expression],
    apart: usize,
    report: &mut Report,
) -> Result<()> {
    let asked = pictures::read_rgb(&sequence.pictures[frame])?;
    let other = other_frame(frame, apart, sequence.pictures.len());
    let other = other
        .map(|at| Ok::<_, anyhow::Error>((at, pictures::read_rgb(&sequence.pictures[at])?)))
        .transpose()?;
    let labels = LabelPicture::read(&sequence.annotations[frame])?;
    let mut grounder = BuiltIn::new();
    let proposals = proposals(session, &mut grounder, (frame, &asked), other.as_ref(), report)?;
    let masks = proposals
        .iter()
        .map(|proposal| Ok(proposal.region.upscale(asked.width_px, asked.height_px)?.decode()))
        .collect::<Result<Vec<Mask>>>()?;
    let mut best_of = BTreeMap::new();
    for object in &sequence.objects {
        let truth = labels.mask(|value| value == object.value)?;
        if truth.area_px() == 0 {
            continue;
        }
        let ious = masks.iter().map(|mask| region_similarity(mask, &truth)).collect::<Result<Vec<_>, _>>()?;
        let place = (0..ious.len()).max_by(|a, b| ious[*a].total_cmp(&ious[*b]));
        let best = place.map_or(0.0, |place| ious[place]);
        report.recall.push(RecallScore {
            sequence: sequence.name.clone(),
            frame,
            object: object.id.0,
            best,
            place,
        });
        best_of.insert(object.id.0, (best, ious));
    }
    for phrase in phrases.iter().filter(|phrase| phrase.frame == frame) {
        let Some((best, ious)) = best_of.get(&phrase.object) else {
            bail!(
                "expression {:?}: expected an object of this frame, got {}",
                phrase.expression,
                phrase.object
            );
        };
        let started = Instant::now();
        let chosen = grounder.choose(&phrase.expression, &asked.view()?, &proposals);
        report.choice_ms.push(started.elapsed().as_secs_f64() * 1e3);
        report.phrases.push(PhraseScore {
            sequence: sequence.name.clone(),
            frame,
            expression: phrase.expression.clone(),
            iou: chosen.as_ref().map_or(0.0, |chosen| chosen.first().map_or(0.0, |first| ious[*first])),
            best: *best,
            chosen: chosen.as_ref().map_or(0, Vec::len),
            refusal: chosen.err().map(|refusal| refusal.to_string()),
        });
    }
    Ok(())
}

/// A later frame, or an earlier one at the end.
fn other_frame(frame: usize, apart: usize, count: usize) -> Option<usize> {
    Some(frame + apart)
        .filter(|later| *later < count)
        .or_else(|| frame.checked_sub(apart))
        .filter(|at| *at != frame)
}

fn proposals(
    session: &mut Session,
    grounder: &mut BuiltIn,
    asked: (usize, &RgbPicture),
    other: Option<&(usize, RgbPicture)>,
    report: &mut Report,
) -> Result<Vec<Proposal>> {
    let (frame, picture) = (asked.0, asked.1.view()?);
    let time = |frame: usize| stamp(frame).running_time.unwrap_or_default();
    let other =
        other.map(|(at, picture)| Ok::<_, anyhow::Error>((time(*at), picture.view()?))).transpose()?;
    let other = other.as_ref().map(|(time, picture)| Sight { picture, time: *time });
    let started = Instant::now();
    let hints = grounder.look(Sight { picture: &picture, time: time(frame) }, other)?;
    report.motion_ms.push(started.elapsed().as_secs_f64() * 1e3);
    session.reset();
    session.process(stamp(frame), &picture)?;
    let started = Instant::now();
    let mut proposer = session.propose(At::Frame(frame as u64), ProposalOptions::default(), &hints)?;
    let mut runs = 1;
    while !session.propose_step(&mut proposer)? {
        runs += 1;
    }
    let found = proposer.finish();
    report.proposals_ms.push(started.elapsed().as_secs_f64() * 1e3);
    report.decoder_runs.push(runs);
    Ok(found)
}

impl Report {
    fn table(&self) -> String {
        let mut text = String::new();
        for score in &self.phrases {
            let PhraseScore { sequence, frame, expression, iou, best, refusal, .. } = score;
            let refused = if refusal.is_some() { "  (refused)" } else { "" };
            let _ = writeln!(
                text,
                "{sequence:20} {frame:>4}  iou {iou:.2}  best {best:.2}  {expression}{refused}"
            );
        }
        let share = |count: usize, of: usize| format!("{count} of {of}");
        let reached = |ious: &[f64], least: f64| ious.iter().filter(|iou| **iou >= least).count();
        let ious: Vec<f64> = self.phrases.iter().map(|score| score.iou).collect();
        let best: Vec<f64> = self.recall.iter().map(|score| score.best).collect();
        for (what, ious) in
            [("phrases that found their object", &ious), ("objects among the proposals", &best)]
        {
            let (at_half, at_third) = (reached(ious, FOUND_IOU), reached(ious, TOUCHED_IOU));
            let _ = writeln!(
                text,
                "{what}: {} at IoU {FOUND_IOU}, {} at {TOUCHED_IOU}",
                share(at_half, ious.len()),
                share(at_third, ious.len())
            );
        }
        for (what, times) in
            [("motion", &self.motion_ms), ("proposals", &self.proposals_ms), ("choice", &self.choice_ms)]
        {
            let mut sorted = times.clone();
            sorted.sort_by(f64::total_cmp);
            let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(0.0);
            let _ = writeln!(text, "{what}: p50 {:.1} ms, p95 {:.1} ms", at(0.5), at(0.95));
        }
        let runs = self.decoder_runs.iter().sum::<usize>() as f64 / self.decoder_runs.len().max(1) as f64;
        let _ = writeln!(text, "decoder runs a frame: {runs:.1}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_frame_is_a_later_one_unless_there_is_none() {
        assert_eq!(other_frame(0, 3, 10), Some(3));
        assert_eq!(other_frame(8, 3, 10), Some(5));
        assert_eq!(other_frame(1, 3, 3), None);
        assert_eq!(other_frame(1, 0, 3), None, "the same frame shows no motion");
    }

    #[test]
    fn expressions_name_their_object() {
        let text = r#"{"dog": [{"expression": "the moving thing", "object": 1}]}"#;
        let parsed: BTreeMap<String, Vec<Expression>> = serde_json::from_str(text).unwrap();
        assert_eq!((parsed["dog"][0].object, parsed["dog"][0].frame), (1, 0));
        let unknown = r#"{"dog": [{"expression": "it", "object": 1, "frames": 3}]}"#;
        assert!(serde_json::from_str::<BTreeMap<String, Vec<Expression>>>(unknown).is_err());
    }
}
