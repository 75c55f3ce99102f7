//! The results' folder.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use sightline_core::StageTimes;

use crate::{
    machine::Machine,
    pass::{Measured, Pass},
    summary::{PassSummary, Percentiles, Summary, ms, step},
};

/// Writes all of it.
pub(crate) fn write(
    folder: &Path,
    machine: &Machine,
    summary: &Summary,
    all: &[(Pass, Vec<Measured>)],
    warmup: usize,
) -> Result<()> {
    let put = |name: &str, text: String| {
        fs::write(folder.join(name), text).with_context(|| format!("cannot write {:?}", folder.join(name)))
    };
    put("machine.txt", machine.text())?;
    put("commit.txt", machine.commit_text())?;
    put("command.txt", format!("{}\n", machine.command))?;
    put("frames.csv", frames(all, warmup))?;
    put("buffers.csv", buffers(all, warmup))?;
    put("summary.json", format!("{}\n", serde_json::to_string_pretty(summary)?))?;
    put("summary.md", markdown(summary))
}

/// One line a frame that got an outcome.
fn frames(all: &[(Pass, Vec<Measured>)], warmup: usize) -> String {
    let stages = StageTimes::default().named().map(|(name, _)| format!("{name}_ms"));
    let mut text =
        format!("pass,run,frame,warmup,outcome,reason,objects,latency_ms,step_ms,{}\n", stages.join(","));
    for (pass, run, measured) in runs(all) {
        for record in &measured.frames {
            let reason = record.outcome.skip_reason().map_or("", sightline_core::SkipReason::as_str);
            let _ = write!(
                text,
                "{pass},{run},{},{},{},{reason},{},{:.4},{:.4}",
                record.frame.index,
                u8::from(record.frame.index < warmup as u64),
                record.outcome.as_str(),
                record.objects.len(),
                ms(record.latency),
                ms(step(&record.stages)),
            );
            for (_, time) in record.stages.named() {
                let _ = write!(text, ",{:.4}", ms(time));
            }
            text.push('\n');
        }
    }
    text
}

/// One line a buffer.
fn buffers(all: &[(Pass, Vec<Measured>)], warmup: usize) -> String {
    let mut text = "pass,run,buffer,warmup,entered_ms,streaming_ms,preempted,mask_age_ms,queued\n".to_owned();
    let known = |value: Option<String>| value.unwrap_or_default();
    for (pass, run, measured) in runs(all) {
        for (index, row) in measured.buffers.iter().enumerate() {
            let _ = writeln!(
                text,
                "{pass},{run},{index},{},{:.3},{:.4},{},{},{}",
                u8::from(index < warmup),
                ms(row.entered),
                ms(row.streaming),
                known(row.preempted.map(|yes| u8::from(yes).to_string())),
                known(row.mask_age.map(|age| format!("{:.3}", ms(age)))),
                known(row.queued.map(|queued| queued.to_string())),
            );
        }
    }
    text
}

fn runs(all: &[(Pass, Vec<Measured>)]) -> impl Iterator<Item = (&'static str, usize, &Measured)> {
    all.iter().flat_map(|(pass, runs)| {
        runs.iter().enumerate().map(move |(run, measured)| (pass.name(), run + 1, measured))
    })
}

/// summary.md.
pub(crate) fn markdown(summary: &Summary) -> String {
    let mut text = format!(
        "# {} on {}\n\n{}, {} cores. `{}`; {}; threads {}. Every pipeline {} times, the first {} frames of each \
         thrown away.\n",
        summary.model,
        summary.input,
        summary.machine.cpu,
        summary.machine.cores,
        summary.caps,
        summary.prompts,
        if summary.threads == 0 { "as many as cores".to_owned() } else { summary.threads.to_string() },
        summary.repeats,
        summary.warmup_frames,
    );
    if summary.busy_machine {
        let share = summary.machine.busy_before.map_or(f64::NAN, |share| share * 100.0);
        let _ = writeln!(
            text,
            "\n**The machine was busy: others used {share:.0} % of its cores before the start.** What follows is \
             what was left over."
        );
    }
    text.push_str("\n| line | wanted | measured | |\n|---|---|---|---|\n");
    for line in &summary.lines {
        let verdict = if line.holds { "holds" } else { "**does not hold**" };
        let _ = writeln!(text, "| {} | {} | {} | {verdict} |", line.what, line.wanted, line.measured);
    }
    for pass in &summary.passes {
        text.push_str(&table(pass));
    }
    text
}

fn table(pass: &PassSummary) -> String {
    let rates: Vec<_> = pass.frames_per_second.iter().map(|rate| format!("{rate:.1}")).collect();
    let mut text = format!(
        "\n## {}\n\n`{}`\n\n{} buffers, {} a second.",
        pass.name,
        pass.pipeline,
        pass.buffers,
        rates.join(" / ")
    );
    if !pass.outcomes.is_empty() {
        let outcomes: Vec<_> = pass.outcomes.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = write!(
            text,
            " Outcomes: {}. Buffers without masks: {}.",
            outcomes.join(", "),
            pass.buffers_without_masks
        );
    }
    text.push('\n');
    let mut rows: Vec<(String, Percentiles)> = Vec::new();
    let mut row = |name: &str, times: Option<Percentiles>| {
        rows.extend(times.map(|times| (name.to_owned(), times)));
    };
    for (stage, times) in &pass.stages_ms {
        row(stage, Some(*times));
    }
    row("**step** (all but queue)", pass.step_ms);
    row("latency, arrival to outcome", pass.latency_ms);
    row("sink pad to source pad", pass.streaming_ms);
    row("the same, undisturbed", pass.streaming_undisturbed_ms);
    row("age of the masks", pass.mask_age_ms);
    row("decoded frames waiting (number)", pass.queued);
    if !rows.is_empty() {
        text.push_str("\n| ms | samples | p50 | p95 | p99 | max |\n|---|---|---|---|---|---|\n");
    }
    for (name, Percentiles { samples, p50, p95, p99, max }) in rows {
        let _ = writeln!(text, "| {name} | {samples} | {p50:.2} | {p95:.2} | {p99:.2} | {max:.2} |");
    }
    text
}
