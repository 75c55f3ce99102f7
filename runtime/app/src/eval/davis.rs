//! DAVIS: sequences of JPEGs with a PNG annotation each.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use sightline_core::{FrameStamp, Mask, NormBox, NormPoint, ObjectId, Point, PointLabel, Prompt};
use sightline_tracker::{At, CleanUp, Output, Session};
use sightline_vision::davis::{boundary_f, region_similarity};

use super::{
    deepest::deepest_px,
    report::{Report, SequenceScore},
};
use crate::{
    cli::{DavisArgs, PromptKind},
    models,
    pictures::{self, LabelPicture},
};

/// Evaluates, prints the table, writes the JSON.
pub(super) fn run(args: &DavisArgs) -> Result<()> {
    let names = sequence_names(&args.data, &args.sequences)?;
    let clean_up = CleanUp {
        fill_hole_area_px: args.clean_up.fill_hole_area.unwrap_or(0),
        sprinkle_area_px: args.clean_up.sprinkle_area.unwrap_or(0),
    };
    let started = Instant::now();
    let mut scores = Vec::with_capacity(names.len());
    let mut frames = 0;
    for name in &names {
        // A fresh session each: nothing of one sequence may be remembered in the next.
        let sequence = Sequence::open(&args.data, name)?;
        // The last frame is never looked at.
        frames += sequence.pictures.len() - 1;
        let output = Output { clean_up, ..Output::default() };
        let objects = sequence.objects.len();
        let session = models::session_with(&args.model, args.threads, 1, objects, output)?;
        let score =
            evaluate(session, &sequence, args.prompt).with_context(|| format!("sequence {name:?}"))?;
        tracing::info!(sequence = %score.name, j = score.j, f = score.f, "sequence done");
        scores.push(score);
    }
    let report = Report::new(scores);
    crate::print_stdout(&report.table())?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(
        frames,
        seconds,
        fps = frames as f64 / seconds,
        "evaluation done, decoding and measuring included"
    );
    match &args.json {
        Some(path) => report.write_json(path),
        None => Ok(()),
    }
}

pub(crate) fn sequence_names(data: &Path, asked_for: &[String]) -> Result<Vec<String>> {
    if !asked_for.is_empty() {
        return Ok(asked_for.to_vec());
    }
    let folder = data.join("Annotations/480p");
    let entries = std::fs::read_dir(&folder).with_context(|| {
        format!("cannot read folder {folder:?}; --data wants one with Annotations/480p in it")
    })?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    if names.is_empty() {
        bail!("folder {folder:?}: expected a folder for each sequence, got none");
    }
    names.sort();
    Ok(names)
}

/// One object of a sequence: which values of an annotation are it, and its first mask.
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) value: u8,
    pub(crate) first: Mask,
}

/// A sequence's files and objects.
pub(crate) struct Sequence {
    pub(crate) name: String,
    pub(crate) pictures: Vec<PathBuf>,
    pub(crate) annotations: Vec<PathBuf>,
    pub(crate) objects: Vec<Object>,
}

impl Sequence {
    pub(crate) fn open(data: &Path, name: &str) -> Result<Self> {
        let pictures = pictures::list(&data.join("JPEGImages/480p").join(name), &["jpg", "jpeg"])?;
        let annotations = pictures::list(&data.join("Annotations/480p").join(name), &["png"])?;
        if pictures.len() != annotations.len() || pictures.len() < 3 {
            bail!(
                "sequence {name:?}: expected as many annotations as pictures and 3 at least, got {} pictures and {} annotations",
                pictures.len(),
                annotations.len()
            );
        }
        if let Some((picture, _)) = pictures
            .iter()
            .zip(&annotations)
            .find(|(picture, annotation)| picture.file_stem() != annotation.file_stem())
        {
            bail!("sequence {name:?}: expected an annotation named as picture {picture:?}, got none");
        }
        let objects = objects(&LabelPicture::read(&annotations[0])?)
            .with_context(|| format!("annotation {:?}", annotations[0]))?;
        Ok(Self { name: name.to_owned(), pictures, annotations, objects })
    }
}

/// Palette pictures hold one object for each entry but 0; grey ones hold one object.
fn objects(first: &LabelPicture) -> Result<Vec<Object>> {
    let mut seen = [false; 256];
    first.data.iter().for_each(|value| seen[usize::from(*value)] = true);
    let values: Vec<u8> = (1..=255_u8).filter(|value| seen[usize::from(*value)]).collect();
    if values.is_empty() {
        bail!("expected an object on the first frame, got an empty annotation");
    }
    if !first.palette && values.len() > 1 {
        bail!("expected a palette picture or grey values 0 and one other, got {} others", values.len());
    }
    let object = |value: u8| {
        let id = ObjectId(if first.palette { u32::from(value) } else { 1 });
        Ok(Object { id, value, first: first.mask(|v| v == value)? })
    };
    values.into_iter().map(object).collect()
}

/// The prompt that a first mask gives.
pub(crate) fn prompt(kind: PromptKind, mask: &Mask) -> Result<Prompt> {
    let (width, height) = (mask.width_px(), mask.height_px());
    let empty = || anyhow::anyhow!("expected an object on the first frame, got an empty mask");
    Ok(match kind {
        PromptKind::Mask => Prompt::Mask(Arc::new(mask.clone())),
        PromptKind::Box => {
            let bounds = mask.bounds_px().ok_or_else(empty)?;
            Prompt::Box(NormBox::from_pixels(bounds.map(|v| v as f32), width, height)?)
        }
        PromptKind::Point => {
            let (x, y) = deepest_px(mask).ok_or_else(empty)?;
            let at = NormPoint::from_pixels(x as f32, y as f32, width, height)?;
            Prompt::Points { points: vec![Point { at, label: PointLabel::Positive }], within: None }
        }
        PromptKind::Text => {
            bail!("--prompt: expected mask, box or point, got text; `bench streaming` takes words")
        }
    })
}

/// Every frame but the last tracked, every frame but the first and the last scored.
pub(crate) fn evaluate(mut session: Session, sequence: &Sequence, kind: PromptKind) -> Result<SequenceScore> {
    for object in &sequence.objects {
        session.prompt(object.id, At::Next, prompt(kind, &object.first)?)?;
    }
    let last = sequence.pictures.len() - 1;
    let mut sums = vec![(0.0, 0.0); sequence.objects.len()];
    for (index, (picture, annotation)) in sequence.pictures.iter().zip(&sequence.annotations).enumerate() {
        if index == last {
            break;
        }
        let rgb = pictures::read_rgb(picture)?;
        let result = session
            .process(stamp(index), &rgb.view()?)
            .with_context(|| format!("frame {index} ({picture:?})"))?;
        if index == 0 {
            continue;
        }
        let labels = LabelPicture::read(annotation)?;
        for (object, (j, f)) in sequence.objects.iter().zip(&mut sums) {
            let truth = labels.mask(|value| value == object.value)?;
            let found = result.objects.iter().find(|found| found.id == object.id);
            let predicted = match found {
                Some(found) => found.mask.decode(),
                None => bail!("frame {index}: expected a result for object {}, got none", object.id),
            };
            *j += region_similarity(&predicted, &truth)?;
            *f += boundary_f(&predicted, &truth)?;
        }
    }
    let frames = last - 1;
    let percent = |of: fn(&(f64, f64)) -> f64| {
        100.0 * sums.iter().map(of).sum::<f64>() / (frames * sequence.objects.len()) as f64
    };
    let (j, f) = (percent(|s| s.0), percent(|s| s.1));
    Ok(SequenceScore { name: sequence.name.clone(), frames, j, f, jf: (j + f) / 2.0 })
}

/// Frames of a folder have no clock; 24 a second, as DAVIS was filmed, gives them one.
pub(crate) fn stamp(index: usize) -> FrameStamp {
    let time = Duration::from_secs_f64(index as f64 / 24.0);
    FrameStamp { index: index as u64, pts: Some(time), running_time: Some(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_name_their_objects() {
        let label = |data: &[u8], palette| LabelPicture {
            width_px: data.len() as u32,
            height_px: 1,
            data: data.to_vec(),
            palette,
        };
        let ids = |picture: &LabelPicture| {
            objects(picture)
                .map(|found| found.iter().map(|o| (o.id.0, o.first.area_px())).collect::<Vec<_>>())
        };
        assert_eq!(ids(&label(&[0, 255, 255, 0], false)).unwrap(), [(1, 2)]);
        assert_eq!(ids(&label(&[0, 1, 3, 3], true)).unwrap(), [(1, 1), (3, 2)]);
        assert!(ids(&label(&[0, 255, 128, 0], false)).is_err(), "soft grey masks are no annotation");
        assert!(ids(&label(&[0, 0], true)).is_err(), "nothing to follow");
    }

    #[test]
    fn prompts_come_from_the_first_mask() {
        let mut mask = Mask::new(10, 5);
        for y in 1..4 {
            for x in 2..7 {
                mask.data_mut()[y * 10 + x] = 1;
            }
        }
        let Prompt::Box(found) = prompt(PromptKind::Box, &mask).unwrap() else { panic!("box") };
        assert_eq!(found.to_pixels(10, 5).map(f32::round), [2.0, 1.0, 7.0, 4.0]);
        let Prompt::Points { points, .. } = prompt(PromptKind::Point, &mask).unwrap() else {
            panic!("point")
        };
        assert_eq!((points[0].at.x, points[0].at.y), (0.3, 0.4));
    }
}
