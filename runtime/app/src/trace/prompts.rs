//! The prompts file of `sightline trace`: from JSON in pixels to prompts in order of frames.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use sightline_core::{NormBox, NormPoint, ObjectId, Point, PointLabel, Prompt};

use crate::pictures;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    frame: usize,
    object: u32,
    #[serde(rename = "box")]
    box_px: Option<[f32; 4]>,
    points: Option<Vec<[f32; 2]>>,
    labels: Option<Vec<u8>>,
    mask: Option<String>,
    correct: Option<bool>,
}

/// When a prompt takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// It makes the frame a conditioning frame before the frame is tracked.
    Before,
    /// It corrects the frame after it was tracked.
    After,
}

/// One prompt, ready to be given.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) frame: usize,
    pub(crate) object: ObjectId,
    pub(crate) when: When,
    pub(crate) prompt: Prompt,
}

/// Reads the file for `frames` pictures of `size_px` (width, height).
pub(crate) fn read(path: &Path, frames: usize, size_px: (u32, u32)) -> Result<Vec<Planned>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read prompts {path:?}"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder, frames, size_px).with_context(|| format!("prompts {path:?}"))
}

fn parse(text: &str, folder: &Path, frames: usize, size_px: (u32, u32)) -> Result<Vec<Planned>> {
    let values: Vec<serde_json::Value> =
        serde_json::from_str(text).context("expected a JSON list of prompts")?;
    let mut entries = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let entry: Entry = serde_json::from_value(value).with_context(|| format!("entry {index}"))?;
        if entry.frame >= frames {
            bail!(
                "entry {index}: expected a frame from 0 to {}, got {}",
                frames.saturating_sub(1),
                entry.frame
            );
        }
        entries.push((index, entry));
    }
    if entries.is_empty() {
        bail!("expected at least one prompt, got an empty list");
    }
    entries.sort_by_key(|(_, entry)| entry.frame);
    let mut seen: BTreeSet<(u32, usize)> = BTreeSet::new();
    let mut planned = Vec::with_capacity(entries.len());
    for (index, entry) in entries {
        let known_before = seen.range((entry.object, 0)..(entry.object, entry.frame)).next().is_some();
        let only_points = entry.box_px.is_none() && entry.mask.is_none();
        let correct = entry.correct.unwrap_or(known_before && only_points);
        seen.insert((entry.object, entry.frame));
        let prompt = prompt(&entry, folder, size_px).with_context(|| format!("entry {index}"))?;
        planned.push(Planned {
            frame: entry.frame,
            object: ObjectId(entry.object),
            when: if correct { When::After } else { When::Before },
            prompt,
        });
    }
    Ok(planned)
}

fn prompt(entry: &Entry, folder: &Path, (width_px, height_px): (u32, u32)) -> Result<Prompt> {
    let points = points(entry, width_px, height_px)?;
    let within = entry.box_px.map(|b| NormBox::from_pixels(b, width_px, height_px)).transpose()?;
    match (&entry.mask, points, within) {
        (Some(name), None, None) => {
            let mask = pictures::read_mask(&folder.join(name))?;
            check_size(name, (mask.width_px(), mask.height_px()), (width_px, height_px))?;
            Ok(Prompt::Mask(Arc::new(mask)))
        }
        (Some(_), ..) => bail!("expected a mask alone, got one together with points or a box"),
        (None, Some(points), within) => Ok(Prompt::Points { points, within }),
        (None, None, Some(within)) => Ok(Prompt::Box(within)),
        (None, None, None) => bail!("expected \"box\", \"points\" or \"mask\", got none of them"),
    }
}

fn points(entry: &Entry, width_px: u32, height_px: u32) -> Result<Option<Vec<Point>>> {
    let Some(points) = &entry.points else {
        if entry.labels.is_some() {
            bail!("expected \"points\" to go with \"labels\", got none");
        }
        return Ok(None);
    };
    let labels = entry.labels.clone().unwrap_or_else(|| vec![1; points.len()]);
    if points.is_empty() || labels.len() != points.len() {
        bail!("expected one label a point and a point at least, got {} and {}", labels.len(), points.len());
    }
    let read = |([x, y], label): (&[f32; 2], &u8)| -> Result<Point> {
        let label = match label {
            0 => PointLabel::Negative,
            1 => PointLabel::Positive,
            other => bail!("label: expected 0 (not the object) or 1 (the object), got {other}"),
        };
        Ok(Point { at: NormPoint::from_pixels(*x, *y, width_px, height_px)?, label })
    };
    points.iter().zip(&labels).map(read).collect::<Result<Vec<_>>>().map(Some)
}

/// Refuses a mask of another size than the picture it belongs to.
pub(crate) fn check_size(name: impl std::fmt::Debug, got: (u32, u32), picture: (u32, u32)) -> Result<()> {
    if got == picture {
        return Ok(());
    }
    bail!(
        "mask {name:?}: expected {}x{} pixels as the picture has, got {}x{}",
        picture.0,
        picture.1,
        got.0,
        got.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Planned>> {
        parse(text, Path::new("."), 10, (100, 50))
    }

    #[test]
    fn what_corrects_and_what_conditions() {
        for (case, text, expected) in [
            ("a box", r#"[{"frame":0,"object":1,"box":[1,1,9,9]}]"#, &[When::Before][..]),
            ("first points", r#"[{"frame":3,"object":1,"points":[[5,5]]}]"#, &[When::Before]),
            (
                "later points, out of order in the file",
                r#"[{"frame":4,"object":1,"points":[[5,5]],"labels":[0]},{"frame":0,"object":1,"box":[1,1,9,9]}]"#,
                &[When::Before, When::After],
            ),
            (
                "points on the same frame",
                r#"[{"frame":0,"object":1,"box":[1,1,9,9]},{"frame":0,"object":1,"points":[[5,5]]}]"#,
                &[When::Before, When::Before],
            ),
            (
                "another object",
                r#"[{"frame":0,"object":2,"box":[1,1,9,9]},{"frame":4,"object":1,"points":[[5,5]]}]"#,
                &[When::Before, When::Before],
            ),
            (
                "said outright",
                r#"[{"frame":0,"object":1,"box":[1,1,9,9]},
                    {"frame":4,"object":1,"points":[[5,5]],"correct":false},
                    {"frame":5,"object":1,"box":[1,1,9,9],"points":[[5,5]],"correct":true}]"#,
                &[When::Before, When::Before, When::After],
            ),
        ] {
            let planned = parsed(text).unwrap();
            let when: Vec<When> = planned.iter().map(|p| p.when).collect();
            assert_eq!(when, expected, "{case}");
        }
    }

    #[test]
    fn box_and_points_are_one_prompt() {
        let planned = parsed(r#"[{"frame":0,"object":7,"box":[0,0,50,25],"points":[[50,25]]}]"#).unwrap();
        assert_eq!(planned[0].object, ObjectId(7));
        let Prompt::Points { points, within: Some(within) } = &planned[0].prompt else { panic!("points") };
        assert_eq!((points[0].at, within.x1), (NormPoint { x: 0.5, y: 0.5 }, 0.5));
    }

    #[test]
    fn bad_files_are_refused_by_entry() {
        let good = r#"{"frame":0,"object":1,"box":[1,1,9,9]}"#;
        for (case, entry, message) in [
            ("unknown key", r#"{"frame":0,"object":1,"bx":[1,1,9,9]}"#, "entry 1: unknown field `bx`"),
            ("no object", r#"{"frame":0,"box":[1,1,9,9]}"#, "entry 1: missing field `object`"),
            ("nothing", r#"{"frame":0,"object":1}"#, "entry 1: expected \"box\", \"points\" or \"mask\""),
            (
                "frame",
                r#"{"frame":10,"object":1,"box":[1,1,9,9]}"#,
                "entry 1: expected a frame from 0 to 9, got 10",
            ),
            ("box outside", r#"{"frame":0,"object":1,"box":[200,1,300,9]}"#, "entry 1: box: expected"),
            ("point outside", r#"{"frame":0,"object":1,"points":[[1,60]]}"#, "entry 1: point: expected"),
            (
                "labels",
                r#"{"frame":0,"object":1,"points":[[1,6]],"labels":[1,0]}"#,
                "entry 1: expected one label",
            ),
            (
                "label",
                r#"{"frame":0,"object":1,"points":[[1,6]],"labels":[2]}"#,
                "entry 1: label: expected 0",
            ),
            ("no mask", r#"{"frame":0,"object":1,"mask":"no.png"}"#, "entry 1: cannot read mask"),
            (
                "two",
                r#"{"frame":0,"object":1,"mask":"m.png","box":[1,1,9,9]}"#,
                "entry 1: expected a mask alone",
            ),
        ] {
            let error = format!("{:#}", parsed(&format!("[{good},{entry}]")).expect_err(case));
            assert!(error.contains(message), "{case}: {error}");
        }
        assert!(parsed("[]").is_err());
        assert!(parsed("{").is_err());
    }
}
