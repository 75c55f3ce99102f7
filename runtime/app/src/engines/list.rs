//! `sightline engines list`: which plans there are, what of, what for, and whether they fit here.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use serde::Serialize;
use sightline_engine_registry::plan::{Machine, PlanError, PlanKey, Profile, Sidecar, plans_in};

use super::{Subject, build::name_of, fits, process::Interrupt, trtexec::Trtexec};
use crate::{cli::PlanListArgs, models::megabytes};

/// One plan.
#[derive(Debug, Serialize)]
struct Row {
    model: String,
    plan: String,
    /// None when its sidecar cannot be read.
    key: Option<PlanKey>,
    bytes: u64,
    built_unix_s: Option<u64>,
    build_seconds: Option<f64>,
    /// Whether this machine can run it; none where that cannot be told.
    fits: Option<bool>,
    /// Why it cannot be used, or why that cannot be told.
    note: Option<String>,
}

/// Prints the table, or JSON.
pub(super) fn run(args: &PlanListArgs) -> Result<()> {
    let interrupt = Interrupt::install();
    let subjects = Subject::all(args.model.as_deref())?;
    let mut found = Vec::new();
    for subject in subjects {
        let plans = plans_in(&subject.plans)?;
        found.push((subject, plans));
    }
    let is_empty = found.iter().all(|(_, plans)| plans.is_empty());
    // Asking takes a second: not for nothing.
    let machine =
        if is_empty { Err("no plans".to_owned()) } else { machine(args.tool.trtexec.as_deref(), &interrupt) };
    let mut rows = Vec::new();
    for (subject, plans) in &found {
        for entry in plans {
            rows.push(row(subject, &entry.path, entry.sidecar.as_ref(), &machine));
        }
    }
    let text = if args.json { serde_json::to_string_pretty(&rows)? + "\n" } else { table(&rows, &machine) };
    crate::print_stdout(&text)
}

/// This machine as its `trtexec` sees it, or why it is not known.
pub(super) fn machine(trtexec: Option<&Path>, interrupt: &Interrupt) -> Result<Machine, String> {
    let found = Trtexec::find(trtexec, interrupt).and_then(|tool| tool.machine(interrupt));
    found.map_err(|error| format!("{error:#}"))
}

fn row(
    subject: &Subject,
    path: &Path,
    sidecar: Result<&Sidecar, &PlanError>,
    machine: &Result<Machine, String>,
) -> Row {
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    let mut row = Row {
        model: subject.name.clone(),
        plan: name_of(path),
        key: None,
        bytes,
        built_unix_s: None,
        build_seconds: None,
        fits: None,
        note: None,
    };
    let sidecar = match sidecar {
        Ok(sidecar) => sidecar,
        Err(error) => {
            (row.fits, row.note) = (Some(false), Some(error.to_string()));
            return row;
        }
    };
    row.key = Some(sidecar.key.clone());
    row.built_unix_s = Some(sidecar.built_unix_s);
    row.build_seconds = Some(sidecar.build_seconds);
    let of_model = subject.sha256(&sidecar.key.component) == Some(&sidecar.key.onnx_sha256);
    (row.fits, row.note) = match machine {
        _ if !of_model => (Some(false), Some("of a graph that the model no longer has".to_owned())),
        _ if bytes != sidecar.plan_bytes => {
            (Some(false), Some(format!("expected {} bytes, got {bytes}", sidecar.plan_bytes)))
        }
        Ok(machine) => match fits(sidecar, path, machine) {
            Ok(()) => (Some(true), None),
            Err(error) => (Some(false), Some(error.to_string())),
        },
        Err(_) => (None, None),
    };
    row
}

fn table(rows: &[Row], machine: &Result<Machine, String>) -> String {
    if rows.is_empty() {
        return "no plans; `sightline engines build --model NAME` makes them\n".to_owned();
    }
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<14} {:<17} {:<5} {:<22} {:<12} {:<22} {:>9} {:>5}  fits",
        "model", "graph", "in", "sizes", "tensorrt", "gpu", "size", "age"
    );
    for row in rows {
        let verdict = match row.fits {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "?",
        };
        let Some(key) = &row.key else {
            let _ = writeln!(text, "{:<14} {}: {verdict}", row.model, row.plan);
            continue;
        };
        let _ = writeln!(
            text,
            "{:<14} {:<17} {:<5} {:<22} {:<12} {:<22} {:>9} {:>5}  {verdict}",
            row.model,
            key.component,
            key.precision.to_string(),
            key.profiles.first().map_or_else(|| "fixed".to_owned(), sizes),
            key.tensorrt.to_string(),
            format!("{} sm_{}", key.gpu.name, key.gpu.sm),
            megabytes(row.bytes),
            age(row.built_unix_s),
        );
    }
    for row in rows {
        if let Some(note) = &row.note {
            let _ = writeln!(text, "{}: {note}", row.plan);
        }
    }
    if let Err(reason) = machine {
        let _ = writeln!(text, "whether they fit this machine is not known: {reason}");
    }
    text
}

/// Of the input that says most: `mem 1x4..4x7`; `each` where each object brings a picture.
fn sizes(profile: &Profile) -> String {
    let known = ["mem", "pix_feat", "low_res_mask", "point_coords"];
    let named = known.into_iter().find_map(|name| profile.get_key_value(name));
    let Some((name, range)) = named.or_else(|| profile.first_key_value()) else { return String::new() };
    let text = |dims: &[usize]| dims.iter().take(2).map(ToString::to_string).collect::<Vec<_>>().join("x");
    let (least, most) = (text(&range.min), text(&range.max));
    let pictures =
        profile.iter().any(|(name, range)| name.starts_with("feat_") && range.max.first() > Some(&1));
    let each = if pictures { " each" } else { "" };
    if least == most { format!("{name} {most}{each}") } else { format!("{name} {least}..{most}{each}") }
}

fn age(built_unix_s: Option<u64>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = now.saturating_sub(built_unix_s.unwrap_or(now));
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
