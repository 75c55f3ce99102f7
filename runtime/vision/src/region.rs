use sightline_core::{Kind, NormBox, Rle, ValueError};

use crate::MaskUpscaler;

/// A mask of few pixels over a part of the picture, as a model's low-res logits are; a bit a pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    view: NormBox,
    width: usize,
    height: usize,
    words: Vec<u64>,
}

impl Region {
    /// What is positive in row-major `[height, width]` logits that cover `view` of the picture.
    ///
    /// # Errors
    /// `Kind::Size` when there are no logits or not whole rows of `width`.
    pub fn from_logits(logits: &[f32], width: usize, view: NormBox) -> Result<Self, ValueError> {
        if logits.is_empty() || width == 0 || !logits.len().is_multiple_of(width) {
            let expected = format!("rows of {width} values, at least one");
            return Err(ValueError::new(Kind::Size, "low-res mask logits", expected, logits.len()));
        }
        let word = |logits: &[f32]| {
            logits.iter().enumerate().fold(0, |word, (at, logit)| word | u64::from(*logit > 0.0) << at)
        };
        let words = logits.chunks(64).map(word).collect();
        Ok(Self { view, width, height: logits.len() / width, words })
    }

    /// Number of set pixels.
    pub fn area_px(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Share of the whole picture it covers, in `[0, 1]`.
    pub fn area(&self) -> f32 {
        self.area_px() as f32 / (self.width * self.height) as f32 * self.view.width() * self.view.height()
    }

    /// Intersection over union with a region of the same grid, 0 for one of another or when both are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let both = self.both_px(other);
        both as f32 / (self.area_px() + other.area_px() - both).max(1) as f32
    }

    /// The part of the smaller of two regions of the same grid that lies in the other, in `[0, 1]`; 0 as [`Region::iou`].
    pub fn shared(&self, other: &Self) -> f32 {
        self.both_px(other) as f32 / self.area_px().min(other.area_px()).max(1) as f32
    }

    /// Pixels set in both; 0 if they are not of the same grid.
    fn both_px(&self, other: &Self) -> usize {
        if (self.width, self.height, self.view) != (other.width, other.height, other.view) {
            return 0;
        }
        self.words.iter().zip(&other.words).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// Columns and rows of the set pixels, row by row.
    fn pixels(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.words.iter().enumerate().flat_map(move |(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                let at = index * 64 + bit;
                Some((at % self.width, at / self.width))
            })
        })
    }

    /// Tight box in the whole picture; `None` when empty.
    pub fn bounds(&self) -> Option<NormBox> {
        let one = |(x, y): (usize, usize)| {
            let [x0, y0] = self.in_picture(x as f32, y as f32);
            let [x1, y1] = self.in_picture((x + 1) as f32, (y + 1) as f32);
            NormBox { x0, y0, x1, y1 }
        };
        self.pixels().map(one).reduce(NormBox::union)
    }

    /// Whether it reaches from the left to the right edge of its view, or from top to bottom.
    pub fn spans_view(&self) -> bool {
        let mut at_edge = [false; 4];
        for (x, y) in self.pixels() {
            for (edge, is) in
                at_edge.iter_mut().zip([x == 0, x + 1 == self.width, y == 0, y + 1 == self.height])
            {
                *edge |= is;
            }
        }
        (at_edge[0] && at_edge[1]) || (at_edge[2] && at_edge[3])
    }

    /// Points within it in normalised coordinates of the picture, spread evenly: about `count` of them where it has more
    /// pixels, up to 16 a pixel where it has fewer; row by row.
    pub fn points(&self, count: usize) -> impl Iterator<Item = [f32; 2]> + '_ {
        let area = self.area_px().max(1);
        let stride = (area / count.max(1)).max(1);
        let side = ((count as f32 / area as f32).sqrt() as usize).clamp(1, 4);
        self.pixels().step_by(stride).flat_map(move |(x, y)| {
            (0..side * side).map(move |at| {
                let part = |index: usize| (index as f32 + 0.5) / side as f32;
                self.in_picture(x as f32 + part(at % side), y as f32 + part(at / side))
            })
        })
    }

    /// What surrounds it: a ring about a quarter as wide as it is, at most eight pixels, a pixel away from it, on the same
    /// grid.
    pub fn surround(&self) -> Self {
        let wide = ((self.area_px() as f32).sqrt() / 4.0).round().clamp(2.0, 8.0) as usize;
        let (near, far) = (self.grown(1), self.grown(wide));
        Self { words: far.words.iter().zip(&near.words).map(|(far, near)| far & !near).collect(), ..far }
    }

    /// With all pixels at most `by` columns and rows away.
    fn grown(&self, by: usize) -> Self {
        let mut rows = vec![false; self.width * self.height];
        for (x, y) in self.pixels() {
            rows[y * self.width..][x.saturating_sub(by)..(x + by + 1).min(self.width)].fill(true);
        }
        let mut words = vec![0_u64; self.words.len()];
        for at in (0..rows.len()).filter(|at| rows[*at]) {
            let (x, y) = (at % self.width, at / self.width);
            for y in y.saturating_sub(by)..(y + by + 1).min(self.height) {
                let at = y * self.width + x;
                words[at / 64] |= 1 << (at % 64);
            }
        }
        Self { words, ..*self }
    }

    /// The mask at picture size, its edge smoothed as a model's is.
    ///
    /// # Errors
    /// As [`MaskUpscaler::run`].
    pub fn upscale(&self, width_px: u32, height_px: u32) -> Result<Rle, ValueError> {
        let mut logits = vec![-1.0; self.width * self.height];
        self.pixels().for_each(|(x, y)| logits[y * self.width + x] = 1.0);
        let [x0, y0, x1, y1] = self.view.to_pixels(width_px, height_px).map(|v| v.round() as u32);
        let mut upscaler = MaskUpscaler::new(self.width, self.height);
        upscaler
            .run(&logits, x1.saturating_sub(x0), y1.saturating_sub(y0))?
            .placed(x0, y0, width_px, height_px)
    }

    fn in_picture(&self, x: f32, y: f32) -> [f32; 2] {
        [
            self.view.x0 + x / self.width as f32 * self.view.width(),
            self.view.y0 + y / self.height as f32 * self.view.height(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of `[x0, y0, x1, y1]` on a 20x10 grid.
    fn block(bounds: [usize; 4], view: NormBox) -> Region {
        let [x0, y0, x1, y1] = bounds;
        let inside = |at: usize| (x0..x1).contains(&(at % 20)) && (y0..y1).contains(&(at / 20));
        let logits: Vec<f32> = (0..200).map(|at| if inside(at) { 3.0 } else { -3.0 }).collect();
        Region::from_logits(&logits, 20, view).unwrap()
    }

    #[test]
    fn a_region_knows_its_place_in_the_picture() {
        let half = NormBox { x0: 0.5, y0: 0.0, x1: 1.0, y1: 0.5 };
        let region = block([5, 2, 15, 4], half);
        assert_eq!(region.area_px(), 20);
        assert!((region.area() - 0.025).abs() < 1e-6);
        let bounds = region.bounds().unwrap();
        let wanted = NormBox { x0: 0.625, y0: 0.1, x1: 0.875, y1: 0.2 };
        assert!((bounds.x0 - wanted.x0).abs() < 1e-6 && (bounds.y1 - wanted.y1).abs() < 1e-6, "{bounds:?}");
        assert!(region.points(8).all(|[x, y]| (0.625..0.875).contains(&x) && (0.1..0.2).contains(&y)));
        assert!((8..=10).contains(&region.points(8).count()));
        assert_eq!(region.points(80).count(), 80);
        let mask = region.upscale(200, 100).unwrap();
        let share = mask.area_px() as f32 / 20000.0;
        assert!((share - region.area()).abs() < 0.004, "{share}");
        assert!(Region::from_logits(&[0.0; 7], 3, half).is_err());
        assert!(block([0, 0, 0, 0], half).bounds().is_none());
    }

    #[test]
    fn a_surround_is_a_ring_cut_off_at_the_edge() {
        let whole = NormBox::WHOLE;
        let middle = block([8, 4, 12, 6], whole).surround();
        // Two pixels on each side, but for the one next to it.
        assert_eq!(middle.area_px(), 8 * 6 - 6 * 4);
        assert_eq!(middle.iou(&block([7, 3, 13, 7], whole)), 0.0);
        assert_eq!(block([0, 0, 4, 2], whole).surround().area_px(), 6 * 4 - 5 * 3);
        assert_eq!(block([0, 0, 20, 10], whole).surround().area_px(), 0);
    }

    #[test]
    fn overlap_counts_pixels_of_one_grid() {
        let whole = NormBox::WHOLE;
        let (a, b) = (block([0, 0, 4, 4], whole), block([2, 0, 6, 4], whole));
        assert!((a.iou(&b) - 8.0 / 24.0).abs() < 1e-6);
        assert!((a.shared(&block([2, 0, 6, 8], whole)) - 0.5).abs() < 1e-6);
        let elsewhere = block([2, 0, 6, 4], NormBox { x1: 0.5, ..whole });
        assert_eq!(a.iou(&elsewhere), 0.0);
        assert!(block([0, 3, 20, 5], whole).spans_view() && block([3, 0, 5, 10], whole).spans_view());
        assert!(!block([0, 0, 19, 9], whole).spans_view());
    }
}
