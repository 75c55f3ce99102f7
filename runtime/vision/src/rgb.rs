use sightline_core::{Filter, ImageSpec, NormBox, Picture, ValueError};

use crate::Preprocessor;

/// A part of a picture of any format as packed RGB, row-major, no padding, scaled to `size_px` (width, height): what a
/// language model is sent.
///
/// `part_px` is `[x0, y0, x1, y1]`, the latter two exclusive, its corner even as [`part_around`] gives it. Antialiased
/// bilinear, as exact as [`Preprocessor`]. Allocates; not for every frame.
///
/// # Errors
/// `Kind::Geometry` when the part is not inside the picture or its corner is odd, `Kind::Size` as [`Preprocessor::run`].
pub fn rgb(picture: &Picture<'_>, part_px: [u32; 4], size_px: [u32; 2]) -> Result<Vec<u8>, ValueError> {
    let [x0, y0, x1, y1] = part_px;
    let part = picture.crop(x0, y0, x1.saturating_sub(x0), y1.saturating_sub(y0))?;
    let [width_px, height_px] = size_px.map(|side| side as usize);
    let spec = ImageSpec { height_px, width_px, mean: [0.0; 3], std: [1.0; 3], filter: Filter::Bilinear };
    let pixels = width_px * height_px;
    let mut planes = vec![0.0; 3 * pixels];
    Preprocessor::new(&spec).run(&part, &mut planes)?;
    let mut packed = vec![0; 3 * pixels];
    for (at, pixel) in packed.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *pixel = [0, 1, 2].map(|channel| (planes[channel * pixels + at] * 255.0).round() as u8);
    }
    Ok(packed)
}

/// The part of a picture of `picture_px` (width, height) that shows a box with `margin` times its longer side around it,
/// clipped, at least 2x2, its corner even.
pub fn part_around(bounds: NormBox, margin: f32, picture_px: [u32; 2]) -> [u32; 4] {
    let [width, height] = picture_px;
    let [x0, y0, x1, y1] = bounds.to_pixels(width, height);
    let around = margin.max(0.0) * (x1 - x0).max(y1 - y0);
    let side = |from: f32, to: f32, length: u32| {
        let length_px = length as f32;
        // A hundredth of a pixel is what f32 loses, not what was seen.
        let from = (from - around + 0.01).clamp(0.0, length_px).floor() as u32;
        let from = (from / 2 * 2).min(length.saturating_sub(1) / 2 * 2);
        let to = (to + around - 0.01).clamp(0.0, length_px).ceil() as u32;
        (from, to.max(from + 2).min(length))
    };
    let ((x0, x1), (y0, y1)) = (side(x0, x1, width), side(y0, y1, height));
    [x0, y0, x1, y1]
}

#[cfg(test)]
mod tests {
    use sightline_core::{PixelFormat, Plane};

    use super::*;

    #[test]
    fn a_part_is_taken_as_it_is() {
        let (width, height) = (16_u32, 12_u32);
        let data: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, (x * y) as u8]))
            .collect();
        let plane = Plane { data: &data, stride_bytes: 48 };
        let picture = Picture::new(PixelFormat::Rgb, width, height, &[plane]).unwrap();
        let part = rgb(&picture, [4, 2, 9, 7], [5, 5]).unwrap();
        let expected: Vec<u8> =
            (2..7).flat_map(|y| (4..9).flat_map(move |x| [x as u8, y as u8, (x * y) as u8])).collect();
        assert_eq!(part, expected);
        let half = rgb(&picture, [0, 0, 16, 12], [8, 6]).unwrap();
        assert_eq!(half.len(), 8 * 6 * 3);
        assert!(half[0] <= 1 && (half[3 * 7]).abs_diff(15) <= 1, "{half:?}");
        for part in [[1, 0, 4, 4], [4, 4, 4, 8], [8, 0, 4, 4], [0, 0, 17, 4]] {
            assert!(rgb(&picture, part, [4, 4]).is_err(), "{part:?}");
        }
    }

    #[test]
    fn every_format_gives_red_first() {
        for format in [PixelFormat::Bgr, PixelFormat::Bgrx, PixelFormat::Rgba] {
            let (row, rows) = format.plane_extent(0, 4, 4);
            let red: &[u8] = match format {
                PixelFormat::Bgr => &[0, 0, 255],
                PixelFormat::Bgrx => &[0, 0, 255, 9],
                _ => &[255, 0, 0, 9],
            };
            let data: Vec<u8> = red.iter().copied().cycle().take(row * rows).collect();
            let plane = Plane { data: &data, stride_bytes: row };
            let picture = Picture::new(format, 4, 4, &[plane]).unwrap();
            let got = rgb(&picture, [0, 0, 4, 4], [2, 2]).unwrap();
            assert_eq!(got, [255, 0, 0].repeat(4), "{format:?}");
        }
    }

    #[test]
    fn parts_hold_their_box_and_can_be_cropped() {
        for (name, bounds, margin, picture, expected) in [
            ("in the middle", [40.0, 30.0, 60.0, 40.0], 0.25, [100, 80], [34, 24, 65, 45]),
            ("at the corner", [0.0, 0.0, 10.0, 10.0], 1.0, [100, 80], [0, 0, 20, 20]),
            ("everything", [0.0, 0.0, 100.0, 80.0], 1.0, [100, 80], [0, 0, 100, 80]),
            ("a speck at the edge", [99.5, 79.5, 100.0, 80.0], 0.0, [100, 80], [98, 78, 100, 80]),
            ("an odd picture's last pixel", [4.9, 4.9, 5.0, 5.0], 0.0, [5, 5], [4, 4, 5, 5]),
        ] {
            let [w, h] = picture;
            let bounds = NormBox::from_pixels(bounds, w, h).unwrap();
            assert_eq!(part_around(bounds, margin, picture), expected, "{name}");
        }
    }
}
