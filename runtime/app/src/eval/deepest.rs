//! The point prompt of an evaluation: the pixel deepest inside a mask.

use sightline_core::Mask;

/// The set pixel `(x, y)` with the largest Euclidean distance to the nearest pixel that is not set, the outside of
/// the picture counting as not set; of several, the first in row-major order. `None` when nothing is set.
pub(crate) fn deepest_px(mask: &Mask) -> Option<(u32, u32)> {
    let (width, height) = (mask.width_px() as usize, mask.height_px() as usize);
    // A border of one pixel stands for the outside; then Felzenszwalb and Huttenlocher's exact squared distance,
    // columns first, rows second. Integers, so that ties are ties.
    let (columns, rows) = (width + 2, height + 2);
    let far = ((columns + rows) * (columns + rows)) as i64;
    let mut distance = vec![0_i64; columns * rows];
    for (y, row) in mask.data().chunks_exact(width).enumerate() {
        for (x, byte) in row.iter().enumerate() {
            distance[(y + 1) * columns + x + 1] = if *byte != 0 { far } else { 0 };
        }
    }
    for x in 0..columns {
        let mut run = 0_i64;
        for y in 0..rows {
            let cell = &mut distance[y * columns + x];
            run = if *cell == 0 { 0 } else { run + 1 };
            *cell = run * run;
        }
        let mut run = 0_i64;
        for y in (0..rows).rev() {
            let cell = &mut distance[y * columns + x];
            run = if *cell == 0 { 0 } else { run + 1 };
            *cell = (*cell).min(run * run);
        }
    }
    let mut best: Option<(i64, u32, u32)> = None;
    let mut envelope = Envelope::default();
    for y in 1..=height {
        envelope.fit(&distance[y * columns..(y + 1) * columns]);
        for x in 1..=width {
            if mask.data()[(y - 1) * width + x - 1] == 0 {
                continue;
            }
            let squared = envelope.at(x);
            if best.is_none_or(|(most, ..)| squared > most) {
                best = Some((squared, (x - 1) as u32, (y - 1) as u32));
            }
        }
    }
    best.map(|(_, x, y)| (x, y))
}

/// The lower envelope of the parabolas `heights[q] + (x - q)^2`.
#[derive(Default)]
struct Envelope {
    /// Height, vertex, and the first whole `x` from which this parabola is lowest.
    parabolas: Vec<(i64, i64, i64)>,
    /// Where the last question fell; questions come with growing `x`.
    at: usize,
}

impl Envelope {
    fn fit(&mut self, heights: &[i64]) {
        self.at = 0;
        self.parabolas.clear();
        for (vertex, &height) in heights.iter().enumerate() {
            let vertex = vertex as i64;
            let mut from = 0;
            while let Some(&(other_height, other, other_from)) = self.parabolas.last() {
                // The new one is at or below the other where 2 x (vertex - other) >= top.
                let top = (height + vertex * vertex) - (other_height + other * other);
                let least = 2 * (vertex - other);
                from = top.div_euclid(least) + i64::from(top.rem_euclid(least) != 0);
                if from > other_from {
                    break;
                }
                self.parabolas.pop();
                from = 0;
            }
            if from < heights.len() as i64 {
                self.parabolas.push((height, vertex, from));
            }
        }
    }

    fn at(&mut self, x: usize) -> i64 {
        let x = x as i64;
        while self.parabolas.get(self.at + 1).is_some_and(|(_, _, from)| *from <= x) {
            self.at += 1;
        }
        self.parabolas.get(self.at).map_or(0, |(height, vertex, _)| height + (x - vertex) * (x - vertex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(mask: &Mask) -> Option<(u32, u32)> {
        let (w, h) = (i64::from(mask.width_px()), i64::from(mask.height_px()));
        let set = |x: i64, y: i64| {
            (0..w).contains(&x) && (0..h).contains(&y) && mask.data()[(y * w + x) as usize] != 0
        };
        let mut best: Option<(i64, u32, u32)> = None;
        for y in 0..h {
            for x in 0..w {
                if !set(x, y) {
                    continue;
                }
                let outside = (-1..=h).flat_map(|v| (-1..=w).map(move |u| (u, v)));
                let nearest = outside
                    .filter(|(u, v)| !set(*u, *v))
                    .map(|(u, v)| (u - x).pow(2) + (v - y).pow(2))
                    .min()
                    .unwrap();
                if best.is_none_or(|(most, ..)| nearest > most) {
                    best = Some((nearest, x as u32, y as u32));
                }
            }
        }
        best.map(|(_, x, y)| (x, y))
    }

    #[test]
    fn it_agrees_with_looking_at_every_pixel() {
        let mut state = 12345_u64;
        let mut random = move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u32
        };
        for case in 0..300 {
            let (w, h) = (1 + random() % 17, 1 + random() % 13);
            let holes = 1 + random() % 12;
            let data = (0..w * h).map(|_| u8::from(random() % holes != 0)).collect();
            let mask = Mask::from_bytes(w, h, data).unwrap();
            assert_eq!(deepest_px(&mask), naive(&mask), "case {case}: {w}x{h} {:?}", mask.data());
        }
    }

    #[test]
    fn full_and_empty_masks() {
        let full = Mask::from_bytes(5, 3, vec![1; 15]).unwrap();
        assert_eq!(deepest_px(&full), Some((1, 1)), "the first of three in the middle row");
        assert_eq!(deepest_px(&Mask::new(5, 3)), None);
    }
}
