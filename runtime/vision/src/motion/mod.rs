//! What moves between two pictures, the camera's own motion taken out.

pub(crate) mod flow;

use sightline_core::{Kind, NormBox, Picture, ValueError};

use self::flow::{Pyramid, follow};
use crate::Region;

/// Pixels of the longer side that motion is looked for in.
const LONG_SIDE_PX: usize = 320;
/// Distance of the points that are followed everywhere.
const STEP_PX: usize = 8;
/// Points followed in a region.
const REGION_POINTS: usize = 25;
/// Points that a region's motion must be seen at, and the part of those tried: where only a few odd points of a road or
/// the sky are found again, they tell nothing.
const MIN_POINTS: usize = 3;
const MIN_SEEN: f32 = 0.25;
/// What is further than this from where the camera's motion would bring it moves by itself: so many times the median of
/// all ways, between these limits, in pixels of 320. Under a fixed camera a walker moves a pixel or two in an eighth of a
/// second; under a moving one a road without texture seems to.
const MOVES_MEDIANS: f32 = 4.0;
const MOVES_PX: [f32; 2] = [0.5, 1.5];
/// Of a place and its eight neighbours so many must move.
const NEIGHBOURS: usize = 3;
/// Places that make a region.
const MIN_CELLS: usize = 3;
/// The camera's motion is fitted in rounds; what is off by more than this counts for little.
const ROUNDS_PX: [f64; 6] = [16.0, 8.0, 4.0, 2.0, 1.5, 1.5];
/// Things are filmed in the middle: what lies elsewhere knows more of the camera.
const MIDDLE_WEIGHT: f64 = 0.25;

#[derive(Debug, Clone, Copy)]
struct Place {
    at: [f32; 2],
    /// The whole way, then without the camera's; `None` where nothing could be followed.
    way: Option<[f32; 2]>,
}

/// How a region moves, the camera's motion taken out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OwnMotion {
    /// From the first picture, where it lies, to the second, in widths and heights of the picture; exactly 0 for what
    /// does not move by itself.
    pub way: [f32; 2],
    /// Share in `[0, 1]` of the points it is seen at that move.
    pub moving: f32,
    /// How far its way differs from its surround's, in `[0, 1]`: 0 where that may be an error of measurement, as for a
    /// part of something that moves, 0.5 at twice that.
    pub stands_out: f32,
}

/// Measures motion between two pictures. Owns its scratch: keep one where it is used.
///
/// Sparse pyramidal Lucas-Kanade (Bouguet 2001) with a check of the way back, on grey copies whose longer side has 320
/// pixels; the camera's motion is an affine map fitted by reweighted least squares to points all over the picture.
/// Ways of up to about a sixth of the picture are found. Deterministic; the buffers grow with the first pictures.
#[derive(Debug, Default)]
pub struct Motion {
    here: Pyramid,
    there: Pyramid,
    sums: Vec<u32>,
    columns: usize,
    places: Vec<Place>,
    /// From centred coordinates to the camera's way, in pixels.
    camera: [[f64; 3]; 2],
    /// What is longer is no error of measurement, in pixels.
    error_px: f32,
}

impl Motion {
    /// With nothing measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Measures the way of everything in `here` to its place in `there`.
    ///
    /// # Errors
    /// `Kind::Size` when the pictures differ in size or a side is below 64 pixels.
    pub fn measure(&mut self, here: &Picture<'_>, there: &Picture<'_>) -> Result<(), ValueError> {
        let (width_px, height_px) = (here.width_px(), here.height_px());
        if (width_px, height_px) != (there.width_px(), there.height_px()) || width_px.min(height_px) < 64 {
            let got = format!("{}x{}", there.width_px(), there.height_px());
            let expected = format!("{width_px}x{height_px} as the first, sides of at least 64 pixels");
            return Err(ValueError::new(Kind::Size, "second picture", expected, got));
        }
        let scale = LONG_SIDE_PX as f32 / width_px.max(height_px) as f32;
        let [width, height] =
            [width_px, height_px].map(|side| ((side as f32 * scale).round() as usize).max(8));
        self.here.fill(here, width, height, &mut self.sums);
        self.there.fill(there, width, height, &mut self.sums);
        self.columns = width / STEP_PX;
        self.places.clear();
        for row in 0..height / STEP_PX {
            for column in 0..self.columns {
                let at = [column, row].map(|at| (at * STEP_PX + STEP_PX / 2) as f32);
                self.places.push(Place { at, way: follow(&self.here, &self.there, at) });
            }
        }
        self.fit_camera();
        for at in 0..self.places.len() {
            let Place { at: point, way } = self.places[at];
            self.places[at].way = way.map(|way| self.without_camera(point, way));
        }
        let mut all: Vec<f32> =
            self.places.iter().filter_map(|place| place.way).map(|[x, y]| x.hypot(y)).collect();
        let [least, most] = MOVES_PX;
        self.error_px = (MOVES_MEDIANS * median(&mut all)).clamp(least, most);
        Ok(())
    }

    /// A region's own motion, by the median over its points. It moves when that, and most of the points, are further from
    /// where the camera's motion would bring them than such measurements err. `None` when it is seen at too few.
    pub fn of(&self, region: &Region) -> Option<OwnMotion> {
        let (tried, ways) = self.ways(region);
        if ways.len() < MIN_POINTS || (ways.len() as f32) < MIN_SEEN * tried as f32 {
            return None;
        }
        let moving = ways.iter().filter(|way| self.moves(**way)).count() as f32 / ways.len() as f32;
        let way = median_way(&ways);
        if !self.moves(way) || moving < 0.5 {
            return Some(OwnMotion { moving, ..OwnMotion::default() });
        }
        let (_, around) = self.ways(&region.surround());
        let around = if around.len() < MIN_POINTS { [0.0; 2] } else { median_way(&around) };
        let apart_px = (way[0] - around[0]).hypot(way[1] - around[1]);
        let (width, height) = self.here.size();
        Some(OwnMotion {
            way: [way[0] / width as f32, way[1] / height as f32],
            moving,
            stands_out: 1.0 - self.error_px / apart_px.max(self.error_px),
        })
    }

    /// How many of a region's points were tried, and the own ways of those seen in both pictures, in pixels.
    fn ways(&self, region: &Region) -> (usize, Vec<[f32; 2]>) {
        let (width, height) = self.here.size();
        let mut tried = 0;
        let ways = region.points(REGION_POINTS).filter_map(|[x, y]| {
            tried += 1;
            let at = [x * width as f32 - 0.5, y * height as f32 - 0.5];
            Some(self.without_camera(at, follow(&self.here, &self.there, at)?))
        });
        let ways = ways.collect();
        (tried, ways)
    }

    /// Boxes around what moves by itself in the first picture, the largest first, at most `most`.
    pub fn boxes(&self, most: usize) -> Vec<NormBox> {
        let columns = self.columns;
        let rows = self.places.len() / columns.max(1);
        let moves: Vec<bool> =
            self.places.iter().map(|place| place.way.is_some_and(|way| self.moves(way))).collect();
        let around = |at: usize| {
            let (x, y) = (at % columns, at / columns);
            (y.saturating_sub(1)..(y + 2).min(rows))
                .flat_map(move |y| (x.saturating_sub(1)..(x + 2).min(columns)).map(move |x| y * columns + x))
        };
        let mut left: Vec<bool> = (0..moves.len())
            .map(|at| moves[at] && around(at).filter(|near| moves[*near]).count() >= NEIGHBOURS)
            .collect();
        let mut found: Vec<(usize, [usize; 4])> = Vec::new();
        for start in 0..left.len() {
            if !std::mem::take(&mut left[start]) {
                continue;
            }
            let (mut open, mut cells, mut extent) = (vec![start], 0, [columns, rows, 0, 0]);
            while let Some(at) = open.pop() {
                let (x, y) = (at % columns, at / columns);
                cells += 1;
                extent = [extent[0].min(x), extent[1].min(y), extent[2].max(x + 1), extent[3].max(y + 1)];
                for near in around(at) {
                    if std::mem::take(&mut left[near]) {
                        open.push(near);
                    }
                }
            }
            if cells >= MIN_CELLS {
                found.push((cells, extent));
            }
        }
        found.sort_by_key(|(cells, extent)| (std::cmp::Reverse(*cells), *extent));
        let share = |at: usize, of: usize| at as f32 / of as f32;
        let boxes = found.into_iter().take(most).map(|(_, [x0, y0, x1, y1])| NormBox {
            x0: share(x0, columns),
            y0: share(y0, rows),
            x1: share(x1, columns),
            y1: share(y1, rows),
        });
        boxes.collect()
    }

    fn moves(&self, way: [f32; 2]) -> bool {
        way[0].hypot(way[1]) > self.error_px
    }

    fn without_camera(&self, at: [f32; 2], way: [f32; 2]) -> [f32; 2] {
        let basis = self.basis(at);
        let camera = self.camera.map(|row| row.iter().zip(basis).map(|(a, b)| a * b).sum::<f64>() as f32);
        [way[0] - camera[0], way[1] - camera[1]]
    }

    fn basis(&self, at: [f32; 2]) -> [f64; 3] {
        let (width, height) = self.here.size();
        let centred = |v: f32, side: usize| (f64::from(v) - side as f64 / 2.0) / width as f64;
        [centred(at[0], width), centred(at[1], height), 1.0]
    }

    fn fit_camera(&mut self) {
        let (width, height) = self.here.size();
        let is_outer = |at: [f32; 2]| {
            let (x, y) = (at[0] / width as f32, at[1] / height as f32);
            (x - 0.5).abs() > 0.35 || y < 0.2
        };
        let seen: Vec<([f32; 2], [f32; 2])> =
            self.places.iter().filter_map(|place| Some((place.at, place.way?))).collect();
        let outer = seen.iter().filter(|(at, _)| is_outer(*at)).count();
        let few = outer < 20;
        let (mut x, mut y): (Vec<f32>, Vec<f32>) =
            seen.iter().filter(|(at, _)| few || is_outer(*at)).map(|(_, way)| (way[0], way[1])).unzip();
        self.camera = [[0.0, 0.0, f64::from(median(&mut x))], [0.0, 0.0, f64::from(median(&mut y))]];
        for limit in ROUNDS_PX {
            // A little ridge keeps the fit where there are no points.
            let mut matrix = [[1e-3, 0.0, 0.0], [0.0, 1e-3, 0.0], [0.0, 0.0, 1e-6]];
            let mut right = [[0.0; 3]; 2];
            for (at, way) in &seen {
                let [x, y] = self.without_camera(*at, *way).map(f64::from);
                let doubt = 1.0 + (x * x + y * y) / (limit * limit);
                let weight = if is_outer(*at) { 1.0 } else { MIDDLE_WEIGHT } / (doubt * doubt);
                let basis = self.basis(*at);
                for (row, a) in matrix.iter_mut().zip(basis) {
                    row.iter_mut().zip(basis).for_each(|(to, b)| *to += weight * a * b);
                }
                for (row, way) in right.iter_mut().zip(way) {
                    row.iter_mut().zip(basis).for_each(|(to, b)| *to += weight * b * f64::from(*way));
                }
            }
            self.camera = right.map(|right| solve(&matrix, &right));
        }
    }
}

/// Cramer's rule; the ridge keeps the determinant from 0.
fn solve(matrix: &[[f64; 3]; 3], right: &[f64; 3]) -> [f64; 3] {
    let determinant = |m: &[[f64; 3]; 3]| {
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    };
    let all = determinant(matrix);
    std::array::from_fn(|column| {
        let mut replaced = *matrix;
        replaced.iter_mut().zip(right).for_each(|(row, value)| row[column] = *value);
        determinant(&replaced) / all
    })
}

fn median_way(ways: &[[f32; 2]]) -> [f32; 2] {
    [0, 1].map(|axis| median(&mut ways.iter().map(|way| way[axis]).collect::<Vec<_>>()))
}

/// 0 for none.
fn median(values: &mut [f32]) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
pub(crate) mod tests;
