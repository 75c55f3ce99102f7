//! A mask moved and scaled, on its run lengths.

use sightline_core::Rle;

/// `y = middle + way + scale * (x - middle)` for `x` in pixels of the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Move {
    pub(super) middle_px: [f32; 2],
    pub(super) way_px: [f32; 2],
    pub(super) scale: f32,
}

/// The mask after the move, at the same picture size: a pixel is set where the one behind its middle was. What leaves the
/// picture is cut off.
pub(super) fn moved(mask: &Rle, by: &Move) -> Rle {
    let (width, height) = (mask.width_px(), mask.height_px());
    let mut runs: Vec<(u32, u32)> = Vec::with_capacity(mask.counts().len());
    // Index of the first run of each column, and their end.
    let mut starts: Vec<u32> = vec![0; width as usize + 1];
    mask.for_each_run(|x, y0, y1| {
        runs.push((y0, y1));
        starts[x as usize + 1] = runs.len() as u32;
    });
    for at in 1..starts.len() {
        starts[at] = starts[at].max(starts[at - 1]);
    }
    let [from_x, from_y] = by.middle_px;
    let [to_x, to_y] = [from_x + by.way_px[0], from_y + by.way_px[1]];
    let row = |y: u32| (to_y + by.scale * (y as f32 - from_y)).round().clamp(0.0, height as f32) as u32;
    let mut counts: Vec<u32> = Vec::with_capacity(mask.counts().len() + 2);
    let mut end = 0;
    for x in 0..width {
        let source = (from_x + (x as f32 + 0.5 - to_x) / by.scale).floor();
        if source < 0.0 || source >= width as f32 {
            continue;
        }
        let column = source as usize;
        for (y0, y1) in &runs[starts[column] as usize..starts[column + 1] as usize] {
            let (start, stop) = (x * height + row(*y0), x * height + row(*y1));
            if start >= stop {
                continue;
            }
            match counts.last_mut() {
                Some(last) if start == end => *last += stop - start,
                _ => counts.extend([start - end, stop - start]),
            }
            end = stop;
        }
    }
    if end < width * height {
        counts.push(width * height - end);
    }
    // They add up by construction.
    Rle::new(width, height, counts).unwrap_or_else(|_| mask.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sightline_core::Mask;

    fn drawn(by: &Move) -> Mask {
        let mut mask = Mask::new(60, 40);
        for at in 0..60 * 40 {
            let p = [(at % 60) as f32 + 0.5, (at / 60) as f32 + 0.5];
            let [u, v] = [0, 1]
                .map(|axis| (p[axis] - by.middle_px[axis] - by.way_px[axis]) / by.scale + by.middle_px[axis]);
            // A ring with a hole, so that columns have two runs.
            let far = (u - 25.0).hypot(v - 20.0);
            mask.data_mut()[at] = u8::from((4.0..13.0).contains(&far));
        }
        mask
    }

    #[test]
    fn a_moved_mask_is_the_thing_drawn_elsewhere() {
        let still = Move { middle_px: [25.0, 20.0], way_px: [0.0; 2], scale: 1.0 };
        let mask = Rle::encode(&drawn(&still));
        for (name, way_px, scale) in [
            ("still", [0.0, 0.0], 1.0),
            ("right and up", [11.0, -3.0], 1.0),
            ("over the corner", [-20.0, 15.0], 1.0),
            ("out of the picture", [80.0, 0.0], 1.0),
            ("larger", [2.0, 1.0], 1.2),
            ("smaller, part of a pixel", [-3.4, 0.6], 0.85),
        ] {
            let by = Move { way_px, scale, ..still };
            let (got, expected) = (moved(&mask, &by).decode(), drawn(&by));
            let off = got.data().iter().zip(expected.data()).filter(|(a, b)| a != b).count();
            // Whole pixels are exact; between them the pattern's own raster is off by a pixel at its edges.
            let allowed = if way_px.iter().all(|v| v.fract() == 0.0) && scale == 1.0 {
                0
            } else {
                expected.area_px() / 5
            };
            assert!(off <= allowed, "{name}: {off} of {} pixels differ", expected.area_px());
        }
    }
}
