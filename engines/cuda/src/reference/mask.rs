use sightline_core::Rle;

use crate::{CudaError, Kind};

/// A mask at the picture's size, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMask {
    /// Its run lengths.
    pub rle: Rle,
    /// Set pixels.
    pub area_px: u32,
    /// Tight box `[x0, y0, x1, y1]`, the latter two exclusive; `None` when nothing is set.
    pub bounds_px: Option<[u32; 4]>,
}

impl FoundMask {
    pub(crate) fn new(
        width_px: u32,
        height_px: u32,
        counts: Vec<u32>,
        area_px: u32,
        bounds_px: Option<[u32; 4]>,
    ) -> Result<Self, CudaError> {
        let rle = Rle::new(width_px, height_px, counts).map_err(|error| {
            CudaError::new(Kind::Driver, "run lengths from the device", "a whole mask", error)
        })?;
        Ok(Self { rle, area_px, bounds_px })
    }
}

/// `source_of` of mask.cu.
fn source_of(scale: f32, at: u32, low: usize) -> (usize, f32) {
    let source = (scale * (at as f32 + 0.5) - 0.5).max(0.0);
    let index = (source as usize).min(low - 1);
    (index, (source - index as f32).clamp(0.0, 1.0))
}

/// One mask's logits, row-major `[low_height, low_width]`, to bits at the picture's size: bit `x * height + y`, the lowest
/// of a word first. Nothing of the last word is set behind the picture.
///
/// # Panics
/// When a side is 0 or there are fewer logits.
pub fn mask_bits(
    logits: &[f32],
    low_width: usize,
    low_height: usize,
    width_px: u32,
    height_px: u32,
) -> Vec<u32> {
    let total = width_px as usize * height_px as usize;
    let mut bits = vec![0_u32; total.div_ceil(32)];
    let (scale_x, scale_y) = (low_width as f32 / width_px as f32, low_height as f32 / height_px as f32);
    for x in 0..width_px {
        let (column, right) = source_of(scale_x, x, low_width);
        let (next_column, left) = ((column + 1).min(low_width - 1), 1.0 - right);
        let across = |row: usize| {
            left * logits[row * low_width + column] + right * logits[row * low_width + next_column]
        };
        for y in 0..height_px {
            let (row, down) = source_of(scale_y, y, low_height);
            let value = (1.0 - down) * across(row) + down * across((row + 1).min(low_height - 1));
            let at = x as usize * height_px as usize + y as usize;
            bits[at / 32] |= u32::from(value > 0.0) << (at % 32);
        }
    }
    bits
}

/// What the other kernels of mask.cu make of bits; an area and a box of nothing are 0 and `None`.
///
/// # Panics
/// When there are fewer bits than pixels.
pub fn measure(bits: &[u32], width_px: u32, height_px: u32) -> FoundMask {
    let total = width_px * height_px;
    let (mut counts, mut end, mut before) = (Vec::new(), 0, 0);
    for at in 0..total {
        let bit = bits[at as usize / 32] >> (at % 32) & 1;
        if bit != before {
            counts.push(at - end);
            (end, before) = (at, bit);
        }
    }
    counts.push(total - end);
    let (mut area_px, mut bounds, mut start) = (0, [u32::MAX, u32::MAX, 0, 0], 0);
    for (run, count) in counts.iter().enumerate() {
        let end = start + count;
        if run % 2 == 1 {
            let (first, last) = (start / height_px, (end - 1) / height_px);
            let (top, bottom) =
                if first == last { (start % height_px, end - first * height_px) } else { (0, height_px) };
            area_px += count;
            let [x0, y0, x1, y1] = bounds;
            bounds = [x0.min(first), y0.min(top), x1.max(last + 1), y1.max(bottom)];
        }
        start = end;
    }
    let bounds_px = (area_px > 0).then_some(bounds);
    // The runs of a picture add up to it.
    let rle = Rle::new(width_px, height_px, counts).unwrap_or_else(|_| Rle::empty(width_px, height_px));
    FoundMask { rle, area_px, bounds_px }
}
