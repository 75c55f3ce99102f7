//! The overlay's arithmetic: masks, boxes and labels drawn in place on a picture of any [`PixelFormat`].
//!
//! Coordinates are pixels of the picture, origin at the top left. Nothing here fails: what lies outside the
//! picture is clipped. The fourth byte of packed 32 bit pixels is left alone.
//!
//! [`PixelFormat`]: sightline_core::PixelFormat

mod bits;
mod color;
mod font;
mod marks;
mod surface;

use sightline_core::{NormBox, Rle};

use bits::Bits;
pub(crate) use color::encoding;
pub use color::{Color, palette};
use font::{GLYPH_HEIGHT_PX, GLYPH_WIDTH_PX, glyph};
pub use marks::set_of_mark;
pub use surface::{PictureMut, PlaneMut};

use surface::Ink;

/// Draws masks. Owns its scratch (a bit a pixel, three times); keep one per stream, so that it allocates only
/// for the first picture of a size.
#[derive(Debug, Default)]
pub struct Painter {
    mask: Bits,
    eroded: Bits,
    spare: Bits,
}

impl Painter {
    /// A painter with nothing allocated.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tints a mask: `alpha` in `[0, 1]`, 1 is opaque. A mask of another size is scaled to the picture's,
    /// nearest neighbour.
    pub fn fill(&mut self, picture: &mut PictureMut<'_>, mask: &Rle, color: Color, alpha: f32) {
        self.mask.rasterise(mask, picture.width_px(), picture.height_px());
        paint(picture, &self.mask, picture.ink(color, alpha));
    }

    /// Draws the inner border of a mask, opaque, `thickness_px` wide (at least 1). The picture's edge counts as
    /// the object's where the two meet. A mask of another size is scaled as in [`Painter::fill`].
    pub fn contour(&mut self, picture: &mut PictureMut<'_>, mask: &Rle, color: Color, thickness_px: u32) {
        self.mask.rasterise(mask, picture.width_px(), picture.height_px());
        self.eroded.clone_from(&self.mask);
        for step in 0..thickness_px.max(1) {
            // A cross and a square in turn make an octagon.
            self.spare.erode(&self.eroded, step % 2 == 1);
            std::mem::swap(&mut self.spare, &mut self.eroded);
        }
        self.mask.remove(&self.eroded);
        paint(picture, &self.mask, picture.ink(color, 1.0));
    }
}

fn paint(picture: &mut PictureMut<'_>, bits: &Bits, ink: Ink) {
    let (first, last) = bits.rows();
    for y in first..last {
        bits.for_each_span(y, y, |x0, x1| picture.blend_pixels(y, x0, x1, ink));
    }
    if let Some(rows) = picture.rows_per_chroma()
        && first < last
    {
        for y in first / rows..last.div_ceil(rows) {
            // A chroma sample is tinted once, when any of its pixels is.
            bits.for_each_span(y * rows, y * rows + rows - 1, |x0, x1| picture.blend_chroma(y, x0, x1, ink));
        }
    }
}

/// [`Painter::fill`] with scratch of its own; allocates.
pub fn fill(picture: &mut PictureMut<'_>, mask: &Rle, color: Color, alpha: f32) {
    Painter::new().fill(picture, mask, color, alpha);
}

/// [`Painter::contour`] with scratch of its own; allocates.
pub fn contour(picture: &mut PictureMut<'_>, mask: &Rle, color: Color, thickness_px: u32) {
    Painter::new().contour(picture, mask, color, thickness_px);
}

/// Draws the frame of a box, opaque, `thickness_px` wide (at least 1), inside the box.
pub fn rectangle(picture: &mut PictureMut<'_>, bounds: NormBox, color: Color, thickness_px: u32) {
    let [x0, y0, x1, y1] = bounds.to_pixels(picture.width_px(), picture.height_px());
    let [x0, y0, x1, y1] = [x0, y0, x1, y1].map(|edge| edge.max(0.0).round() as u32);
    let ink = picture.ink(color, 1.0);
    let inner = [x0, y0, x1, y1];
    let (right, bottom) = (x1.min(picture.width_px()), y1.min(picture.height_px()));
    if x0 >= right || y0 >= bottom {
        return;
    }
    let across = thickness_px.max(1).min(right - x0);
    let down = thickness_px.max(1).min(bottom - y0);
    picture.blend_rectangle([x0, y0, right, y0 + down], ink);
    picture.blend_rectangle([x0, bottom - down, right, bottom], ink);
    picture.blend_rectangle([x0, y0, x0 + across, inner[3]], ink);
    picture.blend_rectangle([right - across, y0, right, inner[3]], ink);
}

/// Picture pixels to a font pixel: 1 up to 539 rows, 2 up to 899 (720p), 3 up to 1259 (1080p), and so on.
fn label_scale(height_px: u32) -> u32 {
    (height_px + 180).div_euclid(360).max(1)
}

/// Width and height in pixels of a [`label`] in a picture of `height_px` rows, its background included.
pub fn label_size_px(text: &str, height_px: u32) -> (u32, u32) {
    label_extent_px(text, label_scale(height_px))
}

fn label_extent_px(text: &str, scale: u32) -> (u32, u32) {
    let characters = text.chars().count().min(4096) as u32;
    // One column between characters, and a border of two font pixels.
    let columns = (characters * (GLYPH_WIDTH_PX + 1)).saturating_sub(1);
    ((columns + 4) * scale, (GLYPH_HEIGHT_PX + 4) * scale)
}

/// Writes one line of text on a box of the given colour, in black or white, whichever is easier to read.
///
/// `x_px`, `y_px` is the box's top left corner; it is moved so that the box stays inside the picture where it
/// can. Letters are 7 font pixels tall; a font pixel grows with the picture's height (2 at 720p, 3 at 1080p).
/// What is not printable ASCII is drawn as `?`.
pub fn label(picture: &mut PictureMut<'_>, x_px: u32, y_px: u32, text: &str, color: Color) {
    let scale = label_scale(picture.height_px());
    label_at_scale(picture, x_px, y_px, text, color, scale);
}

fn label_at_scale(picture: &mut PictureMut<'_>, x_px: u32, y_px: u32, text: &str, color: Color, scale: u32) {
    if text.is_empty() {
        return;
    }
    let (width, height) = label_extent_px(text, scale);
    let x_px = x_px.min(picture.width_px().saturating_sub(width));
    let y_px = y_px.min(picture.height_px().saturating_sub(height));
    let (ground, ink) = (picture.ink(color, 1.0), picture.ink(color.contrasting(), 1.0));
    picture.blend_rectangle([x_px, y_px, x_px + width, y_px + height], ground);
    let mut left = x_px + 2 * scale;
    for character in text.chars() {
        if left >= picture.width_px() {
            break;
        }
        for (row, columns) in (0_u32..).zip(glyph(character)) {
            let top = y_px + (2 + row) * scale;
            for column in
                (0..GLYPH_WIDTH_PX).filter(|column| columns >> (GLYPH_WIDTH_PX - 1 - column) & 1 == 1)
            {
                let x = left + column * scale;
                picture.blend_rectangle([x, top, x + scale, top + scale], ink);
            }
        }
        left += (GLYPH_WIDTH_PX + 1) * scale;
    }
}

#[cfg(test)]
mod tests;
