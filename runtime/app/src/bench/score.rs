//! What a viewer had at every instant, against that instant.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use sightline_core::{Mask, ObjectId, Rle};
use sightline_vision::davis::{boundary_f, region_similarity};

use super::figures::mean;
use crate::{eval::davis::Sequence, pictures::LabelPicture};

/// What passed with one picture: the objects of the newest masks, and their age.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown {
    pub(super) objects: Vec<(ObjectId, Arc<Rle>)>,
    pub(super) age: Option<Duration>,
}

/// In percent.
#[derive(Debug)]
pub(super) struct Scored {
    /// Means over all instants but the first and the last.
    pub(super) j: f64,
    pub(super) f: f64,
    /// At every instant, mean over objects.
    pub(super) j_at: Vec<f64>,
    /// The first instant with a mask.
    pub(super) first_mask: Option<usize>,
}

/// Scores the mask shown with every picture of `order` against that picture's annotation; none counts as an empty one.
/// `ids` has the tracked object of each of the sequence's.
pub(super) fn score(
    sequence: &Sequence,
    order: &[usize],
    ids: &[Option<ObjectId>],
    shown: &[Shown],
) -> Result<Scored> {
    if shown.len() != order.len() {
        bail!("expected {} pictures to come out, got {}", order.len(), shown.len());
    }
    let truths: Vec<Vec<Mask>> = sequence
        .annotations
        .iter()
        .map(|annotation| {
            let labels = LabelPicture::read(annotation)?;
            let masks = sequence.objects.iter().map(|object| labels.mask(|value| value == object.value));
            masks.collect::<Result<_>>()
        })
        .collect::<Result<_>>()?;
    let (mut js, mut fs) = (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
    let mut first_mask = None;
    for (instant, (picture, Shown { objects, .. })) in order.iter().zip(shown).enumerate() {
        let (mut j, mut f) = (0.0, 0.0);
        for (id, truth) in ids.iter().zip(&truths[*picture]) {
            let found = objects.iter().find(|(found, _)| Some(*found) == *id);
            let mask = match found {
                Some((_, mask)) if mask.area_px() > 0 => {
                    first_mask.get_or_insert(instant);
                    mask.decode()
                }
                _ => Mask::new(truth.width_px(), truth.height_px()),
            };
            j += region_similarity(&mask, truth)?;
            f += boundary_f(&mask, truth)?;
        }
        js.push(100.0 * j / ids.len() as f64);
        fs.push(100.0 * f / ids.len() as f64);
    }
    let counted = 1..order.len().saturating_sub(1).max(1);
    Ok(Scored { j: mean(&js[counted.clone()]), f: mean(&fs[counted]), j_at: js, first_mask })
}
