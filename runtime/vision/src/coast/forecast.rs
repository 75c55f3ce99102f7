//! Where a mask is expected a moment later, from two earlier ones alone.

use std::time::Duration;

use sightline_core::Rle;

use super::{fit::Move, warp::moved};

/// Cells of the longer side of the grid that two masks are laid over each other on.
const GRID: usize = 64;
/// Steps of the search for the best place; each is a cell.
const MAX_STEPS: usize = 24;
/// Two masks that, laid over each other, agree (intersection over union) no more than the first tell nothing of a motion;
/// those that agree as the second tell all.
const TRUST: [f32; 2] = [0.3, 0.8];
/// How far a growth is believed, as a power: edges tremble more than middles do.
const GROWTH_TRUST: f32 = 0.5;
/// A growth from one mask to the next beyond this is none.
const MAX_GROWTH: f32 = 1.25;
/// Nobody knows where a thing is after this.
const MAX_AHEAD: Duration = Duration::from_millis(500);

/// How a mask moves, as two of them show it: the way that lays the older best over the newer, not that of their centres,
/// which leaps when an arm is found or lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    middle_px: [f32; 2],
    /// Pixels of the picture a second, trust taken in.
    way_px_s: [f32; 2],
    /// Natural logarithm of the growth of a side a second.
    growth_s: f32,
}

impl Course {
    /// The course from one mask to another of the same object, the newer `apart` later. `None` when a mask is empty, the
    /// pictures differ in size, no time passed, or the masks have so little in common that nothing can be said.
    pub fn of(older: &Rle, newer: &Rle, apart: Duration) -> Option<Self> {
        if (older.width_px(), older.height_px()) != (newer.width_px(), newer.height_px()) || apart.is_zero() {
            return None;
        }
        let (was, is) = (Shape::of(older)?, Shape::of(newer)?);
        let cell = was.side_px().max(is.side_px()).div_ceil(GRID as u32).max(1);
        let (below, above) = (Grid::of(older, was.bounds, cell), Grid::of(newer, is.bounds, cell));
        let offset: [f32; 2] =
            [0, 1].map(|axis| (is.bounds[axis] as f32 - was.bounds[axis] as f32) / cell as f32);
        let guess = [0, 1].map(|axis| (is.middle[axis] - was.middle[axis]) / cell as f32 - offset[axis]);
        let best = below.laid_over(&above, guess);
        let agreement = below.agreement(&above, best);
        let trust = ((agreement - TRUST[0]) / (TRUST[1] - TRUST[0])).clamp(0.0, 1.0);
        if trust == 0.0 {
            return None;
        }
        let seconds = apart.as_secs_f32();
        let way = [0, 1].map(|axis| (best[axis] + offset[axis]) * cell as f32);
        let growth = (is.spread / was.spread).clamp(1.0 / MAX_GROWTH, MAX_GROWTH);
        Some(Self {
            middle_px: is.middle,
            way_px_s: way.map(|v| v * trust / seconds),
            growth_s: growth.ln() * GROWTH_TRUST * trust / seconds,
        })
    }

    /// The newer of the two masks where it is expected `ahead` later (half a second at most): a straight way at the same
    /// speed, growing or shrinking at the same rate. What leaves the picture is cut off.
    pub fn ahead(&self, newer: &Rle, ahead: Duration) -> Rle {
        let seconds = ahead.min(MAX_AHEAD).as_secs_f32();
        let scale = (self.growth_s * seconds).exp().clamp(1.0 / MAX_GROWTH, MAX_GROWTH);
        let way = self.way_px_s.map(|v| v * seconds);
        if way.iter().all(|v| v.abs() < 0.5) && (scale - 1.0).abs() < 1e-3 {
            return newer.clone();
        }
        moved(newer, &Move::about(self.middle_px, way, scale))
    }
}

/// Where `newer` is expected `ahead` after it was right, `older` being `apart` before it: [`Course::of`] and
/// [`Course::ahead`] in one; `newer` itself where there is no course.
pub fn forecast(older: &Rle, newer: &Rle, apart: Duration, ahead: Duration) -> Rle {
    Course::of(older, newer, apart).map_or_else(|| newer.clone(), |course| course.ahead(newer, ahead))
}

/// A mask's place and size.
struct Shape {
    /// Tight box, right and bottom exclusive.
    bounds: [u32; 4],
    middle: [f32; 2],
    /// Geometric mean of the standard deviations of columns and rows, in pixels.
    spread: f32,
}

impl Shape {
    fn of(mask: &Rle) -> Option<Self> {
        let mut bounds = [u32::MAX, u32::MAX, 0, 0];
        let (mut count, mut sum, mut squares) = (0.0_f64, [0.0_f64; 2], [0.0_f64; 2]);
        mask.for_each_run(|x, y0, y1| {
            bounds = [bounds[0].min(x), bounds[1].min(y0), bounds[2].max(x + 1), bounds[3].max(y1)];
            let length = f64::from(y1 - y0);
            let (column, row) = (f64::from(x) + 0.5, f64::from(y0 + y1) / 2.0);
            count += length;
            sum = [sum[0] + length * column, sum[1] + length * row];
            let within = (length * length - 1.0) / 12.0;
            squares = [squares[0] + length * column * column, squares[1] + length * (row * row + within)];
        });
        if count == 0.0 {
            return None;
        }
        let middle = sum.map(|v| v / count);
        let spread: f64 =
            [0, 1].iter().map(|axis| (squares[*axis] / count - middle[*axis].powi(2)).max(0.08)).product();
        Some(Self { bounds, middle: middle.map(|v| v as f32), spread: spread.powf(0.25) as f32 })
    }

    fn side_px(&self) -> u32 {
        let [x0, y0, x1, y1] = self.bounds;
        (x1 - x0).max(y1 - y0)
    }
}

/// How much of each cell of a mask's box is set, in `[0, 1]`, row-major.
struct Grid {
    width: usize,
    height: usize,
    cells: Vec<f32>,
}

impl Grid {
    fn of(mask: &Rle, bounds: [u32; 4], cell: u32) -> Self {
        let [left, top, right, bottom] = bounds;
        let [width, height] = [right - left, bottom - top].map(|side| side.div_ceil(cell) as usize);
        let mut cells = vec![0.0; width * height];
        let pixel = 1.0 / (cell * cell) as f32;
        mask.for_each_run(|x, y0, y1| {
            let column = ((x - left) / cell) as usize;
            let (mut from, end) = (y0 - top, y1 - top);
            while from < end {
                let row = from / cell;
                let stop = ((row + 1) * cell).min(end);
                cells[row as usize * width + column] += (stop - from) as f32 * pixel;
                from = stop;
            }
        });
        Self { width, height, cells }
    }

    /// Sum of the products of cells that lie over each other when this grid is moved by whole cells.
    fn overlap(&self, other: &Self, way: [i32; 2]) -> f32 {
        let range = |way: i32, here: usize, there: usize| {
            let start = (-way).max(0) as usize;
            start..(there as i32 - way).clamp(start as i32, here.max(start) as i32) as usize
        };
        let (columns, rows) =
            (range(way[0], self.width, other.width), range(way[1], self.height, other.height));
        if columns.is_empty() {
            return 0.0;
        }
        let shifted = (columns.start as i32 + way[0]) as usize;
        rows.map(|row| {
            let here = &self.cells[row * self.width..][columns.clone()];
            let there = &other.cells[(row as i32 + way[1]) as usize * other.width..][shifted..][..here.len()];
            here.iter().zip(there).map(|(a, b)| a * b).sum::<f32>()
        })
        .sum()
    }

    /// The way in cells that lays this grid best over the other: uphill from a guess, then between cells by a parabola.
    fn laid_over(&self, other: &Self, guess: [f32; 2]) -> [f32; 2] {
        let mut at = guess.map(|v| v.round() as i32);
        let mut best = self.overlap(other, at);
        for _ in 0..MAX_STEPS {
            let around = [[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [1, -1], [-1, 1], [1, 1]];
            let next = around
                .map(|[x, y]| [at[0] + x, at[1] + y])
                .map(|way| (self.overlap(other, way), way))
                .into_iter()
                .max_by(|a, b| a.0.total_cmp(&b.0));
            match next {
                Some((more, way)) if more > best => (best, at) = (more, way),
                _ => break,
            }
        }
        [0, 1].map(|axis| {
            let side = |step: i32| {
                let mut way = at;
                way[axis] += step;
                self.overlap(other, way)
            };
            let (before, after) = (side(-1), side(1));
            let bend = before - 2.0 * best + after;
            let part = if bend < -f32::EPSILON { 0.5 * (before - after) / bend } else { 0.0 };
            at[axis] as f32 + part.clamp(-0.5, 0.5)
        })
    }

    /// Intersection over union when this grid is moved by `way` cells, between cells bilinear.
    fn agreement(&self, other: &Self, way: [f32; 2]) -> f32 {
        let base = way.map(|v| v.floor() as i32);
        let [right, lower] = [way[0] - base[0] as f32, way[1] - base[1] as f32];
        let cell = |x: i32, y: i32| {
            let inside = x >= 0 && y >= 0 && (x as usize) < self.width && (y as usize) < self.height;
            if inside { self.cells[y as usize * self.width + x as usize] } else { 0.0 }
        };
        let mut both = 0.0;
        for y in 0..other.height {
            for x in 0..other.width {
                let there = other.cells[y * other.width + x];
                if there > 0.0 {
                    let (u, v) = (x as i32 - base[0], y as i32 - base[1]);
                    let row = |v: i32| cell(u, v) * (1.0 - right) + cell(u - 1, v) * right;
                    both += there.min(row(v) * (1.0 - lower) + row(v - 1) * lower);
                }
            }
        }
        let all: f32 = self.cells.iter().chain(&other.cells).sum();
        both / (all - both).max(f32::EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sightline_core::Mask;

    const FRAME: Duration = Duration::from_millis(40);

    /// A body of 60 by 40 pixels, its middle at `at`, and an arm that may be there.
    fn thing(at: [f32; 2], size: f32, arm: bool) -> Rle {
        let mut mask = Mask::new(320, 180);
        for index in 0..320 * 180 {
            let (x, y) = ((index % 320) as f32 + 0.5 - at[0], (index / 320) as f32 + 0.5 - at[1]);
            let body = (x / 30.0).hypot(y / 20.0) < size;
            let reach = arm && (25.0..60.0).contains(&x) && y.abs() < 4.0;
            mask.data_mut()[index] = u8::from(body || reach);
        }
        Rle::encode(&mask)
    }

    fn iou(a: &Rle, b: &Rle) -> f64 {
        crate::davis::region_similarity(&a.decode(), &b.decode()).unwrap()
    }

    #[test]
    fn a_mask_goes_on_as_it_went() {
        let at = [120.0, 90.0];
        for (name, from, to, frames, least) in [
            ("still", (at, 1.0, false), (at, 1.0, false), 1, 1.0),
            ("to the right", ([112.0, 90.0], 1.0, false), (at, 1.0, false), 1, 0.97),
            ("three frames", ([112.0, 94.0], 1.0, false), (at, 1.0, false), 3, 0.93),
            ("an arm is found", ([112.0, 90.0], 1.0, false), (at, 1.0, true), 1, 0.85),
            ("an arm is lost", ([112.0, 90.0], 1.0, true), (at, 1.0, false), 1, 0.85),
            ("it grows", (at, 0.9, false), (at, 1.0, false), 1, 0.94),
        ] {
            let [older, newer] = [from, to].map(|(at, size, arm)| thing(at, size, arm));
            let goes = [0, 1].map(|axis| to.0[axis] + (to.0[axis] - from.0[axis]) * frames as f32);
            let grows = to.1 * (to.1 / from.1).powf(GROWTH_TRUST * frames as f32);
            let truth = thing(goes, grows, to.2);
            let found = forecast(&older, &newer, FRAME, FRAME * frames);
            let (got, before) = (iou(&found, &truth), iou(&newer, &truth));
            assert!(got >= least && got >= before, "{name}: {got}, repeated {before}");
        }
    }

    #[test]
    fn what_says_nothing_of_a_motion_is_no_course() {
        let here = thing([120.0, 90.0], 1.0, false);
        let none = Rle::empty(320, 180);
        let small = Rle::encode(&Mask::from_bytes(4, 4, vec![1; 16]).unwrap());
        for (name, older, newer, apart) in [
            ("nothing before", &none, &here, FRAME),
            ("nothing now", &here, &none, FRAME),
            ("another size", &small, &here, FRAME),
            ("no time", &here, &here, Duration::ZERO),
            ("ten times smaller", &thing([120.0, 90.0], 0.3, false), &here, FRAME),
        ] {
            assert_eq!(Course::of(older, newer, apart), None, "{name}");
            assert_eq!(&forecast(older, newer, apart, FRAME), newer, "{name}");
        }
        let course = Course::of(&thing([100.0, 90.0], 1.0, false), &here, FRAME).unwrap();
        assert_eq!(course.ahead(&here, Duration::from_secs(60)), course.ahead(&here, MAX_AHEAD));
    }
}
