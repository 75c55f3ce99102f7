use sightline_core::{ColorMatrix, ColorRange, Picture, PixelFormat, Plane, ValueError};

use super::Color;

/// One plane of a picture, borrowed for writing.
#[derive(Debug, Default)]
pub struct PlaneMut<'a> {
    /// The bytes, first row first.
    pub data: &'a mut [u8],
    /// Distance between the starts of two rows, at least the row's own bytes.
    pub stride_bytes: usize,
}

/// A picture in system memory, borrowed for drawing on it. The counterpart of [`Picture`].
#[derive(Debug)]
pub struct PictureMut<'a> {
    format: PixelFormat,
    width_px: u32,
    height_px: u32,
    matrix: ColorMatrix,
    range: ColorRange,
    planes: [PlaneMut<'a>; 3],
}

/// A colour as a picture stores it, and how much of it covers what was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ink {
    /// Y U V, or the first three bytes in a packed pixel's order.
    bytes: [u8; 3],
    /// 0 (nothing) to 256 (opaque).
    weight: u16,
}

impl<'a> PictureMut<'a> {
    /// Checks that every plane holds what the format and size say.
    ///
    /// # Errors
    /// `Kind::Size` when a side is 0, a plane is missing, a stride is too short or a plane too small.
    pub fn new(
        format: PixelFormat,
        width_px: u32,
        height_px: u32,
        planes: impl IntoIterator<Item = PlaneMut<'a>>,
    ) -> Result<Self, ValueError> {
        let mut kept: [PlaneMut<'a>; 3] = Default::default();
        let mut given = 0;
        for (to, plane) in kept.iter_mut().zip(planes) {
            *to = plane;
            given += 1;
        }
        let read = kept.each_ref().map(|plane| Plane { data: plane.data, stride_bytes: plane.stride_bytes });
        Picture::new(format, width_px, height_px, &read[..given])?;
        let (matrix, range) = (ColorMatrix::default(), ColorRange::default());
        Ok(Self { format, width_px, height_px, matrix, range, planes: kept })
    }

    /// The same picture with its colour encoding stated (YUV formats only look at it).
    #[must_use]
    pub fn with_color(mut self, matrix: ColorMatrix, range: ColorRange) -> Self {
        (self.matrix, self.range) = (matrix, range);
        self
    }

    /// Width in pixels.
    pub fn width_px(&self) -> u32 {
        self.width_px
    }
    /// Height in pixels.
    pub fn height_px(&self) -> u32 {
        self.height_px
    }
    /// Pixel layout.
    pub fn format(&self) -> PixelFormat {
        self.format
    }

    pub(super) fn ink(&self, color: Color, alpha: f32) -> Ink {
        let Color { r, g, b } = color;
        let bytes = match self.format {
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2 => {
                color.to_yuv(self.matrix, self.range)
            }
            PixelFormat::Rgb | PixelFormat::Rgbx | PixelFormat::Rgba => [r, g, b],
            PixelFormat::Bgr | PixelFormat::Bgrx | PixelFormat::Bgra => [b, g, r],
        };
        Ink { bytes, weight: (alpha.clamp(0.0, 1.0) * 256.0).round() as u16 }
    }

    /// Rows of pixels that share a row of chroma; `None` when chroma is not apart.
    pub(super) fn rows_per_chroma(&self) -> Option<usize> {
        match self.format {
            PixelFormat::Nv12 | PixelFormat::I420 => Some(2),
            PixelFormat::Yuy2 => Some(1),
            _ => None,
        }
    }

    /// Pixels `x0..x1` of a row: all of a packed pixel, else luma only.
    pub(super) fn blend_pixels(&mut self, y: usize, x0: usize, x1: usize, ink: Ink) {
        let [plane, ..] = &mut self.planes;
        let row = &mut plane.data[y * plane.stride_bytes..];
        match self.format {
            PixelFormat::Nv12 | PixelFormat::I420 => {
                for byte in &mut row[x0..x1] {
                    *byte = blend(*byte, ink.bytes[0], ink.weight);
                }
            }
            PixelFormat::Yuy2 => {
                for [luma, _] in row[2 * x0..2 * x1].as_chunks_mut::<2>().0 {
                    *luma = blend(*luma, ink.bytes[0], ink.weight);
                }
            }
            PixelFormat::Rgb | PixelFormat::Bgr => {
                for pixel in row[3 * x0..3 * x1].as_chunks_mut::<3>().0 {
                    *pixel = [0, 1, 2].map(|index| blend(pixel[index], ink.bytes[index], ink.weight));
                }
            }
            PixelFormat::Rgbx | PixelFormat::Bgrx | PixelFormat::Rgba | PixelFormat::Bgra => {
                let [a, b, c] = ink.bytes;
                for pixel in row[4 * x0..4 * x1].as_chunks_mut::<4>().0 {
                    let [old_a, old_b, old_c, last] = *pixel;
                    let w = ink.weight;
                    *pixel = [blend(old_a, a, w), blend(old_b, b, w), blend(old_c, c, w), last];
                }
            }
        }
    }

    /// Chroma samples of row `y` (in chroma rows) under the pixels `x0..x1`; nothing when chroma is not apart.
    pub(super) fn blend_chroma(&mut self, y: usize, x0: usize, x1: usize, ink: Ink) {
        let ([_, u, v], weight) = (ink.bytes, ink.weight);
        let (x0, x1) = (x0 / 2, x1.div_ceil(2));
        let [packed, second, third] = &mut self.planes;
        match self.format {
            PixelFormat::Nv12 => {
                let row = &mut second.data[y * second.stride_bytes..];
                for pair in row[2 * x0..2 * x1].as_chunks_mut::<2>().0 {
                    *pair = [blend(pair[0], u, weight), blend(pair[1], v, weight)];
                }
            }
            PixelFormat::I420 => {
                for (plane, to) in [(second, u), (third, v)] {
                    for byte in &mut plane.data[y * plane.stride_bytes..][x0..x1] {
                        *byte = blend(*byte, to, weight);
                    }
                }
            }
            PixelFormat::Yuy2 => {
                let row = &mut packed.data[y * packed.stride_bytes..];
                for quad in row[4 * x0..4 * x1].as_chunks_mut::<4>().0 {
                    (quad[1], quad[3]) = (blend(quad[1], u, weight), blend(quad[3], v, weight));
                }
            }
            _ => {}
        }
    }

    /// A rectangle of pixels, edges exclusive on the right and below, clipped to the picture.
    pub(super) fn blend_rectangle(&mut self, [x0, y0, x1, y1]: [u32; 4], ink: Ink) {
        let (x0, x1) = (x0 as usize, x1.min(self.width_px) as usize);
        let (y0, y1) = (y0 as usize, y1.min(self.height_px) as usize);
        if x0 >= x1 || y0 >= y1 {
            return;
        }
        for y in y0..y1 {
            self.blend_pixels(y, x0, x1, ink);
        }
        if let Some(rows) = self.rows_per_chroma() {
            for y in y0 / rows..y1.div_ceil(rows) {
                self.blend_chroma(y, x0, x1, ink);
            }
        }
    }
}

/// `weight` 256ths of `to`, the rest of `from`, rounded to nearest.
fn blend(from: u8, to: u8, weight: u16) -> u8 {
    ((u16::from(from) * (256 - weight) + u16::from(to) * weight + 128) >> 8) as u8
}
