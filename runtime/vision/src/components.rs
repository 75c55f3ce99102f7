//! Small connected components of a mask: holes are filled, sprinkles removed.
//!
//! Background and foreground are both joined over corners (8-connected), as the published CUDA operator
//! `get_connected_componnets` of the `sam2` package joins them.

use std::ops::Range;

use sightline_core::{Kind, ValueError};

/// What is written into a hole.
const FILLED: f32 = 0.1;
/// What is written into a sprinkle.
const REMOVED: f32 = -0.1;

/// Fills holes and removes sprinkles in low-res mask logits. Owns its scratch: keep one per stream.
///
/// Logits are row-major `[height, width]` f32; above 0 is the object, 0 and below is background, NaN is neither.
#[derive(Debug)]
pub struct ComponentFilter {
    width: usize,
    height: usize,
    /// Runs of one kind of pixel, row by row.
    runs: Vec<Run>,
}

/// Pixels `start..end` of a row, and the run that stands for its component (itself: this one does).
#[derive(Debug, Clone, Copy)]
struct Run {
    row: usize,
    start: usize,
    end: usize,
    parent: usize,
    /// Pixels of the component, once this run stands for it.
    area_px: usize,
}

impl ComponentFilter {
    /// Prepares for logits of `width` x `height`.
    pub fn new(width: usize, height: usize) -> Self {
        // As many runs as a row can have; once warm nothing is allocated.
        Self { width, height, runs: Vec::with_capacity(height * width.div_ceil(2)) }
    }

    /// Fills every component of background of at most `max_area_px` pixels with a logit of 0.1; gives the number of
    /// pixels that changed. A component at the border is a hole like any other. 0 fills nothing.
    ///
    /// Source: `fill_holes_in_mask_scores` of `sam2/utils/misc.py`. The published video predictor applies it with an
    /// area of 8 (`fill_hole_area`) to the low-res masks it hands out, not to what it remembers.
    ///
    /// # Errors
    /// `Kind::Size` if there are not `width * height` logits.
    pub fn fill_holes(&mut self, logits: &mut [f32], max_area_px: usize) -> Result<usize, ValueError> {
        self.label(logits, |logit| logit <= 0.0)?;
        Ok(self.replace(logits, max_area_px, FILLED))
    }

    /// Gives every component of the object a logit of -0.1 that has at most `max_area_px` pixels and at most half of
    /// all the object's; gives the number of pixels that changed. 0 removes nothing.
    ///
    /// Source: the sprinkles of `fill_holes_in_mask_scores` in `sam3/model/sam3_tracker_utils.py`; half of the object
    /// is what keeps a tiny object from being taken for a sprinkle. (`max_sprinkle_area` of SAM 2's *image* predictor
    /// has no such guard and writes -10.)
    ///
    /// # Errors
    /// `Kind::Size` if there are not `width * height` logits.
    pub fn remove_sprinkles(&mut self, logits: &mut [f32], max_area_px: usize) -> Result<usize, ValueError> {
        self.label(logits, |logit| logit > 0.0)?;
        let object_px: usize = self.runs.iter().map(|run| run.end - run.start).sum();
        Ok(self.replace(logits, max_area_px.min(object_px / 2), REMOVED))
    }

    /// Overwrites the components that are small enough.
    fn replace(&mut self, logits: &mut [f32], max_area_px: usize, with: f32) -> usize {
        let mut changed = 0;
        for at in 0..self.runs.len() {
            let root = self.root(at);
            let Run { row, start, end, .. } = self.runs[at];
            if self.runs[root].area_px <= max_area_px {
                logits[row * self.width + start..row * self.width + end].fill(with);
                changed += end - start;
            }
        }
        changed
    }

    /// Finds the runs and joins those that touch.
    fn label(&mut self, logits: &[f32], kind: impl Fn(f32) -> bool) -> Result<(), ValueError> {
        let (width, height) = (self.width, self.height);
        if logits.len() != width * height || logits.is_empty() {
            let expected = format!("{} values for [{height},{width}], at least 1", width * height);
            return Err(ValueError::new(Kind::Size, "low-res mask logits", expected, logits.len()));
        }
        self.runs.clear();
        let mut above = 0..0;
        for (row, line) in logits.chunks_exact(self.width).enumerate() {
            let first = self.runs.len();
            let mut x = 0;
            while x < self.width {
                let same = line[x..].iter().take_while(|logit| kind(**logit)).count();
                if same > 0 {
                    let parent = self.runs.len();
                    self.runs.push(Run { row, start: x, end: x + same, parent, area_px: same });
                }
                // The pixel behind a run is of the other kind.
                x += same + 1;
            }
            self.join(above, first);
            above = first..self.runs.len();
        }
        Ok(())
    }

    /// Joins the runs of the row above with those from `first` on; both are in order from left to right.
    fn join(&mut self, mut above: Range<usize>, first: usize) {
        for at in first..self.runs.len() {
            let Run { start, end, .. } = self.runs[at];
            // What ends a pixel or more to the left touches neither this run nor one further right.
            while above.start < above.end && self.runs[above.start].end < start {
                above.start += 1;
            }
            let mut other = above.start;
            while other < above.end && self.runs[other].start <= end {
                self.unite(at, other);
                other += 1;
            }
        }
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.runs[a].parent = b;
            self.runs[b].area_px += self.runs[a].area_px;
        }
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.runs[at].parent != at {
            // Every second step on the way becomes shorter for those to come.
            let parent = self.runs[at].parent;
            self.runs[at].parent = self.runs[parent].parent;
            at = parent;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `#` is the object, `.` background; after the filter `+` is what was filled, `-` what was removed.
    fn drawn(picture: &str) -> (Vec<f32>, usize) {
        let rows: Vec<&str> = picture.split_whitespace().collect();
        let logits = rows.iter().flat_map(|row| row.chars()).map(|c| if c == '#' { 3.0 } else { -3.0 });
        (logits.collect(), rows[0].len())
    }

    fn text(logits: &[f32], width: usize) -> String {
        let letter = |logit: &f32| match *logit {
            v if v == FILLED => '+',
            v if v == REMOVED => '-',
            v if v > 0.0 => '#',
            _ => '.',
        };
        logits
            .chunks(width)
            .map(|row| row.iter().map(letter).collect::<String>())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn holes() {
        for (case, picture, max_area_px, expected) in [
            ("one pixel", "#### #.## ####", 1, "#### #+## ####"),
            ("too large", "##### #..## #####", 1, "##### #..## #####"),
            ("just small enough", "##### #..## #####", 2, "##### #++## #####"),
            ("joined over a corner", "##### #.### ##.## #####", 1, "##### #.### ##.## #####"),
            ("joined over a corner, small enough", "##### #.### ##.## #####", 2, "##### #+### ##+## #####"),
            ("leaks over a corner", ".#### #.### #####", 1, ".#### #.### #####"),
            ("at the border", "##.## ##### #####", 1, "##+## ##### #####"),
            ("a U of background", "#.#.# #.#.# #...#", 6, "#.#.# #.#.# #...#"),
            ("a U of background, small enough", "#.#.# #.#.# #...#", 7, "#+#+# #+#+# #+++#"),
            ("a W whose arms meet late", ".#.#. .#.#. .....", 8, ".#.#. .#.#. ....."),
            ("no object", "... ...", 5, "... ..."),
            ("nothing asked for", "#### #.## ####", 0, "#### #.## ####"),
        ] {
            let (mut logits, width) = drawn(picture);
            let mut filter = ComponentFilter::new(width, logits.len() / width);
            let changed = filter.fill_holes(&mut logits, max_area_px).unwrap();
            assert_eq!(text(&logits, width), expected, "{case}");
            assert_eq!(changed, expected.matches('+').count(), "{case}");
        }
    }

    #[test]
    fn sprinkles() {
        for (case, picture, max_area_px, expected) in [
            ("one pixel", "###.. ###.# ###..", 1, "###.. ###.- ###.."),
            ("too large", "###.# ###.# ###..", 1, "###.# ###.# ###.."),
            ("held by a corner", "###.. ###.. ...#.", 4, "###.. ###.. ...#."),
            ("a tiny object", ".... .#.. ....", 8, ".... .#.. ...."),
            ("a tiny object and less", ".... ##.. ...#", 8, ".... ##.. ...-"),
            ("no object", "... ...", 5, "... ..."),
            ("nothing asked for", "###.. ###.# ###..", 0, "###.. ###.# ###.."),
        ] {
            let (mut logits, width) = drawn(picture);
            let mut filter = ComponentFilter::new(width, logits.len() / width);
            let changed = filter.remove_sprinkles(&mut logits, max_area_px).unwrap();
            assert_eq!(text(&logits, width), expected, "{case}");
            assert_eq!(changed, expected.matches('-').count(), "{case}");
        }
    }

    #[test]
    fn the_edges_of_the_kinds() {
        let mut logits = [f32::NAN, 1.0, 0.0, 1.0];
        let mut filter = ComponentFilter::new(4, 1);
        assert_eq!(filter.fill_holes(&mut logits, 4).unwrap(), 1, "0 is background, NaN is not");
        assert!(logits[0].is_nan());
        assert_eq!(logits[1..], [1.0, FILLED, 1.0]);
        let error = filter.fill_holes(&mut logits[..3], 4).expect_err("one is missing");
        assert_eq!(error.to_string(), "low-res mask logits: expected 4 values for [1,4], at least 1, got 3");
    }
}
