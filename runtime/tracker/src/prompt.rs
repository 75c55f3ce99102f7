//! From a client's prompt to what `decoder_prompt` takes.

use std::sync::Arc;

use sightline_core::{Mask, NormBox, NormPoint, Point, PointLabel, Prompt};
use sightline_engine_api::ModelSpec;
use sightline_vision::{downscale, resize_mask};

use crate::TrackerError;

/// More clicks than anyone gives; bounds a prompt's size.
const MAX_POINTS: usize = 256;

/// A prompt in the model's own terms.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Points {
        /// `[N,2]` x,y in pixels of the model's input.
        coords: Arc<[f32]>,
        /// `[N]`
        labels: Arc<[f32]>,
        multimask: bool,
    },
    Mask {
        /// `[H,W]` 0 or 1.
        full: Arc<[f32]>,
        /// `[h,w]` -10 to 10.
        low_res: Arc<[f32]>,
    },
}

/// The prompt of `mask_downsample`'s decoder run: no click, two padding points where the model pads.
pub(crate) fn padding(spec: &ModelSpec, fixed_points: Option<usize>) -> (Vec<f32>, Vec<f32>) {
    let count = fixed_points.unwrap_or(1 + usize::from(spec.prompts.pad_point));
    (vec![0.0; 2 * count], vec![-1.0; count])
}

impl Ask {
    /// Checks a prompt against the model.
    pub(crate) fn new(
        prompt: &Prompt,
        spec: &ModelSpec,
        fixed_points: Option<usize>,
    ) -> Result<Self, TrackerError> {
        let takes = spec.prompts;
        let unsupported = |kind: &str| {
            let mut kinds = Vec::new();
            kinds.extend(takes.points.then_some("points"));
            kinds.extend(takes.boxes.then_some("box"));
            kinds.extend(takes.masks.then_some("mask"));
            TrackerError::prompt(format_args!("prompt for {}", spec.name), kinds.join(", "), kind)
        };
        match prompt {
            Prompt::Points { points, within } => {
                if !takes.points && (within.is_none() || !points.is_empty()) {
                    return Err(unsupported("points"));
                }
                if within.is_some() && !takes.boxes {
                    return Err(unsupported("points within a box"));
                }
                Self::points(points, *within, spec, fixed_points)
            }
            Prompt::Box(corners) if takes.boxes => Self::points(&[], Some(*corners), spec, fixed_points),
            Prompt::Mask(mask) if takes.masks => Ok(Self::mask(mask, spec)),
            other => Err(unsupported(other.kind_name())),
        }
    }

    fn points(
        points: &[Point],
        within: Option<NormBox>,
        spec: &ModelSpec,
        fixed_points: Option<usize>,
    ) -> Result<Self, TrackerError> {
        let (width, height) = (spec.image.width_px as f32, spec.image.height_px as f32);
        let (mut coords, mut labels) = (Vec::new(), Vec::new());
        let mut push = |at: NormPoint, label: f32| {
            coords.extend([at.x * width, at.y * height]);
            labels.push(label);
        };
        if let Some(corners) = within {
            check_box(corners)?;
            push(NormPoint { x: corners.x0, y: corners.y0 }, 2.0);
            push(NormPoint { x: corners.x1, y: corners.y1 }, 3.0);
        }
        for point in points {
            if !(0.0..=1.0).contains(&point.at.x) || !(0.0..=1.0).contains(&point.at.y) {
                let got = format!("({}, {})", point.at.x, point.at.y);
                return Err(TrackerError::prompt("point", "x and y in 0..=1 of the picture", got));
            }
            push(point.at, if point.label == PointLabel::Positive { 1.0 } else { 0.0 });
        }
        let given = labels.len();
        let padded = given + usize::from(spec.prompts.pad_point);
        let room = fixed_points.unwrap_or(MAX_POINTS);
        if given == 0 || padded > room {
            let expected = format!("1 to {}", room - usize::from(spec.prompts.pad_point));
            return Err(TrackerError::prompt("points of a prompt (a box counts as 2)", expected, given));
        }
        let count = fixed_points.unwrap_or(padded);
        coords.resize(2 * count, 0.0);
        labels.resize(count, -1.0);
        let multimask = given <= spec.prompts.multimask_max_points;
        Ok(Self::Points { coords: coords.into(), labels: labels.into(), multimask })
    }

    fn mask(mask: &Mask, spec: &ModelSpec) -> Self {
        let (width, height) = (spec.image.width_px, spec.image.height_px);
        let full = resize_mask(mask, width, height);
        let logits: Vec<f32> = full.iter().map(|inside| inside * 20.0 - 10.0).collect();
        let low_res = downscale(&logits, width, height, spec.masks.width_px, spec.masks.height_px);
        Self::Mask { full: full.into(), low_res: low_res.into() }
    }
}

fn check_box(corners: NormBox) -> Result<(), TrackerError> {
    let NormBox { x0, y0, x1, y1 } = corners;
    let inside = [x0, y0, x1, y1].iter().all(|v| (0.0..=1.0).contains(v));
    if inside && x0 < x1 && y0 < y1 {
        return Ok(());
    }
    let got = format!("({x0}, {y0}, {x1}, {y1})");
    Err(TrackerError::prompt("box", "x0 < x1 and y0 < y1, all in 0..=1 of the picture", got))
}
