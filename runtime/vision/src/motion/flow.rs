//! Where a small patch of one picture is in another: pyramidal Lucas-Kanade.

use sightline_core::Picture;

use crate::sample::shrink_grey;

/// Side of a patch.
const PATCH: usize = 9;
/// With a pixel around it, for the gradients.
const WIDE: usize = PATCH + 2;
/// Each level has half the side of the one before.
const LEVELS: usize = 4;
/// Levels that leave a thing of twenty pixels standing.
const NEAR_LEVELS: usize = 2;
const STEPS: usize = 6;
/// A step shorter than this, in pixels, is the last.
const STILL_PX: f32 = 0.05;
/// The least eigenvalue of a patch's structure, a pixel: below it there is nothing to hold on to.
const MIN_TEXTURE: f32 = 2.0;
/// A mean difference of so many grey levels leaves nothing to wish for.
const GOOD_ERROR: f32 = 4.0;
/// There and back again must end within this of the start, in pixels.
const MAX_RETURN_PX: f32 = 1.0;

/// A grey picture. In bytes: many are kept, and what rounding takes from a way is less than its own error.
#[derive(Debug, Default)]
struct Level {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

/// A picture at falling sizes.
#[derive(Debug, Default)]
pub(crate) struct Pyramid {
    levels: [Level; LEVELS],
}

impl Pyramid {
    /// Becomes a copy of a picture, the largest level `width` x `height`. `sums` is scratch.
    pub(crate) fn fill(&mut self, picture: &Picture<'_>, width: usize, height: usize, sums: &mut Vec<u32>) {
        let [first, ..] = &mut self.levels;
        (first.width, first.height) = (width, height);
        shrink_grey(picture, width, height, sums, &mut first.data);
        for level in 1..LEVELS {
            let (larger, smaller) = self.levels.split_at_mut(level);
            if let (Some(larger), Some(smaller)) = (larger.last(), smaller.first_mut()) {
                smaller.halve(larger);
            }
        }
    }

    /// Takes the memory that a picture of this size needs; what was in it is gone.
    pub(crate) fn size_for(&mut self, width: usize, height: usize) {
        let mut size = (width, height);
        for level in &mut self.levels {
            (level.width, level.height) = size;
            level.data.clear();
            // Not 0: zeroed memory is only taken from the system when it is written to.
            level.data.resize(size.0 * size.1, 128);
            size = (size.0.div_ceil(2), size.1.div_ceil(2));
        }
    }

    /// Size of the largest level.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.levels[0].width, self.levels[0].height)
    }
}

impl Level {
    fn halve(&mut self, larger: &Self) {
        (self.width, self.height) = (larger.width.div_ceil(2), larger.height.div_ceil(2));
        self.data.clear();
        for y in 0..self.height {
            let row = |y: usize| &larger.data[y.min(larger.height - 1) * larger.width..][..larger.width];
            let (upper, lower) = (row(2 * y), row(2 * y + 1));
            self.data.extend((0..self.width).map(|x| {
                let (left, right) = (2 * x, (2 * x + 1).min(larger.width - 1));
                let four = [upper[left], upper[right], lower[left], lower[right]];
                ((four.map(u16::from).iter().sum::<u16>() + 2) / 4) as u8
            }));
        }
    }

    /// The `N` x `N` pixels around `x`,`y`, bilinear; beyond the edge is what lies at it.
    fn patch<const N: usize>(&self, x: f32, y: f32) -> [[f32; N]; N] {
        let (x, y) = (x - (N / 2) as f32, y - (N / 2) as f32);
        let (left, top) = (x.floor() as isize, y.floor() as isize);
        let (right_weight, lower_weight) = (x - left as f32, y - top as f32);
        let inside =
            left >= 0 && top >= 0 && left as usize + N < self.width && top as usize + N < self.height;
        let mut patch = [[0.0; N]; N];
        let mut above = [0.0; N];
        for row in 0..=N {
            let line_y = (top + row as isize).clamp(0, self.height as isize - 1) as usize;
            let line = &self.data[line_y * self.width..][..self.width];
            let mut across = [0.0; N];
            if inside {
                let line = &line[left as usize..][..N + 1];
                for (to, pair) in across.iter_mut().zip(line.windows(2)) {
                    let (a, b) = (f32::from(pair[0]), f32::from(pair[1]));
                    *to = a + (b - a) * right_weight;
                }
            } else {
                let at = |x: isize| f32::from(line[x.clamp(0, self.width as isize - 1) as usize]);
                for (column, to) in across.iter_mut().enumerate() {
                    let (a, b) = (at(left + column as isize), at(left + column as isize + 1));
                    *to = a + (b - a) * right_weight;
                }
            }
            if let Some(out) = row.checked_sub(1).map(|row| &mut patch[row]) {
                for ((to, upper), lower) in out.iter_mut().zip(above).zip(across) {
                    *to = upper + (lower - upper) * lower_weight;
                }
            }
            above = across;
        }
        patch
    }
}

/// The way from `at` in one picture to the same thing in the other, both in pixels of the largest level; `None` where there
/// is no texture, the way leads out of the picture, or the way back ends elsewhere.
///
/// On small levels a small thing is lost in what is around it; so what did not come out well is tried again without them.
pub(crate) fn follow(from: &Pyramid, to: &Pyramid, at: [f32; 2]) -> Option<[f32; 2]> {
    let far = there_and_back(from, to, at, LEVELS);
    if let Some((way, error)) = far
        && error <= GOOD_ERROR
    {
        return Some(way);
    }
    let near = there_and_back(from, to, at, NEAR_LEVELS);
    far.into_iter().chain(near).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(way, _)| way)
}

/// A way and its patch's mean difference, from the smallest of so many levels on.
fn there_and_back(from: &Pyramid, to: &Pyramid, at: [f32; 2], levels: usize) -> Option<([f32; 2], f32)> {
    let (way, error) = one_way(from, to, at, levels)?;
    let (back, _) = one_way(to, from, [at[0] + way[0], at[1] + way[1]], levels)?;
    ((way[0] + back[0]).hypot(way[1] + back[1]) <= MAX_RETURN_PX).then_some((way, error))
}

fn one_way(from: &Pyramid, to: &Pyramid, at: [f32; 2], levels: usize) -> Option<([f32; 2], f32)> {
    let (mut way, mut error) = ([0.0_f32; 2], 0.0);
    for level in (0..levels).rev() {
        way = way.map(|way| way * 2.0);
        let scale = 1.0 / (1 << level) as f32;
        let start = at.map(|v| (v + 0.5) * scale - 0.5);
        match step(&from.levels[level], &to.levels[level], start, way) {
            Some(moved) => (way, error) = moved,
            None if level == 0 => return None,
            None => {}
        }
    }
    let (width, height) = to.size();
    let inside = |v: f32, side: usize| (0.0..=side as f32 - 1.0).contains(&v);
    (inside(at[0] + way[0], width) && inside(at[1] + way[1], height)).then_some((way, error))
}

/// Improves a way on one level, gives it and the mean difference there; `None` where there is no texture.
fn step(from: &Level, to: &Level, start: [f32; 2], mut way: [f32; 2]) -> Option<([f32; 2], f32)> {
    let wide: [[f32; WIDE]; WIDE] = from.patch(start[0], start[1]);
    let (mut dx, mut dy) = ([[0.0_f32; PATCH]; PATCH], [[0.0_f32; PATCH]; PATCH]);
    let (mut xx, mut xy, mut yy) = (0.0_f32, 0.0_f32, 0.0_f32);
    for y in 0..PATCH {
        for x in 0..PATCH {
            dx[y][x] = (wide[y + 1][x + 2] - wide[y + 1][x]) / 2.0;
            dy[y][x] = (wide[y + 2][x + 1] - wide[y][x + 1]) / 2.0;
            xx += dx[y][x] * dx[y][x];
            xy += dx[y][x] * dy[y][x];
            yy += dy[y][x] * dy[y][x];
        }
    }
    let least = (xx + yy - ((xx - yy).powi(2) + 4.0 * xy * xy).sqrt()) / 2.0;
    if least < MIN_TEXTURE * (PATCH * PATCH) as f32 {
        return None;
    }
    let determinant = xx * yy - xy * xy;
    let mut difference = 0.0;
    for _ in 0..STEPS {
        let there: [[f32; PATCH]; PATCH] = to.patch(start[0] + way[0], start[1] + way[1]);
        let (mut x_error, mut y_error) = (0.0_f32, 0.0_f32);
        difference = 0.0_f32;
        for y in 0..PATCH {
            for x in 0..PATCH {
                let error = wide[y + 1][x + 1] - there[y][x];
                x_error += error * dx[y][x];
                y_error += error * dy[y][x];
                difference += error.abs();
            }
        }
        let more = [(yy * x_error - xy * y_error) / determinant, (xx * y_error - xy * x_error) / determinant];
        way = [way[0] + more[0], way[1] + more[1]];
        // A patch that leaves the picture altogether is lost.
        if !way.iter().all(|v| v.abs() <= from.width.max(from.height) as f32) {
            return None;
        }
        if more[0].hypot(more[1]) < STILL_PX {
            break;
        }
    }
    Some((way, difference / (PATCH * PATCH) as f32))
}
