//! Single pixels and small grey copies of a picture, whatever its format.

use sightline_core::{ColorMatrix, ColorRange, Picture, PixelFormat};

use crate::draw::encoding;

/// Where in a packed pixel R, G and B are, and its bytes.
fn packed(format: PixelFormat) -> Option<([usize; 3], usize)> {
    Some(match format {
        PixelFormat::Rgb => ([0, 1, 2], 3),
        PixelFormat::Bgr => ([2, 1, 0], 3),
        PixelFormat::Rgbx | PixelFormat::Rgba => ([0, 1, 2], 4),
        PixelFormat::Bgrx | PixelFormat::Bgra => ([2, 1, 0], 4),
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2 => return None,
    })
}

/// The pixel at `x`,`y`, which must lie in the picture, as RGB.
pub(crate) fn rgb_at(picture: &Picture<'_>, x: usize, y: usize) -> [u8; 3] {
    let planes = picture.planes();
    let byte =
        |plane: usize, row: usize, at: usize| planes[plane].data[row * planes[plane].stride_bytes + at];
    if let Some((order, bytes)) = packed(picture.format()) {
        return order.map(|channel| byte(0, y, x * bytes + channel));
    }
    let [luma, u, v] = match picture.format() {
        PixelFormat::Nv12 => [byte(0, y, x), byte(1, y / 2, x / 2 * 2), byte(1, y / 2, x / 2 * 2 + 1)],
        PixelFormat::I420 => [byte(0, y, x), byte(1, y / 2, x / 2), byte(2, y / 2, x / 2)],
        _ => [byte(0, y, 2 * x), byte(0, y, x / 2 * 4 + 1), byte(0, y, x / 2 * 4 + 3)],
    };
    rgb_from_yuv([luma, u, v], picture.matrix(), picture.range())
}

/// ITU-R BT.601, BT.709 and BT.2020, non-constant luminance.
fn rgb_from_yuv(yuv: [u8; 3], matrix: ColorMatrix, range: ColorRange) -> [u8; 3] {
    let (shares, spans) = encoding(matrix, range);
    let [red, blue] = shares.map(|share| share as f32);
    let [black, luma_span, chroma_span] = spans.map(|span| span as f32);
    let [luma, u, v] = yuv.map(f32::from);
    let (luma, u, v) = ((luma - black) / luma_span, (u - 128.0) / chroma_span, (v - 128.0) / chroma_span);
    let (r, b) = (luma + 2.0 * (1.0 - red) * v, luma + 2.0 * (1.0 - blue) * u);
    let g = (luma - red * r - blue * b) / (1.0 - red - blue);
    [r, g, b].map(|share| (share * 255.0).round().clamp(0.0, 255.0) as u8)
}

/// Writes the picture's luma, averaged over the pixels behind each of `width` x `height` and rounded, row-major.
/// `sums` is scratch.
pub(crate) fn shrink_grey(
    picture: &Picture<'_>,
    width: usize,
    height: usize,
    sums: &mut Vec<u32>,
    grey: &mut Vec<u8>,
) {
    let (full_width, full_height) = (picture.width_px() as usize, picture.height_px() as usize);
    sums.resize(full_width, 0);
    grey.clear();
    let plane = picture.planes()[0];
    let rows_of = |at: usize, count: usize, full: usize| {
        let start = (at * full / count).min(full - 1);
        start..((at + 1) * full / count).max(start + 1)
    };
    for row in 0..height {
        sums.fill(0);
        let rows = rows_of(row, height, full_height);
        for y in rows.clone() {
            let line = &plane.data[y * plane.stride_bytes..];
            match (packed(picture.format()), picture.format()) {
                (Some(([r, g, b], bytes)), _) => {
                    for (sum, pixel) in sums.iter_mut().zip(line.chunks_exact(bytes)) {
                        *sum +=
                            (77 * u32::from(pixel[r]) + 150 * u32::from(pixel[g]) + 29 * u32::from(pixel[b]))
                                >> 8;
                    }
                }
                (None, PixelFormat::Yuy2) => {
                    sums.iter_mut()
                        .zip(line.iter().step_by(2))
                        .for_each(|(sum, luma)| *sum += u32::from(*luma));
                }
                (None, _) => sums.iter_mut().zip(line).for_each(|(sum, luma)| *sum += u32::from(*luma)),
            }
        }
        grey.extend((0..width).map(|column| {
            let columns = rows_of(column, width, full_width);
            let count = (columns.len() * rows.len()) as u32;
            // A mean of bytes is one.
            ((sums[columns].iter().sum::<u32>() + count / 2) / count) as u8
        }));
    }
}

#[cfg(test)]
mod tests {
    use sightline_core::Plane;

    use super::*;

    #[test]
    fn every_format_gives_its_colours_back() {
        // BT.601, limited: the primaries as ITU-R BT.601 lists them, to rounding.
        for (rgb, yuv) in [
            ([255, 0, 0], [81, 90, 240]),
            ([0, 255, 0], [145, 54, 34]),
            ([0, 0, 255], [41, 240, 110]),
            ([255, 255, 255], [235, 128, 128]),
        ] {
            let [luma, u, v] = yuv;
            for format in PixelFormat::ALL {
                let planes: Vec<(Vec<u8>, usize)> = match format {
                    PixelFormat::Nv12 => vec![(vec![luma; 16], 4), ([u, v].repeat(4), 4)],
                    PixelFormat::I420 => vec![(vec![luma; 16], 4), (vec![u; 4], 2), (vec![v; 4], 2)],
                    PixelFormat::Yuy2 => vec![([luma, u, luma, v].repeat(8), 8)],
                    _ => {
                        let (order, bytes) = packed(format).unwrap();
                        let mut pixel = vec![0; bytes];
                        order.iter().zip(rgb).for_each(|(at, value)| pixel[*at] = value);
                        vec![(pixel.repeat(16), bytes * 4)]
                    }
                };
                let planes: Vec<Plane<'_>> = planes
                    .iter()
                    .map(|(data, stride_bytes)| Plane { data, stride_bytes: *stride_bytes })
                    .collect();
                let picture = Picture::new(format, 4, 4, &planes).unwrap();
                let got = rgb_at(&picture, 3, 2);
                let off = got.iter().zip(rgb).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                assert!(off <= 3, "{format:?} {rgb:?}: {got:?}");
                let (mut sums, mut grey) = (Vec::new(), Vec::new());
                shrink_grey(&picture, 2, 1, &mut sums, &mut grey);
                assert_eq!(grey.len(), 2);
                assert!(grey[0] == grey[1] && grey[0] > 20, "{format:?}: {grey:?}");
            }
        }
    }
}
