//! From a client's prompt to what `decoder_prompt` takes.

use std::sync::Arc;

use sightline_core::{Mask, NormBox, NormPoint, Point, PointLabel, Prompt};
use sightline_engine_api::ModelSpec;
use sightline_vision::{downscale, resize_mask};

use crate::{TrackerError, view};

/// More clicks than anyone gives; bounds a prompt's size.
pub(crate) const MAX_POINTS: usize = 256;

/// SAM2's labels of a box's corners.
const TOP_LEFT: f32 = 2.0;
const BOTTOM_RIGHT: f32 = 3.0;

/// A prompt that was checked: what it says of the picture, whatever part of it a frame shows.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Clicks and box corners with their labels, 0 to 3.
    Points(Arc<[(NormPoint, f32)]>),
    Mask(Arc<Mask>),
}

/// A prompt in the model's own terms, for a frame that shows a given part of the picture.
pub(crate) enum Resolved {
    Points {
        /// `[N,2]` x,y in pixels of the model's input.
        coords: Vec<f32>,
        /// `[N]`
        labels: Vec<f32>,
        multimask: bool,
    },
    Mask {
        /// `[H,W]` 0 or 1.
        full: Vec<f32>,
        /// `[h,w]` -10 to 10.
        low_res: Vec<f32>,
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
            Prompt::Mask(mask) if takes.masks => Ok(Self::Mask(mask.clone())),
            other => Err(unsupported(other.kind_name())),
        }
    }

    /// A box that is known to be one.
    pub(crate) fn corners(corners: NormBox) -> Self {
        let NormBox { x0, y0, x1, y1 } = corners;
        let corners = [(NormPoint { x: x0, y: y0 }, TOP_LEFT), (NormPoint { x: x1, y: y1 }, BOTTOM_RIGHT)];
        Self::Points(corners.into())
    }

    fn points(
        points: &[Point],
        within: Option<NormBox>,
        spec: &ModelSpec,
        fixed_points: Option<usize>,
    ) -> Result<Self, TrackerError> {
        let mut kept = Vec::new();
        if let Some(corners) = within {
            check_box(corners)?;
            kept.push((NormPoint { x: corners.x0, y: corners.y0 }, TOP_LEFT));
            kept.push((NormPoint { x: corners.x1, y: corners.y1 }, BOTTOM_RIGHT));
        }
        for point in points {
            if !(0.0..=1.0).contains(&point.at.x) || !(0.0..=1.0).contains(&point.at.y) {
                let got = format!("({}, {})", point.at.x, point.at.y);
                return Err(TrackerError::prompt("point", "x and y in 0..=1 of the picture", got));
            }
            kept.push((point.at, if point.label == PointLabel::Positive { 1.0 } else { 0.0 }));
        }
        let room = fixed_points.unwrap_or(MAX_POINTS) - usize::from(spec.prompts.pad_point);
        if kept.is_empty() || kept.len() > room {
            let (expected, got) = (format!("1 to {room}"), kept.len());
            return Err(TrackerError::prompt("points of a prompt (a box counts as 2)", expected, got));
        }
        Ok(Self::Points(kept.into()))
    }

    /// The least box that holds everything the prompt points at; `None` for an empty mask.
    pub(crate) fn extent(&self) -> Option<NormBox> {
        match self {
            Self::Points(points) => points
                .iter()
                .map(|(at, _)| NormBox { x0: at.x, y0: at.y, x1: at.x, y1: at.y })
                .reduce(NormBox::union),
            Self::Mask(mask) => mask.bounds_px().map(|[x0, y0, x1, y1]| {
                let (w, h) = (mask.width_px() as f32, mask.height_px() as f32);
                NormBox { x0: x0 as f32 / w, y0: y0 as f32 / h, x1: x1 as f32 / w, y1: y1 as f32 / h }
            }),
        }
    }

    /// Where the object is; `None` if the prompt does not say, as clicks do not.
    pub(crate) fn object_extent(&self) -> Option<NormBox> {
        match self {
            Self::Points(points) if points.iter().all(|(_, label)| *label < TOP_LEFT) => None,
            _ => self.extent(),
        }
    }

    /// What the decoder is given on a frame that shows `view` of the picture.
    pub(crate) fn resolve(&self, spec: &ModelSpec, fixed_points: Option<usize>, view: NormBox) -> Resolved {
        match self {
            Self::Points(points) => {
                let (width, height) = (spec.image.width_px as f32, spec.image.height_px as f32);
                let mut coords = Vec::with_capacity(2 * points.len() + 2);
                for (at, _) in points.iter() {
                    coords.push((at.x - view.x0) / view.width() * width);
                    coords.push((at.y - view.y0) / view.height() * height);
                }
                let mut labels: Vec<f32> = points.iter().map(|(_, label)| *label).collect();
                let count = fixed_points.unwrap_or(points.len() + usize::from(spec.prompts.pad_point));
                coords.resize(2 * count, 0.0);
                labels.resize(count, -1.0);
                let multimask = points.len() <= spec.prompts.multimask_max_points;
                Resolved::Points { coords, labels, multimask }
            }
            Self::Mask(mask) => {
                let (width, height) = (spec.image.width_px, spec.image.height_px);
                let full = match view::part(mask, view) {
                    Some(part) => resize_mask(&part, width, height),
                    None => resize_mask(mask, width, height),
                };
                let logits: Vec<f32> = full.iter().map(|inside| inside * 20.0 - 10.0).collect();
                let low_res = downscale(&logits, width, height, spec.masks.width_px, spec.masks.height_px);
                Resolved::Mask { full, low_res }
            }
        }
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
