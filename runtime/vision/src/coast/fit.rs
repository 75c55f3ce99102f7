//! The move of a thing between two pictures, from those of its points, some of which are wrong.

/// A place and where it went, in pixels of the picture.
pub(super) type Pair = ([f32; 2], [f32; 2]);

/// `scale * at + to`, in pixels of the picture. A turn was fitted as well and left out: it changed J on DAVIS by less than
/// 0.3, and without it masks are moved on their run lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Move {
    pub(super) scale: f32,
    pub(super) to: [f32; 2],
}

/// Rounds of the reweighting; each believes less in what is off.
const ROUNDS: usize = 5;

impl Move {
    pub(super) const STILL: Self = Self { scale: 1.0, to: [0.0; 2] };

    /// Scales about `middle`, then shifts by `way`.
    pub(super) fn about(middle: [f32; 2], way: [f32; 2], scale: f32) -> Self {
        Self { scale, to: [0, 1].map(|axis| middle[axis] * (1.0 - scale) + way[axis]) }
    }

    pub(super) fn apply(&self, at: [f32; 2]) -> [f32; 2] {
        [0, 1].map(|axis| self.scale * at[axis] + self.to[axis])
    }

    /// First `first`, then this.
    pub(super) fn after(&self, first: &Self) -> Self {
        Self { scale: self.scale * first.scale, to: self.apply(first.to) }
    }

    /// Least squares, reweighted so that what is off by `error_px` counts a quarter, from the median way on. `None`
    /// without pairs. The scale is held within `1 / most..=most`.
    pub(super) fn fit(pairs: &[Pair], error_px: f32, most: f32) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let median = [0, 1].map(|axis| {
            let mut ways: Vec<f32> = pairs.iter().map(|(from, to)| to[axis] - from[axis]).collect();
            let middle = ways.len() / 2;
            *ways.select_nth_unstable_by(middle, f32::total_cmp).1
        });
        let mut found = Self { scale: 1.0, to: median };
        let mut weights = vec![0.0_f32; pairs.len()];
        for _ in 0..ROUNDS {
            for (weight, (from, to)) in weights.iter_mut().zip(pairs) {
                let [x, y] = found.apply(*from);
                let doubt = 1.0 + ((x - to[0]).powi(2) + (y - to[1]).powi(2)) / (error_px * error_px);
                *weight = 1.0 / (doubt * doubt);
            }
            let sum: f32 = weights.iter().sum();
            if sum < 1e-6 {
                break;
            }
            let mean = |of: fn(&Pair) -> [f32; 2]| {
                let mean = |axis: usize| {
                    weights.iter().zip(pairs).map(|(w, pair)| w * of(pair)[axis]).sum::<f32>() / sum
                };
                [mean(0), mean(1)]
            };
            let (from_middle, to_middle) = (mean(|pair| pair.0), mean(|pair| pair.1));
            let (mut product, mut square) = (0.0, 0.0);
            for (weight, (from, to)) in weights.iter().zip(pairs) {
                for axis in [0, 1] {
                    let far = from[axis] - from_middle[axis];
                    product += weight * far * (to[axis] - to_middle[axis]);
                    square += weight * far * far;
                }
            }
            // Few or crowded points bear no scale: as if each had one beside it, an error away, that does not move.
            let ridge = sum * error_px * error_px;
            let scale = ((product + ridge) / (square + ridge)).clamp(1.0 / most, most);
            found = Self { scale, to: [0, 1].map(|axis| to_middle[axis] - scale * from_middle[axis]) };
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_found_among_wrong_points() {
        let points = || (0..60).map(|at| [(at % 10) as f32 * 6.0, (at / 10) as f32 * 9.0]);
        for (name, truth, wrong) in [
            ("still", Move::STILL, 0),
            ("away", Move { scale: 1.0, to: [12.0, -5.0] }, 0),
            ("larger", Move::about([30.0, 20.0], [3.0, 1.0], 1.08), 0),
            ("a third is wrong", Move::about([30.0, 20.0], [-14.0, 2.0], 0.95), 3),
        ] {
            let pairs: Vec<Pair> = points()
                .enumerate()
                .map(|(at, from)| {
                    let [x, y] = truth.apply(from);
                    let off =
                        if wrong > 0 && at % wrong == 0 { [40.0, (at % 7) as f32 * 9.0] } else { [0.0; 2] };
                    (from, [x + off[0], y + off[1]])
                })
                .collect();
            let found = Move::fit(&pairs, 1.0, 1.2).unwrap();
            let off = points().map(|at| {
                let ([a, b], [c, d]) = (found.apply(at), truth.apply(at));
                (a - c).hypot(b - d)
            });
            let off = off.fold(0.0, f32::max);
            assert!(off < 0.3, "{name}: {found:?} is off by {off} px");
        }
        assert_eq!(Move::fit(&[], 1.0, 1.2), None);
        let alone = Move::fit(&[([5.0, 5.0], [9.0, 4.0])], 1.0, 1.2).unwrap();
        assert_eq!(alone, Move { scale: 1.0, to: [4.0, -1.0] }, "a single point bears no scale");
        let twice = Move { scale: 2.0, to: [1.0, 0.0] };
        assert_eq!(twice.after(&alone).apply([1.0, 1.0]), twice.apply(alone.apply([1.0, 1.0])));
    }
}
