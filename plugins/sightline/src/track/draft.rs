//! A prompt as it came through the door: checked, but not yet tied to a picture's size or to a file's content.

use std::{path::PathBuf, sync::Arc, time::Duration};

use sightline_core::{Kind, Mask, NormBox, NormPoint, ObjectId, Point, PointLabel, Prompt, ValueError};

/// The unit of a prompt's coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    /// `[0, 1]`, origin at the top left corner.
    Norm,
    /// Pixels of the incoming picture.
    Pixels,
}

/// Where a mask prompt's pixels come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MaskSource {
    /// A PNG; read on the worker, never on the streaming thread.
    File(PathBuf),
    /// Already here.
    Ready(Arc<Mask>),
}

/// What is prompted.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Draft {
    pub(crate) within: Option<([f32; 4], Space)>,
    pub(crate) points: Vec<([f32; 2], PointLabel, Space)>,
    pub(crate) mask: Option<MaskSource>,
}

/// A prompt on its way to the worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) id: ObjectId,
    pub(crate) draft: Draft,
    /// The running time it is about; `None` means the next frame.
    pub(crate) at: Option<Duration>,
    /// A correction: refused when there is no such object.
    pub(crate) correction: bool,
}

impl Draft {
    /// Refuses what no picture could make sense of.
    ///
    /// # Errors
    /// `Kind::Geometry`: nothing prompted, a mask beside something else, coordinates outside `[0, 1]`.
    pub(crate) fn check(&self) -> Result<(), ValueError> {
        let refuse = |expected, got: &str| Err(ValueError::new(Kind::Geometry, "prompt", expected, got));
        let clicks = self.within.is_some() || !self.points.is_empty();
        match (&self.mask, clicks) {
            (Some(_), true) => return refuse("a mask, or a box and points", "both"),
            (None, false) => return refuse("a box, points or a mask", "none of them"),
            _ => {}
        }
        // Any size will do to find what is wrong at every size.
        let huge = (1 << 20, 1 << 20);
        if let Some((corners, space)) = self.within {
            resolve_box(corners, space, huge)?;
        }
        self.points.iter().try_for_each(|(at, _, space)| resolve_point(*at, *space, huge).map(drop))
    }

    /// Whether the picture's size is needed.
    pub(crate) fn needs_size(&self) -> bool {
        self.within.is_some_and(|(_, space)| space == Space::Pixels)
            || self.points.iter().any(|(_, _, space)| *space == Space::Pixels)
    }

    /// Turns the draft into the core's words, reading the mask's file if there is one.
    ///
    /// # Errors
    /// `Kind::Geometry` outside the picture; `Kind::Encoding` for a file that is no mask.
    pub(crate) fn resolve(&self, size_px: (u32, u32)) -> Result<Prompt, ValueError> {
        if let Some(mask) = &self.mask {
            let mask = match mask {
                MaskSource::Ready(mask) => Arc::clone(mask),
                MaskSource::File(path) => Arc::new(super::mask_file::read(path)?),
            };
            if mask.area_px() == 0 {
                return Err(ValueError::new(Kind::Geometry, "mask", "at least one pixel set", "none"));
            }
            return Ok(Prompt::Mask(mask));
        }
        let within = self.within.map(|(corners, space)| resolve_box(corners, space, size_px)).transpose()?;
        if let (Some(within), true) = (within, self.points.is_empty()) {
            return Ok(Prompt::Box(within));
        }
        let points = self
            .points
            .iter()
            .map(|(at, label, space)| Ok(Point { at: resolve_point(*at, *space, size_px)?, label: *label }))
            .collect::<Result<Vec<_>, ValueError>>()?;
        Ok(Prompt::Points { points, within })
    }
}

fn resolve_box(corners: [f32; 4], space: Space, (w, h): (u32, u32)) -> Result<NormBox, ValueError> {
    match space {
        Space::Pixels => NormBox::from_pixels(corners, w, h),
        Space::Norm => NormBox::from_pixels(corners, 1, 1).map_err(|_| {
            let [x0, y0, x1, y1] = corners;
            ValueError::new(
                Kind::Geometry,
                "box",
                "normalised x0 < x1 and y0 < y1 that meet 0..=1",
                format_args!("({x0}, {y0}, {x1}, {y1})"),
            )
        }),
    }
}

fn resolve_point([x, y]: [f32; 2], space: Space, (w, h): (u32, u32)) -> Result<NormPoint, ValueError> {
    match space {
        Space::Pixels => NormPoint::from_pixels(x, y, w, h),
        Space::Norm => NormPoint::from_pixels(x, y, 1, 1).map_err(|_| {
            let expected = "normalised x and y in 0..=1";
            ValueError::new(Kind::Geometry, "point", expected, format_args!("({x}, {y})"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(corners: [f32; 4], space: Space) -> Draft {
        Draft { within: Some((corners, space)), ..Draft::default() }
    }

    #[test]
    fn drafts_become_prompts_once_the_size_is_known() {
        let norm = Prompt::Box(NormBox { x0: 0.25, y0: 0.5, x1: 0.5, y1: 1.0 });
        assert_eq!(boxed([0.25, 0.5, 0.5, 1.0], Space::Norm).resolve((7, 7)).unwrap(), norm);
        let pixels = boxed([80.0, 120.0, 160.0, 240.0], Space::Pixels);
        assert!(pixels.needs_size());
        assert_eq!(pixels.resolve((320, 240)).unwrap(), norm);
        assert!(pixels.check().is_ok(), "some picture may be that large");
        assert!(pixels.resolve((64, 64)).is_err(), "this one is not");
    }

    #[test]
    fn nonsense_is_refused_at_the_door() {
        let ready = MaskSource::Ready(Arc::new(Mask::new(1, 1)));
        for (case, draft, says) in [
            ("empty", Draft::default(), "prompt: expected a box"),
            (
                "mask and box",
                Draft { mask: Some(ready), ..boxed([0.0, 0.0, 1.0, 1.0], Space::Norm) },
                "prompt: expected a mask, or",
            ),
            ("unordered", boxed([0.5, 0.0, 0.1, 1.0], Space::Norm), "box: expected normalised"),
            ("pixels taken for normalised", boxed([80.0, 9.0, 90.0, 99.0], Space::Norm), "box: expected"),
            ("not finite", boxed([f32::NAN, 9.0, 90.0, 99.0], Space::Pixels), "box: expected four finite"),
        ] {
            let error = draft.check().expect_err(case).to_string();
            assert!(error.starts_with(says), "{case}: {error}");
        }
    }
}
