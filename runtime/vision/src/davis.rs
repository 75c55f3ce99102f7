//! The measures of the DAVIS benchmark, as `davis2017/metrics.py` of the official evaluation code defines them
//! for one frame and one object, without void pixels.

use sightline_core::{Kind, Mask, ValueError};

/// How far a boundary may be off: this part of the picture's diagonal, rounded up to whole pixels.
const BOUND_OF_DIAGONAL: f64 = 0.008;

fn check(pred: &Mask, truth: &Mask) -> Result<(), ValueError> {
    let size = |mask: &Mask| (mask.width_px(), mask.height_px());
    if size(pred) == size(truth) {
        return Ok(());
    }
    Err(ValueError::new(
        Kind::Size,
        "predicted mask",
        format_args!("{}x{} as the truth", truth.width_px(), truth.height_px()),
        format_args!("{}x{}", pred.width_px(), pred.height_px()),
    ))
}

/// Region similarity J in `[0, 1]`: intersection over union, 1 when both masks are empty (`db_eval_iou`).
///
/// # Errors
/// `Kind::Size` when the masks differ in size.
pub fn region_similarity(pred: &Mask, truth: &Mask) -> Result<f64, ValueError> {
    check(pred, truth)?;
    // In blocks, so that the counts stay in bytes and the loop in vector registers.
    let (mut both, mut either) = (0_u64, 0_u64);
    for (pred, truth) in pred.data().chunks(255).zip(truth.data().chunks(255)) {
        let pairs = pred.iter().zip(truth);
        both += u64::from(pairs.clone().fold(0_u8, |sum, (a, b)| sum + (a & b)));
        either += u64::from(pairs.fold(0_u8, |sum, (a, b)| sum + (a | b)));
    }
    Ok(if either == 0 { 1.0 } else { both as f64 / either as f64 })
}

/// Boundary measure F in `[0, 1]` (`f_measure` with `bound_th=0.008`): the harmonic mean of the parts of each
/// boundary that lie within `ceil(0.008 * diagonal)` pixels of the other, 1 when neither mask has a boundary, 0
/// when only one has.
///
/// A mask that covers the whole picture has no boundary: the picture's edge is none.
///
/// # Errors
/// `Kind::Size` when the masks differ in size.
pub fn boundary_f(pred: &Mask, truth: &Mask) -> Result<f64, ValueError> {
    check(pred, truth)?;
    let diagonal = f64::from(pred.width_px()).hypot(f64::from(pred.height_px()));
    let bound_px = (BOUND_OF_DIAGONAL * diagonal).ceil() as usize;
    let (pred, truth) = (Boundary::of(pred), Boundary::of(truth));
    if pred.points.is_empty() || truth.points.is_empty() {
        return Ok(if pred.points.len() == truth.points.len() { 1.0 } else { 0.0 });
    }
    // Half width of the disk at each distance from its middle row: x*x + y*y <= r*r, as skimage's `disk`.
    let reach: Vec<u16> = (0..=bound_px).map(|dy| (bound_px * bound_px - dy * dy).isqrt() as u16).collect();
    let precision = pred.near(&truth, &reach) as f64 / pred.points.len() as f64;
    let recall = truth.near(&pred, &reach) as f64 / truth.points.len() as f64;
    Ok(if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) })
}

/// A mask's boundary pixels.
struct Boundary {
    width: usize,
    height: usize,
    /// `(x, y)` of each.
    points: Vec<(usize, usize)>,
    /// Per pixel: distance to the nearest boundary pixel of the same row, `u16::MAX` when there is none.
    in_row: Vec<u16>,
}

impl Boundary {
    /// `_seg2bmap` at equal size: a pixel that differs from its right, lower or lower right neighbour; in the
    /// last row only the right one counts, in the last column only the lower one, in the last pixel none.
    fn of(mask: &Mask) -> Self {
        let (width, height) = (mask.width_px() as usize, mask.height_px() as usize);
        let (mut points, mut in_row) = (Vec::new(), vec![u16::MAX; width * height]);
        let mut edge = vec![0_u8; width];
        for y in 0..height {
            let row = &mask.data()[y * width..][..width];
            // Below the last row comes itself: what is left is the comparison with the right neighbour.
            let below = &mask.data()[(y + 1).min(height - 1) * width..][..width];
            for (edge, (row, below)) in edge.iter_mut().zip(row.windows(2).zip(below.windows(2))) {
                *edge = (row[0] ^ row[1]) | (row[0] ^ below[0]) | (row[0] ^ below[1]);
            }
            if let (Some(edge), Some(row), Some(below)) = (edge.last_mut(), row.last(), below.last()) {
                *edge = row ^ below;
            }
            let before = points.len();
            points.extend(edge.iter().enumerate().filter(|(_, edge)| **edge != 0).map(|(x, _)| (x, y)));
            fill_distances(&mut in_row[y * width..][..width], &points[before..]);
        }
        Self { width, height, points, in_row }
    }

    /// How many of these lie within the disk around a pixel of the other boundary.
    fn near(&self, other: &Self, reach: &[u16]) -> usize {
        self.points
            .iter()
            .filter(|(x, y)| {
                reach.iter().enumerate().any(|(dy, reach)| {
                    let within = |row: usize| other.in_row[row * self.width + x] <= *reach;
                    (*y >= dy && within(y - dy)) || (y + dy < self.height && within(y + dy))
                })
            })
            .count()
    }
}

/// Distances to the nearest of a row's boundary pixels, which come in order.
fn fill_distances(row: &mut [u16], points: &[(usize, usize)]) {
    let distance = |px: usize| u16::try_from(px).unwrap_or(u16::MAX - 1);
    for (index, (x, _)) in points.iter().enumerate() {
        let from = if index == 0 { 0 } else { (points[index - 1].0 + x).div_ceil(2) };
        let to = points.get(index + 1).map_or(row.len(), |next| (x + next.0).div_ceil(2));
        for (at, value) in row[from..to].iter_mut().enumerate() {
            *value = distance((from + at).abs_diff(*x));
        }
    }
}
