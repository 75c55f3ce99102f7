use sightline_core::Picture;

use crate::{Region, sample::rgb_at};

/// Pixels looked at.
const SAMPLES: usize = 1500;
/// Cells a channel.
const CELLS: usize = 8;

/// The colour most of a region has, as RGB; `None` for an empty region.
///
/// The mean over the fullest cube of three cells a side in a histogram of 8x8x8 cells, so that a strip of background
/// along the edge, a face or a shadow does not grey the colour of a jacket. About 1500 pixels are looked at.
pub fn dominant_colour(picture: &Picture<'_>, region: &Region) -> Option<[u8; 3]> {
    let (width, height) = (picture.width_px() as usize, picture.height_px() as usize);
    // Count and sums of each cell, with an empty border all around.
    const SIDE: usize = CELLS + 2;
    let mut cells = vec![[0_u32; 4]; SIDE * SIDE * SIDE];
    for [x, y] in region.points(SAMPLES) {
        let at = |share: f32, side: usize| ((share * side as f32) as usize).min(side - 1);
        let rgb = rgb_at(picture, at(x, width), at(y, height));
        let [r, g, b] = rgb.map(|value| usize::from(value) * CELLS / 256 + 1);
        let cell = &mut cells[(r * SIDE + g) * SIDE + b];
        cell[0] += 1;
        cell[1..].iter_mut().zip(rgb).for_each(|(sum, value)| *sum += u32::from(value));
    }
    let mut fullest = [0_u32; 4];
    for centre in 0..CELLS * CELLS * CELLS {
        let [r, g, b] = [centre / (CELLS * CELLS), centre / CELLS % CELLS, centre % CELLS];
        let mut cube = [0_u32; 4];
        for (r, g) in (r..r + 3).flat_map(|r| (g..g + 3).map(move |g| (r, g))) {
            for cell in &cells[(r * SIDE + g) * SIDE + b..][..3] {
                cube.iter_mut().zip(cell).for_each(|(sum, value)| *sum += value);
            }
        }
        if cube[0] > fullest[0] {
            fullest = cube;
        }
    }
    let [count, sums @ ..] = fullest;
    (count > 0).then(|| sums.map(|sum| (sum / count) as u8))
}

#[cfg(test)]
mod tests {
    use sightline_core::{NormBox, PixelFormat, Plane};

    use super::*;

    #[test]
    fn the_colour_is_that_of_the_greater_part() {
        // A red thing, two fifths of its region green.
        let mut data = vec![0; 40 * 20 * 3];
        for (at, pixel) in data.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(if at % 40 < 24 { &[200, 30, 40] } else { &[30, 160, 60] });
        }
        let plane = Plane { data: &data, stride_bytes: 120 };
        let picture = Picture::new(PixelFormat::Rgb, 40, 20, &[plane]).unwrap();
        let whole = Region::from_logits(&[1.0; 200], 20, NormBox::WHOLE).unwrap();
        assert_eq!(dominant_colour(&picture, &whole), Some([200, 30, 40]));
        let right: Vec<f32> = (0..200).map(|at| if at % 20 >= 13 { 1.0 } else { -1.0 }).collect();
        let right = Region::from_logits(&right, 20, NormBox::WHOLE).unwrap();
        assert_eq!(dominant_colour(&picture, &right), Some([30, 160, 60]));
        let nothing = Region::from_logits(&[-1.0; 200], 20, NormBox::WHOLE).unwrap();
        assert_eq!(dominant_colour(&picture, &nothing), None);
    }
}
