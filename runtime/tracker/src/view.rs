//! Which part of the picture the model is shown.
//!
//! A small model sees a small picture: a walker who is 90 pixels tall in a 768x576 feed is four tokens in it. So
//! a model may ask (`view` in `model.toml`) to be shown only the part where the objects are, at the same number
//! of pixels. There is one view for all objects, since they share the image encoder; it follows them smoothly,
//! because to the memory a view that jumps is a camera that jumps, and it widens while an object is lost.

use sightline_core::{ImageSpec, Mask, NormBox};
use sightline_engine_api::ViewSpec;

/// The view's side grows and shrinks by at most these factors a frame.
const GROW: f32 = 1.08;
const SHRINK: f32 = 0.93;
/// The side stays while what the objects ask for lies between these shares of it.
const KEEP: std::ops::RangeInclusive<f32> = 0.77..=1.15;
/// The margin is this much wider around an object that was only clicked on. (J on twelve DAVIS sequences, from a
/// point: 42.4 with 1, 46.8 with 2, 47.0 with 3, 47.4 always showing the whole picture, which loses small things.)
const CLICKED: f32 = 2.0;
/// The objects' box never takes more than this of the view.
const FULL: f32 = 0.9;
/// Pixels of the picture behind a pixel of the model, at least: beyond it there is nothing to see.
const MIN_PIXELS: f32 = 0.75;
/// What the logits say of what they do not cover: not the object.
const OUTSIDE_LOGIT: f32 = -10.0;

/// Chooses the view, frame by frame.
#[derive(Debug)]
pub(crate) struct Viewer {
    spec: Option<ViewSpec>,
    model_width_px: usize,
    model_height_px: usize,
    side: f32,
    centre: (f32, f32),
}

/// What there is to look at.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sights {
    /// The box around everything that is seen or prompted.
    pub(crate) around: Option<NormBox>,
    /// An object was only ever clicked on: what is seen of it may be a part.
    pub(crate) clicked: bool,
    /// An object is lost: it may be anywhere.
    pub(crate) lost: bool,
    /// A prompt is due: what it points at must be in the view at once.
    pub(crate) prompted: bool,
    /// A prompt is due that does not say how far its object reaches.
    pub(crate) anywhere: bool,
}

impl Sights {
    /// All there is to see of both.
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            around: self.around.into_iter().chain(other.around).reduce(NormBox::union),
            clicked: self.clicked | other.clicked,
            lost: self.lost | other.lost,
            prompted: self.prompted | other.prompted,
            anywhere: self.anywhere | other.anywhere,
        }
    }
}

impl Viewer {
    pub(crate) fn new(spec: Option<ViewSpec>, image: &ImageSpec) -> Self {
        let (model_width_px, model_height_px) = (image.width_px, image.height_px);
        Self { spec, model_width_px, model_height_px, side: 1.0, centre: (0.5, 0.5) }
    }

    pub(crate) fn reset(&mut self) {
        (self.side, self.centre) = (1.0, (0.5, 0.5));
    }

    /// The part `[x, y, width, height]` in pixels of a `width_px` x `height_px` picture, with an even corner.
    pub(crate) fn choose(&mut self, sights: Sights, width_px: u32, height_px: u32) -> [u32; 4] {
        let whole = [0, 0, width_px, height_px];
        let Some(spec) = self.spec else { return whole };
        let (width, height) = (width_px as f32, height_px as f32);
        let pixels = (self.model_width_px as f32 / width).max(self.model_height_px as f32 / height);
        let least = spec.min_side.max(MIN_PIXELS * pixels).min(1.0);
        let object = sights.around.map_or(0.0, |around| around.width().max(around.height()));
        let margin = spec.margin * if sights.clicked { CLICKED } else { 1.0 };
        let asked = (object * margin).clamp(least, 1.0);
        self.side = match sights {
            Sights { anywhere: true, .. } => 1.0,
            Sights { prompted: true, .. } => asked,
            Sights { lost: true, .. } | Sights { around: None, .. } => (self.side * GROW).max(asked),
            _ if asked > self.side * KEEP.end() => (self.side * GROW).min(asked).max(object / FULL),
            _ if asked < self.side * KEEP.start() => (self.side * SHRINK).max(asked),
            _ => self.side,
        }
        .clamp(least, 1.0);
        if let Some(around) = sights.around {
            self.centre = ((around.x0 + around.x1) / 2.0, (around.y0 + around.y1) / 2.0);
        }
        if self.side >= 1.0 {
            return whole;
        }
        let place = |centre: f32, side_px: u32| {
            let length = ((self.side * side_px as f32).round() as u32).clamp(1, side_px);
            let start = (centre * side_px as f32 - length as f32 / 2.0).max(0.0).round() as u32;
            (start.min(side_px - length) / 2 * 2, length)
        };
        let ((x, width), (y, height)) = (place(self.centre.0, width_px), place(self.centre.1, height_px));
        [x, y, width, height]
    }
}

/// The box around what is positive in `[height, width]` logits that cover `view`, in the whole picture.
pub(crate) fn bounds(logits: &[f32], width: usize, view: NormBox) -> Option<NormBox> {
    let height = logits.len() / width;
    let (mut x0, mut y0, mut x1, mut y1) = (width, height, 0, 0);
    for (y, row) in logits.chunks_exact(width).enumerate() {
        let Some(first) = row.iter().position(|logit| *logit > 0.0) else { continue };
        let last = row.iter().rposition(|logit| *logit > 0.0).unwrap_or(first);
        (x0, x1) = (x0.min(first), x1.max(last + 1));
        (y0, y1) = (y0.min(y), y + 1);
    }
    let x = |at: usize| view.x0 + at as f32 / width as f32 * view.width();
    let y = |at: usize| view.y0 + at as f32 / height as f32 * view.height();
    (x1 > 0).then(|| NormBox { x0: x(x0), y0: y(y0), x1: x(x1), y1: y(y1) })
}

/// Resamples `[height, width]` logits that cover `from` to ones that cover `to`, bilinear.
pub(crate) fn resample(
    logits: &[f32],
    from: NormBox,
    resampled: &mut [f32],
    to: NormBox,
    width: usize,
    height: usize,
) {
    let source = |at: usize, side: usize, (to0, to_side): (f32, f32), (from0, from_side): (f32, f32)| {
        let in_picture = to0 + (at as f32 + 0.5) / side as f32 * to_side;
        (in_picture - from0) / from_side * side as f32 - 0.5
    };
    let at = |x: i64, y: i64| {
        let inside = (0..width as i64).contains(&x) && (0..height as i64).contains(&y);
        if inside { logits[y as usize * width + x as usize] } else { OUTSIDE_LOGIT }
    };
    for (row, out) in resampled.chunks_exact_mut(width).enumerate() {
        let y = source(row, height, (to.y0, to.height()), (from.y0, from.height()));
        let (top, down) = (y.floor() as i64, y - y.floor());
        for (column, out) in out.iter_mut().enumerate() {
            let x = source(column, width, (to.x0, to.width()), (from.x0, from.width()));
            let (left, right) = (x.floor() as i64, x - x.floor());
            let upper = at(left, top) * (1.0 - right) + at(left + 1, top) * right;
            let lower = at(left, top + 1) * (1.0 - right) + at(left + 1, top + 1) * right;
            *out = upper * (1.0 - down) + lower * down;
        }
    }
}

/// The part of a mask that a view shows; `None` if that is all of it.
pub(crate) fn part(mask: &Mask, view: NormBox) -> Option<Mask> {
    if view == NormBox::WHOLE {
        return None;
    }
    let (width, height) = (mask.width_px(), mask.height_px());
    let [x0, y0, x1, y1] = view.to_pixels(width, height).map(|v| v.round() as usize);
    let (x1, y1) = (x1.clamp(x0 + 1, width as usize), y1.clamp(y0 + 1, height as usize));
    let rows = mask.data().chunks_exact(width as usize).take(y1).skip(y0);
    let data: Vec<u8> = rows.flat_map(|row| &row[x0..x1]).copied().collect();
    Mask::from_bytes((x1 - x0) as u32, (y1 - y0) as u32, data).ok()
}

#[cfg(test)]
mod tests {
    use sightline_core::Filter;

    use super::*;

    fn viewer() -> Viewer {
        let image = ImageSpec {
            height_px: 192,
            width_px: 320,
            mean: [0.0; 3],
            std: [1.0; 3],
            filter: Filter::Bilinear,
        };
        Viewer::new(Some(ViewSpec { margin: 2.0, min_side: 0.25 }), &image)
    }

    fn seen(x0: f32, y0: f32, x1: f32, y1: f32) -> Sights {
        Sights { around: Some(NormBox { x0, y0, x1, y1 }), ..Sights::default() }
    }

    #[test]
    fn a_prompt_is_looked_at_at_once_and_followed_smoothly() {
        let mut viewer = viewer();
        let walker = seen(0.5, 0.5, 0.55, 0.7);
        assert_eq!(viewer.choose(Sights { prompted: true, ..walker }, 1920, 1080), [624, 432, 768, 432]);
        // Growing to twice its size, the view follows in steps, the first as large as it must be to hold it.
        let mut last = 768;
        for _ in 0..20 {
            let big = seen(0.4, 0.3, 0.5, 0.7);
            let [x, y, width, height] = viewer.choose(big, 1920, 1080);
            assert!(f64::from(width) <= f64::from(last) * 1.12 && width >= last, "{width} after {last}");
            assert!(x <= 768 && x + width >= 960 && y <= 324 && y + height >= 756);
            last = width;
        }
        assert!(last > 1300, "{last}");
    }

    #[test]
    fn a_lost_object_opens_the_view() {
        let mut viewer = viewer();
        viewer.choose(Sights { prompted: true, ..seen(0.1, 0.1, 0.2, 0.2) }, 1280, 720);
        let lost = Sights { lost: true, ..Sights::default() };
        let widths: Vec<u32> = (0..20).map(|_| viewer.choose(lost, 1280, 720)[2]).collect();
        assert!(widths.is_sorted() && widths[0] < 500, "{widths:?}");
        assert_eq!(widths[19], 1280);
    }

    #[test]
    fn a_clicked_object_is_seen_with_more_around_it() {
        let part = seen(0.4, 0.4, 0.6, 0.6);
        let width = |clicked| viewer().choose(Sights { clicked, prompted: true, ..part }, 1280, 720)[2];
        assert_eq!((width(false), width(true)), (512, 1024));
    }

    #[test]
    fn small_pictures_and_models_without_a_view_are_seen_whole() {
        let mut viewer = viewer();
        let prompt = Sights { prompted: true, ..seen(0.1, 0.1, 0.12, 0.12) };
        assert_eq!(viewer.choose(prompt, 240, 144), [0, 0, 240, 144], "fewer pixels than the model takes");
        viewer.spec = None;
        assert_eq!(viewer.choose(prompt, 1920, 1080), [0, 0, 1920, 1080]);
    }

    #[test]
    fn logits_keep_their_place_in_the_picture() {
        let (width, height) = (16, 8);
        let view = NormBox { x0: 0.25, y0: 0.25, x1: 0.75, y1: 0.75 };
        let mut logits = vec![-10.0; width * height];
        for y in 2..6 {
            logits[y * width + 4..y * width + 12].fill(10.0);
        }
        let object = bounds(&logits, width, view).unwrap();
        assert_eq!(object, NormBox { x0: 0.375, y0: 0.375, x1: 0.625, y1: 0.625 });
        let mut wide = vec![0.0; width * height];
        resample(&logits, view, &mut wide, NormBox::WHOLE, width, height);
        assert_eq!(bounds(&wide, width, NormBox::WHOLE), Some(object));
        let mut same = vec![0.0; width * height];
        resample(&logits, view, &mut same, view, width, height);
        assert_eq!(same, logits);
    }
}
