//! A model's parity set: the tracker on the frames and prompts of its folder, against the logits that came with it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sightline_tracker::Session;

use crate::trace::{Clip, read_npz};

/// How far the tracker is from the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parity {
    pub(super) frames: usize,
    /// Masks that were compared: one a frame and object.
    pub(super) masks: usize,
    /// Largest absolute difference of a mask logit or an object score logit.
    pub(super) worst_logit: f32,
    /// Largest mean absolute difference of a mask's logits.
    pub(super) worst_mean: f32,
    /// Least intersection over union of low-resolution masks; two empty ones agree.
    pub(super) least_iou: f32,
}

/// Replays the set and compares every array that the reference has.
pub(super) fn replay(logits: &Path, clip: &Clip, session: &mut Session) -> Result<Parity> {
    let reference = read_npz(logits)?;
    let mut parity =
        Parity { frames: clip.frames(), masks: 0, worst_logit: 0.0, worst_mean: 0.0, least_iou: 1.0 };
    let mut compared = 0;
    clip.replay(session, |frame, session| {
        for object in session.tracker().objects() {
            let mut against = |name: String, values: &[f32]| -> Result<Option<&Vec<f32>>> {
                let Some(wanted) = reference.get(&name) else { return Ok(None) };
                if wanted.len() != values.len() {
                    bail!("{logits:?}, array {name}: expected {} values, got {}", values.len(), wanted.len());
                }
                compared += 1;
                for (value, wanted) in values.iter().zip(wanted) {
                    let difference = (value - wanted).abs();
                    // A NaN is as far as can be.
                    let difference = if difference.is_nan() { f32::INFINITY } else { difference };
                    parity.worst_logit = parity.worst_logit.max(difference);
                }
                Ok(Some(wanted))
            };
            against(format!("score_{frame}_{}", object.id), &[object.object_score])?;
            if let Some(wanted) = against(format!("logits_{frame}_{}", object.id), object.low_res)? {
                parity.masks += 1;
                let sum: f32 =
                    object.low_res.iter().zip(wanted).map(|(value, wanted)| (value - wanted).abs()).sum();
                parity.worst_mean = parity.worst_mean.max(sum / wanted.len() as f32);
                parity.least_iou = parity.least_iou.min(iou(object.low_res, wanted));
            }
        }
        Ok(())
    })
    .context("parity set")?;
    let wanted = reference.keys().filter(|name| !name.starts_with("iou_")).count();
    if compared != wanted || parity.masks == 0 {
        bail!(
            "{logits:?}: expected an array for each frame and object that was tracked, got {compared} of {wanted} that fit"
        );
    }
    Ok(parity)
}

fn iou(a: &[f32], b: &[f32]) -> f32 {
    let pairs = || a.iter().zip(b).map(|(a, b)| (*a > 0.0, *b > 0.0));
    let both = pairs().filter(|(a, b)| *a && *b).count();
    let any = pairs().filter(|(a, b)| *a || *b).count();
    if any == 0 { 1.0 } else { both as f32 / any as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_empty_masks_agree() {
        assert_eq!(iou(&[-1.0, 0.0], &[-2.0, -1.0]), 1.0);
        assert_eq!(iou(&[1.0, 1.0, -1.0], &[1.0, -1.0, 1.0]), 1.0 / 3.0);
    }
}
