//! `sightline models list`: what there is, what is here, and how fast.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;
use sightline_config::{Catalogue, CatalogueEntry};
use sightline_engine_registry::{ModelEntry, ModelSource, installed};

use super::{install::Origin, speed::Speed};
use crate::cli::ListArgs;

/// A model that is in the catalogue, or here, or both.
#[derive(Debug, Default, Serialize)]
struct Row {
    name: String,
    /// `built in` or the folder; none when it is not here.
    installed: Option<String>,
    family: String,
    parameters_millions: Option<f64>,
    licence: Option<String>,
    /// Sides of the picture: the one it was exported for, else those it can be exported for.
    image_sizes_px: Vec<u32>,
    /// Measured on this machine by `sightline models verify`.
    speed: Option<Speed>,
    /// Where its checkpoint came from, or whose page to read.
    from: Option<String>,
    note: Option<String>,
    not_runnable: Option<String>,
    /// What is wrong with it.
    error: Option<String>,
}

/// Prints the table, or JSON.
pub(super) fn run(catalogue: &Catalogue, args: &ListArgs) -> Result<()> {
    let rows = rows(catalogue, installed());
    let text = if args.json { serde_json::to_string_pretty(&rows)? + "\n" } else { table(&rows) };
    crate::print_stdout(&text)
}

/// What is here first, then what could be.
fn rows(catalogue: &Catalogue, installed: Vec<ModelEntry>) -> Vec<Row> {
    let mut rows: Vec<Row> = installed.into_iter().map(|model| here(catalogue, model)).collect();
    let missing = catalogue.entries().filter(|entry| rows.iter().all(|row| row.name != entry.name));
    let missing: Vec<Row> = missing.map(listed).collect();
    rows.extend(missing);
    rows
}

fn listed(entry: &CatalogueEntry) -> Row {
    Row {
        name: entry.name.clone(),
        family: entry.family.clone(),
        parameters_millions: entry.parameters_millions,
        licence: Some(entry.licence.clone()),
        image_sizes_px: entry.image_sizes_px.clone(),
        from: Some(entry.page.clone()),
        note: entry.note.clone(),
        not_runnable: entry.not_runnable.clone(),
        ..Row::default()
    }
}

fn here(catalogue: &Catalogue, model: ModelEntry) -> Row {
    let folder = match &model.source {
        ModelSource::Folder(folder) => Some(folder.as_path()),
        _ => None,
    };
    let origin = folder.and_then(Origin::read);
    let known = origin.as_ref().map_or(model.name.as_str(), |origin| &origin.model);
    let row = catalogue.get(known).map(listed).unwrap_or_default();
    let spec = model.spec.as_ref();
    Row {
        installed: Some(match &model.source {
            ModelSource::Folder(folder) => folder.display().to_string(),
            ModelSource::Fake => "built in, for tests".to_owned(),
            _ => "built in".to_owned(),
        }),
        family: model.family().to_owned(),
        licence: spec.ok().map(|spec| spec.licence.clone()).or(row.licence),
        image_sizes_px: spec.map_or_else(|_| Vec::new(), |spec| vec![spec.image.width_px as u32]),
        speed: folder.and_then(Speed::read),
        from: origin.map(|origin| origin.checkpoint).or(row.from),
        error: model.spec.err().map(|error| error.to_string()),
        name: model.name,
        not_runnable: None,
        ..row
    }
}

fn table(rows: &[Row]) -> String {
    let dash = || "-".to_owned();
    let mut cells: Vec<[String; 7]> =
        vec![["name", "here", "family", "params", "licence", "image px", "ms a frame"].map(str::to_owned)];
    for row in rows {
        let here = match (&row.installed, &row.not_runnable, &row.error) {
            (_, _, Some(_)) => "broken",
            (Some(place), _, None) if place.starts_with("built in") => "built in",
            (Some(_), _, None) => "yes",
            (None, Some(_), None) => "not yet",
            (None, None, None) => "no",
        };
        let sizes: Vec<String> = row.image_sizes_px.iter().map(u32::to_string).collect();
        cells.push([
            row.name.clone(),
            here.to_owned(),
            row.family.clone(),
            row.parameters_millions.map_or_else(dash, |millions| format!("{millions} M")),
            row.licence.clone().unwrap_or_else(dash),
            if sizes.is_empty() { dash() } else { sizes.join(" ") },
            row.speed.as_ref().map_or_else(dash, |s| format!("{:.1} ({} threads)", s.step_p50_ms, s.threads)),
        ]);
    }
    let mut text = String::new();
    for line in &cells {
        for (column, cell) in line.iter().enumerate() {
            let wide = cells.iter().map(|line| line[column].len()).max().unwrap_or(0);
            let _ = write!(text, "{cell:wide$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text.push('\n');
    for row in rows {
        let about =
            [row.from.as_deref(), row.note.as_deref(), row.not_runnable.as_deref(), row.error.as_deref()];
        let about: Vec<_> = about.into_iter().flatten().collect();
        if !about.is_empty() {
            let _ = writeln!(text, "{}: {}", row.name, about.join("; "));
        }
    }
    text.push_str("\n`sightline models pull NAME` installs one; `verify NAME` measures it here.\n");
    text
}
