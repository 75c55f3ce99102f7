use sightline_core::{ImageSpec, Picture, PixelFormat};

use crate::{Taps, picture::fixed_point};

/// What each level of each channel becomes, `[3,256]`: `(v / 255 - mean) / std`.
pub fn levels(spec: &ImageSpec) -> Vec<f32> {
    let channels = spec.normalisation().into_iter();
    channels.flat_map(|(factor, offset)| (0..256).map(move |level| level as f32 * factor + offset)).collect()
}

fn level(fixed: i32) -> u8 {
    ((fixed + 4096) >> 13).clamp(0, 255) as u8
}

/// The pixel at `x`,`y` as RGB: `rgb_at` of picture.cu.
fn rgb_at(picture: &Picture<'_>, colour: [i32; 6], x: usize, y: usize) -> [u8; 3] {
    let planes = picture.planes();
    let byte =
        |plane: usize, row: usize, at: usize| planes[plane].data[row * planes[plane].stride_bytes + at];
    let packed = |bytes: usize, order: [usize; 3]| order.map(|channel| byte(0, y, x * bytes + channel));
    let yuv = match picture.format() {
        PixelFormat::Nv12 => [byte(0, y, x), byte(1, y / 2, x / 2 * 2), byte(1, y / 2, x / 2 * 2 + 1)],
        PixelFormat::I420 => [byte(0, y, x), byte(1, y / 2, x / 2), byte(2, y / 2, x / 2)],
        PixelFormat::Yuy2 => [byte(0, y, 2 * x), byte(0, y, x / 2 * 4 + 1), byte(0, y, x / 2 * 4 + 3)],
        PixelFormat::Rgb => return packed(3, [0, 1, 2]),
        PixelFormat::Bgr => return packed(3, [2, 1, 0]),
        PixelFormat::Rgbx | PixelFormat::Rgba => return packed(4, [0, 1, 2]),
        PixelFormat::Bgrx | PixelFormat::Bgra => return packed(4, [2, 1, 0]),
    };
    let [black, luma, red_of_v, green_of_u, green_of_v, blue_of_u] = colour;
    let [y, u, v] = yuv.map(i32::from);
    let (luma, u, v) = ((y - black) * luma, u - 128, v - 128);
    [level(luma + red_of_v * v), level(luma - green_of_u * u - green_of_v * v), level(luma + blue_of_u * u)]
}

fn rounded(value: f32) -> u8 {
    (value + 0.5).clamp(0.0, 255.0) as u8
}

/// One output of a direction; `pixel` gives its inputs.
fn weighed(taps: &Taps, output: usize, pixel: impl Fn(usize) -> [u8; 3]) -> [u8; 3] {
    let mut sums = [0.0_f32; 3];
    for tap in 0..taps.counts[output] as usize {
        let weight = taps.weights[tap * taps.outputs() + output];
        let levels = pixel(taps.starts[output] as usize + tap);
        sums.iter_mut().zip(levels).for_each(|(sum, level)| *sum += weight * f32::from(level));
    }
    sums.map(rounded)
}

/// A picture to `[3,height,width]`: colours to 8 bits in 13 bit fixed point with repeated chroma, along the rows to 8
/// bits, down the columns to 8 bits, then the table. Weights are f32; those of [`Taps`]. Halves are these values rounded.
///
/// Off from `sightline_vision::Preprocessor` by one level at most but for a few in a thousand, whose weights have 15 bits;
/// and with YUV by up to three levels, as its conversion has the precision of the processor's vectors.
pub fn preprocess(picture: &Picture<'_>, spec: &ImageSpec) -> Vec<f32> {
    let (width, height) = (spec.width_px, spec.height_px);
    let (from_width, from_height) = (picture.width_px() as usize, picture.height_px() as usize);
    let colour = fixed_point(picture.matrix(), picture.range());
    let columns = Taps::new(from_width, width, spec.filter);
    let rows = Taps::new(from_height, height, spec.filter);
    let levels = levels(spec);
    let mut narrowed = Vec::with_capacity(width * from_height);
    for y in 0..from_height {
        let line: Vec<[u8; 3]> = (0..from_width).map(|x| rgb_at(picture, colour, x, y)).collect();
        narrowed.extend((0..width).map(|x| weighed(&columns, x, |at| line[at])));
    }
    let mut out = vec![0.0; 3 * width * height];
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let rgb = weighed(&rows, y, |at| narrowed[at * width + x]);
        for (channel, level) in rgb.into_iter().enumerate() {
            out[(channel * height + y) * width + x] = levels[channel * 256 + usize::from(level)];
        }
    }
    out
}
